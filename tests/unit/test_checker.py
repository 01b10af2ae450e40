"""The checker: each promise broken once, and what it excuses."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.testing.checker import FinalState, check
from hwsync.testing.history import (
    Answered,
    Asked,
    Began,
    Copied,
    Ended,
    JournalLost,
    PutBack,
    Said,
    SaidOfBatch,
    Seen,
    Served,
)


def end(**changes: Any) -> dict[str, Any]:
    """A command that ran, as the database has it."""
    return {
        "outcome": "ok", "ran": "yes", "state": 0, "journal": "j1", "orphan": False,
        "hw_command": "p", "hw_response": "out p",
    } | changes  # fmt: skip


def status(at: float, seq: int = 2, state: int = 2, **changes: Any) -> Said:
    fields = {
        "id": "c1", "state": state, "epoch": 0, "seq": seq, "outcome": None, "ran": None,
        "journal": "j1", "boot": 1, "hw_command": "p",
    }  # fmt: skip
    return Said(at, "pi1", "status", fields | changes)


def began(at: float = 3.0, journal: str = "j1", id: str = "c1") -> Began:
    return Began(at, "pi1", id, "p", journal)


def ended(at: float = 4.0, *, heard: bool = True) -> Ended:
    return Ended(at, "pi1", "c1", "p", "j1", heard)


def row(verb: str, before: int, state: int, seq: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": "c1", "command": verb, "before": before, "state": state, "epoch": 0, "seq": seq,
        "late": False, "topic": "", "payload": "", "time": 0.0,
    } | changes  # fmt: skip


GOOD: list[Seen] = [
    Asked(1.0, "o", "pi1", "request", "c1", "p"),
    Answered(1.5, "o", "pi1", "c1", {"hw_command": "p"}, "p"),
    status(2.0),
    began(),
    ended(),
]
LOG = [
    row("hw_command_request", 0, 1, 1),
    row("hw_command_retrieval", 1, 2, 2),
    row("hw_response_provide", 2, 3, 3),
    row("server_analysis_provide", 3, 0, 4),
]


def found(
    history: list[Seen], log: list[dict[str, Any]] = LOG, **changes: Any
) -> list[tuple[str, str]]:
    final = FinalState({("pi1", "c1"): end(**changes)}, {"pi1": log})
    return [(one.promise, one.text) for one in check(history, final, lambda text: f"out {text}")]


def test_a_whole_cycle_breaks_no_promise() -> None:
    assert found(GOOD) == []


def only(violations: list[tuple[str, str]]) -> str:
    assert len(violations) == 1, violations
    return violations[0][0]


def test_an_acknowledged_request_that_is_unknown_in_the_end() -> None:
    final = FinalState({})
    history = GOOD[:2]
    assert [one.promise for one in check(history, final)] == ["acknowledged"]
    forgotten: list[Seen] = [*history, PutBack(5.0, copied_at=1.0)]
    assert check(forgotten, final) == []
    kept: list[Seen] = [*history, PutBack(5.0, copied_at=2.0)]
    assert [one.promise for one in check(kept, final)] == ["acknowledged"]
    refused: list[Seen] = [Answered(1.5, "o", "pi1", "c1", {"error": "busy"})]
    assert check(refused, final) == []


def test_a_command_without_an_end() -> None:
    assert only(found(GOOD[:3], outcome=None, ran=None)) == "ends"


@pytest.mark.parametrize(
    ("second", "put_back", "broken"),
    [("j1", False, True), ("j2", False, True), ("j1", True, True), ("j2", True, False)],
)
def test_a_command_that_began_twice(second: str, put_back: bool, broken: bool) -> None:
    history: list[Seen] = [*GOOD, status(5.5, 9, journal=second), began(6.0, second)]
    if put_back:
        history.append(PutBack(5.0, copied_at=0.0))
    promises = [promise for promise, _ in found(history)]
    assert ("once" in promises) is broken


def test_a_program_that_began_without_its_grant() -> None:
    assert only(found([*GOOD[:2], began(), ended()])) == "once"
    assert only(found([*GOOD[:2], status(2.0, journal="j2"), began(), ended()])) == "once"
    assert only(found([*GOOD[:2], began(1.9), status(2.0), ended()])) == "once"


@pytest.mark.parametrize(("expires_at", "broken"), [(None, False), (5.1, False), (5.0, True)])
def test_a_grant_after_its_expires_at(expires_at: float | None, broken: bool) -> None:
    asked = Asked(1.0, "o", "pi1", "request", "c1", "p", expires_at=expires_at)
    of_another = Asked(1.0, "o", "pi1", "request", "c1", "q", expires_at=9.0)
    log = [row | {"time": 5.0} for row in LOG]
    promises = [promise for promise, _ in found([*GOOD[1:], asked, of_another], log)]
    assert promises == ["expires"] * broken


@pytest.mark.parametrize("asked_for", [DEFAULT_NAME, "a.py"])
def test_a_program_that_is_run_as_another_file(asked_for: str) -> None:
    for name in (None, DEFAULT_NAME, "a.py"):
        asked = Asked(1.0, "o", "pi1", "request", "c1", "p", asked_for)
        history: list[Seen] = [asked, *GOOD[1:3], Began(3.0, "pi1", "c1", "p", "j1", name), ended()]
        promises = [promise for promise, _ in found(history)]
        assert promises == ([] if name in (None, asked_for) else ["belongs"])


def test_a_grant_that_moves_to_another_journal_or_an_earlier_boot() -> None:
    assert found([*GOOD, status(5.0, 3, boot=2)]) == []
    assert only(found([*GOOD, status(5.0, 3, journal="j2")])) == "table"
    assert only(found([*GOOD, status(5.0, 3, boot=0)])) == "table"


@pytest.mark.parametrize(
    "log",
    [
        [row("hw_command_request", 0, 2)],
        [row("hw_command_request", 1, 1)],
        [row("hw_command_request", 0, 1, 2)],
        [row("hw_command_request", 0, 1), row("cancel", 1, 0, 3)],
        [row("hw_command_request", 0, 1, late=True)],
    ],
    ids=["no such cell", "another state before", "a number left out", "one too", "late"],
)
def test_a_record_that_moves_beside_the_table(log: list[dict[str, Any]]) -> None:
    assert {promise for promise, _ in found(GOOD, log)} == {"table"}


def test_one_number_that_says_two_things() -> None:
    assert only(found([*GOOD, status(5.0, state=3)])) == "table"


def test_a_no_that_is_said_of_what_began() -> None:
    no = status(2.5, 3, 0, outcome="expired", ran="no")
    assert only(found([*GOOD, no])) == "truth"
    between: list[Seen] = [*GOOD[:3], no, PutBack(2.8, 0.0), *GOOD[3:]]
    assert found(between) == []


@pytest.mark.parametrize(
    ("granted", "begun", "broken"),
    [
        (status(2.0), began(), True),
        (status(2.0), began(6.0), True),  # it was under way
        (status(2.0, journal="j2"), began(), False),  # another device refused it
        (status(2.0, epoch=-1), began(), False),  # and this one before a restore
        (status(4.0), began(), False),
    ],
)
def test_a_refusal_that_is_said_of_what_its_device_began(
    granted: Said, begun: Began, broken: bool
) -> None:
    journal = granted.fields["journal"]
    refused = status(5.0, 3, 3, outcome="rejected", ran="maybe", journal=journal)
    history = [*GOOD[:2], status(2.0, epoch=-2), granted, begun, refused]
    texts = [text for _, text in found(history)]
    expected = f"rejected at 5.000, its device began it {begun.at:.3f}"
    assert (expected in texts) is broken


def test_a_no_that_is_said_of_a_batch_alone() -> None:
    def of_batch(**part: Any) -> SaidOfBatch:
        member = {"outcome": "cancelled", "ran": "no", "refused": None} | part
        counts = {"running": 0}
        fields = {"id": "c1", "state": "ended", "members": {"pi1": member}, "counts": counts}
        return SaidOfBatch(2.5, "class", fields, kept=False)

    assert only(found([*GOOD[:3], of_batch(), *GOOD[3:]])) == "truth"
    assert found([*GOOD[:3], of_batch(ran=None, outcome=None), *GOOD[3:]]) == []
    assert found([*GOOD[:3], of_batch(refused="id_reused"), *GOOD[3:]]) == []
    forgot: list[Seen] = [*GOOD[:3], of_batch(), PutBack(2.8, 0.0), *GOOD[3:]]
    assert found(forgot) == []


def test_a_final_no_and_a_final_yes_that_are_not_true() -> None:
    history = [*GOOD[:4]]
    assert only(found(history, outcome="rejected", ran="no")) == "truth"
    assert only(found(GOOD[:3])) == "truth"
    assert found(GOOD[:3], journal=None) == []


def test_a_maybe_of_what_its_device_saw_end() -> None:
    maybe = {"outcome": "lost", "ran": "maybe"}
    assert only(found(GOOD, **maybe)) == "truth"
    assert found([*GOOD[:4], ended(heard=False)], **maybe) == []
    assert found([*GOOD, JournalLost(9.0, "pi1", "j1")], **maybe) == []


@pytest.mark.parametrize(
    ("wish", "broken"),
    [
        ([], True),
        ([Asked(2.0, "o", "pi1", "cancel", "c1")], False),
        ([Asked(2.0, "o", "pi1", "cancel", "c2")], True),
        ([Asked(2.0, "o", "pi1", "cancel", None)], False),
        ([Asked(2.0, "o", "pi1", "reset", "c2")], False),
        ([Asked(2.0, "o", "pi2", "reset", None)], True),
    ],
)
def test_a_cancel_that_nobody_asked_for(wish: list[Seen], broken: bool) -> None:
    promises = found([*GOOD[:4], *wish], outcome="cancelled", ran="yes")
    assert [promise for promise, _ in promises] == (["truth"] if broken else [])


def test_a_message_without_an_id_that_is_performed_twice() -> None:
    sent = Asked(0.5, "o", "pi1", "cancel", None)
    cancel = {"topic": "hw/pi1/cancel", "payload": ""}
    log = [
        row("hw_command_request", 0, 1, 1), row("cancel", 1, 0, 2, **cancel),
        row("hw_command_request", 0, 1, 3), row("cancel", 1, 0, 4, **cancel),
    ]  # fmt: skip
    assert only(found([*GOOD, sent], log)) == "once"
    assert found([*GOOD, sent, sent], log) == []
    assert found([*GOOD, sent, Copied("hw/pi1/cancel", b"")], log) == []
    named = [row | ({"payload": '{"id":"c1"}'} if row["topic"] else {}) for row in log]
    assert found([*GOOD, sent], named) == []


def test_a_result_or_an_answer_of_another_command() -> None:
    assert only(found(GOOD, hw_response="out q")) == "belongs"
    told = Answered(1.5, "o", "pi1", "c1", {"hw_command": "q"}, "p")
    assert only(found([GOOD[0], told, *GOOD[2:]])) == "belongs"


# Several lives of a coordinator


def lives(seconds: float, number: int, last: float | None = None) -> list[Seen]:
    """From 100 on, one each 1,000 seconds."""
    last = seconds if last is None else last
    starts = [100.0 + 1_000.0 * each for each in range(number)]
    return [Served(at, at + seconds, seconds, last) for at in starts]


ASKED = Asked(1.0, "o", "pi1", "request", "c1", "p", expires=60.0)
UNBOUNDED = [
    (lives(32.0, 4), True),
    (lives(32.0, 5), False),  # in the fifth it must have ended
    (lives(7.0, 50), True),  # never settled
    (lives(32.0, 50, 9.0), True),
    (lives(0.5, 500, 20.0), True),
]


@pytest.mark.parametrize(("served", "kept"), UNBOUNDED)
def test_what_waits_ends_in_the_time_of_all_lives_together(served: list[Seen], kept: bool) -> None:
    waits = status(2.0, seq=1, state=1)
    good = [one for one in GOOD if not isinstance(one, Asked | Said)]
    over = [status(1e6), began(1e6 + 1.0), ended(1e6 + 2.0)]
    history = [ASKED, waits, *[one for one in good if isinstance(one, Answered)], *served, *over]
    promises = [promise for promise, _ in found(history)]
    assert promises == ([] if kept else ["ends"])
    # It ended before, or an older database was put back, or nobody knows its time.
    assert found([ASKED, waits, status(50.0, 3, 0), *served, *history[2:]]) == []
    assert found([ASKED, waits, PutBack(60.0, 50.0), *served, *history[2:]]) == []
    unknown = Asked(1.0, "o", "pi1", "request", "c1", "p")
    assert found([unknown, *history[1:]]) == []


# What was put back, and what has ended


@pytest.mark.parametrize(("said_at", "broken"), [(1.8, True), (2.6, False)])
def test_a_database_that_knew_a_command_is_no_reason_to_begin_it(
    said_at: float, broken: bool
) -> None:
    known = status(said_at, 1, 1)
    no = status(3.0, 3, 0, outcome="cancelled", ran="no")
    history = [GOOD[0], known, no, PutBack(4.0, 2.5), status(5.0, 4), began(6.0), ended(7.0)]
    promises = [promise for promise, _ in found(sorted(history, key=lambda one: one.at))]
    assert ("truth" in promises) is broken


def test_what_has_ended_is_not_opened_again() -> None:
    end_of_it = status(5.0, 3, 0, outcome="ok", ran="yes")
    assert "ends" not in [promise for promise, _ in found([*GOOD, end_of_it])]
    stale = status(5.5, 2)  # what a broker that was killed had kept
    assert "ends" not in [promise for promise, _ in found([*GOOD, end_of_it, stale])]
    opened = status(6.0, 4, 1)
    assert "ends" in [promise for promise, _ in found([*GOOD, end_of_it, stale, opened])]


def test_a_grant_that_lasts_too_long() -> None:
    asked = Asked(1.0, "o", "pi1", "request", "c1", "p", timeout=1.0, grace=1.0)
    for seconds, broken in ((11.0, False), (14.0, True)):
        life = Served(0.0, 2.0 + seconds, 2.0 + seconds, 2.0 + seconds)
        promises = [promise for promise, _ in found([asked, status(2.0), began(), ended(), life])]
        assert ("ends" in promises) is broken
