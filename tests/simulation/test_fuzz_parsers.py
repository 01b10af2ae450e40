"""Every reader under hostile payloads: a hwsync error or a sound value, soon, in bounded memory.

``scripts/fuzz parsers`` does the same with as many as one likes.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsync.protocol.topics import INBOUND
from hwsync.protocol.wire import request, schema
from tests.support.fuzz_hypothesis import examples
from tests.support.fuzz_parsers import HEARD, page
from tests.support.fuzz_payloads import PAGE, VALID, Mutator, encoded
from tests.support.fuzz_run import GROWTH, Report, Run, totals

COUNT = 30_000
EXAMPLES = 200
SEED = int(os.environ.get("HWSYNC_SEED", str(random.randrange(10**6))))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Damaged journals are logged, each of them."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def said(report: Report) -> str:
    return "\n".join(
        f"seed {report.seed}, number {fault.number}, {fault.target}: {fault.what!a}\n"
        f"  {fault.payload[:300]!r}"
        for fault in report.faults
    )


@pytest.mark.slow
@pytest.mark.timeout(600)  # 20 s; six times that on a machine that does six things at once
def test_hostile_payloads_are_refused_or_sound(tmp_path: Path) -> None:
    run = Run(SEED, tmp_path)
    report = run.run(COUNT)
    examples(run, EXAMPLES)
    assert not report.faults, said(report)
    assert report.growth < GROWTH, f"seed {SEED}: {report.memory}"
    assert COUNT < report.payloads <= COUNT + EXAMPLES
    found = totals(report.outcomes)
    assert min(found["refused"], found["value"], found["none"]) > COUNT / 4, found
    # Each reader took something and passed over or refused something.
    readers = {name.partition(": ")[0] for name in report.outcomes}
    wanted = {f"coordinator {kind}" for kind in INBOUND} | {f"operator {kind}" for kind in HEARD}
    wanted |= {
        *("coordinator sign", "operator page"),
        "device command",
        "device clock/reply",
        "device status",
        "topic",
        "device.toml",
        "ACL",
        "passwords",
    }
    wanted |= {"broker.conf", "credentials", "address", "journal journal.db"}
    assert wanted <= readers
    for reader in wanted:
        came = {name for name in report.outcomes if name.startswith(f"{reader}: ")}
        assert len(came) > 1, came


def test_what_is_valid_is_taken(tmp_path: Path) -> None:
    """Else all that is refused would prove nothing."""
    run = Run(0, tmp_path)
    for kind, some in VALID.items():
        for one in some:
            data = encoded(one).encode() if isinstance(one, dict) else one
            for name, target in run._targets.items():
                if name == f"coordinator {kind}":
                    assert not target(data).startswith("refused"), (name, data)
                elif name == f"operator {kind}" and data:
                    assert target(data) == kind, (name, data)
                elif name == f"device {kind}" and b'"v"' in data:
                    assert target(data) == "envelope"
                elif name == f"device {kind}" and kind == "status":
                    assert target(data) == "status"
    assert page(encoded(PAGE).encode()) == "page"


def test_a_fault_is_found_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (schema, request):
        monkeypatch.setattr(module, "text_of", bytes.decode)
    run = Run(1, tmp_path)
    report = run.run(2_000)
    first = report.faults[0]
    assert first.target.startswith("coordinator")
    assert "UnicodeDecodeError" in first.what
    again = Run(1, tmp_path).run(1, first.number)
    assert [(one.number, one.payload) for one in again.faults] == [(first.number, first.payload)]


def test_a_slow_reader_and_one_that_keeps_what_it_read_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(2, tmp_path)
    monkeypatch.setattr("tests.support.fuzz_run.LONGEST_S", -1.0)
    kept: list[bytes] = []
    run._targets = {"keeps": lambda data: str(kept.append(bytes([1]) * 50_000))}
    report = run.run(10_000)
    assert report.growth > GROWTH / 6  # a fifth of the payloads
    assert "it took" in report.faults[0].what


def test_a_number_decides_everything() -> None:
    one, other = Mutator(5), Mutator(5)
    list(map(other.at, range(50)))
    assert [one.at(n) for n in (7, 3)] == [other.at(n) for n in (7, 3)]
    assert one.topic(9) == other.topic(9)
    assert one.file(b"a\nb", 9) == other.file(b"a\nb", 9)
    assert Mutator(6).at(7) != one.at(7)
