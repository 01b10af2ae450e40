"""Batches at the coordinator: what is asked of a group, how many at a time, how it is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.coordinator.loop import REPLY_LOOK_S
from hwsync.protocol import limits
from hwsync.protocol.errors import StoreError
from hwsync.protocol.groups import Groups
from hwsync.protocol.record import State
from hwsync.protocol.rules import Allowance, Rules
from hwsync.protocol.wire.group import BATCH, batch_json, encode_batch
from hwsync.transport import Delivery
from tests.support.coordinator import Deed, Lab, Sent, heartbeat, request, result, sent

LAB1 = ("pi1", "pi2", "pi3", "pi4")
GROUPS = Groups({"lab1": LAB1, "two": ("pi1", "pi2"), "some": ("pi*",), "none": ()})
RULES = Rules(groups=GROUPS)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "hwsync.db", rules=RULES) as lab:
        yield lab


def ask(lab: Lab, id: str = "b1", group: str = "@lab1", **keys: object) -> list[Deed]:
    return lab.hear("request", request(id, **keys), user=group)  # type: ignore[arg-type]


def collect(lab: Lab, user: str, id: str = "b1") -> list[Deed]:
    return lab.hear("collected", b'{"id":"%s","journal":"j1","boot":1}' % id.encode(), user=user)


def end(lab: Lab, user: str, id: str = "b1", **keys: object) -> list[Deed]:
    """It runs on that board, to its end and the coordinator's analysis."""
    deeds = collect(lab, user, id) + lab.hear("response", result(id, **keys), user=user)
    return deeds + lab.step()


def batch(lab: Lab, group: str = "@lab1") -> dict[str, Any]:
    """The newest status of the group's batch, once there was time to say it."""
    lab.later(20.0)
    (status,) = sent(lab.hear("query", b"", user=group) + lab.later(20.0), "status")
    assert status.topic == f"hw/{group}/status"
    assert status.retain
    said = status.json
    assert BATCH.holds(said)
    assert said["counts"].pop("members") == sum(said["counts"].values())
    return said


def state_of(lab: Lab, user: str) -> int:
    record = lab.coordinator.records.get(user)
    return int(record.state) if record else 0


def states(lab: Lab) -> list[int]:
    return [state_of(lab, user) for user in LAB1]


def outcome(lab: Lab, user: str, id: str = "b1") -> tuple[str, str, str]:
    command = lab.store.command(user, id)
    assert command is not None
    report = command.report
    return (report.outcome, report.ran, report.reason) if report else ("", "", "")


def errors(deeds: list[Deed]) -> list[tuple[str, str]]:
    return [(deed.topic, deed.json["error"]) for deed in sent(deeds, "error")]


# What is asked of a group


def test_who_asked_knows_a_refusal_by_his_id(lab: Lab) -> None:
    for user in LAB1:
        lab.hear("request", request("before"), user=user)
    for group in ("@lab1", "@none", "@unknown"):
        (refused,) = sent(ask(lab, "mine", group), "error")
        assert (refused.topic, refused.json["id"]) == (f"hw/{group}/error", "mine")


def test_a_text_runs_on_every_board_and_the_status_of_the_group_says_so(lab: Lab) -> None:
    deeds = lab.hear("request", b"print(1)", user="@lab1")
    assert [one.topic for one in sent(deeds, "command")] == [f"hw/{user}/command" for user in LAB1]
    id = lab.record.id
    assert id.startswith("batch-")
    assert batch(lab)["counts"] == {"waiting": 0, "running": 4, "refused": 0}
    for user in LAB1:
        end(lab, user, id)
    said = batch(lab)
    assert (said["group"], said["id"], said["state"]) == ("lab1", id, "ended")
    assert said["counts"] == {"waiting": 0, "running": 0, "refused": 0, "ok": 4}
    assert {user: one["outcome"] for user, one in said["members"].items()} == dict.fromkeys(
        LAB1, "ok"
    )
    assert {one["exit_code"] for one in said["members"].values()} == {0}
    assert states(lab) == [0] * 4  # its analyser is the outcome, where nobody says


def test_who_asked_hears_that_it_is_accepted_before_its_boards_are_told(lab: Lab) -> None:
    deeds = ask(lab)
    topics = [one.topic for one in deeds if isinstance(one, Sent)]
    assert topics[0] == "hw/@lab1/status"
    assert set(topics[1:]) == {
        f"hw/{user}/{kind}" for user in LAB1 for kind in ("status", "command")
    }


