"""hwsync with one safeguard switched off: the checker must find out, or it has a hole.

The law: a mutant is a change of the production code's own text, which must be there exactly once,
so that a mutant dies loudly when the code moves on. Where another safeguard covers the one in
question, both are switched off; the cover alone (``cover``) must then be harmless in that world, or
the mutant would prove nothing.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: in that function, that text becomes another."""

    owner: type | ModuleType
    function: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A safeguard, and how it is switched off; ``covered_by``: what is switched off with it.

    ``faults``: the only kinds in its worlds, where others would hide what it is for; empty: all.
    ``largest``: its worlds' brokers have a limit of what they take; ``broker``: whose habits;
    ``instants``: in its worlds boards begin at instants; ``files``: files go along and come back;
    ``analysts``: there are any.
    """

    name: str
    edits: tuple[Edit, ...]
    covered_by: str = ""
    cover: tuple[Edit, ...] = ()
    faults: tuple[str, ...] = ()
    largest: bool = False
    broker: str | None = None
    instants: bool | None = None
    files: bool | None = None
    analysts: bool | None = None


@contextmanager
def changed(edits: tuple[Edit, ...]) -> Iterator[None]:
    """hwsync with these changes, for all of this process; as it was again at the end.

        with changed(mutant.edits):
            report = World(seed=1, folder=path).run()

    Raises ``ValueError`` where a text is not there exactly once: the code has moved on, and the
    mutant is to be moved with it.
    """
    before: list[tuple[FunctionType, CodeType]] = []
    texts: dict[FunctionType, str] = {}
    try:
        for edit in edits:
            # Within what wraps it: a decorator stays as it is.
            function = inspect.unwrap(inspect.getattr_static(edit.owner, edit.function))
            if not isinstance(function, FunctionType):
                raise ValueError(f"{edit.function} is no plain function")
            text = texts.get(function) or _source(function)
            if text.count(edit.old) != 1:
                raise ValueError(f"{edit.function} has {edit.old!r} {text.count(edit.old)} times")
            texts[function] = text.replace(edit.old, edit.new)
            before.append((function, function.__code__))
            # In place: whoever holds the function has the changed one.
            function.__code__ = _compiled(edit.function, texts[function], function)
        yield
    finally:
        for function, code in reversed(before):
            function.__code__ = code


def _source(function: FunctionType) -> str:
    """Its text without decorators."""
    text = textwrap.dedent(inspect.getsource(function))
    return text[text.index("def ") :]


def _compiled(name: str, text: str, function: FunctionType) -> CodeType:
    space = dict(function.__globals__)
    exec(compile(text, f"<{name}, changed>", "exec"), space)
    new: FunctionType = space[name]
    return new.__code__
