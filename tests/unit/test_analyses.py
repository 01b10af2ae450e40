"""Analyses by name and version: the first one, copies, regrades, and what a late result undoes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol import limits
from hwsync.protocol.analysis import Verdict, cut_message, verdict_of
from hwsync.protocol.record import AnalysedBy, Outcome, Ran, RunReport, State
from hwsync.protocol.wire.analyst import Offer, encode_offer
from hwsync.protocol.wire.asking import encode_analysis
from hwsync.protocol.wire.history import verdicts_json
from hwsync.protocol.wire.response import encode_collected, encode_response
from hwsync.store.checking import check
from hwsync.store.pruning import Pruning
from hwsync.store.reader import Reader
from tests.support.coordinator import Deed, Lab, Sent, request, result

RIGHT = {"passed": True, "score": 1, "message": "42 is right"}
WRONG = {"passed": False, "score": 0.5, "message": "no"}


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """There is an analyst who offers ``check1``."""
    offered = encode_offer(Offer(True, {"check1": "1"}, 0.0))
    lab.hear("analysts/grader", offered, user="@hwsync")
    return lab


def judge(
    lab: Lab,
    value: object = RIGHT,
    id: str | None = "c1",
    *,
    name: str | None = "check1",
    version: str = "1",
    fault: str | None = None,
    regrade: bool = False,
) -> str:
    """What answers: the error's code, or the last state that was said."""  # fmt: skip
    by = None if name is None else AnalysedBy(name, version, fault)
    return said(lab.hear("analysis", encode_analysis(value, id, by, regrade)))


def said(deeds: list[Deed]) -> str:
    sent = [one for one in deeds if isinstance(one, Sent)]
    errors = [one.json["error"] for one in sent if one.kind == "error"]
    states = [str(one.json["state"]) for one in sent if one.kind == "status"]
    return str((errors or states)[-1])


def shown(lab: Lab, id: str = "c1") -> dict[str, Any]:
    """The command, as it is told."""
    deeds = lab.hear("query", json.dumps({"id": id}).encode())
    return next(one.json for one in deeds if isinstance(one, Sent) and "result" in one.topic)


def told(lab: Lab, id: str = "c1") -> tuple[Any, list[Any]]:
    """Who gave the first analysis, and the names of the regrades, with their versions."""
    found = shown(lab, id)
    regrades = [(one["name"], one["version"]) for one in found["regrades"]]
    return found["analysed_by"], regrades


def notes(lab: Lab) -> list[str]:
    return [str(note) for _, note in lab.rows("transitions", "row, note")]


def test_the_first_analysis_moves_the_record_and_says_who_gave_it(lab: Lab, path: Path) -> None:
    lab.device(3, analysis="check1")
    assert judge(lab) == "0"
    by = {"name": "check1", "version": "1", "fault": None}
    found = shown(lab)
    assert (json.loads(found["server_analysis"]), found["analysed_by"]) == (RIGHT, by)
    (status,) = (one for one in lab.hear("query") if isinstance(one, Sent))
    keys = list(status.json)
    assert keys.index("analysed_by") > keys.index("queued")
    assert (status.json["analyser"], status.json["analysed_by"]) == ("check1", by)
    assert notes(lab)[-1].startswith("analysed by check1 1, SHA-256 ")
    assert list(check(path)) == []


def test_a_person_judges_with_plain_text_as_ever(lab: Lab) -> None:
    lab.device(3, analysis="check1")
    assert said(lab.hear("analysis", b"well done")) == "0"
    assert (shown(lab)["server_analysis"], told(lab)) == ("well done", (None, []))
    assert notes(lab)[-1] == ""


def test_a_copy_goes_by_name_and_version_whatever_it_says(lab: Lab) -> None:
    lab.device(3, analysis="check1")
    judge(lab)
    before = len(notes(lab))
    for value, regrade in ((RIGHT, False), (WRONG, False), (WRONG, True)):
        assert judge(lab, value, regrade=regrade) == "0"
    assert len(notes(lab)) == before
    assert judge(lab, version="2") == "wrong_state"
    assert judge(lab, name="check2") == "wrong_state"
    assert judge(lab, "another", name=None) == "wrong_state"


