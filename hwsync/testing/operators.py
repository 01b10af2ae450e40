"""Who asks: operators with the command line's own code, people with ``mosquitto_pub``, and hands.

The law: each of them knows only what MQTT told it. An operator with ids repeats until it is
answered; a person sends once and sees what happens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

from hwsync.operator.conversation import Conversation, Talk
from hwsync.protocol.errors import Code, HwsyncError, Refused
from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.asking import encode_analysis, encode_id, encode_reset
from hwsync.protocol.wire.request import encode_request
from hwsync.protocol.wire.schema import read_object
from hwsync.protocol.wire.status import CommandFields
from hwsync.testing.broker import REFUSED, Packet
from hwsync.testing.context import WALL, Context
from hwsync.testing.history import Answered, Asked, Began, Ended
from hwsync.testing.port import Port
from hwsync.testing.programs import Program
from hwsync.testing.schedule import Timer
from hwsync.transport import Delivery, Signal, Subscription

IDLE_S: Final = 1.0  # between two actions of one operator, on average
AGAIN_S: Final = 5.0  # until a request is tried again for which there was no room
FOLLOW_S: Final = 90.0  # so long a command is followed to its end
EXPIRES: Final = (2.0, 8.0, 20.0, 3_000.0)
EXPIRES_AT: Final = (1.0, 3.0, 10.0, 60.0)  # seconds from now, by a clock that never jumps


Known = tuple[str, str, str, dict[str, Any]]
"""User, id, program, and what a repeat says as well."""


class Numbers:
    """Ids and programs that are never used twice in one world."""

    def __init__(self, context: Context) -> None:
        self._context, self._count = context, itertools.count(1)

    def id(self) -> str:
        return f"c{next(self._count)}"

    def program(self) -> Program:
        dice = self._context.dice
        seconds = dice.choice((0.01, 0.1, 0.5, 1.5, 4.0, 12.0))
        token, code = f"t{next(self._count)}", int(dice.random() < 0.1)
        limited = self._context.habits.largest is not None
        lines = dice.choice((0, 0, 100, 400)) if limited else 0
        return Program(token, seconds, code, lines)


class Operator:
    """One command line after another, for any of the users."""

    def __init__(
        self, context: Context, name: str, users: list[str], numbers: Numbers, stops: bool
    ) -> None:
        self.context, self.name, self.users, self.numbers = context, name, users, numbers
        self._stops = stops  # whether it cancels and resets
        self.asking = True  # whether it begins anything new
        self._idle = True
        self._orders: list[str] = []  # users who are to run one more program
        self._untidy: list[str] = []  # users to look at when it begins nothing more
        self.topics = Topics()
        self.known: list[Known] = []  # what it has sent
        kinds = (TopicKind.STATUS, TopicKind.ERROR, TopicKind.HEARTBEAT)
        filters = [Subscription(self.topics.of("+", kind)) for kind in kinds]
        self.port = Port(
            context.schedule,
            context.broker,
            context.cable(name),
            context.dice,
            name,
            on_signal=self._advance,
            subscriptions=[*filters, Subscription(self.topics.result("+", "+"))],
            prefer_v5=True,
        )
        self._timer: Timer | None = None
        self._talk = self._script()
        self._advance_first()
        self.port.start()

    @property
    def idle(self) -> bool:
        """Whether it waits for nothing."""
        return self._idle and not self._orders and not (self._untidy and not self.asking)

    def ask_each(self, users: list[str]) -> None:
        """Let each of them run one more program."""
        self._orders = list(users)

    # -- driving ------------------------------------------------------------------------------

    def _advance_first(self) -> None:
        self._plan(next(self._talk))

    def _advance(self, signal: Signal | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if signal is None:
            self.context.step()
        if isinstance(signal, Delivery):
            self.port.acknowledge(signal)
        self._plan(self._talk.send(signal))

    def _plan(self, seconds: float) -> None:
        self._timer = self.context.schedule.after(seconds, lambda: self._advance(None))

    # -- what it does -------------------------------------------------------------------------

    def _script(self) -> Talk[None]:
        dice = self.context.dice
        while True:
            yield from self._sleep(IDLE_S * 2 * dice.random())
            user = dice.choice(self.users)
            if self._orders:
                yield from self._does(self._last_program(self._orders[0]))
                self._orders.pop(0)
            if not self.asking:
                if self._untidy:
                    yield from self._does(self._tidies(self._untidy[0]))
                continue
            action = dice.choices(*self.choices())[0]
            yield from self._does(action(user))

    def choices(self) -> tuple[list[Any], list[float]]:
        """What it does, and how often."""
        return (
            [self._runs, self._repeats, self._mistakes, self._cancels, self._resets,
             self._analyses, self._reads, self._queries],
            [10, 2, 1, 3 * self._stops, 1 * self._stops, 2, 1, 1],
        )  # fmt: skip

    def _does(self, action: Talk[object]) -> Talk[None]:
        self._idle = False
        try:
            yield from action
        except HwsyncError as error:
            self.context.note(self.name, f"is told: {error}")
        self._idle = True

    def _tidies(self, user: str) -> Talk[None]:
        """What it leaves behind is to end by itself soon; where it does, there is nothing to do."""
        self._untidy.remove(user)
        yield from ()

    def _last_program(self, user: str) -> Talk[None]:
        id, program = self.numbers.id(), self.numbers.program().text
        # A copy of a message may still come late, and be before it.
        keys = {"analysis": "outcome", "expires": 3_600, "queue": True}
        while True:
            try:
                yield from self.ask(user, id, program, **keys)
            except Refused as refusal:
                if refusal.code is not Code.NOT_ALLOWED:
                    raise
                yield from self._sleep(AGAIN_S)  # what led to nothing is given back by time
            else:
                break
        yield from self.follow(user, id)

    def _sleep(self, seconds: float) -> Talk[None]:
        limit = self.context.now + seconds
        while (left := limit - self.context.now) > 0:
            yield left

    def conversation(self, user: str) -> Conversation:
        """As a command makes it."""
        return Conversation(
            self.topics,
            user,
            self.port.publish,
            monotonic=lambda: self.context.now,
        )

    def ask(self, user: str, id: str, program: str, **keys: Any) -> Talk[CommandFields]:
        """Ask for a program until that is acknowledged."""
        context = self.context
        name, expires_at = keys.get("name", DEFAULT_NAME), keys.get("expires_at")
        context.see(
            Asked(
                *(context.now, self.name, user, "request", id, program, name, expires_at),
                expires=keys.get("expires"),
                start=keys.get("start"),
                batch=tuple(keys.get("batch", ())),
                timeout=keys.get("timeout"),
                grace=keys.get("grace"),
            )
        )
        context.note(self.name, f"asks {user} for {id}", (program, keys))
        payload = encode_request(program, id=id, **keys)
        talk = self.conversation(user).telling(TopicKind.REQUEST, payload, id)
        answer = yield from talk
        context.see(Answered(context.now, self.name, user, id, answer, program))
        context.note(self.name, f"knows that {id} is accepted", answer)
        return answer

    def _runs(self, user: str) -> Talk[None]:
        dice = self.context.dice
        id, program = self.numbers.id(), self.numbers.program()
        same = self._what_a_repeat_says_too(id)
        self.known = [*self.known[-20:], (user, id, program.text, same)]
        keys: dict[str, Any] = {
            **same,
            "timeout": dice.choice((1.0, 2.0, 10.0)),
            "grace": dice.choice((1.0, 3.0)),
            "expires": dice.choice(EXPIRES),
            "analysis": dice.choice(("outcome", "outcome", "manual")),
        }
        if dice.random() < 0.4:
            keys["queue"] = True
        yield from self.ask(user, id, program.text, **keys)
        yield from self.follow(user, id)

    def _what_a_repeat_says_too(self, id: str) -> dict[str, Any]:
        dice, keys = self.context.dice, dict[str, Any]()
        if dice.random() < 0.3:
            keys["name"] = f"{id}.py"
        if dice.random() < 0.3:
            keys["expires_at"] = WALL + self.context.now + dice.choice(EXPIRES_AT)
        return keys

    def follow(self, user: str, id: str) -> Talk[bool]:
        """Ask how it stands until it has ended; whether it did in time."""
        limit = self.context.now + FOLLOW_S
        while self.context.now < limit:
            fields = yield from self.conversation(user).querying(id)
            self.context.see(Answered(self.context.now, self.name, user, id, fields))
            if fields["outcome"] is not None and fields["state"] == 0:
                return True
            yield from self._sleep(2.0)
        return False

    def _own(self) -> Known | None:
        return self.context.dice.choice(self.known) if self.known else None

    def _repeats(self, _: str) -> Talk[None]:
        """The same request again, perhaps long after its end."""
        if (own := self._own()) is not None:
            user, id, program, keys = own
            yield from self.ask(user, id, program, **keys)

    def _mistakes(self, _: str) -> Talk[None]:
        """Another program under an id that is taken."""
        if (own := self._own()) is not None:
            user, id = own[:2]
            yield from self.ask(user, id, self.numbers.program().text)

    def _cancels(self, user: str) -> Talk[None]:
        own = self._own()
        if own is None:
            return
        user, id = own[:2]
        self.context.see(Asked(self.context.now, self.name, user, "cancel", id))
        yield from self.conversation(user).telling(TopicKind.CANCEL, encode_id(id), id)

    def _resets(self, user: str) -> Talk[None]:
        record = yield from self.conversation(user).reading()
        if record["id"]:
            id, queue = str(record["id"]), self.context.dice.random() < 0.3
            self.context.see(Asked(self.context.now, self.name, user, "reset", id))
            payload = encode_reset(id, queue=queue)
            yield from self.conversation(user).telling(TopicKind.RESET, payload, id)

    def _analyses(self, user: str) -> Talk[None]:
        record = yield from self.conversation(user).reading()
        if record["state"] == 3:
            id = str(record["id"])
            payload = encode_analysis(f"by {self.name}", id)
            yield from self.conversation(user).telling(TopicKind.ANALYSIS, payload, id)

    def _reads(self, user: str) -> Talk[None]:
        yield from self.conversation(user).reading()

    def _queries(self, _: str) -> Talk[None]:
        if (own := self._own()) is not None:
            user, id = own[:2]
            try:
                fields = yield from self.conversation(user).querying(id)
            except Refused:
                return
            self.context.see(Answered(self.context.now, self.name, user, id, fields))


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
            payload = f"seen by {self.name} {self.numbers.id()}".encode()
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
