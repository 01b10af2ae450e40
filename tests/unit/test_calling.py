"""api.calling: which functions can be called on a board, and with what."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hwsync.api.calling import Call, make_call, value_in
from hwsync.protocol.errors import HwsyncError, UsageError

OUTSIDE = 3


def add(one: int, *more: float, twice: bool = False) -> float:
    print("adding")
    return sum([one, *more]) * (2 if twice else 1)


def recursive(number: int) -> int:
    return 1 if number < 2 else number * recursive(number - 1)


def with_a_class() -> str:
    import json

    class Inner:
        text = json.dumps([1])

        def get(self) -> str:
            return self.text

    return Inner().get()


def annotated(path: Path, of: math.inf = 0) -> Any:  # type: ignore[valid-type]
    return [path, of]


def uses_outside() -> int:
    return OUTSIDE + len(sys.argv)


def default_outside(number: int = OUTSIDE) -> int:
    return number


@functools.cache
def decorated() -> int:
    return 1


async def awaited() -> int:
    return 1


def around() -> Any:
    inner_value = 3

    def inner() -> int:
        return inner_value

    return inner


def nested() -> Any:
    def alone(number: int) -> int:
        return number + 1

    return alone


def run(call: Call) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", call.program], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("function", "args", "keywords", "value"),
    [
        (add, (1, 2, 0.5), {"twice": True}, 7.0),
        (recursive, (5,), {}, 120),
        (with_a_class, (), {}, "[1]"),
        (annotated, ("a\n'\"\\ü{}",), {"of": (1, {"k": None})}, ["a\n'\"\\ü{}", [1, {"k": None}]]),
        (nested(), (1,), {}, 2),
    ],
)
def test_it_is_called_there_and_its_value_comes_back(
    function: Any, args: Any, keywords: Any, value: object
) -> None:
    call = make_call(function, args, keywords)
    done = run(call)
    assert done.stderr == ""
    assert value_in(done.stdout, call) == value


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        (lambda: 1, (), "a lambda has no source"),
        (around(), (), "inner uses inner_value of the function around it"),
        ("text".upper, (), "no function that is written in Python"),
        (Path("x").exists, (), "exists is a method"),
        (print, (), "no function that is written in Python"),
        (uses_outside, (), "uses_outside uses OUTSIDE, sys, which stands outside of it"),
        (default_outside, (), "default_outside uses OUTSIDE"),
        (decorated, (), "no function that is written in Python"),
        (decorated.__wrapped__, (), "decorated is decorated"),
        (awaited, (), "awaited returns no value"),
        (add, ({1},), "an argument of add is a set"),
        (add, ([{1: 2}],), "has the key 1: in JSON keys are texts"),
        (add, (math.nan,), "an argument of add is nan"),
        (add, (b"x",), "is a bytes"),
        (add, (), "add: missing a required argument: 'one'"),
    ],
)
def test_what_cannot_go_is_said_before_it_is_sent(function: Any, args: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_call(function, args, {})


def test_a_list_that_contains_itself_is_none() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UsageError, match="nested too deeply"):
        make_call(recursive, (endless,), {})


def test_a_value_that_json_cannot_say_fails_there() -> None:
    def returns_a_set() -> Any:
        return {1}

    done = run(make_call(returns_a_set, (), {}))
    assert done.returncode == 1
    assert done.stderr.startswith("returns_a_set returned what JSON cannot say: Object of type set")


def test_an_output_that_was_cut_has_no_value() -> None:
    call = make_call(recursive, (3,), {})
    for stdout in ("", f"\n{call.mark}", f"\n{call.mark}[1, 2", "6"):
        with pytest.raises(HwsyncError, match="what recursive returned is not whole"):
            value_in(stdout, call)
