"""What a run's thread leaves to the loop: it waits, and hears what came of it."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from hwsync.address import BrokerUrl
from hwsync.device.board_environment import Calls, Handover
from hwsync.protocol.errors import HwsyncError, JournalUnavailable
from hwsync.transport import Connection, Pump, Waker
from tests.support.ports import LOOPBACK

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


def test_what_is_left_wakes_the_loop_and_is_taken_once_in_order() -> None:
    waker = Waker()
    calls, made = Calls(waker.wake), list[int]()
    pump = Pump(Connection(BrokerUrl("mqtt", LOOPBACK, 1), "c", subscriptions=[]), waker)

    def run() -> None:
        for number in range(3):
            calls.leave(lambda number=number: made.append(number))  # type: ignore[misc]

    thread = threading.Thread(target=run)
    thread.start()
    began = time.monotonic()
    while len(made) < 3 and time.monotonic() - began < SOON_S:
        assert pump.wait(SOON_S) == []
        for call in calls.take():
            call()
    assert time.monotonic() - began < SOON_S, "the wait has ended by itself"
    thread.join(SOON_S)
    assert made == [0, 1, 2]
    assert calls.take() == []
    waker.close()
