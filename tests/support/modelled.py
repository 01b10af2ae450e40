"""A coordinator and its model side by side, and the broker between them and a test.

Whatever is done is done to both; after each step everything that can be seen of both is compared.
"""

from __future__ import annotations

import copy
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsync.coordinator.loop import SAVE_AGAIN_S
from hwsync.protocol import limits
from hwsync.protocol.errors import StoreError
from hwsync.protocol.rules import Allowance, Rules
from hwsync.protocol.wire.analyst import Offer, encode_offer
from hwsync.store.api import Changes
from hwsync.transport import Connected, Delivery, Signal, Subscribed
from tests.support.compared import agrees, as_stored, is_line, same, shown
from tests.support.coordinator import GONE, Acknowledged, Deed, Lab, Sent
from tests.support.level import LINE, TABLE, Said, Told
from tests.support.model import Model

SETTLE_S = 2.0
WITHIN_S = 90.0  # for the analysis
PACKETS = 8  # packet identifiers, of which those in use are not taken; more where all are in use
QUEUED = 6  # messages that wait at the broker at most
DEGRADED_S = 60.0
EVERYTHING = 25  # steps between two full comparisons
USER = "pi1"
OFFERED = 60_000  # the packet identifier of what analysts say
FULL = StoreError("database or disk is full")
COLUMNS = ("seq, command, before, state, id, late", "error, id")


