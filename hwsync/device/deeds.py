"""What the core wants done, done: with journal, runner and network (``protocol.device.values``).

The law: nothing is decided here. What the journal may refuse in ``Decision.writes`` raises; all
else that it refuses is logged and tried again later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from hwsync.device.environment import Environment
from hwsync.device.former import Former
from hwsync.device.instants import MICRO, NS, LabClock, instant
from hwsync.device.journal import JournalEntry, Stage
from hwsync.device.keeping import Keeping
from hwsync.device.no_journal import AnyJournal
from hwsync.device.publishing import CommandPublisher, Heartbeat
from hwsync.protocol import limits
from hwsync.protocol.device import values
from hwsync.protocol.device.clock import Estimate
from hwsync.protocol.device.values import Action, Event, State
from hwsync.protocol.errors import JournalError
from hwsync.protocol.record import Outcome, Ran, RunReport
from hwsync.protocol.wire.envelope import Envelope
from hwsync.protocol.wire.ran_on import read_ran_on
from hwsync.protocol.wire.response import fit
from hwsync.runner import Group, Instant, Job, RunEnd

log = logging.getLogger("hwsync.device")

Subject = Envelope | Group | RunEnd | None  # what an event is about, beside what the core knows
Deed = Callable[[Action, Subject, State], Event | None]


class Deeds:
    """Of one life. ``hand``: the command in hand, as it was received."""

    def __init__(
        self,
        user: str,
        journal: AnyJournal,
        environment: Environment,
        keeping: Keeping,
        max_timeout: float | None,
        clock: LabClock,
    ) -> None:
        self._user = user
        self._journal = journal
        self._environment = environment
        self._keeping = keeping
        self._max_timeout = max_timeout
        self._clock = clock
        self._estimate: Estimate | None = None  # of lab time, when the run began
        self._start_at = 0  # the instant of the command in hand, in microseconds of lab time
        self._former: Former
        self._publisher: CommandPublisher
        self._heartbeat: Heartbeat
        self.hand: JournalEntry | None = None
        self.group: Group | None = None  # of what is prepared
        self._deeds: Final[Mapping[str, Deed]] = {
            values.NEXT_BOOT: self._next_boot,
            values.WRITE_RECEIVED: self._write_received,
            values.WRITE_STARTED: self._write_started,
            values.WRITE_EPOCH: self._write_epoch,
            values.NOTE_DEAFNESS: self._note_deafness,
            values.BEGIN_EPOCH: self._begin_epoch,
            values.KEEP_REFUSED: self._keep_refused,
            values.WRITE_END: self._write_end,
            values.WRITE_SETTLED: self._write_settled,
            values.RETRY_WRITES: self._retry_writes,
            values.BEGIN_CONNECTION: self._begin_connection,
            values.PUBLISH_HEARTBEAT: self._publish_heartbeat,
            values.PUBLISH_COLLECTED: self._publish_collected,
            values.PUBLISH_RESULT: self._publish_result,
            values.PUBLISH_RESULTS: self._publish_results,
            values.PUBLISH_RESULTS_AGAIN: self._publish_results_again,
            values.NOTE_ANSWER: self._note_answer,
            values.NOTE_REFUSAL: self._note_refusal,
            values.START_RUN: self._start_run,
            values.STOP_RUN: self._stop_run,
            values.PREPARE_RUN: self._prepare_run,
            values.DROP_RUN: self._drop_run,
            values.ARM_RUN: self._arm_run,
            values.DISARM_RUN: self._disarm_run,
            values.END_LEFTOVERS: self._end_leftovers,
        }

    def publish_with(
        self, former: Former, publisher: CommandPublisher, heartbeat: Heartbeat
    ) -> None:
        """From now on something can be said; before, only what a crash left is ended."""
        self._former, self._publisher, self._heartbeat = former, publisher, heartbeat

    def do(self, action: Action, subject: Subject, state: State) -> Event | None:
        """One thing; what follows from it for the core, if anything. Raises ``JournalError``."""
        return self._deeds[action.do](action, subject, state)

    # -- in the journal ------------------------------------------------------------------------

    def _next_boot(self, _: Action, __: Subject, ___: State) -> None:
        self._journal.next_boot()

    def _write_received(self, _: Action, envelope: Subject, __: State) -> None:
        assert isinstance(envelope, Envelope)
        self._journal.received(envelope, self._environment.monotonic())
        self._keeping.unwritten.forget(envelope.id)
        self.hand = JournalEntry(
            envelope.id, Stage.RECEIVED, envelope, None, None, None, settled=False
        )

    def _keep_refused(self, action: Action, envelope: Subject, _: State) -> None:
        assert isinstance(envelope, Envelope)
        ours = replace(envelope, user=self._user)  # whoever it says it is for
        self.hand = self._keeping.unwritten.refuse(ours, action.reason)

    def _write_started(self, action: Action, subject: Subject, _: State) -> None:
        group = subject if isinstance(subject, Group) else self.group
        assert group is not None
        self._estimate = self._clock.estimate()  # as it is known then: a run may last for days
        self._journal.started(action.id, group, self._environment.monotonic())

    def _write_end(self, action: Action, end: Subject, _: State) -> None:
        report = RunReport(Outcome(action.outcome), Ran(action.ran), action.reason)
        if isinstance(end, RunEnd):
            started, start_error, clock_bound = self._started(end)
            report = replace(
                report,
                response=end.response,
                stderr=end.stderr,
                exit_code=end.exit_code,
                duration=end.duration,
                started=started,
                start_error=start_error,
                clock_bound=clock_bound,
                truncated=end.truncated,
                sha256_stdout=end.sha256_stdout,
                sha256_stderr=end.sha256_stderr,
                order=end.order,
                files=end.files,
                not_kept=end.not_kept,
                ran_on=read_ran_on(self._environment.ran_on()) if end.began else "",
            )
            report = fit(report, self._publisher.outbox.capacity.sure)
        assert self.hand is not None
        if self.hand.envelope.start is not None:
            self._clock.awaits(None)
        self._keeping.end(self.hand, report, action.order)
        self.hand = None

    def _started(self, end: RunEnd) -> tuple[float, float | None, float | None]:
        """``started``, ``start_error``, ``clock_bound``: in lab time where that is known, else by
        this device's own clock.
        """
        if end.lab_us is not None and end.bound_us is not None:
            error = (end.lab_us - self._start_at) / MICRO
            return end.lab_us / MICRO, error, end.bound_us / MICRO
        estimate = self._estimate
        if estimate is None or end.raw_us is None:
            return end.started, None, None
        bound = estimate.bound_at(end.raw_us) / MICRO
        return estimate.lab_us(end.raw_us) / MICRO, None, bound

    def _write_settled(self, action: Action, _: Subject, __: State) -> None:
        self._keeping.settle(action.id)

    def _retry_writes(self, _: Action, __: Subject, ___: State) -> None:
        self._keeping.write()

    def _write_epoch(self, action: Action, _: Subject, __: State) -> None:
        self._journal.begin_epoch(action.number)

    def _begin_epoch(self, action: Action, _: Subject, __: State) -> None:
        log.warning(
            "epoch %d begins: an older database was put back at the coordinator, or it is a "
            "new one; the results that this device holds are told again",
            action.number,
        )
        try:
            self._journal.begin_epoch(action.number)
        except JournalError as error:
            log.error("%s; the new epoch is written with a later status", error)

    # -- on the network, and in the log --------------------------------------------------------

    def _begin_connection(self, _: Action, __: Subject, ___: State) -> None:
        self._publisher.shrinking.begin()
        self._former.begin()

    def _publish_heartbeat(self, _: Action, __: Subject, state: State) -> None:
        self._heartbeat.publish(state)

    def _publish_collected(self, action: Action, _: Subject, __: State) -> None:
        self._publisher.collected(self._user, action.id)

    def _publish_result(self, action: Action, _: Subject, __: State) -> None:
        entry = self._keeping.get(action.id)
        if entry:
            self._publisher.result(entry)

    def _publish_results(self, _: Action, __: Subject, ___: State) -> None:
        self._publisher.results(self._keeping.unsettled())

    def _publish_results_again(self, _: Action, __: Subject, ___: State) -> Event | None:
        published = self._publisher.results(self._keeping.unsettled())
        return None if published or self._keeping.unwritten.waits else values.Owed(any=False)

    def _note_answer(self, action: Action, _: Subject, __: State) -> Event | None:
        for id in action.ids:
            self._publisher.shrinking.forget(id)
        return values.Owed(any=True) if self._publisher.shrinking.answered() else None

    def _note_refusal(self, action: Action, _: Subject, __: State) -> None:
        log.warning("not run: %s", action.reason, extra={"id": action.id})

    def _note_deafness(self, action: Action, _: Subject, state: State) -> None:
        log.error(
            "for %.0f s nothing but statuses older than (%d, %d) was heard, which this device has "
            "seen: that one was forged, or the coordinator's database was put back and its clock "
            "is wrong. From now on (%d, %d) is believed; hwsync doctor %s looks for the cause",
            *(limits.DEAF_S, *state.newest, *(action.order or ()), self._user),
        )

    # -- the run -------------------------------------------------------------------------------

    def _start_run(self, action: Action, _: Subject, __: State) -> None:
        self._environment.start_run(self._job(), action.id)

    def _job(self) -> Job:
        assert self.hand is not None
        envelope = self.hand.envelope
        timeout = min(envelope.timeout, self._max_timeout or envelope.timeout)
        return Job(
            *(envelope.program, envelope.stdin, envelope.args, timeout),
            name=envelope.name,
            grace=envelope.grace,
            files=envelope.files,
            collect=envelope.collect,
        )

    def _prepare_run(self, action: Action, _: Subject, __: State) -> None:
        assert self.hand is not None
        start = self.hand.envelope.start
        assert start is not None
        self._clock.announced(together=start.together)
        self._environment.prepare_run(self._job(), action.id)

    def _drop_run(self, _: Action, __: Subject, ___: State) -> None:
        self._environment.drop_run()
        self._clock.awaits(None)

    def _arm_run(self, action: Action, _: Subject, state: State) -> None:
        self._start_at = action.number
        when = self.instant(state)
        if when is None:  # the clock has begun anew since the core asked for its life
            self._environment.disarm_run()
            when = Instant(action.number, 0)
        self._environment.arm_run(when)

    def instant(self, state: State) -> Instant | None:
        """Of the command in hand, as it is known now; None where its life's time is not known."""
        assert self.hand is not None
        start = self.hand.envelope.start
        assert start is not None
        assert state.start_at is not None
        when = instant(self._clock, state.start_at, state.life, start.within, state.newest)
        if when is not None:
            self._clock.awaits(when.raw_ns // NS)
        return when

    def _disarm_run(self, _: Action, __: Subject, ___: State) -> None:
        self._environment.disarm_run()

    def _stop_run(self, _: Action, __: Subject, ___: State) -> None:
        self._environment.stop_run()

    def _end_leftovers(self, action: Action, _: Subject, __: State) -> None:
        group = self.hand.group if self.hand else None
        ended = self._environment.end_leftovers(group) if group else 0
        log.warning("interrupted; %d processes left of it ended", ended, extra={"id": action.id})
