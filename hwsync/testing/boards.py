"""Devices: the real agent on a real journal, and one that has no journal.

The law: a program is a line that says how long it runs and how it ends (``Program``); it begins
where the real runner would hand it over, and lives on when its device is killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsync import __version__
from hwsync.device.agent import Agent
from hwsync.device.journal import Journal
from hwsync.device.service import handle, wait
from hwsync.protocol import limits
from hwsync.protocol.errors import JournalError
from hwsync.protocol.jsons import loads
from hwsync.protocol.record import Account, Outcome, Ran
from hwsync.protocol.repeat import pause
from hwsync.protocol.topics import Kind, Topics
from hwsync.protocol.wire import (
    Envelope,
    encode_collected,
    encode_heartbeat,
    encode_result,
    read_envelope,
    read_status,
)
from hwsync.runner import Group, Job, RunEnd
from hwsync.testing.context import Context, Run
from hwsync.testing.history import Began, Ended, JournalLost
from hwsync.testing.network import Port
from hwsync.testing.processes import Process
from hwsync.transport import Delivery, Disconnected, Signal, Subscribed, Subscription, Will


@dataclass(frozen=True, slots=True)
class Program:
    """A program of this world: it prints ``token``, after so many seconds, and exits."""

    token: str
    seconds: float
    exit_code: int = 0

    @property
    def text(self) -> str:
        return f"print({self.token!r})  # {self.seconds:.3f} {self.exit_code}"

    @classmethod
    def read(cls, text: str) -> Program:
        """The program of a text; any other text is one that prints nothing."""
        try:
            token, how = text.removeprefix("print('").split("')  # ")
            seconds, code = how.split()
            return cls(token, float(seconds), int(code))
        except ValueError:
            return cls("", 0.0)


def output(text: str) -> str:
    """What that program prints."""
    return Program.read(text).token + "\n"


class WatchedJournal(Journal):
    """The real journal, with injection points and a disk that may be full."""

    def __init__(self, process: Board) -> None:
        self.process = process
        super().__init__(
            process.folder,
            machine=process.machine,
            nonce=lambda: f"{process.context.dice.getrandbits(64):016x}",
        )

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        self._around(lambda: super(WatchedJournal, self)._write(statement, values))

    def begin_epoch(self, epoch: int) -> None:
        self._around(lambda: super(WatchedJournal, self).begin_epoch(epoch))

    def _around(self, write: Callable[[], None]) -> None:
        self.process.point("before a journal write")
        if self.process.disk_full:
            self.process.context.fault("full disk, device", self.process.name)
            raise JournalError("the journal cannot be written: database or disk is full")
        write()
        self.process.point("after a journal write")


@dataclass(slots=True)
class _Session:
    """One run under way on a device, as its runner knows it."""

    run: Run
    job: Job
    life: int
    stop: bool = False
    began: bool = False
    over: bool = False
    outcome: Callable[[], None] = field(default=lambda: None)


class Device(Process):
    """What runs programs for one user."""

    kinds: tuple[Kind, ...] = (Kind.COMMAND, Kind.STATUS)

    def __init__(self, context: Context, name: str, user: str) -> None:
        super().__init__(context, name)
        self.user = user
        self.topics = Topics()
        self.port: Port | None = None
        self.session: _Session | None = None

    @property
    def busy(self) -> bool:
        """Whether a program waits or runs here, or a result is not yet settled."""
        raise NotImplementedError

    @property
    def journal_name(self) -> str:
        raise NotImplementedError

    def connect(self, journal: str, boot: int, *, clean: bool) -> None:
        context = self.context
        will = encode_heartbeat(online=False, journal=journal, boot=boot)
        self.port = Port(
            context.schedule,
            context.broker,
            self.cable,
            context.dice,
            self.topics.client_id(f"hwsync-device-{self.user}"),
            on_signal=self.put,
            subscriptions=[Subscription(self.topics.of(self.user, kind)) for kind in self.kinds],
            will=Will(self.topics.of(self.user, Kind.HEARTBEAT), will),
            clean_session=clean,
        )
        self.port.start()

    def release(self) -> None:
        if self.port is not None:
            self.port.end()
        self.port = self.session = None

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        if self.port is None:
            return False
        self.point("before a device's publish")
        self.context.note(self.name, f"publishes {topic}", payload)
        if topic.endswith("/response"):
            id = loads(payload.decode())["id"]
            for run in self.context.runs.values():
                if run.alive and (run.id, run.journal) == (id, self.journal_name):
                    self.context.violate("leftover", self.user, id, "its program still runs")
        sent = self.port.publish(topic, payload, qos=qos, retain=retain)
        self.point("after a device's publish")
        return sent

    def acknowledge(self, delivery: Delivery) -> None:
        self.point("before a device's acknowledgement")
        if self.port is not None:
            self.port.acknowledge(delivery)
        self.point("after a device's acknowledgement")

    # -- runs ---------------------------------------------------------------------------------

    def start_run(self, job: Job, id: str) -> None:
        context = self.context
        number = len(context.runs) + 1
        run = Run(number, self.user, id, job.program, self.journal_name, alive=False)
        context.runs[number] = run
        self.session = session = _Session(run, job, self.life)
        context.schedule.after(0.01 * self.random(), lambda: self._ready(session))

    def stop_run(self) -> None:
        session = self.session
        if session is not None:
            session.stop = True
            if session.began:
                self.context.schedule.after(0.01, lambda: self._ends(session, "cancelled"))

    def _here(self, session: _Session) -> bool:
        return self.alive and self.life == session.life

    def _ready(self, session: _Session) -> None:
        """The session stands; the program is handed over once the journal says so."""
        if self._here(session):
            self.put(lambda: self.written(session))

    def written(self, session: _Session) -> None:
        """In the device's turn: write that it starts."""
        raise NotImplementedError

    def hand_over(self, session: _Session) -> None:
        """In the runner: from here on the program may have done something."""
        if self._here(session):
            self.context.schedule.after(
                0.005 * self.random(), lambda: self._guarded(lambda: self._begins(session))
            )

    def _begins(self, session: _Session) -> None:
        if not self._here(session):
            return
        run, context = session.run, self.context
        self.point("before a process starts")
        if session.stop:
            self.put(lambda: self.ended(session, _end(session.job, "cancelled", began=False)))
            return
        session.began = run.alive = True
        context.see(Began(context.now, run.user, run.id, run.program, run.journal))
        context.note(self.name, f"program of {run.id} begins", run.program)
        program = Program.read(run.program)
        outcome = "error" if program.exit_code else "ok"
        if program.seconds > session.job.timeout:
            outcome = "timeout"
        seconds = min(program.seconds, session.job.timeout)
        context.schedule.after(seconds, lambda: self._ends(session, outcome))
        self.point("after a process starts")

    def _ends(self, session: _Session, outcome: str) -> None:
        run, context = session.run, self.context
        if session.over:
            return
        session.over = True
        if run.alive:
            run.alive = False
            context.note(self.name, f"program of {run.id} ends: {outcome}")
            context.see(Ended(context.now, run.user, run.id, run.program, run.journal))
        if self._here(session):
            self.put(lambda: self.ended(session, _end(session.job, outcome)))

    def ended(self, session: _Session, end: RunEnd) -> None:
        """In the device's turn: the run is over."""
        raise NotImplementedError

    def saw_the_end(self, run: Run) -> None:
        """It is sure of it now, whatever happens but the loss of its journal."""
        context = self.context
        context.see(Ended(context.now, run.user, run.id, run.program, run.journal, heard=True))

    def end_leftovers(self, group: Group) -> int:
        run = self.context.runs.get(group.session)
        if run is None or not run.alive:
            return 0
        run.alive = False
        self.context.note(self.name, f"ends what is left of {run.id}")
        self.context.see(Ended(self.context.now, run.user, run.id, run.program, run.journal))
        return 1


