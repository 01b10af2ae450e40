"""Runs as a notebook shows them: what they wrote, how they ended, and the pictures they made.

The law: whatever a board says is text, and is shown as text. A picture is shown as one, in a form
in which nothing in it is run.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from hwsync.logs import escape

if TYPE_CHECKING:
    from hwsync.api.run import Run

SHOWN: Final = 20_000  # characters of a stream, the last ones
LINES_IN_TABLE: Final = 10  # of an output beside others
PICTURES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",  # within <img> no script of it is run
    ".webp": "image/webp",
}
_RED: Final = "color:#b00020"


def of_run(run: Run) -> str:
    """The run by itself."""
    parts = [
        f"<div><b>{_text(run.board)}</b> {_text(ending(run))} <code>{_text(run.id)}</code></div>"
    ]
    parts += [_pre(run.stdout)] if run.stdout else []
    parts += [_pre(run.stderr, _RED)] if run.stderr else []
    parts += pictures(run.files)
    return f"<div>{''.join(parts)}</div>"


def of_runs(runs: Iterable[Run]) -> str:
    """Several, side by side: one row each."""
    rows = []
    for run in runs:
        lines = (run.stdout + run.stderr).splitlines()
        left_out = len(lines) - LINES_IN_TABLE
        shown = [f"[{left_out:,} lines before]"] if left_out > 0 else []
        shown += lines[-LINES_IN_TABLE:]
        style = "" if run.outcome == "ok" else f' style="{_RED}"'
        rows.append(
            f"<tr><th>{_text(run.board)}</th><td{style}>{_text(ending(run))}</td>"
            f'<td style="text-align:left">{_pre(chr(10).join(shown))}'
            f"{''.join(pictures(run.files))}</td></tr>"
        )
    head = "<tr><th>board</th><th>how it ended</th><th>what it wrote</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def ending(run: Run) -> str:
    """How it stands, in a few words."""
    if run.outcome is None:
        if run.done() and (error := run.exception()) is not None:
            return str(error)
        return "running" if run.running() else "open"
    said = [run.outcome]
    if run.reason:
        said.append(run.reason)
    elif run.exit_code:
        said.append(f"exit code {run.exit_code}")
    if run.duration is not None:
        said.append(f"{run.duration:.2f} s")
    return ", ".join(said)


def pictures(files: Mapping[str, bytes]) -> list[str]:
    """An ``img`` each."""
    found = []
    for path, data in files.items():
        kind = PICTURES.get(PurePosixPath(path).suffix.lower())
        if kind is not None:
            source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
            found.append(f'<div><img src="{source}" alt="{_text(path)}"></div>')
    return found


def _pre(text: str, style: str = "") -> str:
    cut = f"[{len(text) - SHOWN:,} characters before]\n" if len(text) > SHOWN else ""
    shown = cut + text[-SHOWN:]
    return f'<pre style="text-align:left;{style}">{_text(shown)}</pre>'


def _text(text: str) -> str:
    """As HTML that shows it, control characters as their escapes."""
    return html.escape("\n".join(escape(line, "\t") for line in text.split("\n")))
