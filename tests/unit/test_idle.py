"""What leads to nothing: every way to have a row written has an end, and nobody waits for a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.coordinator import round_log
from hwsync.protocol import limits
from hwsync.protocol.idle import weight
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Request
from hwsync.protocol.rules import Allowance, Rules
from hwsync.protocol.wire.asking import FORGET, encode_id
from hwsync.protocol.wire.response import encode_collected
from hwsync.store.checking import check
from hwsync.store.database import MAX_WAL
from hwsync.store.statements import BUSY
from tests.support.coordinator import Deed, Lab, brief, request, result, sent

KIB = limits.KIB
ROOM = 16 * KIB
RULES = Rules(allowance=Allowance(max_idle=ROOM))
ROWS = 60  # more than there is room for
TEXT = "x" * 2_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Lab]:
    """A coordinator with room for sixteen rows."""
    with Lab(tmp_path / "small.db", rules=RULES) as opened:
        yield opened
        assert list(check(opened.path)) == []


def rows(lab: Lab) -> int:
    return len(lab.rows("transitions")) + len(lab.rows("commands"))


def code(deeds: list[Deed]) -> str:
    """Of the error; empty: there was none."""
    return next((str(one.json["error"]) for one in sent(deeds, "error")), "")


def orphan(lab: Lab, number: int) -> list[Deed]:
    return lab.hear("response", result(f"o{number}"))


def fill(lab: Lab) -> None:
    """Use up all of the allowance, without a refusal in the way."""
    for number in range(2 * ROOM // limits.IDLE_ROW):
        lab.hear("response", result(f"fill{number}", outcome="expired"))


# Every kind of row


def told_again(lab: Lab, number: int) -> list[Deed]:
    return lab.hear("response", result(f"c{number % 6}"))


def refused_result(lab: Lab, number: int) -> list[Deed]:
    return lab.hear("response", result("c9", journal=f"j{number + 2}"))


def unreadable_result(lab: Lab, number: int) -> list[Deed]:
    payload = result(f"u{number}", outcome="expired", response=TEXT)
    return lab.hear("response", payload)


def late_collected(lab: Lab, number: int) -> list[Deed]:
    return lab.hear("collected", encode_collected("c0", f"j{number % 2 + 2}", 1))


def reset_at_rest(lab: Lab, _: int) -> list[Deed]:
    return lab.hear("reset")


def later_boot(lab: Lab, number: int) -> list[Deed]:
    return lab.hear("collected", encode_collected("c9", "j1", number + 2))


def cancel_by_hand(lab: Lab, _: int) -> list[Deed]:
    return lab.hear("cancel")


def taken_back(lab: Lab, number: int) -> list[Deed]:
    deeds = lab.hear("request", request(f"r{number}", TEXT))
    return deeds + lab.hear("cancel", encode_id(f"r{number}"))


def queued_and_taken_back(lab: Lab, number: int) -> list[Deed]:
    deeds = lab.hear("request", request(f"q{number}", TEXT, queue=True))
    return deeds + lab.hear("cancel", encode_id(f"q{number}"))


def expired(lab: Lab, number: int) -> list[Deed]:
    lab.clock.jump -= 1.0  # or time gives back what it costs
    deeds = lab.hear("request", request(f"e{number}", TEXT, expires=1))
    return deeds + lab.later(1.0)


Kind = Callable[[Lab, int], list[Deed]]
KINDS: list[tuple[Kind, int, str]] = [
    (orphan, 0, "not_allowed"),
    (told_again, 0, ""),
    (refused_result, 2, "not_current"),
    (unreadable_result, 0, "bad_payload"),
    (late_collected, 0, ""),
    (reset_at_rest, 0, ""),
    (later_boot, 2, "not_allowed"),
    (cancel_by_hand, 2, ""),
    (taken_back, 0, "not_allowed"),
    (queued_and_taken_back, 2, "not_allowed"),
    (expired, 0, "not_allowed"),
]
"""What is sent, the state of c9 meanwhile, and with which error it is answered in the end."""


@pytest.mark.parametrize("wraps", [False, True], ids=["at once", "over restarts"])
@pytest.mark.parametrize(("kind", "state", "last"), KINDS, ids=[one[0].__name__ for one in KINDS])
def test_every_kind_of_row_comes_to_an_end(
    small: Lab, kind: Kind, state: int, last: str, wraps: bool
) -> None:
    for number in range(6):
        small.device(3, f"c{number}")
        small.hear("analysis", b"fine")
    small.device(state, "c9")
    for number in range(ROWS):
        deeds = kind(small, number)
        assert sent(deeds, "status"), deeds  # whoever sends it is answered, or repeats for ever
    full = rows(small)
    for number in range(ROWS, 2 * ROWS):
        deeds = kind(small, number)
        assert code(deeds) == last
        assert sent(deeds, "status"), deeds
        if wraps:
            small.restart()
    assert rows(small) == full
    assert small.coordinator.epoch == 0


def test_what_has_no_row_is_counted(small: Lab) -> None:
    fill(small)
    before = small.coordinator.counts["unlogged"]
    told = small.hear("response", result("x1", outcome="expired"))
    assert code(told) == "bad_payload"
    assert small.coordinator.counts["unlogged"] == before + 1


def test_what_has_no_row_is_settled_under_the_number_before(small: Lab) -> None:
    fill(small)
    seq = small.record.seq
    (status,) = sent(small.hear("response", result("x1", outcome="expired")), "status")
    assert status.json["seq"] == seq
    assert status.json["settled"][-1] == ["x1", "j1"]
    small.restart()
    assert small.record.settled[-1] == ("x1", "j1")
    assert small.record.seq == seq


# What is never touched


def test_the_first_result_of_a_known_command_is_stored_however_full_it_is(small: Lab) -> None:
    small.device(2)
    fill(small)
    deeds = small.hear("response", result(response=TEXT), mid=7)
    assert brief(deeds) == ["status 3", 7]
    assert brief(small.hear("analysis", b"right", mid=8)) == ["status 0", 8]
    assert small.rows("commands", "outcome, response, analysis") == [("ok", TEXT, "right")]


def test_a_late_result_corrects_however_full_it_is(small: Lab) -> None:
    small.device(2, timeout=1, grace=1)
    small.later(2.0)
    assert small.rows("commands", "outcome, ran") == [("lost", "maybe")]
    fill(small)
    seq = small.record.seq
    assert code(small.hear("response", result(response=TEXT))) == ""
    assert small.record.seq == seq + 1
    assert small.rows("commands", "outcome, ran, response") == [("ok", "yes", TEXT)]
    assert brief(small.hear("analysis", b'{"id":"c1","analysis":"late"}')[:1]) == ["status 0"]
    assert small.rows("commands", "analysis") == [("late",)]


def test_what_was_accepted_ends_however_full_it_is(small: Lab) -> None:
    small.device(1)
    small.hear("request", request("q1", queue=True))
    fill(small)
    assert brief(small.hear("cancel", encode_id("q1"))[:1]) == ["status 1"]
    assert brief(small.hear("collected", encode_collected("c1", "j1", 1)))[0] == "status 2"
    assert brief(small.hear("cancel"))[0] == "status 2"
    assert small.record.cancelling
    assert brief(small.hear("reset"))[0] == "status 0"


def test_an_epoch_that_rises_again_and_again_has_no_row_and_empties_no_queue_for_nothing(
    small: Lab,
) -> None:
    """Whoever may publish a board's heartbeat can have that."""

    def rise() -> None:
        seen = [small.coordinator.epoch, small.record.seq + 1]
        beat = {"online": True, "journal": "j1", "boot": 1, "seen": seen}
        small.hear("heartbeat", dumps(beat).encode())

    small.hear("reset")
    for _ in range(2 * ROWS):
        rise()
    full, epoch = rows(small), small.coordinator.epoch
    rise()
    assert rows(small) == full
    assert small.record.epoch == small.coordinator.epoch > epoch
    small.restart()
    assert small.record.epoch == small.coordinator.epoch
    small.later(ROOM / limits.IDLE_PER_S)
    small.device(1, "c1")
    for number in range(9):
        assert code(small.hear("request", request(f"q{number}", TEXT, queue=True))) == ""
    rise()
    ended = dict(small.rows("commands", "id, outcome"))
    assert set(ended.values()) == {"lost"}
    assert code(small.hear("request", request("n1"))) == "not_allowed"


