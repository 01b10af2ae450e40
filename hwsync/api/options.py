"""What a program is asked to run with, and the request that it means.

The law: what cannot be meant is refused here, in the thread of who asks, and before anything is
sent; how large and how long things may be says the coordinator.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypedDict

from hwsync.operator.conversation import Conversation, Talk
from hwsync.operator.offering import is_analysts
from hwsync.operator.run import RunRequest, fresh_id
from hwsync.operator.starting import asking_ahead
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import (
    ID_FORM,
    MAX_FILES,
    MAX_FILES_BYTES,
    NAME_FORM,
    USER_FORM,
    is_id,
    is_name,
    is_user,
)
from hwsync.protocol.record import Analyser

Program = str | Path
"""A program's text, or the file in which it stands."""

Files = Mapping[str, bytes | str | Path] | Sequence[str | Path]
"""By their paths there: bytes, a text, or the ``Path`` of a file here. Or files and folders here,
which have their own names there."""

Moment = datetime | float
"""A time of day of this machine's clock; a number is Unix seconds."""

ASKER: Final = "py"


class Options(TypedDict, total=False):
    """How a program runs (docs/protocol.md, section 4, has the defaults and limits)."""

    args: Sequence[str]  # ``sys.argv[1:]`` of the program
    stdin: str
    files: Files  # that go with it, into the folder in which it runs
    get: Sequence[str]  # patterns of the files that come back
    name: str  # of the program's file on the board
    timeout: float  # seconds that it may run; 10
    expires: float  # seconds until its board must have it; 300, 0: no limit
    grace: float  # seconds beyond the timeout, until it is lost; 30
    queue: bool  # wait behind what runs there, in place of being refused as busy
    analyser: str  # who judges it: what an analyst offers; outcome: a line that says how it ended
    meta: Mapping[str, Any]  # JSON, kept with the command
    id: str  # the command's; the same id runs once
    at: Moment  # begin at this instant
    within: float  # seconds; how late, or how uncertain, a start at an instant may be; 0.1


class Together(Options, total=False):
    """And on several boards."""

    together: bool  # all begin at one instant, once they are ready
    wait: float  # seconds for them to get ready; 5
    lead: float  # seconds from then to the instant; 1
    need: int  # so many must be ready, else none begins


class GroupOptions(Together, total=False):
    """And in a group."""

    parallel: int  # at most so many at the same time
    abort: float  # begin on no more, once more than this share has not ended ok
    online: bool  # leave out who is offline now


def check_board(name: object) -> str:
    """Raises ``UsageError`` where that can be no board's name."""
    if not isinstance(name, str) or not is_user(name):
        raise UsageError(f"{name!r} is no board's name: {USER_FORM}")
    return name


def check_options(options: Mapping[str, object], kind: type[Options] = Options) -> None:
    """``kind``: which there are. Raises ``UsageError``: one that is passed over is a surprise."""
    known = sorted(kind.__annotations__)  # also those of its bases
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"there is no option {name} here", hint)


def make_request(program: Program, options: Mapping[str, object], by: str) -> RunRequest:
    """All but its start. ``options``: those of ``GroupOptions``. Raises ``UsageError``."""
    given: dict[str, Any] = dict(options)
    text, own_name = _read(program)
    name = given.get("name", own_name)
    if name is not None and not is_name(name):
        raise UsageError(f"{name!r} is no name of a program: {NAME_FORM}")
    id = given.get("id")
    if id is not None and not is_id(id):
        raise UsageError(f"{id!r} is no id: {ID_FORM}")
    args = given.get("args", ())
    if isinstance(args, str):
        raise UsageError(f"args is a text ({args!r})", 'a list of texts: args=["--speed", "2"]')
    analyser = given.get("analyser", Analyser.OUTCOME)
    is_analysts(analyser)
    request = RunRequest(
        program=text,
        id=id or fresh_id(ASKER),
        analysis=analyser,
        timeout=given.get("timeout"),
        expires=given.get("expires"),
        grace=given.get("grace"),
        queue=given.get("queue", False),
        name=name,
        args=tuple(map(str, args)),
        stdin=given.get("stdin"),
        files=_read_files(given.get("files", {})),
        collect=tuple(_patterns(given.get("get", ()))),
        meta=dict(given.get("meta", {})),
        by=by,
        parallel=given.get("parallel"),
        abort=given.get("abort"),
        online=given.get("online", False),
    )
    try:
        _ = request.payload
    except (ValueError, TypeError) as error:
        raise UsageError(f"the request cannot be sent as JSON: {error}") from None
    return request


