"""One program for a board: the request, what becomes of it, and the exit code that its end has.

The law: the coordinator's word alone says how a command stands. What comes of it is shown by
others; here is decided for how long it is waited for, and what is asked meanwhile.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, cast

from hwsync.address import BrokerUrl
from hwsync.operator.conversation import ANSWER_S, Conversation, OnReceived, Talk, raise_refused
from hwsync.protocol import limits
from hwsync.protocol.admission import CLAIM
from hwsync.protocol.errors import Code, NoCoordinator
from hwsync.protocol.files import File
from hwsync.protocol.jsons import cut, dumps
from hwsync.protocol.record import Analyser, State
from hwsync.protocol.reply_topics import REPLIES
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_id
from hwsync.protocol.wire.files import NO_CONTENTS, files_json
from hwsync.protocol.wire.request import encode_request, extras_size
from hwsync.protocol.wire.status import CommandFields, Result

LOOK_AGAIN_S: Final = 5.0  # a query while nothing is heard: a status may have been lost
TICK_S: Final = 0.5  # between two looks at the clock
NOT_RUN: Final = 125
_SAID: Final = (TopicKind.QUERY, TopicKind.CANCEL)  # while a command is followed
CODES: Final = {"ok": 0, "timeout": 124, "cancelled": 130}


def fresh_id(asker: str = "cli") -> str:
    """An id for a command of the command line, or ``asker``: 64 random bits, no two are alike."""
    return f"{asker}-{secrets.token_hex(8)}"


def claim(url: BrokerUrl) -> str:
    """Who asks, by our own word: the account at the broker, else the login and its machine."""
    name = url.username
    if name is None:
        try:
            login = getpass.getuser()
        except (KeyError, OSError):  # this account has no name
            login = str(os.getuid())
        name = f"{login}@{socket.gethostname()}"
    return cut(name.encode(errors="replace").decode(), limits.MAX_CLAIM)


def exit_code(end: CommandFields) -> int:
    """The exit code of ``run``: the program's own where it had one.

    Else 124, 130 or 137, as of a program that ``timeout``, Ctrl-C or SIGKILL has ended; 125 where
    it did not run, or nobody knows (docs/cli.md, "Exit codes").
    """
    outcome = end["outcome"]
    if outcome == "error":
        return int(end["exit_code"] or 1)
    if outcome == "killed":
        return int(end["exit_code"] or 137)
    return CODES.get(str(outcome), NOT_RUN)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a board is asked to run (docs/protocol.md, section 4). None: the protocol's default.

    All of it is sent as it is: the coordinator says what is too long, or of another shape.
    """

    program: str
    id: str = field(default_factory=fresh_id)
    analysis: str = Analyser.OUTCOME
    timeout: float | None = None  # s, run time
    expires: float | None = None  # s, until it must be collected; 0: no limit
    grace: float | None = None  # s past the timeout, until it is lost
    queue: bool = False  # wait behind the present command
    name: str | None = None  # what its file is called on the board
    args: tuple[str, ...] = ()
    stdin: str | None = None
    meta: Any = field(default_factory=dict)  # JSON, kept with the command
    by: str = ""  # who asks; said in ``meta`` where that is possible, and by the reply topic
    start: Mapping[str, Any] | None = None  # at which instant (docs/protocol.md, section 6)
    batch: tuple[str, ...] = ()  # the boards of a batch without a group
    parallel: int | None = None  # of a group's batch, like the next two
    abort: float | None = None
    online: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # that go along, by path
    collect: tuple[str, ...] = ()  # patterns of those that come back

    @property
    def payload(self) -> bytes:
        """As it is published. Raises ``ValueError`` for a text that is not UTF-8."""
        keys: dict[str, Any] = {"id": self.id, "analysis": self.analysis}
        numbers = {"timeout": self.timeout, "expires": self.expires, "grace": self.grace}
        keys |= {name: value for name, value in numbers.items() if value is not None}
        keys |= {"queue": True} if self.queue else {}
        keys |= {"name": self.name} if self.name is not None else {}
        keys["args"] = list(self.args)
        keys |= {"stdin": self.stdin} if self.stdin is not None else {}
        of_batch = {"start": self.start, "parallel": self.parallel, "abort": self.abort}
        keys |= {name: value for name, value in of_batch.items() if value is not None}
        keys |= {"batch": list(self.batch)} if self.batch else {}
        keys |= {"online": True} if self.online else {}
        sent = tuple(File.of(path, data) for path, data in self.files.items())
        keys |= {"files": files_json(sent, NO_CONTENTS)} if sent else {}
        keys |= {"collect": list(self.collect)} if self.collect else {}
        meta = self._claimed()
        keys |= {"meta": meta} if meta != {} else {}
        # An account's own topic says whose it is, which the claim does not; nobody need listen.
        keys |= {"reply": f"{REPLIES}/{self.by}/hwsync"} if limits.is_user(self.by) else {}
        return encode_request(self.program, **keys)

    def _claimed(self) -> Any:
        """``meta`` with who asks, unless it says so, is no object, or would be too large."""
        if not self.by or not isinstance(self.meta, dict) or CLAIM in self.meta:
            return self.meta
        claimed = {**self.meta, CLAIM: self.by}
        extras = extras_size(self.stdin or "", self.args, dumps(claimed))
        return claimed if extras <= limits.MAX_EXTRAS else self.meta


