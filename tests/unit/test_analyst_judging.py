"""One run's judgement: from all that is stored of it to the coordinator's answer, by hand."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from hwsync.analysers import Run
from hwsync.analysers.engine import Judgement
from hwsync.analysers.folder import Analyser
from hwsync.analyst.judging import End, Stored, judged, reading_stored, telling
from hwsync.protocol.errors import Code, NoCoordinator, Refused
from hwsync.protocol.files import File
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.transport import Connected, Delivery
from tests.support.operator_line import Line, error, result, said, status

CHECK = Analyser("check1", "0123456789ab")
END = End("c1", "ok", "yes")
BY = {"name": "check1", "version": "0123456789ab", "fault": None}
PASSED = Judgement("check1", "0123456789ab", {"passed": True})
FILE = File.of("a.csv", b"1,2")
FILES = {"a.csv": {"size": FILE.size, "sha256": FILE.sha256}}
ENDED = {"outcome": "ok", "ran": "yes", "hw_response": "42\n"}


def ended(**changes: Any) -> Delivery:
    return result("p", **ENDED | changes)


def analysed(state: int = 0, by: dict[str, Any] | None = BY, text: str = "x") -> Delivery:
    fields = json.loads(status("p").payload)
    return said("status", fields | {"state": state, "server_analysis": text, "analysed_by": by})


class Answering:
    """An engine that notes what it is given."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def judge(self, analyser: Analyser, run: Run) -> Judgement:
        self.runs.append(run)
        return PASSED


def stored(gone: tuple[str, ...] = (), **changes: Any) -> Stored:
    return Stored(json.loads(ended(**changes).payload), {"a.csv": b"1"}, gone)


def test_all_that_is_stored_is_asked_for_with_its_files() -> None:
    line = Line()
    bytes_of = {"a.csv": {**FILES["a.csv"], "data": b64encode(b"1,2").decode()}}
    found = line.drive(reading_stored(line.conversation, "c1"), ended(files=FILES),
                       ended(files=bytes_of))  # fmt: skip
    assert found.run == Run(id="c1", board="pi1", stdout="42\n", program="p", files=found.files)
    assert found.files == {"a.csv": b"1,2"}
    asked = [json.loads(payload) for topic, payload in line.messages if topic == "hw/pi1/query"]
    assert asked == [{"id": "c1"}, {"id": "c1", "files": ["a.csv"]}]


def test_a_run_without_files_costs_one_query() -> None:
    line = Line()
    assert line.drive(reading_stored(line.conversation, "c1"), ended()).gone == ()
    assert line.sent == ["query"]


def test_a_file_that_nobody_has_any_more_is_gone() -> None:
    line = Line()
    without = [ended(files=FILES)] * 5
    assert line.drive(reading_stored(line.conversation, "c1"), *without).gone == ("a.csv",)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"outcome": "lost", "ran": "maybe", "reason": "no answer within 40 s"},
         "the run was lost: no answer within 40 s"),
        ({"outcome": "rejected", "ran": "no"}, "the run was rejected"),
        ({"outcome": "interrupted", "ran": "maybe"}, "the run was interrupted"),
        ({"outcome": "cancelled", "ran": "no"}, "the run was cancelled"),
    ],
)  # fmt: skip
def test_what_is_the_labs_doing_is_nobodys_fault_and_nothing_is_run(
    changes: dict[str, Any], why: str
) -> None:
    engine = Answering()
    judgement = judged(engine, CHECK, stored(**changes))
    message = f"there is no result to judge, {why}"
    assert (judgement.analysis, judgement.fault) == ({"passed": None, "message": message}, None)
    assert engine.runs == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pruned": True}, "dropped with the years"),
        ({"gone": ("a.csv", "b.csv")}, "its file a.csv and 1 more came back"),
    ],
)
def test_what_is_not_whole_any_more_is_a_fault_and_nothing_is_run(
    changes: dict[str, Any], why: str
) -> None:
    engine = Answering()
    one = stored(**changes) if "gone" not in changes else stored(changes["gone"])
    judgement = judged(engine, CHECK, one)
    assert judgement.fault is not None
    assert why in judgement.fault
    assert judgement.analysis == {"error": judgement.fault}
    assert engine.runs == []


