"""``import hwsync`` with a real broker and coordinator; the boards are pretended."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from pathlib import Path

import pytest

import hwsync
from tests.support.fake_boards import FakeBoards
from tests.support.lab import Lab, standing
from tests.support.processes import CHECKOUT, Process
from tests.support.waiting import wait_until

BOARDS = tuple(f"pi{number}" for number in range(1, 51))
PATIENCE_S = 60.0
OUTCOMES = {"print": "ok", "fail": "error", "over": "timeout", "slow": "cancelled", "deaf": "lost"}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for all tests: each leaves its boards at rest."""
    groups = 'lab1 = ["pi1", "pi2", "pi3"]\n'
    with standing(tmp_path_factory.mktemp("api"), groups) as made:
        yield made


@pytest.fixture(scope="module")
def boards(master: Lab) -> Iterator[FakeBoards]:
    fake = FakeBoards(master.broker.port, BOARDS)
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def lab(master: Lab, boards: FakeBoards) -> Iterator[hwsync.Lab]:
    with hwsync.connect(master.url) as connected:
        yield connected


def test_200_runs_on_one_connection_end_with_the_truth_whatever_dies(
    master: Lab, boards: FakeBoards, lab: hwsync.Lab
) -> None:
    """Four on each of 50 boards; the coordinator is killed, then the broker restarted."""
    threads = threading.active_count()
    words = ("print", "slow", "print", "fail", "over", "print", "print", "deaf")
    runs: dict[hwsync.Run, str] = {}
    for number in range(200):
        word = words[(number // 50 + number) % len(words)]
        program = f"{word} {number}"
        run = lab.submit(
            BOARDS[number % 50], program, timeout=1.0, grace=1.0 if word == "deaf" else 20.0
        )
        runs[run] = program
    assert threading.active_count() <= threads + 1
    done, _ = wait(runs, PATIENCE_S, FIRST_COMPLETED)
    assert done
    master.processes["coordinator"].kill()
    wait_until(lambda: not master.processes["coordinator"].running)
    for run, program in runs.items():
        if program.startswith("slow"):
            run.cancel()
    master.coordinator("--settle", "0", "--groups", str(master.folder / "groups.toml"))
    master.broker.restart()
    for run in as_completed(runs, PATIENCE_S):
        word, number = runs[run].split()
        if run.cancelled():
            assert word == "slow"
        else:
            assert isinstance(run.exception(), hwsync.NotOk | None), run.exception()
        assert run.outcome == OUTCOMES[word], run.record
        assert (run.stdout == f"{number}\n") == (word == "print")
    assert max(boards.ran.values()) == 1
    told = [lab.find(run.board, run.id) for run in runs]
    wait(told, PATIENCE_S)
    assert [run.outcome for run in told] == [run.outcome for run in runs]


def test_a_run_is_a_future_with_its_callbacks_in_a_thread_of_their_own(lab: hwsync.Lab) -> None:
    called: list[object] = []
    run = lab.submit("pi1", "print 1")
    run.add_done_callback(lambda one: called.append(lab.run("pi2", "print 2").stdout))
    run.add_done_callback(lambda one: called.append(one.result()))
    assert run.result(PATIENCE_S) is run
    wait_until(lambda: len(called) == 2)
    assert called == ["2\n", run], "a callback may ask, and wait"

    async def awaited() -> hwsync.Run:
        return await asyncio.wrap_future(lab.submit("pi1", "print 3"))

    assert asyncio.run(awaited()).stdout == "3\n"


def test_what_a_callback_raises_is_logged_and_stops_nothing(
    lab: hwsync.Lab, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(_: object) -> None:
        raise SystemExit(3)

    run = lab.submit("pi1", "print 1")
    run.add_done_callback(leave)
    wait_until(lambda: "exception calling a callback" in caplog.text)
    assert lab.run("pi1", "print 2").stdout == "2\n"


def test_a_bad_end_has_the_record(lab: hwsync.Lab) -> None:
    with pytest.raises(hwsync.Failed, match="pi1: error: exit code 1") as failed:
        lab.run("pi1", "fail oh no")
    assert failed.value.record["stderr"] == "oh no\n"
    assert failed.value.__notes__ == ["  oh no"]
    assert lab.run("pi1", "fail again", check=False).exit_code == 1
    with pytest.raises(hwsync.TimedOut):
        lab.run("pi1", "over")


def test_who_is_busy_refuses_unless_it_may_queue(lab: hwsync.Lab) -> None:
    slow = lab.submit("pi1", "slow")
    wait_until(slow.running)
    with pytest.raises(hwsync.Refused) as refused:
        lab.run("pi1", "print 1")
    assert refused.value.code == "busy"
    assert refused.value.hint == "queue=True waits behind it, as lab.submit does"
    behind = lab.submit("pi1", "print 1")
    assert not wait([behind], 0.3).done
    assert slow.cancel()
    assert behind.result(PATIENCE_S).stdout == "1\n"
    assert slow.cancelled()
    with pytest.raises(hwsync.Cancelled, match="pi1: cancelled") as cancelled:
        slow.result()
    assert cancelled.value.run is slow


def test_who_cancels_from_elsewhere_cancels_no_future_but_ends_it(
    master: Lab, lab: hwsync.Lab
) -> None:
    slow = lab.submit("pi1", "slow")
    wait_until(slow.running)
    master.pub("cancel")
    assert isinstance(slow.exception(PATIENCE_S), hwsync.Cancelled)
    assert not slow.cancelled()
    assert not slow.cancel()


def test_after_close_each_run_has_ended_and_is_found_again(
    master: Lab, boards: FakeBoards, lab: hwsync.Lab
) -> None:
    with hwsync.connect(master.url) as other:
        slow = other.submit("pi1", "slow")
        wait_until(slow.running)
        unheard = other.submit("pi2", "print 1")
    for run in (slow, unheard):
        assert isinstance(run.exception(0), hwsync.Closed)
    with pytest.raises(hwsync.Closed, match=f"{slow.id} on pi1 goes on"):
        list(slow)
    assert not slow.cancel()
    with pytest.raises(hwsync.Closed):
        other.run("pi1", "print 1")
    for ask in (other.boards, other.history):
        with pytest.raises(hwsync.Closed):
            ask()
    found = lab.find("pi1", slow.id)
    wait_until(found.running)
    found.cancel()
    with pytest.raises(hwsync.Cancelled):
        found.result(PATIENCE_S)
    with pytest.raises(hwsync.Refused):
        lab.find("pi1", "never").result(PATIENCE_S)


def test_map_asks_all_and_says_what_became_of_each(lab: hwsync.Lab) -> None:
    runs = lab.map("print 7", ["pi1", "pi2", "pi1"])
    assert [run.board for run in runs] == ["pi1", "pi2"]
    assert runs["pi2"].stdout == "7\n"
    assert runs.check().ok
    mixed = lab.map("fail x", ["pi1", "pi2"])
    assert dict(mixed.counts) == {"error": 2}
    with pytest.raises(ExceptionGroup, match="2 of 2 runs did not end ok"):
        mixed.check()


def test_without_a_broker_it_is_said_at_once() -> None:
    with pytest.raises(hwsync.NoBroker, match="no broker answers") as error:
        hwsync.connect("mqtt://127.0.0.1:1")
    assert "broker=" in error.value.hint
    assert "--" not in error.value.hint


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    lab: hwsync.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("blink.py").write_text("print 7")
    with pytest.raises(hwsync.UsageError, match=r"for the file: Path\('blink.py'\)"):
        lab.run("pi1", "blink.py")
    run = lab.run("pi1", Path("blink.py"))
    assert (run.stdout, run.record["name"]) == ("7\n", "blink.py")
    for board, options in (("pi/1", {}), ("pi1", {"id": "a b"}), ("pi1", {"name": "../x"}),
                           ("pi1", {"args": "x"}), ("pi1", {"meta": {"x": {1}}})):  # fmt: skip
        with pytest.raises(hwsync.UsageError):
            lab.run(board, "print 1", **options)  # type: ignore[arg-type]


def test_a_group_is_asked_once_and_each_of_its_boards_has_its_run(lab: hwsync.Lab) -> None:
    slow = lab.submit("pi2", "slow")
    wait_until(slow.running)
    runs = lab.group("lab1").run("print 7")
    assert {run.board: run.outcome for run in runs} == {"pi1": "ok", "pi2": None, "pi3": "ok"}
    assert (runs["pi3"].stdout, dict(runs.counts)) == ("7\n", {"ok": 2, "refused": 1})
    refused = runs["pi2"].exception(0)
    assert isinstance(refused, hwsync.Refused)
    assert (refused.code, str(refused)) == ("busy", "pi2 has refused it: busy")
    with pytest.raises(ExceptionGroup, match="1 of 3"):
        runs.check()
    lab.group("@lab1").stop()
    assert isinstance(slow.exception(PATIENCE_S), hwsync.Lost), "a reset cannot know"
    with pytest.raises(hwsync.Refused, match="no group"):
        lab.group("lab9").run("print 7")


def test_a_batch_is_cancelled_and_says_of_each_board_how_it_ended(lab: hwsync.Lab) -> None:
    asked = lab.group("lab1").submit("slow", parallel=1)
    wait_until(asked.running)
    wait_until(lambda: asked.record["counts"]["running"] == 1)
    assert asked.cancel()
    runs = asked.result(PATIENCE_S)
    assert {run.outcome for run in runs} <= {"cancelled", "expired"}
    assert isinstance(runs["pi3"].exception(0), hwsync.Cancelled | hwsync.Expired)
    assert not asked.cancel()


def test_a_start_that_is_past_or_means_two_things_is_refused(lab: hwsync.Lab) -> None:
    with pytest.raises(hwsync.UsageError, match="past by now"):
        lab.run("pi1", "print 1", at=1.0)
    with pytest.raises(hwsync.UsageError, match="only with together=True"):
        lab.map("print 1", ["pi1", "pi2"], need=2)
    with pytest.raises(hwsync.UsageError, match="together and at"):
        lab.group("lab1").submit("print 1", at=1.0, together=True)


def test_ctrl_c_cancels_what_is_waited_for_and_is_raised(master: Lab, lab: hwsync.Lab) -> None:
    waits = "import hwsync, sys\nwith hwsync.connect(sys.argv[1]) as lab:\n"
    waits += "    lab.run('pi1', 'slow', id='mine')\n"
    process = Process([sys.executable, "-c", waits, master.url], directory=master.folder,
                      name="waits", cwd=CHECKOUT)  # fmt: skip
    wait_until(lambda: _state(lab, "mine") == 2)
    process.interrupt()
    assert process.wait() == -signal.SIGINT, process.account()
    assert process.stderr.endswith("KeyboardInterrupt\n")
    assert lab.find("pi1", "mine").exception(PATIENCE_S)
    assert lab.run("pi1", "print 1").outcome == "ok", "it is at rest"


def _state(lab: hwsync.Lab, id: str) -> object:
    found = lab.find("pi1", id)
    wait([found], 0.2)
    return found.record.get("state")


def test_a_forked_process_has_no_lab(lab: hwsync.Lab) -> None:
    child = os.fork()
    if child == 0:
        try:
            lab.run("pi1", "print 1")
        except hwsync.Closed:
            lab.close()  # nothing of its parent's
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert lab.run("pi1", "print 1").stdout == "1\n"


def test_a_lab_that_nobody_holds_any_more_leaves_the_broker_once_its_runs_have_ended(
    master: Lab, boards: FakeBoards
) -> None:
    before = _lines()
    lab = hwsync.connect(master.url)
    assert lab.run("pi1", "print 1").stdout == "1\n"
    assert len(_lines() - before) == 1
    run = lab.submit("pi1", "print 2")
    del lab
    gc.collect()
    assert run.result(PATIENCE_S).stdout == "2\n"
    del run
    gc.collect()
    wait_until(lambda: _lines() == before)


def _lines() -> set[str]:
    """The threads of connections."""
    return {one.name for one in threading.enumerate() if one.name.startswith("hwsync-py")}
