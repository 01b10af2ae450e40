"""``hwsync run`` and a device that is played by hand: pieces lost, left out, late, and the end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.lab import HWSYNC, Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process, read_terminal
from tests.support.waiting import wait_until

DEVICE = {"id": "c1", "journal": "j1", "boot": 1}
STDOUT, STDERR = "one\ntwo\nthree\nfive\n", "four\n"
ORDER = [["stdout", 14], ["stderr", 5], ["stdout", 5]]

KEEP_ALL = "  to keep all of it, let the program write a file, and get that: --get FILE\n"


@pytest.fixture
def lab(mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    """No device, but its heartbeat."""
    lab = Lab(mosquitto, start, tmp_path)
    lab.coordinator("--settle", "0")
    beat = {"online": True, "journal": "j1", "boot": 1, "time": None}
    lab.pub("heartbeat", json.dumps(beat), retain=True)
    return lab


def collect(lab: Lab, watcher: Watcher) -> None:
    watcher.wait_for_state("pi1", 1, id="c1")
    lab.pub("collected", json.dumps(DEVICE))
    watcher.wait_for_state("pi1", 2, id="c1")


def piece(lab: Lab, n: int, at: int, text: str, stream: str = "stdout", **more: Any) -> None:
    lab.pub("output", json.dumps({"id": "c1", "n": n, "stream": stream, "at": at, "text": text,
                                  **more}))  # fmt: skip


def end(lab: Lab, **more: Any) -> None:
    told = {"outcome": "ok", "response": STDOUT, "stderr": STDERR, "exit_code": 0, **more}
    lab.pub("response", json.dumps({**DEVICE, **told}))


@pytest.mark.parametrize("together", [False, True])
def test_a_file_gets_every_byte_in_its_order(
    lab: Lab, watch: Callable[..., Watcher], together: bool
) -> None:
    watcher = watch(lab.broker, "hw/pi1/status")
    line = " ".join(["exec", *HWSYNC, "run pi1 --id c1 -c 1", *(["2>&1"] if together else [])])
    run = lab.start(["bash", "-c", line], variables={"HWSYNC_BROKER": lab.url}, name="run")
    collect(lab, watcher)
    piece(lab, 0, 0, "one\n")
    wait_until(lambda: run.stdout == "one\n", what="the first piece")
    piece(lab, 2, 8, "three\n")  # the one before was lost
    piece(lab, 4, 14, "five\n")
    end(lab, order=ORDER)
    assert run.wait() == 0, run.account()
    whole = "one\ntwo\nthree\nfour\nfive\n"
    assert run.stdout == (whole if together else STDOUT)
    assert run.stderr == ("" if together else STDERR)


def test_a_person_is_told_what_was_lost_and_sees_what_comes_next(
    lab: Lab, watch: Callable[..., Watcher], environment_of: Callable[..., dict[str, str]]
) -> None:
    watcher = watch(lab.broker, "hw/pi1/status")
    terminal, other = pty.openpty()
    run = subprocess.Popen(
        [*HWSYNC, "run", "pi1", "--wait-for-board", "--id", "c1", "-c", "1"],
        stdin=subprocess.DEVNULL, stdout=other, stderr=other, start_new_session=True,
        env=environment_of(HWSYNC_BROKER=lab.url),
    )  # fmt: skip
    os.close(other)
    try:
        collect(lab, watcher)
        piece(lab, 0, 0, "one\nt")
        piece(lab, 2, 8, "three\n")
        piece(lab, 2, 8, "three\n")
        piece(lab, 3, 17, "e\n", skipped=3)
        end(lab, order=ORDER)
        text = read_terminal(terminal)
        assert run.wait(30) == 0
    finally:
        run.kill()
        run.wait()
        os.close(terminal)
    assert text == (
        "one\nt\n[hwsync: 3 bytes were lost on the way]\nthree\n"
        "[hwsync: 3 bytes left out]\ne\nfour\n"
        "hwsync: 6 bytes of its output were not shown while it ran; "
        "hwsync status pi1 shows all of it\n"
    )


def test_what_comes_while_it_is_cancelled_is_shown_and_a_second_ctrl_c_leaves(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(lab.broker, "hw/pi1/status")
    run = lab.cli("run", "pi1", "--wait-for-board", "--id", "c1", "-c", "1")
    collect(lab, watcher)
    piece(lab, 0, 0, "on\n")
    wait_until(lambda: run.stdout == "on\n", what="the first piece")
    run.interrupt()
    watcher.wait_for_status("pi1", lambda status: status["cancelling"])
    piece(lab, 1, 3, "pins let go\n")
    wait_until(lambda: run.stdout == "on\npins let go\n", what="what it does at its end")
    run.interrupt()
    assert run.wait() == 130
    assert run.stderr.rstrip("\n") == (  # behind ^C click ends the line
        "hwsync: cancelling c1: it may end by itself, which can take some seconds; "
        "Ctrl-C again leaves"
    )


def test_a_text_that_was_cut_may_have_been_shown_whole(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(lab.broker, "hw/pi1/status")
    run = lab.cli("run", "pi1", "--wait-for-board", "--id", "c1", "-c", "1")
    collect(lab, watcher)
    piece(lab, 0, 0, "first\nsecond\nlast\n")
    wait_until(lambda: run.stdout.endswith("last\n"), what="the only piece")
    kept = "first\n[hwsync: 7 bytes left out]\nlast\n"
    end(lab, response=kept, stderr="", truncated=True)
    assert run.wait() == 0
    assert run.stdout == "first\nsecond\nlast\n"
    assert run.stderr.endswith(
        "all of it is here; the record has its ends, without 7 bytes of stdout\n" + KEEP_ALL
    )


def test_the_text_that_was_cut_is_beginning_and_end(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(lab.broker, "hw/pi1/status")
    run = lab.cli("run", "pi1", "--wait-for-board", "--id", "c1", "-c", "1")
    collect(lab, watcher)
    kept = "first\n[hwsync: 1,234 bytes left out]\nlast\n"
    end(lab, response=kept, stderr="", truncated=True)
    assert run.wait() == 0
    assert run.stdout == kept
    assert run.stderr.endswith(
        "hwsync: the output was longer than is kept: 1,234 bytes of it are missing, "
        "where a line [hwsync: … left out] stands\n" + KEEP_ALL
    )
