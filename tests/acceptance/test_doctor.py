"""``hwsync doctor`` on labs that are well, and on labs in which a part is missing."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hwsync.protocol.wire.heartbeat import encode_heartbeat
from tests.support.brokers import Broker, MosquittoBroker
from tests.support.lab import AS_ROOT, HWSYNC, Lab
from tests.support.mqtt import Watcher, publish
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process
from tests.support.waiting import wait_until

NO_BROKER_S = 10.0  # within which it says so
LOCAL = ("version", "clock", "database", "disk")  # what needs no broker


@pytest.fixture
def lab(broker: Broker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    return Lab(broker, start, tmp_path)


@pytest.fixture
def sane(mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    """On mosquitto only."""
    return Lab(mosquitto, start, tmp_path)


def examine(lab: Lab, *arguments: str, code: int = 0) -> dict[str, list[dict[str, str]]]:
    """The findings by their check."""
    process = lab.cli("doctor", *arguments, "--json", "--db", str(lab.db))
    assert process.wait(30) == code, process.account()
    assert process.stderr == ""
    found: dict[str, list[dict[str, str]]] = {}
    for line in process.stdout.splitlines():
        finding = json.loads(line)
        assert list(finding) == ["check", "result", "found", "cure"]
        found.setdefault(finding["check"], []).append(finding)
    return found


def one(found: dict[str, list[dict[str, str]]], check: str) -> tuple[str, str, str]:
    """(result, found, cure) of the one finding of a check."""
    (finding,) = found[check]
    return finding["result"], finding["found"], finding["cure"]


def test_a_lab_that_is_well(lab: Lab, watch: Callable[..., Watcher]) -> None:
    lab.coordinator("--settle", "0")
    lab.device()
    watch(lab.broker, "hw/pi1/heartbeat").wait_for(lambda message: True, what="the device")
    assert lab.cli("run", "pi1", "--id", "c1", "-c", "print(1)").wait() == 0
    found = examine(lab, "pi1")
    results = {finding["result"] for findings in found.values() for finding in findings}
    assert results == {"ok"}, found
    assert list(found) == [
        "version", "broker", "round trip", "topics", "sizes", "coordinator", "health", "clock",
        "database", "disk", "device", "record",
    ]  # fmt: skip
    assert lab.broker.name in one(found, "broker")[1]
    assert ("MQTT 5" in one(found, "broker")[1]) == lab.broker.speaks_v5
    assert re.match(r"\d+\.\d ms for a message", one(found, "round trip")[1])
    assert "1 boards, 0 running" in one(found, "health")[1]
    assert one(found, "clock")[1].endswith("as the coordinator's")
    assert "sound" in one(found, "database")[1]
    assert "idle" in one(found, "device")[1]
    assert one(found, "record")[1] == "0 rest: c1 ended as ok"
    text = lab.cli("doctor", "--db", str(lab.db))
    assert text.wait(30) == 0
    lines = text.stdout.splitlines()
    assert len(lines) == 10
    assert all(re.match(r"ok       [a-z ]{12} \S", line) for line in lines), lines


def test_without_a_broker(start: Callable[..., Process], tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    none = str(tmp_path / "none.db")
    process = start([*HWSYNC, "doctor", "pi1", "--broker", url, "--db", none], name="doctor")
    assert process.wait(NO_BROKER_S) == 1
    assert f"error    database     there is none at {none}; cure: leave --db out" in process.stdout
    assert f"no broker answers at {url}: Connection refused; cure: start one" in process.stdout
    checks = [line[9:21].strip() for line in process.stdout.splitlines()]
    assert checks == ["version", "broker", *LOCAL[1:]]


def test_what_listens_and_says_nothing_is_no_broker(start: Callable[..., Process]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        process = start([*HWSYNC, "doctor", "--broker", url], name="doctor")
        process.wait_for_log("no broker answers", NO_BROKER_S, "stdout")
        assert time.monotonic() - began < NO_BROKER_S
        assert process.wait(NO_BROKER_S) == 1
    assert "error    clock" not in process.stdout
    assert "disk" in process.stdout


@pytest.mark.parametrize("end", ["never", "stopped", "killed"])
def test_without_a_coordinator(sane: Lab, watch: Callable[..., Watcher], end: str) -> None:
    words = "none has been here"
    if end != "never":
        coordinator = sane.coordinator()
        sane.pub("request", "1")
        watch(sane.broker).wait_for_state("pi1", 1)
        if end == "stopped":
            coordinator.terminate()
            assert coordinator.wait() == 0
            words = "it was stopped"
        else:
            coordinator.kill()
            watch(sane.broker, "hw/@hwsync/health").wait_for(
                lambda message: message.json["condition"] == "gone", what="the will"
            )
            words = "it was killed"
    found = examine(sane, "pi1", code=1)
    result, said, cure = one(found, "coordinator")
    assert (result, words in said, "hwsync coordinator" in cure) == ("error", True, True)
    assert "health" not in found
    assert one(found, "round trip")[0] == "ok"
    assert one(found, "device")[0] == "error"
    if end != "never":
        assert "1 requested" in one(found, "record")[1]


def test_an_old_message_that_comes_late_is_no_answer(sane: Lab) -> None:
    doctor = sane.cli("doctor", "--db", str(sane.db))
    old = json.dumps({"condition": "ok", "time": time.time() - 100})

    def ended() -> bool:
        publish(sane.broker, "hw/@hwsync/health", old, retain=True)
        return not doctor.running

    wait_until(ended, 30, "the doctor's end")
    assert doctor.exit_code == 1
    assert "none answers, and its last word was ok, 1" in doctor.stdout


def test_a_coordinator_that_stands_still_does_not_answer(sane: Lab) -> None:
    coordinator = sane.coordinator()
    coordinator.send_signal(signal.SIGSTOP)
    said = one(examine(sane, code=1), "coordinator")[1]
    assert said.startswith("none answers, and its last word was ok")
    coordinator.send_signal(signal.SIGCONT)


def test_a_broker_without_nodelay_has_its_line_to_type(
    start_mosquitto: Callable[..., MosquittoBroker], start: Callable[..., Process], tmp_path: Path
) -> None:
    broker = start_mosquitto(extra=["set_tcp_nodelay false"])
    lab = Lab(broker, start, tmp_path)
    lab.coordinator()
    result, said, cure = one(examine(lab), "round trip")
    assert re.match(r"\d+\.\d ms", said)
    assert (result, cure) == ("warning", "the line for broker.conf: set_tcp_nodelay true")
    command = [*HWSYNC, "up", "--user", "pi1", "--db", str(tmp_path / "up.db"), *AS_ROOT]
    up = start(command, variables={"HWSYNC_BROKER": lab.url, "HWSYNC_ROOT": "up"}, name="up")
    up.wait_for_log(r"a round trip takes \d+ ms: no set_tcp_nodelay", 30)


def test_two_devices_of_one_name_and_another_version_are_seen(sane: Lab) -> None:
    sane.coordinator()
    doctor = sane.cli("doctor", "pi1", "--db", str(sane.db))

    def ended() -> bool:
        for journal in ("j-one", "j-two"):
            payload = encode_heartbeat(
                online=True, journal=journal, boot=1, version="0.0.1", time=time.time()
            )
            publish(sane.broker, "hw/pi1/heartbeat", payload, retain=True)
        return not doctor.running

    wait_until(ended, 30, "the doctor's end")
    assert doctor.exit_code == 1
    assert "two devices answer for pi1: the journals j-one and j-two" in doctor.stdout
    assert "the device is hwsync 0.0.1" in doctor.stdout


def test_a_device_that_is_away_and_what_waits_for_it(
    sane: Lab, watch: Callable[..., Watcher]
) -> None:
    sane.coordinator()
    payload = encode_heartbeat(online=False, journal="j-one", boot=1)
    publish(sane.broker, "hw/pi1/heartbeat", payload, retain=True)
    sane.pub("request", '{"program": "1", "id": "c1"}')
    watch(sane.broker).wait_for_state("pi1", 1)
    found = examine(sane, "pi1", code=1)
    assert one(found, "device")[1] == "offline (journal j-one)"
    result, said, cure = one(found, "record")
    assert (result, "1 requested: c1 waits for its device" in said) == ("warning", True)
    assert "hwsync cancel pi1 c1" in cure


def test_wrong_usage_comes_before_any_finding(start: Callable[..., Process]) -> None:
    for arguments, said in (
        (["--broker", "http://x"], "is no broker's address"),
        (["a b"], "is no board's name"),
        (["--root", "a/#"], "cannot be the root"),
    ):
        process = start([*HWSYNC, "doctor", *arguments], name="doctor")
        assert process.wait() == 2
        assert said in process.stderr
        assert process.stdout == ""


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_websocket_listener_without_a_login_is_found(
    start_mosquitto: Callable[..., Broker],
    start_amqtt: Callable[..., Broker],
    start: Callable[..., Process],
    tmp_path: Path,
    kind: str,
) -> None:
    """On whatever port it is; a page from elsewhere comes in at mosquitto only."""
    port = free_port()
    more = [f"listener {port} {LOOPBACK}", "protocol websockets"]
    broker = start_mosquitto(extra=more) if kind == "mosquitto" else start_amqtt(extra=more)
    lab = Lab(broker, start, tmp_path)
    lab.coordinator("--settle", "0")
    result, found, cure = one(examine(lab), "websockets")
    assert found.startswith(f"ws://{LOOPBACK}:{port}/mqtt ")
    if kind == "mosquitto":
        assert result == "warning"
        assert "every web page" in found
        assert "run programs on every board" in found
        assert "allow_anonymous false" in cure
    else:
        assert (result, found[-42:]) == ("ok", " every program, and no page from elsewhere")
    web = ["--broker", f"ws://{LOOPBACK}:{port}"]
    process = start(["hwsync", "doctor", *web, "--json", "--db", str(lab.db)])
    assert process.wait(30) == 0
    assert f"ws://{LOOPBACK}:{port}/mqtt" in process.stdout


def test_who_does_not_hear_the_coordinator_is_found_with_and_without_his_name(sane: Lab) -> None:
    """A board that has seen what no coordinator can have counted to; the others are no finding."""
    coordinator = sane.coordinator()
    for user in ("pi1", "pi2"):
        sane.pub("reset", user=user)
    seen = {"pi1": (10**12, 1), "pi2": (0, 1)}
    for user, order in seen.items():
        beat = encode_heartbeat(online=True, journal="j1", boot=1, seen=order)
        sane.pub("heartbeat", beat, retain=True, user=user)
    coordinator.wait_for_log(
        r"ERROR.*a status of pi1 was seen with the number \(1000000000000, 1\)"
    )
    result, text, cure = one(examine(sane, code=1), "record")
    assert result == "error"
    assert "the device has seen (epoch, seq) (1000000000000, 1), and the record is at" in text
    assert "restart the device" in cure
    found = examine(sane, "pi1", code=1)
    assert text in [finding["found"] for finding in found["record"]]
    sane.pub("heartbeat", encode_heartbeat(online=True, journal="j1", boot=1), retain=True)
    assert "record" not in examine(sane)
