"""A device without a journal: a fresh name at each start, and a crash ends as ``lost``.

The law: as docs/protocol.md, section 5, asks of whoever runs programs by itself and keeps nothing.
"""

from __future__ import annotations

from hwsync import __version__
from hwsync.protocol import limits
from hwsync.protocol.record import Account, Outcome, Ran
from hwsync.protocol.repeat import pause
from hwsync.protocol.topics import Kind
from hwsync.protocol.wire import (
    Envelope,
    encode_collected,
    encode_heartbeat,
    encode_result,
    read_envelope,
    read_status,
)
from hwsync.runner import Group, Job, RunEnd
from hwsync.testing.context import Context
from hwsync.testing.devices import Device, Session
from hwsync.testing.history import JournalLost
from hwsync.transport import Delivery, Disconnected, Signal, Subscribed


class Microcontroller(Device):
    """Everything that it knows is in its memory."""

    points = (
        *("before a device's publish", "after a device's publish"),
        *("before a device's acknowledgement", "after a device's acknowledgement"),
        *("before a process starts", "after a process starts"),
    )

    def __init__(self, context: Context, name: str, user: str) -> None:
        super().__init__(context, name, user)
        self._name = ""

    def begin(self) -> None:
        self._name = f"m-{self.context.nonce()}"
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
                job = Job(
                    *(waiting.program, waiting.stdin, waiting.args, waiting.timeout),
                    name=waiting.name,
                    grace=waiting.grace,
                )
                self.start_run(job, waiting.id)
            elif (status.id, status.state) != (waiting.id, 1):
                self._refuses(waiting)
        elif waiting is not None and self.context.now - self._since >= limits.UNKNOWN_S:
            self._refuses(waiting)

    def _refuses(self, envelope: Envelope) -> None:
        self._waiting = None
        self._refused.add(envelope.id)
        self._result(envelope.id, Account(Outcome.REJECTED, Ran.NO, "not granted"))

    def written(self, session: Session) -> None:
        self.hand_over(session)

    def ended(self, session: Session, end: RunEnd) -> None:
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
