"""hwsync on brokers with other habits than mosquitto's: what works there, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.protocol.wire.heartbeat import encode_heartbeat
from tests.support.brokers import Broker
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.mqtt import publish
from tests.support.processes import Process
from tests.support.proxy import CONNECT, TO_BROKER, Packet, Proxy
from tests.support.tiny_broker import TinyBroker
from tests.support.waiting import START_PATIENCE, wait_until

NO_DOT = "the broker passes on no message whose topic has a dot"


@pytest.fixture
def type_in(start: Callable[..., Process], tmp_path: Path) -> Callable[..., Process]:
    """``hwsync`` with what is typed behind it, at that broker."""

    def begin(url: str, *typed: str) -> Process:
        own = ["--db", str(tmp_path / "db")] if typed[0] in ("coordinator", "doctor", "up") else []
        variables = {"HWSYNC_BROKER": url}
        return start([*HWSYNC, *typed, *own], name=typed[0], variables=variables)

    return begin


@pytest.mark.parametrize("dots", ["the end", "/", "kept"])
def test_a_dot_in_a_topic_is_tried(
    start_tiny: Callable[..., TinyBroker],
    type_in: Callable[..., Process],
    start: Callable[..., Process],
    tmp_path: Path,
    dots: str,
) -> None:
    url = start_tiny(dots=dots).url
    arrives = "ok       topics       a dot in a name arrives as it is"
    results = {"pi1": "warning", "pi.1": "error  "}
    doctors = {user: type_in(url, "doctor", user) for user in results}  # each waits for most of it
    for user, doctor in doctors.items():
        doctor.wait(START_PATIENCE)
        line = arrives if dots == "kept" else f"{results[user]}  topics       {NO_DOT}"
        assert line in doctor.stdout, doctor.account()
        assert doctor.stderr == ""
    (tmp_path / "device.toml").touch()
    options = ["--config", str(tmp_path / "device.toml"), "--broker", url, *AS_ROOT]
    checks = {
        user: start([*DEVICE, "--check", "--user", user, *options, "--state-dir",
                     str(tmp_path / f"device-{user}")], name="check")
        for user in results
    }  # fmt: skip
    for user, check in checks.items():
        code = check.wait(START_PATIENCE)
        fails = user == "pi.1" and dots != "kept"
        assert (code, f"{NO_DOT}: nothing of pi.1 arrives" in check.stdout) == (int(fails), fails)


def test_where_wildcards_find_nothing_that_is_kept_the_boards_are_asked_for_by_name(
    start_tiny: Callable[..., TinyBroker], type_in: Callable[..., Process]
) -> None:
    broker = start_tiny(retained_for_all=False)
    coordinator = type_in(broker.url, "coordinator", "--clean-session")
    coordinator.wait_for_log(r"\bready\b", START_PATIENCE)
    for board in ("pi1", "pi2"):
        beat = encode_heartbeat(online=True, journal=f"j-{board}", boot=1)
        publish(broker, f"hw/{board}/heartbeat", beat, retain=True)
    for user in ("pi1", "anna"):
        publish(broker, f"hw/{user}/request", json.dumps({"program": "1", "id": f"for-{user}"}))
        coordinator.wait_for_log(f"id=for-{user} ", START_PATIENCE)
    status = type_in(broker.url, "status")
    assert status.wait(START_PATIENCE) == 0, status.account()
    shown = [line.split()[:4] for line in status.stdout.splitlines()[1:]]
    assert shown == [["pi1", "online", "requested", "for-pi1"], ["pi2", "online", "rest"]]
    assert "so the boards were asked for by name" in status.stderr
    assert "hwsync status BOARD" in status.stderr
    named = type_in(broker.url, "status", "anna", "pi1", "nobody")
    assert named.wait(START_PATIENCE) != 0
    assert [line.split()[0] for line in named.stdout.splitlines()[1:]] == ["anna", "pi1"]
    assert "nobody: never seen" in named.stderr
    one = type_in(broker.url, "status", "anna")
    assert one.wait(START_PATIENCE) == 0, one.account()
    assert "anna: 1 requested" in one.stdout


def test_where_wildcards_do_nothing_is_said_of_names(
    start_tiny: Callable[..., TinyBroker], type_in: Callable[..., Process]
) -> None:
    broker = start_tiny()
    type_in(broker.url, "coordinator", "--clean-session").wait_for_log(r"\bready\b", START_PATIENCE)
    beat = encode_heartbeat(online=True, journal="j-pi1", boot=1)
    publish(broker, "hw/pi1/heartbeat", beat, retain=True)
    status = type_in(broker.url, "status")
    assert status.wait(START_PATIENCE) == 0, status.account()
    assert (status.stdout.splitlines()[1].split()[0], status.stderr) == ("pi1", "")


def clean_of_coordinator(connects: list[Packet]) -> bool | None:
    """Whether it asked for a clean session, the last time; None: it has not come yet."""
    own = [one for one in connects if b"hwsync-coordinator" in one.body]
    return bool(own[-1].body[7] & 2) if own else None


def test_up_takes_a_session_where_it_is_of_use(
    broker: Broker, start_proxy: Callable[..., Proxy], type_in: Callable[..., Process]
) -> None:
    proxy = start_proxy(broker)
    up = type_in(f"mqtt://127.0.0.1:{proxy.port}", "up", "--user", "pi1", *AS_ROOT)
    up.wait_for_log("ready; try", START_PATIENCE)
    assert clean_of_coordinator(proxy.seen(CONNECT, TO_BROKER)) is False
    name = "mosquitto" if broker.speaks_v5 else r"hwsync broker 0\.\S+ \(amqtt 0\.\S+\)"
    up.wait_for_log(rf"broker: {name}")


def test_what_speaks_only_3_1_1_is_not_taken_for_amqtt(
    start_tiny: Callable[..., TinyBroker], type_in: Callable[..., Process]
) -> None:
    broker = start_tiny()
    up = type_in(broker.url, "up", "--user", "pi1", *AS_ROOT)
    wait_until(
        lambda: clean_of_coordinator(broker.connects) is not None, START_PATIENCE, up.account
    )
    assert clean_of_coordinator(broker.connects) is False
    up.wait_for_log("broker: a broker that does not say its name")
    assert "amqtt" not in up.stderr
