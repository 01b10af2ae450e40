"""A device and a start at an instant: on a real journal, with a clock that a test sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.device.instants import instant, is_certain
from hwsync.device.journal import Stage
from hwsync.protocol.device.asking import FRESH_US
from hwsync.protocol.device.clock import Estimate
from hwsync.runner import Instant, Known
from tests.support.board import END, GROUP, NEVER_BEGAN, Board, NoLabClock

AT = 1_700_000_000.25  # seconds of lab time
AT_US = 1_700_000_000_250_000
RAW = 5_000_000  # microseconds: when it is said what time it is
OFFSET = AT_US - RAW - 3_000_000  # so the instant is 3 s later
TOGETHER = {"within": 0.1, "together": True}
NOT_RELEASED = "not released: it was taken back before its instant"


class Clock(NoLabClock):
    """What a test says of lab time."""

    def __init__(self) -> None:
        self.life = "l"
        self.newest: int | None = RAW - 1_000
        self.seen: tuple[int, int] | None = (0, 1)
        self.bound = 400
        self.drift = 0
        self.asked: list[bool] = []
        self.awaited: list[int | None] = []

    def estimate(self) -> Estimate | None:
        if not self.life:
            return None
        return Estimate(RAW, OFFSET, self.bound, self.drift, 0, self.life)

    def announced(self, *, together: bool) -> None:
        self.asked.append(together)

    def awaits(self, instant: int | None) -> None:
        self.awaited.append(instant)


class Starting(Board):
    """A board that knows lab time."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        super().__init__(folder)

    def begin(self, **options: object) -> None:
        super().begin(clock=self.clock, **options)  # type: ignore[arg-type]

    def offer(self, seq: int = 1, **start: object) -> None:
        self.envelope(seq=seq, v=2, start=TOGETHER | start)

    def ready(self) -> None:
        """It has said that it is."""
        self.offer()
        self.agent.run_prepared(GROUP)

    def start(self, seq: int = 2, **changes: object) -> list[str]:
        """The grant, with its instant."""
        return self.status(seq, 2, **{"start_at": AT, "start_life": "l", **changes})

    def arm(self) -> None:
        self.ready()
        self.start()

    @property
    def last(self) -> Instant:
        return self.world.instants[-1]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Starting]:
    one = Starting(tmp_path)
    yield one
    one.journal.close()


# -- getting ready --------------------------------------------------------------------------------


def test_collected_is_said_when_it_is_ready(board: Starting) -> None:
    board.offer()
    assert (board.world.timed, board.said("collected")) == (["prepare a"], [])
    assert board.stage() is Stage.RECEIVED
    assert board.agent.busy == "a"
    assert board.clock.asked == [True]
    board.agent.run_prepared(GROUP)
    assert board.said("collected") == [{"id": "a", "journal": board.journal.name, "boot": 1}]


def test_it_waits_for_the_time_and_not_for_ever(board: Starting) -> None:
    board.clock.bound = 100_000
    board.ready()
    assert board.said("collected") == []
    board.pass_time(1.9)
    assert board.said("collected") == []
    board.pass_time(0.2)
    assert len(board.said("collected")) == 1


def test_the_time_that_is_known_later_makes_it_ready(board: Starting) -> None:
    board.clock.life = ""
    board.ready()
    board.clock.life = "l"
    board.agent.clock_changed()
    assert len(board.said("collected")) == 1


@pytest.mark.parametrize(
    ("life", "bound", "certain"), [("", 400, True), ("l", 400, True), ("m", 400, False),
                                   ("", 99_999, False)]
)  # fmt: skip
def test_how_well_the_time_must_be_known(life: str, bound: int, certain: bool) -> None:
    clock = Clock()
    clock.bound = bound
    assert is_certain(clock, 0.1, life) is certain


def test_what_cannot_be_prepared_is_rejected_at_its_grant(board: Starting) -> None:
    board.offer()
    board.agent.run_failed("no room")
    assert len(board.said("collected")) == 1
    assert board.told() == []
    board.status(2, 2)  # before its instant is fixed: nobody counts on it then
    assert board.told() == [("a", "rejected", "no")]
    assert board.said("response")[0]["reason"] == "no room"


def test_a_command_that_is_over_drops_what_was_prepared(board: Starting) -> None:
    board.ready()
    board.status(2, 0)
    assert board.world.timed == ["prepare a", "drop"]
    assert board.told() == [("a", "rejected", "no")]


# -- the grant ------------------------------------------------------------------------------------


def test_started_is_on_disk_before_it_is_armed(board: Starting) -> None:
    board.ready()
    assert board.start() == ["started"]
    assert board.world.timed == ["prepare a", "arm"]
    entry = board.journal.get("a")
    assert entry is not None
    assert entry.group == GROUP
    assert board.last == Instant(
        *(AT_US, (RAW + 3_000_000) * 1000, (RAW - 1_000 + FRESH_US) * 1000, True, 402, 100_000, 0),
        Known(AT_US - 3_000_000, RAW * 1000, 402, 0),
    )
    assert set(board.clock.awaited) == {RAW + 3_000_000}
    assert board.ran() == ["a"]


def test_state_2_without_an_instant_starts_nothing(board: Starting) -> None:
    board.ready()
    board.status(2, 2)
    assert (board.world.timed, board.told()) == (["prepare a"], [])
    assert board.stage() is Stage.RECEIVED
    board.start(3)
    assert board.stage() is Stage.STARTED


