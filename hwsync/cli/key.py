"""``hwsync key``: the keys with which a coordinator signs commands, and which boards trust."""

from __future__ import annotations

from pathlib import Path

import click

from hwsync.cli import say
from hwsync.cli.common import Settings
from hwsync.cli.labs import JSON, LAB, folder_of, told
from hwsync.signing import SigningKey


@click.group()
def key() -> None:
    """Keys for signed commands: the coordinator's, and whom boards trust."""


FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
PUBLIC = click.argument("public", metavar="KEY")


@key.command("make")
@JSON
@FILE
@click.pass_obj
def make_key(settings: Settings, file: Path, as_json: bool) -> None:
    """Make a signing key in FILE, for `hwsync coordinator --signing-key`, and print its public key.

    The public key belongs into `trust` of each board's configuration. A lab that `hwsync init
    --sign` made has its own: see `rotate`.
    """
    settings.as_json |= as_json
    made = SigningKey.make()
    made.save(file)
    _tell(made.public, settings.as_json)


@key.command("show")
@JSON
@FILE
@click.pass_obj
def show_key(settings: Settings, file: Path, as_json: bool) -> None:
    """Print the public key of the signing key in FILE."""
    public = SigningKey.load(file).public
    _tell(public, as_json or settings.as_json)


@key.command("list")
@JSON
@LAB
@click.pass_obj
def list_keys(settings: Settings, lab: Path | None, as_json: bool) -> None:
    """The public keys that the boards of a lab trust."""
    for public in folder_of(lab).accounts.trust:
        _tell(public, as_json or settings.as_json)


@key.command("trust")
@JSON
@LAB
@PUBLIC
@click.pass_obj
def trust_key(settings: Settings, public: str, lab: Path | None, as_json: bool) -> None:
    """Let boards run what KEY signed, too."""
    settings.as_json |= as_json
    folder = folder_of(lab)
    told(settings, folder, folder.trust(public), "the boards' files are new")


@key.command("revoke")
@JSON
@LAB
@PUBLIC
@click.pass_obj
def revoke_key(settings: Settings, public: str, lab: Path | None, as_json: bool) -> None:
    """Let boards run nothing any more that KEY signed."""
    settings.as_json |= as_json
    folder = folder_of(lab)
    told(settings, folder, folder.revoke(public), "the boards' files are new")


@key.command("rotate")
@JSON
@LAB
@click.pass_obj
def rotate_key(settings: Settings, lab: Path | None, as_json: bool) -> None:
    """Give the coordinator a new key, which boards trust beside the old ones.

    First put the new files on the boards, then start the coordinator again, then `revoke` the old.
    """
    settings.as_json |= as_json
    folder = folder_of(lab)
    told(settings, folder, folder.rotate_key(), "the files of boards and coordinator are new")


def _tell(public: str, as_json: bool) -> None:
    if as_json:
        say.json_line({"public": public})
    else:
        say.line(public)


COMMANDS = (key,)
