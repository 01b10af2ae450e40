"""hwsync modules: what a program on the board says is believed no more than any output."""

from __future__ import annotations

import pytest

from hwsync.cli.modules import _read


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, '{"python": "3", "modules": {"a": NaN}}', '{"python": "3"}']
)
def test_what_is_no_answer_is_none(text: str) -> None:
    assert _read(text) is None


def test_an_answer() -> None:
    said = '{"python": "3.11", "modules": {"a": "1", "b": null}}'
    assert _read(said) == {"python": "3.11", "modules": {"a": "1", "b": None}}
