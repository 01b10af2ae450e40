"""Writes a database of a lab that has run for years, as its coordinator would have written it.

The law: every row goes through what the coordinator saves with (``hwsync.store.store``), so the
file is of the present schema, its chain holds, and ``hwsync check-db`` finds nothing. Only the disk
is not waited for. The same arguments give the same runs.

    python benchmarks/past.py FILE --commands 250000 --boards 30

A command is four rows of the log (request, collected, response, analysis): 250,000 of them are a
million. ``meta`` has a course, an assignment (``lab1`` to ``lab200``, each as many runs as any
other), and a student.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwsync.protocol.admission import digest_of
from hwsync.protocol.effects import LogEntry
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import Message
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import (
    RAN_BY_OUTCOME,
    Asker,
    Command,
    KnownBy,
    Outcome,
    Record,
    Request,
    RunReport,
    State,
    Verb,
)
from hwsync.store.api import Changes, RefusedRow
from hwsync.store.store import Store

ASSIGNMENTS: Final = 200
STUDENTS: Final = 90
EACH: Final = 2_000  # commands in one transaction
APART_S: Final = 60.0  # between two requests
BEGIN: Final = 1_700_000_000.0
JOURNAL: Final = "0123456789abcdef"
PROGRAM: Final = """\
import time
for number in range(10):
    print(number, {number} * number)
    time.sleep(0.01)
"""
OUTCOMES: Final = (
    *(Outcome.OK,) * 8,
    *(Outcome.ERROR, Outcome.ERROR, Outcome.TIMEOUT, Outcome.LOST, Outcome.EXPIRED),
)
STEPS: Final = (
    (Verb.REQUEST, State.REST, State.REQUESTED, "request"),
    (Verb.RETRIEVAL, State.REQUESTED, State.COLLECTED, "collected"),
    (Verb.RESPONSE, State.COLLECTED, State.RETURNED, "response"),
    (Verb.ANALYSIS, State.RETURNED, State.REST, "analysis"),
)


def board(number: int) -> str:
    """The name of one of the boards."""
    return f"pi{number + 1:02}"


def fill(path: Path, commands: int, boards: int = 30, seed: int = 1) -> None:
    """Write a database at ``path``, where none may be yet."""
    dice = random.Random(seed)
    store = Store(path)
    store.database.connection.execute("PRAGMA synchronous = off")
    records = {board(number): Record(board(number), epoch=1) for number in range(boards)}
    try:
        changes = Changes(epoch=(1, BEGIN))
        for number in range(commands):
            _one(changes, records, number, boards, dice)
            if (number + 1) % EACH == 0 or number + 1 == commands:
                changes.records = dict(records)
                store.save(changes, 0.0)
                changes = Changes()
    finally:
        store.close()


def _one(
    changes: Changes, records: dict[str, Record], number: int, boards: int, dice: random.Random
) -> None:
    """One command from its request to its end, and now and then a message that was refused."""
    user, issued = board(number % boards), BEGIN + APART_S * number
    record = records[user]
    command = _command(user, number, record.count + 1, issued, dice)
    for seq, (verb, before, after, kind) in enumerate(STEPS, record.seq + 1):
        moved = replace(
            record, state=after, seq=seq, verb=verb, time=issued + seq - record.seq,
            count=command.number, current=command,
        )  # fmt: skip
        note = command.asker.note if verb is Verb.REQUEST and command.asker else ""
        entry = LogEntry(verb, before, after, command.id, note=note)
        changes.log.append((moved, entry, Message(f"hw/{user}/{kind}", _payload(verb, command))))
    records[user] = moved
    changes.commands[user, command.id] = command
    if number % 50 == 0:
        refusal = Refused(Code.WRONG_STATE, "analysis is for state 3", "wait for the result")
        message = Message(f"hw/{user}/analysis", b"right")
        changes.refused.append(RefusedRow(user, user, issued, refusal, message, State.REST))


def _command(user: str, number: int, count: int, issued: float, dice: random.Random) -> Command:
    text = PROGRAM.format(number=number % 1_000)
    student = f"s{dice.randrange(STUDENTS):02}"
    meta = {"course": "1b", "assignment": f"lab{count % ASSIGNMENTS + 1}", "student": student}
    id = f"cli-{dice.getrandbits(64):016x}"
    request = Request(text, id=id, analysis="manual", meta=dumps(meta), name="lab.py")
    outcome = dice.choice(OUTCOMES)
    output = "".join(f"{one} {number % 1_000 * one}\n" for one in range(10))
    report = RunReport(
        outcome, RAN_BY_OUTCOME[outcome], str(outcome), output,
        exit_code=0 if outcome is Outcome.OK else 1, duration=0.12, started=issued + 1.0,
        sha256_stdout=hashlib.sha256(output.encode()).hexdigest(),
    )  # fmt: skip
    return Command(
        user, id, request, digest=digest_of(request), number=count, issued=issued,
        journal=JOURNAL, boot=1, report=report, answered_by=JOURNAL,
        journals_answered=(JOURNAL,), accepted=frozenset({Verb.ANALYSIS}),
        analysis=dumps({"passed": outcome is Outcome.OK, "score": dice.random()}),
        asker=Asker(student, KnownBy.REPLY_TOPIC),
        program_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )  # fmt: skip


def _payload(verb: Verb, command: Command) -> bytes:
    """About as long as what a board and its operator send."""
    fields: dict[str, object] = {"id": command.id}
    if verb is Verb.REQUEST:
        fields |= {"program": command.request.program, "analysis": "manual"}
    elif verb is Verb.RETRIEVAL:
        fields |= {"journal": JOURNAL, "boot": 1}
    elif verb is Verb.RESPONSE:
        response = command.report.response if command.report else ""
        fields |= {"journal": JOURNAL, "boot": 1, "stdout": response, "outcome": "ok"}
    else:
        fields |= {"analysis": command.analysis}
    return dumps(fields).encode()


def options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--commands", type=int, default=250_000)
    parser.add_argument("--boards", type=int, default=30)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Write it; 1: the file is there already."""
    chosen = options(arguments)
    if chosen.file.exists():
        print(f"error: {chosen.file} is there already", file=sys.stderr)
        return 1
    begin = time.perf_counter()
    fill(chosen.file, chosen.commands, chosen.boards)
    size = chosen.file.stat().st_size / 1e6
    print(f"{chosen.commands:,} commands in {time.perf_counter() - begin:.0f} s: {size:,.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
