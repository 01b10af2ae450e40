"""Who asks in a soak: an operator with ids for each user, and a person without; what they saw.

The law: a person types a line once, and nothing is promised of it. Everything sent and heard is
recorded as the checker wants it, on the machine's monotonic clock.
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import AnalysedBy
from hwsync.protocol.topics import DEFAULT_ROOT, TopicKind
from hwsync.protocol.wire.asking import encode_analysis, encode_id
from hwsync.protocol.wire.request import encode_request
from hwsync.testing.history import Answered, Asked, Json, Said, Seen
from tests.support.soak_analysts import ANALYSER, PERSON, REGRADE_SHARE, SHARE
from tests.support.soak_asking import Ask, Asking
from tests.support.soak_programs import FILE_EACH, Programs
from tests.support.soak_starts import Instants

TIMES: Final = {"timeout": (1.0, 2.0), "grace": (1.0, 2.0), "expires": (20.0, 30.0)}
LAST_TIMES: Final = {"timeout": 20, "grace": 20, "expires": 60}  # of the last: nothing hurries it
SLEEP_S: Final = (0.0, 0.4)  # of a program
NEXT_S: Final = (0.0, 0.3)  # from a command's end to the next request
REST_SHARE: Final = 0.06  # of the ends are followed by a rest, in which a person may get a word in
REST_S: Final = (1.0, 4.0)
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


class Asker(Asking):
    """The operator of one board. ``quiet``: a teacher waits until the boards are free."""

    def __init__(
        self, user: str, url: str, programs: Programs, seed: int, quiet: threading.Event,
        instants: Instants,
    ) -> None:  # fmt: skip
        self._quiet, self._instants = quiet, instants
        self._grading = random.Random(f"analyses of {user} and {seed}")
        super().__init__(user, url, programs, seed)

    def ask_last(self) -> str:
        """One more request, which must end as ``ok``; its id."""
        id = f"{self.user}-last"
        self._add(id, {**LAST_TIMES, "analysis": ANALYSER, "queue": True}, file=True)
        return id

    def ask(self, now: float) -> None:
        if self._quiet.is_set():
            return
        queued = self.dice.random() < QUEUE_SHARE
        for _ in range(QUEUED if queued else 1):
            self.asked += 1
            keys: dict[str, object] = {
                name: round(self.dice.uniform(*limits), 2) for name, limits in TIMES.items()
            }
            self._add(
                f"{self.user}-{self.asked}",
                {**keys, "analysis": self._analyser(), **({"queue": True} if queued else {})},
                change=self._change(),
                file=self.asked % FILE_EACH == 0,
            )
        if self.acknowledged and self.dice.random() < EARLIER_SHARE:
            earlier = self.dice.choice(sorted(self.acknowledged))
            self.say(TopicKind.QUERY, encode_id(earlier), earlier)

    def _analyser(self) -> str:
        return ANALYSER if self._grading.random() < SHARE else "outcome"

    def _regrade(self, at: float, id: str) -> None:
        """Somebody has run an analyser once more; it is said once, and may be lost."""
        by = AnalysedBy(ANALYSER, f"{PERSON}-{self._grading.randint(1, 3)}")
        text = f"{id} once more, at {at:.3f}"
        self.say(TopicKind.ANALYSIS, encode_analysis(text, id, by, regrade=True), id)

    def _change(self) -> TopicKind | None:
        drawn = self.dice.random()
        if drawn < RESET_SHARE:
            return TopicKind.RESET
        return TopicKind.CANCEL if drawn < RESET_SHARE + CANCEL_SHARE else None

    def _add(
        self, id: str, keys: dict[str, object], change: TopicKind | None = None, *, file: bool
    ) -> None:
        sleep = self.dice.uniform(*SLEEP_S)
        if file:
            program, along = self.programs.make_with_a_file(id, sleep)
            keys = keys | along
        else:
            program = self.programs.make(id, sleep)
        ask = Ask(program, encode_request(program, id=id, **keys))
        if change is not None:
            ask.change, ask.change_at = change, time.monotonic() + self.dice.uniform(*CHANGE_S)
        self.open[id] = ask

    def note(self, at: float, kind: TopicKind, id: str, program: str) -> None:
        files = self.programs.files(id) if program else ()
        self.history.append(Asked(at, self.name, self.user, str(kind), id, program, files=files))

    def recorded(self, id: str, commands: Mapping[tuple[str, str], Json]) -> str:
        known = commands.get((self.user, id))
        return f"{known['outcome']}, state {known['state']}" if known else "unknown"

    def hear(self, at: float, user: str, kind: TopicKind, fields: dict[str, Any]) -> None:
        # amqtt also sends what others have subscribed to.
        if user != self.user or kind not in (TopicKind.STATUS, TopicKind.RESULT, TopicKind.ERROR):
            return
        id = str(fields.get("id"))
        if kind is not TopicKind.ERROR and "outcome" in fields:
            self.history.append(Said(at, user, str(kind), fields))
            self._instants.heard(at, id, fields)
        if not id.startswith(f"{user}-") or id not in self.programs.text:
            return  # a person's, or a group's
        self.history.append(Answered(at, self.name, user, id, fields))
        if kind is TopicKind.ERROR or self.acknowledge(id, at) is None:
            return
        if fields["outcome"] is not None and fields["state"] == 0:
            self.ended[id] = fields["outcome"]
            del self.open[id]
            if self._grading.random() < REGRADE_SHARE:
                self._regrade(at, id)
            rests = self.dice.random() < REST_SHARE
            self.next = at + self.dice.uniform(*(REST_S if rests else NEXT_S))


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
            program = payload = self._programs.make(tag, sleep, by_hand=True)
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