def _end(job: Job, outcome: str, *, began: bool = True) -> RunEnd:
    program = Program.read(job.program)
    response = program.token + "\n" if outcome in ("ok", "error") else ""
    code = program.exit_code if outcome in ("ok", "error") else None
    return RunEnd(
        outcome,
        "",
        response,
        "",
        code,
        program.seconds,
        0.0,
        truncated=False,
        sha256_stdout="",
        sha256_stderr="",
        began=began,
    )


class Board(Device):
    """The real agent with its journal in ``folder``."""

    points = (
        *("before a journal write", "after a journal write"),
        *("before a device's publish", "after a device's publish"),
        *("before a device's acknowledgement", "after a device's acknowledgement"),
        *("before a process starts", "after a process starts"),
    )

    def __init__(self, context: Context, name: str, user: str, machine: str) -> None:
        super().__init__(context, name, user)
        self.folder: Path = context.folder / name
        self.machine = machine
        self.journal: WatchedJournal | None = None
        self.agent: Agent | None = None
        self._name = ""

    @property
    def busy(self) -> bool:
        agent, journal = self.agent, self.journal
        if agent is None or journal is None:
            return not self.removed
        return agent.busy is not None or bool(journal.unsettled())

    @property
    def journal_name(self) -> str:
        return self._name

    def acknowledge(self, delivery: Delivery) -> None:
        self._keeps(delivery)
        super().acknowledge(delivery)

    def _keeps(self, delivery: Delivery) -> None:
        """An envelope that is taken is on the disk before it is acknowledged."""
        _, kind = self.topics.split(delivery.topic)
        agent, journal = self.agent, self.journal
        if kind is not Kind.COMMAND or agent is None or journal is None or self.disk_full:
            return
        envelope = read_envelope(delivery.payload)
        if envelope is not None and agent.busy is None and journal.get(envelope.id) is None:
            self.context.violate("acknowledged", self.user, envelope.id, "it was not written down")

    def begin(self) -> None:
        try:
            self.journal = WatchedJournal(self)
            if self._name and self._name != self.journal.name:
                self.context.see(JournalLost(self.context.now, self.user, self._name))
            self._name = self.journal.name
            self.agent = Agent(self.user, self.topics, self.journal, self)
        except JournalError as error:
            self.context.note(self.name, f"cannot start: {error}")
            self.kill()
            return
        keeps = self.context.habits.queues
        self.connect(self.journal.name, self.journal.boot, clean=not keeps)

    def work(self) -> float | None:
        agent = self.agent
        assert agent is not None
        while self.inbox:
            item = self.inbox.popleft()
            handle(agent, item, self.acknowledge)
        return wait(agent)

    def release(self) -> None:
        super().release()
        if self.journal is not None:
            self.journal.close()
        self.journal = self.agent = None

    def written(self, session: _Session) -> None:
        if not self._here(session) or self.agent is None:
            return
        try:
            self.agent.run_started(Group(session.run.number, session.run.number, "boot"))
        except JournalError as error:
            self.agent.run_failed(str(error))
            return
        self.hand_over(session)

    def ended(self, session: _Session, end: RunEnd) -> None:
        agent, journal = self.agent, self.journal
        if agent is None or journal is None or self.session is not session:
            return
        try:
            agent.run_ended(end)
        finally:
            self._look(session.run)

    def _look(self, run: Run) -> None:
        """Whether its end stands in the journal (also where the device was killed just then)."""
        entry = self.journal.get(run.id) if self.journal else None
        if entry and entry.account and entry.account.ran is Ran.YES:
            self.saw_the_end(run)

    def new_disk(self) -> None:
        """The card died: another one is put in, with nothing on it."""
        self.kill()
        if self._name:
            self.context.see(JournalLost(self.context.now, self.user, self._name))
        shutil.rmtree(self.folder, ignore_errors=True)
        self._name = ""

    def take_away(self) -> None:
        """The board is given to somebody else."""
        self.kill(restart=False)
        self.removed = True
        if self._name:
            self.context.see(JournalLost(self.context.now, self.user, self._name))


