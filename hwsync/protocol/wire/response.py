"""What a device says of a command: collected, output and response (docs/protocol.md, section 5).

The law: what a device says of a finished run is never refused for its size: it is cut and marked,
nor for an order that does not fit its texts, or a hash that is none: those are dropped. Keys of
later versions are passed over, so that no result is lost by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, NotRequired, TypedDict, cast

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import Collected, Returned
from hwsync.protocol.jsons import cut, dumps, fitted, is_count, micros, size
from hwsync.protocol.output import Order, keep_again, keep_ends
from hwsync.protocol.record import RAN_BY_OUTCOME, Outcome, Ran, RunReport
from hwsync.protocol.wire.forms import (
    HASHES,
    STREAMS,
    Count,
    ExitCode,
    Flag,
    Id,
    Number,
    Text,
    as_float,
    as_seconds,
    bounded,
    one_of,
)
from hwsync.protocol.wire.schema import (
    Default,
    Doubt,
    Form,
    Json,
    Schema,
    loose,
    object_in,
    object_of,
    text_of,
)

_DEVICE_OUTCOMES: Final = frozenset(Outcome) - {Outcome.EXPIRED, Outcome.LOST}
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


def _no_outcome(key: str, value: Any) -> Doubt:
    hint = "one of " + ", ".join(sorted(_DEVICE_OUTCOMES))
    return Code.BAD_PAYLOAD, f"{key!r} is none that a device can give", hint


_OUTCOME: Final = Form(
    "text", lambda value: isinstance(value, str) and value in _DEVICE_OUTCOMES, _no_outcome
)
_ORDER: Final = Form(
    "list of `[stream, bytes]`", lambda value: isinstance(value, list) and all(map(_is_part, value))
)


class CollectedFields(TypedDict):
    """On ``collected``, where it is not empty."""

    id: Annotated[Id, "of the command"]
    journal: Annotated[Id, "the device's"]
    boot: Annotated[Count, "its count of starts"]


class Output(TypedDict):
    """On ``output``: one piece, while the program runs."""

    id: Annotated[Text, "of the command"]
    n: Annotated[Count, "the number of the piece, from 0 over both streams"]
    stream: Annotated[Text, "`stdout` or `stderr`"]
    text: Annotated[Text, "what was written"]
    at: NotRequired[
        Annotated[
            Count | None,
            "how many bytes of its stream came before it; a device of before does not say it",
        ]
    ]
    skipped: NotRequired[
        Annotated[
            Count | None, "how many bytes right before it are in no piece; where there are any"
        ]
    ]


class ResponseFields(TypedDict):
    """On ``response``, where it is no plain text."""

    id: Annotated[Id, "of the command"]
    journal: Annotated[Id, "the device's"]
    boot: Annotated[Count, "its count of starts"]
    outcome: Annotated[
        str, _OUTCOME, "how the run ended: one of section 1, but `expired` and `lost`"
    ]
    ran: NotRequired[
        Annotated[
            object,
            loose(one_of(*Ran)),
            "refused where it says another thing than the outcome implies; needed with `cancelled`",
        ]
    ]
    reason: NotRequired[Annotated[Text, Default(""), "one line for people"]]
    response: NotRequired[Annotated[Text, Default(""), "what it wrote to standard output"]]
    stderr: NotRequired[Annotated[Text, Default(""), "what it wrote to standard error"]]
    exit_code: NotRequired[Annotated[ExitCode | None, Default(None), "the program's exit code"]]
    duration: NotRequired[Annotated[Number | None, Default(None), "seconds of run time"]]
    started: NotRequired[
        Annotated[
            Number | None,
            Default(None),
            "when it started: lab time where `clock_bound` is there, else its own clock's",
        ]
    ]
    start_error: NotRequired[
        Annotated[
            Number | None, Default(None), "of a start: `started` less its instant, in seconds"
        ]
    ]
    clock_bound: NotRequired[
        Annotated[
            Number | None,
            Default(None),
            "how far lab time may have been from `started`, in seconds; null: it was not known",
        ]
    ]
    truncated: NotRequired[
        Annotated[Flag, Default(False), "a text here has only its beginning and its end"]
    ]
    sha256: NotRequired[
        Annotated[
            object,
            loose(HASHES),
            Default(None),
            "in hexadecimal, of the whole streams, also where the texts are cut; dropped where "
            "it is none of them",
        ]
    ]
    order: NotRequired[
        Annotated[
            object,
            loose(_ORDER),
            Default(None),
            "that of section 1, of `response` and `stderr` as they stand here; dropped where it "
            "does not add up to their bytes, or is above 4 KiB",
        ]
    ]


COLLECTED: Final = Schema.of("collected", CollectedFields)
OUTPUT: Final = Schema.of("the output", Output)
RESPONSE: Final = Schema.of("the result", ResponseFields)


def encode_collected(id: str, journal: str, boot: int) -> bytes:
    """ "I have it, it has not started"."""
    return dumps({"id": id, "journal": journal, "boot": boot}).encode()


def encode_output(id: str, n: int, stream: str, text: str, at: int, skipped: int = 0) -> bytes:
    """One numbered piece of live output: ``at`` and ``skipped`` are bytes of its stream."""
    piece = {"id": id, "n": n, "stream": stream, "text": text, "at": at}
    return dumps({**piece, "skipped": skipped} if skipped else piece).encode()


def encode_response(
    id: str, journal: str, boot: int, report: RunReport, limit: int = limits.MAX_MESSAGE
) -> bytes:
    """The device's report of a run in at most ``limit`` bytes, its texts cut to fit.

    In the last resort only the bare outcome stays, which has less than a kilobyte.
    """
    named = {"id": id, "journal": journal, "boot": boot}
    fields = {
        **named,
        "outcome": report.outcome,
        "ran": report.ran,
        "reason": report.reason,
        "response": report.response,
        "stderr": report.stderr,
        "exit_code": report.exit_code,
        "duration": report.duration,
        "started": micros(report.started),
        "start_error": micros(report.start_error),
        "clock_bound": micros(report.clock_bound),
        "truncated": report.truncated,
        "sha256": {"stdout": report.sha256_stdout, "stderr": report.sha256_stderr},
        **({} if report.order is None else {"order": report.order}),
    }

    def shortened(share: int) -> dict[str, object]:
        texts = (("response", report.response), ("stderr", report.stderr))
        less = {name: keep_again(text, share, report.truncated) for name, text in texts}
        return {**less, "truncated": True, "order": None}

    def last() -> dict[str, object]:
        bare = ("outcome", "ran", "exit_code", "duration", "started", "start_error", "clock_bound",
                "sha256")  # fmt: skip
        reason = cut(report.reason, limits.STATUS_FIRST // 24)
        return {**named, **{key: fields[key] for key in bare}, "reason": reason, "truncated": True}

    return fitted(fields, limit, limit // 2, shortened, last)


def read_collected(payload: bytes) -> Collected:
    """Who has a command. Raises ``Refused``."""
    if not payload:
        return Collected()
    example = 'by hand send it empty; a device sends {"id", "journal", "boot"}'
    fields = COLLECTED.read(object_of(payload, COLLECTED.what, example))
    return Collected(fields["id"], fields["journal"], fields["boot"])


def read_response(payload: bytes) -> Returned:
    """How a run ended; plain text is an answer by hand. Raises ``Refused``."""
    text = text_of(payload)
    try:
        obj = object_in(text)
    except ValueError as error:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"the response looks like JSON but is none: {error}",
            "mend the JSON; plain text must not begin with {",
        ) from None
    if obj is not None and "outcome" in obj:
        return _result(obj)
    answer = bounded(text, limits.MAX_RESPONSE, "the response")
    return Returned(RunReport(Outcome.OK, Ran.YES, response=answer))


def _result(obj: Json) -> Returned:
    fields = RESPONSE.read(obj)
    outcome = Outcome(fields["outcome"])
    response, response_cut = keep_ends(fields["response"], limits.MAX_RESPONSE)
    stderr, stderr_cut = keep_ends(fields["stderr"], limits.MAX_STDERR)
    truncated = fields["truncated"] or response_cut or stderr_cut
    hashes = fields["sha256"] if isinstance(fields["sha256"], dict) else {}
    report = RunReport(
        outcome,
        _ran(obj, outcome),
        " ".join(fields["reason"].split())[: limits.MAX_REASON],
        response,
        stderr,
        exit_code=fields["exit_code"],
        duration=as_float(fields["duration"]),
        started=as_seconds(fields["started"]),
        start_error=as_seconds(fields["start_error"]),
        clock_bound=as_seconds(fields["clock_bound"]),
        truncated=truncated,
        sha256_stdout=_hash(hashes.get("stdout"), None if truncated else response),
        sha256_stderr=_hash(hashes.get("stderr"), None if truncated else stderr),
        order=_order(fields["order"], {"stdout": size(response), "stderr": size(stderr)}),
    )
    return Returned(report, fields["id"], fields["journal"], fields["boot"])


def _ran(obj: Json, outcome: Outcome) -> Ran:
    implied = RAN_BY_OUTCOME.get(outcome)
    ran = obj.get("ran", implied)
    if not RESPONSE.by_key["ran"].takes(ran) or (implied and ran != implied):
        must = implied or "yes, no or maybe"
        message = f"'ran' must be {must} with {str(outcome)!r}"
        raise RESPONSE.refuse(obj, Code.BAD_PAYLOAD, message)
    return Ran(str(ran))


def _order(value: object, sizes: Mapping[str, int]) -> Order | None:
    """The order of a result; None where it is none of these texts, whose bytes are ``sizes``."""
    if not _ORDER.holds(value) or len(dumps(value)) > limits.MAX_ORDER:
        return None
    order = tuple((stream, count) for stream, count in cast(list[tuple[str, int]], value))
    sums = {name: sum(count for stream, count in order if stream == name) for name in sizes}
    return order if sums == sizes else None


def _is_part(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and value[0] in STREAMS
        and is_count(value[1])
        and value[1] > 0
    )


def _hash(value: object, text: str | None) -> str:
    """A SHA-256 in hexadecimal; anything else, or one of another text, is no hash of it.

    ``text``: None where it is not whole. Bytes that were no UTF-8 were replaced in it: then nobody
    can compare.
    """
    if not (isinstance(value, str) and len(value) == 64 and not set(value) - _HEXADECIMAL):
        return ""
    if text is None or "\ufffd" in text or hashlib.sha256(text.encode()).hexdigest() == value:
        return value
    return ""
