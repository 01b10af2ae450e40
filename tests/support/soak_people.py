"""Who asks in a soak: an operator with ids for each user, and a person without; what they saw.

The law: an operator repeats whatever names an id until it is answered, and believes nothing else. A
person types a line once, and nothing is promised of it. Everything sent and heard is recorded as
the checker wants it, on the machine's monotonic clock, which the programs read too.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import DEFAULT_ROOT, TopicKind, Topics
from hwsync.protocol.wire.asking import encode_id, encode_reset
from hwsync.protocol.wire.request import encode_request
from hwsync.protocol.wire.schema import read_object
from hwsync.testing.history import Answered, Asked, Json, Said, Seen
from hwsync.transport import Delivery, Signal, Subscription
from tests.support.threaded import Transport

TIMES: Final = {"timeout": (1.0, 2.0), "grace": (1.0, 2.0), "expires": (20.0, 30.0)}
LAST_TIMES: Final = {"timeout": 20, "grace": 20, "expires": 60}  # of the last: nothing hurries it
SLEEP_S: Final = (0.0, 0.4)  # of a program
REPEAT_S: Final = 0.5  # the first pause of an operator's repetition, then doubling
REPEAT_MAX_S: Final = 2.0
LISTEN_S: Final = 0.1
AT_ONCE: Final = 20  # questions under way when everything is asked for once more
NEXT_S: Final = (0.0, 0.3)  # from a command's end to the next request
REST_SHARE: Final = 0.06  # of the ends are followed by a rest, in which a person may get a word in
REST_S: Final = (1.0, 4.0)
DEAF_S: Final = 1.0  # without a connection: a fresh one begins without the old one's backoff
QUEUE_SHARE, QUEUED = 0.2, 3  # so many requests at once, the later ones queued
CANCEL_SHARE, RESET_SHARE, EARLIER_SHARE = 0.15, 0.03, 0.05
CHANGE_S: Final = (0.0, 1.0)  # from the request to its cancel or reset
BY_HAND_S: Final = (0.5, 4.0)  # between two lines of the person
TYPED: Final = {
    TopicKind.REQUEST: 6,
    TopicKind.CANCEL: 2,
    TopicKind.QUERY: 2,
    TopicKind.RESPONSE: 1,
}  # so often
TYPED_S: Final = 5.0  # mosquitto_pub waits no longer for the broker

LINE: Final = "=" * 99 + "\n"
LARGE_LINES: Final = 2_400  # below what a device keeps, and above what a small broker takes
LARGE_EACH: Final = 5  # every so many-eth program prints them

PROGRAM = """import os, time
witness = os.open({witness!r}, os.O_WRONLY | os.O_APPEND)
def say(word):
    os.write(witness, f"{{word}} {tag} {{os.getpid()}} {{time.monotonic()}}\\n".encode())
