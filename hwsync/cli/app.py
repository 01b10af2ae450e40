"""All commands, and how they end.

Exit codes: 0; 1 refused or not found; 2 wrong usage; 125 no broker or no coordinator; ``run`` ends
as its program did. No traceback reaches a person (HWSYNC_DEBUG=1 asks for one).
"""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback

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
from hwsync.protocol.errors import HwsyncError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hwsync.__version__, prog_name="hwsync")
@common
def cli() -> None:
    """Run programs on a lab's boards over MQTT and know exactly what happened."""


for group in (services, up, run, operate, records, database, doctor, lab, key, service):
    for command in group.COMMANDS:
        cli.add_command(command)
cli.add_command(operate.analyse, "analyze")


def start() -> None:
    """Run the command that was typed; ends the process with its exit code."""
    settings = Settings()
    debug = bool(os.environ.get("HWSYNC_DEBUG"))
    # A command says itself what went wrong; what it does not know of is a fault of hwsync.
    logs.setup("hwsync", debug, logging.ERROR)
    try:
        cli.main(obj=settings, standalone_mode=False)
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
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        say.line(f"hwsync: {type(error).__name__}: {error}; this is a bug of hwsync", err=True)
        for line in traceback.format_exc().splitlines() if debug else ():
            say.line(line, err=True)
        sys.exit(1)
