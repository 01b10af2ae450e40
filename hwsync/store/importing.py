"""What the original system has recorded, taken over into the coordinator's database.

The law: all of it or nothing, in one transaction, and nothing twice: a command has an id that
follows from what the original says of it. Each step is a row of the log, marked as imported and in
the chain like any other; nothing that is there already is changed, and no record moves but from
rest to rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.admission import digest_of
from hwsync.protocol.effects import LogEntry
from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.jsons import cut, dumps
from hwsync.protocol.record import (
    Command,
    Outcome,
    Ran,
    Record,
    Request,
    RunReport,
    State,
    Verb,
    replace,
)
from hwsync.store.api import Changes
from hwsync.store.original import Cycle, Original, User, original, seconds_of
from hwsync.store.read_only import OpenFile
from hwsync.store.store import Store

AT_A_TIME: Final = 500  # commands that are in memory
NOTE: Final = "imported from the original system"
META: Final = "original"  # the key of ``meta`` that says who it was there
LONGEST_NAME: Final = 256  # characters of that
TIMEOUT: Final = "TIMEOUT"  # what its worker answers for any failure
STRANGE: Final = re.compile(r"[^A-Za-z0-9._-]+")

Progress = Callable[[int], object]  # commands so far


@dataclass(slots=True)
class Taken:
    """What became of one user's commands."""

    board: str  # what it is called here
    user: str  # and there
    commands: int = 0  # that are new here
    known: int = 0  # that were here already
    changed: int = 0  # among them, of which the original says something else now
    open: int = 0  # among the new ones, that had not ended
    unclear: int = 0  # whose analysis may be that of the one before
    ignored: int = 0  # requests that had changed nothing
    odd: int = 0  # rows whose state is none
    seen: Counter[bytes] = field(default_factory=Counter)  # of time and program a hash: it is short


def take_over(
    path: Path,
    status: Path,
    archive: Path,
    wall: float,
    *,
    dry_run: bool = False,
    progress: Progress = lambda _: None,
) -> tuple[list[Taken], tuple[str, ...]]:
    """Import both databases into the one at ``path``; what was taken over, and other tables.

    ``wall``: now, in Unix seconds; ``dry_run``: nothing is kept of it. Raises ``DatabaseError``: a
    coordinator uses the database, a file is none, a board there has something open; the database is
    of an earlier hwsync, which ``dry_run`` would have to change.
    """
    with original(status, archive) as source, contextlib.ExitStack() as stack:
        if dry_run and path.exists():
            OpenFile(path.resolve(), for_long=True).close()  # of this schema, or nothing
        elif dry_run:  # it is not made for that
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
        store = stack.enter_context(contextlib.closing(Store(path)))
        importing = _Importing(store, source, wall, progress)
        store.save_all(importing.rounds(), keep=not dry_run)
        return list(importing.taken.values()), source.others


class _Importing:
    def __init__(self, store: Store, source: Original, wall: float, progress: Progress) -> None:
        self._store, self._source, self._wall, self._progress = store, source, wall, progress
        self._records = store.load(0.0)
        self._epoch, _ = store.epoch(wall)
        self._users: dict[str, User] = {}
        self.taken: dict[str, Taken] = {}  # by user

    def rounds(self) -> Iterator[Changes]:
        """A round for some hundred commands each; the records with the last one."""
        changes, count, touched = Changes(), 0, set[str]()
        for user, cycle in self._source.cycles(self._users):
            taken = self._taken(user.name)
            command = self._command(taken, cycle)
            known = changes.commands.get((taken.board, command.id))
            known = known or self._store.command(taken.board, command.id)
            if known is not None:
                taken.known += 1
                taken.changed += (known.report, known.analysis) != (
                    command.report,
                    command.analysis,
                )
                continue
            touched.add(taken.board)
            self._take(changes, taken, cycle, command)
            count += 1
            if count % AT_A_TIME == 0:
                yield changes
                changes = Changes()
                self._progress(count)
        for name, user in self._users.items():
            taken = self._taken(name)
            taken.ignored, taken.odd = user.ignored, user.odd
        changes.records = {board: self._records[board] for board in touched}
        yield changes

    def _taken(self, user: str) -> Taken:
        if user not in self.taken:
            self.taken[user] = Taken(board_of(user), user)
        return self.taken[user]

    def _take(self, changes: Changes, taken: Taken, cycle: Cycle, command: Command) -> None:
        record = self._record(taken.board)
        command = replace(command, number=record.count + 1)
        is_newest = record.seq == 0 or (record.current is not None and is_imported(record.current))
        for verb, after, note in steps(cycle):
            before = record.state
            record = replace(record, state=after, seq=record.seq + 1, verb=verb, time=self._wall,
                             count=command.number,
                             current=command if is_newest else record.current)  # fmt: skip
            text = "; ".join(filter(None, (NOTE, note)))
            changes.log.append((record, LogEntry(verb, before, after, command.id, note=text), None))
        self._records[taken.board] = record
        changes.commands[taken.board, command.id] = command
        taken.commands += 1
        taken.open += cycle.end == "open"
        taken.unclear += cycle.same_analysis and cycle.analysis is not None

    def _record(self, board: str) -> Record:
        record = self._records.get(board)
        if record is None:
            if len(self._records) >= limits.MAX_USERS:
                raise DatabaseError(
                    f"there are more than {limits.MAX_USERS:,} boards",
                    "import the archive into a database of its own",
                )
            record = self._records[board] = Record(board, epoch=self._epoch)
        if record.state is not State.REST or record.queue or record.batched:
            raise DatabaseError(
                f"{board} has a command that is open, or that waits; nothing was imported",
                f"start the coordinator, end it (hwsync cancel {board}), and import then",
            )
        return record

    def _command(self, taken: Taken, cycle: Cycle) -> Command:
        key = hashlib.sha256(dumps([cycle.time, cycle.program]).encode()).digest()
        taken.seen[key] += 1
        id = id_of(taken.user, cycle.time, cycle.program, taken.seen[key])
        meta = dumps({META: taken.user[:LONGEST_NAME]})
        request = Request(cycle.program, id=id, analysis="manual", meta=meta)
        report = report_of(cycle)
        analysis = None if cycle.analysis is None else cut(cycle.analysis, limits.MAX_ANALYSIS)
        return Command(
            taken.board, id, request, digest=digest_of(request),
            issued=seconds_of(cycle.time) or 0.0, report=report, analysis=analysis,
            doubtful=report.ran is Ran.MAYBE,
            program_sha256=hashlib.sha256(cycle.program.encode()).hexdigest(),
        )  # fmt: skip


