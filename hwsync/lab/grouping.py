"""A lab's groups: their file, changed without losing what somebody wrote beside them, and who
reaches which board by them.

The law: whoever may ask a group may ask each of its boards, and see what becomes of it; nobody
gets more by a pattern without its being said.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hwsync.lab.accounts import Accounts, OperatorRights
from hwsync.protocol.groups import ALL, SIGN, Groups

HEADER: Final = (
    "# The groups of this lab: boards, and patterns (* any characters, ? one). hwsync group set\n"
    "# changes one; a change by hand counts after the next hwsync group, device or operator\n"
    "# command, and a SIGHUP for the coordinator.\n"
)
LINE: Final = 100  # characters; a longer list has several
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def reach(accounts: Accounts, operator: OperatorRights, group: str, groups: Groups) -> set[str]:
    """The boards of the lab that he reaches by being given that group."""
    if group == ALL:
        return set(accounts.boards)
    return set(accounts.boards) & set(groups.members(group, accounts.boards) or ())


@dataclass(frozen=True, slots=True)
class Gain:
    """What an operator reaches by a group, and did not before."""

    operator: str
    group: str
    boards: tuple[str, ...]
    read_only: bool

    def __str__(self) -> str:
        boards = ", ".join(self.boards)
        if self.read_only:
            return f"{self.operator} may now look at {boards}, by {SIGN}{self.group}"
        whole = f"the whole of {SIGN}{self.group}, and so to {boards}"
        return f"{self.operator} may now send programs to {whole}"


def gains(before: tuple[Accounts, Groups], after: tuple[Accounts, Groups]) -> Iterator[Gain]:
    """What changes for whom, of those who were not given every board."""
    (old, old_groups), (new, new_groups) = before, after
    for name, rights in sorted(new.operators.items()):
        if rights.boards is None:
            continue
        had = _reached(old, name, old_groups) | set(rights.boards)
        for group in rights.groups:
            more = reach(new, rights, group, new_groups) - had
            had |= more
            if more:
                yield Gain(name, group, tuple(sorted(more)), rights.read_only)


def _reached(accounts: Accounts, name: str, groups: Groups) -> set[str]:
    rights = accounts.operators.get(name)
    if rights is None:
        return set()
    found = set(rights.boards if rights.boards is not None else accounts.boards)
    return found.union(*(reach(accounts, rights, group, groups) for group in rights.groups))


def with_group(text: str, name: str, entries: Iterable[str]) -> str:
    """The file's text with that group so, in its place or at the end."""
    line = _assignment(name, list(entries))
    lines = text.splitlines(keepends=True) or [HEADER]
    at = next((span for key, *span in _statements(lines) if key == name), None)
    if at is not None:
        return "".join([*lines[: at[0]], line, *lines[at[1] :]])
    end = "" if lines[-1].endswith("\n") else "\n"
    return "".join([*lines, end, line])


def without_group(text: str, name: str) -> str:
    """The file's text without that group."""
    lines = text.splitlines(keepends=True)
    for key, begin, end in _statements(lines):
        if key == name:
            return "".join([*lines[:begin], *lines[end:]])
    return text


def _assignment(name: str, entries: list[str]) -> str:
    key = name if _BARE.fullmatch(name) else json.dumps(name)
    words = [json.dumps(entry) for entry in entries]
    line = f"{key} = [{', '.join(words)}]\n"
    if len(line) <= LINE:
        return line
    rows = [""]
    for word in words:
        if len(rows[-1]) + len(word) > LINE - len("    , "):
            rows.append("")
        rows[-1] += f"{' ' if rows[-1] else '    '}{word},"
    return "\n".join([f"{key} = [", *rows, "]", ""])


def _statements(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """(group, first line, line behind it) of a file that is right."""
    begin = 0
    while begin < len(lines):
        first = lines[begin].lstrip()
        end = begin + 1
        if first and not first.startswith("#"):
            while not _closes(lines[end - 1]) or not _is_whole("".join(lines[begin:end])):
                end += 1
            yield next(iter(tomllib.loads("".join(lines[begin:end])))), begin, end
        begin = end


def _closes(line: str) -> bool:
    return "]" in line


def _is_whole(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
