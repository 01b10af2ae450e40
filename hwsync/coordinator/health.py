"""How the coordinator is: what it counts, and the fields of it (docs/operations.md, "Health").

The law: counting costs nothing that a message would have to wait for; the figures are those of one
life of the process, and whoever wants a rate takes the difference of two. Times are seconds, those
named ``time``, ``started`` and ``connected_since`` Unix seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwsync import __version__
from hwsync.coordinator.analysts import NO_ANALYSTS, AnalystFigures
from hwsync.protocol import limits
from hwsync.protocol.errors import Code
from hwsync.protocol.jsons import Micros
from hwsync.protocol.record import Record, State
from hwsync.protocol.wire.itself import Condition, Sign
from hwsync.transport import Disconnected, PassedOver, Signal, Subscribed
from hwsync.transport.outbox import Outbox

HEALTH_S: Final = 30.0  # between two health messages, where nothing happens
REFUSALS: Final = tuple(code for code in Code if code is not Code.DEGRADED)  # that one only waits
DECISIONS: Final = ("accepted", "answered", "late", "duplicates", "ignored", "resent", "unlogged")


@dataclass(slots=True)
class Tally:
    """What is counted of the loop's commits."""

    rounds: int = 0  # transactions that were committed
    messages_last: int = 0  # in the last one
    messages_largest: int = 0
    commit_last: float = 0.0
    commit_largest: float = 0.0
    commit_sum: float = 0.0  # by ``rounds``: the average

    def committed(self, messages: int, seconds: float) -> None:
        """One transaction is on the disk."""
        self.rounds += 1
        self.messages_last = messages
        self.messages_largest = max(messages, self.messages_largest)
        self.commit_last = seconds
        self.commit_largest = max(seconds, self.commit_largest)
        self.commit_sum += seconds


@dataclass(slots=True)
class Life:
    """What happened to the process itself."""

    started: float
    began: float  # the same moment on the monotonic clock
    host: str = ""  # the machine's name
    database: str = ""  # a path on that machine
    other: Sign | None = None  # another coordinator of this root that was heard meanwhile
    other_at: float = 0.0  # when, on the monotonic clock
    connected_since: float | None = None
    connects: int = 0
    inbox_deepest: int = 0
    passed_over: int = 0  # messages that could not be read
    reason: str = ""  # of the last disconnect or failed attempt

    def note(self, signals: Sequence[Signal], depth: int, wall: float) -> bool:
        """Count one round; ``depth`` messages had come. Whether the connection changed."""
        before = (self.connects, self.connected_since, self.reason)
        self.inbox_deepest = max(depth, self.inbox_deepest)
        for signal in signals:
            if isinstance(signal, Subscribed):
                self.connects += 1
                self.connected_since = wall
            elif isinstance(signal, Disconnected):
                self.connected_since = None
                self.reason = signal.reason
            elif isinstance(signal, PassedOver):
                self.passed_over += 1
        return (self.connects, self.connected_since, self.reason) != before


def health(
    condition: Condition,
    tally: Tally,
    life: Life,
    counts: Mapping[str, int],
    records: Iterable[Record],
    *,
    failure: str = "",
    outbox: Outbox,
    schema: int,
    head: tuple[int, str] = (0, ""),
    wall: float,
    monotonic: float,
    analysts: AnalystFigures = NO_ANALYSTS,
    clock: str = "",
    lab_us: int = 0,
    lab_life: str = "",
) -> dict[str, Any]:
    """The fields of a health message, in their order; ``counts`` are the loop's.

    ``failure``: why the last save failed; empty: it worked. ``lab_us``: lab time, in ``lab_life``,
    at the moment of ``wall``. ``head``: the last row of the log, and its hash.
    """
    states: Counter[State] = Counter()
    queued = 0
    for record in records:
        states[record.state] += 1
        queued += len(record.queue)
    return {
        "condition": condition,
        "reason": failure[: limits.MAX_REASON],
        "version": __version__,
        "schema": schema,
        "head": {"row": head[0], "hash": head[1]},
        "host": life.host,
        "database": life.database,
        "started": life.started,
        "time": wall,
        "clock": clock,
        "lab_time": Micros(lab_us),
        "life": lab_life,
        "lab_ahead": round(lab_us / 1e6 - wall, 6),
        "uptime": round(monotonic - life.began, 3),
        "connected_since": life.connected_since,
        "reconnects": max(life.connects - 1, 0),
        "users": states.total(),
        "states": {state.name.lower(): states[state] for state in State},
        "queued": queued,
        "analysts": analysts.online,
        "analysts_refused": analysts.refused,
        "unoffered": dict(analysts.unoffered),
        "inbox_deepest": life.inbox_deepest,
        **{name: counts.get(name, 0) for name in DECISIONS},
        "passed_over": life.passed_over,
        "refused": {str(code): counts.get(f"refused_{code}", 0) for code in REFUSALS},
        "failed_saves": counts.get("failed_saves", 0),
        "dropped": counts.get("dropped", 0) + outbox.dropped,
        "clock_answers": counts.get("clock_answers", 0),
        "clock_dropped": counts.get("clock_dropped", 0),
        "history_answers": counts.get("history_answers", 0),
        "history_refused": counts.get("history_refused", 0),
        "rounds": tally.rounds,
        "round_messages_last": tally.messages_last,
        "round_messages_largest": tally.messages_largest,
        "commit_last": round(tally.commit_last, 6),
        "commit_largest": round(tally.commit_largest, 6),
        "commit_sum": round(tally.commit_sum, 6),
        "other": life.other
        and {
            "host": life.other.host,
            "database": life.other.database,
            "started": life.other.started,
            "seconds": round(monotonic - life.other_at, 1),
        },
        "max_message": outbox.limit,
        "given_up": outbox.given_up,
        "given_up_last": outbox.last_given_up,
    }
