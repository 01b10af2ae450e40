"""What an operator hears, read: status, result, error, output, heartbeat, health and boards.

The law: ``read_received`` gives an object whose fields are what the protocol says of that kind, or
None, so that whoever shows it, or acts on it, checks nothing again. What is ``object`` in a table
is for people: whoever shows it looks first what it is. Whoever may publish can forge any of these.
What else stands there is kept: it is a later version's (docs/protocol.md, sections 1 and 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from hwsync.protocol.groups import SIGN
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import ITSELF, TopicKind
from hwsync.protocol.wire.error import ERROR, Error
from hwsync.protocol.wire.group import BATCH, MEMBERS, BatchFields, MembersFields
from hwsync.protocol.wire.heartbeat import HEARTBEAT, Heartbeat
from hwsync.protocol.wire.itself import BOARDS, HEALTH, Boards, Health
from hwsync.protocol.wire.response import OUTPUT
from hwsync.protocol.wire.schema import Json, Schema, read_object
from hwsync.protocol.wire.status import RESULT, STATUS, Result, Status

TABLES: Final[Mapping[TopicKind, Schema[Any]]] = {
    TopicKind.STATUS: STATUS,
    TopicKind.RESULT: RESULT,
    TopicKind.ERROR: ERROR,
    TopicKind.OUTPUT: OUTPUT,
    TopicKind.HEARTBEAT: HEARTBEAT,
    TopicKind.HEALTH: HEALTH,
    TopicKind.BOARDS: BOARDS,
}
"""Of what operators hear of a board, and of the coordinator."""

OF_GROUP: Final[Mapping[TopicKind, Schema[Any]]] = {
    TopicKind.STATUS: BATCH,
    TopicKind.RESULT: BATCH,
    TopicKind.ERROR: ERROR,
    TopicKind.MEMBERS: MEMBERS,
}
"""And of a group."""


def is_group(user: str) -> bool:
    """Whether a topic's user is a group."""
    return user.startswith(SIGN) and user != ITSELF


def read_received(kind: TopicKind, payload: bytes, user: str = "") -> Json | None:
    """The object of a message, or None where it is none of that kind; ``user``: the topic's."""
    fields = read_object(payload)
    table = (OF_GROUP if is_group(user) else TABLES).get(kind)
    sound = fields is not None and table is not None and table.holds(fields)
    return fields if fields is not None and sound and _is_writable(fields, payload) else None


def _is_writable(fields: Json, payload: bytes) -> bool:
    """JSON can spell half a surrogate pair, which nothing can print or write."""
    if b"\\ud" not in payload and b"\\uD" not in payload:
        return True
    try:
        dumps(fields).encode()
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Received:
    """One message of ``user``. Its fields are what ``read_received`` says; empty: it was cleared.

    ``kept``: the broker had kept it. The properties name its kind: each but one is None.
    """

    user: str
    kind: TopicKind
    fields: Mapping[str, Any]
    kept: bool = False

    def _is(self, *kinds: TopicKind, group: bool = False) -> bool:
        return self.kind in kinds and bool(self.fields) and is_group(self.user) is group

    @property
    def status(self) -> Status | None:
        """A cleared one is none."""
        return cast(Status, self.fields) if self._is(TopicKind.STATUS) else None

    @property
    def result(self) -> Result | None:
        return cast(Result, self.fields) if self._is(TopicKind.RESULT) else None

    @property
    def batch(self) -> BatchFields | None:
        """What became of a group's batch, the newest one or an older one."""
        is_one = self._is(TopicKind.STATUS, TopicKind.RESULT, group=True)
        return cast(BatchFields, self.fields) if is_one else None

    @property
    def members(self) -> MembersFields | None:
        """Who is in a group."""
        is_one = self._is(TopicKind.MEMBERS, group=True)
        return cast(MembersFields, self.fields) if is_one else None

    @property
    def command_fields(self) -> Status | Result | None:
        """A status or a result."""
        return self.status or self.result

    @property
    def error(self) -> Error | None:
        return cast(Error, self.fields) if self.kind is TopicKind.ERROR and self.fields else None

    @property
    def heartbeat(self) -> Heartbeat | None:
        return (
            cast(Heartbeat, self.fields)
            if self.kind is TopicKind.HEARTBEAT and self.fields
            else None
        )

    @property
    def health(self) -> Health | None:
        return cast(Health, self.fields) if self.kind is TopicKind.HEALTH and self.fields else None

    @property
    def boards(self) -> Boards | None:
        return cast(Boards, self.fields) if self.kind is TopicKind.BOARDS and self.fields else None
