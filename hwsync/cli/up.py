"""``hwsync up``: everything on this machine, for the first minutes and for one-machine labs."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import IO, Final

import click

from hwsync import connection
from hwsync.address import BrokerUrl
from hwsync.cli.common import (
    FILE,
    FOLDER,
    Settings,
    common,
    default_database,
    echo_name,
    find_mosquitto,
)
from hwsync.cli.say import line
from hwsync.operator.client import Client
from hwsync.probe import SLOW_S, Seen, inspect_broker, round_trip
from hwsync.protocol.errors import HwsyncError, NoBroker, UsageError
from hwsync.protocol.limits import is_user
from hwsync.protocol.record import Analyser

PYTHON: Final = (sys.executable, "-P", "-m")  # -P: a select.py of the person's is not Python's
START_S: Final = 15.0  # for a broker to accept connections
STOP_S: Final = 10.0  # for a part to end by itself, before it is asked again, and then killed
CONNECTED: Final = b" connected to "  # in a line of a part's log
LOCAL: Final = ("127.0.0.1", "localhost", "::1")


@click.command()
@common
@click.option("--user", "users", metavar="BOARD", multiple=True,
              help="A board here (default: the host's name); again for another.")  # fmt: skip
@click.option("--db", type=FILE, help="The database.")
@click.option(
    "--analysis",
    type=click.Choice(tuple(map(str, Analyser))),
    default=str(Analyser.MANUAL),
    show_default=True,
)
@click.option("--groups", type=FILE, metavar="FILE", help="The lab's groups (see coordinator).")
@click.option("--analysers", type=FOLDER, metavar="DIR", help="Judge results by those in DIR.")
@click.option("--allow-root", is_flag=True, help="As root: run programs as root.")
@click.option("--lan", is_flag=True, help="Let other machines in; says what that means.")
@click.pass_obj
def up(
    settings: Settings, users: tuple[str, ...], db: Path | None, analysis: str,
    groups: Path | None, analysers: Path | None, allow_root: bool, lan: bool,
) -> None:  # fmt: skip
    """Start broker, coordinator and a device on this machine; Ctrl-C ends them all.

    \b
    hwsync up --user pi1
    hwsync up --user pi1 --user pi2     two boards, to try things out
    hwsync up --analysers analysers/    an analyst beside them, to judge results
    """
    users = tuple(dict.fromkeys(users)) or (socket.gethostname(),)
    for user in users:
        if not is_user(user):
            raise UsageError(f"{user!r} is no board's name", "name this device with --user")
    names = _analysers(analysers) if analysers is not None else []
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    parts: list[_Part] = []
    try:
        url, topics, database = settings.url, settings.topics, db or default_database()
        seen = _broker(url, lan, database.parent, parts, ended)
        say(f"broker: {seen.name} at {url}")
        _lacks(url, seen, topics.echoes(echo_name(url)))
        here = list(PYTHON)
        where = connection.variables(url, topics.root)
        where |= {connection.FILE_VARIABLE: str(settings.config)} if settings.config else {}
        plain = ["--allow-plaintext"] if settings.given.get("allow_plaintext") else []
        command = [*here, "hwsync.cli", "coordinator", "--db", str(database)]
        command += ["--analysis", analysis, *plain]
        command += ["--groups", str(groups)] if groups else []
        command += [] if seen.keeps_sessions else ["--clean-session"]
        parts.append(_Part("coordinator", command, ended, where))
        may_run = allow_root or os.geteuid() != 0
        if not may_run:
            say("no device here: as root its programs would run as root (--allow-root allows it)")
        for user in users if may_run else ():
            command = [*here, "hwsync.device.service", "--user", user]
            command += [*plain, *(["--allow-root"] if allow_root else [])]
            command += ["--state-dir", str(database.parent / f"device-{user}")]
            name = "device" if len(users) == 1 else f"device {user}"
            parts.append(_Part(name, command, ended, where))
        if analysers is not None:
            command = [*here, "hwsync.cli", "analyst", "--dir", str(analysers), *plain]
            parts.append(_Part("analyst", command, ended, where))
        if lan:
            _tell_lan(url)
        # Before its first subscription the coordinator hears nothing: it is ready when it answers.
        with Client(url, topics, users[0]) as operator:
            operator.record(lambda: _all_live(parts))
        if analysers is not None:
            parts[-1].wait_until_connected()
            _all_live(parts)
            say(f"the analyst offers {', '.join(names)}")
        hint = f"; try:  hwsync run {','.join(users)} -c 'print(6*7)'" if may_run else ""
        if analysis == Analyser.MANUAL:
            say(
                "a program sent by mosquitto_pub waits for somebody's analysis when it has ended, "
                f"an hour at most:  hwsync analyse {users[0]} TEXT   (hwsync run does without)"
            )
        say(f"ready{hint}   (Ctrl-C here ends everything)")
        ended.get()
        _all_live(parts)
    except KeyboardInterrupt:
        say("ending")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for part in reversed(parts):
            part.stop()


def _analysers(folder: Path) -> list[str]:
    """The names of those in the folder. Raises ``UsageError`` where there is none."""
    from hwsync.analysers.folder import Folder

    names = sorted(Folder(folder).scan().keys() - {Analyser.OUTCOME})
    if not names:
        raise UsageError(
            f"there is no analyser in {folder}",
            "put one there: check1.py with a function analyse(run), or check1.toml with a builtin "
            "(docs/analysers.md)",
        )
    return names


def _all_live(parts: list[_Part]) -> None:
    """Raises ``HwsyncError`` that names a part which has ended."""
    for part in parts:
        if not part.running:
            raise HwsyncError(
                f"the {part.name} ended by itself, see above", "everything else is ended"
            )


def say(text: str) -> None:
    """One line of ``up`` itself."""
    line(f"up           {text}", err=True)


class _Part:
    """A process whose lines are shown under its name."""

    def __init__(self, name: str, command: list[str], ended: queue.SimpleQueue[str],
                 variables: dict[str, str]) -> None:  # fmt: skip
        self.name = name
        self._ended = ended
        self._connected = threading.Event()
        # A session of its own: Ctrl-C reaches this process alone, which ends the others in order.
        # Where this process is killed outright, the kernel ends them.
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
        self._process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._show, args=(self._process.stdout,), daemon=True).start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until_connected(self) -> None:
        """For ``START_S`` at most, or until it has ended."""
        limit = time.monotonic() + START_S
        while self.running and time.monotonic() < limit and not self._connected.wait(0.1):
            pass

    def _show(self, stream: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            for line_of in stream:
                if CONNECTED in line_of:
                    self._connected.set()
                said = line_of.decode(errors="replace").rstrip()
                line(f"{self.name:12} {said}", err=True)  # mosquitto escapes nothing
        self._process.wait()
        self._ended.put(self.name)

    def stop(self) -> None:
        # A device lets its program end by itself; the second signal ends that too, and it is told.
        for ask in (self._process.terminate, self._process.terminate, self._process.kill):
            ask()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
                return


def _broker(url: BrokerUrl, lan: bool, state: Path, parts: list[_Part],
            ended: queue.SimpleQueue[str]) -> Seen:  # fmt: skip
    """The broker that is reachable, else one of ours."""
    found = _look(url)
    if found is not None:
        if lan:
            say(
                "this broker was there already: whether it lets other machines in is its own affair"
            )
        return found
    if url.host not in LOCAL or url.scheme != "mqtt":
        raise NoBroker(f"no broker answers at {url}", "start it there, or leave --broker out")
    state.mkdir(parents=True, exist_ok=True)
    address = "0.0.0.0" if lan else "127.0.0.1"
    mosquitto = find_mosquitto()
    conf = _configuration(state, url.port, address, mosquitto is not None)
    command = [*PYTHON, "hwsync.cli", "broker", str(conf)]
    if mosquitto is not None:
        command = [mosquitto, "-c", str(conf)]
    else:
        say("mosquitto is not installed: the embedded broker (amqtt) serves, which forgets more")
    part = _Part("broker", command, ended, {})
    parts.append(part)
    limit = time.monotonic() + START_S
    while time.monotonic() < limit and part.running:
        if (found := _look(url)) is not None:
            return found
        time.sleep(0.1)
    raise NoBroker(f"the broker did not start at {url}, see above", "is the port taken?")


def _configuration(state: Path, port: int, address: str, mosquitto: bool) -> Path:
    """The packaged broker.conf with this port, and for mosquitto a folder that it may write."""
    lines = files("hwsync.broker").joinpath("broker.conf").read_text(encoding="utf-8").splitlines()
    ours = ("listener ", "persistence_location ", "user ")
    kept = [line for line in lines if not line.startswith(ours)]
    made = [f"listener {port} {address}"]
    if mosquitto:
        folder = state / "mosquitto"
        folder.mkdir(exist_ok=True)
        # Only what is wrong: who connects would bury what the other parts say.
        quiet = ["log_type error", "log_type warning"]
        made = [f"persistence_location {folder}/", *quiet, *made]
        made += ["user root"] if os.geteuid() == 0 else []
    # What stands after a listener is that listener's: global lines first.
    conf = state / "up-broker.conf"
    own = [line for line in kept if line.startswith("allow_anonymous")]
    rest = [line for line in kept if not line.startswith("allow_anonymous")]
    conf.write_text("\n".join([*rest, *made, *(own or ["allow_anonymous true"])]) + "\n")
    return conf


def _look(url: BrokerUrl) -> Seen | None:
    """What answers there; None where nothing does. Raises ``NoBroker`` for a refused login."""
    seen = inspect_broker(url, START_S)
    if seen.refused:
        raise NoBroker(f"{url}: {seen.reason}", "see --credentials")
    if seen.cure:  # something is there, and not what was asked for
        raise NoBroker(f"{url}: {seen.reason}", seen.cure)
    return seen if seen.protocol else None


def _lacks(url: BrokerUrl, seen: Seen, topics: tuple[str, str]) -> None:
    """Say what this broker does not give."""
    if seen.forgets:
        say("amqtt forgets retained messages and sessions when it restarts, and speaks 3.1.1 only")
    seconds = round_trip(url, topics)
    if seconds is not None and seconds > SLOW_S:
        why = "that is wss" if url.scheme == "wss" else "no set_tcp_nodelay"
        say(f"a round trip takes {seconds * 1000:.0f} ms: {why}")


def _tell_lan(url: BrokerUrl) -> None:
    host = socket.gethostname()
    say("RISK: whoever reaches this machine's network can run programs on every board, and here")
    say(f"on each board:  hwsync-device --broker mqtt://{host}:{url.port}")


COMMANDS = (up,)
