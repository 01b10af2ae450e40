"""A coordinator on a real database, with a pretended broker and clock, for the tests of its loop.

``Lab.hear`` handles one message, ``Lab.step`` any signals; both return what the coordinator then
did, in order: what it published (``Sent``) and what it acknowledged (``Acknowledged``).
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.round_log import RoundLog
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import Record
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.protocol.wire.request import encode_request
from hwsync.protocol.wire.response import encode_collected
from hwsync.store.store import Store
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed
from hwsync.transport.outbox import Capacity, Outbox

NONCE = "0123456789abcdef"
GONE = Disconnected("gone", True)
COLLECTED = encode_collected("c1", "j1", 1)
PERSONS = [("request", b"print(1)"), ("collected", b""), ("response", b"42"), ("analysis", b"ok")]
"""The cycle as a person types it: without an id, one message for each state."""


def request(id: str = "c1", program: str = "print(6*7)", **keys: object) -> bytes:
    return encode_request(program, id=id, **keys)


def result(id: str = "c1", journal: str = "j1", **keys: object) -> bytes:
    """A result as a device sends it: exit code 0, unless ``keys`` say otherwise."""
    return dumps(
        {"id": id, "journal": journal, "boot": 1, "outcome": "ok", "exit_code": 0, **keys}
    ).encode()


def heartbeat(journal: str = "j1", boot: int = 1, *, online: bool = True) -> bytes:
    return encode_heartbeat(online=online, journal=journal, boot=boot)


@dataclass(frozen=True)
class Sent:
    """One publish."""

    topic: str
    payload: bytes
    retain: bool
    correlation: bytes = b""

    @property
    def kind(self) -> str:
        return self.topic.split("/", 2)[2] if self.topic.startswith("hw/") else self.topic

    @property
    def json(self) -> dict[str, Any]:
        fields: dict[str, Any] = loads(self.payload.decode())
        return fields


@dataclass(frozen=True)
class Acknowledged:
    """One acknowledgement, by packet identifier."""

    mid: int


Deed = Sent | Acknowledged


def brief(deeds: list[Deed]) -> list[str | int]:
    """Kinds of topics and packet identifiers; a status with its state, as in ``status 1``."""
    return [
        deed.mid
        if isinstance(deed, Acknowledged)
        else f"status {deed.json['state']}"
        if deed.kind == "status"
        else deed.kind
        for deed in deeds
    ]


def sent(deeds: list[Deed], kind: str) -> list[Sent]:
    """What was published on topics of one kind."""
    return [deed for deed in deeds if isinstance(deed, Sent) and deed.kind == kind]


def is_list(deed: Deed) -> bool:
    """Whether it says who is in a group."""
    return isinstance(deed, Sent) and deed.topic.startswith("hw/@") and deed.kind == "members"


class Clock:
    """The clocks; ``wall`` jumps when ``jump`` is set, ``suspended`` and ``named`` are a boot's."""

    def __init__(self) -> None:
        self.now = 100.0
        self.jump = 0.0
        self.suspended = 0
        self.named = "a boot"

    def wall(self) -> float:
        return 1_000_000.0 + self.now + self.jump

    def monotonic(self) -> float:
        return self.now

    def raw_us(self) -> int:
        return round(self.now * 1e6)

    def asleep_us(self) -> int:
        return self.suspended

    def boot(self) -> str:
        return self.named


class Wire:
    """A transport that keeps what it was told, in order; ``before`` looks at each deed first."""

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.connected = True
        self.all_acknowledged = True
        self.connection = 1
        self.backlog = 0
        self.before: Callable[[Deed], None] = lambda _: None

    def under_way(self, topic: str) -> bool:
        return not self.all_acknowledged

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        assert qos == 1
        self._do(Sent(topic, payload, retain, correlation))
        return self.connected

    def acknowledge(self, delivery: Delivery) -> None:
        self._do(Acknowledged(delivery.mid))

    def _do(self, deed: Deed) -> None:
        self.before(deed)
        if self.connected:
            self.deeds.append(deed)


OUTBOX: Final = Outbox(Wire(), Capacity(), lambda: 0.0)
"""Of a coordinator that sends nothing."""


class Loaded(random.Random):
    """Dice that always show the same."""

    def __init__(self, shown: float) -> None:
        super().__init__(1)
        self.shown = shown

    def random(self) -> float:
        return self.shown


