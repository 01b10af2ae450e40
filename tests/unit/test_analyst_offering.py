"""What an analyst offers out of its folder; when it leaves a coordinator alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsync.analysers.folder import Folder
from hwsync.analyst.offering import Offering
from hwsync.analyst.quiet import FIRST_S, JUST_S, MAX_S, Quiet
from hwsync.protocol.errors import UsageError

RIGHT = "def analyse(run):\n    return True\n"


@pytest.fixture
def offering(tmp_path: Path) -> Offering:
    (tmp_path / "check1.py").write_text(RIGHT)
    one = Offering(Folder(tmp_path, settle_s=0.0))
    one.begin()
    return one


def test_what_changes_is_offered_and_said_once(
    offering: Offering, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = offering.offer(7.0)
    assert (list(first.analysers), first.broken, first.time) == (["check1"], (), 7.0)
    assert offering.look() is None
    (tmp_path / "check2.py").write_text("def analyse(run:\n")
    (tmp_path / "outcome.py").write_text(RIGHT)
    assert offering.look() == {"check2"}
    assert offering.look() is None
    now = offering.offer(8.0)
    assert (sorted(now.analysers), now.broken) == (["check1", "check2"], ("check2",))
    assert now.analysers["check1"] == first.analysers["check1"]
    assert caplog.text.count("check2.py, line 1") == 1
    assert caplog.text.count("outcome is hwsync's own") == 1
    assert caplog.text.count("which is broken: each run gets a fault") == 1
    (tmp_path / "check1.py").unlink()
    (tmp_path / "check2.py").unlink()
    assert offering.look() == set()
    assert "does not offer check1 any more" in caplog.text
    assert caplog.text.count("has no analyser yet") == 1


def test_a_folder_that_goes_takes_nothing_away(
    offering: Offering, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "check1.py").unlink()
    tmp_path.rmdir()
    assert offering.look() is None
    assert offering.look() is None
    assert list(offering.analysers) == ["check1"]
    assert caplog.text.count("what was offered stays") == 1
    with pytest.raises(UsageError, match="cannot be read"):
        Offering(Folder(tmp_path)).begin()


def test_who_does_not_answer_is_left_alone_longer_each_time() -> None:
    now = 0.0
    quiet = Quiet(lambda: now)
    assert quiet.may_speak
    assert not quiet.is_there
    waits = []
    for _ in range(7):
        quiet.hush()
        quiet.hush()  # others have waited for it, too
        assert not quiet.may_speak
        waits.append(quiet.until - now)
        now = quiet.until
        assert quiet.may_speak
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == MAX_S
    quiet.hush()
    quiet.heard()
    assert quiet.may_speak
    assert quiet.is_there
    quiet.hush()
    assert quiet.until - now == FIRST_S
    assert not quiet.is_there
    quiet.speak()
    now += JUST_S + 1.0
    assert quiet.may_speak
    assert not quiet.is_there
