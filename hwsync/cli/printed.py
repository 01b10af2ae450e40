"""``hwsync export --numbers``: the numbers that runs have printed, as a tidy table: one a line.

The law: one run's output is in memory at a time. Of an output that is not whole, what is there is
told, and that it is not whole is said; half a line is no number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from hwsync.cli import past, say
from hwsync.cli.common import Settings
from hwsync.numbers import columns
from hwsync.operator.client import Client
from hwsync.protocol.output import GAP
from hwsync.protocol.wire.history import Row

COLUMNS: Final = ("board", "id", "time", "started", "clock_bound", "index", "name", "value")
SLOW: Final = 20  # runs, from which on it is said how far it is
NAMED: Final = 5  # runs that are named, of those whose output is not whole


@dataclass(frozen=True, slots=True)
class Printed:
    """What one run has printed, as it is kept."""

    text: str
    truncated: bool
    started: float | None  # Unix seconds
    clock_bound: float | None


class Outputs(Protocol):
    """Where the whole output of a run comes from."""

    def of(self, user: str, id: str) -> Printed:
        """Raises ``HwsyncError``."""


class OverMqtt:
    """Asked for by its id, one after the other."""

    def __init__(self, client: Client, user: str) -> None:
        self._client = client
        self._heard = {user}

    def of(self, user: str, id: str) -> Printed:
        """Raises as a query does."""
        if user not in self._heard:
            self._heard.add(user)
            self._client.hear_too((user,))
        told = self._client.wait(self._client.conversation(user).querying(id))
        return Printed(told["hw_response"], told["truncated"], told["started"], told["clock_bound"])


class OfDatabase:
    """Read from the file."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def of(self, user: str, id: str) -> Printed:
        """Raises ``DatabaseError``."""
        return Printed(*self._reader.printed(user, id))


@contextmanager
def outputs(settings: Settings, db: Path | None, user: str) -> Iterator[Outputs]:
    """From the database that is named, else over MQTT; ``user``: whose come first."""
    if db is not None:
        from hwsync.store.past import Past  # who asks over MQTT does not wait for it

        with Past(db) as reader:
            yield OfDatabase(reader)
        return
    with Client(settings.url, settings.topics, user) as client:
        yield OverMqtt(client, user)


def export(
    settings: Settings, db: Path | None, rows: Iterable[tuple[str, Row]], *, of_json: bool
) -> None:
    """Print the numbers of these runs; what is not whole is said on standard error."""
    wanted = ((user, row) for user, row in rows if row["line"] and row["outcome"] is not None)
    if not of_json:
        past.say_exported(past.as_csv(COLUMNS), past.END)
    cut: list[str] = []
    count = 0
    with ExitStack() as stack:
        source: Outputs | None = None
        for user, row in wanted:
            source = source or stack.enter_context(outputs(settings, db, user))
            if (count := count + 1) % SLOW == 0:
                say.progress(f"{count:,} runs … ")
            printed = source.of(user, row["id"])
            if printed.truncated:
                cut.append(row["id"])
            for line in lines(user, row, printed, of_json=of_json):
                past.say_exported(line, "\n" if of_json else past.END)
    if count >= SLOW:
        say.progress("")
    if cut:
        more = f" and {len(cut) - NAMED:,} more" if len(cut) > NAMED else ""
        say.line(f"hwsync: of {', '.join(cut[:NAMED])}{more} only the beginning and the end of the "
                 "output are kept: the numbers between are missing", err=True)  # fmt: skip


def lines(user: str, row: Row, printed: Printed, *, of_json: bool) -> Iterator[str]:
    """One run's lines of the table, as CSV or JSON."""
    about = {
        "board": user, "id": row["id"], "time": past.utc(row["issued"]),
        "started": printed.started, "clock_bound": printed.clock_bound,
    }  # fmt: skip
    for name, values in columns(whole_lines(printed.text, truncated=printed.truncated)).items():
        for index, value in enumerate(values):
            if math.isnan(value):
                continue  # this row has no such value
            said = value if math.isfinite(value) else str(value)
            fields = {**about, "index": index, "name": name, "value": said}
            yield (
                json.dumps(fields, allow_nan=False, separators=(",", ":"))
                if of_json
                else past.as_csv(fields.values())
            )


def whole_lines(text: str, *, truncated: bool) -> str:
    """Of a text that is not whole the lines that are, without the one that says so."""
    if not truncated:
        return text
    gap = GAP.search(text)
    if gap is None:
        return text[: text.rfind("\n") + 1]
    before, after = text[: gap.start()], text[gap.end() :]
    if gap[2]:  # a line was cut in two
        before = before[: before.rstrip("\n").rfind("\n") + 1]
        after = after.partition("\n")[2]
    return f"{before}\n{after}"
