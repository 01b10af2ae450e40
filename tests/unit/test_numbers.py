"""hwsync.numbers: what a program has printed, as columns."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.numbers import MAX_COLUMNS, columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("hello\n42\n", {}),
        ("x=1", {"x": [1]}),
        ("t=0 temp=21.5\nt=1 temp=21.7\n", {"t": [0, 1], "temp": [21.5, 21.7]}),
        ("temp = -1e3, hum=.5; p=+2.", {"temp": [-1000.0], "hum": [0.5], "p": [2.0]}),
        ("temp=1\nhum=2\ntemp=3\nhum=4", {"temp": [1, 3], "hum": [2, 4]}),
        ("say x=1 and so on, x=2!", {"x": [1, 2]}),
        ("x=1.2.3 y=0x10 z==1 a.b-c=2 9d=1", {"a.b-c": [2]}),
        ("x=21.5C x=1_000", {}),
        ("t,temp\n0,21.5\n1,21.7\ndone", {"t": [0, 1], "temp": [21.5, 21.7]}),
        ("t;temp\n0;21,5\n1;-21,7", {"t": [0, 1], "temp": [21.5, -21.7]}),
        ('"t"\t"u v"\n0\t1\n', {"t": [0], "u v": [1]}),
        ("1,2\n3,4", {"column1": [1, 3], "column2": [2, 4]}),
        ("a,b\n1,2\nc,d,e\n3,4,5", {"a": [1, math.nan], "b": [2, math.nan],
                                    "c": [math.nan, 3], "d": [math.nan, 4], "e": [math.nan, 5]}),
        ("a,a\n1,2", {"column1": [1], "column2": [2]}),
        ("Hello, world", {}),
        ("x=99999999999999999999", {"x": [1e20]}),
        ("x=nan x=-inf", {"x": [math.nan, -math.inf]}),
    ],
)  # fmt: skip
def test_numbers_become_columns(text: str, expected: dict[str, list[float]]) -> None:
    assert repr(columns(text)) == repr(expected)  # nan is not equal to itself


def test_a_row_that_lacks_a_value_has_nan() -> None:
    assert repr(columns("a=1 b=2\na=3\na=4 b=5")) == "{'a': [1, 3, 4], 'b': [2, nan, 5]}"


@given(st.text(alphabet='ab=,;\t\n 1.-e+"é٣', max_size=200))
def test_whatever_is_printed_all_columns_are_of_one_length(text: str) -> None:
    found = columns(text)
    assert len({len(column) for column in found.values()}) <= 1
    assert all(isinstance(value, int | float) for column in found.values() for value in column)


def test_what_is_printed_to_fill_the_memory_does_not() -> None:
    began = time.process_time()
    found = columns("".join(f"n{number}=1 " for number in range(40_000)) + "\nn1=1" * 60_000)
    assert len(found) == MAX_COLUMNS
    columns("a" * 1_000_000 + "=" * 10 + "1,2" * 100_000 + "-" * 100_000)
    assert time.process_time() - began < 20.0


@pytest.mark.parametrize("text", ["-a", "a.-", "a=" + "1" * 50_000, "1,", "a =", "x=1e", "=.1"])
def test_no_line_takes_longer_than_its_length(text: str) -> None:
    """An output is whatever a board says; 250 KB of it took an hour."""
    line = (text * (250_000 // len(text))) + "x"
    began = time.process_time()
    columns(line)
    assert time.process_time() - began < 5.0
