"""One JSON object of a message, read key by key.

The law: a value that is not what it must be is refused by the key's name, and the refusal carries
the message's id and journal where they can be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import is_count, loads, size


def read_object(payload: bytes) -> dict[str, Any] | None:
    """The JSON object of a payload, or None where it is none, or above ``MAX_MESSAGE``."""
    if len(payload) > limits.MAX_MESSAGE:
        return None
    try:
        obj = loads(payload.decode())
    except ValueError:
        return None
    return obj if isinstance(obj, dict) else None


def are_texts(*values: object) -> bool:
    """Texts that UTF-8 can carry: half a surrogate pair, which JSON can spell, is none."""
    try:
        return all(isinstance(value, str) and size(value) >= 0 for value in values)
    except ValueError:
        return False


def are_counts(*values: object) -> bool:
    return all(is_count(value) for value in values)


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


class Fields:
    """The object, and ``what`` it is called in a refusal. Every method raises ``Refused``."""

    def __init__(self, obj: Mapping[str, Any], what: str) -> None:
        self.obj = obj
        self.what = what
        ident, journal = obj.get("id"), obj.get("journal")
        self._id = ident if limits.is_id(ident) else None
        self._journal = journal if limits.is_id(journal) else None

    def refuse(self, code: Code, message: str, hint: str = "") -> Refused:
        """A refusal that says of what, and carries its id and journal."""
        return Refused(code, f"{self.what}: {message}", hint, id=self._id, journal=self._journal)

    def named(self, error: Refused) -> Refused:
        """That refusal as one of this object."""
        return self.refuse(error.code, error.message, error.hint)

    def only(self, keys: frozenset[str]) -> None:
        """Refuses every other key."""
        unknown = sorted(key for key in self.obj if key not in keys)
        if unknown:
            names = ", ".join(repr(key[:40]) for key in unknown[:5])
            raise self.refuse(
                Code.UNKNOWN_FIELD,
                f"unknown key {names}",
                "the keys are " + ", ".join(sorted(keys)),
            )

    def ident(self, key: str) -> str:
        """An id that must be there."""
        if key not in self.obj:
            raise self.refuse(Code.BAD_PAYLOAD, f"the key {key!r} is missing", limits.ID_FORM)
        value = self.obj[key]
        if not limits.is_id(value):
            raise self.refuse(Code.BAD_PAYLOAD, f"{key!r} is no valid id", limits.ID_FORM)
        return str(value)

    def text(self, key: str, default: str = "", limit: int = limits.MAX_MESSAGE) -> str:
        """A text of at most so many bytes of UTF-8."""
        value = self.obj.get(key, default)
        if not isinstance(value, str):
            raise self.refuse(Code.BAD_PAYLOAD, f"{key!r} must be text")
        try:
            return bounded(value, limit, repr(key))
        except Refused as error:
            raise self.named(error) from None

    def number(
        self, key: str, default: float, allowed: tuple[float, float], *, zero: bool = False
    ) -> float:
        """Seconds from the first to the second of ``allowed``, or 0 where that means none."""
        value = self.obj.get(key, default)
        low, high = allowed
        if not _is_finite(value) or not (low <= value <= high or (zero and value == 0)):
            also = "0 or " if zero else ""
            raise self.refuse(
                Code.BAD_PAYLOAD, f"{key!r} must be {also}{low:.12g} to {high:.12g} seconds"
            )
        return float(value)

    def name(self, key: str) -> str | None:
        """The name of a program's file; None where there is none."""
        value = self.obj.get(key)
        if value is None:
            return None
        if not limits.is_name(value):
            raise self.refuse(
                Code.BAD_PAYLOAD,
                f"{key!r} is {str(value)[:40]!r}: no name of a program's file",
                limits.NAME_FORM,
            )
        return str(value)

    def instant(self, key: str) -> float | None:
        """A time of day, in Unix seconds; None where there is none."""
        hint = "it is a time of day, in seconds since 1970 (Unix time; date +%s says it)"
        value = self.optional(key, hint)
        low, high = limits.EXPIRES_AT_S
        if value is not None and not low <= value <= high:
            said = f"{key!r} must be {low:.12g} to {high:.12g}"
            raise self.refuse(Code.BAD_PAYLOAD, said, hint)
        return value

    def optional(self, key: str, hint: str = "") -> float | None:
        """A number; None where there is none."""
        value = self.obj.get(key)
        if value is None:
            return None
        if not _is_finite(value):
            raise self.refuse(Code.BAD_PAYLOAD, f"{key!r} must be a number or null", hint)
        try:
            return float(value)
        except OverflowError:
            raise self.refuse(Code.BAD_PAYLOAD, f"{key!r} is out of range") from None

    def integer(self, key: str, limit: int) -> int | None:
        """A whole number of at most that size; None where there is none."""
        value = self.obj.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > limit:
            raise self.refuse(Code.BAD_PAYLOAD, f"{key!r} must be a whole number up to {limit}")
        return value

    def boolean(self, key: str) -> bool:
        """True or false; false where it is not there."""
        value = self.obj.get(key, False)
        if not isinstance(value, bool):
            raise self.refuse(Code.BAD_PAYLOAD, f"{key!r} must be true or false")
        return value


def _is_finite(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    )