def test_a_user_is_forgotten_however_full_it_is(small: Lab) -> None:
    small.hear("reset")
    fill(small)
    small.hear("reset", FORGET)
    assert small.record.forgotten
    full = rows(small)
    for _ in range(ROWS):
        small.hear("reset")
        small.hear("reset", FORGET)
    assert rows(small) == full


# What is given back


def test_time_and_the_answers_of_devices_give_back(small: Lab) -> None:
    small.device(2)
    fill(small)
    assert code(orphan(small, 1)) == "not_allowed"
    small.hear("response", result())  # of the grant
    assert code(orphan(small, 1)) == ""
    assert code(orphan(small, 2)) == ""
    assert code(orphan(small, 3)) == "not_allowed"
    small.later(2 * limits.IDLE_ROW / limits.IDLE_PER_S)
    assert code(orphan(small, 3)) == ""
    small.restart()
    assert code(orphan(small, 4)) == "not_allowed"


def test_a_clock_that_is_put_back_gives_nothing_and_takes_nothing(small: Lab) -> None:
    fill(small)
    small.clock.jump = -80_000.0
    assert code(orphan(small, 1)) == "not_allowed"
    small.hear("response", result("x1", outcome="expired"))
    small.clock.jump = 0.0
    small.later(2 * limits.IDLE_ROW / limits.IDLE_PER_S)
    assert code(orphan(small, 1)) == ""


