"""All commands, and how they end.

Exit codes: 0; 1 refused or not found; 2 wrong usage; 3 another coordinator is there; 74 the output
cannot be written (141: nobody reads it any more); 125 no broker or no coordinator; ``run`` ends as
its program did. No traceback reaches a person (HWSYNC_DEBUG=1 asks for one).
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import traceback
from typing import Final

import click

import hwsync
from hwsync import logs
from hwsync.cli import (
    database,
    doctor,
    key,
    lab,
    operate,
    records,
    run,
    say,
    service,
    services,
    up,
)
from hwsync.cli.common import Settings, common, fail
from hwsync.protocol.errors import HwsyncError, OutputError

UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hwsync.__version__, prog_name="hwsync")
@common
def cli() -> None:
    """Run programs on a lab's boards over MQTT and know exactly what happened.

    Exit codes: 1 refused or not found, 2 wrong usage, 74 the output cannot be written, 125 nobody
    answers; run ends as its program did.
    """


for group in (services, up, run, operate, records, database, doctor, lab, key, service):
    for command in group.COMMANDS:
        cli.add_command(command)
cli.add_command(operate.analyse, "analyze")


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
