"""Results that are no plain answer (late, foreign, orphaned, unreadable): settled, and told so."""

from __future__ import annotations

import pytest

from hwsync.protocol import limits
from hwsync.protocol.record import Outcome, Ran, State
from tests.support.coordinator import Lab, brief, request, result, sent


def log(lab: Lab) -> tuple[object, ...]:
    """The last row of the log: verb, state before and after, id, late."""
    return lab.rows("transitions", "row, command, before, state, id, late")[-1][1:]


@pytest.mark.parametrize(
    ("state", "end", "before"),
    [(2, "reset", Ran.MAYBE), (1, "reset", Ran.NO), (1, "cancel", Ran.NO)],
)
def test_a_late_result_corrects_its_command_and_is_settled(
    lab: Lab, state: int, end: str, before: Ran
) -> None:
    lab.device(state)
    lab.hear(end)
    assert lab.record.current is not None
    assert lab.record.current.report is not None
    assert lab.record.current.report.ran is before
    deeds = lab.hear("response", result(response="42\n"), mid=7)
    assert brief(deeds) == ["status 0", 7]
    (status,) = sent(deeds, "status")
    assert status.json["settled"] == [["c1", "j1"]]
    assert (status.json["outcome"], status.json["ran"], status.json["hw_response"]) == (
        "ok", "yes", "42\n"
    )  # fmt: skip
    assert log(lab) == ("hw_response_provide", 0, 0, "c1", 1)
    assert lab.rows("refused") == []


def test_a_late_result_of_an_earlier_command_leaves_the_present_one_alone(lab: Lab) -> None:
    lab.device(2)
    lab.hear("reset")
    lab.hear("request", request("c2"))
    deeds = lab.hear("response", result(outcome="error", exit_code=3), mid=7)
    assert brief(deeds) == ["status 1", 7]
    (status,) = sent(deeds, "status")
    assert (status.json["id"], status.json["outcome"]) == ("c2", None)
    assert status.json["settled"] == [["c1", "j1"]]
    command = lab.store.command("pi1", "c1")
    assert command is not None
    assert command.report is not None
    assert (command.report.outcome, command.late) == (Outcome.ERROR, True)


def test_a_copy_of_a_result_changes_nothing(lab: Lab) -> None:
    lab.device(3)
    before = lab.record
    assert brief(lab.hear("response", result(), mid=7)) == ["status 3", 7]
    assert lab.record is before


def test_a_result_that_fell_out_of_settled_is_put_back(lab: Lab) -> None:
    lab.device(3)
    for number in range(limits.SETTLED_PAIRS):
        lab.hear("response", result(f"o{number}"))
    assert ("c1", "j1") not in lab.record.settled
    assert brief(lab.hear("response", result(), mid=7)) == ["status 3", 7]
    assert lab.record.settled[-1] == ("c1", "j1")


def test_a_result_from_another_journal_is_refused_and_settled(lab: Lab) -> None:
    lab.device(2)
    deeds = lab.hear("response", result(journal="j2"), mid=7)
    assert brief(deeds) == ["error", "status 2", 7]
    (error,), (status,) = sent(deeds, "error"), sent(deeds, "status")
    assert (error.json["error"], error.json["id"], error.json["journal"]) == (
        "not_current", "c1", "j2"
    )  # fmt: skip
    assert status.json["settled"] == [["c1", "j2"]]
    assert lab.rows("refused", "error, id, journal") == [("not_current", "c1", "j2")]
    assert brief(lab.hear("response", result(), mid=8)) == ["status 3", 8]


@pytest.mark.parametrize("known", [False, True], ids=["an unknown user", "a known user"])
def test_an_orphan_is_kept_and_settled_and_its_id_is_known_from_then_on(
    lab: Lab, known: bool
) -> None:
    if known:
        lab.device(1, "c5")
    state = int(known)
    deeds = lab.hear("response", result("c0", response="42\n"), mid=7)
    assert brief(deeds) == [f"status {state}", 7]
    (status,) = sent(deeds, "status")
    assert status.json["settled"] == [["c0", "j1"]]
    assert status.retain
    assert lab.rows("commands", "id, orphan, late, response")[0] == ("c0", 1, 1, "42\n")
    seq = lab.record.seq
    assert brief(lab.hear("request", request("c0"), mid=8)) == [
        f"status {state}", "result/c0", 8
    ]  # fmt: skip
    assert (lab.record.seq, lab.record.state) == (seq, state)


@pytest.mark.parametrize("state", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "wrong",
    [{"outcome": "expired"}, {"outcome": "ok", "ran": "no"}, {"boot": -1}, {"response": 42}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_unreadable_result_that_names_id_and_journal_is_refused_and_settled(
    lab: Lab, state: int, wrong: dict[str, object]
) -> None:
    lab.device(state)
    payload = result("c1", **wrong)
    deeds = lab.hear("response", payload, mid=7)
    assert brief(deeds) == ["error", f"status {state}", 7]
    (error,), (status,) = sent(deeds, "error"), sent(deeds, "status")
    assert (error.json["error"], error.json["id"], error.json["journal"]) == (
        "bad_payload", "c1", "j1"
    )  # fmt: skip
    assert status.json["settled"] == [["c1", "j1"]]
    assert lab.record.state == state
    assert lab.rows("refused", "error, id, journal, state, payload") == [
        ("bad_payload", "c1", "j1", state, payload)
    ]
    assert log(lab) == ("hw_response_provide", state, state, "c1", 1)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id":"c1","boot":1,"outcome":"ok"}',
        b'{"journal":"j1","boot":1,"outcome":"ok"}',
        b'{"id":"c1","journal":"j1"',
    ],
    ids=["no journal", "no id", "broken"],
)
def test_an_unreadable_result_that_names_too_little_settles_nothing(
    lab: Lab, payload: bytes
) -> None:
    lab.device(2)
    before = lab.record
    (error,) = sent(lab.hear("response", payload), "error")
    assert error.json["error"] == "bad_payload"
    assert lab.record is before


def test_a_device_whose_unreadable_result_was_settled_may_still_answer(lab: Lab) -> None:
    lab.device(2)
    lab.hear("response", result(outcome="expired"))
    assert brief(lab.hear("response", result(), mid=7)) == ["status 3", 7]
    assert lab.record.state is State.RETURNED
