"""What is under way for one session of the embedded broker, and how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from amqtt.adapters import BufferReader

from hwsync.broker.conf import HARMLESS
from hwsync.broker.conversation import BACKLOG, Conversation, Sending
from hwsync.broker.door import ENTRY
from hwsync.broker.exchange import WAITING, Exchange
from hwsync.broker.flow import EACH, QUEUE, RECEIVED, WINDOW, WINDOW_BYTES, Flow, Room
from hwsync.broker.reading import Malformed, Publish
from tests.support.fuzz_packets import PINGREQ, packet, publish

PLENTY = 10**9


class Side:
    """A client's end of a flow."""

    def __init__(self, room: int = PLENTY) -> None:
        self.heard: list[bytes] = []
        self.dropped: list[str] = []
        self.room = Room(room)
        self.flow = Flow(self.room, "me", self.dropped.append)

    def comes(self, may_read: Callable[[str], bool] = lambda topic: True) -> None:
        self.flow.attach(self.heard.append, may_read)

    def goes(self) -> None:
        self.flow.detach(self.heard.append)

    def takes(self) -> list[bytes]:
        heard, self.heard[:] = list(self.heard), []
        return heard


def test_a_window_is_under_way_and_the_rest_waits() -> None:
    side = Side()
    side.comes()
    for number in range(WINDOW + 5):
        side.flow.deliver("a", b"%d" % number, 1)
    assert side.takes() == [publish("a", b"%d" % n, 1, n + 1) for n in range(WINDOW)]
    side.flow.acknowledged(3)
    assert side.takes() == [publish("a", b"%d" % WINDOW, 1, WINDOW + 1)]
    side.flow.acknowledged(3)  # once more
    assert side.takes() == []


def test_a_window_has_so_many_bytes_or_one_message() -> None:
    side = Side()
    side.comes()
    for size in (WINDOW_BYTES + 1, 1, WINDOW_BYTES - 1, 1, 1):
        side.flow.deliver("a", b"x" * size, 1)
    assert len(side.takes()) == 1
    side.flow.acknowledged(1)
    assert len(side.takes()) == 2
    side.flow.acknowledged(2)
    assert len(side.takes()) == 1


def test_what_has_no_room_is_dropped_and_told() -> None:
    side = Side(6 * (EACH + 2))
    for number in range(5):
        side.flow.deliver("a", b"%d" % number, 1)
    assert side.dropped == ["a", "a"]
    assert side.room.left == 3 * (EACH + 2)  # half is for the others
    side.comes()
    assert side.takes() == [publish("a", b"%d" % n, 1, n + 1) for n in range(3)]
    assert side.room.left == 6 * (EACH + 2)
    side.goes()
    side.flow.deliver("a", b"x", 1)
    side.flow.clear()
    assert side.room.left == 6 * (EACH + 2)


def test_what_goes_out_at_once_needs_no_room() -> None:
    side = Side(0)
    side.flow.deliver("a", b"away", 1)
    side.comes()
    for number in range(WINDOW + 1):
        side.flow.deliver("a", b"%d" % number, 1)
    assert side.takes() == [publish("a", b"%d" % n, 1, n + 1) for n in range(WINDOW)]
    assert side.dropped == ["a", "a"]


def session(name: str, owner: str = "") -> Any:
    """One of a client that is away."""
    entry = SimpleNamespace(
        owner=owner, account=owner, door=SimpleNamespace(allows=lambda *_: True)
    )
    state = SimpleNamespace(is_connected=lambda: False)
    return SimpleNamespace(
        client_id=name, attributes={ENTRY: entry}, transitions=state, clean_session=False
    )


