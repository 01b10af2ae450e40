"""A device without a journal: a fresh name at each start, and a crash ends as ``lost``.

It does what docs/protocol.md, section 5, asks of whoever runs programs by itself and keeps nothing.

The law: ``hwsync.protocol.device`` decides, as on any other device; here only memory is written.
"""

from __future__ import annotations

from hwsync import __version__
from hwsync.protocol import limits
from hwsync.protocol.device import core, values
from hwsync.protocol.device.values import (
    Action,
    Event,
    Known,
    Moment,
    Offered,
    Own,
    State,
    StatusReceived,
)
from hwsync.protocol.record import Outcome, Ran, RunReport
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.envelope import Envelope, read_envelope
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.protocol.wire.response import encode_collected, encode_response
from hwsync.protocol.wire.status import StatusHead, read_status
from hwsync.runner import Group, Job, RunEnd
from hwsync.testing.context import Context
from hwsync.testing.devices import Device, Session
from hwsync.testing.history import JournalLost
from hwsync.transport import Delivery, Disconnected, Signal, Subscribed


class Microcontroller(Device):
    """Everything that it knows is in its memory, which has room for one command and its result."""

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
        self._epoch = 0
        self._state = State()
        self._envelope: Envelope | None = None
        self._known: dict[str, Known] = {}
        self._results: dict[str, bytes] = {}
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
        return self.alive and bool(self._state.id or self.session or self._results)

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
        again = core.due_at(self._state)
        if again is not None and now >= again:
            self._happen(values.Tick())
        if now >= self._beat_at:
            self._beat()
        again = core.due_at(self._state)
        return max(min(self._beat_at, self._beat_at if again is None else again) - now, 0.0)

    def _hear(self, signal: Signal) -> None:
        if isinstance(signal, Subscribed):
            self._happen(values.Connected())
        elif isinstance(signal, Delivery):
            _, kind = self.topics.split(signal.topic)
            if kind is TopicKind.ENVELOPE:
                envelope = read_envelope(signal.payload)
                if envelope and envelope.user == self.user and envelope.start is None:
                    self._offered(envelope)
            elif kind is TopicKind.STATUS:
                status = read_status(signal.payload)
                while status is not None and self._status_event(status):
                    pass
            self.acknowledge(signal)
        else:
            assert not isinstance(signal, Disconnected) or self.port is not None

    def _offered(self, envelope: Envelope) -> None:
        order, known = (envelope.epoch, envelope.seq), self._known.get(envelope.id)
        self._happen(Offered(envelope.id, order, known, room=not self._results), envelope)

    def _status_event(self, status: StatusHead) -> bool:
        """Whether it is to be heard once more."""
        pairs = [id for id, journal in status.settled if journal == self._name]
        return self._happen(
            StatusReceived(
                Own(self._name, self._boot, self._epoch),
                status.order,
                (status.id, status.state, status.journal, status.boot),
                cancelling=status.cancelling,
                settled=tuple(self._known[id] for id in pairs if id in self._known),
            )
        )

    def written(self, session: Session) -> None:
        self._happen(values.Started())
        self.hand_over(session)

    def ended(self, session: Session, end: RunEnd) -> None:
        if self.session is not session:
            return
        self.session = None
        if end.began:
            self.saw_the_end(session.run)
        self._happen(values.Ended(end.outcome, end.reason, began=end.began), end)

    def _happen(self, event: Event, subject: Envelope | RunEnd | None = None) -> bool:
        moment = Moment(self.context.now, self.random())
        decision = core.decide(self._state, event, moment)
        for action in decision.writes:
            self._write(action, subject)
        self._state = decision.state
        for action in decision.actions:
            self._write(action, subject)
            self._say(action)
            if action.do == values.START_RUN:
                self._start()
            elif action.do == values.STOP_RUN:
                self.stop_run()
        return decision.again

    def _write(self, action: Action, subject: Envelope | RunEnd | None) -> None:
        """In memory."""
        if action.do == values.NEXT_BOOT:
            self._boot += 1
        elif action.do in (values.WRITE_EPOCH, values.BEGIN_EPOCH):
            self._epoch = action.number
        elif action.do == values.WRITE_RECEIVED:
            assert isinstance(subject, Envelope)
            self._envelope = subject
            self._known.pop(action.id, None)
        elif action.do == values.WRITE_END:
            report = RunReport(Outcome(action.outcome), Ran(action.ran), action.reason)
            if isinstance(subject, RunEnd):
                report = RunReport(
                    *(report.outcome, report.ran, report.reason),
                    response=subject.response,
                    exit_code=subject.exit_code,
                )
            closed = action.order is not None
            stage = values.CLOSED if closed else values.FINISHED
            self._known[action.id] = Known(action.id, stage, action.order, was_closed=closed)
            self._results[action.id] = encode_response(action.id, self._name, self._boot, report)
            self._envelope = None
        elif action.do == values.WRITE_SETTLED and self._results.pop(action.id, None) is not None:
            before = self._known[action.id]
            self._known[action.id] = Known(
                action.id, values.SETTLED, before.closing, was_closed=before.was_closed
            )
            # It keeps nothing for a database that is put back later.
            self.context.see(JournalLost(self.context.now, self.user, self._name))

    def _say(self, action: Action) -> None:
        if action.do == values.PUBLISH_HEARTBEAT:
            self._beat()
        elif action.do == values.PUBLISH_COLLECTED:
            payload = encode_collected(action.id, self._name, self._boot)
            self.publish(self.topics.of(self.user, TopicKind.COLLECTED), payload)
        elif action.do == values.PUBLISH_RESULT and action.id in self._results:
            self.publish(self.topics.of(self.user, TopicKind.RESPONSE), self._results[action.id])
        elif action.do in (values.PUBLISH_RESULTS, values.PUBLISH_RESULTS_AGAIN):
            for payload in list(self._results.values()):
                self.publish(self.topics.of(self.user, TopicKind.RESPONSE), payload)
            if not self._results:
                self._happen(values.Owed(any=False))

    def _start(self) -> None:
        envelope = self._envelope
        assert envelope is not None
        job = Job(
            *(envelope.program, envelope.stdin, envelope.args, envelope.timeout),
            name=envelope.name,
            grace=envelope.grace,
        )
        self.start_run(job, envelope.id)

    def _beat(self) -> None:
        payload = encode_heartbeat(
            online=True,
            journal=self._name,
            boot=self._boot,
            seen=self._state.newest,
            version=__version__,
        )
        self.publish(self.topics.of(self.user, TopicKind.HEARTBEAT), payload, retain=True)
        self._beat_at = self.context.now + limits.HEARTBEAT_S
