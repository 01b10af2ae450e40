"""Whatever a program, a payload, a topic or a name says: no terminal and no log obeys it."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import AmqttBroker
from tests.support.fuzz_packets import DISCONNECT, connect, publish
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC, Lab
from tests.support.mqtt import Watcher
from tests.support.ports import LOOPBACK
from tests.support.processes import Process, read_terminal
from tests.support.terminal import dangers
from tests.support.waiting import PATIENCE, wait_until

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\x08\x0c\x0b\u202eexe.txt\u2066\u200b\u2028"
LINES = f"{EVIL}\r\n2026-01-01T00:00:00.000Z INFO coordinator forged\n\tend"
COLOURED = "\x1b[1;31mred\x1b[0m 5%\r10%\x1b[3"  # what may pass, and what looks like it
SGR = re.compile(r"\x1b\[[0-9:;]*m")
TOGETHER = 8  # commands
PROGRAM = f"import sys\nsys.stdout.write({LINES!r})\nsys.stderr.write({LINES!r})\n"


def clean(process: Process) -> str:
    """What it said, once it has ended; nothing of it steers a terminal."""
    process.wait(30)
    for text in (process.stdout, process.stderr):
        assert dangers(text, "\n") == [], process.account()
    assert "Traceback" not in process.stderr
    assert "this is a bug" not in process.stderr
    return process.stdout + process.stderr


@pytest.fixture
def lab(
    amqtt_broker: AmqttBroker, start: Callable[..., Process], tmp_path: Path,
    watch: Callable[..., Watcher],
) -> Lab:  # fmt: skip
    """No broker here takes a topic with control characters, so that what is evil are payloads."""
    lab = Lab(amqtt_broker, start, tmp_path)
    lab.coordinator("--settle", "0")
    lab.device()
    watch(amqtt_broker, "hw/pi1/heartbeat").wait_for(lambda message: True, what="the device")
    return lab


def say(lab: Lab, *messages: tuple[str, bytes | str]) -> None:
    """Publish what ``mosquitto_pub`` would not."""
    with socket.create_connection((LOOPBACK, lab.broker.port), PATIENCE) as line:
        line.sendall(connect("hostile"))
        assert line.recv(4)
        for mid, (topic, payload) in enumerate(messages, 1):
            data = payload.encode() if isinstance(payload, str) else payload
            line.sendall(publish(topic, data, 1, mid))
            assert line.recv(4)[:1] == b"\x40"
        line.sendall(DISCONNECT)


def test_no_command_lets_a_hostile_record_reach_a_terminal(
    lab: Lab, watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    db = ["--db", str(lab.db)]
    options = ["--meta", json.dumps({EVIL: EVIL}), "--arg", EVIL, "--analysis", EVIL + "\nsecond"]
    watcher = watch(lab.broker)
    ran = lab.cli("run", "pi1", "--id", "c1", "-c", PROGRAM, *options)
    assert ran.wait(30) == 0, ran.account()
    # Into a file it goes as it is.
    assert (tmp_path / "cli.stdout").read_bytes() == LINES.encode()
    assert (tmp_path / "cli.stderr").read_bytes() == LINES.encode()
    # A user whose device is forged: its reason, its heartbeat and its errors.
    device = {"id": "c2", "journal": "j2", "boot": 1}
    sent = lab.cli("send", "pi2", "--wait-for-board", "--id", "c2", "-c", f"print({EVIL!r})")
    clean(sent)
    end = {**device, "outcome": "killed", "reason": EVIL, "response": LINES, "stderr": LINES}
    beat = {**device, "online": True, "busy": EVIL, "refusing": EVIL, "board": EVIL,
            "version": EVIL, "time": 1.7e9}  # fmt: skip
    status = {**watcher.statuses("pi1")[-1], "id": EVIL, "seq": 1, "reason": EVIL}
    say(
        lab,
        ("hw/pi2/heartbeat", json.dumps(beat)),
        ("hw/pi2/collected", json.dumps(device)),
        ("hw/pi2/response", json.dumps(end)),
        ("hw/pi2/request", json.dumps({"program": "1", EVIL: 1})),
        ("hw/pi2/request", json.dumps({"program": "1", "analysis": EVIL})),
        ("hw/pi2/cancel", EVIL),
        ("hw/pi2/response", b"{" + EVIL.encode() + b"\xff"),
        ("hw/pi3/status", json.dumps(status)),
    )
    watcher.wait_for_status("pi2", lambda status: status["outcome"] == "killed")

    records = [
        ["show", "pi1", "c1", *db], ["show", "pi2", "c2", *db], ["history", "pi2", "--log", *db],
        ["status", "pi1"], ["status", "pi2"], ["status"], ["doctor", "pi2", *db],
        ["cancel", "pi2", "c2"], ["check-db", *db], ["show", "pi1", "none", *db],
    ]  # fmt: skip
    others = [
        ["history", "pi1", "--log", *db], ["analyse", "pi1", EVIL], ["reset", "pi2"],
        ["backup", str(tmp_path / EVIL), *db], ["restore", str(tmp_path / EVIL), *db],
        ["forget", "pi1", *db], ["run", "pi1", "-c", "1", "--id", EVIL], ["run", EVIL, "-c", "1"],
        ["run", "pi1", f"/no/{EVIL}"], ["run", "pi1", "-c", "1", "--meta", f"{{{EVIL}"],
        ["run", "pi1", "-c", "1", "--timeout", EVIL], [EVIL], ["status", f"--{EVIL}"],
        ["status", "--broker", f"mqtt://{EVIL}@{EVIL}"], ["status", "--root", f"{EVIL}/+"],
        ["history", "pi1", "--log", "--db", str(tmp_path / f"no{EVIL}")], ["broker", f"/no/{EVIL}"],
        ["status", "--credentials", f"/no/{EVIL}"],
    ]  # fmt: skip
    said = ""
    commands = [*records, *others, *([*arguments, "--json"] for arguments in records)]
    for some in (commands[at : at + TOGETHER] for at in range(0, len(commands), TOGETHER)):
        for process in [lab.cli(*arguments) for arguments in some]:
            said += clean(process)
            if "--json" in process.command and process.stdout:
                assert process.stdout.isascii()
                assert [json.loads(line) for line in process.stdout.splitlines()]
    # It was there, and is shown as escapes.
    for escaped in (r"\x1b]0;owned\x07", r"\x9b31m", r"\u202eexe", r"\r", r"\x7f"):
        assert escaped in said
    whole = clean(lab.cli("run", "pi1", "--json", "-c", PROGRAM))
    assert json.loads(whole)["hw_response"] == LINES

    for process in lab.processes.values():
        for text in (process.stdout, process.stderr):
            assert dangers(text, "\n") == []
            assert "\n2026-01-01T00:00:00.000Z" not in text
    assert r"hw/pi2\r\nforged" not in lab.processes["coordinator"].stderr  # nobody's topic
    assert r"\x1b]0;owned" in lab.processes["coordinator"].stderr
    assert dangers(lab.broker.log, "\n") == []


def test_watching_shows_no_escape(lab: Lab, start: Callable[..., Process]) -> None:
    watching = lab.cli("status", "--watch")
    wait_until(lambda: "pi1" in watching.stdout, what="the first line")
    say(lab, ("hw/pi3/heartbeat", b"{}"), ("hw/pi1/request", PROGRAM))
    wait_until(lambda: watching.stdout.count("pi1") > 2, what="the changes")
    watching.interrupt()
    clean(watching)


@pytest.mark.parametrize(("options", "escaped"), [([], True), (["--raw"], False)])
def test_a_program_steers_a_terminal_only_where_it_may(
    lab: Lab, environment_of: Callable[..., dict[str, str]], options: list[str], escaped: bool
) -> None:
    program = f"{PROGRAM}sys.stdout.write({COLOURED!r})\nsys.stderr.write('\x1b[32m')\n"
    terminal, other = pty.openpty()
    try:
        done = subprocess.Popen(
            [*HWSYNC, "run", "pi1", *options, "-c", program],
            stdin=subprocess.DEVNULL, stdout=other, stderr=other, start_new_session=True,
            env=environment_of(HWSYNC_BROKER=lab.url),
        )  # fmt: skip
        os.close(other)
        text = read_terminal(terminal)
        assert done.wait(30) == 0
    finally:
        os.close(terminal)
    assert ("\x1b]0;owned\x07" in text) != escaped
    assert (r"\x1b]0;owned\x07" in text) == escaped
    # Colours and progress bars pass, and nothing else does; hwsync's own line is as ever.
    assert "\x1b[1;31mred\x1b[0m 5%\r10%" in text
    if escaped:
        assert dangers(SGR.sub("", text), "\n\t\r") == []
        assert text.count("\tend") == 2
        assert r"\x1b[3" in SGR.sub("", text)
        output, _, hint = text.partition("hwsync: the escapes")
        assert output.endswith("\n")
        assert SGR.findall(output)[-1] == "\x1b[0m"
        assert hint.count("--raw") == 1
        assert dangers(hint, "\n") == []
    else:
        assert "--raw" not in text


def test_a_board_says_its_configuration_without_steering_a_terminal(
    lab: Lab, start: Callable[..., Process], tmp_path: Path
) -> None:
    file = tmp_path / "device.toml"
    for text in (f"root = {json.dumps('r' + EVIL)}", f"{json.dumps(EVIL)} = 1",
                 f"[programs]\nrunner = {json.dumps(EVIL)}",
                 f"broker = {json.dumps('mqtt:/' + EVIL)}"):  # fmt: skip
        file.write_text(text)
        for options in ([], ["--check"], ["--check", "--json"]):
            if "root" in text and "--check" not in options:
                continue  # that would serve
            command = [*DEVICE, "--config", str(file), "--user", "pi9", *options, *AS_ROOT,
                       "--state-dir", str(tmp_path / "state")]  # fmt: skip
            done = start(command, name="check")
            said = clean(done)
            if "broker" in text:  # of what might hold a login nothing is shown
                assert "this is no broker's address" in said
            else:
                assert r"\x1b]0;owned" in said or r"\u001b]0;owned" in said
    assert "owned" in clean(start([*DEVICE, EVIL], name="unknown"))
