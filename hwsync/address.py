"""Where the broker is and who we are there: an address, from an option, the environment or a file.

The law: a password comes from HWSYNC_BROKER or from a credentials file, never from an argument,
which everybody on the machine can read; and no address is ever printed with one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from hwsync.protocol.errors import BadUrl, UsageError

DEFAULT_BROKER: Final = "mqtt://127.0.0.1:1883"
PORTS: Final = {"mqtt": 1883, "ws": 8080}


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """``mqtt://host[:port]`` or ``ws://host[:port][/path]``; prints without its password."""

    scheme: str
    host: str
    port: int
    path: str = ""
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Raises ``BadUrl`` that says what is wrong and what a good one looks like."""
        hint = "such as mqtt://192.168.1.10:1883 or ws://host:8080/mqtt"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadUrl(f"the broker's address is no URL: {error}", hint) from None
        if parts.scheme in ("mqtts", "wss"):
            raise BadUrl(f"{parts.scheme}:// is not in this version", hint)
        if parts.scheme not in PORTS or not parts.hostname:
            shown = text.rpartition("@")[2][:80]
            raise BadUrl(f"{shown!r} is no broker's address", hint)
        if parts.query or parts.fragment or (parts.scheme == "mqtt" and parts.path.strip("/")):
            raise BadUrl("the broker's address has a part too many", hint)
        if port == 0:
            raise BadUrl("port 0 is no broker's port", hint)
        return cls(
            parts.scheme,
            parts.hostname,
            port or PORTS[parts.scheme],
            (parts.path if parts.path != "/" else "") or "/mqtt" if parts.scheme == "ws" else "",
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password is not None else None,
        )

    def with_credentials(self, username: str, password: str | None) -> BrokerUrl:
        """The same address with another login."""
        return replace(self, username=username, password=password)

    @property
    def with_login(self) -> str:
        """The address with its login: for a child's environment, which others cannot read."""
        if self.username is None:
            return str(self)
        secret = "" if self.password is None else ":" + quote(self.password, safe="")
        return str(self).replace("://", f"://{quote(self.username, safe='')}{secret}@", 1)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    __repr__ = __str__


def broker_address(option: str | None, credentials: Path | None) -> BrokerUrl:
    """The broker of ``--broker``, else HWSYNC_BROKER, else this machine's; with the file's login.

    Raises ``BadUrl`` and ``UsageError``.
    """
    url = BrokerUrl.parse(option or os.environ.get("HWSYNC_BROKER") or DEFAULT_BROKER)
    if option and url.password is not None:
        raise UsageError(
            "a password in --broker is seen by everybody on this machine",
            "set HWSYNC_BROKER, or name a file with --credentials",
        )
    return url if credentials is None else url.with_credentials(*_login(credentials))


def _login(path: Path) -> tuple[str, str]:
    """(user, password): the first two lines of a file, as in the original system."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", "two lines: user, password"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8", "two lines: user, password") from None
    if len(lines) < 2 or not lines[0]:
        raise UsageError(f"{path} is no credentials file", "two lines: user, password")
    return lines[0], lines[1]
