"""What a person sees who types the README's lines: whole cycles over real brokers and processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import wait_until

FIELDS = [
    "id", "state", "epoch", "seq", "journal", "boot", "start_at", "cancelling", "settled", "user",
    "login", "command", "time", "deadline", "hw_command", "hw_response", "server_analysis",
    "outcome", "ran", "reason", "exit_code", "stderr", "duration", "started", "start_error",
    "clock_bound", "truncated", "queued", "name", "order", "start_life", "files", "not_kept",
    "ran_on", "analyser", "analysed_by", "no_analysis",
]  # fmt: skip


class Watched(Lab):
    """A lab with somebody who sees every message."""

    def __init__(self, watcher: Watcher, *parts: Any) -> None:
        super().__init__(*parts)
        self.watcher = watcher

    def state(self, state: int, *, id: str | None = None) -> dict[str, Any]:
        return self.watcher.wait_for_state("pi1", state, id=id)

    def errors(self) -> list[dict[str, Any]]:
        return [message.json for message in self.watcher.messages("hw/pi1/error")]


@pytest.fixture
def lab(broker: Broker, start: Callable[..., Process], tmp_path: Path,
        watch: Callable[..., Watcher]) -> Watched:  # fmt: skip
    return Watched(watch(broker), broker, start, tmp_path)


@pytest.mark.parametrize("topic", ["command", "request"])
def test_a_program_from_a_terminal_is_run_by_a_device(lab: Watched, topic: str) -> None:
    lab.coordinator()
    lab.device()
    wait_until(lambda: lab.watcher.messages("hw/pi1/heartbeat"), what="the device's heartbeat")
    lab.pub(topic, "print(6*7)")
    last = lab.state(3)
    # A device that waits for its answer for a second asks again, and is told the same again.
    moves = {status["seq"]: status["state"] for status in lab.watcher.statuses("pi1")}
    assert list(moves.values()) == [1, 2, 3]
    assert list(last) == FIELDS
    assert (last["hw_response"], last["outcome"], last["ran"]) == ("42\n", "ok", "yes")
    assert (last["exit_code"], last["stderr"], last["hw_command"]) == (0, "", "print(6*7)")
    responses = lab.watcher.messages("hw/pi1/response")
    assert responses
    assert responses[0].json["response"] == "42\n"
    lab.pub("analysis", "right")
    end = lab.state(0)
    assert end["server_analysis"] == "right"
    assert end["command"] == "server_analysis_provide"


def test_a_cycle_wholly_by_hand(lab: Watched) -> None:
    lab.coordinator()
    lab.pub("request", "print(6*7)")
    lab.state(1)
    lab.pub("collected")
    assert lab.state(2)["journal"] is None
    lab.pub("response", "forty-two")
    returned = lab.state(3)
    assert (returned["hw_response"], returned["outcome"], returned["ran"]) == (
        "forty-two", "ok", "yes")  # fmt: skip
    lab.pub("analysis", "right")
    assert lab.state(0)["server_analysis"] == "right"
    assert lab.errors() == []


REFUSALS: list[tuple[int, str, str, bool, str]] = [
    (0, "collected", "", False, "wrong_state"),
    (0, "response", "x", False, "wrong_state"),
    (0, "analysis", "x", False, "wrong_state"),
    (0, "cancel", "", False, "wrong_state"),
    (1, "request", "x", False, "busy"),
    (1, "command", "x", False, "busy"),
    (1, "response", "x", False, "wrong_state"),
    (1, "analysis", "x", False, "wrong_state"),
    (1, "cancel", '{"id":"c1"}', True, "retained"),
    (1, "reset", '{"id":"c1","queue":true}', True, "retained"),
    (2, "request", "x", False, "busy"),
    (2, "collected", "", False, "not_current"),
    (2, "collected", '{"id":"c1","journal":"other","boot":1}', False, "not_current"),
    (2, "response", "x", False, "wrong_state"),
    (2, "analysis", "x", False, "wrong_state"),
    (3, "request", "x", False, "busy"),
    (3, "collected", "", False, "wrong_state"),
    (3, "response", "x", False, "wrong_state"),
    (3, "cancel", "", False, "wrong_state"),
    (0, "request", '{"program":"x","id":"c1"}', False, "id_reused"),
    (0, "cancel", '{"id":"never"}', False, "not_current"),
    (0, "request", '{"program":"x","colour":1}', False, "unknown_field"),
    (0, "request", '{"program":"x","queue":true}', False, "bad_payload"),
    (0, "request", '{"program":"x","start":{"at":1}}', False, "bad_payload"),
    (0, "request", '{"program":"x","timeout":1e999}', False, "bad_payload"),
    (0, "request", '{"program":', False, "bad_payload"),
    (0, "request", "x" * (256 * 1024 + 1), False, "too_large"),
    (0, "request", "x", True, "retained"),
]


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_every_refusal_leaves_the_record_and_says_why(lab: Watched) -> None:
    lab.coordinator()
    reach = {
        1: ("request", '{"program":"print(1)","id":"c1"}'),
        2: ("collected", '{"id":"c1","journal":"j1","boot":1}'),
        3: ("response", '{"id":"c1","journal":"j1","boot":1,"outcome":"ok"}'),
    }
    first = [case for case in REFUSALS if case[0] == 0 and case[4] == "wrong_state"]
    _refuse(lab, first, None)
    for state, (kind, payload) in reach.items():
        lab.pub(kind, payload)
        record = lab.state(state)
        _refuse(lab, [case for case in REFUSALS if case[0] == state], record)
    lab.pub("analysis", "right")
    record = lab.state(0, id="c1")
    _refuse(lab, [case for case in REFUSALS if case[0] == 0], record)
    history = lab.cli("history", "pi1", "--log", "--db", str(lab.db), "--json")
    assert history.wait() == 0
    rows = [json.loads(line) for line in history.stdout.splitlines()]
    refused = [row["error"] for row in rows if "error" in row]
    assert len(refused) == len(lab.errors())
    assert refused == [error["error"] for error in lab.errors()]


def _refuse(lab: Watched, cases: list[tuple[int, str, str, bool, str]],
            record: dict[str, Any] | None) -> None:  # fmt: skip
    for state, kind, payload, retain, code in cases:
        before = len(lab.errors())
        lab.pub(kind, payload, retain=retain)
        wait_until(lambda n=before: len(lab.errors()) > n, what=f"the error {code} for {kind}")
        error = lab.errors()[-1]
        assert error["error"] == code, (state, kind, payload[:60], error)
        assert error["message"]
        assert error["hint"]
        if record is not None:
            assert lab.watcher.statuses("pi1")[-1] == record
        if retain:
            lab.pub(kind, "", retain=True)


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_groups_and_bad_users_are_refused(lab: Watched) -> None:
    lab.coordinator()
    lab.pub("request", "x", user="@all")
    lab.pub("request", "x", user="-pi")
    for user, code in (("@all", "not_allowed"), ("-pi", "bad_user")):
        error = lab.watcher.wait_for(
            lambda message: True, topic=f"hw/{user}/error", what=f"an error for {user}"
        )
        assert error.json["error"] == code


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_run_keeps_the_streams_apart_and_ends_with_the_exit_code(lab: Watched) -> None:
    lab.coordinator()
    lab.device()
    code = "import sys; print(1); print(2, file=sys.stderr); sys.exit(3)"
    run = lab.cli("run", "pi1", "-c", code)
    assert run.wait(30) == 3
    assert run.stdout == "1\n"
    assert [line for line in run.stderr.splitlines() if line == "2"] == ["2"]


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_a_second_coordinator_on_the_same_database_is_refused(lab: Watched) -> None:
    lab.coordinator()
    second = lab.cli("coordinator", "--db", str(lab.db))
    assert second.wait() == 1
    assert "another coordinator (process" in second.stderr
    assert "Traceback" not in second.stderr


def test_two_devices_of_one_name_never_both_run(lab: Watched) -> None:
    lab.coordinator("--settle", "1")
    witness = lab.folder / "witness"
    witness.touch()
    devices = [lab.device(folder="one"), lab.device(folder="two")]
    wait_until(lambda: lab.watcher.messages("hw/pi1/heartbeat"), what="a heartbeat")
    program = f"open({str(witness)!r}, 'a').write('ran\\n')"
    lab.pub("request", json.dumps({"program": program, "id": "once", "timeout": 2, "grace": 5}))
    # While the two push each other out, the grant may miss its device: then the record says so.
    end = lab.watcher.wait_for_state("pi1", 3, 60, id="once")
    assert len(witness.read_text().split()) <= 1
    if end["ran"] != "maybe":
        assert (end["ran"] == "yes") == (witness.read_text() == "ran\n")

    def told() -> bool:
        said = " ".join(device.stderr for device in devices)
        warned = "hwsync-device-pi1" in said and "ANOTHER CLIENT" in said
        return warned or any(error["error"] == "not_current" for error in lab.errors())

    wait_until(told, 60, "a warning that names the client id, or not_current")
    assert len(witness.read_text().split()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_a_forged_envelope_does_not_keep_a_device_busy_for_ever(lab: Watched) -> None:
    lab.coordinator()
    lab.device()
    wait_until(lambda: lab.watcher.messages("hw/pi1/heartbeat"), what="the device's heartbeat")
    forged = {"v": 1, "id": "c1", "user": "pi1", "epoch": 0, "seq": 5_000, "program": "print(1)",
              "timeout": 1, "stdin": "", "args": []}  # fmt: skip
    lab.pub("command", json.dumps(forged))
    lab.watcher.wait_for(lambda _: True, topic="hw/pi1/collected", what="the device takes it")
    lab.pub("request", "print(6*7)")
    assert lab.watcher.wait_for_state("pi1", 3, 60)["hw_response"] == "42\n"
