"""Which commands a question about the past is told of, and how much of it at a time.

The law: a question is answered to ``replies/<account>/…`` with the commands whose asker is known to
be that account, by the reply topic of their own requests; a claim gives nobody anything. With the
right to ask for everybody's it is answered wherever its sender likes. Nothing is stored for it, and
nothing decided: what was saved is read (docs/protocol.md, section 10).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hwsync.protocol import limits, reply_topics
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.groups import SIGN, matches
from hwsync.protocol.jsons import dumps, loads, size
from hwsync.protocol.record import KnownBy, Reply
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.history import OPEN, QUESTION, Row
from hwsync.protocol.wire.schema import object_of, read_object

if TYPE_CHECKING:
    from hwsync.protocol.events import Message

KINDS: Final = (TopicKind.HISTORY, TopicKind.HISTORY_ALL)
EXAMPLE: Final = 'such as {"last": 10, "reply": "replies/NAME/1"}, NAME being your account'


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question, read: whose commands, which, and where the answer goes.

    ``account``: whose; None: everybody's. ``since``, ``until``: Unix seconds, below 0 before now.
    """

    user: str
    reply: Reply
    account: str | None
    since: float | None = None
    until: float | None = None
    last: int = limits.HISTORY_ROWS
    outcomes: frozenset[str] | None = None
    by: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    id: str | None = None
    after: int | None = None
    analyser: str | None = None
    judged: bool | None = None

    def at(self, wall: float) -> tuple[float | None, float | None]:
        """``since`` and ``until`` in Unix seconds; ``wall``: now."""
        since, until = (
            None if one is None else wall + one if one < 0 else one
            for one in (self.since, self.until)
        )
        return since, until


def read_question(message: Message, topics: Topics) -> Wanted:
    """What is asked on one of ``KINDS``. Raises ``Refused``.

    The checks are in the order of every message (docs/protocol.md, section 2): board, retained,
    size, JSON and fields; where the answer may go stands last.
    """
    user, kind = topics.split(message.topic)
    if user.startswith(SIGN):
        raise Refused(
            Code.NOT_ALLOWED, f"{user[:80]!r} is no board", "ask for each board of a group"
        )
    if not limits.is_user(user):
        raise Refused(Code.BAD_USER, f"{user[:80]!r} is no board's name", limits.USER_FORM)
    if message.retain:
        raise Refused(
            Code.RETAINED,
            f"a retained question on {message.topic}",
            f"clear it with mosquitto_pub -r -n -q 1 -t {message.topic}, and publish without -r",
        )
    if len(message.payload) > limits.MAX_QUESTION:
        raise Refused(
            Code.TOO_LARGE,
            f"{QUESTION.what} has {len(message.payload)} bytes",
            f"at most {limits.MAX_QUESTION} bytes",
        )
    obj = object_of(message.payload or b"{}", QUESTION.what, EXAMPLE)
    fields = QUESTION.read(obj)
    said = fields["reply"]
    reply = message.reply or (None if said is None else Reply(said))
    if reply is None:
        raise Refused(Code.BAD_PAYLOAD, "the question says nowhere to answer", EXAMPLE)
    own = kind is TopicKind.HISTORY
    check = reply_topics.check_named if own or message.reply is None else reply_topics.check
    check(reply, topics.root, None)
    outcomes = fields["outcome"]
    return Wanted(
        user,
        reply,
        reply_topics.account_of(reply) if own else None,
        since=fields["since"],
        until=fields["until"],
        last=fields["last"],
        outcomes=None if outcomes is None else frozenset(outcomes),
        by=fields["by"],
        meta=fields["meta"] or {},
        name=fields["name"],
        id=fields["id"],
        after=fields["after"],
        analyser=fields["analyser"],
        judged=fields["judged"],
    )


def reply_of_refused(message: Message, topics: Topics) -> Reply | None:
    """Where a refusal goes beside the board's errors: where the answer would; None: nowhere."""
    reply = message.reply
    if reply is None:
        if len(message.payload) > limits.MAX_QUESTION:
            return None
        obj = read_object(message.payload) or {}
        said = obj.get("reply")
        if not isinstance(said, str):
            return None
        reply = Reply(said)
    check = reply_topics.check_named if message.reply is None else reply_topics.check
    try:
        check(reply, topics.root, None)
    except Refused:
        return None
    return reply


