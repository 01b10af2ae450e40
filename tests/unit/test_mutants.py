"""Each mutant still fits the code: its text is there exactly once."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType

import pytest

from hwsync.device.agent import Agent
from hwsync.testing.mutants import MUTANTS
from hwsync.testing.switched_off import Edit, Mutant, changed


def code(edit: Edit) -> CodeType:
    """That of the function, within what decorates it."""
    function: FunctionType = inspect.unwrap(getattr(edit.owner, edit.function))
    return function.__code__


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_can_be_switched_off_and_comes_back(mutant: Mutant) -> None:
    edits = mutant.edits + mutant.cover
    codes = [code(edit) for edit in edits]
    with changed(edits):
        assert all(code(edit) is not was for edit, was in zip(edits, codes, strict=True))
    assert [code(edit) for edit in edits] == codes


def test_a_text_that_is_not_there_is_said() -> None:
    with (
        pytest.raises(ValueError, match=r"tick has 'no such text' 0 times"),
        changed((Edit(Agent, "tick", "no such text", ""),)),
    ):
        pass


def test_names_are_not_used_twice() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
