"""What the shell proposes while a command is typed: boards and groups, by their names.

The law: it says nothing, raises nothing and waits for nobody long: whoever presses the tabulator
wanted to type.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from hwsync.protocol.errors import HwsyncError

Completion = Callable[[click.Context, click.Parameter, str], list[str]]


def of_lab(kind: str) -> Completion:
    """Names of the lab's list: of ``boards``, ``groups`` or ``operators``."""

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
    from hwsync.cli.common import Settings
    from hwsync.cli.names import known

    settings = context.find_object(Settings) or Settings()
    before, comma, last = begun.rpartition(",")
    try:
        names = known(settings)
    except HwsyncError:
        return []
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]
