"""What a soak has shown: the history for the checker, what the database says, the figures.

The law: nothing is judged here that ``hwsync.testing.checker`` judges; this file only tells it what
was seen, and never more than was seen. The witness is the file in which the programs themselves
write that they began and ended.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from hwsync.protocol.errors import NotFound
from hwsync.protocol.record import State
from hwsync.protocol.wire.status import result_json
from hwsync.store import statements
from hwsync.store.contents import Contents
from hwsync.store.read_only import open_to_read
from hwsync.store.reader import Reader
from hwsync.store.rows import command_from, find_regrades, select
from hwsync.testing.checker import FinalState, check
from hwsync.testing.history import Asked, Began, Copied, Ended, Json, Seen, Violation
from hwsync.testing.programs import listed
from tests.support.soak_analysts import judgements
from tests.support.soak_programs import READ, Line, Programs

BEFORE_S: Final = 1.0  # a program's beginning is written after its device has begun it
AFTER_S: Final = 3.0  # and its end before its device has flushed it

Undisturbed = Callable[[str, float, float], bool]  # a user's device, between two times


def read_database(path: Path, users: Iterable[str]) -> FinalState:
    """Every command as on ``result/<id>``, and the log; the coordinator may run meanwhile.

    Raises ``DatabaseError`` where there is none, or none yet.
    """
    commands: dict[tuple[str, str], Json] = {}
    logs: dict[str, Sequence[Json]] = {}
    with Reader(path) as reader:
        for user in users:
            try:
                logs[user] = [row for row in reader.history(user) if "command" in row]
            except NotFound:
                logs[user] = []
    # One pass: ``Reader.show`` goes through a user's log for each command.
    connection, _, _ = open_to_read(path.resolve(), for_long=True)
    with closing(connection):
        present = {row["user"]: row for row in select(connection, statements.RECORDS)}
        for row in sorted(
            select(connection, statements.COMMANDS), key=lambda command: command["number"]
        ):
            user, id = row["user"], row["id"]
            own = user in present and present[user]["id"] == id
            state = State(present[user]["state"]) if own else State.REST
            command = command_from(row, Contents(connection))
            regrades = find_regrades(connection, command)
            commands[user, id] = result_json(command, state, regrades=regrades)
        batches = _batches(connection, commands)
    return FinalState(commands, logs, batches)


def _batches(connection: Connection, commands: Mapping[tuple[str, str], Json]) -> list[Json]:
    """Every batch, as ``batch_promises`` wants it."""
    found: list[Json] = []
    for row in select(connection, "SELECT * FROM batches ORDER BY rowid"):
        members = list(select(connection, statements.MEMBERS, row["key"]))
        refused = {one["user"]: one["refused"] for one in members if one["refused"]}
        ends = [commands.get((one["user"], row["id"])) for one in members
                if one["user"] not in refused]  # fmt: skip
        found.append(
            {"group": row["of_group"], "id": row["id"], "ended": row["ended"],
             "members": [one["user"] for one in members], "refused": refused,
             "over": all(end is not None and end["outcome"] is not None for end in ends)}
        )  # fmt: skip
    return found


def read_witness(
    lines: Iterable[Line],
    programs: Programs,
    commands: Mapping[tuple[str, str], Json],
    wall_offset: float | None,
    undisturbed: Undisturbed,
) -> list[Seen]:
    """The programs' own lines, as what the checker calls by an id.

    A request by hand has its id from the coordinator, perhaps several: a broker may bring such a
    message again. Each beginning then counts for the earliest command that may have been it.
    ``wall_offset``: what the coordinator's wall clock is ahead of the monotonic one; None: it was
    wrong at times, so that only the order of its commands is known.
    """
    by_hand = defaultdict[str, list[tuple[int, float, str]]](list)
    for (_, id), command in commands.items():
        if command["ran"] != "no":
            issued = -math.inf if wall_offset is None else command["issued"] - wall_offset
            by_hand[command["hw_command"]].append((command["number"], issued, id))
    seen: list[Seen] = []
    began: dict[
        tuple[str, str, str], tuple[int, float, str]
    ] = {}  # by process: its place in ``seen``, when, as which id
    taken: set[str] = set()
    for line in lines:
        at, user, program = line.at, line.user, programs.text[line.tag]
        process = (user, line.tag, line.process)
        if line.word == "began":
            id = line.tag
            if id in programs.by_hand:
                id = _earliest(by_hand[program], at, taken, id)
                taken.add(id)
            began[process] = len(seen), at, id
            seen.append(Began(at, user, id, program))
        elif line.word.startswith(READ):
            place, since, id = began[process]
            sent = programs.sent[line.tag]
            had = (sent.path, sent.size, line.word.removeprefix(READ))
            back = listed((programs.back[line.tag],))
            seen[place] = Began(since, user, id, program, files=(had,), made=back)
        else:
            _, since, id = began[process]
            heard = undisturbed(user, since - BEFORE_S, at + AFTER_S)
            seen.append(Ended(at, user, id, program, heard=heard))
    written = {(one.user, one.id) for one in seen if isinstance(one, Began)}
    for (user, id), command in commands.items():
        if (user, id) not in written and _was_interrupted(command):
            since = command["issued"] - (wall_offset or 0.0)
            seen.append(Began(since, user, id, command["hw_command"]))
    return seen


def _was_interrupted(command: Json) -> bool:
    """Whether Python itself says so: a cancel may come before a program's own first line."""
    lines = command["stderr"].splitlines()
    cancelled = (command["outcome"], command["ran"]) == ("cancelled", "yes")
    return cancelled and bool(lines) and lines[-1] == "KeyboardInterrupt"


