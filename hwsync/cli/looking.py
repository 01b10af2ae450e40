"""What is to be known of a board before one can say why something is as it is; and where an id is.

The law: it asks, and moves nothing. Where no coordinator answers soon, what the broker keeps has to
do.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from hwsync.cli import verdicts
from hwsync.cli.causes import Situation, busy
from hwsync.cli.common import Settings
from hwsync.cli.names import known_to
from hwsync.operator.batch import overhearing
from hwsync.operator.client import QUIET_S, Client
from hwsync.operator.conversation import EVERYBODY, Conversation, Talk
from hwsync.operator.filters import Filters
from hwsync.operator.history import Answers, reading
from hwsync.protocol.errors import Code, HwsyncError, NotFound, Refused
from hwsync.protocol.record import State
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_id
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.itself import Boards, Health
from hwsync.protocol.wire.received import Received

ANSWER_S: Final = 5.0  # for a coordinator to say how it is
BOARDS_S: Final = 2.0  # for it to say whom it hears
CLOCK_S: Final = 0.5  # for it to say what time it is there
FIND_S: Final = 2.0  # for boards to be asked for an id
MQTT_5: Final = 5
MOST_ASKED: Final = 1_000  # boards that are asked for one

Json = Mapping[str, Any]


class _Heard:
    """What comes meanwhile."""

    def __init__(self) -> None:
        self.beat: Heartbeat | None = None
        self.boards: Boards | None = None
        self.health: Health | None = None  # of now
        self.said: Health | None = None  # what the broker keeps

    def note(self, came: Received) -> None:
        if came.kind is TopicKind.HEARTBEAT:
            self.beat = came.heartbeat
        elif came.boards is not None:
            self.boards = came.boards
        elif came.health is not None:
            if came.kept:
                self.said = came.health
            elif came.health["condition"] in ("ok", "degraded"):
                self.health = came.health


def look(operator: Client, user: str, id: str | None = None) -> Situation:
    """All about one board, or its command ``id``; ``operator`` hears that board's topics.

    It must hear the list of ``boards`` too. Raises ``NotFound`` for an id that this board never
    had, ``Refused``, ``NoCoordinator`` like ``Client``.
    """
    heard = _Heard()
    overheard = operator.switchboard.begin(overhearing(operator.conversation(user), heard.note))
    conversation = operator.conversation(user)
    record: Json | None = None
    command: Json | None = None
    current: Json | None = None
    judges: bool | None = True
    try:
        there = operator.answers(ANSWER_S)
        if there:
            record, current = _record(operator, conversation)
            command = current
            if id and id != record["id"]:
                command = operator.wait(conversation.querying(id))
            limit = time.monotonic() + BOARDS_S
            if record["state"] == State.RETURNED:
                judges = may_judge(operator, user)
            while (heard.boards is None or heard.health is None) and time.monotonic() < limit:
                operator.ask_coordinator()
                for _ in operator.hear(QUIET_S):
                    pass
        else:
            record = operator.kept
    except Refused as refusal:
        if refusal.code is not Code.NOT_CURRENT:
            raise
        hint = f"one that was refused is none: hwsync history {user} shows what was"
        raise NotFound(f"{user} never had a command {id}", hint) from None
    finally:
        overheard.cancel()
    said: Json = heard.boards or {}
    now = said.get("time") or time.time()
    return Situation(
        user=user, now=now, record=record, command=command, current=current, beat=heard.beat,
        boards=heard.boards, health=heard.health if there else None, said=heard.said,
        names=tuple(heard.boards["boards"]) if heard.boards else (), may_judge=judges,
    )  # fmt: skip


def _record(operator: Client, conversation: Conversation) -> tuple[Json, Json | None]:
    """The status, and the result of its command; what the broker keeps, where we may not ask."""
    try:
        record = operator.wait(conversation.reading())
        asked = record["id"] and operator.wait(conversation.querying(record["id"]))
    except Refused as refusal:
        if refusal.code is Code.NOT_CURRENT or not operator.kept:
            raise
        return operator.kept, None
    return record, asked or None


def glance(settings: Settings, user: str) -> Situation | None:
    """The same on a connection of its own; None: nothing can be said."""
    with (
        suppress(HwsyncError),
        Client(settings.url, settings.topics, user, boards=True) as operator,
    ):
        return look(operator, user)
    return None


def absent(known: Situation) -> str:
    """Why a board may not answer: it is offline, or was never there; empty: it is online."""
    if known.never_seen:
        return f"no device called {known.user} was ever heard"
    return "" if known.online is not False else f"{known.user} is {known.presence}"


def busy_with(refusal: Refused, operator: Client, user: str, words: str) -> Refused:
    """A refusal because something runs or waits there, with what it is and what to type.

    ``words``: the program that was refused, as it was typed. Another refusal stays as it is.
    """
    if refusal.code is not Code.BUSY:
        return refusal
    conversation = operator.conversation(user)
    try:
        record = operator.wait(conversation.reading())
        told = operator.wait(conversation.querying(record["id"]))
    except HwsyncError:
        return refusal
    now = _its_clock(operator)
    known = Situation(user=user, now=now or 0.0, record=record, current=told)
    ends = f"hwsync cancel {user}"
    hint = f"hwsync run --queue {user} {words} waits behind it; {ends} ends it"
    if record["state"] == State.RETURNED:
        todo = verdicts.for_one(f"hwsync analyse {user} TEXT", may_judge(operator, user))
        hint = f"hwsync run --queue {user} {words} waits behind it; to end it: {todo}"
    return Refused(
        refusal.code, busy(known, progress=now is not None) or refusal.message, hint,
        id=refusal.id, journal=refusal.journal, published_error=refusal.published_error,
    )  # fmt: skip


def may_judge(operator: Client, user: str) -> bool | None:
    """Whether this account may judge there; None: MQTT 3.1.1 does not say it.

    An empty analysis is none, and the broker says whether it takes it.
    """
    if operator.url.username is None and not operator.url.tls.certificate:
        return True  # nobody has an account
    try:
        operator.bring(user, TopicKind.ANALYSIS)
    except Refused:
        return False
    return True if operator.standing.protocol == MQTT_5 else None


def _its_clock(operator: Client) -> float | None:
    """What time the coordinator says it is; None: it does not say soon."""
    operator.ask_coordinator()
    for came in operator.hear(CLOCK_S):
        at = came.health.get("time") if came.health and not came.kept else None
        if at is not None:
            return at
    return None


def find(settings: Settings, word: str) -> list[str]:
    """The boards that have a command of that id; none where it is a board's name, or nobody's id.

    They are asked for their history: a query that is refused would stand in each board's log. Where
    that may not be asked for, whoever does not have it refuses a query. Raises ``HwsyncError``.
    """
    answers = Answers(settings.url.username)
    with Client(settings.url, settings.topics, EVERYBODY, answers=answers) as operator:
        boards, _ = known_to(operator)
        if word in boards:
            return []
        having, all_said = _having_had(operator, boards, answers, word)
        if not having and not all_said:
            for user in boards[:MOST_ASKED]:
                operator.conversation(user).publish(TopicKind.QUERY, encode_id(word))
            limit = time.monotonic() + FIND_S
            while not having and time.monotonic() < limit:
                with suppress(Refused):  # some boards we may not ask
                    for came in operator.hear(QUIET_S):
                        if came.command_fields is not None and came.command_fields["id"] == word:
                            having.add(came.user)
        return sorted(having)


def _having_had(
    operator: Client, boards: Sequence[str], answers: Answers, id: str
) -> tuple[set[str], bool]:
    """Of these boards those that had a command of that id; whether no other one can have it."""
    talks = {
        user: operator.switchboard.begin(
            reading(operator.conversation(user), answers, Filters(id=id, last=1))
        )
        for user in boards[:MOST_ASKED]
    }
    limit = time.monotonic() + FIND_S
    while time.monotonic() < limit and not all(talk.done() for talk in talks.values()):
        with suppress(Refused):  # of one board: the others may still answer
            operator.wait(_until_all(talks.values(), limit))
    found, said = set(), 0
    for user, talk in talks.items():
        if talk.done() and talk.exception() is None:
            said += 1
            if talk.result():
                found.add(user)
        talk.cancel()
    return found, bool(answers.everybody) and said == len(talks)


def _until_all(talks: Iterable[Future[Any]], limit: float) -> Talk[None]:
    """All of them have ended, or it is too late."""
    while not all(talk.done() for talk in talks) and (left := limit - time.monotonic()) > 0.0:
        yield left
