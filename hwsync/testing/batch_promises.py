"""The promises of docs/protocol.md, section 9, held against what was seen of a lab.

The law: as in ``checker``: it looks only at a history and at what the database says in the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from hwsync.protocol.groups import SIGN
from hwsync.protocol.record import State, Verb
from hwsync.testing.history import Asked, Json, SaidOfBatch, Seen, Violation

OPEN = (State.REQUESTED, State.COLLECTED)


class _Asked:
    """What was asked of groups. An id that a member was asked by itself too is nobody's here."""

    def __init__(self, history: Sequence[Seen]) -> None:
        asked = [one for one in history if isinstance(one, Asked)]
        alone = {one.id for one in asked if not one.group}
        self.groups: dict[str, set[str]] = defaultdict(set)  # by group: its boards
        self.parallel: dict[str, set[int | None]] = defaultdict(set)  # by id
        for one in asked:
            if one.group:
                self.groups[one.group].add(one.user)
            if one.group and one.id and one.id not in alone and one.kind == "request":
                self.parallel[one.id].add(one.parallel)


def check_batches(
    history: Sequence[Seen],
    logs: Mapping[str, Sequence[Json]],
    commands: Mapping[tuple[str, str], Json],
    batches: Sequence[Json],
) -> Iterator[Violation]:
    """Every promise about batches that was not kept.

    ``logs``, ``commands``: as ``checker.FinalState`` has them; ``batches``: ``group``, ``id``,
    ``ended``, ``members``, ``refused`` of each that the database knows.
    """
    asked = _Asked(history)
    every = ({"row": 0, **row, "user": user} for user, some in logs.items() for row in some)
    rows: list[Json] = sorted(every, key=lambda row: row["row"])
    yield from _ended(batches)
    yield from _parallel(rows, asked)
    yield from _stopped(rows, asked)
    yield from _counts(history, commands, batches)


def _ended(batches: Sequence[Json]) -> Iterator[Violation]:
    """A batch of a group ends."""
    for batch in batches:
        if batch["ended"] is None:
            yield Violation("ends", f"{SIGN}{batch['group']}", batch["id"], "the batch is open")


def _begins(row: Json) -> bool:
    return bool(row["before"] == State.REST and row["state"] == State.REQUESTED)


def _parallel(rows: Sequence[Json], asked: _Asked) -> Iterator[Violation]:
    """No more members than ``parallel`` have begun and not ended at the same time."""
    begun: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        most = asked.parallel.get(row["id"], {None})
        if len(most) != 1 or None in most:
            continue
        (limit,) = most
        if _begins(row):
            begun[row["id"]].add(row["user"])
        elif row["before"] in OPEN and row["state"] not in OPEN:
            begun[row["id"]].discard(row["user"])
        if limit is not None and len(begun[row["id"]]) > limit:
            text = f"{sorted(begun[row['id']])} run at the same time, {limit} may"
            yield Violation("parallel", row["user"], row["id"], text)
            return


def _stopped(rows: Sequence[Json], asked: _Asked) -> Iterator[Violation]:
    """What waited at a stop-all never begins, nor what a group's cancel meant."""
    waiting: dict[str, set[str]] = defaultdict(set)  # by user: ids
    stopped: set[tuple[str, str]] = set()  # user, id
    cancelled: set[str] = set()  # ids of batches
    for row in rows:
        user, id, topic = row["user"], row["id"], row["topic"]
        group = topic.removeprefix(f"hw/{SIGN}").partition("/")[0] if f"/{SIGN}" in topic else ""
        if group and topic.endswith("/reset"):
            for member in asked.groups[group]:
                stopped |= {(member, one) for one in waiting[member]}
        if group and topic.endswith("/cancel") and id in asked.parallel:
            cancelled.add(id)
        if Verb(row["command"]) is Verb.REQUEST and not row["late"] and not _begins(row):
            waiting[user].add(id)
        elif Verb(row["command"]) in (Verb.CANCEL, Verb.EXPIRE, Verb.RESTORE):
            waiting[user].discard(id)
        if _begins(row):
            waiting[user].discard(id)
            if (user, id) in stopped or id in cancelled:
                yield Violation("stopped", user, id, f"it began in row {row['row']}, after a stop")
                return


def _counts(
    history: Sequence[Seen], commands: Mapping[tuple[str, str], Json], batches: Sequence[Json]
) -> Iterator[Violation]:
    """The last status of each group says what the database does."""
    last = {one.group: one.fields for one in history if isinstance(one, SaidOfBatch) and one.kept}
    known = {(batch["group"], batch["id"]): batch for batch in batches}
    for group, fields in last.items():
        id = fields["id"]
        batch = known.get((group, id))
        if batch is None:
            continue  # an older database was put back, which does not know it
        true: Counter[str] = Counter()
        for user in batch["members"]:
            end = commands.get((user, id))
            refused = batch["refused"].get(user)
            outcome = None if end is None or refused else end["outcome"]
            true["refused" if refused else outcome or "waiting"] += 1
            said = fields["members"].get(user, {})
            if (said.get("outcome"), said.get("refused")) != (outcome, refused):
                text = f"{SIGN}{group} says {said}, and it is {outcome}, refused {refused}"
                yield Violation("counts", user, id, text)
        counts = Counter({key: value for key, value in fields["counts"].items() if value})
        counts.pop("members", None)
        if counts != true:
            yield Violation("counts", f"{SIGN}{group}", id, f"says {counts}, and it is {true}")
