"""hwsync with one safeguard switched off: the checker must find out, or it has a hole.

The law: a mutant is a change of the production code's own text, which must be there exactly once,
so that a mutant dies loudly when the code moves on. Where another safeguard covers the one in
question, both are switched off; the cover alone (``cover``) must then be harmless in that world, or
the mutant would prove nothing.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Final

from hwsync.coordinator.deciding import RoundDecision
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.schedule import ConnectedClock, Resends
from hwsync.coordinator.startup_gate import StartupGate
from hwsync.device import instants as device_instants
from hwsync.device.agent import Agent
from hwsync.device.deeds import Deeds
from hwsync.device.journal import Journal
from hwsync.device.publishing import Shrinking
from hwsync.operator import conversation
from hwsync.protocol import (
    admission,
    core,
    grouped,
    idle,
    machine,
    moves,
    named,
    record,
    starts,
    stopping,
    together,
    turns,
    waiting,
)
from hwsync.protocol.core import Memory
from hwsync.protocol.device import core as device_core
from hwsync.protocol.device import moves as device_moves
from hwsync.protocol.device.asking import Asking
from hwsync.protocol.device.clock import Estimator
from hwsync.protocol.draft import Draft
from hwsync.protocol.record import Command
from hwsync.runner import release
from hwsync.runner.page import Page
from hwsync.store.store import Store
from hwsync.testing.devices import Device
from hwsync.transport import connecting
from hwsync.transport.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: in that function, that text becomes another."""

    owner: type | ModuleType
    function: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A safeguard, and how it is switched off; ``covered_by``: what is switched off with it.

    ``faults``: the only kinds in its worlds, where others would hide what it is for; empty: all.
    ``largest``: its worlds' brokers have a limit of what they take; ``broker``: whose habits;
    ``instants``: in its worlds boards begin at instants.
    """

    name: str
    edits: tuple[Edit, ...]
    covered_by: str = ""
    cover: tuple[Edit, ...] = ()
    faults: tuple[str, ...] = ()
    largest: bool = False
    broker: str | None = None
    instants: bool | None = None


@contextmanager
def changed(edits: tuple[Edit, ...]) -> Iterator[None]:
    """hwsync with these changes, for all of this process; as it was again at the end.

        with changed(mutant.edits):
            report = World(seed=1, folder=path).run()

    Raises ``ValueError`` where a text is not there exactly once: the code has moved on, and the
    mutant is to be moved with it.
    """
    before: list[tuple[FunctionType, CodeType]] = []
    texts: dict[FunctionType, str] = {}
    try:
        for edit in edits:
            # Within what wraps it: a decorator stays as it is.
            function = inspect.unwrap(inspect.getattr_static(edit.owner, edit.function))
            if not isinstance(function, FunctionType):
                raise ValueError(f"{edit.function} is no plain function")
            text = texts.get(function) or _source(function)
            if text.count(edit.old) != 1:
                raise ValueError(f"{edit.function} has {edit.old!r} {text.count(edit.old)} times")
            texts[function] = text.replace(edit.old, edit.new)
            before.append((function, function.__code__))
            # In place: whoever holds the function has the changed one.
            function.__code__ = _compiled(edit.function, texts[function], function)
        yield
    finally:
        for function, code in reversed(before):
            function.__code__ = code


def _source(function: FunctionType) -> str:
    """Its text without decorators."""
    text = textwrap.dedent(inspect.getsource(function))
    return text[text.index("def ") :]


def _compiled(name: str, text: str, function: FunctionType) -> CodeType:
    space = dict(function.__globals__)
    exec(compile(text, f"<{name}, changed>", "exec"), space)
    new: FunctionType = space[name]
    return new.__code__


MUTANTS: Final = (
    Mutant(
        "flush before the acknowledgement (device)",
        (
            Edit(Agent, "received", "user, kind = self._topics.split(topic)",
                 "acknowledge()\n    user, kind = self._topics.split(topic)"),
        ),
    ),
    Mutant(
        "grant before the start",
        (
            Edit(device_moves, "_receive", "id=case.id, stage=to,", "id=case.id, stage=STARTING,"),
            Edit(device_moves, "_receive", "if case.reason:",
                 "decision.do(Action(values.START_RUN, case.id))\n    if case.reason:"),
        ),
    ),
    Mutant(
        "grant bound to the journal",
        (
            Edit(device_core, "_meaning", "(event.id, event.state, event.journal) !=",
                 "(event.id, event.state, own.journal) !="),
        ),
    ),
    Mutant(
        "only a later boot moves the grant",
        (
            Edit(named, "moves_grant", "event.boot > known.boot", "event.boot != known.boot"),
        ),
        faults=("kill at a point", "repetition"),
    ),
    Mutant(
        "the device compares ids",
        (
            Edit(device_core, "_meaning", "(event.id, event.state, event.journal) !=",
                 "(state.id, event.state, event.journal) !="),
        ),
        "what is older than its envelope says nothing of it",
        (Edit(device_core, "_meaning", "event.order < state.order", "False"),),
        faults=("connection reset", "partition", "delay", "reordering", "repetition"),
    ),
    Mutant(
        "the coordinator compares ids",
        (
            Edit(machine, "_named", "if known.id != record.id:", "if False:"),
        ),
    ),
    Mutant(
        "a newer status raises the epoch",
        (Edit(RoundDecision, "begin_epoch", "if self.newer is None:", "if True:"),),
    ),
    Mutant(
        "no clock decides which epoch is believed",
        (
            Edit(RoundDecision, "_compare",
                 "core.compare(user, order, self.draft, of_device=of_device)",
                 "core.compare(user, order, self.draft, of_device=of_device)\n"
                 "    if sighting.newer and sighting.newer > self.moment.wall + 86_400.0:\n"
                 "        sighting = core.Sighting(forged=order)"),
        ),
        faults=("older database", "clock jump at a restart", "kill"),
    ),
    Mutant(
        "nothing is decided before the kept statuses",
        (Edit(StartupGate, "admit", "if self._is_open:", "if True:"),),
    ),
    Mutant(
        "a stale status is ignored",
        (Edit(device_core, "_is_stale", "if event.order >= state.newest:", "if True:"),),
    ),
    Mutant(
        "settled before pruning",
        (Edit(Journal, "prune", "settled = 1 and changed < ?",
              "settled = 1 and changed < ? or settled = 0 and account is not null"),),
    ),
    Mutant(
        "another status ends the wait",
        (Edit(device_core, "_meaning", "return moves.OTHER,", "return moves.PENDING,"),),
    ),
    Mutant(
        "collected is repeated",
        (Edit(device_core, "_tick", "decision.change(collect=state.collect.later(moment))",
              "decision.actions.clear()\n        decision.change(collect=None)"),),
        "the envelope is sent again, and answered",
        (Edit(device_moves, "_collect_again",
        "decision.do(Action(values.PUBLISH_COLLECTED, case.id))",
              "pass"),),
        faults=("kill", "kill at a point"),  # of a coordinator that the broker keeps nothing for
        broker="amqtt",
    ),
    Mutant(
        "results are repeated",
        (Edit(device_core, "_tick", "decision.change(results=state.results.later(moment))",
              "decision.actions.clear()\n        decision.change(results=None)"),),
    ),
    Mutant(
        "a message sent again is recognised (DUP)",
        (Edit(Memory, "find", "if not message.dup or id is not None:", "if True:"),),
    ),
    Mutant(
        "an id belongs to one text",
        (Edit(admission, "check_repeat", "if not known.orphan and", "if False and"),),
        "the operator compares the program",
        (Edit(conversation, "_is_of_another", "return any(", "return False and any("),),
    ),
    Mutant(
        "all is published again on a connect",
        (Edit(Coordinator, "step", "if self._receive(signals):",
              "if self._receive(signals) and False:"),),
    ),
    Mutant(
        "leftovers end before interrupted is said",
        (Edit(Deeds, "_end_leftovers",
              "self._environment.end_leftovers(group) if group else 0", "0"),),
    ),
    Mutant(
        "settle time before deadlines",
        (Edit(ConnectedClock, "wait", "self._since + self.hold_deadlines_s - monotonic", "0.0"),),
        faults=("partition", "pause", "connection reset"),
    ),
    Mutant(
        "what is left of a deadline is written down",
        (Edit(Store, "write_down", "if running or doubts or heard or waits:", "if False:"),),
        faults=("switched off again and again",),
    ),
    Mutant(
        "one transaction for a round",
        (Edit(Store, "save", "for statement, rows in written:",
              "for statement, rows in written:\n"
              "            if 'INTO transitions' in statement:\n"
              "                connection.execute('COMMIT')\n"
              "                if hasattr(self, 'process'):\n"
              "                    self.process.point('after a commit')\n"
              "                connection.execute('BEGIN IMMEDIATE')"),),
    ),
    Mutant(
        "acknowledged after the commit (coordinator)",
        (Edit(Coordinator, "step", "decided = self._decide(now)",
              "decided = self._decide(now)\n"
              "        for delivery in self._waiting:\n"
              "            self._publisher.acknowledge(delivery)"),),
    ),
    Mutant(
        "said after the commit (coordinator)",
        (Edit(Coordinator, "step", "decided = self._decide(now)",
              "decided = self._decide(now)\n        self._perform(decided)"),),
    ),
    Mutant(
        "started is written before the program begins",
        (Edit(Deeds, "_write_started",
              "self._journal.started(action.id, group, self._environment.monotonic())", "pass"),),
    ),
    Mutant(
        "nothing is granted after its expires_at",
        (Edit(moves, "_may_be_collected", "not is_over(record, moment)", "True"),),
        faults=("wall clock jump", "pause"),
    ),
    Mutant(
        "what waits ends at its expires_at",
        (Edit(moves, "_is_due", "(ticking or is_over(record, moment))", "ticking"),),
    ),
    Mutant(
        "a program is run under its name",
        (Edit(Deeds, "_job", "name=envelope.name,", ""),),
    ),
    Mutant(
        "a cloned journal gets another name",
        (Edit(Journal, "_begin", "if bound is not None and bound != machine:", "if False:"),),
    ),
    Mutant(
        "a command opened again has another boot",
        (Edit(device_moves, "_write_received",
              "decision.write(Action(values.NEXT_BOOT))", "pass"),),
        faults=("older database", "delay", "kill at a point", "reordering"),
    ),
    Mutant(
        "what was started is interrupted by a restart",
        (Edit(device_core, "_of_a_run", "word, stage, case = moves.RESTART, event.stage,",
              "word, stage, case = moves.RESTART, RECEIVED,"),),
    ),
    Mutant(
        "a known id is answered, and not taken",
        (Edit(device_core, "_offered", "stage = known.stage", "stage = NEW"),),
    ),
    Mutant(
        "only the grant's journal corrects to no",
        (Edit(named, "_late_result", "if said is Ran.YES or held or",
              "if said is Ran.YES or True or"),),
        faults=("second device", "partition", "kill", "new disk", "delay"),
    ),
    Mutant(
        "after a restore a no is a maybe",
        (Edit(Command, "without_false_no", "if self.doubtful and report.ran is Ran.NO:",
        "if False:"),),
    ),
    Mutant(
        "an orphan's no is a maybe",
        (Edit(named, "decide_unknown", "doubtful=True", "doubtful=False"),),
        faults=("second device", "new disk", "older database", "kill"),
    ),
    Mutant(
        "no connect asks for a session of its own",
        (Edit(connecting, "attempts", "Attempt(5, clean_session,", "Attempt(5, True,"),),
    ),
    Mutant(
        "the broker is asked to keep the session",
        (Edit(connecting, "attempts", "new = Attempt(5, clean_session, not clean_session,",
              "new = Attempt(5, clean_session, False,"),),
    ),
    Mutant(
        "what is turned away is settled all the same",
        (Edit(idle, "turned_away", "settled=(*rest, (id, journal))[-limits.SETTLED_PAIRS :]",
              "settled=record.settled"),),
        faults=("orphans",),
    ),
    Mutant(
        "the result of a known command is never turned away",
        (Edit(idle, "_for_nothing",
              "decision.command if known is None and decision.command else None",
              "decision.command"),),
        faults=("orphans", "partition", "pause", "kill"),
    ),
    Mutant(
        "devices tell all they hold in a new epoch",
        (Edit(Deeds, "_begin_epoch", "self._journal.begin_epoch(action.number)",
              "self._journal.epoch = action.number"),),
    ),
    Mutant(
        "what the broker hangs up on twice is given up",
        (Edit(Outbox, "_strike", "elif again and message.courtesy:", "elif False:"),),
        largest=True,
        broker="mosquitto",  # with MQTT 3.1.1 nobody names a topic for the answer
    ),
    Mutant(
        "what may be the reason goes by itself",
        (Edit(Outbox, "_ended", "elif signal.hung_up:\n        self._careful = True",
              "elif signal.hung_up:\n        self._careful = False"),),
        largest=True,
    ),
    Mutant(
        "what is too large is made smaller",
        (Edit(Outbox, "_strike", "self.capacity.learn(size, now)", "pass"),),
        largest=True,
    ),
    Mutant(
        "a result that is dropped is made smaller",
        (Edit(Shrinking, "answered", "if attempts.asked:", "if False:"),),
        largest=True,
    ),
    Mutant(
        "a drift is what all samples leave over",
        (Edit(Estimator, "estimate", "low, high = self._drifts",
              # The slope of a line through the middles of the samples, by least squares.
              "times = [t for t, _ in self._uppers]\n"
              "    mids = [(u - n) // 2 for (_, u), (_, n) in zip(self._uppers, self._lowers)]\n"
              "    at, middle = sum(times) // len(times), sum(mids) // len(mids)\n"
              "    over = sum((t - at) ** 2 for t in times) or 1\n"
              "    slope = sum((t - at) * (m - middle) for t, m in zip(times, mids))\n"
              "    low = high = slope * PPB // over"),),
    ),
    Mutant(
        "what a board has slept over says nothing of lab time",
        (Edit(Estimator, "_was_suspended", "> SUSPENDED_US", "> 10**18"),),
        faults=("pause",),
    ),
    Mutant(
        "one transaction for the start of a batch",
        (Edit(Store, "save", "for statement, rows in written:",
              "for statement, rows in written:\n"
              "            if 'INTO commands' in statement and len(rows) > 1:\n"
              "                connection.execute(statement, rows[0])\n"
              "                connection.execute('COMMIT')\n"
              "                if hasattr(self, 'process'):\n"
              "                    self.process.point('after a commit')\n"
              "                connection.execute('BEGIN IMMEDIATE')"),),
        faults=("kill at a point",),
        instants=True,
    ),
    Mutant(
        "an instant is of the life in which it was asked for",
        (
            Edit(record, "latest_start_s", "if command.start_life != moment.life:", "if False:"),
            Edit(moves, "_collect", "journal=event.journal, boot=event.boot)",
                 "journal=event.journal, boot=event.boot, start_life=moment.life)"),
        ),
        faults=("clock jump at a restart", "partition", "kill"),
        instants=True,
    ),
    Mutant(
        "whoever asks after the decision comes too late",
        (Edit(together, "_decided", "**dict.fromkeys(absent, Code.WRONG_STATE)", ""),),
        instants=True,
    ),
    Mutant(
        "nobody is waited for longer than the wait",
        (Edit(together, "begin", "waits=moment.ticks < batch.wait_until", "waits=True"),),
        instants=True,
    ),
    Mutant(
        "who is not ready does not count for those that are needed",
        (
            Edit(together, "begin", "len(found.ready) >= batch.start.need",
                 "len(found.ready) + len(found.behind) >= batch.start.need"),
        ),
        instants=True,
    ),
    Mutant(
        "a grant that moves has the same instant",
        (
            Edit(moves, "_move_grant", "boot=event.boot)",
                 "boot=event.boot,\n        start_at_us=command.start_at_us"
                 " and command.start_at_us + 1_000_000)"),
        ),
        faults=("kill at a point", "kill"),
        instants=True,
    ),
    Mutant(
        "who is ready and not needed is left out, too",
        (
            Edit(together, "begin", "for one in left:",
                 "for one in left:\n"
                 "        if draft.record_of(one.user).state is State.COLLECTED:\n"
                 "            continue"),
        ),
        instants=True,
    ),
    Mutant(
        "an instant is in the lab time of its own life",
        (
            Edit(device_core, "_timed_meaning", "event.clock_life != event.start_life", "False"),
            Edit(device_core, "_clock_changed", "if event.life and state.life != event.life:",
                 "if False:"),
        ),
        "it is not converted by another life's",
        (Edit(device_instants, "instant", "estimate is None or estimate.life != life",
              "estimate is None"),),
        faults=("another life of lab time", "delay", "connection reset"),
        instants=True,
    ),
    Mutant(
        "what is taken back is disarmed",
        (
            Edit(device_moves, "move", "if (word, stage) in TABLE:",
                 "if (word, stage) in TABLE and (stage, word) not in"
                 " ((ARMED, CANCEL), (ARMED, PENDING), (ARMED, OTHER)):"),
        ),
        instants=True,
    ),
    Mutant(
        "a grant without an instant starts nothing",
        (
            Edit(device_core, "_timed_meaning",
                 'if event.start_at is None:\n        return moves.PENDING, ""',
                 'if event.start_at is None:\n        return moves.GRANT, ""'),
        ),
        instants=True,
    ),
    Mutant(
        "what the coordinator had said by then was heard",
        (Edit(device_instants, "instant", "seen is not None and seen <= heard", "True"),),
        faults=("late statuses",),
        instants=True,
    ),
    Mutant(
        "whoever was not answered for 10 s releases nothing",
        (Edit(release, "release", "if now > fresh:", "if False:"),),
        faults=("partition", "partition, one way", "delay"),
        instants=True,
    ),
    Mutant(
        "all is looked at once more at the release",
        (
            Edit(Deeds, "_arm_run", "if when is None:",
                 "if when is None or not when.heard or when.bound_us > when.within_us"
                 " or when.fresh_until_ns < self._environment.raw_us() * NS:"),
            Edit(release, "release", "if state == disarmed:", "if False:"),
            Edit(release, "release", "if now > target + within * 1000:", "if False:"),
            Edit(release, "release", "if now > fresh:", "if False:"),
            Edit(release, "release", "if not heard:", "if False:"),
            Edit(release, "release", "if bound > within:", "if False:"),
        ),
        instants=True,
    ),
    Mutant(
        "nobody begins later than within",
        (Edit(release, "release", "if now > target + within * 1000:", "if False:"),),
        instants=True,
    ),
    Mutant(
        "nobody begins whose clock may be wrong by more than within",
        (Edit(release, "release", "if bound > within:", "if False:"),),
        faults=("delay", "kill"),
        instants=True,
    ),
    Mutant(
        "who was suspended does not begin",
        (Edit(release, "release", "if slept(found[14]):", "if False:"),),
        faults=("pause",),
        instants=True,
    ),
    Mutant(
        "the mark stands before the first instruction",
        (
            Edit(Device, "_first", "begin()\n        self._begins(session)",
                 "self._begins(session)\n        self.context.schedule.after(0.05,"
                 " lambda: session.page.descriptor >= 0 and begin())"),
        ),
        instants=True,
    ),
    Mutant(
        "whether it began is asked of the mark",
        (
            Edit(Page, "_listen", "if kind == MARK:", "if False:"),
            Edit(Page, "_listen", "elif kind == STARTED:", "elif False:"),
        ),
        instants=True,
    ),
    Mutant(
        "collected is said when the process is ready",
        (
            Edit(device_moves, "_prepare", "_prepare_again(decision, to, case, moment)",
                 "_prepare_again(decision, RECEIVED, case, moment)\n"
                 "    decision.do(Action(values.PUBLISH_COLLECTED, case.id))\n"
                 "    decision.change(collect=repetition(moment))"),
        ),
        faults=("none",),
        instants=True,
    ),
    Mutant(
        "whoever hears of an instant that is close asks for the time at once",
        (Edit(Asking, "awaits", "due = max(now, self._last + LAST_US)", "pass"),),
        faults=("none",),
        instants=True,
    ),
    Mutant(
        "so many of a batch at a time",
        (Edit(turns, "_go_on", "if batch.has_place else None", ""),),
    ),
    Mutant(
        "who waits in a batch begins when one ends",
        (Edit(core, "_decide", "turns.of_batches(draft, moment, rules)", "pass"),),
    ),
    Mutant(
        "who waits in a batch has a command",
        (Edit(waiting, "join_batch", "Decision(after, entry, command,",
              "Decision(after, entry, None,"),),
    ),
    Mutant(
        "stop-all takes out who waits first",
        (Edit(stopping, "stop_all", "_take_out(draft, members, moment, rules)", "pass"),),
    ),
    Mutant(
        "a group's cancel takes out who waits first",
        (Edit(stopping, "cancel", "if _waits_of(draft, user, batch):", "if False:"),),
    ),
    Mutant(
        "only commands of a batch count",
        (
            Edit(grouped, "_ask", "return Code.ID_REUSED", "return None"),
        ),
    ),
    Mutant(
        "a start is decided once",
        (Edit(together, "_decided", "wait_until=None,", "wait_until=batch.wait_until,"),),
        instants=True,
    ),
    Mutant(
        "after a restore a no of who waits in a batch is a maybe",
        (
            Edit(waiting, "cancel", "known.without_false_no(report)", "report"),
            Edit(waiting, "_expired", "known.without_false_no(report)", "report"),
        ),
        faults=("a batch and an older database", "delay"),
        instants=False,
    ),
    Mutant(
        "a new epoch ends who waits in a batch",
        (
            Edit(turns, "lose_waiting", "*(id for id, _ in record.batched)", ""),
        ),
        faults=("a batch and an older database", "delay"),
        instants=False,
    ),
    Mutant(
        "a start of the coordinator looks whose turn it is",
        (
            Edit(Coordinator, "_load", "self._may_be_turns = self._look_at_all = True",
                 "self._may_be_turns, self._look_at_all = False, True"),
        ),
        "a turn comes in the transaction in which it becomes possible",
        (
            # It comes in the next one.
            Edit(turns, "of_batches", "while _go_on(", "while moment.nonce == 'next' and _go_on("),
            Edit(core, "take_turns", "turns.of_batches(draft, moment, rules)",
                 "import dataclasses\n"
                 "        moment = dataclasses.replace(moment, nonce='next')\n"
                 "        turns.of_batches(draft, moment, rules)"),
            Edit(Coordinator, "_adopt", "self._may_be_turns = self._look_at_all = False",
                 "self._may_be_turns = bool(decided.changes.batches and decided.changes.log)\n"
                 "    self._look_at_all = False"),
            Edit(Coordinator, "wait", "if self._to_analyse:",
                 "if self._to_analyse or self._may_be_turns:"),
        ),
        faults=("kill as a turn is due",),
        instants=False,
    ),
    Mutant(
        "a will counts until its device is heard again",
        (
            Edit(Resends, "note_presence", "self._present[user] = heartbeat",
                 "self._present[user] = heartbeat\n"
                 "    if not heartbeat.online:\n"
                 "        self._present['will of ' + user] = heartbeat"),
            Edit(Resends, "heard", "return self._present.get(user)",
                 "present = self._present.get(user)\n"
                 "    will = self._present.get('will of ' + user)\n"
                 "    same = will and present and (will.journal, will.boot) =="
                 " (present.journal, present.boot)\n"
                 "    return will if same else present"),
        ),
        faults=("away for a moment",),
        instants=True,
    ),
    Mutant(
        "a repeat begins nothing that has expired",
        (
            Edit(machine, "_requested", "if known is not None:",
                 "if known is not None and not (\n"
                 "        known.report and known.report.outcome == 'expired'):"),
        ),
        instants=True,
    ),
    Mutant(
        "an instant counts in its own life alone",
        (
            Edit(record, "latest_start_s", "if command.start_life != moment.life:", "if False:"),
            Edit(starts, "ahead_s", "or command.start_life != moment.life", ""),
        ),
        faults=("clock jump at a restart", "partition"),
        instants=True,
    ),
    Mutant(
        "a late result changes what is said of its batch",
        (Edit(Draft, "_count_members", "if batch is None:",
              "if batch is None or batch.ended is not None:"),),
        faults=("partition", "partition, one way", "kill"),
        instants=False,
    ),
)  # fmt: skip