def test_it_is_one_transaction_and_the_program_is_stored_once(lab: Lab) -> None:
    program = f"print({'1' * 3000})"
    saves: list[int] = []
    save = lab.store.save
    lab.store.save = lambda changes, ticks: (
        saves.append(len(changes.records)),
        save(changes, ticks),
    )[1]  # type: ignore[method-assign]
    ask(lab, program=program)
    assert saves == [4]
    assert lab.rows("commands", "user, program") == [(user, "") for user in LAB1]
    assert lab.rows("contents", "data") == [(program.encode(),)]
    assert lab.rows("content_uses", "owner, stays") == [("@lab1 b1", 0)]
    assert lab.rows("hw_status", "user, hw_command") == [(user, "") for user in LAB1]
    assert {len(payload) for (payload,) in lab.rows("transitions", "payload")} == {0}
    lab.restart()
    assert {lab.coordinator.records[user].current.request.program for user in LAB1} == {program}  # type: ignore[union-attr]
    assert [one.json["program"] for one in sent(lab.disconnect() + lab.connect(), "command")] == [
        program
    ] * 4


def test_who_refuses_stops_nobody_else(lab: Lab) -> None:
    lab.hear("request", b"1", user="pi2")
    lab.hear("request", request("b1"), user="pi3")
    lab.hear("cancel", b"", user="pi3")
    assert errors(ask(lab)) == []
    assert states(lab) == [1, 1, 0, 1]
    said = batch(lab)
    assert {user: one["refused"] for user, one in said["members"].items()} == {
        "pi1": None, "pi2": "busy", "pi3": "id_reused", "pi4": None
    }  # fmt: skip
    assert said["counts"]["refused"] == 2
    for user in ("pi1", "pi4"):
        end(lab, user)
    assert batch(lab)["state"] == "ended"
    lab.restart()
    assert batch(lab)["members"]["pi2"]["refused"] == "busy"


def test_a_group_of_which_nobody_takes_it_stores_nothing(lab: Lab) -> None:
    for user in ("pi1", "pi2"):
        lab.hear("request", b"1", user=user)
    assert errors(ask(lab, group="@two")) == [("hw/@two/error", "busy")]
    assert lab.rows("batches") == []
    assert errors(ask(lab, group="@none")) == [("hw/@none/error", "not_allowed")]
    assert errors(ask(lab, group="@unknown")) == [("hw/@unknown/error", "not_allowed")]


def test_with_queue_a_busy_board_takes_it_when_it_is_free(lab: Lab) -> None:
    lab.hear("request", request("c1"), user="pi2")
    ask(lab, queue=True)
    assert lab.coordinator.records["pi2"].queue == ("b1",)
    assert batch(lab)["counts"] == {"waiting": 1, "running": 3, "refused": 0}
    lab.hear("cancel", b'{"id":"c1"}', user="pi2")
    assert (state_of(lab, "pi2"), batch(lab)["counts"]["running"]) == (1, 4)


def test_a_repeat_starts_nothing_and_is_answered_by_the_status(lab: Lab) -> None:
    ask(lab)
    end(lab, "pi1")
    deeds = ask(lab) + lab.later(0.9)
    assert sent(deeds, "command") == []
    assert [one.topic for one in sent(deeds, "status")] == ["hw/@lab1/status"]
    assert errors(ask(lab, program="2")) == [("hw/@lab1/error", "id_reused")]


def test_who_is_offline_is_missing_at_once_where_it_is_asked_so(lab: Lab) -> None:
    lab.hear("heartbeat", heartbeat(), user="pi1")
    lab.hear("heartbeat", heartbeat(online=False), user="pi2")
    ask(lab, id="early", online=True)
    assert states(lab) == [1, 0, 1, 1]  # of pi3 and pi4 nobody can say anything yet
    assert batch(lab)["members"]["pi2"]["refused"] == "missing"
    lab.hear("reset", b"", user="@lab1")
    lab.later(limits.OFFLINE_AFTER_S)
    lab.step(
        lab.delivery("request", request("late", online=True), user="@lab1"),
        lab.delivery("heartbeat", heartbeat(), user="pi1"),  # of the same round
    )
    assert states(lab) == [1, 0, 0, 0]


def test_everybody_is_who_was_heard_within_a_day(lab: Lab) -> None:
    for user in ("pi1", "pi9"):
        lab.hear("heartbeat", heartbeat(), user=user)
    lab.hear("request", b"1", user="pi2")
    lab.hear("reset", b"", user="pi2")
    lab.coordinator.write_down()
    lab.restart()
    lab.later(3_600.0)
    ask(lab, group="@all")
    assert [user for user in ("pi1", "pi2", "pi9") if state_of(lab, user) == 1] == ["pi1", "pi9"]
    lab.hear("reset", b"", user="@all")
    assert [user for user in ("pi1", "pi2", "pi9") if state_of(lab, user)] == []
    lab.later(limits.HEARD_S)
    assert errors(ask(lab, id="b2", group="@all")) == [("hw/@all/error", "not_allowed")]


# So many at a time


def test_no_more_run_at_a_time_than_is_asked(lab: Lab) -> None:
    ask(lab, parallel=2)
    assert states(lab) == [1, 1, 0, 0]
    assert batch(lab)["counts"] == {"waiting": 2, "running": 2, "refused": 0}
    end(lab, "pi2")
    assert states(lab) == [1, 0, 1, 0]
    end(lab, "pi1", outcome="error", exit_code=1)
    assert states(lab) == [0, 0, 1, 1]
    for user in ("pi3", "pi4"):
        end(lab, user)
    assert batch(lab)["counts"] == {"waiting": 0, "running": 0, "refused": 0, "ok": 3, "error": 1}


