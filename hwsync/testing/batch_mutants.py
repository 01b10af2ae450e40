"""The safeguards of batches, each of which can be switched off.

The law: as in ``mutants``.
"""

from __future__ import annotations

from typing import Final

from hwsync.coordinator.loop import Coordinator
from hwsync.protocol import core, grouped, stopping, turns, waiting
from hwsync.protocol.draft import Draft
from hwsync.testing.switched_off import Edit, Mutant

BATCH_MUTANTS: Final = (
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
        "a late result changes what is said of its batch",
        (Edit(Draft, "_count_members", "if batch is None:",
              "if batch is None or batch.ended is not None:"),),
        faults=("partition", "partition, one way", "kill"),
        instants=False,
    ),
)  # fmt: skip
