"""All commands, and how they end.

The exit codes stand in ``help``; 141: nobody reads the output any more. No traceback reaches a
person (HWSYNC_DEBUG=1 asks for one).
"""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import sys
import traceback
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import click

import hwsync
from hwsync import logs
from hwsync.cli import NOT_ON_BOARDS, is_for_a_master, say
from hwsync.cli.common import Settings, common, fail
from hwsync.cli.help import finish, write_commands, write_exit_codes
from hwsync.protocol.errors import HwsyncError, OutputError

UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

PLACES: Final = {
    **dict.fromkeys(("coordinator", "broker"), "services"),
    "up": "up",
    **dict.fromkeys(("run", "send"), "run"),
    **dict.fromkeys(("status", "analyse", "analyze", "cancel", "reset"), "operate"),
    "get": "get",
    **dict.fromkeys(("history", "export"), "records"),
    "show": "show",
    **dict.fromkeys(("wait", "logs"), "following"),
    "grades": "grades",
    "regrade": "regrade",
    "replay": "replay",
    **dict.fromkeys(("receipt", "verify"), "receipts"),
    "sync": "sync",
    "why": "why",
    "modules": "modules",
    "completion": "completing",
    **dict.fromkeys(("backup", "restore", "forget", "check-db"), "database"),
    "import-original": "original",
    "doctor": "doctor",
    **dict.fromkeys(("init", "device", "operator"), "lab"),
    "group": "group",
    "key": "key",
    "analyst": "analyst",
    "service": "service",
}
"""In which module of this package each command is."""
OTHER_NAMES: Final = {"analyze": "analyse"}


class Commands(click.Group):
    """A command's module is loaded when the command is typed: all of them take twice as long."""

    def list_commands(self, _: click.Context) -> list[str]:
        return sorted(PLACES)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in PLACES:
            return None
        module = import_module(f"hwsync.cli.{PLACES[name]}")
        wanted = OTHER_NAMES.get(name, name)
        if not gc.isenabled():  # until here, by ``main``
            gc.freeze()
            gc.enable()
        commands: tuple[click.Command, ...] = module.COMMANDS
        return finish(next(one for one in commands if one.name == wanted), wanted)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """First the commands in groups, without loading any of them.

        Raises ``ModuleNotFoundError`` where this is a board's installation.
        """
        for name in NOT_ON_BOARDS:
            if find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        write_commands(formatter, PLACES)
        click.Command.format_options(self, context, formatter)
        write_exit_codes(formatter)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What may have been meant is said, too."""
        from difflib import get_close_matches

        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], PLACES, 1) if args else []
            if not near:
                raise
            said = f"{error.message.rstrip('.')}; did you mean {near[0]}?"
            raise click.UsageError(said, context) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hwsync.__version__, prog_name="hwsync")
@common
def cli() -> None:
    """Run programs on a lab's boards over MQTT and know exactly what happened.

    \b
    hwsync run pi1 blink.py     runs a program on the board pi1
    hwsync status               says which boards there are
    hwsync COMMAND --help       says what else a command can do
    """


def start() -> None:
    """Run the command that was typed; ends the process with its exit code."""
    try:
        _start(Settings())
    except OutputError as error:  # what went wrong cannot be said either
        sys.exit(error.exit_code)


def _start(settings: Settings) -> None:
    debug = bool(os.environ.get("HWSYNC_DEBUG"))
    # A command says itself what went wrong; what it does not know of is a fault of hwsync.
    logs.setup("hwsync", debug, logging.ERROR)
    try:
        _run(settings)
    except HwsyncError as error:
        fail(error, settings)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        for line in said.getvalue().splitlines():
            say.line(line, err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if is_for_a_master(error):
            raise
        say.line(f"hwsync: {type(error).__name__}: {error}; this is a bug of hwsync", err=True)
        for line in traceback.format_exc().splitlines() if debug else ():
            say.line(line, err=True)
        sys.exit(1)


def _run(settings: Settings) -> None:
    """click writes ``--help`` by itself."""
    try:
        cli.main(obj=settings, standalone_mode=False)
    except OSError as error:
        if error.filename is None and error.errno in UNWRITABLE:
            say.cannot_write(error)
        raise
