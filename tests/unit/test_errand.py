"""What blocks is done elsewhere, and nothing of it is lost or left open."""

from __future__ import annotations

import select
import threading

import pytest

from hwsync.transport.errand import Errand
from tests.support.waiting import PATIENCE, wait_until


def test_its_owner_is_told_through_a_descriptor() -> None:
    begin = threading.Event()

    def work() -> str:
        begin.wait(PATIENCE)
        return "brought"

    errand = Errand(work)
    assert not errand.is_done
    assert select.select([errand], [], [], 0)[0] == []
    begin.set()
    assert select.select([errand], [], [], PATIENCE)[0] == [errand]
    assert errand.is_done
    assert errand.take() == "brought"


@pytest.mark.parametrize("done_before", [True, False])
def test_what_nobody_wants_any_more_is_dropped_once(done_before: bool) -> None:
    begin, dropped = threading.Event(), list[str]()

    def work() -> str:
        begin.wait(PATIENCE)
        return "brought"

    errand = Errand(work, dropped.append)
    if done_before:
        begin.set()
        wait_until(lambda: errand.is_done)
    errand.abandon()
    begin.set()
    wait_until(lambda: dropped == ["brought"])
    wait_until(lambda: not any(one.name == "hwsync-errand" for one in threading.enumerate()))
    assert dropped == ["brought"]


def test_a_machine_without_threads_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        Errand(lambda: None)
