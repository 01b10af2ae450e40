"""operator.streams: what is shown of a run, whatever was lost, thinned or cut on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.operator import streams
from hwsync.operator.streams import TEXTS, Streams
from hwsync.protocol.output import GAP_ROOM, Ends, order_kept
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.schema import Json

WRITTEN = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from(["a\n", "é", "😀x\n", "b"])),
    max_size=40,
)
PATHS = st.lists(st.sampled_from(["sent", "sent", "lost", "thinned", "twice"]), max_size=40)
FILES = {"stdout", "stderr"}
NOTE = re.compile(r"\[hwsync: ([0-9,]+) bytes (?:were lost on the way|left out)\]\n")


@dataclass
class Seen:
    """A sink that keeps all that it was given."""

    parts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def program(self, stream: str, text: str) -> None:
        if text:
            self.parts.append((stream, text))

    def note(self, stream: str, text: str) -> None:
        self.notes.append(text)
        self.parts.append((stream, f"{text}\n"))

    def text(self, stream: str) -> str:
        return "".join(text for one, text in self.parts if one == stream)

    @property
    def in_order(self) -> str:
        return "".join(text for _, text in self.parts)


def piece(n: int, text: str, stream: str = "stdout", **more: Any) -> Json:
    return {"id": "c1", "n": n, "stream": stream, "text": text, **more}


def end(stdout: str = "", stderr: str = "", *, truncated: bool = False, **more: Any) -> Json:
    return {"hw_response": stdout, "stderr": stderr, "truncated": truncated, **more}


def hear(streams: Streams, *pieces: Json) -> None:
    for one in pieces:
        streams.hear(TopicKind.OUTPUT, one)


def sent(written: list[tuple[str, str]], paths: list[str]) -> list[Json]:
    """The pieces of a device that arrive."""
    arrived: list[Json] = []
    n, passed, skipped = 0, dict.fromkeys(TEXTS, 0), dict.fromkeys(TEXTS, 0)
    for at, (stream, text) in enumerate(written):
        path = paths[at] if at < len(paths) else "sent"
        size = len(text.encode())
        if path == "thinned":
            skipped[stream] += size
        else:
            made = piece(n, text, stream, at=passed[stream])
            made |= {"skipped": skipped[stream]} if skipped[stream] else {}
            n, skipped[stream] = n + 1, 0
            arrived += [made] * {"sent": 1, "lost": 0, "twice": 2}[path]
        passed[stream] += size
    return arrived


def ended(written: list[tuple[str, str]], limit: int, *, order: bool = True) -> Json:
    """The end that the device tells, with texts of at most ``limit`` bytes."""
    ends = {stream: Ends(limit) for stream in TEXTS}
    for stream, text in written:
        ends[stream].add(text)
    kept = {stream: one.kept() for stream, one in ends.items()}
    pairs = order_kept([(stream, len(text.encode())) for stream, text in written], kept)
    told = [list(pair) for pair in pairs or ()] if order else None
    cut = any(one.truncated for one in kept.values())
    return end(kept["stdout"].text, kept["stderr"].text, truncated=cut, order=told)


def whole(written: list[tuple[str, str]], stream: str) -> str:
    return "".join(text for one, text in written if one == stream)


# What is exact


@given(written=WRITTEN, paths=PATHS, together=st.booleans(), order=st.booleans())
def test_a_file_gets_the_final_text_whatever_was_lost(
    written: list[tuple[str, str]], paths: list[str], together: bool, order: bool
) -> None:
    seen = Seen()
    run = Streams("c1", seen, FILES, together=together)
    hear(run, *sent(written, paths))
    run.finish(ended(written, 10_000, order=order))
    for stream in TEXTS:
        assert seen.text(stream) == whole(written, stream)
    assert (seen.notes, run.missing) == ([], 0)


@given(written=WRITTEN, paths=st.lists(st.sampled_from(["sent", "lost", "twice"]), max_size=40))
def test_one_file_gets_both_streams_in_their_order(
    written: list[tuple[str, str]], paths: list[str]
) -> None:
    seen = Seen()
    run = Streams("c1", seen, FILES, together=True)
    hear(run, *sent(written, paths))
    run.finish(ended(written, 10_000))
    assert seen.in_order == "".join(text for _, text in written)


@given(written=WRITTEN, paths=PATHS, limit=st.integers(GAP_ROOM, 90), files=st.booleans())
def test_every_byte_is_shown_once_or_said_to_be_missing(
    written: list[tuple[str, str]], paths: list[str], limit: int, files: bool
) -> None:
    seen = Seen()
    run = Streams("c1", seen, FILES if files else ())
    hear(run, *sent(written, paths))
    told = ended(written, limit)
    run.finish(told)
    for stream in TEXTS:
        text = whole(written, stream)
        pattern, at = "", 0
        shown = seen.text(stream).replace(", within a line", "")
        for match in NOTE.finditer(shown):
            # A line of ours may begin with a newline that is no output.
            pattern += re.escape(shown[at : match.start()]).removesuffix("\\\n") + "\n?"
            pattern += f"(?s:.{{1,{match[1].replace(',', '')}}})"
            at = match.end()
        pattern += re.escape(shown[at:])
        assert re.fullmatch(pattern.replace("\\\n\n?", "\n?"), text), (shown, text)
    count = sum(int(match[1].replace(",", "")) for match in NOTE.finditer(
        "".join(seen.text(stream) for stream in TEXTS).replace(", within a line", "")))  # fmt: skip
    assert run.missing == count


@given(written=WRITTEN)
def test_where_nothing_is_lost_each_piece_is_shown_as_it_comes(
    written: list[tuple[str, str]],
) -> None:
    seen = Seen()
    run = Streams("c1", seen)
    hear(run, *sent(written, []))
    assert seen.parts == written
    run.finish(ended(written, GAP_ROOM))
    assert seen.parts == written


# A person looks on


def test_a_lost_piece_is_said_and_the_next_is_shown() -> None:
    seen = Seen()
    run = Streams("c1", seen)
    hear(run, piece(0, "a\n", at=0), piece(2, "c\n", at=2_002))
    assert seen.text("stdout") == "a\n[hwsync: 2,000 bytes were lost on the way]\nc\n"
    run.finish(end("a\n" + "b" * 2_000 + "c\nd\n"))
    assert seen.text("stdout").endswith("way]\nc\nd\n")
    assert run.missing == 2_000


def test_what_the_device_did_not_send_is_said() -> None:
    seen = Seen()
    run = Streams("c1", seen)
    hear(
        run, piece(0, "a", at=0), piece(1, "d", at=11, skipped=10), piece(3, "g", at=30, skipped=5)
    )
    assert seen.notes == [
        "[hwsync: 10 bytes left out]",
        "[hwsync: 13 bytes were lost on the way]",
        "[hwsync: 5 bytes left out]",
    ]


def test_what_is_old_or_repeated_or_anothers_is_passed_over() -> None:
    seen = Seen()
    run = Streams("c1", seen)
    hear(run, piece(0, "a", at=0), piece(1, "b", at=1), piece(0, "a", at=0), piece(1, "b", at=1))
    hear(run, {**piece(2, "x", at=2), "id": "c2"}, piece(2, "x", "stdlog", at=2))
    run.hear(TopicKind.STATUS, piece(2, "x", at=2))
    run.hear(TopicKind.OUTPUT, {})  # an empty message
    hear(run, piece(3, "x", at=1))  # a place that was shown already
    run.finish(end("abc"))
    assert seen.in_order == "abc"


@pytest.mark.parametrize("more", [{}, {"at": None}], ids=str)
def test_an_older_device_does_not_say_the_place(more: Json) -> None:
    seen = Seen()
    run = Streams("c1", seen)
    for n, text in ((0, "a"), (0, "a"), (1, "é"), (3, "lost"), (4, "on")):
        hear(run, piece(n, text, **more))
    assert seen.text("stdout") == "aé"
    run.finish(end("aé and the rest"))
    assert (seen.text("stdout"), seen.notes) == ("aé and the rest", [])


def test_null_is_no_number_of_skipped_bytes() -> None:
    seen = Seen()
    hear(Streams("c1", seen), piece(0, "a", at=7, skipped=None))
    assert seen.notes == ["[hwsync: 7 bytes were lost on the way]"]


def test_a_live_output_that_was_forged_does_not_hide_the_programs() -> None:
    seen = Seen()
    run = Streams("c1", seen)
    hear(run, piece(2**50, "forged", at=2**50))
    run.finish(end("true\n"))
    assert seen.text("stdout").endswith("this is:]\ntrue\n")


# The order of the rest


def test_the_rest_comes_in_the_order_in_which_it_was_written() -> None:
    seen = Seen()
    run = Streams("c1", seen)
    hear(run, piece(0, "1", at=0))
    order = [["stdout", 2], ["stderr", 1], ["stdout", 1], ["stderr", 2]]
    run.finish(end("12é"[:2] + "4", "356", order=order))
    assert seen.parts[1:] == [("stdout", "2"), ("stderr", "3"), ("stdout", "4"), ("stderr", "56")]


@pytest.mark.parametrize(
    "order",
    [
        None, [], [["stdout", 2]], [["stdout", 4], ["stderr", 2]],
        [["stdout", 3], ["stderr", 1]], [["stdout", 1], ["stderr", 2], ["stdout", 2]],
        [["stdlog", 1]],
    ],
)  # fmt: skip
def test_an_order_that_is_none_is_standard_output_first(order: Any) -> None:
    """Among them one that parts a character."""
    seen = Seen()
    Streams("c1", seen).finish(end("é1", "22", order=order))
    assert seen.parts == [("stdout", "é1"), ("stderr", "22")]


def test_an_order_that_parts_the_line_of_the_gap_is_none() -> None:
    text = "a\n[hwsync: 90 bytes left out]\nb\n"
    for first in (2, 3, 20, len(text) - 2):
        seen = Seen()
        order = [["stdout", first], ["stderr", 1], ["stdout", len(text) - first]]
        Streams("c1", seen).finish(end(text, "2", truncated=True, order=order))
        parted = first in (2, len(text) - 2)
        expected = text[:first] + "2" + text[first:] if parted else f"{text}2"
        assert seen.in_order == expected


# Held back, and what is cut


def test_a_file_is_held_back_and_the_other_one_goes_on() -> None:
    seen = Seen()
    run = Streams("c1", seen, {"stdout"})
    hear(run, piece(1, "b", at=1), piece(2, "c", at=2), piece(3, "e", "stderr", at=0))
    hear(run, piece(5, "g", "stderr", at=2))
    assert seen.parts == [
        ("stderr", "e"), ("stderr", "[hwsync: 1 bytes were lost on the way]\n"), ("stderr", "g"),
    ]  # fmt: skip
    run.finish(end("abc", "efg"))
    assert seen.text("stdout") == "abc"


def test_a_file_is_not_held_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a final text can have is not waited for."""
    monkeypatch.setattr(streams, "MOST_HELD", 10)
    seen = Seen()
    run = Streams("c1", seen, FILES)
    hear(run, piece(1, "12345\n", at=4), piece(2, "1234", at=10))
    assert seen.parts == []
    hear(run, piece(3, "6", at=14))
    assert seen.text("stdout") == "[hwsync: 4 bytes were lost on the way]\n12345\n12346"
    hear(run, piece(4, "7", at=15))
    assert seen.text("stdout").endswith("123467")


def test_what_was_held_back_fills_the_gap_of_a_text_that_was_cut() -> None:
    text = "".join(f"{n:03}\n" for n in range(100))
    ends = Ends(200)
    ends.add(text)
    seen = Seen()
    run = Streams("c1", seen, FILES)
    hear(
        run, piece(0, text[:20], at=0), piece(2, text[40:240], at=40), piece(4, text[280:], at=280)
    )
    assert seen.in_order == text[:20]
    run.finish(end(ends.kept().text, truncated=True))
    assert seen.text("stdout") == text[:240] + "[hwsync: 40 bytes left out]\n" + text[280:]


def test_the_line_of_a_text_that_was_cut_says_what_is_missing_here() -> None:
    text = "".join(f"{n:03}\n" for n in range(100))
    ends = Ends(200)
    ends.add(text)
    kept = ends.kept()
    seen = Seen()
    run = Streams("c1", seen)
    hear(run, piece(0, text[:160], at=0))
    run.finish(end(kept.text, truncated=True))
    missing = kept.head + kept.left_out - 160
    assert seen.text("stdout") == (
        f"{text[:160]}[hwsync: {missing} bytes left out]\n{text[160 + missing :]}"
    )
    assert run.missing == missing
