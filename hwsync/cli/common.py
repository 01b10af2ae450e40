"""What the commands share: the options of every command, and how errors are said."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from hwsync.protocol.errors import HwsyncError, Refused, UsageError
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import DEFAULT_ROOT, Topics
from hwsync.transport import BrokerUrl

DEFAULT_BROKER: Final = "mqtt://127.0.0.1:1883"
_NAMES: Final = ("broker", "root", "as_json", "credentials")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """The options that stand before or after the command."""

    broker: str | None = None
    root: str | None = None
    as_json: bool = False
    credentials: Path | None = None

    @property
    def topics(self) -> Topics:
        return Topics(self.root or os.environ.get("HWSYNC_ROOT") or DEFAULT_ROOT)

    @property
    def url(self) -> BrokerUrl:
        """The broker. Raises ``BadUrl``, ``UsageError``."""
        url = BrokerUrl.parse(self.broker or os.environ.get("HWSYNC_BROKER") or DEFAULT_BROKER)
        if self.broker and url.password is not None:
            raise UsageError(
                "a password in --broker is seen by everybody on this machine",
                "set HWSYNC_BROKER, or name a file with --credentials",
            )
        if self.credentials is None:
            return url
        try:
            lines = self.credentials.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {self.credentials}: {error}") from None
        if len(lines) < 2 or not lines[0].strip():
            raise UsageError(
                f"{self.credentials} is no credentials file", "two lines: user, password"
            )
        return url.with_credentials(lines[0].strip(), lines[1].strip())


def default_database() -> Path:
    """``$STATE_DIRECTORY/hwsync.db``, else below the home directory."""
    state = os.environ.get("STATE_DIRECTORY")
    return Path(state if state else Path.home() / ".local/state/hwsync") / "hwsync.db"


def common(command: F) -> F:
    """The options of every command; what stands after the command wins."""
    options = [
        click.option("--broker", metavar="URL", help="Broker (or HWSYNC_BROKER).",
                     expose_value=False, callback=_keep),
        click.option("--root", metavar="ROOT", help="Root of the topics (or HWSYNC_ROOT).",
                     expose_value=False, callback=_keep),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line.",
                     expose_value=False, callback=_keep),
        click.option("--credentials", type=click.Path(path_type=Path, dir_okay=False),
                     help="File with two lines: user, password.",
                     expose_value=False, callback=_keep),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    settings = context.ensure_object(Settings)
    if value and parameter.name in _NAMES:
        setattr(settings, parameter.name, value)
    return value


def fail(error: HwsyncError, settings: Settings) -> NoReturn:
    """Say what was wrong and what to do, and end with the error's exit code."""
    if settings.as_json:
        refused = isinstance(error, Refused)
        code = error.code if isinstance(error, Refused) else type(error).__name__
        id = error.id if isinstance(error, Refused) else None
        click.echo(
            dumps({"error": code, "message": error.message, "hint": error.hint, "id": id})
            if refused
            else dumps({"error": code, "message": error.message, "hint": error.hint})
        )
    else:
        click.echo(f"hwsync: {error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
    sys.exit(error.exit_code)
