"""Hostile payloads on all topics of a real lab, and what must be true of it afterwards.

The law: whatever comes, the coordinator and the device live, what cannot be read is counted as
refused, the database is what hwsync wrote, the record that is published is the one that is stored,
and the next cycle is a normal one.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.logs import escape
from hwsync.protocol.errors import HwsyncError, Refused
from hwsync.protocol.events import Message
from hwsync.protocol.topics import INBOUND, TopicKind, Topics
from hwsync.protocol.wire import messages
from hwsync.protocol.wire.status import read_status
from hwsync.store.checking import check
from hwsync.store.store import Store
from hwsync.transport import Subscribed
from tests.support.fuzz_payloads import Mutator
from tests.support.fuzz_run import resident
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.threaded import Transport
from tests.support.waiting import PATIENCE

FLUSH_EVERY: Final = 250  # messages
FLUSH_S: Final = 60.0
END_S: Final = 60.0  # until what was sent is decided, and for the normal cycle
GROWTH: Final = 24 * 2**20  # bytes of one process, from the second quarter to the last
LARGEST: Final = 100 * 2**20  # bytes of one process; a coordinator is level at about 65 MiB
TOPICS: Final = Topics()


@dataclass(slots=True)
class Storm:
    """What was sent, and what it came to."""

    seed: int
    sent: int = 0
    left_out: int = 0  # what the broker, or the transport, would not take
    unreadable: int = 0  # of those that were sent: the coordinator must refuse them
    refused: int = 0  # as its database counts
    seconds: float = 0.0
    memory: dict[str, list[int]] = field(default_factory=dict)  # bytes after each quarter

    @property
    def growth(self) -> int:
        """Bytes of the process that grew most, from the second quarter to the last."""
        return max(one[-1] - one[1] for one in self.memory.values())


def rage(
    lab: Lab,
    watcher: Watcher,
    seed: int,
    count: int,
    tell: Callable[[int], None] = lambda done: None,
) -> Storm:
    """Send them, and see that everything is true. ``watcher``: of ``hw/pi1/#``."""
    storm, began = Storm(seed), time.monotonic()
    parts = {name: lab.processes[name] for name in ("coordinator", "device")}
    storm.memory = {name: [] for name in parts}
    with _sender(lab.url) as sender:
        for number in range(count):
            _send(sender, storm, number)
            if number % FLUSH_EVERY == FLUSH_EVERY - 1:
                assert sender.flush(FLUSH_S), f"seed {seed}: not taken by number {number}"
                _all_live(parts, seed)
                tell(number)
            if (number + 1) % (count // 4) == 0:
                for name, part in parts.items():
                    storm.memory[name].append(resident(part.pid))
        assert sender.flush(FLUSH_S)
    _settle(lab, watcher)
    _normal_cycle(lab, watcher)
    _all_live(parts, seed)
    _is_true(lab, watcher, storm, parts)
    storm.seconds = time.monotonic() - began
    return storm


@contextlib.contextmanager
def _sender(url: str) -> Iterator[Transport]:
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    sender = Transport(
        BrokerUrl.parse(url), "hostile", on_signal=inbox.put, subscriptions=[], takeover_hint=""
    )
    sender.start()
    while not isinstance(inbox.get(timeout=PATIENCE), Subscribed):
        pass
    yield sender
    sender.stop()


def _send(sender: Transport, storm: Storm, number: int) -> None:
    """On the topic of its kind, on any other, or on a hostile one."""
    mutator = Mutator(storm.seed)
    kind, payload = mutator.at(number)
    topic = f"hw/pi{1 + number % 3 // 2}/{kind}" if number % 4 else mutator.topic(number)
    if kind is TopicKind.RESULT and number % 4:
        topic += "/c1"
    if number % 7 == 0:
        topic = f"hw/pi1/{list(TopicKind)[number // 7 % len(TopicKind)]}"
    # mosquitto ends the connection that names such a topic.
    odd = escape(topic) != topic or set(topic) & set("+#\0") or topic.startswith("$") or not topic
    # A sound status can only be forged: it is the coordinator's to write, and what a device obeys.
    forged = topic.endswith("/status") and read_status(payload) is not None
    if odd or forged:
        storm.left_out += 1
        return
    retain = number % 50 == 0 and not topic.endswith(("status", "heartbeat", "health"))
    try:
        assert sender.publish(topic, payload, retain=retain)
    except HwsyncError:
        storm.left_out += 1
        return
    storm.sent += 1
    user, kind_of = TOPICS.split(topic)
    if kind_of in INBOUND and user != "@hwsync":
        try:
            messages.read(Message(topic, payload, retain=False), TOPICS)
        except Refused:
            storm.unreadable += 1


def _all_live(parts: dict[str, Process], seed: int) -> None:
    for part in parts.values():
        assert part.running, f"seed {seed}\n{part.account()}"


def _settle(lab: Lab, watcher: Watcher) -> None:
    """All that waits is decided: a question behind it is answered."""
    lab.pub("reset", '{"queue":true}')
    mark = watcher.mark()
    lab.pub("query", '{"id":"behind-all"}')
    watcher.wait_for(
        lambda message: isinstance(message.json, dict) and message.json.get("id") == "behind-all",
        END_S, "an answer behind all that was sent", topic="hw/pi1/error", after=mark,
    )  # fmt: skip


def _normal_cycle(lab: Lab, watcher: Watcher) -> None:
    # What was cancelled may still be ending on the device.
    lab.pub("reset")
    request = '{"program":"print(6*7)","id":"normal","analysis":"outcome","timeout":60}'
    lab.pub("request", request)
    end = watcher.wait_for_status(
        "pi1", lambda status: status.get("id") == "normal" and status.get("state") == 0, END_S
    )
    assert (end["hw_response"], end["outcome"], end["ran"]) == ("42\n", "ok", "yes")


def _is_true(lab: Lab, watcher: Watcher, storm: Storm, parts: dict[str, Process]) -> None:
    published = watcher.statuses("pi1")[-1]
    parts["coordinator"].terminate()
    assert parts["coordinator"].wait() == 0
    for part in parts.values():
        for trouble in ("Traceback", "this is a bug", "hwsync failed"):
            assert trouble not in part.stderr, part.account()
    assert list(check(lab.db)) == []
    store = Store(lab.db)
    try:
        record = store.load(0.0)["pi1"]
        wanted = (record.epoch, record.seq, int(record.state), record.id)
        assert tuple(published[name] for name in ("epoch", "seq", "state", "id")) == wanted
        storm.refused = sum(store._ends.refused.values())
    finally:
        store.close()
    # It refuses more: what can be read, and does not fit the record.
    assert storm.refused >= storm.unreadable
