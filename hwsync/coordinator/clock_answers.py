"""Boards that ask what time it is are answered at once.

The law: nothing of it is stored or logged, and no answer waits for a commit: questions are taken
out of what has come before it is decided. ``t1`` is when the question was read from the socket,
however long it has waited since; ``t2`` is taken last. While it is not known what is stored, nobody
is answered: ``seen`` would promise too much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.pace import PerSecond
from hwsync.coordinator.schedule import Clock
from hwsync.protocol import limits
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.clock import encode_answer, read_question
from hwsync.transport import Delivery, Signal


class Network(Protocol):
    """What is needed of the transport."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> bool:
        """Have it sent with the next ``write``."""

    def write(self) -> None:
        """Write what was said, as much as the kernel takes."""


class ClockAnswers:
    """``take`` stands between intake and loop."""

    def __init__(self, network: Network, coordinator: Coordinator, clock: Clock) -> None:
        self._network, self._coordinator = network, coordinator
        self._pace = PerSecond(limits.CLOCK_PER_S, clock)

    def take(self, signals: Iterable[Signal], *, serving: bool = True) -> list[Signal]:
        """The signals without the questions, which are answered; not ``serving``: dropped."""
        questions: list[tuple[str, Delivery]] = []
        others: list[Signal] = []
        for signal in signals:
            if isinstance(signal, Delivery):
                user, kind = self._coordinator.topics.split(signal.topic)
                if kind is TopicKind.CLOCK:
                    questions.append((user, signal))
                    continue
            others.append(signal)
        if questions and serving:
            self._coordinator.lab_time.look()
            for user, question in questions:
                self._answer(user, question)
            self._network.write()
        return others

    def _answer(self, user: str, delivery: Delivery) -> None:
        coordinator, lab = self._coordinator, self._coordinator.lab_time
        question = read_question(delivery.payload)
        if delivery.retain or question is None or not limits.is_user(user):
            coordinator.counts["ignored"] += 1
            return
        if coordinator.failure or self._pace.is_too_many(user):
            coordinator.counts["clock_dropped"] += 1
            return
        record = coordinator.records.get(user)
        seen = (coordinator.epoch, 0) if record is None else (record.epoch, record.seq)
        topic = coordinator.topics.of(user, TopicKind.CLOCK_REPLY)
        t1 = lab.at(delivery.read_us)
        answer = encode_answer(question, t1, max(lab.us(), t1), lab.life, seen)
        if self._network.publish(topic, answer, qos=0):
            coordinator.counts["clock_answers"] += 1