def test_the_next_begins_in_the_transaction_in_which_one_ends(lab: Lab) -> None:
    ask(lab, parallel=1, analysis="manual")
    collect(lab, "pi1")
    deeds = lab.hear("response", result("b1"), user="pi1")  # state 3 counts as ended
    assert [one.topic for one in sent(deeds, "command")] == ["hw/pi2/command"]
    assert states(lab) == [3, 1, 0, 0]
    rows = lab.rows("transitions", "row, user, command, topic")
    assert [row[1:] for row in rows[-2:]] == [
        ("pi1", "hw_response_provide", "hw/pi1/response"), ("pi2", "next", "")
    ]  # fmt: skip


def test_whose_turn_it_is_and_is_busy_is_passed_over_until_both_are_free(lab: Lab) -> None:
    ask(lab, parallel=1)
    lab.hear("request", request("c2"), user="pi2")
    end(lab, "pi1")
    assert states(lab) == [0, 1, 1, 0]
    lab.hear("cancel", b'{"id":"c2"}', user="pi2")
    assert states(lab) == [0, 0, 1, 0]  # no place
    end(lab, "pi3")
    assert states(lab) == [0, 1, 0, 0]


def test_a_restart_goes_on_with_those_that_wait(lab: Lab) -> None:
    ask(lab, parallel=2)
    lab.restart()
    assert batch(lab)["counts"] == {"waiting": 2, "running": 2, "refused": 0}
    end(lab, "pi1")
    assert states(lab) == [0, 1, 1, 0]
    lab.restart()
    end(lab, "pi2")
    assert states(lab) == [0, 0, 1, 1]


def test_a_turn_that_was_due_is_taken_after_a_start(lab: Lab) -> None:
    ask(lab, parallel=1)
    lab.stop()
    import sqlite3

    with sqlite3.connect(lab.path) as connection:  # as if a life had died between the two
        connection.execute("UPDATE batches SET parallel = 2")
    connection.close()
    lab.start()
    lab.connect()
    assert states(lab) == [1, 1, 0, 0]


def test_once_too_many_have_not_ended_well_nobody_begins(lab: Lab) -> None:
    ask(lab, parallel=1, abort=0.25)
    end(lab, "pi1", outcome="error", exit_code=1)
    assert states(lab) == [0, 1, 0, 0]  # a quarter is not more than a quarter
    end(lab, "pi2", outcome="error", exit_code=1)
    assert states(lab) == [0, 0, 0, 0]
    assert outcome(lab, "pi3")[:2] == ("expired", "no")
    assert outcome(lab, "pi3")[2].startswith("not begun: 2 of 4 boards")
    assert batch(lab)["counts"] == {
        "waiting": 0, "running": 0, "refused": 0, "error": 2, "expired": 2
    }  # fmt: skip


def test_nor_does_it_begin_from_a_queue_and_all_are_told_the_same_reason(lab: Lab) -> None:
    for user in LAB1[1:3]:
        lab.hear("request", request("c1"), user=user)
    ask(lab, abort=0, queue=True)
    end(lab, "pi1", outcome="error", exit_code=1)
    assert {outcome(lab, user) for user in LAB1[1:3]} == {
        ("expired", "no", "not begun: 1 of 4 boards ended without ok (abort 0)")
    }
    assert sent(end(lab, "pi2", "c1"), "command") == []
    assert states(lab) == [0, 3, 1, 1]


def test_who_waits_obeys_the_rules_of_a_queue(lab: Lab) -> None:
    ask(lab, parallel=1)
    (answer,) = sent(lab.hear("query", b'{"id":"b1"}', user="pi2"), "result/b1")
    assert (answer.json["outcome"], answer.json["state"]) == (None, 0)
    deeds = lab.hear("collected", b'{"id":"b1","journal":"j1","boot":1}', user="pi2")
    assert errors(deeds) == [("hw/pi2/error", "wrong_state")]
    deeds = lab.hear("response", result("b1"), user="pi2")
    assert errors(deeds) == [("hw/pi2/error", "wrong_state")]
    assert sent(deeds, "status")[0].json["settled"] == [["b1", "j1"]]
    assert errors(lab.hear("request", request("b1"), user="pi2")) == []  # a repeat
    lab.hear("cancel", b'{"id":"b1"}', user="pi2")
    assert outcome(lab, "pi2")[:2] == ("cancelled", "no")
    end(lab, "pi1")
    assert states(lab) == [0, 0, 1, 0]
    assert sent(ask(lab, parallel=1), "command") == []  # a repeat begins nothing that has ended


def test_who_waits_past_its_expires_at_ends_when_its_turn_comes(lab: Lab) -> None:
    ask(lab, parallel=1, expires_at=lab.clock.wall() + 100.0)
    collect(lab, "pi1")
    lab.later(101.0)
    lab.hear("cancel", b'{"id":"b1"}', user="pi1")
    assert {outcome(lab, user)[:2] for user in LAB1[1:]} == {("expired", "no")}
    assert batch(lab)["state"] == "ended"
    assert outcome(lab, "pi2")[2].startswith("not begun: ")


