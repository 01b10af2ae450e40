"""Which broker, and who we are there: of the command line, the environment, a file, the defaults.

The law: what stands nearer to the person wins, key by key; but account and password are one thing,
and so are certificate and key. A password never stands in an argument, which everybody on the
machine can read, and never goes over a network without TLS unless that was allowed in words.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hwsync.address import DEFAULT_BROKER, ENCRYPTED, PEM, BrokerUrl, Tls
from hwsync.configfile import (
    COMMAND_LINE,
    IN_FILE,
    PROGRAM,
    Given,
    Key,
    gather,
    is_flag,
    is_text,
    private,
)
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import USER_FORM, is_user
from hwsync.signing import SECRET

FILE_VARIABLE: Final = "HWSYNC_CONFIG"
BELOW_HOME: Final = ".config/hwsync/hwsync.toml"
FOR_ALL: Final = Path("/etc/hwsync/hwsync.toml")
DOCUMENT: Final = "docs/operations.md"
VARIABLES: Final = {
    "broker": "HWSYNC_BROKER",
    "root": "HWSYNC_ROOT",
    "ca": "HWSYNC_CA",
    "certificate": "HWSYNC_CERT",
    "key": "HWSYNC_KEY",
}
OPTIONS: Final = {"ca": "--ca", "certificate": "--cert", "key": "--key"}
ANALYST: Final = "analyst"
TWO_LINES: Final = "two lines: user, password"

URL: Final = "URL"
PATH_OR_PEM: Final = "path, or PEM text"

KEYS: Final = (
    Key("broker", URL, is_text, "`mqtt://127.0.0.1:1883`",
        "the broker; `mqtts://` and `wss://` with TLS"),
    Key("root", "text", is_text, "`hw`", "the root of the topics"),
    Key("account", "text", is_text, "none", "who we are at the broker"),
    Key("password", "text", is_text, "none", "its password", secret=True),
    Key("ca", PATH_OR_PEM, is_text, "the system's authorities",
        "the authority that signed the broker's certificate; no other is trusted then",
        beside=True),
    Key("certificate", PATH_OR_PEM, is_text, "none",
        "our own, for a broker that asks for one", beside=True),
    Key("key", PATH_OR_PEM, is_text, "in the file of `certificate`", "its private key",
        secret=True, beside=True),
    Key("allow_plaintext", "true or false", is_flag, "false",
        "let a password go to another machine without TLS"),
)  # fmt: skip


SIGNING_KEY: Final = Key(
    "signing_key", "path, or the key's text", is_text, "none",
    "the coordinator's: every command is signed with it (`hwsync key make`)",
    secret=True, beside=True, inline=SECRET,
)  # fmt: skip

ROLE: Final = Key(
    "role", "`analyst`", lambda value: value == ANALYST, "none",
    "whose account it is: an analyst's asks for no runs, and is told so at once",
)  # fmt: skip


def load(file: Path | None, options: Mapping[str, Any], source: str = COMMAND_LINE) -> Given:
    """What is given for a connection, of an operator's or the coordinator's (docs/operations.md).

    ``file`` None: the one that HWSYNC_CONFIG names, else the first that exists of the account's own
    and the machine's. ``options``: of the command line by key; ``source``: or of whom, where
    nobody else can see them (``PROGRAM``). Raises ``UsageError`` as ``configfile.gather`` does.
    """
    keys = (*KEYS, SIGNING_KEY, ROLE)
    return Given(*gather(used(file), keys, VARIABLES, options, DOCUMENT, source))


def handed_over(file: Path | None) -> bool:
    """Whether it is a copy that systemd made at the start (``LoadCredential``).

    Only another process gets a new one.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and file is not None and file.is_relative_to(folder)


def used(file: Path | None) -> Path | None:
    """The file that counts where ``file`` is that of the command line."""
    if file is not None:
        return file
    named = os.environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    try:
        own = [Path.home() / BELOW_HOME]
    except RuntimeError:  # this account has no home directory
        own = []
    return next((file for file in (*own, FOR_ALL) if os.path.exists(file)), None)


def of_profile(name: str) -> Path:
    """The file of a profile. Raises ``UsageError`` where there is none."""
    if not is_user(name):
        raise UsageError(f"{name!r} is no name of a profile: {USER_FORM}")
    try:
        folders = [(Path.home() / BELOW_HOME).parent]
    except RuntimeError:  # this account has no home directory
        folders = []
    files = [folder / f"{name}.toml" for folder in (*folders, FOR_ALL.parent)]
    found = next((file for file in files if os.path.exists(file)), None)
    if found is None:
        raise UsageError(
            f"there is no profile {name}", f"make one of these: {' or '.join(map(str, files))}"
        )
    return found


