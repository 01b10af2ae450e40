"""The health as a Prometheus text file, for node_exporter's textfile collector.

The law: a reader sees a whole file or the one before; a file that cannot be written stops nothing
but the start (docs/operations.md, "Metrics").
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hwsync.protocol.errors import UsageError
from hwsync.protocol.wire.itself import Condition

log = logging.getLogger("hwsync.coordinator")

METRICS_S: Final = 15.0  # between two files
MODE: Final = 0o644  # node_exporter has an account of its own, and figures are no secret

# Name without "hwsync_", type, field of the health message, what it says.
_PLAIN: Final = (
    ("start_time_seconds", "gauge", "started", "Unix time of the coordinator's start."),
    ("time_seconds", "gauge", "time", "Unix time of these figures, by the coordinator's clock."),
    ("lab_time_seconds", "gauge", "lab_time", "Lab time of these figures."),
    ("lab_ahead_seconds", "gauge", "lab_ahead", "By how much lab time is ahead of the time."),
    ("uptime_seconds", "gauge", "uptime", "Seconds since the start."),
    ("reconnects_total", "counter", "reconnects", "Connections to the broker after the first."),
    ("users", "gauge", "users", "Boards with a record."),
    ("queued_requests", "gauge", "queued", "Requests that wait in queues."),
    ("analysts", "gauge", "analysts", "Analysts that are online."),
    ("analysts_refused_total", "counter", "analysts_refused", "Words of analysts, not heard."),
    ("inbox_deepest", "gauge", "inbox_deepest", "The most messages that ever waited at once."),
    ("accepted_total", "counter", "accepted", "Events that moved a record."),
    ("answered_total", "counter", "answered", "Events that changed nothing: queries, copies."),
    ("late_total", "counter", "late", "Late events, stored with their command."),
    ("duplicates_total", "counter", "duplicates", "Messages that the broker sent again."),
    ("ignored_total", "counter", "ignored", "Messages without a meaning, such as empty ones."),
    ("resent_total", "counter", "resent", "Envelopes that were sent again."),
    ("passed_over_total", "counter", "passed_over", "Messages that cannot be read."),
    ("unlogged_total", "counter", "unlogged", "Events without a row: an allowance was used up."),
    ("failed_saves_total", "counter", "failed_saves", "Transactions that could not be saved."),
    ("dropped_total", "counter", "dropped", "Messages and answers for which there was no room."),
    ("clock_answers_total", "counter", "clock_answers", "Boards that were told the time."),
    ("clock_dropped_total", "counter", "clock_dropped", "Questions for the time, too many."),
    ("history_answers_total", "counter", "history_answers", "Pages of what was run, told."),
    ("history_refused_total", "counter", "history_refused", "Such questions that were refused."),
    ("rounds_total", "counter", "rounds", "Transactions that were committed."),
    ("round_messages_last", "gauge", "round_messages_last", "Messages in the last transaction."),
    ("round_messages_largest", "gauge", "round_messages_largest", "Messages in the largest one."),
    ("commit_seconds_last", "gauge", "commit_last", "Seconds that the last commit took."),
    ("commit_seconds_largest", "gauge", "commit_largest", "Seconds of the longest commit."),
    ("commit_seconds_total", "counter", "commit_sum", "Seconds of all commits."),
    ("max_message_bytes", "gauge", "max_message", "The largest message that is sent now."),
    ("given_up_total", "counter", "given_up", "Replies and answers that the broker refused."),
)


def prometheus(health: Mapping[str, Any]) -> str:
    """The text of a health message's fields (docs/operations.md has the names)."""
    return "\n".join([*_lines(health), ""])


def _lines(health: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("info", "gauge", "The version of hwsync and of the database's schema.")
    yield f"hwsync_info{_labels(version=health['version'], schema=health['schema'])} 1"
    yield from _head("condition", "gauge", "1 for the present condition, 0 for the others.")
    for condition in (Condition.OK, Condition.DEGRADED, Condition.STOPPED):
        is_it = int(health["condition"] == condition)
        yield f"hwsync_condition{_labels(condition=condition)} {is_it}"
    yield from _head("connected", "gauge", "1 while connected to the broker.")
    yield f"hwsync_connected {int(health['connected_since'] is not None)}"
    yield from _head("connected_since_seconds", "gauge", "Unix time of the connect; 0: none.")
    yield f"hwsync_connected_since_seconds {health['connected_since'] or 0}"
    yield from _head("other_coordinator", "gauge", "1 where another one of this root was heard.")
    yield f"hwsync_other_coordinator {int(health['other'] is not None)}"
    yield from _head("clock_wrong", "gauge", "1 where the coordinator finds its clock wrong.")
    yield f"hwsync_clock_wrong {int(bool(health['clock']))}"
    for name, type, field, help in _PLAIN:
        yield from _head(name, type, help)
        yield f"hwsync_{name} {health[field]}"
    yield from _head("users_in_state", "gauge", "Boards by the state of their record.")
    for state, number in health["states"].items():
        yield f"hwsync_users_in_state{_labels(state=state)} {number}"
    yield from _head("unoffered", "gauge", "Boards that wait for what no analyst offers.")
    yield f"hwsync_unoffered {sum(health['unoffered'].values())}"
    yield from _head("refused_total", "counter", "Messages that were refused, by error code.")
    for code, number in health["refused"].items():
        yield f"hwsync_refused_total{_labels(code=code)} {number}"


def _head(name: str, type: str, help: str) -> tuple[str, str]:
    return (f"# HELP hwsync_{name} {help}", f"# TYPE hwsync_{name} {type}")


def _labels(**labels: object) -> str:
    return "{" + ",".join(f'{name}="{_escaped(str(text))}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class MetricsFile:
    """The file, written anew each time and renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failed = False

    def begin(self, health: Mapping[str, Any]) -> None:
        """The first time. Raises ``UsageError`` when it cannot be written."""
        try:
            if self.path.exists() and not self.path.is_file():
                raise OSError(0, "it is no ordinary file")  # renaming would replace a device
            self._write(health)
        except OSError as error:
            raise UsageError(
                f"cannot write the metrics to {self.path}: {error.strerror}",
                "name a file in a folder that this account may write with --metrics-file",
            ) from None

    def write(self, health: Mapping[str, Any]) -> None:
        """Once more; a failure is a line of the log, and so is its end."""
        try:
            self._write(health)
        except OSError as error:
            if not self._failed:
                log.error("cannot write the metrics to %s: %s", self.path, error.strerror)
            self._failed = True
        else:
            if self._failed:
                log.info("the metrics are written to %s again", self.path)
            self._failed = False

    def _write(self, health: Mapping[str, Any]) -> None:
        # The collector reads *.prom only: the name of the part must end otherwise.
        part = self.path.with_name(f".{self.path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(prometheus(health))
        part.replace(self.path)
