"""What an operator says, and what answers it: ask with an id, repeat until answered.

The law: a PUBACK means nothing; what counts is a status, an error or a ``result/<id>`` that names
the id. Repeating is always safe (docs/protocol.md, section 2, "Acknowledged" and "Events that name
an id").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, TypeVar, cast

from hwsync.protocol import limits, offers
from hwsync.protocol.errors import Code, Degraded, NoCoordinator, Refused, TooLarge
from hwsync.protocol.groups import SIGN
from hwsync.protocol.jsons import is_count
from hwsync.protocol.offers import Offers
from hwsync.protocol.record import State
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.protocol.wire.analyst import read_offer
from hwsync.protocol.wire.asking import encode_analysis, encode_id
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.received import Received, is_group, read_received
from hwsync.protocol.wire.schema import read_object
from hwsync.protocol.wire.status import CommandFields, Result, Status
from hwsync.transport import Connected, Delivery, Denied, Disconnected, Sent, Signal
from hwsync.transport.outbox import SMALL, Capacity

TWICE: Final = 2  # times that the broker hangs up on a large message, until that is the reason
ANSWER_S: Final = 30.0  # a coordinator that has not answered by then is not there
SLOW_S: Final = 2.0  # then a person wants to know for what he waits
DEGRADED_S: Final = 5.0  # it tries to save each second: what is not saved by then waits long
EVERYBODY: Final = "+"  # in the place of a user
JUDGED: Final = 3  # times that the coordinator says it has no analysis, until it gets none
QUERY_S: Final = 0.2  # for a refusal: then a query that would be refused too is not sent

T = TypeVar("T")
Talk = Generator[float, Signal | None, T]
OnReceived = Callable[[Received], None]

# What a repeat of an id has in common: key of the request, field of status or result, default.
_EQUAL: Final[tuple[tuple[str, str, object], ...]] = (
    ("program", "hw_command", ""),
    ("stdin", "stdin", ""),
    ("args", "args", []),
    ("name", "name", limits.DEFAULT_NAME),
)
_CODES: Final = {str(code): code for code in Code}


def _say_nothing() -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Standing:
    """How broker and coordinator stand, by what came on one connection: all its talks know it."""

    capacity: Capacity = field(default_factory=Capacity)  # the broker's
    protocol: int = 0  # the version of MQTT; 5 says where a right is missing
    answers: bool = False  # the coordinator: it said how it is
    degraded: str = ""  # what it said of its disk
    max_message: int = limits.MAX_MESSAGE  # bytes, by its word
    offers: Offers = field(default_factory=dict)  # of analysts, where those are heard
    slow: Callable[[], None] = _say_nothing  # called once, where no answer came within ``SLOW_S``


class Conversation:
    """What an operator says and waits for, without the waiting itself.

    Each method that waits is a generator (a talk): it yields the seconds for which it would wait,
    and is sent the ``Signal`` that came, or None once they have passed. What it is worth is what it
    returns. ``Switchboard`` drives talks; ``Client.wait`` drives one and waits; by hand it is

        talk = conversation.querying("c1")
        signal = None
        try:
            while True:
                signal = next_signal(timeout=talk.send(signal))
        except StopIteration as end:
            result = end.value

    ``send`` publishes on the operator's connection. Whoever brings the signals has acknowledged
    them: others may hear them too. ``user``: whose messages it hears, beside the coordinator's;
    ``+``: everybody's. ``lab``: words for errors that say where nobody answered. ``inquire``: have
    the coordinator say how it is. ``standing`` is shared with whoever else talks on this
    connection.
    """

    def __init__(
        self,
        topics: Topics,
        user: str,
        send: Callable[[str, bytes], object],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        lab: str = "",
        inquire: Callable[[], object] = lambda: None,
        standing: Standing | None = None,
    ) -> None:
        self.topics, self.user = topics, user
        self.standing = standing or Standing()
        self._send, self._inquire = send, inquire
        self._monotonic = monotonic
        self.lab = lab or f"the root {topics.root}"  # for errors
        self.kept: Status | None = None  # what the broker keeps, or a newer one
        self.beat: Heartbeat | None = None  # the last heartbeat of the user
        self._news = 0  # statuses and results of the moment
        self._last_end: Signal | None = None
        self._hung_up = 0  # times that the broker did so on a large message of ours

    @property
    def now(self) -> float:
        """The clock of every limit here: seconds, and it never jumps."""
        return self._monotonic()

    def publish(self, kind: TopicKind, payload: bytes) -> None:
        """Send one message at QoS 1; it is repeated by whoever waits for its answer.

        Raises ``TooLarge`` for more bytes than the broker is known to take: nothing is sent then.
        """
        most = self.standing.capacity.bytes(self.now)
        if len(payload) > most:
            raise TooLarge(
                f"the message for {self.user} has {len(payload)} bytes",
                f"the broker takes at most {most}: a shorter program or input",
            )
        self._send(self.topics.of(self.user, kind), payload)

    def hearing(
        self, limit: float, said: Collection[TopicKind] = tuple(TopicKind)
    ) -> Talk[Received | None]:
        """What comes next; None: nothing until ``limit`` (of ``now``).

        Raises ``Refused`` where the broker did not take a message of one of these kinds, which are
        what this talk has ``said``.

        What is not as the protocol says (``wire.received``) is nobody's of ours, and is passed
        over.
        """
        while True:
            signal = yield max(limit - self.now, 0.0)
            if signal is None:
                return None
            self.hear_of_connection(signal)
            if isinstance(signal, Denied):
                self.hear_of_refusal(signal, said)
            if isinstance(signal, Delivery):
                user, kind = self.topics.split(signal.topic)
                is_board = not user.startswith(SIGN) or kind is TopicKind.MEMBERS
                everybody = self.user == EVERYBODY and is_board
                if user not in (self.user, ITSELF) and not everybody:
                    continue  # another conversation's, on the same connection
                if kind is None or (kind is TopicKind.BOARDS and signal.retain):
                    continue  # a list that the broker kept says nothing of now
                if kind is TopicKind.ANALYSTS:
                    self._note_offer(signal)
                    return Received(user, kind, {}, signal.retain)
                fields = read_received(kind, signal.payload, user) if signal.payload else {}
                if fields is not None:
                    heard = Received(user, kind, fields, signal.retain)
                    self._note(heard, now=not signal.retain)
                    return heard

    def _note_offer(self, signal: Delivery) -> None:
        analyst = self.topics.analyst_of(signal.topic) or ""
        with suppress(Refused):  # nobody counts it
            offer = read_offer(signal.payload)
            self.standing.offers = offers.heard(self.standing.offers, analyst, offer)

    def hear_of_refusal(self, denied: Denied, said: Collection[TopicKind]) -> None:
        """Raises ``Refused`` where it is a message of one of these kinds, for this user."""
        user, kind = self.topics.split(denied.topic)
        if self.user in (user, EVERYBODY) and kind in said:
            if kind is TopicKind.ANALYSIS:
                raise may_not_judge(user, f"the broker does not take it: {denied.reason}")
            raise Refused(
                Code.NOT_ALLOWED,
                f"the broker does not let us publish for {user} ({denied.reason})",
                "hwsync operator list says who may; hwsync operator change gives the right",
            )

    def _note(self, heard: Received, *, now: bool) -> None:
        """Remember what everybody else would have to ask for; ``now``: it was not kept."""
        self._news += now and heard.kind in (TopicKind.STATUS, TopicKind.RESULT)
        if heard.kind is TopicKind.STATUS and not is_group(heard.user):
            self.kept = heard.status
        if heard.kind is TopicKind.HEARTBEAT:
            self.beat = heard.heartbeat
        health = heard.health
        most = health.get("max_message") if health else None
        if isinstance(most, int) and is_count(most):
            self.standing.max_message = most
        if health is not None and now:
            self.standing.answers = health["condition"] in ("ok", "degraded")
            degraded = health["condition"] == "degraded"
            reason = str(health.get("reason", "")) or "it cannot save"
            self.standing.degraded = reason if degraded else ""

    def hear_of_connection(self, signal: Signal) -> None:
        """What a signal says of the broker's limits.

        Raises ``TooLarge`` where the broker has hung up twice on a message of this talk's user: to
        send it again would bring nothing else (docs/protocol.md, section 3, "What a broker
        refuses").
        """
        if isinstance(signal, Connected):
            self.standing.capacity.connected(signal.max_packet)
            self.standing.protocol = signal.protocol
        if isinstance(signal, Disconnected) and signal.hung_up:
            size = max((one.size for one in signal.unanswered if self._is_ours(one)), default=0)
            if signal is not self._last_end:  # each talk of this conversation hears of it
                self._last_end = signal
                self._hung_up += size > SMALL
            if self._hung_up >= TWICE and size > SMALL:
                raise TooLarge(
                    f"the broker hangs up on the message for {self.user}, which has {size} bytes",
                    "a shorter program or input, or a larger limit of the broker",
                )

    def _is_ours(self, sent: Sent) -> bool:
        return self.topics.split(sent.topic)[0] == self.user

    def asking(
        self,
        kind: TopicKind,
        payload: bytes,
        answer: Callable[[Received], bool],
        *,
        then_query: str | None = None,
        hearing: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
        patience: float = ANSWER_S,
    ) -> Talk[Received]:
        """Repeat a message until something is its answer, with pauses that double; that answer.

        An error that refuses another message is never offered to ``answer``. ``then_query``: an id
        that is queried after each try, once something else than a refusal was heard or none came;
        the coordinator answers in order, so its ``result`` stands behind whatever the message
        brought. ``hearing`` is given everything that comes; ``waiting`` is called before each
        repetition.

        After ``patience`` seconds it raises ``NoCoordinator``; ``Degraded`` where the coordinator
        says that it cannot save, and but for a request after ``DEGRADED_S`` already. What was sent
        may still be done then. An error that answers is returned (``raise_refused``); ``Refused``
        is what the broker does not let us send, ``TooLarge`` what it does not take.
        """
        began = self.now
        limit, slow = began + patience, began + SLOW_S
        pause = limits.REPEAT_FIRST_S
        said = (kind,) if then_query is None else (kind, TopicKind.QUERY)
        is_repeated = False
        while (now := self.now) < limit:
            self.publish(kind, payload)
            if is_repeated:
                self._inquire()  # the first time is too early: it is a moment away
            is_repeated = True
            until, news = min(now + pause, limit), self._news
            to_query = then_query
            while True:
                first = until if to_query is None else min(now + QUERY_S, until)
                came = yield from self.hearing(min(first, slow), said)
                if came is not None:
                    hearing(came)
                elif self.now >= slow:
                    tell, self.standing.slow, slow = self.standing.slow, _say_nothing, inf
                    tell()
                    continue
                if came is not None and not self.is_foreign(kind, came) and answer(came):
                    return came
                if to_query is not None and (came is None or self._news > news):
                    self.publish(TopicKind.QUERY, encode_id(to_query))
                    to_query = None
                elif came is None:
                    break
            waiting()
            pause = min(2 * pause, limits.REPEAT_MAX_S)
            if self.standing.degraded and kind is not TopicKind.REQUEST:
                limit = min(limit, began + DEGRADED_S)
        if self.standing.degraded:
            raise Degraded(
                f"degraded: the coordinator cannot save anything now: {self.standing.degraded}",
                "make space (df -h) or mend the disk, on its machine; what was sent waits at the "
                "broker, and is done then",
            )
        if self.standing.answers:
            raise NoCoordinator(
                f"the coordinator is there, but this was not answered at {self.lab}", "see its log"
            )
        raise NoCoordinator(
            f"no coordinator answers at {self.lab}", "start one: hwsync coordinator"
        )

    def is_foreign(self, kind: TopicKind, heard: Received) -> bool:
        """Whether this is an error, but no answer to what was sent on the topic of ``kind``.

        ``degraded`` is none: what cannot be stored now is tried again.
        """
        error = heard.error
        if error is None:
            return heard.kind is TopicKind.ERROR  # a cleared one answers nothing
        if error["error"] == Code.DEGRADED:
            self.standing.degraded = error["message"]
            return True
        return error["topic"] != self.topics.of(self.user, kind)

    def telling(
        self,
        kind: TopicKind,
        payload: bytes,
        id: str,
        *,
        on_received: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
        fresh: bool = False,
    ) -> Talk[CommandFields]:
        """Send a message that names an id until it is answered.

        The status, where the id is the record's own; else that command's result. ``on_received``
        sees everything that comes meanwhile. ``fresh``: the id was made for this message, so that
        whatever status names it is an answer. Else a query behind it has to be answered: a result
        that answers somebody else's question may come first, but one of another program is no
        answer to a request, and the error follows. Raises
        like ``asking``, and ``Refused`` with the coordinator's code where the answer is an error.
        """
        statuses: list[Status] = []
        request = read_object(payload) if kind is TopicKind.REQUEST else None

        def answer(came: Received) -> bool:
            on_received(came)
            if came.fields.get("id") != id or (request and _is_of_another(request, came)):
                return False
            if came.status is not None:
                statuses.append(came.status)
                return fresh
            return came.kind in (TopicKind.RESULT, TopicKind.ERROR)

        try:
            answered = yield from self.asking(kind, payload, answer, then_query=id, waiting=waiting)
        except NoCoordinator as error:
            if kind is not TopicKind.REQUEST:
                raise
            raise NoCoordinator(
                f"{error.message}; the request {id} may still be accepted later",
                f"hwsync cancel {self.user} {id} takes it back then; {error.hint}",
            ) from None
        raise_refused(answered)
        return statuses[-1] if statuses else cast(Result, answered.fields)

    def judging(self, text: str, id: str) -> Talk[CommandFields]:
        """Send this analysis of that command until the coordinator has it; like ``telling``.

        MQTT 3.1.1 does not say that a right is missing. But a coordinator that answers has had what
        was sent before the question: ``Refused`` too, where it has no analysis again and again.
        """
        analysis = encode_analysis(text, id)
        for _ in range(JUDGED):
            told = yield from self.telling(TopicKind.ANALYSIS, analysis, id)
            has_it = told["server_analysis"] or told.get("pruned") or not text
            if told["state"] != State.RETURNED and has_it:
                return told
        raise may_not_judge(self.user, "the coordinator answers, and has had nothing of it")

    def querying(self, id: str, patience: float = ANSWER_S) -> Talk[Result]:
        """The whole of that command, as on ``result/<id>`` (docs/protocol.md, section 3).

        Raises like ``asking``, and ``Refused`` (``not_current``) for an id that this user never
        had.
        """

        def answer(came: Received) -> bool:
            return came.kind in (TopicKind.RESULT, TopicKind.ERROR) and came.fields.get("id") == id

        asked = self.asking(TopicKind.QUERY, encode_id(id), answer, patience=patience)
        answered = yield from asked
        raise_refused(answered)
        return cast(Result, answered.fields)

    def reading(self, waiting: Callable[[], None] = lambda: None) -> Talk[Status]:
        """The user's status, from a coordinator that answers now. Raises like ``asking``.

        A retained status may be all that is left of one that has gone: its id is queried too.
        """
        latest: list[Status] = []
        id = ""

        def answer(came: Received) -> bool:
            if came.status is not None:
                latest.append(came.status)
            if not id:
                return came.status is not None
            return came.kind in (TopicKind.RESULT, TopicKind.ERROR) and came.fields.get("id") == id

        yield from self.asking(TopicKind.QUERY, b"", answer, waiting=waiting)
        if id := latest[0]["id"]:
            yield from self.asking(TopicKind.QUERY, encode_id(id), answer, waiting=waiting)
        return latest[-1]


def _is_of_another(request: dict[str, Any], heard: Received) -> bool:
    """Whether this tells of another program than the request's. Of a cut text its start counts."""
    fields = heard.fields
    if heard.command_fields is None:
        return False
    if fields.get("pruned") or fields.get("orphan"):
        return False
    return any(
        (told := fields.get(name)) is not None
        and not _may_be(told, request.get(key, default), cut=fields["truncated"])
        for key, name, default in _EQUAL
    )


def _may_be(told: object, asked: object, *, cut: bool) -> bool:
    """Whether a field tells of what was asked; ``cut``: texts may be only a start, or left out."""
    if not cut:
        return told == asked
    if isinstance(told, str) and isinstance(asked, str):
        return asked.startswith(told)
    return not told or told == asked


def may_not_judge(user: str, why: str) -> Refused:
    """The refusal of who has not that right; ``why``: how that shows."""
    return Refused(
        Code.NOT_ALLOWED,
        f"you may not judge what {user} has run ({why})",
        "analysts do (hwsync analyst list), and operators with that right: hwsync operator change "
        "NAME --boards … --analyse gives it, on the lab's machine",
    )


def raise_refused(heard: Received) -> None:
    """Raises ``Refused`` where it is an error: with the code, sentence and hint that came.

    A code that this version does not know becomes ``NOT_ALLOWED``.
    """
    error = heard.error
    if error is not None:
        raise Refused(
            _CODES.get(error["error"], Code.NOT_ALLOWED), error["message"], error["hint"],
            id=error["id"], journal=error["journal"], published_error=heard.fields,
        )  # fmt: skip
