"""``hwsync analyst``: judge results with a folder of analysers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from hwsync import connection, logs
from hwsync.address import BrokerUrl
from hwsync.cli.analysts import ACCOUNTS
from hwsync.cli.common import FOLDER, Settings, common, seconds
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError

NAME: Final = "analyst"  # where the broker has no accounts
MOST_AT_ONCE: Final = 64
BACK_DAYS: Final = (0.01, 3_650.0)


@click.group(invoke_without_command=True)
@common
@click.option("--dir", "folder", type=FOLDER, metavar="DIR", help="The folder of analysers.")
@click.option(
    "--name",
    metavar="NAME",
    help="What it is called, where the broker has no accounts.  [default: analyst]",
)
@click.option(
    "--at-once",
    type=click.IntRange(1, MOST_AT_ONCE),
    metavar="N",
    default=2,
    show_default=True,
    help="So many analysers run at the same time.",
)
@click.option(
    "--back",
    "back_days",
    type=seconds(BACK_DAYS, zero=True, unit="days"),
    metavar="DAYS",
    default=7.0,
    show_default=True,
    help="How long ago runs may have been asked for that are judged after a pause; 0: none.",
)
@click.pass_context
def analyst(context: click.Context, folder: Path | None, name: str | None, at_once: int,
            back_days: float) -> None:  # fmt: skip
    """Judge results with the analysers in DIR, until SIGTERM or Ctrl-C.

    A run that names one of them (`hwsync run pi1 --analyser check1 …`) is judged as soon as it has
    ended. A file that changes in DIR counts a moment later.
    """
    if context.invoked_subcommand is not None:
        return
    if folder is None:
        raise UsageError("which analysers?", "hwsync analyst --dir analysers/")
    from hwsync.analyst.life import Setup
    from hwsync.analyst.service import serve

    logs.setup("analyst")
    settings = context.ensure_object(Settings)
    again = not connection.handed_over(connection.used(settings.config))

    def address() -> BrokerUrl:
        return replace(settings, _given=None).url

    url = settings.url
    setup = Setup(_name(url, name), settings.topics, url, at_once, back_days * 86_400.0)
    serve(setup, folder, address if again else None)


def _name(url: BrokerUrl, given: str | None) -> str:
    """The account's, which alone may say there what it offers. Raises ``UsageError``."""
    account = url.username if limits.is_user(url.username) else None
    if account is not None and given not in (None, account):
        raise UsageError(f"an analyst is called like its account, {account}", "leave out --name")
    name = account or given or NAME
    if not limits.is_user(name):
        raise UsageError(f"{name!r} is no analyst's name ({limits.USER_FORM})", "--name NAME")
    return name


for _account in ACCOUNTS:
    analyst.add_command(_account)

COMMANDS = (analyst,)
