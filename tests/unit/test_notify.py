"""What systemd is told, and what it is not told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsync.notify import STATUS_S, Notifier
from tests.support.systemd import Listener


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    with Listener(tmp_path if request.param == "path" else None) as opened:
        yield opened


def notifier(listener: Listener, time: Time, watchdog: str = "8000000", **more: str) -> Notifier:
    variables = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": watchdog, **more}
    return Notifier(variables, time)


def test_ready_and_stopping_are_said_once_each(listener: Listener) -> None:
    one = notifier(listener, Time())
    for _ in range(2):
        one.ready()
    one.stopping()
    assert listener.hear() == ["READY=1", "STOPPING=1"]


def test_a_long_stop_asks_for_its_time(listener: Listener) -> None:
    notifier(listener, Time()).stopping(25.5)
    assert listener.hear() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=25500000"]


def test_the_status_is_said_where_it_changed_and_not_too_often(listener: Listener) -> None:
    time = Time()
    one = notifier(listener, time, watchdog="")
    one.status(lambda: "a\nREADY=1")
    assert listener.hear() == ["STATUS=a\\nREADY=1"]
    assert one.wait() == STATUS_S
    one.status(lambda: "b")
    assert listener.hear() == []
    one.status(lambda: "b", now=True)
    assert listener.hear() == ["STATUS=b"]
    time.now += STATUS_S
    assert one.wait() == 0.0
    one.status(lambda: "b")
    assert listener.hear() == []
    assert one.wait() == STATUS_S


def test_a_beat_comes_four_times_in_the_watchdogs_time(listener: Listener) -> None:
    time = Time()
    one = notifier(listener, time)
    one.ready()
    for _ in range(9):
        one.beat()
        time.now += 1.0
    assert listener.hear() == ["READY=1", *["WATCHDOG=1"] * 5]
    one.status(lambda: "", now=True)
    one.beat()
    assert one.wait() == 1.0


def test_before_ready_more_time_is_asked_for(listener: Listener) -> None:
    one = notifier(listener, Time())
    one.beat()
    assert listener.hear() == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=8000000"]


@pytest.mark.parametrize("watchdog", ["", "0", "soon", "-5"])
def test_without_a_watchdog_there_is_no_beat(listener: Listener, watchdog: str) -> None:
    one = notifier(listener, Time(), watchdog)
    assert not one.watched
    one.beat()
    assert listener.hear() == []


def test_another_processs_watchdog_is_not_ours(listener: Listener) -> None:
    assert notifier(listener, Time(), WATCHDOG_PID=str(os.getpid())).watched
    assert not notifier(listener, Time(), WATCHDOG_PID=str(os.getpid() + 1)).watched


def test_the_variables_are_not_left_to_programs(listener: Listener) -> None:
    variables = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1",
                 "HOME": "/"}  # fmt: skip
    Notifier(variables)
    assert variables == {"HOME": "/"}


def test_without_systemd_nothing_happens() -> None:
    one = Notifier({"WATCHDOG_USEC": "1000000"})
    one.ready()
    one.status(lambda: pytest.fail("nobody would hear it"), now=True)
    one.beat()
    one.stopping()
    assert one.wait() is None


@pytest.mark.parametrize("address", ["/no/such/socket", "x" * 200, "vsock:2:1"])
def test_a_systemd_that_does_not_listen_is_one_line_of_the_log(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = Notifier({"NOTIFY_SOCKET": address})
    one.ready()
    one.stopping()
    assert [record.getMessage()[:33] for record in caplog.records] == [
        "systemd cannot be told READY=1: " + caplog.records[0].getMessage()[32]
    ]
