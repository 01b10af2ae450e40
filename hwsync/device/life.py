"""One life of the daemon: a journal, an agent, a connection, a runner, and the loop around them.

The law: one thread does everything, from the socket to the socket; only a run has another one
(``board_environment``). It waits for the connection, for what a run leaves, for an order of the
process, and for what is due. A life ends at a stop, when another configuration is to count, or when
a journal that could not be written can be opened again; then nothing runs and nothing waits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.device.agent import Agent
from hwsync.device.board_environment import BoardEnvironment, Calls
from hwsync.device.no_journal import AGAIN_S, AnyJournal, open_journal, reopen
from hwsync.device.trust import Trust
from hwsync.notify import Notifier
from hwsync.orders import Orders
from hwsync.protocol import limits
from hwsync.protocol.errors import HwsyncError, JournalError
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.runner import Settings
from hwsync.transport import (
    Connected,
    Connection,
    Delivery,
    Disconnected,
    Pump,
    Subscribed,
    Subscription,
    Waker,
    Will,
)

KILL_S: Final = 10.0  # past ``end_grace_s``: for a program to be gone, and to be journalled
LEAVE_S: Final = 10.0  # to close the connection and the journal
FLUSH_S: Final = 5.0  # of that, for what is still under way
STOP_LOOK_S: Final = 0.2  # between two looks whether the last program has ended
LONGEST_WAIT_S: Final = 60.0
RECEIVED_KINDS: Final = (TopicKind.ENVELOPE, TopicKind.STATUS)
JOURNAL_AGAIN_S: Final = 1.0  # after a journal that could not be read

log = logging.getLogger("hwsync.device")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a life is made with: the configuration, understood."""

    user: str
    url: BrokerUrl
    topics: Topics
    state: Path
    settings: Settings
    max_timeout: float | None  # s
    stop: float  # s that a running program gets at a stop
    trust: Trust | None = None  # whose signatures count; None: nobody has to sign
    max_message: int = limits.MAX_MESSAGE  # bytes that the broker takes


@dataclass(frozen=True, slots=True)
class Reload:
    """Another configuration is to count, as soon as nothing runs or waits.

    None: one that only another process can read, which systemd then starts.
    """

    setup: Setup | None


@dataclass(frozen=True, slots=True)
class Process:
    """What outlives a life. ``read``: what is configured now; None: it is not to count."""

    orders: Orders
    waker: Waker
    notifier: Notifier
    read: Callable[[], Reload | None]


def live(setup: Setup, journal: AnyJournal, process: Process) -> tuple[Setup, AnyJournal] | None:
    """One life; what the next one is made with, or None at a stop.

    ``journal``: open; this life closes it, unless the next one goes on with it. A broker that is
    away, a runner that cannot run and a disk that takes nothing end no life: they are said in the
    log, and waited for. Raises ``JournalError`` where the journal cannot be read at the start, or
    another process has the one of a new configuration.
    """
    calls = Calls(process.waker.wake)
    environment = BoardEnvironment(setup.settings, setup.state, calls)
    try:
        environment.runner.start()  # before there is any thread
    except HwsyncError as error:
        log.error("%s; every program is rejected until that is mended", error)
    agent = Agent(setup.user, setup.topics, journal, environment, max_timeout=setup.max_timeout,
                  trust=setup.trust, max_message=setup.max_message)  # fmt: skip
    will = encode_heartbeat(online=False, journal=journal.name, boot=journal.boot)
    environment.agent = agent
    environment.connection = connection = Connection(
        setup.url,
        setup.topics.client_id(f"hwsync-device-{setup.user}"),
        subscriptions=[
            *(Subscription(setup.topics.of(setup.user, kind)) for kind in RECEIVED_KINDS),
            Subscription(setup.topics.of(setup.user, TopicKind.CLOCK_REPLY), 0),
            *(Subscription(setup.topics.of(user, TopicKind.STATUS)) for user in agent.former_names),
        ],
        will=Will(setup.topics.of(setup.user, TopicKind.HEARTBEAT), will),
        clean_session=False,
        takeover_hint="set another hostname or --user",
    )
    pump = Pump(connection, process.waker)
    connection.start()
    try:
        following = _Loop(setup, agent, journal, connection, pump, calls, process).run()
        if following is None or following[0] is not setup:
            agent.stopped()
    finally:
        pump.leave(FLUSH_S)
        environment.close()
    if following is None:
        journal.close()
        return None
    following_setup, opened = following
    if opened is None:
        journal.close()
        opened = open_journal(following_setup.state)
    return following_setup, opened


