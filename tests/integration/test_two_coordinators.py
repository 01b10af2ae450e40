"""A second coordinator of one root, on real brokers, and with the files of ``hwsync init``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import AccountLab, account_lab
from tests.support.brokers import Broker, MosquittoBroker
from tests.support.lab import HWSYNC, Lab
from tests.support.mqtt import Watcher
from tests.support.packets import Told
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

REFUSES_S = 30.0  # it looks for 3 s; the machine may be busy


@pytest.fixture
def lab(broker: Broker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    return Lab(broker, start, tmp_path)


def second(lab: Lab, *options: str) -> Process:
    """With a database of its own."""
    clean = [] if lab.broker.remembers else ["--clean-session"]
    database = str(lab.folder / "second.db")
    command = [*HWSYNC, "coordinator", "--broker", lab.url, "--db", database, *clean, *options]
    return lab.start(command, name="second")


def test_the_second_one_refuses_and_the_first_goes_on(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    first = lab.coordinator("--settle", "0")
    other = second(lab)
    assert other.wait(REFUSES_S) == 3, other.account()
    assert "hwsync: another coordinator serves the root hw at" in other.stderr
    assert f"database {lab.db}, started 2" in other.stderr
    assert "--take-over" in other.stderr
    assert "Traceback" not in other.stderr
    assert not list(lab.folder.glob("second.db*")), "whoever looks for the lab's would find two"
    watcher = watch(lab.broker)
    # It lost its connection once or twice; without a session what is sent meanwhile is lost.
    wait_until(
        lambda: first.stderr.count(" ready") > first.stderr.count("lost the connection") > 0,
        REFUSES_S,
        "the first is back",
    )
    lab.pub("request", '{"program": "1", "id": "c1"}')
    watcher.wait_for_state("pi1", 1, id="c1")
    assert "TWO COORDINATORS" not in first.stderr, "the second has said nothing"
    first.terminate()
    assert first.wait() == 0
    other = second(lab)
    assert other.wait(REFUSES_S) == 2, other.account()
    assert "second.db is empty, and there is a lab (boards: 1) at the root hw at" in other.stderr
    assert (
        f"--db {lab.db} goes on with it; hwsync coordinator --take-over begins a new lab"
        in other.stderr
    )
    assert not list(lab.folder.glob("second.db*"))
    other = second(lab, "--db", str(lab.db))
    other.wait_for_log(r"\bready\b", START_PATIENCE)
    assert "looking" not in other.stderr, "the first was stopped in order"


def test_one_that_was_killed_keeps_nobody_out(lab: Lab) -> None:
    lab.coordinator().kill()
    again = lab.coordinator()
    assert "looking" not in again.stderr, "it was this one"
    again.kill()
    other = second(lab)
    other.wait_for_log(rf"database {lab.db}: looking for 3 s", START_PATIENCE)
    other.wait_for_log(r"\bready\b", START_PATIENCE)


def test_one_that_was_killed_with_its_broker_keeps_nobody_out(
    mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path
) -> None:
    """The broker keeps its sign, and the health that says ok."""
    lab = Lab(mosquitto, start, tmp_path)
    lab.coordinator().kill()
    mosquitto.restart()
    other = second(lab)
    other.wait_for_log(r"looking for 3 s", START_PATIENCE)
    other.wait_for_log(r"\bready\b", START_PATIENCE)


def test_two_that_run_all_the_same_name_each_other(lab: Lab, watch: Callable[..., Watcher]) -> None:
    first = lab.coordinator()
    other = second(lab, "--take-over")
    for one in (first, other):
        one.wait_for_log(r"TWO COORDINATORS serve the root hw: this one", START_PATIENCE)
        assert str(lab.db) in one.stderr
        assert str(lab.folder / "second.db") in one.stderr
    health = watch(lab.broker, "hw/@hwsync/health")
    health.wait_for(lambda message: bool(message.json.get("other")), REFUSES_S)
    doctor = lab.cli("doctor", "--db", str(lab.db))
    assert doctor.wait(REFUSES_S) == 1, doctor.account()
    assert "error    coordinator  two serve this root: one on " in doctor.stdout
    assert str(lab.db) in doctor.stdout
    assert str(lab.folder / "second.db") in doctor.stdout


@pytest.fixture(params=["mosquitto", "amqtt"])
def accounts(request: pytest.FixtureRequest) -> Iterator[AccountLab]:
    with account_lab(request.param, ("pi1",), {"teacher": OperatorRights(None)}) as made:
        yield made


def test_with_the_files_of_init_nothing_is_lost_by_it(
    accounts: AccountLab, start: Callable[..., Process], tmp_path: Path
) -> None:
    """Both have one account there, and so one client id and one session."""
    teacher = accounts.come_in("teacher")
    teacher.subscribe(["hw/+/status"])

    def coordinator(name: str) -> Process:
        own = ["--config", str(accounts.path / "lab/coordinator.toml")]
        return start([*HWSYNC, "coordinator", *own, "--db", str(tmp_path / name)], name=name)

    first = coordinator("first")
    first.wait_for_log(r"\bready\b", START_PATIENCE)
    other = coordinator("other")
    sent, lines = 0, 0
    while other.running:  # at each of its steps some requests are under way
        for _ in range(3):
            sent += 1
            request = json.dumps({"program": "1", "id": f"c{sent}", "queue": True})
            teacher.publish([Told("hw/pi1/request", request)])
        wait_until(
            lambda seen=lines: not other.running or other.stderr.count("\n") > seen,  # type: ignore[misc]
            REFUSES_S,
            "the second one's next line",
        )
        lines = other.stderr.count("\n")
    assert other.wait(REFUSES_S) == 3, other.account()
    assert f"database {tmp_path / 'first'}, started" in other.stderr
    if accounts.kind == "mosquitto":  # amqtt never sends again what was not acknowledged
        teacher.until(lambda one: f'"queued":{sent - 1},' in one.text, f"all {sent} of them")
