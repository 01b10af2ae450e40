"""Why an attempt led to no connection, as far as that can be found out; a second look may block.

The law: for an errand's thread only. A look that fails itself is no reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from hwsync.address import BrokerUrl
from hwsync.transport.failed import Failed

log = logging.getLogger("hwsync.transport")


def found(look: Callable[..., Failed | None], *about: Any) -> Failed | None:
    """What a further look at the broker finds; it may fail itself."""
    try:
        return look(*about)
    except Failed as failure:
        return failure
    except Exception:
        log.exception("hwsync failed to find out why; this is a bug")
        return None


def why(url: BrokerUrl, error: OSError) -> Failed:
    """What an attempt that ended with this error says to people."""
    reason = None
    if url.encrypted:
        from hwsync.transport import tls

        reason = tls.explain(url, error)
    elif isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        reason = hung_up(url)  # a websocket's beginning
    return reason or Failed(error.strerror or str(error) or "no connection")


def hung_up(url: BrokerUrl) -> Failed | None:
    """Why the broker may have ended the connection before any answer; None: nobody knows."""
    from hwsync.transport import tls

    return tls.closed(url)
