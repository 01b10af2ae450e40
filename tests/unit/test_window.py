"""So many of our messages are under way at a time; the others wait in their order."""

from __future__ import annotations

from collections.abc import Iterator

from hwsync.transport.signals import Sent
from hwsync.transport.window import WINDOW, Message, Window


class Wire:
    """What was sent; packet identifiers from 1."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.window = Window(self._send)

    def _send(self, message: Message) -> int:
        self.sent.append(message.topic)
        return len(self.sent)

    def put(self, *topics: str, qos: int = 1) -> None:
        for topic in topics:
            self.window.put(Message(topic, topic.encode(), qos, False, b""))


def names(count: int) -> list[str]:
    return [f"{number:02d}" for number in range(count)]


def test_what_has_no_room_waits_and_goes_in_its_order() -> None:
    wire, topics = Wire(), names(WINDOW + 3)
    wire.put(*topics)
    assert wire.sent == topics[:WINDOW]
    assert [one.topic for one in wire.window.unanswered] == topics
    assert wire.window.backlog == 2 * len(topics)
    for mid in range(3, 6):
        wire.window.acknowledged(mid)
    assert wire.sent == topics
    assert wire.window.backlog == 2 * WINDOW
    left: Iterator[int] = (mid for mid in range(1, WINDOW + 4) if mid not in range(3, 6))
    for mid in left:
        assert not wire.window.is_empty
        wire.window.acknowledged(mid)
    assert wire.window.is_empty
    assert wire.window.backlog == 0


def test_qos_0_waits_for_nobody() -> None:
    wire = Wire()
    wire.window.size = 1
    wire.put("a", "b")
    wire.put("c", qos=0)
    assert wire.sent == ["a", "c"]
    wire.window.acknowledged(2)
    assert wire.sent == ["a", "c"], "that was none of the window's"
    wire.window.acknowledged(1)
    assert wire.sent == ["a", "c", "b"]


def test_an_acknowledgement_of_nothing_changes_nothing() -> None:
    wire = Wire()
    wire.put("a")
    wire.window.acknowledged(9)
    wire.window.acknowledged(1)
    wire.window.acknowledged(1)
    assert wire.window.unanswered == ()
    assert wire.window.backlog == 0
    wire.put("b")
    assert wire.window.unanswered == (Sent("b", 1),)
