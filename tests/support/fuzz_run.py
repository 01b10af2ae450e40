"""A run of hostile payloads through every reader: what came of them, how long, how much memory.

The law: a fault is kept with what repeats it, and the run goes on; a call that is slow is measured
again, since a busy machine is no fault.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import HwsyncError
from tests.support import fuzz_parsers as readers
from tests.support.fuzz_parsers import Files, Journals, Target
from tests.support.fuzz_payloads import Mutator

OTHERS: Final = 8  # readers of other kinds get every so manieth payload each
FILES_EVERY: Final = 16  # of so many payloads one goes through the readers of files too
JOURNALS_EVERY: Final = 1_000  # opening one takes milliseconds
LONGEST_S: Final = 1.0  # for one call; the longest message takes about a tenth
AGAIN: Final = 3  # times that a slow call is measured
GROWTH: Final = 24 * 2**20  # bytes in each of the last two quarters: steps of 13 were seen
FAULTS: Final = 20  # kept; the rest is counted
TELL_EVERY: Final = 2_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One payload that something else came of than a value or a hwsync error."""

    number: int
    target: str
    payload: bytes
    what: str


@dataclass(slots=True)
class Report:
    """What a run came to."""

    seed: int
    payloads: int = 0
    calls: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    slowest: tuple[float, str, int] = (0.0, "", 0)  # seconds, target, number
    memory: list[int] = field(default_factory=list)  # bytes after each quarter

    @property
    def growth(self) -> int:
        """Bytes that each of the last two quarters added at least: one step is no leak."""
        if len(self.memory) < 4:
            return 0
        _, second, third, last = self.memory
        return min(third - second, last - third)


def resident(pid: int | None = None) -> int:
    """Bytes of memory that a process has now."""
    pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


class Run:
    """Payloads ``first`` to ``first + count`` of a seed, in ``folder``."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.report = Report(seed)
        self._mutator = Mutator(seed)
        self._targets = readers.targets()
        self._files, self._journals = Files(folder), Journals(folder)

    def run(
        self, count: int, first: int = 0, tell: Callable[[int], None] = lambda done: None
    ) -> Report:
        """All of them; ``tell`` hears now and then how many are done."""
        report, began = self.report, time.monotonic()
        quarters = {first + count * part // 4 for part in (1, 2, 3, 4)}
        for number in range(first, first + count):
            for target, data, call in self.calls(number):
                self.call(number, target, data, call)
            report.payloads += 1
            if number % TELL_EVERY == 0:
                tell(number - first)
            if number + 1 in quarters:
                gc.collect()
                report.memory.append(resident())
        report.seconds = time.monotonic() - began
        return report

    def everywhere(self, data: bytes) -> None:
        """One payload of no number through every reader of payloads."""
        for name, target in self._targets.items():
            self.call(-1, name, data, target)

    def calls(self, number: int) -> Iterator[tuple[str, bytes, Target]]:
        """(name, payload, target) of everything that this number is about."""
        kind, data = self._mutator.at(number)
        for place, (name, target) in enumerate(self._targets.items()):
            if name.endswith(kind) or (place + number) % OTHERS == 0:
                yield name, data, target
        text = self._mutator.topic(number).encode("utf-8", "surrogatepass")
        yield "topic", text, _of_text(readers.topic)
        yield "operator page", self._mutator.page(number), readers.page
        if number % FILES_EVERY == 0:
            for name, seed, reader in self._of_files(number):
                yield name, self._mutator.file(seed, number), reader
        if number % JOURNALS_EVERY == 0:
            names = sorted(self._journals.files)
            name = names[number // JOURNALS_EVERY % len(names)]
            data = self._mutator.image(self._journals.files[name], number)
            yield f"journal {name}", data, lambda data: self._journals.opened(name, data)

    def _of_files(self, number: int) -> Iterator[tuple[str, bytes, Target]]:
        yield "device.toml", readers.TOML, self._files.toml
        yield "ACL", readers.ACL, self._files.acl
        yield "passwords", readers.PASSWORDS, self._files.passwords
        yield "broker.conf", readers.BROKER_CONF, self._files.broker_conf
        yield "credentials", readers.CREDENTIALS, self._files.credentials
        address = readers.ADDRESSES[number // FILES_EVERY % len(readers.ADDRESSES)]
        yield "address", address, _of_text(readers.address)

    def call(self, number: int, name: str, data: bytes, target: Target) -> None:
        """One reader, one payload."""
        report = self.report
        report.calls += 1
        took, came = _measured(target, data)
        for _ in range(AGAIN):
            if took <= max(LONGEST_S, report.slowest[0]):
                break
            took = min(took, _measured(target, data)[0])
        report.slowest = max(report.slowest, (took, name, number))
        if took > LONGEST_S:
            came = RuntimeError(f"it took {took:.1f} s")
        if isinstance(came, Exception):
            report.outcomes["fault"] += 1
            if len(report.faults) < FAULTS:
                what = f"{type(came).__name__}: {came}"
                report.faults.append(Fault(number, name, data, what))
        else:
            report.outcomes[f"{name}: {came}"] += 1


def _measured(target: Target, data: bytes) -> tuple[float, str | Exception]:
    began = time.thread_time()  # of the processor: other work makes nobody slow
    came: str | Exception
    try:
        came = target(data)
    except HwsyncError as error:
        came = f"refused ({type(error).__name__})"
    except Exception as error:
        came = error
    return time.thread_time() - began, came


def _of_text(reader: Callable[[str], str]) -> Target:
    """What is no UTF-8 has no text: the transport passes over such a topic."""
    return lambda data: reader(data.decode("utf-8", "replace"))


def totals(outcomes: Mapping[str, int]) -> dict[str, int]:
    """Calls that refused, that gave a value, and that passed over what is nobody's."""
    found = Counter[str]()
    for name, count in outcomes.items():
        result = name.rpartition(": ")[2]
        kind = "refused" if result.startswith("refused") else "value"
        if name == "fault" or result in ("none", "Ignored"):
            kind = "fault" if name == "fault" else "none"
        found[kind] += count
    return dict(found)
