"""One user's record as plain values: what is stored and told of it (see model.py)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

LINE = "\0 the coordinator's own line"  # stands for an analysis by ``outcome``

# State after each verb, by state before: section 2, "Transitions", without what a restore does.
TABLE = {
    "hw_command_request": {0: 1},
    "hw_command_retrieval": {1: 2, 2: 2},
    "hw_response_provide": {2: 3},
    "server_analysis_provide": {3: 0},
    "reset": {0: 0, 1: 0, 2: 0, 3: 0},
    "cancel": {1: 0, 2: 2},
    "expire": {1: 0, 2: 3, 3: 0},
    "next": {0: 1},
}
SETTLED = 4
ALONE_S = 60.0  # in state 3, where no analyst offers the analyser
REGRADES = 64
ROW, A_SECOND, ANSWER, WAIT = 1024, 256, 4096, 900.0  # section 4, "What leads to nothing"


@dataclass(frozen=True)
class Told:
    """One publish that must come: ``fields`` of a status or result, the code of an error."""

    kind: str  # status, envelope, result, error
    fields: dict[str, Any]
    needed: bool = True  # else it may come, and nothing is said of it
    retain: bool = False
    whole: dict[str, Any] = field(default_factory=dict)  # the command of a result, as it was then


@dataclass(frozen=True)
class Said:
    """One message; ``id``, ``journal`` and ``args`` are what its payload says."""

    kind: str
    payload: bytes
    id: str | None = None
    journal: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    mid: int = 0
    dup: bool = False
    retain: bool = False


@dataclass
class Level:
    """What must be stored, and (``told``) what must be published since it was emptied."""

    within: float  # seconds that state 3 waits for its analysis
    most: int = 4_194_304  # bytes of what leads to nothing
    idle: float = 0.0  # so many were spent
    idle_at: float = 0.0  # on the wall clock
    state: int = 0
    seq: int = 0
    verb: str = ""
    id: str = ""
    cancelling: bool = False
    due: float | None = None  # in ticks
    unoffered: float | None = None  # in ticks, the end of state 3 where nobody offers its analyser
    offers: dict[str, frozenset[str]] = field(default_factory=dict)  # by analyst
    taken: float | None = None  # in ticks, when the present command came from the queue
    saved: float = 0.0  # in ticks, the last change
    wall: float = 0.0  # of the last change
    deadline: float | None = None
    count: int = 0
    queue: list[str] = field(default_factory=list)
    settled: list[tuple[str, str]] = field(default_factory=list)
    forgotten: bool = False
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: list[tuple[int, str, int, int, str, bool]] = field(default_factory=list)
    refused: list[tuple[str, str | None]] = field(default_factory=list)
    packets: dict[int, tuple[str, bytes, str | None]] = field(default_factory=dict)
    to_analyse: list[str] = field(default_factory=list)
    dirty: set[str] = field(default_factory=set)  # commands that were changed
    told: list[Told] = field(default_factory=list)
    now: tuple[float, float] = (0.0, 0.0)  # ticks and wall clock of this round

    # -- what is told -------------------------------------------------------------------------

    def command(self) -> dict[str, Any]:
        return self.commands.get(self.id, {})

    def status(self) -> dict[str, Any]:
        own = self.command()
        return {
            "id": self.id,
            "state": self.state,
            "epoch": 0,
            "seq": self.seq,
            "journal": own.get("journal"),
            "boot": own.get("boot"),
            "cancelling": self.cancelling,
            "settled": [list(pair) for pair in self.settled],
            "command": self.verb,
            "time": self.wall,
            "deadline": self.ends(),
            "hw_command": own.get("program", ""),
            "hw_response": own.get("response", ""),
            "server_analysis": own.get("analysis") or "",
            "outcome": own.get("outcome"),
            "ran": own.get("ran"),
            "queued": len(self.queue),
            "name": file_of(own),
            "order": None,
            "analyser": own.get("analyser"),
            "analysed_by": said_by(own.get("by")),
            "no_analysis": self.why() if self.unoffered is not None else own.get("no_analysis"),
        }

    def why(self) -> str:
        return f"no analyst offers {self.command()['analyser']}"

    def tell_status(self) -> None:
        kept = self.seq > 0 and not self.forgotten
        self.told.append(Told("status", self.status(), retain=kept))

    def tell_result(self, id: str, *, needed: bool = True) -> None:
        one = self.commands[id]
        fields = {
            "id": id,
            "state": self.state if id == self.id else 0,
            "queued": self.queue.index(id) + 1 if id in self.queue else 0,
            **{key: one[key] for key in ("number", "outcome", "ran", "late", "orphan", "journal")},
            "server_analysis": one["analysis"] or "",
            "name": file_of(one),
            "analysed_by": said_by(one["by"]),
            "no_analysis": one["no_analysis"],
        }
        self.told.append(Told("result", fields, needed, whole=copy.deepcopy(one)))

    def answer(self, id: str | None, result: bool = True, needed: bool = True) -> None:
        """The status, and the end of another command than the record's own."""
        self.tell_status()
        if result and id in self.commands and id != self.id:
            assert id is not None
            self.tell_result(id, needed=needed)

    def tell_due(self) -> None:
        """What follows from the record alone: at a connect, and when a state is entered."""
        if self.seq and not self.forgotten:
            self.tell_status()
        if self.state == 1 and not self.over(self.id):
            fields = {"id": self.id, "name": file_of(self.command()), "expires_at": self.ends()}
            self.told.append(Told("envelope", fields | {"grace": self.command()["grace"]}))
        if self.state == 3 and self.command()["analyser"] == "outcome":
            self.to_analyse.append(self.id)

    def refuse(self, said: Said, code: str) -> None:
        """Refused, and answered all the same where it names an id."""
        self.refused.append((code, said.id))
        self.told.append(Told("error", {"error": code, "id": said.id, "state": self.state}))
        if said.id is not None:
            asks = said.kind in ("request", "cancel", "reset", "analysis", "query")
            self.answer(said.id, needed=asks)

    # -- what changes -------------------------------------------------------------------------

    def change(self, verb: str, before: int, id: str, late: bool = False) -> None:
        self.seq += 1
        self.forgotten = False
        self.saved, self.wall = self.now
        self.log.append((self.seq, verb, before, self.state, id, late))

    def move(self, verb: str, due: float | None = None) -> None:
        before, self.state = self.state, TABLE[verb][self.state]
        self.due, self.unoffered = due, None
        if self.state == 3 and verb != "restore" and not self.is_offered():
            self.unoffered = self.now[0] + ALONE_S
        self.deadline = self.ends()
        self.cancelling = self.cancelling and self.state == 2
        self.verb = "hw_command_request" if verb == "next" else verb
        if self.id:
            self.dirty.add(self.id)
            if verb in ("cancel", "reset"):
                self.command()["accepted"].add(verb)
        self.change(verb, before, self.id)
        if verb == "hw_response_provide":
            self.spend(min(self.room(), 0.0) - ANSWER)  # what is beyond the allowance, too
        if self.state == before:
            self.tell_status()
        else:
            self.tell_due()

    def is_offered(self) -> bool:
        """Whether nobody need offer the command's analyser, or somebody does."""
        analyser = self.command()["analyser"]
        offered = frozenset[str]().union(*self.offers.values())
        return analyser in ("manual", "outcome") or analyser in offered

    def look_at_offers(self) -> bool:
        """Whether its time without anybody begins, or is over."""
        if self.state != 3 or self.is_offered() is (self.unoffered is None):
            return False
        self.unoffered = None if self.is_offered() else self.now[0] + ALONE_S
        return True

    def ends(self) -> float | None:
        """The time of day at which the state ends, seen from now."""
        dues = [one for one in (self.due, self.unoffered) if one is not None]
        ends: list[float | None] = [self.now[1] + one - self.now[0] for one in dues]
        ends += [self.command()["expires_at"]] if self.state == 1 else []
        return min((at for at in ends if at is not None), default=None)

    # -- what leads to nothing ------------------------------------------------------------------

    def spent(self) -> float:
        passed = max(self.now[1] - self.idle_at, 0.0)
        if self.now[1] < self.idle_at - 86_400.0:
            return 0.0
        return max(self.idle - passed * A_SECOND, 0.0)

    def room(self) -> float:
        return self.most - self.spent()

    def spend(self, bytes: float) -> None:
        self.idle = max(self.spent() + bytes, 0.0)
        self.idle_at = self.now[1]

    def beyond(self) -> float:
        return min(A_SECOND * WAIT, self.most)

    def texts(self, id: str) -> int:
        return len(self.commands[id]["program"]) + len("[]") + len("{}")

    def spend_command(self, id: str, queued: bool = False) -> None:
        """It ended, and nobody had answered it."""
        texts = self.texts(id) * (1 if queued or self.taken is not None else 3)
        self.spend(max(min(3 * ROW + texts, self.room() + self.beyond()), 0.0))

    def rest(self) -> None:
        """Whoever waits is next, as soon as the record is at rest."""
        while self.state == 0 and self.queue and self.over(self.queue[0]):
            id = self.queue.pop(0)
            self.commands[id].update(outcome="expired", ran="no")
            self.spend_command(id, queued=True)
            self.dirty.add(id)
            self.change("expire", 0, id)
            self.answer(id)
        if self.state == 0 and self.queue:
            self.id = self.queue.pop(0)
            self.taken = self.now[0]
            self.move("next", self.expires())

    def expires(self) -> float | None:
        seconds = self.command()["expires"]
        return self.now[0] + seconds if seconds else None

    def over(self, id: str) -> bool:
        """Whether the time of day has come from which on nobody may collect it."""
        expires_at = self.commands[id]["expires_at"]
        return expires_at is not None and bool(expires_at <= self.now[1])

    def end(self, outcome: str, ran: str) -> None:
        self.command().update(outcome=outcome, ran=ran)
        self.spend_command(self.id)

    def late(self, verb: str, id: str, first: bool = False) -> None:
        """A row of its own, where there is room for it or nobody had said this before."""
        self.dirty.add(id)
        if first or self.room() >= ROW:
            self.spend(ROW)
            self.change(verb, self.state, id, True)
        else:
            self.saved = self.now[0]

    def settle(self, id: str, journal: str) -> None:
        self.settled = [pair for pair in self.settled if pair != (id, journal)]
        self.settled = [*self.settled, (id, journal)][-SETTLED:]


def said_by(by: tuple[str, str] | None) -> dict[str, str | None] | None:
    return None if by is None else {"name": by[0], "version": by[1], "fault": None}


def file_of(one: dict[str, Any]) -> str:
    """What its program is run as; nobody knows of an orphan, and nothing runs before the first."""
    return (one["name"] or "program.py") if one and not one["orphan"] else ""


def new_command(args: dict[str, Any], number: int) -> dict[str, Any]:
    """A command of which nothing but its request is known."""
    empty = {"program": "", "timeout": 10.0, "expires": 300.0, "grace": 30.0, "analyser": "manual",
             "name": None, "expires_at": None}  # fmt: skip
    return {
        **{key: args.get(key, default) for key, default in empty.items()},
        "number": number, "journal": None, "boot": None, "outcome": None, "ran": None,
        "response": "", "analysis": None, "answered_by": None, "heard": set(), "accepted": set(),
        "late_collected": None, "late": False, "orphan": False,
        "by": None, "regrades": {}, "no_analysis": None,
    }  # fmt: skip
