"""The loop of an analyst: statuses become tasks, tasks judgements, and these are said.

The law: one thread does everything, from the socket to the socket; only an analyser that runs has
another one, which leaves its judgement and wakes the loop. So many commands are in hand at a time;
what they have is all that is kept in memory. While no coordinator is there nothing is asked or said
that a broker would keep for it: it says itself when it is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

from hwsync.address import BrokerUrl
from hwsync.analysers.engine import Judgement
from hwsync.analysers.folder import Analyser, Folder
from hwsync.analyst.catching_up import CatchingUp
from hwsync.analyst.entitled import Entitled, is_online
from hwsync.analyst.judging import (
    End,
    Judge,
    Stored,
    faulty,
    is_judged,
    judged,
    reading_stored,
    telling,
)
from hwsync.analyst.offering import Offering
from hwsync.analyst.quiet import Quiet
from hwsync.analyst.words import line_of
from hwsync.analyst.work import Task, Work
from hwsync.notify import Notifier
from hwsync.operator.conversation import Conversation, Standing, Talk
from hwsync.operator.history import Answers
from hwsync.operator.reaching import lab
from hwsync.operator.switchboard import Switchboard
from hwsync.orders import Orders
from hwsync.protocol import limits
from hwsync.protocol.errors import CannotRun, Code, HwsyncError, NoCoordinator, Refused
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.protocol.wire.analyst import Offer, encode_offer
from hwsync.protocol.wire.received import read_received
from hwsync.transport import (
    Connection,
    Delivery,
    Disconnected,
    Pump,
    Signal,
    Subscribed,
    Subscription,
    Waker,
)

log = logging.getLogger("hwsync.analyst")

LOOK_S: Final = 0.5  # between two looks at the folder
SPARE: Final = 8  # commands in hand beyond those that are judged: fetched, or not answered yet
UNANSWERED: Final = 4  # tries of ``ANSWER_S`` each, with a coordinator that answers others
INQUIRE_S: Final = 1.0  # at least, between two questions how the coordinator is
ASK_S: Final = 10.0  # between two such questions, while nothing else is said
LOOK_AGAIN_S: Final = 0.5  # between two looks whether it is there again
SAY_S: Final = 1.0  # until it says again that it is there, where somebody says that it is not
LEAVE_S: Final = 5.0  # for what is under way at the end

SAID: Final = (TopicKind.STATUS, TopicKind.RESULT, TopicKind.ERROR, TopicKind.BOARDS)
"""What a coordinator says that is there; its health says more."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What an analyst is: ``name`` is said to others, ``at_once`` analysers run at a time."""

    name: str
    topics: Topics
    url: BrokerUrl
    at_once: int
    back_s: float


@dataclass(frozen=True, slots=True)
class Process:
    """What the process has, beside its connection."""

    orders: Orders
    waker: Waker
    notifier: Notifier


@dataclass(slots=True)
class _InHand:
    """A task, and how far it is: ``future`` is what is waited for."""

    task: Task
    future: Future[Any]
    began: float
    stored: Stored | None = None  # until it is judged
    end: End | None = None  # that was found, and is judged
    judgement: Judgement | None = None


