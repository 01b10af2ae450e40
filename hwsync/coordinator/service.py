"""The process ``hwsync coordinator``: its one thread and loop, and its way in to the broker."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from hwsync import raw_clock
from hwsync.address import BrokerUrl
from hwsync.coordinator.alone import Alone
from hwsync.coordinator.clearing import Clearing
from hwsync.coordinator.clock_answers import ClockAnswers
from hwsync.coordinator.echoes import Echoes
from hwsync.coordinator.histories import Histories
from hwsync.coordinator.intake import Intake
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.metrics import MetricsFile
from hwsync.coordinator.options import Options
from hwsync.coordinator.startup_gate import StartupGate
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.orders import Orders, listening
from hwsync.protocol.errors import AnotherCoordinator, HwsyncError, UsageError
from hwsync.protocol.groups import NO_GROUPS, Groups
from hwsync.protocol.history import KINDS
from hwsync.protocol.rules import FULL, Rules
from hwsync.protocol.topics import INBOUND, TopicKind, Topics
from hwsync.protocol.wire.itself import GONE
from hwsync.signing import SigningKey
from hwsync.store.backups import Schedule
from hwsync.store.restoring import discard
from hwsync.store.retention import Retention
from hwsync.store.store import Store
from hwsync.transport import Connection, Pump, Subscribed, Subscription, Waker, Will

log = logging.getLogger("hwsync.coordinator")

CLIENT_ID: Final = "hwsync-coordinator"
MAX_SHOWN: Final = 500  # characters of the groups' names in the log
STOP_S: Final = 5.0  # for what is still under way when it is stopped


class SystemClock:
    """The machine's clocks."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    raw_us = staticmethod(raw_clock.raw_us)
    asleep_us = staticmethod(raw_clock.asleep_us)
    boot = staticmethod(raw_clock.boot)


@dataclass(frozen=True, slots=True)
class Access:
    """What a reload reads anew: how the coordinator comes in, its key, and the lab's groups."""

    url: BrokerUrl
    root: str
    signer: SigningKey | None = None
    groups: Groups = NO_GROUPS


Reader = Callable[[], Access]  # raises ``HwsyncError``


class Entrance:
    """How the coordinator comes in: with the login and the certificates of that moment.

    The address stays until a reload, since a new password is not for an old address. ``address``
    None: only another process can read what is new, but for the groups.
    """

    def __init__(
        self, access: Access, address: Callable[[], BrokerUrl] | None, read: Reader | None
    ) -> None:
        self._access = access
        self._address = address
        self._read = read

    def url(self) -> BrokerUrl:
        """For the connection, at each connect."""
        if self._address is not None:
            try:
                url = self._address()
            except HwsyncError as error:
                log.warning("%s; the login stays as it was", error)
            else:
                if str(url) == str(self._access.url):
                    self._access = replace(self._access, url=url)
        return self._access.url

    def reload(self, coordinator: Coordinator, connection: Connection) -> bool:
        """What is configured now counts; False: that takes another process."""
        try:
            access = self._read() if self._read is not None else self._access
            if access.root != self._access.root:
                raise UsageError(
                    f"the root is {access.root} now, and was {self._access.root}",
                    "another root is another record: restart for it",
                )
        except HwsyncError as error:
            log.error("%s; the configuration stays as it was", error)
            return True
        if self._address is None:
            log.info("ending: the next start has the new configuration")
            return False
        before, self._access = self._access, access
        if access.groups != before.groups:
            coordinator.group_by(access.groups)
            _say_groups(access.groups)
            if access.url == before.url and _public(access.signer) == _public(before.signer):
                return True  # no reason to leave the broker
        coordinator.sign_with(access.signer)
        _say_signer(access.signer)
        connection.reconnect("the configuration was read again")
        return True


def _public(signer: SigningKey | None) -> str:
    return signer.public if signer else ""


def _say_signer(signer: SigningKey | None) -> None:
    if signer:
        log.info("commands are signed with %s", signer.public)


def _say_groups(groups: Groups) -> None:
    names = ", ".join(f"{name} ({len(entries)})" for name, entries in groups.entries.items())
    log.info("groups: %s", names[:MAX_SHOWN] or "none")