class Modelled:
    """``send`` a message; ``failures``: what the next saves do, true where they store and raise."""

    def __init__(self, path: Path, max_idle: int = limits.MAX_IDLE) -> None:
        self.model = Model(WITHIN_S, max_idle)
        self.failures: list[bool] = []
        self.connected = False
        self._raised: bool | None = None  # by the last save; true: it had stored all the same
        self.sent: deque[Said] = deque(maxlen=PACKETS - 2)  # under identifiers not used again yet
        self._queue: list[Said] = []  # at the broker, not delivered
        self._unacknowledged: list[Said] = []  # delivered on this session
        self._waiting: list[Said] = []  # of these, what the coordinator has in its hands
        self._mid = 0
        self._steps = 0
        self._seen = [0, 0]  # rows of log and refusals
        self._begin()
        rules = Rules(analysis_within=WITHIN_S, allowance=Allowance(max_idle=max_idle))
        self.lab = Lab(path, hold_deadlines_s=SETTLE_S, rules=rules)
        self.reader = sqlite3.connect(path)
        self._opened()
        self.connected, self._since = True, self.lab.clock.now
        self.model.tell_due()
        self.model.told.clear()

    def _begin(self) -> None:
        """What a coordinator knows of its own when it starts."""
        self._counted, self._since = 0.0, 0.0
        self._forget = False
        self._again_at: float | None = None
        self._failed = 0  # in a row
        self._degraded_at: float | None = None
        self._known: Model | None = None  # what memory has where a save stored more, and raised
        self._write_at = 1.0  # in ticks
        self.model.to_analyse = []

    def _opened(self) -> None:
        save = self.lab.store.save

        def failing_save(changes: Changes, ticks: float) -> None:
            self._raised = self.failures.pop(0) if self.failures else None
            if self._raised is not False:
                save(changes, ticks)
            if self._raised is not None:
                raise FULL

        self.lab.store.save = failing_save  # type: ignore[method-assign]

    def stop(self) -> None:
        self.reader.close()
        self.lab.stop()

    # -- what may happen ----------------------------------------------------------------------

    def send(self, said: Said, at_once: bool) -> None:
        """A message to the broker, and on to the coordinator, unless it is away or busy."""
        used = self._used()
        free = [mid for mid in range(1, 2 * len(used) + PACKETS) if mid not in used]
        self._mid = next((mid for mid in free if mid > self._mid), free[0])
        if self._mid > PACKETS:
            self._mid = free[0]
        said = replace(said, mid=self._mid, dup=False)
        self._queue.append(said)
        self.sent.append(said)
        if at_once or len(self._queue) >= QUEUED:
            self.deliver()

    def _used(self) -> set[int]:
        return {one.mid for one in [*self._unacknowledged, *self._queue, *self.sent]}

    def send_in_vain(self, said: Said) -> None:
        """A new message whose first delivery is lost: it comes with DUP, and is no copy.

        If possible under an identifier that has carried one of its kind before.
        """
        self.deliver()
        if self.connected:
            self.break_connection()
        self.send(said, False)
        kinds = {mid for mid, (kind, _, _) in self.model.packets.items() if kind == said.kind}
        mids = sorted(kinds - self._used())
        if mids and self._queue:
            self._queue[-1] = self.sent[-1] = replace(self._queue[-1], mid=mids[0])
        if not self.connected:
            self.come_back(True)

    def deliver(self) -> None:
        """All that waits at the broker, in one step."""
        if not self.connected:
            if len(self._queue) < QUEUED:
                return
            self.come_back(True)
            return
        messages, self._queue = self._queue, []
        self._step(messages)

    def deliver_again(self, count: int) -> None:
        """The last ``count`` messages were acknowledged, and the broker does not know it."""
        if self._queue:
            self.deliver()
        if self._queue:
            return
        if self.connected:
            self.break_connection()
        mids = {one.mid for one in self._unacknowledged}
        mids |= {one.mid for one in list(self.sent)[-count:]}
        again = [one for one in self.sent if one.mid in mids]
        sent = {one.mid for one in self.sent}
        older = [one for one in self._unacknowledged if one.mid not in sent]
        self._unacknowledged = [*older, *again]
        self.come_back(True)

    def until_deadline(self) -> float | None:
        """Seconds, where there is a deadline."""
        dues = (self.model.due, self.model.unoffered)
        ends = [due - self._ticks() for due in dues if due is not None]
        if self.model.state == 1 and self.model.command()["expires_at"] is not None:
            ends.append(self.model.command()["expires_at"] - self.lab.clock.wall())
        return max(min(ends), 0.0) if ends else None

    def pass_time(self, seconds: float) -> None:
        self.lab.clock.now += seconds
        self._step([])

    def offer(self, analyst: str, names: frozenset[str]) -> None:
        """An analyst comes with these analysers; with none it goes."""
        if not self.connected:
            return
        self.model.offers.pop(analyst, None)
        if names:
            self.model.offers[analyst] = names

        def look(known: Model) -> None:
            known.offers = dict(self.model.offers)
            if known.look_at_offers():
                known.tell_status()

        self._tell(look)
        self._step([], offered(analyst, names))

    def break_connection(self) -> None:
        self.lab.wire.connected = False
        self._counted, self.connected = self._ticks(), False
        self._step([], GONE)

    def come_back(self, kept: bool) -> None:
        """Connected again; where the session was kept, what was not acknowledged comes again."""
        self.lab.wire.connected = True
        self._counted, self.connected = self._ticks(), True
        self._since = self.lab.clock.now
        if not kept:
            self._unacknowledged, self._queue, self._forget = [], [], True
            self.sent.clear()
        self._waiting = [] if kept else [replace(one, mid=0) for one in self._waiting]
        again = [replace(one, dup=True) for one in self._unacknowledged]
        # Each second one that waits, the last one too, was sent before, and lost on its way.
        new = [replace(one, dup=at % 2 == 0) for at, one in enumerate(self._queue[::-1])][::-1]
        messages, self._queue = [*again, *new], []

        def look(known: Model) -> None:
            known.offers = dict(self.model.offers)
            known.look_at_offers()
            known.tell_due()

        self._tell(look)
        kept_offers = [offered(*one) for one in self.model.offers.items()]
        self._step(messages, Connected(kept, 5), Subscribed(), *kept_offers)

    def start_again(self, kept: bool) -> None:
        """Another process on the same database."""
        self.lab.stop()
        self.lab.wire.connected = self.connected = False
        self._waiting = []
        self._begin()
        self.model.read_again(0.0)
        self.lab.start()
        self._opened()
        self.come_back(kept)

    # -- one step of both ---------------------------------------------------------------------

    def _ticks(self) -> float:
        return self._counted + (self.lab.clock.now - self._since if self.connected else 0.0)

    def _step(self, messages: list[Said], *signals: Signal) -> None:
        """``messages`` are delivered; then whatever is due at once."""
        self._steps += 1
        self._one(messages, *signals)
        for _ in range(10):
            if self.lab.coordinator.wait() != 0.0:
                break
            self._one([])
        else:
            raise AssertionError("the coordinator does not come to rest")
        if self._steps % EVERYTHING == 0:
            self.check_everything()

    def _one(self, messages: list[Said], *signals: Signal) -> None:
        now = self.lab.clock.now
        arrived = [one for one in messages if not self._in_hand(one)]
        self._waiting += arrived
        known = {one.mid for one in self._unacknowledged}
        self._unacknowledged += [one for one in messages if one.mid not in known]
        before = self.model.seq
        if self._again_at is not None and now < self._again_at:
            acknowledged = self._queries()
            deeds = self._act(messages, signals)
        else:
            snapshot = self._predict(now)
            deeds = self._act(messages, signals)
            failed = self._raised is not None
            acknowledged = self._after_failure(snapshot, now) if failed else self._saved()
        self._compare(deeds, acknowledged)
        self._check(before)

    def _in_hand(self, said: Said) -> bool:
        """Whether a copy of it waits to be saved: then it is no new message."""
        if self._again_at is None or not said.dup:
            return False
        return any(replace(one, dup=True) == said for one in self._waiting)

    def _act(self, messages: list[Said], signals: tuple[Signal, ...]) -> list[Deed]:
        self._raised = None
        return self.lab.step(*signals, *[delivery(one) for one in messages])

    def _predict(self, now: float) -> Model:
        """The model goes on; returns what it was, should nothing be stored."""
        ticks = self._ticks()
        self.model.now = ticks, self.lab.clock.wall()
        if ticks >= self._write_at and self._again_at is None:
            self._write_at = ticks + min(max(ticks, 1.0), 60.0)
            self.model.write_down()
        if self._known is not None:
            if self._known.seq != self.model.seq:
                self.model.read_again(ticks)
                self.model.tell_due()
            self._known = None
        snapshot = copy.deepcopy(self.model) if self.failures else self.model
        if self._forget:
            self.model.packets.clear()
        before = len(self.model.told)
        due, self.model.to_analyse = self.model.to_analyse, []  # what is heard now is next round's
        for one in self._waiting:
            self.model.hear(one)
        self.model.analyse(due)
        if self.connected:
            self.model.expire(now >= self._since + SETTLE_S)
        _say_once(self.model.told, before)
        return snapshot

    def _saved(self) -> list[int]:
        acknowledged = [one.mid for one in self._waiting]
        self._waiting, self._forget = [], False
        self._again_at, self._failed, self._degraded_at = None, 0, None
        return acknowledged

    def _after_failure(self, before: Model, now: float) -> list[int]:
        """The save raised: what can be answered without one is, and nothing else."""
        self._again_at, self._failed = now + SAVE_AGAIN_S, self._failed + 1
        after, self.model = self.model, before
        if self._raised:
            # Of other commands than the present one, memory has nothing: they are in the file.
            own = {before.id: before.commands[before.id]} if before.id else {}
            before.commands = after.commands | own
        acknowledged = self._queries()
        told_at = self._degraded_at
        if self._failed > 1 and (told_at is None or now - told_at >= DEGRADED_S) and self._waiting:
            self._degraded_at = now
            fields = {"error": "degraded", "id": self._waiting[0].id, "state": before.state}
            before.told.append(Told("error", fields))
        if self._raised:
            after.told, after.to_analyse = before.told, before.to_analyse
            self.model = after
            unchanged = (after.seq, after.settled) == (before.seq, before.settled)
            self._known = None if unchanged else before
        return acknowledged

    def _tell(self, tell: Callable[[Model], None]) -> None:
        """Something follows from what the coordinator has in memory."""
        known = self._known or self.model
        known.told, known.to_analyse = self.model.told, self.model.to_analyse
        known.now = self._ticks(), self.lab.clock.wall()  # time has passed since its last round
        tell(known)

    def _queries(self) -> list[int]:
        """Queries are answered also while nothing can be saved; those with an id in their turn."""
        queries: list[Said] = []
        others: list[Said] = []
        for one in self._waiting:
            answered = one.kind == "query" and (one.id is None or not others)
            (queries if answered else others).append(one)
        self._waiting = others
        known = self._known or self.model
        refused, told = len(known.refused), len(self.model.told)
        for one in queries:
            self._tell(lambda model, one=one: model._query(one))  # type: ignore[misc]
        del known.refused[refused:]  # no row can be written
        _say_once(self.model.told, told)
        return [one.mid for one in queries]

    # -- comparing ----------------------------------------------------------------------------

    def _compare(self, deeds: list[Deed], acknowledged: list[int]) -> None:
        told, self.model.told = self.model.told, []
        if not self.connected:
            assert deeds == []
            return
        marks = [one.mid for one in deeds if isinstance(one, Acknowledged) and one.mid != OFFERED]
        same(sorted(marks), sorted(acknowledged), "acknowledged")
        self._unacknowledged = [one for one in self._unacknowledged if one.mid not in marks]
        expected = deque(told)
        for deed in deeds:
            if isinstance(deed, Sent):
                self._published(deed, expected)
        assert not [one for one in expected if one.needed], expected

    def _published(self, deed: Sent, expected: deque[Told]) -> None:
        kind = {"command": "envelope"}.get(deed.kind, deed.kind.split("/")[0])
        kind, said = (kind, deed.json) if deed.payload else ("cleared", {})
        while (
            expected
            and not expected[0].needed
            and (expected[0].kind != kind or not agrees(expected[0].fields, said))
        ):
            expected.popleft()
        if kind == "envelope" and not (expected and expected[0].kind == kind):
            assert (self.model.state, self.model.id) == (1, said["id"])  # a repetition
            return
        assert expected, f"{kind} was not to be published: {said}"
        one = expected.popleft()
        same((kind, deed.retain), (one.kind, one.retain), "kind")
        same(shown(said, one.fields), shown(one.fields, one.fields, said), kind)

    def _check(self, before: int) -> None:
        model = self.model
        # A database that another process reads: the log and the refused messages.
        tables: tuple[tuple[str, list[Any]], ...] = (
            ("transitions", model.log),
            ("refused", model.refused),
        )
        for number, (table, expected) in enumerate(tables):
            rows = self.reader.execute(
                f"SELECT {COLUMNS[number]} FROM {table} WHERE row > ? ORDER BY row",
                (self._seen[number],),
            ).fetchall()
            new: list[Any] = list(expected[self._seen[number] :])
            same([tuple(row) for row in rows], new, table)
            self._seen[number] += len(rows)
        for seq, verb, was, state, _, late in model.log[
            len(model.log) - max(model.seq - before, 0) :
        ]:
            assert seq <= model.seq
            moved = TABLE[verb].get(was) == state and not late
            assert moved or was == state, f"{verb} led from {was} to {state}"
        if model.seq == 0:
            assert USER not in self.lab.coordinator.records
            return
        stored = self.lab.store.load(model.saved)[USER]
        for id in model.dirty:
            self._check_command(id)
        model.dirty.clear()
        for name in ("state", "seq", "id", "cancelling", "count"):
            same(getattr(stored, name), getattr(model, name), name)
        same(stored.verb or "", model.verb, "verb")
        same(list(stored.queue), model.queue, "queue")
        same(list(stored.settled), model.settled, "settled")
        same(stored.forgotten, model.forgotten, "forgotten")
        same((stored.deadline_ticks, stored.taken_at), (model.due, model.taken), "due, taken")
        same(stored.deadline_wall, model.deadline, "deadline")
        same(stored.time, model.wall, "time")
        same((stored.idle, stored.idle_at), (model.idle, model.idle_at), "idle")
        if self._again_at is None:
            record = self.lab.coordinator.records[USER]
            same(record.unoffered_ticks, model.unoffered, "unoffered")
            # What is offered moves no record: it is on the disk with the next change of one.
            stored = replace(stored, unoffered_ticks=record.unoffered_ticks)
            same(as_stored(record), stored, "record in memory")

    def _check_command(self, id: str) -> None:
        one, stored = self.model.commands[id], self.lab.store.command(USER, id)
        assert stored is not None, id
        report = stored.report
        found = {
            "program": stored.request.program,
            "timeout": stored.request.timeout,
            "expires": stored.request.expires,
            "grace": stored.request.grace,
            "analyser": stored.analyser,
            "name": stored.request.name,
            "expires_at": stored.request.expires_at,
            "number": stored.number,
            "journal": stored.journal,
            "boot": stored.boot,
            "outcome": report and report.outcome,
            "ran": report and report.ran,
            "response": report.response if report else "",
            "analysis": LINE if is_line(one, stored.analysis) else stored.analysis,
            "answered_by": stored.answered_by,
            "heard": set(stored.journals_answered),
            "accepted": set(stored.accepted),
            "late_collected": stored.late_collected,
            "late": stored.late,
            "orphan": stored.orphan,
            "by": stored.analysed_by and stored.analysed_by.key,
            "regrades": {one.by.key: one.analysis for one in self.lab.store.regrades(stored)},
            "no_analysis": stored.no_analysis or None,
        }
        same(found, one, id)

    def check_everything(self) -> None:
        """Each row, read back, and no row too many."""
        (rows,) = self.reader.execute("SELECT count(*) FROM commands").fetchone()
        assert rows == len(self.model.commands)
        for id in self.model.commands:
            self._check_command(id)
        stored = {
            mid: (one.topic.split("/")[2], one.error is not None)
            for mid, one in self.lab.store.packets().items()
        }
        known = self.model.packets.items()
        expected = {mid: (kind, error is not None) for mid, (kind, _, error) in known}
        same(stored, expected, "packets")


def _say_once(told: list[Told], since: int) -> None:
    """What has not changed in a round is said once: a status first, a result at its last place."""
    last: dict[str, Any] = {}
    results: dict[str, Told] = {}
    kept: list[Told] = []
    for one in told[since:]:
        if one.kind == "result":
            before = results.get(one.fields["id"])
            if before and (before.fields, before.whole) == (one.fields, one.whole):
                kept = [other for other in kept if other is not before]
            results[one.fields["id"]] = one
        if one.kind != "status" or one.fields != last:
            kept.append(one)
        last = one.fields if one.kind == "status" else last
    told[since:] = kept


def offered(analyst: str, names: frozenset[str]) -> Delivery:
    offer = encode_offer(Offer(bool(names), dict.fromkeys(sorted(names), "1"), 0.0))
    return Delivery(f"hw/@hwsync/analysts/{analyst}", offer, 1, True, False, OFFERED, 1)


def delivery(said: Said) -> Delivery:
    return Delivery(f"hw/{USER}/{said.kind}", said.payload, 1, said.retain, said.dup, said.mid, 1)
