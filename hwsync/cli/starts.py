"""The starts of several boards as a strip: in a terminal, and as a picture.

The law: nothing is read and nothing is printed here. All numbers are seconds; 0 is the instant that
was named, and a start lies within its bound of where it is drawn (docs/protocol.md, section 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwsync.installing import install
from hwsync.protocol.batch import apart
from hwsync.protocol.errors import OutputError, UsageError

UNITS: Final = ((1.0, 1.0, "s"), (1e-5, 1e-3, "ms"), (0.0, 1e-6, "µs"))  # from which on; in seconds
NARROWEST: Final = 20  # columns of a strip, however narrow the terminal
MARGIN: Final = 0.05  # of the range, at both sides of a picture
PICTURES: Final = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class Start:
    """One board's start: how late after the instant, and by how much that may be wrong."""

    board: str
    error: float  # negative: early
    bound: float  # not negative


@dataclass(frozen=True, slots=True)
class Spread:
    """Last minus first, and by how much that may be wrong at most."""

    seconds: float
    bound: float


def spread(starts: Sequence[Start]) -> Spread | None:
    """Of two starts or more; None: there are fewer."""
    if len(starts) < 2:
        return None
    return Spread(*apart((one.error for one in starts), (one.bound for one in starts)))


def unit_for(starts: Sequence[Start]) -> tuple[float, str]:
    """In which unit these are read best: its size in seconds, its name."""
    largest = max(abs(one.error) + one.bound for one in starts)
    return next((size, name) for least, size, name in UNITS if largest >= least)


def title(what: str, starts: Sequence[Start]) -> str:
    """In one line, what these say together; ``what``: whose they are."""
    apart = spread(starts)
    if apart is None:
        return f"{what}: one board"
    size, unit = unit_for(starts)
    within, bound = f"{apart.seconds / size:.3f} {unit}", f"{apart.bound / size:.3f} {unit}"
    return f"{what}: {len(starts)} boards began within {within}, give or take {bound}"


def strip(starts: Sequence[Start], columns: int, *, plain: bool = False) -> list[str]:
    """One line for each start, below a line that says what its left and right end are.

    ``columns``: of the terminal. ``plain``: with the characters of ASCII only.
    """
    size, unit = unit_for(starts)
    if plain and unit == "µs":
        unit = "us"
    names = max(len(one.board) for one in starts)
    said = [f"{one.error / size:+.3f} ± {one.bound / size:.3f} {unit}" for one in starts]
    said = [text.replace("±", "+-") for text in said] if plain else said
    width = max(columns - names - max(map(len, said)) - 4, NARROWEST)
    low, high = _ends(starts)

    def column(error: float) -> int:
        return round((error - low) / (high - low) * (width - 1))

    left, right = f"{low / size:+.3f}", f"{high / size:+.3f} {unit}"
    lines = [f"{'':{names}}  {left}{right:>{width - len(left)}}"]
    for one, text in zip(starts, said, strict=True):
        row = [" "] * width
        row[column(0.0)] = "|" if plain else "┊"
        first, last = column(one.error - one.bound), column(one.error + one.bound)
        row[first : last + 1] = ("-" if plain else "─") * (last - first + 1)
        row[first], row[last] = ("[", "]") if plain else ("├", "┤")
        row[column(one.error)] = "o" if plain else "●"
        lines.append(f"{one.board:{names}}  {''.join(row)}  {text}")
    return lines


def picture(starts: Sequence[Start], title: str, file: Path) -> None:
    """The same as a picture; the end of the file's name says of which kind.

    Raises ``UsageError``: the name ends otherwise, or matplotlib is missing; ``OutputError``: the
    file cannot be written.
    """
    if file.suffix.lower() not in PICTURES:
        raise UsageError(f"{file} ends with none of {', '.join(PICTURES)}", "name it starts.png")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UsageError(
            "a picture needs matplotlib, which is not installed", install("plots")
        ) from None
    size, unit = unit_for(starts)
    low, high = _ends(starts)
    margin = (high - low) * MARGIN
    figure = Figure(figsize=(7.0, 1.2 + 0.3 * len(starts)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.0, color="0.6", linestyle=":", linewidth=1.0)
    axes.errorbar(
        [one.error / size for one in starts],
        range(len(starts)),
        xerr=[one.bound / size for one in starts],
        fmt="o",
        capsize=4.0,
        markersize=5.0,
    )
    axes.set_yticks(range(len(starts)), [one.board for one in starts])
    axes.invert_yaxis()
    axes.set_xlim((low - margin) / size, (high + margin) / size)
    axes.set_xlabel(f"{unit} after the instant; the line is where the true start lies")
    axes.set_title(title, fontsize="medium")
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}") from None


def _ends(starts: Sequence[Start]) -> tuple[float, float]:
    """From where to where the strip goes: everything that may be true, and the instant."""
    low = min(0.0, *(one.error - one.bound for one in starts))
    high = max(0.0, *(one.error + one.bound for one in starts))
    return (low, high) if high > low else (low - 1e-6, high + 1e-6)
