"""One request for thousands of boards: how long until it is accepted, heard and over.

The law: broker and coordinator are real processes; all boards are one client in this process, which
answers as a device does that needs no time. Asked is ``@all``, by one message.

    python benchmarks/batch.py --boards 1000,10000 --program-kb 1

Accepted is when the group's status first names the batch. Then the same batch is asked for once
more and cancelled at once: how long until no member is open. The statuses of the group are counted,
with their size and their distance in time.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.protocol.wire.response import encode_collected
from tests.support.brokers import MosquittoBroker
from tests.support.processes import Process

ALL: Final = "hw/@all"
PATIENCE_S: Final = 600.0  # for anything that should come
LOOK_S: Final = 0.5
AIM_S: Final = 5.0  # until 10,000 are accepted
PACE_S: Final = 10.0  # after a status of 1 MiB the group's next one waits for its bytes a second
QUEUED: Final = ["max_queued_messages 0"]  # the broker drops nothing that waits for this client


class Everybody:
    """All boards, and who asks them."""

    def __init__(self, port: int, boards: int) -> None:
        self.boards = [f"b{number:05}" for number in range(boards)]
        self.statuses: queue.SimpleQueue[tuple[float, int, dict[str, Any]]] = queue.SimpleQueue()
        self.answering = True
        self.ended = 0  # results that were published
        self._client = client = Client(CallbackAPIVersion.VERSION2, "hwsync-everybody")
        client.on_message = self._hear
        subscribed = queue.SimpleQueue[bool]()
        client.on_subscribe = lambda *_: subscribed.put(True)
        client.max_inflight_messages_set(100)
        client.connect("127.0.0.1", port)
        client.loop_start()
        client.subscribe([("hw/+/command", 1), ("hw/+/status", 1), (f"{ALL}/error", 1)])
        subscribed.get(timeout=PATIENCE_S)

    def appear(self) -> None:
        """Each is online, with a heartbeat."""
        for board in self.boards:
            self.publish(
                board, "heartbeat", encode_heartbeat(online=True, journal=f"j-{board}", boot=1)
            )

    def publish(self, board: str, kind: str, payload: bytes) -> None:
        self._client.publish(f"hw/{board}/{kind}", payload, 1)

    def ask(self, **keys: Any) -> str:
        id = f"batch-{time.monotonic_ns()}"
        self._client.publish(f"{ALL}/request", json.dumps({"id": id, **keys}), 1)
        return id

    def cancel(self, id: str) -> None:
        self._client.publish(f"{ALL}/cancel", json.dumps({"id": id}), 1)

    def _hear(self, _: Client, __: object, message: Any) -> None:
        board, kind = message.topic.split("/")[1:3]
        if kind == "error":
            self.statuses.put((time.monotonic(), 0, json.loads(message.payload)))
            return
        fields = json.loads(message.payload)
        if board == "@all":
            self.statuses.put((time.monotonic(), len(message.payload), fields))
        elif not self.answering or board.startswith("@"):
            return
        elif kind == "command":
            self.publish(board, "collected", encode_collected(fields["id"], f"j-{board}", 1))
        elif fields["state"] == 2:
            result = {
                "id": fields["id"], "journal": fields["journal"], "boot": 1, "outcome": "ok",
                "response": "42\n", "exit_code": 0, "duration": 0.01, "started": time.time(),
            }  # fmt: skip
            self.publish(board, "response", json.dumps(result).encode())
            self.ended += 1

    def until(self, id: str, over: bool) -> tuple[float, list[tuple[float, int, dict[str, Any]]]]:
        """When a status first named the batch, or said that it is over; and all that came."""
        heard = []
        limit = time.monotonic() + PATIENCE_S
        while True:
            if sys.stderr.isatty():
                print(f"\r{self.ended} results ", end="", file=sys.stderr)
            try:
                at, size, fields = self.statuses.get(timeout=LOOK_S)
            except queue.Empty:
                if time.monotonic() > limit:
                    raise SystemExit(f"{id}: no end; {heard[-1:]}") from None
                continue
            if "error" in fields:
                raise SystemExit(f"{id}: {fields['message']}")
            heard.append((at, size, fields))
            if fields["id"] == id and (not over or fields["state"] == "ended"):
                return at, heard

    def end(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def measure(boards: int, program_kb: int) -> dict[str, Any]:
    """Both batches; seconds."""
    folder = Path(tempfile.mkdtemp(prefix="hwsync-batch-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        broker = MosquittoBroker(folder / "broker", extra=QUEUED)
        broker.start()
        stack.callback(broker.stop)
        command = [sys.executable, "-m", "hwsync.cli", "coordinator", "--broker", broker.url,
                   "--db", str(folder / "hwsync.db"), "--settle", "1"]  # fmt: skip
        coordinator = Process(command, directory=folder, name="coordinator")
        stack.callback(coordinator.stop)
        coordinator.wait_for_log(r"\bready\b", PATIENCE_S)
        everybody = Everybody(broker.port, boards)
        stack.callback(everybody.end)
        everybody.appear()
        program = "#" * (1024 * program_kb - 1) + "\n"
        everybody.answering = False
        heard_all = everybody.ask(program=program, expires=1)  # behind all heartbeats
        everybody.until(heard_all, over=True)
        everybody.answering = True
        time.sleep(PACE_S)
        asked = time.monotonic()
        id = everybody.ask(program=program, expires=3600)
        accepted, first = everybody.until(id, over=False)
        over, heard = accepted, first[-1:]
        if heard[-1][2]["state"] != "ended":
            over, later = everybody.until(id, over=True)
            heard += later
        found = figures(boards, heard)
        found |= {"accepted_s": round(accepted - asked, 2), "over_s": round(over - asked, 2)}
        everybody.answering = False
        id = everybody.ask(program=program, expires=3600)
        everybody.until(id, over=False)
        asked = time.monotonic()
        everybody.cancel(id)
        over, _ = everybody.until(id, over=True)
        return found | {"cancelled_s": round(over - asked, 2)}


def figures(boards: int, heard: list[tuple[float, int, dict[str, Any]]]) -> dict[str, Any]:
    """Of one batch's statuses."""
    times = [at for at, _, __ in heard]
    last = heard[-1][2]
    return {
        "boards": boards,
        "counts": last["counts"],
        "statuses": len(heard),
        "largest_status": max(size for _, size, __ in heard),
        "statuses_a_second": round(len(heard) / max(times[-1] - times[0], 1.0), 2),
    }


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--boards", default="1000,10000", help="numbers [default: 1000,10000]")
    parser.add_argument("--program-kb", type=int, default=1, help="[default: 1]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for boards in (int(number) for number in options.boards.split(",")):
        found = measure(boards, options.program_kb)
        if options.json:
            print(json.dumps(found))
            continue
        print(f"{boards} boards, a program of {options.program_kb} KiB, {os.cpu_count()} cores")
        print(f"  accepted after {found['accepted_s']} s (aim for 10,000: below {AIM_S:g} s)")
        print(f"  over after {found['over_s']} s: {found['counts']}")
        print(f"  one that is cancelled once accepted: over after {found['cancelled_s']} s")
        print(
            f"  {found['statuses']} statuses of the group, {found['statuses_a_second']} a second, "
            f"the largest {found['largest_status']:,} bytes"
        )


if __name__ == "__main__":
    main()