class Life:
    """One analyst on one connection, until ``run`` returns.

    ``connection`` was made with the topics of ``subscriptions``, and ``answers``. Whoever waits by
    himself calls ``begin``, and ``turn`` with what has come, in the place of ``run``.
    """

    def __init__(
        self, setup: Setup, folder: Folder, engine: Judge, connection: Connection,
        answers: Answers, process: Process, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._setup, self._topics = setup, setup.topics
        self._offering, self._engine, self._process = Offering(folder), engine, process
        self._connection, self._monotonic = connection, monotonic
        self._pump = Pump(connection, process.waker)
        self._board = Switchboard(connection.acknowledge, user_of=self._user_of,
                                  monotonic=monotonic)  # fmt: skip
        self._standing = Standing()
        self._work = Work()
        self._catching_up = CatchingUp(self._board, self._conversation, answers, self._work,
                                       setup.back_s)  # fmt: skip
        self._in_hand: list[_InHand] = []
        self._judging = 0  # analysers that run
        self._finished: deque[tuple[_InHand, Judgement | Exception]] = deque()
        self._boards: dict[str, None] = {}  # that are known since this connect
        self._inquired = -inf  # when the coordinator was asked how it is
        self._quiet = Quiet(monotonic)
        self._judged = 0  # in this life
        self._repeats, self._say_again_at = False, inf  # whoever waits by himself says it once

    # The loop.

    def run(self) -> None:
        """Until a stop.

        Raises ``UsageError`` where there is no folder at the start, ``Refused`` where this account
        is no analyst's.
        """
        self.begin()
        self._connection.start()
        own = self._topics.analyst(self._setup.name)
        entitled = Entitled(own, self._setup.name, self._monotonic)
        orders, notifier = self._process.orders, self._process.notifier
        look_at, came = self._monotonic() + LOOK_S, list[Signal]()
        self.repeat()
        while not orders.stop:
            now = self._monotonic()
            self.say_again(now)
            if now >= look_at or orders.reload:
                look_at = now + LOOK_S
                self.look(again=orders.reload)
                orders.reload = False
            waits = [self.turn(came), look_at - now, entitled.patience, self._say_again_at - now]
            if any(isinstance(signal, Subscribed) for signal in came):  # what it offers is said
                self._connection.subscribe([Subscription(own, as_published=False)])
            waits += [] if (wait := notifier.wait()) is None else [wait]
            came = self._pump.wait(max(min(waits), 0.0))
            entitled.hear(came)
            notifier.status(self._line, now=any(
                isinstance(signal, Subscribed | Disconnected) for signal in came))  # fmt: skip
            notifier.beat()
        log.info("stopping; what is not judged yet is judged after the next start")

    def begin(self) -> None:
        """Once, before the connection begins. Raises ``UsageError`` where there is no folder."""
        self._offering.begin()
        self._board.begin(self._listening_to_the_coordinator(), ITSELF)

    def turn(self, came: Iterable[Signal]) -> float:
        """Hear what has come, and do what can be done; seconds, until there is more to do."""
        for signal in came:
            self._hear(signal)
        if self._board.patience <= 0.0:
            self._board.hear(None)
        now = self._monotonic()
        until = self._go_on(now)
        left = inf if until is None else until - now
        return max(min(left, self._board.patience), 0.0)

    def end(self) -> None:
        """Say that nothing is offered any more, and leave."""
        self._process.notifier.stopping(LEAVE_S)
        self._say_offer(Offer(online=False, analysers={}))
        self._pump.leave(LEAVE_S)
        self._board.close()

    def _line(self) -> str:
        """What goes on, for systemd."""
        where = "connected" if self._connection.connection else "not connected"
        names = ", ".join(self._analysers) or "nothing"
        return (
            f"{where} to {self._connection.url}, offers {names}; {self._judged} judged, "
            f"{len(self._in_hand)} in hand, {len(self._work)} wait"
        )

    # What comes.

    def _hear(self, signal: Signal) -> None:
        if isinstance(signal, Subscribed):
            self._boards.clear()
            self._work.try_again()
            self._quiet.speak()
            self._say_offer()
            self._inquire()
            self._process.notifier.ready()
        elif isinstance(signal, Delivery):
            self._look_at_message(signal)
        self._board.hear(signal)

    def _look_at_message(self, delivery: Delivery) -> None:
        user, kind = self._topics.split(delivery.topic)
        if kind is TopicKind.ANALYSTS:  # its own; somebody else may have been too quick
            if not is_online(delivery.payload):
                self._say_again_at = min(self._say_again_at, self._monotonic() + SAY_S)
            return
        if not delivery.payload:
            return
        if not delivery.retain and kind in SAID:
            self._quiet.heard()
        if kind is TopicKind.STATUS and limits.is_user(user):
            if (fields := read_received(kind, delivery.payload, user)) is not None:
                self._know(user)
                self._work.hear(user, fields, self._analysers)
        elif kind is TopicKind.HEALTH and not delivery.retain:
            fields = read_received(kind, delivery.payload)
            if fields is not None:
                (self._quiet.heard if fields["condition"] == "ok" else self._quiet.hush)()
        elif kind is TopicKind.BOARDS:  # a broker may not give what it keeps to hw/+/status
            fields = read_received(kind, delivery.payload)
            for one in (fields or {}).get("boards", ()):
                if limits.is_user(one):
                    self._know(one)

    def _know(self, user: str) -> None:
        if user not in self._boards and len(self._boards) < limits.MAX_USERS:
            self._boards[user] = None
            self._catching_up.look_at([user], self._analysers)

    def _user_of(self, delivery: Delivery) -> str | None:
        user, kind = self._topics.split(delivery.topic)
        return None if kind is None else user  # an answer of the past names its board itself

    def _listening_to_the_coordinator(self) -> Talk[None]:
        """``standing`` knows what it says of itself."""
        while True:
            with suppress(HwsyncError):
                yield from self._conversation(ITSELF).hearing(inf, ())

    # The folder.

    def look(self, *, again: bool = False) -> None:
        """Take what the folder has now."""
        new = self._offering.look(again=again)
        if new is not None:
            self._work.forget_those_of(self._analysers)
            self._catching_up.look_at(list(self._boards), new)
            self._say_offer()

    @property
    def _analysers(self) -> Mapping[str, Analyser]:
        return self._offering.analysers

    def _say_offer(self, offer: Offer | None = None) -> None:
        if offer is None:
            offer = replace(self._offering.offer(time.time()), repeats=self._repeats)
        topic = self._topics.analyst(self._setup.name)
        self._connection.publish(topic, encode_offer(offer), retain=True)

    def repeat(self) -> None:
        """From now on ``say_again`` is called."""
        self._repeats, self._say_again_at = True, self._monotonic() + limits.HEARTBEAT_S

    def say_again(self, now: float) -> None:
        """What is offered, now and then: who dies with the broker leaves no word that it has."""
        if now >= self._say_again_at:
            self._say_again_at = now + limits.HEARTBEAT_S
            if self._connection.connection:
                self._say_offer()

    # The tasks.

    def _go_on(self, now: float) -> float | None:
        """Do what can be done now; when there is more to do by itself, None: with what comes."""
        while self._finished:
            self._judgement_came(*self._finished.popleft())
        for one in [one for one in self._in_hand if one.future.done()]:
            self._advance(one)
        self._judge_what_waits()
        self._catching_up.look_at(self._work.missed, self._analysers)
        self._work.missed.clear()
        if not self._connection.connection:
            return None
        if not self._quiet.may_speak:
            if now - self._inquired >= ASK_S:
                self._inquire()
            return min(now + ASK_S, self._quiet.until)
        while len(self._in_hand) < self._setup.at_once + SPARE:
            busy = {one.task.user for one in self._in_hand}
            if (task := self._work.next(now, self._analysers, busy)) is None:
                break
            talk = reading_stored(self._conversation(task.user), task.id)
            self._in_hand.append(_InHand(task, self._board.begin(talk, task.user), began=now))
        moments = self._work.until(now), self._catching_up.go_on(now)
        return min((one for one in moments if one is not None), default=None)

    def _advance(self, one: _InHand) -> None:
        """What was waited for has come: all that is stored, or the answer to what was said."""
        try:
            came = one.future.result()
        except Refused as error:
            self._refused(one, error)
        except HwsyncError as error:
            if isinstance(error, NoCoordinator):
                self._quiet.hush()
            log.warning("not judged now: %s", error, extra=_extra(one.task))
            self._drop(one, again=True)
        except Exception:
            log.exception("hwsync failed; this is a bug", extra=_extra(one.task))
            self._drop(one, again=True)
        else:
            if one.judgement is not None:
                if came is not one.judgement:
                    self._log(one, came)
                self._judged += 1
                self._drop(one)
            elif self._is_wanted(one.task, came):
                one.stored, one.end, one.future = came, came.end, Future()
            else:
                self._drop(one)

    def _is_wanted(self, task: Task, stored: Stored) -> bool:
        """Whether it has ended without an analysis, as its status said."""
        result = stored.result
        is_open = result["outcome"] is None or is_judged(result)
        return not is_open and result["analyser"] == task.analyser

    def _judge_what_waits(self) -> None:
        for one in self._in_hand:
            if one.stored is None or self._judging >= self._setup.at_once:
                continue
            stored, one.stored = one.stored, None
            analyser = self._analysers.get(one.task.analyser)
            if analyser is None:  # it was taken away meanwhile
                one.future.set_exception(CannotRun(f"{one.task.analyser} is not here any more"))
                continue
            self._judging += 1
            self._elsewhere(lambda one=one, analyser=analyser, stored=stored:  # type: ignore[misc]
                            self._judge(one, analyser, stored))  # fmt: skip

    def _elsewhere(self, judge: Callable[[], None]) -> None:
        """An analyser may take long: it runs in a thread of its own."""
        threading.Thread(target=judge, name="analyser", daemon=True).start()

    def _judge(self, one: _InHand, analyser: Analyser, stored: Stored) -> None:
        came: Judgement | Exception
        try:
            came = judged(self._engine, analyser, stored)
        except CannotRun as error:
            came = error
        except Exception as error:
            log.exception("hwsync failed; this is a bug", extra=_extra(one.task))
            came = faulty(analyser, f"hwsync failed: {type(error).__name__}: {error}")
        self._finished.append((one, came))
        self._process.waker.wake()

    def _judgement_came(self, one: _InHand, came: Judgement | Exception) -> None:
        self._judging -= 1
        if isinstance(came, Exception):
            one.future.set_exception(came)
            return
        one.judgement = came
        self._log(one, came)
        assert one.end is not None
        talk = self._until_answered(one.task, one.end, came)
        one.future = self._board.begin(talk, one.task.user)

    def _until_answered(self, task: Task, end: End, judgement: Judgement) -> Talk[Judgement]:
        """For ever where no coordinator is there: it is told when it has come back."""
        conversation, tries = self._conversation(task.user), 0
        while True:
            try:
                return (yield from telling(conversation, end, judgement))
            except NoCoordinator:
                is_there = self._quiet.is_there
                tries += is_there
                if tries >= UNANSWERED:
                    raise
                if not is_there:
                    self._quiet.hush()
                if tries == 1:
                    log.warning(
                        "the coordinator does not answer an analysis; may %s judge here? "
                        "hwsync analyst list", self._setup.name, extra=_extra(task),
                    )  # fmt: skip
            while not self._quiet.may_speak:
                yield LOOK_AGAIN_S

    def _refused(self, one: _InHand, error: Refused) -> None:
        """By the coordinator, or the broker: to say it again would bring nothing else."""
        if one.judgement is not None and error.code is Code.NOT_CURRENT:
            log.info("judged anew: %s", error, extra=_extra(one.task))
            self._in_hand.remove(one)
            self._work.take_again(one.task.key)
            return
        if one.judgement is not None:
            log.info("not taken: %s", error, extra=_extra(one.task))
        else:
            log.warning("not judged: %s", error, extra=_extra(one.task))
        self._drop(one)

    def _drop(self, one: _InHand, *, again: bool = False) -> None:
        self._in_hand.remove(one)
        if again:
            self._work.put_off(one.task.key, self._monotonic())
        else:
            self._work.done(one.task.key)

    def _log(self, one: _InHand, judgement: Judgement) -> None:
        """One line for each judgement."""
        level, line = line_of(judgement, self._monotonic() - one.began)
        log.log(level, "%s", line, extra=_extra(one.task))

    # The connection.

    def _conversation(self, user: str) -> Conversation:
        return Conversation(
            self._topics,
            user,
            self._connection.publish,
            monotonic=self._monotonic,
            lab=lab(self._connection.url, self._topics, user),
            inquire=self._inquire,
            standing=self._standing,
        )

    def _inquire(self) -> None:
        """Have the coordinator say how it is; at QoS 0, and not too often."""
        now = self._monotonic()
        if now - self._inquired >= INQUIRE_S:
            self._inquired = now
            self._connection.publish(self._topics.of(ITSELF, TopicKind.QUERY), b"", qos=0)


def _extra(task: Task) -> dict[str, str]:
    return {"user": task.user, "id": task.id}