def chooser(wanted: Wanted, wall: float) -> Callable[[Row], bool]:
    """Whether a command is told of, of rows of that board; ``wall``: now, in Unix seconds."""
    since, until = wanted.at(wall)
    named = None if wanted.name is None else matches([wanted.name]).fullmatch
    pairs = (("id", wanted.id), ("by", wanted.by), ("analyser", wanted.analyser))
    same = [(key, value) for key, value in pairs if value is not None]

    def is_wanted(row: Row) -> bool:
        if wanted.account is not None and (
            row["by"] != wanted.account or row["known_by"] != KnownBy.REPLY_TOPIC
        ):
            return False
        if since is not None and row["issued"] < since:
            return False
        if until is not None and row["issued"] > until:
            return False
        if wanted.outcomes is not None and (row["outcome"] or OPEN) not in wanted.outcomes:
            return False
        if any(row.get(key) != value for key, value in same):
            return False
        if wanted.judged is not None and not _is_judged(row, wanted.judged):
            return False
        if named is not None and named(row["name"]) is None:
            return False
        return has_meta(row["meta"], wanted.meta)

    return is_wanted


def _is_judged(row: Row, judged: bool) -> bool:
    """Whether it has a first analysis, or has ended without one."""
    verdicts = row["verdicts"] or []
    is_judged = bool(verdicts) and verdicts[0]["time"] is None
    return is_judged if judged else row["outcome"] is not None and not is_judged


def has_meta(text: str, asked: Mapping[str, Any]) -> bool:
    """Whether a ``meta`` (compact JSON) has each of these values; one that is damaged has none."""
    if not asked:
        return True
    try:
        meta = loads(text) if text else None
    except ValueError:
        return False
    return isinstance(meta, dict) and all(
        key in meta and _is_like(meta[key], value) for key, value in asked.items()
    )


def _is_like(value: Any, asked: Any) -> bool:
    """Equal, as JSON is: true is not 1. A text stands for its JSON, too."""
    if isinstance(value, str) and value == asked:
        return True  # as most are
    return dumps(value) == dumps(asked) or (isinstance(asked, str) and dumps(value) == asked)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one page: the rows as JSON, each with the cursor that leads behind it.

    ``after``: where to go on when all rows were told; None: there is nothing older.
    """

    rows: Sequence[tuple[int, str]] = ()
    after: int | None = None

    def encoded(self, wanted: Wanted, wall: float, limit: int) -> bytes:
        """The page in at most so many bytes, where one row has room: the next page has the rest."""
        everybody = "false" if wanted.account is not None else "true"
        head = f'{{"user":"{wanted.user}","all":{everybody},"time":{dumps(wall)},"rows":['
        told, after, left = list[str](), self.after, limit - len(head) - _TAIL
        for cursor, row in self.rows:
            left -= size(row) + 1
            if left < 0 and told:
                break
            told.append(row)
            after = cursor
        if len(told) == len(self.rows):
            after = self.after
        return f'{head}{",".join(told)}],"after":{dumps(after)}}}'.encode()


_INK: Final = re.compile(r"\S")  # what is not blank
_END: Final = re.compile(r"[\r\n]")  # of a line
_TAIL: Final = 40  # bytes of a page behind its rows


def gather(
    rows: Iterable[tuple[int, Row]],
    wanted: Wanted,
    wall: float,
    is_late: Callable[[], bool] = lambda: False,
) -> Found:
    """The rows of a page, of a board's commands with their cursors, the newest first.

    ``is_late``: whether it has taken too long already; one command is looked at in any case.
    """
    is_wanted, told, bytes, cursor = chooser(wanted, wall), list[tuple[int, str]](), 0, 0
    for looked, (cursor, row) in enumerate(rows, 1):
        if is_wanted(row):
            text = dumps(_as_told(row))
            bytes += size(text) + 1
            if bytes > limits.HISTORY_PAGE and told:
                return Found(told, told[-1][0])
            told.append((cursor, text))
        if len(told) >= wanted.last or looked >= limits.HISTORY_LOOKED or is_late():
            return Found(told, cursor)
    return Found(told)


def _as_told(row: Row) -> Row:
    """A ``meta`` that is long was looked at, and is not told."""
    return row if size(row["meta"]) <= limits.HISTORY_TEXT else {**row, "meta": ""}


def line_of(stdout: str, stderr: str) -> str:
    """One line that stands for the output: the first that is not blank, else the last of stderr.

    ``stdout``: at least its beginning, ``stderr``: at least its end.
    """
    ink = _INK.search(stdout)
    text, at = (stdout, ink.start()) if ink else (stderr, len(stderr.rstrip()))
    begin = max(text.rfind(end, 0, at) for end in "\r\n") + 1
    ended = _END.search(text, at)
    return text[begin : ended.start() if ended else None].rstrip()[: limits.HISTORY_LINE]
