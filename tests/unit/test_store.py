"""The database: saved whole or not at all, read back as it was, refused where it is not ours."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.coordinator.deadlines import Agenda, ConnectedClock, backoff
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.models import HwStatus
from hwsync.coordinator.store import Reader, Store
from hwsync.protocol import limits
from hwsync.protocol.errors import DatabaseError, NotFound
from hwsync.protocol.machine import Rules
from hwsync.protocol.record import Record, State
from hwsync.protocol.wire import encode_request
from hwsync.transport import Connected, Delivery, Disconnected, Subscribed


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def wall(self) -> float:
        return 1_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now


class Wire:
    """A transport that keeps what was published and acknowledged."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bool]] = []
        self.acknowledged: list[int] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        self.sent.append((topic, payload, retain))
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery.mid)

    def topics(self) -> list[str]:
        return [topic.removeprefix("hw/pi1/") for topic, _, _ in self.sent]


OPEN: list[Store] = []


class Lab:
    """A coordinator on a real database and a pretended wire."""

    def __init__(self, path: Path, **options: float) -> None:
        self.clock, self.wire, self.store = Clock(), Wire(), Store(path)
        self.coordinator = Coordinator(
            self.store,
            self.wire,
            self.clock,
            Rules(),
            settle=options.get("settle", 0.0),
            dice=random.Random(1),
            nonce=lambda: "0123456789abcdef",
        )
        self.coordinator.step([Connected(False, 5), Subscribed()])
        self.mid = 0
        OPEN.append(self.store)

    def delivery(self, kind: str, payload: bytes = b"", *, dup: bool = False, mid: int = 0,
                 user: str = "pi1", retain: bool = False) -> Delivery:  # fmt: skip
        self.mid = mid or self.mid + 1
        return Delivery(f"hw/{user}/{kind}", payload, 1, retain, dup, self.mid, 1)

    def hear(self, kind: str, payload: bytes = b"", **keys: object) -> list[str]:
        """Handle one message; the topics that it made the coordinator publish on."""
        self.wire.sent.clear()
        self.coordinator.step([self.delivery(kind, payload, **keys)])  # type: ignore[arg-type]
        return self.wire.topics()

    @property
    def record(self) -> Record:
        return self.coordinator.records["pi1"]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "hwsync.db"
    while OPEN:
        OPEN.pop().close()


def test_a_cycle_survives_a_restart_in_every_state(path: Path) -> None:
    messages = [
        ("request", encode_request("print(6*7)", id="c1", args=["x"], meta={"k": "é"})),
        ("collected", b'{"id":"c1","journal":"j1","boot":2}'),
        ("cancel", b'{"id":"c1"}'),
        ("response", b'{"id":"c1","journal":"j1","boot":2,"outcome":"error","exit_code":3,'
                     b'"duration":0.5,"stderr":"oh","sha256":{"stdout":"' + b"a" * 64 + b'"}}'),
        ("analysis", "très bien".encode()),
    ]  # fmt: skip
    for kind, payload in messages:
        lab = Lab(path)
        assert "status" in lab.hear(kind, payload)
        before = lab.record
        lab.store.close()
        again = Lab(path)
        # The clock of deadlines begins anew; what is left of one stays.
        assert replace(again.record, due_at=None) == replace(before, due_at=None)
        assert (again.record.due_at is None) == (before.due_at is None)
        again.store.close()
    assert before.state is State.REST


def test_everything_due_is_published_again_on_every_connect(path: Path) -> None:
    lab = Lab(path)
    lab.hear("request", b"print(1)")
    lab.wire.sent.clear()
    lab.coordinator.step([Disconnected("gone", True), Connected(True, 5), Subscribed()])
    assert lab.wire.topics() == ["status", "command"]
    assert lab.wire.sent[0][2]
    assert not lab.wire.sent[1][2]


def test_one_status_for_each_transition_of_a_batch_in_order(path: Path) -> None:
    lab = Lab(path)
    lab.wire.sent.clear()
    lab.coordinator.step([
        lab.delivery("request", b"1"), lab.delivery("collected"),
        lab.delivery("response", b"42"), lab.delivery("analysis", b"right"),
    ])  # fmt: skip
    states = [payload.split(b'"state":')[1][:1] for topic, payload, _ in lab.wire.sent
              if topic.endswith("status")]  # fmt: skip
    assert states == [b"1", b"2", b"3", b"0"]
    assert lab.wire.acknowledged == [1, 2, 3, 4]


