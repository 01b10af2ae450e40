"""Status and result: the record as everybody reads it, and the whole of one command.

The law: all fields of a status are always there, in their order; what a small device acts on comes
first, and what a later version adds stands at the end (docs/protocol.md, section 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypedDict, cast

from hwsync.protocol import limits
from hwsync.protocol.analysis import nobody_offers
from hwsync.protocol.jsons import Micros, cut, dumps, fitted, micros, size
from hwsync.protocol.output import keep_again
from hwsync.protocol.record import NO_COMMAND, NO_REPORT, Command, Record, Regrade, State
from hwsync.protocol.wire.analyst import ANALYSED_BY, REGRADES, analysed_by_json
from hwsync.protocol.wire.files import (
    NO_CONTENTS,
    Contents,
    NotKeptList,
    Patterns,
    ReturnedFiles,
    base64_size,
    not_kept_json,
    returned_json,
)
from hwsync.protocol.wire.forms import (
    HASHES,
    OBJECT,
    Count,
    ExitCode,
    Flag,
    Id,
    Instant,
    Number,
    OrderOfStreams,
    OutcomeWord,
    Pairs,
    RanWord,
    StateNumber,
    Text,
    Texts,
    to_micros,
)
from hwsync.protocol.wire.ran_on import RAN_ON, ran_on_json
from hwsync.protocol.wire.schema import Json, Schema, loose, read_object
from hwsync.protocol.wire.start import start_json

if TYPE_CHECKING:
    from hwsync.protocol import events


class _Level(TypedDict):
    """Where a record stands: what a small device acts on."""

    id: Annotated[Text, "the id of the current or last command; empty before the first"]
    state: Annotated[StateNumber, "the state"]
    epoch: Annotated[Count, "grows when an older database was put back (section 2)"]
    seq: Annotated[Count, "grows by one with each change of this record; 0: never changed"]
    journal: Annotated[Id | None, "who collected the command; null when nobody did, or a person"]
    boot: Annotated[
        Count | None,
        "that device's count of starts; in state 2, `id`, `journal` and `boot` together are the "
        "**grant** to run (section 5)",
    ]
    start_at: Annotated[
        Instant | None,
        "the instant at which it begins, in seconds of lab time with six decimals (section 6); "
        "null where none is fixed",
    ]
    cancelling: Annotated[
        Flag, "in state 2: a cancel is wanted and the device has not answered yet"
    ]
    settled: Annotated[
        Pairs,
        "the last four pairs whose result needs no repetition: it is stored, or it was refused for "
        "good",
    ]


class _Last(TypedDict):
    """What happened to a record last."""

    user: Annotated[Text, "the board's name"]
    login: Annotated[
        Flag, "kept from the original; true in every status that you are allowed to read"
    ]
    command: Annotated[
        Text, "the verb that moved the record last (section 2); empty before the first"
    ]
    time: Annotated[Number, "the coordinator's clock at the last change"]
    deadline: Annotated[
        Number | None, "the coordinator's estimate of when this state ends by itself"
    ]


class _Run(TypedDict):
    """The program and how it ended."""

    hw_command: Annotated[Text, "the program"]
    hw_response: Annotated[Text, "what it wrote to standard output"]
    server_analysis: Annotated[
        Text, "the analysis; one that was sent as JSON is its compact JSON text"
    ]
    outcome: Annotated[OutcomeWord | None, "how the run ended, see below; null while it is open"]
    ran: Annotated[RanWord | None, "whether it ran; null while it is open"]
    reason: Annotated[
        Text,
        "one line for people: which limit, which signal, why it was refused or lost",
    ]
    exit_code: Annotated[ExitCode | None, "the program's exit code"]
    stderr: Annotated[Text, "what it wrote to standard error"]
    duration: Annotated[Number | None, "seconds of run time, by the device"]
    started: Annotated[
        Number | None, "when it started: lab time where `clock_bound` is there, else the device's"
    ]
    start_error: Annotated[
        Number | None, "of a start: `started` less its instant, in seconds (section 6)"
    ]
    clock_bound: Annotated[
        Number | None, "how far lab time may have been from `started`, in seconds"
    ]
    truncated: Annotated[
        Flag, "a text here has only its beginning, or only its beginning and its end"
    ]


class _Waiting(TypedDict):
    """Behind the record's command."""

    queued: Annotated[Count, "how many requests wait behind this command"]


