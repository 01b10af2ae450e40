"""The promises of docs/protocol.md, section 8, held against what was seen of a lab.

The law: it looks only at a ``history`` and at what the database says in the end, so the same rules
judge a simulation and real processes. What is not promised is excused here, by name, and nowhere
else: a database that was put back forgets, and an id that its sender repeats after that may run
again where no journal knows it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.protocol.moves import TABLE
from hwsync.protocol.record import State, Verb
from hwsync.testing.analysis_promises import check_analyses
from hwsync.testing.batch_promises import check_batches
from hwsync.testing.file_promises import check_files
from hwsync.testing.history import (
    Json,
    Said,
    Seen,
    Violation,
)
from hwsync.testing.instants import check_starts
from hwsync.testing.lasting import SETTLED_S, check_grants
from hwsync.testing.sorted_history import Name, Sorted

UNDER_WAY_S = 30.0  # a message may be so late, where topics overtake each other


@dataclass(slots=True)
class FinalState:
    """What the database says in the end.

    ``commands``: as on ``result/<id>`` (``Reader.show``), every one of them. ``logs``: by user, the
    rows of the log in order (``Reader.history`` without the refused messages). ``batches``: as
    ``batch_promises`` says. ``calm``: no fault has taken effect. ``within``: how long an analysis
    is waited for, in seconds.
    """

    commands: Mapping[Name, Json]
    logs: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    batches: Sequence[Json] = ()
    calm: bool = False
    within: float = math.inf


def check(
    history: Sequence[Seen], final: FinalState, output: Callable[[str], str] | None = None
) -> list[Violation]:
    """Every promise that was not kept (docs/protocol.md, section 8); none: the lab did well.

    ``history``: all that was seen, in the order of time; what is missing in it cannot be judged.
    ``final``: the database, once all is at rest. ``output``: what a program prints, where that is
    known; None: whose result it is is not judged.
    """
    seen = Sorted(history)
    rules = [
        *(_kept, _once, _performed_once, _granted, _moved_grants, _in_time, _named),
        *(_table, _one_word, _ended_once, _truth, _refused, _asked_for, _heard_of, _bounded),
    ]
    found = [violation for rule in rules for violation in rule(seen, final)]
    found += [Violation(*one) for one in check_starts(history, calm=final.calm)]
    found += check_grants(history)
    found += check_files(seen, final.commands)
    found += check_analyses(seen, final.logs, final.commands, final.within)
    if output is not None:
        found += _belongs(seen, final, output)
    return found + list(check_batches(history, final.logs, final.commands, final.batches))


def _kept(seen: Sorted, final: FinalState) -> Iterator[Violation]:
    """1. An acknowledged request is never lost, and 5. every command ends."""
    for (user, id), answers in seen.answered.items():
        for answer in answers:
            if "error" in answer.fields:
                continue
            end = final.commands.get((user, id))
            if end is None and not seen.forgotten(user, id, answer.at):
                yield Violation("acknowledged", user, id, f"told at {answer.at:.3f}, then unknown")
    for (user, id), end in final.commands.items():
        if end["outcome"] is None:
            yield Violation("ends", user, id, f"still open in state {end['state']}")


def _once(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """2. A command runs at most once; a message without an id is performed at most once."""
    for (user, id), begun in seen.began.items():
        for before, after in itertools.pairwise(begun):
            repeated = seen.put_back_between(before.at, after.at)
            if not (repeated and before.journal != after.journal):
                yield Violation("once", user, id, f"began at {before.at:.3f} and {after.at:.3f}")


def _table(_: Sorted, final: FinalState) -> Iterator[Violation]:
    """3. The record moves only along the table, one number at a time."""
    for user, rows in final.logs.items():
        state, order = int(State.REST), (0, 0)
        for row in rows:
            id, verb, before, after = row["id"], Verb(row["command"]), row["before"], row["state"]
            now = (row["epoch"], row["seq"])
            if before != state or now[1] != order[1] + 1 or now[0] < order[0]:
                text = f"{verb} from {before}, number {now}, after state {state}, {order}"
                yield Violation("table", user, id, text)
            move = TABLE.get((verb, State(before)))
            moved = not row["late"] and move is not None and int(move.to) == after
            if not moved and before != after:
                yield Violation("table", user, id, f"{verb} led from {before} to {after}")
            state, order = after, now


def _granted(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """2. Only the grant starts a program: that id, granted to that journal, before it began."""
    grants: dict[tuple[str, str, str], float] = {}
    for one in seen.said:
        if one.kind == "status" and one.fields["state"] == State.COLLECTED:
            key = (one.user, one.fields["id"], str(one.fields["journal"]))
            grants.setdefault(key, one.at)
    for (user, id), begun in seen.began.items():
        for began in begun:
            granted_at = grants.get((user, id, began.journal))
            if began.journal and (granted_at is None or granted_at > began.at):
                yield Violation("once", user, id, f"began at {began.at:.3f} without its grant")


def _moved_grants(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """3. A grant stays with its journal, and moves to later boots only."""
    last: dict[Name, tuple[tuple[int, int], object, int]] = {}
    for one in seen.said:
        fields = one.fields
        if one.kind != "status" or fields["state"] != State.COLLECTED or seen.put_back:
            continue
        order, boot = (fields["epoch"], fields["seq"]), fields["boot"] or 0
        before = last.setdefault((one.user, fields["id"]), (order, fields["journal"], boot))
        if order >= before[0]:
            if before[1] != fields["journal"] or boot < before[2]:
                text = f"granted to {before[1:]}, then to {(fields['journal'], boot)}"
                yield Violation("table", one.user, fields["id"], text)
            last[one.user, fields["id"]] = (order, fields["journal"], boot)


def _in_time(seen: Sorted, final: FinalState) -> Iterator[Violation]:
    """2. Nobody is granted a command at its ``expires_at`` or later, by the coordinator's clock."""
    for user, rows in final.logs.items():
        for row in rows:
            if (row["before"], row["state"]) != (State.REQUESTED, State.COLLECTED):
                continue
            program = final.commands[user, row["id"]]["hw_command"]
            asked = seen.requests(user, row["id"], program)
            latest = max((one.expires_at or math.inf for one in asked), default=math.inf)
            if row["time"] >= latest:
                text = f"granted at {row['time']:.3f}, it had to be before {latest:.3f}"
                yield Violation("expires", user, row["id"], text)


