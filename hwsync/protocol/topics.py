"""The topics: ``<root>/<user>/<kind>`` (docs/protocol.md, section 3).

The law: a topic that hwsync subscribes to, publishes on or hears is joined and split here. Texts
for people write some out, and ``admission`` says where replies go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import MAX_TOPIC_LEVELS

DEFAULT_ROOT: Final = "hw"
ITSELF: Final = "@hwsync"  # stands for the coordinator where a user's name would be


class TopicKind(StrEnum):
    """The last level of a topic, and who writes there."""

    REQUEST = "request"  # operator to coordinator
    ENVELOPE = "command"  # coordinator to device; a person's plain text is adopted
    COLLECTED = "collected"  # device to coordinator
    OUTPUT = "output"  # device to watchers, QoS 0
    RESPONSE = "response"  # device to coordinator
    ANALYSIS = "analysis"  # analyst to coordinator
    CANCEL = "cancel"  # operator to coordinator
    RESET = "reset"  # operator to coordinator
    QUERY = "query"  # operator to coordinator
    STATUS = "status"  # coordinator to everybody, retained
    ERROR = "error"  # coordinator to operators
    RESULT = "result"  # coordinator to who asked; one more level: the id
    HEARTBEAT = "heartbeat"  # device to everybody, retained
    CLOCK = "clock"  # device to coordinator, QoS 0: what time it is
    CLOCK_REPLY = "clock/reply"  # coordinator to device, QoS 0
    HISTORY = "history"  # operator to coordinator: which of my commands there were
    HISTORY_ALL = "history/all"  # the same, of everybody's
    HEALTH = "health"  # coordinator to everybody, retained; about itself, below @hwsync
    MEMBERS = "members"  # coordinator to everybody, retained; a group's boards, below @<group>
    COORDINATOR = "coordinator"  # coordinator to coordinators, retained; which one, below @hwsync
    BOARDS = "boards"  # coordinator to everybody, retained; whom it hears, below @hwsync
    ANALYSTS = "analysts"  # analyst to everybody, retained; below @hwsync, one more level: its name


INBOUND: Final = (
    TopicKind.REQUEST,
    TopicKind.ENVELOPE,
    TopicKind.COLLECTED,
    TopicKind.RESPONSE,
    TopicKind.ANALYSIS,
    TopicKind.CANCEL,
    TopicKind.RESET,
    TopicKind.QUERY,
    TopicKind.HEARTBEAT,
    TopicKind.STATUS,  # the one that the broker kept: it may be newer than the database
    TopicKind.CLOCK,
    TopicKind.HISTORY,
    TopicKind.HISTORY_ALL,
)
"""What the coordinator subscribes to."""

_NO_CHARACTERS: Final = "".join(
    chr(plane << 16 | end) for plane in range(1, 17) for end in (0xFFFE, 0xFFFF)
)
_UNPUBLISHABLE: Final = re.compile(
    r"[+#\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff" + _NO_CHARACTERS + "]"
)

_KINDS: Final = {str(kind): kind for kind in TopicKind}


def is_publishable(topic: str) -> bool:
    """Whether any broker takes a message on it; its length is not looked at.

    mosquitto ends the connection of who publishes on more than 200 levels, or on characters that
    MQTT 5 (1.5.4) lets a receiver refuse: control characters and those that are none.
    """
    levels = topic.count("/") + 1
    return bool(topic) and levels <= MAX_TOPIC_LEVELS and _UNPUBLISHABLE.search(topic) is None


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics below one root. The root may have several levels, but no wildcard.

    Raises ``UsageError`` for a root that is none. A user is checked by nobody here: who makes a
    topic has asked ``limits.is_user``, and what ``split`` returns may be anything.
    """

    root: str = DEFAULT_ROOT

    def __post_init__(self) -> None:
        if (
            not self.root
            or any(c in self.root for c in "+#\0$")
            or self.root.strip("/") != self.root
            or not is_publishable(f"{self.root}/user/{TopicKind.RESULT}/id")
        ):
            raise UsageError(
                f"{self.root!r} cannot be the root of the topics",
                "take a word such as hw, or a few words joined by /, without + # $",
            )

    def client_id(self, name: str) -> str:
        """The fixed MQTT client id of ``hwsync-coordinator`` or ``hwsync-device-<user>``.

        Below another root than the usual one it names the root: several labs share one broker.
        """
        return name if self.root == DEFAULT_ROOT else f"{name}@{self.root}"

    def of(self, user: str, kind: TopicKind) -> str:
        """The topic of that kind for a user; ``+`` as user makes the filter for all of them."""
        return f"{self.root}/{user}/{kind}"

    def analyst(self, name: str) -> str:
        """Where an analyst says what it offers; ``+`` as name: for all of them."""
        return f"{self.of(ITSELF, TopicKind.ANALYSTS)}/{name}"

    def analyst_of(self, topic: str) -> str | None:
        """Which analyst's topic that is; None: no analyst's."""
        prefix = self.analyst("")
        return topic.removeprefix(prefix) if topic.startswith(prefix) else None

    def result(self, user: str, id: str) -> str:
        """Where everything about one command is answered; ``+`` as id: for all of them."""
        return f"{self.root}/{user}/{TopicKind.RESULT}/{id}"

    @property
    def health(self) -> str:
        """Where the coordinator says how it is."""
        return self.of(ITSELF, TopicKind.HEALTH)

    @property
    def boards(self) -> str:
        """Where the coordinator says when it last heard each board."""
        return self.of(ITSELF, TopicKind.BOARDS)

    @property
    def coordinator(self) -> str:
        """Where the coordinator leaves its sign, for another that is started."""
        return self.of(ITSELF, TopicKind.COORDINATOR)

    def echoes(self, name: str) -> tuple[str, str]:
        """Two topics that nobody else listens to, for measuring a round trip.

        ``name``: the account where there is one, which may say and hear anything on these.
        """
        echo = f"{self.root}/{ITSELF}/echo/{name}"
        return f"{echo}/there", f"{echo}/back"

    def dotted(self, name: str) -> str:
        """Another topic of that kind, for finding out whether a dot is passed on."""
        return f"{self.root}/{ITSELF}/echo/{name}/with.dot"

    def split(self, topic: str) -> tuple[str, TopicKind | None]:
        """(user as received, kind); the kind is None where the topic is none of ours."""
        prefix = self.root + "/"
        if not topic.startswith(prefix):
            return "", None
        user, slash, rest = topic[len(prefix) :].partition("/")
        if rest.startswith("result/"):
            return user, TopicKind.RESULT
        if user == ITSELF and rest.startswith("analysts/"):
            return user, TopicKind.ANALYSTS
        return user, _KINDS.get(rest) if slash else None
