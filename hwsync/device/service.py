"""The process ``hwsync-device``: options, inbox, one loop; a run has a thread of its own."""

from __future__ import annotations

import argparse
import logging
import os
import queue
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hwsync import __version__, logs
from hwsync.address import BrokerUrl, broker_address
from hwsync.device.agent import Agent
from hwsync.device.no_journal import AGAIN_S, AnyJournal, open_journal, reopen
from hwsync.notify import Notifier
from hwsync.paths import state_directory
from hwsync.protocol import limits
from hwsync.protocol.errors import HwsyncError, JournalError, UsageError
from hwsync.protocol.topics import DEFAULT_ROOT, Kind, Topics
from hwsync.protocol.wire import encode_heartbeat
from hwsync.runner import ColdRunner, Group, Job, StopSwitch, end_group
from hwsync.transport import Delivery, Disconnected, Subscribed, Subscription, Transport, Will

log = logging.getLogger("hwsync.device")

OWN_VARIABLES: Final = frozenset(
    {
        *("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "INVOCATION_ID"),
        *("WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID"),
    }
)
"""What systemd tells the daemon, and no program."""

STOP_S: Final = 10.0  # for a program to end when the daemon is stopped; it is killed at once
STOP_LOOK_S: Final = 0.2  # meanwhile, between two looks whether it has
LONGEST_WAIT_S: Final = 60.0
JOURNAL_AGAIN_S: Final = 1.0  # after a journal that could not be read


class _Outside:
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    end_leftovers = staticmethod(end_group)

    def __init__(self, directory: Path) -> None:
        self.inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.transport: Transport | None = None
        self.agent: Agent | None = None
        self._runner = ColdRunner(directory=directory, environment=_for_programs(os.environ))
        self._stop = StopSwitch()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        link = self.transport
        return link is not None and link.publish(topic, payload, qos=qos, retain=retain)

    def start_run(self, job: Job, id: str) -> None:
        self._stop = StopSwitch()
        threading.Thread(target=self._run, args=(job, self._stop), daemon=True).start()

    def stop_run(self) -> None:
        self._stop.set()

    def _run(self, job: Job, stop: StopSwitch) -> None:
        agent = self.agent
        assert agent is not None

        def started(group: Group) -> None:
            done = threading.Event()
            errors: list[HwsyncError] = []

            def act() -> None:
                try:
                    agent.run_started(group)
                except HwsyncError as error:
                    errors.append(error)
                except Exception as error:
                    log.exception("cannot write the journal")
                    errors.append(HwsyncError(f"the journal cannot be written: {error}"))
                done.set()

            self.inbox.put(act)
            done.wait()
            if errors:
                raise errors[0]

        def output(n: int, stream: str, text: str) -> None:
            self.inbox.put(lambda: agent.output(n, stream, text))

        try:
            end = self._runner.run(job, on_started=started, on_output=output, stop=stop)
        except HwsyncError as error:
            reason = str(error)
            self.inbox.put(lambda: agent.run_failed(reason))
            return
        except Exception as error:
            # A thread that died would leave the board busy for ever.
            log.exception("cannot run a program; this is a bug")
            failure = f"the device failed to run it: {error}"
            self.inbox.put(lambda: agent.run_failed(failure))
            return
        self.inbox.put(lambda: agent.run_ended(end))


def _for_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment without what is for it alone, such as the broker's password."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("HWSYNC_") and name not in OWN_VARIABLES
    }


def _serve(options: argparse.Namespace) -> None:
    user = options.user
    if not limits.is_user(user):
        raise UsageError(
            f"{user!r} is no user's name ({limits.USER_FORM})", "choose one with --user"
        )
    if os.geteuid() == 0 and not options.allow_root:
        raise UsageError(
            "started as root: every program sent here would run as root",
            "start it as an ordinary user, or allow it with --allow-root",
        )
    low, high = limits.TIMEOUT_S
    if options.max_timeout is not None and not low <= options.max_timeout <= high:
        raise UsageError(f"--max-timeout must be {low:g} to {high:g} seconds")
    url = broker_address(options.broker, options.credentials)
    state = options.state_dir or state_directory("--state-dir", f"device-{user}")
    topics = Topics(options.root or os.environ.get("HWSYNC_ROOT") or DEFAULT_ROOT)
    directory = options.directory or state / "work"
    journal: AnyJournal | None = open_journal(state)
    notifier, stop = Notifier(), threading.Event()
    while journal is not None:
        if not journal.over:
            _make(directory)
        journal = _live(options, url, topics, state, directory, journal, notifier, stop)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"programs cannot run in {directory}: {error.strerror}",
            "name a folder with --directory",
        ) from None


