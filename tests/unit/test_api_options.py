"""What cannot be meant in the Python API is refused, before anything is sent."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from hwsync.api.lab import Lab
from hwsync.api.options import GroupOptions, Options, Together, check_options, make_request
from hwsync.api.past import filters
from hwsync.protocol.errors import UsageError


class Unsent(Lab):
    """A lab that would fail if anything were asked of it."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("way", ["run", "submit", "map"])
def test_an_option_that_there_is_not_is_no_silence(way: str) -> None:
    ask: Any = getattr(Unsent(), way)
    words = ("1", ["pi1"]) if way == "map" else ("pi1", "1")
    with pytest.raises(UsageError, match=r"no option timeot here \(did you mean timeout\?\)"):
        ask(*words, timeot=3)


def test_each_way_has_its_options() -> None:
    check_options({"timeout": 1, "get": []})
    check_options({"together": True, "timeout": 1}, Together)
    check_options({"parallel": 2, "together": True, "id": "x"}, GroupOptions)
    for name, kind in (("together", Options), ("parallel", Together), ("zzz", GroupOptions)):
        with pytest.raises(UsageError, match=f"no option {name} here"):
            check_options({name: 1}, kind)


def test_a_text_is_no_list_of_boards() -> None:
    with pytest.raises(UsageError, match=r"boards is a text \('pi1'\)"):
        Unsent().map("1", "pi1")


def test_a_program_is_a_text_or_a_path(tmp_path: Path) -> None:
    for wrong in (5, None, print, b"print(1)"):
        with pytest.raises(UsageError, match="the program is a "):
            make_request(cast(Any, wrong), {}, "me")
    (tmp_path / "x.py").write_text("1")
    assert make_request(tmp_path / "x.py", {}, "me").program == "1"


def test_a_moment_in_words_is_none() -> None:
    with pytest.raises(UsageError, match="'yesterday' is no moment"):
        filters(cast(Any, "yesterday"), None, (), {}, last=None)
    assert filters(timedelta(hours=1), 5, (), {}, last=None).since == -3600.0
