"""The members of a batch begin at one instant: who is ready, and when it is fixed, and for whom.

The law: it is decided once for a batch, for all members in one transaction: whoever is ready then
has the same instant, and all others are left out. Nobody holds the others up for longer than
``wait``: a member is waited for until it is ready or has ended, whatever became of it
(docs/protocol.md, section 6). Nothing that was said of a device's presence counts for ever: ready
is who is ready at the moment of the decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hwsync.protocol import limits, turns
from hwsync.protocol.batch import NOT_BEGUN, Batch
from hwsync.protocol.draft import Draft
from hwsync.protocol.effects import BatchDecision
from hwsync.protocol.errors import Code
from hwsync.protocol.events import HeartbeatReceived, LeftOut, StartFixed
from hwsync.protocol.jsons import dumps, size
from hwsync.protocol.record import MICRO, Command, Moment, Record, Start, State, replace
from hwsync.protocol.rules import Rules

STATUS_BYTES: Final = 2 * limits.KIB  # of a status, without the program that it shows


@dataclass(slots=True)
class _Members:
    """How far a batch's members are, of those that have not ended."""

    ready: list[Command]
    behind: list[Command]
    absent: list[str]  # of a list, who has not been asked yet


def is_ready(record: Record, command: Command, device: HeartbeatReceived | None) -> bool:
    """Whether a member waits for nothing but its instant, in a device that is there.

    ``device``: what was heard last of it.
    """
    granted = record.state is State.COLLECTED and record.id == command.id
    if not granted or record.cancelling or command.start_at_us is not None:
        return False
    return device is None or not _has_gone(command, device)


def _has_gone(command: Command, device: HeartbeatReceived) -> bool:
    """Whether the boot that holds the grant was last heard to be gone, or is followed by another.

    A device of another journal says nothing of this one.
    """
    if device.journal != command.journal or command.boot is None:
        return False
    return device.boot > command.boot or (device.boot == command.boot and not device.online)


def begin(draft: Draft, key: str, moment: Moment, rules: Rules) -> set[str]:
    """Fix the instant of a batch where it is time to; who begins at it.

    Nothing is decided while somebody is waited for, and never twice.
    """
    batch = draft.batch(key)
    if batch is None or batch.wait_until is None or batch.start is None:
        return set()
    found = _look(draft, batch, waits=moment.ticks < batch.wait_until)
    if found is None:
        return set()
    enough = len(found.ready) >= batch.start.need
    starting, left = (found.ready, found.behind) if enough else ([], found.ready + found.behind)
    at_us = moment.lab_us + lead_us(batch.start, starting) if starting else None
    draft.take(BatchDecision(_decided(batch, found.absent, at_us, moment)))
    draft.touched[key] = None
    for one in starting:
        assert at_us is not None
        event = StartFixed(one.id, at_us, moment.life)
        draft.take(replace(turns.one(draft, one.user, event, moment, rules), turn=True))
    reason = _reason(batch.start, len(found.ready), enough=enough)
    for one in left:
        decision = turns.one(draft, one.user, LeftOut(one.id, reason), moment, rules)
        draft.take(replace(decision, turn=True))
        turns.of_queue(draft, one.user, moment, rules)
    return {one.user for one in starting}


def lead_us(start: Start, starting: Sequence[Command]) -> int:
    """Microseconds from the decision to the instant, so that everybody has heard of it before."""
    lengths: dict[str, int] = {}  # by program: mostly there is one
    bytes = 0
    for one in starting:
        program = one.program_sha256
        if program not in lengths:
            lengths[program] = size(dumps(one.request.program)) + STATUS_BYTES
        bytes += lengths[program]
    more = bytes / limits.START_BYTES_PER_S + len(starting) * limits.START_MEMBER_S
    return round((start.lead + more) * MICRO)


def _look(draft: Draft, batch: Batch, *, waits: bool) -> _Members | None:
    """Who is how far; None: somebody is waited for, while the batch ``waits``."""
    found = _Members([], [], [])
    for user in batch.members:
        if user in batch.refused:
            continue
        command = draft.command(user, batch.id)
        if command is None or command.batch != batch.key:
            found.absent.append(user)
        elif command.report is None:
            ready = is_ready(draft.record_of(user), command, draft.device(user))
            (found.ready if ready else found.behind).append(command)
        if waits and (found.absent or found.behind):
            return None
    return found


def _decided(batch: Batch, absent: Iterable[str], at_us: int | None, moment: Moment) -> Batch:
    """The batch, which waits for nobody any more; whoever has not been asked yet comes too late."""
    refused = {**batch.refused, **dict.fromkeys(absent, Code.WRONG_STATE)}
    return replace(
        batch,
        seq=batch.seq + 1,
        wait_until=None,
        start_at_us=at_us,
        start_life="" if at_us is None else moment.life,
        refused=refused,
    )


def _reason(start: Start, ready: int, *, enough: bool) -> str:
    if enough:
        return f"{NOT_BEGUN}: it was not ready when the others were, within {start.wait:.12g} s"
    are = "board was" if ready == 1 else "boards were"
    return f"{NOT_BEGUN}: {ready} {are} ready within {start.wait:.12g} s, and {start.need} must be"
