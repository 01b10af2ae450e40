"""What the coordinator publishes, and how each of it goes into the outbox.

The law: of all that is handled together, the same is said once (``published_once``). Statuses and
envelopes go as they are due; replies, results and errors are courtesies. A reply that the broker
never took is given up for this life, and counts as told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, assert_never

from hwsync.protocol import limits
from hwsync.protocol.effects import (
    Analyse,
    AnswerBatch,
    ClearKept,
    Effect,
    PublishBatch,
    PublishEnvelope,
    PublishError,
    PublishReplies,
    PublishResult,
    PublishStatus,
    RepeatError,
    ReplyBatch,
    ReplyError,
)
from hwsync.protocol.errors import Refused, StoreError
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import (
    Command,
    Moment,
    Record,
    Regrade,
    Reply,
    ends_at,
    is_over,
    replace,
)
from hwsync.protocol.reply_topics import check
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.envelope import (
    encode_envelope,
    encode_signed,
    envelope_json,
)
from hwsync.protocol.wire.error import encode_error
from hwsync.protocol.wire.files import NO_CONTENTS, Contents
from hwsync.protocol.wire.group import encode_batch
from hwsync.protocol.wire.status import encode_result, encode_status
from hwsync.store.contents import Finder
from hwsync.transport import Delivery, Signal, outbox
from hwsync.transport.outbox import Capacity, Message, Outbox

MOST_FORSAKEN: Final = 1_000

log = logging.getLogger("hwsync.coordinator")


class Publisher(outbox.Publisher, Protocol):
    """What the loop needs of the transport."""

    @property
    def connection(self) -> int:
        """The number of the present connection; 0: there is none."""

    @property
    def backlog(self) -> int:
        """Bytes that were published and have not arrived."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that it need not send this again."""


class Signer(Protocol):
    """Who signs what devices are sent."""

    @property
    def public(self) -> str:
        """The key that verifies it."""

    def sign(self, text: str) -> str:
        """A signature over the text's UTF-8 bytes."""


def published_once(effects: Iterable[tuple[str, Effect]]) -> list[tuple[str, Effect]]:
    """The effects of everything that is handled at the same time, each with its user.

    A status that was said, and has not changed since, answers for all. So does a result, and it
    goes to the last place: it proves that what came before it was heard, errors too. What goes to
    response topics comes behind everything else.
    """
    said: dict[str, Record] = {}  # the last status of each user
    kept: dict[int, tuple[str, Effect]] = {}
    results: dict[tuple[str, str], int] = {}  # where in ``kept``
    replies: list[tuple[str, Effect]] = []
    for number, (user, effect) in enumerate(effects):
        if isinstance(effect, ReplyError):
            replies.append((user, effect))
            continue
        if isinstance(effect, PublishStatus):
            if said.get(user) == effect.record:
                continue
            said[user] = effect.record
        if isinstance(effect, PublishResult):
            before = results.get((user, effect.command.id))
            if before is not None and kept[before][1] == effect:
                del kept[before]
            results[user, effect.command.id] = number
        kept[number] = (user, effect)
    return [*kept.values(), *replies]


