"""What a message is made of: one table of fields for each kind of topic.

The law: a table is a ``TypedDict`` of which each field says its form and, in one sentence, what it
means. So mypy knows what is written and what was read, ``Schema`` reads and checks by the same
forms, and the tables of docs/protocol.md are made of it (``tables``). What is wrong is refused by
the field's name; a reader that only passes over what it cannot use takes ``holds``, or catches the
refusal.

    class Collected(TypedDict):
        id: Annotated[Id, "of the command"]
        boot: NotRequired[Annotated[Count | None, Default(0), "the device's count of starts"]]

    COLLECTED = Schema.of("collected", Collected)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    NotRequired,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import begins_object, loads

Json = dict[str, Any]
Doubt = tuple[Code, str, str]
"""Of a refusal: its code, its sentence and its hint."""

MISSING: Final = object()
"""Stands for the value of a field that is not there; no form takes it."""


def _is_not(key: str, value: Any) -> Doubt:
    return Code.BAD_PAYLOAD, f"{key!r} is not what it must be", ""


@dataclass(frozen=True, slots=True)
class Form:
    """What a value must be.

    ``said``: in the documents. ``holds``: of one value; it is never given null, and never raises.
    ``doubt``: what is refused of a value, or ``MISSING``, that does not hold; ``loose``: whoever
    takes the field looks himself what it is, so that a wrong one spoils no message.
    """

    said: str
    holds: Callable[[Any], bool]
    doubt: Callable[[str, Any], Doubt] = _is_not
    loose: bool = False


def loose(form: Form) -> Form:
    """That form for a field that only people are shown."""
    return replace(form, loose=True)


@dataclass(frozen=True, slots=True)
class Default:
    """What stands for a field that is not there; ``said``: in the documents, else the value."""

    value: object
    said: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the table; ``default``: ``MISSING`` where the field must be there."""

    key: str
    form: Form
    meaning: str
    null: bool  # it may be null
    default: object = MISSING
    default_said: str = ""

    @property
    def needed(self) -> bool:
        """Whether a message without it is none."""
        return self.default is MISSING

    def takes(self, value: object) -> bool:
        """Whether this is such a value, be it loose or not."""
        return self.null if value is None else self.form.holds(value)


T = TypeVar("T")