@dataclass(slots=True)
class _Loop:
    """The loop of one life, until ``run`` returns."""

    setup: Setup
    agent: Agent
    journal: AnyJournal
    connection: Connection
    pump: Pump
    calls: Calls
    process: Process
    reload: Reload | None = None  # what the next life is to be made with
    again: float = field(default_factory=lambda: time.monotonic() + AGAIN_S)
    end: float | None = None  # monotonic: when a running program has had its time, at a stop
    killed: bool = False  # that time is over

    def run(self) -> tuple[Setup, AnyJournal | None] | None:
        """Until a stop (None), or until another life can begin, with a journal if it is open."""
        agent = self.agent
        while self.end is None or agent.running:
            if not self._keep_to_the_end():
                return None
            pause = wait(agent, LONGEST_WAIT_S if self.end is None else STOP_LOOK_S)
            if self.end is None and self.reload and agent.busy is None and not agent.running:
                if self.reload.setup is None:
                    log.info("ending: the next start has the new configuration")
                    return None
                log.info("the new configuration counts from now on")
                return self.reload.setup, None
            if self.end is None and agent.needs_reopening:
                pause = min(pause, AGAIN_S)
                if (another := self._another_journal()) is not None:
                    return self.setup, another
            self._take(pause)
            self._obey()
        return None

    def _keep_to_the_end(self) -> bool:
        """At a stop, end what has had its time; False: it takes too long even so."""
        now = time.monotonic()
        if self.end is None or now < self.end:
            return True
        if self.killed:
            log.error("the program's result was not journalled in time")
            return False
        self.killed, self.end = True, now + self.setup.settings.end_grace_s + KILL_S
        self.agent.end_run()
        return True

    def _another_journal(self) -> AnyJournal | None:
        """One that can be written, in the place of one that cannot, now and then."""
        if not self.agent.idle or time.monotonic() < self.again:
            return None
        self.again = time.monotonic() + AGAIN_S
        return reopen(self.journal, self.setup.state)

    def _take(self, seconds: float) -> None:
        """Wait so long at most; handle all that has come meanwhile."""
        notifier = self.process.notifier
        watched = notifier.wait()
        came = self.pump.wait(seconds if watched is None else min(seconds, watched))
        for item in (*came, *self.calls.take()):
            if isinstance(item, Subscribed):
                notifier.ready()
            handle(self.agent, item, self.connection.acknowledge)
        notifier.status(
            self._line, now=any(isinstance(item, Subscribed | Disconnected) for item in came)
        )
        notifier.beat()

    def _line(self) -> str:
        """What goes on, for systemd."""
        where = "connected" if self.connection.connection else "not connected"
        busy = f"busy with {self.agent.busy}" if self.agent.busy else "idle"
        return f"{where} to {self.connection.url}, {busy}"

    def _obey(self) -> None:
        """What the process's signals have asked for."""
        orders = self.process.orders
        if orders.stop:
            orders.stop = False  # a second one is another order
            self._stop()
        elif orders.reload:
            orders.reload = False
            self.reload = self.process.read() or self.reload

    def _stop(self) -> None:
        """The second time a running program is ended without waiting."""
        setup, agent = self.setup, self.agent
        self.end = time.monotonic() + (setup.stop if self.end is None else 0.0)
        left = max(0.0, self.end - time.monotonic())
        more = f"the program may run {left:.0f} s, or until the next signal" if left else ""
        more = more or "the program is asked to end"
        log.info("stopping%s", f"; {more}" if agent.running else "")
        ending = setup.settings.end_grace_s + KILL_S
        self.process.notifier.stopping(math.ceil(left + ending) + LEAVE_S)
        agent.stopping()


def handle(agent: Agent, item: object, acknowledge: Callable[[Delivery], None]) -> None:
    """One thing that came: a signal of the connection, or a call from a run's thread."""
    try:
        if isinstance(item, Connected | Subscribed | Disconnected):
            agent.note_connection(item)
        if isinstance(item, Subscribed):
            agent.connected()
        elif isinstance(item, Delivery):
            agent.received(item.topic, item.payload, lambda: acknowledge(item),
                           retain=item.retain, read_us=item.read_us)  # fmt: skip
        elif callable(item):
            item()
    except JournalError as error:
        log.error("%s", error)


def wait(agent: Agent, longest: float = LONGEST_WAIT_S) -> float:
    """Do what is due; seconds until there is more to do."""
    try:
        return min(agent.tick(), longest)
    except JournalError as error:
        log.error("%s; trying again", error)
        return min(JOURNAL_AGAIN_S, longest)
