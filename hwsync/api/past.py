"""What was run before: one record for each command, for people who count and for pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from hwsync.address import BrokerUrl
from hwsync.api.board import boards_of
from hwsync.operator.client import Client
from hwsync.operator.conversation import EVERYBODY
from hwsync.operator.filters import Filters
from hwsync.operator.history import Answers, read
from hwsync.protocol.errors import UsageError
from hwsync.protocol.topics import Topics

When = datetime | timedelta | float
"""A moment; a ``timedelta``: so long ago; a number: Unix seconds."""


def filters(
    since: When | None, until: When | None, outcome: str | Sequence[str], meta: Mapping[str, Any],
    **others: Any,
) -> Filters:  # fmt: skip
    """As ``Lab.history`` was asked. Raises ``UsageError``."""
    if others["last"] is not None and others["last"] < 1:
        raise UsageError(f"last={others['last']}: at least 1")
    outcomes = (outcome,) if isinstance(outcome, str) and outcome else tuple(outcome)
    return Filters(
        since=_seconds(since), until=_seconds(until), outcome=outcomes, meta=meta, **others
    )


def history(
    url: BrokerUrl, topics: Topics, boards: Sequence[str], wanted: Filters
) -> list[dict[str, Any]]:
    """The oldest first. Raises ``Refused``, ``NoBroker``, ``NoCoordinator``."""
    answers = Answers(url.username)
    with Client(url, topics, EVERYBODY, boards=not boards, named=boards, answers=answers) as client:
        names = boards or [board.name for board in boards_of(client)]
        found = read(client, names, answers, wanted)
    rows = [{"board": board, **row} for board, some in found.items() for row in some]
    return sorted(rows, key=lambda row: (row["issued"], row["number"]))


def _seconds(when: When | None) -> float | None:
    if isinstance(when, timedelta):
        return -when.total_seconds()
    if isinstance(when, datetime):
        return when.timestamp()
    if when is None:
        return None
    try:
        return float(when)
    except (TypeError, ValueError):
        raise UsageError(
            f"{when!r} is no moment",
            "timedelta(days=1), so long ago; a datetime; or Unix seconds",
        ) from None
