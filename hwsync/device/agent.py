"""What a device decides (docs/protocol.md, section 5).

The law: only the grant starts a program, ``started`` is in the journal before it is handed over,
and a result is repeated until it is settled. What cannot be written as received is refused: it is
collected, and rejected at its grant. One thread calls this; the network, the clocks, the dice and
the runner are handed in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from hwsync import __version__
from hwsync.device.backoff import Backoff
from hwsync.device.former import Former
from hwsync.device.freshness import Freshness
from hwsync.device.journal import Entry, Stage
from hwsync.device.no_journal import AnyJournal
from hwsync.device.shrinking import Shrinking
from hwsync.device.trust import Doubt, Trust
from hwsync.device.unwritten import Unwritten
from hwsync.protocol import limits
from hwsync.protocol.errors import JournalError
from hwsync.protocol.record import RAN_BY_OUTCOME, Account, Outcome, Ran
from hwsync.protocol.topics import Kind, Topics
from hwsync.protocol.wire import (
    Envelope,
    Status,
    encode_collected,
    encode_heartbeat,
    encode_output,
    encode_result,
    read_envelope,
    read_seal,
    read_status,
)
from hwsync.runner import Group, Job, Piece, RunEnd
from hwsync.transport import Signal
from hwsync.transport.capacity import Capacity
from hwsync.transport.outbox import Message, Outbox, Publisher

log = logging.getLogger("hwsync.device")

MAX_PIECE: Final = 96 * limits.KIB  # bytes of live output at once; escapes make it larger than that
PRUNE_S: Final = 60.0  # between two looks for what the journal need not keep
REFUSALS: Final = 20  # commands that are refused from memory at the same time; more are passed over
PROBE_S: Final = 10.0  # between two attempts to write, while the journal cannot be written


class Outside(Publisher, Protocol):
    """Everything that the agent cannot do itself. Times are seconds."""

    def start_run(self, job: Job, id: str) -> None:
        """Returns at once; ``run_started`` and then ``run_ended`` or ``run_failed`` follow."""

    def stop_run(self) -> None:
        """End the run under way."""

    def end_leftovers(self, group: Group) -> int:
        """End what an earlier life left running; how many processes."""

    def refusal(self) -> str:
        """Why no program can be run, whatever it is; empty where one can."""

    def presence(self) -> Mapping[str, Any]:
        """What the heartbeat says of the board."""

    def wall(self) -> float: ...

    def monotonic(self) -> float: ...

    def random(self) -> float:
        """From 0 to 1."""


class Agent:
    """One user's device. Its construction ends leftovers and settles what a crash left open."""

    def __init__(
        self,
        user: str,
        topics: Topics,
        journal: AnyJournal,
        outside: Outside,
        *,
        max_timeout: float | None = None,
        trust: Trust | None = None,
        max_message: int = limits.MAX_MESSAGE,
    ) -> None:
        self._user = user
        self._topics = topics
        self._journal = journal
        self._outside = outside
        self._max_timeout = max_timeout
        self._trust = trust  # None: whatever comes on its topic may run
        self._fresh = Freshness()
        self._waiting: Entry | None = None  # collected, no grant yet
        self._running: Entry | None = None  # granted
        self._cancelling = False
        self._stopping = False
        self._unwritten = Unwritten()
        self._outbox = Outbox(outside, Capacity(max_message), outside.monotonic)
        self._shrinking = Shrinking()
        self._collect = Backoff(outside)
        self._results = Backoff(outside)
        self._heartbeat_at = outside.monotonic()
        self._probe_at: float | None = None
        self._refusing = self._refusal()  # as the last heartbeat said
        self._recover()
        self._former = Former(user, self._users(), outside)

    @property
    def former_names(self) -> tuple[str, ...]:
        """As this board was called before: what their statuses say is wanted, too."""
        return self._former.names

    @property
    def busy(self) -> str | None:
        """The id that waits or runs."""
        entry = self._running or self._waiting
        return entry.id if entry else None

    @property
    def running(self) -> bool:
        """Whether a granted run is not yet journalled to its end."""
        return self._running is not None or self._unwritten.waits

    @property
    def over(self) -> bool:
        """Whether only another opening of the journal helps; better once it is ``idle``."""
        return self._journal.over

    @property
    def idle(self) -> bool:
        """Whether nothing waits, runs or is unsettled, as far as the journal can be read."""
        if self.busy is not None or self._unwritten.unsettled():
            return False
        return self._journal.over or not self._journal.unsettled()

    def _recover(self) -> None:
        entries = self._journal.open_entries()
        for entry in entries:
            if entry.stage is Stage.STARTED:
                ended = self._outside.end_leftovers(entry.group) if entry.group else 0
                log.warning(
                    "interrupted; %d processes left of it ended", ended, extra={"id": entry.id}
                )
                account = Account(Outcome.INTERRUPTED, Ran.MAYBE, "the device stopped mid-run")
                self._end(entry, account)
            elif entry.envelope.user != self._user:
                reason = f"this board is called {self._user} now"
                self._end(entry, Account(Outcome.REJECTED, Ran.NO, reason), entry.order)
            else:
                self._waiting = entry
        self._prune()

    def _users(self) -> list[str]:
        try:
            return self._journal.users()
        except JournalError as error:
            log.error("%s; results under earlier names are told when it can be read", error)
            return []

    # -- the network ---------------------------------------------------------------------------

    def hear(self, signal: Signal) -> None:
        """The connection came or went."""
        self._outbox.hear(signal)

    def connected(self) -> None:
        """Subscribed anew: everything that is due is said again."""
        self._shrinking.begin()
        self._former.begin()
        self._heartbeat()
        if self._waiting:
            self._send_collected()
            self._collect.begin()
        self._send_results()
        self._results.begin()

    def received(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """A message; it is acknowledged once what must outlive us is on disk.

        What could not be kept is acknowledged too: an envelope is sent again while its command
        waits, a status at each change; unacknowledged ones would fill the broker's window.
        """
        user, kind = self._topics.split(topic)
        try:
            if user != self._user:
                if kind is Kind.STATUS and (status := read_status(payload)) is not None:
                    self._heard_of_former(user, status)
            elif kind is Kind.COMMAND:
                envelope = read_envelope(payload)
                if envelope is not None and (self._trust or envelope.user == self._user):
                    self._heard_envelope(*self._doubt(envelope, payload))
            elif kind is Kind.STATUS:
                status = read_status(payload)
                if status is not None:
                    self._heard_status(status)
        except JournalError as error:
            log.error("%s; what this message said is not kept, it comes again", error)
        except Exception:
            log.exception("hwsync failed on a message on %s; this is a bug", topic)
        acknowledge()

    def _doubt(self, envelope: Envelope, payload: bytes) -> tuple[Envelope, Doubt | None]:
        """The envelope, with the key that is now known to have signed it, or what is against it."""
        if self._trust is None:
            return envelope, None
        name, newest, wall = self._journal.name, self._journal.newest, self._outside.wall()
        seal = read_seal(payload)
        doubt = self._trust.doubt(envelope, seal, name, newest, wall)
        key = seal.key if seal and not doubt else ""
        return replace(envelope, signed_by=key), doubt

    def _heard_envelope(self, envelope: Envelope, doubt: Doubt | None) -> None:
        if envelope.max_message is not None and doubt is None:
            self._outbox.capacity.told(envelope.max_message)
        known = self._get(envelope.id)
        order = (envelope.epoch, envelope.seq)
        if self._running and self._running.id == envelope.id:
            return
        if known and known.stage is Stage.RECEIVED:
            # A forged copy that came first does not stand in the way of the true one.
            forged = self._trust is not None and self._unwritten.refusal(known.id)
            if (order > known.order or forged) and not doubt:
                self._receive(envelope)
            elif self._waiting and self._waiting.id == envelope.id:
                self._send_collected()
            return
        if known and known.envelope.user != self._user:
            doubt = Doubt(f"the journal has a command {known.id} of {known.envelope.user}")
            known = None
        newer = known is not None and known.closing is not None and order > known.closing
        if known and not (known.stage is Stage.CLOSED and newer and not doubt):
            if known.account:
                self._send_result(known)
            return
        if self.busy is not None or self._stopping:
            return
        if doubt is None:
            self._receive(envelope)
            return
        log.warning("not run: %s", doubt.reason, extra={"id": envelope.id})
        if doubt.answer and self._unwritten.refusals < REFUSALS:
            ours = replace(envelope, user=self._user)  # whoever it says it is for
            self._waiting = self._unwritten.refuse(ours, doubt.reason)
            self._say_collected()
        else:
            self._heartbeat()

    def _receive(self, envelope: Envelope) -> None:
        try:
            known = self._unwritten.get(envelope.id), self._journal.get(envelope.id)
            if any(entry and entry.stage is Stage.CLOSED for entry in known):
                # What was said of it may still be under way, and be taken for the answer.
                self._journal.next_boot()
            self._journal.received(envelope, self._outside.monotonic())
        except JournalError as error:
            log.error("%s; refused", error, extra={"id": envelope.id})
            self._waiting = self._unwritten.refuse(envelope, error.message)
        else:
            self._unwritten.forget(envelope.id)
            self._waiting = self._journal.get(envelope.id)
        self._say_collected()

    def _say_collected(self) -> None:
        self._send_collected()
        self._collect.begin()
        self._heartbeat()

    def _get(self, id: str) -> Entry | None:
        return self._unwritten.get(id) or self._journal.get(id)

    def _heard_status(self, status: Status) -> None:
        now = self._outside.monotonic()
        if self._fresh.is_stale(status.order, now):
            deaf = self._fresh.is_deaf(now) and not self._running
            if not (deaf and self._believes_again(status.order)):
                return
        if status.epoch > self._journal.epoch:
            log.warning(
                "epoch %d begins: an older database was put back at the coordinator, or it is a "
                "new one; the results that this device holds are told again",
                status.epoch,
            )
            try:
                self._journal.begin_epoch(status.epoch)
            except JournalError as error:
                log.error("%s; the new epoch is written with a later status", error)
            self._results.begin()
            self._send_results()
        self._heard_settled(self._user, status)
        if self._running:
            self._heard_while_running(self._running, status)
        elif self._waiting and status.order >= self._waiting.order:
            self._heard_while_waiting(self._waiting, status)
        elif self._waiting:
            self._heard_of_less(self._waiting, status)

    def _believes_again(self, order: tuple[int, int]) -> bool:
        """Begin anew, as after a restart: with the next boot. Whether that could be written."""
        log.error(
            "for %.0f s nothing but statuses older than (%d, %d) was heard, which this device has "
            "seen: that one was forged, or the coordinator's database was put back and its clock "
            "is wrong. From now on (%d, %d) is believed; hwsync doctor %s looks for the cause",
            *(limits.DEAF_S, *self._fresh.newest, *order, self._user),
        )
        try:
            self._journal.next_boot()
            if order[0] < self._journal.epoch:
                self._journal.begin_epoch(order[0])  # what was noted of it was nobody's either
        except JournalError as error:
            log.error("%s; this device believes nobody until then", error)
            return False
        self._fresh.begin(order)
        self.connected()
        return True

    def _heard_of_former(self, user: str, status: Status) -> None:
        first = not self._former.may_tell(user)
        if self._former.hear(user, status, self._journal.epoch):
            self._heard_settled(user, status)
            if first:
                self._results.begin()
                self._send_results()

    def _heard_settled(self, user: str, status: Status) -> None:
        for id, journal in status.settled:
            if journal == self._journal.name:
                self._settle(user, id)
        if self._shrinking.answered():
            self._results.begin()

    def _settle(self, user: str, id: str) -> None:
        try:
            entry = self._get(id)
            if entry is None or entry.envelope.user != user:
                return
            self._shrinking.forget(id)
            if entry.account is None or entry.settled:
                return
            if self._unwritten.get(id):
                self._unwritten.settle(id)
            else:
                self._journal.settle(id, self._outside.monotonic())
        except JournalError as error:
            log.error("%s; the result is sent again until that can be written", error)

    def _is_mine(self, entry: Entry, status: Status) -> bool:
        return (status.id, status.state, status.journal) == (entry.id, 2, self._journal.name)

    def _heard_while_running(self, entry: Entry, status: Status) -> None:
        granted = self._is_mine(entry, status) and status.boot == self._journal.boot
        if (status.cancelling or not granted) and not self._cancelling:
            log.info("stopped: cancelled or no longer granted", extra={"id": entry.id})
            self._cancelling = True
            self._outside.stop_run()

    def _heard_while_waiting(self, entry: Entry, status: Status) -> None:
        if status.id == entry.id and status.state == 1:
            return
        if not self._is_mine(entry, status):
            reason = self._unwritten.refusal(entry.id) or "not granted to this device"
            self._close(entry, Account(Outcome.REJECTED, Ran.NO, reason), status.order)
        elif status.boot != self._journal.boot or self._stopping:
            return  # the next life collects it
        elif status.cancelling:
            account = Account(Outcome.CANCELLED, Ran.NO, "cancelled before it began")
            self._close(entry, account, status.order)
        elif refusal := self._unwritten.refusal(entry.id) or self._distrusted(entry):
            account = Account(Outcome.REJECTED, Ran.NO, refusal)
            self._close(entry, account, status.order)
        else:
            self._collect.end()
            self._waiting, self._running, self._cancelling = None, entry, False
            envelope = entry.envelope
            timeout = min(envelope.timeout, self._max_timeout or envelope.timeout)
            job = Job(
                *(envelope.program, envelope.stdin, envelope.args, timeout),
                name=envelope.name,
                grace=envelope.grace,
            )
            self._outside.start_run(job, entry.id)

    def _distrusted(self, entry: Entry) -> str:
        """Why it must not start although it was received; empty where it may."""
        if self._trust is None:
            return ""
        return self._trust.at_grant(entry.envelope, self._outside.wall())

    def _heard_of_less(self, entry: Entry, status: Status) -> None:
        """The record has not come as far as the envelope says, and ``collected`` is answered so."""
        asked = self._collect.at is not None
        if asked and self._outside.monotonic() - self._collect.began >= limits.UNKNOWN_S:
            reason = self._unwritten.refusal(entry.id) or "the coordinator does not know it"
            self._close(entry, Account(Outcome.REJECTED, Ran.NO, reason), status.order)

    def _close(self, entry: Entry, account: Account, order: tuple[int, int]) -> None:
        self._waiting = self._running = None
        self._collect.end()
        self._end(entry, account, order)
        self._answer(entry.id)

    def _end(self, entry: Entry, account: Account, order: tuple[int, int] | None = None) -> None:
        """Its result; ``order``: of the status that closed it before it began."""
        self._unwritten.ended(entry, account, order)
        self._write()

    def _write(self) -> None:
        """What the disk did not take. Until it does, memory has the word."""
        if self._unwritten.waits:
            try:
                self._unwritten.write(self._journal, self._outside.monotonic())
            except JournalError as error:
                log.error("%s; the result is kept in memory and written again", error)

    # -- the run -------------------------------------------------------------------------------

    def run_started(self, group: Group) -> None:
        """The session exists, the program is not handed over. Raises ``JournalError``."""
        if self._running:
            self._journal.started(self._running.id, group, self._outside.monotonic())
            if self._cancelling or self._stopping:
                self._outside.stop_run()

    def output(self, piece: Piece) -> None:
        """One live piece."""
        if self._running:
            payload = encode_output(
                self._running.id, piece.number, piece.stream, piece.text, piece.at, piece.skipped
            )
            if len(payload) <= min(MAX_PIECE, self._outbox.limit):
                self._outside.publish(self._topics.of(self._user, Kind.OUTPUT), payload, qos=0)

    def run_ended(self, end: RunEnd) -> None:
        """The run is over."""
        outcome, reason = Outcome(end.outcome), end.reason
        ran = RAN_BY_OUTCOME.get(outcome) or (Ran.YES if end.began else Ran.NO)
        if outcome is Outcome.CANCELLED and self._stopping and end.began and not self._cancelling:
            outcome, ran, reason = Outcome.INTERRUPTED, Ran.MAYBE, "the device was stopped"
        self._finish(
            Account(
                outcome,
                ran,
                reason,
                end.response,
                end.stderr,
                end.exit_code,
                end.duration,
                end.started,
                truncated=end.truncated,
                sha256_stdout=end.sha256_stdout,
                sha256_stderr=end.sha256_stderr,
                order=end.order,
            )
        )

    def run_failed(self, reason: str) -> None:
        """The program could not be started: it surely did not run."""
        self._finish(Account(Outcome.REJECTED, Ran.NO, reason[: limits.MAX_REASON]))

    def _finish(self, account: Account) -> None:
        entry = self._running
        if entry:
            self._running = None
            self._end(entry, account)
            self._answer(entry.id)

    # -- saying it -----------------------------------------------------------------------------

    def _answer(self, id: str) -> None:
        self._results.begin()
        self._heartbeat()
        entry = self._get(id)
        if entry:
            self._send_result(entry)

    def _send_collected(self) -> None:
        if self._waiting:
            self._collected(self._user, self._waiting.id)

    def _collected(self, user: str, id: str) -> None:
        payload = encode_collected(id, self._journal.name, self._journal.boot)
        self._outside.publish(self._topics.of(user, Kind.COLLECTED), payload)

    def _send_result(self, entry: Entry) -> None:
        account, user = entry.account, entry.envelope.user
        if account is None or not self._former.may_tell(user):
            return
        name, boot = self._journal.name, self._journal.boot

        def make(limit: int) -> bytes:
            return encode_result(
                entry.id, name, boot, account, self._shrinking.limit(entry.id, limit)
            )

        topic = self._topics.of(user, Kind.RESPONSE)
        sent = self._outbox.send(Message(topic, make, f"{topic} {entry.id}"))
        if sent and self._shrinking.sent(entry.id, sent):
            self._collected(user, entry.id)  # a copy, which the coordinator answers

    def _send_results(self) -> bool:
        """False: there is none that may be told now."""
        told = [entry for entry in self._unsettled() if self._former.may_tell(entry.envelope.user)]
        for entry in told:
            self._send_result(entry)
        return bool(told)

    def _unsettled(self) -> list[Entry]:
        entries = {entry.id: entry for entry in self._unwritten.unsettled()}
        try:
            for entry in self._journal.unsettled():
                if self._unwritten.get(entry.id) is None:
                    entries[entry.id] = entry
        except JournalError as error:
            log.error("%s; its results are told when it can be read", error)
        return list(entries.values())

    def _refusal(self) -> str:
        return self._journal.refusal or self._outside.refusal()

    def _heartbeat(self, online: bool = True) -> None:
        payload = encode_heartbeat(
            online=online,
            journal=self._journal.name,
            boot=self._journal.boot,
            seen=max(self._fresh.newest, self._journal.newest),
            version=__version__,
            busy=self.busy,
            running=self._running.id if self._running else None,
            **self._outside.presence(),
            refusing=self._refusal() or None,
            **self._of_former(),
            time=self._outside.wall(),
        )
        self._refusing = self._refusal()
        topic = self._topics.of(self._user, Kind.HEARTBEAT)
        self._outside.publish(topic, payload, retain=True)
        self._heartbeat_at = self._outside.monotonic() + limits.HEARTBEAT_S

    def _of_former(self) -> dict[str, Any]:
        """What waits under earlier names; looked for only where there are some."""
        waiting = self._former.waiting(self._unsettled()) if self._former.names else {}
        return {"former": dict(waiting)} if waiting else {}

    def tick(self) -> float:
        """Do what is due; seconds until the next."""
        now = self._outside.monotonic()
        self._probe(now)
        if self._prune_at <= now:
            self._prune()
        refusal = self._refusal()
        if self._refusing and not refusal:
            log.info("programs can be run again")
        if self._heartbeat_at <= now or self._refusing != refusal:
            self._heartbeat()
        if self._collect.is_due():
            self._send_collected()
            self._collect.again()
        if self._results.is_due():
            self._write()
            if self._send_results() or self._unwritten.waits:
                self._results.again()
            else:
                self._results.end()
        if self._former.due is not None and self._former.due <= now:
            self._former.look(self._former.waiting(self._unsettled()))
        self._outbox.flush()
        times = (
            *(self._heartbeat_at, self._prune_at, self._probe_at, self._former.due),
            *(self._collect.at, self._results.at),
        )
        pause = max(0.0, min(at for at in times if at is not None) - now)
        wait = self._outbox.wait()
        return pause if wait is None else min(pause, wait)

    def _prune(self) -> None:
        self._prune_at = self._outside.monotonic() + PRUNE_S
        try:
            self._journal.prune(self._outside.monotonic())
        except JournalError as error:
            log.error("%s; old entries stay", error)

    def _probe(self, now: float) -> None:
        """Whether a journal that could not be written can be again."""
        if not self._journal.refusal or self._journal.over:
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
                self._write()

    def stopping(self) -> None:
        """A clean stop begins: nothing new is begun; what runs may end by itself."""
        self._stopping = True

    def end_run(self) -> None:
        """The time of a program that runs is over; ``run_ended`` still comes."""
        if self._running:
            self._outside.stop_run()

    def stopped(self) -> None:
        """The last word."""
        self._heartbeat(online=False)
