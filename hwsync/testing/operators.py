"""Who asks with the command line's own code. Who asks with plain tools stands in ``persons``.

The law: each of them knows only what MQTT told it, and repeats until it is answered.
"""

from __future__ import annotations

import itertools
from random import Random
from typing import Any, Final

from hwsync.operator.conversation import Conversation, Talk
from hwsync.operator.fetching import fetching
from hwsync.protocol.errors import Code, HwsyncError, Refused
from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.asking import encode_analysis, encode_id, encode_reset
from hwsync.protocol.wire.request import encode_request
from hwsync.protocol.wire.status import CommandFields
from hwsync.testing.context import WALL, Context
from hwsync.testing.history import Answered, Asked, Judged
from hwsync.testing.port import Port
from hwsync.testing.programs import Program, files_along, files_of
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
        self.carriers: frozenset[str] = frozenset()  # boards to which files are sent at all
        self.analysers: tuple[str, ...] = ()  # that requests name; empty: none does

    def files(self, user: str, id: str) -> dict[str, Any]:
        """Keys of some requests: what goes with the program, and what comes back."""
        dice = Random(f"files for {id} of {user}")
        if user not in self.carriers or dice.random() < 0.3:
            return {}
        return files_along(dice, user, id)

    def analyser(self, id: str, otherwise: str) -> str:
        """Who is to analyse it: perhaps one of an analyst."""
        dice = Random(f"who analyses {id}")
        named = bool(self.analysers) and dice.random() < 0.7
        return dice.choice(self.analysers) if named else otherwise

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
        actions: list[Any] = [
            *(self._runs, self._repeats, self._mistakes, self._cancels, self._resets),
            *(self._analyses, self._reads, self._queries),
        ]
        weights: list[float] = [10, 2, 1, 3 * self._stops, 1 * self._stops, 2, 1, 1]
        if self.numbers.carriers:
            return [*actions, self._fetches], [*weights, 2]
        return actions, weights

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
        analyser = self.numbers.analysers[0] if self.numbers.analysers else "outcome"
        keys = {"analysis": analyser, "expires": 3_600, "queue": True}
        keys |= self.numbers.files(user, id)
        while True:
            try:
                yield from self.ask(user, id, program, **keys)
            except Refused as refusal:
                if refusal.code is not Code.NOT_ALLOWED:
                    raise
                yield from self._sleep(AGAIN_S)  # what led to nothing is given back by time
            else:
                break
        if (yield from self.follow(user, id)) and self.context.habits.largest is None:
            told, found = yield from self._fetched(user, id)
            if found.keys() != (listed := told["files"] or {}).keys():
                text = f"of {sorted(listed)} came {sorted(found)}"
                self.context.violate("files", user, id, text)

    def _fetched(self, user: str, id: str) -> Talk[tuple[CommandFields, dict[str, bytes]]]:
        """What is told of a command, and the bytes of its files."""
        told = yield from self.conversation(user).querying(id)
        found = yield from fetching(self.conversation(user), id, told)
        self.context.note(self.name, f"has files of {id}", list(found))
        return told, found

    def _fetches(self, _: str) -> Talk[None]:
        if (own := self._own()) is not None:
            yield from self._fetched(*own[:2])

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
                files=files_of(keys),
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
        same = self._what_a_repeat_says_too(id) | self.numbers.files(user, id)
        self.known = [*self.known[-20:], (user, id, program.text, same)]
        keys: dict[str, Any] = {
            **same,
            "timeout": dice.choice((1.0, 2.0, 10.0)),
            "grace": dice.choice((1.0, 3.0)),
            "expires": dice.choice(EXPIRES),
            "analysis": self.numbers.analyser(id, dice.choice(("outcome", "outcome", "manual"))),
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
            text = f"by {self.name} at {self.context.now:.3f}"
            self.context.see(Judged(self.context.now, self.name, user, id, text))
            payload = encode_analysis(text, id)
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
