"""The coordinator's health on real brokers, and what systemd hears of coordinator and device."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync.device.config import END_GRACE_S
from hwsync.device.life import KILL_S, LEAVE_S
from tests.support.brokers import AmqttBroker, Broker, MosquittoBroker, answers
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC, Lab
from tests.support.mqtt import Watcher, publish
from tests.support.processes import Process
from tests.support.systemd import Listener
from tests.support.waiting import wait_until

SAID = ("health", "boards", "coordinator", "query")
TOPIC, *OTHERS = (f"hw/@hwsync/{kind}" for kind in SAID)
WATCHDOG_S = 0.4
QUIET_S = 1.5  # without WATCHDOG=1; far above WATCHDOG_S, below SQLite's patience


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as opened:
        yield opened


def served(listener: Listener) -> dict[str, str]:
    """The variables that systemd sets."""
    usec = str(int(WATCHDOG_S * 1e6))
    return {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": usec}


def conditions(watcher: Watcher, topic: str = TOPIC) -> list[str]:
    return [message.json["condition"] for message in watcher.messages(topic)]


def retained(
    broker: Broker, watch: Callable[..., Watcher], condition: str, topic: str = TOPIC
) -> dict[str, Any]:
    """What somebody who comes now gets, once it is of that condition.

    The line "ready" of the log may be read before the message is at the broker.
    """

    def look() -> dict[str, Any]:
        message = watch(broker, topic).wait_for(lambda message: True, what="the health")
        fields: dict[str, Any] = message.json
        return fields if message.retain and fields["condition"] == condition else {}

    return wait_until(look, what=f"a retained health that is {condition}")


# On the broker


def test_the_health_is_retained_through_a_whole_life(
    broker: Broker, start: Callable[..., Process], watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    lab = Lab(broker, start, tmp_path)
    watcher = watch(broker, "hw/@hwsync/+")
    coordinator = lab.coordinator("--settle", "0")
    said = retained(broker, watch, "ok")
    assert (said["condition"], said["users"], said["accepted"]) == ("ok", 0, 0)
    assert said["connected_since"] <= said["time"]
    publish(broker, "hw/@hwsync/query")
    again = watcher.wait_for(lambda message: message.json != said, topic=TOPIC).json
    assert again["ignored"] == 0, "its own subscriptions bring it back"
    lab.pub("request", "print(1)")
    lab.pub("query")
    publish(broker, "hw/@hwsync/query")
    asked = watcher.wait_for(lambda message: message.json["answered"], topic=TOPIC).json
    assert (asked["accepted"], asked["answered"], asked["users"]) == (1, 1, 1)
    assert asked["states"]["requested"] == 1
    assert min(asked["rounds"], asked["inbox_deepest"]) >= 1
    assert 0 < asked["commit_last"] <= asked["commit_sum"]
    coordinator.terminate()
    assert coordinator.wait() == 0
    retained(broker, watch, "stopped")
    assert conditions(watcher)[-1] == "stopped"
    assert {message.topic for message in watcher.messages()} == {TOPIC, *OTHERS}


def test_kill_9_leaves_the_condition_gone_until_it_is_back(
    broker: Broker, start: Callable[..., Process], watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    lab = Lab(broker, start, tmp_path)
    watcher = watch(broker, TOPIC)
    coordinator = lab.coordinator()
    # A broker may lose what a client said in the moment of its death.
    watcher.wait_for(lambda message: message.json["condition"] == "ok", what="the first health")
    coordinator.kill()
    watcher.wait_for(lambda message: message.json["condition"] == "gone", what="the will")
    assert retained(broker, watch, "gone") == {"condition": "gone"}
    lab.coordinator()
    retained(broker, watch, "ok")
    assert conditions(watcher) == ["ok", "gone", "ok"]


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_after_a_broken_connection_it_says_again_that_it_is_there(
    broker: Broker, start: Callable[..., Process], watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    lab = Lab(broker, start, tmp_path)
    process = lab.coordinator()
    broker.kill()
    broker.restart()
    process.wait_for_log(r"\bready\b", count=2)
    said = retained(broker, watch, "ok")
    assert (said["condition"], said["reconnects"]) == ("ok", 1)


def test_below_a_root_of_several_levels(
    mosquitto: MosquittoBroker, start: Callable[..., Process], watch: Callable[..., Watcher],
    tmp_path: Path,
) -> None:  # fmt: skip
    lab = Lab(mosquitto, start, tmp_path)
    process = lab.coordinator("--root", "lab/room 1")
    topic = "lab/room 1/@hwsync/health"
    retained(mosquitto, watch, "ok", topic)
    process.kill()
    gone = watch(mosquitto, topic)
    gone.wait_for(lambda message: message.json == {"condition": "gone"}, what="the will")


def test_a_disk_that_takes_nothing_is_degraded_until_it_takes_something(
    mosquitto: MosquittoBroker, start: Callable[..., Process], watch: Callable[..., Watcher],
    tmp_path: Path, listener: Listener,
) -> None:  # fmt: skip
    lab = Lab(mosquitto, start, tmp_path)
    lab.coordinator(variables=served(listener))
    watcher = watch(mosquitto, TOPIC)
    listener.wait_for("WATCHDOG=1", count=2)
    with closing(sqlite3.connect(lab.db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        lab.pub("request", "1")
        # Until SQLite loses its patience the loop is stuck, and so it is silent.
        heard = listener.hear(QUIET_S)
        assert heard.count("WATCHDOG=1") <= 1, heard
        bad = watcher.wait_for(lambda message: message.json["condition"] == "degraded").json
        assert bad["reason"] == "database is locked"
        assert bad["failed_saves"] == 1
        listener.wait_for("STATUS=DEGRADED, cannot save: database is locked; connected to")
        other.execute("ROLLBACK")
    mark = watcher.mark()
    good = watcher.wait_for(lambda message: message.json["condition"] == "ok", after=mark).json
    assert (good["accepted"], good["reason"]) == (1, "")


# systemd


def test_a_coordinator_that_is_stopped_sends_no_watchdog(
    mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path, listener: Listener
) -> None:
    process = Lab(mosquitto, start, tmp_path).coordinator(variables=served(listener))
    listener.wait_for("READY=1")
    listener.wait_for(f"STATUS=connected to mqtt://127.0.0.1:{mosquitto.port}, 0 boards, 0 running")
    # Nothing comes in, and it wakes up all the same.
    listener.wait_for("WATCHDOG=1", count=5)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(process) == "T", what="the process stands still")
    listener.hear()
    assert listener.hear(QUIET_S) == []
    process.send_signal(signal.SIGCONT)
    listener.hear()
    listener.wait_for("WATCHDOG=1", count=listener.said.count("WATCHDOG=1") + 2)
    process.terminate()
    assert process.wait() == 0
    listener.wait_for("STOPPING=1")
    assert listener.said.count("READY=1") == 1


def state_of(process: Process) -> str:
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


@pytest.mark.parametrize("part", ["coordinator", "device"])
def test_a_broker_that_is_away_at_the_start_is_waited_for(
    start_mosquitto: Callable[..., MosquittoBroker], start: Callable[..., Process],
    tmp_path: Path, part: str,
) -> None:  # fmt: skip
    broker = start_mosquitto()
    broker.stop()
    where = ["--broker", broker.url]
    commands = {
        "coordinator": [*HWSYNC, "coordinator", *where, "--db", str(tmp_path / "db")],
        "device": [*DEVICE, "--user", "pi1", *where, "--state-dir", str(tmp_path), *AS_ROOT],
    }
    with Listener(tmp_path) as listener:
        start(commands[part], name=part, variables=served(listener))
        listener.wait_for("EXTEND_TIMEOUT_USEC=400000", count=3)
        assert "READY=1" not in listener.said
        assert any(line.startswith("STATUS=not connected to") for line in listener.said)
        broker.start()
        listener.wait_for("READY=1")
        listener.wait_for("STATUS=connected to")
        asked = listener.said.count("EXTEND_TIMEOUT_USEC=400000")
        listener.wait_for("WATCHDOG=1", count=listener.said.count("WATCHDOG=1") + 2)
        assert listener.said.count("EXTEND_TIMEOUT_USEC=400000") == asked


def test_a_device_says_how_it_is_also_while_a_program_runs(
    mosquitto: MosquittoBroker, start: Callable[..., Process], watch: Callable[..., Watcher],
    tmp_path: Path, listener: Listener,
) -> None:  # fmt: skip
    lab = Lab(mosquitto, start, tmp_path)
    lab.coordinator("--settle", "0")
    # The program still runs at the end: it gets a second then, not ten.
    (tmp_path / "device.toml").write_text("stop_s = 1\n[limits]\nfree_disk_mb = 0\n")
    device = lab.device(variables=served(listener))
    listener.wait_for("READY=1")
    listener.wait_for(f"STATUS=connected to {mosquitto.url}, idle")
    watcher = watch(mosquitto)
    seen = tmp_path / "seen"
    code = f"import os, time\nopen({str(seen)!r}, 'w').write(str(os.environ))\ntime.sleep(60)"
    run = lab.cli("send", "pi1", "--id", "c1", "-c", code, "--timeout", "60")
    assert run.wait() == 0
    watcher.wait_for_state("pi1", 2)
    wait_until(lambda: seen.exists() and seen.read_text(), what="the program runs")
    listener.hear()
    listener.wait_for("WATCHDOG=1", count=listener.said.count("WATCHDOG=1") + 3)
    assert "NOTIFY_SOCKET" not in seen.read_text()
    device.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(device) == "T", what="the process stands still")
    listener.hear()
    assert listener.hear(QUIET_S) == []
    device.send_signal(signal.SIGCONT)
    device.terminate()
    listener.wait_for("STOPPING=1")
    # stop_s, and what the end takes: systemd waits so long, whatever the unit says.
    listener.wait_for(f"EXTEND_TIMEOUT_USEC={int(1 + END_GRACE_S + KILL_S + LEAVE_S)}000000")
    assert device.wait(20) == 0


def test_the_broker_says_how_it_is(
    start: Callable[..., Process], tmp_path: Path, listener: Listener
) -> None:
    broker = AmqttBroker(tmp_path / "broker")
    configuration = tmp_path / "broker.conf"
    configuration.write_text("\n".join(broker.configuration()))
    process = start(broker.command(configuration), name="broker", variables=served(listener))
    listener.wait_for("READY=1")
    listener.wait_for(f"STATUS=listening on 127.0.0.1 port {broker.port}")
    listener.wait_for("WATCHDOG=1", count=3)
    assert answers(broker.port)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(process) == "T", what="the process stands still")
    listener.hear()
    assert listener.hear(QUIET_S) == []
    process.send_signal(signal.SIGCONT)
    listener.wait_for("WATCHDOG=1", count=listener.said.count("WATCHDOG=1") + 2)
    process.terminate()
    listener.wait_for("STOPPING=1")
    assert process.wait(20) == 0


# The metrics


def test_the_metrics_are_there_from_the_start_to_the_end(
    mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path
) -> None:
    target = tmp_path / "hwsync.prom"
    process = Lab(mosquitto, start, tmp_path).coordinator("--metrics-file", str(target))
    assert 'hwsync_condition{condition="ok"} 1' in target.read_text()
    process.terminate()
    assert process.wait() == 0
    assert 'hwsync_condition{condition="stopped"} 1' in target.read_text()
    assert "hwsync_connected 1" in target.read_text()


def test_metrics_that_cannot_be_written_are_wrong_usage(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    target = tmp_path / "no-such-folder" / "hwsync.prom"
    command = [*HWSYNC, "coordinator", "--db", str(tmp_path / "db"), "--metrics-file", str(target)]
    process = start(command, name="coordinator")
    assert process.wait() == 2
    assert f"cannot write the metrics to {target}: No such file or directory" in process.stderr
    assert "Traceback" not in process.stderr
