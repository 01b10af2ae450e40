"""Whatever an analyser writes down: a verdict that can be published, or a fault in one line."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hwsync.analysers.answer import Fault, read
from hwsync.protocol.jsons import dumps, loads, size
from hwsync.protocol.limits import MAX_ANALYSIS, MAX_FAULT

texts = st.text(st.characters(exclude_categories=()), max_size=20)
odd = st.none() | st.booleans() | st.floats() | st.integers() | texts
values = st.recursive(
    odd, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)
verdicts = st.fixed_dictionaries({}, optional={"passed": odd, "score": odd, "message": values})


def said(text: str) -> Any:
    """The verdict, or the fault."""
    try:
        verdict = read(text)
    except Fault as fault:
        line = str(fault)
        assert 0 < len(line) <= MAX_FAULT
        assert line.isprintable()
        return fault
    assert size(dumps(verdict)) <= MAX_ANALYSIS
    assert loads(dumps(verdict)) == verdict
    return verdict


@given(texts)
def test_any_text(text: str) -> None:
    said(text)


@given(values | verdicts)
def test_any_value(value: Any) -> None:
    verdict = said(json.dumps(value))
    if isinstance(verdict, dict) and isinstance(value, dict):
        assert verdict == value
        assert verdict.get("passed") in (None, True, False)
        assert 0 <= (verdict.get("score") or 0) <= 1
        assert isinstance(verdict.get("message") or "", str)
