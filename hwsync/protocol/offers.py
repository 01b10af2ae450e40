"""Which analysers are offered by whom, and how long a result waits where nobody offers its own.

The law: an analyst that is online offers what it said last; more analysts than may be counted offer
nothing. While nobody offers the analyser of a record in state 3 its time runs out
(``limits.UNOFFERED_S``, of connection); it is whole again when somebody does (docs/protocol.md,
section 7).
"""

from __future__ import annotations

from collections.abc import Mapping

from hwsync.protocol import limits
from hwsync.protocol.analysis import nobody_offers
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.record import Command, Moment, Record, State, replace
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.analyst import Offer

Offers = Mapping[str, Offer]
"""By analyst: of those that are online."""


def heard(offers: Offers, analyst: str, offer: Offer) -> Offers:
    """The offers, once an analyst has said what it offers, or that it has gone.

    Raises ``Refused`` where that is no name of an analyst, or there are too many.
    """
    if not limits.is_user(analyst):
        raise Refused(Code.BAD_USER, f"{analyst[:80]!r} is no analyst's name", limits.USER_FORM)
    others = {name: one for name, one in offers.items() if name != analyst}
    if not offer.online:
        return others
    if len(others) >= limits.MAX_ANALYSTS:
        raise Refused(
            Code.NOT_ALLOWED,
            f"more than {limits.MAX_ANALYSTS} analysts are online: {analyst} is not heard",
            "one analyst may offer all analysers of a folder",
        )
    return {**others, analyst: offer}


def names_of(offers: Offers) -> frozenset[str]:
    """The analysers that somebody offers."""
    return frozenset(name for offer in offers.values() for name in offer.analysers)


def waits_for_analysis(record: Record, command: Command, moment: Moment, rules: Rules) -> Record:
    """The record as it waits in state 3, from now on."""
    within = rules.analysis_within
    deadline = moment.ticks + within if within else None
    alone = command.waits_for_analyst and command.analyser not in rules.offered
    unoffered = moment.ticks + limits.UNOFFERED_S if alone else None
    return replace(record, deadline_ticks=deadline, unoffered_ticks=unoffered)


def looked_at(record: Record, ticks: float, rules: Rules) -> Record:
    """The record once it is known anew what is offered: the same where that changes nothing."""
    command = record.current
    if record.state is not State.RETURNED or command is None or not command.waits_for_analyst:
        return record
    is_offered = command.analyser in rules.offered
    if is_offered is (record.unoffered_ticks is None):
        return record
    until = None if is_offered else ticks + limits.UNOFFERED_S
    return replace(record, unoffered_ticks=until)


def why_unanalysed(record: Record, command: Command, moment: Moment, rules: Rules) -> str:
    """Why state 3 ends by itself."""
    if record.unoffered_ticks is not None and record.unoffered_ticks <= moment.ticks:
        return nobody_offers(command)
    return f"none came within {rules.analysis_within:.12g} s"