# To stop it


@pytest.mark.parametrize("keys", [{}, {"parallel": 1}, {"parallel": 3}])
def test_a_cancel_of_the_group_ends_all_and_begins_none(lab: Lab, keys: dict[str, int]) -> None:
    ask(lab, **keys)
    collect(lab, "pi1")
    deeds = lab.hear("cancel", b"", user="@lab1")
    assert sent(deeds, "command") == []
    assert states(lab) == [2, 0, 0, 0]
    assert lab.record.cancelling
    assert {outcome(lab, user)[:2] for user in LAB1[1:]} == {("cancelled", "no")}
    lab.hear("response", result("b1", outcome="cancelled", ran="yes"), user="pi1")
    assert batch(lab)["counts"] == {"waiting": 0, "running": 0, "refused": 0, "cancelled": 4}


def test_lab_time_is_written_with_six_decimals(lab: Lab) -> None:
    ask(lab)
    part = {"outcome": "ok", "ran": "yes", "exit_code": 0,
            "started": 12.5, "start_error": 1e-05, "clock_bound": 0.0}  # fmt: skip
    said = encode_batch(
        batch_json(lab.coordinator.batches["@lab1 b1"], 1, {"pi1": part}, {}), 10**6
    )
    assert b'"started":12.500000,"start_error":0.000010,"clock_bound":0.000000' in said
    assert b'"started":null' in said


def results(deeds: list[Deed]) -> list[str]:
    return [one.topic for one in deeds if isinstance(one, Sent) and "/result/" in one.topic]


@pytest.mark.parametrize("kind", ["cancel", "reset"])
@pytest.mark.parametrize("group", ["@lab1", "@all"])
def test_a_group_that_is_stopped_says_no_program_once_for_each_board(
    lab: Lab, kind: str, group: str
) -> None:
    ask(lab, parallel=1)
    assert results(lab.hear(kind, b"", user=group)) == []
    assert {outcome(lab, user)[0] for user in LAB1[1:]} == {"cancelled"}


def test_nor_does_one_of_which_nobody_begins_any_more(lab: Lab) -> None:
    ask(lab, parallel=1, abort=0.0)
    collect(lab, "pi1")
    assert results(lab.hear("response", result("b1", outcome="error"), user="pi1")) == []
    assert outcome(lab, "pi4")[0] == "expired"


def test_who_cancels_one_board_of_a_batch_hears_its_end(lab: Lab) -> None:
    ask(lab, parallel=1)
    deeds = lab.hear("cancel", b'{"id":"b1"}', user="pi2")
    assert results(deeds) == ["hw/pi2/result/b1"]


def test_a_cancel_lets_what_waits_behind_it_begin(lab: Lab) -> None:
    ask(lab)
    lab.hear("request", request("c1", queue=True))
    lab.hear("cancel", b"", user="@lab1")
    assert (lab.record.id, lab.record.state) == ("c1", State.REQUESTED)


def test_a_cancel_just_after_a_newer_batch_is_ambiguous(lab: Lab) -> None:
    ask(lab, group="@two")
    lab.later(10.0)
    ask(lab, id="b2", group="@two", queue=True)
    assert errors(lab.hear("cancel", b"", user="@two")) == [("hw/@two/error", "ambiguous")]
    assert errors(lab.hear("cancel", b'{"id":"b1"}', user="@two")) == []
    assert [lab.coordinator.records[user].id for user in ("pi1", "pi2")] == ["b2", "b2"]
    lab.later(limits.AMBIGUOUS_S)
    assert errors(lab.hear("cancel", b"", user="@two")) == []
    assert states(lab) == [0] * 4
    assert errors(lab.hear("cancel", b"", user="@some")) == [("hw/@some/error", "not_current")]


def test_stop_all_starts_nothing(lab: Lab) -> None:
    ask(lab, parallel=2)
    collect(lab, "pi1")
    lab.hear("request", request("c1", queue=True))
    lab.hear("request", request("c2", queue=True), user="pi2")
    deeds = lab.hear("reset", b"", user="@lab1")
    assert sent(deeds, "command") == []
    assert states(lab) == [0] * 4
    assert outcome(lab, "pi1")[:2] == ("lost", "maybe")
    assert outcome(lab, "pi1", "c1")[:2] == ("cancelled", "no")
    assert outcome(lab, "pi4")[:2] == ("cancelled", "no")
    assert batch(lab)["state"] == "ended"


def test_stop_all_of_some_lets_the_others_of_their_batch_begin_afterwards(lab: Lab) -> None:
    ask(lab, parallel=2)
    deeds = lab.hear("reset", b"", user="@two")
    assert [one.topic for one in sent(deeds, "command")] == ["hw/pi3/command", "hw/pi4/command"]
    assert states(lab) == [0, 0, 1, 1]


