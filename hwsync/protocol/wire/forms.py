"""The forms of which the tables of ``wire`` are made: what a value must be, and how it is refused.

Each name is a type for mypy with its form in it, so that both are said at once: ``Count | None`` is
a whole number from 0, or null. A form with a limit is made where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import MAX_INT, is_count, is_number, size
from hwsync.protocol.record import MICRO, Outcome, Ran, State
from hwsync.protocol.wire.schema import MISSING, Doubt, Form

STREAMS: Final = ("stdout", "stderr")
_STATES: Final = frozenset(int(state) for state in State)


def bounded(text: str, limit: int, what: str) -> str:
    """The text itself. Raises ``Refused`` when it is too large or not to be written as UTF-8."""
    try:
        length = size(text)
    except ValueError as error:
        raise Refused(Code.BAD_PAYLOAD, f"{what} cannot be stored: {error}") from None
    if length > limit:
        raise Refused(
            Code.TOO_LARGE, f"{what} has {length} bytes", f"at most {limit} bytes of UTF-8"
        )
    return text


def _must_be(what: str, hint: str = "") -> Callable[[str, Any], Doubt]:
    return lambda key, value: (Code.BAD_PAYLOAD, f"{key!r} must be {what}", hint)


# Texts


def text(limit: int = limits.MAX_MESSAGE) -> Form:
    """A text of at most so many bytes of UTF-8."""

    def holds(value: Any) -> bool:
        try:
            return isinstance(value, str) and size(value) <= limit
        except ValueError:
            return False

    def doubt(key: str, value: Any) -> Doubt:
        if not isinstance(value, str):
            return Code.BAD_PAYLOAD, f"{key!r} must be text", ""
        try:
            bounded(value, limit, repr(key))
        except Refused as error:
            return error.code, error.message, error.hint
        raise AssertionError(f"{key!r} is a text")

    unlimited = limit >= limits.MAX_MESSAGE
    return Form("text" if unlimited else f"text, at most {limit:,} bytes", holds, doubt)


TEXT: Final = text()
is_text: Final = TEXT.holds
"""Whether this is a text that UTF-8 can carry: half a surrogate pair, as JSON spells, is not."""


MANY: Final = 4  # texts, which a table does not list


def named(names: Sequence[str]) -> str:
    """These texts in a document: `a`, `b` or `c`."""
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} or {last}" if first else last


def one_of(*names: str) -> Form:
    """One of these texts."""
    some = frozenset(names)
    return Form(
        named(names) if len(names) < MANY else "text",
        lambda value: isinstance(value, str) and value in some,
        _must_be(", ".join(names)),
    )


def _no_id(key: str, value: Any) -> Doubt:
    what = f"the key {key!r} is missing" if value is MISSING else f"{key!r} is no valid id"
    return Code.BAD_PAYLOAD, what, limits.ID_FORM


def _no_name(key: str, value: Any) -> Doubt:
    what = f"{key!r} is {str(value)[:40]!r}: no name of a program's file"
    return Code.BAD_PAYLOAD, what, limits.NAME_FORM


ID: Final = Form("id", limits.is_id, _no_id)
Text = Annotated[str, TEXT]
Id = Annotated[str, ID]
User = Annotated[str, Form("name of a board", limits.is_user)]
Name = Annotated[str, Form("name of a file", limits.is_name, _no_name)]
OutcomeWord = Annotated[str, one_of(*Outcome)]
RanWord = Annotated[str, one_of(*Ran)]


# Numbers


def seconds(allowed: tuple[float, float], *, zero: bool = False) -> Form:
    """Seconds from the first to the second of ``allowed``, or 0 where that means none."""
    low, high = allowed
    also = "0 or " if zero else ""

    def holds(value: Any) -> bool:
        return is_number(value) and (low <= value <= high or (zero and value == 0))

    said = f"number, {also}{low:,.12g} to {high:,.12g}"
    return Form(said, holds, _must_be(f"{also}{low:.12g} to {high:.12g} seconds"))


def _no_instant(key: str, value: Any) -> Doubt:
    hint = "it is a time of day, in seconds since 1970 (Unix time; date +%s says it)"
    if not is_number(value):
        code, message, _ = _no_number(key, value)
        return code, message, hint
    low, high = limits.EXPIRES_AT_S
    return Code.BAD_PAYLOAD, f"{key!r} must be {low:.12g} to {high:.12g}", hint


def _is_instant(value: Any) -> bool:
    low, high = limits.EXPIRES_AT_S
    return is_number(value) and low <= value <= high


def to_micros(number: float) -> int:
    """Seconds of JSON as whole microseconds: exact for six decimals until the year 2242."""
    return round(number * MICRO)


def is_seconds(value: Any) -> bool:
    """Whether this is a number from 0."""
    return is_number(value) and value >= 0


def _no_number(key: str, value: Any) -> Doubt:
    if isinstance(value, int) and not isinstance(value, bool):
        return Code.BAD_PAYLOAD, f"{key!r} is out of range", ""
    return Code.BAD_PAYLOAD, f"{key!r} must be a number or null", ""


def integer(limit: int) -> Form:
    """A whole number of at most that size."""
    return Form(
        "integer",
        lambda value: (
            isinstance(value, int) and not isinstance(value, bool) and abs(value) <= limit
        ),
        _must_be(f"a whole number up to {limit}"),
    )


def _no_count(key: str, value: Any) -> Doubt:
    negative = isinstance(value, int) and not isinstance(value, bool) and -MAX_INT <= value < 0
    which = "from 0" if negative or value is None or value is MISSING else f"up to {MAX_INT}"
    return Code.BAD_PAYLOAD, f"{key!r} must be a whole number {which}", ""


COUNT: Final = Form("integer", is_count, _no_count)
NUMBER: Final = Form("number", is_number, _no_number)
STATE: Final = Form("0 to 3", lambda value: is_count(value) and value in _STATES)
Count = Annotated[int, COUNT]
ExitCode = Annotated[int, integer(2**32)]
Number = Annotated[float, NUMBER]
Instant = Annotated[float, Form("number", _is_instant, _no_instant)]
Seconds = Annotated[float, Form("number", is_seconds)]
StateNumber = Annotated[int, STATE]
Flag = Annotated[
    bool, Form("boolean", lambda value: isinstance(value, bool), _must_be("true or false"))
]


def as_float(number: float | None) -> float | None:
    """A number of JSON, which may be whole, as it is kept."""
    return None if number is None else float(number)


def as_seconds(number: float | None) -> float | None:
    """The same of a time, which is kept as it is said again: with six decimals."""
    return None if number is None else round(float(number), 6)


# Lists and objects


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_pair(pair) and is_text(pair[0]) and is_text(pair[1]) for pair in value
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _is_order(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_pair(part) and is_text(part[0]) and is_count(part[1]) for part in value
    )


def _are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and all(is_text(value.get(stream)) for stream in STREAMS)


def _is_seen(value: Any) -> bool:
    return _is_pair(value) and is_count(value[0]) and is_count(value[1])


SEEN: Final = Form("`[epoch, seq]`", _is_seen, _must_be("[epoch, seq]"))
HASHES: Final = Form('`{"stdout", "stderr"}`', _are_hashes)
ANYTHING: Final = Form("any", lambda value: True)
OBJECT: Final = Form("object", lambda value: isinstance(value, dict))

TEXTS: Final = Form("list of texts", _are_texts)
Texts = Annotated[Sequence[str], TEXTS]
Pairs = Annotated[Sequence[Sequence[str]], Form("list of `[id, journal]`", _are_pairs)]
OrderOfStreams = Annotated[Sequence[Sequence[Any]], Form("list of `[stream, bytes]`", _is_order)]