class Microcontroller(Device):
    """A device without a journal: a fresh name at each start, and a crash ends as ``lost``."""

    points = (
        *("before a device's publish", "after a device's publish"),
        *("before a device's acknowledgement", "after a device's acknowledgement"),
        *("before a process starts", "after a process starts"),
    )

    def __init__(self, context: Context, name: str, user: str) -> None:
        super().__init__(context, name, user)
        self._name = ""

    def begin(self) -> None:
        self._name = f"m-{self.context.dice.getrandbits(64):016x}"
        self._boot = 1
        self._refused: set[str] = set()
        self._seen = (0, 0)
        self._waiting: Envelope | None = None
        self._results: dict[str, bytes] = {}
        self._known: set[str] = set()
        self._again_at: float | None = None
        self._attempt = 0
        self._since = 0.0
        self._beat_at = self.context.now
        self.connect(self._name, 1, clean=True)

    def release(self) -> None:
        """Whatever runs on it ends with it: it has no processes."""
        self.context.see(JournalLost(self.context.now, self.user, self._name))
        for run in self.context.runs.values():
            if run.alive and run.journal == self._name:
                self.end_leftovers(Group(run.number, run.number, "boot"))
        super().release()

    @property
    def busy(self) -> bool:
        return self.alive and bool(self._waiting or self.session or self._results)

    @property
    def journal_name(self) -> str:
        return self._name

    def work(self) -> float | None:
        while self.inbox:
            item = self.inbox.popleft()
            if callable(item):
                item()
            else:
                self._hear(item)
        now = self.context.now
        if self._again_at is not None and now >= self._again_at:
            self._say()
        if now >= self._beat_at:
            self._beat()
        times = [self._beat_at, *([self._again_at] if self._again_at is not None else [])]
        return max(min(times) - now, 0.0)

    def _hear(self, signal: Signal) -> None:
        if isinstance(signal, Subscribed):
            self._beat()
            self._attempt = 0
            self._since = self.context.now
            self._say()
        elif isinstance(signal, Delivery):
            _, kind = self.topics.split(signal.topic)
            if kind is Kind.COMMAND:
                envelope = read_envelope(signal.payload)
                if envelope is not None and envelope.user == self.user:
                    self._offered(envelope)
            elif kind is Kind.STATUS:
                self._told(signal.payload)
            self.acknowledge(signal)
        else:
            assert not isinstance(signal, Disconnected) or self.port is not None

    def _offered(self, envelope: Envelope) -> None:
        if self.session or self._results or envelope.id in self._known:
            return
        if self._waiting is None or (
            self._waiting.id == envelope.id
            and (envelope.epoch, envelope.seq) > (self._waiting.epoch, self._waiting.seq)
        ):
            if envelope.id in self._refused:
                self._refused.remove(envelope.id)
                self._boot += 1
            self._waiting = envelope
            self._attempt = 0
            self._since = self.context.now
            self._say()

    def _told(self, payload: bytes) -> None:
        status = read_status(payload)
        if status is None or status.order < self._seen:
            return
        self._seen = status.order
        for id, journal in status.settled:
            if journal == self._name and self._results.pop(id, None) is not None:
                # It keeps nothing for a database that is put back later.
                self.context.see(JournalLost(self.context.now, self.user, self._name))
        mine = (status.state, status.journal, status.boot) == (2, self._name, self._boot)
        waiting = self._waiting
        if self.session is not None:
            if (status.cancelling or not mine or status.id != self.session.run.id) and (
                not self.session.stop
            ):
                self.stop_run()
        elif waiting is not None and status.order >= (waiting.epoch, waiting.seq):
            if status.id == waiting.id and mine and not status.cancelling:
                self._waiting, self._again_at = None, None
                self._known.add(waiting.id)
                job = Job(waiting.program, waiting.stdin, waiting.args, waiting.timeout)
                self.start_run(job, waiting.id)
            elif (status.id, status.state) != (waiting.id, 1):
                self._refuses(waiting)
        elif waiting is not None and self.context.now - self._since >= limits.UNKNOWN_S:
            self._refuses(waiting)

    def _refuses(self, envelope: Envelope) -> None:
        self._waiting = None
        self._refused.add(envelope.id)
        self._result(envelope.id, Account(Outcome.REJECTED, Ran.NO, "not granted"))

    def written(self, session: _Session) -> None:
        self.hand_over(session)

    def ended(self, session: _Session, end: RunEnd) -> None:
        if self.session is not session:
            return
        self.session = None
        ran = Ran.YES if end.began else Ran.NO
        account = Account(Outcome(end.outcome), ran, response=end.response, exit_code=end.exit_code)
        if end.began:
            self.saw_the_end(session.run)
        self._result(session.run.id, account)

    def _result(self, id: str, account: Account) -> None:
        self._results[id] = encode_result(id, self._name, self._boot, account)
        self._attempt = 0
        self._say()

    def _say(self) -> None:
        if self._waiting is not None:
            payload = encode_collected(self._waiting.id, self._name, self._boot)
            self.publish(self.topics.of(self.user, Kind.COLLECTED), payload)
        for payload in list(self._results.values()):
            self.publish(self.topics.of(self.user, Kind.RESPONSE), payload)
        if self._waiting is None and not self._results:
            self._again_at = None
            return
        self._again_at = self.context.now + pause(self._attempt, self.random())
        self._attempt += 1

    def _beat(self) -> None:
        payload = encode_heartbeat(
            online=True, journal=self._name, boot=self._boot, seen=self._seen, version=__version__
        )
        self.publish(self.topics.of(self.user, Kind.HEARTBEAT), payload, retain=True)
        self._beat_at = self.context.now + limits.HEARTBEAT_S
