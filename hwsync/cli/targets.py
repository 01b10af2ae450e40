"""What stands where a board can: ``pi1``, several boards ``pi1,pi2``, or a group ``@lab1``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click

from hwsync.cli.common import F, command_id
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import ALL, SIGN
from hwsync.protocol.limits import USER_FORM, is_user

EVERYBODY: Final = f"{SIGN}{ALL}"


@dataclass(frozen=True, slots=True)
class Target:
    """One board, several by their names, or a group: ``group`` is its name, empty for boards."""

    boards: tuple[str, ...] = ()
    group: str = ""

    @property
    def board(self) -> str | None:
        """Where it is one; None: several are meant, or a group."""
        return self.boards[0] if len(self.boards) == 1 else None

    @property
    def user(self) -> str:
        """What stands for a group in a topic."""
        return f"{SIGN}{self.group}"

    def __str__(self) -> str:
        return self.user if self.group else ",".join(self.boards)


def target(text: str) -> Target:
    """For an argument. Raises ``click.BadParameter``."""
    if text.startswith(SIGN):
        name = text.removeprefix(SIGN)
        if "," in name:
            first = text.partition(",")[0]
            raise click.BadParameter(f"{text!r}: a group stands by itself, without boards: {first}")
        if not is_user(name):
            raise click.BadParameter(f"{text!r} is no group: {SIGN} and {USER_FORM}")
        return Target(group=name)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not is_user(name):
            hint = f"; a group stands by itself: {name}" if name.startswith(SIGN) else ""
            raise click.BadParameter(f"{name!r} is no board's name: {USER_FORM}{hint}")
    found = tuple(dict.fromkeys(names))
    if len(found) > limits.MAX_BATCH_LIST:
        raise click.BadParameter(f"{len(found):,} boards: make a group of them")
    return Target(found)


def one_or_all(words: Target | None, everybody: bool) -> Target:
    """The target of a command with ``--all``. Raises ``UsageError``."""
    if everybody:
        if words is not None and words != Target(group=ALL):
            raise UsageError(f"--all and {words}", "one of them")
        return Target(group=ALL)
    if words is None:
        raise UsageError("which board?", "BOARD, several as pi1,pi2, a group as @lab1, or --all")
    return words


def check_words(words: Target | None, everybody: bool, file: str | None, code: str | None) -> None:
    """What stands where ``run`` and ``send`` have BOARD and FILE. Raises ``UsageError``."""
    if everybody and file is not None and file.startswith(SIGN) and not os.path.exists(file):
        raise UsageError(f"--all and {file}", "one of them")
    if file is None and code is None and words is not None and os.path.isfile(str(words)):
        raise UsageError(
            f"{words} stands where the board does", f"hwsync run BOARD {words}; or --all, or @lab1"
        )


def everybody_option(help: str) -> Callable[[F], F]:
    """``--all``."""
    return click.option("--all", "everybody", is_flag=True, help=help)


def group_or_id(text: str) -> str:
    """For an argument that may be a group, or else an id or a board: as it was typed."""
    return str(target(text)) if text.startswith(SIGN) else command_id(text)
