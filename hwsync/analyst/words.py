"""What an analyst's log says of a judgement: one line, with the last that the analyser printed.

The law: what is printed is for whoever writes analysers, and is published nowhere. It is cut here;
the log writes out what would steer a terminal.
"""

from __future__ import annotations

import logging
from typing import Final

from hwsync.analysers.engine import Judgement
from hwsync.protocol.analysis import verdict_of
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import AnalysedBy

WIDEST: Final = 200  # characters of a line that an analyser printed
WORDS: Final = {True: "passed", False: "not passed", None: "judged"}


def printed_lines(judgement: Judgement, most: int) -> list[str]:
    """The last lines that it printed, blank ones left out, each cut."""
    lines = [line.rstrip() for line in judgement.printed.splitlines() if line.strip()]
    return [line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…" for line in lines[-most:]]


def line_of(judgement: Judgement, seconds: float) -> tuple[int, str]:
    """The level of the log, and the line; ``seconds``: from the first look at it."""
    by = f"{judgement.name} {judgement.version}"
    more = "".join(f"; it printed last: {line}" for line in printed_lines(judgement, 1))
    if judgement.fault is not None:
        text = f"{by} failed itself in {seconds:.2f} s: {judgement.fault}{more}"
        return logging.WARNING, text
    return logging.INFO, f"{by} in {seconds:.2f} s: {_said(judgement)}{more}"


def _said(judgement: Judgement) -> str:
    """What the analysis says by the convention."""
    by = AnalysedBy(judgement.name, judgement.version)
    verdict = verdict_of(dumps(judgement.analysis), by)
    word = WORDS[verdict.passed]
    return word if verdict.score is None else f"{word}, score {verdict.score:g}"
