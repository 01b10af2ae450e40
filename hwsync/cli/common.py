"""What the commands share: the options of every command, and how errors are said."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from hwsync import connection
from hwsync.address import BrokerUrl
from hwsync.cli import say
from hwsync.configfile import Given
from hwsync.paths import state_directory
from hwsync.protocol.errors import Code, HwsyncError, OutputError, Refused, UsageError
from hwsync.protocol.limits import ID_FORM, USER_FORM, is_id, is_user
from hwsync.protocol.topics import DEFAULT_ROOT, Topics

DATABASE_NAME: Final = "hwsync.db"
USUAL: Final = Path("/etc/hwsync")  # a machine's own lab
SERVICE_STATE: Final = Path("/var/lib")  # where systemd's units keep theirs
SBIN: Final = ":/usr/sbin:/sbin"
PROFILE_VARIABLE: Final = "HWSYNC_PROFILE"
_NAMES: Final = (
    *("broker", "root", "as_json", "credentials", "config", "ca", "certificate", "key"),
    *("allow_plaintext", "profile", "quiet"),
)

BY_HAND: Final = re.compile(
    r"mosquitto_pub -q 1 -t \S+/([^/ ]+)/(request|cancel|analysis) -[nm]( [A-Z]+)?"
)
BEHIND: Final = re.compile(
    r'(?:a request with an id may wait behind it|A request may wait): \{"queue": true\}'
)
OWN_WORDS: Final = {"request": "run {} FILE", "cancel": "cancel {}", "analysis": "analyse {} TEXT"}

F = TypeVar("F", bound=Callable[..., Any])


def board_name(text: str) -> str:
    """For an argument: a board's name, refused here, before anybody waits for its answer."""
    if not is_user(text):
        raise click.BadParameter(f"{text!r} is no board's name: {USER_FORM}")
    return text


def account_name(text: str) -> str:
    """The same for a person's or an analyst's account."""
    if not is_user(text):
        raise click.BadParameter(f"{text!r} is no account's name: {USER_FORM}")
    return text


def seconds(
    limit: tuple[float, float], *, zero: bool = False, unit: str = "seconds"
) -> Callable[[str], float]:
    """For an option: a number within a limit, or 0 where ``zero``; ``unit`` is for the error."""
    low, high = limit

    def convert(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no number of {unit}") from None
        if not (low <= value <= high or (zero and value == 0)):
            also = "0 or " if zero else ""
            raise click.BadParameter(f"{text} is not {also}{low:.12g} to {high:.12g} {unit}")
        return value

    return convert


def read_bytes(name: str, most: int = -1) -> bytes:
    """A file's bytes, ``-``: standard input's; no more than ``most``. Raises ``UsageError``."""
    if name == "-" and sys.stdin is None:
        raise UsageError("standard input is closed")
    try:
        if name == "-":
            return sys.stdin.buffer.read(most)
        with open(name, "rb") as file:
            return file.read(most)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None


def read_text(name: str) -> str:
    """A file's text, ``-``: standard input's. Raises ``UsageError``."""
    data = read_bytes(name)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name} is not UTF-8 (byte {error.start}, in line {line})") from None


def command_id(text: str) -> str:
    """For an argument: a command's id."""
    if not is_id(text):
        raise click.BadParameter(f"{text!r} is no id: {ID_FORM}")
    return text


@dataclass(slots=True)
class Settings:
    """The options that stand before or after the command."""

    broker: str | None = None
    root: str | None = None
    as_json: bool = False
    quiet: bool = False
    profile: str | None = None
    credentials: Path | None = None
    config: Path | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    allow_plaintext: bool = False
    _given: Given | None = field(default=None, repr=False)

    @property
    def given(self) -> Given:
        """What of the connection was given, by whom. Raises ``UsageError``."""
        if self._given is None:
            names = (*connection.VARIABLES, "credentials", "allow_plaintext")
            options = {name: getattr(self, name) for name in names}
            self._given = connection.load(self.file, options)
        return self._given

    @property
    def file(self) -> Path | None:
        """The connection file that counts. Raises ``UsageError`` where a profile has none."""
        profile = self.profile or os.environ.get(PROFILE_VARIABLE)
        if self.config is not None and self.profile is not None:
            raise UsageError("--config and --profile contradict each other", "give one of them")
        if self.config is None and profile:
            return connection.of_profile(profile)
        if (file := connection.used(self.config)) is None and os.geteuid() == 0:
            return lab_file(USUAL)
        return file

    @property
    def topics(self) -> Topics:
        """Those below the root that was given. Raises ``UsageError`` for a root that is none."""
        return Topics(self.given.get("root", DEFAULT_ROOT))

    @property
    def url(self) -> BrokerUrl:
        """The broker. Raises ``BadUrl``, ``UsageError``."""
        return connection.broker(self.given)


def may_ask(settings: Settings) -> None:
    """Raises ``Refused`` for an analyst's account: MQTT 3.1.1 does not say that a right is missing.

    Such an account's own file says so.
    """
    account = connection.analyst_of(settings.given)
    if account is not None:
        raise Refused(
            Code.NOT_ALLOWED,
            f"{account} is an analyst's account, which judges what was run, and asks for nothing",
            "--config names another file; on the lab's machine hwsync operator add NAME makes one",
        )


