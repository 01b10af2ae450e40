"""The process ``hwsync coordinator``: the loop, its inbox, its signals, and its way in."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from hwsync.address import BrokerUrl
from hwsync.coordinator.alone import Alone
from hwsync.coordinator.clearing import Clearing
from hwsync.coordinator.health import GONE
from hwsync.coordinator.hearing import Hearing
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.maintenance import Schedule, discard
from hwsync.coordinator.metrics import MetricsFile
from hwsync.coordinator.retention import Retention
from hwsync.coordinator.store import Store
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.protocol.allowance import FULL, Allowance
from hwsync.protocol.errors import AnotherCoordinator, HwsyncError, UsageError
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import INBOUND, Kind, Topics
from hwsync.signing import SigningKey
from hwsync.transport import Signal, Subscribed, Subscription, Transport, Will

log = logging.getLogger("hwsync.coordinator")

CLIENT_ID: Final = "hwsync-coordinator"
BATCH: Final = 500  # messages in one transaction: more gain nothing and delay the first answer
BACKLOG: Final = 16 * 1_048_576  # bytes said and not arrived; then nothing more is heard
CROWDED_S: Final = 1.0  # so long at most until the next look whether it has arrived
LONGEST_WAIT_S: Final = 3_600.0  # any number that a queue accepts
STOP_S: Final = 5.0  # for what is still under way when it is stopped


class Network(Protocol):
    """What the loop's process asks of the transport."""

    @property
    def backlog(self) -> int:
        """Bytes that were published and have not arrived."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything has arrived; whether it has."""


