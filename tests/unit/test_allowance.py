"""What a coordinator allows below the protocol's limits: what is refused, and what never is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from hwsync import logs
from hwsync.cli.app import cli
from hwsync.cli.common import Settings
from hwsync.coordinator import service
from hwsync.coordinator.health import Life, Tally, health
from hwsync.protocol import limits
from hwsync.protocol.effects import Decision
from hwsync.protocol.errors import Code, Refused, StoreError
from hwsync.protocol.events import CancelAsked, NextInQueue, Requested
from hwsync.protocol.machine import decide
from hwsync.protocol.record import Command, Moment, Record, Request, State
from hwsync.protocol.rules import Allowance, Rules
from hwsync.protocol.wire.itself import Condition
from tests.support.coordinator import OUTBOX, Deed, Lab, request, sent

TWO = Rules(allowance=Allowance(requests_per_minute=2))


class Board:
    """One record, moved by decisions alone; each request is taken back at once."""

    def __init__(self, rules: Rules = TWO) -> None:
        self.rules = rules
        self.record = Record("pi1")
        self.commands: dict[str, Command] = {}

    def ask(self, ticks: float, id: str, *, queue: bool = False, program: str = "1") -> Decision:
        event = Requested(Request(program, id, queue=queue))
        return self._take(event, ticks, self.commands.get(id))

    def cycle(self, ticks: float, id: str) -> str:
        """The code with which it was refused; empty: it was accepted, and has ended."""
        decision = self.ask(ticks, id)
        if decision.refused:
            return decision.refused.code
        self._take(CancelAsked(id), ticks, self.commands[id])
        assert self.record.state is State.REST
        return ""

    def _take(self, event: Any, ticks: float, known: Command | None) -> Decision:
        decision = decide(self.record, event, Moment(1e9, ticks), known, self.rules)
        self.record = decision.record
        for command in (self.record.current, decision.command):
            if command is not None:
                self.commands[command.id] = command
        return decision


def refusal(decision: Decision) -> Refused:
    assert decision.refused is not None
    return decision.refused


def test_one_more_than_so_many_in_a_minute_is_refused_and_told_when_to_try_again() -> None:
    board = Board()
    assert [board.cycle(at, f"c{at}") for at in (100.0, 117.5)] == ["", ""]
    before = board.record
    refused = refusal(board.ask(131.0, "c3"))
    assert (refused.code, refused.id) == (Code.NOT_ALLOWED, "c3")
    assert refused.message == "more than 2 requests a minute for pi1"
    assert refused.hint == "try again in 29 s"
    assert board.record == before


def test_whoever_waits_as_long_as_the_hint_says_is_accepted() -> None:
    board = Board()
    for at in (100.0, 117.5):
        board.cycle(at, f"c{at}")
    assert board.cycle(159.99, "c3") == "not_allowed"
    assert board.cycle(160.0, "c3") == ""  # the first one is a minute ago
    assert board.cycle(177.25, "c4") == "not_allowed"
    assert board.cycle(177.5, "c4") == ""


@pytest.mark.parametrize("number", [1, 2, 7])
def test_in_no_minute_are_there_more_however_often_somebody_asks(number: int) -> None:
    board = Board(Rules(allowance=Allowance(requests_per_minute=number)))
    accepted = [at / 4 for at in range(4 * 200) if not board.cycle(at / 4, f"c{at}")]
    for begin in accepted:
        assert len([at for at in accepted if begin <= at < begin + limits.RATE_S]) <= number
    assert len(accepted) == 4 * number  # and nobody is kept out for longer
    assert len(board.record.recent) <= number


def test_a_repeat_is_neither_counted_nor_refused() -> None:
    board = Board()
    for number in range(5):
        assert board.ask(100.0 + number, "c1").refused is None
    assert board.cycle(105.0, "c1") == ""
    assert board.cycle(106.0, "c2") == ""
    assert board.cycle(107.0, "c3") == "not_allowed"
    for id in ("c1", "c2"):
        assert board.ask(108.0, id).refused is None


def test_what_is_refused_is_not_counted() -> None:
    board = Board()
    board.ask(100.0, "c1")
    for number in range(5):
        assert refusal(board.ask(101.0, f"b{number}")).code is Code.BUSY
    assert refusal(board.ask(101.0, "c1", program="2")).code is Code.ID_REUSED
    board.ask(102.0, "c1")
    assert board.ask(103.0, "c2", queue=True).refused is None


def test_what_waits_in_the_queue_counts_when_it_is_asked_and_not_at_its_turn() -> None:
    board = Board()
    board.ask(100.0, "c1")
    assert board.ask(101.0, "c2", queue=True).refused is None
    refused = refusal(board.ask(102.0, "c3", queue=True))
    assert (refused.code, refused.hint) == (Code.NOT_ALLOWED, "try again in 58 s")
    board._take(CancelAsked("c1"), 103.0, board.commands["c1"])
    assert board._take(NextInQueue(board.commands["c2"]), 103.0, None).refused is None
    assert (board.record.id, board.record.state) == ("c2", State.REQUESTED)
    assert board.ask(160.0, "c3", queue=True).refused is None


def test_without_the_limit_nothing_is_counted() -> None:
    board = Board(Rules())
    assert [board.cycle(100.0, f"c{number}") for number in range(100)] == [""] * 100
    assert board.record.recent == ()


@pytest.mark.parametrize(("program", "fits"), [("é" * 512, True), ("é" * 512 + "x", False)])
def test_a_program_above_the_coordinators_own_limit_is_refused(program: str, fits: bool) -> None:
    board = Board(Rules(allowance=Allowance(max_program=1024)))
    decision = board.ask(100.0, "c1", program=program)
    assert (decision.refused is None) is fits
    if not fits:
        refused = refusal(decision)
        assert (refused.code, refused.id) == (Code.TOO_LARGE, "c1")
        assert refused.message == "the program has 1025 bytes"
        assert "this coordinator takes at most 1024 bytes" in refused.hint


def test_lower_limits_touch_nothing_that_was_accepted() -> None:
    board = Board(Rules())
    board.ask(100.0, "c1", program="x" * 2000)
    for id in ("c2", "c3"):
        board.ask(100.0, id, queue=True, program="x" * 2000)
    board.rules = Rules(allowance=Allowance(1, 1024, 1))
    for id in ("c1", "c2", "c3"):
        assert board.ask(101.0, id, program="x" * 2000).refused is None
    board._take(CancelAsked("c1"), 102.0, board.commands["c1"])
    assert board._take(NextInQueue(board.commands["c2"]), 103.0, None).refused is None
    assert board.record.id == "c2"


def test_a_queue_is_full_where_the_coordinator_says_so() -> None:
    board = Board(Rules(allowance=Allowance(max_queue=2)))
    for id in ("c1", "c2", "c3"):
        assert board.ask(100.0, id, queue=True).refused is None
    refused = refusal(board.ask(100.0, "c4", queue=True))
    assert (refused.code, refused.id) == (Code.QUEUE_FULL, "c4")
    assert refused.message == "2 requests wait for pi1 already"
    assert board.ask(100.0, "c3", queue=True).refused is None


# In the coordinator


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "hwsync.db", rules=TWO) as opened:
        yield opened


def cycle(lab: Lab, id: str, user: str = "pi1") -> list[Deed]:
    deeds = lab.hear("request", request(id), user=user)
    lab.hear("cancel", b'{"id":"%s"}' % id.encode(), user=user)
    return deeds


def errors(deeds: list[Deed]) -> list[str]:
    return [error.json["error"] for error in sent(deeds, "error")]


def test_a_refusal_is_published_logged_counted_and_kept_like_every_other(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    cycle(lab, "c1")
    cycle(lab, "c2")
    with caplog.at_level(logging.WARNING, "hwsync.coordinator"):
        (error,) = sent(lab.hear("request", request("c3")), "error")
    assert (error.json["error"], error.json["id"]) == ("not_allowed", "c3")
    assert error.json["hint"] == "try again in 60 s"
    said = "refused (not_allowed) on hw/pi1/request: more than 2 requests a minute for pi1"
    assert [record.getMessage() for record in caplog.records] == [said]
    told = health(Condition.OK, Tally(), Life(0.0, 0.0), lab.coordinator.counts, [],
                  outbox=OUTBOX, schema=1, wall=0.0, monotonic=0.0)  # fmt: skip
    assert told["refused"]["not_allowed"] == 1
    assert lab.rows("refused", "error, id") == [("not_allowed", "c3")]
    assert lab.store.command("pi1", "c3") is None


def test_each_board_has_its_own_minute(lab: Lab) -> None:
    for id in ("c1", "c2"):
        cycle(lab, id)
    assert errors(cycle(lab, "c3")) == ["not_allowed"]
    lab.hear("request", request("c1"), user="pi2")
    assert lab.coordinator.records["pi2"].id == "c1"


def test_many_in_one_batch_are_counted_one_by_one(lab: Lab) -> None:
    asked = [lab.delivery("request", request(f"c{n}", queue=True)) for n in range(4)]
    assert errors(lab.step(*asked)) == ["not_allowed"] * 2
    assert (lab.record.id, lab.record.queue) == ("c0", ("c1",))


def test_a_failed_save_forgets_no_request_and_counts_none_twice(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle(lab, "c1")
    save = lab.store.save

    def fails(*_: object) -> None:
        raise StoreError("No space left on device")

    monkeypatch.setattr(lab.store, "save", fails)
    assert lab.hear("request", request("c2")) == []
    monkeypatch.setattr(lab.store, "save", save)
    assert errors(lab.later(1.0)) == []
    assert lab.record.id == "c2"
    lab.hear("cancel", b'{"id":"c2"}')
    assert errors(cycle(lab, "c3")) == ["not_allowed"]


def test_the_minute_begins_anew_after_a_restart(lab: Lab) -> None:
    for id in ("c1", "c2"):
        cycle(lab, id)
    assert errors(cycle(lab, "c3")) == ["not_allowed"]
    lab.restart()
    assert errors(cycle(lab, "c3")) == []


def test_no_time_passes_while_it_is_not_connected(lab: Lab) -> None:
    for id in ("c1", "c2"):
        cycle(lab, id)
    lab.disconnect()
    lab.later(100.0)
    lab.connect()
    assert errors(cycle(lab, "c3")) == ["not_allowed"]
    lab.later(60.0)
    assert errors(cycle(lab, "c3")) == []


def test_the_record_on_the_disk_knows_nothing_of_it(lab: Lab) -> None:
    cycle(lab, "c1")
    assert lab.record.recent
    (stored,) = lab.store.load(0.0).values()
    assert stored == replace(lab.record, recent=())


# The options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Allowance()),
        (["--requests-per-minute", "7"], Allowance(requests_per_minute=7)),
        (["--max-program-kb", "3"], Allowance(max_program=3072)),
        (["--max-queue", "9"], Allowance(max_queue=9)),
    ],
)
def test_the_options_are_what_the_coordinator_decides_by(
    words: list[str],
    expected: Allowance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    decided_by: list[Rules] = []

    class EndedError(Exception):
        pass

    def coordinator(_: object, __: object, ___: object, rules: Rules, **____: object) -> None:
        decided_by.append(rules)
        raise EndedError

    monkeypatch.setattr(service, "Coordinator", coordinator)
    monkeypatch.setattr(logs, "setup", lambda _: None)
    command = ["coordinator", "--db", str(tmp_path / "db"), "--broker", "mqtt://127.0.0.1:1"]
    with pytest.raises(EndedError), caplog.at_level(logging.INFO, "hwsync.coordinator"):
        cli.main([*command, *words], obj=Settings(), standalone_mode=False)
    (rules,) = decided_by
    assert rules.allowance == expected
    assert ("a board may have" in caplog.text) is bool(words)  # whoever reads the log knows it


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("--requests-per-minute", -1),
        ("--requests-per-minute", limits.REQUESTS_PER_MINUTE[1] + 1),
        ("--max-program-kb", 0),
        ("--max-program-kb", 257),
        ("--max-queue", 0),
        ("--max-queue", limits.MAX_QUEUE + 1),
    ],
)
def test_more_than_the_protocol_allows_is_refused(
    option: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "serve", lambda **_: None)
    with pytest.raises(click.BadParameter, match="is not in the range"):
        cli.main(["coordinator", option, str(number)], obj=Settings(), standalone_mode=False)
