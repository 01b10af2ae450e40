"""A batch of a group: asked, followed to its end, cancelled; and a stop-all.

The law: what became of a batch is what ``@<group>/status`` says of its id, or ``result/<id>`` of an
older one. Nothing here needs a right to any of its boards.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from hwsync.operator.conversation import ANSWER_S, Conversation, OnReceived, Talk, raise_refused
from hwsync.operator.run import LOOK_AGAIN_S, TICK_S, RunRequest
from hwsync.protocol.errors import Code, NoCoordinator
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_id
from hwsync.protocol.wire.group import ENDED, BatchFields
from hwsync.protocol.wire.received import Received

_SAID: Final = (TopicKind.QUERY, TopicKind.CANCEL)  # while a batch is followed


class Batch:
    """One batch of a group, from its request to its end; each method is a talk, as in ``Run``.

    ``conversation``: with the group (``@lab1``). Whatever is raised, the batch goes on.
    """

    def __init__(self, conversation: Conversation, id: str) -> None:
        self.id = id
        self._conversation = conversation
        self._ask = TopicKind.QUERY  # while it is followed

    def requesting(
        self,
        request: RunRequest,
        *,
        on_received: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Talk[BatchFields]:
        """Ask until it is acknowledged. Raises like ``Run.requesting``."""

        def answer(came: Received) -> bool:
            on_received(came)
            return not came.kept and self._is_answer(came)

        try:
            answered = yield from self._conversation.asking(
                TopicKind.REQUEST, request.payload, answer, waiting=waiting
            )
        except NoCoordinator as error:
            group = self._conversation.user
            raise NoCoordinator(
                f"{error.message}; the request {self.id} may still be accepted later",
                f"hwsync cancel {group} {self.id} takes it back then; {error.hint}",
            ) from None
        return _batch_of(answered)

    def following(
        self,
        *,
        on_received: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Talk[BatchFields]:
        """Until it has ended; its last status.

        Raises ``NoCoordinator`` after ``ANSWER_S`` seconds without an answer, ``Refused`` where the
        id is not known. ``waiting`` is called each ``TICK_S`` seconds.
        """
        return self._following(on_received, waiting)

    def cancel(self) -> None:
        """Have it cancelled: now, and again and again while it is followed, which goes on."""
        self._ask = TopicKind.CANCEL
        self._conversation.publish(self._ask, encode_id(self.id))

    def cancelling(
        self,
        *,
        on_received: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Talk[BatchFields]:
        """Have nobody begin any more, and each command cancelled; follow it to its end."""
        self._ask = TopicKind.CANCEL
        return self._following(on_received, waiting)

    def _is_answer(self, came: Received) -> bool:
        is_error = came.kind is TopicKind.ERROR
        return came.fields.get("id") == self.id and (came.batch is not None or is_error)

    def _following(self, on_received: OnReceived, waiting: Callable[[], None]) -> Talk[BatchFields]:
        conversation = self._conversation
        asked, answered = -inf, conversation.now
        while True:
            now = conversation.now
            if now - answered > ANSWER_S:
                raise NoCoordinator(
                    f"the coordinator has not answered for {ANSWER_S:g} s; the batch {self.id} "
                    "goes on",
                    f"hwsync status {conversation.user} shows it, once a coordinator is there",
                )
            if now - asked > LOOK_AGAIN_S:
                asked = now
                conversation.publish(self._ask, encode_id(self.id))
            limit = conversation.now + TICK_S
            while (came := (yield from conversation.hearing(limit, _SAID))) is not None:
                if conversation.is_foreign(self._ask, came):
                    continue
                on_received(came)
                if not self._is_answer(came):
                    continue
                if came.error is not None and came.error["error"] == Code.NOT_CURRENT:
                    raise_refused(came)
                if (batch := came.batch) is not None:
                    answered = conversation.now
                    if batch["state"] == ENDED:
                        return batch
            waiting()


def asking_one(conversation: Conversation, id: str | None = None) -> Talk[BatchFields]:
    """The group's batch with that id, or its newest, from a coordinator that answers now.

    Raises ``Refused`` where it never had it.
    """

    def answer(came: Received) -> bool:
        if came.batch is None or came.kept:
            return came.kind is TopicKind.ERROR
        return id is None or came.batch["id"] == id

    payload = b"" if id is None else encode_id(id)
    answered = yield from conversation.asking(TopicKind.QUERY, payload, answer)
    return _batch_of(answered)


def answering(conversation: Conversation, kind: TopicKind) -> Talk[None]:
    """Until a message of that kind to the group, which the broker has, was heard by a coordinator.

    No answer names a stop-all: a query is said behind it, and whatever answers that one comes
    later. Raises ``Refused``, ``NoCoordinator``, ``Degraded``.
    """

    def answer(came: Received) -> bool:
        return (came.batch is not None and not came.kept) or came.kind is TopicKind.ERROR

    def refused(came: Received) -> None:
        if not conversation.is_foreign(kind, came):
            raise_refused(came)

    answered = conversation.asking(TopicKind.QUERY, b"", answer, hearing=refused)
    error = (yield from answered).error
    if error is not None and error["error"] != Code.NOT_CURRENT:  # that is: it never had a batch
        raise_refused(Received(conversation.user, TopicKind.ERROR, error))


def overhearing(everybody: Conversation, hear: OnReceived) -> Talk[None]:
    """Whatever is said of boards, for ever; ``everybody``: a conversation with ``+``."""
    while True:
        came = yield from everybody.hearing(inf, ())
        if came is not None:
            hear(came)


def _batch_of(answered: Received) -> BatchFields:
    raise_refused(answered)
    batch = answered.batch
    assert batch is not None
    return batch