def board_of(user: str) -> str:
    """A board's name for a user of the original; another than his where that is none here.

    Then it ends with digits of a hash, so that no two become one.
    """
    if limits.is_user(user):
        return user
    digest = hashlib.sha256(user.encode()).hexdigest()[:8]
    safe = STRANGE.sub("-", user).strip("-._")[:40]
    return f"{safe or 'user'}-{digest}"


def id_of(user: str, time: str, program: str, number: int) -> str:
    """The same for the same command, however often it is imported."""
    digest = hashlib.sha256(dumps([user, time, program, number]).encode()).hexdigest()
    return f"original-{digest[:16]}"


def is_imported(command: Command) -> bool:
    """Whether it came from here."""
    return command.id.startswith("original-") and META in command.request.meta


def report_of(cycle: Cycle) -> RunReport:
    """How it ended, as far as the original says it; where it does not, it may have run."""
    if not cycle.known:
        why = "only the record at rest is known; what it answered may be of an earlier program"
        return _with_response(RunReport(Outcome.LOST, Ran.MAYBE, why), cycle.response or "")
    if cycle.response == TIMEOUT:
        why = "the original writes TIMEOUT for any failure"
        return _with_response(RunReport(Outcome.TIMEOUT, Ran.MAYBE, why), TIMEOUT)
    if cycle.response is not None:
        why = "the original keeps no exit code"
        return _with_response(RunReport(Outcome.OK, Ran.YES, why), cycle.response)
    if cycle.collected:
        return RunReport(Outcome.LOST, Ran.MAYBE, f"no answer: {ENDS[cycle.end]}")
    # Its worker ran what it saw in state 1 also where its word of that did not arrive.
    outcome = Outcome.CANCELLED if cycle.end == "reset" else Outcome.EXPIRED
    return RunReport(outcome, Ran.MAYBE, f"not collected: {ENDS[cycle.end]}")


ENDS: Final = {
    "reset": "it was reset",
    "open": "it was open when it was imported",
    "missing": "the archive does not have its end",
}


def _with_response(report: RunReport, text: str) -> RunReport:
    whole = hashlib.sha256(text.encode()).hexdigest()
    if len(text.encode()) <= limits.MAX_RESPONSE:
        return replace(report, response=text, sha256_stdout=whole)
    half = limits.MAX_RESPONSE // 2
    end = text.encode()[-half:].decode(errors="ignore")
    return replace(report, response=cut(text, half) + end, sha256_stdout=whole, truncated=True)


def steps(cycle: Cycle) -> Iterator[tuple[Verb, State, str]]:
    """The rows of the log: the verb, the state after it, and what is to be said of it."""
    yield Verb.REQUEST, State.REQUESTED, f"its time there: {cycle.time[:64] or 'none'}"
    if cycle.known and (cycle.collected or cycle.response is not None):
        yield Verb.RETRIEVAL, State.COLLECTED, ""
        if cycle.response is not None:
            yield Verb.RESPONSE, State.RETURNED, ""
    if cycle.analysis is not None:
        note = "the same text as before it: an analysis, or a reset" if cycle.same_analysis else ""
        yield Verb.ANALYSIS, State.REST, note
    elif cycle.end == "reset":
        yield Verb.RESET, State.REST, ""
    else:
        yield Verb.EXPIRE, State.REST, ENDS.get(cycle.end, "")
