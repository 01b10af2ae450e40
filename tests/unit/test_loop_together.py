"""Batches that begin together, in the coordinator's loop: messages, deaths, and what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import StoreError
from hwsync.protocol.groups import Groups
from hwsync.protocol.record import Command, State
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from tests.support.coordinator import GONE, Deed, Lab, Sent, request, result, sent

BOARDS = ("pi1", "pi2", "pi3")
RULES = Rules(groups=Groups({"lab1": BOARDS}))
SETTLE_S = 30.0
TOGETHER = {"together": True, "wait": 5.0}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "hwsync.db", rules=RULES, hold_deadlines_s=SETTLE_S) as lab:
        yield lab


def ask(lab: Lab, **start: object) -> list[Deed]:
    return lab.hear("request", request("b1", start={**TOGETHER, **start}), user="@lab1")


def ask_list(lab: Lab, *users: str, id: str = "b1", **start: object) -> list[Deed]:
    """The request of a batch of all three boards, to some of them."""
    deeds: list[Deed] = []
    payload = request(id, batch=list(BOARDS), start={**TOGETHER, **start})
    for user in users:
        deeds += lab.hear("request", payload, user=user)
    return deeds


def collect(lab: Lab, *users: str, id: str = "b1", boot: int = 1) -> list[Deed]:
    deeds: list[Deed] = []
    payload = b'{"id":"%s","journal":"j1","boot":%d}' % (id.encode(), boot)
    for user in users:
        deeds += lab.hear("collected", payload, user=user)
    return deeds


def beat(lab: Lab, user: str, *, online: bool = True, boot: int = 1) -> list[Deed]:
    payload = encode_heartbeat(online=online, journal="j1", boot=boot, can=["start"])
    return lab.hear("heartbeat", payload, user=user)


def command(lab: Lab, user: str, id: str = "b1") -> Command:
    found = lab.store.command(user, id)
    assert found is not None
    return found


def instants(lab: Lab) -> list[int | None]:
    return [command(lab, user).start_at_us for user in BOARDS]


def ends(lab: Lab) -> list[str]:
    reports = [command(lab, user).report for user in BOARDS]
    return [f"{one.outcome} {one.ran}" if one else "" for one in reports]


def state(lab: Lab, user: str) -> State:
    return lab.coordinator.records[user].state


def statuses(deeds: list[Deed]) -> list[tuple[str, str, bool]]:
    """Whose statuses, their verb, and whether they have an instant."""
    return [
        (one.topic.split("/")[1], one.json["command"], one.json["start_at"] is not None)
        for one in deeds
        if isinstance(one, Sent) and one.kind == "status" and "@" not in one.topic
    ]


def run_on(lab: Lab, seconds: float) -> list[Deed]:
    """So much time, in which the coordinator wakes only when it wants to."""
    end, deeds = lab.clock.now + seconds, list[Deed]()
    while lab.clock.now < end:
        wait = lab.coordinator.wait()
        deeds += lab.later(min(end - lab.clock.now, seconds if wait is None else max(wait, 0.001)))
    return deeds


def batch_status(lab: Lab) -> dict[str, Any]:
    run_on(lab, 3.0)
    (status,) = sent(lab.hear("query", b"", user="@lab1") + run_on(lab, 3.0), "status")
    return status.json


def test_when_the_last_is_ready_all_have_one_instant_and_hear_it_first(lab: Lab) -> None:
    deeds = ask(lab)
    envelopes = sent(deeds, "command")
    assert [one.json["start"]["together"] for one in envelopes] == [True] * 3
    assert envelopes[0].json["start"]["start_at"] is None
    collect(lab, "pi1", "pi2")
    assert instants(lab) == [None] * 3
    others = [lab.delivery("request", request("q"), user="pi9"), lab.delivery("query", user="pi8")]
    last = b'{"id":"b1","journal":"j1","boot":1}'
    now = lab.coordinator.lab_time.us()
    deeds = lab.step(*others, lab.delivery("collected", last, user="pi3"))
    assert statuses(deeds)[:4] == [
        ("pi3", "hw_command_retrieval", False),
        ("pi1", "start", True),
        ("pi2", "start", True),
        ("pi3", "start", True),
    ]
    assert len(set(instants(lab))) == 1
    assert 1_000_000 < (instants(lab)[0] or 0) - now < 1_100_000
    life = lab.coordinator.lab_time.life
    assert {command(lab, user).start_life for user in BOARDS} == {life}


def test_who_is_not_ready_within_the_wait_is_left_out_also_while_all_settles(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1", "pi2")
    run_on(lab, 4.9)
    assert instants(lab) == [None] * 3
    run_on(lab, 0.2)  # SETTLE_S has not passed
    assert [one is not None for one in instants(lab)] == [True, True, False]
    assert ends(lab) == ["", "", "expired no"]
    assert state(lab, "pi3") is State.REST
    deeds = collect(lab, "pi3")
    assert command(lab, "pi3").report is not None
    assert statuses(deeds)[-1] == ("pi3", "left_out", False)


def test_fewer_than_are_needed_do_not_begin(lab: Lab) -> None:
    ask(lab, need=3)
    collect(lab, "pi1", "pi2")
    run_on(lab, 5.1)
    assert ends(lab) == ["cancelled no", "cancelled no", "expired no"]
    said = batch_status(lab)
    assert (said["state"], said["spread"]) == ("ended", None)
    reason = command(lab, "pi1").report.reason  # type: ignore[union-attr]
    assert reason == "not begun: 2 boards were ready within 5 s, and 3 must be"


def test_a_member_that_ends_before_holds_nobody_up(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1", "pi2", "pi3")
    assert None not in instants(lab)
    for how in ("cancel", "reset"):
        for user in BOARDS:
            lab.hear("reset", b"", user=user)
            lab.hear("reset", b"", user=user)
        id = f"b-{how}"
        lab.hear("request", request(id, start=TOGETHER), user="@lab1")
        collect(lab, "pi1", "pi2", id=id)
        lab.hear(how, b"", user="pi3")
        assert command(lab, "pi1", id).start_at_us is not None
        assert command(lab, "pi3", id).start_at_us is None


def test_a_cancelled_member_is_not_ready(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1")
    lab.hear("cancel", b"", user="pi1")
    collect(lab, "pi2", "pi3")
    run_on(lab, 5.1)
    assert [one is not None for one in instants(lab)] == [False, True, True]
    assert ends(lab)[0] == "cancelled no"


def test_a_board_that_has_gone_is_not_ready_until_it_is_heard_again(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1")
    beat(lab, "pi1", online=False)
    collect(lab, "pi2", "pi3")
    assert instants(lab) == [None] * 3
    beat(lab, "pi1")
    assert None not in instants(lab)


def test_a_will_says_nothing_any_more_once_its_board_was_heard_again(lab: Lab) -> None:
    """Also where that was long before the decision, and nothing was heard since."""
    ask(lab)
    collect(lab, "pi1")
    beat(lab, "pi1", online=False)
    beat(lab, "pi1")
    run_on(lab, 2.0)
    collect(lab, "pi2", "pi3")
    assert None not in instants(lab)


def test_a_dead_board_holds_the_others_up_no_longer_than_the_wait(lab: Lab) -> None:
    ask(lab)
    collect(lab, *BOARDS[:1])
    beat(lab, "pi1", online=False)
    collect(lab, "pi2", "pi3")
    run_on(lab, 5.1)
    assert [one is not None for one in instants(lab)] == [False, True, True]
    assert ends(lab) == ["cancelled no", "", ""]


def test_the_wait_counts_on_over_another_life_of_the_coordinator(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1")
    run_on(lab, 4.0)
    lab.coordinator.write_down()
    lab.clock.now += 1000.0  # off
    lab.restart()
    assert instants(lab) == [None] * 3
    run_on(lab, 0.9)
    assert instants(lab) == [None] * 3
    run_on(lab, 0.2)
    assert [one is not None for one in instants(lab)] == [True, False, False]


def test_what_a_life_before_left_undone_is_done_at_the_start(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1", "pi2")
    lab.coordinator._may_begin_together = lambda _: []  # type: ignore[method-assign]
    collect(lab, "pi3")
    assert instants(lab) == [None] * 3
    deeds = lab.restart()
    assert len(set(instants(lab))) == 1
    assert None not in instants(lab)
    assert ("pi3", "start", True) in statuses(deeds)


def test_a_batch_that_a_failed_commit_has_stored_all_the_same_is_waited_for_no_more(
    lab: Lab,
) -> None:
    ask_list(lab, "pi1", wait=5.0)
    collect(lab, "pi1")
    save = lab.store.save

    def lies(changes: Any, ticks: float) -> None:
        save(changes, ticks)
        lab.store.save = save  # type: ignore[method-assign]
        raise StoreError("disk I/O error")

    lab.store.save = lies  # type: ignore[method-assign]
    lab.hear("reset", b"", user="@lab1")  # everybody: the batch has ended
    lab.later(1.5)
    assert lab.coordinator.batches == {}
    wait = lab.coordinator.wait()
    assert wait is None or wait > 0.0
    lab.later(10.0)
    assert lab.coordinator.wait() != 0.0


def test_nothing_is_fixed_while_nobody_can_hear_it(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1", "pi2")
    last = lab.delivery("collected", b'{"id":"b1","journal":"j1","boot":1}', user="pi3")
    lab.wire.connected = False
    lab.step(last, GONE)
    assert state(lab, "pi3") is State.COLLECTED
    assert instants(lab) == [None] * 3
    lab.clock.now += 100.0
    deeds = lab.connect()
    assert len(set(instants(lab))) == 1
    assert (instants(lab)[0] or 0) > lab.coordinator.lab_time.us()
    assert ("pi3", "start", True) in statuses(deeds)
    lab.disconnect()
    first = instants(lab)
    lab.clock.now += 100.0
    lab.connect()
    assert instants(lab) == first  # once, and never again


def test_all_of_it_is_stored_in_one_transaction(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1", "pi2")
    rows = len(lab.rows("transitions"))
    saves: list[int] = []
    save = lab.store.save

    def counted(changes: Any, ticks: float) -> None:
        saves.append(len(changes.records))
        save(changes, ticks)

    lab.store.save = counted  # type: ignore[method-assign]
    run_on(lab, 5.1)
    assert saves == [3]
    assert len(lab.rows("transitions")) == rows + 3


def test_a_new_epoch_ends_who_has_not_begun(lab: Lab) -> None:
    ask(lab)
    collect(lab, "pi1", "pi2")
    newer = encode_heartbeat(online=True, journal="j1", boot=1, seen=[1, 1])
    lab.hear("heartbeat", newer, user="pi1")
    assert ends(lab) == ["lost maybe"] * 3
    assert instants(lab) == [None] * 3
    run_on(lab, 10.0)
    assert instants(lab) == [None] * 3


def test_how_far_apart_they_began_is_in_the_status_of_the_batch(lab: Lab) -> None:
    ask(lab)
    collect(lab, *BOARDS)
    at = command(lab, "pi1").start_at_us or 0
    for user, late, bound in (("pi1", 0.25, 0.5), ("pi2", 0.0, 0.125), ("pi3", 1.0, 0.25)):
        said = {"started": at / 1e6 + late, "start_error": late, "clock_bound": bound}
        lab.hear("response", result("b1", **said), user=user)
    assert batch_status(lab)["spread"] == {
        "n": 3,
        "seconds": pytest.approx(1.0, abs=1e-6),
        "bound": 0.75,
    }


# -- a batch without a group


def test_who_was_not_asked_yet_is_waited_for(lab: Lab) -> None:
    ask_list(lab, "pi1", "pi2")
    collect(lab, "pi1", "pi2")
    assert command(lab, "pi1").start_at_us is None
    ask_list(lab, "pi3")
    collect(lab, "pi3")
    assert len(set(instants(lab))) == 1
    assert None not in instants(lab)


def test_whoever_asks_after_the_decision_comes_too_late(lab: Lab) -> None:
    ask_list(lab, "pi1", "pi2")
    collect(lab, "pi1", "pi2")
    run_on(lab, 5.1)
    assert None not in instants_of(lab, "pi1", "pi2")
    (error,) = sent(ask_list(lab, "pi3"), "error")
    assert error.json["error"] == "wrong_state"
    lab.restart()
    (error,) = sent(ask_list(lab, "pi3"), "error")
    assert error.json["error"] == "wrong_state"
    assert lab.store.command("pi3", "b1") is None


def instants_of(lab: Lab, *users: str) -> list[int | None]:
    return [command(lab, user).start_at_us for user in users]


def test_a_member_with_another_start_is_of_another_batch(lab: Lab) -> None:
    ask_list(lab, "pi1")
    (error,) = sent(ask_list(lab, "pi2", lead=3.0), "error")
    assert error.json["error"] == "id_reused"


def test_an_instant_that_is_named_is_of_the_batchs_life_also_for_who_asks_later(lab: Lab) -> None:
    at = lab.coordinator.lab_time.us() / 1e6 + 60
    payload = request("b1", batch=list(BOARDS), start={"at": at})
    lab.hear("request", payload, user="pi1")
    lab.later(1.0)
    lab.hear("request", payload, user="pi2")
    assert instants_of(lab, "pi1", "pi2") == [round(at * 1e6)] * 2
    lab.clock.suspended = 1_000_000
    lab.step()
    (error,) = sent(lab.hear("request", payload, user="pi3"), "error")
    assert error.json["error"] == "bad_payload"
    assert "began anew" in error.json["message"]


# -- what is refused


def test_together_needs_a_batch_and_excludes_parallel(lab: Lab) -> None:
    (error,) = sent(lab.hear("request", request("c1", start=TOGETHER)), "error")
    assert error.json["error"] == "not_allowed"
    payload = request("b1", start=TOGETHER, parallel=2)
    (error,) = sent(lab.hear("request", payload, user="@lab1"), "error")
    assert error.json["error"] == "bad_payload"


def test_nobody_waits_for_more_boards_than_there_are(lab: Lab) -> None:
    (error,) = sent(ask(lab, need=4), "error")
    assert error.json["error"] == "bad_payload"
    (error,) = sent(ask_list(lab, "pi1", need=4), "error")
    assert "'need' is 4, and the batch has 3 boards" in error.json["message"]


def test_a_board_that_is_online_and_cannot_is_refused_alone(lab: Lab) -> None:
    lab.hear("heartbeat", encode_heartbeat(online=True, journal="j1", boot=1), user="pi2")
    ask(lab)
    collect(lab, "pi1", "pi3")
    assert lab.store.command("pi2", "b1") is None
    assert batch_status(lab)["members"]["pi2"]["refused"] == "not_allowed"
    assert None not in instants_of(lab, "pi1", "pi3")


def test_lab_time_goes_on_while_an_instant_is_to_be_fixed(lab: Lab) -> None:
    life = lab.coordinator.lab_time.life
    ask(lab)
    lab.clock.jump = 100.0
    lab.step()
    assert lab.coordinator.lab_time.life == life
