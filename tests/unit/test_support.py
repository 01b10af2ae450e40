"""The tests' own tools fail when they should: one that cannot fail lets every test pass."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process, environment
from tests.support.programs import require_program
from tests.support.waiting import wait_until

Start = Callable[..., Process]
FOREVER = "import signal; print('up', flush=True); signal.pause()"


def test_wait_until_returns_the_condition_s_value() -> None:
    values = iter([None, 0, "now"])
    assert wait_until(lambda: next(values)) == "now"


def test_wait_until_fails_with_what_it_waited_for() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"not within 0 s: the moon is green"):
        wait_until(lambda: False, timeout=0, what="the moon is green")


def test_wait_until_asks_for_the_description_only_when_it_fails() -> None:
    seen: list[int] = []
    with pytest.raises(pytest.fail.Exception, match="after 1 look"):
        wait_until(lambda: seen.append(1), 0, lambda: f"after {len(seen)} look")


def test_free_ports_differ_are_free_and_not_in_the_outgoing_range() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < lowest_outgoing
    with socket.socket() as server:
        server.bind((LOOPBACK, ports[-1]))


def test_tests_that_run_at_a_time_are_never_given_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker's port is free between its kill and its restart, and must be nobody else's then."""
    given: list[set[int]] = []
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    for worker in ("gw0", "gw1", "gw2"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        given.append({free_port() % 3 for _ in range(20)})
    assert given == [{0}, {1}, {2}]


def test_a_process_s_streams_are_kept_apart(start: Start) -> None:
    process = start(
        [
            sys.executable,
            "-c",
            "import sys; print(input()); print(2, file=sys.stderr); sys.exit(3)",
        ],
        stdin=b"given\n",
    )
    assert process.wait() == 3
    assert (process.stdout, process.stderr) == ("given\n", "2\n")


def test_a_log_line_is_waited_for(start: Start) -> None:
    process = start([sys.executable, "-c", FOREVER])
    assert process.wait_for_log(r"^u(p)$", stream="stdout").group(1) == "p"
    assert process.running
    process.interrupt()
    assert process.wait() != 0


def test_a_process_that_ends_without_the_line_fails_the_test_at_once(start: Start) -> None:
    process = start([sys.executable, "-c", "import sys; sys.exit('no such luck')"], name="unlucky")
    with pytest.raises(pytest.fail.Exception, match="no such luck"):
        process.wait_for_log("ready", timeout=60)


def test_a_line_that_never_comes_fails_the_test(start: Start) -> None:
    process = start([sys.executable, "-c", FOREVER], name="silent")
    process.wait_for_log("up", stream="stdout")
    with pytest.raises(pytest.fail.Exception, match=r"'ready' in silent's stderr"):
        process.wait_for_log("ready", timeout=0)


def test_a_process_that_does_not_end_fails_the_test(start: Start) -> None:
    process = start([sys.executable, "-c", FOREVER], name="lasting")
    with pytest.raises(pytest.fail.Exception, match="lasting did not end"):
        process.wait(timeout=0)


def test_kill_is_a_crash_and_stop_ends_what_it_left(start: Start) -> None:
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}])\n"
        "print(child.pid, flush=True); child.wait()"
    )
    process = start([sys.executable, "-c", parent])
    child = int(process.wait_for_log(r"^(\d+)$", stream="stdout").group(1))
    process.wait_for_log("^up$", stream="stdout")
    process.kill()
    assert process.exit_code == -signal.SIGKILL
    assert _alive(child)
    process.stop()
    wait_until(lambda: not _alive(child), what="the child of a killed process is ended")


def test_two_processes_of_one_name_keep_their_output(start: Start) -> None:
    first = start([sys.executable, "-c", "print('first')"], name="daemon")
    first.wait()
    second = start([sys.executable, "-c", "print('second')"], name="daemon")
    second.wait()
    assert (first.stdout, second.stdout) == ("first\n", "second\n")


def test_a_person_s_settings_do_not_reach_a_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSYNC_BROKER", "mqtt://somewhere")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/hwsync")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    found = environment(tmp_path, {"HWSYNC_ROOT": "lab"})
    assert "HWSYNC_BROKER" not in found
    assert "STATE_DIRECTORY" not in found
    assert "PYTHONUNBUFFERED" not in found
    assert found["HWSYNC_ROOT"] == "lab"
    assert found["HOME"] == str(tmp_path)
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_missing_program_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-package"):
        require_program("no-such-program", "no-such-package")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is missing"):
        require_program("no-such-program", "no-such-package")


def _alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
