"""Each mutant still fits the code: its text is there exactly once."""

from __future__ import annotations

import pytest

from hwsync.device.agent import Agent
from hwsync.testing.mutants import MUTANTS, Edit, Mutant, changed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_can_be_switched_off_and_comes_back(mutant: Mutant) -> None:
    edits = mutant.edits + mutant.cover
    codes = [getattr(edit.owner, edit.function).__code__ for edit in edits]
    with changed(edits):
        assert all(
            getattr(edit.owner, edit.function).__code__ is not code
            for edit, code in zip(edits, codes, strict=True)
        )
    after = [getattr(edit.owner, edit.function).__code__ for edit in edits]
    assert after == codes


def test_a_text_that_is_not_there_is_said() -> None:
    with (
        pytest.raises(ValueError, match=r"tick has 'no such text' 0 times"),
        changed((Edit(Agent, "tick", "no such text", ""),)),
    ):
        pass


def test_names_are_not_used_twice() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