def test_a_regrade_stands_beside_the_first_and_is_marked_late(lab: Lab, path: Path) -> None:
    lab.device(3, analysis="check1")
    judge(lab)
    assert judge(lab, WRONG, version="2", regrade=True) == "0"
    assert judge(lab, WRONG, name="check2", fault="it died", regrade=True) == "0"
    assert judge(lab, RIGHT, version="2", regrade=True) == "0"  # a copy
    first, others = told(lab)
    assert (first["version"], others) == ("1", [("check1", "2"), ("check2", "1")])
    found = shown(lab)
    assert found["late"]
    assert json.loads(found["regrades"][0]["analysis"]) == WRONG
    assert found["regrades"][1]["fault"] == "it died"
    assert notes(lab)[-1].endswith("; fault: it died")
    assert list(check(path)) == []
    with Reader(path) as reader:
        assert reader.show("pi1", "c1")["regrades"] == found["regrades"]
    lab.restart()
    assert judge(lab, RIGHT, version="2", regrade=True) == "0"
    assert told(lab)[1] == others


def test_a_regrade_of_what_has_not_ended_is_refused(lab: Lab) -> None:
    assert judge(lab, regrade=True) == "not_current"
    for state in (1, 2):
        lab.device(state, f"c{state}")
        assert judge(lab, id=f"c{state}", regrade=True) == "wrong_state"
        lab.hear("reset")
    lab.device(1, "a")
    lab.hear("request", request("b", queue=True))
    assert judge(lab, id="b", regrade=True) == "wrong_state"
    assert lab.rows("regrades") == []


def test_a_regrade_in_state_3_moves_nothing_and_takes_no_first_ones_place(
    lab: Lab, path: Path
) -> None:
    lab.device(3, analysis="check1")
    assert judge(lab, WRONG, regrade=True) == "3"
    assert (lab.record.state, told(lab)) == (State.RETURNED, (None, [("check1", "1")]))
    assert judge(lab) == "0"  # nothing is stuck
    assert told(lab)[0]["name"] == "check1"
    assert list(check(path)) == []


def test_a_persons_first_is_still_free_after_a_regrade(lab: Lab) -> None:
    lab.device(2)
    lab.hear("reset")
    assert judge(lab, regrade=True) == "0"
    assert judge(lab, "well done", name=None) == "0"
    assert (shown(lab)["server_analysis"], told(lab)) == ("well done", (None, [("check1", "1")]))
    assert "analysed after its end" in notes(lab)[-1]


def test_an_orphan_may_be_regraded_and_an_earlier_command(lab: Lab) -> None:
    lab.hear("response", result("old"))
    assert judge(lab, id="old", regrade=True) == "0"
    assert told(lab, "old")[1] == [("check1", "1")]
    lab.device(3)
    lab.hear("analysis", b"fine")
    lab.device(1, "c2")
    assert judge(lab, regrade=True) == "1"
    assert told(lab)[1] == [("check1", "1")]


def test_a_command_has_so_many_regrades(lab: Lab) -> None:
    lab.device(3)
    lab.hear("analysis", b"fine")
    for number in range(limits.MAX_REGRADES):
        assert judge(lab, "x" * 40_000, version=f"v{number}", regrade=True) == "0"
    assert judge(lab, version="more", regrade=True) == "not_allowed"
    assert judge(lab, version="v0", regrade=True) == "0"  # a copy
    told_of = told(lab)[1]
    assert told_of == [("check1", f"v{number}") for number in range(64 - len(told_of), 64)]
    assert 1 < len(told_of) < limits.MAX_REGRADES
    assert len(lab.rows("regrades")) == limits.MAX_REGRADES