def test_everybody_who_is_not_at_rest_is_stopped(lab: Lab) -> None:
    for user in ("pi1", "pi7"):
        lab.hear("request", request("c1"), user=user)
        lab.hear("request", request("c2", queue=True), user=user)
    lab.hear("cancel", b"", user="@all")
    for user in ("pi1", "pi7"):
        assert (state_of(lab, user), outcome(lab, user, "c2")[0]) == (0, "cancelled")


def test_a_reset_with_the_queue_takes_it_out_of_its_batch_so_it_can_be_forgotten(lab: Lab) -> None:
    ask(lab, parallel=1)
    (refused,) = sent(lab.hear("reset", b'{"forget":true}', user="pi2"), "error")
    assert "--queue" in refused.json["hint"]
    assert "1 wait" in refused.json["message"]
    lab.hear("reset", b'{"queue":true}', user="pi2")
    assert outcome(lab, "pi2")[:2] == ("cancelled", "no")
    assert errors(lab.hear("reset", b'{"forget":true}', user="pi2")) == []
    end(lab, "pi1")
    assert states(lab) == [0, 0, 1, 0]


# What comes later


def test_a_late_result_changes_the_counts(lab: Lab) -> None:
    ask(lab, group="@two", timeout=1.0, grace=1.0)
    end(lab, "pi2")
    collect(lab, "pi1")
    lab.later(3.0)
    lab.later(4000.0)
    assert batch(lab, "@two")["counts"]["lost"] == 1
    before = batch(lab, "@two")["seq"]
    deeds = lab.hear("response", result("b1"), user="pi1") + lab.later(5.0)
    (said,) = [one.json for one in sent(deeds, "status") if one.topic == "hw/@two/status"]
    assert said["counts"] == {"members": 2, "waiting": 0, "running": 0, "refused": 0, "ok": 2}
    assert said["seq"] > before


def test_what_is_late_and_no_result_is_no_news_of_the_group(lab: Lab) -> None:
    ask(lab, group="@two")
    for user in ("pi1", "pi2"):
        end(lab, user)
    lab.hear("request", request("c1"), user="pi1")
    lab.later(20.0)
    late = lab.hear("collected", b'{"id":"b1","journal":"j9","boot":1}', user="pi1")
    assert [one.topic for one in sent(late + lab.later(20.0), "status")] == ["hw/pi1/status"]
    assert lab.rows("commands", "late") == [(0,), (0,), (1,)]


def test_a_new_epoch_ends_those_that_have_not_begun(lab: Lab) -> None:
    ask(lab, parallel=1)
    deeds = lab.hear("status", b'{"epoch":5,"seq":9}', user="pi9")
    assert sent(deeds, "command") == []
    assert {outcome(lab, user)[:2] for user in LAB1} == {("lost", "maybe")}
    said = batch(lab)
    assert (said["state"], said["counts"]["lost"], said["epoch"]) == (
        "ended",
        4,
        lab.coordinator.epoch,
    )


def test_after_a_restore_who_never_began_may_have_run(lab: Lab) -> None:
    lab.hear("status", b'{"epoch":5,"seq":9}', user="pi9")
    ask(lab, parallel=1, abort=0.0)
    end(lab, "pi1", outcome="error", exit_code=1)
    assert outcome(lab, "pi2")[:2] == ("expired", "maybe")


def test_an_older_batch_is_answered_by_its_id(lab: Lab) -> None:
    ask(lab, group="@two")
    for user in ("pi1", "pi2"):
        end(lab, user)
    ask(lab, id="b2", group="@two")
    lab.restart()
    lab.later(5.0)
    deeds = lab.hear("query", b'{"id":"b1"}', user="@two") + lab.later(5.0)
    (answer,) = sent(deeds, "result/b1")
    assert (answer.json["counts"]["ok"], answer.retain) == (2, False)
    assert errors(lab.hear("query", b'{"id":"b9"}', user="@two")) == [
        ("hw/@two/error", "not_current")
    ]


def test_the_reply_is_the_batch_at_its_end(lab: Lab) -> None:
    topic = "replies/me"
    asked = Delivery("hw/@two/request", request("b1"), 1, False, False, 1, 1, topic, b"7")
    lab.step(asked)
    end(lab, "pi1")
    lab.wire.all_acknowledged = False
    deeds = end(lab, "pi2", outcome="error", exit_code=1)
    (reply,) = sent(deeds, topic)
    assert reply.correlation == b"7"
    assert reply.json["counts"] == {
        "members": 2,
        "waiting": 0,
        "running": 0,
        "refused": 0,
        "ok": 1,
        "error": 1,
    }
    assert list(reply.json["members"]) == ["pi2"]
    assert len(sent(lab.restart(), topic)) == 1  # nobody has acknowledged it
    lab.wire.all_acknowledged = True
    lab.later(1.0)
    assert sent(lab.restart(), topic) == []


