"""What is promised of analyses: each promise broken once, and what is excused."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.protocol.jsons import dumps
from hwsync.testing.analysis_promises import check_judged, what_was_judged
from hwsync.testing.checker import FinalState, check
from hwsync.testing.history import Asked, Judged, Offered, PutBack, Said, Seen, Served
from tests.unit.test_checker import end, row

BY = {"name": "check", "version": "v1", "fault": None}
WORD = dumps({"passed": True, "data": what_was_judged("pi1", "c1", "p")})
ASKED = Asked(1.0, "o", "pi1", "request", "c1", "p")
GIVEN = Judged(5.0, "ada", "pi1", "c1", WORD, ("check", "v1"))
AGAIN = Judged(7.0, "ada", "pi1", "c1", "again", ("check", "v2"), regrade=True)
ROW = row(
    "server_analysis_provide", 3, 0, 4, note="analysed by check v1",
    payload=dumps({"analysis": "x", "id": "c1", "analyser": BY}),
)  # fmt: skip
REGRADE = dumps({"analysis": "again", "id": "c1", "analyser": BY | {"version": "v2"},
                 "regrade": True})  # fmt: skip
REGRADE_ROW = row(
    "server_analysis_provide", 0, 0, 5, late=True, note="regraded by check v2", payload=REGRADE
)
LOG = [
    row("hw_command_request", 0, 1, 1),
    row("hw_command_retrieval", 1, 2, 2),
    row("hw_response_provide", 2, 3, 3),
    ROW,
]


def told(name: str = "check", version: str = "v2", analysis: str = "again") -> dict[str, Any]:
    return {"name": name, "version": version, "fault": None, "analysis": analysis, "time": 1.0}


def final(**changes: Any) -> dict[str, Any]:
    fields = {"analyser": "check", "server_analysis": WORD, "analysed_by": BY, "regrades": []}
    return end(**(fields | changes))


def said(at: float, state: int = 0, seq: int = 4, kind: str = "status", **changes: Any) -> Said:
    fields = {
        "id": "c1", "state": state, "epoch": 0, "seq": seq, "journal": "j1", "boot": 1,
        "hw_command": "p", "outcome": "ok", "ran": "yes", "analyser": "check",
        "server_analysis": "", "analysed_by": None,
    }  # fmt: skip
    return Said(at, "pi1", kind, fields | changes)


def found(
    *history: Seen,
    end: dict[str, Any] | None = None,
    log: list[dict[str, Any]] = LOG,
    within: float = 3_600.0,
) -> list[str]:
    seen = sorted([ASKED, *history], key=lambda one: one.at if hasattr(one, "at") else 0.0)
    state = FinalState({("pi1", "c1"): end or final()}, {"pi1": log}, within=within)
    return [one.text for one in check(seen, state) if one.promise == "analysis"]


def test_a_first_analysis_and_a_regrade_are_right() -> None:
    assert found(GIVEN, said(5.5, server_analysis=WORD, analysed_by=BY)) == []
    assert found(GIVEN, AGAIN, end=final(regrades=[told()]), log=[*LOG, REGRADE_ROW]) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"server_analysis": "other"}, "nobody gave 'other' by check v1"),
        ({"analysed_by": None}, "by a person was given by ('check', 'v1')"),
        ({"analysed_by": BY | {"version": "v2"}}, "was given by ('check', 'v1')"),
    ],
)
def test_a_first_analysis_is_one_that_somebody_gave(changes: dict[str, Any], text: str) -> None:
    assert text in found(GIVEN, end=final(**changes))[0]


def test_what_was_given_for_another_command_is_not_taken() -> None:
    other = Judged(5.0, "ada", "pi1", "c2", WORD, ("check", "v1"))
    assert "nobody gave" in found(other)[0]
    wrong = WORD.replace('"c1"', '"c2"')
    given = Judged(5.0, "ada", "pi1", "c1", wrong, ("check", "v1"))
    assert found(given, end=final(server_analysis=wrong)) == ["has the analysis of pi1 c2"]
    wrong = dumps({"data": what_was_judged("pi1", "c1", "q")})
    given = Judged(5.0, "ada", "pi1", "c1", wrong, ("check", "v1"))
    text = "what was judged was the program 8e35c2cd3bf6641b"
    assert found(given, end=final(server_analysis=wrong)) == [text]


def test_what_ended_by_itself_was_not_judged_as_lost() -> None:
    neither = dumps({"passed": None, "message": "lost: no answer within 40 s"})
    given = Judged(5.0, "ada", "pi1", "c1", neither, ("check", "v1"))
    text = "ended ok, and was judged as what the lab had lost"
    assert found(given, end=final(server_analysis=neither)) == [text]
    assert found(given, end=final(server_analysis=neither, outcome="lost", ran="maybe")) == []
    fault = dumps({"error": "it has failed"})
    given = Judged(5.0, "ada", "pi1", "c1", fault, ("check", "v1"))
    assert found(given, end=final(server_analysis=fault)) == []


def test_the_line_of_outcome_is_the_coordinator_s() -> None:
    line = {"server_analysis": "ok: exit 0", "analysed_by": None}
    assert found(end=final(analyser="outcome", **line)) == []
    assert "nobody gave" in found(end=final(**line))[0]


def test_a_first_analysis_stays() -> None:
    before = said(5.5, server_analysis="x", analysed_by=BY)
    assert "was 'x' by check v1" in found(GIVEN, before)[0]
    assert found(GIVEN, before, PutBack(6.0, 2.0), said(7.0)) == []
    gone = found(GIVEN, said(5.5, server_analysis=WORD, analysed_by=BY), said(6.0))
    assert "is none at 6.000" in gone[0]
    has = said(5.5, seq=5, server_analysis=WORD, analysed_by=BY)
    assert found(GIVEN, has, said(6.0, seq=4)) == []  # of before, by a broker that was killed
    assert "is none at 6.000" in found(GIVEN, has, said(6.0, seq=6))[0]


def test_a_late_result_withdraws_what_analysers_said_of_its_assumption() -> None:
    before = said(5.5, outcome="lost", ran="maybe", server_analysis="x", analysed_by=BY)
    assert found(GIVEN, before) == []
    person = said(5.5, outcome="lost", ran="maybe", server_analysis="seen")
    by_hand = Judged(5.0, "anna", "pi1", None, "seen")
    assert "was 'seen' by a person" in found(by_hand, GIVEN, person)[0]


def test_a_regrade_is_never_the_first() -> None:
    taken = final(server_analysis="again", analysed_by=BY | {"version": "v2"})
    log = [*LOG, REGRADE_ROW]
    assert "a regrade is its first analysis" in found(GIVEN, AGAIN, end=taken, log=log)[0]


@pytest.mark.parametrize(
    ("regrades", "text"),
    [
        ([told(), told()], "2 regrades by check v2"),
        ([told(analysis="other")], "nobody gave the regrade by check v2"),
        ([told(version="v3")], "nobody gave the regrade by check v3"),
    ],
)
def test_of_each_version_there_is_one_that_was_given(
    regrades: list[dict[str, Any]], text: str
) -> None:
    log = [*LOG, REGRADE_ROW]
    assert text in " ".join(found(GIVEN, AGAIN, end=final(regrades=regrades), log=log))


def test_a_regrade_stays() -> None:
    first = said(5.5, kind="result", server_analysis=WORD, analysed_by=BY, regrades=[told()])
    assert "is not now" in found(GIVEN, AGAIN, first)[0]
    assert found(GIVEN, AGAIN, first, PutBack(6.0, 2.0)) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"before": 3}, "a regrade moved the record"),
        ({"late": False}, "a regrade moved the record"),
        ({"before": 1, "state": 1}, "a regrade was taken in state 1"),
        ({"before": 2, "state": 2}, "a regrade was taken in state 2"),
    ],
)
def test_a_regrade_moves_nothing(changes: dict[str, Any], text: str) -> None:
    log = [*LOG, REGRADE_ROW | changes]
    assert text in found(GIVEN, AGAIN, end=final(regrades=[told()]), log=log)


def test_a_copy_has_no_row() -> None:
    text = "a second analysis by check v1 has a row"
    assert found(GIVEN, log=[*LOG, ROW | {"before": 0, "late": True}]) == [text]
    late = row("hw_response_provide", 0, 0, 5, late=True)
    assert found(GIVEN, log=[*LOG, late, ROW | {"before": 0, "late": True}]) == []
    early = REGRADE_ROW | {"payload": REGRADE.replace("v2", "v1"), "before": 3, "state": 3}
    assert found(GIVEN, log=[*LOG[:3], early, ROW]) == []


def test_what_was_said_of_an_assumed_end_does_not_stand() -> None:
    late = row("hw_response_provide", 0, 0, 5, late=True, note="corrected from lost, ran maybe")
    text = "check v1 judged an end that was corrected since"
    assert found(GIVEN, log=[*LOG, late]) == [text]
    assert found(GIVEN, log=[*LOG, late, ROW | {"before": 0, "late": True}]) == []


def test_the_log_says_who_has_judged() -> None:
    silent = ROW | {"note": "analysed"}
    text = "no row of the log says that check v1 has judged it"
    assert found(GIVEN, log=[*LOG[:3], silent]) == [text]


# -- how long it is waited ----------------------------------------------------------------------

RETURNED = said(10.0, 3, 3)
EXPIRED = [*LOG[:3], row("expire", 3, 0, 4)]
NONE: dict[str, Any] = {"server_analysis": "", "analysed_by": None}


def given_up(at: float, *offered: Offered, within: float = 3_600.0) -> list[str]:
    history = [*offered, RETURNED, said(at, 0, 4)]
    return found(*history, end=final(**NONE), log=EXPIRED, within=within)


HERE, GONE = Offered(2.0, "ada", ("check",)), Offered(15.0, "ada")


def test_a_name_that_is_offered_is_waited_for() -> None:
    assert "check was offered until 80.000" in given_up(80.0, HERE)[0]
    assert given_up(80.0, HERE, within=65.0) == []
    assert given_up(80.0, HERE, GONE) == []
    assert "check was offered until 15.000" in given_up(60.0, HERE, GONE)[0]
    assert given_up(75.0, HERE, GONE, Offered(20.0, "bob", ("check",)), Offered(21.0, "bob")) != []
    assert given_up(90.0, HERE, GONE, Offered(20.0, "bob", ("check",)), Offered(21.0, "bob")) == []


def test_who_offers_another_name_counts_for_nothing() -> None:
    assert given_up(71.0, Offered(2.0, "ada", ("style",))) == []


def test_a_minute_is_a_minute_also_where_nobody_was_ever_there() -> None:
    assert "it was returned at 10.000" in given_up(40.0, Offered(0.0, ""))[0]


def test_a_coordinator_that_begins_knows_of_nobody() -> None:
    assert given_up(80.0, HERE, Offered(12.0, "")) == []


def test_a_name_that_nobody_offers_is_not_waited_for() -> None:
    life = Served(0.0, 100.0, 100.0, 100.0)
    text = "waits for check, which nobody offered for 85.0 s until 100.0"
    late = [RETURNED, life, said(101.0, 0, 4)]
    assert text in found(HERE, GONE, *late, end=final(**NONE), log=EXPIRED)[0]
    back = Offered(50.0, "bob", ("check",))
    assert found(HERE, GONE, back, *late, end=final(**NONE), log=LOG[:3]) == []


def unjudged(**changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {("pi1", "c1"): final(**NONE, pruned=False, issued=1_000.0, **changes)}


def test_in_the_end_what_is_offered_has_judged() -> None:
    (one,) = check_judged(unjudged(), {"check"}, 2_000.0)
    assert str(one) == "analysis: pi1 c1: ok, and check has not judged it"
    assert check_judged(unjudged(), {"style"}, 2_000.0) == []
    assert check_judged(unjudged(), {"check"}, 1e9) == []
    for changes in ({"outcome": "lost"}, {"outcome": "cancelled", "ran": "no"}, {"orphan": True}):
        assert check_judged(unjudged(**changes), {"check"}, 2_000.0) == []
