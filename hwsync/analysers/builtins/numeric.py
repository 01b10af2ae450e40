"""``numeric``: numbers that are near enough, by name, one or a series."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hwsync.analysers.builtins.parts import ENDED, OF, Argument, Builtin, judged
from hwsync.analysers.run import Analysis, Run
from hwsync.numbers import columns
from hwsync.protocol.jsons import is_number

LAST: Final = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]*\w)")
MOST: Final = 5  # complaints in a message

Expected = float | Sequence[float]


def _is_series(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def _is_expected(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(is_number(one) or _is_series(one) for one in value.values())
    return is_number(value)


def _is_tolerance(value: Any) -> bool:
    ones = list(value.values()) if isinstance(value, dict) else [value]
    return all(is_number(one) and one >= 0 for one in ones)


def _complaint(arguments: Mapping[str, Any]) -> str:
    if "expected" not in arguments:
        return "arguments: give expected, a number, or a table with a number or a list of each name"
    for key in ("tolerance", "relative"):
        given, expected = arguments.get(key), arguments["expected"]
        if isinstance(given, dict):
            names = expected if isinstance(expected, dict) else {}
            for name in given.keys() - names:
                return f"arguments.{key} names {name}, which expected does not"
    return ""


def _numeric(run: Run, text: str) -> Analysis:
    expected = run.arguments["expected"]
    if not isinstance(expected, dict):
        return _one(run, float(expected), text)
    table = columns(text)
    right, said = 0, list[str]()
    for name, wanted in expected.items():
        complaint = _compare(run, name, wanted, table.get(name))
        right += not complaint
        said += [complaint] if complaint else []
    if not said:
        return Analysis(True, score=1.0, message="All numbers are as expected.")
    more = [f"And {len(said) - MOST} more."] if len(said) > MOST else []
    return Analysis(False, score=right / len(expected), message="\n".join([*said[:MOST], *more]))


def _one(run: Run, wanted: float, text: str) -> Analysis:
    found = LAST.findall(text)
    if not found:
        return Analysis(
            False, score=0.0, message=f"Expected {_about(run, '', wanted)}, no number came."
        )
    came = float(found[-1])
    if _is_near(run, "", wanted, came):
        return Analysis(True, score=1.0, message=f"{came:g} is as expected.")
    said = f"Expected {_about(run, '', wanted)}, got {came:.10g}."
    return Analysis(False, score=0.0, message=said)


def _compare(run: Run, name: str, wanted: Expected, came: Sequence[float] | None) -> str:
    """What is wrong with the numbers of a name; empty: nothing."""
    real = [one for one in came or () if not math.isnan(one)]
    if not real:
        return f"{name}: expected {_shown(run, name, wanted)}, nothing came."
    if isinstance(wanted, Sequence):
        if len(real) != len(wanted):
            return f"{name}: expected {len(wanted)} numbers, got {len(real)}."
        for number, (one, other) in enumerate(zip(wanted, real, strict=True), 1):
            if not _is_near(run, name, one, other):
                return (
                    f"{name}, number {number}: expected {_about(run, name, one)}, got {other:.10g}."
                )
        return ""
    if _is_near(run, name, wanted, real[-1]):
        return ""
    return f"{name}: expected {_about(run, name, wanted)}, got {real[-1]:.10g}."


def _limit(run: Run, name: str, key: str) -> float:
    given = run.arguments.get(key, 0.0)
    return float(given.get(name, 0.0) if isinstance(given, dict) else given)


def _margin(run: Run, name: str, wanted: float) -> float:
    """The larger one of both tolerances."""
    return max(_limit(run, name, "tolerance"), _limit(run, name, "relative") * abs(wanted))


def _is_near(run: Run, name: str, wanted: float, came: float) -> bool:
    # What floats themselves lose is nobody's mistake: 0.1 + 0.2 is 0.3.
    margin = _margin(run, name, wanted)
    return abs(came - wanted) <= margin + 1e-12 * max(abs(wanted), margin)


def _about(run: Run, name: str, wanted: float) -> str:
    margin = _margin(run, name, wanted)
    return f"{wanted:.10g} ± {margin:.4g}" if margin else f"{wanted:.10g}"


def _shown(run: Run, name: str, wanted: Expected) -> str:
    return f"{len(wanted)} numbers" if isinstance(wanted, Sequence) else _about(run, name, wanted)


NUMERIC: Final = Builtin(
    "numbers are near enough",
    judged(_numeric),
    {
        "expected": Argument(
            "a number, or a table with a number or a list of numbers for each name",
            _is_expected,
            "a number: the last one in the text; in a table: the last one of that name, or all of "
            "them (a list)",
        ),
        "tolerance": Argument(
            "a number from 0, or a table of them by name", _is_tolerance, "how far it may be", "`0`"
        ),
        "relative": Argument(
            "a number from 0, or a table of them by name",
            _is_tolerance,
            "the same as a share of the expected number; the larger one counts",
            "`0`",
        ),
        "of": OF,
        "ended": ENDED,
    },
    _complaint,
)
