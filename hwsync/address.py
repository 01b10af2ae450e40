"""Where the broker is, who we are there, and how each of us proves it.

The law: no address is ever printed with its password, and no certificate with its key.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from hwsync.protocol.errors import BadUrl

DEFAULT_BROKER: Final = "mqtt://127.0.0.1:1883"
# 8443 for wss as 8080 for ws: any account may listen there, which 443 and 80 do not allow.
PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 8080, "wss": 8443}
PEM: Final = "-----BEGIN "  # what tells a PEM text from a path
HARMLESS: Final = re.compile(r"([a-z]{1,8}://)?[\w.-]{0,64}(:\d{1,5})?(/[\w.-]{0,64})?")  # no login
ENCRYPTED: Final = {"mqtt": "mqtts", "ws": "wss"}  # what to type instead


@dataclass(frozen=True, slots=True)
class Tls:
    """Each is the path of a PEM file, or its text; empty: the system's authorities, no certificate.

    ``certificate`` and ``key`` are our own, for a broker that asks for one.
    """

    ca: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """``mqtt://host[:port]`` or ``ws://host[:port][/path]``, with TLS ``mqtts`` and ``wss``.

    It prints without its password.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    username: str | None = None
    password: str | None = None
    tls: Tls = Tls()

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """The address of a text, with the default port of its scheme where none is named.

        Raises ``BadUrl`` that says what is wrong and what a good one looks like; it shows the text
        only where that can hold no password.
        """
        hint = (
            "such as mqtt://127.0.0.1:1883, mqtts://broker.lab:8883 or wss://broker.lab:8443/mqtt"
        )
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:  # whose text may show a part of a password
            raise BadUrl("the broker's address is no URL", hint) from None
        if parts.scheme not in PORTS or not parts.hostname:
            shown = f"{text!r} is" if HARMLESS.fullmatch(text) else "this is"
            raise BadUrl(f"{shown} no broker's address", hint)
        if (
            parts.query
            or parts.fragment
            or (parts.scheme.startswith("mqtt") and parts.path.strip("/"))
        ):
            raise BadUrl("the broker's address has a part too many", hint)
        if not text.isprintable() or " " in parts.hostname + parts.path:  # urlsplit forgives
            raise BadUrl("the broker's address has a space or a control character in it", hint)
        if port == 0:
            raise BadUrl("port 0 is no broker's port", hint)
        return cls(
            parts.scheme,
            parts.hostname,
            port or PORTS[parts.scheme],
            (parts.path if parts.path != "/" else "") or "/mqtt"
            if parts.scheme.startswith("ws")
            else "",
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password is not None else None,
        )

    def with_credentials(self, username: str, password: str | None) -> BrokerUrl:
        """The same address with another login."""
        return replace(self, username=username, password=password)

    def with_tls(self, tls: Tls) -> BrokerUrl:
        """The same address with other certificates."""
        return replace(self, tls=tls)

    @property
    def encrypted(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.scheme in ENCRYPTED.values()

    @property
    def websockets(self) -> bool:
        """Whether MQTT is carried by websockets there."""
        return self.scheme in ("ws", "wss")

    @property
    def local(self) -> bool:
        """Whether what is sent there never leaves this machine."""
        if self.host == "localhost":
            return True
        for family, form in ((socket.AF_INET, b"\x7f"), (socket.AF_INET6, bytes(15) + b"\x01")):
            try:
                return socket.inet_pton(family, self.host).startswith(form)
            except OSError:
                continue  # not of this family, or a name
        return False

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
