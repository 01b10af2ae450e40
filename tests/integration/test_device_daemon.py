"""The daemon of a board as a process: kills, stops, time limits, and what it says when it cannot.

The witness is a file outside hwsync: a program writes there who it is and whom it started.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync.runner.processes import read_process
from tests.support.brokers import MosquittoBroker
from tests.support.lab import AS_ROOT, DEVICE, Lab
from tests.support.mqtt import Message, Watcher
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.waiting import wait_until

STOP_S = 8.0  # for a clean stop with a running program: far below the ten seconds it may take

# Writes the numbers of three processes in one line (itself, a child, a grandchild), and hangs.
FAMILY = """
import os, subprocess, time
child = subprocess.Popen(["sh", "-c", "sleep 100 & echo $!; wait"], stdout=subprocess.PIPE)
grandchild = int(child.stdout.readline())
print("so far", flush=True)
with open({witness!r}, "a") as file:
    file.write(f"{{os.getpid()}} {{child.pid}} {{grandchild}}\\n")
time.sleep(100)
"""

# Says one thing, waits (half a minute at most) for the test to open the gate, says another.
WAITING = """
import os, sys, time
print("first", flush=True)
for _ in range(3_000):
    if os.path.exists({gate!r}):
        break
    time.sleep(0.01)
