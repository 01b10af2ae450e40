"""What is published of a record as it stands: at each connect, to who asks, to who is refused.

The law: all of it follows from the record and the command that was named, so that nothing that was
not sent needs remembering. The status is always the first effect (behind the error, if there is
one): whoever takes the others only can rely on it.
"""

from __future__ import annotations

from hwsync.protocol.effects import (
    Analyse,
    Decision,
    Effect,
    PublishEnvelope,
    PublishError,
    PublishResult,
    PublishStatus,
)
from hwsync.protocol.errors import Refused
from hwsync.protocol.record import Analyser, Command, Record, State


def implied_effects(record: Record) -> tuple[Effect, ...]:
    """The effects that the present state implies: status, in state 1 envelope, in state 3 analyser.

    Emitted when the state is entered, and again on every connect.
    """
    effects: list[Effect] = [PublishStatus(record)]
    command = record.current
    if record.state is State.REQUESTED:
        effects.append(PublishEnvelope(record))
    if record.state is State.RETURNED and command and command.analyser == Analyser.OUTCOME:
        effects.append(Analyse(command))
    return tuple(effects)


def effects_on_connect(record: Record) -> tuple[Effect, ...]:
    """The same, of all records; nothing is said of a forgotten one until it is asked for."""
    return () if record.forgotten else implied_effects(record)


def effects_on_appearance(record: Record) -> tuple[Effect, ...]:
    """What a device is sent that has just appeared: what waits for it."""
    return tuple(
        effect for effect in implied_effects(record) if isinstance(effect, PublishEnvelope)
    )


def answers(
    record: Record, known: Command | None, *, query: bool = False, files: tuple[str, ...] = ()
) -> tuple[Effect, ...]:
    """The status again; for another command than the record's own, or a query, its end too.

    ``files``: paths of those whose bytes were asked for.
    """
    effects: list[Effect] = [PublishStatus(record)]
    if known is not None and (query or known.id != record.id):
        state, place = record.state_of(known.id), record.place(known.id)
        effects.append(PublishResult(known, state, place, files))
    return tuple(effects)


def refuse(record: Record, refusal: Refused, known: Command | None = None) -> Decision:
    """The decision that a refusal makes; who named an id hears the status again as well."""
    effects: list[Effect] = [PublishError(refusal, record.state)]
    if refusal.id is not None:
        effects += answers(record, known)
    return Decision(record, None, None, tuple(effects), refusal)
