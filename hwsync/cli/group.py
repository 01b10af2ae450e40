"""``hwsync group``: the groups of a lab of ``hwsync init``, and who may use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from hwsync.cli import say
from hwsync.cli.common import JSON, Settings
from hwsync.cli.completion import of_lab
from hwsync.cli.labs import LAB, report_change
from hwsync.lab.accounts import Accounts
from hwsync.lab.folder import Folder
from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import SIGN, check_entry, check_name, is_pattern

SHOWN: Final = 10  # boards of a list that is shown to people


def group_name(text: str) -> str:
    """For an argument: a group's name, with its @ or without."""
    name = text.removeprefix(SIGN)
    check_name(name)
    return name


NAME = click.argument("name", type=group_name, shell_complete=of_lab("groups"))


@click.group()
def group() -> None:
    """The groups of a lab: names for several boards, as in `hwsync run @lab1 FILE`."""


@group.command("set")
@JSON
@LAB
@NAME
@click.argument(
    "entries",
    metavar="BOARD...",
    nargs=-1,
    required=True,
    shell_complete=of_lab("boards"),
)
@click.pass_obj
def set_group(settings: Settings, name: str, entries: tuple[str, ...], folder: Folder) -> None:
    """Have the group NAME consist of these boards.

    BOARD may be a pattern in quotes, such as 'bench-*' (* any characters, ? one): it also means
    boards that come later. Several boards may stand in one word, with commas between.
    """
    found = tuple(word.strip() for entry in entries for word in entry.split(",") if word.strip())
    if not found:
        raise UsageError("no boards", f"hwsync group set {name} pi1 pi2")
    for entry in found:
        check_entry(name, entry)
    draft = folder.set_group(name, found)
    members = draft.groups.members(name, draft.accounts.boards) or ()
    said = f"{SIGN}{name}: {', '.join(found)}"
    if patterns := [entry for entry in found if is_pattern(entry)]:
        said += f"\n  now {_few(members)}; {', '.join(patterns)} also means boards that come later"
    report_change(settings, folder, draft, said)


@group.command("remove")
@JSON
@LAB
@NAME
@click.pass_obj
def remove_group(settings: Settings, name: str, folder: Folder) -> None:
    """Take the group NAME away; its boards stay, and its operators lose it."""
    report_change(settings, folder, folder.remove_group(name), f"there is no group {name} any more")


@group.command("list")
@JSON
@LAB
@click.pass_obj
def list_groups(settings: Settings, folder: Folder) -> None:
    """The groups: what the file says, the boards that it means now, who may use them."""
    accounts, groups = folder.accounts, folder.groups
    for name, entries in groups.entries.items():
        members = list(groups.members(name, accounts.boards) or ())
        users = _users(accounts, name)
        value = {"name": name, "entries": list(entries), "boards": members, "operators": users}
        text = f"{SIGN}{name}: {', '.join(entries) or 'no board'}"
        if any(map(is_pattern, entries)):
            text += f"  (now {_few(members)})"
        say.either(settings.as_json, value, f"{text}; for {_few(users, 'nobody')}")
    if not groups.entries and not settings.as_json:
        say.line("there is no group: hwsync group set NAME BOARD...", err=True)


def _users(accounts: Accounts, name: str) -> list[str]:
    """The operators who may send programs to that group."""
    return [
        operator
        for operator, rights in sorted(accounts.operators.items())
        if not rights.read_only and (rights.boards is None or name in rights.groups)
    ]


def _few(names: Sequence[str], none: str = "no board") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more or none


COMMANDS = (group,)