def test_a_request_is_told_when_to_come_again_and_is_accepted_then(small: Lab) -> None:
    for number in range(20):
        taken_back(small, number)
    (error,) = sent(small.hear("request", request("n1")), "error")
    assert error.json["error"] == "not_allowed"
    seconds = int(error.json["hint"].split(" in ")[1].split(" s")[0])
    small.clock.now += seconds - 2
    assert code(small.hear("request", request("n1"))) == "not_allowed"
    small.clock.now += 2
    assert code(small.hear("request", request("n1"))) == ""


def waits(deeds: list[Deed]) -> int:
    """The seconds that the hint of a refusal says; 0: it was accepted."""
    if code(deeds) == "":
        return 0
    (error,) = sent(deeds, "error")
    assert error.json["error"] == "not_allowed"
    return int(error.json["hint"].split(" in ")[1].split(" s")[0])


def queue_up(lab: Lab, count: int, program: str, **keys: object) -> None:
    for number in range(count):
        asked = request(f"q{number}", program, queue=True, **keys)
        assert code(lab.hear("request", asked)) == ""


LONGEST_S = int(limits.IDLE_WAIT_S) + 1


def test_a_queue_that_expires_on_a_board_that_is_off_refuses_nobody(lab: Lab) -> None:
    queue_up(lab, 30, "#" * 100_000, expires=1)
    for _ in range(30):
        lab.later(1.0)
    assert lab.record.state == 0
    assert lab.record.idle < limits.MAX_IDLE
    assert waits(lab.hear("request", request("n1"))) == 0


def test_after_a_full_queue_that_was_reset_a_request_is_taken_within_fifteen_minutes(
    lab: Lab,
) -> None:
    queue_up(lab, 31, "#" * limits.MAX_PROGRAM)
    lab.later(limits.AMBIGUOUS_S)
    lab.hear("reset", b'{"queue":true}')
    wait = waits(lab.hear("request", request("n1")))
    assert LONGEST_S - 2 <= wait <= LONGEST_S
    lab.clock.now += wait
    assert waits(lab.hear("request", request("n1"))) == 0


def test_what_a_new_epoch_ends_is_nothing_that_its_user_stored(lab: Lab) -> None:
    """The heartbeat of another board is enough for it."""
    queue_up(lab, 31, "#" * limits.MAX_PROGRAM)
    lab.hear("reset", user="pi2")
    beat = {"online": True, "journal": "j1", "boot": 1, "seen": [lab.coordinator.epoch, 9]}
    lab.hear("heartbeat", dumps(beat).encode(), user="pi2")
    assert (lab.coordinator.epoch > 0, lab.record.state, lab.record.queue) == (True, 0, ())
    assert waits(lab.hear("request", request("n1"))) == 0


def test_one_answer_is_enough_for_one_request_however_much_was_spent(small: Lab) -> None:
    """As the hint says."""
    small.device(2)
    queue_up(small, 9, TEXT)
    fill(small)
    for number in range(9):
        small.hear("cancel", encode_id(f"q{number}"))
    deeds = small.hear("request", request("n1", queue=True))
    assert "or when the device has answered" in sent(deeds, "error")[0].json["hint"]
    assert waits(deeds) > 1
    small.hear("response", result())
    small.hear("analysis", b"fine")
    assert waits(small.hear("request", request("n1", TEXT))) == 0
    small.hear("cancel")
    (error,) = sent(small.hear("request", request("n2")), "error")
    assert "has answered" not in error.json["hint"]  # nothing waits that it could answer


