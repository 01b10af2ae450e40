"""What time it is: a device's question, and the coordinator's answer (docs/protocol.md, section 6).

The law: whole microseconds, so that nobody rounds; a retained one is not heard. What cannot be read
is passed over: nobody is told, and nothing is stored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypedDict

from hwsync.protocol.jsons import dumps
from hwsync.protocol.wire.forms import COUNT, SEEN, Count, Id
from hwsync.protocol.wire.schema import Schema, read_object


class Question(TypedDict):
    """On ``clock``: a device."""

    n: Annotated[Count, "by chance: an answer that does not have it is to another question"]
    t0: Annotated[Count, "when it was asked, by the device's raw clock, in microseconds"]


class Answer(TypedDict):
    """On ``clock/reply``: the coordinator."""

    n: Annotated[int, COUNT, "the question's"]
    t0: Annotated[int, COUNT, "the question's"]
    t1: Annotated[Count, "lab time, in microseconds, when the question was read from the socket"]
    t2: Annotated[Count, "lab time, in microseconds, when the answer was written"]
    life: Annotated[Id, "of lab time"]
    seen: Annotated[Any, SEEN, "of the record of this board, as it was stored then"]


QUESTION: Final = Schema.of("the question", Question)
ANSWER: Final = Schema.of("the answer", Answer)


def encode_question(n: int, t0: int) -> bytes:
    """A device asks."""
    return dumps({"n": n, "t0": t0}).encode()


def read_question(payload: bytes) -> Question | None:
    """None where it is none."""
    fields = read_object(payload)
    return QUESTION.read(fields) if fields is not None and QUESTION.holds(fields) else None


def encode_answer(question: Question, t1: int, t2: int, life: str, seen: tuple[int, int]) -> bytes:
    """The coordinator answers."""
    return dumps(
        {"n": question["n"], "t0": question["t0"], "t1": t1, "t2": t2, "life": life,
         "seen": list(seen)}
    ).encode()  # fmt: skip


def read_answer(payload: bytes) -> Answer | None:
    """None where it is none."""
    fields = read_object(payload)
    return ANSWER.read(fields) if fields is not None and ANSWER.holds(fields) else None
