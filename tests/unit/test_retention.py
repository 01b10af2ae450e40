"""Old texts go, ids and hashes stay, and nothing goes that is open, shown, or owed."""

from __future__ import annotations

from sqlite3 import OperationalError

import pytest

from hwsync.coordinator.maintenance import check
from hwsync.coordinator.reader import Reader
from hwsync.coordinator.retention import DAY_S, LOOK_S, STEP, Retention
from tests.support.coordinator import Lab, request, result, sent


def cycle(lab: Lab, id: str, text: str = "x" * 5_000) -> None:
    lab.hear("request", request(id, program=f"print({id!r})"))
    lab.hear("collected", b'{"id":"%s","journal":"j1","boot":1}' % id.encode())
    lab.hear("response", result(id, response=text, order=[["stdout", len(text)]]))
    lab.hear("analysis", b'{"id":"%s","analysis":"fine"}' % id.encode())


def look(lab: Lab, days: float = 1.0, megabytes: float = 0.0) -> None:
    Retention(lab.store, days, megabytes).look(lab.clock.wall(), 0.0)


def responses(lab: Lab, *ids: str) -> list[int]:
    found = []
    for id in ids:
        command = lab.store.command("pi1", id)
        assert command is not None
        assert command.account is not None
        found.append(len(command.account.response))
    return found


def test_the_texts_of_old_commands_go_and_the_rest_stays(lab: Lab) -> None:
    cycle(lab, "c1")
    lab.later(2 * DAY_S)
    cycle(lab, "c2")
    cycle(lab, "c3")
    look(lab)
    assert responses(lab, "c1", "c2", "c3") == [0, 5_000, 5_000]
    assert list(check(lab.path)) == []
    with Reader(lab.path) as reader:
        shown = reader.show("pi1", "c1")
        assert (shown["order"], reader.show("pi1", "c2")["order"]) == (None, (("stdout", 5_000),))
    assert (shown["outcome"], shown["ran"], shown["server_analysis"]) == ("ok", "yes", "fine")
    assert (shown["pruned"], shown["truncated"], shown["hw_command"]) == (True, True, "")
    assert [row["payload"] for row in shown["history"]] == ["", "", "", ""]
    # Its id is known as ever, and so is its program by its hash.
    (error,) = sent(lab.hear("request", request("c1", program="another")), "error")
    assert error.json["error"] == "id_reused"
    (answer,) = sent(lab.hear("request", request("c1", program="print('c1')")), "result/c1")
    assert answer.json["outcome"] == "ok"


def test_what_is_open_or_shown_or_owed_stays_however_old(lab: Lab) -> None:
    cycle(lab, "c1")
    lab.hear("request", request("c2", expires=0))
    lab.hear("request", request("c3", queue=True))
    cycle_of_another = [("request", request("d1")), ("cancel", b"")]
    for kind, payload in cycle_of_another:
        lab.hear(kind, payload, user="pi2")
    lab.later(400 * DAY_S)
    look(lab)
    assert responses(lab, "c1") == [0]
    for user, id in (("pi1", "c2"), ("pi1", "c3"), ("pi2", "d1")):
        command = lab.store.command(user, id)
        assert command is not None
        assert command.request.program
    lab.store._connection.execute(
        "UPDATE commands SET pruned = 0, replies = '[[]]' WHERE id = 'c1'"
    )
    look(lab)
    assert lab.rows("commands", "id, pruned")[0] == ("c1", 0)


def test_the_oldest_go_where_the_file_is_too_large(lab: Lab) -> None:
    for number in range(5):
        cycle(lab, f"c{number}", "x" * 200_000)
    before = lab.store.used()
    look(lab, 0.0, 1_000.0)
    assert responses(lab, "c0") == [200_000]
    look(lab, 0.0, 0.5)
    assert responses(lab, "c0", "c1", "c2", "c3", "c4") == [0, 0, 0, 0, 200_000]
    assert lab.store.used() < before / 2
    assert list(check(lab.path)) == []


def test_it_looks_once_a_minute_and_goes_on_where_there_is_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = iter([STEP, 3, 0])
    asked: list[float] = []

    def prune(before: float, most: int) -> int:
        asked.append(before)
        assert most == STEP
        return next(dropped)

    monkeypatch.setattr(lab.store, "prune", prune)
    retention = Retention(lab.store, 2.0, 0.0)
    for monotonic in (5.0, 5.1, 5.2, 5.1 + LOOK_S - 0.1, 5.1 + LOOK_S):
        retention.look(10 * DAY_S, monotonic)
    assert asked == [8 * DAY_S] * 3


def test_a_disk_that_takes_nothing_ends_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr(lab.store, "prune", fail)
    look(lab)
    assert "cannot drop old texts" in caplog.text


def test_old_refused_messages_go_and_are_still_counted(lab: Lab) -> None:
    lab.hear("reset", b"")
    lab.hear("cancel", b"")
    lab.later(2 * DAY_S)
    lab.hear("cancel", b"")
    look(lab)
    assert len(lab.rows("refused")) == 1
    assert lab.rows("refused_counts") == [("pi1", 2)]


def test_without_limits_nothing_is_dropped(lab: Lab) -> None:
    cycle(lab, "c1")
    cycle(lab, "c2")
    lab.later(1_000 * DAY_S)
    look(lab, 0.0, 0.0)
    assert responses(lab, "c1", "c2") == [5_000, 5_000]


def test_a_changed_payload_is_named_and_a_dropped_one_is_not(lab: Lab) -> None:
    cycle(lab, "c1")
    cycle(lab, "c2")
    lab.later(2 * DAY_S)
    look(lab)
    lab.stop()
    with lab.store._database as database:
        database.execute_sql("UPDATE transitions SET payload = x'00' WHERE row = 1")
    lab.stop()
    assert [line for line in check(lab.path) if "row 1 was changed" in line]
