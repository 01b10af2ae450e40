"""Save, then tell: what the loop does while it cannot save, and when hwsync itself fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwsync.coordinator import deciding
from hwsync.coordinator.loop import SAVE_AGAIN_S
from hwsync.protocol.errors import StoreError
from hwsync.protocol.record import State
from hwsync.store.api import Changes
from tests.support.coordinator import (
    COLLECTED,
    PERSONS,
    Deed,
    Lab,
    Sent,
    brief,
    heartbeat,
    request,
    result,
    sent,
)

FULL = StoreError("database or disk is full")


@pytest.fixture
def failing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Changes]]:
    """``failing(times)``: so many saves fail from now on; the list gets every round that is tried.

    With ``stored`` they raise although everything was stored.
    """
    save = lab.store.save

    def fail(times: int, *, stored: bool = False) -> list[Changes]:
        tried: list[Changes] = []

        def failing_save(changes: Changes, ticks: float) -> None:
            tried.append(changes)
            if len(tried) > times or stored:
                save(changes, ticks)
            if len(tried) <= times:
                raise FULL

        monkeypatch.setattr(lab.store, "save", failing_save)
        return tried

    return fail


Failing = Callable[..., list[Changes]]


# Saved first


def test_everything_is_in_the_file_before_it_is_told(lab: Lab) -> None:
    checked: list[str] = []

    def in_the_file(deed: Deed) -> None:
        (row,) = lab.rows("hw_status", "seq, state")
        refused = len(lab.rows("refused"))
        if not isinstance(deed, Sent):
            assert (row, refused) == ((4, 0), 1)
        elif deed.kind == "status":
            assert row[0] >= deed.json["seq"]
        elif deed.kind == "error":
            assert refused == 1
        checked.append("acknowledged" if not isinstance(deed, Sent) else deed.kind)

    lab.wire.before = in_the_file
    lab.step(*[lab.delivery(kind, payload) for kind, payload in [*PERSONS, ("cancel", b"")]])
    assert checked == [
        "status", "command", "status", "status", "status", "error", *["acknowledged"] * 5
    ]  # fmt: skip


def test_all_that_waits_is_saved_in_one_transaction(lab: Lab, failing: Failing) -> None:
    tried = failing(0)
    lab.step(*[lab.delivery(kind, payload) for kind, payload in [*PERSONS, ("cancel", b"")]])
    (changes,) = tried
    assert [entry.after for _, entry, _ in changes.log] == [1, 2, 3, 0]
    assert len(changes.refused) == 1


def test_what_changes_nothing_is_not_saved(lab: Lab, failing: Failing) -> None:
    lab.device(1)
    tried = failing(0)
    for kind, payload in [("heartbeat", heartbeat()), ("request", request()), ("request", b"")]:
        lab.hear(kind, payload)
    lab.step()
    assert tried == []


# Failed saves


def test_after_a_failed_save_nothing_is_told_and_a_second_later_everything_once(
    lab: Lab, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    tried = failing(1)
    assert lab.hear("request", request(), mid=7) == []
    assert "cannot use the database" in caplog.text
    assert lab.coordinator.wait() == SAVE_AGAIN_S
    assert lab.later(SAVE_AGAIN_S / 2) == []
    assert lab.coordinator.wait() == SAVE_AGAIN_S / 2
    assert len(tried) == 1
    assert brief(lab.later(SAVE_AGAIN_S / 2)) == ["status 1", "command", 7]
    assert lab.step() == []
    assert len(tried) == 2
    assert lab.rows("transitions", "id, state") == [("c1", 1)]


def test_saving_is_tried_again_every_second_until_it_works(lab: Lab, failing: Failing) -> None:
    failing(4)
    lab.hear("request", b"1", mid=7)
    for told in (["error"], [], []):  # degraded, at most once a minute
        assert lab.coordinator.wait() == SAVE_AGAIN_S
        assert brief(lab.later(SAVE_AGAIN_S)) == told
    assert brief(lab.later(SAVE_AGAIN_S)) == ["status 1", "command", 7]
    assert lab.coordinator.counts["failed_saves"] == 4


def test_messages_that_come_meanwhile_wait_in_order(lab: Lab, failing: Failing) -> None:
    failing(1)
    for mid, (kind, payload) in enumerate(PERSONS, 1):
        assert lab.hear(kind, payload, mid=mid) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == [
        "status 1", "command", "status 2", "status 3", "status 0", 1, 2, 3, 4
    ]  # fmt: skip


def test_after_a_failed_transaction_the_records_are_those_of_the_file(lab: Lab) -> None:
    lab.device(1)
    lab.hear("request", b"2", user="pi2")
    before = dict(lab.coordinator.records)
    lab.store.database.connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON transitions "
        "WHEN new.user = 'pi2' BEGIN SELECT RAISE(FAIL, 'full'); END"
    )
    assert lab.step(lab.delivery("collected", COLLECTED),
                    lab.delivery("collected", user="pi2")) == []  # fmt: skip
    assert lab.coordinator.records == before == lab.store.load(0.0)
    lab.store.database.connection.execute("DROP TRIGGER full")
    lab.later(SAVE_AGAIN_S)
    assert lab.coordinator.records == lab.store.load(1.0)
    assert {record.state for record in lab.coordinator.records.values()} == {State.COLLECTED}


def test_refused_messages_too_are_answered_only_when_their_row_is_saved(
    lab: Lab, failing: Failing
) -> None:
    failing(1)
    assert lab.hear("cancel", b"", mid=7) == []
    assert lab.rows("refused") == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["error", 7]
    assert len(lab.rows("refused")) == 1


@pytest.mark.parametrize("state", [0, 1, 2])
def test_a_commit_that_raised_though_it_was_stored_makes_no_second_transition(
    lab: Lab, failing: Failing, state: int
) -> None:
    kind, payload = [("request", request()), ("collected", COLLECTED), ("response", result())][
        state
    ]
    lab.device(state)
    failing(1, stored=True)
    assert lab.hear(kind, payload, mid=7) == []
    told = brief(lab.later(SAVE_AGAIN_S))
    assert told[0] == f"status {state + 1}"
    assert told[-1] == 7
    assert lab.record.seq == state + 1
    assert len(lab.rows("transitions")) == state + 1
    assert lab.coordinator.records == lab.store.load(SAVE_AGAIN_S)


def test_an_envelope_whose_commit_raised_though_it_was_stored_is_sent_by_repetition(
    lab: Lab, failing: Failing
) -> None:
    failing(1, stored=True)
    lab.hear("request", request())
    assert "command" in brief(lab.later(SAVE_AGAIN_S) + lab.later(SAVE_AGAIN_S))


def test_an_analysis_that_could_not_be_saved_is_saved_later(lab: Lab, failing: Failing) -> None:
    lab.device(3, analysis="outcome")
    failing(1)
    assert lab.step() == []
    assert lab.record.state is State.RETURNED
    assert brief(lab.later(SAVE_AGAIN_S)) == ["status 0"]


def test_a_device_that_appeared_while_saving_failed_gets_its_envelope(
    lab: Lab, failing: Failing
) -> None:
    lab.device(1)
    for pause in (1.0, 2.0, 4.0):  # the next repetition is some seconds away
        lab.later(pause)
    failing(1)
    signals = [lab.delivery("heartbeat", heartbeat(), mid=7), lab.delivery("cancel", b"[]", mid=8)]
    assert lab.step(*signals) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["error", "command", 7, 8]


def test_a_reconnect_while_saving_fails_drops_what_the_broker_sends_again(
    lab: Lab, failing: Failing
) -> None:
    failing(1)
    lab.hear("request", b"1", mid=7)
    lab.disconnect()
    assert lab.connect(lab.delivery("request", b"1", mid=7, dup=True)) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["status 1", "command", 7]
    assert lab.rows("transitions", "state") == [(1,)]


def test_what_waits_to_be_saved_outlives_the_brokers_session(lab: Lab, failing: Failing) -> None:
    failing(1)
    lab.hear("request", b"1", mid=7)
    lab.disconnect()
    assert lab.connect(session_present=False) == []
    assert brief(lab.later(SAVE_AGAIN_S))[:2] == ["status 1", "command"]
    assert lab.rows("transitions", "state") == [(1,)]
    # The new session may give the same packet identifier to another message.
    assert lab.rows("packets") == []


def test_a_connect_while_saving_fails_publishes_what_was_saved_before(
    lab: Lab, failing: Failing
) -> None:
    lab.device(1)
    failing(9)
    lab.hear("collected", COLLECTED)
    lab.disconnect()
    assert brief(lab.connect()) == ["status 1", "command"]


# A fault of hwsync


@pytest.mark.parametrize("name", ["protocol.machine.decide", "coordinator.deciding.read"])
def test_a_message_that_makes_hwsync_fail_is_refused_and_the_loop_lives(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    lab.hand(2)
    before = lab.record
    monkeypatch.setattr(f"hwsync.{name}", broken)
    deeds = lab.hear("response", b"poison", mid=7)
    monkeypatch.undo()
    assert brief(deeds) == ["error", 7]
    (error,) = sent(deeds, "error")
    assert (error.json["error"], error.json["state"]) == ("bad_payload", 2)
    assert "this is a bug of hwsync" in error.json["message"]
    assert lab.record is before
    (row,) = lab.rows("refused", "user, error, topic, payload, state")
    assert row == ("pi1", "bad_payload", "hw/pi1/response", b"poison", 2)
    assert "RuntimeError: a bug" in caplog.text
    assert brief(lab.hear("response", b"42", mid=8)) == ["status 3", 8]


def test_what_came_with_a_message_that_makes_hwsync_fail_is_handled(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = deciding.read

    def reads(message: deciding.Message, topics: deciding.Topics) -> object:
        if message.payload == b"poison":
            raise RuntimeError("a bug")
        return read(message, topics)

    monkeypatch.setattr(deciding, "read", reads)
    deeds = lab.step(
        lab.delivery("request", b"1"),
        lab.delivery("request", b"poison"),
        lab.delivery("collected"),
    )
    assert brief(deeds) == ["status 1", "command", "error", "status 2", 1, 2, 3]
