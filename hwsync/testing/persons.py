"""Who asks with plain tools: people with ``mosquitto_pub``, and hands that play a device.

The law: each of them knows only what MQTT told it. A person sends once, without an id, and sees
what happens.
"""

from __future__ import annotations

from collections.abc import Callable

from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.schema import read_object
from hwsync.testing.broker import REFUSED, Packet
from hwsync.testing.context import Context
from hwsync.testing.history import Asked, Began, Ended, Judged
from hwsync.testing.operators import IDLE_S, Numbers
from hwsync.testing.port import Port
from hwsync.testing.programs import Program
from hwsync.transport import Delivery, Signal, Subscription


class Person:
    """Somebody at a terminal: one ``mosquitto_pub`` after another, without ids, sent once."""

    def __init__(
        self, context: Context, name: str, users: list[str], numbers: Numbers, stops: bool
    ) -> None:
        self.context, self.name, self.users, self.numbers = context, name, users, numbers
        self._stops = stops  # whether it cancels and resets
        self.asking = True
        self.topics = Topics()
        context.schedule.after(IDLE_S * context.dice.random(), self._acts)

    def _acts(self) -> None:
        context, dice = self.context, self.context.dice
        context.schedule.after(IDLE_S * 4 * dice.random(), self._acts)
        if not self.asking:
            return
        context.step()
        user = dice.choice(self.users)
        kind = dice.choices(
            [
                TopicKind.REQUEST,
                TopicKind.ENVELOPE,
                TopicKind.ANALYSIS,
                TopicKind.CANCEL,
                TopicKind.RESET,
                TopicKind.QUERY,
            ],
            [6, 2, 4, 2 * self._stops, 1 * self._stops, 1],
        )[0]
        payload, program = b"", ""
        if kind in (TopicKind.REQUEST, TopicKind.ENVELOPE):
            program = self.numbers.program().text
            payload = program.encode()
        elif kind is TopicKind.ANALYSIS:
            text = f"seen by {self.name} {self.numbers.id()}"
            payload = text.encode()
            context.see(Judged(context.now, self.name, user, None, text))
        reply = f"replies/{self.name}" if kind is TopicKind.REQUEST and dice.random() < 0.3 else ""
        if reply and context.habits.largest is not None and dice.random() < 0.5:
            reply = f"{REFUSED}{self.name}"
        retained = dice.random() < 0.02
        publish(
            self.context, self.name, self.topics.of(user, kind), payload,
            reply=reply, retain=retained,
        )  # fmt: skip
        context.see(Asked(context.now, self.name, user, str(kind), None, program))
        if retained:
            context.schedule.after(3.0, lambda: self._clears(user, kind))

    def _clears(self, user: str, kind: TopicKind) -> None:
        """It was told that it must not be retained. Without MQTT 5 that performs it once more."""
        self.context.see(Asked(self.context.now, self.name, user, str(kind)))
        publish(self.context, self.name, self.topics.of(user, kind), b"", retain=True)


def publish(
    context: Context, name: str, topic: str, payload: bytes, *, reply: str = "",
    retain: bool = False,
) -> None:  # fmt: skip
    """A client that connects, publishes at QoS 1 and leaves; lost where nobody is to be reached."""
    cable = context.cable(name)
    if not (context.broker.up and cable.whole):
        return
    reply = reply if context.habits.speaks_v5 else ""

    def arrives() -> None:
        if context.broker.up:
            packet = Packet(topic, payload, 1, retain, context.now, reply_topic=reply)
            context.broker.publish(packet)

    context.note(name, f"publishes {topic}", payload)
    context.schedule.after(cable.latency, arrives)


class Hand:
    """A person who plays the device of one user: collects, runs what was granted, answers."""

    def __init__(self, context: Context, user: str) -> None:
        self.context, self.user, self.name = context, user, f"hand-{user}"
        self.topics = Topics()
        self._done: set[str] = set()
        self._order = (0, 0)
        self.port = Port(
            context.schedule,
            context.broker,
            context.cable(self.name),
            context.dice,
            self.name,
            on_signal=self._hear,
            subscriptions=[Subscription(self.topics.of(user, TopicKind.STATUS))],
        )
        self.port.start()

    def _later(self, action: Callable[[], None]) -> None:
        self.context.schedule.after(0.3 + 2.0 * self.context.dice.random(), action)

    def _hear(self, signal: Signal) -> None:
        if not isinstance(signal, Delivery):
            return
        self.port.acknowledge(signal)
        status = read_object(signal.payload)
        if status is None or (status["epoch"], status["seq"]) < self._order:
            return
        self._order = (status["epoch"], status["seq"])
        id, order = str(status["id"]), self._order
        if status["state"] == 1:
            self._later(lambda: self._collects(order))
        elif status["state"] == 2 and status["journal"] is None and id not in self._done:
            self._done.add(id)
            self._later(lambda: self._runs(id, str(status["hw_command"]), order))

    def _say(self, kind: TopicKind, payload: bytes) -> None:
        publish(self.context, self.name, self.topics.of(self.user, kind), payload)

    def _collects(self, order: tuple[int, int]) -> None:
        if order == self._order:
            self._say(TopicKind.COLLECTED, b"")

    def _runs(self, id: str, program: str, order: tuple[int, int]) -> None:
        if order != self._order:
            return
        now = self.context.now
        self.context.see(Began(now, self.user, id, program))
        self.context.see(Ended(now, self.user, id, program))
        self._say(TopicKind.RESPONSE, f"by hand: {Program.read(program).token}".encode())
