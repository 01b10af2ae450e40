"""The safeguards of hwsync, each of which can be switched off: then the checker must find out.

The law: docs/reliability.md names each, with what its worlds have shown. Those of starts, of
batches, of files and of analyses stand in modules of their own.
"""

from __future__ import annotations

from typing import Final

from hwsync.coordinator.deciding import RoundDecision
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.schedule import ConnectedClock
from hwsync.coordinator.startup_gate import StartupGate
from hwsync.device.agent import Agent
from hwsync.device.deeds import Deeds
from hwsync.device.journal import Journal
from hwsync.device.publishing import Shrinking
from hwsync.operator import conversation
from hwsync.protocol import admission, idle, machine, moves, named
from hwsync.protocol.core import Memory
from hwsync.protocol.device import core as device_core
from hwsync.protocol.device import moves as device_moves
from hwsync.protocol.device.clock import Estimator
from hwsync.protocol.record import Command
from hwsync.store.store import Store
from hwsync.testing.analyst_mutants import ANALYST_MUTANTS
from hwsync.testing.batch_mutants import BATCH_MUTANTS
from hwsync.testing.file_mutants import FILE_MUTANTS
from hwsync.testing.start_mutants import START_MUTANTS
from hwsync.testing.switched_off import Edit, Mutant
from hwsync.transport import connecting
from hwsync.transport.outbox import Outbox

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
        (Edit(Coordinator, "step", "if subscribed:",
              "if subscribed and False:"),),
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
        faults=("a kill and an older database",),
        broker="mosquitto",  # it sends the request again
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
    *START_MUTANTS,
    *BATCH_MUTANTS,
    *FILE_MUTANTS,
    *ANALYST_MUTANTS,
)  # fmt: skip
