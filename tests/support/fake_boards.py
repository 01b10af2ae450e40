"""Many boards in one thread that run nothing: each says of a program what the program's text says.

    boards = FakeBoards(broker.port, ["pi1", "pi2"])
    boards.start(); ...; boards.stop()

A program is one line: ``print X``, ``fail X``, ``slow`` (until it is cancelled), ``deaf`` (it is
collected, and never answered), ``over`` (its time limit), ``reject`` (the board cannot run it),
``die`` (it lost its power meanwhile), ``file PATH X`` (a file comes back). Whatever is said is said
again until the coordinator has it, as devices do; ``ran`` counts how often each command was run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from hwsync.address import BrokerUrl
from hwsync.protocol.files import File
from hwsync.protocol.jsons import loads
from hwsync.protocol.record import Outcome, Ran, RunReport, replace
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.response import encode_collected, encode_response
from hwsync.transport import Delivery, Signal, Subscription
from tests.support.ports import LOOPBACK
from tests.support.threaded import Transport

JOURNAL: Final = "journal1"
AGAIN_S: Final = 0.5
TOPICS: Final = Topics()


class FakeBoards:
    """All of them on one connection."""

    def __init__(self, port: int, boards: Sequence[str]) -> None:
        self.ran: Counter[str] = Counter()
        self._collected: dict[tuple[str, str], str] = {}  # and not ended: the program's line
        self._ended: dict[tuple[str, str], bytes] = {}  # and not settled: the response
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        kinds = (TopicKind.ENVELOPE, TopicKind.STATUS)
        self._transport = Transport(
            BrokerUrl("mqtt", LOOPBACK, port),
            "fake-boards",
            on_signal=self._hear,
            subscriptions=[Subscription(TOPICS.of(one, kind)) for one in boards for kind in kinds],
        )
        self._again = threading.Thread(target=self._say_again, name="fake-boards", daemon=True)

    def start(self) -> None:
        self._transport.start()
        self._again.start()

    def stop(self) -> None:
        self._stopped.set()
        self._again.join()
        self._transport.stop(1.0)

    def _hear(self, signal: Signal) -> None:
        if not isinstance(signal, Delivery):
            return
        self._transport.acknowledge(signal)
        user, kind = TOPICS.split(signal.topic)
        fields = loads(signal.payload.decode()) if signal.payload.startswith(b"{") else {}
        with self._lock:
            if kind is TopicKind.ENVELOPE and "v" in fields:
                self._receive(user, fields)
            elif kind is TopicKind.STATUS and fields:
                self._look(user, fields)

    def _receive(self, user: str, envelope: dict[str, Any]) -> None:
        key = user, envelope["id"]
        if not self.ran[f"{user} {key[1]}"] and key not in self._collected:
            self._collected[key] = envelope["program"]
            self._say(user, TopicKind.COLLECTED, encode_collected(key[1], JOURNAL, 1))

    def _look(self, user: str, status: dict[str, Any]) -> None:
        for id, journal in status["settled"]:
            if journal == JOURNAL:
                self._ended.pop((user, id), None)
        for key in [key for key in self._collected if key[0] == user and key[1] != status["id"]]:
            del self._collected[key]  # it was taken back
        key = user, status["id"]
        if status["state"] == 2 and status["journal"] == JOURNAL and key in self._collected:
            if not self.ran[f"{user} {key[1]}"]:
                self.ran[f"{user} {key[1]}"] += 1
            self._run(key, status["cancelling"])
        elif status["state"] == 0:
            self._collected.pop(key, None)

    def _run(self, key: tuple[str, str], cancelling: bool) -> None:
        word, _, text = self._collected[key].partition(" ")
        report = RunReport(Outcome.OK, Ran.YES, "", f"{text}\n", exit_code=0, duration=0.01)
        if word == "fail":
            report = RunReport(Outcome.ERROR, Ran.YES, "", "", f"{text}\n", exit_code=1)
        elif word == "over":
            report = RunReport(Outcome.TIMEOUT, Ran.YES, "timeout", "so far\n", exit_code=None)
        elif word == "reject":
            report = RunReport(Outcome.REJECTED, Ran.NO, "no room on its disk")
        elif word == "die":
            report = RunReport(Outcome.INTERRUPTED, Ran.MAYBE, "the board was started anew")
        elif word == "slow" and cancelling:
            report = RunReport(Outcome.CANCELLED, Ran.YES, "cancelled", "")
        elif word == "file":
            path, _, data = text.partition(" ")
            report = replace(report, response="", files=(File.of(path, data.encode()),))
        elif word != "print":
            return
        del self._collected[key]
        user, id = key
        self._ended[key] = encode_response(id, JOURNAL, 1, report)
        self._say(user, TopicKind.RESPONSE, self._ended[key])

    def _say_again(self) -> None:
        while not self._stopped.wait(AGAIN_S):
            with self._lock:
                for user, id in self._collected:
                    if not self.ran[f"{user} {id}"]:
                        collected = encode_collected(id, JOURNAL, 1)
                        self._say(user, TopicKind.COLLECTED, collected)
                for (user, _id), response in self._ended.items():
                    self._say(user, TopicKind.RESPONSE, response)

    def _say(self, user: str, kind: TopicKind, payload: bytes) -> None:
        self._transport.publish(TOPICS.of(user, kind), payload)
