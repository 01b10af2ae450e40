"""Old texts go, ids and hashes stay, and nothing goes that is open, shown, or owed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hwsync.protocol.errors import StoreError
from hwsync.protocol.groups import Groups
from hwsync.protocol.rules import Rules
from hwsync.store.checking import check
from hwsync.store.pruning import Pruning
from hwsync.store.reader import Reader
from hwsync.store.retention import DAY_S, STEP, WRITE_S, Retention
from tests.support.coordinator import Lab, request, result, sent


def cycle(lab: Lab, id: str, text: str = "x" * 5_000) -> None:
    lab.hear("request", request(id, program=f"print({id!r})"))
    lab.hear("collected", b'{"id":"%s","journal":"j1","boot":1}' % id.encode())
    lab.hear("response", result(id, response=text, order=[["stdout", len(text)]]))
    lab.hear("analysis", b'{"id":"%s","analysis":"fine"}' % id.encode())


class Kept:
    """A coordinator's retention, looked at as often as its loop does it; over restarts, too."""

    def __init__(self, lab: Lab, days: float = 1.0) -> None:
        self.lab, self._days = lab, days
        self.restart()

    def restart(self) -> None:
        self._retention = Retention(self.lab.store.database, self._days, 0.0)
        self._retention.drop_old(self.lab.clock.monotonic())

    def runs(self, seconds: float) -> None:
        while seconds > 0.0:
            step = min(seconds, 600.0)
            self.lab.later(step)
            self._retention.drop_old(self.lab.clock.monotonic())
            seconds -= step


@pytest.fixture
def kept(lab: Lab) -> Kept:
    return Kept(lab)


def shrink(lab: Lab, megabytes: float) -> None:
    Retention(lab.store.database, 0.0, megabytes).drop_old(0.0)


def responses(lab: Lab, *ids: str) -> list[int]:
    found = []
    for id in ids:
        command = lab.store.command("pi1", id)
        assert command is not None
        assert command.report is not None
        found.append(len(command.report.response))
    return found


def test_the_texts_of_old_commands_go_and_the_rest_stays(lab: Lab, kept: Kept) -> None:
    cycle(lab, "c1")
    kept.runs(1.5 * DAY_S)
    cycle(lab, "c2")
    cycle(lab, "c3")
    assert responses(lab, "c1") == [5_000]
    kept.runs(0.6 * DAY_S)
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


def test_what_is_open_or_shown_or_owed_stays_however_old(lab: Lab, kept: Kept) -> None:
    cycle(lab, "c1")
    lab.hear("request", request("c2", expires=0))
    lab.hear("request", request("c3", queue=True))
    cycle_of_another = [("request", request("d1")), ("cancel", b"")]
    for kind, payload in cycle_of_another:
        lab.hear(kind, payload, user="pi2")
    kept.runs(20 * DAY_S)
    assert responses(lab, "c1") == [0]
    for user, id in (("pi1", "c2"), ("pi1", "c3"), ("pi2", "d1")):
        command = lab.store.command(user, id)
        assert command is not None
        assert command.request.program
    lab.store.database.connection.execute(
        "UPDATE commands SET pruned = 0, replies = '[[]]' WHERE id = 'c1'"
    )
    kept.restart()
    assert lab.rows("commands", "id, pruned")[0] == ("c1", 0)


def test_the_oldest_go_where_the_file_is_too_large(lab: Lab) -> None:
    for number in range(5):
        cycle(lab, f"c{number}", "x" * 200_000)
    before = Pruning(lab.store.database).used()
    shrink(lab, 1_000.0)
    assert responses(lab, "c0") == [200_000]
    shrink(lab, 0.5)
    assert responses(lab, "c0", "c1", "c2", "c3", "c4") == [0, 0, 0, 0, 200_000]
    assert Pruning(lab.store.database).used() < before / 2
    assert list(check(lab.path)) == []


