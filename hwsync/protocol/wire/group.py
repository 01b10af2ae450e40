"""What is said of a group, below ``@<group>``: what became of a batch, and who is in the group.

The law: what became of a member stands here in a few words, so that a thousand of them fit; its
texts are on the member's own topics. A status that would be too large leaves out who ended ``ok``;
the counts are always of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, NotRequired, TypedDict, cast

from hwsync.protocol import limits
from hwsync.protocol.batch import Batch, apart
from hwsync.protocol.jsons import dumps, is_count, is_number, micros
from hwsync.protocol.record import Outcome, Ran, State
from hwsync.protocol.wire.forms import Count, Id, Number, one_of
from hwsync.protocol.wire.schema import Form, Json, Schema, loose

OPEN: Final = "open"
ENDED: Final = "ended"


class Member(TypedDict, total=False):
    """What became of one board. A field that lacks is null."""

    state: int | None  # of its record, for this command; None: nobody has asked it
    outcome: str | None
    ran: str | None
    exit_code: int | None
    started: float | None
    start_error: float | None
    clock_bound: float | None
    refused: str | None  # the code with which it refused


_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "outcome": frozenset(Outcome),
    "ran": frozenset(Ran),
}
_NUMBERS: Final = ("exit_code", "started", "start_error", "clock_bound")


def _is_member(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    state, refused = value.get("state"), value.get("refused")
    return (
        (state is None or (is_count(state) and state <= State.RETURNED))
        and all(value.get(key) is None or value[key] in words for key, words in _WORDS.items())
        and all(value.get(key) is None or is_number(value[key]) for key in _NUMBERS)
        and (refused is None or (isinstance(refused, str) and refused.isidentifier()))
    )


def _are_members(value: Any) -> bool:
    return isinstance(value, dict) and all(
        limits.is_user(user) and _is_member(one) for user, one in value.items()
    )


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_count, value.values()))


def _is_spread(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_count(value.get("n"))
        and all(value.get(key) is None or is_number(value[key]) for key in ("seconds", "bound"))
    )


def _are_online(value: Any) -> bool:
    return isinstance(value, dict) and all(
        limits.is_user(user) and (online is None or isinstance(online, bool))
        for user, online in value.items()
    )


class BatchFields(TypedDict):
    """On ``@<group>/status``, and of an older batch on ``@<group>/result/<id>``."""

    group: Annotated[str, Form("name of a group", limits.is_user), "the group's name"]
    id: Annotated[Id, "of the batch, and of each member's command"]
    epoch: Annotated[Count, "as in a board's status"]
    seq: Annotated[Count, "grows with each change of a batch of this group"]
    state: Annotated[
        str, one_of(OPEN, ENDED), "`ended` when each member has ended, or will never begin"
    ]
    issued: Annotated[Number, "when it was accepted, by the coordinator's clock"]
    ended: Annotated[Number | None, "when it ended"]
    counts: Annotated[
        dict[str, int],
        Form("object", _are_counts),
        "how many members there are (`members`), wait (`waiting`), have begun (`running`), have "
        "refused (`refused`), and ended with each outcome",
    ]
    members: Annotated[
        dict[str, Member],
        Form("object", _are_members),
        "by board: `state`, `outcome`, `ran`, `exit_code`, `started`, `start_error`, "
        "`clock_bound`, and `refused`, the code with which it refused; where that would be more "
        "than 1 MiB, only who did not end `ok`",
    ]
    spread: NotRequired[
        Annotated[
            dict[str, Any] | None,
            loose(Form("object", _is_spread)),
            "of a start: how many were released (`n`), the seconds from the first to the last, "
            "and how wrong that may be (`bound`)",
        ]
    ]


class MembersFields(TypedDict):
    """On ``@<group>/members``."""

    group: Annotated[str, Form("name of a group", limits.is_user), "the group's name"]
    members: Annotated[
        dict[str, bool | None],
        Form("object", _are_online),
        "by board, whether it is online; null where that is not known yet",
    ]


BATCH: Final = Schema.of("the batch", BatchFields)
MEMBERS: Final = Schema.of("the members", MembersFields)

_PART: Final = ("outcome", "ran", "exit_code", "started", "start_error", "clock_bound")
_TIMES: Final = ("started", "start_error", "clock_bound")
_NOTHING: Final[Json] = dict.fromkeys(_PART)
Parts = Mapping[str, Mapping[str, Any]]


def batch_json(batch: Batch, epoch: int, parts: Parts, states: Mapping[str, int]) -> Json:
    """All fields of a batch's status.

    ``parts``: what became of the members' commands, by member (``store.api.Storage.parts``);
    ``states``: of the records of those whose present command it is.
    """
    members: dict[str, Any] = {
        user: {
            "state": states.get(user, 0),
            **_part(parts.get(user, _NOTHING)),
            "refused": batch.refused.get(user),
        }
        for user in batch.members
    }
    fields: BatchFields = {
        "group": batch.group,
        "id": batch.id,
        "epoch": epoch,
        "seq": batch.seq,
        "state": OPEN if batch.ended is None else ENDED,
        "issued": batch.issued,
        "ended": batch.ended,
        "counts": _counts(batch, parts),
        "members": members,
        "spread": spread(batch, parts),
    }
    return cast(Json, fields)


def _part(part: Mapping[str, Any]) -> Json:
    """What became of one member's command; lab time as it is written everywhere."""
    return {key: micros(part[key]) if key in _TIMES else part[key] for key in _PART}


def spread(batch: Batch, parts: Parts) -> Json | None:
    """How far apart those began that were released at one instant; None: nobody was.

    All have the same instant, of the same life, so that their times compare.
    """
    if batch.start_at_us is None:
        return None
    known = [one for one in parts.values() if None not in map(one.get, _TIMES)]
    released = [one for one in known if one["ran"] == Ran.YES]
    if not released:
        return None
    seconds, bound = apart(
        (float(one["started"]) for one in released),
        (float(one["clock_bound"]) for one in released),
    )
    return {
        "n": len(released),
        "seconds": micros(seconds),
        "bound": micros(bound),
    }


def encode_batch(fields: Json, limit: int, *, whole: bool = True) -> bytes:
    """The status as it is published; ``whole`` False: without those that ended ``ok``."""
    limit = min(limit, limits.MAX_STATUS)
    if whole and len(payload := dumps(fields).encode()) <= limit:
        return payload
    every = fields["members"]
    bad = {user: one for user, one in every.items() if one["outcome"] != Outcome.OK}
    payload = dumps({**fields, "members": bad}).encode()
    return payload if len(payload) <= limit else dumps({**fields, "members": {}}).encode()


def encode_members(group: str, members: Mapping[str, bool | None], limit: int) -> bytes:
    """The list of a group's boards, as it is published; empty where it would be above ``limit``."""
    fields: MembersFields = {"group": group, "members": dict(members)}
    payload = dumps(fields).encode()
    most = min(limit, limits.MAX_STATUS)
    return payload if len(payload) <= most else dumps({**fields, "members": {}}).encode()


def _counts(batch: Batch, parts: Parts) -> dict[str, int]:
    """How many members are how far; those of which nothing was heard yet wait."""
    ended: dict[str, int] = {}
    for part in parts.values():
        if part["outcome"] is not None:
            ended[part["outcome"]] = ended.get(part["outcome"], 0) + 1
    known = batch.begun + len(batch.refused) + sum(ended.values())
    return {
        "members": len(batch.members),
        "waiting": len(batch.members) - known,
        "running": batch.begun,
        "refused": len(batch.refused),
        **{str(one): ended[one] for one in Outcome if one in ended},
    }
