"""A lab on one broker whose coordinator and device each have a proxy before them, and a witness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsync.store.reader import Reader
from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.proxy import PUBACK, PUBLISH, TO_BROKER, TO_CLIENT, Packet, Proxy, Rule
from tests.support.waiting import START_PATIENCE, wait_until

# Says that it runs, waits (half a minute at most) for the test to open the gate, says that it ends.
WAITING = """
import os, time
def say(word):
    with open({witness!r}, "a") as file:
        file.write(word + "\\n")
say("begun")
for _ in range(3_000):
    if os.path.exists({gate!r}):
        break
    time.sleep(0.01)
say("ended")
print(6*7)
"""


def result(id: str, journal: str = "j1", **keys: object) -> str:
    """A result as a device sends it: exit code 0, unless ``keys`` say otherwise."""
    said = {"id": id, "journal": journal, "boot": 1, "outcome": "ok", "exit_code": 0, **keys}
    return json.dumps(said)


def collected(id: str, journal: str = "j1", boot: int = 1) -> str:
    """A device's message that it has a command and has not started it."""
    return json.dumps({"id": id, "journal": journal, "boot": boot})


def said(packet: Packet) -> dict[str, Any]:
    """The JSON object of a PUBLISH; empty where there is none."""
    start = packet.body.find(b"{")
    try:
        fields = json.loads(packet.body[start:]) if start >= 0 else {}
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


class FaultyLab(Lab):
    """mosquitto; ``proxy`` before the coordinator, ``board`` before the device.

    Everybody else (``pub``, the watcher) speaks to the broker itself.
    """

    def __init__(
        self,
        broker: MosquittoBroker,
        proxy: Proxy,
        board: Proxy,
        watcher: Watcher,
        start: Callable[..., Process],
        folder: Path,
    ) -> None:
        super().__init__(broker, start, folder)
        self.proxy, self.board, self.watcher = proxy, board, watcher
        self.witness, self.gate = folder / "witness", folder / "gate"
        self.witness.touch()

    def coordinator(self, *options: str, variables: dict[str, str] | None = None) -> Process:
        self.url = f"mqtt://127.0.0.1:{self.proxy.port}"
        return super().coordinator("--settle", "0", *options, variables=variables)

    def device(self, user: str = "pi1", folder: str = "device",
               variables: dict[str, str] | None = None) -> Process:  # fmt: skip
        self.url = f"mqtt://127.0.0.1:{self.board.port}"
        process = super().device(user, folder, variables)
        self.watcher.wait_for(
            lambda _: True, START_PATIENCE, "a heartbeat", topic=f"hw/{user}/heartbeat"
        )
        return process

    # -- what is asked ------------------------------------------------------------------------

    def request(self, id: str, program: str = "print(6*7)", **keys: object) -> None:
        self.pub("request", json.dumps({"id": id, "program": program, **keys}))

    def request_waiting(self, id: str, **keys: object) -> None:
        """A program that runs until the gate is opened; returns when the device runs it."""
        program = WAITING.format(witness=str(self.witness), gate=str(self.gate))
        self.request(id, program, **keys)
        wait_until(lambda: self.lines() == ["begun"], what="the program's beginning")

    def open_gate(self) -> None:
        self.gate.touch()

    def lines(self) -> list[str]:
        return self.witness.read_text().split()

    # -- what is lost -------------------------------------------------------------------------

    def lose_acknowledgements(self, count: int) -> Rule:
        """The coordinator's next PUBACKs do not arrive."""
        return self.proxy.drop(PUBACK, TO_BROKER, times=count)

    def deliver_again(self, lost: Rule) -> list[Packet]:
        """Cut the coordinator's connection after it has acknowledged in vain.

        Returns when it has acknowledged what the broker sent again, and all its answers are seen.
        """
        before = len(self.dups())
        lost.wait(lost.times)
        self.proxy.cut()

        def all_came() -> bool:
            came = self.dups()[before:]
            return len(came) >= lost.times and all(map(self.proxy.acknowledged, came))

        wait_until(all_came, what=lambda: f"{lost.times} messages again: {self.dups()}")
        self.hear_all()
        return self.dups()[before:]

    def hear_all(self) -> None:
        """Wait until the watcher has everything that the coordinator has published so far."""
        before = self.watcher.mark()
        self.pub("query", user="nobody")  # its answer comes last
        self.watcher.wait_for(lambda _: True, topic="hw/nobody/status", after=before)

    def dups(self) -> list[Packet]:
        """What the broker has sent the coordinator again."""
        return [packet for packet in self.proxy.seen(PUBLISH, TO_CLIENT) if packet.dup]

    # -- what is recorded ---------------------------------------------------------------------

    def state(self, state: int, **keys: Any) -> dict[str, Any]:
        return self.watcher.wait_for_state("pi1", state, **keys)

    def status(self, predicate: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        return self.watcher.wait_for_status("pi1", predicate)

    def last(self) -> dict[str, Any]:
        return self.watcher.statuses("pi1")[-1]

    def errors(self) -> list[dict[str, Any]]:
        return [message.json for message in self.watcher.messages("hw/pi1/error")]

    def wait_for_errors(self, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.errors()) >= count, what=f"{count} errors")
        return self.errors()

    def history(self) -> list[dict[str, Any]]:
        with Reader(self.db) as reader:
            return list(reader.history("pi1"))

    def moves(self) -> list[tuple[str, int]]:
        """Verb and state of each row of the log."""
        return [(row["command"], row["state"]) for row in self.history() if "command" in row]

    def refusals(self) -> list[str]:
        return [row["error"] for row in self.history() if "error" in row]

    def command(self, id: str) -> dict[str, Any]:
        """What ``hwsync show`` reads."""
        with Reader(self.db) as reader:
            return reader.show("pi1", id)
