"""What the coordinator counts of itself, and when it says it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.coordinator.health import HEALTH_S, Life, Tally, health
from hwsync.coordinator.loop import SAVE_AGAIN_S
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.protocol.errors import Code, StoreError
from hwsync.protocol.jsons import loads
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import INBOUND, Topics
from hwsync.protocol.wire.itself import GONE, Condition
from hwsync.store.migrations import SCHEMA
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed
from tests.support.coordinator import OUTBOX, Acknowledged, Lab, Sent, request, result
from tests.support.processes import CHECKOUT
from tests.support.systemd import Listener

TOPIC = "hw/@hwsync/health"
UP = (Connected(False, 5), Subscribed())


class Watched:
    """A lab whose vitals are looked at after each round, as the service does it."""

    def __init__(self, lab: Lab, notifier: Notifier | None = None) -> None:
        self.lab = lab
        lab.wire.url = "mqtt://broker:1883"
        notifier = notifier or Notifier({})
        self.vitals = Vitals(lab.coordinator, lab.wire, lab.clock, notifier)

    def round(self, *signals: Signal, after: float = 0.0) -> list[dict[str, Any]]:
        """The health messages of one round; ``after``: seconds that pass before it."""
        self.lab.clock.now += after
        self.lab.wire.deeds = []
        left = self.vitals.take_questions(signals)
        done = self.lab.coordinator.step(left)
        self.vitals.report(left, len(signals), done)
        sent = [deed for deed in self.lab.wire.deeds if isinstance(deed, Sent)]
        said = [deed for deed in sent if deed.topic.endswith("/health")]
        assert all(deed.retain for deed in said)
        return [deed.json for deed in said]

    def hear(self, kind: str, payload: bytes = b"", **options: Any) -> list[dict[str, Any]]:
        return self.round(self.lab.delivery(kind, payload, **options))

    def figures(self) -> dict[str, Any]:
        """What it says when it is asked."""
        (said,) = self.hear("query", user="@hwsync")
        return said


@pytest.fixture
def watched(lab: Lab) -> Watched:
    one = Watched(lab)
    assert len(one.round(*UP)) == 1
    return one


# The figures


def test_the_loop_counts_what_became_of_each_message(watched: Watched) -> None:
    for payload in (request(), request(), b"busy"):
        watched.hear("request", payload)  # accepted, a copy, refused
    watched.hear("analysis", b"")  # clears a retained one
    for _ in range(2):
        watched.hear("cancel", b"{", dup=True, mid=77)  # refused, and the same again
    watched.hear("request", request("q1", queue=True))
    watched.hear("request", request("c2"), user="pi2")
    said = watched.figures()
    names = ("accepted", "answered", "ignored", "duplicates", "late", "users", "queued")
    assert [said[name] for name in names] == [3, 1, 1, 1, 0, 2, 1]
    assert {code: n for code, n in said["refused"].items() if n} == {"busy": 1, "bad_payload": 1}
    assert said["states"] == {"rest": 0, "requested": 2, "collected": 0, "returned": 0}
    watched.hear("cancel", user="pi2")
    watched.hear("response", result("c2"), user="pi2")
    assert watched.figures()["late"] == 1
    watched.round(after=10.0)
    assert watched.figures()["resent"] == 1


def test_commits_are_measured(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = watched.lab
    save, took = lab.store.save, iter((0.5, 0.25))
    before = watched.figures()["rounds"]

    def slow(*given: Any) -> None:
        save(*given)
        lab.clock.now += next(took)

    monkeypatch.setattr(lab.store, "save", slow)
    watched.round(*[lab.delivery("request", request(), user=f"pi{n}") for n in range(3)])
    watched.hear("request", request(), user="pi9")
    watched.round()  # nothing to save
    said = watched.figures()
    assert said["rounds"] - before == 2
    assert (said["round_messages_last"], said["round_messages_largest"]) == (1, 3)
    assert (said["commit_last"], said["commit_largest"], said["commit_sum"]) == (0.25, 0.5, 0.75)


def test_connections_and_the_inbox_are_counted() -> None:
    life = Life(started=1_000.0, began=10.0)

    def said() -> list[Any]:
        shown = health(
            Condition.OK,
            Tally(),
            life,
            {},
            [],
            outbox=OUTBOX,
            schema=1,
            wall=1_050.0,
            monotonic=60.0,
        )
        names = ("started", "uptime", "connected_since", "reconnects", "inbox_deepest")
        return [shown[name] for name in names]

    assert not life.note([], 0, 1_001.0)
    assert said() == [1_000.0, 50.0, None, 0, 0]
    assert life.note([Disconnected("refused", False)], 1, 1_002.0)
    assert life.note([*UP, Delivery("t", b"", 1, False, False, 1, 1)], 7, 1_003.0)
    assert said() == [1_000.0, 50.0, 1_003.0, 0, 7]
    assert life.note([Disconnected("gone", True)], 2, 1_004.0)
    assert said()[2:] == [None, 0, 7]
    assert life.note(UP, 1, 1_005.0)
    assert said()[2:] == [1_005.0, 1, 7]


def test_every_field_is_in_the_documents() -> None:
    shown = health(
        Condition.OK,
        Tally(),
        Life(0.0, 0.0),
        {},
        [],
        outbox=OUTBOX,
        schema=SCHEMA,
        wall=0.0,
        monotonic=0.0,
    )
    page = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.split("\n### Fields\n", 1)[1].split("begin -->\n|", 1)[1].split("\n<!--", 1)[0]
    rows = [line.split(" | ", 1)[0] for line in table.splitlines()[2:]]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert named == list(shown)
    assert set(shown["refused"]) == {str(code) for code in Code} - {"degraded"}


# When it is said


def test_it_is_said_when_subscribed_and_every_half_minute(watched: Watched) -> None:
    assert watched.vitals.wait() == HEALTH_S
    assert watched.round(after=HEALTH_S - 1) == []
    assert watched.vitals.wait() == 1.0
    (said,) = watched.round(after=1)
    assert (said["condition"], said["reason"], said["uptime"]) == ("ok", "", HEALTH_S)
    assert said["time"] == watched.lab.clock.wall()
    assert said["schema"] == SCHEMA
    assert watched.vitals.wait() == HEALTH_S
    # A broker may have forgotten it.
    assert len(watched.round(*UP, after=1)) == 1


def test_nothing_is_said_and_nobody_waits_while_the_broker_is_away(watched: Watched) -> None:
    watched.round(Disconnected("gone", True))
    assert watched.vitals.wait() is None
    assert watched.round(after=2 * HEALTH_S) == []
    (said,) = watched.round(*UP)
    assert said["reconnects"] == 1


def test_a_failed_save_makes_it_degraded_and_the_next_one_that_works_ok(watched: Watched) -> None:
    connection = watched.lab.store.database.connection
    connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON transitions "
        "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
    )
    (said,) = watched.hear("request", request())
    assert (said["condition"], said["reason"]) == ("degraded", "database or disk is full")
    assert said["failed_saves"] == 1
    assert watched.round(after=SAVE_AGAIN_S) == [], "a condition that stays is not news"
    (asked,) = watched.hear("query", user="@hwsync")
    assert (asked["condition"], asked["failed_saves"]) == ("degraded", 2)
    connection.execute("DROP TRIGGER full")
    (said,) = watched.round(after=SAVE_AGAIN_S)
    assert (said["condition"], said["reason"], said["accepted"]) == ("ok", "", 1)


def test_a_database_that_cannot_be_read_is_degraded_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StoreError("disk I/O error")

    monkeypatch.setattr(watched.lab.store, "command", broken)
    (said,) = watched.hear("request", request())
    assert (said["condition"], said["reason"]) == ("degraded", "disk I/O error")


def test_a_question_is_answered_at_once_acknowledged_and_not_refused(watched: Watched) -> None:
    (said,) = watched.hear("query", user="@hwsync", mid=9)
    assert said["condition"] == "ok"
    assert Acknowledged(9) in watched.lab.wire.deeds
    said_on = [deed.kind for deed in watched.lab.wire.deeds if isinstance(deed, Sent)]
    assert said_on == ["health", "coordinator"], "the list of boards was said a moment ago"
    assert watched.lab.rows("refused") == []
    assert watched.round() == []


def test_at_the_end_it_is_stopped(watched: Watched) -> None:
    watched.lab.wire.deeds = []
    watched.vitals.stopping()
    said, sign = watched.lab.wire.deeds
    assert isinstance(said, Sent)
    assert isinstance(sign, Sent)
    assert (sign.topic, sign.json["stopped"]) == ("hw/@hwsync/coordinator", True)
    assert (said.topic, said.retain, said.json["condition"]) == (TOPIC, True, "stopped")
    assert loads(GONE.decode()) == {"condition": "gone"}


def test_the_root_may_have_several_levels(tmp_path: Path) -> None:
    with Lab(tmp_path / "db", rules=Rules("a/b")) as lab:
        watched = Watched(lab)
        watched.round(*UP)
        topics = [deed.topic for deed in lab.wire.deeds if isinstance(deed, Sent)]
        assert topics == [f"a/b/@hwsync/{kind}" for kind in ("health", "coordinator", "boards")]
        question = Delivery("a/b/@hwsync/query", b"", 1, False, False, 1, 1)
        assert len(watched.round(question)) == 1


@pytest.mark.parametrize("root", ["hw", "a/b", "hw/@hwsync"])
def test_no_subscription_of_the_coordinator_brings_it_back(root: str) -> None:
    topics = Topics(root)
    assert topics.split(topics.health)[0] == "@hwsync"
    for kind in INBOUND:
        levels = topics.of("+", kind).split("/")
        said = topics.health.split("/")
        same = [a in ("+", b) for a, b in zip(levels, said, strict=False)]
        assert not all(same) or len(levels) != len(said)


# systemd


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as opened:
        yield opened


@pytest.fixture
def served(lab: Lab, listener: Listener) -> Watched:
    variables = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "60000000"}
    return Watched(lab, Notifier(variables, lab.clock.monotonic))


def test_systemd_hears_ready_when_subscribed_and_how_it_goes(
    served: Watched, listener: Listener
) -> None:
    served.round(Disconnected("Connection refused", False))
    assert listener.hear() == [
        "STATUS=not connected to mqtt://broker:1883 (Connection refused), 0 boards, 0 running",
        "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000",
    ]  # fmt: skip
    served.round(*UP)
    connected = "STATUS=connected to mqtt://broker:1883, "
    assert listener.hear() == ["READY=1", f"{connected}0 boards, 0 running"]
    served.round(served.lab.delivery("request", b"1"), served.lab.delivery("collected"))
    served.round(after=15.0)
    assert listener.hear() == [f"{connected}1 boards, 1 running", "WATCHDOG=1"]
    served.round(*UP)
    served.vitals.stopping()
    assert listener.hear() == ["STOPPING=1"]


def test_the_loop_wakes_up_for_the_watchdog(served: Watched, listener: Listener) -> None:
    served.round(*UP)
    listener.hear()
    for _ in range(9):
        wait = served.vitals.wait()
        assert wait is not None
        assert 0.0 < wait <= 15.0
        served.round(after=wait)
    assert listener.hear().count("WATCHDOG=1") >= 3


def test_systemd_hears_of_a_failed_save_at_once(served: Watched, listener: Listener) -> None:
    served.round(*UP)
    served.lab.store.database.connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON transitions "
        "BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
    )
    listener.hear()
    served.hear("request", b"1")
    (said,) = listener.hear()
    assert said.startswith("STATUS=DEGRADED, cannot save: disk is full; connected to")