say("began")
time.sleep({sleep:.3f})
print("{tag} was here", flush=True)
print({line!r} * {lines}, end="")
say("ended")
"""


class Programs:
    """Every program that was sent: whose it is and what it prints.

    ``tag`` is in its text and its output; it is the id too, unless it was sent ``by_hand``.
    """

    def __init__(self, witness: str, *, large: bool = False) -> None:
        self._witness = witness
        self._large = large  # whether some print more than a broker may take at once
        self.text: dict[str, str] = {}  # by tag
        self.user: dict[str, str] = {}  # by tag
        self.by_hand: set[str] = set()
        self._printed: dict[str, str] = {}  # by text

    def make(self, tag: str, user: str, sleep: float, *, by_hand: bool = False) -> str:
        lines = LARGE_LINES if self._large and len(self.text) % LARGE_EACH == 0 else 0
        program = PROGRAM.format(
            witness=self._witness, tag=tag, sleep=sleep, line=LINE, lines=lines
        )
        self.text[tag], self.user[tag] = program, user
        self._printed[program] = f"{tag} was here\n" + LINE * lines
        if by_hand:
            self.by_hand.add(tag)
        return program

    def output(self, program: str) -> str:
        return self._printed.get(program, "")


@dataclass(slots=True)
class _Ask:
    """A request under way; times are monotonic seconds."""

    program: str
    payload: bytes
    due: float = 0.0
    pause: float = REPEAT_S
    change_at: float | None = None  # a cancel or a reset, once
    change: TopicKind = TopicKind.CANCEL
    acknowledged: bool = False


class Asker(threading.Thread):
    """The operator of one user, in a thread; ``finish`` ends it when everything is answered."""

    def __init__(self, user: str, url: str, programs: Programs, seed: int) -> None:
        super().__init__(name=f"operator of {user}", daemon=True)
        self.user = user
        self.history: list[Seen] = []
        self.error = ""
        self.asked = 0
        self.acknowledged: set[str] = set()
        self.ended: dict[str, str] = {}  # outcome by id, as told last
        self._programs, self._url = programs, BrokerUrl.parse(url)
        self._dice = random.Random(f"{user} of {seed}")
        self._topics = Topics(DEFAULT_ROOT)
        self._open: dict[str, _Ask] = {}
        self._again: list[str] = []
        self._next = 0.0
        self._finishing, self._leaving = threading.Event(), threading.Event()
        self._connect()

    @property
    def unanswered(self) -> list[str]:
        """The ids whose end is not known yet."""
        return [*self._open, *self._again]

    def waits(self, commands: Mapping[tuple[str, str], Json]) -> list[str]:
        """Whose end it waits for, beside what is recorded of it, one a line."""
        lines = []
        for id in self.unanswered:
            known = commands.get((self.user, id))
            said = f"state {known['state']}, {known['outcome']}" if known else "unknown"
            lines.append(f"{self.name} waits for the end of {id}, which is {said}")
        return lines

    def finish(self) -> None:
        """Ask nothing new; what is open is asked for until it ends."""
        self._finishing.set()

    def leave(self) -> None:
        """End the thread and its connection."""
        self._leaving.set()
        if self.ident is not None:
            self.join()
        self._transport.stop(0.0)

    def ask_last(self) -> str:
        """One more request, which must end as ``ok``; its id."""
        id = f"{self.user}-last"
        keys = {**LAST_TIMES, "analysis": "outcome", "queue": True}
        self._add(id, keys)
        return id

    def ask_again(self) -> None:
        """How every acknowledged request has ended, which is to be answered for ever."""
        self._again = sorted(self.acknowledged)

    # -- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        try:
            while not self._leaving.is_set():
                self._listen()
                self._mend()
                now = time.monotonic()
                if not self._open and now >= self._next and not self._finishing.is_set():
                    self._ask()
                while self._again and len(self._open) < AT_ONCE:
                    self._open[self._again.pop()] = _Ask("", b"", acknowledged=True)
                for id, ask in list(self._open.items()):
                    self._repeat(id, ask, now)
        except Exception:
            self.error = traceback.format_exc()

    def _connect(self) -> None:
        self._inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._deaf_since: float | None = None
        user = self.user
        self._transport = Transport(
            self._url,
            f"soak-{user}-{os.getpid()}",
            on_signal=self._inbox.put,
            subscriptions=[
                Subscription(self._topics.of(user, TopicKind.STATUS)),
                Subscription(self._topics.of(user, TopicKind.ERROR)),
                Subscription(self._topics.result(user, "+")),
            ],
        )
        self._transport.start()

    def _mend(self) -> None:
        now = time.monotonic()
        if self._transport.connected:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = now
        elif now - self._deaf_since > DEAF_S:
            self._transport.stop(0.0)
            self._connect()

    def _ask(self) -> None:
        queued = self._dice.random() < QUEUE_SHARE
        for _ in range(QUEUED if queued else 1):
            self.asked += 1
            keys: dict[str, object] = {
                name: round(self._dice.uniform(*limits), 2) for name, limits in TIMES.items()
            }
            self._add(
                f"{self.user}-{self.asked}",
                {**keys, "analysis": "outcome", **({"queue": True} if queued else {})},
                change=self._change(),
            )
        if self.acknowledged and self._dice.random() < EARLIER_SHARE:
            earlier = self._dice.choice(sorted(self.acknowledged))
            self._say(TopicKind.QUERY, encode_id(earlier), earlier)

    def _change(self) -> TopicKind | None:
        drawn = self._dice.random()
        if drawn < RESET_SHARE:
            return TopicKind.RESET
        return TopicKind.CANCEL if drawn < RESET_SHARE + CANCEL_SHARE else None

    def _add(self, id: str, keys: dict[str, object], change: TopicKind | None = None) -> None:
        program = self._programs.make(id, self.user, self._dice.uniform(*SLEEP_S))
        ask = _Ask(program, encode_request(program, id=id, **keys))
        if change is not None:
            ask.change, ask.change_at = change, time.monotonic() + self._dice.uniform(*CHANGE_S)
        self._open[id] = ask

    def _repeat(self, id: str, ask: _Ask, now: float) -> None:
        if ask.change_at is not None and now >= ask.change_at:
            ask.change_at = None
            empties = ask.change is TopicKind.RESET and self._dice.random() < 0.3
            self._say(ask.change, encode_reset(id, queue=empties), id)
        if now < ask.due:
            return
        if ask.acknowledged:
            self._say(TopicKind.QUERY, encode_id(id), id)
        else:
            self._say(TopicKind.REQUEST, ask.payload, id, ask.program)
        ask.due = now + ask.pause
        ask.pause = min(2 * ask.pause, REPEAT_MAX_S)

    def _say(self, kind: TopicKind, payload: bytes, id: str, program: str = "") -> None:
        at = time.monotonic()
        if self._transport.publish(self._topics.of(self.user, kind), payload):
            self.history.append(Asked(at, self.name, self.user, str(kind), id, program))

    # -- what is heard ------------------------------------------------------------------------

    def _listen(self) -> None:
        limit = time.monotonic() + LISTEN_S
        while (left := limit - time.monotonic()) > 0:
            try:
                came = self._inbox.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(came, Delivery):
                self._transport.acknowledge(came)
                self._hear(came)

    def _hear(self, came: Delivery) -> None:
        user, kind = self._topics.split(came.topic)
        fields = read_object(came.payload) or {}
        # amqtt also sends what others have subscribed to.
        if user != self.user or kind not in (TopicKind.STATUS, TopicKind.RESULT, TopicKind.ERROR):
            return
        at, id = time.monotonic(), fields.get("id")
        if kind is not TopicKind.ERROR and "outcome" in fields:
            self.history.append(Said(at, user, str(kind), fields))
        if id not in self._programs.text or self._programs.user[id] != user:
            return  # a person's
        self.history.append(Answered(at, self.name, user, id, fields))
        if kind is TopicKind.ERROR:
            return
        self.acknowledged.add(id)
        ask = self._open.get(id)
        if ask is None:
            return
        if not ask.acknowledged:
            ask.acknowledged, ask.pause = True, REPEAT_S
            ask.due = at + ask.pause
        if fields["outcome"] is not None and fields["state"] == 0:
            self.ended[id] = fields["outcome"]
            del self._open[id]
            rests = self._dice.random() < REST_SHARE
            self._next = at + self._dice.uniform(*(REST_S if rests else NEXT_S))


class Person:
    """Types ``mosquitto_pub -q 1`` lines without an id, now and then; looks at no answer.

    Now and then a result of a command that nobody knows, too: an orphan.
    """

    def __init__(self, command: str, port: int, users: list[str], programs: Programs,
                 seed: int) -> None:  # fmt: skip
        self.history: list[Seen] = []
        self.typed = 0
        self._command, self._port, self._users, self._programs = command, port, users, programs
        self._dice = random.Random(f"the person of {seed}")
        self._next = time.monotonic() + self._dice.uniform(*BY_HAND_S)
        self._lines: list[tuple[float, subprocess.Popen[bytes]]] = []

    def step(self) -> None:
        """Type the next line when it is time; give up those that no broker takes."""
        now = time.monotonic()
        self._give_up(now - TYPED_S)
        if now < self._next:
            return
        self._next = now + self._dice.uniform(*BY_HAND_S)
        user = self._dice.choice(self._users)
        kind = self._dice.choices(list(TYPED), list(TYPED.values()))[0]
        program = payload = ""
        self.typed += 1
        if kind is TopicKind.REQUEST:
            sleep = self._dice.uniform(*SLEEP_S)
            tag = f"{user}-hand-{self.typed}"
            program = payload = self._programs.make(tag, user, sleep, by_hand=True)
            if self._dice.random() < 0.5:
                keys = {name: limits[1] for name, limits in TIMES.items()}
                payload = encode_request(program, **keys).decode()
        if kind is TopicKind.RESPONSE:
            orphan = {"id": f"{user}-orphan-{self.typed}", "journal": "nobody", "boot": 1}
            payload = dumps(orphan | {"outcome": "interrupted"})
        else:
            self.history.append(Asked(now, "person", user, str(kind), None, program))
        topic = f"{DEFAULT_ROOT}/{user}/{kind}"
        options = ["-q", "1", "-h", "127.0.0.1", "-p", str(self._port), "-t", topic, "-m", payload]
        process = subprocess.Popen(
            [self._command, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._lines.append((now, process))

    def leave(self) -> None:
        """End what is still being typed."""
        self._give_up(time.monotonic())

    def _give_up(self, before: float) -> None:
        for began, process in list(self._lines):
            if process.poll() is None and began <= before:
                process.send_signal(signal.SIGKILL)
                process.wait()
            if process.poll() is not None:
                self._lines.remove((began, process))
