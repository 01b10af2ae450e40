"""A result that is acknowledged by the broker and never arrives is made smaller, at last."""

from __future__ import annotations

from hwsync.device.publishing import Shrinking
from hwsync.transport.outbox import FLOOR, HEADER

LARGE = 1_500_000


def test_the_whole_goes_first_and_smaller_ones_only_while_others_are_answered() -> None:
    shrinking = Shrinking()
    assert not shrinking.sent("a", LARGE), "nobody is asked after the first"
    assert not shrinking.answered(), "a status that nobody asked for says nothing"
    for _ in range(5):
        assert shrinking.sent("a", LARGE)
        assert shrinking.limit("a", LARGE) == LARGE, "nobody answers: the coordinator is away"
    assert not shrinking.answered()
    assert not shrinking.answered(), "one question, one answer"
    assert shrinking.sent("a", LARGE)
    assert shrinking.answered()
    sizes = []
    while (size := shrinking.limit("a", LARGE)) > FLOOR:
        sizes.append(size)
        assert shrinking.sent("a", size)
        assert shrinking.answered()
    assert sizes[:2] == [1024 * 1024 - HEADER, 256 * 1024 - HEADER]
    assert sizes == sorted(sizes, reverse=True)
    assert size == FLOOR


def test_what_is_settled_or_small_is_never_made_smaller() -> None:
    shrinking = Shrinking()
    for id, size in (("small", FLOOR), ("settled", LARGE), ("stuck", LARGE)):
        for _ in range(3):
            shrinking.sent(id, size)
    shrinking.forget("settled")
    for _ in range(3):
        shrinking.sent("stuck", LARGE)
        shrinking.answered()
    assert shrinking.limit("small", LARGE) == shrinking.limit("settled", LARGE) == LARGE
    assert shrinking.limit("stuck", LARGE) < LARGE


def test_a_new_connection_begins_with_the_whole() -> None:
    shrinking = Shrinking()
    for _ in range(4):
        shrinking.sent("a", LARGE)
        shrinking.answered()
    assert shrinking.limit("a", LARGE) < LARGE
    shrinking.begin()
    assert shrinking.limit("a", LARGE) == LARGE