@pytest.mark.parametrize("owner", ["", "op"])
def test_nobody_uses_up_the_room_of_the_others(owner: str) -> None:
    """Of an account all sessions together; without one each."""
    noted: list[tuple[object, ...]] = []
    exchange = Exchange({}, {}, lambda *what: noted.append(what))
    noisy, second = session("noisy", owner), session("second", owner)
    quiet = session("pi1", "pi1" if owner else "")
    exchange.subscribe(noisy, [("noise", 1)])
    exchange.subscribe(second, [("second", 1)])
    exchange.subscribe(quiet, [("quiet", 1)])
    part = b"x" * 2**20
    for _ in range(WAITING // len(part)):
        exchange.pass_on("noise", part, 1)
    dropped = len(noted)
    assert dropped >= WAITING // len(part) // 2
    exchange.pass_on("second", part, 1)
    assert len(noted) == dropped + bool(owner)
    dropped = len(noted)
    for _ in range(50):
        exchange.pass_on("quiet", part, 1)
    assert len(noted) == dropped


def test_what_may_be_read_no_more_is_not_sent() -> None:
    side = Side()
    side.comes()
    for topic in ("a", "b"):
        side.flow.deliver(topic, b"1", 1)
    side.goes()
    for topic in ("a", "b"):
        side.flow.deliver(topic, b"2", 1)
    side.takes()
    side.comes(lambda topic: topic == "b")
    assert side.takes() == [publish("b", b"1", 1, 2, 8), publish("b", b"2", 1, 3)]
    assert side.room.left == PLENTY


def test_a_newer_connection_is_not_ended_by_the_older_one() -> None:
    side, older = Side(), list[bytes]()
    side.flow.attach(older.append, lambda topic: True)
    side.comes()
    side.flow.detach(older.append)
    side.flow.deliver("a", b"x", 0)
    assert side.takes() == [publish("a", b"x")]


def test_packet_identifiers_that_are_in_use_are_passed_over() -> None:
    side = Side()
    side.comes()
    side.flow.deliver("a", b"x", 1)
    side.flow._mid = 65_535
    side.flow.deliver("a", b"y", 1)
    assert side.takes()[1] == publish("a", b"y", 1, 2)


@pytest.mark.parametrize("qos", [1, 2])
def test_an_answer_of_the_other_kind_is_malformed(qos: int) -> None:
    side = Side()
    side.comes()
    side.flow.deliver("a", b"x", qos)
    wrong = [side.flow.acknowledged] if qos == 2 else [side.flow.released]
    for answer in (*wrong, side.flow.completed):
        with pytest.raises(Malformed):
            answer(1)


def test_who_leaves_too_much_half_way_is_sent_away() -> None:
    side = Side()
    for mid in range(1, RECEIVED + 1):
        side.flow.hold(Publish("a", b"", 2, False, mid))
    with pytest.raises(Malformed):
        side.flow.hold(Publish("a", b"", 2, False, RECEIVED + 1))


class Writer:
    """A connection whose client takes nothing."""

    def write(self, data: bytes) -> None:
        """Nowhere."""

    async def drain(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """At once."""


def test_what_a_client_does_not_take_has_a_limit() -> None:
    async def run() -> None:
        sending = Sending(Writer())
        large = publish("a", b"x" * (BACKLOG // 2))
        for _ in range(10):
            sending.put(large)  # at QoS 0
        assert not sending.too_much.is_set()
        for _ in range(3):
            sending.put(publish("a", b"x" * (BACKLOG // 2), 1))
        assert sending.too_much.is_set()

    asyncio.run(run())


class Handler:
    """amqtt's, as far as it is asked."""

    def __init__(self) -> None:
        self.session = type("Session", (), {"keep_alive": 0, "client_id": "me", "attributes": {}})
        self.writer = Writer()
        self._reader_ready, self._reader_stopped = asyncio.Event(), asyncio.Event()
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def act(*_: object) -> None:
            self.done.append(name)

        return act


def test_who_takes_no_answers_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsync.broker.conversation.UNTAKEN", 1_000)
    monkeypatch.setattr("hwsync.broker.conversation.LAST_S", 0.01)

    async def run() -> list[str]:
        handler = Handler()
        exchange = Exchange({}, {}, lambda *_: None)
        reader = BufferReader(PINGREQ * 10_000)
        flow = exchange.flow(handler.session)
        conversation = Conversation(exchange, handler, flow, reader, 0, "somebody")
        await asyncio.wait_for(conversation.run(), 10)
        assert handler._reader_stopped.is_set()
        assert len(await reader.read(-1)) > len(PINGREQ) * 9_000
        return handler.done

    assert asyncio.run(run()) == ["handle_connection_closed", "stop"]


def test_it_ends_where_amqtt_ends_it_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """amqtt waits for the sign of its end for ever."""

    class Silent(BufferReader):  # type: ignore[misc]
        async def read(self, n: int = -1) -> bytes:
            await asyncio.Event().wait()
            return b""

    async def run() -> None:
        handler, exchange = Handler(), Exchange({}, {}, lambda *_: None)
        flow = exchange.flow(handler.session)
        conversation = Conversation(exchange, handler, flow, Silent(b""), 0, "somebody")
        task = asyncio.ensure_future(conversation.run())
        await handler._reader_ready.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task], timeout=10)
        assert handler._reader_stopped.is_set()

    asyncio.run(run())


def test_what_is_retained_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsync.broker.exchange.KEPT", 2 * (EACH + 2))
    noted: list[tuple[object, ...]] = []
    retained: dict[str, Any] = {}
    exchange = Exchange({}, retained, lambda *what: noted.append(what))
    for topic in "abc":
        exchange.retain(topic, b"x", 0)
    assert [*retained] == ["a", "b"]
    assert [topic for _, topic, _ in noted] == ["c"]
    exchange.retain("a", b"", 0)
    exchange.retain("b", b"y", 0)
    exchange.retain("c", b"x", 0)
    assert [*retained] == ["b", "c"]
    assert len(noted) == 1


def test_packets_have_their_lengths() -> None:
    for size in (0, 100, 127, 128, 16_383, 16_384, 3_000_000):
        side = Side()
        side.comes()
        side.flow.deliver("a", b"x" * size, 2, retain=True)
        assert side.takes() == [packet(0x35, b"\0\1a\0\1" + b"x" * size)]


def test_a_client_has_so_many_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsync.broker.exchange.FILTERS", 2)
    exchange, session = Exchange({}, {}, lambda *_: None), Handler().session
    assert exchange.subscribe(session, [("a", 0), ("b", 1), ("c", 2)]) == [0, 1, 0x80]
    assert exchange.subscribe(session, [("a", 2)]) == [2]
    exchange.unsubscribe(session, ["a", "a", "x"])
    assert exchange.subscribe(session, [("c", 1), ("a", 1)]) == [1, 0x80]


def test_a_broker_conf_is_told_of_these_limits() -> None:
    """Their numbers stand there once more: to read a file needs no amqtt."""
    assert HARMLESS["max_queued_messages"] == f"it is {QUEUE:,} here"
    assert HARMLESS["max_inflight_messages"] == f"it is {WINDOW} here"
    assert HARMLESS["max_inflight_bytes"] == f"it is {WINDOW_BYTES // 2**20} MiB here"
