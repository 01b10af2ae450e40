"""broker.conf as mosquitto takes it, and scripts/broker over a kill -9."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mqtt import Watcher, publish
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import CHECKOUT, Process
from tests.support.programs import require_program
from tests.support.waiting import wait_until


@dataclass
class Port:
    """Something that listens there."""

    port: int


def listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def test_both_copies_of_the_configuration_are_one() -> None:
    packaged = CHECKOUT / "hwsync" / "broker" / "broker.conf"
    assert packaged.read_bytes() == (CHECKOUT / "broker.conf").read_bytes()


def test_mosquitto_takes_the_configuration_as_it_is(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    port = free_port()
    text = (CHECKOUT / "broker.conf").read_text(encoding="utf-8")
    assert "listener 1883 127.0.0.1" in text
    conf = tmp_path / "broker.conf"
    conf.write_text(text.replace("listener 1883 ", f"listener {port} "))
    mosquitto = start([require_program("mosquitto", "mosquitto"), "-c", conf], name="mosquitto")
    wait_until(lambda: listens(port), what="mosquitto")
    assert "Error: Unknown" not in mosquitto.stderr
    mosquitto.terminate()
    assert mosquitto.wait() == 0


def test_a_retained_message_survives_kill_9(
    start: Callable[..., Process], watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    require_program("mosquitto", "mosquitto")
    port = free_port()
    command = [CHECKOUT / "scripts" / "broker", "--port", str(port), "--state", tmp_path / "state"]
    broker = start(command, name="broker")
    wait_until(lambda: listens(port), what="mosquitto")
    publish(Port(port), "hw/pi1/status", "kept", retain=True)
    stored = tmp_path / "state" / "mosquitto.db"
    wait_until(lambda: stored.exists() and b"kept" in stored.read_bytes(), what="the autosave")
    broker.kill()
    start(command, name="broker")
    wait_until(lambda: listens(port), what="mosquitto again")
    watch(Port(port)).wait_for(lambda message: message.text == "kept", topic="hw/pi1/status")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--port", "x"], "needs a number"), (["--colour"], "unknown argument --colour")],
)
def test_bad_arguments_are_named(
    start: Callable[..., Process], arguments: list[str], said: str
) -> None:
    script = start([CHECKOUT / "scripts" / "broker", *arguments], name="broker")
    assert script.wait() == 2
    assert said in script.stderr
