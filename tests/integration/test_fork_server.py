"""A fork server that dies or is stopped: the runner never hangs, and the next run has another.

Here somebody else does it, from outside; what programs do to their own is in test_hostile.py. How
soon each outcome is there is a part of every test.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.runner import Group, Job, Piece, RunEnd, Runner, Settings, Start, StopSwitch
from hwsync.runner.launcher import Launcher
from hwsync.runner.processes import members, read_process
from tests.support.waiting import wait_until

LONG = 60.0  # s: a limit that no passing test reaches
PROMPT = 3.0  # s from a server's end to the answer; one of them is what it gets to leave by itself
# In one write: the server may be gone before a second one.
TELL = "import os, time\nos.write(1, b'%d\\n' % os.getppid())\n"
WAITING = TELL + "time.sleep(600)"


class Bench:
    """A runner that keeps its server between runs."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.groups: list[Group] = []

    def run(
        self,
        program: str,
        *,
        timeout: float = LONG,
        at_first_output: Callable[[int], object] = lambda server: None,
        stop: StopSwitch | None = None,
    ) -> RunEnd:
        """``at_first_output`` gets what the program printed first: the number of its server."""

        def on_output(piece: Piece) -> None:
            if piece.number == 0:
                at_first_output(int(piece.text))

        return self.runner.run(
            Job(program, "", (), timeout),
            on_started=self.groups.append,
            on_output=on_output,
            stop=stop or StopSwitch(),
        )

    def server(self) -> int:
        """That of a next run, which is as any other."""
        end = self.run("import os\nprint(os.getppid())")
        assert (end.outcome, end.stderr) == ("ok", "")
        return int(end.response)

    def assert_next_is_another(self, old: int) -> None:
        group = self.groups[-1]
        assert members(group.session, group.start_time) == [], "the program outlived the answer"
        new = self.server()
        assert new != old
        assert self.server() == new, "the new one is kept"
        assert read_process(old) is None, "the old one is gone, and was waited for"


@pytest.fixture(params=list(Start))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    one = Bench(Runner(Settings(tmp_path, start=request.param)))
    yield one
    one.runner.close()


def kill(server: int) -> None:
    os.kill(server, signal.SIGKILL)


def halt(server: int) -> None:
    os.kill(server, signal.SIGSTOP)
    wait_until(lambda: state(server) == "T", what="it stops")


def state(server: int) -> str:
    process = read_process(server)
    return "gone" if process is None else process.state


def test_a_server_is_killed_during_a_run(bench: Bench) -> None:
    old = bench.server()
    end = bench.run(WAITING, at_first_output=kill)
    assert (end.outcome, end.exit_code, end.began) == ("killed", None, True)
    assert end.reason == "its parent process was ended, and so it was"
    assert end.response == f"{old}\n"
    assert end.duration < PROMPT
    bench.assert_next_is_another(old)


def test_a_server_is_stopped_during_a_run_that_ends_by_itself(bench: Bench) -> None:
    """Nobody can say how it ended: its time runs out, and no more than that."""
    old = bench.server()
    program = f"""{TELL}
while open(f"/proc/{{os.getppid()}}/stat").read().rpartition(")")[2].split()[0] != "T":
    time.sleep(0.001)
print("done")
"""
    began = time.monotonic()
    end = bench.run(program, timeout=0.5, at_first_output=halt)
    assert (end.outcome, end.reason, end.exit_code) == ("timeout", "time limit of 0.5 s", None)
    assert end.response == f"{old}\ndone\n"
    assert time.monotonic() - began < 0.5 + PROMPT
    bench.assert_next_is_another(old)


def test_a_run_whose_server_is_stopped_can_be_cancelled(bench: Bench) -> None:
    old, stop = bench.server(), StopSwitch()

    def halt_and_cancel(server: int) -> None:
        halt(server)
        stop.set()

    end = bench.run(WAITING, at_first_output=halt_and_cancel, stop=stop)
    assert (end.outcome, end.reason) == ("cancelled", "cancelled while it ran")
    assert end.duration < PROMPT
    bench.assert_next_is_another(old)


@pytest.mark.parametrize("what", [kill, halt])
def test_a_server_that_fails_between_two_runs_costs_only_a_start(
    what: Callable[[int], None], bench: Bench
) -> None:
    old = bench.server()
    what(old)
    wait_until(lambda: state(old) in "TZ", what="it is stopped, or dead")
    began = time.monotonic()
    new = bench.server()
    assert time.monotonic() - began < PROMPT
    assert new != old
    assert read_process(old) is None


def test_a_server_that_dies_before_it_has_forked_has_run_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, begin = bench.server(), Launcher.begin

    def dies(self: Launcher, *given: Any) -> bool:
        halt(self.pid)  # else it could have forked before it is killed
        begun = begin(self, *given)
        kill(self.pid)
        return begun

    witness = tmp_path / "witness"
    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(Launcher, "begin", dies)
        with pytest.raises(CannotRun, match="fork server was ended before the program"):
            bench.run(f"open({str(witness)!r}, 'x')")
    assert time.monotonic() - began < PROMPT
    assert not witness.exists()
    bench.assert_next_is_another(old)
