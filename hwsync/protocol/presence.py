"""Who is online, by what the coordinator heard (docs/protocol.md, section 3, "Who is online").

The law: no clocks of two machines are compared. The coordinator says how long ago it heard each
board, by a clock that cannot jump; silence counts only while it listened. Whoever asks whether a
board is online asks ``is_online``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsync.protocol.events import HeartbeatReceived
from hwsync.protocol.limits import OFFLINE_AFTER_S

Json = Mapping[str, Any]


def is_outdated_will(before: HeartbeatReceived | None, heard: HeartbeatReceived) -> bool:
    """Whether this is the will of an earlier boot, or of a device that was replaced.

    ``before``: what was heard last of that user.
    """
    if before is None or heard.online:
        return False
    return before.journal != heard.journal or before.boot > heard.boot


def silence(user: str, boards: Json) -> float:
    """Seconds for which the coordinator listened and heard nothing of a board."""
    heard = boards["boards"].get(user)
    listening: float = boards["listening"]
    return listening if heard is None else min(heard, listening)


def is_online(user: str, beat: Json | None, boards: Json | None) -> bool | None:
    """Whether a board is online; None: nobody can say.

    ``beat``: its heartbeat, as the broker keeps it, None: there is none. ``boards``: the list, from
    a coordinator that answers, None: none does. Then a will counts still.
    """
    kept = beat is not None and bool(beat["online"])
    if boards is None:
        return None if kept else False
    if user in boards["boards"]:
        online = boards["boards"][user] is not None
    elif kept and boards["left_out"]:
        return None
    else:
        online = kept
    return online and silence(user, boards) < OFFLINE_AFTER_S