class Publishing:
    """Says what effects ask for, through an ``Outbox``: what cannot be sent raises nothing.

    What is said of batches waits for its time elsewhere (``coordinator.batches``).

    ``signer``: None: envelopes are not signed. ``journal`` says which journal of a user was heard
    of last, ``moment`` what time it is. ``max_message``: bytes that the broker is said to take.
    """

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        monotonic: Callable[[], float],
        signer: Signer | None,
        journal: Callable[[str], str | None],
        *,
        moment: Callable[[], Moment],
        contents: Finder,
        regrades: Callable[[Command], Iterable[Regrade]],
        max_message: int = limits.MAX_MESSAGE,
    ) -> None:
        self.outbox = Outbox(publisher, Capacity(max_message), monotonic, self._forsake)
        self._topics = topics
        self.signer = signer
        self._journal = journal
        self._moment = moment
        self._contents = contents
        self._regrades = regrades
        self._files_at: dict[str, float] = {}  # by user: when files were sent last
        self._monotonic = monotonic
        self._forsaken: dict[str, None] = {}  # keys of replies that are never sent again
        self._numbers = 0  # courtesies that nothing takes the place of

    @property
    def all_acknowledged(self) -> bool:
        """Whether nothing waits for its turn, and the broker has acknowledged everything."""
        return self.outbox.all_acknowledged

    def note_connection(self, signal: Signal) -> None:
        """Whether the connection changed: each signal is brought here."""
        self.outbox.note_connection(signal)

    def flush(self) -> None:
        """A round is over: what waits for its turn goes, as far as it may."""
        self.outbox.flush()

    def perform(self, user: str, effect: Effect) -> None:
        """Say what an effect is, in its turn. What is the loop's says nothing here."""
        match effect:
            case PublishStatus():
                self.status(effect.record)
            case PublishEnvelope():
                self.envelope(effect.record)
            case PublishResult():
                self.result(user, effect)
            case PublishReplies():
                for reply in effect.record.current.replies if effect.record.current else ():
                    self.reply(effect.record, reply)
            case PublishError():
                self.error(user, encode_error(effect))
            case RepeatError():
                self.error(user, effect.payload)
            case ReplyError():
                self.refusal(effect.reply, effect.payload)
            case ClearKept():
                self.clear(user)
            case Analyse() | PublishBatch() | AnswerBatch() | ReplyBatch():
                pass
            case _:
                assert_never(effect)

    def status(self, record: Record) -> None:
        """Retained, unless the broker is to keep none of it."""
        record = self._with_its_end(record)
        topic = self._topics.of(record.user, TopicKind.STATUS)
        self.outbox.send(
            Message(topic, lambda limit: encode_status(record, limit), topic, retain=record.kept)
        )

    def clear(self, user: str) -> None:
        """What the broker keeps of a user: taken away, whatever waits to be sent."""
        for kind in (TopicKind.STATUS, TopicKind.HEARTBEAT):
            topic = self._topics.of(user, kind)
            self.outbox.send(Message(topic, lambda _: b"", f"{topic} cleared", retain=True))

    def envelope(self, record: Record) -> None:
        """Its program for the device, while it may be collected.

        Where its files cannot be read now it is not sent: it is repeated with pauses.
        """
        if is_over(record, self._moment()):
            return
        topic = self._topics.of(record.user, TopicKind.ENVELOPE)
        files = record.current.request.files if record.current else ()
        try:
            contents = self._contents([one.sha256 for one in files]) if files else {}
            payload = self._envelope(self._with_its_end(record), contents)
        except (StoreError, KeyError) as error:
            log.error("the files of %s for %s cannot be read: %s", record.id, record.user, error)
            return
        self.outbox.send(Message(topic, lambda _: payload, topic))

    def _with_its_end(self, record: Record) -> Record:
        """As it is told: when its state ends, seen from now.

        The time of day that was estimated at its last change is wrong once the connection was away,
        the coordinator was off, or the wall clock was set.
        """
        at = ends_at(record, self._moment())
        if at is None and record.deadline_wall is None:
            return record
        return replace(record, deadline_wall=None if at is None else round(at, 3))

    def _envelope(self, record: Record, contents: Contents) -> bytes:
        """Signed: for the journal that was last heard of, and as long as it is waited for now."""
        if self.signer is None:
            return encode_envelope(record, self.outbox.limit, contents)
        fields = envelope_json(record, self.outbox.limit, contents)
        fields["journal"] = self._journal(record.user)
        if record.deadline_wall is not None:
            fields["expires_at"] = max(record.deadline_wall, self._moment().wall)
        text = dumps(fields)
        return encode_signed(text, self.signer.public, self.signer.sign(text), fields["v"])

    def result(self, user: str, effect: PublishResult) -> None:
        """The whole of one command, to who asked."""

        contents, regrades = self._asked_for(user, effect), self._regrades_of(effect.command)

        def make(limit: int) -> bytes:
            told = (effect.command, effect.state, effect.place)
            return encode_result(*told, limit, contents, regrades)

        self._courtesy(user, self._topics.result(user, effect.command.id), make)

    def may_have_files(self, user: str) -> bool:
        """Whether it is long enough ago that files of this user were sent."""
        return user not in self._files_at or not self._is_recent(self._files_at[user])

    def _asked_for(self, user: str, effect: PublishResult) -> Contents:
        """The bytes that a result is to have, as far as they are kept."""
        report = effect.command.report
        if not effect.files or report is None:
            return NO_CONTENTS
        self._files_at = {one: at for one, at in self._files_at.items() if self._is_recent(at)}
        self._files_at[user] = self._monotonic()
        try:
            return self._contents([one.sha256 for one in report.files if one.path in effect.files])
        except StoreError as error:
            log.error("the files of %s of %s cannot be read: %s", effect.command.id, user, error)
            return NO_CONTENTS

    def _regrades_of(self, command: Command) -> Sequence[Regrade]:
        if not command.regraded:
            return ()
        try:
            return list(self._regrades(command))
        except StoreError as error:
            log.error("the regrades of %s cannot be read: %s", command.id, error)
            return ()

    def _is_recent(self, at: float) -> bool:
        return self._monotonic() - at < limits.FILES_S

    def error(self, user: str, payload: bytes) -> None:
        """Why something was refused, or cannot be done now."""
        self._courtesy(user, self._topics.of(user, TopicKind.ERROR), lambda _: payload)

    def refusal(self, reply: Reply, payload: bytes) -> None:
        """The same to a response topic."""
        self.answer(reply, lambda _: payload)

    def answer(self, reply: Reply, make: Callable[[int], bytes]) -> None:
        """What was asked for, to a response topic; ``make`` writes it in so many bytes."""
        self._numbers += 1
        key = f"{reply.topic} {self._numbers}"
        self.outbox.send(
            Message(
                *(reply.topic, make, key),
                correlation=reply.correlation, courtesy=True, foreign=True, owner=reply.topic,
            )
        )  # fmt: skip

    def reply(self, record: Record, reply: Reply) -> None:
        """The end of the record's command, to a response topic."""
        record = self._with_its_end(record)
        key = f"{record.user} {record.id} {reply.topic} {reply.correlation.hex()}"
        if key in self._forsaken:
            return
        message = Message(
            *(reply.topic, lambda limit: encode_status(record, limit), key),
            correlation=reply.correlation, courtesy=True, foreign=True, owner=reply.topic,
        )  # fmt: skip
        try:
            check(reply, self._topics.root, record.id)
        except Refused as refusal:  # stored by a version that looked less closely
            self.outbox.give_up(message, refusal.message)
        else:
            self.outbox.send(message)

    def reply_batch(self, key: str, reply: Reply, fields: dict[str, Any]) -> None:
        """The end of a batch, to a response topic: its status without who ended ``ok``."""
        key = f"{key} {reply.topic} {reply.correlation.hex()}"
        if key in self._forsaken:
            return
        self.outbox.send(
            Message(
                *(reply.topic, lambda limit: encode_batch(fields, limit, whole=False), key),
                correlation=reply.correlation, courtesy=True, foreign=True, owner=reply.topic,
            )
        )  # fmt: skip

    def _courtesy(self, user: str, topic: str, make: Callable[[int], bytes]) -> None:
        self._numbers += 1
        key = f"{topic} {self._numbers}"
        self.outbox.send(Message(topic, make, key, courtesy=True, owner=user))

    def _forsake(self, message: Message) -> None:
        self._forsaken[message.key] = None
        while len(self._forsaken) > MOST_FORSAKEN:  # one that is tried again is given up again
            del self._forsaken[next(iter(self._forsaken))]
