"""The TLS of the embedded broker's listeners: contexts for asyncio, and who a client is.

The law: a certificate that cannot be used is an error that names its line, before it listens.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

from hwsync.broker.conf import BrokerConfig, Listener, where
from hwsync.protocol.errors import BadConfig

LOWEST: Final = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


def context(config: BrokerConfig, listener: Listener) -> ssl.SSLContext | None:
    """How this listener speaks TLS; None: it does not. Raises ``BadConfig``."""
    if listener.certfile is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = LOWEST[listener.tls_version]
    renew(made, config, listener)
    return made


def renew(made: ssl.SSLContext, config: BrokerConfig, listener: Listener) -> None:
    """Read the files, again: for connections from now on. Raises ``BadConfig``."""
    assert listener.certfile is not None
    try:
        made.load_cert_chain(listener.certfile, listener.keyfile, _no_passphrase)
    except (OSError, ValueError) as error:
        raise _useless(config, listener, "certfile", listener.certfile, error) from None
    if listener.require_certificate and listener.cafile is not None:
        try:
            made.load_verify_locations(listener.cafile)
        except OSError as error:
            raise _useless(config, listener, "cafile", listener.cafile, error) from None
        made.verify_mode = ssl.CERT_REQUIRED
    if listener.crlfile is not None:
        try:
            made.load_verify_locations(listener.crlfile)
        except OSError as error:
            raise _useless(config, listener, "crlfile", listener.crlfile, error) from None
        made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def identity(tls: Any) -> str | None:
    """The common name of a client's certificate; None: it has none."""
    subject = ((tls.getpeercert() if tls is not None else None) or {}).get("subject", ())
    names = [value for pairs in subject for name, value in pairs if name == "commonName"]
    return names[0] if names and names[0] else None


def _no_passphrase() -> str:
    raise ValueError("its key is locked with a passphrase")


def _useless(
    config: BrokerConfig, listener: Listener, name: str, file: Path, error: Exception
) -> BadConfig:
    why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    if why == "KEY_VALUES_MISMATCH":
        why = f"the key in {listener.keyfile} is not its key"
    return BadConfig(
        f"{where(config, listener, name)}: {name} {file} cannot be used: {why}",
        "it holds a certificate in the form PEM; keyfile its private key",
    )
