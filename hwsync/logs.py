"""Log lines on stderr: ``2026-01-31T12:00:00.123Z LEVEL component user=… id=… message``.

The law: one event is one line. What came from outside is escaped, so that no payload can write a
line of its own or steer a terminal; a traceback is shown only where it was asked for. Where stderr
is systemd's journal, the journal gets fields instead, so that one command can be looked up by its
id; where it does not take them, it gets the line.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import traceback
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

JOURNAL: Final = "/run/systemd/journal/socket"
SEND_S: Final = 1.0  # for the journal to take an entry; its queue may be full for a moment


class LineFormatter(logging.Formatter):
    """Formats a record, with ``extra={"user": …, "id": …}`` where the caller gave them."""

    def __init__(self, component: str, *, tracebacks: bool = False) -> None:
        super().__init__()
        self._component = component
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """One line in UTC; with ``tracebacks`` an exception's lines follow, escaped one by one."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [f"{stamp}.{int(record.created * 1000) % 1000:03d}Z", record.levelname]
        parts.append(self._component)
        for name in ("user", "id"):
            value = getattr(record, name, None)
            if value:
                parts.append(f"{name}={value}")
        return f"{escape(' '.join(parts))} {self.message(record)}"

    def message(self, record: logging.LogRecord) -> str:
        """What happened, without when and to whom."""
        text, lines = record.getMessage(), list[str]()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            where = f", {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            text += f" ({type(error).__name__}: {error}{where})"
            if self._tracebacks:
                lines = "".join(traceback.format_exception(error)).splitlines()
        return "\n".join(escape(line) for line in (text, *lines))


class JournalHandler(logging.StreamHandler[TextIO]):
    """Entries with fields for systemd's journal; a line to the stream where it does not take one.

    ``user`` is the record's own where the caller gave one, else that of the whole process.
    """

    def __init__(self, stream: TextIO, formatter: LineFormatter, component: str, user: str) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)
        self._lines = formatter
        self._identifier = component if component == "hwsync" else f"hwsync-{component}"
        self._user = user

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry; never raises."""
        try:
            entry = journal_entry(
                {
                    "MESSAGE": self._lines.message(record),
                    "PRIORITY": str(_priority(record.levelno)),
                    "SYSLOG_IDENTIFIER": self._identifier,
                    "HWSYNC_USER": escape(str(getattr(record, "user", None) or self._user)),
                    "HWSYNC_ID": escape(str(getattr(record, "id", None) or "")),
                }
            )
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(SEND_S)
                line.sendto(entry, JOURNAL)
        except Exception:
            super().emit(record)


def journal_entry(fields: Mapping[str, str]) -> bytes:
    """One datagram of the journal's native protocol; empty fields are left out.

    ``NAME=value``, or where the value has a newline: the name, a newline, the value's length as 64
    bits, little-endian, and the value (systemd, "Native Journal Protocol").
    """
    parts = []
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")
        if b"\n" in value:
            parts.append(b"%b\n%b%b\n" % (name.encode(), len(value).to_bytes(8, "little"), value))
        elif value:
            parts.append(b"%b=%b\n" % (name.encode(), value))
    return b"".join(parts)


def _priority(level: int) -> int:
    """syslog's number for a level."""
    for least, number in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4)):
        if level >= least:
            return number
    return 6 if level >= logging.INFO else 7


def _is_journal(stream: TextIO) -> bool:
    """Whether systemd has connected this stream to its journal (``JOURNAL_STREAM``)."""
    said = os.environ.get("JOURNAL_STREAM", "")
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # closed, replaced by a test, or None
        return False
    return said == f"{there.st_dev}:{there.st_ino}"


def escape(text: str, keep: str = "") -> str:
    """The text without control, format and half characters: each is shown as its escape.

    ``keep``: those that stay all the same. A blank of another width than a space stays too.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) or c in keep else ascii(c)[1:-1] for c in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def setup(
    component: str, verbose: bool = False, level: int = logging.INFO, *, user: str = ""
) -> None:
    """Send the log of this process to stderr, or to the journal that stderr is.

    ``verbose`` adds DEBUG and tracebacks; ``user`` is whose process this is, for the journal.
    """
    formatter = LineFormatter(component, tracebacks=verbose)
    if _is_journal(sys.stderr):
        handler: logging.Handler = JournalHandler(sys.stderr, formatter, component, user)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else level)
    # No line shows thread, process or caller, and finding them is half of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.raiseExceptions = False  # a closed stderr must not end a daemon with a traceback
