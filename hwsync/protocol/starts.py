"""Starts at an instant: what is accepted, and until when one is waited for (docs/protocol.md, 6).

The law: an instant is compared with lab time only in the life whose time it is; in any other life
it is past. So a coordinator that lost its clock ends what waits for one, and starts nothing.
"""

from __future__ import annotations

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.record import MICRO, Command, Moment, Record, Request, replace


def check(request: Request, moment: Moment, *, of_batch: bool) -> None:
    """Raises ``Refused`` for a new request whose start nobody can keep.

    ``of_batch``: it is a member's, who may begin together with the others.
    """
    start = request.start
    if start is None:
        return
    if not moment.life:
        raise Refused(
            Code.NOT_ALLOWED,
            "'start': this coordinator has no lab time",
            "leave the key out",
        )
    if start.at_us is None and of_batch:
        return
    if start.at_us is None:
        raise Refused(
            Code.NOT_ALLOWED,
            "'start' with 'together' is for the members of a batch",
            'name an instant, {"at": 1700000000}, in seconds of lab time',
        )
    if start.at_us <= moment.lab_us:
        ahead, must = "past", "later"
    elif start.at_us > moment.lab_us + limits.START_AHEAD_S * MICRO:
        ahead, must = "more than a day ahead", "earlier"
    else:
        return
    raise Refused(
        Code.BAD_PAYLOAD,
        f"'at' is {start.at_us / MICRO:.6f}, which is {ahead}: lab time is "
        f"{moment.lab_us / MICRO:.6f}",
        f"name an instant that is {must}; hw/@hwsync/health has the lab time",
    )


def check_need(request: Request, members: int) -> None:
    """Raises ``Refused`` where more boards must be ready than the batch has."""
    start = request.start
    if start is not None and start.need > members:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"'need' is {start.need}, and the batch has {members} boards",
            "nobody would ever begin: name a smaller number",
        )


def fixed(command: Command, moment: Moment) -> Command:
    """A new command with the instant that its request names, of this life."""
    start = command.request.start
    if start is None or start.at_us is None:
        return command
    return replace(command, start_at_us=start.at_us, start_life=moment.life)


def ahead_s(command: Command, moment: Moment) -> float:
    """Seconds until its instant; 0 where it is past, of another life, or not fixed."""
    if command.start_at_us is None or command.start_life != moment.life:
        return 0.0
    return max(command.start_at_us - moment.lab_us, 0) / MICRO


def too_late(command: Command, moment: Moment) -> str:
    """Why what waited expired: its instant is past."""
    if command.start_life != moment.life:
        return "not collected before its start: the lab's clock began anew meanwhile"
    return "not collected before its start"


def is_pending(record: Record, moment: Moment) -> bool:
    """Whether the record's command waits for an instant of this life, or for one to be fixed."""
    command = record.current
    if command is None or command.request.start is None or command.report is not None:
        return False
    if command.start_at_us is None:
        return True
    latest_us = command.start_at_us + command.request.start.within_us
    return command.start_life == moment.life and moment.lab_us < latest_us
