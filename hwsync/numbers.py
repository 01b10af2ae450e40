"""The numbers that a program has printed, as columns: ``name=value``, or lines of a CSV.

    >>> columns("t=0 temp=21.5\\nt=1 temp=21.7")
    {'t': [0, 1], 'temp': [21.5, 21.7]}

The law: whatever the text is, what is no number is passed over, and nothing is read, written or
waited for. All columns are of one length: where a row lacks a value it is ``nan``.

- ``name=value`` may stand anywhere in a line, and several times. A row goes on over lines until one
  of its names comes again.
- A CSV is parted by commas, semicolons or tabs. The names are those of its first line; without
  such a line they are ``column1``, ``column2`` and so on. Where semicolons part it a number may
  have a decimal comma.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

MAX_COLUMNS: Final = 100  # the names beyond are passed over: each is as long as there are rows
MAX_NAME: Final = 64  # characters of a name
PARTED_BY: Final = "\t;,"

# Nothing can be read in two ways: a long line of whatever costs no more than its length.
_NUMBER: Final = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)"
_PAIR: Final = re.compile(
    rf"(?<![\w.])([^\W\d][\w.-]{{0,{MAX_NAME - 1}}}) ?= ?({_NUMBER})(?![\w.])", re.ASCII
)
_IS_NUMBER: Final = re.compile(_NUMBER)
_DIGITS: Final = 15  # of a whole number that stays one; more is read as a float


def columns(text: str) -> dict[str, list[float]]:
    """By name, in the order in which the names came first; empty where there are no numbers."""
    table = _Table()
    header: tuple[str, ...] = ()
    for line in text.splitlines():
        if pairs := _PAIR.findall(line):
            for name, value in pairs:
                table.put(name, _number(value))
            continue
        cells, parted_by = _cells(line)
        values = [_cell(cell, parted_by) for cell in cells]
        if len(values) > 1 and all(value is not None for value in values):
            names = header if len(header) == len(values) else _names(len(values))
            table.row(names, [value for value in values if value is not None])
        else:
            header = tuple(cells) if len(set(cells)) == len(cells) and all(cells) else ()
    return table.columns()


class _Table:
    """The rows so far."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._rows: list[dict[str, float]] = [{}]

    def put(self, name: str, value: float) -> None:
        if name not in self._names and len(self._names) == MAX_COLUMNS:
            return
        self._names[name] = None
        if name in self._rows[-1]:
            self._rows.append({})
        self._rows[-1][name] = value

    def row(self, names: Sequence[str], values: Sequence[float]) -> None:
        if self._rows[-1]:
            self._rows.append({})
        for name, value in zip(names, values, strict=True):
            self.put(name, value)

    def columns(self) -> dict[str, list[float]]:
        return {name: [row.get(name, math.nan) for row in self._rows] for name in self._names}


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"column{number}" for number in range(1, count + 1))


def _cells(line: str) -> tuple[list[str], str]:
    parted_by = next((sign for sign in PARTED_BY if sign in line), "")
    cells = line.split(parted_by) if parted_by else [line]
    return [cell.strip().strip('"')[:MAX_NAME] for cell in cells], parted_by


def _cell(cell: str, parted_by: str) -> float | None:
    if parted_by == ";" and cell.count(",") == 1 and "." not in cell:
        cell = cell.replace(",", ".")
    return _number(cell) if _IS_NUMBER.fullmatch(cell) else None


def _number(text: str) -> float:
    """A whole number stays one, as far as a float could say it too."""
    is_whole = text.lstrip("+-").isdecimal() and len(text) <= _DIGITS
    return int(text) if is_whole else float(text)
