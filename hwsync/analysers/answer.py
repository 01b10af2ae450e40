"""What an analyser answered: checked before anybody believes it.

The law: an answer is JSON within the protocol's limits, and where it speaks of ``passed``,
``score`` and ``message`` it says what these can be; anything else is the analyser's fault, and the
fault is one line that a person can read. Nothing is repaired, and nothing is cut.

    >>> read('{"passed": true, "score": 0.5}')
    {'passed': True, 'score': 0.5}
    >>> read("true")
    {'passed': True}
"""

from __future__ import annotations

from typing import Any, Final

from hwsync.protocol.analysis import misfit
from hwsync.protocol.jsons import dumps, loads, size
from hwsync.protocol.limits import KIB, MAX_ANALYSIS, MAX_FAULT

MAX_DEPTH: Final = 32  # lists and objects inside each other: a record has room for it in its own
SHOWN: Final = 60  # characters of a value in a fault
TOO_LARGE: Final = f"its answer is larger than {MAX_ANALYSIS // KIB} KiB"
NOTHING: Final = "it returned nothing: a verdict is given back with return"


class Fault(Exception):
    """The analyser failed; the text is one line that says how."""


def read(text: str) -> Any:
    """The analysis that an answer is, ready to be published. Raises ``Fault``.

    ``true`` and ``false`` are short for an object with ``passed``.
    """
    try:
        value = loads(text)
    except ValueError as error:
        raise Fault(one_line(f"what it returned is no JSON: {error}")) from None
    if value is None:
        raise Fault(NOTHING)
    if isinstance(value, bool):
        return {"passed": value}
    if isinstance(value, dict):
        _check_verdict(value)
    if _depth(value) > MAX_DEPTH:
        raise Fault(f"its answer is nested more than {MAX_DEPTH} levels deep")
    try:
        length = size(dumps(value))
    except ValueError as error:
        raise Fault(one_line(f"what it returned is no JSON: {error}")) from None
    if length > MAX_ANALYSIS:
        raise Fault(TOO_LARGE)
    return value


def one_line(text: str, most: int = MAX_FAULT) -> str:
    """As one line of at most so many characters, in which nothing moves a cursor."""
    line = " ".join(text[: 4 * most].split())
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _check_verdict(said: dict[str, Any]) -> None:
    if (wrong := misfit(said)) is not None:
        key, allowed = wrong
        raise Fault(f"its {key} is {_shown(said[key])}: it can be {allowed}")


def _shown(value: Any) -> str:
    try:
        return one_line(dumps(value), SHOWN)
    except ValueError:
        return "no JSON"


def _depth(value: Any) -> int:
    """Level by level; what ``loads`` read has an end."""
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        inside = [one.values() if isinstance(one, dict) else one for one in level]
        level = [below for some in inside for below in some]
    return depth
