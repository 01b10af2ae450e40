"""One board for the tests of the device: an agent on a real journal, everything else faked.

The clock stands still until a test moves it. What the disk refuses, SQLite itself refuses.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from hwsync.device.agent import Agent
from hwsync.device.instants import LabClock
from hwsync.device.journal import Journal, Stage
from hwsync.device.trust import Trust
from hwsync.protocol.device.clock import Estimate
from hwsync.protocol.topics import Topics
from hwsync.runner import Group, Instant, Job, RunEnd

GROUP = Group(4711, 99, "this-boot")
END = RunEnd("ok", "", "42\n", "warned", 0, 0.5, 1_700_000_000.0, False, "a1", "b2")
CANCELLED = replace(END, outcome="cancelled", reason="cancelled while it ran", exit_code=None)
NEVER_BEGAN = replace(CANCELLED, reason="cancelled before it began", response="", began=False)


@dataclass(frozen=True, slots=True)
class Sent:
    """One publish."""

    at: float  # seconds, monotonic
    kind: str
    fields: dict[str, Any]
    qos: int
    retain: bool
    user: str = "u"


class NoLabClock:
    """Of a device that asks nobody."""

    life = ""
    newest: int | None = None
    seen: tuple[int, int] | None = None
    in_burst = False
    asleep_us = 0

    def estimate(self) -> Estimate | None:
        return None

    def presence(self) -> dict[str, Any] | None:
        return None

    def announced(self, *, together: bool) -> None:
        pass

    def awaits(self, instant: int | None) -> None:
        pass

    def connected(self) -> None:
        pass

    def disconnected(self) -> None:
        pass

    def tick(self) -> float | None:
        return None

    def heard(self, payload: bytes, read_us: int) -> bool:
        return False


class World:
    """What the agent finds outside: it keeps what was done, and does nothing."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "journal.db"
        self.time = 1_000.0
        self.dice = 0.0
        self.sent: list[Sent] = []
        self.jobs: list[tuple[str, Job]] = []
        self.stops = 0
        self.timed: list[str] = []  # what was asked for of a run that is prepared
        self.instants: list[Instant] = []  # as it was said
        self.all_acknowledged = True
        self.users = {"u"}  # under whose names something may be published
        self.leftovers: list[tuple[Group, str]] = []  # and what the file said of the command then

    def under_way(self, topic: str) -> bool:
        return not self.all_acknowledged

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        root, user, kind = topic.split("/")
        assert root == "hw"
        assert user in self.users
        self.sent.append(Sent(self.time, kind, json.loads(payload), qos, retain, user))
        return True

    def start_run(self, job: Job, id: str) -> None:
        self.jobs.append((id, job))

    def stop_run(self) -> None:
        self.stops += 1

    def prepare_run(self, job: Job, id: str) -> None:
        self.timed.append(f"prepare {id}")
        self.jobs.append((id, job))

    def drop_run(self) -> None:
        self.timed.append("drop")

    def arm_run(self, instant: Instant) -> None:
        self.timed.append("arm")
        self.instants.append(instant)

    def aim_run(self, instant: Instant) -> None:
        self.instants.append(instant)

    def disarm_run(self) -> None:
        self.timed.append("disarm")

    def refusal(self) -> str:
        return ""

    def ran_on(self) -> dict[str, object]:
        return {"board": "a test's"}

    def presence(self) -> dict[str, object]:
        return {"board": "a test's"}

    def end_leftovers(self, group: Group) -> int:
        assert self.sent == [], "something was published before the leftovers were ended"
        self.leftovers.append((group, self.stored("a")))
        return 2

    def wall(self) -> float:
        return self.time + 1_700_000_000.0

    def raw_us(self) -> int:
        return round(self.time * 1e6)

    def asleep_us(self) -> int:
        return 0

    def is_slewed(self) -> bool:
        return False

    def monotonic(self) -> float:
        return self.time

    def random(self) -> float:
        return self.dice

    def stored(self, id: str) -> str:
        """What another process would read of that command; empty where it is not known."""
        with closing(sqlite3.connect(self.file)) as db:
            row = db.execute("select state from entries where id = ?", (id,)).fetchone()
        return row[0] if row else ""


