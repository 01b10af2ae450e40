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
    """The other end: what was sent, and what is said next. Time passes only when it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[str] = []
        self.conversation = Conversation(
            Topics(), "pi1", lambda topic, _: self.sent.append(topic.split("/")[2]),
            monotonic=lambda: self.now,
        )  # fmt: skip

    def drive(self, talk: Talk[Json], *signals: Signal | None) -> Json:
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
            return dict(end.value)


def said(kind: str, fields: Json) -> Delivery:
    return Delivery(f"hw/pi1/{kind}", dumps(fields).encode(), 1, False, False, 1, 1)


def result(program: str, id: str = "c1", **changes: Any) -> Delivery:
    command = Command("pi1", id, Request(program, id))
    return said(f"result/{id}", result_json(command, State.REST) | changes)


def status(program: str, id: str = "c1") -> Delivery:
    record = Record("pi1", State.REQUESTED, current=Command("pi1", id, Request(program, id)))
    return said("status", status_json(record))


def error(code: Code, kind: str, id: str = "c1") -> Delivery:
    fields = {"error": code, "message": "no", "hint": "", "topic": f"hw/pi1/{kind}", "id": id}
    return said("error", fields | {"journal": None, "state": 0})
