"""One life of the daemon: a journal, an agent, a connection, a runner, and the loop around them.

The law: one thread calls the agent; a run has a thread of its own, and says everything through the
inbox. A life ends at a stop, when another configuration is to count, or when a journal that could
not be written can be opened again; then nothing runs and nothing waits.
"""

from __future__ import annotations

import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwsync.address import BrokerUrl
from hwsync.device.agent import Agent
from hwsync.device.no_journal import AGAIN_S, AnyJournal, open_journal, reopen
from hwsync.device.presence import presence
from hwsync.device.trust import Trust
from hwsync.notify import Notifier
from hwsync.protocol import limits
from hwsync.protocol.errors import HwsyncError, JournalError
from hwsync.protocol.topics import Kind, Topics
from hwsync.protocol.wire import encode_heartbeat
from hwsync.runner import Group, Job, Piece, Runner, Settings, StopSwitch, end_group
from hwsync.transport import (
    Connected,
    Delivery,
    Disconnected,
    Subscribed,
    Subscription,
    Transport,
    Will,
)

KILL_S: Final = 10.0  # past ``end_grace_s``: for a program to be gone, and to be journalled
LEAVE_S: Final = 10.0  # to close the connection and the journal
STOP_LOOK_S: Final = 0.2  # between two looks whether the last program has ended
LONGEST_WAIT_S: Final = 60.0
HEARD: Final = (Kind.COMMAND, Kind.STATUS)
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
class Stop:
    """A signal: end. With the second one a running program is ended without waiting."""


@dataclass(frozen=True, slots=True)
class Reload:
    """A signal: another configuration is to count, as soon as nothing runs or waits.

    None: one that only another process can read, which systemd then starts.
    """

    setup: Setup | None


Inbox = queue.SimpleQueue[Any]


class Handover:
    """One call that a run's thread leaves to the main thread, and waits for.

    The run's thread puts it into the inbox and calls ``wait``; the main thread calls the object.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._done = threading.Event()
        self._error: HwsyncError | None = None

    def __call__(self) -> None:
        """In the main thread: make the call. Raises nothing."""
        try:
            self._call()
        except HwsyncError as error:
            self._error = error
        except Exception as error:
            log.exception("cannot write the journal; this is a bug")
            self._error = HwsyncError(f"the journal cannot be written: {error}")
        self._done.set()

    def wait(self) -> None:
        """In the run's thread: until the call was made. Raises its ``HwsyncError``."""
        self._done.wait()
        if self._error is not None:
            raise self._error


