"""The embedded broker: amqtt in this process, with our own checks at its door.

For the first five minutes, for tests, and where nothing can be installed. What amqtt does not do,
and this module does not mend: it speaks MQTT 3.1.1 only, never sends an unacknowledged message
again, forgets sessions and retained messages when it ends, does not enforce the keepalive, and lets
wills pass the ACL. So the coordinator takes a clean session there, and whoever asks with an id
repeats. mosquitto is the broker for a real lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
from dataclasses import dataclass
from typing import Any, Final

from amqtt.contexts import Action  # type: ignore[import-untyped]
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin  # type: ignore[import-untyped]

from hwsync.broker.access import Acl, Passwords
from hwsync.broker.conf import BrokerConfig
from hwsync.broker.mended import MendedBroker
from hwsync.protocol.errors import HwsyncError

log = logging.getLogger("hwsync.broker")

STOP_S: Final = 3.0  # for amqtt to end, which takes milliseconds, or in rare races for ever
NOISY: Final = ("amqtt", "transitions", "websockets")

_doors: dict[str, Door] = {}  # by the configuration's source: amqtt makes its plugins itself


@dataclass(frozen=True, slots=True)
class Door:
    """What is asked of whoever comes in, publishes or is delivered something."""

    allow_anonymous: bool
    passwords: Passwords | None
    acl: Acl | None

    def admits(self, name: str | None, password: str | None) -> bool:
        """Whether this login may come in."""
        if not name:
            return self.allow_anonymous
        if self.passwords is None:
            return self.allow_anonymous
        return self.passwords.accept(name, password or "")


class Login(BaseAuthPlugin):  # type: ignore[misc]
    """amqtt's question at a connect."""

    @dataclass
    class Config:
        """``door``: the key of the checks in this process."""

        door: str = ""

    async def authenticate(self, *, session: Any) -> bool:
        """Whether the session may come in."""
        try:
            session.is_anonymous = not session.username  # nothing is queued for it while it is away
            return _doors[self.config.door].admits(session.username, session.password)
        except Exception:
            log.exception("cannot check a login: refused")
            return False


class Topics(BaseTopicPlugin):  # type: ignore[misc]
    """amqtt's question at each publish, subscription and delivery."""

    @dataclass
    class Config:
        """``door``: the key of the checks in this process."""

        door: str = ""

    async def topic_filtering(
        self, *, session: Any = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """As mosquitto: every subscription is accepted, what is delivered is filtered."""
        acl = _doors[self.config.door].acl
        if acl is None or session is None or topic is None or action is Action.SUBSCRIBE:
            return True
        access = "write" if action is Action.PUBLISH else "read"
        return acl.allows(access, topic, session.username, session.client_id or "")  # type: ignore[arg-type]


def serve(config: BrokerConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``HwsyncError`` when it cannot listen."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _doors[config.source] = Door(
        config.allow_anonymous,
        Passwords(config.password_file) if config.password_file else None,
        Acl(config.acl_file) if config.acl_file else None,
    )
    asyncio.run(_serve(config))


async def _serve(config: BrokerConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, stop.set)
    loop.set_exception_handler(_unhandled)
    listeners: dict[str, Any] = {}
    for number, listener in enumerate(config.listeners):
        host = f"[{listener.address}]" if ":" in listener.address else listener.address
        listeners["default" if number == 0 else f"listener-{number}"] = {
            "type": "ws" if listener.websockets else "tcp",
            "bind": f"{host}:{listener.port}",
            "max_connections": -1,
        }
    plugins = {
        f"{__name__}.{Login.__name__}": {"door": config.source},
        f"{__name__}.{Topics.__name__}": {"door": config.source},
    }
    broker = MendedBroker({"listeners": listeners, "plugins": plugins}, config.message_size_limit)
    try:
        await broker.start()
    except Exception as error:
        raise _cannot_listen(config, error) from None
    for listener in config.listeners:
        kind = "websockets" if listener.websockets else "mqtt"
        log.info("listening on %s port %d (%s)", listener.address, listener.port, kind)
    await stop.wait()
    log.info("stopping")
    with contextlib.suppress(Exception):
        await asyncio.wait_for(broker.shutdown(), STOP_S)


def _cannot_listen(config: BrokerConfig, error: Exception) -> HwsyncError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    ports = ", ".join(str(listener.port) for listener in config.listeners)
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
        return HwsyncError(
            f"port {ports} is taken by another program",
            "Debian's own mosquitto service sits on 1883: systemctl disable --now mosquitto",
        )
    return HwsyncError(f"cannot listen on port {ports}: {cause or error}", "see the listener lines")


def _unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What amqtt leaves unhandled concerns one client; it is told, and the broker lives."""
    log.debug("amqtt: %s %s", context.get("message"), context.get("exception", ""))
