"""Tests of one group are one worker's."""

from __future__ import annotations

import pytest

from tests.support.processes import CHECKOUT
from tests.support.sharing import GROUPS, shared

SEEN: list[str] = []


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("tests/unit/test_a.py::test_a", "tests/unit/test_a.py::test_b[x::y]", True),
        ("tests/unit/test_a.py::test_a", "tests/unit/test_b.py::test_a", False),
        ("tests/test_docs.py::test_a", "tests/test_docs.py::test_b", True),
        ("tests/security/test_a.py::test_a", "tests/security/test_a.py::test_b", False),
        (
            "tests/integration/test_hostile.py::a",
            "tests/integration/test_runner_cgroup.py::b",
            True,
        ),
        ("tests/acceptance/test_wheelhouse.py::a", "tests/acceptance/test_wheelhouse.py::b", True),
    ],
)
def test_what_is_together(one: str, other: str, together: bool) -> None:
    assert (shared(one) == shared(other)) is together


@pytest.mark.parametrize("begins", GROUPS)
def test_each_of_the_groups_is_there(begins: str) -> None:
    path, _, test = begins.partition("::")
    assert f"def {test or 'test_'}" in (CHECKOUT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(6))
def test_a_group_is_one_workers(request: pytest.FixtureRequest, number: int) -> None:
    """As it is really shared out: nobody else has run one of those before this one."""
    test = request.function.__name__
    items = request.session.items
    here = [one.name for one in items if one.path == request.path and one.name.startswith(test)]
    SEEN.append(f"{test}[{number}]")
    assert here[: len(SEEN)] == SEEN