def test_nothing_is_published_or_acknowledged_that_is_not_saved(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(path)
    save = lab.store.save

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(lab.store, "save", full)
    assert lab.hear("request", encode_request("1", id="c1")) == []
    assert lab.wire.acknowledged == []
    assert lab.coordinator.wait() == 1.0
    monkeypatch.setattr(lab.store, "save", save)
    lab.clock.now += 1.0
    lab.coordinator.step()
    assert lab.wire.topics() == ["status", "command"]
    assert lab.wire.acknowledged == [1]


def test_a_failed_transaction_leaves_no_trace(path: Path) -> None:
    lab = Lab(path)
    lab.store._connection.execute(
        "CREATE TEMP TRIGGER no BEFORE INSERT ON transitions BEGIN SELECT RAISE(FAIL, 'no'); END"
    )
    lab.hear("request", encode_request("1", id="c1"))
    assert lab.coordinator.records == {}
    assert lab.store.command("pi1", "c1") is None
    assert lab.wire.acknowledged == []


def test_a_message_that_makes_hwsync_fail_is_recorded_and_the_loop_lives(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(path)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("hwsync.coordinator.loop.decide", broken)
    assert lab.hear("request", b"poison") == ["error"]
    assert lab.wire.acknowledged == [1]
    monkeypatch.undo()
    assert lab.hear("request", b"print(1)") == ["status", "command"]
    assert "hwsync failed on a message" in caplog.text


def test_a_redelivered_message_without_id_gets_the_same_answer(path: Path) -> None:
    lab = Lab(path)
    lab.hear("request", b"1", mid=7)
    first = lab.record
    assert lab.hear("request", b"1", mid=7, dup=True) == ["status"]
    assert lab.record is first
    assert lab.hear("request", b"1", mid=8) == ["error"]
    assert lab.hear("request", b"1", mid=8, dup=True) == ["error", "status"]
    assert lab.hear("request", b"1", mid=9, dup=True) == ["error"]
    lab.store.close()
    again = Lab(path)
    # A new session counts its packets anew: nothing of the last one is known.
    assert again.hear("request", b"1", mid=8, dup=True) == ["error"]


def test_a_redelivery_after_a_restart_is_known(path: Path) -> None:
    lab = Lab(path)
    lab.hear("request", b"1", mid=7)
    lab.hear("collected", b"", mid=8)
    lab.store.close()
    store = Store(path)
    coordinator = Coordinator(store, lab.wire, lab.clock, Rules(), settle=0.0)
    coordinator.step([Connected(True, 5), Subscribed()])
    lab.wire.sent.clear()
    coordinator.step([lab.delivery("collected", b"", mid=8, dup=True)])
    assert lab.wire.topics() == ["status"]
    store.close()


def test_deadlines_wait_for_the_settle_time_and_for_the_connection(path: Path) -> None:
    lab = Lab(path, settle=30.0)
    lab.hear("request", encode_request("1", id="c1", expires=1))
    lab.clock.now += 29.0
    lab.coordinator.step()
    assert lab.record.state is State.REQUESTED
    lab.coordinator.step([Disconnected("gone", True)])
    lab.clock.now += 500.0
    lab.coordinator.step()
    assert lab.record.state is State.REQUESTED
    lab.coordinator.step([Connected(True, 5), Subscribed()])
    lab.clock.now += 30.0
    lab.coordinator.step()
    assert lab.record.state is State.REST


def test_the_analyser_answers_after_state_3_was_published(path: Path) -> None:
    lab = Lab(path)
    lab.hear("request", encode_request("1", id="c1", analysis="outcome"))
    lab.hear("collected", b'{"id":"c1","journal":"j1","boot":1}')
    result = b'{"id":"c1","journal":"j1","boot":1,"outcome":"ok","exit_code":0,"duration":0.12}'
    assert lab.hear("response", result) == ["status"]
    assert lab.record.state is State.RETURNED
    assert lab.coordinator.wait() == 0.0
    lab.coordinator.step()
    assert lab.record.state is State.REST
    assert lab.record.current is not None
    assert lab.record.current.analysis == "ok: exit 0 in 0.12 s"


def test_the_envelope_is_sent_again_with_growing_pauses_and_when_the_device_appears(
    path: Path,
) -> None:
    lab = Lab(path)
    lab.hear("request", encode_request("1", id="c1", expires=0))
    pauses = []
    for _ in range(8):
        wait = lab.coordinator.wait()
        assert wait is not None
        pauses.append(wait)
        lab.wire.sent.clear()
        lab.clock.now += wait
        lab.coordinator.step()
        assert lab.wire.topics() == ["command"]
    assert 0.7 < pauses[0] <= 1.0
    assert 22.0 < pauses[-1] <= 30.0
    online = b'{"online":true,"journal":"j1","boot":1,"seen":[0,0]}'
    assert lab.hear("heartbeat", online) == ["command"]
    assert lab.hear("heartbeat", online) == []
    assert lab.hear("heartbeat", b'{"online":false,"journal":"j1","boot":1}') == []
    lab.wire.sent.clear()
    lab.clock.now += 60.0
    lab.coordinator.step()
    assert lab.wire.topics() == []


def test_unknown_users_are_answered_and_nothing_is_kept(path: Path) -> None:
    lab = Lab(path)
    assert lab.hear("query") == ["status"]
    _, payload, retain = lab.wire.sent[0]
    assert not retain
    assert b'"state":0' in payload
    assert b'"user":"pi1"' in payload
    assert lab.coordinator.records == {}


def test_refused_messages_have_a_cap_and_then_a_counter(path: Path) -> None:
    lab = Lab(path)
    many = limits.REFUSED_ROWS + 20
    lab.coordinator.step([lab.delivery("cancel") for _ in range(many)])
    lab.coordinator.step(
        [lab.delivery("x" * 10 + "/request", b"1", user=f"-{n}") for n in range(9)]
    )
    lab.coordinator.step([lab.delivery("request", b"1", user=f"-{n}") for n in range(9)])
    with Reader(path) as reader:
        rows = list(reader.history("pi1"))
        assert len(rows) == limits.REFUSED_ROWS + 1
        assert rows[-1] == {"user": "pi1", "refused": many, "kept": limits.REFUSED_ROWS}
        assert len(list(reader.history(""))) == 9


def test_the_database_can_be_read_while_it_is_written(path: Path) -> None:
    lab = Lab(path)
    lab.hear("request", encode_request("print(1)", id="c1"))
    with Reader(path) as reader:
        assert [row["state"] for row in reader.history("pi1")] == [1]
        lab.hear("collected")
        assert [row["state"] for row in reader.history("pi1")] == [1, 2]
        shown = reader.show("pi1", "c1")
        assert (shown["hw_command"], shown["state"], len(shown["history"])) == ("print(1)", 2, 2)
        with pytest.raises(NotFound):
            reader.show("pi1", "c9")
        with pytest.raises(NotFound):
            list(reader.history("pi9"))
    lab.store.close()
    with Reader(path) as reader:
        assert len(list(reader.history("pi1"))) == 2


def test_the_original_columns_are_there(path: Path) -> None:
    lab = Lab(path)
    lab.hear("command", b"print(6*7)")
    columns = "user, state, command, hw_command, hw_response, server_analysis, time"
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute(f"SELECT {columns} FROM hw_status").fetchone()
    assert row == ("pi1", 1, "hw_command_request", "print(6*7)", "", "", lab.record.time)
    assert HwStatus._meta.table_name == "hw_status"


def test_a_second_coordinator_is_refused(path: Path) -> None:
    store = Store(path)
    with pytest.raises(DatabaseError, match=r"another coordinator \(process [0-9]+\) already uses"):
        Store(path)
    store.close()
    Store(path).close()


def test_foreign_newer_and_damaged_databases_are_refused(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DatabaseError, match=r"newer hwsync \(schema 99"):
        Store(path)
    with pytest.raises(DatabaseError):
        Reader(path)
    other = path.with_name("other.db")
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(DatabaseError, match="another program's"):
        Store(other)
    damaged = path.with_name("damaged.db")
    damaged.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(DatabaseError, match="cannot use the database"):
        Store(damaged)
    with pytest.raises(DatabaseError, match="there is no database"):
        Reader(path.with_name("none.db"))


def test_the_clock_of_deadlines_runs_only_while_connected() -> None:
    clock = ConnectedClock(settle=10.0)
    assert clock.wait(5.0, 1.0) is None
    clock.connect(100.0)
    assert clock.ticks(103.0) == 3.0
    assert clock.wait(103.0, 4.0) == 7.0
    clock.disconnect(104.0)
    assert clock.ticks(900.0) == 4.0
    clock.connect(900.0)
    assert clock.wait(910.0, 14.5) == 0.5


def test_backoff_doubles_to_half_a_minute() -> None:
    dice = random.Random(0)
    for attempt, full in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
        assert 0.75 * full <= backoff(attempt, dice) <= full
    agenda = Agenda()
    agenda.add(2.0, "b")
    agenda.add(1.0, "a")
    assert agenda.nearest() == 1.0
    assert agenda.passed(1.5) == ["a"]
