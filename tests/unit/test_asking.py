"""When a device asks what time it is, and which answers count."""

from __future__ import annotations

import itertools

from hwsync.protocol.device.asking import (
    AFTER_US,
    BURST,
    COUNTDOWN_US,
    FRESH_US,
    GAP_US,
    LAST_US,
    NEAR_US,
    OFTEN_US,
    OUTSTANDING,
    PATIENCE_US,
    QUIET_US,
    SELDOM_US,
    SILENT_US,
    SPREAD_GAP_US,
    Asking,
)

S = 1_000_000


def times(asking: Asking, until: int, *, answered: bool = True) -> list[int]:
    """When it asks, up to then; each question is answered at once, or none is."""
    found = []
    while asking.next is not None and asking.next <= until:
        now = asking.next
        assert asking.is_due(now)
        assert not asking.is_due(now - 1)
        asking.asked(len(found), now, 0)
        if answered:
            asking.answered(len(found), now, None)
        found.append(now)
    return found


def gaps(moments: list[int]) -> list[int]:
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


def test_a_burst_at_each_connect_and_then_once_a_minute() -> None:
    asking = Asking()
    assert asking.next is None
    asking.connected(5 * S)
    assert gaps(times(asking, 200 * S)) == [GAP_US] * (BURST - 1) + [SELDOM_US] * 3
    asking.disconnected()
    assert times(asking, 10_000 * S) == []
    asking.connected(300 * S)
    assert times(asking, 301 * S) == [300 * S + n * GAP_US for n in range(BURST)]


def test_who_is_not_answered_asks_again_soon_and_all_of_it_once_he_is() -> None:
    asking = Asking()
    asking.connected(0)
    asked = gaps(times(asking, 400 * S, answered=False))[BURST - 1 :]
    assert asked[:7] == [SILENT_US << n for n in range(6)] + [SELDOM_US]
    at = asking.next
    assert at is not None
    asking.asked(99, at, 0)
    assert asking.answered(99, at, (1, 2)) == 0
    assert asking.in_burst
    assert gaps(times(asking, at + 61 * S)) == [GAP_US] * (BURST - 1) + [SELDOM_US]


def test_a_start_that_is_announced_and_the_last_seconds_before_its_instant() -> None:
    asking = Asking()
    asking.connected(0)
    times(asking, 100 * S)
    asking.announced(100 * S, together=True)
    assert gaps(times(asking, 131 * S)) == [SPREAD_GAP_US] * (BURST - 1) + [OFTEN_US] * 2
    asking.awaits(200 * S, 131 * S)
    asked = times(asking, 200 * S)
    assert all(gap <= OFTEN_US for gap in gaps(asked))
    last = [at for at in asked if at >= 200 * S - COUNTDOWN_US]
    assert last == [180 * S + n * LAST_US for n in range(7)]
    asking.awaits(None, 200 * S)
    after = times(asking, 200 * S + NEAR_US + 180 * S)
    assert gaps(after)[:39] == [OFTEN_US] * 39
    assert gaps(after)[-2:] == [SELDOM_US] * 2


def test_an_instant_that_is_far_away_is_not_slept_over() -> None:
    asking = Asking()
    asking.connected(0)
    times(asking, S)
    instant = 2_000 * S
    asking.awaits(instant, S)
    asked = times(asking, instant)
    far = [at for at in asked if at < instant - NEAR_US]
    assert set(gaps(far)) <= {SELDOM_US}
    assert instant - NEAR_US in asked
    assert instant - COUNTDOWN_US in asked
    assert max(asked) > instant - FRESH_US


def test_a_start_within_the_minute_is_asked_for_at_once() -> None:
    asking = Asking()
    asking.connected(0)
    last = times(asking, S)[-1]
    asking.awaits(6 * S, S)
    assert asking.next == last + LAST_US


def test_an_instant_that_is_close_when_it_is_heard_of_is_asked_for_at_once() -> None:
    asking = Asking()
    asking.connected(0)
    times(asking, S)
    asking.awaits(31 * S, 30 * S)
    assert asking.next == 30 * S, "three seconds later it would be over, and nothing was fresh"


def test_nobody_is_disturbed_before_an_instant_that_has_what_it_needs() -> None:
    asking = Asking()
    asking.connected(0)
    times(asking, S)
    asking.announced(100 * S, together=True)
    instant = 100 * S + 3 * SPREAD_GAP_US  # in the middle of the burst
    times(asking, 100 * S + SPREAD_GAP_US)
    asking.awaits(instant, 100 * S + SPREAD_GAP_US)
    asked = [at - instant for at in times(asking, instant + S) if at > 100 * S]
    assert not [at for at in asked if -QUIET_US < at < AFTER_US]
    assert [at for at in asked if at < 0] == [-SPREAD_GAP_US]
    assert [at for at in asked if at > 0][:2] == [AFTER_US, AFTER_US + SPREAD_GAP_US]


def test_who_knows_nothing_fresh_asks_until_the_instant() -> None:
    asking = Asking()
    asking.connected(0)
    times(asking, S)
    asking.awaits(30 * S, 30 * S - QUIET_US // 2)
    assert asking.next == 30 * S - QUIET_US // 2
    asking.asked(99, asking.next, 0)
    assert asking.next > 30 * S


def test_an_answer_counts_once_and_for_its_own_question() -> None:
    asking = Asking()
    asking.connected(0)
    asking.asked(7, 100, 42)
    asking.asked(7, 200, 43)
    for n, t0 in ((8, 100), (7, 101), (0, 0)):
        assert asking.answered(n, t0, (9, 9)) is None
    assert (asking.newest, asking.seen) == (None, None)
    assert asking.answered(7, 200, (1, 5)) == 43
    assert asking.answered(7, 200, (1, 6)) is None
    assert asking.answered(7, 100, (1, 4)) == 42, "in another order than they were asked"
    assert (asking.newest, asking.seen) == (200, (1, 5))


def test_what_is_never_answered_is_forgotten() -> None:
    asking = Asking()
    asking.connected(0)
    for n in range(100):
        asking.asked(n, n, 0)
    assert len(asking._outstanding) == OUTSTANDING
    asking.asked(100, 100 + PATIENCE_US, 0)
    assert len(asking._outstanding) == 1
    asking.connected(200 + PATIENCE_US)
    assert asking.answered(100, 100 + PATIENCE_US, None) is None


def test_silence_keeps_nobody_from_asking_before_an_instant() -> None:
    asking = Asking()
    asking.connected(0)
    times(asking, 100 * S)  # nobody answers
    asking.awaits(120 * S, 100 * S)
    assert len([at for at in times(asking, 120 * S) if at > 100 * S]) >= 6
