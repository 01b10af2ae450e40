"""Accounts that fill what they can: every kind of message that has something stored, without end.

``alice`` may ask of pi1, ``rita`` may read everything, and ``pi1`` is the board's own account. Each
sends as much as the broker takes, kind after kind, and comes again when it is cut.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final

from hwsync.protocol.limits import (
    MAX_EXTRAS,
    MAX_MESSAGE,
    MAX_PROGRAM,
    MAX_QUEUE,
    MAX_RESPONSE,
    MAX_STDERR,
)
from tests.support.account_lab import AccountLab
from tests.support.packets import Client, Closed, Told

LEFT_OUT: Final = ("retained", "sessions")  # may be, to find out what fills the broker
SESSIONS: Final = 20  # of one account, that are left open and never come back
SOME: Final = 50  # small messages in one go
LARGE: Final = 4  # large ones
BOARD: Final = "hw/pi1"
FUTURE: Final = 10**12  # no coordinator's epoch

Messages = Iterator[list[Told]]


def _told(kind: str, fields: object, *, retain: bool = False, pad: int = 0) -> Told:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    return Told(f"{BOARD}/{kind}", text + " " * pad, retain)


class Numbers:
    """Never the same one twice."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def __call__(self, letter: str) -> str:
        return f"{letter}{next(self._count)}"


def _result(id: str, journal: str = "j1", **keys: object) -> dict[str, object]:
    fields = {"id": id, "journal": journal, "boot": 1, "outcome": "ok", "exit_code": 0}
    return {**fields, **keys}


