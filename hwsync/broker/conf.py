"""Reads a mosquitto configuration, as far as the embedded broker can honour it.

The law: a directive is honoured, or it is harmless to pass over (named in ``HARMLESS`` with the
reason), or it is an error that names its line. Nothing is passed over in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from hwsync.protocol.errors import BadConfig

DEFAULT_NAME: Final = "broker.conf"
DIRECTIVE: Final = re.compile(r"[a-z_]{1,40}")
DIGITS: Final = 10  # of a number; mosquitto's own limits have so many
HARMLESS: Final = {
    "set_tcp_nodelay": "asyncio sets it by itself",
    "persistence": "amqtt keeps nothing; docs/decisions.md says what that means",
    "persistence_location": "as persistence",
    "persistence_file": "as persistence",
    "autosave_interval": "as persistence",
    "autosave_on_changes": "as persistence",
    "max_queued_messages": "it is 10,000 here",
    "max_queued_bytes": "what waits has a limit here, for all clients together",
    "max_inflight_messages": "it is 100 here",
    "max_inflight_bytes": "it is 16 MiB here",
    "memory_limit": "what waits and what is retained has limits here",
    "persistent_client_expiration": "it is seven days here, and the end of the process",
    "max_keepalive": "amqtt takes any",
    "user": "the embedded broker stays who it is",
    "pid_file": "systemd knows the process",
    "log_dest": "the embedded broker logs to stderr",
    "log_type": "as log_dest",
    "log_timestamp": "as log_dest",
    "log_timestamp_format": "as log_dest",
    "connection_messages": "as log_dest",
    "sys_interval": "the embedded broker has no $SYS topics",
}


TLS_VERSIONS: Final = ("tlsv1.2", "tlsv1.3")  # the lowest that is spoken; mosquitto's default first
FILES: Final = ("cafile", "certfile", "keyfile", "crlfile")
FLAGS: Final = ("require_certificate", "use_identity_as_username", "use_username_as_clientid")


@dataclass(frozen=True, slots=True)
class Rules:
    """Who comes in, and what they may do: of all listeners, or of one."""

    allow_anonymous: bool = False  # mosquitto's default
    password_file: Path | None = None
    acl_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the broker listens, and with which certificate; ``cafile`` signed those of clients."""

    port: int
    address: str = "0.0.0.0"
    websockets: bool = False
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    require_certificate: bool = False
    use_identity_as_username: bool = False
    use_username_as_clientid: bool = False
    tls_version: str = TLS_VERSIONS[0]
    origins: tuple[str, ...] = ()  # of web pages from elsewhere that may speak there
    rules: Rules = Rules()  # with per_listener_settings
    crlfile: Path | None = None  # of the cafile's authority: certificates that count no more
    lines: dict[str, int] = field(default_factory=dict, compare=False)  # of each directive

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken there."""
        return self.certfile is not None


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """What the embedded broker honours. ``source`` is the file, for messages."""

    source: str
    listeners: tuple[Listener, ...] = ()
    per_listener: bool = False
    rules: Rules = Rules()  # without per_listener_settings
    message_size_limit: int = 0  # bytes of payload; 0: no limit
    passed_over: tuple[str, ...] = field(default=())

    def rules_of(self, listener: Listener) -> Rules:
        """Those that count at this listener."""
        return listener.rules if self.per_listener else self.rules


def load(path: Path | None) -> BrokerConfig:
    """Read a file; None: ./broker.conf, else the copy in the package.

    Raises ``BadConfig``, with file and line, for what the embedded broker cannot honour: it does
    not begin then. What is harmless to pass over is in ``BrokerConfig.passed_over``.
    """
    if path is None and Path(DEFAULT_NAME).exists():
        path = Path(DEFAULT_NAME)
    if path is not None:
        return _read(path)
    with as_file(files("hwsync.broker").joinpath(DEFAULT_NAME)) as packaged:
        return _read(packaged)


def _read(path: Path) -> BrokerConfig:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadConfig(f"cannot read {path}: {why}", "name another file") from None
    config = BrokerConfig(str(path))
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not line.startswith("#"):
            config = _directive(config, words[0], line.strip()[len(words[0]) :].strip(), number)
    if not config.listeners:
        raise BadConfig(f"{path} has no listener", "add a line such as: listener 1883 127.0.0.1")
    for listener in config.listeners:
        _complete(config, listener)
    return config


def where(config: BrokerConfig, listener: Listener, name: str) -> str:
    """For a message: the file, and the line of that directive of the listener."""
    return f"{config.source}, line {listener.lines.get(name, listener.lines.get('listener', 0))}"


def _complete(config: BrokerConfig, listener: Listener) -> None:
    """Raises ``BadConfig`` where a directive of TLS lacks the one that it needs."""
    needs = {
        "certfile": "keyfile",
        "keyfile": "certfile",
        "cafile": "certfile",
        "tls_version": "certfile",
        "require_certificate": "cafile",
        "crlfile": "require_certificate",
        "use_identity_as_username": "require_certificate",
    }
    for name, needed in needs.items():
        if name in listener.lines and getattr(listener, name) and not getattr(listener, needed):
            raise BadConfig(
                f"{where(config, listener, name)}: {name} without {needed}",
                f"add {needed} below the same listener",
            )
    if listener.origins and not listener.websockets:
        raise BadConfig(
            f"{where(config, listener, 'websockets_origin')}: websockets_origin without websockets",
            "add protocol websockets below the same listener",
        )


def _directive(config: BrokerConfig, name: str, value: str, number: int) -> BrokerConfig:
    where = f"{config.source}, line {number}"
    if name in (*FILES, *FLAGS, "tls_version"):
        return _tls(config, name, value, number)
    if name in HARMLESS:
        return replace(config, passed_over=(*config.passed_over, name))
    if name == "listener":
        return replace(config, listeners=(*config.listeners, _listener(value, number, where)))
    if name == "protocol":
        return _protocol(config, value, where)
    if name == "websockets_origin":
        return _origin(config, value, number, where)
    if name == "per_listener_settings":
        if config.listeners:
            raise BadConfig(f"{where}: {name} below a listener", "it stands above all others")
        return replace(config, per_listener=_flag(name, value, where))
    if name in ("allow_anonymous", "password_file", "acl_file"):
        return _rule(config, name, value, where)
    if name in ("message_size_limit", "max_packet_size"):
        return replace(config, message_size_limit=_number(name, value, where))
    # What is no directive's name is not shown: it may be a line of a file of passwords.
    shown = name if DIRECTIVE.fullmatch(name) else "such line"
    raise BadConfig(
        f"{where}: the embedded broker has no {shown}", "use mosquitto, or remove the line"
    )


def _rule(config: BrokerConfig, name: str, value: str, where: str) -> BrokerConfig:
    """Of the listener above it, or of all."""
    read = _flag(name, value, where) if name == "allow_anonymous" else _file(name, value, where)
    change: dict[str, Any] = {name: read}
    if not config.per_listener:
        return replace(config, rules=replace(config.rules, **change))
    if not config.listeners:
        raise BadConfig(f"{where}: {name} {value}", "below the listener that it is for")
    *others, last = config.listeners
    last = replace(last, rules=replace(last.rules, **change))
    return replace(config, listeners=(*others, last))


def _tls(config: BrokerConfig, name: str, value: str, number: int) -> BrokerConfig:
    """A directive of the listener above it."""
    where = f"{config.source}, line {number}"
    if not config.listeners:
        raise BadConfig(f"{where}: {name} {value}", "below the listener that it is for")
    *others, last = config.listeners
    read: Path | bool | str = value
    if name in FILES:
        read = _file(name, value, where)
    elif name in FLAGS:
        read = _flag(name, value, where)
    elif value not in TLS_VERSIONS:
        raise BadConfig(f"{where}: the embedded broker has no {name} {value}",
                        f"it is {' or '.join(TLS_VERSIONS)}")  # fmt: skip
    lines = {**last.lines, name: number}
    changes: dict[str, Any] = {name: read, "lines": lines}
    return replace(config, listeners=(*others, replace(last, **changes)))


def _file(name: str, value: str, where: str) -> Path:
    """As mosquitto: relative to the folder it was started in."""
    if not Path(value).is_file():
        raise BadConfig(f"{where}: {name} {value}: there is no such file", "name another")
    return Path(value)


def _flag(name: str, value: str, where: str) -> bool:
    if value not in ("true", "false"):
        raise BadConfig(f"{where}: {name} {value}", "it is true or false")
    return value == "true"


def _listener(value: str, number: int, where: str) -> Listener:
    words = value.split()
    if not 1 <= len(words) <= 2:
        raise BadConfig(f"{where}: listener {value}", "listener PORT [ADDRESS]")
    port = _number("listener", words[0], where)
    if port > 65_535:
        raise BadConfig(f"{where}: there is no port {port}", "1 to 65535")
    made = Listener(port, lines={"listener": number})
    return replace(made, address=words[1]) if len(words) == 2 else made


def _protocol(config: BrokerConfig, value: str, where: str) -> BrokerConfig:
    if not config.listeners or value not in ("mqtt", "websockets"):
        raise BadConfig(
            f"{where}: protocol {value}", "mqtt or websockets, below the listener that it is for"
        )
    *others, last = config.listeners
    last = replace(last, websockets=value == "websockets")
    return replace(config, listeners=(*others, last))


def _origin(config: BrokerConfig, value: str, number: int, where: str) -> BrokerConfig:
    """A line of mosquitto 2.1; here such pages are let in beside those of the broker's own."""
    match value.split("/"):
        case ["http:" | "https:", "", host] if host and not set(host) & set(" *@?#"):
            pass
        case _:
            raise BadConfig(
                f"{where}: websockets_origin {value[:80]}",
                "it is what a browser says of the page: http://NAME:PORT, or https://NAME",
            )
    if not config.listeners:
        raise BadConfig(f"{where}: websockets_origin {value}", "below the listener that it is for")
    *others, last = config.listeners
    lines = {**last.lines, "websockets_origin": number}
    last = replace(last, origins=(*last.origins, value), lines=lines)
    return replace(config, listeners=(*others, last))


def _number(name: str, value: str, where: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > DIGITS:
        raise BadConfig(f"{where}: {name} {value[:40]} is no number", f"at most {DIGITS} digits")
    return int(value)
