"""The embedded broker: amqtt in this process, with our own checks at its door.

For the first five minutes, for tests, and where nothing can be installed. It speaks MQTT 3.1.1
only, and forgets sessions and retained messages when it ends: whoever asks with an id repeats.
mosquitto is the broker for a real lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
from pathlib import Path
from typing import Any, Final

import amqtt  # type: ignore[import-untyped]

from hwsync import __version__
from hwsync.broker import certificates
from hwsync.broker.conf import BrokerConfig, load
from hwsync.broker.door import Door
from hwsync.broker.mended import Entrance, MendedBroker
from hwsync.notify import Notifier
from hwsync.protocol.errors import BadConfig, HwsyncError

log = logging.getLogger("hwsync.broker")

VERSION_TOPIC: Final = "$SYS/broker/version"  # as mosquitto's: where a broker says its name
NAME: Final = f"hwsync broker {__version__} (amqtt {amqtt.__version__})"
SESSION_S: Final = 7 * 86_400  # that a session is kept whose client is away
STOP_S: Final = 3.0  # for amqtt to end, which takes milliseconds, or in rare races for ever
LACKS: Final = (
    "with accounts mosquitto is the better broker: this one speaks MQTT 3.1.1 only, so that nobody "
    "is told of a message that was refused, and it forgets sessions and what is retained when it "
    "ends (docs/security.md)"
)
NOISY: Final = ("amqtt", "transitions", "websockets")


def serve(config: BrokerConfig) -> None:
    """Serve until SIGTERM or SIGINT; at a SIGHUP it reads its files again (``config.source``).

    Raises ``BadConfig`` for a certificate, password or ACL file that cannot be used, and
    ``HwsyncError`` when it cannot listen; both before anybody was let in. What cannot be used at a
    SIGHUP is logged, and what was read before still counts.
    """
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    asyncio.run(_serve(config))


async def _serve(config: BrokerConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, stop.set)
    loop.set_exception_handler(_unhandled)
    listeners: dict[str, Any] = {}
    entrances: dict[str, Entrance] = {}
    for number, listener in enumerate(config.listeners):
        host = f"[{listener.address}]" if ":" in listener.address else listener.address
        name = "default" if number == 0 else f"listener-{number}"
        context = certificates.context(config, listener)
        entrances[name] = Entrance(context, Door(config, listener))
        listeners[name] = {
            "type": "ws" if listener.websockets else "tcp",
            "bind": f"{host}:{listener.port}",
            "max_connections": -1,
        }
    broker = MendedBroker(
        {"listeners": listeners, "plugins": {}, "session_expiry_interval": SESSION_S},
        config.message_size_limit,
        entrances,
    )
    loop.add_signal_handler(signal.SIGHUP, _reload, broker, config)
    try:
        await broker.start()
    except Exception as error:
        raise _cannot_listen(config, error) from None
    await broker.retain_message(None, VERSION_TOPIC, NAME.encode(), 0)
    for listener in config.listeners:
        kind = "websockets" if listener.websockets else "mqtt"
        tls = ", TLS" if listener.encrypted else ""
        log.info("listening on %s port %d (%s%s)", listener.address, listener.port, kind, tls)
    if any(config.rules_of(listener).acl_file for listener in config.listeners):
        log.warning(LACKS)
    notifier = Notifier()
    notifier.ready()
    beating = loop.create_task(_beat(notifier, config))
    await stop.wait()
    log.info("stopping")
    notifier.stopping()
    beating.cancel()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(broker.shutdown(), STOP_S)


async def _beat(notifier: Notifier, config: BrokerConfig) -> None:
    """Tell systemd that the event loop turns; a broker has no other thread."""
    ports = ", ".join(f"{listener.address} port {listener.port}" for listener in config.listeners)
    while (wait := notifier.wait()) is not None:
        notifier.status(lambda: f"listening on {ports}")
        notifier.beat()
        await asyncio.sleep(wait)


def _reload(broker: MendedBroker, before: BrokerConfig) -> None:
    """Accounts, rights and certificates anew; listeners stay as they are until a restart."""
    try:
        config = load(Path(before.source)) if Path(before.source).exists() else before
        if len(config.listeners) != len(before.listeners):
            raise BadConfig(f"{config.source}: other listeners", "they need a restart")
        pairs = list(zip(broker.entrances, config.listeners, strict=True))
        read = [Door.read(config, listener) for listener in config.listeners]
        for entrance, listener in pairs:
            if entrance.context is not None:
                certificates.renew(entrance.context, config, listener)
        for (entrance, _), changed in zip(pairs, read, strict=True):
            entrance.door.change(*changed)
    except HwsyncError as error:
        log.error("%s; what was read before still counts", error)
        return
    log.info("read %s again", config.source)
    broker.send_away()


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