print("last", file=sys.stderr)
"""


class Site(Lab):
    """A lab with somebody who sees every message, and one witness for all programs."""

    def __init__(self, watcher: Watcher, *parts: Any) -> None:
        super().__init__(*parts)
        self.watcher = watcher
        self.witness = self.folder / "witness"
        self.witness.touch()
        self.family: list[int] = []
        self.master = self.coordinator("--settle", "1")
        self.daemon = self.device()

    def request(self, id: str, program: str, **keys: object) -> None:
        self.pub("request", json.dumps({"program": program, "id": id, "timeout": 60, **keys}))

    def start_family(self, id: str, **keys: object) -> list[int]:
        """The processes of a program that is running now."""
        self.request(id, FAMILY.format(witness=str(self.witness)), **keys)
        wait_until(lambda: self.witness.read_text().endswith("\n"), what="the program's witness")
        self.family = [int(number) for number in self.witness.read_text().split()]
        assert len(self.family) == 3
        return self.family

    def reconfigure(self, text: str) -> None:
        self.heartbeat(online=True)  # before, nobody listens to the signal
        (self.folder / "device.toml").write_text(text)
        self.daemon.send_signal(signal.SIGHUP)

    def returned(self, id: str) -> dict[str, Any]:
        return self.watcher.wait_for_state("pi1", 3, id=id)

    def heartbeat(self, online: bool) -> dict[str, Any]:
        said = self.watcher.wait_for(is_heartbeat(online), topic="hw/pi1/heartbeat").json
        assert isinstance(said, dict)
        return said

    def assert_next_is_normal(self) -> None:
        """A command after all this runs as if nothing had been."""
        self.request("next", "print(6*7)")
        end = self.returned("next")
        assert (end["outcome"], end["ran"], end["hw_response"]) == ("ok", "yes", "42\n")


def is_heartbeat(online: bool) -> Callable[[Message], bool]:
    return lambda message: isinstance(message.json, dict) and message.json["online"] is online


def living(processes: list[int]) -> list[int]:
    found = [(pid, read_process(pid)) for pid in processes]
    return [pid for pid, process in found if process is not None and process.alive]


@pytest.fixture
def site(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
) -> Iterator[Site]:
    one = Site(watch(mosquitto), mosquitto, start, tmp_path)
    yield one
    for pid in living(one.family):
        os.kill(pid, signal.SIGKILL)


# -- a kill ---------------------------------------------------------------------------------------


def test_a_run_cut_off_by_a_kill_is_ended_reported_as_interrupted_and_not_repeated(
    site: Site,
) -> None:
    family = site.start_family("cut")
    leader = read_process(family[0])
    assert leader is not None
    # The fork server ends them as soon as the daemon is gone. It stands still: they are left over.
    os.kill(leader.parent, signal.SIGSTOP)
    try:
        site.daemon.kill()
        assert living(family) == family, "nothing is left: this would show nothing"
        site.device()
        end = site.returned("cut")
        assert (end["outcome"], end["ran"], end["boot"]) == ("interrupted", "maybe", 1)
        assert living(family) == []
    finally:
        os.kill(leader.parent, signal.SIGCONT)
    wait_until(lambda: not living([leader.parent]), what="the end of the old fork server")
    site.pub("analysis", "seen")
    site.watcher.wait_for_state("pi1", 0, id="cut")
    site.assert_next_is_normal()
    assert len(site.witness.read_text().splitlines()) == 1, "it ran twice"


def test_the_will_of_a_killed_daemon_is_its_retained_heartbeat(
    site: Site, watch: Callable[..., Watcher]
) -> None:
    alive = site.heartbeat(online=True)
    site.daemon.kill()
    site.heartbeat(online=False)
    kept = watch(site.broker, "hw/pi1/heartbeat").wait_for(lambda message: message.retain).json
    assert kept == {"online": False, "journal": alive["journal"], "boot": 1}
    after = site.watcher.mark()
    site.device()
    back = site.watcher.wait_for(is_heartbeat(True), topic="hw/pi1/heartbeat", after=after).json
    assert (back["journal"], back["boot"]) == (alive["journal"], 2)


def test_a_result_that_nobody_stored_is_said_again_by_the_next_life(site: Site) -> None:
    gate = site.folder / "gate"
    site.request("kept", WAITING.format(gate=str(gate)))
    site.watcher.wait_for(lambda message: True, topic="hw/pi1/output")
    site.master.kill()
    gate.touch()
    first = site.watcher.wait_for(lambda message: True, topic="hw/pi1/response").json
    site.daemon.kill()
    site.device()
    again = site.watcher.wait_for(
        lambda message: message.json["boot"] == 2, topic="hw/pi1/response"
    ).json
    assert again == first | {"boot": 2}
    site.coordinator("--settle", "1")
    end = site.returned("kept")
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("ok", "yes", "first\n")


# -- the end of a run -----------------------------------------------------------------------------


def test_at_its_time_limit_the_whole_family_is_ended_and_the_output_kept(site: Site) -> None:
    family = site.start_family("long", timeout=3)
    end = site.returned("long")
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("timeout", "yes", "so far\n")
    assert end["reason"] == "time limit of 3 s"
    assert living(family) == []


def test_a_cancelled_program_is_ended_and_ran(site: Site) -> None:
    family = site.start_family("unwanted")
    site.pub("cancel")
    end = site.returned("unwanted")
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("cancelled", "yes", "so far\n")
    assert living(family) == []


def test_a_reset_ends_the_program_and_its_late_account_corrects_the_record(site: Site) -> None:
    family = site.start_family("reset")
    site.pub("reset")
    first = site.watcher.wait_for_state("pi1", 0, id="reset")
    assert (first["outcome"], first["ran"]) == ("lost", "maybe")
    last = site.watcher.wait_for_status("pi1", lambda status: status["outcome"] == "cancelled")
    assert (last["id"], last["state"], last["ran"]) == ("reset", 0, "yes")
    assert living(family) == []
    site.assert_next_is_normal()


def test_a_stopped_daemon_ends_its_program_says_so_and_leaves(
    site: Site, watch: Callable[..., Watcher]
) -> None:
    site.reconfigure("stop_s = 0.5")
    site.daemon.wait_for_log("new configuration counts")
    family = site.start_family("stopped")
    site.daemon.terminate()
    assert site.daemon.wait(STOP_S) == 0
    assert living(family) == []
    end = site.returned("stopped")
    assert (end["outcome"], end["ran"], end["hw_response"]) == ("interrupted", "maybe", "so far\n")
    kept = watch(site.broker, "hw/pi1/heartbeat").wait_for(lambda message: message.retain).json
    # The will knows neither: this is the daemon's own last word.
    assert (kept["online"], kept["busy"]) == (False, None)
    assert "Traceback" not in site.daemon.stderr


def test_a_stopped_daemon_lets_its_program_end(site: Site) -> None:
    gate = site.folder / "gate"
    site.request("patient", WAITING.format(gate=str(gate)))
    site.watcher.wait_for(lambda message: "first" in message.text, topic="hw/pi1/output")
    site.daemon.terminate()
    gate.touch()
    assert site.daemon.wait(STOP_S) == 0
    end = site.returned("patient")
    assert (end["outcome"], end["ran"], end["stderr"]) == ("ok", "yes", "last\n")


def test_a_second_signal_ends_the_program_at_once(site: Site) -> None:
    family = site.start_family("twice")
    site.daemon.send_signal(signal.SIGTERM)
    site.daemon.wait_for_log("stopping")
    site.daemon.send_signal(signal.SIGTERM)
    assert site.daemon.wait(STOP_S) == 0
    assert living(family) == []
    assert site.returned("twice")["outcome"] == "interrupted"


def test_another_configuration_counts_once_nothing_runs(site: Site) -> None:
    gate = site.folder / "gate"
    site.request("before", WAITING.format(gate=str(gate)))
    site.watcher.wait_for(lambda message: "first" in message.text, topic="hw/pi1/output")
    site.reconfigure("[programs.environment]\nGREETING = 'hello'")
    gate.touch()
    assert site.returned("before")["outcome"] == "ok"
    site.pub("analysis", "seen")
    site.daemon.wait_for_log("new configuration counts")
    site.request("after", "import os; print(os.environ['GREETING'])")
    assert site.returned("after")["hw_response"] == "hello\n"


def test_a_configuration_that_systemd_hands_over_is_read_by_the_next_process(site: Site) -> None:
    site.daemon.terminate()
    site.daemon.wait(STOP_S)
    site.daemon = site.device(variables={"CREDENTIALS_DIRECTORY": str(site.folder)})
    gate = site.folder / "gate"
    site.request("before", WAITING.format(gate=str(gate)))
    site.watcher.wait_for(lambda message: "first" in message.text, topic="hw/pi1/output")
    site.reconfigure("no configuration at all")  # what stands there now is not looked at
    gate.touch()
    assert site.returned("before")["outcome"] == "ok"
    site.pub("analysis", "seen")
    assert site.daemon.wait(STOP_S) == 0
    assert "the next start has the new configuration" in site.daemon.stderr


def test_a_configuration_that_is_wrong_changes_nothing(site: Site) -> None:
    site.reconfigure("[limits]\nmemory = 1")
    site.daemon.wait_for_log("did you mean limits.memory_mb")
    site.assert_next_is_normal()


def test_a_stop_while_it_still_starts_is_a_clean_one(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    file = tmp_path / "device.toml"
    os.mkfifo(file)  # whoever reads it waits until something is written
    command = [*DEVICE, "--config", str(file), "--user", "pi1", *AS_ROOT]
    command += ["--state-dir", str(tmp_path / "device")]
    starting = start(command, variables={"HWSYNC_BROKER": f"mqtt://{LOOPBACK}:{free_port()}"})
    with os.fdopen(wait_until(lambda: opened(file), what="it reads its file"), "w") as pipe:
        starting.send_signal(signal.SIGTERM)
        pipe.write("stop_s = 1\n")
    assert starting.wait(STOP_S) == 0
    assert "stopping" in starting.stderr


def opened(fifo: Path) -> int | None:
    """Its end for writing, once somebody reads it."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


