"""What a program is asked to run with, and the request that it means.

The law: what cannot be meant is refused here, in the thread of who asks, and before anything is
sent; how large and how long things may be says the coordinator.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from hwsync.operator.run import RunRequest, fresh_id
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import ID_FORM, NAME_FORM, USER_FORM, is_id, is_name, is_user

Program = str | Path
"""A program's text, or the file in which it stands."""

Moment = datetime.datetime | float
"""A time of day of this machine's clock; a number is Unix seconds."""

ASKER: Final = "py"


class Options(TypedDict, total=False):
    """How a program runs (docs/protocol.md, section 4, has the defaults and limits)."""

    args: Sequence[str]  # ``sys.argv[1:]`` of the program
    stdin: str
    name: str  # of the program's file on the board
    timeout: float  # seconds that it may run; 10
    expires: float  # seconds until its board must have it; 300, 0: no limit
    grace: float  # seconds beyond the timeout, until it is lost; 30
    queue: bool  # wait behind what runs there, in place of being refused as busy
    meta: Mapping[str, Any]  # JSON, kept with the command
    id: str  # the command's; the same id runs once
    at: Moment  # begin at this instant of lab time
    within: float  # seconds; how late, or how uncertain, that start may be


def check_board(name: object) -> str:
    """Raises ``UsageError`` where that can be no board's name."""
    if not isinstance(name, str) or not is_user(name):
        raise UsageError(f"{name!r} is no board's name: {USER_FORM}")
    return name


def make_request(program: Program, options: Options, by: str) -> RunRequest:
    """Raises ``UsageError``."""
    text, own_name = _read(program)
    name = options.get("name", own_name)
    if name is not None and not is_name(name):
        raise UsageError(f"{name!r} is no name of a program: {NAME_FORM}")
    id = options.get("id")
    if id is not None and not is_id(id):
        raise UsageError(f"{id!r} is no id: {ID_FORM}")
    args = options.get("args", ())
    if isinstance(args, str):
        raise UsageError(f"args is a text ({args!r})", 'a list of texts: args=["--speed", "2"]')
    request = RunRequest(
        program=text,
        id=id or fresh_id(ASKER),
        timeout=options.get("timeout"),
        expires=options.get("expires"),
        grace=options.get("grace"),
        queue=options.get("queue", False),
        name=name,
        args=tuple(map(str, args)),
        stdin=options.get("stdin"),
        meta=dict(options.get("meta", {})),
        by=by,
    )
    try:
        _ = request.payload
    except (ValueError, TypeError) as error:
        raise UsageError(f"the request cannot be sent as JSON: {error}") from None
    return request


def instant(at: Moment) -> float:
    """Unix seconds."""
    return at.timestamp() if isinstance(at, datetime.datetime) else float(at)


def _read(program: Program) -> tuple[str, str | None]:
    """The text, and the name of its file where that can be one on a board."""
    if isinstance(program, str):
        if "\n" not in program and program.endswith(".py") and Path(program).is_file():
            raise UsageError(
                f"{program!r} is a text, which would be run as it is",
                f"for the file: Path({program!r}), from pathlib import Path",
            )
        return program, None
    try:
        text = program.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {program}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{program} is not UTF-8 (byte {error.start})", "save it so") from None
    return text, program.name if is_name(program.name) else None
