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