# -- into and out of a program --------------------------------------------------------------------


def test_live_output_is_seen_while_the_program_still_runs(site: Site) -> None:
    gate = site.folder / "gate"
    site.request("live", WAITING.format(gate=str(gate)))
    piece = site.watcher.wait_for(lambda message: True, topic="hw/pi1/output").json
    assert (piece["id"], piece["n"], piece["stream"]) == ("live", 0, "stdout")
    assert site.watcher.statuses("pi1")[-1]["state"] < 3
    gate.touch()
    end = site.returned("live")
    assert (end["hw_response"], end["stderr"]) == ("first\n", "last\n")
    # How a text is divided among the pieces is chance.
    pieces = [message.json for message in site.watcher.messages("hw/pi1/output")]
    assert [piece["n"] for piece in pieces] == list(range(len(pieces)))
    for stream, text in (("stdout", "first\n"), ("stderr", "last\n")):
        assert "".join(piece["text"] for piece in pieces if piece["stream"] == stream) == text


def test_standard_input_and_arguments_arrive(site: Site) -> None:
    program = "import sys; print([sys.argv, sys.stdin.read()])"
    site.request("given", program, stdin="ä\nb", args=["-x", "", "two words"])
    assert (
        site.returned("given")["hw_response"]
        == "[['program.py', '-x', '', 'two words'], 'ä\\nb']\n"
    )