@cache
def empty() -> bytes:
    """A database before anything happened. To make one takes longer than what most tests do."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "hwsync.db")
        Store(path).close()
        return path.read_bytes()


class Lab:
    """One user's lab (pi1, unless a message says otherwise), connected to a new session.

    Or, with ``known``, not connected yet, to the session that the broker kept. ``copied``: where
    there is no database an empty one is copied; else the store makes it, as in a real lab.
    """

    def __init__(
        self,
        path: Path,
        *,
        hold_deadlines_s: float = 0.0,
        rules: Rules | None = None,
        dice: float = 0.0,
        known: bool = False,
        copied: bool = True,
    ) -> None:
        self.path, self._is_copied = path, copied
        self.clock, self.wire = Clock(), Wire()
        self._options = (rules or Rules(), hold_deadlines_s, dice)
        self._mid = 0
        self._round_log = RoundLog()
        self.start()
        if not known:
            self.connect(session_present=False)

    def start(self) -> None:
        """Open the database and begin from what it says; not connected yet."""
        rules, hold_deadlines_s, dice = self._options
        if self._is_copied and not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(empty())
        self.store = Store(self.path)
        self.coordinator = Coordinator(
            self.store,
            self.wire,
            self.clock,
            rules,
            hold_deadlines_s=hold_deadlines_s,
            dice=Loaded(dice),
            nonce=lambda: NONCE,
        )

    def stop(self) -> None:
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def restart(self) -> list[Deed]:
        """Another process on the same database; the broker kept the session."""
        self.stop()
        self.start()
        return self.connect()

    def connect(self, *signals: Signal, session_present: bool = True) -> list[Deed]:
        self.wire.connected = True
        return self.step(Connected(session_present, 5), Subscribed(), *signals)

    def disconnect(self) -> list[Deed]:
        self.wire.connected = False
        return self.step(GONE)

    def delivery(
        self,
        kind: str,
        payload: bytes = b"",
        *,
        user: str = "pi1",
        mid: int | None = None,
        dup: bool = False,
        retain: bool = False,
    ) -> Delivery:
        """A message on its way; each has a packet identifier of its own unless told."""
        if mid is None:
            self._mid = mid = self._mid + 1
        return Delivery(f"hw/{user}/{kind}", payload, 1, retain, dup, mid, 1)

    def step(self, *signals: Signal) -> list[Deed]:
        """One step of the loop, and what it did; what it says of who is in a group is left out."""
        self.wire.deeds = []
        done = self.coordinator.step(signals)
        if done is not None:
            self._round_log.write(done.decided, self.clock.now)
        return [deed for deed in self.wire.deeds if not is_list(deed)]

    def hear(self, kind: str, payload: bytes = b"", **options: Any) -> list[Deed]:
        """Handle one message."""
        return self.step(self.delivery(kind, payload, **options))

    def later(self, seconds: float, *signals: Signal) -> list[Deed]:
        """One step after some time."""
        self.clock.now += seconds
        return self.step(*signals)

    def hand(self, state: int) -> None:
        """Bring pi1 from rest to that state, as a person does it."""
        for kind, payload in PERSONS[:state]:
            self.hear(kind, payload)

    def device(self, state: int, id: str = "c1", **keys: object) -> None:
        """Bring pi1 from rest to that state with the command ``id``, by the device j1, boot 1."""
        messages = [
            ("request", request(id, **keys)),  # type: ignore[arg-type]
            ("collected", encode_collected(id, "j1", 1)),
            ("response", result(id)),
        ]
        for kind, payload in messages[:state]:
            self.hear(kind, payload)

    @property
    def record(self) -> Record:
        return self.coordinator.records["pi1"]

    def rows(self, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        """The rows of a table, as another process sees them."""
        with closing(sqlite3.connect(self.path)) as connection:
            order = "" if columns == "*" else f" ORDER BY {columns}"
            return list(connection.execute(f"SELECT {columns} FROM {table}{order}"))


def change(path: Path, sql: str) -> None:
    """Change a database as nobody of ours does."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


def use(lab: Lab) -> None:
    """One whole cycle, one refused message, and one command under way."""
    lab.hear("request", request())
    lab.hear("collected", COLLECTED)
    digests = {"stdout": hashlib.sha256(b"42\n").hexdigest()}
    lab.hear("response", result(response="42\n", sha256=digests))
    lab.hear("analysis", b"right")
    lab.hear("cancel", b"")
    lab.hear("request", request("c2", meta={"by": "alice"}, name="a.py"))
