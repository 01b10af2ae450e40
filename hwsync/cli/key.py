"""``hwsync key``: the keys with which a coordinator signs commands, and which boards trust."""

from __future__ import annotations

from pathlib import Path

import click

from hwsync.cli.common import Settings, common
from hwsync.protocol.jsons import dumps
from hwsync.signing import SigningKey

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def key() -> None:
    """Keys for signed commands: the coordinator's, and whom boards trust."""


@key.command()
@common
@FILE
@click.pass_obj
def make(settings: Settings, file: Path) -> None:
    """Make a signing key in FILE, for `hwsync coordinator --signing-key`, and print its public key.

    The public key belongs into `trust` of each board's configuration.
    """
    made = SigningKey.make()
    made.save(file)
    _say(settings, made)


@key.command()
@common
@FILE
@click.pass_obj
def show(settings: Settings, file: Path) -> None:
    """Print the public key of the signing key in FILE."""
    _say(settings, SigningKey.load(file))


def _say(settings: Settings, signing: SigningKey) -> None:
    public = signing.public
    click.echo(dumps({"public": public}) if settings.as_json else public)


COMMANDS = (key,)