@pytest.mark.parametrize("life", ["m", ""])
def test_an_instant_of_another_life_is_rejected(board: Starting, life: str) -> None:
    board.clock.life = life
    board.ready()
    board.pass_time(2.1)
    board.start()
    assert board.told() == [("a", "rejected", "no")]
    assert board.world.timed == ["prepare a", "drop"]
    assert board.stage() is Stage.CLOSED


def test_a_full_disk_rejects_it(board: Starting) -> None:
    board.ready()
    with board.full_disk(Stage.STARTED):
        board.start()
    assert board.told() == [("a", "rejected", "no")]
    assert "arm" not in board.world.timed


# -- until the instant ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"cancelling": True}, {"boot": 7}, {"journal": "j-other"}, {"start_at": AT + 1},
     {"start_life": "m"}, {"start_at": None}, {"id": "b"}, {"state": 0}, {"state": 3}],
)  # fmt: skip
def test_a_status_takes_it_back(board: Starting, changes: dict[str, object]) -> None:
    board.arm()
    board.status(3, **{"state": 2, "start_at": AT, "start_life": "l"} | changes)  # type: ignore[arg-type]
    assert board.world.stops == 1
    board.agent.run_ended(NEVER_BEGAN)
    assert board.told() == [("a", "cancelled", "no")]


def test_the_same_grant_again_takes_nothing_back(board: Starting) -> None:
    board.arm()
    board.start(3)
    board.start(3)
    assert (board.world.stops, board.world.timed) == (0, ["prepare a", "arm"])


def test_a_new_life_takes_it_back(board: Starting) -> None:
    board.arm()
    board.clock.life = "m"
    board.agent.clock_changed()
    assert board.world.timed[-1] == "disarm"
    assert board.world.stops == 0
    board.agent.run_failed(NOT_RELEASED)
    assert board.told() == [("a", "rejected", "no")]
    assert board.stage() is Stage.FINISHED


def test_a_stop_of_the_device_takes_it_back(board: Starting) -> None:
    board.arm()
    board.agent.stopping()
    assert board.world.timed[-1] == "disarm"
    board.agent.run_failed(NOT_RELEASED)
    assert board.told() == [("a", "rejected", "no")]


def test_what_is_learnt_of_the_time_is_said_again(board: Starting) -> None:
    board.arm()
    board.clock.bound, board.clock.newest = 90, RAW + 1
    board.agent.clock_changed()
    assert board.last.bound_us == 92
    assert board.last.fresh_until_ns == (RAW + 1 + FRESH_US) * 1000


def test_what_the_coordinator_had_said_by_then_must_have_been_heard(board: Starting) -> None:
    """Cut off, a stop of all, and connected again: two statuses are on their way."""
    board.arm()
    board.clock.seen = (0, 4)
    board.agent.clock_changed()
    assert not board.last.heard
    board.start(3)
    assert not board.last.heard
    board.start(4)
    assert board.last.heard


def test_nobody_who_was_never_answered_is_fresh() -> None:
    clock = Clock()
    clock.newest = clock.seen = None
    when = instant(clock, AT_US, "l", 0.1, (9, 9))
    assert when is not None
    assert (when.fresh_until_ns, when.heard) == (0, False)
    clock.life = "m"
    assert instant(clock, AT_US, "l", 0.1, (9, 9)) is None


# -- its end --------------------------------------------------------------------------------------


def test_the_result_says_when_it_began(board: Starting) -> None:
    board.arm()
    board.agent.run_ended(replace(END, lab_us=AT_US + 37, bound_us=402, raw_us=RAW))
    (said,) = board.said("response")
    assert (said["outcome"], said["ran"]) == ("ok", "yes")
    assert said["started"] == pytest.approx(AT + 37e-6, abs=5e-7)
    assert said["start_error"] == pytest.approx(37e-6)
    assert said["clock_bound"] == pytest.approx(402e-6)
    assert board.clock.awaited[-1] is None


def test_any_run_says_in_lab_time_when_it_began(board: Starting) -> None:
    board.run()
    board.agent.run_ended(replace(END, raw_us=RAW + 7))
    (said,) = board.said("response")
    assert said["started"] == pytest.approx((OFFSET + RAW + 7) / 1e6, abs=5e-7)
    assert (said["start_error"], said["clock_bound"]) == (None, pytest.approx(402e-6))


def test_where_no_time_is_known_it_is_the_devices_own(board: Starting) -> None:
    board.clock.life = ""
    board.run()
    board.agent.run_ended(replace(END, raw_us=RAW + 7))
    (said,) = board.said("response")
    assert (said["started"], said["clock_bound"]) == (END.started, None)


# -- another life of the device -------------------------------------------------------------------


def test_a_later_boot_prepares_anew_and_gets_the_same_instant(board: Starting) -> None:
    board.ready()
    board.begin()
    board.agent.connected()
    assert board.world.timed == ["prepare a"]
    assert board.said("collected") == []
    board.agent.run_prepared(GROUP)
    assert board.said("collected") == [{"id": "a", "journal": board.journal.name, "boot": 2}]
    board.start(2, boot=1)
    assert board.world.timed == ["prepare a"]
    board.start(3)
    assert board.world.timed == ["prepare a", "arm"]


def test_a_crash_after_started_is_interrupted(board: Starting) -> None:
    board.arm()
    board.begin()
    board.agent.connected()
    assert board.told() == [("a", "interrupted", "maybe")]
    assert board.world.timed == []
