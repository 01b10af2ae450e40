"""The command line ``hwsync``: one file for each group of commands.

Exit codes: 0; 1 refused or not found; 2 wrong usage; 125 no broker or no coordinator; ``run`` ends
as its program did. No traceback reaches a person (HWSYNC_DEBUG=1 asks for one).
"""

from __future__ import annotations

import os
import sys
import traceback

import click

import hwsync
from hwsync.cli import operate, records, run, services, up
from hwsync.cli.common import Settings, common, fail
from hwsync.protocol.errors import HwsyncError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hwsync.__version__, prog_name="hwsync")
@common
def cli() -> None:
    """Run programs on a lab's boards over MQTT and know exactly what happened."""


for group in (services, up, run, operate, records):
    for command in group.COMMANDS:
        cli.add_command(command)
cli.add_command(operate.analyse, "analyze")


def main() -> None:
    """The entry point."""
    settings = Settings()
    try:
        cli.main(obj=settings, standalone_mode=False)
    except HwsyncError as error:
        fail(error, settings)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        click.echo(f"hwsync: {type(error).__name__}: {error}; this is a bug of hwsync", err=True)
        if os.environ.get("HWSYNC_DEBUG"):
            traceback.print_exc()
        sys.exit(1)
