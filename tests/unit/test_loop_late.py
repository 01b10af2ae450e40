"""What is heard of an earlier command while a later one is under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsync.protocol.wire.response import encode_collected
from tests.support.coordinator import Lab, request, sent


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """The command c1 was answered and then reset; c2 waits."""
    with Lab(tmp_path / "hwsync.db") as opened:
        opened.device(3)
        opened.hear("reset")
        opened.hear("request", request("c2"))
        yield opened


def test_the_answer_to_a_late_analysis_has_it(lab: Lab) -> None:
    (answer,) = sent(lab.hear("analysis", b'{"id":"c1","analysis":"good"}'), "result/c1")
    assert (answer.json["server_analysis"], answer.json["late"]) == ("good", True)


@pytest.mark.parametrize("journal", ["j1", "j2"])
def test_a_late_collected_that_comes_again_changes_nothing(lab: Lab, journal: str) -> None:
    late = encode_collected("c1", journal, 2)
    before = lab.record.seq
    lab.hear("collected", late)
    noted = lab.record.seq
    assert noted > before
    lab.hear("collected", late)
    assert lab.record.seq == noted