def find_mosquitto() -> str | None:
    """Its path, also where Debian keeps it, outside the PATH of an ordinary user; None: none."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + SBIN)


def default_database() -> Path:
    """``$STATE_DIRECTORY/hwsync.db``, else below the home directory."""
    return state_directory("--db") / DATABASE_NAME


def databases() -> list[Path]:
    """Where it may be: the default's, and that of the systemd unit; what is there, or the usual.

    Raises ``UsageError`` where this account has no home directory and there is no unit's.
    """
    unit = SERVICE_STATE / "hwsync" / DATABASE_NAME
    installed = unit.parent.is_dir()
    try:
        own = default_database()
    except UsageError:
        if not installed:
            raise
        return [unit]
    if "STATE_DIRECTORY" in os.environ or own == unit:
        return [own]
    hidden = installed and not os.access(unit.parent, os.X_OK)  # there may be one, then
    there = [path for path in (own, unit) if os.path.exists(path) or (hidden and path == unit)]
    return there or [unit if installed else own]


def the_database(db: Path | None) -> Path:
    """The one that was named, else the only one. Raises ``UsageError`` where there are two."""
    found = [db] if db is not None else databases()
    if len(found) > 1:
        raise UsageError(
            f"there are two databases: {' and '.join(map(str, found))}",
            "name one of them with --db",
        )
    return found[0]


FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)

DATABASE: Final = click.option(
    "--db",
    type=FILE,
    help="The database; default $STATE_DIRECTORY/hwsync.db, else ~/.local/state/hwsync/hwsync.db, "
    "else the systemd unit's.",
)


def lab_file(lab: Path) -> Path | None:
    """An operator's file in the lab of this machine, for root, who has none of his own.

    That of an operator who may use all boards; None: there is no lab, or no such operator.
    Raises ``UsageError`` where there are several.
    """
    if not (lab / "lab.json").exists():
        return None
    from hwsync.lab.folder import Folder

    folder = Folder(lab)
    accounts = folder.accounts
    names = [
        name
        for name, rights in accounts.operators.items()
        if rights.boards is None and not rights.read_only
    ]
    files = [file for name in sorted(names) if (file := folder.file_of(name, accounts)).exists()]
    if len(files) > 1:
        raise UsageError(
            f"this machine's lab has {len(files)} operators that may use all boards",
            f"name one of them: --config {files[0]}",
        )
    return files[0] if files else None


def echo_name(url: BrokerUrl) -> str:
    """Whose echo is tried: the account's own, else one that nobody else has."""
    account = url.username or ""
    return account if is_user(account) else secrets.token_hex(4)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    settings = context.ensure_object(Settings)
    if value and parameter.name in _NAMES:
        setattr(settings, parameter.name, value)
        say.quiet |= parameter.name == "quiet"
    return value


JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.",
                           expose_value=False, callback=_keep)  # fmt: skip


def common(command: F) -> F:
    """The options of every command; what stands after the command wins."""
    options = [
        click.option("--broker", metavar="URL", help="Broker (or HWSYNC_BROKER).",
                     expose_value=False, callback=_keep),
        click.option("--root", metavar="ROOT", help="Root of the topics (or HWSYNC_ROOT).",
                     expose_value=False, callback=_keep),
        JSON,
        click.option("--quiet", "-q", is_flag=True, help="No remarks of hwsync's own but errors.",
                     expose_value=False, callback=_keep),
        click.option("--credentials", type=FILE,
                     help="File with two lines: user, password.",
                     expose_value=False, callback=_keep),
        click.option("--config", type=FILE, metavar="FILE",
                     help="Connection file, TOML (or HWSYNC_CONFIG; default "
                     "~/.config/hwsync/hwsync.toml, /etc/hwsync/hwsync.toml).",
                     expose_value=False, callback=_keep),
        click.option("--profile", metavar="NAME",
                     help="The connection file of that name (or HWSYNC_PROFILE): "
                     "~/.config/hwsync/NAME.toml, /etc/hwsync/NAME.toml.",
                     expose_value=False, callback=_keep),
        click.option("--ca", metavar="FILE", help="PEM: the authority that signed the broker's "
                     "certificate (or HWSYNC_CA).", expose_value=False, callback=_keep),
        click.option("--cert", "certificate", metavar="FILE", help="PEM: our certificate, for a "
                     "broker that asks for one (or HWSYNC_CERT).",
                     expose_value=False, callback=_keep),
        click.option("--key", metavar="FILE", help="PEM: its private key (or HWSYNC_KEY).",
                     expose_value=False, callback=_keep),
        click.option("--allow-plaintext", is_flag=True, help="Let a password go to another "
                     "machine without TLS.", expose_value=False, callback=_keep),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def own_words(hint: str) -> str:
    """What a coordinator tells people with ``mosquitto_pub``, for those who typed ``hwsync``."""
    hint = BY_HAND.sub(lambda found: "hwsync " + OWN_WORDS[found[2]].format(found[1]), hint)
    return BEHIND.sub("--queue lets a request wait behind it", hint)


def fail(error: HwsyncError, settings: Settings, code: int | None = None) -> NoReturn:
    """Say what was wrong and what to do, and end with ``code``, else the error's exit code."""
    if settings.as_json and not isinstance(error, OutputError):
        said = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        heard = error.published_error if isinstance(error, Refused) else None
        say.json_line(heard or said)
    else:
        say.line(f"hwsync: {error.message}", err=True)
        if error.hint:
            say.line(f"  {own_words(error.hint)}", err=True)
    sys.exit(error.exit_code if code is None else code)
