"""Capture and Pieces: what is kept of a program's output, what is hashed, what is shown when."""

from __future__ import annotations

import hashlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.runner import Piece
from hwsync.runner.output import PIECE_INTERVAL_S, PIECES_PER_SECOND, Capture, Pieces


@given(chunks=st.lists(st.binary(max_size=8), max_size=12), limit=st.integers(0, 40))
def test_a_capture_keeps_the_start_and_hashes_all(chunks: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    pieces = [capture.feed(chunk) for chunk in chunks]
    pieces.append(capture.finish())
    everything = b"".join(chunks)
    whole = everything.decode("utf-8", "replace")
    assert capture.sha256 == hashlib.sha256(everything).hexdigest()
    assert "".join(pieces) == capture.text
    assert whole.startswith(capture.text)
    size = len(capture.text.encode())
    assert size <= limit
    assert capture.truncated == (capture.text != whole)
    if capture.truncated:  # it was cut as late as a whole character allows
        assert size + len(whole[len(capture.text)].encode()) > limit


def test_a_character_that_does_not_fit_whole_is_left_out() -> None:
    capture = Capture(4)
    assert capture.feed("aé😀".encode()) == "aé"
    assert capture.truncated
    assert capture.feed(b"b") == ""  # nothing after the cut, though it would fit
    assert capture.text == "aé"


def test_an_output_as_long_as_the_limit_is_whole() -> None:
    capture = Capture(3)
    capture.feed(b"abc")
    capture.finish()
    assert (capture.text, capture.truncated) == ("abc", False)


def test_a_character_may_come_in_parts_and_a_bad_byte_is_replaced() -> None:
    capture = Capture(100)
    assert [capture.feed(bytes([byte])) for byte in "é".encode()] == ["", "é"]
    assert capture.feed(b"\xff.\xe2\x82") == "\ufffd."
    assert capture.finish() == "\ufffd"
    assert capture.text == "é\ufffd.\ufffd"


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[int, str, str]] = []

    def __call__(self, piece: Piece) -> None:
        self.calls.append((piece.number, piece.stream, piece.text))


def test_the_first_piece_is_due_at_once_and_later_ones_are_gathered() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder)
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


def test_numbers_and_time_count_over_both_streams() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder)
    pieces.add("stdout", "o")
    pieces.send(1.0)
    pieces.add("stderr", "e")
    pieces.add("stdout", "p")
    pieces.send(1.01)
    assert pieces.due == 1.0 + PIECE_INTERVAL_S
    pieces.send(pieces.due)
    pieces.add("stderr", "f")
    pieces.send(pieces.due)
    assert recorder.calls == [(0, "stdout", "o"), (1, "stderr", "e"), (2, "stdout", "p")]
    pieces.flush()
    assert recorder.calls[3:] == [(3, "stderr", "f")]


def test_two_busy_streams_take_turns_at_ten_pieces_a_second() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder)
    for millisecond in range(1000):
        for stream in ("stdout", "stderr"):
            pieces.add(stream, "x")
        pieces.send(millisecond / 1000)
    assert len(recorder.calls) == PIECES_PER_SECOND
    assert [stream for _, stream, _ in recorder.calls[:4]] == ["stdout", "stderr"] * 2


def test_an_empty_text_is_no_piece() -> None:
    recorder = Recorder()
    pieces = Pieces(recorder)
    pieces.add("stdout", "")
    assert pieces.due is None
    pieces.flush()
    assert recorder.calls == []


def test_a_failing_callback_is_logged_once_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(piece: Piece) -> None:
        raise ConnectionError("no broker")

    pieces = Pieces(fail)
    with caplog.at_level(logging.WARNING, "hwsync.runner"):
        for text in "abc":
            pieces.add("stdout", text)
            pieces.flush()
    assert len(caplog.records) == 1
    assert "no broker" in caplog.text
