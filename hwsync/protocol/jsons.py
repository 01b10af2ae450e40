"""JSON as the protocol reads and writes it: finite numbers, no half characters, compact.

The standard library's reader accepts NaN, turns 1e999 into infinity, fails on deep nesting with
RecursionError wherever the stack happens to end, and keeps lone surrogates that no UTF-8 can carry.
Here the first three are ``ValueError``, and so is the last to ``size``. A byte order mark before it
is passed over: PowerShell and Windows editors write one.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import Any, Final

from hwsync.protocol.limits import MAX_DEPTH

MAX_INT: Final = 2**53
BOM: Final = "\ufeff"  # the byte order mark


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


_MARK: Final = "\udcff"  # half a surrogate pair: no text that came can have it, and none may go
_NESTING: Final = (dict, list)  # the decoder makes nothing else that has something in it
_TOO_DEEP: Final = f"nested too deeply, more than {MAX_DEPTH} levels"
_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """The value of one JSON text. Raises ``ValueError`` with one line for people."""
    try:
        value = _DECODER.decode(text.removeprefix(BOM))
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def begins_object(text: str) -> bool:
    """Whether a text begins as a JSON object does."""
    return text.removeprefix(BOM).lstrip()[:1] == "{"


def _is_too_deep(value: Any) -> bool:
    """Level by level: what is read here can be written, shown and walked everywhere else."""
    level = [value] if value.__class__ in _NESTING else []
    for _ in range(MAX_DEPTH):
        level = [
            below
            for one in level
            for below in (one.values() if one.__class__ is dict else one)
            if below.__class__ in _NESTING
        ]
    return bool(level)


class Micros(float):
    """Seconds that are whole microseconds: as JSON they have exactly six decimals.

    So a board without 64-bit floats reads digits (docs/protocol.md, section 6). ``us``: the
    microseconds. ``dumps`` finds it as a value of an object, not in a list.
    """

    us: int

    def __new__(cls, us: int) -> Micros:
        """The same number as a float, to compute with."""
        self = super().__new__(cls, us / 1_000_000)
        self.us = us
        return self

    @classmethod
    def of(cls, seconds: float) -> Micros:
        """The nearest of a number of seconds."""
        return cls(round(seconds * 1_000_000))

    @property
    def digits(self) -> str:
        """With six decimals."""
        whole, rest = divmod(abs(self.us), 1_000_000)
        return f"{'-' * (self.us < 0)}{whole}.{rest:06d}"


def micros(seconds: float | None) -> float | None:
    """As lab time is written; what no clock shows stays as it is."""
    if seconds is None or abs(seconds) > MAX_INT / 1_000_000:
        return seconds
    return Micros.of(seconds)


def _marked(value: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """``Micros`` that the encoder would write otherwise, as texts that nobody else can send.

    And how many these are. Most objects have none, which is found at once.
    """
    kinds = set(map(type, value.values()))
    if Micros not in kinds and dict not in kinds:
        return value, 0
    found: dict[str, Any] = {}
    count = 0
    for key, one in value.items():
        if one.__class__ is Micros:
            if (digits := one.digits) != float.__repr__(one):
                found[key] = f"{_MARK}{digits}{_MARK}"
                count += 1
        elif one.__class__ is dict:
            found[key], inside = _marked(one)
            count += inside
    return (value | found, count) if count else (value, 0)


def dumps(value: object) -> str:
    """Compact JSON. Raises ``ValueError`` for what has no JSON or is nested too deeply."""
    try:
        marked, numbers = _marked(value) if isinstance(value, dict) else (value, 0)
        text = _ENCODER.encode(marked)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # A text with half a character stays as it is: nobody can send it.
    if numbers and text.count(_MARK) == 2 * numbers:
        return text.replace(f'"{_MARK}', "").replace(f'{_MARK}"', "")
    return text


def is_number(value: object) -> bool:
    """Whether this is a number, and no whole one that is too large to compute with."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def is_count(value: object) -> bool:
    """Whether this is a whole number from 0 that JSON and SQLite keep exactly everywhere."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INT


def size(text: str) -> int:
    """UTF-8 bytes of a text. Raises ``ValueError`` on half a surrogate pair."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("it contains half a surrogate pair, which is no character") from None


def cut(text: str, limit: int) -> str:
    """The longest start of a text that has at most ``limit`` UTF-8 bytes."""
    data = text.encode()
    return text if len(data) <= limit else data[:limit].decode(errors="ignore")


def fitted(
    fields: dict[str, Any],
    limit: int,
    share: int,
    shortened: Callable[[int], dict[str, Any]],
    last: Callable[[], dict[str, Any]],
) -> bytes:
    """The fields as JSON of at most ``limit`` bytes.

    ``shortened`` gives what takes the place of some, with texts of at most so many bytes: first
    ``share``, then half of it each time, since an escape takes up to six bytes for one character.
    ``last`` gives all that stays where that is not enough.
    """
    payload = dumps(fields).encode()
    while len(payload) > limit and share:
        payload = dumps(fields | shortened(share)).encode()
        share //= 2
    return payload if len(payload) <= limit else dumps(last()).encode()
