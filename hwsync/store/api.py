"""What the coordinator needs of a store, and what it hands over to be saved in one go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hwsync.protocol.batch import Batch
from hwsync.protocol.core import Handled
from hwsync.protocol.effects import LogEntry
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import Message
from hwsync.protocol.record import Command, Record, Regrade, State


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A refused message; ``allowance``: who pays for it, nobody's and unknown users' share one."""

    user: str  # empty where it is no valid name
    allowance: str
    time: float  # Unix seconds
    refusal: Refused
    message: Message
    state: State | None


@dataclass(frozen=True, slots=True)
class LabLife:
    """A life of lab time (``coordinator.lab_time``): where it began, in microseconds."""

    name: str
    boot: str  # of the machine; empty: not known
    wall_us: int  # Unix time at its beginning
    raw_us: int  # the raw clock then
    asleep_us: int  # for how long this boot had been suspended until then


@dataclass(slots=True)
class Changes:
    """Everything that one transaction saves."""

    records: dict[str, Record] = field(default_factory=dict)
    commands: dict[tuple[str, str], Command] = field(default_factory=dict)
    log: list[tuple[Record, LogEntry, Message | None]] = field(default_factory=list)
    refused: list[RefusedRow] = field(default_factory=list)
    packets: dict[int, Handled | None] = field(default_factory=dict)
    forget_packets: bool = False
    epoch: tuple[int, float] | None = None  # a new one, and the wall clock in Unix seconds
    batches: dict[str, Batch] = field(default_factory=dict)  # by key
    new_batches: dict[str, Batch] = field(default_factory=dict)  # of them, as they were accepted
    turned_away: dict[tuple[str, str], Code] = field(default_factory=dict)  # by key and member
    contents: dict[str, bytes] = field(default_factory=dict)  # of files, by their hash
    regrades: dict[tuple[str, str], list[Regrade]] = field(default_factory=dict)  # new ones
    withdrawn: set[tuple[str, str]] = field(default_factory=set)  # of which those before are gone

    def __bool__(self) -> bool:
        return bool(
            self.records
            or self.commands
            or self.refused
            or self.packets
            or self.forget_packets
            or self.epoch
            or self.batches
        )


class Commands(Protocol):
    """What a plan asks while it decides: commands that no record shows, batches that ended."""

    def command(self, user: str, id: str) -> Command | None:
        """One command, None where there is none. Raises ``StoreError``."""

    def batch(self, key: str, records: Mapping[str, Record]) -> Batch | None:
        """One batch, None where there is none. Raises ``StoreError``."""


class Storage(Commands, Protocol):
    """What the loop needs; ``hwsync.store.store.Store`` says what each method does.

    Every method raises ``StoreError``, and has saved nothing then, as far as it knows: after a
    failed ``save`` only ``load`` says what is stored.
    """

    @property
    def path(self) -> Path:
        """Where it is, for people."""

    def load(self, ticks: float) -> dict[str, Record]:
        """All records, by user."""

    def packets(self) -> dict[int, Handled]:
        """What each packet identifier carried last."""

    def owed(self) -> Iterable[Command]:
        """The commands that have ended and whose replies may not have arrived."""

    def batches(self, records: Mapping[str, Record], ticks: float) -> Iterable[Batch]:
        """Those that are open, owed an answer, or their group's newest."""

    def parts(self, key: str) -> Mapping[str, Mapping[str, Any]]:
        """What became of the members of a batch, by member."""

    def contents(self, hashes: Iterable[str]) -> Mapping[str, bytes]:
        """The bytes of files, by their hash, as far as they are kept."""

    def regrades(self, command: Command) -> Iterable[Regrade]:
        """The regrades of a command, the oldest first."""

    def heard(self) -> Mapping[str, float]:
        """When each board was heard, in Unix seconds."""

    def epoch(self, wall: float) -> tuple[int, float | None]:
        """The epoch, and the seconds of connection since it rose."""

    @property
    def head(self) -> tuple[int, str]:
        """The last row of the log, and its hash in hexadecimal."""

    def last_change(self) -> float | None:
        """Unix seconds of the last change of a record."""

    def life(self) -> LabLife | None:
        """The newest life of lab time."""

    def save_life(self, life: LabLife) -> None:
        """Save a new life of lab time."""

    def save(self, changes: Changes, ticks: float) -> None:
        """Save all of them, or nothing."""

    def write_down(
        self,
        records: Iterable[Record],
        ticks: float,
        restored_at: float | None = None,
        heard: Mapping[str, float] | None = None,
        waits: Mapping[str, float] | None = None,
    ) -> None:
        """Save what is left of the deadlines and of batches' waits, and when boards were heard."""
