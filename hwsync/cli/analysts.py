"""``hwsync analyst add``, ``list``, ``remove``, ``rotate``: the accounts of programs that judge.

Like those of boards: one file for each, and a password is never printed and never an argument.
"""

from __future__ import annotations

import click

from hwsync.cli.common import JSON, Settings
from hwsync.cli.lab import ACCOUNT, list_accounts, remove_account, rotate_account
from hwsync.cli.labs import LAB, report_change
from hwsync.cli.removed import take_presence_away
from hwsync.lab.folder import Folder


@click.command("add")
@JSON
@LAB
@ACCOUNT
@click.pass_obj
def add_analyst(settings: Settings, name: str, folder: Folder) -> None:
    """Let an analyst in: an account that judges what any board has run, and the file for it."""
    report_change(settings, folder, folder.add_analyst(name), f"{name} may come in, and judge")


@click.command("remove")
@JSON
@LAB
@ACCOUNT
@click.pass_obj
def remove_analyst(settings: Settings, name: str, folder: Folder) -> None:
    """Let an analyst in no more; its connection ends. What it has said of runs stays."""
    served = remove_account(settings, folder, name, "analysts")
    take_presence_away(settings, folder, name, served=served)


@click.command("rotate")
@JSON
@LAB
@ACCOUNT
@click.pass_obj
def rotate_analyst(settings: Settings, name: str, folder: Folder) -> None:
    """Give an analyst a new password, and a new file; the old one is worth nothing."""
    rotate_account(settings, folder, name, "analysts")


@click.command("list")
@JSON
@LAB
@click.pass_obj
def list_analysts(settings: Settings, folder: Folder) -> None:
    """The analysts that may come in."""
    list_accounts(settings, folder, folder.accounts.analysts)


ACCOUNTS = (add_analyst, list_analysts, remove_analyst, rotate_analyst)
