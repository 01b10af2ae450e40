"""What an operator hears, read: status, result, error, output, heartbeat, health and boards.

The law: ``read_heard`` gives an object whose fields are what the protocol says of that kind, or
None, so that whoever shows it, or acts on it, checks nothing again. Whoever may publish can forge
any of these. What else stands there is kept: it is a later version's (docs/protocol.md, sections 1
and 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps, is_count, is_number
from hwsync.protocol.record import Outcome, Ran, State
from hwsync.protocol.topics import Kind
from hwsync.protocol.wire.schema import read_object

Json = dict[str, Any]
_Check = Callable[[Any], bool]

MAX_EXIT_CODE: Final = 2**32  # as in a device's result


def read_heard(kind: Kind, payload: bytes) -> Json | None:
    """The object of a message, or None where it is none of that kind."""
    fields = read_object(payload)
    if fields is None or kind not in _FIELDS:
        return None
    needed = _NEEDED[kind]
    sound = needed <= fields.keys() and all(
        check(fields.get(name)) for name, check in _FIELDS[kind].items()
    )
    return fields if sound and _is_writable(fields, payload) else None


def _is_writable(fields: Json, payload: bytes) -> bool:
    """JSON can spell half a surrogate pair, which nothing can print or write."""
    if b"\\ud" not in payload and b"\\uD" not in payload:
        return True
    try:
        dumps(fields).encode()
    except ValueError:
        return False
    return True


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _exit_code(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_EXIT_CODE


def _one_of(*names: str) -> _Check:
    return lambda value: isinstance(value, str) and value in names


def _pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_text, pair)) for pair in value
    )


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _order(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, list) and len(part) == 2 and _text(part[0]) and is_count(part[1])
        for part in value
    )


def _state(value: Any) -> bool:
    return is_count(value) and value in tuple(State)


def _seconds(value: Any) -> bool:
    return is_number(value) and value >= 0


def _boards(value: Any) -> bool:
    return isinstance(value, dict) and all(
        limits.is_user(user) and (heard is None or _seconds(heard)) for user, heard in value.items()
    )


_TOLD: Final[Mapping[str, _Check]] = {
    "id": _text,
    "state": _state,
    "queued": is_count,
    "user": _text,
    "journal": _or_null(limits.is_id),
    "boot": _or_null(is_count),
    "hw_command": _text,
    "hw_response": _text,
    "server_analysis": _text,
    "outcome": _or_null(_one_of(*Outcome)),
    "ran": _or_null(_one_of(*Ran)),
    "reason": _text,
    "exit_code": _or_null(_exit_code),
    "stderr": _text,
    "duration": _or_null(is_number),
    "started": _or_null(is_number),
    "start_error": _or_null(is_number),
    "clock_bound": _or_null(is_number),
    "truncated": _flag,
    "name": _or_null(_text),
    "order": _or_null(_order),
}
_FIELDS: Final[Mapping[Kind, Mapping[str, _Check]]] = {
    Kind.STATUS: {
        **_TOLD,
        "epoch": is_count,
        "seq": is_count,
        "start_at": _or_null(is_number),
        "cancelling": _flag,
        "settled": _pairs,
        "login": _flag,
        "command": _text,
        "time": is_number,
        "deadline": _or_null(is_number),
    },
    Kind.RESULT: {
        **_TOLD,
        "number": is_count,
        "issued": is_number,
        "timeout": is_number,
        "stdin": _text,
        "args": _texts,
        "meta": _text,
        "analyser": _text,
        "late": _flag,
        "orphan": _flag,
        "pruned": _flag,
    },
    Kind.ERROR: {
        "error": _text,
        "message": _text,
        "hint": _text,
        "topic": _text,
        "id": _or_null(_text),
        "journal": _or_null(_text),
    },
    Kind.OUTPUT: {
        "id": _text,
        "n": is_count,
        "stream": _text,
        "text": _text,
        "at": _or_null(is_count),
        "skipped": _or_null(is_count),
    },
    Kind.HEARTBEAT: {
        "online": _flag,
        "journal": limits.is_id,
        "boot": is_count,
        "time": _or_null(is_number),
    },
    Kind.HEALTH: {"condition": _text, "time": _or_null(is_number)},
    Kind.BOARDS: {
        "time": is_number,
        "listening": _seconds,
        "left_out": is_count,
        "boards": _boards,
    },
}
_MAY_LACK: Final = {
    Kind.HEARTBEAT: {"time"},  # a will has none
    Kind.HEALTH: {"time"},
    # What came later than the rest: a device or coordinator of before does not say it.
    Kind.STATUS: {"name", "order"},
    Kind.RESULT: {"name", "order"},
    Kind.OUTPUT: {"at", "skipped"},
}
_NEEDED: Final = {
    kind: checks.keys() - _MAY_LACK.get(kind, set()) for kind, checks in _FIELDS.items()
}