def _named(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """4. A program is run as the file that its request names."""
    for (user, id), begun in seen.began.items():
        for one in begun:
            names = {asked.name for asked in seen.requests(user, id, one.program)}
            if one.name is not None and one.name not in (names or {DEFAULT_NAME}):
                text = f"run as {one.name!r}, asked for as {' or '.join(sorted(names))}"
                yield Violation("belongs", user, id, text)


def _one_word(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """3. What is said under one number is one thing, whoever asks and however often."""
    words: dict[tuple[str, int, int], tuple[float, object]] = {}
    for one in seen.said:
        fields = one.fields
        if one.kind != "status" or fields["seq"] == 0:
            continue
        key = (one.user, fields["epoch"], fields["seq"])
        word = tuple(fields[name] for name in ("id", "state", "outcome", "ran", "journal", "boot"))
        at, before = words.setdefault(key, (one.at, word))
        if before != word and not seen.put_back_between(at, one.at):
            yield Violation("table", one.user, fields["id"], f"{key[1:]}: {before}, then {word}")


def _ended_once(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """3. What has ended stays so: no repeat of its request opens it again."""
    ends: dict[Name, Said] = {}
    for one in seen.said:
        name = (one.user, one.fields["id"])
        if one.kind != "status":
            continue
        if one.fields["outcome"] is not None:
            ends.setdefault(name, one)
        # A broker that was killed may have kept an older one, and says that to who connects.
        elif (ended := ends.get(name)) is not None and _order(one) > _order(ended):
            del ends[name]
            text = f"{ended.fields['outcome']} at {ended.at:.3f}, open at {one.at:.3f}"
            # A database that was put back knows it as it was before.
            if not seen.put_back_between(ended.at, one.at):
                yield Violation("ends", *name, text)


def _order(said: Said) -> tuple[int, int]:
    """Of two statuses the greater is the newer (docs/protocol.md, section 1)."""
    return said.fields["epoch"], said.fields["seq"]


def _truth(seen: Sorted, final: FinalState) -> Iterator[Violation]:
    """6. ``ran`` is true: what was said at any time, and what is said in the end."""
    for at, user, id, outcome in seen.ran_no:
        for begun in seen.began[user, id]:
            if not seen.forgot_between(user, id, at, begun.at):
                text = f"ran no at {at:.3f} ({outcome}), began {begun.at:.3f}"
                yield Violation("truth", user, id, text)
    for (user, id), end in final.commands.items():
        begun_by = seen.began[user, id]
        if end["ran"] == "no" and begun_by and not seen.put_back_since(begun_by[0].at):
            yield Violation("truth", user, id, f"{end['outcome']}, ran no; it began")
        by_hand = end["journal"] is None and not end["orphan"]
        if end["ran"] == "yes" and not begun_by and not by_hand:
            yield Violation("truth", user, id, f"{end['outcome']}, ran yes; it never began")


def _refused(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """6. ``rejected`` is said of what its device refused: of nothing that it began by that grant.

    Also where a restore makes a ``maybe`` of its ``no``, and whatever is said later.
    """
    granted: dict[tuple[str, str, int, str], float] = {}
    for said in seen.said:
        fields = said.fields
        if said.kind != "status":
            continue
        key = (said.user, fields["id"], fields["epoch"], str(fields["journal"]))
        if fields["state"] == State.COLLECTED:
            granted.setdefault(key, said.at)
        if fields["outcome"] != "rejected" or key not in granted:
            continue
        granted_at = granted.pop(key)
        for began in seen.began[said.user, fields["id"]]:
            if began.journal == key[3] and began.at >= granted_at:
                text = f"rejected at {said.at:.3f}, its device began it {began.at:.3f}"
                yield Violation("truth", said.user, fields["id"], text)


def _asked_for(seen: Sorted, final: FinalState) -> Iterator[Violation]:
    """6. ``cancelled`` is said where somebody wanted it, or it was given up while it ran.

    Somebody named it; or named nothing, or emptied the queue, when it was there, or just before.
    A message without an id that came twice may have meant an earlier command.
    """
    first: dict[Name, float] = {}
    named: set[tuple[str, str | None]] = set()
    asked_at = {(one.user, one.program): one.at for one in seen.without_id if one.program}
    for said in seen.said:
        sent = asked_at.get((said.user, said.fields["hw_command"]), said.at)
        first.setdefault((said.user, said.fields["id"]), sent)
        if said.fields["outcome"] == "lost":
            named.add((said.user, said.fields["id"]))
    for (user, id), questions in seen.asked.items():
        first[user, id] = questions[0].at
    named |= {
        (one.user, one.id)
        for some in seen.asked.values()
        for one in some
        if one.kind in ("cancel", "reset")
    }
    wide = defaultdict[str, list[float]](list)
    for one in [*seen.without_id, *(one for some in seen.asked.values() for one in some)]:
        if one.kind == "reset" or (one.kind == "cancel" and one.id is None):
            wide[one.user].append(one.at)
    for user, rows in final.logs.items():
        named |= {(user, row["id"]) for row in rows if row["command"] == Verb.LEFT_OUT}
    for (user, id), end in final.commands.items():
        if end["outcome"] != "cancelled" or (user, id) in named or seen.put_back:
            continue
        since = first.get((user, id), 0.0) - UNDER_WAY_S
        again = any((f"hw/{user}/{kind}", b"") in seen.copied for kind in ("cancel", "reset"))
        again |= any(topic.startswith("hw/@") for topic, _ in seen.copied)
        if not again and not any(at >= since for at in wide[user]):
            yield Violation("truth", user, id, "cancelled, and nobody has asked for that")


def _performed_once(seen: Sorted, final: FinalState) -> Iterator[Violation]:
    """2. A message without an id that came as one is performed at most once."""
    last = max((one.at for one in seen.put_back), default=-1.0)
    sent = Counter((one.user, one.kind, one.program) for one in seen.without_id)
    for user, rows in final.logs.items():
        done: Counter[tuple[str, str]] = Counter()
        for row in rows:
            if final.commands.get((user, row["id"]), {}).get("pruned"):
                continue  # nobody knows any more what was sent
            if row["topic"] and not row["topic"].startswith("hw/@") and not row["late"]:
                done[row["topic"], row["payload"]] += 1
        for (topic, payload), times in done.items():
            kind = topic.rpartition("/")[2]
            program = payload if kind in ("request", "command") else ""
            named = payload != program  # it has an id, and may cause several rows
            most = 0 if named else sent[user, kind, program]
            copied = (topic, payload.encode()) in seen.copied
            if most and times > most and not copied and last < 0.0:
                text = f"{kind} {payload[:60]!r} was sent {most} times, performed {times} times"
                yield Violation("once", user, "", text)


def _heard_of(seen: Sorted, final: FinalState) -> Iterator[Violation]:
    """6. ``maybe`` is for what nobody can know: what a device saw to its end is a ``yes``."""
    for (user, id), ends in seen.ended.items():
        for one in ends:
            lost = any(
                (gone.user, gone.journal) == (user, one.journal) and gone.at >= one.at
                for gone in seen.journals_lost
            )
            end = final.commands.get((user, id))
            # Asked for again after an older database was put back, it is another run's record.
            lost |= end is not None and end["ran"] == "maybe" and seen.repeated_since(one)
            # An older database does not know it, and there was no room to keep what it does not.
            lost |= (user, id) in seen.turned_away and seen.put_back_since(one.at)
            lost |= (user, id) in seen.turned_away and seen.put_back_between(0.0, one.at)
            if one.heard and not lost and (end is None or end["ran"] != "yes"):
                said = "unknown" if end is None else f"{end['outcome']}, ran {end['ran']}"
                yield Violation("truth", user, id, f"{said}; its device saw it end {one.at:.3f}")


def _bounded(seen: Sorted, _: FinalState) -> Iterator[Violation]:
    """5. What waits ends after ``expires``, in however many lives of its coordinator.

    Of each life half counts at least (docs/protocol.md, section 2, "Deadlines").
    """
    changes = defaultdict[str, list[tuple[float, str, int]]](list)
    for said in seen.said:
        if said.kind == "status":
            changes[said.user].append((said.at, said.fields["id"], said.fields["state"]))
    for (user, id), asked in seen.asked.items():
        limits = [one.expires for one in asked if one.expires]
        since = [at for at, *what in changes[user] if what == [id, State.REQUESTED]]
        if not limits or not since or seen.put_back_since(since[0]):
            continue
        after = [at for at, *what in changes[user] if at > since[0]
                 and what != [id, State.REQUESTED]]  # fmt: skip
        until, counted = min(after, default=math.inf), 0.0
        for life in seen.served:
            if life.at < since[0] or life.until >= until:
                continue
            if counted > max(limits) and life.last > SETTLED_S:
                text = f"waits since {since[0]:.3f}, at {life.until:.3f} still, {max(limits):g} s"
                yield Violation("ends", user, id, f"{text} were allowed, {counted:.1f} counted")
                break
            counted += max(life.seconds / 2 - 0.5, 0.0)


def _belongs(seen: Sorted, final: FinalState, output: Callable[[str], str]) -> Iterator[Violation]:
    """4. A result belongs to the command that it names, and an answer to what was asked."""
    for (user, id), end in final.commands.items():
        begun = seen.began[user, id]
        if end["outcome"] == "ok" and begun and end["journal"] and not end.get("pruned"):
            expected = {output(one.program) for one in begun}
            said = str(end["hw_response"])
            if end.get("truncated"):  # by a device, for a broker that takes no more
                expected = {text.splitlines()[0] for text in expected}
                said = (said.splitlines() or [""])[0]
            if said not in expected:
                yield Violation("belongs", user, id, f"answered {end['hw_response'][:60]!r}")
    for (user, id), answers in seen.answered.items():
        for answer in answers:
            told = answer.fields.get("hw_command", "")
            gone = answer.fields.get("orphan") or answer.fields.get("pruned")
            known = not gone and "error" not in answer.fields
            if known and answer.program and told != answer.program:
                yield Violation("belongs", user, id, f"{answer.operator} was told of {told[:60]!r}")
