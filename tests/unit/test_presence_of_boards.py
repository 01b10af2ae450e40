"""Who is online: what the coordinator heard and when, and the one predicate over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwsync.coordinator import boards as boards_module
from hwsync.coordinator.boards import Boards
from hwsync.coordinator.health import HEALTH_S
from hwsync.coordinator.service import subscriptions
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.protocol.jsons import loads
from hwsync.protocol.limits import BOARDS_S, MAX_BOARDS_LIST, OFFLINE_AFTER_S
from hwsync.protocol.presence import is_online
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.itself import encode_boards
from hwsync.protocol.wire.received import read_received
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed
from tests.support.coordinator import Clock, Lab, Sent, heartbeat, request

LOST = Disconnected("gone", True)


class Heard:
    """A coordinator's list, with a pretended clock; it is connected from the start."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.boards = Boards(Topics(), self.clock)
        self.boards.note([Subscribed()])

    def hear(
        self, user: str = "pi1", payload: bytes | None = None, *, kept: bool = False
    ) -> dict[str, Any]:
        payload = heartbeat() if payload is None else payload
        topic = f"hw/{user}/heartbeat"
        self.boards.note([Delivery(topic, payload, 0, kept, False, 0, 1)])
        return self.said

    @property
    def said(self) -> dict[str, Any]:
        payload = self.boards.encode()
        fields = read_received(TopicKind.BOARDS, payload)
        assert fields == loads(payload.decode()), "what it says is what the protocol says of it"
        return fields

    def online(self, beat: bytes | None = None, user: str = "pi1") -> bool | None:
        """As somebody sees it who was given this heartbeat by the broker."""
        kept = loads((heartbeat() if beat is None else beat).decode())
        return is_online(user, kept, self.said)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_a_board_is_heard_by_the_coordinators_clock_that_cannot_jump(heard: Heard) -> None:
    assert heard.hear()["boards"] == {"pi1": 0.0}
    heard.clock.now += 30.04
    heard.clock.jump = -1e6
    said = heard.said
    assert said["boards"] == {"pi1": 30.0}
    assert said["listening"] == 30.0
    assert said["time"] == heard.clock.wall()
    assert heard.online()
    heard.clock.now += OFFLINE_AFTER_S - 30
    assert heard.online() is False
    heard.hear()
    assert heard.online()


@pytest.mark.parametrize("at", [None, 0.0, 12.5, 1.7e9, 4e9])
def test_what_a_board_takes_for_the_time_does_not_count(heard: Heard, at: float | None) -> None:
    beat = {"online": True, "journal": "j1", "boot": 1, "time": at}
    heard.hear()
    heard.clock.jump = 7e8
    assert is_online("pi1", beat, heard.said)


def test_a_heartbeat_that_the_broker_kept_was_not_heard_now(heard: Heard) -> None:
    heard.clock.now += 1
    assert heard.hear(kept=True)["boards"] == {}
    assert heard.online(), "it has not been silent for long yet"
    heard.clock.now += OFFLINE_AFTER_S - 1
    assert heard.online() is False
    assert heard.hear()["boards"] == {"pi1": 0.0}
    heard.clock.now += 5
    assert heard.hear(kept=True)["boards"] == {"pi1": 5.0}, "and takes nothing away"


def test_a_will_makes_it_offline_live_or_kept_but_not_an_old_ones(heard: Heard) -> None:
    gone = heartbeat("j1", 2, online=False)
    heard.hear(payload=heartbeat("j1", 3))
    assert heard.hear(payload=gone)["boards"] == {"pi1": 0.0}, "of an earlier boot"
    assert heard.hear(payload=heartbeat("j2", 9, online=False))["boards"] == {"pi1": 0.0}
    assert heard.hear(payload=heartbeat("j1", 3, online=False))["boards"] == {"pi1": None}
    assert heard.online(gone) is False
    assert heard.hear("pi2", gone, kept=True)["boards"]["pi2"] is None
    assert heard.hear("pi2", heartbeat("j1", 3))["boards"]["pi2"] == 0.0


def test_silence_counts_only_while_the_coordinator_listened(heard: Heard) -> None:
    heard.hear()
    heard.boards.note([LOST])
    heard.clock.now += 600
    heard.boards.note([Connected(True, 5), Subscribed()])
    assert heard.said["boards"] == {"pi1": 600.0}
    assert heard.said["listening"] == 0.0
    assert heard.online(), "it may have been there all the time"
    heard.clock.now += OFFLINE_AFTER_S - 1
    assert heard.online()
    heard.clock.now += 1
    assert heard.online() is False


def test_a_cleared_heartbeat_is_forgotten_and_what_is_none_is_passed_over(heard: Heard) -> None:
    heard.hear()
    heard.hear(payload=b"{")
    heard.hear(payload=b'{"online":1}')
    heard.hear("@all")
    heard.hear("a b")
    assert heard.said["boards"] == {"pi1": 0.0}
    assert heard.hear(payload=b"")["boards"] == {}
    assert is_online("pi1", None, heard.said) is False


@pytest.mark.parametrize(("kept", "online"), [(None, False), (False, False), (True, None)])
def test_without_a_coordinator_only_a_will_is_known(kept: bool | None, online: bool | None) -> None:
    beat = None if kept is None else {"online": kept}
    assert is_online("pi1", beat, None) is online


def test_the_list_has_a_limit_and_leaves_out_who_was_silent_longest() -> None:
    names = [f"{number:05}{'x' * 59}" for number in range(5_000)]
    payload = encode_boards(1.7e9, 1e7, ((name, 123_456.7) for name in names), 2)
    assert MAX_BOARDS_LIST - 400 < len(payload) <= MAX_BOARDS_LIST
    said = read_received(TopicKind.BOARDS, payload)
    assert said is not None
    assert len(said["boards"]) + said["left_out"] == 5_002
    assert list(said["boards"]) == names[: len(said["boards"])]
    assert is_online(names[-1], {"online": True}, said) is None, "nobody can say"
    assert is_online(names[-1], {"online": False}, said) is False


