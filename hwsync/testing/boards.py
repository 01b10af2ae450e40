"""Boards: the real agent on a real journal, in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwsync.device.agent import Agent
from hwsync.device.journal import Journal
from hwsync.device.lab_clock import BoardClock
from hwsync.device.life import handle, wait
from hwsync.protocol.errors import JournalError, JournalUnavailable
from hwsync.protocol.record import Ran
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.envelope import read_envelope
from hwsync.runner import Group, RunEnd
from hwsync.testing.context import Context, Run
from hwsync.testing.devices import Device, Session
from hwsync.testing.history import JournalLost
from hwsync.transport import Delivery

FULL: Final = "the journal cannot be written: database or disk is full"


class WatchedJournal(Journal):
    """The real journal, with injection points and a disk that may be full."""

    def __init__(self, process: Board) -> None:
        self.process = process
        super().__init__(
            process.folder,
            machine=process.machine,
            nonce=process.context.nonce,
        )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.process.point("before a journal write")
        if self.process.disk_full:
            self.process.context.fault("full disk, device", self.process.name)
            self.refusal = FULL
            raise JournalUnavailable(FULL)
        with super()._changing():
            yield
        self.process.point("after a journal write")


class Board(Device):
    """The real agent with its journal in ``folder``."""

    points = (
        *("before a journal write", "after a journal write"),
        *("before a device's publish", "after a device's publish"),
        *("before a device's acknowledgement", "after a device's acknowledgement"),
        *("before a process starts", "after a process starts"),
    )

    kinds = (TopicKind.ENVELOPE, TopicKind.STATUS, TopicKind.CLOCK_REPLY)

    def __init__(self, context: Context, name: str, user: str, machine: str) -> None:
        super().__init__(context, name, user)
        self.folder: Path = context.folder / name
        self.machine = machine
        self.journal: WatchedJournal | None = None
        self.agent: Agent | None = None
        self.clock: BoardClock
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

    @property
    def waits(self) -> bool:
        """Whether it is ready, and waits for the grant of a start."""
        if self.agent is None or self.agent.running:
            return False
        hand = self.agent._deeds.hand
        return hand is not None and hand.envelope.start is not None

    def newest_answered(self) -> float | None:
        newest = self.clock.newest
        return None if newest is None else self._questions.get(newest)

    def acknowledge(self, delivery: Delivery) -> None:
        self._keeps(delivery)
        super().acknowledge(delivery)

    def _keeps(self, delivery: Delivery) -> None:
        """An envelope that is taken is on the disk before it is acknowledged."""
        _, kind = self.topics.split(delivery.topic)
        agent, journal = self.agent, self.journal
        if kind is not TopicKind.ENVELOPE or agent is None or journal is None or self.disk_full:
            return
        envelope = read_envelope(delivery.payload)
        # What could not be written down is refused, and known until its answer is settled.
        known = None if envelope is None else agent._keeping.get(envelope.id)
        if envelope is not None and agent.busy is None and known is None:
            self.context.violate("acknowledged", self.user, envelope.id, "it was not written down")

    def begin(self) -> None:
        try:
            self.journal = WatchedJournal(self)
            if self._name and self._name != self.journal.name:
                self.context.see(JournalLost(self.context.now, self.user, self._name))
            self._name = self.journal.name
            self.clock = BoardClock(self.user, self.topics, self)
            self.agent = Agent(self.user, self.topics, self.journal, self, clock=self.clock)
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
        pause = wait(agent)
        self._knows_the_time()
        return pause

    def _knows_the_time(self) -> None:
        """What it knows of lab time is true within its bound, whatever clocks and delays do."""
        estimate = self.clock.estimate()
        if estimate is None or estimate.life not in self.context.lives:
            return
        raw, truth = self.raw_us(), round(self.context.now * 1e6)
        error = estimate.lab_us(raw) - truth - self.context.lives[estimate.life]
        if abs(error) > estimate.bound_at(raw):
            text = f"lab time is {error} us off, and the bound is {estimate.bound_at(raw)}"
            self.context.violate("clock", self.user, "", text)

    def release(self) -> None:
        super().release()
        if self.journal is not None:
            self.journal.close()
        self.journal = self.agent = None

    def written(self, session: Session) -> None:
        if not self._here(session) or self.agent is None:
            return
        try:
            self.agent.run_started(Group(session.run.number, session.run.number, "boot"))
        except JournalError as error:
            self.agent.run_failed(str(error))
            return
        self.hand_over(session)

    def prepared(self, session: Session) -> None:
        if self._here(session) and self.agent is not None and self.session is session:
            self.agent.run_prepared(Group(session.run.number, session.run.number, "boot"))

    def not_released(self, session: Session, reason: str) -> None:
        if self._here(session) and self.agent is not None and self.session is session:
            self._forget_session()
            self.agent.run_failed(reason)

    def ended(self, session: Session, end: RunEnd) -> None:
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
        if entry and entry.report and entry.report.ran is Ran.YES:
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
