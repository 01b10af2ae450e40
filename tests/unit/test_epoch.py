"""An older database was put back: what was open is lost, and a no is no longer sure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hwsync.protocol import limits
from hwsync.protocol.epochs import following
from hwsync.protocol.errors import StoreError
from hwsync.protocol.record import Command, State
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.protocol.wire.status import encode_status
from hwsync.store.backups import back_up
from hwsync.store.restoring import restore
from tests.support.coordinator import Deed, Lab, brief, request, result, sent


def seen(epoch: int, seq: int) -> bytes:
    return encode_heartbeat(online=True, journal="j1", boot=1, seen=(epoch, seq))


def rise(lab: Lab, user: str = "pi1") -> list[Deed]:
    """A device saw more of a record than the database knows."""
    return lab.hear("heartbeat", seen(0, 1_000), user=user)


def command(lab: Lab, id: str = "c1") -> Command:
    found = lab.store.command("pi1", id)
    assert found is not None
    return found


def told(lab: Lab, id: str = "c1") -> tuple[str, str]:
    report = command(lab, id).report
    assert report is not None
    return str(report.outcome), str(report.ran)


@pytest.mark.parametrize(
    ("state", "after"), [(0, State.REST), (1, State.REST), (2, State.REST), (3, State.RETURNED)]
)
def test_what_was_open_ends_as_lost_and_the_epoch_is_the_time(
    lab: Lab, state: int, after: State
) -> None:
    lab.device(state or 3)
    if not state:
        lab.hear("analysis", b"fine")
    seq = lab.record.seq
    deeds = rise(lab)
    assert lab.record.state is after
    assert (lab.record.epoch, lab.record.seq) == (int(lab.clock.wall()), seq + 1)
    (status,) = sent(deeds, "status")
    assert (status.json["epoch"], status.json["command"]) == (lab.record.epoch, "restore")
    assert told(lab) == (("lost", "maybe") if state in (1, 2) else ("ok", "yes"))
    assert sent(deeds, "command") == []


def test_what_comes_with_the_news_is_of_the_new_epoch(lab: Lab) -> None:
    """Also where it came before: nothing is decided on a database that is known to be old."""
    lab.device(3)
    deeds = lab.step(
        lab.delivery("request", request("c9", queue=True)),
        lab.delivery("cancel", b'{"id":"c9"}'),
        lab.delivery("request", b"print(1)", user="pi2"),
        lab.delivery("heartbeat", seen(0, 1_000)),
    )
    assert told(lab, "c9") == ("cancelled", "maybe")
    statuses = [status.json for status in sent(deeds, "status")]
    assert {status["epoch"] for status in statuses} == {lab.coordinator.epoch}
    assert lab.coordinator.records["pi2"].state is State.REQUESTED


def test_it_rises_for_everybody_and_empties_the_queues(lab: Lab) -> None:
    lab.device(2)
    for id in ("c2", "c3"):
        lab.hear("request", request(id, queue=True))
    lab.hear("request", b"1", user="pi2")
    rise(lab, "pi2")
    assert {record.epoch for record in lab.coordinator.records.values()} == {lab.coordinator.epoch}
    assert {record.state for record in lab.coordinator.records.values()} == {State.REST}
    assert lab.record.queue == ()
    for id in ("c1", "c2", "c3"):
        assert told(lab, id) == ("lost", "maybe")
    assert lab.later(1e4) == []  # nothing is sent again


@pytest.mark.parametrize("user", ["pi1", "pi9"])
def test_a_status_that_the_broker_kept_tells_it_too(lab: Lab, user: str) -> None:
    lab.device(2)
    lab.hear("status", b'{"epoch":0,"seq":1000,"id":"x"}', user=user, retain=True)
    assert lab.record.epoch == int(lab.clock.wall())


def test_an_epoch_ahead_of_the_clock_is_gone_beyond(lab: Lab) -> None:
    ahead = int(lab.clock.wall()) + 1_000
    lab.hear("status", b'{"epoch":%d,"seq":1}' % ahead, retain=True)
    assert lab.coordinator.epoch == ahead + 1


@pytest.mark.parametrize(
    "payload",
    [
        b'{"epoch":0,"seq":2}',  # its own word, come back
        b'{"epoch":0,"seq":1}',
        b'{"epoch":%d,"seq":1}' % (limits.MAX_EPOCH + 1),  # nobody could have counted so far
        b'{"epoch":1e99,"seq":1}',
        b'{"epoch":-1,"seq":1}',
        b"nonsense",
        b"[]",
        b"",
    ],
)
def test_other_words_raise_nothing_and_are_no_error(lab: Lab, payload: bytes) -> None:
    lab.device(2)
    before = lab.record
    assert sent(lab.hear("status", payload, retain=True), "error") == []
    assert lab.record is before
    assert lab.coordinator.epoch == 0


YEARS = 20 * 365 * 86_400.0


@pytest.mark.parametrize("kind", ["status", "heartbeat"])
def test_a_coordinator_whose_clock_is_years_behind_is_heard(
    lab: Lab, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes what was seen for true, whatever its clock says of it."""
    lab.device(2)
    today = int(lab.clock.wall() + YEARS)
    said = b'{"epoch":%d,"seq":7}' % today if kind == "status" else seen(today, 7)
    (status, *_) = sent(lab.hear(kind, said, retain=True), "status")
    assert (status.json["epoch"], status.retain) == (today + 1, True)
    assert told(lab) == ("lost", "maybe")
    (error,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "this machine's clock is behind, it says 1970-01-12" in error.getMessage()
    assert "timedatectl" in error.getMessage()
    # Set right, it goes on counting.
    lab.clock.jump = YEARS * 2
    lab.hear("status", b'{"epoch":%d,"seq":7}' % (today + 5), retain=True)
    assert lab.coordinator.epoch == int(lab.clock.wall())


def test_what_nobody_can_have_counted_to_is_said_once_and_a_device_is_believed_less(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        lab.hear("heartbeat", seen(limits.MAX_SEEN_EPOCH + 1, 1))
        lab.hear("status", b'{"epoch":%d,"seq":1}' % (limits.MAX_EPOCH + 1), user="pi2")
    errors = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert [text.split(" was seen")[0] for text in errors] == [
        "a status of pi1", "a status of pi2"
    ]  # fmt: skip
    assert all("restart the device" in text for text in errors)
    forged = b'{"epoch":%d,"seq":1}' % (limits.MAX_EPOCH + 1)
    assert sent(lab.hear("status", forged, user="pi2"), "status") == []
    lab.hear("reset")
    (ours,) = sent(lab.hear("status", forged), "status")
    assert (ours.retain, ours.json["seq"]) == (True, 1)  # in the place of what the broker keeps
    assert lab.coordinator.epoch == 0
    # As far as a board can push it, a kept status is still believed after it.
    lab.hear("heartbeat", seen(limits.MAX_SEEN_EPOCH, 1))
    assert lab.coordinator.epoch == limits.MAX_SEEN_EPOCH + 1
    lab.hear("status", b'{"epoch":%d,"seq":1}' % (limits.MAX_SEEN_EPOCH + 2))
    assert lab.coordinator.epoch == limits.MAX_SEEN_EPOCH + 3


@pytest.mark.parametrize(
    ("known", "wall", "epoch"),
    [
        (0, 1_800_000_000.9, 1_800_000_000),
        (1_900_000_000, 1_800_000_000.0, 1_900_000_001),
        (7, -5.0, 8),
        (7, 1e15, limits.MAX_SEEN_EPOCH),
        (limits.MAX_SEEN_EPOCH, 1e15, limits.MAX_SEEN_EPOCH + 1),
    ],
)
def test_the_epoch_that_follows(known: int, wall: float, epoch: int) -> None:
    assert following(known, wall) == epoch


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("jump", [YEARS, 2 * 86_400.0, -YEARS])
def test_no_clock_that_jumps_ends_the_doubt(lab: Lab, jump: float, restarts: bool) -> None:
    """As on a machine that begins in 1970, is found to be restored, and then learns the time."""
    lab.device(1)
    rise(lab)
    lab.clock.jump = jump
    if restarts:
        lab.restart()
    lab.hear("request", request("c2"))
    lab.hear("cancel", b'{"id":"c2"}')
    assert told(lab, "c2") == ("cancelled", "maybe")


def test_the_doubt_lasts_a_day_of_connection_over_all_restarts(lab: Lab) -> None:
    lab.device(1)
    rise(lab)
    hours = 0
    while True:
        lab.clock.now += 40_000.0  # switched off
        lab.restart()
        for _ in range(60):
            lab.later(60.0)
        hours += 1
        lab.hear("request", request(f"n{hours}"))
        lab.hear("cancel", b'{"id":"n%d"}' % hours)
        if told(lab, f"n{hours}")[1] == "no":
            break
        assert hours < 30
    assert 24 <= hours <= 26


def test_a_database_of_before_knows_the_doubt_by_the_time_of_day(lab: Lab) -> None:
    lab.device(1)
    rise(lab)
    lab.store.database.connection.execute("DELETE FROM meta WHERE name = 'doubted'")
    lab.clock.now += 80_000.0
    lab.restart()
    lab.hear("request", request("c2"))
    lab.hear("cancel", b'{"id":"c2"}')
    assert told(lab, "c2") == ("cancelled", "maybe")
    lab.later(6_401.0)
    lab.hear("request", request("c3"))
    lab.hear("cancel", b'{"id":"c3"}')
    assert told(lab, "c3") == ("cancelled", "no")


def test_epoch_and_doubt_survive_a_restart(lab: Lab) -> None:
    lab.device(2)
    rise(lab)
    epoch = lab.coordinator.epoch
    lab.restart()
    assert lab.coordinator.epoch == epoch
    lab.hear("request", b"1", user="new")
    assert lab.coordinator.records["new"].epoch == epoch
    lab.hear("request", request("c2", expires=5))
    lab.later(5.0)
    assert told(lab, "c2") == ("expired", "maybe")


def test_records_behind_the_databases_epoch_follow_at_the_start(lab: Lab) -> None:
    lab.device(2)
    lab.store.database.connection.execute(
        "INSERT INTO meta VALUES ('epoch', '77'), ('restored_at', '5')"
    )
    deeds = lab.restart()
    assert (lab.record.epoch, lab.record.state) == (77, State.REST)
    assert "status 0" in brief(deeds)
    assert told(lab) == ("lost", "maybe")
    lab.restart()
    assert lab.record.seq == 3  # once


@pytest.mark.parametrize("way", ["cancel", "reset", "expire", "queue"])
def test_a_senders_id_after_a_restore_never_surely_did_not_run(lab: Lab, way: str) -> None:
    lab.device(1)
    rise(lab)
    if way == "queue":
        lab.hear("request", request("busy"))
        lab.hear("request", request("c2", queue=True))
        lab.hear("cancel", b'{"id":"c2"}')
    else:
        lab.hear("request", request("c2", expires=5))
        if way == "expire":
            lab.later(5.0)
        else:
            lab.hear(way, b'{"id":"c2"}')
    assert told(lab, "c2")[1] == "maybe"


def test_a_devices_own_no_is_a_maybe_then(lab: Lab) -> None:
    lab.device(1)
    rise(lab)
    lab.hear("request", request("c2"))
    lab.hear("collected", b'{"id":"c2","journal":"j1","boot":1}')
    lab.hear("response", result("c2", outcome="rejected"))
    assert told(lab, "c2") == ("rejected", "maybe")


def test_the_coordinators_own_ids_are_as_sure_as_ever(lab: Lab) -> None:
    lab.device(1)
    rise(lab)
    lab.hear("request", b"print(1)")
    lab.hear("cancel", b"")
    assert told(lab, lab.record.id) == ("cancelled", "no")


def test_the_doubt_ends_after_a_day(lab: Lab) -> None:
    lab.device(1)
    rise(lab)
    lab.later(limits.DOUBT_S)
    lab.hear("request", request("c2"))
    lab.hear("cancel", b'{"id":"c2"}')
    assert told(lab, "c2") == ("cancelled", "no")


def test_a_device_that_ran_it_before_answers_at_once(lab: Lab) -> None:
    lab.device(1)
    rise(lab)
    lab.hear("request", request("c2"))
    lab.hear("response", result("c2", journal="j7"))
    assert lab.record.state is State.RETURNED
    assert told(lab, "c2") == ("ok", "yes")
    assert ("c2", "j7") in lab.record.settled


@pytest.mark.parametrize("restored", [False, True])
def test_a_no_in_state_1_or_one_without_a_restore_is_refused(lab: Lab, restored: bool) -> None:
    lab.device(1)
    if restored:
        rise(lab)
        lab.hear("request", request("c2"))
    id, outcome = ("c2", "rejected") if restored else ("c1", "ok")
    (error,) = sent(lab.hear("response", result(id, outcome=outcome, exit_code=None)), "error")
    assert error.json["error"] == "wrong_state"
    assert lab.record.state is State.REQUESTED


def test_after_a_restore_nothing_open_is_acted_upon_even_while_nothing_can_be_saved(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.device(1)
    backup = lab.path.with_name("backup.db")
    back_up(lab.path, backup)
    lab.stop()
    restore(backup, lab.path)
    lab.start()
    with monkeypatch.context() as full:
        full.setattr(lab.store, "save", _full)
        deeds = lab.connect(lab.delivery("cancel", b'{"id":"c1"}'), lab.delivery("query"))
        assert sent(deeds, "command") == []
        assert sent(deeds, "status") == []
    deeds = lab.later(1.0)
    assert told(lab) == ("lost", "maybe")
    assert {status.json["ran"] for status in sent(deeds, "status")} == {"maybe"}


@pytest.mark.parametrize("stored", [False, True], ids=["not stored", "stored though it failed"])
def test_a_newer_status_is_not_forgotten_while_nothing_can_be_saved(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """It came at QoS 0: no new connection brings it again, once our own is what is retained."""
    lab.device(1)
    newer = encode_status(replace(lab.record, seq=1_000))
    kept = replace(lab.delivery("status", newer, retain=True), qos=0, mid=0)
    save = lab.store.save

    def fails(*given: Any) -> None:
        if stored:
            save(*given)
        _full()

    with monkeypatch.context() as full:
        full.setattr(lab.store, "save", fails)
        deeds = lab.step(kept, lab.delivery("query"))
        lab.disconnect()
        deeds += lab.connect(lab.delivery("cancel", b'{"id":"c1"}'))
        assert sent(deeds, "command") == []
        assert sent(deeds, "status") == []
    deeds = lab.later(1.0)
    assert (lab.record.epoch > 0, told(lab)) == (True, ("lost", "maybe"))
    statuses = [status.json for status in sent(deeds, "status")]
    assert {(status["epoch"], status["ran"]) for status in statuses} == {
        (lab.record.epoch, "maybe")
    }


def _full(*_: object) -> None:
    raise StoreError("database or disk is full")


def test_late_truth_corrects_to_yes_and_never_to_no(lab: Lab) -> None:
    lab.device(2)
    rise(lab)
    lab.hear("response", result(outcome="rejected"))
    assert told(lab) == ("rejected", "maybe")
    lab.hear("response", result(journal="j2"))
    assert told(lab) == ("ok", "yes")
