"""``hwsync-device --check``: what it says where all is well, and where something is not."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.lab import AS_ROOT, DEVICE, Lab
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process

BOUND_S = 15.0  # for everything together

Check = Callable[..., Process]


@pytest.fixture
def check(start: Callable[..., Process], tmp_path: Path) -> Check:
    """The check of a board with this configuration; it has ended."""
    (tmp_path / "device.toml").touch()

    def checked(*options: str, text: str = "", **variables: str) -> Process:
        file = tmp_path / "device.toml"
        file.write_text(text)
        command = [*DEVICE, "--check", "--user", "pi1", "--config", str(file), *AS_ROOT]
        command += ["--state-dir", str(tmp_path / "device"), *options]
        process = start(command, name="check", variables=variables)
        process.wait(BOUND_S)
        assert "Traceback" not in process.stderr
        return process

    return checked


def test_all_is_well(check: Check, mosquitto: MosquittoBroker, tmp_path: Path) -> None:
    url = f"mqtt://bob:s3cret@{LOOPBACK}:{mosquitto.port}"
    text = "max_timeout_s = 60\n[programs.environment]\nAPI_KEY = 's3cret'\nLANG = 'C'\n"
    done = check(text=text, HWSYNC_BROKER=url)
    assert done.exit_code == 0, done.account()
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert f"ok     max_timeout_s: 60, from {tmp_path / 'device.toml'}" in lines
    where = tmp_path / "device.toml"
    assert f"ok     programs.environment: API_KEY, LANG, from {where}" in lines
    assert f"ok     broker: mqtt://{LOOPBACK}:{mosquitto.port}, from HWSYNC_BROKER" in lines
    for name in ("clock", "journal", "programs"):
        assert any(line.startswith(f"ok     {name}: ") for line in lines)
    assert "s3cret" not in done.stdout + done.stderr
    assert not (tmp_path / "device").exists(), "a check changes nothing"


def test_what_is_wrong_is_an_error_with_its_cure(check: Check, tmp_path: Path) -> None:
    text = "[programs]\npython = '/no/such/python'\n"
    done = check("--json", text=text, HWSYNC_BROKER=f"mqtt://{LOOPBACK}:{free_port()}")
    assert done.exit_code == 1
    found = {line["check"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert found["clock"]["result"] == "ok"
    assert found["broker"]["result"] == "error"
    assert "--broker" in found["broker"]["cure"]
    assert found["programs"]["result"] == "error"
    assert "/no/such/python" in found["programs"]["found"]


def test_a_broker_that_never_answers_holds_nobody_up(check: Check) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        began = time.monotonic()
        done = check(HWSYNC_BROKER=f"mqtt://{LOOPBACK}:{silent.getsockname()[1]}")
    assert time.monotonic() - began < BOUND_S
    assert done.exit_code == 1
    assert "error  broker" in done.stdout


def test_a_journal_in_use_is_not_touched(
    check: Check, mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path
) -> None:
    lab = Lab(mosquitto, start, tmp_path)
    lab.device().wait_for_log("connected to")
    done = check("--broker", lab.url)
    assert done.exit_code == 0, done.account()
    assert "in use by a hwsync-device that runs now" in done.stdout
    assert lab.processes["device"].running


def test_a_password_in_the_file_is_refused(check: Check) -> None:
    done = check(text="broker = 'mqtt://bob:s3cret@pi'\n")
    assert done.exit_code == 2
    assert "a password in broker is seen by whoever may read this file" in done.stderr
    assert "credentials" in done.stderr
    assert "s3cret" not in done.stderr
