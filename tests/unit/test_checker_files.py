"""What is promised of files: each promise broken once, and what is excused."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from hwsync.testing.checker import FinalState, check
from hwsync.testing.history import Asked, Began, FileList, JournalLost, PutBack, Said, Seen
from tests.unit.test_checker import end, row, status


def file(path: str, text: str = "") -> tuple[str, int, str]:
    data = (text or path).encode()
    return path, len(data), hashlib.sha256(data).hexdigest()


def told(*files: tuple[str, int, str], **data: str) -> dict[str, Any]:
    said: dict[str, Any] = {path: {"size": size, "sha256": sha} for path, size, sha in files}
    for path, text in data.items():
        said[path]["data"] = b64encode(text.encode()).decode()
    return said


IN: FileList = (file("data.csv"),)
OUT: FileList = (file("a"), file("b"))
ASKED = Asked(1.0, "o", "pi1", "request", "c1", "p", files=IN)
BEGAN = Began(3.0, "pi1", "c1", "p", "j1", files=IN, made=OUT)
NOT_KEPT = [{"path": "b", "size": 1, "reason": "no room"}]


def found(*history: Seen, final: dict[str, Any]) -> list[str]:
    state = FinalState({("pi1", "c1"): final}, {"pi1": [row("hw_command_request", 0, 1)]})
    said = [ASKED, status(2.0), *history]
    return [str(one) for one in check(said, state) if one.promise == "files"]


def ended(*files: tuple[str, int, str], **keys: Any) -> dict[str, Any]:
    return end(**({"files": told(*files), "not_kept": []} | keys))


@pytest.mark.parametrize(
    "final",
    [
        ended(*OUT),
        ended(OUT[0], not_kept=NOT_KEPT),
        ended(not_kept=[{"others": 2}]),
        ended(*OUT, pruned=True),
        ended(OUT[0], pruned=True),
        ended(ran="maybe", outcome="interrupted"),
        ended(*OUT, journal=None, orphan=True),
    ],
)
def test_what_came_back_whole_or_is_named_is_right(final: dict[str, Any]) -> None:
    assert found(BEGAN, final=final) == []


@pytest.mark.parametrize(
    ("final", "text"),
    [
        (ended(OUT[0]), "b neither came back, nor is it said why"),
        (ended(not_kept=[{"others": 1}]), "a and b neither came back"),
        (ended(OUT[0], file("b", "x")), "has a (ca978112), b (2d711642), which its run did not"),
        (ended(*OUT, file("c")), "which its run did not write"),
        (ended(*OUT, journal="j2"), "which its run did not write"),
    ],
)
def test_what_is_another_s_or_lost_is_said(final: dict[str, Any], text: str) -> None:
    assert text in " ".join(found(BEGAN, final=final))


@pytest.mark.parametrize("had", [(), (file("data.csv", "other"),), (*IN, file("more"))])
def test_a_program_has_exactly_what_was_sent(had: FileList) -> None:
    said = found(replace(BEGAN, files=had), final=ended(*OUT))
    assert len(said) == 1
    assert "sent were data.csv" in said[0]


def test_of_a_run_of_which_no_files_are_known_nothing_is_said() -> None:
    unknown = replace(BEGAN, files=None, made=None)
    assert found(unknown, final=ended(OUT[0])) == []


def test_names_and_hashes_stay() -> None:
    said = status(5.0, 3, 3, outcome="ok", ran="yes", files=told(*OUT))
    assert found(BEGAN, said, final=ended(*OUT, pruned=True)) == []
    assert "that was a (" in found(BEGAN, said, final=ended(OUT[0], not_kept=NOT_KEPT))[0]
    back = PutBack(6.0, 4.0)
    assert found(BEGAN, said, back, final=ended(OUT[0], not_kept=NOT_KEPT)) == []


def test_bytes_come_to_who_asks_alone_and_are_those_of_the_hash() -> None:
    with_bytes = status(5.0, 3, 3, outcome="ok", ran="yes", files=told(*OUT, a="a"))
    result = Said(5.0, "pi1", "result", with_bytes.fields)
    assert found(BEGAN, result, final=ended(*OUT)) == []
    for wrong in (with_bytes, replace(result, kept=True)):
        assert found(BEGAN, wrong, final=ended(*OUT)) == ["files: pi1 c1: a status has bytes of a"]
    other = Said(5.0, "pi1", "result", result.fields | {"files": told(*OUT, a="x")})
    assert found(BEGAN, other, final=ended(*OUT)) == ["files: pi1 c1: other bytes of a"]


def test_a_lost_journal_excuses_nothing_of_a_result_that_came() -> None:
    lost = JournalLost(4.0, "pi1", "j1")
    assert found(BEGAN, lost, final=ended(OUT[0])) != []
