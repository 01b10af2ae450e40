"""The soak's verdict can be a bad one: each promise broken once in what it is told."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwsync.analysers import Run
from hwsync.protocol.files import Files
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import AnalysedBy, Command, Outcome, Ran, Request, RunReport, State
from hwsync.protocol.wire.asking import encode_analysis
from hwsync.protocol.wire.status import result_json
from hwsync.testing.analysis_promises import what_was_judged
from hwsync.testing.checker import FinalState
from hwsync.testing.history import Answered, Asked, Ended, Said, Seen
from tests.support.soak_analysts import ANALYSER, check_in_the_end, write_analyser
from tests.support.soak_programs import READ, Programs, read_lines
from tests.support.soak_verdict import differing, figures, judge, read_witness

USER = "pi1"
OFFSET = 1_000_000.0  # what the wall clock is ahead of the monotonic one


class Story:
    """What one user's operator, programs and database say; times are monotonic seconds."""

    def __init__(self) -> None:
        self.programs = Programs("/witness")
        self.history: list[Seen] = []
        self.lines: list[str] = []
        self.commands: dict[tuple[str, str], dict[str, Any]] = {}
        self.undisturbed = True

    def asked(self, id: str) -> str:
        program = self.programs.make(id, 0.1)
        self.history.append(Asked(1.0, "operator", USER, "request", id, program))
        return program

    def acknowledged(self, id: str, program: str) -> None:
        fields = {"id": id, "hw_command": program, "outcome": None, "ran": None, "state": 1}
        self.history.append(Answered(1.1, "operator", USER, id, fields))

    def wrote(self, word: str, tag: str, at: float, process: int = 1) -> None:
        self.lines.append(f"{word} {USER} {tag} {process} {at} 0")

    def recorded(self, id: str, program: str, outcome: str = "ok", ran: str = "yes",
                 issued: float = 1.0, stderr: str = "", files: Files = ()) -> None:  # fmt: skip
        said = self.programs.output(program) if outcome == "ok" else ""
        report = RunReport(
            Outcome(outcome), Ran(ran), response=said, stderr=stderr, started=OFFSET + issued,
            files=files,
        )  # fmt: skip
        command = Command(
            USER, id, Request(program), issued=OFFSET + issued, journal="j1", report=report
        )
        self.commands[USER, id] = result_json(command, State.REST)

    def found(self) -> list[tuple[str, str]]:
        """(promise, id) of every violation."""
        final = FinalState(self.commands)
        seen = read_witness(
            read_lines(self.lines), self.programs, self.commands, OFFSET,
            lambda user, since, until: self.undisturbed,
        )  # fmt: skip
        violations = judge([*self.history, *seen], final, self.programs.output)
        return [(one.promise, one.id) for one in violations]


def with_a_file(read: str = "", back: Files | None = None) -> Story:
    """One command that had a file, and brought one back. ``read``: the hash of what it had."""
    one = Story()
    program, _ = one.programs.make_with_a_file("c1", 0.1)
    sent, made = one.programs.sent["c1"], one.programs.back["c1"]
    files = one.programs.files("c1")
    one.history.append(Asked(1.0, "operator", USER, "request", "c1", program, files=files))
    for at, word in enumerate(["began", READ + (read or sent.sha256), "ended"]):
        one.wrote(word, "c1", 2.0 + at / 10)
    one.recorded("c1", program, files=(made,) if back is None else back)
    return one


def test_a_file_that_came_back_whole_is_right_and_another_or_none_is_not() -> None:
    assert with_a_file().found() == []
    made = with_a_file().programs.back["c1"]
    for wrong in (with_a_file(read="0" * 64), with_a_file(back=()),
                  with_a_file(back=(replace(made, size=made.size - 1),))):  # fmt: skip
        assert set(wrong.found()) == {("files", "c1")}


def test_what_a_program_had_not_written_yet_is_not_missed() -> None:
    story = with_a_file(back=())
    story.lines = [line for line in story.lines if not line.startswith(READ)]
    assert story.found() == []


@pytest.fixture
def story() -> Story:
    """One command that was asked for, acknowledged, ran, and is recorded so."""
    one = Story()
    program = one.asked("c1")
    one.acknowledged("c1", program)
    one.wrote("began", "c1", 2.0)
    one.wrote("ended", "c1", 2.1)
    one.recorded("c1", program)
    return one


def test_a_true_story_breaks_nothing(story: Story) -> None:
    assert story.found() == []


def test_a_second_beginning_is_run_twice(story: Story) -> None:
    story.wrote("began", "c1", 5.0, process=2)
    assert story.found() == [("once", "c1")]


def test_an_acknowledged_request_that_nothing_knows_is_lost(story: Story) -> None:
    story.acknowledged("c2", story.asked("c2"))
    assert story.found() == [("acknowledged", "c2")]


def test_what_ran_and_nothing_knows_is_lost(story: Story) -> None:
    story.asked("c2")
    story.wrote("began", "c2", 3.0)
    assert story.found() == [("acknowledged", "c2")]


def test_another_program_s_output_belongs_elsewhere(story: Story) -> None:
    story.commands[USER, "c1"]["hw_response"] = "c2 was here\n"
    assert story.found() == [("belongs", "c1")]


def test_no_is_false_where_the_witness_saw_it(story: Story) -> None:
    story.recorded("c1", story.programs.text["c1"], "expired", "no")
    assert ("truth", "c1") in story.found()


