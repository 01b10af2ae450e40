"""Ctrl-C in a thread that serves a connection: never in the middle of a packet."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from hwsync.address import BrokerUrl
from hwsync.operator.interrupt import Interrupts
from hwsync.transport import Connection, Pump, Waker
from tests.support.ports import LOOPBACK

SOON_S = 10.0


@pytest.fixture
def waker() -> Iterator[Waker]:
    one = Waker()
    yield one
    one.close()


@pytest.fixture
def interrupts(waker: Waker) -> Iterator[Interrupts]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    one = Interrupts(waker)
    one.listen()
    yield one
    one.ignore()
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_waits_until_the_connection_is_left_alone(interrupts: Interrupts) -> None:
    done = []

    def serve() -> None:
        with interrupts:
            ctrl_c()
            done.append("the packet")

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert done == ["the packet"]
    with interrupts:
        done.append("the next")
    assert done == ["the packet", "the next"]


def test_it_is_at_once_where_nothing_is_under_way(interrupts: Interrupts) -> None:
    with interrupts:
        pass
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()


def test_it_ends_a_wait(interrupts: Interrupts, waker: Waker) -> None:
    pump = Pump(Connection(BrokerUrl("mqtt", LOOPBACK, 1), "c", subscriptions=[]), waker)
    began = time.monotonic()
    timer = threading.Timer(0.05, ctrl_c)
    timer.start()

    def serve() -> None:
        with interrupts:
            pump.wait(SOON_S)

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert time.monotonic() - began < SOON_S
    timer.join()


def test_another_meaning_of_ctrl_c_is_left_as_it_is(waker: Waker) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        one = Interrupts(waker)
        one.listen()
        ctrl_c()
        one.ignore()
        assert came == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
