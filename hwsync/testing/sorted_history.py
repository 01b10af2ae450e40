"""What was seen of a lab, by what it is about, and what its databases and journals can know of it.

The law: nothing is judged here: that does ``checker``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hwsync.testing.history import (
    Answered,
    Asked,
    Began,
    Copied,
    Ended,
    JournalLost,
    Json,
    Judged,
    LifeBegan,
    Offered,
    PutBack,
    Said,
    SaidOfBatch,
    Seen,
    Served,
    TurnedAway,
)

Name = tuple[str, str]  # user, id of a command


class Sorted:
    """The history by what it is about."""

    def __init__(self, history: Sequence[Seen]) -> None:
        self.asked: dict[Name, list[Asked]] = defaultdict(list)
        self.without_id: list[Asked] = []
        self.answered: dict[Name, list[Answered]] = defaultdict(list)
        self.began: dict[Name, list[Began]] = defaultdict(list)
        self.ended: dict[Name, list[Ended]] = defaultdict(list)
        self.said: list[Said] = []
        self.told: dict[Name, list[float]] = defaultdict(list)  # when it was known
        self.ran_no: list[tuple[float, str, str, str]] = []  # when, of whom, and its outcome
        self.copied: set[tuple[str, bytes]] = set()
        self.put_back: list[PutBack] = []
        self.journals_lost: list[JournalLost] = []
        self.served: list[Served] = []
        self.turned_away: set[Name] = set()
        self.judged: dict[str, list[Judged]] = defaultdict(list)  # by user
        self.offered: list[Offered] = []
        for one in history:
            if isinstance(one, Said):
                self.said.append(one)
                self._is_told(one.at, one.user, one.fields["id"], one.fields)
            elif isinstance(one, SaidOfBatch):
                for user, part in one.fields["members"].items():
                    if not part["refused"]:
                        self._is_told(one.at, user, one.fields["id"], part)
            elif isinstance(one, Copied):
                self.copied.add((one.topic, one.payload))
            elif isinstance(one, PutBack):
                self.put_back.append(one)
            elif isinstance(one, JournalLost):
                self.journals_lost.append(one)
            elif isinstance(one, Served):
                self.served.append(one)
            elif isinstance(one, TurnedAway):
                self.turned_away.add((one.user, one.id))
            elif isinstance(one, Asked):
                if one.id is None:
                    self.without_id.append(one)
                else:
                    self.asked[one.user, one.id].append(one)
            elif isinstance(one, Answered):
                self.answered[one.user, one.id].append(one)
            elif isinstance(one, Began):
                self.began[one.user, one.id].append(one)
            elif isinstance(one, Judged):
                self.judged[one.user].append(one)
            elif isinstance(one, Offered):
                self.offered.append(one)
            elif isinstance(one, LifeBegan):
                pass  # of ``instants``
            else:
                self.ended[one.user, one.id].append(one)

    def _is_told(self, at: float, user: str, id: str, fields: Json) -> None:
        """A command was known then, and that it did not run may be said of it."""
        self.told[user, id].append(at)
        if fields["ran"] == "no":
            self.ran_no.append((at, user, id, fields["outcome"]))

    def requests(self, user: str, id: str, program: str) -> list[Asked]:
        """Who asked for that program under that id."""
        asked = self.asked.get((user, id), [])
        return [one for one in asked if (one.kind, one.program) == ("request", program)]

    def forgotten(self, user: str, id: str, at: float) -> bool:
        """Whether a database was put back that cannot know what an answer of that time says.

        The answer may have been under way while it was put back.
        """
        if not self.put_back:
            return False
        times = [
            one.at
            for one in self.said
            if one.user == user and one.at <= at and one.fields["id"] == id
        ]
        said_at = max(times, default=at)
        return any(one.copied_at <= said_at <= one.at for one in self.put_back)

    def repeated_since(self, ended: Ended) -> bool:
        """Whether a database was put back, and somebody asked for the same command again."""
        asked = self.asked[ended.user, ended.id]
        return self.put_back_since(ended.at) and any(
            one.kind == "request" and one.at > ended.at for one in asked
        )

    def put_back_between(self, before: float, after: float) -> bool:
        return any(before <= one.at <= after for one in self.put_back)

    def put_back_since(self, at: float) -> bool:
        return any(at <= one.at for one in self.put_back)

    def forgot_between(self, user: str, id: str, before: float, after: float) -> bool:
        """Whether a database was put back then that did not know a command: it may run again.

        One that did ends what was open in it as lost, and sends it nobody any more.
        """
        return any(
            before <= one.at <= after and not self._knew(one, user, id) for one in self.put_back
        )

    def _knew(self, put_back: PutBack, user: str, id: str) -> bool:
        until = put_back.copied_at
        since = max((one.at for one in self.put_back if one.at < until), default=0.0)
        return any(since < at < until for at in self.told[user, id])