def _earliest(ids: Sequence[tuple[int, float, str]], at: float, taken: set[str], tag: str) -> str:
    could = [id for _, issued, id in sorted(ids) if issued <= at]
    free = [id for id in could if id not in taken]
    # Without a free one it has run twice; without any at all it ran and nothing knows it.
    return free[0] if free else could[-1] if could else tag


def judge(
    history: Sequence[Seen], final: FinalState, output: Callable[[str], str]
) -> list[Violation]:
    """The checker's violations, and those of what only a soak can see."""
    # A proxy repeats messages, and a broker that was killed brings some again: without an id they
    # are performed once more.
    twice = [
        Copied(f"hw/{one.user}/{one.kind}", one.program.encode())
        for one in history
        if isinstance(one, Asked) and one.id is None
    ]
    found = check([*history, *twice, *judgements(final)], final, output)
    for user, rows in final.logs.items():
        epochs = sorted({row["epoch"] for row in rows})
        if len(epochs) > 1:
            text = f"epochs {epochs}; no database was put back"
            found.append(Violation("acknowledged", user, "", text))
    for one in history:
        if isinstance(one, Began) and (one.user, one.id) not in final.commands:
            found.append(Violation("acknowledged", one.user, one.id, "it ran, and is unknown"))
    return found


def differing(told: Mapping[tuple[str, str], str], final: FinalState) -> list[Violation]:
    """What an operator was told last (outcomes by user and id) against the database."""
    return [
        Violation("answers", user, id, f"told {outcome}, recorded {end and end['outcome']}")
        for (user, id), outcome in told.items()
        if (end := final.commands.get((user, id))) is None or end["outcome"] != outcome
    ]


def files_figures(final: FinalState, programs: Programs) -> dict[str, Any]:
    """What became of the files that were to come back."""
    came = Counter[str]()
    for (_, id), end in final.commands.items():
        if id in programs.back:
            back = end["files"] or any("path" in one for one in end["not_kept"])
            word = "whole" if end["files"] else "named" if back else "none"
            came[f"{word}, ran {end['ran']}"] += 1
    return {"files that were to come back": dict(sorted(came.items()))}


def figures(
    final: FinalState, acknowledged: int, violations: Sequence[Violation]
) -> dict[str, Any]:
    """What is printed in the end, in this order."""
    promises = Counter(violation.promise for violation in violations)
    outcomes = Counter(str(end["outcome"]) for end in final.commands.values())
    refused = Counter(code for batch in final.batches for code in batch["refused"].values())
    ran = Counter(str(end["ran"]) for end in final.commands.values())
    return {
        "commands": len(final.commands),
        "orphans": sum(bool(end["orphan"]) for end in final.commands.values()),
        "acknowledged": acknowledged,
        "ended": dict(outcomes.most_common()),
        "ran": dict(ran.most_common()),
        "batches": len(final.batches),
        "refused in them": dict(refused.most_common()),
        "acknowledged, then unknown": promises["acknowledged"],
        "without an end": promises["ends"],
        "run twice": promises["once"],
        "false ran": promises["truth"],
        "stuck": promises["stuck"],
        "other violations": sum(
            count
            for promise, count in promises.items()
            if promise not in ("acknowledged", "ends", "once", "truth", "stuck")
        ),
    }