def _live(
    options: argparse.Namespace,
    url: BrokerUrl,
    topics: Topics,
    state: Path,
    directory: Path,
    journal: AnyJournal,
    notifier: Notifier,
    stop: threading.Event,
) -> AnyJournal | None:
    """One life with one journal; that of the next one, or None at a stop."""
    user = options.user
    outside = _Outside(directory)
    agent = Agent(user, topics, journal, outside, max_timeout=options.max_timeout)
    will = encode_heartbeat(online=False, journal=journal.name, boot=journal.boot)
    outside.agent = agent
    outside.transport = transport = Transport(
        url,
        topics.client_id(f"hwsync-device-{user}"),
        on_signal=outside.inbox.put,
        subscriptions=[Subscription(topics.of(user, k)) for k in (Kind.COMMAND, Kind.STATUS)],
        will=Will(topics.of(user, Kind.HEARTBEAT), will),
        clean_session=False,
        takeover_hint="set another hostname or --user",
    )

    def end(*_: object) -> None:
        stop.set()
        outside.inbox.put(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if stop.is_set():  # between two lives
        outside.inbox.put(None)
    transport.start()
    another = _loop(agent, outside.inbox, transport, notifier, lambda: reopen(journal, state))
    if another is None:
        agent.stopped()
        journal.close()
    transport.stop()
    return another


def _loop(
    agent: Agent,
    inbox: queue.SimpleQueue[object],
    transport: Transport,
    notifier: Notifier,
    reopen: Callable[[], AnyJournal | None],
) -> AnyJournal | None:
    """Until a stop (None), or until another life can begin with the journal that it returns."""
    again = time.monotonic() + AGAIN_S
    end: float | None = None  # seconds, monotonic: a stop waits for the run, but not for ever
    item: object = None
    while end is None or (agent.running and time.monotonic() < end):
        pause = wait(agent, LONGEST_WAIT_S if end is None else STOP_LOOK_S)
        if end is None and agent.over:
            pause = min(pause, AGAIN_S)
            if agent.idle and time.monotonic() >= again:
                again = time.monotonic() + AGAIN_S
                another = reopen()
                if another is not None:
                    return another
        _tell(notifier, agent, transport, now=isinstance(item, Subscribed | Disconnected))
        watched = notifier.wait()
        try:
            item = inbox.get(timeout=pause if watched is None else min(pause, watched))
        except queue.Empty:
            item = None
            continue
        if item is None:  # a signal
            end = end or time.monotonic() + STOP_S  # a second signal gives no more time
            notifier.stopping()
            agent.stopping()
            continue
        if isinstance(item, Subscribed):
            notifier.ready()
        handle(agent, item, transport.acknowledge)
    return None


def handle(agent: Agent, item: object, acknowledge: Callable[[Delivery], None]) -> None:
    """One thing of the inbox: a signal of the transport, or a call from a run's thread."""
    try:
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


def main(argv: Sequence[str] | None = None) -> int:
    """``hwsync-device``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="hwsync-device", description="Run the programs that hwsync sends to this board."
    )
    add = parser.add_argument
    add("--user", default=socket.gethostname(), help="this board's name (default: the host's)")
    add("--broker", metavar="URL", help="or HWSYNC_BROKER; default mqtt://127.0.0.1:1883")
    add("--root", help="of the topics, default hw; or HWSYNC_ROOT")
    state = "for the journal; default $STATE_DIRECTORY, else ~/.local/state/hwsync/device-USER"
    add("--state-dir", type=Path, metavar="DIR", help=state)
    add("--credentials", type=Path, metavar="FILE", help="two lines: user, password")
    add("--directory", type=Path, metavar="DIR", help="where programs run; default STATE-DIR/work")
    add("--max-timeout", type=float, metavar="SECONDS", help="no program runs longer on this board")
    add("--allow-root", action="store_true", help="run programs as root, if started as root")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(argv)
    logs.setup("device")
    try:
        _serve(options)
    except HwsyncError as error:
        print(f"hwsync-device: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        log.exception("hwsync-device failed; this is a bug")
        print(f"hwsync-device: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
