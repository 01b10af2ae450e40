"""What a request and a result say, as plain JSON that anybody can compute again from the message.

The law: the same message always gives the same facts. Where the log does not keep a message it
keeps the hash of its facts, in the note of the row; so what was run and what came of it can be
proved without the message (``protocol.receipt``; docs/decisions.md, 353).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.effects import LogEntry
from hwsync.protocol.files import NOTED as FILES
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import Command, Request, RunReport, Verb
from hwsync.protocol.wire.files import not_kept_json
from hwsync.protocol.wire.ran_on import ran_on_json
from hwsync.protocol.wire.schema import Json
from hwsync.protocol.wire.start import start_json

NOTED: Final = "facts "  # before the hash, in a note


def asked(request: Request) -> Json:
    """What was to be run. The names are those of ``result/<id>``."""
    return {
        "hw_command": request.program,
        "program_sha256": _sha256(request.program),
        "name": request.name or limits.DEFAULT_NAME,
        "args": list(request.args),
        "stdin": request.stdin,
        "meta": request.meta,
        "timeout": request.timeout,
        "sent": [[one.path, one.size, one.sha256] for one in request.files],
        "collect": list(request.collect),
        "start": None if request.start is None else loads(dumps(start_json(request.start))),
    }


def ended(report: RunReport, journal: str | None) -> Json:
    """What came of it; ``journal``: of the device that says so, None: a person."""
    return {
        "journal": journal or None,
        "outcome": str(report.outcome),
        "ran": str(report.ran),
        "reason": report.reason,
        "exit_code": report.exit_code,
        "hw_response": report.response,
        "stderr": report.stderr,
        "sha256": {
            "stdout": report.sha256_stdout or _of_whole(report.response, report),
            "stderr": report.sha256_stderr or _of_whole(report.stderr, report),
        },
        "duration": report.duration,
        "started": report.started,
        "start_error": report.start_error,
        "clock_bound": report.clock_bound,
        "truncated": report.truncated,
        "files": [[one.path, one.size, one.sha256] for one in report.files],
        "not_kept": not_kept_json(report.not_kept),
        "ran_on": ran_on_json(report.ran_on),
    }


def hash_of(facts: Json) -> str:
    """SHA-256 of their compact JSON, in hexadecimal."""
    return _sha256(dumps(facts))


def noted(entry: LogEntry, command: Command) -> str:
    """The note of a row whose message is not kept: with the hash of what it said."""
    if entry.verb is Verb.REQUEST:
        sha256 = _hash_of_asked(command.request)
    elif entry.verb is Verb.RESPONSE and command.report is not None:
        sha256 = hash_of(ended(command.report, command.answered_by))
    else:
        return entry.note
    # What the log says of files stands first, who asked last: others look for them there.
    parts = entry.note.split("; ", 1) if entry.note.startswith(FILES) else ["", entry.note]
    return "; ".join(filter(None, (parts[0], f"{NOTED}{sha256}", *parts[1:])))


@lru_cache(maxsize=8)  # a batch has the same request for thousands of members
def _hash_of_asked(request: Request) -> str:
    return hash_of(asked(request))


def noted_hash(note: str) -> str:
    """The hash that such a note has; empty: none.

    It stands first, or behind what the log says of files: what follows has the sender's own words,
    who may have called himself ``x; facts …``.
    """
    first, _, rest = note.partition("; ")
    found = rest.partition("; ")[0] if first.startswith(FILES) else first
    return found.removeprefix(NOTED) if found.startswith(NOTED) else ""


def _of_whole(text: str, report: RunReport) -> str:
    return "" if report.truncated else _sha256(text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
