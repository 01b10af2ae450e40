"""The safeguards of starts at an instant, each of which can be switched off.

The law: as in ``mutants``.
"""

from __future__ import annotations

from typing import Final

from hwsync.coordinator.schedule import Resends
from hwsync.device import instants as device_instants
from hwsync.device.deeds import Deeds
from hwsync.protocol import machine, moves, record, starts, together
from hwsync.protocol.device import core as device_core
from hwsync.protocol.device import moves as device_moves
from hwsync.protocol.device.asking import Asking
from hwsync.runner import release
from hwsync.runner.page import Page
from hwsync.store.store import Store
from hwsync.testing.devices import Device
from hwsync.testing.switched_off import Edit, Mutant

START_MUTANTS: Final = (
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
        "a start is decided once",
        (Edit(together, "_decided", "wait_until=None,", "wait_until=batch.wait_until,"),),
        instants=True,
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
)  # fmt: skip
