"""What every part of a pretended lab shares: the time, the dice, the broker, the log of it all."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from hwsync.protocol.record import MICRO
from hwsync.testing.broker import DROPPED, Broker, Habits, Packet
from hwsync.testing.history import Seen, Violation
from hwsync.testing.network import Cable
from hwsync.testing.schedule import Schedule

WALL: Final = 1_700_000_000.0  # Unix seconds at the beginning of every world
TRACE: Final = 20_000  # lines kept


class Killed(BaseException):
    """The process ends here, as by kill -9. No ``except Exception`` may survive it."""


@dataclass(slots=True)
class Run:
    """A program in the table of processes; it may outlive the device that started it."""

    number: int
    user: str
    id: str
    program: str
    journal: str
    alive: bool = True


@dataclass
class Context:
    """One world's surroundings. ``dice`` decides everything that is left to chance."""

    folder: Path
    dice: Random
    habits: Habits
    schedule: Schedule = field(default_factory=Schedule)
    history: list[Seen] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    runs: dict[int, Run] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)  # of lab time: ahead of ``now``, in us
    life: str = ""  # the newest that the coordinator's health says; empty: it has said none
    copied: set[tuple[str, bytes]] = field(default_factory=set)  # came twice, as two messages

    def __post_init__(self) -> None:
        self.broker = Broker(
            self.habits, self.dice, lambda: self.now, self._fault_of_broker, self.schedule.after
        )
        self.cables: dict[str, Cable] = {}
        self.trace: deque[tuple[float, str, str, object]] = deque(maxlen=TRACE)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.schedule.now

    def lab_s(self) -> float:
        """Seconds of lab time, as the health says it, before that as a right clock does."""
        return self.now + (self.lives[self.life] / MICRO if self.life else WALL)

    def cable(self, name: str) -> Cable:
        """The cable of that process, new or as it is."""
        if name not in self.cables:
            self.cables[name] = Cable(self.schedule, self.dice, self.step)
        return self.cables[name]

    def step(self) -> None:
        """A message was delivered, a timer has fired, or a fault was injected."""
        self.steps += 1

    def nonce(self) -> str:
        """What a real process draws as 64 random bits."""
        return f"{self.dice.getrandbits(64):016x}"

    def see(self, one: Seen) -> None:
        """Add an observation."""
        self.history.append(one)

    def note(self, who: str, what: str, about: object = "") -> None:
        """One line of the trace; ``about`` is turned into text only when somebody reads it."""
        self.trace.append((self.now, who, what, about))

    def fault(self, kind: str, who: str = "", about: object = "") -> None:
        """Count a fault that took effect."""
        self.faults[kind] += 1
        self.steps += 1
        self.note(who, f"FAULT {kind}", about)

    def _fault_of_broker(self, kind: str, packet: Packet | None) -> None:
        if kind == DROPPED and packet is not None:
            self.violate("acknowledged", "", "", f"{kind}: {packet.topic} waited in it")
            return
        self.fault(kind, "broker", packet and packet.topic)
        if kind == "copy" and packet is not None:
            self.copied.add((packet.topic, packet.payload))

    def violate(self, promise: str, user: str, id: str, text: str) -> None:
        """A promise was seen broken; only the first of a kind says something new."""
        violation = Violation(promise, user, id, text)
        if len(self.violations) < 20:
            self.violations.append(violation)
            self.note("checker", f"VIOLATION {violation}")
