"""One user's device: it has its core decide, and does what follows (docs/protocol.md, section 5).

The law: what must outlive a crash is on disk before anything is said or begun, and a message is
acknowledged after that. What is decided stands in ``protocol.device``. One thread calls this; the
network, the clocks, the dice and the runner are handed in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from hwsync.device.deeds import Deeds, Subject
from hwsync.device.environment import Environment
from hwsync.device.former import Former
from hwsync.device.instants import LabClock, is_certain
from hwsync.device.keeping import STAGES, Keeping
from hwsync.device.lab_clock import BoardClock
from hwsync.device.no_journal import AnyJournal
from hwsync.device.publishing import CommandPublisher, Heartbeat
from hwsync.device.trust import Doubt, Trust
from hwsync.protocol import limits
from hwsync.protocol.device import core, values
from hwsync.protocol.device.values import Decision, Event, Moment, Offered, StatusReceived
from hwsync.protocol.errors import JournalError
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.envelope import Envelope, read_envelope, read_seal
from hwsync.protocol.wire.response import encode_output
from hwsync.protocol.wire.status import StatusHead, read_status
from hwsync.runner import Group, Piece, RunEnd
from hwsync.transport import Disconnected, Signal

log = logging.getLogger("hwsync.device")

MAX_PIECE: Final = 96 * limits.KIB  # bytes of live output at once; escapes make it larger than that
PRUNE_S: Final = 60.0  # between two looks for what the journal need not keep
REFUSALS: Final = 20  # commands that are refused from memory at the same time; more are passed over
PROBE_S: Final = 10.0  # between two attempts to write, while the journal cannot be written

GIVEN_UP: Final[Mapping[type[Event], str]] = {
    Offered: "refused",
    StatusReceived: "nothing begins, and nobody is believed, until then",
}
"""What becomes of an event that the journal refuses."""


class Agent:
    """One user's device. Its construction ends leftovers and settles what a crash left open.

    For one thread, which brings it what came (``note_connection``, ``received``), calls
    ``connected`` at each ``Subscribed``, and ``tick`` when that says. ``max_timeout``: seconds that
    a program may ask for, where less than the protocol allows; ``trust``: whose signatures count,
    None: whatever comes may run; ``max_message``: bytes that the broker takes.

    Construction, ``connected``, ``tick`` and ``run_started`` raise ``JournalError`` where what must
    be on disk cannot be: nothing was said or begun then, and it is tried again (``life.handle``).
    """

    def __init__(
        self,
        user: str,
        topics: Topics,
        journal: AnyJournal,
        environment: Environment,
        *,
        max_timeout: float | None = None,
        trust: Trust | None = None,
        max_message: int = limits.MAX_MESSAGE,
        clock: LabClock | None = None,
    ) -> None:
        self._user = user
        self._topics = topics
        self._journal = journal
        self._environment = environment
        self._trust = trust  # None: whatever comes on its topic may run
        self._state = values.State()
        self._keeping = Keeping(journal, environment.monotonic)
        self._unwritten = self._keeping.unwritten
        self._clock = clock or BoardClock(user, topics, environment)
        self._deeds = Deeds(user, journal, environment, self._keeping, max_timeout, self._clock)
        self._probe_at: float | None = None
        self._recover()
        self._former = Former(user, self._users(), environment)
        self._publisher = CommandPublisher(topics, journal, environment, self._former, max_message)
        unsettled = self._keeping.unsettled
        self._heartbeat = Heartbeat(
            user, topics, journal, environment, self._former, unsettled, self._clock
        )
        self._deeds.publish_with(self._former, self._publisher, self._heartbeat)

    @property
    def former_names(self) -> tuple[str, ...]:
        """As this board was called before: what their statuses say is wanted, too."""
        return self._former.names

    @property
    def busy(self) -> str | None:
        """The id that waits or runs."""
        return self._state.id or None

    @property
    def running(self) -> bool:
        """Whether a granted run is not yet journalled to its end: nobody may end this process."""
        return self._state.runs or self._unwritten.waits

    @property
    def seen(self) -> tuple[int, int]:
        """(epoch, seq) of the newest status in this life."""
        return self._state.newest

    @property
    def needs_reopening(self) -> bool:
        """Whether only another opening of the journal helps; better once it is ``idle``."""
        return self._journal.needs_reopening

    @property
    def idle(self) -> bool:
        """Whether nothing waits, runs or is unsettled, as far as the journal can be read."""
        if self.busy is not None or self._unwritten.unsettled():
            return False
        return self._journal.needs_reopening or not self._journal.unsettled()

    def _recover(self) -> None:
        for entry in self._journal.open_entries():
            renamed = "" if entry.envelope.user == self._user else self._user
            held, self._deeds.hand = self._deeds.hand, entry
            self._happen(
                values.Restored(
                    *(entry.id, STAGES[entry.stage], entry.order),
                    renamed=renamed,
                    timed=entry.envelope.start is not None,
                )
            )
            if self._state.id != entry.id:
                self._deeds.hand = held
        self._prune()

    def _users(self) -> list[str]:
        try:
            return self._journal.users()
        except JournalError as error:
            log.error("%s; results under earlier names are told when it can be read", error)
            return []

    # -- deciding and doing --------------------------------------------------------------------

    def _happen(self, event: Event, subject: Subject = None) -> Decision:
        """Have it decided; write, and only then do and say the rest.

        ``subject``: what the event is about, beside what the core knows. Raises ``JournalError``
        where the core insists on what the journal refuses.
        """
        moment = Moment(self._environment.monotonic(), self._environment.random())
        decision = core.decide(self._state, event, moment)
        try:
            for action in decision.writes:
                self._deeds.do(action, subject, self._state)
        except JournalError as error:
            event.unwritten = error.message
            decision = core.decide(self._state, event, moment)
            if decision.writes:
                raise
            log.error("%s; %s", error, GIVEN_UP[type(event)])
        before, self._state = self._state, decision.state
        if self._state.stage == values.ENDING != before.stage:
            log.info("stopped: cancelled or no longer granted", extra={"id": self._state.id})
        for action in decision.actions:
            followed = self._deeds.do(action, subject, self._state)
            if followed is not None:
                self._happen(followed)
        return decision

    # -- the network ---------------------------------------------------------------------------

    def note_connection(self, signal: Signal) -> None:
        """The connection came or went: ``Connected``, ``Subscribed`` or ``Disconnected``."""
        self._publisher.outbox.note_connection(signal)
        if isinstance(signal, Disconnected):
            self._clock.disconnected()

    def connected(self) -> None:
        """Subscribed anew: everything that is due is said again."""
        self._clock.connected()
        self._happen(values.Connected())

    def received(
        self,
        topic: str,
        payload: bytes,
        acknowledge: Callable[[], None],
        *,
        retain: bool = False,
        read_us: int = 0,
    ) -> None:
        """A message; it is acknowledged once what must outlive us is on disk.

        ``read_us``: when it was read from the socket, in microseconds of the raw clock.
        What could not be kept is acknowledged too: an envelope is sent again while its command
        waits, a status at each change; unacknowledged ones would fill the broker's window.
        """
        user, kind = self._topics.split(topic)
        try:
            if kind is TopicKind.STATUS and (status := read_status(payload)) is not None:
                if user == self._user:
                    self._receive_status(status)
                else:
                    self._receive_former_status(user, status)
            elif kind is TopicKind.CLOCK_REPLY and user == self._user and not retain:
                if self._clock.heard(payload, read_us):
                    self.clock_changed()
            elif kind is TopicKind.ENVELOPE and user == self._user:
                envelope = read_envelope(payload)
                if envelope is not None and (self._trust or envelope.user == self._user):
                    self._receive_envelope(*self._doubt(envelope, payload))
        except JournalError as error:
            log.error("%s; what this message said is not kept, it comes again", error)
        except Exception:
            log.exception("hwsync failed on a message on %s; this is a bug", topic)
        acknowledge()

    def _doubt(self, envelope: Envelope, payload: bytes) -> tuple[Envelope, Doubt | None]:
        """The envelope, with the key that is now known to have signed it, or what is against it."""
        if self._trust is None:
            return envelope, None
        name, newest, wall = self._journal.name, self._journal.newest, self._environment.wall()
        seal = read_seal(payload)
        doubt = self._trust.doubt(envelope, seal, name, newest, wall)
        key = seal.key if seal and not doubt else ""
        return replace(envelope, signed_by=key), doubt

    def _receive_envelope(self, envelope: Envelope, doubt: Doubt | None) -> None:
        if envelope.max_message is not None and doubt is None:
            self._publisher.outbox.capacity.limit_reported(envelope.max_message)
        answer = doubt is None or doubt.answer
        event = Offered(
            envelope.id,
            (envelope.epoch, envelope.seq),
            self._keeping.known(envelope.id, self._user),
            doubt=doubt.reason if doubt else "",
            answer=answer and self._unwritten.refusals < REFUSALS,
            signed=self._trust is not None,
            timed=envelope.start is not None,
        )
        self._happen(event, envelope)

    def _receive_status(self, status: StatusHead) -> None:
        while self._happen(self._status_event(status)).again:
            pass
        self._aim()

    def _status_event(self, status: StatusHead) -> StatusReceived:
        own = values.Own(self._journal.name, self._journal.boot, self._journal.epoch)
        distrust = ""
        hand = self._deeds.hand
        if self._trust is not None and hand is not None:
            distrust = self._trust.at_grant(hand.envelope, self._environment.wall())
        return StatusReceived(
            own,
            status.order,
            (status.id, status.state, status.journal, status.boot),
            cancelling=status.cancelling,
            settled=self._keeping.settled(status, self._user),
            distrust=distrust,
            start=(status.start_at_us, status.start_life),
            clock_life=self._clock.life,
        )

    def _receive_former_status(self, user: str, status: StatusHead) -> None:
        first = not self._former.may_publish(user)
        if self._former.note(user, status, self._journal.epoch):
            settled = self._keeping.settled(status, user)
            self._happen(values.FormerStatusReceived(settled, first=first))

    # -- the run -------------------------------------------------------------------------------

    def run_started(self, group: Group) -> None:
        """The session exists, the program is not handed over.

        Raises ``JournalError``: then it must not be, and ``run_failed`` follows.
        """
        self._happen(values.Started(), group)

    def run_prepared(self, group: Group) -> None:
        """Its process is ready, and waits for its grant and its instant."""
        self._deeds.group = group
        self._happen(values.Prepared(certain=self._is_certain()))

    def clock_changed(self) -> None:
        """An answer to what time it is came: more is known of lab time, or it began anew."""
        self._happen(values.ClockChanged(self._clock.life, certain=self._is_certain()))
        self._aim()

    def _is_certain(self) -> bool:
        start = self._deeds.hand.envelope.start if self._deeds.hand else None
        return start is not None and is_certain(self._clock, start.within, start.start_life)

    def _aim(self) -> None:
        """Say when the instant is, as it is known now."""
        if self._state.stage == values.ARMED:
            when = self._deeds.instant(self._state)
            if when is not None:
                self._environment.aim_run(when)

    def output(self, piece: Piece) -> None:
        """One live piece; dropped where it is too large for the broker, or the run is over."""
        if self._state.runs:
            payload = encode_output(
                self._state.id, piece.number, piece.stream, piece.text, piece.at, piece.skipped
            )
            if len(payload) <= min(MAX_PIECE, self._publisher.outbox.limit):
                self._environment.publish(
                    self._topics.of(self._user, TopicKind.OUTPUT), payload, qos=0
                )

    def run_ended(self, end: RunEnd) -> None:
        """The run is over: what the disk does not take of it is kept and told all the same."""
        self._happen(values.Ended(end.outcome, end.reason, began=end.began), end)

    def run_failed(self, reason: str) -> None:
        """The program could not be prepared, started or released: it surely did not run."""
        self._happen(values.NotStarted(reason[: limits.MAX_REASON]))

    # -- what is due ---------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due; seconds until the next."""
        now = self._environment.monotonic()
        self._probe(now)
        if self._prune_at <= now:
            self._prune()
        self._heartbeat.tick(self._state, now)
        said_again = core.due_at(self._state)
        if said_again is not None and said_again <= now:
            self._happen(values.Tick())
        if self._former.report_at is not None and self._former.report_at <= now:
            self._former.report(self._former.waiting(self._keeping.unsettled()))
        self._publisher.outbox.flush()
        times = (
            *(self._heartbeat.at, self._prune_at, self._probe_at, self._former.report_at),
            core.due_at(self._state),
        )
        pause = max(0.0, min(at for at in times if at is not None) - now)
        waits = (self._publisher.outbox.wait(), self._clock.tick())
        return min((wait for wait in waits if wait is not None and wait < pause), default=pause)

    def _prune(self) -> None:
        self._prune_at = self._environment.monotonic() + PRUNE_S
        try:
            self._journal.prune(self._environment.monotonic())
        except JournalError as error:
            log.error("%s; old entries stay", error)

    def _probe(self, now: float) -> None:
        """Whether a journal that could not be written can be again."""
        if not self._journal.refusal or self._journal.needs_reopening:
            self._probe_at = None
        elif self._probe_at is None:
            self._probe_at = now + PROBE_S
        elif self._probe_at <= now:
            self._probe_at = now + PROBE_S
            try:
                self._journal.probe()
            except JournalError as error:
                log.debug("%s", error)
            else:
                self._keeping.write()

    def stopping(self) -> None:
        """A clean stop begins: nothing new is begun; what runs may end by itself."""
        self._happen(values.Stopping())

    def end_run(self) -> None:
        """The time of a program that runs is over; ``run_ended`` still comes."""
        self._happen(values.TimeOver())

    def stopped(self) -> None:
        """The last word, after ``running`` has become false: a heartbeat that says it leaves."""
        self._heartbeat.publish(self._state, online=False)
