"""A round's changes as statements and their rows: what one transaction writes, in its order.

The law: nothing is executed here. A change of a record is a row of the log whose hash covers the
row before (``chain``); of refused messages the first 1,000 a user are kept, and all are counted
(docs/protocol.md, section 2, "The log").
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwsync.protocol import chain, facts, limits
from hwsync.protocol.batch import Batch
from hwsync.protocol.chain import Tops
from hwsync.protocol.core import Handled
from hwsync.protocol.effects import LogEntry
from hwsync.protocol.events import Message
from hwsync.protocol.idle import keeps_payload
from hwsync.protocol.record import Command, Record, Verb
from hwsync.protocol.tags import tags_of
from hwsync.store import statements
from hwsync.store.api import Changes, RefusedRow
from hwsync.store.contents import Added
from hwsync.store.models import Packet, RefusedMessage, Transition
from hwsync.store.rows import (
    Values,
    batch_values,
    command_values,
    in_order,
    record_values,
    regrade_values,
)

Write = tuple[str, Sequence[Values]]  # a statement, and the rows that it is executed with

NAMES_OF_EPOCH: Final = ("epoch", "restored_at", "doubted")

_LOG_ROW: Final = in_order(Transition)
_REFUSED_ROW: Final = in_order(RefusedMessage)
_PACKET_ROW: Final = in_order(Packet)


@dataclass(frozen=True, slots=True)
class Ends:
    """What the store keeps of the file, to go on from: how far the log is, and what was refused."""

    tops: Tops  # of the log
    refused: dict[str, int]  # how many in all, by whose allowance it is


def writes(changes: Changes, ticks: float, ends: Ends) -> tuple[list[Write], Ends]:
    """Each statement with all of its rows, in the order in which they are executed; the new ends.

    ``ticks``: seconds on the clock of the round's deadlines (``Moment.ticks``).
    """
    tops, log = _log(changes, ends.tops)
    added = Added(changes.contents)
    for command in changes.commands.values():
        added.add(command)
    packets, new = changes.packets.items(), changes.new_batches.values()
    counts, kept, counted = _refused(changes.refused, ends.refused)
    found: list[Write] = [
        (statements.ADD_CONTENT, list(added.data.items())),
        (statements.USE_CONTENT, [(*of, stays) for of, stays in added.uses.items()]),
        (statements.SAVE_COMMAND, [command_values(one) for one in changes.commands.values()]),
        (statements.WITHDRAW, sorted(changes.withdrawn)),
        (
            statements.REGRADE,
            [regrade_values(*of, one) for of, some in changes.regrades.items() for one in some],
        ),
        (statements.TAG, _tags(changes)),
        (statements.SAVE_RECORD, [record_values(one, ticks) for one in changes.records.values()]),
        (statements.APPEND, log),
        (statements.REFUSE, kept),
        (statements.COUNT_REFUSED, counted),
        (statements.SAVE_BATCH, [batch_values(one, ticks) for one in changes.batches.values()]),
        (statements.ADD_MEMBER, [row for one in new for row in _members(one)]),
        (statements.TURN_AWAY, [(code, *of) for of, code in changes.turned_away.items()]),
        (statements.SAVE_META, _epoch(changes.epoch)),
        (statements.FORGET_PACKETS, [()] if changes.forget_packets else []),
        (statements.FORGET_PACKET, [(mid,) for mid, one in packets if one is None]),
        (
            statements.SAVE_PACKET,
            [_packet(mid, one) for mid, one in packets if one],
        ),
    ]
    return [(statement, rows) for statement, rows in found if rows], Ends(tops, counts)


def _epoch(epoch: tuple[int, float] | None) -> list[Values]:
    """A new epoch, which is doubted for 0 seconds by now."""
    values = () if epoch is None else zip(NAMES_OF_EPOCH, (*epoch, 0.0), strict=True)
    return [(name, str(value)) for name, value in values]


def _members(batch: Batch) -> list[Values]:
    return [(batch.key, place, user, None) for place, user in enumerate(batch.members)]


def _tags(changes: Changes) -> list[Values]:
    """What the metas of new commands say; each of them has a row of the log that says so."""
    new = ((one.user, entry.id) for one, entry, _ in changes.log if entry.verb is Verb.REQUEST)
    found = ((of, changes.commands.get(of)) for of in new)
    return [(tag, *of) for of, one in found if one for tag in tags_of(one.request.meta)]


def _packet(mid: int, handled: Handled) -> Values:
    return _PACKET_ROW(
        {"mid": mid, "topic": handled.topic, "digest": handled.digest, "error": handled.error}
    )


def _log(changes: Changes, tops: Tops) -> tuple[Tops, list[Values]]:
    """How far the log is then, and its rows, each with its hash."""
    rows: list[Values] = []
    for record, entry, message in changes.log:
        command = changes.commands.get((record.user, entry.id))
        row = _logged(record, entry, message, command)
        tops = chain.followed(tops, chain.digest_of([row[name] for name in chain.HASHED]))
        row["hash"] = tops[-1][1]
        rows.append(_LOG_ROW(row))
    return tops, rows


def _logged(
    record: Record, entry: LogEntry, message: Message | None, command: Command | None
) -> dict[str, Any]:
    """What the log says of a change, by column, but for its hash.

    ``command``: the one that it is about, where it was saved with it.
    """
    payload = message.payload if message else b""
    # A short one is kept: by such a row retention finds who was stopped before it began.
    kept = keeps_payload(entry, record.current, payload)
    kept = kept and not (entry.brief and entry.verb is Verb.REQUEST)
    return {
        "user": record.user,
        "epoch": record.epoch,
        "seq": record.seq,
        "time": record.time,
        "command": entry.verb,
        "before": int(entry.before),
        "state": int(entry.after),
        "id": entry.id,
        "late": int(entry.late),
        "note": entry.note if kept or command is None else facts.noted(entry, command),
        "topic": message.topic if message else "",
        "payload": payload if kept else b"",
        "payload_sha256": hashlib.sha256(payload).digest(),
        "pruned": not kept,
    }


def _refused(
    refused: Sequence[RefusedRow], before: dict[str, int]
) -> tuple[dict[str, int], list[Values], list[Values]]:
    """How many were refused in all; the rows that are kept; the counts that have changed."""
    counts, kept = dict(before), list[Values]()
    for one in refused:
        counts[one.allowance] = counts.get(one.allowance, 0) + 1
        if counts[one.allowance] <= limits.REFUSED_ROWS:
            kept.append(_REFUSED_ROW(_refusal(one)))
    changed = dict.fromkeys(one.allowance for one in refused)
    return counts, kept, [(user, counts[user]) for user in changed]


def _refusal(row: RefusedRow) -> dict[str, object]:
    """What is kept of a refused message, by column: of long texts their first part."""
    refusal, message = row.refusal, row.message
    return {
        "user": row.user,
        "time": row.time,
        "error": refusal.code,
        "message": refusal.message,
        "hint": refusal.hint,
        "topic": message.topic[: limits.KEPT_TOPIC],
        "id": refusal.id,
        "journal": refusal.journal,
        "state": None if row.state is None else int(row.state),
        "payload": message.payload[: limits.REFUSED_PAYLOAD],
    }