@pytest.mark.parametrize("outcome", ["ok", "error", "timeout", "killed", "cancelled"])
def test_what_the_program_did_is_judged(outcome: str) -> None:
    engine = Answering()
    assert judged(engine, CHECK, stored(outcome=outcome)) is PASSED
    assert (engine.runs[0].outcome, engine.runs[0].files) == (outcome, {"a.csv": b"1"})


def test_it_is_said_until_something_is_its_answer() -> None:
    line = Line()
    talk = telling(line.conversation, END, PASSED)
    said_by_hand = analysed(by=None, text="well done")
    for answer in (analysed(), said_by_hand, ended(analysed_by=BY)):
        assert line.drive(talk, analysed(state=3, by=None, text=""), None, answer) is PASSED
        assert set(line.sent) == {"analysis", "query"}
        assert json.loads(line.messages[0][1]) == {
            "id": "c1", "analysis": {"passed": True}, "analyser": BY, "outcome": "ok", "ran": "yes",
        }  # fmt: skip
        line.messages.clear()
        talk = telling(line.conversation, END, PASSED)


def test_a_status_that_ends_without_analysis_is_no_answer() -> None:
    """Its deadline came first: whether ours came after it is known by the next one only."""
    line = Line()
    at_rest = analysed(by=None, text="")
    with pytest.raises(NoCoordinator):
        line.drive(telling(line.conversation, END, PASSED), at_rest, ended(), at_rest)


def test_a_refusal_is_raised_and_one_of_another_message_is_not() -> None:
    line = Line()
    talk = telling(line.conversation, END, PASSED)
    others = error(Code.WRONG_STATE, "analysis", "c2"), error(Code.WRONG_STATE, "cancel")
    with pytest.raises(Refused, match="no"):
        line.drive(talk, *others, error(Code.WRONG_STATE, "analysis"))


def test_a_regrade_is_answered_by_a_result_that_has_it() -> None:
    line = Line()
    told = [{**BY, "version": one, "analysis": "{}", "time": 1.0} for one in ("a", PASSED.version)]
    talk = telling(line.conversation, END, PASSED, regrade=True)
    assert line.drive(talk, analysed(), ended(), ended(regrades=told)) is PASSED
    assert json.loads(line.messages[0][1])["regrade"] is True
    # One that the result has no room for: the second one stood behind what was said.
    talk = telling(line.conversation, END, PASSED, regrade=True)
    assert line.drive(talk, ended(), ended()) is PASSED
    # That analyser's was the first.
    assert line.drive(telling(line.conversation, END, PASSED, regrade=True),
                      ended(analysed_by=BY)) is PASSED  # fmt: skip


def test_a_regrade_is_not_refused_by_what_somebody_else_is_told_of_the_same_run() -> None:
    line = Line()
    others = error(Code.WRONG_STATE, "analysis")
    talk = telling(line.conversation, END, PASSED, regrade=True)
    told = ended(regrades=[{**BY, "analysis": "{}", "time": 1.0}])
    assert line.drive(talk, others, ended(), ended(), others, None, told) is PASSED
    assert line.sent.count("analysis") == 2
    talk = telling(line.conversation, END, PASSED, regrade=True)
    with pytest.raises(Refused, match="no"):
        line.drive(talk, others, ended(), ended(), None, others, ended())
    talk = telling(line.conversation, END, PASSED, regrade=True)
    found = line.drive(talk, others, error(Code.TOO_LARGE, "analysis"), told)
    assert found.fault == "its analysis is too large: no", "that is ours"


def test_one_that_is_too_large_is_a_fault() -> None:
    line = Line()
    large = Judgement("check1", "0123456789ab", {"data": "x" * 9_000})
    line.conversation.hear_of_connection(Connected(False, 5, None, 4_096))
    found = line.drive(telling(line.conversation, END, large), analysed())
    assert found.fault is not None
    assert found.fault.startswith("its analysis is too large: ")
    (_, payload), *_ = line.messages
    fields = json.loads(payload)
    assert fields["analysis"] == {"error": found.fault}
    assert fields["analyser"] == {**BY, "fault": found.fault}


def test_one_that_the_coordinator_finds_too_large_is_a_fault() -> None:
    line = Line()
    refused = error(Code.TOO_LARGE, "analysis")
    found = line.drive(telling(line.conversation, END, PASSED), refused, analysed())
    assert found.fault == "its analysis is too large: no"
    assert len(line.messages[0][1]) < MAX_MESSAGE
