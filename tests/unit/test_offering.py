"""A name that nobody offers is refused before it is asked for; verdicts in words."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli import slow, verdicts
from hwsync.cli.checks import analysts
from hwsync.operator.offering import awaiting, is_analysts
from hwsync.protocol.errors import NotFound, UsageError
from hwsync.protocol.wire.analyst import Offer, encode_offer
from hwsync.transport import Delivery
from tests.support.lab import here
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


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('{"passed": 3}', "passed of the analysis is 3: it can be true, false or null"),
        ('{"passed": "true"}', 'passed of the analysis is "true": it can be'),
        (' {"score": 80}', "score of the analysis is 80: it can be a number from 0 to 1, or null"),
        ('{"score": true}', "score of the analysis is true: it can be"),
        ('{"message": ["x"]}', "message of the analysis is .*: it can be a text, or null"),
        ('{"passed": true', "the analysis is no JSON: "),
        ("{passed: true}", "the analysis is no JSON: "),
    ],
)
def test_a_verdict_with_a_slip_in_it_is_refused_before_it_is_sent(text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        verdicts.checked(text)
    for words in (["analyse", "pi1", text], ["run", "pi1", "-c", "1", "--analysis", text]):
        told = here(*words, HWSYNC_BROKER="mqtt://127.0.0.1:1")
        assert told.exit_code == 2
        assert "of the analysis is" in told.stderr or "the analysis is no JSON" in told.stderr


@pytest.mark.parametrize(
    "text", ["well done", "", "3", "[1]", "{}", '{"mark": 80}',
             '{"passed": null, "score": 0.8, "message": "nice"}'],
)  # fmt: skip
def test_any_other_analysis_may_be_typed(text: str) -> None:
    assert verdicts.checked(text) == text


@pytest.mark.parametrize("name", ["", "Check1", "l\u00e4b"])
def test_what_is_no_name_is_no_default(name: str) -> None:
    for command in ("run", "send"):
        told = here(
            command, "pi1", "-c", "1", "--analyser", name, HWSYNC_BROKER="mqtt://127.0.0.1:1"
        )
        assert told.exit_code == 2
        assert "is no name of an analyser" in told.stderr


def test_a_verdict_that_takes_long_is_said_to_be_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, now = list[str](), 0.0
    waits: Any = slow.AwaitedVerdict(told.append, lambda: now)
    status = {"state": 2, "outcome": None, "analyser": "check1", "no_analysis": None}
    ended = status | {"state": 3, "outcome": "ok"}

    def at(seconds: float, fields: dict[str, Any]) -> list[str]:
        nonlocal now
        now = seconds
        waits.hear(fields)
        waits.tick()
        said = list(told)
        told.clear()
        return said

    monkeypatch.setattr(slow, "somebody_waits", lambda: True)
    for seconds, fields in ((5.0, status), (10.0, ended), (11.9, ended)):
        assert at(seconds, fields) == []
    said = "hwsync: the program has ended: ok; waiting for the verdict of check1 (Ctrl-C leaves)"
    assert (at(12.0, ended), at(30.0, ended)) == ([said], [])
    (gone,) = at(31.0, ended | {"no_analysis": "no analyst offers check1"})
    assert "no analyst offers check1 now; that is waited for 60 s at most" in gone
    assert waits.returned["outcome"] == "ok"
    assert at(32.0, ended | {"state": 0}) == []
    assert waits.returned is None
    monkeypatch.setattr(slow, "somebody_waits", lambda: False)
    assert (at(40.0, ended), at(50.0, ended)) == ([], [])
