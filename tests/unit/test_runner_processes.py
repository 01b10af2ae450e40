"""Reading /proc: whose session it is, who is alive, and what is left alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.runner import Group, StopSwitch, end_group
from hwsync.runner import processes as module
from hwsync.runner.processes import Process, boot_id, end_session, members, read_process

SLEEPERS = 3


@pytest.fixture
def session() -> Iterator[tuple[subprocess.Popen[bytes], Group]]:
    """A session of a leader and three more, each in a process group of its own."""
    program = f"""
import os, time
for _ in range({SLEEPERS}):
    if os.fork() == 0:
        os.setpgid(0, 0)
        break
print(flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE
    ) as leader:
        assert leader.stdout is not None
        for _ in range(SLEEPERS + 1):
            assert leader.stdout.readline() == b"\n"
        process = read_process(leader.pid)
        assert process is not None
        try:
            yield leader, Group(leader.pid, process.start_time, boot_id())
        finally:
            end_session(leader.pid, process.start_time)
            leader.kill()


def test_this_process_is_read_as_the_system_knows_it() -> None:
    process = read_process(os.getpid())
    assert process is not None
    assert (process.pid, process.group, process.session) == (
        os.getpid(),
        os.getpgrp(),
        os.getsid(0),
    )
    assert process.alive
    uptime_ticks = float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK")
    assert 0 < process.start_time <= uptime_ticks


@pytest.mark.parametrize("name", [") R 1 (", "a b", "S 1 2 3"])
def test_a_name_that_looks_like_fields_is_no_field(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "7").mkdir()
    rest = "T 1 70 700 " + " ".join(str(number) for number in range(7, 30))
    (tmp_path / "7" / "stat").write_text(f"7 ({name}) {rest}\n")
    monkeypatch.setattr(module, "PROC", tmp_path)
    process = read_process(7)
    assert process is not None
    assert dataclasses.astuple(process) == (7, 1, "T", 70, 700, 20, 22)


def test_a_pid_that_is_free_is_nobody() -> None:
    assert read_process(2**22 + 1) is None


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        process = read_process(child.pid)
        assert process is not None
        assert process.state == "Z"
        assert not process.alive
        assert dataclasses.replace(process, threads=2).alive  # only its main thread has ended
        assert members(child.pid, process.start_time) == []


def test_a_group_is_ended_whole_and_counted(
    session: tuple[subprocess.Popen[bytes], Group],
) -> None:
    leader, group = session
    assert len(members(group.session, group.start_time)) == SLEEPERS + 1
    assert end_group(group) == SLEEPERS + 1
    assert members(group.session, group.start_time) == []
    assert leader.wait(10) == -signal.SIGKILL
    assert end_group(group) == 0


def test_what_outlives_the_leader_is_ended(
    session: tuple[subprocess.Popen[bytes], Group],
) -> None:
    leader, group = session
    leader.kill()
    leader.wait(10)
    assert end_group(group) == SLEEPERS


def test_an_ignored_sigterm_helps_nobody(session: tuple[subprocess.Popen[bytes], Group]) -> None:
    leader, group = session
    os.kill(leader.pid, signal.SIGSTOP)  # nor does being stopped
    assert end_group(group) == SLEEPERS + 1


@pytest.mark.parametrize(
    "change", [{"boot_id": "another"}, {"start_time": 1}, {"start_time": 2**62}]
)
def test_another_boots_or_a_recycled_number_is_left_alone(
    change: dict[str, Any], session: tuple[subprocess.Popen[bytes], Group]
) -> None:
    leader, group = session
    assert end_group(dataclasses.replace(group, **change)) == 0
    assert leader.poll() is None
    assert len(members(group.session, group.start_time)) == SLEEPERS + 1


def test_who_was_there_before_the_recorded_start_is_a_stranger(
    session: tuple[subprocess.Popen[bytes], Group],
) -> None:
    leader, group = session
    leader.kill()
    leader.wait(10)
    assert end_group(dataclasses.replace(group, start_time=2**62)) == 0
    assert len(members(group.session, group.start_time)) == SLEEPERS


def test_a_look_that_takes_longer_than_the_limit_is_acted_upon(
    session: tuple[subprocess.Popen[bytes], Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a fork bomb one look may take a minute."""
    leader, group = session

    def slowly(number: int, start_time: int) -> list[Process]:
        found = members(number, start_time)
        time.sleep(0.3)
        return found

    monkeypatch.setattr(module, "members", slowly)
    assert end_session(group.session, group.start_time, limit=0.2) == SLEEPERS + 1
    assert leader.wait(10) == -signal.SIGKILL


def test_what_will_not_end_is_logged_after_a_bounded_time(
    session: tuple[subprocess.Popen[bytes], Group],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leader, group = session
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda group, number: None)  # as a process stuck in the kernel
        assert end_session(group.session, group.start_time, limit=0.05) == SLEEPERS + 1
    assert str(leader.pid) in caplog.text
    assert len(members(group.session, group.start_time)) == SLEEPERS + 1


def test_elsewhere_than_on_linux_there_is_a_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(CannotRun, match="Linux"):
        end_group(Group(1, 1, ""))


def test_a_switch_wakes_whoever_attaches_before_or_after() -> None:
    switch = StopSwitch()
    woken: list[int] = []
    switch.attach(lambda: woken.append(1))
    assert (woken, switch.is_set) == ([], False)
    switch.set()
    assert (woken, switch.is_set) == ([1], True)
    switch.detach()
    switch.set()
    assert woken == [1]
    switch.attach(lambda: woken.append(2))
    assert woken == [1, 2]