def test_it_remembers_so_many_boards_and_forgets_who_was_silent_longest(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards_module, "MAX_BOARDS", 3)
    for user in ("pi1", "pi2", "pi3", "pi1", "pi4"):
        heard.hear(user)
    said = heard.said
    assert list(said["boards"]) == ["pi4", "pi1", "pi3"]
    assert said["left_out"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"boards": []}, {"boards": {"pi1": "3"}}, {"boards": {"pi1": -1}}, {"boards": {"a b": 1}},
        {"boards": {"pi1": True}}, {"listening": -1}, {"listening": None}, {"left_out": -1},
        {"left_out": None}, {"time": "now"},
    ],
)  # fmt: skip
def test_what_is_no_list_is_passed_over(fields: dict[str, Any]) -> None:
    from hwsync.protocol.jsons import dumps

    sound = {"time": 1.0, "listening": 1.0, "left_out": 0, "boards": {"pi1": None}}
    assert read_received(TopicKind.BOARDS, dumps(sound).encode()) == sound
    assert read_received(TopicKind.BOARDS, dumps(sound | fields).encode()) is None


# When it is said


class Told:
    """A coordinator with its vitals; ``round`` returns the lists that it published."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.wire.url = "mqtt://broker:1883"  # type: ignore[attr-defined]
        self.vitals = Vitals(lab.coordinator, lab.wire, lab.clock, Notifier({}))  # type: ignore[arg-type]

    def round(self, *signals: Signal, after: float = 0.0) -> list[dict[str, Any]]:
        self.lab.clock.now += after
        self.lab.wire.deeds = []
        left = self.vitals.take_questions(signals)
        done = self.lab.coordinator.step(left)
        self.vitals.report(left, len(signals), done)
        sent = [deed for deed in self.lab.wire.deeds if isinstance(deed, Sent)]
        said = [deed for deed in sent if deed.topic == "hw/@hwsync/boards"]
        assert all(deed.retain for deed in said)
        return [deed.json for deed in said]

    @property
    def question(self) -> Delivery:
        return self.lab.delivery("query", user="@hwsync")


@pytest.fixture
def told(tmp_path: Path) -> Any:
    with Lab(tmp_path / "db") as lab:
        one = Told(lab)
        assert len(one.round(Connected(False, 5), Subscribed())) == 1
        yield one


def test_the_list_is_said_with_the_health_and_when_asked_once_a_second(told: Told) -> None:
    assert told.round(told.lab.delivery("heartbeat", heartbeat())) == []
    assert told.round(told.question) == [], "one was said in this second"
    assert told.vitals.wait() == BOARDS_S
    (said,) = told.round(after=BOARDS_S)
    assert said["boards"] == {"pi1": BOARDS_S}
    assert len(told.round(told.question, told.question, after=BOARDS_S)) == 1
    assert told.round(after=HEALTH_S - 1) == []
    assert len(told.round(after=1)) == 1


def test_a_disk_that_takes_nothing_makes_no_board_offline_and_gathers_no_heartbeats(
    told: Told,
) -> None:
    lab = told.lab
    lab.store.database.connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON transitions "
        "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
    )
    told.round(lab.delivery("request", request()))
    for _ in range(20):
        beats = [lab.delivery("heartbeat", heartbeat(), user=user, mid=0) for user in ("a", "b")]
        told.round(*beats, after=30.0)
    (said,) = told.round(told.question, after=BOARDS_S)
    assert said["boards"] == {"b": 1.0, "a": 1.0}
    assert len(lab.coordinator._waiting) == 3


def test_heartbeats_are_not_queued_and_show_whether_they_were_kept() -> None:
    topics = Topics()
    (filter,) = [
        one for one in subscriptions(topics) if one.topic == topics.of("+", TopicKind.HEARTBEAT)
    ]
    assert (filter.qos, filter.as_published) == (0, False)


def test_since_when_a_board_is_offline_is_said_also_by_a_later_life(heard: Heard) -> None:
    heard.hear()
    heard.clock.now += 40.0
    said = heard.hear(payload=heartbeat(online=False))
    assert (said["boards"], said["gone"]) == ({"pi1": None}, {"pi1": 40.0})
    heard.clock.now += 20.0
    assert heard.hear("pi2", heartbeat(online=False), kept=True)["gone"] == {"pi1": 60.0}
    assert heard.hear()["gone"] == {}, "it is back"

    later = Heard()
    later.boards = Boards(Topics(), later.clock, {"pi1": later.clock.wall() - 3_600.0})
    assert later.hear(payload=heartbeat(online=False), kept=True)["gone"] == {"pi1": 3_600.0}
    later.boards = Boards(Topics(), later.clock, {"pi1": later.clock.wall() + 9.0})
    said = later.hear(payload=heartbeat(online=False), kept=True)
    assert said["gone"] == {}, "a clock that was put back says nothing"


def test_who_is_offline_since_when_takes_the_room_that_is_left() -> None:
    names = [f"{'n' * 55}{number:05}" for number in range(3_500)]
    last = {name: float(number) for number, name in enumerate(names)}
    payload = encode_boards(1.7e9, 99.0, ((name, None) for name in names), last=last)
    assert len(payload) <= MAX_BOARDS_LIST
    said = loads(payload.decode())
    assert 0 < len(said["gone"]) < len(said["boards"])
    assert names[0] in said["gone"], "who was heard last stands there first"
