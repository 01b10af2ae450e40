"""The real wire: a socket, and paho over it.

The law: nothing here blocks the owner; what does so is done in an errand's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.transport.channel import Channel
from hwsync.transport.connecting import Attempt
from hwsync.transport.errand import Errand
from hwsync.transport.failed import Failed
from hwsync.transport.paho_client import PahoClient
from hwsync.transport.reasons import found, hung_up, why
from hwsync.transport.signals import Secured, Subscription, Will
from hwsync.transport.wire import WireOwner

log = logging.getLogger("hwsync.transport")

LOOK_S: Final = 1.0  # between two looks whether a ping is due


class PahoWire:
    """See ``wire.Wire``."""

    look_s = LOOK_S

    def __init__(
        self,
        url: BrokerUrl,
        client_id: str,
        attempt: Attempt,
        will: Will | None,
        owner: WireOwner,
    ) -> None:
        self._url = url
        self._client = PahoClient(url, client_id, attempt, will, owner)
        self._channel: Channel | None = None  # from ``say_hello`` on

    def dial(self) -> Errand[Failed | None]:
        return Errand(self._dial, self._unwanted)

    def _dial(self) -> Failed | None:
        """In the errand's thread."""
        url, client = self._url, self._client
        try:
            client.dial()
        except OSError as error:
            client.give_up()
            return found(why, url, error) or Failed(str(error))
        except ValueError as error:
            client.give_up()
            return Failed(str(error))
        except Failed as failure:
            return failure
        except Exception:
            log.exception("hwsync failed to connect to %s; this is a bug", url)
            client.give_up()
            return Failed("an error inside hwsync")
        return None

    def _unwanted(self, failure: Failed | None) -> None:
        """Nobody waits for what was dialled."""
        if failure is None:
            self._client.give_up()

    def ask_why(self, otherwise: Failed) -> Errand[Failed | None]:
        return Errand(lambda: found(hung_up, self._url) or otherwise)

    @property
    def unreadable(self) -> str:
        return self._client.unreadable

    def fileno(self) -> int | None:
        if self._channel is None or self._channel.fileno() < 0:
            return None
        return self._channel.fileno()

    @property
    def wants_write(self) -> bool:
        return self._channel is not None and self._channel.wants_write

    @property
    def is_flushed(self) -> bool:
        return self._channel is None or self._channel.is_flushed

    @property
    def read_us(self) -> int:
        return 0 if self._channel is None else self._channel.read_us

    @property
    def secured(self) -> Secured | None:
        if self._channel is None or not self._url.encrypted:
            return None
        from hwsync.transport import tls

        return tls.secured(self._channel.sock)

    def say_hello(self) -> None:
        self._channel = self._client.say_hello()

    def say_goodbye(self) -> None:
        self._client.say_goodbye()

    def close(self) -> None:
        self._client.close()

    def send(
        self, topic: str, payload: bytes, qos: int, retain: bool, correlation: bytes = b""
    ) -> int:
        return self._client.send(topic, payload, qos, retain, correlation)

    def acknowledge(self, mid: int, qos: int) -> None:
        self._client.ack(mid, qos)

    def ask_for(self, subscriptions: Sequence[Subscription]) -> None:
        self._client.ask_for(subscriptions)

    def read(self) -> None:
        channel, client = self._channel, self._client
        assert channel is not None
        channel.fill()
        while not client.has_ended and (channel.has_come or channel.is_over):
            before = channel.has_come
            client.loop_read()
            if channel.has_come == before:
                return  # a part of a packet

    def write(self) -> None:
        channel, client = self._channel, self._client
        while channel is not None and not client.has_ended:
            if client.want_write():
                client.loop_write()
            channel.flush()
            if not (channel.is_flushed and client.want_write()):
                return

    def look(self) -> None:
        self._client.loop_misc()
