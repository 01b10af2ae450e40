"""Our ``replace`` is the standard one, but for its speed."""

from __future__ import annotations

import dataclasses

import pytest

from hwsync.protocol.record import Command, Moment, Record, Request, replace


@dataclasses.dataclass(frozen=True)
class Named:
    first: int
    second: int = dataclasses.field(kw_only=True)


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (Record("pi1"), {"seq": 3, "time": 1.5}),
        (Record("pi1", seq=7, queue=("c1",)), {}),
        (Command("pi1", "c1", Request("1", "c1")), {"id": "c2", "journal": None}),
        (Moment(1.0, 2.0), {"wall": 3.0}),
    ],
    ids=["record", "nothing", "command", "moment"],
)
def test_it_gives_what_the_standard_one_gives(value: Record, changes: dict[str, int]) -> None:
    before = dataclasses.replace(value)
    changed = replace(value, **changes)  # type: ignore[arg-type]
    assert changed == dataclasses.replace(value, **changes)  # type: ignore[arg-type]
    assert type(changed) is type(value)
    assert changed is not value
    assert value == before


def test_a_name_that_is_no_field_is_refused_as_ever() -> None:
    with pytest.raises(TypeError, match="no field 'sequence'"):
        replace(Record("pi1"), sequence=3)  # type: ignore[call-arg]


def test_what_it_cannot_do_it_refuses() -> None:
    with pytest.raises(TypeError, match="Named"):
        replace(Named(1, second=2), first=3)
