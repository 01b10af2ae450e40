"""The safeguards of analyses, each of which can be switched off.

The law: as in ``mutants``. All of their worlds have analysts.
"""

from __future__ import annotations

from typing import Final

from hwsync.analyst import judging, life
from hwsync.analyst.catching_up import CatchingUp
from hwsync.protocol import machine, moves, named, offers
from hwsync.testing.analysts import Analyst
from hwsync.testing.meddlers import Meddler
from hwsync.testing.operators import Operator
from hwsync.testing.persons import Person
from hwsync.testing.switched_off import Edit, Mutant

AWAY: Final = ("an analyst is away", "all analysts are away")


SLOW: Final = (
    Edit(Analyst, "takes_a_while", "if busy", "if self.context.now < 150.0"),
    Edit(Person, "_acts", "if not self.asking:", "if True:"),
    Edit(Meddler, "_acts", "if not self.asking:", "if True:"),
    Edit(Operator, "_analyses", 'if record["state"] == 3:', "if False:"),
)


def _mutant(name: str, *edits: Edit, faults: tuple[str, ...] = (), slow: bool = False) -> Mutant:
    """``slow``: where nobody else judges, and analysers take a minute and a half, nearly always."""
    covered_by = "somebody judges within a minute" if slow else ""
    return Mutant(name, edits, covered_by, SLOW if slow else (), faults=faults, analysts=True)


ANALYST_MUTANTS: Final = (
    _mutant(
        "a copy of an analysis is told by its name and version",
        Edit(named, "_is_known_analysis", "if event.by is None:", "if True:"),
    ),
    _mutant(
        "a regrade moves no record",
        Edit(moves, "_is_no_regrade", "return not event.regrade", "return True"),
    ),
    _mutant(
        "a regrade does not take the place of the first analysis",
        Edit(named, "decide_for_earlier", "_regrade if event.regrade else _late_analysis",
             "_late_analysis"),
    ),
    _mutant(
        "nothing is regraded before it has ended",
        Edit(named, "refuse_or_correct",
             "isinstance(event, Analysed) and record.state is State.REST",
             "isinstance(event, Analysed) and (event.regrade or record.state is State.REST)"),
    ),
    _mutant(
        "a regrade of what has ended is taken",
        Edit(named, "refuse_or_correct",
             "isinstance(event, Analysed) and record.state is State.REST",
             "isinstance(event, Analysed) and record.state is State.REST and not event.regrade"),
    ),
    _mutant(
        "a first analysis stays",
        Edit(named, "_late_analysis", "if known.analysis is not None:", "if False:"),
    ),
    _mutant(
        "what was said of an end that was only assumed is withdrawn",
        Edit(named, "_without_verdicts", "if not keys:", "if True:"),
    ),
    _mutant(
        "an analysis of another end than the command has is refused",
        Edit(machine, "_is_of_its_end", "if judged != (report.outcome, report.ran):", "if False:"),
        faults=("partition", "delay", "connection reset"),
        slow=True,
    ),
    _mutant(
        "an analysis says whose it is",
        Edit(named, "with_analysis", "analysed_by=event.by", "analysed_by=None"),
    ),
    _mutant(
        "a name that is offered is waited for",
        Edit(offers, "waits_for_analysis",
             "command.waits_for_analyst and command.analyser not in rules.offered",
             "command.waits_for_analyst"),
        Edit(offers, "looked_at", "until = None if is_offered else ticks",
             "until = record.unoffered_ticks if is_offered else ticks"),
        faults=("none",),
    ),
    _mutant(
        "who comes back is waited for",
        Edit(offers, "looked_at", "until = None if is_offered else ticks",
             "until = record.unoffered_ticks if is_offered else ticks"),
        faults=AWAY,
        slow=True,
    ),
    _mutant(
        "a name that nobody offers any more is not waited for",
        Edit(offers, "looked_at", "until = None if is_offered else ticks + limits.UNOFFERED_S",
             "until = None"),
        faults=AWAY,
        slow=True,
    ),
    _mutant(
        "whoever has gone offers nothing",
        Edit(offers, "heard", "return others", "return offers"),
        faults=AWAY,
        slow=True,
    ),
    _mutant(
        "an analyst asks for what it has missed",
        Edit(CatchingUp, "look_at", "if self._back_s <= 0.0 or not names:", "if True:"),
    ),
    _mutant(
        "an analyst judges the run that it says",
        Edit(life.Life, "_judge_what_waits", "stored, one.stored = one.stored, None",
             "stored, one.stored = vars(self).setdefault('first', one.stored), None"),
    ),
    _mutant(
        "an analysis that is too large is said as a fault",
        Edit(judging, "telling", "!= Code.TOO_LARGE", "!= 'nothing'"),
        faults=("none",),
        slow=True,
    ),
)  # fmt: skip
