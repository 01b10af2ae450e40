"""Status and result: the record as everybody reads it, and the whole of one command.

The law: all fields of a status are always there, in their order; what a small device acts on comes
first (docs/protocol.md, section 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import cut, dumps, is_count
from hwsync.protocol.output import fitted, keep_again
from hwsync.protocol.record import (
    NO_ACCOUNT,
    NO_COMMAND,
    Command,
    Record,
    State,
)
from hwsync.protocol.wire.schema import are_counts, are_texts, read_object

Json = dict[str, Any]

_OUTPUTS: Final = ("hw_response", "stderr")
_TEXTS: Final = ("hw_command", "server_analysis", "stdin")
_WHOLE: Final = {"args": (), "meta": "{}"}  # they stand there whole, or like this
_FIRST: Final = (
    *("id", "state", "epoch", "seq", "journal", "boot"),
    *("start_at", "cancelling", "settled"),
)  # what a device acts on, and all that is left of a status in the last resort


def status_json(record: Record) -> Json:
    """All fields of the status, in their order (docs/protocol.md, section 1)."""
    command = record.current or NO_COMMAND
    return {
        "id": command.id,
        "state": int(record.state),
        "epoch": record.epoch,
        "seq": record.seq,
        "journal": command.journal,
        "boot": command.boot,
        "start_at": None,
        "cancelling": record.cancelling,
        "settled": record.settled,
        "user": record.user,
        "login": True,
        "command": record.verb or "",
        "time": record.time,
        "deadline": record.deadline,
        **_told(command),
        "queued": len(record.queue),
        **_behind(command),
    }


def encode_status(record: Record, limit: int = limits.MAX_STATUS) -> bytes:
    """The status as it is published: at most ``limit`` bytes, texts cut to fit."""
    return _fit(status_json(record), min(limit, limits.MAX_STATUS))


def result_json(command: Command, state: State, place: int = 0) -> Json:
    """The whole of one command, as it is kept; the names are the status's.

    ``state`` is 0 for a command that is not the record's own; ``place``: in the queue, from 1.
    """
    account = command.account or NO_ACCOUNT
    return {
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
        **_told(command),
        "sha256": {"stdout": account.sha256_stdout, "stderr": account.sha256_stderr},
        "late": command.late,
        "orphan": command.orphan,
        "pruned": command.pruned,
        **_behind(command),
    }


def encode_result(
    command: Command, state: State, place: int = 0, limit: int = limits.MAX_MESSAGE
) -> bytes:
    """What is answered on ``result/<id>``; cut where escapes make it larger than ``limit``."""
    return _fit(result_json(command, state, place), limit)


def _told(command: Command) -> Json:
    """The program and how it ended: what status and result have in common, in their order."""
    account = command.account or NO_ACCOUNT
    ended = command.account is not None
    return {
        "hw_command": command.request.program,
        "hw_response": account.response,
        "server_analysis": command.analysis or "",
        "outcome": account.outcome if ended else None,
        "ran": account.ran if ended else None,
        "reason": account.reason,
        "exit_code": account.exit_code,
        "stderr": account.stderr,
        "duration": account.duration,
        "started": account.started,
        "start_error": account.start_error,
        "clock_bound": account.clock_bound,
        "truncated": account.truncated,
    }


def _behind(command: Command) -> Json:
    """What came later than the fields before it, and so stands behind them."""
    return {"name": command.name, "order": command.account and command.account.order}


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
        lambda: {key: fields[key] for key in _FIRST if key in fields},
    )


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
    start_at: float | None
    cancelling: bool
    settled: tuple[tuple[str, str], ...]

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, seq): whatever is older than what was already seen is stale."""
        return (self.epoch, self.seq)


def read_status(payload: bytes) -> StatusHead | None:
    """The status, or None where it is none (a cleared one is empty)."""
    obj = read_object(payload)
    if obj is None:
        return None
    try:
        status = StatusHead(
            obj["id"],
            obj["state"],
            obj["epoch"],
            obj["seq"],
            obj["journal"],
            obj["boot"],
            obj["start_at"],
            bool(obj["cancelling"]),
            tuple((pair[0], pair[1]) for pair in obj["settled"]),
        )
    except (KeyError, TypeError, IndexError):
        return None
    sound = (
        are_texts(status.id, *(text for pair in status.settled for text in pair))
        and (status.journal is None or limits.is_id(status.journal))
        and are_counts(status.state, status.epoch, status.seq)
        and (status.boot is None or is_count(status.boot))
    )
    return status if sound else None
