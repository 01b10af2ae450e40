"""What the shell proposes while a command is typed: boards and groups, by their names.

The law: it says nothing, raises nothing and waits for nobody long: whoever presses the tabulator
wanted to type.
"""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from hwsync.protocol.errors import HwsyncError

Completion = Callable[[click.Context, click.Parameter, str], list[str]]


def of_lab(kind: str) -> Completion:
    """Names of the lab's list: of ``boards``, ``groups``, ``operators`` or ``analysts``."""

    def complete(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
        from hwsync.cli.labs import folder_of

        folder = context.params.get("folder") or folder_of(None)
        try:
            names = folder.groups.entries if kind == "groups" else getattr(folder.accounts, kind)
        except HwsyncError:
            return []
        return [name for name in names if name.startswith(begun)]

    return complete


def of_broker(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Boards that the coordinator has heard, and groups with their ``@``, as the broker keeps them.

    Behind a comma the next board of a list.
    """
    before, comma, last = begun.rpartition(",")
    return [f"{before}{comma}{name}" for name in _known(context) if name.startswith(last)]


def of_ids(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """The ids of the boards' present or last commands; of that board, where one is named."""
    named = str(context.params.get("user") or context.params.get("target") or "")
    boards = named.split(",") if named else None
    return [id for id in _known(context, ids=True, boards=boards) if id.startswith(begun)]


def of_both(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Boards, groups, and ids."""
    both = _known(context) + _known(context, ids=True)
    return [name for name in both if name.startswith(begun)]


def of_files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """The shell knows them."""
    return [CompletionItem(begun, type="file")]


def _known(
    context: click.Context, *, ids: bool = False, boards: list[str] | None = None
) -> list[str]:
    from hwsync.cli.common import Settings
    from hwsync.cli.names import known, last_ids

    settings = context.find_object(Settings) or Settings()
    try:
        return last_ids(settings, boards) if ids else known(settings)
    except HwsyncError:
        return []