class _Later(TypedDict):
    """What came later than the fields before it; a coordinator of before does not say it."""

    name: NotRequired[
        Annotated[
            Text | None,
            "of the file that the program is run as; empty where no program is known",
        ]
    ]
    order: NotRequired[
        Annotated[
            OrderOfStreams | None,
            "in which order `hw_response` and `stderr` came, one after the other, the stream being "
            "`stdout` or `stderr`; null where nobody knows",
        ]
    ]
    start_life: NotRequired[
        Annotated[Text | None, "the life whose lab time `start_at` is; null without one"]
    ]
    files: NotRequired[
        Annotated[
            ReturnedFiles | None,
            "those that came back, by path; in `result/<id>` with `data` in base64 where they were "
            "asked for (section 3)",
        ]
    ]
    not_kept: NotRequired[
        Annotated[
            NotKeptList | None,
            'those that did not, and why; the last may be `{"others"}`: how many more',
        ]
    ]
    ran_on: NotRequired[
        Annotated[
            object | None,
            loose(RAN_ON),
            "what it ran on, as its device said it (section 5); null where it did not",
        ]
    ]


class _Judged(TypedDict):
    """What is said of the analysis; a coordinator of before does not say it."""

    analysed_by: NotRequired[
        Annotated[
            Annotated[dict[str, Any], ANALYSED_BY] | None,
            "which analyser gave `server_analysis`, in which version, and null, or why it failed "
            "itself (section 7); null of a person's, and of the line of `outcome`",
        ]
    ]
    no_analysis: NotRequired[
        Annotated[
            Text | None,
            "why state 3 ended without an analysis, or will (section 7); null: it has one, or "
            "waits for it",
        ]
    ]


class _Analyser(TypedDict):
    """Behind it; a coordinator of before does not say it."""

    analyser: NotRequired[
        Annotated[Text | None, "who analyses it (section 7); null before the first command"]
    ]


class _Regrades(TypedDict):
    """What was said of a command later."""

    regrades: NotRequired[
        Annotated[
            Annotated[list[dict[str, Any]], REGRADES] | None,
            "further analyses (section 7), the oldest first; where they are more than 256 KiB, the "
            "newest of them",
        ]
    ]


class _Asked(TypedDict):
    """One command, and what was asked for."""

    id: Annotated[Text, "of the command"]
    state: Annotated[StateNumber, "of the record, where it is the record's own command, else 0"]
    queued: Annotated[Count, "the command's place in the queue, from 1; 0: it does not wait"]
    user: Annotated[Text, "the board's name"]
    number: Annotated[Count, "the board's how-many-eth command"]
    journal: Annotated[Id | None, "as in the status"]
    boot: Annotated[Count | None, "as in the status"]
    issued: Annotated[Number, "when it was asked for, by the coordinator's clock"]
    timeout: Annotated[Number, "as in the request, like the next three"]
    stdin: Annotated[Text, "its standard input"]
    args: Annotated[Texts, "its arguments"]
    meta: Annotated[Text, "compact JSON"]
    analyser: Annotated[Text, "who analyses it (section 7)"]


class _Kept(TypedDict):
    """What is known of a command beside its end."""

    sha256: NotRequired[
        Annotated[
            object,
            loose(HASHES),
            "in hexadecimal, of the whole streams, also where the texts are cut; empty where not "
            "known",
        ]
    ]
    late: Annotated[Flag, "something of it was stored after its end"]
    orphan: Annotated[Flag, "only its result is known (section 2)"]
    pruned: Annotated[Flag, "its texts were dropped with the years (`--keep-days`)"]


class _Instant(TypedDict):
    """When a command was to begin; a coordinator of before does not say it."""

    start_at: NotRequired[Annotated[Instant | None, "as in the status"]]
    start: NotRequired[
        Annotated[
            object | None,
            loose(OBJECT),
            "as in the request: at which instant, or together with which patience; null: at once",
        ]
    ]


class _Sent(TypedDict):
    """What else was asked for; a coordinator of before does not say it."""

    collect: NotRequired[Annotated[Patterns | None, "as in the request"]]
    sent: NotRequired[
        Annotated[
            ReturnedFiles | None, "the files that went with the program, by path; never with `data`"
        ]
    ]
    digest: NotRequired[
        Annotated[
            Text | None,
            "SHA-256 over what must be equal in a repeat (section 2): whoever has all of it can "
            "tell; empty of an orphan",
        ]
    ]


class Status(_Level, _Last, _Run, _Waiting, _Later, _Analyser, _Judged):
    """On ``status``: the record of a user."""


class Result(_Asked, _Run, _Kept, _Later, _Instant, _Sent, _Judged, _Regrades):
    """On ``result/<id>``: the whole of one command."""


