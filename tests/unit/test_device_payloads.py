"""What is no envelope and no status: it is acknowledged, and nothing happens."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.protocol.record import Outcome, Ran, RunReport
from hwsync.protocol.wire.response import encode_response, read_response
from tests.support.board import Board, envelope


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    yield one
    one.journal.close()


BROKEN = [
    b"", b"print(6*7)", b"{", b"null", b"[]", b"1", b'"v"', b"\xff\xfe", b"[" * 5_000, b"1e999",
    b"{}", b'{"v":1}', b'{"id":"a"}', b'{"v":1,"id":"a","id":[]}', b'{"v":NaN}',
]  # fmt: skip


def spoilt(good: dict[str, object]) -> Iterator[bytes]:
    """Each field missing, and each of another shape."""
    for name in good:
        yield json.dumps({key: value for key, value in good.items() if key != name}).encode()
        for shape in ({}, [[]], [1], -1):
            yield json.dumps(good | {name: shape}).encode()


UNSOUND = [
    {"v": 2}, {"user": "another"}, {"user": "-"}, {"id": "a b"}, {"id": ""}, {"id": "x" * 65},
    {"seq": True}, {"seq": 1.5}, {"epoch": -1}, {"program": None}, {"timeout": 0},
    {"timeout": 2_592_001}, {"timeout": "soon"}, {"timeout": None}, {"stdin": 1}, {"args": [1]},
    {"args": None}, {"start": {"at": 1}}, {"seq": 2**63}, {"epoch": 10**23}, {"program": "\ud800"},
    {"stdin": "\ud800"}, {"args": ["\ud800"]}, {"args": "ab"}, {"expires_at": [[[]]]},
    {"name": ""}, {"name": None}, {"name": "a/b"}, {"name": "-x"}, {"grace": 0}, {"grace": 3_601},
    {"grace": "soon"}, {"grace": None}, {"expires_at": True}, {"expires_at": 10**400},
    {"start": None, "more": " " * 2**22},
]  # fmt: skip


@pytest.mark.parametrize("changes", UNSOUND, ids=str)
def test_an_envelope_that_is_none_is_acknowledged_and_passed_over(
    board: Board, changes: dict[str, object]
) -> None:
    assert board.hear("command", json.dumps(envelope(**changes)).encode()) == [""]
    assert board.agent.busy is None
    assert board.world.sent == []


@pytest.mark.parametrize("kind", ["command", "status", "heartbeat", "nothing"])
def test_broken_payloads_are_acknowledged_and_change_nothing(board: Board, kind: str) -> None:
    board.run()
    before = (board.journal.get("a"), list(board.world.sent))
    status = {"id": "b", "state": 0, "epoch": 0, "seq": 9}  # a half one, which would stop the run
    dice = random.Random(1)
    noise = [dice.randbytes(dice.randrange(60)) for _ in range(300)]
    for payload in [*BROKEN, *noise, json.dumps(status).encode()]:
        assert board.hear(kind, payload) == ["started"], payload
    assert (board.journal.get("a"), board.world.sent) == before
    assert board.world.stops == 0
    assert board.agent.running


def test_a_status_with_a_field_missing_or_misshapen_grants_nothing(board: Board) -> None:
    board.envelope()
    grant = {"id": "a", "state": 2, "epoch": 0, "seq": 2, "journal": "other", "boot": 1,
             "start_at": None, "cancelling": False, "settled": []}  # fmt: skip
    fields = {name: grant[name] for name in ("id", "state", "epoch", "seq")}
    for payload in spoilt(fields):
        whole = {name: value for name, value in grant.items() if name not in fields}
        assert board.hear("status", json.dumps(whole | json.loads(payload)).encode()) == [
            "received"
        ], payload
    assert board.agent.busy == "a"
    assert board.said("response") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 10**23}, {"epoch": 2**63}, {"state": 10**30}, {"settled": [[["x"], "j"]]},
        {"settled": [[1, 2]]}, {"journal": ["j"]}, {"id": "\ud800"}, {"boot": ""}, {"boot": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_status_that_nobody_could_have_counted_so_far_blinds_nobody(
    board: Board, changes: dict[str, object]
) -> None:
    status = {"id": "b", "state": 0, "epoch": 0, "seq": 1, "journal": None, "boot": None,
              "start_at": None, "cancelling": False, "settled": []}  # fmt: skip
    assert board.hear("status", json.dumps(status | changes).encode()) == [""]
    board.grant()
    assert board.world.jobs


def test_a_fault_of_hwsync_on_one_message_is_not_met_again(
    board: Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(payload: bytes) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("hwsync.device.agent.read_envelope", broken)
        assert board.envelope() == [""]
    assert "this is a bug" in caplog.text
    assert board.envelope() == ["received"]


def test_a_start_has_six_decimals() -> None:
    report = RunReport(Outcome.OK, Ran.YES, started=1_700_000_000.5, clock_bound=0.000_25)
    said = encode_response("a", "j", 1, report).decode()
    assert '"started":1700000000.500000,"start_error":null,"clock_bound":0.000250,' in said


def test_what_is_heard_of_a_start_is_what_is_said_of_it_again() -> None:
    report = RunReport(Outcome.OK, Ran.YES, started=1.000_000_4, clock_bound=0.000_25)
    said = json.loads(encode_response("a", "j", 1, report)) | {
        "started": 1.000_000_4, "start_error": 5e-324,
    }  # fmt: skip
    heard = read_response(json.dumps(said).encode()).report
    assert (heard.started, heard.start_error, heard.clock_bound) == (1.0, 0.0, 0.000_25)
    assert encode_response("a", "j", 1, heard) == encode_response(
        "a", "j", 1, replace(report, started=1.0, start_error=0.0)
    )
