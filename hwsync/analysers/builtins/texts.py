"""``equals``, ``contains`` and ``regex``: what stands in a text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from hwsync.analysers.builtins.parts import (
    CASE,
    ENDED,
    EXPECTED,
    EXPECTED_FILE,
    OF,
    Argument,
    Builtin,
    expectation,
    is_flag,
    is_text,
    judged,
    one_expectation,
    quoted,
)
from hwsync.analysers.run import Analysis, Run

SPACES: Final = ("exact", "ends", "any")


def _as_compared(text: str, run: Run) -> str:
    space = run.arguments.get("space", "ends")
    if space == "any":
        text = " ".join(text.split())
    elif space == "ends":
        text = "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n")
    return text if run.arguments.get("case", True) else text.casefold()


def _equals(run: Run, text: str) -> Analysis:
    wanted = expectation(run)
    if _as_compared(wanted, run) == _as_compared(text, run):
        return Analysis(True, score=1.0, message="It is what was expected.")
    return Analysis(False, score=0.0, message=_first_difference(wanted, text, run))


def _first_difference(wanted: str, came: str, run: Run) -> str:
    if run.arguments.get("space", "ends") == "any":
        return f"Expected {quoted(' '.join(wanted.split()))}, got {quoted(' '.join(came.split()))}."
    lines, other = wanted.splitlines(), came.splitlines()
    for number in range(max(len(lines), len(other))):
        if number >= len(other):
            return f"Line {number + 1} is missing: expected {quoted(lines[number])}."
        if number >= len(lines):
            return f"Line {number + 1} is too much: {quoted(other[number])}."
        if _as_compared(lines[number], run) != _as_compared(other[number], run):
            return (
                f"Line {number + 1}: expected {quoted(lines[number])}, got {quoted(other[number])}."
            )
    return "The ends of the lines differ."


def _texts(said: Any) -> list[str]:
    return [said] if isinstance(said, str) else list(said)


def _contains(run: Run, text: str) -> Analysis:
    case = run.arguments.get("case", True)

    def is_in(part: str) -> bool:
        return part in text if case else part.casefold() in text.casefold()

    wanted, unwanted = (_texts(run.arguments.get(key, [])) for key in ("expected", "absent"))
    missing = [part for part in wanted if not is_in(part)]
    present = [part for part in unwanted if is_in(part)]
    score = 1 - (len(missing) + len(present)) / (len(wanted) + len(unwanted))
    if not missing and not present:
        return Analysis(True, score=1.0, message="Everything that was expected is there.")
    said = [f"Expected {quoted(part)}, and it is not there." for part in missing]
    said += [f"{quoted(part)} must not be there." for part in present]
    more = f"\nAnd {len(said) - 5} more." if len(said) > 5 else ""
    return Analysis(False, score=score, message="\n".join(said[:5]) + more)


def _is_texts(value: Any) -> bool:
    texts = _texts(value) if isinstance(value, str | list) else []
    return bool(texts) and all(is_text(one) and one for one in texts)


def _contains_something(arguments: Mapping[str, Any]) -> str:
    if not arguments.keys() & {"expected", "absent"}:
        return "arguments: give expected, or absent, or both"
    return ""


def _pattern(arguments: Mapping[str, Any]) -> re.Pattern[str]:
    flags = re.MULTILINE | (0 if arguments.get("case", True) else re.IGNORECASE)
    return re.compile(arguments["pattern"], flags)


def _regex(run: Run, text: str) -> Analysis:
    pattern = _pattern(run.arguments)
    whole = run.arguments.get("whole", False)
    found = pattern.fullmatch(text.rstrip("\n")) if whole else pattern.search(text)
    if found is None:
        what = "The whole output" if whole else "Nothing in the output"
        verb = "does not match" if whole else "matches"
        said = f"{what} {verb} {quoted(pattern.pattern)}. It begins with {quoted(text)}."
        return Analysis(False, score=0.0, message=said)
    data = found.groupdict() or None
    return Analysis(True, score=1.0, message=f"Found {quoted(found[0])}.", data=data)


def _complain_of_pattern(arguments: Mapping[str, Any]) -> str:
    if "pattern" not in arguments:
        return "arguments: give pattern, a regular expression of Python's re"
    try:
        _pattern(arguments)
    except (re.error, RecursionError, OverflowError) as error:
        return f"arguments.pattern is no regular expression: {error}"
    return ""


EQUALS: Final = Builtin(
    "the text is the one that is expected",
    judged(_equals),
    {
        "expected": EXPECTED,
        "expected_file": EXPECTED_FILE,
        "of": OF,
        "space": Argument(
            "`exact`, `ends` or `any`",
            lambda value: value in SPACES,
            "which spaces count: `exact`: every one; `ends`: none at the ends of lines, and no "
            "empty lines at the end; `any`: only between which words there are some",
            "`ends`",
        ),
        "case": CASE,
        "ended": ENDED,
    },
    one_expectation,
)

CONTAINS: Final = Builtin(
    "certain texts are in it, or are not",
    judged(_contains),
    {
        "expected": Argument("a text or a list of texts", _is_texts, "all of them must be there"),
        "absent": Argument("a text or a list of texts", _is_texts, "none of them may be there"),
        "of": OF,
        "case": CASE,
        "ended": ENDED,
    },
    _contains_something,
)

REGEX: Final = Builtin(
    "a regular expression matches; its named groups are the data",
    judged(_regex),
    {
        "pattern": Argument("a regular expression", is_text, "of Python's `re`; `^` begins a line"),
        "whole": Argument("true or false", is_flag, "whether it has to match the whole", "`false`"),
        "of": OF,
        "case": CASE,
        "ended": ENDED,
    },
    _complain_of_pattern,
)