def test_in_the_second_half_what_waits_counts_already(small: Lab) -> None:
    """Else a full queue could be stored and taken back every quarter of an hour."""
    fill(small)
    small.clock.now += 4 * limits.IDLE_ROW / limits.IDLE_PER_S
    small.device(1)
    queue_up(small, 3, TEXT)
    deeds = small.hear("request", request("q3", TEXT, queue=True))
    wait = waits(deeds)
    assert 0 < wait <= ROOM / 2 / limits.IDLE_PER_S + 1
    small.clock.now += wait
    assert waits(small.hear("request", request("q3", TEXT, queue=True))) == 0


# Orphans


def test_an_orphan_without_room_loses_its_texts_first(small: Lab) -> None:
    large = "x" * (ROOM // 2 - 2 * KIB)
    for number in range(1, 6):
        assert code(small.hear("response", result(f"o{number}", response=large))) == ""
    assert code(orphan(small, 6)) == "not_allowed"
    assert small.rows("commands", "id, response, pruned, truncated") == [
        ("o1", large, 0, 0), *((f"o{number}", "", 1, 1) for number in range(2, 6))
    ]  # fmt: skip


def test_an_orphan_that_is_not_kept_is_not_known(small: Lab) -> None:
    fill(small)
    deeds = small.hear("response", result("o1"), mid=7)
    assert brief(deeds) == ["error", "status 0", 7]
    (status,) = sent(deeds, "status")
    assert status.json["settled"][-1] == ["o1", "j1"]
    assert code(small.hear("query", encode_id("o1"))) == "not_current"


def test_two_hundred_orphans_do_not_fill_the_disk(lab: Lab) -> None:
    """With the protocol's own limits: they made 191 MB."""
    texts = {"response": "x" * limits.MAX_RESPONSE, "stderr": "y" * limits.MAX_STDERR}
    for number in range(200):
        assert code(lab.hear("response", result(f"o{number}", **texts))) == ""
    files = (lab.path, lab.path.with_name(f"{lab.path.name}-wal"))
    assert sum(file.stat().st_size for file in files) < 3 * limits.MAX_IDLE
    assert lab.rows("commands", "count(*)") == [(200,)]


# The log's payloads


def test_the_log_has_what_was_asked_and_only_the_hash_of_what_is_long(lab: Lab) -> None:
    short = TEXT[:500]
    lab.hear("request", request("c1", short))
    lab.hear("cancel")
    padded = request("c2") + b" " * 100_000
    lab.hear("request", padded)
    told = dict(lab.rows("transitions", "id || command, length(payload)"))
    assert told["c1hw_command_request"] == len(request("c1", short))
    assert told["c2hw_command_request"] == 0
    lab.stop()
    assert list(check(lab.path)) == []
    lab.start()


# Queues, users, packets, topics


def test_a_queue_has_eight_mebibytes_also_after_a_restart(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Request("#" * 1_000, stdin="é", args=("a", "b"), meta='{"x":1}') for _ in range(3)]
    each = weight(asked[0])
    monkeypatch.setattr(limits, "MAX_QUEUE_BYTES", 2 * each)
    lab.device(1, "c0")
    keys = {"stdin": "é", "args": ["a", "b"], "meta": {"x": 1}, "queue": True}
    for number in (1, 2):
        assert code(lab.hear("request", request(f"q{number}", "#" * 1_000, **keys))) == ""
    lab.restart()
    assert lab.record.queue_bytes == 2 * each
    (error,) = sent(lab.hear("request", request("q3", "#", **keys)), "error")
    assert error.json["error"] == "queue_full"
    assert str(2 * each) in error.json["message"]
    lab.hear("cancel", encode_id("q1"))
    assert code(lab.hear("request", request("q3", "#" * 1_000, **keys))) == ""
    lab.hear("reset")  # its place is q2's
    assert lab.record.queue_bytes == each
    lab.later(limits.AMBIGUOUS_S)
    lab.hear("reset", b'{"queue":true}')
    assert lab.record.queue_bytes == 0


def test_one_user_more_than_may_be_is_refused_and_settled(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_USERS", 2)
    deliveries = [lab.delivery("reset", user=f"pi{number}") for number in range(1, 4)]
    assert code(lab.step(*deliveries)) == "not_allowed"
    for payload in (result(), result(outcome="expired")):
        deeds = lab.hear("response", payload, user="pi4", mid=7)
        assert code(deeds) in ("not_allowed", "bad_payload")
        (status,) = sent(deeds, "status")
        assert (status.retain, status.json["settled"]) == (False, [["c1", "j1"]])
    assert code(lab.hear("request", request(), user="pi2")) == ""
    assert lab.rows("hw_status", "user") == [("pi1",), ("pi2",)]


def test_unknown_users_share_one_allowance_of_refused_messages(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSED_ROWS", 3)
    for number in range(5):
        lab.hear("cancel", user=f"nobody{number}")
    assert lab.rows("refused", "user") == [("nobody0",), ("nobody1",), ("nobody2",)]
    assert lab.rows("refused_counts", "user, total") == [("", 5)]


def test_the_oldest_packet_identifiers_are_forgotten(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACKETS", 3)
    for mid in (9, 8, 7, 9, 6):
        lab.hear("reset", mid=mid)
    assert lab.rows("packets", "mid") == [(6,), (7,), (9,)]
    lab.restart()
    lab.step(*(lab.delivery("reset", mid=mid) for mid in (3, 2)))
    assert [row for row in lab.rows("packets", "mid") if row[0] < 4] == [(2,), (3,)]
    assert len(lab.rows("packets")) == 3
    lab.connect(session_present=False)
    lab.hear("reset", mid=1)
    assert lab.rows("packets", "mid") == [(1,)]


def test_a_long_topic_is_kept_cut(lab: Lab) -> None:
    user = "-" + "x" * 60_000
    deeds = lab.hear("cancel", user=user, mid=5)
    (error,) = (one for one in deeds if hasattr(one, "topic"))
    assert len(error.json["topic"]) == limits.KEPT_TOPIC
    assert lab.rows("refused", "length(topic), user") == [(limits.KEPT_TOPIC, "")]
    assert lab.rows("packets", "length(topic)") == [(limits.KEPT_TOPIC,)]
    again = lab.hear("cancel", user=user, mid=5, dup=True)
    assert again[:1] == deeds[:1]
    assert len(lab.rows("refused")) == 1


# What many are told


def test_a_status_that_has_not_changed_is_said_once_in_a_round(lab: Lab) -> None:
    """Each question may be small, and its answer a megabyte."""
    asked = [lab.delivery("query") for _ in range(9)]
    lab.device(1)
    deeds = lab.step(*asked, lab.delivery("cancel"), *asked)
    assert [one for one in brief(deeds) if isinstance(one, str)] == ["status 1", "status 0"]


def test_a_result_that_has_not_changed_is_said_once_in_a_round(lab: Lab) -> None:
    """At the last place: it proves that what came before it was heard."""
    lab.device(1)
    lab.device(2)
    asked = [lab.delivery("query", b'{"id": "c1"}') for _ in range(9)]
    deeds = lab.step(*asked, lab.delivery("cancel", b'{"id": "no"}'), *asked)
    said = [one for one in brief(deeds) if isinstance(one, str)]
    assert said == ["status 2", "error", "result/c1"]
    deeds = lab.step(*asked, lab.delivery("response", result()), *asked)
    results = sent(deeds, "result/c1")
    assert [one.json["state"] for one in results] == [2, 3]


def test_one_large_batch_leaves_no_large_log_behind(lab: Lab) -> None:
    lab.device(1)
    keys = {"stdin": "x" * 60_000, "queue": True}
    program = "#" * limits.MAX_PROGRAM
    lab.step(*(lab.delivery("request", request(f"q{one}", program, **keys)) for one in range(26)))
    assert lab.record.queue_bytes > MAX_WAL
    log = lab.path.with_name(f"{lab.path.name}-wal")
    assert log.stat().st_size < MAX_WAL
    assert lab.store.database.connection.execute("PRAGMA busy_timeout").fetchone() == (BUSY,)


# The log for people


def test_a_sender_that_is_refused_again_and_again_does_not_fill_the_log(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    lab.hear("reset")
    for _ in range(round_log.REFUSALS + 5):
        lab.hear("cancel")
    assert caplog.text.count("refused (wrong_state)") == round_log.REFUSALS
    lab.later(round_log.MINUTE_S, lab.delivery("cancel"))
    assert "5 more messages for pi1 were refused" in caplog.text
    assert caplog.text.count("refused (wrong_state)") == round_log.REFUSALS + 1


def test_rules_are_compared_by_what_was_accepted(lab: Lab) -> None:
    """What is counted is no part of the record that everybody sees."""
    lab.hear("reset")
    assert replace(lab.record, idle=1.0) == lab.record
    assert "idle" not in dumps(sent(lab.hear("query"), "status")[0].json)