@pytest.mark.parametrize(
    ("stderr", "found"),
    [("", [("truth", "c2")]), ("KeyboardInterrupt\n", []), ("SystemExit\n", [("truth", "c2")])],
)
def test_yes_is_true_where_python_says_that_it_was_interrupted(
    story: Story, stderr: str, found: list[tuple[str, str]]
) -> None:
    """The program's own first line comes a moment after its beginning."""
    program = story.asked("c2")
    story.history.append(Asked(1.2, "operator", USER, "cancel", "c2"))
    story.recorded("c2", program, "cancelled", stderr=stderr)
    assert story.found() == found


def test_maybe_is_false_only_where_the_device_was_left_alone(story: Story) -> None:
    story.recorded("c1", story.programs.text["c1"], "lost", "maybe")
    assert story.found() == [("truth", "c1")]
    story.undisturbed = False
    assert story.found() == []


def test_a_message_without_an_id_that_came_twice_is_two_commands(story: Story) -> None:
    program = story.programs.make("hand-1", 0.1, by_hand=True)
    for number, at in ((2, 3.0), (3, 6.0)):
        story.recorded(f"{number}-made", program, issued=at)
        story.wrote("began", "hand-1", at + 1.0, process=number)
    assert story.found() == []
    story.wrote("began", "hand-1", 9.0, process=4)
    assert story.found() == [("once", "3-made")]


def test_an_ending_is_of_the_process_that_began(story: Story) -> None:
    program = story.programs.make("hand-1", 0.1, by_hand=True)
    story.recorded("2-made", program)
    story.wrote("began", "hand-1", 3.0, process=2)
    story.wrote("ended", "hand-1", 3.1, process=2)
    seen = read_witness(
        read_lines(story.lines), story.programs, story.commands, OFFSET,
        lambda user, since, until: True,
    )  # fmt: skip
    assert [one.id for one in seen if isinstance(one, Ended)] == ["c1", "2-made"]


def test_an_epoch_that_nobody_began_is_a_loss() -> None:
    row = {"id": "", "command": "reset", "before": 0, "state": 0, "late": False, "topic": "",
           "payload": ""}  # fmt: skip
    rows = [{**row, "epoch": 0, "seq": 1}, {**row, "epoch": 1, "seq": 2}]
    found = judge([], FinalState({}, {USER: rows}), lambda program: "")
    assert [one.promise for one in found] == ["acknowledged"]


def test_an_operator_is_told_what_is_recorded(story: Story) -> None:
    final = FinalState(story.commands)
    assert differing({(USER, "c1"): "ok"}, final) == []
    found = differing({(USER, "c1"): "lost", (USER, "c9"): "ok"}, final)
    assert [(one.promise, one.id) for one in found] == [("answers", "c1"), ("answers", "c9")]
    assert figures(final, 1, found)["other violations"] == 2


# -- analyses -----------------------------------------------------------------------------------


def analysed(version: str = "v1", run: str = "c1", *, given: bool = True) -> FinalState:
    """A command that an analyser has judged, as the database and its log have it."""
    program = "print(1)"
    text = dumps({"passed": True, "data": what_was_judged(USER, run, program)})
    command = Command(
        *(USER, "c1", Request(program, analysis=ANALYSER)), issued=time.time(), journal="j1",
        report=RunReport(Outcome.OK, Ran.YES),
        analysis=text if given else None,
        analysed_by=AnalysedBy(ANALYSER, version) if given else None,
    )  # fmt: skip
    row = {
        "id": "c1", "command": "server_analysis_provide", "before": 3, "state": 0, "epoch": 0,
        "seq": 1, "late": False, "topic": f"hw/{USER}/analysis", "time": 0.0,
        "note": f"analysed by {ANALYSER} {version}",
        "payload": encode_analysis(
            loads(text), "c1", AnalysedBy(ANALYSER, "v1")).decode(),
    }  # fmt: skip
    return FinalState({(USER, "c1"): result_json(command, State.REST)}, {USER: [row]})


def analyses_found(final: FinalState) -> set[str]:
    found = [*judge([], final, lambda _: ""), *check_in_the_end(final, time.time())]
    return {one.text for one in found if one.promise == "analysis"}


def test_an_analysis_is_of_its_run_and_of_who_gave_it() -> None:
    assert analyses_found(analysed()) == set()
    assert analyses_found(analysed(run="c2")) == {f"has the analysis of {USER} c2"}
    assert "was given by" in analyses_found(analysed(version="v2")).pop()


def test_what_came_back_is_judged_in_the_end() -> None:
    assert analyses_found(analysed(given=False)) == {f"ok, and {ANALYSER} has not judged it"}


def test_nobody_is_given_up_who_is_offered() -> None:
    final = analysed(given=False)
    final.logs[USER][0]["command"] = "expire"  # type: ignore[index]
    fields = dict(final.commands[USER, "c1"])
    said = [Said(at, USER, "status", fields | {"state": state, "epoch": 0, "seq": 0, "boot": 1})
            for at, state in ((1.0, 3), (80.0, 0))]  # fmt: skip
    texts = [one.text for one in judge(said, final, lambda _: "") if one.promise == "analysis"]
    assert any(text.startswith("given up at 80.000, check was offered") for text in texts)


def test_what_the_soak_s_analyser_says_is_what_is_compared(tmp_path: Path) -> None:
    write_analyser(tmp_path, 1)
    space: dict[str, Any] = {}
    exec((tmp_path / f"{ANALYSER}.py").read_text(), space)
    said = space["analyse"](Run(stdout="x", outcome="ok", board=USER, id="c1", program="p"))
    assert said["data"] == what_was_judged(USER, "c1", "p")
    assert said["passed"]
