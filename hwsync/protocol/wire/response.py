"""What a device says of a command: collected, output and response (docs/protocol.md, section 5).

The law: what a device says of a finished run is never refused for its size: it is cut and marked,
nor for an order that does not fit its texts, or a hash that is none: those are dropped, nor for a
file that is not right: it is not kept. Keys of later versions are passed over, so that no result is
lost by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypedDict, cast

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.files import NO_ROOM, NotKept, counted, listed
from hwsync.protocol.jsons import MAX_INT, cut, dumps, is_count, micros, size
from hwsync.protocol.output import Order, keep_again, keep_ends
from hwsync.protocol.record import RAN_BY_OUTCOME, Outcome, Ran, RunReport, replace
from hwsync.protocol.wire.files import (
    NOT_KEPT,
    bare,
    base64_size,
    contents_of,
    not_kept_json,
    read_returned,
    returned_json,
)
from hwsync.protocol.wire.forms import (
    HASHES,
    OBJECT,
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
from hwsync.protocol.wire.ran_on import RAN_ON, ran_on_json, read_ran_on
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

if TYPE_CHECKING:
    from hwsync.protocol import events

_DEVICE_OUTCOMES: Final = frozenset(Outcome) - {Outcome.EXPIRED, Outcome.LOST}
_LONGEST_ID: Final = "i" * 64  # also of a journal
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
    files: NotRequired[
        Annotated[
            object,
            loose(OBJECT),
            Default({}),
            'those that came back, by path: `{"size", "sha256", "data"}`, the data in base64; '
            "one that is not right moves to `not_kept`",
        ]
    ]
    not_kept: NotRequired[
        Annotated[
            object,
            loose(NOT_KEPT),
            Default([]),
            '`{"path", "size", "reason"}` of those that did not, and at the end perhaps '
            '`{"others"}`: how many more',
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
    ran_on: NotRequired[
        Annotated[
            object,
            loose(RAN_ON),
            Default(None),
            "what it ran on, each key optional: `board` (its model), `os`, `kernel`, `python`, "
            "`packages` (their hash), `throttled` (a Raspberry Pi's bits at its end), `hwsync`, or "
            "others; at most 16 keys and 1 KiB, texts, numbers, true or false; dropped where it "
            "is none",
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
    """The device's report of a run in at most ``limit`` bytes, fitted to that (``fit``)."""
    payload = _encoded(id, journal, boot, report)
    return payload if len(payload) <= limit else _encoded(id, journal, boot, fit(report, limit))


def fit(report: RunReport, limit: int = limits.MAX_MESSAGE) -> RunReport:
    """The report as it can be sent in ``limit`` bytes, whatever its id and journal are.

    First files move to those that are not kept: each that finds no room beside the whole texts, in
    the order of their paths. Then texts are cut, and what is not kept is only counted. In the last
    resort the bare outcome stays, which has less than a kilobyte.
    """
    if _size(report) <= limit:
        return report
    report = less = _without_files(report, limit)
    share = limit // 2
    while _size(less) > limit and share:
        less = _shortened(report, share)
        share //= 2
    return less if _size(less) <= limit else _bare(report)


def _encoded(id: str, journal: str, boot: int, report: RunReport) -> bytes:
    fields = {
        "id": id,
        "journal": journal,
        "boot": boot,
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
        **({"files": returned_json(report.files)} if report.files else {}),
        **({"not_kept": not_kept_json(report.not_kept)} if report.not_kept else {}),
        **({"ran_on": ran_on_json(report.ran_on)} if report.ran_on else {}),
    }
    return dumps(fields).encode()


def _size(report: RunReport) -> int:
    """Bytes of its message, with the longest id and journal."""
    bare_files = bare(report.files)
    data = sum(base64_size(one.size) + len('"data":"",') for one in report.files)
    payload = _encoded(_LONGEST_ID, _LONGEST_ID, MAX_INT, replace(report, files=bare_files))
    return len(payload) + data


def _without_files(report: RunReport, limit: int) -> RunReport:
    """Without those for which there is no room beside its texts and what is not kept."""
    room = limit - _size(replace(report, files=(), not_kept=())) - limits.MAX_NOT_KEPT_BYTES
    kept, left = [], list(report.not_kept)
    for file in report.files:
        needed = len(dumps(returned_json((file.bare,)))) + base64_size(file.size) + 16
        if needed <= room:
            kept.append(file)
            room -= needed
        else:
            left.append(NotKept(file.path, file.size, NO_ROOM))
    return replace(report, files=tuple(kept), not_kept=listed(left))


def _shortened(report: RunReport, share: int) -> RunReport:
    """Its texts with at most so many bytes each, and of what is not kept at most as much."""
    few = len(dumps(not_kept_json(report.not_kept))) <= share
    return replace(
        report,
        response=keep_again(report.response, share, report.truncated),
        stderr=keep_again(report.stderr, share, report.truncated),
        truncated=True,
        order=None,
        not_kept=report.not_kept if few else counted(report.not_kept),
    )


def _bare(report: RunReport) -> RunReport:
    """The outcome and its figures."""
    return replace(
        report,
        response="",
        stderr="",
        truncated=True,
        order=None,
        reason=cut(report.reason, limits.STATUS_FIRST // 24),
        files=(),
        not_kept=counted(_without_files(report, 0).not_kept),
        ran_on="",
    )


def read_collected(payload: bytes) -> events.Collected:
    """Who has a command. Raises ``Refused``."""
    from hwsync.protocol import events

    if not payload:
        return events.Collected()
    example = 'by hand send it empty; a device sends {"id", "journal", "boot"}'
    fields = COLLECTED.read(object_of(payload, COLLECTED.what, example))
    return events.Collected(fields["id"], fields["journal"], fields["boot"])


def read_response(payload: bytes) -> events.Returned:
    """How a run ended; plain text is an answer by hand. Raises ``Refused``."""
    from hwsync.protocol import events

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
    return events.Returned(RunReport(Outcome.OK, Ran.YES, response=answer))


def _result(obj: Json) -> events.Returned:
    from hwsync.protocol import events

    fields = RESPONSE.read(obj)
    outcome = Outcome(fields["outcome"])
    response, response_cut = keep_ends(fields["response"], limits.MAX_RESPONSE)
    stderr, stderr_cut = keep_ends(fields["stderr"], limits.MAX_STDERR)
    truncated = fields["truncated"] or response_cut or stderr_cut
    hashes = fields["sha256"] if isinstance(fields["sha256"], dict) else {}
    files, not_kept = read_returned(fields["files"], fields["not_kept"])
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
        files=bare(files),
        not_kept=not_kept,
        ran_on=read_ran_on(fields["ran_on"]),
    )
    contents = contents_of(files)
    return events.Returned(report, fields["id"], fields["journal"], fields["boot"], contents)


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
