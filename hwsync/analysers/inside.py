"""In an analyser's own process: give it the run, and write down what it answered.

The law: the answer goes into a file whose place is known before anything of the analyser is run,
and appears there at one stroke; what is printed is no part of it. Whatever the analyser raises is
said as a fault in one line with its place. The process ends at once then: nothing that the analyser
left waiting (threads, handlers) can change what it said.

``ANSWER`` holds ``{"answer": …}`` or ``{"fault": text}``. Who reads it checks all of it
(``answer.py``): an analyser can do here whatever it likes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, Final

from hwsync.analysers.builtins import BUILTINS
from hwsync.analysers.run import Analysis, Run

ANSWER: Final = "hwsync-answer"  # the file, in the working folder
HALF: Final = "hwsync-half-written"
MOST: Final = 1_000_000  # bytes of JSON that are written; what is allowed is far less
NO_FUNCTION: Final = "it is no analyser: there is no function analyse"


def python(name: str, source: bytes) -> None:
    """Run the analyser of that file's name, whose text is given; does not return."""
    place = os.getcwd()
    sys.dont_write_bytecode = True
    path = os.path.join(place, name)

    def judge() -> Any:
        run = _given()
        module = ModuleType(name.removesuffix(".py"))
        module.__file__ = path
        sys.modules.setdefault(module.__name__, module)
        sys.argv = [name]
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
        analyse = getattr(module, "analyse", None)
        if not callable(analyse):
            raise _NoAnalyser(NO_FUNCTION)
        return analyse(run)

    _finish(place, judge)


def builtin(name: str) -> None:
    """Run hwsync's own analyser of that name; does not return."""
    _finish(os.getcwd(), lambda: BUILTINS[name].analyse(_given()))


def executable(name: str) -> None:
    """Become that file of the working folder: it reads the run's JSON itself; does not return."""
    place = os.getcwd()
    path = os.path.join(place, name)
    try:
        os.chmod(path, 0o700)
        os.execv(path, [path])
    except OSError as error:
        why = f"it cannot be executed: {error.strerror}"
        if error.errno == 8:  # ENOEXEC
            why += "; its first line has to say what runs it, such as #!/bin/sh"
        elif error.errno == 2:  # ENOENT, of a file that is there
            why = "it cannot be executed: what its first line names is not there"
        _write(place, json.dumps({"fault": why}))
        os._exit(1)


def _given() -> Run:
    return Run.of_json(json.loads(sys.stdin.buffer.read()))


def _finish(place: str, judge: Callable[[], Any]) -> None:
    here, us = os.path.join(place, ""), os.getpid()
    try:
        said = _answered(judge)
    except BaseException as error:
        said = json.dumps({"fault": _told(error, here)})
    if os.getpid() != us:
        os._exit(1)  # a child that it forked, and that came here too
    _write(place, said)
    for stream in (sys.stdout, sys.stderr):
        # The analyser may have put anything in its place.
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(0)


def _answered(judge: Callable[[], Any]) -> str:
    value = judge()
    value = value.as_json() if isinstance(value, Analysis) else value
    try:
        said = json.dumps({"answer": value}, default=_of_numpy)
    except (TypeError, ValueError, RecursionError) as error:
        return json.dumps({"fault": f"what it returned is no JSON: {_said(error)}"})
    return said if len(said) <= MOST else json.dumps({"large": len(said)})


def _write(place: str, text: str) -> None:
    half = os.path.join(place, HALF)
    with open(half, "w", encoding="ascii") as file:
        file.write(text)
    os.rename(half, os.path.join(place, ANSWER))


class _NoAnalyser(Exception):
    """Its text is the whole fault."""


def _of_numpy(value: Any) -> Any:
    """A number or an array of numpy's; an ``Analysis`` inside of something else."""
    if isinstance(value, Analysis):
        return value.as_json()
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")


def _told(error: BaseException, here: str) -> str:
    """One line; ``here``: the folder in which the author's own lines are."""
    if isinstance(error, _NoAnalyser):
        return str(error)
    where = _where(error.__traceback__, here)
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith(here):
        name = error.filename.removeprefix(here)
        return (
            f"it cannot be read: {type(error).__name__}: {error.msg} ({name}, line {error.lineno})"
        )
    if isinstance(error, SystemExit):
        return f"it ended itself: sys.exit({_said(error.code)}){where}"
    if lacks := _lacks(error):
        where += f'; a file of its own is named in its TOML: files = ["{lacks}"]'
    said = _said(error)
    return f"it raised {type(error).__name__}{': ' if said else ''}{said}{where}"


def _lacks(error: BaseException) -> str:
    """The file that it may have meant to have beside it; empty: it is none of that."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name}.py"
    lacks = error.filename if isinstance(error, FileNotFoundError) else None
    return lacks if isinstance(lacks, str) and not os.path.isabs(lacks) else ""


def _said(value: object) -> str:
    try:
        return str(value)[:1000]
    except BaseException:
        return "(it cannot be shown)"


def _where(trace: TracebackType | None, here: str) -> str:
    """The last line of the author's that was under way."""
    found = ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(here):
            found = f" ({name.removeprefix(here)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found