class Outside:
    """What the agent cannot do itself (``environment.Environment``)."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    end_leftovers = staticmethod(end_group)

    def __init__(self, setup: Setup, inbox: Inbox) -> None:
        self.transport: Transport | None = None
        self.agent: Agent | None = None
        self.runner = Runner(setup.settings, alone=True)
        self._inbox = inbox
        self._state = setup.state
        self._stop = StopSwitch()

    @property
    def settled(self) -> bool:
        return self.transport is not None and self.transport.settled

    def under_way(self, topic: str) -> bool:
        return self.transport is not None and self.transport.under_way(topic)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        link = self.transport
        return link is not None and link.publish(
            topic, payload, qos=qos, retain=retain, correlation=correlation
        )

    def refusal(self) -> str:
        return self.runner.refusal

    def presence(self) -> dict[str, Any]:
        return presence(self._state, self.runner.version)

    def start_run(self, job: Job, id: str) -> None:
        self._stop = StopSwitch()
        threading.Thread(target=self._run, args=(job, self._stop), daemon=True).start()

    def stop_run(self) -> None:
        self._stop.set()

    def _run(self, job: Job, stop: StopSwitch) -> None:
        agent = self.agent
        assert agent is not None

        def started(group: Group) -> None:
            handover = Handover(lambda: agent.run_started(group))
            self._inbox.put(handover)
            handover.wait()

        def output(piece: Piece) -> None:
            self._inbox.put(lambda: agent.output(piece))

        try:
            end = self.runner.run(job, on_started=started, on_output=output, stop=stop)
        except HwsyncError as error:
            reason = str(error)
            self._inbox.put(lambda: agent.run_failed(reason))
            return
        except Exception as error:
            # A thread that died would leave the board busy for ever.
            log.exception("cannot run a program; this is a bug")
            failure = f"the device failed to run it: {error}"
            self._inbox.put(lambda: agent.run_failed(failure))
            return
        self._inbox.put(lambda: agent.run_ended(end))


def live(
    setup: Setup, journal: AnyJournal, inbox: Inbox, notifier: Notifier
) -> tuple[Setup, AnyJournal] | None:
    """One life; what the next one is made with, or None at a stop. Raises ``JournalError``."""
    outside = Outside(setup, inbox)
    try:
        outside.runner.start()  # before there is any thread
    except HwsyncError as error:
        log.error("%s; every program is rejected until that is mended", error)
    agent = Agent(setup.user, setup.topics, journal, outside, max_timeout=setup.max_timeout,
                  trust=setup.trust, max_message=setup.max_message)  # fmt: skip
    will = encode_heartbeat(online=False, journal=journal.name, boot=journal.boot)
    outside.agent = agent
    outside.transport = transport = Transport(
        setup.url,
        setup.topics.client_id(f"hwsync-device-{setup.user}"),
        on_signal=inbox.put,
        subscriptions=[
            *(Subscription(setup.topics.of(setup.user, kind)) for kind in HEARD),
            *(Subscription(setup.topics.of(user, Kind.STATUS)) for user in agent.former_names),
        ],
        will=Will(setup.topics.of(setup.user, Kind.HEARTBEAT), will),
        clean_session=False,
        takeover_hint="set another hostname or --user",
    )
    transport.start()
    try:
        following = _loop(setup, agent, journal, inbox, transport, notifier)
        if following is None or following[0] is not setup:
            agent.stopped()
    finally:
        transport.stop()
        outside.runner.close()
    if following is None:
        journal.close()
        return None
    following_setup, opened = following
    if opened is None:
        journal.close()
        opened = open_journal(following_setup.state)
    return following_setup, opened


def _loop(
    setup: Setup,
    agent: Agent,
    journal: AnyJournal,
    inbox: Inbox,
    transport: Transport,
    notifier: Notifier,
) -> tuple[Setup, AnyJournal | None] | None:
    """Until a stop (None), or until another life can begin, with a journal that is open already."""
    again = time.monotonic() + AGAIN_S
    end: float | None = None  # s, monotonic: when a running program has had its time
    killed = False
    reload: Reload | None = None
    item: object = None
    while end is None or agent.running:
        now = time.monotonic()
        if end is not None and now >= end:
            if killed:
                log.error("the program's result was not journalled in time")
                return None
            killed, end = True, now + setup.settings.end_grace_s + KILL_S
            agent.end_run()
        pause = wait(agent, LONGEST_WAIT_S if end is None else STOP_LOOK_S)
        if end is None and reload is not None and agent.busy is None and not agent.running:
            if reload.setup is None:
                log.info("ending: the next start has the new configuration")
                return None
            log.info("the new configuration counts from now on")
            return reload.setup, None
        if end is None and agent.over:
            pause = min(pause, AGAIN_S)
            if agent.idle and now >= again:
                again = now + AGAIN_S
                another = reopen(journal, setup.state)
                if another is not None:
                    return setup, another
        _tell(notifier, agent, transport, now=isinstance(item, Subscribed | Disconnected))
        watched = notifier.wait()
        try:
            item = inbox.get(timeout=pause if watched is None else min(pause, watched))
        except queue.Empty:
            item = None
            continue
        if isinstance(item, Stop):
            # A second signal gives no more time: its end begins at once.
            end = time.monotonic() + (setup.stop if end is None else 0.0)
            left = max(0.0, end - time.monotonic())
            more = f"the program may run {left:.0f} s, or until the next signal" if left else ""
            more = more or "the program is asked to end"
            log.info("stopping%s", f"; {more}" if agent.running else "")
            ending = setup.settings.end_grace_s + KILL_S
            notifier.stopping(math.ceil(left + ending) + LEAVE_S)
            agent.stopping()
        elif isinstance(item, Reload):
            reload = item
        else:
            if isinstance(item, Subscribed):
                notifier.ready()
            handle(agent, item, transport.acknowledge)
    return None


def handle(agent: Agent, item: object, acknowledge: Callable[[Delivery], None]) -> None:
    """One thing of the inbox: a signal of the transport, or a call from a run's thread."""
    try:
        if isinstance(item, Connected | Subscribed | Disconnected):
            agent.hear(item)
        if isinstance(item, Subscribed):
            agent.connected()
        elif isinstance(item, Delivery):
            agent.received(item.topic, item.payload, lambda: acknowledge(item))
        elif callable(item):
            item()
    except JournalError as error:
        log.error("%s", error)


def _tell(notifier: Notifier, agent: Agent, transport: Transport, *, now: bool) -> None:
    """To systemd: the loop is here, and what goes on."""

    def line() -> str:
        where = "connected" if transport.connected else "not connected"
        return f"{where} to {transport.url}, {f'busy with {agent.busy}' if agent.busy else 'idle'}"

    notifier.status(line, now=now)
    notifier.beat(network=transport.alive)


def wait(agent: Agent, longest: float = LONGEST_WAIT_S) -> float:
    """Do what is due; seconds until there is more to do."""
    try:
        return min(agent.tick(), longest)
    except JournalError as error:
        log.error("%s; trying again", error)
        return min(JOURNAL_AGAIN_S, longest)
