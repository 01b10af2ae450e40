"""What the coordinator says about itself, and when: log, health, whom it hears, metrics, systemd.

The law: it looks after each round of the loop, in the loop's own thread. So a loop that is stuck
falls silent everywhere, and nothing here delays a message but the time that it takes to say it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from hwsync.address import BrokerUrl
from hwsync.coordinator.clocks import ClockWatch
from hwsync.coordinator.deciding import Round
from hwsync.coordinator.health import HEALTH_S, Life, Tally, health
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.metrics import METRICS_S, MetricsFile
from hwsync.coordinator.publishing import Publisher
from hwsync.coordinator.round_log import RoundLog
from hwsync.coordinator.schedule import Clock
from hwsync.notify import Notifier
from hwsync.protocol.errors import HwsyncError
from hwsync.protocol.limits import BOARDS_S
from hwsync.protocol.record import State
from hwsync.protocol.topics import ITSELF, TopicKind
from hwsync.protocol.wire.itself import Condition, Sign, encode_health, read_sign
from hwsync.store.migrations import SCHEMA
from hwsync.transport import Connected, Delivery, Signal, Subscribed

log = logging.getLogger("hwsync.coordinator")

WARN_S: Final = 60.0  # between two lines of the log about another coordinator


class Network(Publisher, Protocol):
    """What is needed of the transport."""

    @property
    def url(self) -> BrokerUrl:
        """Where the broker is."""


class Vitals:
    """Call ``take_questions`` before and ``report`` after each round of the loop.

    The constructor raises ``UsageError`` where the metrics file cannot be written.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        network: Network,
        clock: Clock,
        notifier: Notifier,
        metrics: MetricsFile | None = None,
        *,
        host: str = "",
    ) -> None:
        self._coordinator = coordinator
        self._network = network
        self._clock = clock
        self._notifier = notifier
        self._metrics = metrics
        self._question = coordinator.topics.of(ITSELF, TopicKind.QUERY)
        self._asked = False
        self._boards_published_at = clock.monotonic() - BOARDS_S
        self._boards_at: float | None = None  # when the list is to be said; None: not now
        self._published: Condition | None = None
        database = str(coordinator.store.path)
        self._life = Life(clock.wall(), clock.monotonic(), host, database)
        self.sign = Sign(host, database, self._life.started)
        self._tally, self._round_log = Tally(), RoundLog()
        last = coordinator.store.last_change()
        self._clocks = ClockWatch(clock.wall(), clock.monotonic(), last)
        self._connections = 0
        self._warned_at: float | None = None  # of another coordinator
        self._health_at = clock.monotonic()
        self._metrics_at = clock.monotonic() + METRICS_S
        if metrics is not None:
            metrics.begin(self._health())

    def take_questions(self, signals: Sequence[Signal]) -> list[Signal]:
        """The signals without the questions for the health, which ``report`` answers."""
        topics = self._coordinator.topics
        left: list[Signal] = []
        for signal in signals:
            self._connections += isinstance(signal, Connected)
            if isinstance(signal, Delivery) and signal.topic == self._question:
                self._asked = True
                self._network.acknowledge(signal)
            elif isinstance(signal, Delivery) and signal.topic == topics.coordinator:
                self._network.acknowledge(signal)
                self._note_other(signal)
            else:
                left.append(signal)
        return left

    def _note_other(self, delivery: Delivery) -> None:
        """A sign that is not ours, though ours was the last: there are two of us."""
        sign = read_sign(delivery.payload)
        if sign is None or sign.stopped or sign.is_same(self.sign):
            return
        if delivery.retain and self._connections < 2:
            return  # of the one before us
        now = self._clock.monotonic()
        self._life.other, self._life.other_at = sign, now
        if self._warned_at is None or now - self._warned_at >= WARN_S:
            self._warned_at = now
            log.error(
                "TWO COORDINATORS serve the root %s: this one (on %s, database %s) and one on %s, "
                "database %s; stop one of them",
                *(self._coordinator.topics.root, *self.sign.place, *sign.place),
            )

    def report(self, signals: Sequence[Signal], depth: int, done: Round | None = None) -> None:
        """A round is over: it handled these signals, and so many had come for it or the next.

        ``done``: what it saved; None: nothing could be.
        """
        if done is not None:
            if done.commit_s is not None:
                self._tally.committed(done.messages, done.commit_s)
            self._round_log.write(done.decided, self._clock.monotonic())
        self._clocks.watch(self._clock.wall(), self._clock.monotonic())
        changed = self._life.note(signals, depth, self._clock.wall())
        subscribed = any(isinstance(signal, Subscribed) for signal in signals)
        now = self._clock.monotonic()
        due = self._life.connected_since is not None and now >= self._health_at
        worse_or_better = self._published not in (None, self._condition)
        if (subscribed or due or self._asked) and self._boards_at is None:
            self._boards_at = max(now, self._boards_published_at + BOARDS_S)
        if subscribed or due or worse_or_better or self._asked:
            self._publish_health(self._condition)
            self._health_at = now + HEALTH_S
        self._asked = False
        if self._boards_at is not None and now >= self._boards_at:
            self._publish(self._coordinator.topics.boards, self._coordinator.boards.encode())
            self._boards_published_at, self._boards_at = now, None
        if self._metrics is not None and now >= self._metrics_at:
            self._metrics.write(self._health())
            self._metrics_at = now + METRICS_S
        if subscribed:
            self._notifier.ready()
        self._notifier.status(self._status, now=changed or worse_or_better)
        self._notifier.beat()

    def wait(self) -> float | None:
        """Seconds until ``report`` has something to do by itself."""
        now = self._clock.monotonic()
        waits = [] if (wait := self._notifier.wait()) is None else [wait]
        if self._life.connected_since is not None:
            waits.append(self._health_at - now)
        if self._boards_at is not None:
            waits.append(self._boards_at - now)
        if self._metrics is not None:
            waits.append(self._metrics_at - now)
        return max(min(waits), 0.0) if waits else None

    def stopping(self, *, served: bool = True) -> None:
        """The end begins: the last health, unless it never came to serve, and the last figures."""
        self._notifier.stopping()
        if served:
            self._publish_health(Condition.STOPPED)
        if self._metrics is not None:
            self._metrics.write(self._health(Condition.STOPPED))

    @property
    def _condition(self) -> Condition:
        return Condition.DEGRADED if self._coordinator.failure else Condition.OK

    def _health(self, condition: Condition | None = None) -> dict[str, Any]:
        coordinator = self._coordinator
        return health(
            condition or self._condition,
            self._tally,
            self._life,
            coordinator.counts,
            coordinator.records.values(),
            failure=coordinator.failure,
            outbox=coordinator.publishing.outbox,
            analysts=coordinator.analysts.figures(coordinator.records.values()),
            schema=SCHEMA,
            head=coordinator.store.head,
            clock=self._clocks.trouble,
            lab_us=coordinator.lab_time.us(),
            lab_life=coordinator.lab_time.life,
            wall=self._clock.wall(),
            monotonic=self._clock.monotonic(),
        )

    def _publish_health(self, condition: Condition) -> None:
        """The health, and whose it is."""
        self._published = condition
        topics, stopped = self._coordinator.topics, condition is Condition.STOPPED
        self._publish(topics.health, encode_health(self._health(condition)))
        self._publish(topics.coordinator, self.sign.encode(self._clock.wall(), stopped=stopped))

    def _publish(self, topic: str, payload: bytes) -> None:
        try:
            self._network.publish(topic, payload, retain=True)
        except HwsyncError as error:
            log.error("cannot publish on %s: %s", topic, error)

    def _status(self) -> str:
        """One line for ``systemctl status``."""
        records = self._coordinator.records.values()
        running = sum(record.state is State.COLLECTED for record in records)
        connected = self._life.connected_since is not None
        where = f"connected to {self._network.url}"
        if not connected:
            reason = f" ({self._life.reason})" if self._life.reason else ""
            where = f"not connected to {self._network.url}{reason}"
        failure = self._coordinator.failure
        trouble = f"DEGRADED, cannot save: {failure}; " if failure else ""
        return f"{trouble}{where}, {len(records)} boards, {running} running"