def test_one_asker_too_many_takes_nothing_from_those_before_him(lab: Lab) -> None:
    def asked(number: int) -> Delivery:
        topic = f"replies/{number}"
        return Delivery("hw/@two/request", request("b1"), 1, False, False, 1, 1, topic, b"7")

    for number in range(limits.MAX_REPLIES):
        lab.step(asked(number))
    (soon,) = sent(lab.step(asked(9)), "replies/9")
    assert soon.json["state"] == "open"
    lab.later(1.0)
    lab.wire.all_acknowledged = False
    deeds = end(lab, "pi1") + end(lab, "pi2")
    for number in range(limits.MAX_REPLIES):
        (reply,) = sent(deeds, f"replies/{number}")
        assert reply.json["state"] == "ended"
    wait = lab.coordinator.wait()
    assert wait is not None
    assert wait <= REPLY_LOOK_S  # that they have arrived is looked for
    lab.wire.all_acknowledged = True
    lab.later(1.0)
    assert lab.rows("batches", "replies") == [("[]",)]


def test_a_status_comes_twice_a_second_at_most_and_its_last_word_always(lab: Lab) -> None:
    ask(lab)
    lab.later(20.0)
    deeds = [deed for user in LAB1 for deed in end(lab, user)]
    assert len([one for one in sent(deeds, "status") if one.topic == "hw/@lab1/status"]) == 1
    (said,) = sent(lab.later(0.5), "status")
    assert said.json["state"] == "ended"
    assert lab.later(10.0) == []


def test_a_group_is_told_who_is_in_it(lab: Lab) -> None:
    lab.hear("heartbeat", heartbeat(), user="pi1")
    lab.hear("heartbeat", heartbeat(online=False), user="pi2")
    lab.clock.now += 5.0
    lab.step()
    lists = {one.topic: one.json["members"] for one in lab.wire.deeds if isinstance(one, Sent)}
    assert lists["hw/@lab1/members"] == {"pi1": True, "pi2": False, "pi3": None, "pi4": None}
    assert lists["hw/@some/members"] == {"pi1": True, "pi2": False}
    lab.clock.now += 5.0
    lab.step()
    assert lab.wire.deeds == []


def lists(lab: Lab) -> dict[str, bytes]:
    """What was said in the last step of who is in which group."""
    return {one.topic: one.payload for one in lab.wire.deeds if isinstance(one, Sent)
            and one.kind == "members" and one.retain}  # fmt: skip


def test_other_groups_are_said_at_once(lab: Lab) -> None:
    lab.later(5.0)
    lab.hear("heartbeat", heartbeat(), user="pi1")  # who is there has been said just now
    lab.coordinator.group_by(Groups({"lab1": ("pi9",), "new": ("pi1",)}))
    assert lab.coordinator.wait() == 0.0
    lab.step()
    said = lists(lab)
    assert b"pi9" in said["hw/@lab1/members"]
    assert b"pi1" in said["hw/@new/members"]


def test_nothing_is_kept_of_who_was_in_a_group_that_is_gone(lab: Lab) -> None:
    lab.later(5.0)
    lab.disconnect()
    lab.coordinator.group_by(Groups({"lab1": LAB1}))
    lab.connect()
    assert lists(lab)["hw/@two/members"] == b""
    assert lists(lab)["hw/@lab1/members"] != b""
    lab.later(5.0)
    assert lists(lab) == {}


def test_nothing_is_kept_of_a_group_that_went_while_nobody_coordinated(lab: Lab) -> None:
    ask(lab, group="@two")
    lab._options = (Rules(groups=Groups({"lab1": LAB1})), 0.0, 0.0)
    lab.restart()
    assert lists(lab)["hw/@two/members"] == b""


def asked_for(lab: Lab, *ids: str) -> list[str]:
    """Ask for these batches at once; what was said of them, in order."""
    deeds = lab.step(*(lab.delivery("query", b'{"id":"%s"}' % id.encode(), user="@two")
                       for id in ids))  # fmt: skip
    for _ in range(60):
        deeds += lab.later(0.5)
    return [one.json["id"] for one in deeds if isinstance(one, Sent) and one.kind != "clock"]


def many(lab: Lab, number: int) -> list[str]:
    ids = [f"b{one}" for one in range(number)]
    for id in ids:
        ask(lab, id, "@two")
        lab.hear("reset", b"", user="@two")
    asked_for(lab)  # all has been said
    return ids


def test_the_newest_batch_waits_for_no_answer_about_an_older_one(lab: Lab) -> None:
    *old, newest = many(lab, 4)
    said = asked_for(lab, *old, newest)
    assert said.index(newest) <= 1
    assert [id for id in said if id != newest] == old


def test_so_many_answers_about_older_batches_wait_at_most(lab: Lab) -> None:
    *old, newest = many(lab, limits.BATCH_ANSWERS + 5)
    said = asked_for(lab, *old, newest)
    assert newest in said
    assert [id for id in said if id != newest] == old[: limits.BATCH_ANSWERS]


