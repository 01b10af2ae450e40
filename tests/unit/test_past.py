"""What ``history`` and ``export`` print: which runs are meant, their lines, and their columns."""

from __future__ import annotations

import csv
import datetime
import io
import time
from pathlib import Path
from typing import Any

import pytest

from hwsync.cli import page, past, sources
from hwsync.cli.filters import moment, read_filters
from hwsync.operator.filters import Filters
from hwsync.protocol.errors import UsageError
from hwsync.protocol.wire.history import Row
from tests.support.coordinator import COLLECTED, Lab, request, result
from tests.support.graded import verdict

NOW = datetime.datetime(2026, 11, 30, 14, 30, 5)
NONE = {"since": None, "until": None, "last": None, "outcome": None, "by": None, "meta": (),
        "name": None}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2d", -172_800.0), ("3h", -10_800.0), ("30m", -1_800.0), ("5 s", -5.0), ("1w", -604_800.0),
     ("1.5h", -5_400.0), ("0s", -0.001)],
)  # fmt: skip
def test_so_long_ago_is_by_the_coordinators_clock(text: str, seconds: float) -> None:
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("today", datetime.datetime(2026, 11, 30)),
        ("Yesterday", datetime.datetime(2026, 11, 29)),
        ("14:30", datetime.datetime(2026, 11, 30, 14, 30)),
        ("9:05", datetime.datetime(2026, 11, 30, 9, 5)),
        ("9:05:06", datetime.datetime(2026, 11, 30, 9, 5, 6)),
        ("2026-09-01", datetime.datetime(2026, 9, 1)),
        ("2026-09-01T14:30", datetime.datetime(2026, 9, 1, 14, 30)),
        ("2026-09-01 14:30:05", datetime.datetime(2026, 9, 1, 14, 30, 5)),
    ],
)
def test_a_time_of_day_is_this_machines(text: str, at: datetime.datetime) -> None:
    assert moment(text, NOW) == at.timestamp()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"since": "tomorrow"}, "--since: 'tomorrow' is no time"),
        ({"until": "25:00"}, "--until: '25:00' is no time"),
        ({"since": "2 years"}, "such as 2d"),
        ({"outcome": "ok,fine"}, "'fine' is no outcome"),
        ({"meta": ("[1]",)}, "--meta is KEY=VALUE here"),
        ({"analyser": "Check 1"}, "--analyser: 'Check 1' is no analyser's name"),
        ({"meta": ("a=1", "b")}, "--meta is KEY=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_filters(NONE | given, NOW)
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_what_was_typed_is_what_is_asked() -> None:
    given = NONE | {"outcome": "error, timeout", "meta": ("course=1b",), "last": 3, "by": "anna"}
    assert read_filters(given, NOW) == Filters(
        outcome=("error", "timeout"), meta={"course": "1b"}, last=3, by="anna"
    )


def row(**fields: Any) -> Row:
    made = {
        "id": "c1", "number": 1, "state": 0, "issued": NOW.timestamp(), "by": "anna",
        "known_by": "claim", "name": "blink.py", "outcome": "ok", "ran": "yes", "reason": "",
        "exit_code": 0, "started": None, "duration": 1.234, "files": [], "analysis": "fine",
        "meta": "{}", "line": "42",
    }  # fmt: skip
    return {**made, **fields}  # type: ignore[typeddict-item, return-value]


def test_a_terminal_has_a_header_and_lines_that_it_can_show() -> None:
    now = NOW.timestamp() + 60
    runs = [("pi1", row()), ("pi2", row(outcome=None, state=2, exit_code=None, duration=None,
                                        line="x" * 300, issued=now - 90_000))]  # fmt: skip
    header, first, second = past.table(runs, now, 100)
    assert header.split() == [name for name in past.HEADER if name != "VERDICT"]
    assert first.split() == ["14:30:05", "pi1", "anna", "blink.py", "ok", "0", "1.23", "s", "c1",
                             "42"]  # fmt: skip
    assert second.split()[:5] == ["11-29", "13:31", "pi2", "anna", "blink.py"]
    assert "running" in second
    assert len(second) == 100
    assert second.endswith("…")
    piped = list(past.table(runs, now, None))
    assert piped[0] == piped[0].rstrip()
    assert len(piped) == 2  # a pipe has no header, and all of a line
    assert piped[1].endswith("x" * 300)


def test_a_column_that_nobody_has_anything_in_is_left_out() -> None:
    (header, _) = past.table([("pi1", row(by=None, line=""))], NOW.timestamp(), 80)
    assert header.split() == ["WHEN", "BOARD", "NAME", "OUTCOME", "EXIT", "TIME", "ID"]


def test_in_80_columns_there_is_room_for_some_output() -> None:
    long = row(by="a-long-account", name="a-long-program-name.py", outcome="interrupted",
               id="cli-4c1b2f8a90d3e7f1", line="y" * 50)  # fmt: skip
    header, line = past.table([("raspberry-12", long)], NOW.timestamp(), 80)
    assert "BY" not in header.split()
    assert len(line) <= 80
    assert "cli-4c1b2f8a90d3e7f1" in line


def test_an_id_is_whole_where_nothing_was_written() -> None:
    said = [verdict(passed=False, score=0.125)]
    run = row(line="", id="cli-4c1b2f8a90d3e7f1", verdicts=said, issued=0.0)
    _, line = past.table([("raspberry-12", run)], NOW.timestamp(), 80)
    assert line.endswith("  cli-4c1b2f8a90d3e7f1")
    assert len(line) <= 80


def test_the_verdict_stands_in_the_line_and_in_the_columns() -> None:
    verdicts = [verdict(passed=False, score=0.2), verdict("check2", passed=True, score=0.905)]
    run = row(verdicts=verdicts)
    header, line = past.table([("pi1", run)], NOW.timestamp(), 100)
    assert header.split()[-3:] == ["VERDICT", "ID", "OUTPUT"]
    assert line.split()[-4:] == ["passed", "0.905", "c1", "42"]
    fields = past.exported("pi1", run)
    assert (fields["passed"], fields["score"], fields["judged_by"]) == (True, 0.905, "check2")
    failed = row(verdicts=[verdict(fault="it crashed", passed=True)])
    assert past.verdict_in_short(failed) == "fault"
    assert past.verdict_in_short(row(verdicts=[*failed["verdicts"], *verdicts])) == "passed 0.905"
    assert past.verdict_in_short(row()) == ""
    nobody = past.exported("pi1", failed)
    assert [nobody[name] for name in ("passed", "score", "judged_by")] == [None] * 3


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_a_text_is_no_formula(text: str) -> None:
    (cells,) = csv.reader(io.StringIO(past.as_csv(past.exported("pi1", row(line=text)).values()),
                                      newline=""))  # fmt: skip
    assert dict(zip(past.COLUMNS, cells, strict=True))["line"] == f"'{text}"


def test_a_number_stays_one_and_a_text_keeps_its_quotes_and_lines() -> None:
    fields = past.exported("pi1", row(line='a "b", c\nd', duration=-1.5, files=["a", "b"]))
    (cells,) = csv.reader(io.StringIO(past.as_csv(fields.values())))
    told = dict(zip(past.COLUMNS, cells, strict=True))
    assert (told["line"], told["duration"], told["files"]) == ('a "b", c\nd', "-1.5", "a;b")
    assert (told["time"], told["exit_code"]) == (
        datetime.datetime.fromtimestamp(NOW.timestamp(), datetime.UTC).isoformat(), "0",
    )  # fmt: skip


def test_the_columns_are_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs/history.md").read_text()
    _, _, columns = text.partition("## The columns")
    listed = [
        name.strip().strip("`")
        for line in columns.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    ]
    assert listed == list(past.COLUMNS)


def test_a_database_gives_the_same_rows(tmp_path: Path) -> None:
    with Lab(tmp_path / "h.db") as lab:
        for id, user in (("c1", "pi1"), ("c1", "pi2"), ("c2", "pi1")):
            lab.clock.now += 10.0
            lab.hear("request", request(id, meta={"by": "anna"}, name="a.py"), user=user)
            lab.hear("collected", COLLECTED.replace(b"c1", id.encode()), user=user)
            lab.hear("response", result(id, response="42\n"), user=user)
            lab.hear("analysis", b"right", user=user)
        told = list(sources.of_database(lab.path, (), Filters(by="anna")).rows)
        assert [(user, row["id"]) for user, row in told] == [
            ("pi1", "c1"), ("pi2", "c1"), ("pi1", "c2"),
        ]  # fmt: skip
        assert told[0][1]["line"] == "42"
        last = sources.of_database(lab.path, ("pi1",), Filters(last=1)).rows
        assert [row["id"] for _, row in last] == ["c2"]
        assert list(sources.of_database(lab.path, (), Filters(outcome=("error",))).rows) == []
        lab.hear("request", request("c3", analysis="check1"), user="pi1")
        named = sources.of_database(lab.path, (), read_filters(NONE | {"analyser": "check1"}, NOW))
        assert [row["id"] for _, row in named.rows] == ["c3"]
        lab.hear("collected", COLLECTED.replace(b"c1", b"c3"), user="pi1")
        lab.hear("response", result("c3"), user="pi1")
        for judged, ids in ((True, ["c1", "c1", "c2"]), (False, ["c3"]), (None, None)):
            some = sources.of_database(lab.path, (), read_filters(NONE | {"judged": judged}, NOW))
            told_ids = [row["id"] for _, row in some.rows]
            assert told_ids == (ids or ["c1", "c1", "c2", "c3"])


def test_a_page_leaves_out_what_is_empty_and_says_times_in_words() -> None:
    now = NOW.timestamp()
    fields = {
        "id": "c1", "state": 0, "queued": 0, "user": "pi1", "issued": now - 7_200, "args": ["a b"],
        "stdin": "", "meta": '{"course":"1b"}', "server_analysis": "error: exit 3 in 0.10 s",
        "outcome": "error", "ran": "yes", "reason": "", "exit_code": 3, "duration": 0.1,
        "started": None, "start_error": None, "clock_bound": None, "late": False, "orphan": False,
        "pruned": False, "name": "blink.py",
    }  # fmt: skip
    asked = time.strftime("%a %d %b, %H:%M:%S", time.localtime(now - 7_200))
    assert list(page.lines(fields, now, by="anna")) == [
        "blink.py on pi1: error, exit code 3, after 0.10 s",
        "  id            c1",
        f"  asked for     by anna, {asked} (2 hours ago)",
        "  arguments     a b",
        "  analysis      error: exit 3 in 0.10 s",
        '  meta          {"course":"1b"}',
    ]
    waits = fields | {"outcome": None, "ran": None, "exit_code": None, "duration": None,
                      "queued": 2, "meta": "{}", "server_analysis": ""}  # fmt: skip
    assert page.headline(waits) == "blink.py on pi1: queued, place 2 in the queue"
    lost = fields | {"outcome": "lost", "ran": "maybe", "reason": "no answer\nin time"}
    lines = list(page.lines(lost, now))
    assert "  why           no answer" in lines
    assert "                in time" in lines
    assert "  ran           nobody can know whether it ran" in lines
