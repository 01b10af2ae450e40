"""``hwsync-device --check``: what it would do, and whether that can work; changes nothing.

One line for each thing: ``ok`` or ``error``, what was found, and the cure. Everything together
takes at most about a quarter of a minute, unless an interpreter hangs: that is waited for a minute.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from hwsync.configfile import shown
from hwsync.device.config import KEYS, Config
from hwsync.device.life import Setup
from hwsync.findings import CLOCK_SET, Finding, Result, certificate, dots, error, ok
from hwsync.logs import escape
from hwsync.probe import dot_arrives, inspect_broker
from hwsync.protocol.errors import CannotRun
from hwsync.runner import Job, Runner, Settings, StopSwitch

BROKER_S: Final = 7.0  # for the broker to let us in; an attempt may take 5
RUN_S: Final = 10.0  # for a program that prints one number


def findings(config: Config, setup: Setup) -> Iterator[Finding]:
    """Each as soon as it is known."""
    yield ok("name", setup.user)
    keys = {key.name: key for key in KEYS}
    for name, value in config.values.items():
        if name == "broker":
            found = str(setup.url)  # without its password
        elif name == "programs.environment":
            found = ", ".join(value) or "nothing"  # a key may be among the texts
        else:
            found = shown(keys.get(name), value)
        yield ok(name, f"{found}, from {config.sources[name]}")
    yield _clock(time.time())
    yield _journal(setup.state)
    yield from _broker(setup)
    yield from _programs(setup.settings)


def show(found: Iterator[Finding], *, as_json: bool) -> int:
    """Print them; the exit code."""
    failed = False
    for one in found:
        failed |= one.result is Result.ERROR
        if as_json:
            print(json.dumps(asdict(one), separators=(",", ":")), flush=True)  # ASCII
            continue
        print(escape(f"{one.result:6} {one.check}: {one.found}"), flush=True)
        if one.cure:
            print(f"       {escape(one.cure)}", flush=True)
    return 1 if failed else 0


def _clock(now: float) -> Finding:
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < CLOCK_SET:
        return error("clock", f"it was never set: {shown}", "timedatectl set-ntp true")
    return ok("clock", shown)


def _journal(state: Path) -> Finding:
    cure = "name another folder with --state-dir"
    existing = next(path for path in (state, *state.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return error("journal", f"{existing} cannot be written", cure)
    file = state / "journal.db"
    if not file.exists():
        return ok("journal", f"a new one will be made in {state}")
    try:
        with open(state / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ok("journal", f"{state} is in use by a hwsync-device that runs now")
    except OSError as failure:
        return error("journal", f"{state / 'lock'}: {failure.strerror}", cure)
    try:
        db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            (said,) = db.execute("pragma quick_check").fetchone()
        finally:
            db.close()
    except sqlite3.Error as failure:
        said = str(failure)
    if said != "ok":
        cure = "it is set aside at the next start, and a new one is made"
        return error("journal", f"{file} is damaged: {said}", cure)
    return ok("journal", f"{file}, {file.stat().st_size:,} bytes")


def _broker(setup: Setup) -> Iterator[Finding]:
    url, topics = setup.url, setup.topics
    seen = inspect_broker(url, BROKER_S, prefer_v5=False)
    if seen.taken:
        yield ok("broker", f"{url}: {seen.reason}")
    elif not seen.protocol:
        cure = "start one, or name it with --broker; a password belongs into a --credentials file"
        yield error("broker", f"{url}: {seen.reason}", seen.cure or cure)
        return
    else:
        yield ok("broker", str(url))
    if seen.secured is not None:
        yield certificate(seen.secured.version, seen.secured.expires, time.time())
    if "." in setup.user and not seen.taken:
        name = secrets.token_hex(4)
        yield dots(dot_arrives(url, topics.dotted(name), topics.echoes(name)[0]), setup.user)


def _programs(settings: Settings) -> Iterator[Finding]:
    """Run a program as a command would be; in a folder of its own, where ours is not there yet."""
    how = " ".join(settings.interpreter) or f"{settings.python}, {settings.start}"
    how += f", isolation {settings.isolation}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Not in the real one: it would be emptied, under a program that runs there now.
            runner = Runner(replace(settings, directory=Path(folder), empty_directory=False))
            if settings.run_as:
                os.chmod(folder, 0o777)
            try:
                began = time.monotonic()
                runner.start()
                ready = time.monotonic()
                program = "exit 0" if settings.interpreter else "print(6*7)"
                end = runner.run(
                    Job(program, "", (), RUN_S),
                    on_started=lambda group: None,
                    on_output=lambda piece: None,
                    stop=StopSwitch(),
                )
                took = time.monotonic() - ready
            finally:
                runner.close()
    except CannotRun as failure:
        yield error("programs", failure.message, failure.hint or "")
        return
    except OSError as failure:
        yield error("programs", f"no temporary folder: {failure.strerror}", "see df -h")
        return
    if end.outcome != "ok":
        last = end.stderr.strip().rpartition("\n")[2]
        yield error("programs", f"{how}: {end.reason} {last}", "see the limits")
        return
    found = f"{how}: ready after {ready - began:.2f} s, a program took {took * 1000:.0f} ms"
    yield ok("programs", found)
