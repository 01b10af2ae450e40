"""What is kept of a program's output, what is hashed, how it was ordered, what is shown when."""

from __future__ import annotations

import hashlib
import logging
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.protocol.output import Kept, keep_ends
from hwsync.runner import Piece
from hwsync.runner.output import (
    MOST_TURNS,
    PIECE_INTERVAL_S,
    PIECES_AT_ONCE,
    THIN_BYTES,
    TIMES_PER_SECOND,
    Capture,
    Pieces,
    Received,
)

LIMITS = {"stdout": 1_000_000, "stderr": 1_000_000}


@given(chunks=st.lists(st.binary(max_size=40), max_size=30), limit=st.integers(64, 200))
def test_a_capture_keeps_its_ends_and_hashes_all(chunks: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    texts = [capture.feed(chunk) for chunk in chunks]
    texts.append(capture.finish())
    everything = b"".join(chunks)
    whole = everything.decode("utf-8", "replace")
    assert capture.sha256 == hashlib.sha256(everything).hexdigest()
    assert capture.total == len(everything)
    assert "".join(texts) == whole
    assert (capture.kept().text, capture.kept().truncated) == keep_ends(whole, limit)


def test_a_capture_of_much_holds_little() -> None:
    capture = Capture(1_000)
    tracemalloc.start()
    try:
        for _ in range(1_000):
            capture.feed(b"x" * 10_000)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert capture.total == 10_000_000


def test_a_character_may_come_in_parts_and_a_bad_byte_is_replaced() -> None:
    capture = Capture(100)
    assert [capture.feed(bytes([byte])) for byte in "é".encode()] == ["", "é"]
    assert capture.feed(b"\xff.\xe2\x82") == "\ufffd."
    assert capture.finish() == "\ufffd"
    assert capture.kept().text == "é\ufffd.\ufffd"


def test_the_order_is_that_of_the_turns() -> None:
    received = Received()
    for stream, text in (("stdout", "a"), ("stdout", "é"), ("stderr", ""), ("stderr", "e")):
        received.add(stream, text)
    received.add("stdout", "b")
    kept = {"stdout": Kept("aéb", False, 4), "stderr": Kept("e", False, 1)}
    assert received.order(kept) == (("stdout", 3), ("stderr", 1), ("stdout", 1))


def test_an_order_of_too_many_turns_is_not_known() -> None:
    received = Received()
    for _ in range(MOST_TURNS):
        received.add("stdout", "o")
        received.add("stderr", "e")
    assert received.order({}) is None


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[int, str, str]] = []
        self.places: list[tuple[int, int]] = []

    def __call__(self, piece: Piece) -> None:
        self.calls.append((piece.number, piece.stream, piece.text))
        self.places.append((piece.at, piece.skipped))


def test_the_first_piece_is_due_at_once_and_later_ones_are_gathered() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder, LIMITS)
    assert pieces.due is None
    pieces.add("stdout", "a")
    assert pieces.due == 0.0
    pieces.send(100.0)
    pieces.add("stdout", "b")
    pieces.add("stdout", "c")
    assert pieces.due == 100.0 + PIECE_INTERVAL_S
    pieces.send(100.0 + PIECE_INTERVAL_S / 2)
    assert recorder.calls == [(0, "stdout", "a")]
    pieces.send(100.0 + PIECE_INTERVAL_S)
    assert recorder.calls == [(0, "stdout", "a"), (1, "stdout", "bc")]
    assert pieces.due is None


def test_pieces_come_in_the_order_of_their_texts() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder, LIMITS)
    pieces.add("stdout", "é")
    pieces.send(1.0)
    for stream, text in (("stderr", "e"), ("stdout", "p"), ("stdout", "q"), ("stderr", "f")):
        pieces.add(stream, text)
    pieces.send(1.01)
    assert len(recorder.calls) == 1
    assert pieces.due == 1.0 + PIECE_INTERVAL_S
    pieces.send(pieces.due)
    assert recorder.calls[1:] == [(1, "stderr", "e"), (2, "stdout", "pq"), (3, "stderr", "f")]
    assert recorder.places == [(0, 0), (0, 0), (2, 0), (1, 0)]
    pieces.add("stderr", "g")
    pieces.flush()
    assert recorder.calls[4:] == [(4, "stderr", "g")]


def test_streams_that_take_many_turns_are_joined() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder, LIMITS)
    for _ in range(1000):
        pieces.add("stdout", "o")
        pieces.add("stderr", "e")
    pieces.flush()
    assert len(recorder.calls) == PIECES_AT_ONCE
    assert "".join(text for _, _, text in recorder.calls).count("o") == 1000


def test_ten_times_a_second_is_the_most() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder, LIMITS)
    for millisecond in range(1000):
        pieces.add("stdout", "x")
        pieces.send(millisecond / 1000)
    assert len(recorder.calls) == TIMES_PER_SECOND


def test_past_its_limit_a_stream_is_thinned_and_says_so() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder, {"stdout": 100, "stderr": 100})
    pieces.add("stdout", "x" * 100)
    pieces.send(0.0)
    lines = [f"{number:06}\n" for number in range(10_000)]
    for line in lines:
        pieces.add("stdout", line)
    pieces.add("stderr", "e")
    pieces.send(1.0)
    pieces.add("stdout", "end")
    pieces.flush()
    shown, error, end = (text for _, _, text in recorder.calls[1:])
    assert 0.9 * THIN_BYTES < len(shown) <= THIN_BYTES
    assert shown == "".join(lines[-len(shown) // 7 :])
    skipped = 70_000 - len(shown)
    assert recorder.places == [(0, 0), (100 + skipped, skipped), (0, 0), (70_100, 0)]
    assert (error, end) == ("e", "end")


def test_within_its_limit_nothing_is_thinned() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder, LIMITS)
    for _ in range(100):
        pieces.add("stdout", "x" * 10_000)
    pieces.flush()
    assert [len(text) for _, _, text in recorder.calls] == [1_000_000]


def test_an_empty_text_is_no_piece() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder, LIMITS)
    pieces.add("stdout", "")
    assert pieces.due is None
    pieces.flush()
    assert recorder.calls == []


def test_a_failing_callback_is_logged_once_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(piece: Piece) -> None:
        raise ConnectionError("no broker")

    pieces = Pieces(fail, LIMITS)
    with caplog.at_level(logging.WARNING, "hwsync.runner"):
        for text in "abc":
            pieces.add("stdout", text)
            pieces.flush()
    assert len(caplog.records) == 1
    assert "no broker" in caplog.text
