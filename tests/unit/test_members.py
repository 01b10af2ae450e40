"""What is known of each board of a batch, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli.members import Members, online_line, spread_line, start_line
from hwsync.protocol.record import Command, Record, Request, State
from hwsync.protocol.wire.group import BatchFields
from hwsync.protocol.wire.status import Status, status_json

BATCH: BatchFields = {
    "group": "lab1", "id": "b1", "epoch": 0, "seq": 1, "state": "open", "issued": 0.0,
    "ended": None, "counts": {"members": 4}, "members": {}, "spread": None,
}  # fmt: skip


def status(user: str, state: State = State.REQUESTED, id: str = "b1", **changes: Any) -> Status:
    record = Record(user, state, current=Command(user, id, Request("x", id)))
    return {**status_json(record), **changes}  # type: ignore[typeddict-item]


def told(**members: dict[str, Any]) -> BatchFields:
    return {**BATCH, "members": members}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("said", "kind", "word", "more"),
    [
        ({"state": 1}, "open", "waiting", "offline"),
        ({"state": 2}, "open", "running 3 s", ""),
        ({"state": 0, "outcome": "ok", "ran": "yes", "exit_code": 0}, "ok", "ok", "exit 0"),
        ({"state": 3, "outcome": "error", "ran": "yes", "exit_code": 3}, "failed", "error",
         "exit 3"),
        ({"state": 0, "outcome": "lost", "ran": "maybe"}, "failed", "lost", "(ran: maybe)"),
        ({"state": 0, "outcome": "cancelled", "ran": "no"}, "cancelled", "cancelled", "(ran: no)"),
        ({"refused": "busy"}, "refused", "refused", "something runs or waits there (--queue waits "
         "behind it)"),
        ({"refused": "missing"}, "missing", "missing", "it is offline"),
        ({"refused": "of_a_later_version"}, "refused", "refused", "of_a_later_version"),
        ({"state": 0, "outcome": "ok", "ran": "yes", "exit_code": 0, "start_error": 0.0002,
          "clock_bound": 0.001}, "ok", "ok",
          "exit 0 started 0.200 ms ± 1.000 ms after the instant"),
    ],
)  # fmt: skip
def test_a_board_in_words(said: dict[str, Any], kind: str, word: str, more: str) -> None:
    members = Members("b1", ["pi1"])
    members.of("pi1").online = False
    members.hear_batch(told(pi1=said), 7.0)
    member = members.of("pi1")
    assert (member.kind, member.words(10.0)) == (kind, (word, more))


def test_its_own_status_says_more() -> None:
    members = Members("b1", ["pi1", "pi2", "pi3"])
    assert members.hear_fields("pi1", status("pi1", State.COLLECTED), 5.0)
    assert members.of("pi1").words(6.0)[0] == "running 1 s"
    assert not members.hear_fields("pi1", status("pi1", id="another"), 5.0)
    assert not members.hear_fields("pi9", status("pi9"), 5.0)
    end = status("pi1", State.REST, outcome="error", ran="yes", exit_code=1, duration=0.5)
    assert members.hear_fields("pi1", end, 6.0)
    assert not members.hear_fields("pi1", status("pi1", State.COLLECTED), 7.0)  # it came late
    assert members.of("pi1").words(7.0) == ("error", "exit 1 in 0.50 s")
    left = status("pi2", State.REST, outcome="expired", ran="no", command="left_out",
                  reason="not ready in time")  # fmt: skip
    members.hear_fields("pi2", left, 6.0)
    never = status("pi3", State.REST, outcome="expired", ran="no", reason="not begun: aborted")
    members.hear_fields("pi3", never, 6.0)
    assert members.counts == {"failed": 1, "left out": 1, "not begun": 1}
    assert members.summary("@lab1") == [
        "@lab1: 1 failed, 1 not begun, 1 left out",
        "  error      pi1: exit 1",
        "  expired    pi2: not ready in time",
        "  expired    pi3: not begun: aborted",
    ]


def test_what_of_an_id_is_another_command_counts_for_nothing() -> None:
    members = Members("b1", ["pi1"])
    members.hear_batch(told(pi1={"refused": "id_reused"}), 0.0)
    assert not members.hear_fields("pi1", status("pi1", outcome="ok"), 0.0)
    assert members.exit_code == 125


def test_whoever_has_no_room_in_the_status_has_ended_ok() -> None:
    members = Members("b1", ["pi1", "pi2", "pi3"])
    ended = replace_counts(told(pi3={"outcome": "error", "ran": "yes", "exit_code": 2}), members=3)
    members.hear_batch(ended, 0.0)
    assert members.counts == {"ok": 2, "failed": 1}


def replace_counts(batch: BatchFields, **counts: int) -> BatchFields:
    return {**batch, "counts": counts}


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([{"outcome": "ok"}, {"outcome": "ok"}], 0),
        ([{"outcome": "ok"}, {"outcome": "error"}], 1),
        ([{"outcome": "ok"}, {"refused": "busy"}], 1),
        ([{"refused": "missing"}, {"refused": "busy"}], 125),
        ([{"outcome": "expired", "ran": "no"}, {"refused": "busy"}], 1),
        ([{}, {"outcome": "ok"}], 1),
    ],
)
def test_the_exit_code(kinds: list[dict[str, Any]], code: int) -> None:
    members = Members("b1")
    members.hear_batch(told(**{f"pi{number}": one for number, one in enumerate(kinds)}), 0.0)
    assert members.exit_code == code


@pytest.mark.parametrize(
    ("spread", "line"),
    [
        (None, ""),
        ({"n": 0, "seconds": None, "bound": None}, ""),
        ({"n": 1, "seconds": 0.0, "bound": 0.0004}, "1 started"),
        ({"n": 2, "seconds": 0.0008, "bound": 0.0004}, "2 started within 0.800 ms, give or take "
         "0.400 ms"),
        ({"n": 2, "seconds": 0.02, "bound": None}, "2 started within 20.000 ms"),
        ({"n": 3, "seconds": None, "bound": None}, "3 started; how far apart is not known"),
    ],
)  # fmt: skip
def test_the_spread(spread: dict[str, Any] | None, line: str) -> None:
    assert spread_line(spread) == line


def test_a_thousand_boards_are_a_few_lines() -> None:
    members = Members("b1")
    members.hear_batch(told(**{f"pi{n}": {"refused": "busy"} for n in range(1_000)}), 0.0)
    lines = members.summary("@lab1")
    assert len(lines) == 2
    assert "pi11 and 988 more" in lines[1]
    many = {f"pi{n}": {"outcome": "error", "ran": "yes", "exit_code": n} for n in range(100)}
    members = Members("b1")
    members.hear_batch(told(**many), 0.0)
    assert members.summary("@lab1")[-1] == "  … and 80 other reasons"


def test_who_waits_for_an_instant_is_ready_until_it_is_named() -> None:
    members = Members("b1", ["pi1"])
    members.start(lead=2.0)
    members.hear_fields("pi1", status("pi1", State.COLLECTED, start_at=None), 1.0)
    assert members.of("pi1").words(5.0) == ("ready", "")
    members.hear_fields("pi1", status("pi1", State.COLLECTED, start_at=9.5), 6.0)
    assert members.of("pi1").words(6.1) == ("ready", "starts in 2 s")
    assert members.of("pi1").words(10.0) == ("running 2 s", "")
    assert members.of("pi1").words(None) == ("running", "")


def test_who_waits_for_a_time_of_day_is_ready_until_then() -> None:
    members = Members("b1", ["pi1"])
    members.start(9.0)
    members.hear_fields("pi1", status("pi1", State.COLLECTED, start_at=1234.5), 1.0)
    members.hear_batch(told(pi1={"state": 2}, pi2={"state": 2}), 1.0)
    for user in ("pi1", "pi2"):
        assert members.of(user).words(5.5) == ("ready", "starts in 4 s")
        assert members.of(user).words(9.0) == ("running 0 s", "")


def test_who_was_told_to_run_has_no_time_where_there_is_no_clock() -> None:
    members = Members("b1", ["pi1"])
    members.hear_batch(told(pi1={"state": 2}), 7_000.0)
    assert online_line(members.of("pi1")).split() == ["pi1", "unknown", "running"]


def test_after_a_start_it_says_how_to_see_it() -> None:
    members = Members("b1")
    batch = told(pi1={"outcome": "ok", "ran": "yes"}, pi2={"refused": "busy"})
    members.hear_batch({**batch, "spread": {"n": 1, "seconds": 0.0, "bound": 0.001}}, 0.0)
    assert members.summary("@lab1")[-1] == "to see it: hwsync sync b1"
    members.hear_batch(batch, 0.0)
    assert "hwsync sync" not in "".join(members.summary("@lab1"))


@pytest.mark.parametrize(
    ("ends", "spread"),
    [
        ([{}, {}], None),
        ([{"start_error": 0.0, "started": 10.0, "clock_bound": 0.1}], None),
        ([{"start_error": 0.0, "started": 10.0, "clock_bound": 0.1},
          {"start_error": 0.5, "started": 10.5, "clock_bound": 0.3}, {},
          {"start_error": 0.25, "started": 10.25, "clock_bound": 0.2}],
         {"n": 3, "seconds": 0.5, "bound": 0.5}),
        ([{"start_error": 0.0, "started": 10.0, "clock_bound": 0.1},
          {"start_error": 0.5, "started": 99.5, "clock_bound": 0.3, "start_life": "another"}],
         {"n": 2, "seconds": None, "bound": None}),
    ],
)  # fmt: skip
def test_how_far_apart_boards_began_that_were_named(
    ends: list[dict[str, Any]], spread: dict[str, Any] | None
) -> None:
    members = Members("b1", [f"pi{number}" for number in range(len(ends))])
    for number, one in enumerate(ends):
        fields = {"outcome": "ok", "ran": "yes", "start_life": "one"} | one
        members.hear_fields(f"pi{number}", status(f"pi{number}", State.REST, **fields), 1.0)
    assert members.spread == spread


def test_how_exactly_one_board_began() -> None:
    assert start_line({"start_error": None}) == ""
    assert start_line({"start_error": -0.002, "clock_bound": None}) == (
        "it began 2.000 ms before the instant"
    )
    assert start_line({"start_error": 1.5, "clock_bound": 0.00001}) == (
        "it began 1.500 s after the instant, give or take 0.010 ms"
    )


def test_where_too_few_were_ready_it_says_who_was_not() -> None:
    members = Members("b1", ["pi1", "pi2", "pi22"])
    members.start()
    members.hear_fields("pi1", status("pi1", State.COLLECTED), 1.0)
    members.hear_batch(told(pi2={"state": 2}), 1.0)
    reason = "not begun: 2 are ready within 5 s, and 3 must be"
    end = {"outcome": "expired", "ran": "no", "command": "left_out", "reason": reason}
    for user in members.by_user:
        members.hear_fields(user, status(user, State.REST, **end), 6.0)
    assert members.summary("pi1,pi2,pi22") == [
        "pi1,pi2,pi22: 3 left out",
        f"  expired    pi1, pi2, pi22: {reason}",
        "  not ready  pi22",
    ]


def test_a_summary_says_of_what_a_program_complained() -> None:
    def failed(**complaints: str) -> list[str]:
        members = Members("b1", complaints)
        for user, text in complaints.items():
            end = status(user, State.REST, outcome="error", ran="yes", reason="exit code 1")
            members.hear_fields(user, {**end, "stderr": text}, 0.0)
        return members.summary("@lab1")[1:]

    assert failed(pi1="Traceback\n  x\nE: 1\n", pi2="E: 1", pi3="") == [
        "  error      pi1, pi2: exit code 1: E: 1",
        "  error      pi3: exit code 1",
    ]
    # Where each complains of something else, nobody is left out for that.
    names = [f"pi{number}" for number in range(23)]
    assert failed(**{name: f"E: {name}" for name in names}) == [
        f"  error      {', '.join(names[:12])} and 11 more: exit code 1"
    ]
