"""A coordinator looks at its start whether another one serves the same root."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from hwsync.cli import services
from hwsync.cli.app import cli
from hwsync.cli.common import Settings
from hwsync.coordinator.alone import OTHER_S, SAME_S, SILENCE_S, Alone
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.protocol.errors import AnotherCoordinator, UsageError
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.itself import Sign, read_sign
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed
from tests.support.coordinator import Clock, Lab, Sent
from tests.unit.test_startup_gate import Wire, delivery

OWN = Sign("here", "/db", 1_000.0)
OTHER = Sign("there", "/db", 900.0)
THERE, READY, LOST = Connected(True, 5), Subscribed(), Disconnected("closed", True)


def sign(
    of: Sign = OTHER, time: float = 950.0, *, kept: bool = True, stopped: bool = False
) -> Delivery:
    payload = of.encode(time, stopped=stopped)
    return Delivery("hw/@hwsync/coordinator", payload, 0, kept, False, 0, 1)


def mark(number: int = 1) -> Delivery:
    return delivery("query", f"mark-alone-{number}".encode(), "@hwsync", mid=0)


REQUEST, QUESTION = delivery("request"), delivery("query", b"", "@hwsync")


class Start:
    def __init__(self, *, empty: bool = False) -> None:
        self.wire, self.clock = Wire(), Clock()
        self.alone = Alone(
            self.wire, Topics(), self.clock, OWN, "mark", "the root hw", empty=empty
        )  # fmt: skip

    def take(self, *signals: Signal, after: float = 0.0) -> list[Signal]:
        self.clock.now += after
        return self.alone.admit(signals)


@pytest.fixture
def start() -> Start:
    return Start()


@pytest.mark.parametrize("kept", [(), (sign(stopped=True),), (sign(OWN, stopped=True),)])
def test_where_nobody_is_it_goes_on_at_once(start: Start, kept: tuple[Delivery, ...]) -> None:
    assert start.take(THERE, REQUEST, READY, *kept) == []
    assert start.wire.sent == [("hw/@hwsync/query", b"mark-alone-1", 0)]
    assert start.take(mark(), QUESTION) == [THERE, REQUEST, READY, QUESTION]
    assert start.alone.done
    assert start.alone.wait() is None
    assert start.take(REQUEST) == [REQUEST]


@pytest.mark.parametrize(
    ("kept", "patience"), [(OTHER, OTHER_S), (Sign("here", "/db", 1.0), SAME_S)]
)
def test_a_sign_that_was_left_proves_nothing(start: Start, kept: Sign, patience: float) -> None:
    """A coordinator was killed, perhaps with its broker: here, or on another machine."""
    start.take(THERE, READY, sign(kept), mark())
    assert start.alone.wait() == patience
    assert start.take(REQUEST, after=patience - 0.1) == []
    assert start.take(after=0.1) == [THERE, READY, REQUEST]
    assert start.alone.done


STATUS = Delivery("hw/pi1/status", b'{"seq": 7}', 0, True, False, 0, 1)


@pytest.mark.parametrize("stopped", [True, False])
def test_an_empty_database_does_not_take_the_place_of_a_lab_on_this_machine(
    tmp_path: Path, stopped: bool
) -> None:
    before = Sign("here", str(tmp_path / "lab.db"), 1.0)
    (tmp_path / "lab.db").touch()
    start = Start(empty=True)
    start.take(THERE, READY, sign(before, stopped=stopped), STATUS)
    start.take(*([] if stopped else [mark()]))
    with pytest.raises(UsageError) as error:
        start.take(*([mark()] if stopped else []), after=OTHER_S)
    assert (
        "the database /db is empty, and there is a lab (boards: 1) at the root hw: on here"
        in str(error.value)
    )
    assert (
        f"--db {before.database} goes on with it; hwsync coordinator --take-over begins"
        in error.value.hint
    )
    assert not start.alone.done

    for others in (Start(empty=False), Start(empty=True)):
        kept = () if others.alone._empty else (STATUS,)  # nobody is in that lab yet
        others.take(THERE, READY, sign(before, stopped=True), *kept, mark())
        assert others.alone.done


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((sign(stopped=True),), "on there, database /db"),  # on another machine
        ((sign(Sign("here", "/is/gone.db", 1.0), stopped=True),), "on here, database /is/gone.db"),
        ((sign(OWN, stopped=True),), "at the root hw; a new lab"),
        ((), "at the root hw; a new lab"),
    ],
)
def test_a_new_lab_in_the_place_of_one_that_is_not_seen_is_said(
    kept: tuple[Delivery, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    start = Start(empty=True)
    start.take(THERE, READY, *kept, STATUS, mark())
    assert start.alone.done
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert said in record.message
    assert "name the lab's database with --db, or hwsync restore a backup" in record.message


def test_a_broker_that_sends_nothing_back_is_not_waited_for(start: Start) -> None:
    start.take(THERE, READY)
    assert start.alone.wait() == SILENCE_S
    assert start.take(after=SILENCE_S) == [THERE, READY]
    start = Start()
    start.take(THERE, READY, sign())
    assert start.take(after=SILENCE_S) == []
    assert start.take(after=OTHER_S) == [THERE, READY]


def test_one_that_answers_is_there(start: Start) -> None:
    """Under another client id, as with two accounts; also a copy of this very machine."""
    for other in (OTHER, Sign("here", "/db", 900.0)):
        start = Start()
        start.take(THERE, READY, sign(other))
        with pytest.raises(AnotherCoordinator) as error:
            start.take(mark(), sign(other, 960.0, kept=False))
        assert f"on {other.host}, database /db, started 1970-01-01 00:15:00" in str(error.value)
        assert "--take-over" in str(error.value)
        assert error.value.exit_code == 3


def test_one_that_comes_back_under_our_id_has_left_a_newer_sign(start: Start) -> None:
    start.take(THERE, READY, sign(time=950.0), mark())
    start.take(LOST, after=0.2)
    assert start.alone.wait() is None
    start.take(THERE, after=0.2)
    with pytest.raises(AnotherCoordinator):
        start.take(READY, sign(time=951.0))


def test_one_that_left_no_sign_before_is_found_too(start: Start) -> None:
    """The broker had forgotten it: its first sign may be an old one, the next is not."""
    start.take(THERE, READY)
    assert start.take(LOST, THERE, READY, sign()) == []
    with pytest.raises(AnotherCoordinator):
        start.take(LOST, THERE, READY, sign(time=951.0))


def test_a_first_connection_that_ends_early_makes_no_other_of_our_last_life(start: Start) -> None:
    """It ended before what the broker keeps came."""
    last = Sign("here", "/db", 900.0)
    start.take(THERE, LOST, THERE, READY, sign(last), mark(2))
    assert start.take(after=SAME_S) == [THERE, READY]


@pytest.mark.parametrize("time", [940.0, 960.0])
def test_a_broker_that_brings_back_an_older_sign_makes_no_other_of_our_last_life(
    start: Start, time: float
) -> None:
    """It was killed, and saves once a second. Whatever says a time before our start is not new."""
    last, new = Sign("here", "/db", 900.0), Connected(False, 5)
    start.take(new, READY, sign(last, 950.0), LOST)
    start.take(new, READY, sign(last, time), mark(2))
    assert start.take(after=SAME_S) == [new, READY]


def test_a_broker_that_brings_back_an_older_sign_of_another_is_no_sign_of_it(start: Start) -> None:
    new = Connected(False, 5)
    start.take(new, READY, sign(time=950.0), LOST, new, READY, sign(time=949.0), mark(2))
    assert start.take(after=OTHER_S) == [new, READY]


def test_one_that_comes_back_is_found_beside_our_own_last_sign(start: Start) -> None:
    """It was started before our last life, and both served."""
    start.take(THERE, READY, sign(Sign("here", "/db", 940.0), 950.0), mark(), LOST)
    with pytest.raises(AnotherCoordinator):
        start.take(THERE, READY, sign(OTHER, 951.0))


def test_a_network_that_fails_is_nobody(start: Start) -> None:
    new = Connected(False, 5)
    start.take(new, REQUEST, READY, sign(), mark())
    for number in (2, 3):
        assert start.take(LOST, THERE, READY, sign(), mark(number), after=1.0) == []
    # The session was new once; what was not acknowledged comes again.
    assert start.take(after=OTHER_S) == [new, READY]


def test_one_that_ends_in_order_meanwhile_makes_room(start: Start) -> None:
    start.take(THERE, READY, sign(), mark())
    start.take(sign(time=960.0, kept=False, stopped=True))
    assert start.take(after=OTHER_S) == [THERE, READY]


@pytest.mark.parametrize(
    "changes",
    [{"host": 1}, {"database": None}, {"started": "x"}, {"time": None}, {"stopped": 0},
     {"host": "x" * 5_000}, {"started": 1e300}, {"time": -1}, {"database": "\ud800"}],
)  # fmt: skip
def test_what_is_no_sign_is_passed_over(start: Start, changes: dict[str, Any]) -> None:
    fields = {"host": "a", "database": "b", "started": 1.0, "time": 2.0, "stopped": False}
    assert read_sign(dumps(fields).encode()) == Sign("a", "b", 1.0, 2.0)
    broken = json.dumps(fields | changes).encode()
    assert read_sign(broken) is None
    said = Delivery("hw/@hwsync/coordinator", broken, 0, False, False, 0, 1)
    assert start.take(THERE, READY, said, mark()) == [THERE, READY]


# While it serves


class Serving:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.wire.url = "mqtt://broker:1883"  # type: ignore[attr-defined]
        notifier = Notifier({})
        self.vitals = Vitals(lab.coordinator, lab.wire, lab.clock, notifier, host="here")  # type: ignore[arg-type]

    def round(self, *signals: Signal) -> dict[str, Any]:
        """What the health says then of itself, and of another."""
        self.lab.clock.now += 1
        self.lab.wire.deeds = []
        question = self.lab.delivery("query", user="@hwsync")
        left = self.vitals.take_questions([*signals, question])
        done = self.lab.coordinator.step(left)
        self.vitals.report(left, len(signals), done)
        sent = [deed for deed in self.lab.wire.deeds if isinstance(deed, Sent)]
        assert read_sign(next(one.payload for one in sent if one.kind == "@hwsync/coordinator" or
                              one.topic == "hw/@hwsync/coordinator")) is not None  # fmt: skip
        said = next(deed.json for deed in sent if deed.topic == "hw/@hwsync/health")
        return {name: said[name] for name in ("host", "database", "other")}


def test_a_sign_that_is_not_ours_though_we_left_the_last_one_is_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Lab(tmp_path / "db") as lab:
        serving = Serving(lab)
        alone = {"host": "here", "database": str(tmp_path / "db"), "other": None}
        assert serving.round(Connected(False, 5), Subscribed(), sign()) == alone
        assert serving.round(sign()) == alone, "of the one before us, which comes late"
        own = serving.vitals.sign
        assert serving.round(Disconnected("x", True), Connected(True, 5), sign(own)) == alone
        assert serving.round(Subscribed(), sign(stopped=True)) == alone
        assert serving.round(sign())["other"] == {
            "host": "there", "database": "/db", "started": 900.0, "seconds": 0.0,
        }  # fmt: skip
        assert serving.round()["other"]["seconds"] == 1.0
        serving.round(sign(kept=False))
    assert caplog.text.count("TWO COORDINATORS serve the root hw") == 1
    assert "one on there, database /db" in caplog.text


def test_the_unit_tries_again_where_it_was_another_coordinator() -> None:
    unit = files("hwsync.systemd").joinpath("hwsync-coordinator.service").read_text("utf-8")
    (line,) = [one for one in unit.splitlines() if one.startswith("RestartPreventExitStatus=")]
    codes = {int(code) for code in line.partition("=")[2].split()}
    assert codes == {UsageError.exit_code}


@pytest.mark.parametrize("socket", ["", "/run/systemd/notify"])
def test_it_waits_before_it_ends_only_where_systemd_starts_it_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, socket: str
) -> None:
    waits: list[float] = []

    def serve(*_: object) -> None:
        os.environ.pop("NOTIFY_SOCKET", None)  # as the notifier does
        raise AnotherCoordinator("another coordinator serves it", "stop it")

    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if socket:
        monkeypatch.setenv("NOTIFY_SOCKET", socket)
    monkeypatch.setattr("hwsync.coordinator.service.serve", serve)
    monkeypatch.setattr("hwsync.logs.setup", lambda *_: None)
    monkeypatch.setattr(services.time, "sleep", waits.append)
    words = ["coordinator", "--broker", "mqtt://127.0.0.1:1", "--db", str(tmp_path / "db")]
    with pytest.raises(AnotherCoordinator):
        cli.main(words, obj=Settings(), standalone_mode=False)
    assert waits == ([services.PAUSE_S] if socket else [])
    assert ("another coordinator serves it" in caplog.text) == bool(socket)
