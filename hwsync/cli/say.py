"""Everything that a command prints, and the one place that prints it.

The law: what came from outside cannot steer a terminal or forge a line. A line for people has its
control and format characters as escapes; JSON is ASCII, one object a line. Only a program's own
output is passed on as it is, and only where nobody's terminal reads it (``program``).
"""

from __future__ import annotations

import json
import sys
from typing import Final, TextIO

import click

from hwsync.logs import escape

LAYOUT: Final = "\n\t"  # what a program may do to a terminal


def line(text: str, *, err: bool = False) -> None:
    """One line for people."""
    click.echo(escape(text), err=err)


def json_line(value: object) -> None:
    """One line for programs."""
    click.echo(json.dumps(value, allow_nan=False, separators=(",", ":")))


def either(as_json: bool, value: object, text: str) -> None:
    """One line, for programs or for people."""
    if as_json:
        json_line(value)
    else:
        line(text)


def program(text: str, stream: TextIO, *, raw: bool = False) -> None:
    """What a program wrote: as it is, like ssh; on a terminal only with ``raw``."""
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    if buffer is not None and (raw or not stream.isatty()):
        buffer.write(text.encode(errors="backslashreplace"))
        buffer.flush()
    else:
        stream.write(text if raw else escape(text, keep=LAYOUT))
        stream.flush()


def progress(text: str) -> None:
    """A line that the next one overwrites, where a terminal watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{escape(text)}")
        sys.stderr.flush()
