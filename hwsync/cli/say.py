"""Everything that a command prints, and the one place that prints it.

The law: what came from outside cannot steer a terminal or forge a line. A line for people has its
control and format characters as escapes; JSON is ASCII, one object a line. Only a program's own
output is passed on as it is, and only where nobody's terminal reads it (``cli.screen`` says what a
terminal gets). What cannot be written is an error of the output, and said once; where nobody reads
any more, the command ends without a word.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TextIO

import click

from hwsync.logs import escape
from hwsync.protocol.errors import OutputError
from hwsync.protocol.jsons import is_number

quiet = False  # whether remarks are left out, for the whole process
NOBODY_READS: Final = 141  # the exit code of what SIGPIPE ends


def line(text: str, *, err: bool = False) -> None:
    """One line for people."""
    with _writing():
        click.echo(escape(text), err=err)


def remark(text: str) -> None:
    """One line beside what was asked for, on standard error; not with ``--quiet``."""
    if not quiet:
        line(text, err=True)


def json_line(value: object) -> None:
    """One line for programs."""
    with _writing():
        click.echo(json.dumps(value, allow_nan=False, separators=(",", ":")))


def either(as_json: bool, value: object, text: str) -> None:
    """One line, for programs or for people."""
    if as_json:
        json_line(value)
    else:
        line(text)


def program(text: str, stream: TextIO, *, as_it_is: bool) -> None:
    """What a program wrote: its bytes as they are, or ``text`` that a terminal may be given."""
    with _writing():
        stream.flush()
        buffer = getattr(stream, "buffer", None)
        if buffer is not None and as_it_is:
            buffer.write(text.encode(errors="backslashreplace"))
            buffer.flush()
        else:
            stream.write(text)
            stream.flush()


def progress(text: str) -> None:
    """A line that the next one overwrites, where a terminal watches."""
    if sys.stderr is not None and sys.stderr.isatty() and not quiet:
        with _writing():
            sys.stderr.write(f"\r\033[K{escape(text)}")
            sys.stderr.flush()


def span(seconds: Any) -> str:
    """A length of time for people; ``?`` for what is no number."""
    if not is_number(seconds):
        return "?"
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def bytes_of(size: Any) -> str:
    """A number of bytes for people, as ``ls`` and browsers say it; ``?`` for what is no number."""
    if not is_number(size):
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= 0.9995 * unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes" if size != 1 else "1 byte"


def cannot_write(error: OSError) -> NoReturn:
    """Raises ``OutputError``; ends the process where nobody reads any more."""
    _forget_what_is_left()
    if isinstance(error, BrokenPipeError):
        sys.exit(NOBODY_READS)
    raise OutputError(f"cannot write the output: {error.strerror}") from None


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cannot_write(error)


def _forget_what_is_left() -> None:
    """Python writes what is left in its buffers at its end, and would complain once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