class Schema(Generic[T]):
    """The table of one kind of topic.

    ``what``: how a refusal calls a message of it; ``closed``: a key that is not in it is refused,
    elsewhere it is a later version's and passed over.
    """

    def __init__(
        self, what: str, make: Callable[[], tuple[Field, ...]], *, closed: bool = False
    ) -> None:
        self.what = what
        self.closed = closed
        self._make = make

    @classmethod
    def of(cls, what: str, table: type[T], *, closed: bool = False) -> Schema[T]:
        """The schema of a ``TypedDict``, which is looked into when it is first used.

        Then it raises ``TypeError`` where a field says no form.
        """
        return cls(what, lambda: _fields(table), closed=closed)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The rows of the table."""
        return self._make()

    @cached_property
    def by_key(self) -> dict[str, Field]:
        """Each of them by its name."""
        return {field.key: field for field in self.fields}

    @cached_property
    def _plan(self) -> tuple[tuple[str, Callable[[Any], bool] | None, bool, object], ...]:
        return tuple(
            (one.key, None if one.form.loose else one.form.holds, one.null, one.default)
            for one in self.fields
        )

    def part(self, *keys: str) -> Schema[T]:
        """Only these fields of it, none of them loose; what else stands there is passed over."""

        def strict() -> tuple[Field, ...]:
            some = [self.by_key[key] for key in keys]
            return tuple(replace(one, form=replace(one.form, loose=False)) for one in some)

        return Schema(self.what, strict)

    def read(self, obj: Mapping[str, Any]) -> T:
        """The fields of a message, with their defaults. Raises ``Refused`` by the first wrong one.

        A field that may lack and has no default is None.
        """
        if self.closed and not obj.keys() <= self.by_key.keys():
            raise self._unknown(obj)
        found = {}
        for key, holds, null, default in self._plan:
            value = obj.get(key, MISSING)
            if value is MISSING:
                value = default
                if value is MISSING:
                    raise self.wrong(obj, key)
            elif holds is not None and not (null if value is None else holds(value)):
                raise self.wrong(obj, key)
            found[key] = value
        return cast(T, found)

    def holds(self, obj: Mapping[str, Any]) -> bool:
        """Whether ``read`` would refuse nothing."""
        for key, holds, null, default in self._plan:
            value = obj.get(key, MISSING)
            if value is MISSING:
                if default is MISSING:
                    return False
            elif holds is not None and not (null if value is None else holds(value)):
                return False
        return True

    def wrong(self, obj: Mapping[str, Any], key: str) -> Refused:
        """The refusal of a field that is missing, or not of its form."""
        return self.refuse(obj, *self.by_key[key].form.doubt(key, obj.get(key, MISSING)))

    def refuse(self, obj: Mapping[str, Any], code: Code, message: str, hint: str = "") -> Refused:
        """A refusal that says of what, and carries the id and journal that can be read."""
        ident, journal = (
            one if limits.is_id(one) else None for one in (obj.get("id"), obj.get("journal"))
        )
        return Refused(code, f"{self.what}: {message}", hint, id=ident, journal=journal)

    def _unknown(self, obj: Mapping[str, Any]) -> Refused:
        unknown = sorted(key for key in obj if key not in self.by_key)
        names = ", ".join(repr(key[:40]) for key in unknown[:5])
        hint = "the keys are " + ", ".join(sorted(self.by_key))
        return self.refuse(obj, Code.UNKNOWN_FIELD, f"unknown key {names}", hint)


def _fields(table: type) -> tuple[Field, ...]:
    hints = get_type_hints(table, include_extras=True)
    return tuple(_field(key, hint) for key, hint in hints.items())


def _field(key: str, hint: Any) -> Field:
    """A row, by what stands behind the name. Raises ``TypeError`` where that says no form."""
    may_lack = get_origin(hint) is NotRequired
    if may_lack:
        (hint,) = get_args(hint)
    kind, *said = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    null = get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)
    if null:
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
        said = [*get_args(kind)[1:], *said]
    forms = [one for one in said if isinstance(one, Form)]
    meanings = [one for one in said if isinstance(one, str)]
    if len(forms) != 1 or len(meanings) != 1:
        raise TypeError(f"{key!r} needs one form and one meaning")
    defaults = [one for one in said if isinstance(one, Default)]
    default = defaults[0] if defaults else Default(None if may_lack else MISSING)
    return Field(key, forms[0], meanings[0], null, default.value, default.said)


CLEARS: Final = "an empty message clears a retained one"


def read_object(payload: bytes) -> Json | None:
    """The JSON object of a payload, or None where it is none, or above ``MAX_MESSAGE``."""
    if len(payload) > limits.MAX_MESSAGE:
        return None
    try:
        obj = loads(payload.decode())
    except ValueError:
        return None
    return obj if isinstance(obj, dict) else None


def text_of(payload: bytes) -> str:
    """The text of a payload. Raises ``Refused`` where it is too large or no UTF-8."""
    if len(payload) > limits.MAX_MESSAGE:
        raise Refused(
            Code.TOO_LARGE,
            f"a message of {len(payload)} bytes",
            f"at most {limits.MAX_MESSAGE} bytes",
        )
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"the payload is not UTF-8: byte {error.start} is 0x{payload[error.start]:02x}",
            "send UTF-8 text",
        ) from None


def object_in(text: str) -> Json | None:
    """The JSON object that a text may be, in the place of plain text; None where it is none.

    Raises ``ValueError`` where it begins like one and is no JSON.
    """
    obj = loads(text) if begins_object(text) else None
    return obj if isinstance(obj, dict) else None


def object_of(payload: bytes, what: str, example: str) -> Json:
    """The JSON object of a payload. Raises ``Refused`` where it is none."""
    try:
        obj = loads(text_of(payload))
    except ValueError as error:
        raise Refused(Code.BAD_PAYLOAD, f"{what} is no JSON: {error}", example) from None
    if not isinstance(obj, dict):
        raise Refused(Code.BAD_PAYLOAD, f"{what} must be a JSON object", example)
    return obj
