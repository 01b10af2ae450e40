"""At its start the coordinator looks whether another one serves the same root.

The law: until it is sure, or has looked long enough, nothing is decided, published or acknowledged.
Each coordinator leaves a sign on ``hw/@hwsync/coordinator``: which one it is, and when it said so.
The sign is retained and no will clears it, so a sign proves nothing. One that *comes* does. Where
both have one client id, our connect ends the other's connection; it comes back, ends ours, and has
left a newer sign by then, which we find when we are back (docs/operations.md, "Two coordinators").
Newer than one that we read before: a broker that was killed brings back an older one.

A database in which nobody is yet, at a broker that keeps a lab's statuses, may be a typing error:
where the sign's database is seen on this machine it is refused, else said.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hwsync.coordinator.deliveries import still_ours
from hwsync.coordinator.publishing import Publisher
from hwsync.coordinator.schedule import Clock
from hwsync.protocol.errors import AnotherCoordinator, UsageError
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.protocol.wire.itself import Sign, read_sign
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed

log = logging.getLogger("hwsync.coordinator")

SILENCE_S: Final = 1.0  # of a broker that does not send back what we publish
OTHER_S: Final = 3.0  # for a coordinator of another database to come back: it takes some 0.2 s
SAME_S: Final = 1.0  # of the same one: most likely our last life, and else a copy of this machine


class Alone:
    """``admit`` stands before everything else until it is ``done``. ``mark``: nobody else sends it.

    ``at``: the root and the broker, for people; ``empty``: nobody is in the database yet.
    """

    def __init__(
        self,
        publisher: Publisher,
        topics: Topics,
        clock: Clock,
        own: Sign,
        mark: str,
        at: str,
        *,
        empty: bool = False,
    ) -> None:
        self.done = False
        self._empty = empty
        self._publisher, self._topics, self._clock = publisher, topics, clock
        self._own, self._mark, self._at = own, mark, at
        self._connects = 0
        self._read: dict[tuple[object, ...], float] = {}  # kept signs: each life's last time
        self._read_on = 0  # the connection on which the first of them was read
        self._kept: Sign | None = None
        self._held: list[Signal] = []  # of the present connection
        self._limit: float | None = None  # monotonic, seconds
        self._looking = False  # what the broker kept is known; who comes, comes now

    def admit(self, signals: Iterable[Signal]) -> list[Signal]:
        """What is to be handled now, in order. Raises ``AnotherCoordinator``, ``UsageError``."""
        passed: list[Signal] = []
        for signal in signals:
            if self.done:
                passed.append(signal)
            elif isinstance(signal, Delivery):
                self._receive(signal)
            else:
                self._note(signal)
        if self._limit is not None and self._clock.monotonic() >= self._limit:
            self._end() if self._looking else self._look()
        if self.done and self._held:
            passed, self._held = [*self._held, *passed], []
        return passed

    def wait(self) -> float | None:
        """Seconds until ``admit`` has something to do by itself."""
        return None if self._limit is None else max(self._limit - self._clock.monotonic(), 0.0)

    def _receive(self, delivery: Delivery) -> None:
        user, kind = self._topics.split(delivery.topic)
        if (user, kind) == (ITSELF, TopicKind.COORDINATOR):
            self._publisher.acknowledge(delivery)
            self._weigh(delivery)
        elif (user, kind) == (ITSELF, TopicKind.QUERY) and delivery.payload == self._text:
            self._publisher.acknowledge(delivery)
            self._look()
        else:
            self._held.append(delivery)

    def _weigh(self, delivery: Delivery) -> None:
        sign = read_sign(delivery.payload)
        if sign is None:
            return
        if (not delivery.retain or self._is_new(sign)) and not sign.stopped:
            started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(sign.started))
            raise AnotherCoordinator(
                f"another coordinator serves {self._at}: on {sign.host}, database {sign.database}, "
                f"started {started}; it was heard a moment ago",
                "stop it first; --take-over starts all the same, and then each ends the other's "
                "connection",
            )
        self._kept = sign
        if delivery.retain:
            self._read_on = self._read_on or self._connects
            life = (*sign.place, sign.started)
            self._read[life] = max(sign.time, self._read.get(life, sign.time))

    def _is_new(self, sign: Sign) -> bool:
        """Whether a kept sign was left since an earlier connection of ours, by somebody else."""
        if not self._read or self._connects == self._read_on:
            return False
        if sign.place == self._own.place and sign.time < self._own.started:
            return False  # our last life
        life = (*sign.place, sign.started)
        return sign.time > self._read.get(life, max(self._read.values()))

    def _note(self, signal: Signal) -> None:
        if isinstance(signal, Connected):
            self._connects += 1
            # What is not acknowledged comes again, unless the session is a new one.
            before = [one for one in self._held if isinstance(one, Connected)]
            kept = all(one.session_present for one in (signal, *before))
            deliveries = [one for one in self._held if isinstance(one, Delivery)]
            ours = still_ours(deliveries, signal.session_present)
            self._held = [replace(signal, session_present=kept), *ours]
            return
        self._held.append(signal)
        if isinstance(signal, Subscribed):
            self._looking = False
            topic = self._topics.of(ITSELF, TopicKind.QUERY)
            self._publisher.publish(topic, self._text, qos=0)
            self._limit = self._clock.monotonic() + SILENCE_S
        elif isinstance(signal, Disconnected):
            self._limit = None

    @property
    def _text(self) -> bytes:
        return f"{self._mark}-alone-{self._connects}".encode()

    def _look(self) -> None:
        """All that the broker kept was heard: wait for the one whose sign that was."""
        if self._looking or self.done:
            return
        self._looking = True
        kept = self._kept
        if kept is None or kept.stopped:
            self._end()
            return
        other = kept.place != self._own.place
        patience = OTHER_S if other else SAME_S
        self._limit = self._clock.monotonic() + patience
        if other:
            log.info(
                "%s was served by a coordinator on %s, database %s: looking for %g s whether it "
                "still is",
                *(self._at, kept.host, kept.database, patience),
            )

    def _end(self) -> None:
        if self._empty:
            self._compare()
        self.done, self._limit = True, None

    def _compare(self) -> None:
        """The empty database with what the broker keeps. Raises ``UsageError``."""
        users = {
            self._topics.split(one.topic)[0]
            for one in self._held
            if isinstance(one, Delivery) and one.retain and one.payload
            and self._topics.split(one.topic)[1] is TopicKind.STATUS
        }  # fmt: skip
        if not users:
            return
        kept, own = self._kept, self._own
        found = f"the database {own.database} is empty, and there is a lab (boards: {len(users)}) "
        found += f"at {self._at}"
        if kept is not None and kept.place != own.place:
            found += f": on {kept.host}, database {kept.database}"
            if kept.host == own.host and os.path.exists(kept.database):
                raise UsageError(
                    found,
                    f"--db {kept.database} goes on with it; hwsync coordinator --take-over "
                    "begins a new lab",
                )
        log.error("%s; a new lab begins. If that was not meant, stop this coordinator, and name "
                  "the lab's database with --db, or hwsync restore a backup", found)  # fmt: skip
