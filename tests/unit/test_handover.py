"""What a run's thread leaves to the main thread: it waits, and hears what came of it."""

from __future__ import annotations

import queue
import threading

import pytest

from hwsync.device.life import Handover
from hwsync.protocol.errors import HwsyncError, JournalUnavailable

SOON_S = 10.0


def test_it_waits_until_the_call_was_made() -> None:
    made: list[int] = []
    inbox: queue.SimpleQueue[Handover] = queue.SimpleQueue()
    handover = Handover(lambda: made.append(threading.get_ident()))
    seen: list[list[int]] = []

    def ask() -> None:
        inbox.put(handover)
        handover.wait()
        seen.append(list(made))

    thread = threading.Thread(target=ask)
    thread.start()
    asked = inbox.get(timeout=SOON_S)
    assert seen == []
    asked()
    thread.join(SOON_S)
    assert seen == [[threading.get_ident()]]


def test_what_the_journal_refuses_is_raised_where_it_is_waited_for() -> None:
    refusal = JournalUnavailable("the disk is full")

    def refuse() -> None:
        raise refusal

    handover = Handover(refuse)
    handover()
    with pytest.raises(JournalUnavailable) as raised:
        handover.wait()
    assert raised.value is refusal


def test_a_bug_is_no_reason_to_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    handover = Handover(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    handover()
    with pytest.raises(HwsyncError, match="the journal cannot be written: division by zero"):
        handover.wait()
    assert "this is a bug" in caplog.text
