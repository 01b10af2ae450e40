"""The command line ``hwsync``: one file for each group of commands, ``app`` puts them together."""

from __future__ import annotations

import gc
import sys

from hwsync.installing import install

NOT_ON_BOARDS = ("click", "peewee")  # what hwsync-device does without


def main() -> None:
    """The entry point. Ctrl-C while the commands are loaded is no traceback either."""
    # What is loaded stays: to look through it for garbage is a fifth of a short command's time.
    gc.disable()
    try:
        from hwsync.cli.app import start

        start()
    except ModuleNotFoundError as error:
        if not is_for_a_master(error):
            raise
        sys.exit(
            "hwsync: this is a board's installation: it has hwsync-device and no other command\n"
            f"  {error.name} is missing; what adds the rest: {install()}"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def is_for_a_master(error: Exception) -> bool:
    """Whether what is missing is a package that no board needs."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return (name or "").partition(".")[0] in NOT_ON_BOARDS
