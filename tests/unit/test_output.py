"""protocol.output: what is kept of a long text, and how a reader finds its way in it."""

from __future__ import annotations

import doctest
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.protocol import output
from hwsync.protocol.jsons import dumps
from hwsync.protocol.limits import MAX_ORDER
from hwsync.protocol.output import Ends, Kept, keep_again, keep_ends, order_kept, read_kept

PARTS = st.lists(
    st.sampled_from(["a\n", "é", "😀\n", "x" * 30, "y" * 90 + "\n", "\n"]), max_size=60
)
LIMITS = st.integers(output.GAP_ROOM, 400)


def kept(parts: list[str], limit: int) -> Kept:
    ends = Ends(limit)
    for part in parts:
        ends.add(part)
    return ends.kept()


def test_the_example_is_true() -> None:
    assert doctest.testmod(output).failed == 0


def test_a_text_within_its_limit_is_whole() -> None:
    assert keep_ends("a\n" * 50, 100) == ("a\n" * 50, False)
    assert keep_ends("", 0) == ("", False)


def test_the_first_three_quarters_and_the_last_one_stay() -> None:
    lines = [f"{number:06}\n" for number in range(10_000)]
    text, truncated = keep_ends("".join(lines), 7_000)
    shown = text.splitlines(keepends=True)
    gap = next(at for at, line in enumerate(shown) if line not in lines)
    assert truncated
    assert shown[:gap] == lines[:gap]
    assert shown[gap + 1 :] == lines[-len(shown[gap + 1 :]) :]
    assert 0.7 < gap / len(shown) < 0.8
    assert shown[gap] == f"[hwsync: {70_000 - 7 * (len(shown) - 1):,} bytes left out]\n"
    assert 7_000 - 2 * 7 - output.GAP_ROOM < len(text) <= 7_000


def test_a_line_that_is_longer_than_the_limit_is_cut_within() -> None:
    text, _ = keep_ends("é" * 1_000, 200)
    head, line, tail = text.split("\n")
    assert set(head) == set(tail) == {"é"}
    left_out = 2_000 - 2 * (len(head) + len(tail))
    assert line == f"[hwsync: {left_out:,} bytes left out, within a line]"


@given(parts=PARTS, limit=LIMITS)
def test_what_is_kept_fits_and_is_where_it_says(parts: list[str], limit: int) -> None:
    whole = "".join(parts).encode()
    one = kept(parts, limit)
    text = one.text.encode()
    assert len(text) <= limit
    assert one.truncated == (len(whole) > limit)
    assert text[: one.head] == whole[: one.head]
    after = one.head + one.left_out
    assert text[one.position(after) :] == whole[after:]
    assert one.position(len(whole)) == len(text)
    assert read_kept(one.text, one.truncated) == one
    assert keep_ends("".join(parts), limit) == (one.text, one.truncated)


def test_a_text_that_is_cut_again_has_one_line_that_counts_all() -> None:
    lines = [f"{number:06}\n" for number in range(10_000)]
    once, _ = keep_ends("".join(lines), 7_000)
    twice = keep_again(once, 3_500, True)
    shown = twice.splitlines(keepends=True)
    (gap,) = [line for line in shown if line not in lines]
    assert gap == f"[hwsync: {70_000 - 7 * (len(shown) - 1):,} bytes left out]\n"
    assert (shown[0], shown[-1]) == (lines[0], lines[-1])
    assert len(twice) <= 3_500


@pytest.mark.parametrize("at", [10, -10])
def test_a_gap_that_stays_is_not_counted_again(at: int) -> None:
    """Somebody else had cut it where we would not have."""
    lines = ["a\n"] * 4_000
    lines.insert(at, "[hwsync: 1,000 bytes left out]\n")
    text = "".join(lines)
    assert keep_again(text, 10_000, True) == text
    shown = keep_again(text, 4_000, True)
    gaps = [line for line in shown.splitlines(keepends=True) if line != "a\n"]
    left_out = len(text) - len(shown) + len(gaps[at > 0])
    assert len(gaps) == 2
    assert gaps[at > 0] == f"[hwsync: {left_out:,} bytes left out]\n"


@given(parts=PARTS, limit=st.integers(0, 400), truncated=st.booleans())
def test_what_is_cut_again_fits(parts: list[str], limit: int, truncated: bool) -> None:
    text = keep_again("".join(parts), limit, truncated)
    assert len(text.encode()) <= limit


@given(parts=PARTS, limit=LIMITS, streams=st.lists(st.sampled_from("oe"), min_size=60))
def test_an_order_leads_through_all_that_is_kept(
    parts: list[str], limit: int, streams: list[str]
) -> None:
    order = [(stream, len(part.encode())) for stream, part in zip(streams, parts, strict=False)]
    texts = {
        name: kept([part for s, part in zip(streams, parts, strict=False) if s == name], limit)
        for name in "oe"
    }
    told = order_kept(order, texts)
    assert told is not None
    for name, one in texts.items():
        assert sum(count for stream, count in told if stream == name) == len(one.text.encode())
    assert all(count > 0 for _, count in told)
    assert all(one[0] != other[0] for one, other in itertools.pairwise(told))


def test_an_order_that_would_be_too_long_is_none() -> None:
    texts = {"stdout": Kept("o" * 400, False, 400), "stderr": Kept("e" * 400, False, 400)}
    order = [("stdout", 1), ("stderr", 1)] * 400
    assert order_kept(order, texts) is None
    short = order_kept(order[:200], texts)
    assert short is not None
    assert len(dumps(short)) <= MAX_ORDER


@pytest.mark.parametrize("text", ["", "no gap", "[hwsync: 5 bytes left out] not at an end of line"])
def test_a_text_cut_by_somebody_who_does_not_say_where_is_all_beginning(text: str) -> None:
    assert read_kept(text, True) == Kept(text, True, len(text))
