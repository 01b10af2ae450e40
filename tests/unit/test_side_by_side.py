"""The boards of one batch beside each other: what is shown of each; which boards a group means."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli import names, records, side_by_side
from hwsync.cli.common import Settings
from hwsync.cli.members import Members
from hwsync.cli.targets import target
from hwsync.protocol.errors import NotFound, UsageError
from hwsync.protocol.record import State
from tests.unit.test_members import status


def seen() -> side_by_side.Seen:
    """One that is ok, one that failed and has no end of a line, one that was refused."""
    members = Members("b1", ["pi1", "pi2", "pi3"])
    ok: dict[str, Any] = {"outcome": "ok", "ran": "yes", "exit_code": 0, "hw_response": "42\n"}
    bad = {
        **ok,
        "outcome": "error",
        "reason": "exit code 1",
        "hw_response": "",
        "stderr": "a\x1b[2Jb",
    }
    members.hear_fields("pi1", status("pi1", State.REST, **ok), 0.0)
    members.hear_fields("pi2", status("pi2", State.REST, **bad), 0.0)
    members.of("pi3").refused = "busy"
    return side_by_side.Seen("@lab1", members)


def test_each_board_has_its_place_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    side_by_side.show(seen())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "program.py on @lab1: 1 ok, 1 failed, 1 refused"
    assert lines[lines.index("--- pi1: ok, exit 0") :] == [
        "--- pi1: ok, exit 0", "42",
        "--- pi2: error, exit code 1", "a\x1b[2Jb",  # into a file as it is
        "--- pi3: refused, something runs or waits there (--queue waits behind it)",
        "--- program", "x",
    ]  # fmt: skip


def test_a_line_for_each_that_is_not_ok() -> None:
    assert list(side_by_side.bad_ones(seen())) == [
        "  pi2  error      exit code 1: a\x1b[2Jb",  # say.line makes escapes of these
        "  pi3  refused    something runs or waits there (--queue waits behind it)",
    ]


def test_a_batch_that_nobody_has_taken_is_a_page_too(capsys: pytest.CaptureFixture[str]) -> None:
    members = Members("b1", ["pi1"])
    members.of("pi1").refused = "missing"
    side_by_side.show(side_by_side.Seen("@lab1", members))
    assert capsys.readouterr().out.splitlines() == [
        "@lab1: 1 missing", "--- pi1: missing, it is offline",
    ]  # fmt: skip


def test_a_group_means_who_is_in_it_now(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"@lab1": {"pi2": True, "pi1": None}, "@idle": {}}
    monkeypatch.setattr(names, "members", lambda _, user: there.get(user))

    def meant(*words: str, from_file: bool = False) -> list[str]:
        return records._boards(Settings(), tuple(map(target, words)), from_file=from_file)

    assert meant() == meant("@all") == meant("pi9", "@all") == []  # all that there are
    assert meant("pi1,pi3", "@lab1") == ["pi1", "pi3", "pi2"]
    for nobody in ("@idle", "@lab2"):  # must not mean all
        with pytest.raises(NotFound, match=nobody):
            meant(nobody)
    with pytest.raises(UsageError, match="a file does not say who is in @lab1"):
        meant("@lab1", from_file=True)