@pytest.mark.parametrize(("seconds", "pause"), [(0.2, 4), (3.0, 5)])
def test_what_takes_long_to_make_is_said_less_often_but_it_is_said(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, seconds: float, pause: int
) -> None:
    ask(lab)
    lab.later(20.0)
    parts = lab.store.parts

    def slow(key: str) -> Any:
        lab.clock.now += seconds
        return parts(key)

    monkeypatch.setattr(lab.store, "parts", slow)
    assert len(sent(end(lab, "pi1"), "status")) >= 2
    said_at = lab.clock.now - seconds
    deeds = end(lab, "pi2")
    while lab.clock.now + 0.5 < said_at + pause:
        deeds += lab.later(0.5)
    assert [one for one in sent(deeds, "status") if one.topic == "hw/@lab1/status"] == []
    assert sent(lab.later(0.6), "status") != []


# A batch without a group

LIST = ["pi1", "pi2", "pi3"]


def join(
    lab: Lab, user: str, id: str = "b1", listed: list[str] = LIST, **keys: object
) -> list[Deed]:
    return lab.hear("request", request(id, batch=listed, **keys), user=user)  # type: ignore[arg-type]


def test_any_boards_can_be_asked_together(lab: Lab) -> None:
    for user in LIST:
        assert errors(join(lab, user)) == []
    assert states(lab) == [1, 1, 1, 0]
    assert [row[0] for row in lab.rows("batches", "of_group")] == [""]
    for user in LIST:
        end(lab, user)
    assert lab.coordinator.batches == {}
    assert lab.rows("batches", "ended IS NOT NULL") == [(1,)]


def test_another_list_under_a_known_id_is_another_batch(lab: Lab) -> None:
    join(lab, "pi1")
    assert errors(join(lab, "pi1", listed=["pi1", "pi2"])) == [("hw/pi1/error", "id_reused")]
    assert errors(join(lab, "pi1")) == []  # a repeat
    assert errors(join(lab, "pi4")) == [("hw/pi4/error", "bad_payload")]
    lab.hear("request", request("b1"), user="pi2")
    assert errors(join(lab, "pi2")) == [("hw/pi2/error", "id_reused")]


def test_what_a_member_refused_is_stored_with_the_batch(lab: Lab) -> None:
    lab.hear("request", request("c1"), user="pi2")
    join(lab, "pi1")
    assert errors(join(lab, "pi2")) == [("hw/pi2/error", "busy")]
    lab.hear("cancel", b"", user="pi2")
    lab.restart()
    assert errors(join(lab, "pi2")) == [("hw/pi2/error", "busy")]
    join(lab, "pi3")
    for user in ("pi1", "pi3"):
        end(lab, user)
    assert lab.rows("batches", "ended IS NOT NULL") == [(1,)]


def test_who_was_stopped_before_it_asked_does_not_begin(lab: Lab) -> None:
    join(lab, "pi3")
    lab.hear("reset", b"", user="@two")
    assert errors(join(lab, "pi1")) == [("hw/pi1/error", "wrong_state")]
    assert states(lab) == [0, 0, 1, 0]


def test_a_member_that_is_refused_by_the_clock_is_waited_for_no_longer(lab: Lab) -> None:
    at = lab.clock.wall() + 100.0
    join(lab, "pi1", expires_at=at)
    join(lab, "pi3", expires_at=at)
    for user in ("pi1", "pi3"):
        end(lab, user)
    lab.later(101.0)
    assert errors(join(lab, "pi2", expires_at=at)) == [("hw/pi2/error", "bad_payload")]
    assert lab.rows("batches", "ended IS NOT NULL") == [(1,)]


