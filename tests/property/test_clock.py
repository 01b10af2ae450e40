"""The estimate of lab time: whatever clocks and delays do, the truth is within the bound.

And the bound is worth something: on a quiet line it is little more than half of the shortest delay.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsync.protocol.device.clock import MOST, PPB, Estimator, hull
from tests.support.clocks import SECOND, Delay, Pair

MS = 1_000_000  # nanoseconds


def quiet(now: int, dice: Random) -> tuple[int, int]:
    """A cable: some 0.2 ms each way."""
    return (150_000 + dice.randint(0, 100_000), 150_000 + dice.randint(0, 100_000))


def restless(now: int, dice: Random) -> tuple[int, int]:
    """0 to 20 ms each way."""
    return dice.randint(0, 20 * MS), dice.randint(0, 20 * MS)


def lopsided(now: int, dice: Random) -> tuple[int, int]:
    """30 ms there, 1 ms back."""
    return 30 * MS + dice.randint(0, MS), MS + dice.randint(0, MS)


def turning(now: int, dice: Random) -> tuple[int, int]:
    """Lopsided, now in this way, now in that."""
    there, back = lopsided(now, dice)
    return (there, back) if now // (90 * SECOND) % 2 else (back, there)


def ramping(now: int, dice: Random) -> tuple[int, int]:
    """The way there takes 3 ms longer each minute, for ten minutes."""
    return MS + now % (600 * SECOND) * 3 * MS // (60 * SECOND) + dice.randint(0, MS // 10), MS


def heavy(now: int, dice: Random) -> tuple[int, int]:
    """Mostly short, now and then very long."""
    return tuple(int(dice.paretovariate(1.2) * 200_000) % SECOND for _ in range(2))  # type: ignore[return-value]


DELAYS = (quiet, restless, lopsided, turning, ramping, heavy)

acts = st.lists(
    st.one_of(
        st.tuples(st.just("burst"), st.sampled_from(DELAYS), st.just(0)),
        st.tuples(st.just("ask"), st.sampled_from(DELAYS), st.just(0)),
        st.tuples(st.just("wait"), st.none(), st.integers(1, 200)),
        st.tuples(st.just("suspend"), st.none(), st.integers(1, 1_000)),
        st.tuples(st.just("life"), st.none(), st.integers(-500, 500)),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    skew=st.integers(-500, 500),
    drift=st.integers(-200_000, 200_000),
    slewed=st.booleans(),
    acts=acts,
)
def test_the_truth_is_within_the_bound(
    seed: int, skew: int, drift: int, slewed: bool, acts: list[tuple[str, Delay | None, int]]
) -> None:
    pair = Pair(seed, skew, drift, slewed)
    before = None
    for act, delay, number in acts:
        if act == "burst" and delay:
            pair.burst(delay)
        elif act == "ask" and delay:
            assert pair.ask(delay)
        elif act == "wait":
            if before is not None:
                pair.go(number * SECOND // 2)
                pair.compare(before)  # from then on, in another process
            pair.go(number * SECOND)
        elif act == "suspend":
            pair.suspend(number * MS * 10)
            assert pair.estimate() is None or number == 0
        else:
            pair.begin_life(number * SECOND)
            if pair.estimator.samples:
                pair.ask(quiet)  # until then nobody can know
        before = pair.check()


@pytest.mark.parametrize("delay", DELAYS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("drift", [-200_000, 35_000, 200_000])
def test_the_truth_is_within_the_bound_for_an_hour(delay: Delay, drift: int) -> None:
    pair = Pair(1, -500, drift)
    pair.burst(delay)
    for second in range(3_600):
        pair.go(SECOND)
        if second % 60 == 0:
            pair.ask(delay)
        assert pair.check() is not None


@pytest.mark.parametrize(
    ("delay", "seldom_us", "countdown_us"),
    [(quiet, 600, 250), (restless, 12_000, 1_500), (lopsided, 22_000, 17_000)],
)
def test_the_bound_is_little_more_than_half_of_the_shortest_delay(
    delay: Delay, seldom_us: int, countdown_us: int
) -> None:
    pair = Pair(2, 500, -120_000)
    pair.burst(delay)
    for _ in range(20):
        pair.go(60 * SECOND)
        seldom = pair.check()
        pair.ask(delay)
    assert seldom is not None
    assert seldom.bound <= seldom_us
    pair.burst(delay)
    for _ in range(7):  # the last 20 s before a start
        pair.go(3 * SECOND)
        countdown = pair.check()
        pair.ask(delay)
    assert countdown is not None
    assert countdown.bound <= countdown_us


def test_delays_that_grow_do_not_pass_for_a_drift() -> None:
    """A line through the middles of the samples has a slope here, a small error, and is wrong."""
    pair = Pair(3, 0, 0)
    middles = []
    for _ in range(10):
        t0, at = pair.raw, pair.now
        there, back = ramping(at, pair.dice)
        pair.go(there)
        t1 = t2 = pair.lab
        pair.go(back)
        pair.estimator.add(t0, t1, t2, pair.raw, pair.life, 0)
        middles.append((pair.raw, ((t1 - t0) + (t2 - pair.raw)) / 2))
        pair.go(60 * SECOND)
    mean_x = sum(x for x, _ in middles) / 10
    mean_y = sum(y for _, y in middles) / 10
    over = sum((x - mean_x) ** 2 for x, _ in middles)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in middles) / over
    rests = [y - mean_y - slope * (x - mean_x) for x, y in middles]
    error = (sum(rest**2 for rest in rests) / 8 / over) ** 0.5
    assert abs(slope) > 20e-6
    assert abs(slope) > 10 * error, "its standard error says nothing of it"
    estimate = pair.check()
    assert estimate is not None
    assert abs(estimate.drift) < estimate.grows, "no drift at all is among what is possible"
    for _ in range(10):
        pair.go(60 * SECOND)
        pair.compare(estimate)


def test_what_nothing_fits_begins_anew() -> None:
    pair = Pair(4, 0, 10_000)
    for _ in range(5):
        pair.burst(quiet)
        pair.go(60 * SECOND)
    assert pair.estimator.samples == 40
    pair._lab += 50 * MS  # it jumped, and does not say so: nothing that may happen
    assert pair.ask(quiet)
    assert pair.estimator.samples == 1
    pair.check()


def test_a_sample_that_contradicts_itself_changes_nothing() -> None:
    pair = Pair(5)
    pair.burst(quiet)
    before, raw = pair.estimate(), pair.raw
    for t0, t1, t2, t3 in [
        (raw, raw, raw, raw - 1),  # heard before it was asked
        (raw, raw, raw - 1, raw),  # answered before it was read
        (raw, raw, raw + 100_000, raw + 50_000),  # took longer there than here
    ]:
        assert not pair.estimator.add(t0, t1, t2, t3, pair.life, 0)
    assert pair.estimate() == before


def test_nothing_is_known_at_first_and_after_ten_minutes_of_silence() -> None:
    assert Estimator().estimate(0, 0) is None
    pair = Pair(6)
    pair.burst(quiet)
    pair.go(590 * SECOND)
    assert pair.check() is not None
    pair.go(20 * SECOND)
    assert pair.estimate() is None


def test_the_memory_is_bounded_and_the_best_is_kept() -> None:
    pair = Pair(7, 0, 50_000)
    for _ in range(100):
        pair.burst(restless)
        pair.go(5 * SECOND)
        pair.check()
    assert len(pair.estimator._uppers) <= MOST
    assert len(pair.estimator._lowers) <= MOST
    estimate = pair.check()
    assert estimate is not None
    assert estimate.bound < 1_500, "800 samples of 0 to 20 ms each way: some were short"


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1))
def test_the_hull_is_what_bounds_them_from_below(points: list[tuple[int, int]]) -> None:
    points.sort()
    corners = hull(points)
    assert set(corners) <= set(points)
    for slope in range(-200, 200, 7):
        assert min(y - slope * x for x, y in corners) == min(y - slope * x for x, y in points)


def test_conversions_there_and_back() -> None:
    pair = Pair(8, 333, -99_000)
    for _ in range(4):
        pair.burst(quiet)
        pair.go(30 * SECOND)
    estimate = pair.check()
    assert estimate is not None
    for later in (0, 1, 10**6, 10**9):
        raw = estimate.at + later
        assert abs(estimate.raw_us(estimate.lab_us(raw)) - raw) <= 2
    assert estimate.grows < 20_000 < PPB