class Board:
    """The user ``u``; unless a test says otherwise, everything is about the command ``a``."""

    journal: Journal

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin()

    def begin(
        self,
        *,
        max_timeout: float | None = None,
        trust: Trust | None = None,
        user: str = "u",
        clock: LabClock | None = None,
    ) -> None:
        """A new life on the same journal, as after a kill: nothing but the file is left."""
        self.user = user
        if hasattr(self, "journal"):
            self.journal.close()
        self.world = World(self.folder)
        self.world.users = {user}
        self.journal = Journal(self.folder, machine="m")
        self.agent = Agent(user, Topics(), self.journal, self.world, max_timeout=max_timeout,
                           trust=trust, clock=clock or NoLabClock())  # fmt: skip

    def hear(self, kind: str, payload: bytes, user: str = "") -> list[str]:
        """What was stored of ``a`` at each acknowledgement: empty when there was none."""
        acknowledged: list[str] = []
        topic = f"hw/{user or self.user}/{kind}"
        self.agent.received(topic, payload, lambda: acknowledged.append(self.world.stored("a")))
        return acknowledged

    def envelope(self, id: str = "a", seq: int = 1, **changes: object) -> list[str]:
        return self.hear("command", json.dumps(envelope(id=id, seq=seq, **changes)).encode())

    def status(
        self, seq: int, state: int, id: str = "a", *, of: str = "", **changes: object
    ) -> list[str]:
        """By default the grant is this life's, where the state has one."""
        said = {
            "id": id, "state": state, "epoch": 0, "seq": seq, "start_at": None, "settled": [],
            "journal": self.journal.name if state > 1 else None,
            "boot": self.journal.boot if state > 1 else None, "cancelling": False,
        }  # fmt: skip
        return self.hear("status", json.dumps(said | changes).encode(), of)

    def grant(self, id: str = "a", seq: int = 2) -> None:
        self.envelope(id, seq - 1)
        self.status(seq, 2, id)

    def run(self, id: str = "a", seq: int = 2) -> None:
        """The program has begun."""
        self.grant(id, seq)
        self.agent.run_started(GROUP)

    def settle(self, seq: int, id: str = "a", journal: str | None = None) -> None:
        self.status(seq, 3, id, settled=[[id, journal or self.journal.name]])

    def pass_time(self, seconds: float) -> None:
        """Tick when the agent asked for it."""
        end = self.world.time + seconds
        while (at := self.world.time + self.agent.tick()) <= end:
            self.world.time = at
        self.world.time = end

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [sent.fields for sent in self.world.sent if sent.kind == kind]

    def told(self) -> list[tuple[str, str, str]]:
        """(id, outcome, ran) of each result."""
        return [(said["id"], said["outcome"], said["ran"]) for said in self.said("response")]

    def pauses(self, kind: str, seconds: float) -> list[float]:
        """Between each two publishes, from the last one so far on."""
        before = [sent for sent in self.world.sent if sent.kind == kind][-1:]
        self.world.sent = before
        self.pass_time(seconds)
        times = [sent.at for sent in self.world.sent if sent.kind == kind]
        return [later - at for at, later in pairwise(times)]

    def ran(self) -> list[str]:
        return [id for id, _ in self.world.jobs]

    def stage(self, id: str = "a") -> Stage | None:
        entry = self.journal.get(id)
        return entry.stage if entry else None

    @contextmanager
    def full_disk(self, *stages: Stage) -> Iterator[None]:
        """SQLite refuses each entry that would come to one of those stages."""
        among = ", ".join(f"'{stage}'" for stage in stages)
        with closing(sqlite3.connect(self.world.file)) as db:
            for verb in ("insert", "update"):
                db.execute(
                    f"create trigger full_{verb} before {verb} on entries when new.state in "
                    f"({among}) begin select raise(abort, 'database or disk is full'); end"
                )
            yield
            for verb in ("insert", "update"):
                db.execute(f"drop trigger full_{verb}")


def envelope(**changes: object) -> dict[str, object]:
    """The fields of a good one."""
    return {
        "v": 1, "id": "a", "user": "u", "epoch": 0, "seq": 1, "program": "print(6*7)",
        "timeout": 5, "stdin": "in", "args": ["x", "y"], "issued": 1.0, "expires_at": None,
        "start": None,
    } | changes  # fmt: skip
