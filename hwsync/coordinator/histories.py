"""Who asks which commands there were is answered beside the rounds.

The law: no round waits for it, and it waits for none. A thread reads, with a connection to the
database of its own; it is given frozen questions, and what it finds goes through a queue and wakes
the loop, which alone says something. Nothing is stored or logged of it, so a full disk changes
nothing (docs/protocol.md, section 10).
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from hwsync.coordinator.deliveries import message_of
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.pace import PerSecond
from hwsync.coordinator.schedule import Clock
from hwsync.protocol import limits
from hwsync.protocol.effects import PublishError
from hwsync.protocol.errors import Code, DatabaseError, Refused
from hwsync.protocol.events import Message
from hwsync.protocol.history import (
    KINDS,
    Found,
    Wanted,
    gather,
    read_question,
    reply_of_refused,
)
from hwsync.protocol.record import Record
from hwsync.protocol.wire.error import encode_error
from hwsync.store.past import Past
from hwsync.transport import Delivery, Signal

log = logging.getLogger("hwsync.coordinator")

TURN_S: Final = 0.0005  # that the loop waits for this thread to let it go on; Python's own is 5 ms
END_S: Final = 2 * limits.HISTORY_S  # for the page that is read when the coordinator ends
_Question = tuple[Message, Wanted]
_Answer = tuple[_Question, Found | Refused, float]


class Histories:
    """``take`` stands between intake and loop; ``say`` publishes what was found meanwhile.

    ``wake``: ends the loop's wait, and may be called by any thread. The thread begins with the
    first question.
    """

    def __init__(
        self, coordinator: Coordinator, path: Path, clock: Clock, wake: Callable[[], object]
    ) -> None:
        self._coordinator, self._path, self._clock, self._wake = coordinator, path, clock, wake
        self._pace = PerSecond(limits.HISTORY_PER_S, clock)
        self._asked: SimpleQueue[_Question | None] = SimpleQueue()
        self._found: SimpleQueue[_Answer] = SimpleQueue()
        self._waiting = 0  # questions of which nothing was said yet
        self._past: Past | None = None  # whoever reads has it
        self._thread: threading.Thread | None = None
        self._ends = False

    @property
    def has_found(self) -> bool:
        """Whether ``say`` has something to say."""
        return not self._found.empty()

    def take(self, signals: Iterable[Signal], *, serving: bool = True) -> list[Signal]:
        """The signals without the questions, which will be answered; not ``serving``: dropped."""
        others: list[Signal] = []
        for signal in signals:
            if isinstance(signal, Delivery):
                _, kind = self._coordinator.topics.split(signal.topic)
                if kind in KINDS:
                    if serving and (signal.payload or not signal.retain):
                        self._ask(message_of(signal))
                    continue
            others.append(signal)
        return others

    def _ask(self, message: Message) -> None:
        topics = self._coordinator.topics
        user, _ = topics.split(message.topic)
        try:
            if self._pace.is_too_many(user):
                raise Refused(
                    Code.BUSY,
                    f"more than {limits.HISTORY_PER_S} questions a second about {user[:80]}",
                    "ask again in a second",
                )
            wanted = read_question(message, topics)
            if self._waiting >= limits.HISTORY_WAITING:
                raise Refused(
                    Code.BUSY,
                    f"{limits.HISTORY_WAITING} questions about what was run wait already",
                    "ask again in some seconds",
                )
        except Refused as refusal:
            self._refuse(message, refusal)
            return
        self._waiting += 1
        self._asked.put((message, wanted))
        self._have_read()

    def _have_read(self) -> None:
        """One more question is there to be read; another thread does so."""
        if self._thread is None:
            sys.setswitchinterval(TURN_S)
            self._thread = threading.Thread(target=self._read, name="history", daemon=True)
            self._thread.start()

    def say(self) -> None:
        """Publish what was found since the last time."""
        said = False
        while True:
            try:
                (message, wanted), found, wall = self._found.get_nowait()
            except Empty:
                break
            self._waiting -= 1
            said = True
            if isinstance(found, Refused):
                self._refuse(message, found)
            else:
                self._tell(wanted, found, wall)
        if said:
            self._coordinator.publishing.flush()

    def _tell(self, wanted: Wanted, found: Found, wall: float) -> None:
        self._coordinator.counts["history_answers"] += 1
        self._coordinator.publishing.answer(
            wanted.reply, lambda limit: found.encoded(wanted, wall, limit)
        )

    def _refuse(self, message: Message, refusal: Refused) -> None:
        """To the board's errors, and to where the answer would have gone."""
        coordinator = self._coordinator
        user, _ = coordinator.topics.split(message.topic)
        state = coordinator.records.get(user, Record(user)).state
        payload = encode_error(PublishError(refusal, state, message.topic[: limits.KEPT_TOPIC]))
        coordinator.counts["history_refused"] += 1
        coordinator.publishing.error(user, payload)
        reply = reply_of_refused(message, coordinator.topics)
        if reply is not None:
            coordinator.publishing.answer(reply, lambda _: payload)

    def _read(self) -> None:
        """The thread: one page after the other."""
        while (question := self._asked.get()) is not None:
            answer = self._read_one(question)
            if self._ends:
                break  # nobody is left to be woken
            self._found.put(answer)
            self._wake()
        self._close_file()

    def _read_one(self, question: _Question) -> _Answer:
        """The page that answers it, for ``say``."""
        _, wanted = question
        wall = self._clock.wall()
        found: Found | Refused
        try:
            self._past = self._past or Past(self._path)
            found = self._look(self._past, wanted, wall)
        except DatabaseError as error:
            log.error("cannot read what was run: %s", error)
            found = Refused(Code.DEGRADED, f"this cannot be read now: {error.message}")
            self._close_file()
        except Exception:
            log.exception("hwsync failed on a question about %s", wanted.user)
            found = Refused(
                Code.BAD_PAYLOAD,
                "hwsync failed on this question; this is a bug of hwsync and stands in its log",
            )
        return question, found, wall

    def _close_file(self) -> None:
        if self._past is not None:
            self._past.close()
            self._past = None

    def _look(self, past: Past, wanted: Wanted, wall: float) -> Found:
        until = self._clock.monotonic() + limits.HISTORY_S
        commands = past.commands(wanted, wall)
        return gather(commands, wanted, wall, lambda: self._clock.monotonic() > until)

    def close(self) -> None:
        """Nothing is read any more; waits for the page that is read now."""
        if self._thread is not None:
            self._ends = True
            self._asked.put(None)
            self._thread.join(END_S)
