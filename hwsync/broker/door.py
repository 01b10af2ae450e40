"""Who comes in at a listener of the embedded broker, under which client id, and with which rights.

The law: nothing of anybody's session is touched before the login was checked; a client id belongs
to the account that has a session under it. With ``use_username_as_clientid`` the account is the
client id. What the files say counts anew after a SIGHUP; whom they let in no more is sent away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from amqtt.adapters import BufferReader  # type: ignore[import-untyped]
from amqtt.mqtt.connect import ConnectPacket  # type: ignore[import-untyped]

from hwsync.broker.access import Access, Acl, Passwords
from hwsync.broker.certificates import identity
from hwsync.broker.conf import BrokerConfig, Listener, Rules

log = logging.getLogger("hwsync.broker")

Read = tuple[Passwords | None, Acl | None]

ENTRY: Final = "hwsync.entry"  # of a session's attributes


@dataclass(frozen=True, slots=True)
class Admitted:
    """How a session came in. ``proof``: the stored password that its own was compared with."""

    door: Door
    account: str | None
    proof: str | None

    @property
    def owner(self) -> str:
        """The account that its client id belongs to; empty: nobody asked whose name it is."""
        return (self.account or "") if self.door.asks else ""


class Door:
    """One listener's. Its construction raises ``BadConfig``."""

    def __init__(self, config: BrokerConfig, listener: Listener) -> None:
        self.change(*self.read(config, listener))

    @staticmethod
    def read(config: BrokerConfig, listener: Listener) -> tuple[Listener, Rules, Read]:
        """What the files say now, for ``change``. Raises ``BadConfig``."""
        rules = config.rules_of(listener)
        passwords = Passwords(rules.password_file) if rules.password_file else None
        return listener, rules, (passwords, Acl(rules.acl_file) if rules.acl_file else None)

    def change(self, listener: Listener, rules: Rules, read: Read) -> None:
        """What ``read`` returned counts from now on; who is in already: ``still_admits``."""
        self.listener, self._anonymous = listener, rules.allow_anonymous
        self._passwords, self._acl = read

    def enter(self, name: str | None, password: str | None, tls: Any) -> Admitted | None:
        """Who this login is; None: nobody. As mosquitto, a certificate stands for the login."""
        if self.listener.use_identity_as_username:
            subject = identity(tls)
            return Admitted(self, subject, None) if subject else None
        if not name or self._passwords is None:
            if not self._anonymous or (self.listener.use_username_as_clientid and not name):
                return None
            return Admitted(self, name or None, None)
        if not self._passwords.accept(name, password or ""):
            return None
        return Admitted(self, name, self._passwords.stored(name))

    @property
    def asks(self) -> bool:
        """Whether a name has to be proven here."""
        return self.listener.use_identity_as_username or self._passwords is not None

    def still_admits(self, entry: Admitted) -> bool:
        """Whether a session that came in would come in today."""
        if self.listener.use_identity_as_username:
            return self._acl is None or self._acl.knows(entry.account or "")
        if entry.proof is None:
            return self._anonymous
        known = self._passwords
        return known is not None and known.stored(entry.account or "") == entry.proof

    def reserves(self, client_id: str) -> bool:
        """Whether this client id is that of an account here, so that nobody else may take it."""
        if not self.listener.use_username_as_clientid:
            return False
        if self.listener.use_identity_as_username:
            return self._acl is not None and self._acl.names(client_id)
        return self._passwords is not None and self._passwords.stored(client_id) is not None

    def client_id(self, asked: str, entry: Admitted) -> str:
        """The id under which it is known."""
        own = self.listener.use_username_as_clientid and entry.account
        return entry.account or "" if own else asked

    def allows(self, access: Access, topic: str, entry: Admitted, client_id: str) -> bool:
        """Whether it may read (be delivered) or write (publish) this topic."""
        return self._acl is None or self._acl.allows(access, topic, entry.account, client_id)


def owner_of(session: Any) -> str:
    """The account whose session of amqtt's this is; empty: of somebody without one."""
    entry: Admitted | None = session.attributes.get(ENTRY)
    return entry.owner if entry else ""


async def at_the_door(
    packet: bytes, door: Door, tls: Any, owner: Callable[[str], str | None]
) -> tuple[bytes, Admitted | None]:
    """A CONNECT as the broker may go on with it, and how it comes in; None: it is refused.

    ``owner``: the account that a client id belongs to; empty: to somebody without one, None: to
    nobody.
    """
    connect = await ConnectPacket.from_stream(BufferReader(packet))
    entry = door.enter(connect.username, connect.password, tls)
    if entry is None:
        return packet, None
    wanted = door.client_id(connect.client_id, entry)
    account = owner(wanted)
    if account is not None and account != entry.owner:
        log.warning("%s may not take the client id %s: it is another's", entry.account, wanted)
        return packet, None
    if wanted != connect.client_id:
        connect.client_id = wanted
        packet = bytes(connect.to_bytes())
    return packet, entry
