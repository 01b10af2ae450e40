"""An operator's conversation without a network: the other end of its line, and what it says."""

from __future__ import annotations

from typing import Any

from hwsync.operator.conversation import Conversation, Talk
from hwsync.protocol.errors import Code
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Command, Record, Request, State
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.schema import Json
from hwsync.protocol.wire.status import result_json, status_json
from hwsync.transport import Delivery, Signal


class Line:
    """The other end: what was sent, and what is said next. Time passes only when it is told.

    ``user``: the board, or a group with its sign.
    """

    def __init__(self, user: str = "pi1") -> None:
        self.now = 0.0
        self.messages: list[tuple[str, bytes]] = []
        self.conversation = Conversation(
            Topics(), user, lambda topic, payload: self.messages.append((topic, payload)),
            monotonic=lambda: self.now,
        )  # fmt: skip

    @property
    def sent(self) -> list[str]:
        """The kinds of all that was sent."""
        return [topic.split("/")[2] for topic, _ in self.messages]

    def drive(self, talk: Talk[Any], *signals: Signal | None) -> Any:
        """Let it hear these, and nothing more; None: nothing for as long as it waits."""
        waiting = list(signals)
        try:
            seconds = next(talk)
            while True:
                signal = waiting.pop(0) if waiting else None
                if signal is None:
                    self.now += seconds
                seconds = talk.send(signal)
        except StopIteration as end:
            return end.value


def said(kind: str, fields: Json, user: str = "pi1") -> Delivery:
    return Delivery(f"hw/{user}/{kind}", dumps(fields).encode(), 1, False, False, 1, 1)


def result(program: str, id: str = "c1", **changes: Any) -> Delivery:
    command = Command("pi1", id, Request(program, id))
    return said(f"result/{id}", result_json(command, State.REST) | changes)


def status(program: str, id: str = "c1") -> Delivery:
    record = Record("pi1", State.REQUESTED, current=Command("pi1", id, Request(program, id)))
    return said("status", status_json(record))


def error(code: Code, kind: str, id: str | None = "c1", user: str = "pi1") -> Delivery:
    fields = {"error": code, "message": "no", "hint": "", "topic": f"hw/{user}/{kind}", "id": id}
    return said("error", fields | {"journal": None, "state": 0}, user)