def test_it_looks_when_a_day_is_over_and_goes_on_where_there_is_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = iter([STEP, STEP, 3, 0])
    asked: list[tuple[float, int | None]] = []

    def prune(_: Pruning, row: int | None, most: int) -> int:
        asked.append((lab.clock.now, row))
        assert most == STEP
        return next(dropped)

    monkeypatch.setattr(Pruning, "prune", prune)
    cycle(lab, "c1")
    retention = Retention(lab.store.database, 2.0, 0.0)
    start = lab.clock.now
    for second in range(0, 250_000, 10):
        lab.clock.now = start + second
        retention.drop_old(lab.clock.now)
    two = start + 2 * DAY_S
    assert asked == [(two, 4), (two + 10.0, 4), (two + 20.0, 4)]


def test_a_look_is_cheap_between_two_days(lab: Lab, kept: Kept) -> None:
    cycle(lab, "c1")
    changes = lab.store.database.connection.total_changes
    kept.runs(3_600.0)
    assert lab.store.database.connection.total_changes - changes <= 3_600.0 / WRITE_S


@pytest.mark.parametrize("jump", [3_650 * DAY_S, -3_650 * DAY_S, 45 * DAY_S])
@pytest.mark.parametrize("restarts", [True, False])
def test_no_clock_that_jumps_makes_anything_old(
    lab: Lab, kept: Kept, jump: float, restarts: bool
) -> None:
    """At a start or while it runs; for an hour or for good. Or it was a long holiday."""
    for at, seconds in enumerate((jump, 0.0, jump, jump / 2, 0.0)):
        cycle(lab, f"c{at}")
        lab.clock.jump = seconds
        if restarts:
            lab.restart()
            kept.restart()
        kept.runs(0.15 * DAY_S)
    assert responses(lab, "c0", "c1", "c2", "c3", "c4") == [5_000] * 5
    kept.runs(2 * DAY_S)  # and it does not stop it for ever
    assert responses(lab, "c0", "c1", "c2", "c3") == [0] * 4


def test_days_of_running_are_counted_over_restarts(lab: Lab, kept: Kept) -> None:
    cycle(lab, "c1")
    cycle(lab, "c2")
    lives = 0
    while responses(lab, "c1") != [0]:
        lab.clock.now += 1e6  # switched off
        lab.restart()
        kept.restart()
        kept.runs(8 * 3_600.0)
        lives += 1
        assert lives <= 8
    assert lives >= 3  # two days have no less


def test_a_changed_number_of_days_counts_from_what_is_known(lab: Lab, kept: Kept) -> None:
    cycle(lab, "c1")
    cycle(lab, "c2")
    kept.runs(1.2 * DAY_S)
    longer = Kept(lab, 3.0)
    longer.runs(1.5 * DAY_S)
    assert responses(lab, "c1") == [5_000]
    Kept(lab, 1.0)
    assert responses(lab, "c1") == [0]


def test_a_disk_that_takes_nothing_ends_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise StoreError("database or disk is full")

    kept = Kept(lab)
    cycle(lab, "c1")
    cycle(lab, "c2")
    with monkeypatch.context() as full:
        full.setattr(Pruning, "prune", fail)
        kept.runs(2.1 * DAY_S)
    assert "cannot drop old texts" in caplog.text
    kept.runs(600.0)
    assert responses(lab, "c1") == [0]
    with monkeypatch.context() as full:
        full.setattr(Pruning, "write_running_days", fail)
        kept.runs(2.1 * DAY_S)
    assert list(check(lab.path)) == []


def test_old_refused_messages_go_and_are_still_counted(lab: Lab, kept: Kept) -> None:
    lab.hear("reset", b"")
    lab.hear("cancel", b"")
    lab.hear("cancel", b"")
    kept.runs(1.5 * DAY_S)
    lab.hear("cancel", b"")
    kept.runs(0.6 * DAY_S)
    assert [row for (row,) in lab.rows("refused", "row")] == [3]
    assert lab.rows("refused_counts") == [("pi1", 3)]
    kept.runs(5 * DAY_S)
    # The last one stays: else a new one would have an old one's number, and go at once.
    assert [row for (row,) in lab.rows("refused", "row")] == [3]