class CommandFields(_Run, _Later, _Judged):
    """What a status and a result have in common."""

    id: str
    state: int
    queued: int  # status: commands that wait; result: the command's place, 0: none
    user: str
    journal: str | None
    boot: int | None


FIRST: Final = (
    *("id", "state", "epoch", "seq", "journal", "boot"),
    *("start_at", "cancelling", "settled"),
)
"""What a device acts on, and all that is left of a status in the last resort."""

STATUS: Final = Schema.of("the status", Status)
RESULT: Final = Schema.of("the result", Result)
_HEAD: Final = STATUS.part(*FIRST, "start_life")
_ORDER: Final = STATUS.part("epoch", "seq")

_DATA: Final = len(',"data":""')
_OUTPUTS: Final = ("hw_response", "stderr")
_TEXTS: Final = ("hw_command", "server_analysis", "stdin")
_WHOLE: Final[Json] = {  # they stand there whole, or like this
    "args": (),
    "meta": "{}",
    "files": {},
    "not_kept": [],
    "regrades": [],
    "ran_on": None,
    "collect": None,
    "sent": None,
}


def status_json(record: Record) -> Json:
    """All fields of the status, in their order (docs/protocol.md, section 1)."""
    command = record.current or NO_COMMAND
    fields: Status = {
        "id": command.id,
        "state": int(record.state),
        "epoch": record.epoch,
        "seq": record.seq,
        "journal": command.journal,
        "boot": command.boot,
        "start_at": _start_at(command),
        "cancelling": record.cancelling,
        "settled": record.settled,
        "user": record.user,
        "login": True,
        "command": record.verb or "",
        "time": record.time,
        "deadline": record.deadline_wall,
        **_shared_fields(command),
        "queued": len(record.queue),
        **_behind(command),
        "analyser": command.analyser if command.id else None,
        **_judged(command),
    }
    if record.unoffered_ticks is not None:
        fields["no_analysis"] = nobody_offers(command)
    return cast(Json, fields)


def encode_status(record: Record, limit: int = limits.MAX_STATUS) -> bytes:
    """The status as it is published: at most ``limit`` bytes, texts cut to fit."""
    return _fit(status_json(record), min(limit, limits.MAX_STATUS))


def result_json(
    command: Command, state: State, place: int = 0, regrades: Sequence[Regrade] = ()
) -> Json:
    """The whole of one command, as it is kept; the names are the status's.

    ``state`` is 0 for a command that is not the record's own; ``place``: in the queue, from 1.
    """
    report = command.report or NO_REPORT
    fields: Result = {
        "id": command.id,
        "state": int(state),
        "queued": place,
        "user": command.user,
        "number": command.number,
        "journal": command.journal,
        "boot": command.boot,
        "issued": command.issued,
        "timeout": command.request.timeout,
        "stdin": command.request.stdin,
        "args": command.request.args,
        "meta": command.request.meta,
        "analyser": command.analyser,
        **_shared_fields(command),
        "sha256": {"stdout": report.sha256_stdout, "stderr": report.sha256_stderr},
        "late": command.late,
        "orphan": command.orphan,
        "pruned": command.pruned,
        **_behind(command),
        "start_at": _start_at(command),
        "start": None if command.request.start is None else start_json(command.request.start),
        "collect": list(command.request.collect),
        "sent": returned_json(tuple(one.bare for one in command.request.files)),
        "digest": command.digest,
        **_judged(command),
        "regrades": _newest(regrades),
    }
    return cast(Json, fields)


def encode_result(
    command: Command,
    state: State,
    place: int = 0,
    limit: int = limits.MAX_MESSAGE,
    contents: Contents = NO_CONTENTS,
    regrades: Sequence[Regrade] = (),
) -> bytes:
    """What is answered on ``result/<id>``; cut where escapes make it larger than ``limit``.

    ``contents``: of the files whose bytes it is to have. They come before the texts, where there is
    room for them and the first kilobytes of those.
    """
    fields = result_json(command, state, place, regrades)
    data = sum(base64_size(len(one)) + _DATA for one in contents.values())
    if not contents or limit - data < limits.MESSAGE_BYTES[0]:
        return _fit(fields, limit)
    fitting = read_object(_fit(fields, limit - data)) or {}
    if fitting.get("files"):
        fitting["files"] = returned_json((command.report or NO_REPORT).files, contents)
    return dumps(fitting).encode()


