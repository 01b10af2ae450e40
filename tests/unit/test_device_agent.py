"""The device's decisions, on a real journal with everything else faked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hwsync.device.agent import Agent
from hwsync.device.journal import Journal
from hwsync.protocol.topics import Topics
from hwsync.runner import Group, Job


class Fake:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.runs: list[str] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        self.sent.append((topic.rpartition("/")[2], json.loads(payload)))
        return True

    def start_run(self, job: Job, id: str) -> None:
        self.runs.append(id)

    def stop_run(self) -> None: ...
    def end_leftovers(self, group: Group) -> int:
        return 0

    def wall(self) -> float:
        return 1.0

    monotonic = random = wall


def send(agent: Agent, kind: str, **fields: Any) -> None:
    agent.received(f"hw/u/{kind}", json.dumps(fields).encode(), lambda: None)


def test_only_the_grant_starts_and_a_crash_is_interrupted(tmp_path: Path) -> None:
    journal, fake = Journal(tmp_path, machine="m"), Fake()
    agent = Agent("u", Topics(), journal, fake)
    send(agent, "command", v=1, id="a", user="u", epoch=0, seq=1, program="1", timeout=1,
         stdin="", args=[])  # fmt: skip
    status = {"id": "a", "epoch": 0, "start_at": None, "cancelling": False, "settled": []}
    send(agent, "status", **status, seq=1, state=1, journal=None, boot=None)
    assert fake.runs == []
    send(agent, "status", **status, seq=2, state=2, journal=journal.name, boot=1)
    assert fake.runs == ["a"]
    agent.run_started(Group(1, 1, "b"))
    journal.close()
    journal, fake = Journal(tmp_path, machine="m"), Fake()
    agent = Agent("u", Topics(), journal, fake)
    agent.connected()
    results = [fields for kind, fields in fake.sent if kind == "response"]
    assert [(r["outcome"], r["boot"]) for r in results] == [("interrupted", 2)]
    status["settled"] = [["a", journal.name]]
    send(agent, "status", **status, seq=3, state=3, journal=journal.name, boot=1)
    assert journal.unsettled() == []
    assert fake.runs == []
    journal.close()