def board(number: Numbers) -> Messages:
    """What the account of pi1 may say."""
    text, error = "x" * MAX_RESPONSE, "y" * MAX_STDERR
    known = [number("k") for _ in range(6)]
    yield [_told("response", _result(id)) for id in known]
    for turn in itertools.count():
        yield [_told("response", _result(number("o"), response=text, stderr=error))] * LARGE
        yield [
            _told("response", _result(number("o"), response=text, stderr=error))
            for _ in range(LARGE)
        ]
        yield [_told("response", _result(number("o"))) for _ in range(SOME)]
        yield [_told("response", _result(id)) for id in known * (SOME // len(known))]
        yield [_told("response", _result(known[0], number("j"))) for _ in range(SOME)]
        yield [_told("response", _result(number("u"), outcome="lost")) for _ in range(SOME)]
        yield [
            _told("response", _result(number("u"), outcome="lost"), pad=MAX_MESSAGE - 1_000)
            for _ in range(LARGE)
        ]
        yield [
            _told("collected", {"id": known[0], "journal": f"j{one % 2 + 2}", "boot": 1})
            for one in range(SOME)
        ]
        boots = range(turn * SOME, (turn + 1) * SOME)
        yield [_told("collected", {"id": "s1", "journal": "j1", "boot": one}) for one in boots]
        beats = ({"online": True, "journal": "j1", "boot": one} for one in boots)
        yield [_told("heartbeat", beat, retain=True) for beat in beats]
        yield [
            _told("heartbeat", {"online": True, "journal": "j1", "boot": 1, "seen": [one, 1]})
            for one in (turn, FUTURE)
        ]
        for kind in ("collected", "output", "response", "heartbeat"):
            yield [_told(kind, "x" * (MAX_MESSAGE - 1), retain=True)]


def operator(number: Numbers) -> Messages:
    """What somebody may say who may ask of pi1."""
    program, extras = "#" * MAX_PROGRAM, "x" * (MAX_EXTRAS - 100)
    yield [_told("request", {"program": "1", "id": "s1"})]
    for _ in itertools.count():
        yield [_told("reset", "") for _ in range(SOME)]
        yield [_told("cancel", "") for _ in range(SOME)]
        for _ in range(SOME // 5):
            id = number("r")
            yield [_told("request", {"program": "1", "id": id}), _told("cancel", {"id": id})]
        id = number("r")
        large = {"program": program, "id": id, "stdin": extras}
        yield [_told("request", large), _told("cancel", {"id": id})]
        id = number("r")
        yield [
            _told("request", {"program": "1", "id": id}, pad=MAX_MESSAGE - 1_000),
            _told("reset", {"id": id}),
        ]
        ids = [number("q") for _ in range(MAX_QUEUE + 1)]
        for some in range(0, len(ids), LARGE):
            yield [
                _told("request", {"program": program, "stdin": extras, "id": id, "queue": True})
                for id in ids[some : some + LARGE]
            ]
        yield [_told("cancel", {"id": id}) for id in ids[1:SOME]]
        yield [_told("reset", {"queue": True})]
        yield [
            _told("request", {"program": "1", "id": number("q"), "queue": True})
            for _ in range(SOME)
        ]
        yield [_told("analysis", {"analysis": extras, "id": f"r{one}"}) for one in range(LARGE)]
        yield [_told("request", {"program": "1", "x" * 100: 1}) for _ in range(SOME)]
        yield [_told("request", "{" + '"program"' + "x" * MAX_PROGRAM) for _ in range(LARGE)]
        for kind in ("request", "cancel", "reset", "analysis", "query"):
            yield [_told(kind, "x" * (MAX_MESSAGE - 1), retain=True)]


def reader(number: Numbers) -> Messages:
    """What somebody may say who may read everything, and ask nothing."""
    large = "x" * (MAX_MESSAGE - 1)
    for _ in itertools.count():
        yield [_told("query", {"id": number("n")}) for _ in range(SOME)]
        yield [_told("query", "") for _ in range(SOME)]
        yield [Told("hw/@hwsync/query", "") for _ in range(LARGE)]
        yield [_told("query", large)]
        for topic in ("hw/pi1/query", "hw/pi2/query", "hw/@hwsync/query"):
            yield [Told(topic, large, retain=True)]
        yield [Told(f"replies/rita/{one}", large, retain=True) for one in range(LARGE)]
        yield [Told(f"hw/@hwsync/echo/{one}", large, retain=True) for one in range(LARGE)]


ACCOUNTS: Final[dict[str, Callable[[Numbers], Messages]]] = {
    "pi1": board,
    "alice": operator,
    "rita": reader,
}


class Filler:
    """One account in a thread of its own, until ``stop``."""

    def __init__(self, lab: AccountLab, account: str, without: Collection[str] = ()) -> None:
        self.account = account
        self._without = without  # of ``LEFT_OUT``
        self.sent: Counter[str] = Counter()  # acknowledged by the broker, by kind of topic
        self.cut = 0
        self._lab, self._client = lab, None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fill-{account}", daemon=True)

    _client: Client | None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        if self.account != "pi1" and "sessions" not in self._without:  # its client id is one
            for one in range(SESSIONS):
                with contextlib.suppress(OSError, Closed, AssertionError):
                    self._leave_a_session(f"{self.account}-{one}")
        messages = ACCOUNTS[self.account](Numbers())
        while not self._end.is_set():
            some = next(messages)
            if not ("retained" in self._without and any(one.retain for one in some)):
                self._say(some)
        if self._client is not None:
            self._client.drop()

    def _leave_a_session(self, id: str) -> None:
        """The broker keeps what comes for it."""
        client = Client(self._lab.login(self.account), self._lab.context, id=id, clean=False)
        client.subscribe([f"{BOARD}/status", f"{BOARD}/error", f"{BOARD}/result/+"])
        client.drop()

    def _say(self, messages: list[Told]) -> None:
        try:
            if self._client is None:
                self._client = Client(self._lab.login(self.account), self._lab.context)
            self._client.publish(messages)
        except (OSError, Closed, AssertionError):
            self.cut += 1
            if self._client is not None:
                self._client.drop()
            self._client = None
            self._end.wait(0.1)
            return
        for message in messages:
            self.sent[message.topic.rpartition("/")[2]] += 1
