"""``hwsync doctor``: looks at a lab from this machine, and says what is wrong and what to do.

The law: it changes nothing; what is not there is a finding, never the end; each line is printed as
soon as it is known.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from hwsync import __version__, findings, webprobe
from hwsync.address import BrokerUrl
from hwsync.cli import checks, say
from hwsync.cli.common import (
    DATABASE,
    SERVICE_STATE,
    Settings,
    board_name,
    common,
    databases,
    echo_name,
)
from hwsync.cli.elsewhere import the_coordinators
from hwsync.cli.labs import folder_of, unsettled
from hwsync.findings import Finding, Result
from hwsync.operator.client import QUIET_S, Client
from hwsync.paths import state_directory
from hwsync.probe import dot_arrives, inspect_broker, largest, round_trip
from hwsync.protocol.errors import DatabaseError, Refused, Unreachable, UsageError
from hwsync.protocol.jsons import is_number
from hwsync.protocol.presence import is_online
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.itself import Boards, Health
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import Status
from hwsync.store.inspection import inspect

LOOK_S: Final = 9.0  # for a broker; a person waits no longer for "there is none"
KEPT_S: Final = 0.7  # for what the broker keeps of everybody, which comes at once
SUSPECTS: Final = 20  # boards that are looked at once more, where none is named
ANSWER_S: Final = 5.0  # for a coordinator
AGAIN_S: Final = 1.0  # for a second one
LISTEN_S: Final = 2.0  # to a board's topics: two devices of one name push each other out by turns


@click.command()
@common
@DATABASE
@click.argument("user", metavar="[BOARD]", type=board_name, required=False)
@click.pass_obj
def doctor(settings: Settings, db: Path | None, user: str | None) -> None:
    """Check broker, coordinator, database, disk and clock, and BOARD's device and record.

    One line for each finding: ok, warning or error, what was found, and the cure. The exit code is
    1 where there is an error.
    """
    worst = 0
    for finding in _all(settings, db, user):
        worst |= finding.result is Result.ERROR
        say.either(settings.as_json, asdict(finding), _line(finding))
    sys.exit(worst)


def _line(finding: Finding) -> str:
    label = "to type" if finding.result is Result.OK else "cure"
    cure = f"; {label}: {finding.cure}" if finding.cure else ""
    return f"{finding.result:8} {finding.check:12} {finding.found}{cure}"


def _all(settings: Settings, db: Path | None, user: str | None) -> Iterator[Finding]:
    url, topics = settings.url, settings.topics
    yield findings.ok("version", f"hwsync {__version__}, Python {platform.python_version()}")
    reached = yield from _broker(url, topics, user or "")
    ahead, health = (yield from _coordinator(url, topics)) if reached else (None, None)
    yield checks.clock(time.time(), ahead)
    yield from _database(db, health)
    yield from _disk(db, user)
    yield from _accounts()
    if reached and user is not None:
        yield from _user(url, topics, user, answers=ahead is not None)
    elif ahead is not None:
        yield from _everybody(url, topics, time.time() - ahead)


def _broker(url: BrokerUrl, topics: Topics, user: str) -> Generator[Finding, None, bool]:
    """Returns whether one lets us in."""
    seen = inspect_broker(url, LOOK_S)
    plain = inspect_broker(url, LOOK_S, prefer_v5=False) if seen.protocol == 5 else None
    yield checks.broker(str(url), seen, plain)
    if not seen.protocol:
        return False
    if seen.secured is not None:
        yield findings.certificate(seen.secured.version, seen.secured.expires, time.time())
    name = echo_name(url)
    took = round_trip(url, topics.echoes(name))
    yield checks.round_trip(took, url.scheme)
    if took is not None:
        arrives = dot_arrives(url, topics.dotted(name), topics.echoes(name)[0])
        yield findings.dots(arrives, topics.root, user)
        if not url.websockets:
            yield checks.largest(largest(url, topics.echoes(name)))
    for listener in webprobe.look(url):
        yield checks.web(listener)
    return True


def _coordinator(
    url: BrokerUrl, topics: Topics
) -> Generator[Finding, None, tuple[float | None, Health | None]]:
    """Returns how far our clock is ahead of its, None where none answers; and its last health."""
    last: Health | None = None
    lives: dict[float, Health] = {}  # by when it was started: each answer's coordinator
    ahead: float | None = None
    try:
        with Client(url, topics, ITSELF) as operator:
            for heard in operator.hear(QUIET_S):
                last = heard.health or last
            known = {last.get("time")} if last else set()

            def fresh(heard: Received) -> bool:
                """Not what the broker kept, also where that comes late."""
                at = heard.health.get("time") if heard.health else None
                if at is None:
                    return False
                new = bool(known) and at not in known
                known.add(at)
                return new

            answer = operator.ask(TopicKind.QUERY, b"", fresh, patience=ANSWER_S)
            last = answer.health
            ahead = time.time() - answer.fields["time"]
            operator.ask_coordinator()  # once more: two of them answer by turns, or both
            for heard in [answer, *operator.hear(AGAIN_S)]:
                health = heard.health
                if health is not None and health["condition"] in ("ok", "degraded"):
                    started: Any = health.get("started")
                    lives |= {started: health} if is_number(started) else {}
    except (Unreachable, Refused):
        pass
    yield checks.coordinator(ahead is not None, last, time.time())
    yield from checks.others(last, list(lives.values()))
    if ahead is not None and last is not None:
        yield from checks.health(last)
        yield from _analysts(url, topics, last)
    return ahead, last


def _analysts(url: BrokerUrl, topics: Topics, health: Health) -> Iterator[Finding]:
    """Who is online and offers what; what is waited for and nobody offers."""
    with suppress(Unreachable), Client(url, topics, ITSELF, analysts=True) as operator:
        for _ in operator.hear(QUIET_S):
            pass
        yield from checks.analysts(operator.standing.offers, health)


def _database(db: Path | None, health: Health | None) -> Iterator[Finding]:
    """``health``: the coordinator's, which says where its own is."""
    try:
        paths = [db] if db else databases()
    except UsageError as error:
        yield findings.error("database", error.message, error.hint)
        return
    for path in paths:
        try:
            seen = inspect(path)
            other = the_coordinators(path, health)
            yield checks.database(str(path), seen, named=db is not None, other=other)
        except PermissionError as error:
            yield checks.unreadable(str(error.filename))
        except DatabaseError as error:
            yield findings.error("database", error.message, error.hint)