@dataclass(frozen=True, slots=True)
class Beginning:
    """When it is to begin. ``at``: Unix seconds of this machine's clock; None: of the boards."""

    at: float | None
    keys: Mapping[str, Any]  # of the request's key ``start``


def beginning(options: Mapping[str, object]) -> Beginning | None:
    """None: as soon as it can. Raises ``UsageError``."""
    given: dict[str, Any] = dict(options)
    at, together = given.get("at"), given.get("together", False)
    if at is not None and together:
        raise UsageError("together and at contradict each other", "give one of them")
    keys: dict[str, Any] = {name: given[name] for name in ("wait", "lead", "need") if name in given}
    if keys and not together:
        raise UsageError(f"{', '.join(keys)}: only with together=True")
    keys |= {"within": given["within"]} if "within" in given else {}
    if together:
        return Beginning(None, {"together": True, **keys})
    if at is None:
        if keys:
            raise UsageError("within: only with at or together=True")
        return None
    return Beginning(at.timestamp() if isinstance(at, datetime) else float(at), keys)


def beginning_in_lab_time(
    wanted: Beginning | None, conversation: Conversation, ask: Callable[[], object]
) -> Talk[Mapping[str, Any] | None]:
    """The request's key ``start``. Raises ``NoCoordinator``; ``UsageError``: it is past."""
    if wanted is None or wanted.at is None:
        return None if wanted is None else wanted.keys
    ahead = yield from asking_ahead(conversation, ask)
    if wanted.at <= time.time():
        raise UsageError("the start is past by now", "a start needs a moment: at=time.time() + 2")
    return {**wanted.keys, "at": round(wanted.at + ahead, 6)}


def _patterns(get: Sequence[str]) -> Sequence[str]:
    if isinstance(get, str):
        raise UsageError(f"get is a text ({get!r})", 'a list of patterns: get=["plot.png"]')
    return get


def _read_files(files: Files) -> dict[str, bytes]:
    """The bytes of each. Raises ``UsageError``, before it reads more than can go along."""
    if isinstance(files, str | bytes | Path):
        raise UsageError(f"files is {files!r}", 'a list: files=["data.csv"]')
    pairs: Iterable[tuple[str, bytes | str | Path]]
    pairs = (
        files.items()
        if isinstance(files, Mapping)
        else ((Path(one).name, Path(one)) for one in files)
    )
    found, total = dict[str, bytes](), 0
    for path, content in (one for pair in pairs for one in _files_of(*pair)):
        data = content if isinstance(content, bytes) else _read_file(content, total)
        total += len(data)
        if path not in found and len(found) == MAX_FILES:
            raise UsageError(f"files has more than {MAX_FILES} files", "an archive can hold them")
        found[path] = data
    return found


def _files_of(path: str, content: bytes | str | Path) -> Iterator[tuple[str, bytes | Path]]:
    """One file, or all of a folder; within that no link is followed."""
    if isinstance(content, str):
        yield path, content.encode()
    elif isinstance(content, bytes) or not content.is_dir():
        yield path, content
    else:
        for where, folders, names in os.walk(content):
            folders[:] = sorted(one for one in folders if not _is_passed_over(one))
            for name in sorted(names):
                one = Path(where, name)
                if not _is_passed_over(name) and stat.S_ISREG(one.lstat().st_mode):
                    yield f"{path}/{one.relative_to(content).as_posix()}", one


def _read_file(file: Path, before: int) -> bytes:
    """``before``: bytes of the others."""
    try:
        if file.exists() and not file.is_file():
            raise UsageError(f"{file} is no file")
        if before + file.stat().st_size > MAX_FILES_BYTES:
            raise UsageError(
                f"files has more than {MAX_FILES_BYTES:,} bytes in all, with {file}",
                "that is the most that goes with a program",
            )
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None


def _is_passed_over(part: str) -> bool:
    """As by ``hwsync run --with``."""
    return part.startswith(".") or part == "__pycache__"


def _read(program: Program) -> tuple[str, str | None]:
    """The text, and the name of its file where that can be one on a board."""
    if isinstance(program, str):
        if "\n" not in program and program.endswith(".py") and Path(program).is_file():
            raise UsageError(
                f"{program!r} is a text, which would be run as it is",
                f"for the file: Path({program!r}), from pathlib import Path",
            )
        return program, None
    if not isinstance(program, Path):
        raise UsageError(
            f"the program is a {type(program).__name__}",
            "it is a text, or the Path of a file; lab.call takes a function",
        )
    try:
        text = program.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {program}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{program} is not UTF-8 (byte {error.start})", "save it so") from None
    return text, program.name if is_name(program.name) else None
