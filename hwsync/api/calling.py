"""A function that is called on a board: its source and its arguments become a program.

The law: nothing is pickled. What goes there is text that anybody can read, and JSON; what cannot go
is refused here, before anything is sent, with what to do. What comes back is JSON, and believed no
more than any output.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import secrets
import textwrap
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwsync.protocol.errors import HwsyncError, UsageError
from hwsync.protocol.jsons import loads

DEEPEST: Final = 50  # lists and objects inside each other
MARK: Final = "hwsync-value-"

_PROGRAM: Final = """\
from __future__ import annotations
{source}

if __name__ == "__main__":
    import json as _json, sys as _sys
    _value = {name}(*_json.loads({args!r}), **_json.loads({keywords!r}))
    try:
        _text = _json.dumps(_value, allow_nan=False)
    except (TypeError, ValueError) as _error:
        _sys.exit("{name} returned what JSON cannot say: " + str(_error))
    print("\\n{mark}" + _text)
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A program that calls a function, and the mark before what that returns."""

    program: str
    name: str
    mark: str


def make_call(function: object, args: Sequence[Any], keywords: Mapping[str, Any]) -> Call:
    """Raises ``UsageError``: what of it cannot go to a board."""
    checked = _checked(function)
    source = _source(checked)
    name = checked.__name__
    if unknown := sorted(_unknown_names(source, name)):
        raise UsageError(
            f"{name} uses {', '.join(unknown)}, which stands outside of it",
            "import within the function, and hand everything else over as arguments",
        )
    for what, value in [("an argument", one) for one in args] + list(keywords.items()):
        _check_json(f"{what} of {name}" if what == "an argument" else f"{name}'s {what}", value)
    try:
        inspect.signature(checked).bind(*args, **keywords)
    except TypeError as error:
        raise UsageError(f"{name}: {error}") from None
    mark = f"{MARK}{secrets.token_hex(8)} "
    program = _PROGRAM.format(
        source=source,
        name=name,
        mark=mark,
        args=json.dumps(list(args)),
        keywords=json.dumps(dict(keywords)),
    )
    return Call(program, name, mark)


def value_in(stdout: str, call: Call) -> Any:
    """What the function returned. Raises ``HwsyncError`` where its output does not say it whole."""
    _, found, text = stdout.rpartition(f"\n{call.mark}")
    try:
        if found:
            return loads(text.strip())
    except ValueError:
        pass
    raise HwsyncError(
        f"what {call.name} returned is not whole in its output",
        "a board keeps 256 KiB of an output: return less, or print less",
    )


def _checked(function: object) -> types.FunctionType:
    if isinstance(function, types.MethodType):
        raise UsageError(
            f"{function.__name__} is a method: its object cannot go to a board",
            "make it a function with arguments",
        )
    if not isinstance(function, types.FunctionType):
        raise UsageError(f"{function!r} is no function that is written in Python")
    name = function.__name__
    if name == "<lambda>":
        raise UsageError("a lambda has no source of its own", "def f(...): return ...")
    if function.__closure__:
        inner = ", ".join(function.__code__.co_freevars)
        raise UsageError(
            f"{name} uses {inner} of the function around it", "hand it over as an argument"
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or (
        inspect.isasyncgenfunction(function)
    ):  # fmt: skip
        raise UsageError(
            f"{name} returns no value that JSON can say: it is async, or yields",
            "make it one that returns a list or a number",
        )
    return function


def _source(function: types.FunctionType) -> str:
    """Its text, as it would stand in a file. Raises ``UsageError``."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
        (tree,) = ast.parse(source).body
    except (OSError, TypeError, SyntaxError, ValueError):
        raise UsageError(
            f"the source of {function.__name__} is not to be had",
            "write it in a file or in a notebook's cell",
        ) from None
    if not isinstance(tree, ast.FunctionDef) or tree.name != function.__name__:
        raise UsageError(f"{function.__name__} is not the function that its source has")
    if tree.decorator_list:
        raise UsageError(
            f"{function.__name__} is decorated, and its decorator stands outside of it",
            "call one that is not",
        )
    return source


def _unknown_names(source: str, name: str) -> set[str]:
    """What it needs of the module around it."""
    import symtable

    waiting = [symtable.symtable(f"from __future__ import annotations\n{source}", name, "exec")]
    used: set[str] = set()
    known = {*vars(builtins), "__name__", name}
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_assigned():
                known.add(symbol.get_name())
            elif symbol.is_global() and symbol.is_referenced():
                used.add(symbol.get_name())
    return used - known


def _check_json(what: str, value: Any, depth: int = 0) -> None:
    """Raises ``UsageError`` for what would arrive otherwise, or not at all."""
    if depth > DEEPEST:
        raise UsageError(f"{what} is nested too deeply, or contains itself")
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if value - value == 0:  # neither infinite nor nan
            return
        raise UsageError(f"{what} is {value}, which JSON cannot say")
    if isinstance(value, list | tuple):
        for one in value:
            _check_json(what, one, depth + 1)
        return
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):
                raise UsageError(f"{what} has the key {key!r}: in JSON keys are texts")
            _check_json(what, one, depth + 1)
        return
    hint = "numbers, texts, lists and dicts can go; of numpy: array.tolist(), number.item()"
    raise UsageError(f"{what} is a {type(value).__name__}, which JSON cannot say", hint)
