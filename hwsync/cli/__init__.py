"""The command line ``hwsync``: one file for each group of commands, ``app`` puts them together."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point. Ctrl-C while the commands are loaded is no traceback either."""
    try:
        from hwsync.cli.app import start

        start()
    except KeyboardInterrupt:
        sys.exit(130)
