"""A name that nobody offers is refused before it is asked for; verdicts in words."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli import verdicts
from hwsync.cli.checks import analysts
from hwsync.operator.offering import awaiting, is_analysts
from hwsync.protocol.errors import NotFound, UsageError
from hwsync.protocol.wire.analyst import Offer, encode_offer
from hwsync.transport import Delivery
from tests.support.operator_line import Line


def offer(analyst: str, *names: str, payload: bytes | None = None) -> Delivery:
    said = encode_offer(Offer(True, dict.fromkeys(names, "1"), 0.0))
    topic = f"hw/@hwsync/analysts/{analyst}"
    return Delivery(topic, said if payload is None else payload, 1, True, False, 1, 1)


def test_one_that_is_offered_is_asked_for_at_once() -> None:
    line = Line()
    line.drive(awaiting(line.conversation, "check1"), offer("a", "other"), offer("b", "check1"))
    line.drive(awaiting(line.conversation, "check1"))
    assert line.now == 0.0


@pytest.mark.parametrize("gone", [b"", b'{"online": false}'])
def test_one_that_nobody_offers_is_refused_and_what_there_is_is_said(gone: bytes) -> None:
    line = Line()
    words = (offer("a", "check2", "check3"), offer("b", "check0"), offer("b", payload=gone),
             offer("c", payload=b"?"))  # fmt: skip
    with pytest.raises(NotFound, match="no analyst that is online offers check1") as refused:
        line.drive(awaiting(line.conversation, "check1"), *words)
    assert refused.value.hint.startswith("there are check2, check3; hwsync analyst --dir")
    with pytest.raises(NotFound) as refused:
        line.drive(awaiting(Line().conversation, "check1"))
    assert refused.value.hint.startswith("no analyst is online;")


def test_which_names_are_an_analysts() -> None:
    assert [is_analysts(name) for name in ("manual", "outcome", "check1")] == [False, False, True]
    with pytest.raises(UsageError, match="no name of an analyser"):
        is_analysts("Check 1")


BY = {"name": "check1", "version": "3f0c", "fault": None}


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"server_analysis": '{"passed":true,"score":0.5,"message":"42 is\\nright"}',
       "analysed_by": BY}, "check1 3f0c: passed, score 0.5: 42 is"),
     ({"server_analysis": '{"passed":false}', "analysed_by": BY}, "check1 3f0c: not passed"),
     ({"server_analysis": "fine", "analysed_by": BY}, "check1 3f0c: judged: fine"),
     ({"server_analysis": '{"error":"x"}', "analysed_by": BY | {"fault": "it died"}},
      "check1 3f0c failed itself, which says nothing of the program: it died"),
     ({"server_analysis": "well done\n", "analysed_by": None}, "well done"),
     ({"server_analysis": "", "no_analysis": "no analyst offers check1"},
      "none: no analyst offers check1"), ({"server_analysis": ""}, "")],
)  # fmt: skip
def test_a_verdict_in_words(fields: dict[str, Any], said: str) -> None:
    assert verdicts.first(fields) == said


def test_each_regrade_has_a_line() -> None:
    one = {**BY, "analysis": '{"passed":true}', "time": 1.0}
    assert list(verdicts.regrades({"regrades": [one]})) == ["check1 3f0c: passed"]


def test_doctor_says_who_is_there_and_what_is_waited_for() -> None:
    many = {f"a{number:02}": "1" for number in range(30)}
    offers = {"grader": Offer(True, {"check1": "1"}), "much": Offer(True, many)}
    health: Any = {"condition": "ok", "unoffered": {"check9": 2}}
    one, two, waits = analysts(offers, health)
    assert one.found == "grader is online and offers check1"
    assert two.found.endswith("a19 and 10 more")
    assert waits.found == "2 boards wait for check9, which no analyst that is online offers"