def serve(
    options: Options,
    access: Access,
    address: Callable[[], BrokerUrl] | None = None,
    read: Reader | None = None,
) -> None:
    """Run the coordinator until SIGTERM or SIGINT.

    ``address`` and ``read``: what is configured at that moment (``Entrance``). Raises, at the start
    only, ``AnotherCoordinator``, ``DatabaseError`` when the database is in use or cannot be used,
    ``UsageError`` when no metrics or backups can be written, or where this database is hardly the
    one that is meant. A broker that is away raises nothing: it is waited for. A reload that only
    another process can read ends it like a stop.
    """
    topics = Topics(access.root)
    begun, unused = not options.db.exists(), False
    store = Store(options.db)
    entrance = Entrance(access, address, read)
    connection = Connection(
        access.url,
        topics.client_id(CLIENT_ID),
        subscriptions=subscriptions(topics),
        will=Will(topics.health, GONE),
        clean_session=options.clean_session,
        prefer_v5=True,
        takeover_hint="stop the other coordinator: one broker and root has one",
        address=entrance.url,
    )
    waker = Waker()
    pump = Pump(connection, waker)
    clock = SystemClock()
    histories: Histories | None = None
    try:
        echoes = Echoes(connection, topics)
        coordinator = Coordinator(store, echoes, clock, _rules(options, access.root),
                                  hold_deadlines_s=options.hold_deadlines_s, signer=access.signer,
                                  max_message=options.max_message)  # fmt: skip
        log.info("database %s, %d boards", options.db, len(coordinator.records))
        _say_signer(access.signer)
        coordinator.group_by(access.groups)
        if access.groups != NO_GROUPS:
            _say_groups(access.groups)
        metrics = MetricsFile(options.metrics_file) if options.metrics_file else None
        host = socket.gethostname()
        vitals = Vitals(coordinator, connection, clock, Notifier(), metrics, host=host)
        mark, at = secrets.token_hex(16), f"the root {topics.root} at {access.url}"
        alone = Alone(connection, topics, clock, vitals.sign, mark, at,
                      empty=not coordinator.records)  # fmt: skip
        alone.done = options.take_over
        schedule = None
        if options.backup_dir:
            schedule = Schedule(options.db, options.backup_dir, options.backup_every)
            schedule.start()
        gate = StartupGate(connection, topics, clock, secrets.token_hex(16))
        answers = ClockAnswers(connection, coordinator, clock)
        asked = histories = Histories(coordinator, store.path, clock, waker.wake)
        clearing = Clearing(connection, topics, clock)
        retention = Retention(store.database, options.keep_days, options.keep_mb)
        with listening(waker.wake) as orders:
            intake = Intake(connection, pump, orders, clock, lambda: asked.has_found)
            connection.start()
            _run(alone, echoes, answers, asked, coordinator, gate, vitals, clearing, retention,
                 intake, orders, lambda: entrance.reload(coordinator, connection))  # fmt: skip
        log.info("stopping")
        coordinator.write_down()
        vitals.stopping(served=alone.done)
        if schedule:
            schedule.stop()
    except (AnotherCoordinator, UsageError):
        unused = begun and not store.load(0.0)
        raise
    finally:
        if histories is not None:
            histories.close()
        pump.leave(STOP_S)  # in order, whatever came: a will of ours would speak of another
        waker.close()
        store.close()
        if unused:
            discard(store.path)  # who looks for the lab's would find two


def _rules(options: Options, root: str) -> Rules:
    """What is decided by; the log has what is not usual."""
    allowance = options.allowance
    if allowance != FULL:
        log.info(
            "a board may have %s requests a minute, programs of %d bytes, a queue of %d",
            allowance.requests_per_minute or "any number of",
            allowance.max_program,
            allowance.max_queue,
        )
    if not options.analysis_within:
        log.info("an analysis is waited for without limit (--analysis-within 0)")
    return Rules(root, options.analysis, options.analysis_within, allowance=allowance)


def subscriptions(topics: Topics) -> list[Subscription]:
    """What it listens to. Statuses at QoS 0: it is what the broker has kept that is asked for.

    And first: amqtt sends what is retained for one filter, and waits for its acknowledgements,
    before it looks at the next. Heartbeats at QoS 0: a broker that queued them for a coordinator
    that is away would say later that a board was heard then, and have no room for requests.
    """
    ours = (TopicKind.ENVELOPE, TopicKind.STATUS)
    passing = (TopicKind.STATUS, TopicKind.HEARTBEAT, TopicKind.CLOCK, *KINDS)
    signs = Subscription(topics.coordinator, 0, no_local=True, as_published=False)
    filters = [
        Subscription(
            topics.of("+", kind),
            int(kind not in passing),
            no_local=kind in ours,
            as_published=kind is not TopicKind.HEARTBEAT,
        )
        for kind in sorted(INBOUND, key=lambda kind: kind is not TopicKind.STATUS)
    ]
    return [signs, *filters, Subscription(topics.analyst("+"), 1)]


def _run(
    alone: Alone,
    echoes: Echoes,
    answers: ClockAnswers,
    histories: Histories,
    coordinator: Coordinator,
    gate: StartupGate,
    vitals: Vitals,
    clearing: Clearing,
    retention: Retention,
    intake: Intake,
    orders: Orders,
    reload: Callable[[], bool],
) -> None:
    """Until a stop, or a reload that takes another process."""
    while True:
        parts = (coordinator, gate, vitals) if alone.done else (alone, vitals)
        waits = [wait for part in parts if (wait := part.wait()) is not None]
        came = intake.take(min(waits, default=None))
        depth = len(came) + intake.depth
        stop = orders.stop  # not when what came before it is done: much may wait there
        if not stop and orders.reload:
            orders.reload = False
            stop = not reload()
        came = answers.take(came, serving=alone.done)
        came = histories.take(came, serving=alone.done)
        histories.say()
        came = alone.admit(echoes.without_ours(came))
        if not alone.done:
            vitals.report((), depth)
            if stop:
                return
            continue
        received = vitals.take_questions(gate.admit(came))
        done = coordinator.step(received)
        clearing.clear(came)
        vitals.report(received, depth, done)
        retention.drop_old(time.monotonic())
        if any(isinstance(item, Subscribed) for item in received):
            log.info("ready")
        if stop:
            return
