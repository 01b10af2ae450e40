"""Hostile payloads that hypothesis thinks of; it also makes what fails as small as it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import hypothesis
from hypothesis import strategies as st

from hwsync.protocol.topics import TopicKind
from tests.support.fuzz_payloads import VALID, encoded
from tests.support.fuzz_run import Run

TELL_EVERY: Final = 100

_VALID: Final = [(kind, one) for kind, some in VALID.items() for one in some if type(one) is dict]
_KEYS: Final = sorted({key for _, one in _VALID for key in one})

_texts = st.text(st.characters(exclude_categories=()))  # half surrogate pairs too
_plain = st.none() | st.booleans() | st.integers() | st.floats() | _texts
_keys = st.sampled_from(_KEYS) | _texts
_values = st.recursive(
    _plain, lambda some: st.lists(some, max_size=4) | st.dictionaries(_keys, some, max_size=4)
)


@st.composite
def payloads(draw: st.DrawFn) -> tuple[TopicKind | None, bytes]:
    """The kind that it was made from, if any, and the payload."""
    if draw(st.booleans()):
        kind, one = draw(st.sampled_from(_VALID))
        fields: dict[str, Any] = {**one, **draw(st.dictionaries(_keys, _values, max_size=3))}
        return kind, encoded(fields).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        return None, encoded(draw(_values)).encode("utf-8", "surrogatepass")
    return None, draw(st.binary())


def examples(run: Run, count: int, tell: Callable[[int], None] = lambda done: None) -> None:
    """So many examples through every reader of payloads; what was found is in the report."""
    first = run.report.payloads

    @hypothesis.seed(run.report.seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(payloads())
    def search(example: tuple[TopicKind | None, bytes]) -> None:
        found = len(run.report.faults)
        run.report.payloads += 1
        if run.report.payloads % TELL_EVERY == 0:
            tell(run.report.payloads - first)
        run.everywhere(example[1])
        assert len(run.report.faults) == found

    try:
        search()
    except AssertionError:
        # The last example is the smallest.
        del run.report.faults[:-1]
