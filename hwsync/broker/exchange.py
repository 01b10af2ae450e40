"""Who gets which message: subscriptions, what is retained, and who may read and write.

The law: a message reaches whoever may read it, in the order in which it came, at the lower QoS of
its own and the subscription's; who is away gets it later, where he has a session and it has a QoS.
All this happens at once: nobody waits here for a client.

Why: amqtt raises the QoS to the subscription's, keeps a task for each message and client, sends
what is retained whenever a client comes back, asks nobody whether that may be read, and has no
limit of anything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from amqtt.broker import RetainedApplicationMessage  # type: ignore[import-untyped]

from hwsync.broker.access import Access, matches
from hwsync.broker.door import ENTRY, Admitted, owner_of
from hwsync.broker.flow import Flow, Room
from hwsync.broker.reading import Publish

WAITING: Final = 256 * 2**20  # bytes of messages that wait for clients, in all
KEPT: Final = 256 * 2**20  # bytes that are retained, in all
FILTERS: Final = 1_000  # of one client: each costs time at every message
FLOW: Final = "hwsync.flow"  # of a session's attributes
OWN: Final = "hwsync.filters"  # likewise: those that it has subscribed to
BROKERS_OWN: Final = ("$SYS", "$share")  # topics on which nobody else publishes
SHARED: Final = "$share/"  # subscriptions, which mosquitto has also for MQTT 3.1.1
REFUSED: Final = 0x80  # in a SUBACK

Note = Callable[[str, object, object], None]


class Exchange:
    """``subscriptions`` and ``retained`` are amqtt's own; ``note`` is told what has no room."""

    def __init__(
        self,
        subscriptions: dict[str, list[tuple[Any, int]]],
        retained: dict[str, Any],
        note: Note,
    ) -> None:
        self._subscriptions, self._retained, self._note = subscriptions, retained, note
        self._waiting, self._kept = Room(WAITING), Room(KEPT)

    def flow(self, session: Any) -> Flow:
        """What is under way for a session, from its beginning to its end."""
        found: Flow | None = session.attributes.get(FLOW)
        if found is None:
            owner = owner_of(session)
            holder = f"account {owner}" if owner else f"client {session.client_id}"
            found = Flow(self._waiting, holder, partial(self._no_room, session))
            session.attributes[FLOW] = found
            session.clear_queues = found.clear  # where amqtt ends a session
        return found

    def may_read(self, session: Any, topic: str) -> bool:
        """Whether this client may be sent what is on that topic."""
        return self._may("read", session, topic)

    def may_write(self, session: Any, topic: str) -> bool:
        """Whether this client may publish there."""
        return not topic.startswith(BROKERS_OWN) and self._may("write", session, topic)

    def accept(self, session: Any, message: Publish) -> None:
        """Pass it on to whom it may concern, and keep it where it is to be retained.

        On a topic that begins with ``$`` amqtt ends the connection.
        """
        topic, payload, qos = message.topic, message.payload, message.qos
        if not self.may_write(session, topic):
            self._note("to publish", session.client_id, topic)
            return
        self.pass_on(topic, payload, qos)
        if message.retain:
            self.retain(topic, payload, qos)

    def pass_on(self, topic: str, payload: bytes, qos: int) -> None:
        """Give a message to everybody who has subscribed to it and may read it."""
        for wanted, subscribers in self._subscriptions.items():
            if not matches(wanted, topic):
                continue
            for session, most in subscribers:
                lower = min(qos, most)
                there = session.transitions.is_connected()
                later = bool(lower) and not session.clean_session
                if (there or later) and self.may_read(session, topic):
                    self.flow(session).deliver(topic, payload, lower)

    def retain(self, topic: str, payload: bytes, qos: int) -> None:
        """In the place of what was kept there; nothing, where it is empty."""
        if (before := self._retained.pop(topic, None)) is not None:
            self._kept.give_back(topic, before.data)
        if not payload:
            return
        if self._kept.take(topic, payload):
            self._retained[topic] = RetainedApplicationMessage(None, topic, payload, qos)
        else:
            self._note("to retain", topic, f"{KEPT} bytes are retained already")

    def subscribe(self, session: Any, filters: list[tuple[str, int]]) -> list[int]:
        """The codes for the SUBACK. amqtt leaves a subscription that was there as it is.

        And it grants shared ones, and delivers nothing to them.
        """
        own: set[str] = session.attributes.setdefault(OWN, set())
        codes = []
        for wanted, qos in filters:
            if wanted.startswith(SHARED) or (wanted not in own and len(own) >= FILTERS):
                self._note("to subscribe", session.client_id, wanted)
                codes.append(REFUSED)
                continue
            self._leave(session, wanted)
            self._subscriptions.setdefault(wanted, []).append((session, qos))
            own.add(wanted)
            codes.append(qos)
        return codes

    def send_retained(self, session: Any, filters: list[tuple[str, int]]) -> None:
        """What is kept for these filters, and may be read."""
        for wanted, qos in filters:
            if wanted not in session.attributes[OWN]:
                continue
            for topic, kept in self._retained.items():
                if matches(wanted, topic) and self.may_read(session, topic):
                    lower = min(qos, kept.qos or 0)
                    self.flow(session).deliver(topic, kept.data, lower, retain=True)

    def unsubscribe(self, session: Any, filters: list[str]) -> None:
        """Deliver nothing more for these filters; what waits already is still delivered."""
        for wanted in filters:
            self._leave(session, wanted)
            session.attributes.get(OWN, set()).discard(wanted)

    def _leave(self, session: Any, wanted: str) -> None:
        others = [
            pair
            for pair in self._subscriptions.get(wanted, ())
            if pair[0].client_id != session.client_id
        ]
        if others:
            self._subscriptions[wanted] = others
        else:
            self._subscriptions.pop(wanted, None)

    def _may(self, access: Access, session: Any, topic: str) -> bool:
        entry: Admitted | None = session.attributes.get(ENTRY)
        return entry is not None and entry.door.allows(
            access, topic, entry, session.client_id or ""
        )

    def _no_room(self, session: Any, topic: str) -> None:
        self._note("to keep a message", session.client_id, f"too much waits; {topic}")