def _usual_state(user: str) -> Path:
    """The same for the state of a board's device, where this account can see it."""
    folder = state_directory("--state-dir", f"device-{user}")
    unit = SERVICE_STATE / f"hwsync-device-{user}"
    return unit if not os.path.exists(folder) and os.path.isdir(unit) else folder


def _disk(db: Path | None, user: str | None) -> Iterator[Finding]:
    """Once for each file system on which something is kept."""
    folders: list[Path] = []
    with suppress(UsageError):  # there is no home directory: the database's check has said so
        paths = [db] if db else databases()
        folders += [Path(os.path.realpath(path)).parent for path in paths]
        folders += [] if user is None else [Path(os.path.realpath(_usual_state(user)))]
    seen: set[int] = set()
    for folder in folders:
        there = next(place for place in (folder, *folder.parents) if os.path.isdir(place))
        device, state = os.stat(there).st_dev, os.statvfs(there)
        if device not in seen:
            seen.add(device)
            yield checks.disk(str(folder), state.f_bavail * state.f_frsize)


def _accounts() -> Iterator[Finding]:
    """Of the lab on this machine, where there is one that can be read."""
    folder = folder_of(None)
    with suppress(UsageError):
        if (folder.path / "lab.json").exists() and (found := unsettled(folder.accounts)):
            yield findings.warning("accounts", *found)


@dataclass(slots=True)
class _Heard:
    """What was heard of one board; ``boards``: whom the coordinator hears, None: it did not say."""

    beats: list[Heartbeat] = field(default_factory=list)
    record: Status | None = None
    boards: Boards | None = None

    def note(self, heard: Received) -> None:
        if heard.heartbeat is not None:
            self.beats.append(heard.heartbeat)
        elif heard.status is not None:
            self.record = heard.status

    def listen(self, operator: Client, *, answers: bool) -> None:
        """The list of boards comes last: what it says of a heartbeat is of the last one here."""
        for heard in operator.hear(LISTEN_S):
            self.note(heard)
        if not answers:
            return
        operator.ask_coordinator()
        for heard in operator.hear(ANSWER_S):
            if heard.boards is not None:
                self.boards = heard.boards
                return
            self.note(heard)


def _user(url: BrokerUrl, topics: Topics, user: str, *, answers: bool) -> Iterator[Finding]:
    heard = _Heard()
    trouble: list[Finding] = []
    try:
        with Client(url, topics, user, boards=answers) as operator:
            heard.listen(operator, answers=answers)
            if answers:
                heard.record = operator.record()
    except Unreachable as error:
        trouble.append(findings.error("record", error.message, error.hint))
    except Refused as error:  # an account may have groups only: what the broker keeps must do
        trouble.append(findings.warning("record", error.message, error.hint))
    beats, record, boards = heard.beats, heard.record, heard.boards
    yield from checks.device(user, beats, boards)
    yield from checks.replaced(user, record, beats)
    yield from trouble
    if record:
        now = boards["time"] if boards else time.time()  # its deadline is of that clock
        online = is_online(user, beats[-1] if beats else None, boards) is not False
        yield checks.record(user, record, now, online=online)
        yield from checks.unheard(user, record, beats, now)
    elif not answers:
        cure = "start the coordinator: it publishes what it has"
        yield findings.warning("record", f"the broker has none of {user}", cure)


def _everybody(url: BrokerUrl, topics: Topics, now: float) -> Iterator[Finding]:
    """Whoever does not hear the coordinator; ``now``: by its clock. The others are no finding."""
    users: dict[str, _Heard] = {}
    try:
        with Client(url, topics, "+") as operator:
            for one in operator.hear(KEPT_S):
                users.setdefault(one.user, _Heard()).note(one)
        suspects = [
            (name, one.beats)
            for name, one in sorted(users.items())
            if one.record and any(checks.unheard(name, one.record, one.beats, now))
        ]
        for name, beats in suspects[:SUSPECTS]:
            with Client(url, topics, name) as operator:  # the record may have gone on meanwhile
                yield from checks.unheard(name, operator.record(), beats, now)
    except (Unreachable, Refused) as error:
        yield findings.error("record", error.message, error.hint)


COMMANDS = (doctor,)