def test_no_program_sees_what_is_for_the_daemon_alone(site: Site) -> None:
    site.daemon.terminate()
    site.daemon.wait()
    secret = {"HWSYNC_BROKER": f"mqtt://bob:s3cret@{LOOPBACK}:{site.broker.port}", "MINE": "kept"}
    secret |= {"STATE_DIRECTORY": str(site.folder / "device"), "NOTIFY_SOCKET": "/no/such"}
    site.start([*DEVICE, "--user", "pi1", *AS_ROOT], variables=secret, name="with-login")
    site.request("c1", "import os\nprint(sorted(os.environ))\nprint(os.environ['MINE'])")
    said = site.watcher.wait_for_state("pi1", 3, id="c1")["hw_response"]
    assert said.endswith("kept\n")
    assert "HOME" in said
    for name in ("HWSYNC_BROKER", "STATE_DIRECTORY", "NOTIFY_SOCKET"):
        assert name not in said


def test_a_program_whose_start_the_disk_refuses_never_begins(site: Site) -> None:
    site.heartbeat(online=True)
    with closing(sqlite3.connect(site.folder / "device" / "journal.db")) as db:
        db.execute(
            "create trigger full before update on entries when new.state = 'started' "
            "begin select raise(abort, 'database or disk is full'); end"
        )
        site.request("refused", f"open({str(site.witness)!r}, 'a').write('ran\\n')")
        end = site.returned("refused")
        db.execute("drop trigger full")
    assert (end["outcome"], end["ran"]) == ("rejected", "no")
    assert end["reason"] == "the journal cannot be written: database or disk is full"
    assert site.witness.read_text() == ""
    site.pub("analysis", "seen")
    site.watcher.wait_for_state("pi1", 0, id="refused")
    site.assert_next_is_normal()


# -- what it cannot do ----------------------------------------------------------------------------


