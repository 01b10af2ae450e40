"""``hwsync sync``: what the starts of several boards look like."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from hwsync.cli.app import cli
from hwsync.cli.common import Settings
from hwsync.cli.starts import Start, picture, spread, strip, unit_for
from hwsync.protocol.errors import HwsyncError, NotFound, OutputError, UsageError
from tests.support.coordinator import Lab, request, result

EARLY, LATE = Start("pi1", -0.0001, 0.0002), Start("bench-2", 0.0006, 0.0001)


def test_the_spread_is_last_minus_first_and_both_may_be_wrong_by_their_bounds() -> None:
    third = Start("pi3", 0.0, 0.0001)
    found = spread([LATE, EARLY, third])
    assert found is not None
    assert (found.seconds, found.bound) == (pytest.approx(0.0007), pytest.approx(0.0003))
    assert spread([EARLY]) is None
    assert spread([]) is None


@pytest.mark.parametrize(
    ("error", "bound", "unit"),
    [
        *((0.9, 0.2, "s"), (-2.0, 0.1, "s"), (0.9, 0.0, "ms"), (-2e-5, 0.0, "ms")),
        *((2e-6, 1e-6, "µs"), (0.0, 0.0, "µs")),
    ],
)
def test_a_unit_that_is_read_well(error: float, bound: float, unit: str) -> None:
    assert unit_for([Start("a", error, bound)])[1] == unit


def test_a_strip_has_each_start_between_its_bounds_and_the_instant() -> None:
    ends, *rows = strip([EARLY, LATE], 80)
    assert all(len(line) <= 80 for line in (ends, *rows))
    assert re.fullmatch(r" +-0\.300 +\+0\.700 ms", ends)
    first, second = rows
    assert first.startswith("pi1      ")
    assert second.startswith("bench-2  ")
    assert first.endswith("-0.100 ± 0.200 ms")
    instant = second.index("┊")
    assert first.index("├") < first.index("●") < instant < first.index("┤")
    assert instant < second.index("├") < second.index("●")
    assert first[instant] == "─", "the bound is drawn over the instant"


def test_a_strip_of_plain_characters_and_a_narrow_one() -> None:
    lines = strip([EARLY, LATE], 10, plain=True)
    assert "\n".join(lines).isascii()
    assert "o" in lines[1]
    assert strip([Start("a", 0.0, 0.0)], 60)[1].count("●") == 1


@pytest.mark.parametrize("kind", [".png", ".svg", ".pdf"])
def test_a_picture_is_written(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"starts{kind}"
    picture([EARLY, LATE], "two boards", file)
    head = file.read_bytes()[:200]
    assert {".png": b"PNG", ".svg": b"xml", ".pdf": b"%PDF"}[kind] in head


def test_a_picture_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"ends with none of \.png, \.svg, \.pdf"):
        picture([EARLY], "", tmp_path / "starts.bmp")
    pytest.importorskip("matplotlib")
    with pytest.raises(OutputError, match=r"cannot write .*no/starts\.png: No such file"):
        picture([EARLY], "", tmp_path / "no" / "starts.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="needs matplotlib") as error:
        picture([EARLY], "", tmp_path / "starts.png")
    assert "[plots]" in error.value.hint


def began(lab: Lab, board: str, id: str = "c1", **keys: object) -> None:
    """Whatever the device says of a command, from its request to its end."""
    lab.hear("request", request(id, analysis="outcome"), user=board)
    collected = json.dumps({"id": id, "journal": "j1", "boot": 1}).encode()
    lab.hear("collected", collected, user=board)
    lab.hear("response", result(id, **keys), user=board)


def shown(lab: Lab, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    line = ["sync", "--db", str(lab.path), *arguments]
    cli.main(line, obj=Settings(), standalone_mode=False)
    return capsys.readouterr().out


def test_the_command_draws_who_began_and_names_who_did_not(
    lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    began(lab, "pi1", started=1.7e9, start_error=-0.0001, clock_bound=0.0002)
    began(lab, "pi2", started=1.7e9, start_error=0.0004, clock_bound=0.0001)
    began(lab, "pi3", outcome="rejected", exit_code=None, reason="its clock is not known well")
    lab.hear("request", request("c1"), user="pi4")
    began(lab, "pi5", outcome="interrupted", exit_code=None, reason="the device stopped mid-run")
    lines = shown(lab, capsys, "c1").splitlines()
    assert lines[0] == "c1: 2 boards began within 0.500 ms, give or take 0.300 ms"
    assert [line.split()[0] for line in lines[2:4]] == ["pi1", "pi2"]
    assert lines[4] == ("pi3: did not begin at the instant: rejected: its clock is not known well")
    assert lines[5] == "pi4: did not begin at the instant: it has not ended yet"
    assert lines[6] == (
        "pi5: may have begun, and nobody knows when: interrupted: the device stopped mid-run"
    )
    fields = json.loads(shown(lab, capsys, "c1", "--json"))
    assert fields["spread"] == {"seconds": pytest.approx(0.0005), "bound": pytest.approx(0.0003)}
    assert [one["board"] for one in fields["starts"]] == [f"pi{n}" for n in range(1, 6)]
    assert fields["starts"][1]["start_error"] == 0.0004


def test_the_command_says_where_nobody_began_at_an_instant(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFound, match="no board has a command c9"):
        shown(lab, capsys, "c9")
    began(lab, "pi1", started=1.7e9)
    with pytest.raises(HwsyncError, match="it was asked for without a start"):
        shown(lab, capsys, "c1")
