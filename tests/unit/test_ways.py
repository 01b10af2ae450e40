"""The ways of docs/architecture.md are the code's: each is gone with real parts, call by call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import ways
from tests.support.ways import Call

WAYS, SIDE = ways.listed(), ways.beside()
PROGRAM = """\
import sys, time
with open({path!r}, "w") as file:
    file.write(sys._getframe(1).f_code.co_name)
    file.write(open("/proc/self/cmdline").read())
print("begun", flush=True)
time.sleep(60)
"""


def in_the_program(path: Path) -> list[Call]:
    """What was called in its own process: it was forked from the server, and says what it is in."""
    name, _, command = path.read_text().partition(sys.executable)
    assert "\nserve(" in command
    return [("runner/server.py", "serve"), ("runner/execute.py", name)]


def hold(way: list[Call], calls: list[Call]) -> None:
    first = {call: place for place, call in reversed(list(enumerate(calls)))}
    missing = [call for call in way if call not in first]
    assert missing == [], "these are not called"
    order = sorted(way, key=lambda call: first[call])
    assert order == way
    assert {file for file, _ in calls} - SIDE - {file for file, _ in way} == set()


@pytest.mark.parametrize("way", WAYS)
def test_no_file_of_a_way_is_come_back_to(way: list[Call]) -> None:
    files = [file for file, _ in way]
    changes = [file for file, before in zip(files, [None, *files], strict=False) if file != before]
    assert len(changes) == len(set(files))


@pytest.mark.parametrize(
    ("way", "go"),
    [(ways.REQUEST, ways.a_request), (ways.LATE, ways.a_late_result), (ways.CANCEL, ways.a_cancel)],
)
def test_the_coordinators_ways(way: int, go: ways.Way, tmp_path: Path) -> None:
    hold(WAYS[way], go(tmp_path))


def test_the_devices_ways(tmp_path: Path) -> None:
    path = tmp_path / "said"
    program = PROGRAM.format(path=str(path))
    with ways.Device(tmp_path, program) as device, ways.Watch() as watch:
        device.hear_envelope()
        hold(WAYS[ways.ENVELOPE], watch.take())
        device.hear_status()
        device.wait_for_call()
        hold(WAYS[ways.GRANT], watch.take())
        device.do_next()
        device.wait_for_call()  # its first output
        hold(WAYS[ways.SESSION], [*watch.take(), *in_the_program(path)])
        device.hear_status(cancelling=True)
        last = WAYS[ways.CANCEL_HEARD][-1]
        watch.wait_for(last)
        calls = watch.take()
        hold(WAYS[ways.CANCEL_HEARD], calls[: calls.index(last) + 1])  # the run's thread goes on
        device.do_all()