def broker(given: Given) -> BrokerUrl:
    """The broker's address, with its login and its certificates.

    ``given`` may have the key ``credentials`` too. Raises ``BadUrl`` for an address that is none,
    and ``UsageError`` where it would be used in a way that shows a password: in an argument, in a
    file for all, or over a network without TLS; or where two logins are given at one distance. The
    files of certificates are read at each connect, and not here.
    """
    url = BrokerUrl.parse(given.get("broker", DEFAULT_BROKER))
    _no_password_in_sight(url, given)
    url = _with_login(url, given).with_tls(_certificates(url, given))
    safe = url.encrypted or url.local or given.get("allow_plaintext")
    if url.password is not None and not safe:
        raise UsageError(
            f"{url}: without TLS everybody on the way can read the password",
            f"use {ENCRYPTED[url.scheme]}://, or --allow-plaintext where you trust the network",
        )
    return url


def analyst_of(given: Given) -> str | None:
    """The account, where the file that has it says that it is an analyst's; else None."""
    if given.get(ROLE.name) != ANALYST or given.get("credentials") is not None:
        return None
    own = given.sources.get("account")
    return given.get("account") if own == given.sources[ROLE.name] else None


def variables(url: BrokerUrl, root: str) -> dict[str, str]:
    """The environment of a child that is to use the same, by variable; with the password.

    Other accounts cannot read it, as they could its arguments.
    """
    given = {"ca": url.tls.ca, "certificate": url.tls.certificate, "key": url.tls.key}
    told = {"broker": url.with_login, "root": root, **given}
    return {VARIABLES[name]: value for name, value in told.items() if value}


def _no_password_in_sight(url: BrokerUrl, given: Given) -> None:
    source = given.sources.get("broker")
    if url.password is None or source in (PROGRAM, *VARIABLES.values()):
        return
    if source == COMMAND_LINE:
        raise UsageError(
            "a password in --broker is seen by everybody on this machine",
            "set HWSYNC_BROKER, name a file with --credentials, or use --config",
        )
    raise UsageError(
        f"{source}: a password in broker is seen by whoever may read this file",
        "the keys account and password are for it, or on a device a file that credentials names",
    )


def _with_login(url: BrokerUrl, given: Given) -> BrokerUrl:
    """The nearest login: of a file of two lines, of the address, of the key account."""
    if given.get("password") is not None and given.get("account") is None:
        source = given.sources["password"]
        raise UsageError(f"{source}: a password without its account", "add the key account")
    logins = [name for name in ("credentials", "account") if given.get(name) is not None]
    logins += ["broker"] if url.username is not None else []
    if not logins:
        return url
    nearest = min(logins, key=given.distance)
    if given.distance(nearest) == IN_FILE and len(logins) > 1:
        source = given.sources[nearest]
        raise UsageError(f"{source}: two logins, {' and '.join(logins)}", "take one of them away")
    if nearest == "credentials":
        return url.with_credentials(*_two_lines(Path(given.get("credentials"))))
    if nearest == "account":
        return url.with_credentials(given.get("account"), given.get("password"))
    return url


def _certificates(url: BrokerUrl, given: Given) -> Tls:
    """What was given for TLS. It is an error where nothing would be encrypted in spite of it."""
    far = given.distance("broker")
    for name, option in OPTIONS.items():
        if not url.encrypted and given.get(name) is not None and given.distance(name) <= far:
            raise UsageError(
                f"{url} is not encrypted, so {option} ({given.sources[name]}) means nothing there",
                f"use {ENCRYPTED[url.scheme]}://",
            )
        if given.sources.get(name) == COMMAND_LINE and PEM in str(given.get(name)):
            raise UsageError(f"{option} names a file", "a text would be seen by everybody")
    if not url.encrypted:
        return Tls()
    certificate, key = given.get("certificate", ""), given.get("key", "")
    if given.distance("key") > given.distance("certificate"):
        key = ""  # of another certificate
    if key and not certificate:
        raise UsageError(f"a key without its certificate ({given.sources['key']})", "give --cert")
    secret = str(key or certificate)
    if secret and PEM not in secret:
        private(Path(secret), "a private key")
    return Tls(str(given.get("ca", "")), str(certificate), str(key))


def _two_lines(path: Path) -> tuple[str, str]:
    """(user, password): the first two lines of a file, as in the original system."""
    private(path, "a password")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", TWO_LINES) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8", TWO_LINES) from None
    if len(lines) < 2 or not lines[0]:
        raise UsageError(f"{path} is no credentials file", TWO_LINES)
    return lines[0], lines[1]
