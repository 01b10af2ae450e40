"""Which modules the command line loads: those of the command that was typed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import click

from hwsync.cli.app import OTHER_NAMES, PLACES, cli
from tests.support.processes import CHECKOUT


def test_every_command_of_every_module_can_be_typed() -> None:
    there = {
        command.name
        for place in set(PLACES.values())
        for command in import_module(f"hwsync.cli.{place}").COMMANDS
    }
    assert there == set(PLACES) - set(OTHER_NAMES)
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == OTHER_NAMES.get(name, name)


def test_who_asks_for_a_status_does_not_wait_for_the_database_and_the_labs() -> None:
    loads = (
        "import sys; from hwsync.cli.app import cli; import click\n"
        "cli.get_command(click.Context(cli), 'status')\n"
        "print([name for name in ('peewee', 'sqlite3', 'hwsync.lab') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", loads], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == "[]"


def test_garbage_is_collected_again_once_a_command_is_loaded() -> None:
    loads = (
        "import contextlib, gc, sys; from hwsync.cli import main\n"
        "sys.argv = ['hwsync', 'status', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr): main()\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    said = subprocess.run(
        [sys.executable, "-c", loads], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == "True True"