def test_nor_is_one_without_a_record_which_gets_none(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(lab, "pi1")
    join(lab, "pi3")
    monkeypatch.setattr(limits, "MAX_USERS", 2)
    assert errors(join(lab, "pi2")) == [("hw/pi2/error", "not_allowed")]
    assert "pi2" not in lab.coordinator.records
    for user in ("pi1", "pi3"):
        end(lab, user)
    assert lab.rows("batches", "ended IS NOT NULL") == [(1,)]
    lab.restart()
    assert errors(join(lab, "pi2")) == [("hw/pi2/error", "not_allowed")]


def test_everybody_is_stopped_who_has_not_asked_yet_too(lab: Lab) -> None:
    join(lab, "pi3")
    lab.hear("reset", b"", user="@all")
    assert errors(join(lab, "pi1")) == [("hw/pi1/error", "wrong_state")]
    assert states(lab) == [0] * 4


def test_lists_that_lead_to_nothing_are_so_many_only(tmp_path: Path) -> None:
    room = 16 * limits.KIB
    rules = Rules(groups=GROUPS, allowance=Allowance(max_idle=room))
    boards = ["pi1", *(f"{number:064}" for number in range(100))]
    with Lab(tmp_path / "hwsync.db", rules=rules) as lab:
        seen = list[tuple[str, str]]()
        for number in range(4):
            seen += errors(join(lab, "pi1", f"b{number}", listed=boards))
            lab.hear("cancel", b"", user="pi1")
        assert set(seen) == {("hw/pi1/error", "not_allowed")}
        stored = len(lab.rows("batches"))
        assert 0 < stored < 4
        assert errors(lab.hear("request", request("alone"), user="pi1")) == []
        lab.hear("cancel", b"", user="pi1")
        lab.later(room / limits.IDLE_PER_S)
        assert errors(join(lab, "pi1", "b9", listed=boards)) == []


@pytest.mark.parametrize(
    ("user", "keys"),
    [
        ("pi1", {"parallel": 1}), ("pi1", {"abort": 0.5}), ("pi1", {"online": True}),
        ("@lab1", {"batch": ["pi1"]}), ("@lab1", {"parallel": 0}), ("@lab1", {"abort": 2}),
        ("@lab1", {"parallel": 1, "queue": True}), ("pi1", {"batch": []}),
        ("pi1", {"batch": ["pi1", "pi1"]}), ("pi1", {"batch": ["-"]}), ("pi1", {"batch": "pi1"}),
    ],
)  # fmt: skip
def test_what_is_not_for_it_is_refused(lab: Lab, user: str, keys: dict[str, object]) -> None:
    assert errors(ask(lab, group=user, **keys)) == [(f"hw/{user}/error", "bad_payload")]


@pytest.mark.parametrize("kind", ["collected", "response", "analysis", "command"])
def test_no_device_speaks_for_a_group(lab: Lab, kind: str) -> None:
    assert errors(lab.hear(kind, b"x", user="@lab1")) == [("hw/@lab1/error", "not_allowed")]


@pytest.mark.parametrize("kind", ["heartbeat", "status"])
def test_our_own_word_of_a_group_is_passed_over(lab: Lab, kind: str) -> None:
    lab.hear(kind, b'{"epoch":9,"seq":9}', user="@lab1")
    assert lab.coordinator.epoch == 0


# What it costs


def test_a_group_has_so_many_open_batches(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_OPEN_OF_GROUP", 2)
    for number in range(3):
        deeds = ask(lab, id=f"b{number}", group="@two", queue=True)
    assert errors(deeds) == [("hw/@two/error", "not_allowed")]


def test_the_oldest_of_which_nobody_is_under_way_makes_room(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_OPEN_BATCHES", 2)
    join(lab, "pi1", id="b1")
    join(lab, "pi2", id="b2")
    assert errors(join(lab, "pi3", id="b3")) == [("hw/pi3/error", "not_allowed")]
    end(lab, "pi1", id="b1")
    lab.hear("analysis", b"ok", user="pi1")
    assert errors(join(lab, "pi3", id="b3")) == []
    assert errors(join(lab, "pi2", id="b1", listed=LIST)) == [("hw/pi2/error", "wrong_state")]


def test_while_much_is_under_way_only_the_newest_status_of_each_waits(lab: Lab) -> None:
    lab.wire.backlog = limits.MAX_UNDER_WAY + 1
    assert [one.topic for one in ask(lab) if isinstance(one, Sent)] == ["hw/@lab1/status"]
    assert lab.coordinator.wait() == pytest.approx(0.02)
    collect(lab, "pi1")
    lab.wire.backlog = 0
    deeds = lab.later(0.02)
    assert [(one.json["user"], one.json["state"]) for one in sent(deeds, "status")] == [
        ("pi1", 2), ("pi2", 1), ("pi3", 1), ("pi4", 1)
    ]  # fmt: skip
    assert [one.topic for one in sent(deeds, "command")] == [
        f"hw/{user}/command" for user in LAB1[1:]
    ]


def test_a_board_that_is_away_is_sent_its_envelope_when_it_comes(lab: Lab) -> None:
    lab.hear("heartbeat", heartbeat(online=False), user="pi2")
    assert [one.topic for one in sent(ask(lab), "command")] == [
        f"hw/{user}/command" for user in LAB1 if user != "pi2"
    ]
    assert len(sent(lab.hear("heartbeat", heartbeat(boot=2), user="pi2"), "command")) == 1


def test_what_waits_for_a_group_on_a_full_disk_waits_of_every_board(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("database or disk is full")

    lab.hear("request", request("c1"))
    with monkeypatch.context() as full:
        full.setattr(lab.store, "save", fail)
        deeds = ask(lab) + lab.later(1.1)
        assert errors(deeds) == [("hw/@lab1/error", "degraded")]
        assert lab.hear("query", b'{"id":"c1"}') == []  # what came before it may change that
        assert sent(lab.hear("query", b"", user="pi3"), "status") != []
        assert lab.hear("query", b"", user="@lab1") == []
    deeds = lab.later(2.0)
    assert states(lab) == [1, 1, 1, 1]
    assert sent(deeds, "result/c1") != []


def test_the_log_does_not_list_thousands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    users = tuple(f"pi{number}" for number in range(50))
    with Lab(tmp_path / "many.db", rules=Rules(groups=Groups({"many": users}))) as lab:
        with caplog.at_level("INFO"):
            ask(lab, group="@many")
        assert len(caplog.records) < 30
        assert "of 29 boards more" in caplog.text
