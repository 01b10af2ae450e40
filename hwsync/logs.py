"""Log lines on stderr: ``2026-01-31T12:00:00.123Z LEVEL component user=… id=… message``.

The law: one event is one line. What came from outside is escaped, so that no payload can write a
line of its own or steer a terminal; a traceback is shown only where it was asked for.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from pathlib import Path


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
        parts.append(record.getMessage())
        lines = []
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            where = f", {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            parts.append(f"({type(error).__name__}: {error}{where})")
            if self._tracebacks:
                lines = "".join(traceback.format_exception(error)).splitlines()
        return "\n".join(escape(line) for line in (" ".join(parts), *lines))


def escape(text: str) -> str:
    """The text without control, format and half characters: each is shown as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def setup(component: str, verbose: bool = False, level: int = logging.INFO) -> None:
    """Send the log of this process to stderr; ``verbose`` adds DEBUG and tracebacks."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(component, tracebacks=verbose))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else level)
    # No line shows thread, process or caller, and finding them is half of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.raiseExceptions = False  # a closed stderr must not end a daemon with a traceback
