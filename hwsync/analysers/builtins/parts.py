"""What the built-in analysers share: their arguments, which text they look at, how they show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hwsync.analysers.run import Analysis, Run

SHOWN: Final = 200  # characters of a text in a message
LAB_FAILED: Final = frozenset({"expired", "lost", "interrupted", "rejected", "cancelled"})


@dataclass(frozen=True, slots=True)
class Argument:
    """One key of the table ``arguments``. ``kind`` is for people."""

    kind: str
    accepts: Callable[[Any], bool]
    meaning: str
    default: str = ""  # for people; empty: it lacks
    is_file: bool = False  # a file of the folder, which comes along


@dataclass(frozen=True, slots=True)
class Builtin:
    """One analyser. ``complaint`` says what is wrong with all its arguments together."""

    meaning: str
    analyse: Callable[[Run], Analysis]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    complaint: Callable[[Mapping[str, Any]], str] = lambda arguments: ""


def is_text(value: Any) -> bool:
    """Also an empty one."""
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


OF: Final = Argument(
    "a text",
    is_text,
    "what is looked at: `stdout`, `stderr`, or the path of a file that came back",
    "`stdout`",
)
CASE: Final = Argument("true or false", is_flag, "whether `A` and `a` are different", "`true`")
ENDED: Final = Argument(
    "`ok` or `any`",
    lambda value: value in ("ok", "any"),
    "`any`: a run may also pass that failed or took too long",
    "`ok`",
)
EXPECTED: Final = Argument("a text", is_text, "what is expected")
EXPECTED_FILE: Final = Argument(
    "the path of a file beside the TOML", is_text, "a file with what is expected", is_file=True
)


def one_expectation(arguments: Mapping[str, Any]) -> str:
    """Either in the TOML or in a file."""
    if ("expected" in arguments) == ("expected_file" in arguments):
        return "arguments: give either expected or expected_file"
    return ""


def expectation(run: Run) -> str:
    """The text that is expected."""
    if "expected_file" in run.arguments:
        return Path(run.arguments["expected_file"]).read_text(encoding="utf-8")
    return str(run.arguments["expected"])


def not_ended(run: Run) -> Analysis | None:
    """The verdict on a run that did not end well; None: look at what it left."""
    if run.outcome == "ok" or run.arguments.get("ended") == "any":
        return None
    how = f"{run.outcome}: {run.reason}" if run.reason else run.outcome
    if run.outcome in LAB_FAILED:
        return Analysis(None, message=f"There is nothing to judge: {how}.")
    return Analysis(False, score=0.0, message=f"The program did not end well: {how}.")


CUT: Final = (
    "Its output is longer than what is kept: only its beginning and its end were looked at."
)
STREAMS: Final = ("stdout", "stderr")


class Missing(Exception):
    """The file that is looked at did not come back; the text is for the pupil."""


def looked_at(run: Run) -> str:
    """The text that is judged. Raises ``Missing``."""
    of = run.arguments.get("of", "stdout")
    if of == "stdout":
        return run.stdout
    if of == "stderr":
        return run.stderr
    if of not in run.files:
        came = ", ".join(sorted(run.files)) or "none"
        raise Missing(f"The file {of} is missing. Files that came back: {shown(came)}.")
    return run.files[of].decode("utf-8", "replace")


def judged(judge: Callable[[Run, str], Analysis]) -> Callable[[Run], Analysis]:
    """An analyser that looks at one text of a run which ended well."""

    def analyse(run: Run) -> Analysis:
        if verdict := not_ended(run):
            return verdict
        try:
            text = looked_at(run)
        except Missing as missing:
            return Analysis(False, score=0.0, message=str(missing))
        analysis = judge(run, text)
        if run.truncated and run.arguments.get("of", "stdout") in STREAMS:
            return replace(analysis, message=f"{analysis.message}\n{CUT}")
        return analysis

    return analyse


def shown(text: str, most: int = SHOWN) -> str:
    """A text in a message: its beginning, in which nothing moves a cursor; a tab is ``\\t``."""
    start = text[: most + 1]
    line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in start)
    return line if len(text) <= most and len(line) <= most else f"{line[:most]}…"


def quoted(text: str, most: int = SHOWN) -> str:
    """The same between quotation marks; nothing at all is said in a word."""
    return f"“{shown(text, most)}”" if text else "nothing"