def lost(lab: Lab) -> None:
    """In state 3, lost, with a verdict of it and a regrade."""
    lab.hear("request", request("c1", analysis="check1", timeout=1.0, grace=1.0))
    lab.hear("collected", encode_collected("c1", "j1", 1))
    lab.later(3.0)
    assert lab.record.state is State.RETURNED


def test_a_late_result_takes_what_analysers_said_of_the_assumed_end_with_it(
    lab: Lab, path: Path
) -> None:
    lost(lab)
    judge(lab, WRONG)
    judge(lab, WRONG, name="check2", regrade=True)
    lab.hear("response", result("c1"))
    assert shown(lab)["outcome"] == "ok"
    assert (shown(lab)["server_analysis"], told(lab)) == ("", (None, []))
    assert notes(lab)[-1].endswith("; withdrawn, since it was said of what was assumed: "
                                   "check1 1, check2 1")  # fmt: skip
    assert judge(lab) == "0"  # the same version says it anew
    assert judge(lab, name="check2", regrade=True) == "0"
    assert (told(lab)[0]["version"], told(lab)[1]) == ("1", [("check2", "1")])
    assert list(check(path)) == []


def test_an_analysis_of_an_end_that_is_another_by_now_is_refused(lab: Lab, path: Path) -> None:
    """Also the repetition of one that was taken, and withdrawn since."""
    by = AnalysedBy("check1", "1")
    of_lost = encode_analysis(WRONG, "c1", by, outcome="lost", ran="maybe")
    again = encode_analysis(WRONG, "c1", by, True, outcome="lost", ran="maybe")
    lost(lab)
    assert said(lab.hear("analysis", of_lost)) == "0"
    lab.hear("response", result("c1"))
    for payload in (of_lost, again, encode_analysis(WRONG, "c1", by, ran="no")):
        deeds = lab.hear("analysis", payload)
        assert said(deeds) == "not_current"
        (error,) = (one.json for one in deeds if isinstance(one, Sent) and one.kind == "error")
        assert error["message"].endswith("it is ok, ran yes")
    assert told(lab) == (None, [])
    of_ok = encode_analysis(RIGHT, "c1", by, outcome="ok", ran="yes")
    assert said(lab.hear("analysis", of_ok)) == "0"
    assert told(lab)[0]["name"] == "check1"
    assert said(lab.hear("analysis", of_lost)) == "0", "a copy is no error"
    assert list(check(path)) == []


def test_an_analysis_of_another_end_does_not_move_the_record(lab: Lab) -> None:
    lost(lab)
    lab.hear("response", result("c1"))
    by = AnalysedBy("check1", "1")
    of_lost = encode_analysis(WRONG, "c1", by, outcome="lost", ran="maybe")
    assert said(lab.hear("analysis", of_lost)) == "not_current"
    assert lab.record.state is State.RETURNED


def test_what_a_person_said_of_an_assumed_end_stays(lab: Lab) -> None:
    lost(lab)
    lab.hear("analysis", b"the cable was loose")
    lab.hear("response", result("c1"))
    assert shown(lab)["server_analysis"] == "the cable was loose"


def test_withdrawn_and_said_anew_in_one_round(lab: Lab, path: Path) -> None:
    lost(lab)
    judge(lab)
    by = AnalysedBy("check2", "1")
    again = encode_analysis(RIGHT, "c1", by, regrade=True)
    lab.step(
        lab.delivery("analysis", encode_analysis(WRONG, "c1", by, regrade=True)),
        lab.delivery("response", result("c1")),
        lab.delivery("analysis", again),
    )
    assert told(lab) == (None, [("check2", "1")])
    assert json.loads(shown(lab)["regrades"][0]["analysis"]) == RIGHT
    assert list(check(path)) == []


