"""Which CONNECTs a broker is sent, one after the other, until it accepts one: no sockets here.

The law: each attempt is made under our own client id and asks for the session that we want.

Why: a broker with ``use_username_as_clientid`` renames every connection of an account to the
account: a mere look, under whatever id, that asks for no session would end ours, and what waits in
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONNECT_S: Final = 5.0  # for one attempt: TCP, then the broker's answer
V5_ANSWER_S: Final = 3.0  # for the answer to MQTT 5, where nobody knows of one: amqtt gives none


@dataclass(frozen=True, slots=True)
class Attempt:
    """One CONNECT. ``protocol``: 4 (MQTT 3.1.1) or 5."""

    protocol: int
    clean: bool  # begin without the session that the broker may have of us
    keep: bool  # the session is to outlive the connection (3.1.1 says both with one flag)
    patience: float  # seconds for the broker's answer


def attempts(clean_session: bool, prefer_v5: bool, worked: int) -> tuple[Attempt, ...]:
    """The attempts of one connect, in order.

    ``worked``: the version of the last connection, 0 where there was none or an attempt in it has
    failed since. A broker that refuses a version, or takes it for something else and is silent,
    has ended no session of ours.
    """
    old = Attempt(4, clean_session, not clean_session, CONNECT_S)
    if not prefer_v5 or worked == 4:
        return (old,)
    patience = CONNECT_S if worked == 5 else V5_ANSWER_S
    new = Attempt(5, clean_session, not clean_session, patience)
    return (new,) if worked == 5 else (new, old)


PEEK: Final = Attempt(4, False, True, CONNECT_S)
"""Whether the broker has a session of ours, without ending it; for a client that wants none.

In 3.1.1, which needs no properties, and is answered by every broker.
"""
