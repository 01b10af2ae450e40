"""``hwsync key``: the keys with which a coordinator signs commands, and which boards trust."""

from __future__ import annotations

from pathlib import Path

import click

from hwsync.cli import say
from hwsync.cli.common import FILE, JSON, Settings
from hwsync.cli.labs import LAB, report_change
from hwsync.lab.folder import Folder
from hwsync.signing import SigningKey


@click.group()
def key() -> None:
    """Keys for signed commands: the coordinator's, and whom boards trust."""


OF_KEY = click.argument("file", type=FILE)
PUBLIC = click.argument("public", metavar="KEY")


@key.command("make")
@JSON
@OF_KEY
@click.pass_obj
def make_key(settings: Settings, file: Path) -> None:
    """Make a signing key in FILE, for `hwsync coordinator --signing-key`, and print its public key.

    The public key belongs into `trust` of each board's configuration. A lab that `hwsync init
    --sign` made has its own: see `rotate`.
    """
    made = SigningKey.make()
    made.save(file)
    _print_key(settings, made.public)


@key.command("show")
@JSON
@OF_KEY
@click.pass_obj
def show_key(settings: Settings, file: Path) -> None:
    """Print the public key of the signing key in FILE."""
    public = SigningKey.load(file).public
    _print_key(settings, public)


@key.command("list")
@JSON
@LAB
@click.pass_obj
def list_keys(settings: Settings, folder: Folder) -> None:
    """The public keys that the boards of a lab trust."""
    for public in folder.accounts.trust:
        _print_key(settings, public)


@key.command("trust")
@JSON
@LAB
@PUBLIC
@click.pass_obj
def trust_key(settings: Settings, public: str, folder: Folder) -> None:
    """Let boards run what KEY signed, too."""
    report_change(settings, folder, folder.trust(public), "the boards' files are new")


@key.command("revoke")
@JSON
@LAB
@PUBLIC
@click.pass_obj
def revoke_key(settings: Settings, public: str, folder: Folder) -> None:
    """Let boards run nothing any more that KEY signed."""
    report_change(settings, folder, folder.revoke(public), "the boards' files are new")


@key.command("rotate")
@JSON
@LAB
@click.pass_obj
def rotate_key(settings: Settings, folder: Folder) -> None:
    """Give the coordinator a new key, which boards trust beside the old ones.

    First put the new files on the boards, then start the coordinator again, then `revoke` the old.
    """
    report_change(
        settings, folder, folder.rotate_key(), "the files of boards and coordinator are new"
    )


def _print_key(settings: Settings, public: str) -> None:
    say.either(settings.as_json, {"public": public}, public)


COMMANDS = (key,)
