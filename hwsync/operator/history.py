"""What an operator asks of the past: each board's commands, page by page, the newest first.

The law: everybody's commands are asked for, and one's own beside them, as long as it is not known
whether this account may ask for everybody's. The coordinator answers in order, so whoever hears of
his own first may not. A question is heard at QoS 0: it is repeated until it is answered.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Final

from hwsync.operator.conversation import ANSWER_S, Conversation, Talk
from hwsync.operator.filters import Filters
from hwsync.protocol import limits
from hwsync.protocol.errors import Code, NoCoordinator, Refused
from hwsync.protocol.reply_topics import REPLIES
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.error import ERROR
from hwsync.protocol.wire.history import Page, Row, encode_question, read_page
from hwsync.protocol.wire.schema import read_object
from hwsync.transport import Delivery, Denied, Signal

if TYPE_CHECKING:
    from hwsync.operator.client import Client

PACE_S: Final = 1.1 / limits.HISTORY_PER_S  # between two questions about one board
AT_ONCE: Final = 16  # boards that are asked at the same time
_CODES: Final = {str(code): code for code in Code}

OnPage = Callable[[Page], object]


class Answers:
    """Where one client is answered, and what it has learned of its rights.

    ``account``: at the broker; None, or what cannot stand in a topic: everybody may read there
    then. ``everybody``: whether it may ask for everybody's commands; None: not known yet.
    """

    def __init__(self, account: str | None) -> None:
        own = account if account is not None and limits.is_user(account) else None
        token = secrets.token_hex(8)
        self.account = own
        self.everybody: bool | None = None if own else True
        self._base = f"{REPLIES}/{own or 'anybody'}/{token}"
        self._number = 0

    @property
    def filter(self) -> str:
        """What the client subscribes to (``Client(answers=…)``)."""
        return f"{self._base}/#"

    def topic(self) -> str:
        """A fresh one, for the answer to one question."""
        self._number += 1
        return f"{self._base}/{self._number}"


def reading(conversation: Conversation, answers: Answers, filters: Filters) -> Talk[list[Row]]:
    """The commands of the conversation's board, the newest first. Raises like ``telling``."""
    rows = list[Row]()
    yield from telling(conversation, answers, filters, lambda page: rows.extend(page["rows"]))
    return rows


def telling(
    conversation: Conversation, answers: Answers, filters: Filters, on_page: OnPage
) -> Talk[None]:
    """``on_page`` is given each page of the board's commands, the newest first; none is kept here.

    Raises ``Refused`` where the broker or the coordinator refuses it, ``NoCoordinator`` where
    nobody answers within ``ANSWER_S``.
    """
    have, after = 0, None
    while True:
        began = conversation.now
        page = yield from _asking(conversation, answers, filters, have, after)
        on_page(page)
        have += len(page["rows"])
        after = page["after"]
        if after is None or (filters.last is not None and have >= filters.last):
            return
        while (left := began + PACE_S - conversation.now) > 0.0:
            signal = yield left
            if signal is not None:
                conversation.hear_of_connection(signal)


def _asking(
    conversation: Conversation, answers: Answers, filters: Filters, have: int, after: int | None
) -> Talk[Page]:
    """One page."""
    limit, pause = conversation.now + ANSWER_S, limits.REPEAT_FIRST_S
    busy: Refused | None = None
    while (now := conversation.now) < limit:
        kinds = {
            None: (TopicKind.HISTORY_ALL, TopicKind.HISTORY),
            True: (TopicKind.HISTORY_ALL,),
            False: (TopicKind.HISTORY,),
        }[answers.everybody]
        asked = {answers.topic(): kind for kind in kinds}
        for topic, kind in asked.items():
            question = filters.question(have, after, topic)
            conversation.publish(kind, encode_question(question))
        until = min(now + pause * (1.0 + random.random() / 2), limit)
        busy = None
        while (left := until - conversation.now) > 0.0:
            page = _answer(conversation, answers, asked, (yield left))
            if isinstance(page, Refused):
                busy = page
            elif page is not None and (busy is None or page["all"]):
                answers.everybody = page["all"]
                return page
        pause = min(2 * pause, limits.REPEAT_MAX_S)
    if busy is not None:
        raise busy
    raise NoCoordinator(
        f"nobody has answered what was run on {conversation.user} at {conversation.lab}",
        "is a coordinator of this version there? hwsync operator list says who may ask",
    )


def _answer(
    conversation: Conversation, answers: Answers, asked: Mapping[str, TopicKind],
    signal: Signal | None,
) -> Page | Refused | None:  # fmt: skip
    """What a signal is: the page; a refusal that passes by itself; None: nothing of this.

    Raises ``Refused``: it is not answered, and will not be.
    """
    if signal is None:
        return None
    conversation.hear_of_connection(signal)
    if isinstance(signal, Denied):
        everybodys = (conversation.user, TopicKind.HISTORY_ALL)
        own_too = TopicKind.HISTORY in asked.values()
        if own_too and conversation.topics.split(signal.topic) == everybodys:
            answers.everybody = False
        else:
            conversation.hear_of_refusal(signal, tuple(asked.values()))
    if not isinstance(signal, Delivery) or signal.topic not in asked:
        return None
    page = read_page(signal.payload)
    if page is not None and page["user"] == conversation.user:
        return page
    error = read_object(signal.payload)
    if error is None or not ERROR.holds(error):
        return None
    fields = ERROR.read(error)
    refusal = Refused(
        _CODES.get(fields["error"], Code.NOT_ALLOWED), fields["message"], fields["hint"],
        published_error=error,
    )  # fmt: skip
    if refusal.code in (Code.BUSY, Code.DEGRADED):
        return refusal
    raise refusal


def read(
    client: Client, users: Iterable[str], answers: Answers, filters: Filters
) -> dict[str, list[Row]]:
    """The commands of several boards, by board; each the newest first.

    ``client`` was made with ``answers``. ``last`` counts for each board. Raises like ``reading``
    what the first board raises that fails.

        answers = Answers(url.username)
        with Client(url, topics, "+", answers=answers) as client:
            rows = read(client, ["pi1", "pi2"], answers, Filters(since=-86_400.0))
    """
    users = list(dict.fromkeys(users))
    found: dict[str, list[Row]] = {user: [] for user in users}
    tell_pages(
        client, users, answers, filters, lambda page: found[page["user"]].extend(page["rows"])
    )
    return found


def tell_pages(
    client: Client, users: Iterable[str], answers: Answers, filters: Filters, on_page: OnPage
) -> None:
    """The same, but ``on_page`` is given each page, of any board, and none is kept.

    ``users``: each once; who is to come is asked for while others answer.
    """
    left, going = iter(users), deque[Future[None]]()
    try:
        while True:
            # The first by itself: it learns whether everybody's may be asked for.
            most = 1 if answers.everybody is None else AT_ONCE
            for user in islice(left, most - len(going)):
                talk = telling(client.conversation(user), answers, filters, on_page)
                going.append(client.switchboard.begin(talk))
            if not going:
                return
            client.wait_for(going.popleft())
    finally:
        for future in going:
            future.cancel()
