"""``hwsync-device --check``: what it would do, and whether that can work; changes nothing.

One line for each thing: ``ok`` or ``error``, what was found, and the cure. Everything together
takes at most about a quarter of a minute.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.device.config import Config
from hwsync.logs import escape
from hwsync.protocol.errors import CannotRun, HwsyncError
from hwsync.protocol.jsons import dumps
from hwsync.runner import Job, Runner, Settings, StopSwitch
from hwsync.transport import Disconnected, Signal, Subscribed, Subscription, Transport

CLOCK_SET: Final = 1_704_067_200.0  # 2024-01-01: hwsync is younger, so a clock before was never set
BROKER_S: Final = 5.0  # for the broker to let us in
RUN_S: Final = 10.0  # for a program that prints one number


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``cure`` is empty where all is well."""

    check: str
    result: str  # "ok" or "error"
    found: str
    cure: str = ""


def findings(
    config: Config, user: str, url: BrokerUrl, topic: str, state: Path, settings: Settings
) -> Iterator[Finding]:
    """Each as soon as it is known; ``topic``: one that this device reads."""
    yield Finding("name", "ok", user)
    for name, value in config.values.items():
        shown = url if name == "broker" else value  # without its password
        yield Finding(name, "ok", f"{shown}, from {config.sources[name]}")
    yield _clock(time.time())
    yield _journal(state)
    yield _broker(url, topic)
    yield from _programs(settings)


def show(found: Iterator[Finding], *, as_json: bool) -> int:
    """Print them; the exit code."""
    failed = False
    for one in found:
        failed |= one.result != "ok"
        if as_json:
            print(dumps(asdict(one)), flush=True)
            continue
        print(f"{one.result:6} {one.check}: {escape(one.found)}", flush=True)
        if one.cure:
            print(f"       {escape(one.cure)}", flush=True)
    return 1 if failed else 0


def _error(check: str, error: HwsyncError) -> Finding:
    return Finding(check, "error", error.message, error.hint or "")


def _clock(now: float) -> Finding:
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < CLOCK_SET:
        return Finding("clock", "error", f"it was never set: {shown}", "timedatectl set-ntp true")
    return Finding("clock", "ok", shown)


def _journal(state: Path) -> Finding:
    cure = "name another folder with --state-dir"
    existing = next(path for path in (state, *state.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("journal", "error", f"{existing} cannot be written", cure)
    file = state / "journal.db"
    if not file.exists():
        return Finding("journal", "ok", f"a new one will be made in {state}")
    try:
        with open(state / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding("journal", "ok", f"{state} is in use by a hwsync-device that runs now")
    except OSError as error:
        return Finding("journal", "error", f"{state / 'lock'}: {error.strerror}", cure)
    try:
        db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            (said,) = db.execute("pragma quick_check").fetchone()
        finally:
            db.close()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        cure = "it is set aside at the next start, and a new one is made"
        return Finding("journal", "error", f"{file} is damaged: {said}", cure)
    return Finding("journal", "ok", f"{file}, {file.stat().st_size:,} bytes")


def _broker(url: BrokerUrl, topic: str) -> Finding:
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    transport = Transport(
        url,
        f"hwsync-check-{os.getpid()}",
        on_signal=inbox.put,
        subscriptions=[Subscription(topic)],
    )
    transport.start()
    limit, reason = time.monotonic() + BROKER_S, f"no answer within {BROKER_S:g} s"
    try:
        while (left := limit - time.monotonic()) > 0:
            heard = inbox.get(timeout=left)
            if isinstance(heard, Subscribed):
                return Finding("broker", "ok", str(url))
            if isinstance(heard, Disconnected):
                reason = heard.reason
                break
    except queue.Empty:
        pass
    finally:
        # An attempt that hangs holds its thread longer than anybody should wait for it.
        threading.Thread(target=transport.stop, args=(0.0,), daemon=True).start()
    cure = "start one, or name it with --broker; a password belongs into a --credentials file"
    return Finding("broker", "error", f"{url}: {reason}", cure)


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
                    on_output=lambda number, stream, text: None,
                    stop=StopSwitch(),
                )
                took = time.monotonic() - ready
            finally:
                runner.close()
    except CannotRun as error:
        yield _error("programs", error)
        return
    except OSError as error:
        yield Finding("programs", "error", f"no temporary folder: {error.strerror}", "see df -h")
        return
    if end.outcome != "ok":
        last = end.stderr.strip().rpartition("\n")[2]
        yield Finding("programs", "error", f"{how}: {end.reason} {last}", "see the limits")
        return
    found = f"{how}: ready after {ready - began:.2f} s, a program took {took * 1000:.0f} ms"
    yield Finding("programs", "ok", found)