def test_a_changed_analysis_is_found(lab: Lab, path: Path) -> None:
    lab.device(3, analysis="check1")
    judge(lab, WRONG)
    judge(lab, WRONG, version="2", regrade=True)
    for sql, found in (
        ("UPDATE commands SET analysis = '{\"passed\":true}'", "its analysis was changed"),
        ("UPDATE commands SET analysed_by = NULL", None),
        ("UPDATE regrades SET analysis = 'x'", "regrades: check1 of c1 of pi1 was changed"),
        ("DELETE FROM regrades", "one is lost"),
    ):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(sql)
        assert found is None or found in "".join(check(path)), sql


def test_dropped_texts_leave_what_grades_are_made_of(lab: Lab, path: Path) -> None:
    lab.device(3, analysis="check1")
    judge(lab, WRONG | {"data": "x" * 3_000})
    judge(lab, RIGHT | {"data": "x" * 3_000}, version="2", regrade=True)
    lab.device(1, "c2")
    assert Pruning(lab.store.database).prune(None, 10) == 1
    found = shown(lab)
    assert found["pruned"]
    assert json.loads(found["server_analysis"])["passed"] is False
    assert json.loads(found["regrades"][0]["analysis"]) == RIGHT
    assert list(check(path)) == []


def test_the_first_lines_of_a_status_are_as_small_as_ever(lab: Lab) -> None:
    lab.device(3, "i" * 64, analysis="check1")
    judge(lab, id="i" * 64, name="a" * 32, version="v" * 64, fault="f" * 600)
    (status,) = (one for one in lab.hear("query") if isinstance(one, Sent))
    end = status.payload.index(b'"user"')
    assert end <= limits.STATUS_FIRST


@pytest.mark.parametrize(
    ("analysis", "passed", "score", "message"),
    [('{"passed":true,"score":0.5,"message":"m"}', True, 0.5, "m"),
     ('{"passed":1,"score":2,"message":3}', None, None, ""),
     ('{"score":true}', None, None, ""), ("well done", None, None, "well done"),
     ("{broken", None, None, "{broken"), ("[1]", None, None, "[1]"), ("null", None, None, "null"),
     ('{"passed":null,"score":0}', None, 0.0, "")],
)  # fmt: skip
def test_what_an_analysis_says(
    analysis: str, passed: bool | None, score: float | None, message: str
) -> None:
    by = AnalysedBy("check1", "1")
    said = Verdict("check1", "1", None, passed, score, message, 5.0)
    assert verdict_of(analysis, by, 5.0) == said
    failed = verdict_of(analysis, AnalysedBy("check1", "1", "it died"))
    assert (failed.fault, failed.passed, failed.score) == ("it died", None, None)
    assert cut_message(f"\n  {'x' * 300}\nmore") == "x" * limits.HISTORY_MESSAGE


def test_what_is_assumed_is_not_told_by_a_person_of_another_lab(lab: Lab) -> None:
    """An earlier no that becomes a yes is a correction, too."""
    lab.device(2, analysis="check1")
    lab.hear("reset")
    judge(lab, WRONG)
    report = RunReport(Outcome.INTERRUPTED, Ran.MAYBE)
    lab.hear("response", encode_response("c1", "j1", 1, report))
    assert told(lab)[0] is None


def test_what_counts_of_a_run_has_its_place_in_a_row_whatever_else_was_said() -> None:
    first = verdict_of("{}", AnalysedBy("check1", "0", "it raised"))
    good = verdict_of('{"passed": true}', AnalysedBy("check1", "good"), 1.0)
    other = verdict_of('{"score": 0.5}', AnalysedBy("check2", "1"), 2.0)
    broken = [
        verdict_of("{}", AnalysedBy("check1", str(number), "it raised"), 3.0 + number)
        for number in range(40)
    ]
    told = verdicts_json(first, [good, other, *broken])
    assert len(told) == limits.HISTORY_VERDICTS
    versions = [one["version"] for one in told]
    assert versions == ["0", "good", "1", *(str(number) for number in range(27, 40))]
    assert [one["version"] for one in verdicts_json(None, [good])] == ["good"]
