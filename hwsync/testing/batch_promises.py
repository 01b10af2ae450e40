"""The promises of docs/protocol.md, section 9, held against what was seen of a lab.

The law: as in ``checker``: it looks only at a history and at what the database says in the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hwsync.protocol.groups import SIGN
from hwsync.protocol.record import State, Verb
from hwsync.testing.history import Asked, Json, Said, SaidOfBatch, Seen, Served, Violation

OPEN = (State.REQUESTED, State.COLLECTED)
TELL_S: Final = 5.0  # of connection, in which a turn is taken, and a group's last status is said


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
    ``ended``, ``members``, ``refused`` of each that the database knows, and whether it is ``over``:
    each member has ended or refused it.
    """
    asked = _Asked(history)
    every = ({"row": 0, **row, "user": user} for user, some in logs.items() for row in some)
    rows: list[Json] = sorted(every, key=lambda row: row["row"])
    yield from _ended(batches)
    yield from _parallel(rows, asked)
    yield from _stopped(rows, asked)
    yield from _counts(history, commands, batches)
    yield from _told(history)


def _ended(batches: Sequence[Json]) -> Iterator[Violation]:
    """A batch of a group ends; one without, once each of its list has been asked and has ended."""
    for batch in batches:
        if batch["ended"] is None and (batch["group"] or batch["over"]):
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


def _told(history: Sequence[Seen]) -> Iterator[Violation]:
    """A coordinator that said a member's end, also one that came late, has said it of the batch.

    And nobody waits in a batch of which nobody runs, with a board at rest.
    """
    ends: dict[tuple[str, str], list[Said]] = defaultdict(list)
    records: dict[str, list[Said]] = defaultdict(list)
    groups: dict[str, list[SaidOfBatch]] = defaultdict(list)
    for one in history:
        if isinstance(one, Said) and one.fields["outcome"] is not None:
            ends[one.user, one.fields["id"]].append(one)
        elif isinstance(one, SaidOfBatch) and one.kept:
            groups[one.group].append(one)
        if isinstance(one, Said) and one.kind == "status":
            records[one.user].append(one)
    for life in history:
        if not isinstance(life, Served):
            continue
        since, until = life.until - life.last, life.until
        for group, every in groups.items():
            last = next((one for one in reversed(every) if since <= one.at <= until), None)
            if last is not None and until - since > TELL_S:
                yield from _differs(group, last, ends, since, until)
                yield from _missed(group, last, records, until)


def _differs(
    group: str,
    last: SaidOfBatch,
    ends: Mapping[tuple[str, str], Sequence[Said]],
    since: float,
    until: float,
) -> Iterator[Violation]:
    id = last.fields["id"]
    for user, part in last.fields["members"].items():
        said = [one for one in ends.get((user, id), ()) if since <= one.at <= until]
        # What it said later may have been corrected, of a command that no status shows any more.
        if part["refused"] or not said or not last.at < said[-1].at <= until - TELL_S:
            continue
        outcome, ran = (said[-1].fields[key] for key in ("outcome", "ran"))
        if (part["outcome"], part["ran"]) != (outcome, ran):
            text = f"it is {outcome}, ran {ran}, since {said[-1].at:.3f}; {SIGN}{group} says {part}"
            yield Violation("counts", user, id, f"{text} at {until:.3f}")


def _missed(
    group: str, last: SaidOfBatch, records: Mapping[str, Sequence[Said]], until: float
) -> Iterator[Violation]:
    """Whose turn was never looked at."""
    fields = last.fields
    if fields["state"] == "ended" or fields["counts"]["running"] or last.at > until - TELL_S:
        return
    for user, part in fields["members"].items():
        said = [one for one in records[user] if one.at <= until]
        waits = part["outcome"] is None and not part["refused"]
        if waits and said and said[-1].fields["state"] == 0 and said[-1].at <= until - TELL_S:
            text = f"{SIGN}{group} says since {last.at:.3f} that it waits, and its board rests"
            yield Violation("ends", user, fields["id"], text)