def _shared_fields(command: Command) -> _Run:
    """The program and how it ended: what status and result have in common, in their order."""
    report = command.report or NO_REPORT
    ended = command.report is not None
    return {
        "hw_command": command.request.program,
        "hw_response": report.response,
        "server_analysis": command.analysis or "",
        "outcome": report.outcome if ended else None,
        "ran": report.ran if ended else None,
        "reason": report.reason,
        "exit_code": report.exit_code,
        "stderr": report.stderr,
        "duration": report.duration,
        "started": micros(report.started),
        "start_error": micros(report.start_error),
        "clock_bound": micros(report.clock_bound),
        "truncated": report.truncated,
    }


def _behind(command: Command) -> _Later:
    """What came later than the fields before it, and so stands behind them."""
    report = command.report or NO_REPORT
    order = report.order if command.report else None
    return {
        "name": command.name,
        "order": order,
        "start_life": command.start_life or None,
        "files": returned_json(report.files),
        "not_kept": not_kept_json(report.not_kept),
        "ran_on": ran_on_json(report.ran_on),
    }


def _judged(command: Command) -> _Judged:
    """What is said of the analysis, and so stands behind what came before it."""
    by = command.analysed_by
    return {
        "analysed_by": None if by is None else analysed_by_json(by),
        "no_analysis": command.no_analysis or None,
    }


def _newest(regrades: Sequence[Regrade]) -> list[Json]:
    """The regrades as they are told, as many of the newest as have room."""
    told, left = list[Json](), limits.REGRADES_TOLD
    for one in reversed(regrades):
        fields = {**analysed_by_json(one.by), "analysis": one.analysis, "time": one.time}
        left -= size(dumps(fields)) + 1
        if left < 0:
            break
        told.append(fields)
    return told[::-1]


def _start_at(command: Command) -> float | None:
    return None if command.start_at_us is None else Micros(command.start_at_us)


def _fit(fields: Json, limit: int) -> bytes:
    """The fields as JSON of at most ``limit`` bytes, the long texts cut to that end.

    All else that stands there has a limit of its own, far below; in the last resort, which takes a
    broker with a limit of a few kilobytes, only the first fields stay.
    """
    return fitted(
        fields,
        limit,
        limit // 4,
        lambda share: _shortened(fields, share),
        lambda: _last(fields),
    )


def _last(fields: Json) -> Json:
    """The first fields; those of a start with its life, since a device believes none without."""
    kept = FIRST if fields["start_at"] is None else (*FIRST, "start_life")
    return {key: fields[key] for key in kept if key in fields}


def _shortened(fields: Json, share: int) -> Json:
    """The texts with at most so many bytes each, of the run's output the beginning and the end."""
    less: Json = {key: keep_again(fields[key], share, fields["truncated"]) for key in _OUTPUTS}
    same = all(text == fields[key] for key, text in less.items())
    less |= {key: cut(fields[key], share) for key in _TEXTS if key in fields}
    for key, none in _WHOLE.items():
        if key in fields and len(dumps(fields[key])) > share:
            less[key] = none
    return {**less, "truncated": True, "order": fields["order"] if same else None}


@dataclass(frozen=True, slots=True)
class StatusHead:
    """The first fields of a status: what a device acts on."""

    id: str
    state: int
    epoch: int
    seq: int
    journal: str | None
    boot: int | None
    start_at_us: int | None  # microseconds of lab time; None: no instant is fixed
    cancelling: bool
    settled: tuple[tuple[str, str], ...]
    start_life: str = ""  # the life whose lab time that is

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, seq): whatever is older than what was already seen is stale."""
        return (self.epoch, self.seq)


def read_status(payload: bytes) -> StatusHead | None:
    """The status, or None where it is none (a cleared one is empty)."""
    obj = read_object(payload)
    if obj is None or not _HEAD.holds(obj):
        return None
    # Without the life whose time it is, an instant says nothing.
    life = (obj.get("start_life") or None) if obj["start_at"] is not None else None
    return StatusHead(
        obj["id"],
        obj["state"],
        obj["epoch"],
        obj["seq"],
        obj["journal"],
        obj["boot"],
        None if life is None else to_micros(obj["start_at"]),
        obj["cancelling"],
        tuple((pair[0], pair[1]) for pair in obj["settled"]),
        life or "",
    )


def read_order(payload: bytes) -> events.StatusReceived | events.Ignored:
    """How new a status is. It is the coordinator's own word: what else stands there is nobody's."""
    from hwsync.protocol import events

    obj = read_object(payload)
    if obj is None or not _ORDER.holds(obj):
        return events.Ignored("no status")
    return events.StatusReceived((obj["epoch"], obj["seq"]))
