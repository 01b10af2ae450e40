"""What ``hwsync status`` says of a record."""

from __future__ import annotations

import pytest

from hwsync.cli.operate import TEXT_LETTERS, TEXT_LINES, _line, _whole, end_of
from hwsync.protocol.record import Command, Outcome, Ran, Record, Request, RunReport, State
from hwsync.protocol.wire.status import status_json

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("deadline", "said"),
    [
        (NOW + 240.0, "ends in 4 minutes"),
        (NOW + 12.4, "ends in 12 s"),
        (NOW + 3 * 86_400.0, "ends in 3 days"),
        (NOW, "its time is over"),
        (NOW - 1e6, "its time is over"),
        (None, "no end by itself"),
    ],
)
def test_when_a_state_ends_is_said_in_plain_words(deadline: float | None, said: str) -> None:
    assert end_of({"deadline": deadline}, NOW) == said


def test_it_stands_in_the_line_and_in_the_whole_record_but_not_at_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    command = Command("pi1", "c1", Request("print(1)"))
    record = Record("pi1", State.COLLECTED, seq=2, deadline_wall=NOW + 40.0, current=command)
    fields = status_json(record)
    assert _line("pi1", fields).endswith("c1                             ends in 40 s")
    assert _line("pi1", fields, now=NOW + 10.0).endswith("ends in 30 s")  # the coordinator's clock
    assert _whole(fields)[0] == "pi1: 2 collected, ends in 40 s"
    rest = status_json(Record("pi1", seq=3, current=command))
    assert "end" not in _line("pi1", rest)
    assert _whole(rest)[0] == "pi1: 0 rest"


@pytest.mark.parametrize(
    "response", ["".join(f"line {n}\n" for n in range(9_000)), "é" * 65_536], ids=["lines", "one"]
)
def test_on_a_terminal_a_long_text_is_cut_and_the_rest_named(response: str) -> None:
    report = RunReport(Outcome.OK, Ran.YES, response=response)
    command = Command("pi1", "c1", Request("print(1)"), report=report)
    fields = status_json(Record("pi1", State.REST, seq=4, current=command))
    whole, brief = _whole(fields), _whole(fields, brief=True)
    assert "\n".join(whole).count("line") == response.count("line")
    (cut,) = [n for n, line in enumerate(brief) if "characters more" in line]
    assert sum(map(len, brief)) < 2 * TEXT_LETTERS
    assert cut < TEXT_LINES + 10
    assert brief[cut].endswith("hwsync show pi1 c1")
    assert brief[-2:] == ["--- program", "print(1)"], "what follows stands there"


def test_on_a_terminal_a_record_is_a_page_without_what_is_empty() -> None:
    short = status_json(Record("pi1", seq=4, current=Command("pi1", "c1", Request("print(1)"))))
    assert _whole(short, brief=True) == [
        "pi1: 0 rest", "program.py on pi1: queued", "  id            c1", "--- program", "print(1)",
    ]  # fmt: skip
    assert _whole(status_json(Record("pi1")), brief=True) == ["pi1: 0 rest"]