GROUP = ("pi1", "pi2", "pi3")


@pytest.mark.parametrize("stopped_by", [b"", b'{"id":"b1"}'])
def test_the_texts_of_a_batch_go_that_was_stopped_before_anybody_began(
    tmp_path: Path, stopped_by: bytes
) -> None:
    with Lab(tmp_path / "hwsync.db", rules=Rules(groups=Groups({"lab": GROUP}))) as lab:
        kept = Kept(lab)
        lab.hear("request", request("b1", program="#" * 5_000), user="@lab")
        lab.hear("cancel", stopped_by, user="@lab")
        for user in GROUP:
            lab.hear("request", request("c1"), user=user)
        assert len(lab.rows("contents")) == 1
        kept.runs(2.1 * DAY_S)
        assert lab.rows("contents") == []
        assert [pruned for id, pruned in lab.rows("commands", "id, pruned") if id == "b1"] == [
            1
        ] * 3
        assert list(check(lab.path)) == []


def test_a_batch_is_looked_at_once_however_many_members_go(lab: Lab) -> None:
    lab.coordinator.group_by(Groups({"lab": GROUP}))
    lab.hear("request", request("b1", program="#" * 5_000), user="@lab")
    lab.hear("cancel", b"", user="@lab")
    for user in GROUP:
        lab.hear("request", request("c1"), user=user)
    done: list[str] = []
    lab.store.database.connection.set_trace_callback(done.append)
    Pruning(lab.store.database).prune(None, 2)
    assert len(lab.rows("contents")) == 1  # one member still has them
    Pruning(lab.store.database).prune(None, 2)
    lab.store.database.connection.set_trace_callback(None)
    assert lab.rows("contents") == []
    looks = [one for one in done if "FROM commands WHERE batch" in one]
    assert len(looks) == 2


def test_a_step_goes_on_where_the_last_one_ended_and_comes_by_again(lab: Lab) -> None:
    lab.hear("request", request("c0"), user="pi2")  # the oldest, and open
    for id in ("c1", "c2", "c3"):
        cycle(lab, id)
    done: list[str] = []
    lab.store.database.connection.set_trace_callback(done.append)
    pruning = Pruning(lab.store.database)
    assert [pruning.prune(None, 1) for _ in range(3)] == [1, 1, 0]  # c3 is shown
    lab.store.database.connection.set_trace_callback(None)
    after = [int(one.partition("t.row > ")[2].split()[0]) for one in done if "t.row > " in one]
    assert after == [0, 2, 6]  # c0 has one row, c1 and c2 four each
    lab.hear("cancel", b'{"id":"c0"}', user="pi2")
    lab.hear("request", request("c9"), user="pi2")
    assert pruning.prune(None, 1) == 1


def test_without_limits_nothing_is_dropped(lab: Lab) -> None:
    cycle(lab, "c1")
    cycle(lab, "c2")
    changes = lab.store.database.connection.total_changes
    Kept(lab, 0.0).runs(3 * DAY_S)
    assert responses(lab, "c1", "c2") == [5_000, 5_000]
    assert lab.store.database.connection.total_changes == changes


def test_a_changed_payload_is_named_and_a_dropped_one_is_not(lab: Lab, kept: Kept) -> None:
    cycle(lab, "c1")
    cycle(lab, "c2")
    kept.runs(2.1 * DAY_S)
    lab.stop()
    with closing(sqlite3.connect(lab.path)) as connection, connection:
        connection.execute("UPDATE transitions SET payload = x'00' WHERE row = 1")
    assert [line for line in check(lab.path) if "row 1 was changed" in line]