@pytest.fixture
def refuse(start: Callable[..., Process], tmp_path: Path) -> Callable[..., str]:
    """What the daemon says when it ends by itself, with that exit code and nothing more."""

    def refused(code: int, *options: str) -> str:
        process = start(
            [*DEVICE, "--state-dir", str(tmp_path / "device"), *options],
            name="device",
            variables={"HWSYNC_BROKER": f"mqtt://{LOOPBACK}:{free_port()}"},
        )
        assert process.wait() == code
        assert process.stdout == ""
        assert "Traceback" not in process.stderr
        return process.stderr

    return refused


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_root_is_refused_unless_it_is_allowed(refuse: Callable[..., str], tmp_path: Path) -> None:
    said = refuse(2, "--user", "pi1")
    assert said.startswith("hwsync-device: started as root: ")
    assert "--allow-root" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--user", "pi/#"], "'pi/#' is no board's name"),
        (["--user", ""], "'' is no board's name"),
        (["--broker", "http://pi:1883"], "'http://pi:1883' is no broker's address (such as mqtt:"),
        (["--broker", "pi1"], "'pi1' is no broker's address"),
        (["--broker", "mqtt://pi:99999"], "the broker's address is no URL"),
        (["--ca", "/ca.pem"], "is not encrypted, so --ca"),
        (["--broker", "mqtts://pi", "--key", "k"], "a key without its certificate"),
        (["--broker", "mqtt://u:secret@pi"], "a password in --broker is seen by"),
        (["--max-timeout", "0"], "--max-timeout must be 0.1 to 2592000 seconds"),
        (["--max-timeout", "nan"], "--max-timeout must be 0.1 to 2592000 seconds"),
        (["--root", "a/#"], "'a/#' cannot be the root of the topics"),
        (["--credentials", "/nowhere"], "two lines: user, password"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    refuse: Callable[..., str], options: list[str], message: str
) -> None:
    said = refuse(2, *AS_ROOT, *(["--user", "pi1"] if "--user" not in options else []), *options)
    assert said.startswith("hwsync-device: ")
    assert message in said
    assert said.count("\n") == 1
    assert "secret" not in said


@pytest.mark.parametrize("content", [b"", b"only\n", b"\xff\n\xff\n"], ids=["none", "one", "bytes"])
def test_credentials_without_two_lines_of_text_are_refused(
    refuse: Callable[..., str], tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "credentials"
    file.touch(0o600)
    file.write_bytes(content)
    said = refuse(2, *AS_ROOT, "--user", "pi1", "--credentials", str(file))
    assert said.startswith(f"hwsync-device: {file} ")
    assert "two lines: user, password" in said
    assert said.count("\n") == 1


def test_a_second_daemon_on_one_journal_ends_and_the_first_one_goes_on(
    site: Site, refuse: Callable[..., str], tmp_path: Path
) -> None:
    site.heartbeat(online=True)
    said = refuse(1, "--user", "pi1", "--broker", site.url, *AS_ROOT)
    folder = tmp_path / "device"
    assert said == (
        f"hwsync-device: another hwsync-device uses {folder} "
        "(stop it, or take another --state-dir)\n"
    )
    site.assert_next_is_normal()


# -- login ----------------------------------------------------------------------------------------


def test_the_daemon_logs_in_with_its_credentials_and_not_without(
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
    watch: Callable[..., Watcher],
    tmp_path: Path,
) -> None:
    accounts = tmp_path / "accounts"
    tool = require_program("mosquitto_passwd", "mosquitto")
    subprocess.run([tool, "-b", "-c", str(accounts), "pi1", "right"], check=True, timeout=30)
    accounts.chmod(0o644)
    broker = start_mosquitto(extra=["allow_anonymous false", f"password_file {accounts}"])
    watcher = watch(broker, username="pi1", password="right")

    def daemon(password: str) -> Process:
        file = tmp_path / password
        file.touch(0o600)
        file.write_text(f"pi1\n{password}\n")
        command = [*DEVICE, "--user", "pi1", "--broker", broker.url, *AS_ROOT]
        command += ["--state-dir", str(tmp_path / f"state-{password}"), "--credentials", str(file)]
        return start(command, name=password)

    wrong = daemon("wrong")
    wrong.wait_for_log("the broker refused the connection")
    assert watcher.messages("hw/pi1/heartbeat") == []
    wrong.stop()
    daemon("right")
    watcher.wait_for(is_heartbeat(True), topic="hw/pi1/heartbeat")


# -- what it needs --------------------------------------------------------------------------------


def test_the_daemon_needs_neither_database_layer_nor_command_line_nor_broker(
    environment_of: Callable[..., dict[str, str]],
) -> None:
    source = (
        "import sys, hwsync.device.service\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment_of(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert {"hwsync", "paho"} <= loaded
    assert loaded & {"peewee", "playhouse", "click", "amqtt"} == set()
