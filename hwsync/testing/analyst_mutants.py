"""The safeguards of analyses, each of which can be switched off.

The law: as in ``mutants``.
"""

from __future__ import annotations

from typing import Final

from hwsync.protocol import moves, named, offers
from hwsync.testing.switched_off import Edit, Mutant

AWAY: Final = ("an analyst is away", "all analysts are away")

ANALYST_MUTANTS: Final = (
    Mutant(
        "a copy of an analysis is told by its name and version",
        (Edit(named, "_is_known_analysis", "if event.by is None:", "if True:"),),
        analysts=True,
    ),
    Mutant(
        "a regrade moves no record",
        (Edit(moves, "_is_no_regrade", "return not event.regrade", "return True"),),
        analysts=True,
    ),
    Mutant(
        "a regrade does not take the place of the first analysis",
        (Edit(named, "decide_for_earlier", "_regrade if event.regrade else _late_analysis",
              "_late_analysis"),),
        analysts=True,
    ),
    Mutant(
        "a first analysis stays",
        (Edit(named, "_late_analysis", "if known.analysis is not None:", "if False:"),),
        analysts=True,
    ),
    Mutant(
        "what was said of an end that was only assumed is withdrawn",
        (Edit(named, "_without_verdicts", "if not keys:", "if True:"),),
        analysts=True,
    ),
    Mutant(
        "a name that is offered is waited for",
        (
            Edit(offers, "waits_for_analysis",
                 "command.waits_for_analyst and command.analyser not in rules.offered",
                 "command.waits_for_analyst"),
            Edit(offers, "looked_at", "until = None if is_offered else ticks",
                 "until = record.unoffered_ticks if is_offered else ticks"),
        ),
        faults=AWAY,
        analysts=True,
    ),
    Mutant(
        "who comes back is waited for",
        (Edit(offers, "looked_at", "until = None if is_offered else ticks",
              "until = record.unoffered_ticks if is_offered else ticks"),),
        faults=AWAY,
        analysts=True,
    ),
    Mutant(
        "a name that nobody offers any more is not waited for",
        (Edit(offers, "looked_at", "until = None if is_offered else ticks + limits.UNOFFERED_S",
              "until = None"),),
        faults=AWAY,
        analysts=True,
    ),
    Mutant(
        "whoever has gone offers nothing",
        (Edit(offers, "heard", "return others", "return offers"),),
        faults=AWAY,
        analysts=True,
    ),
)  # fmt: skip