class SystemClock:
    """The machine's clocks."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


@dataclass(frozen=True, slots=True)
class Access:
    """What a reload reads anew: how the coordinator comes in, and with which key it signs."""

    url: BrokerUrl
    root: str
    signer: SigningKey | None = None


@dataclass(frozen=True, slots=True)
class Reload:
    """SIGHUP: what is configured now is to count."""


Inbox = queue.SimpleQueue[Signal | Reload | None]  # None: look at the stop
Reader = Callable[[], Access]  # raises ``HwsyncError``


class Entrance:
    """How the coordinator comes in: with the login and the certificates of that moment.

    The address stays until a reload, since a new password is not for an old address. ``address``
    and ``read`` None: only another process can read what is new.
    """

    def __init__(
        self, access: Access, address: Callable[[], BrokerUrl] | None, read: Reader | None
    ) -> None:
        self._access = access
        self._address = address
        self._read = read

    def url(self) -> BrokerUrl:
        """For the transport, at each connect."""
        if self._address is not None:
            try:
                url = self._address()
            except HwsyncError as error:
                log.warning("%s; the login stays as it was", error)
            else:
                if str(url) == str(self._access.url):
                    self._access = replace(self._access, url=url)
        return self._access.url

    def reload(self, coordinator: Coordinator, transport: Transport) -> bool:
        """What is configured now counts; False: that takes another process."""
        if self._read is None:
            log.info("ending: the next start has the new configuration")
            return False
        try:
            access = self._read()
            if access.root != self._access.root:
                raise UsageError(
                    f"the root is {access.root} now, and was {self._access.root}",
                    "another root is another record: restart for it",
                )
        except HwsyncError as error:
            log.error("%s; the configuration stays as it was", error)
            return True
        self._access = access
        coordinator.sign_with(access.signer)
        _say_signer(access.signer)
        transport.reconnect("the configuration was read again")
        return True


def _say_signer(signer: SigningKey | None) -> None:
    if signer:
        log.info("commands are signed with %s", signer.public)


def serve(
    *,
    access: Access,
    address: Callable[[], BrokerUrl] | None = None,
    read: Reader | None = None,
    db: Path,
    analysis: str,
    settle: float,
    analysis_within: float,
    clean_session: bool,
    backups: tuple[Path, float] | None = None,
    metrics_file: Path | None = None,
    keep_days: float = 0.0,
    keep_megabytes: float = 0.0,
    allowance: Allowance = FULL,
    max_message: int = MAX_MESSAGE,
    take_over: bool = False,
) -> None:
    """Run the coordinator until SIGTERM or SIGINT. Times are seconds.

    ``address`` and ``read``: what is configured at that moment (``Entrance``). ``backups``: the
    folder, and how often; ``max_message``: bytes that the broker is known to take; ``take_over``:
    also where another coordinator serves the root, or another database has its lab. Raises
    ``AnotherCoordinator``, ``DatabaseError`` when the database is in use or cannot be used,
    ``UsageError`` when no metrics or backups can be written, or where this database is hardly the
    one that is meant.
    """
    topics = Topics(access.root)
    inbox: Inbox = queue.SimpleQueue()
    begun, unused = not db.exists(), False
    store = Store(db)
    entrance = Entrance(access, address, read)
    transport = Transport(
        access.url,
        topics.client_id(CLIENT_ID),
        on_signal=inbox.put,
        subscriptions=subscriptions(topics),
        will=Will(topics.health, GONE),
        clean_session=clean_session,
        prefer_v5=True,
        takeover_hint="stop the other coordinator: one broker and root has one",
        address=entrance.url,
    )
    try:
        rules = Rules(access.root, analysis, analysis_within, allowance=allowance)
        if allowance != FULL:
            log.info(
                "a user may have %s requests a minute, programs of %d bytes, a queue of %d",
                allowance.requests_per_minute or "any number of",
                allowance.max_program,
                allowance.max_queue,
            )
        coordinator = Coordinator(store, transport, SystemClock(), rules, settle=settle,
                                  signer=access.signer, max_message=max_message)  # fmt: skip
        log.info("database %s, %d users", db, len(coordinator.records))
        _say_signer(access.signer)
        if not analysis_within:
            log.info("an analysis is waited for without limit (--analysis-within 0)")
        metrics = MetricsFile(metrics_file) if metrics_file else None
        host = socket.gethostname()
        vitals = Vitals(coordinator, transport, SystemClock(), Notifier(), metrics, host=host)
        mark, at = secrets.token_hex(16), f"the root {topics.root} at {access.url}"
        alone = Alone(transport, topics, SystemClock(), vitals.sign, mark, at,
                      empty=not coordinator.records)  # fmt: skip
        alone.over = take_over
        schedule = Schedule(db, *backups) if backups else None
        if schedule:
            schedule.start()
        hearing = Hearing(transport, topics, SystemClock(), secrets.token_hex(16))
        clearing = Clearing(transport, topics, SystemClock())
        retention = Retention(store, keep_days, keep_megabytes)
        with _stopping(inbox) as ended:
            transport.start()
            _run(alone, coordinator, hearing, vitals, clearing, retention, inbox, ended, transport,
                 lambda: entrance.reload(coordinator, transport))  # fmt: skip
        log.info("stopping")
        coordinator.write_down()
        vitals.stopping(served=alone.over)
        if schedule:
            schedule.stop()
    except (AnotherCoordinator, UsageError):
        unused = begun and not store.load(0.0)
        raise
    finally:
        transport.stop(STOP_S)  # in order, whatever came: a will of ours would speak of another
        store.close()
        if unused:
            discard(store.path)  # who looks for the lab's would find two


def subscriptions(topics: Topics) -> list[Subscription]:
    """What it listens to. Statuses at QoS 0: it is what the broker has kept that is asked for.

    And first: amqtt sends what is retained for one filter, and waits for its acknowledgements,
    before it looks at the next. Heartbeats at QoS 0: a broker that queued them for a coordinator
    that is away would say later that a board was heard then, and have no room for requests.
    """
    ours = (Kind.COMMAND, Kind.STATUS)
    passing = (Kind.STATUS, Kind.HEARTBEAT)
    signs = Subscription(topics.coordinator, 0, no_local=True, as_published=False)
    filters = [
        Subscription(
            topics.of("+", kind),
            int(kind not in passing),
            no_local=kind in ours,
            as_published=kind is not Kind.HEARTBEAT,
        )
        for kind in sorted(INBOUND, key=lambda kind: kind is not Kind.STATUS)
    ]
    return [signs, *filters]


def _run(
    alone: Alone,
    coordinator: Coordinator,
    hearing: Hearing,
    vitals: Vitals,
    clearing: Clearing,
    retention: Retention,
    inbox: Inbox,
    ended: threading.Event,
    network: Network,
    reload: Callable[[], bool],
) -> None:
    """Until a stop, or a reload that takes another process."""
    while True:
        parts = (coordinator, hearing, vitals) if alone.over else (alone, vitals)
        waits = [wait for part in parts if (wait := part.wait()) is not None]
        signals = _received(inbox, network, min(waits, default=None))
        depth = len(signals) + inbox.qsize()
        stop = ended.is_set()  # not when its turn in the inbox comes: much may wait there
        if not stop and any(isinstance(item, Reload) for item in signals):
            stop = not reload()
        came = alone.take(item for item in signals if not isinstance(item, Reload | None))
        if not alone.over:
            vitals.look((), depth)
            if stop:
                return
            continue
        received = vitals.take(hearing.take(came))
        coordinator.step(received)
        clearing.hear(came)
        vitals.look(received, depth)
        retention.look(time.monotonic())
        if any(isinstance(item, Subscribed) for item in received):
            log.info("ready")
        if stop:
            return


def _received(
    inbox: Inbox, network: Network, timeout: float | None
) -> list[Signal | Reload | None]:
    """What waits, once what we said has arrived: the broker keeps the rest.

    A small message may be answered with a status of a megabyte, and the answers would fill memory.
    One at a time where it takes long: what ends the wait may stand in the inbox. And all that is
    heard together is answered together, so that the same answers go out once.
    """
    if network.backlog <= BACKLOG or network.flush(CROWDED_S):
        return _drain(inbox, timeout)
    return _drain(inbox, 0.0, 1)


def _drain(inbox: Inbox, timeout: float | None, most: int = BATCH) -> list[Signal | Reload | None]:
    """All that waits, up to so many; at least one, unless the time is over."""
    items: list[Signal | Reload | None] = []
    with suppress(queue.Empty):
        items.append(inbox.get(timeout=None if timeout is None else min(timeout, LONGEST_WAIT_S)))
        while len(items) < most:
            items.append(inbox.get_nowait())
    return items


@contextmanager
def _stopping(inbox: Inbox) -> Iterator[threading.Event]:
    """SIGTERM and SIGINT set the event and wake the loop; so does a terminal that goes away.

    SIGHUP means either that, or that somebody wants a reload.
    """
    terminals = [number for number in range(3) if os.isatty(number)]
    ended = threading.Event()

    def end(*_: object) -> None:
        ended.set()
        inbox.put(None)

    def hang_up(*_: object) -> None:
        if all(os.isatty(number) for number in terminals):
            inbox.put(Reload())
        else:
            end()

    handlers = {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: hang_up}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