class Run:
    """One command of an operator, from its request to its end.

    Each method is a talk, like those of ``Conversation``:

        run = Run(client, RunRequest(program="print(6*7)"))
        client.wait(run.requesting())
        end = client.wait(run.following())

    ``last``: the state in which its record may be at its end, beside rest: ``RETURNED`` where
    nobody analyses the result. Whatever is raised, the command goes on; it is found again with its
    ``id``, by another ``Run`` too.
    """

    def __init__(
        self, conversation: Conversation, request: RunRequest, last: State = State.REST
    ) -> None:
        self.request, self.id = request, request.id
        self.user = conversation.user
        self._conversation, self._last = conversation, last
        self._ask = TopicKind.QUERY  # while it is followed

    def requesting(
        self,
        *,
        on_received: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
        fresh: bool = False,
    ) -> Talk[CommandFields]:
        """Ask until it is acknowledged: by the status, or by the command's result.

        Raises ``ValueError`` at once for a text that is not UTF-8, and ``Refused``, ``TooLarge``:
        it is not accepted, and will not be. After ``NoCoordinator`` and ``Degraded`` it may still
        be: ask again with the same ``RunRequest``, or have it cancelled. ``on_received`` is given
        everything that comes, whatever it is about; ``waiting`` is called before each repetition.
        ``fresh``: nobody else knows the id, so that its status needs no query behind it.
        """
        return self._conversation.telling(
            TopicKind.REQUEST,
            self.request.payload,
            self.id,
            on_received=on_received,
            waiting=waiting,
            fresh=fresh,
        )

    def following(
        self,
        told: CommandFields | None = None,
        *,
        on_received: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Talk[CommandFields]:
        """Until the command has ended and its record is at rest, or in ``last``; its end.

        Raises ``NoCoordinator`` after ``ANSWER_S`` seconds without an answer, ``Refused`` where the
        id is not known, or no longer. ``on_received`` is given what is about this command;
        ``waiting`` is called each ``TICK_S`` seconds. ``told``: what was heard of it just now.
        """
        return self._following(told, on_received, waiting)

    def cancel(self) -> None:
        """Have it cancelled: now, and again and again while it is followed, which goes on."""
        self._ask = TopicKind.CANCEL
        self._conversation.publish(self._ask, encode_id(self.id))

    def cancelling(
        self,
        *,
        on_received: OnReceived = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
        last: State | None = None,
    ) -> Talk[CommandFields]:
        """Have it cancelled, and follow it to its end: like ``following``.

        ``last``: from now on, in the place of the one that was given.
        """
        self._ask = TopicKind.CANCEL
        self._last = self._last if last is None else last
        return self._following(None, on_received, waiting)

    @property
    def is_cancelled(self) -> bool:
        """Whether that was asked for here."""
        return self._ask is TopicKind.CANCEL

    def analysing(self, text: str) -> Talk[CommandFields]:
        """Publish the analysis; the command's end then (docs/protocol.md, section 7).

        Raises ``Refused`` where one came first, the command has no result yet, or whoever asks may
        not judge.
        """
        return self._conversation.judging(text, self.id)

    def querying(self, patience: float = ANSWER_S) -> Talk[Result]:
        """The whole of it, as on ``result/<id>``. Raises ``Refused``."""
        return self._conversation.querying(self.id, patience)

    def completing(self, end: CommandFields) -> Talk[CommandFields]:
        """The end with all that is kept: a status is cut sooner than a result. Raises ``Refused``.

        An end that is not ``truncated`` needs none of this.
        """
        whole = yield from self.querying()
        fields: dict[str, Any] = dict(end)
        fields |= {name: value for name, value in whole.items() if name in end}
        fields["order"] = whole.get("order")
        return cast(CommandFields, fields)

    def _following(
        self, told: CommandFields | None, on_received: OnReceived, waiting: Callable[[], None]
    ) -> Talk[CommandFields]:
        conversation, id = self._conversation, self.id
        answered = conversation.now
        asked = answered if told is not None and self._ask is TopicKind.QUERY else -inf
        if told is not None and self._is_end(told):
            return told
        while True:
            now = conversation.now
            if now - answered > ANSWER_S:
                raise NoCoordinator(
                    f"the coordinator has not answered for {ANSWER_S:g} s; the command {id} "
                    "goes on",
                    f"hwsync wait {conversation.user} {id} waits for its end again",
                )
            if now - asked > LOOK_AGAIN_S:
                asked = now
                conversation.publish(self._ask, encode_id(id))
            limit = conversation.now + TICK_S
            while (came := (yield from conversation.hearing(limit, _SAID))) is not None:
                if came.fields.get("id") != id or conversation.is_foreign(self._ask, came):
                    continue
                on_received(came)
                if came.error is not None and came.error["error"] == Code.NOT_CURRENT:
                    raise_refused(came)  # it is not, or no longer, known there
                elif (told := came.command_fields) is not None:
                    answered = conversation.now
                    if self._is_end(told):
                        return told
            waiting()

    def _is_end(self, told: CommandFields) -> bool:
        return told["outcome"] is not None and told["state"] in (State.REST, self._last)
