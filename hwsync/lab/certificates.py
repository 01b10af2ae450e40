"""The certificates of a lab's folder: the broker's, and the two authorities.

The law: ``ca.crt`` signs for the broker and is told to everybody; ``clients.crt`` signs for
accounts, where they have certificates, and only the broker is told.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwsync.lab.accounts import Accounts
from hwsync.lab.authority import Pair, make_authority, sign
from hwsync.lab.files import FOR_ALL, FOR_BROKER, SECRET, exists, read, remove, write
from hwsync.protocol.errors import UsageError

LOCAL: Final = ("localhost", "127.0.0.1", "::1")  # every broker's certificate is for these too


@dataclass(frozen=True, slots=True)
class Given:
    """The broker's certificate, its key and its authority, where they are not the lab's own."""

    certificate: Path
    key: Path
    ca: Path


def certify(lab: Path, accounts: Accounts, given: Given | None) -> None:
    """The broker's certificate: given, or signed by the lab's own authority.

    Raises ``UsageError``.
    """
    files = lab / "broker"
    if given is None:
        own = authority(lab)
        made = sign(own, accounts.hosts[0], (*accounts.hosts, *LOCAL))
        pair = Pair(made.certificate + own.certificate, made.key)
    elif accounts.mutual_tls:
        raise UsageError("mutual TLS needs the lab's own authority", "leave out --cert")
    else:
        pair = Pair(read(given.certificate), read(given.key))
        _fit(given)
        write(lab / "ca.crt", read(given.ca), FOR_ALL)
        remove(lab / "ca.key")  # of another authority, from here on
    write(files / "broker.crt", pair.certificate, FOR_BROKER)
    write(files / "broker.key", pair.key, FOR_BROKER)
    write(files / "ca.crt", read(lab / "ca.crt"), FOR_BROKER)
    if accounts.bound:
        write(files / "clients.crt", clients(lab).certificate, FOR_BROKER)


def authority(lab: Path) -> Pair:
    """The lab's own; made where there is none.

    Raises ``UsageError`` where its certificate is here and its key is not.
    """
    key = lab / "ca.key"
    if exists(lab / "ca.crt") and not exists(key):
        raise UsageError(
            f"{key} is not here, so nothing can be signed",
            "give the broker's certificate: --cert, --key and --ca",
        )
    return _made_once(lab / "ca.crt", key)


def clients(lab: Path) -> Pair:
    """The authority that signs for accounts, and for nothing else; made where there is none.

    Its own: so all of its certificates are in the list, and those of before count no more. Raises
    ``UsageError`` where its certificate is here and its key is not.
    """
    certificate, key = lab / "clients.crt", lab / "clients.key"
    if exists(certificate) and not exists(key):
        raise UsageError(
            f"{key} is not here, so no account can be given a certificate, and none be refused",
            "put back the lab's own",
        )
    return _made_once(certificate, key)


def _made_once(certificate: Path, key: Path) -> Pair:
    if not exists(certificate):  # it comes last: a key without it has signed nothing
        made = make_authority()
        write(key, made.key, SECRET)
        write(certificate, made.certificate, FOR_ALL)
    return Pair(read(certificate), read(key))


def _fit(given: Given) -> None:
    """Raises ``UsageError`` where a broker could not use them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        file = given.certificate
        context.load_cert_chain(file, given.key, _no_passphrase)
        file = given.ca
        context.load_verify_locations(file)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        if why == "KEY_VALUES_MISMATCH":
            why = f"{given.key} is not its key"
        raise UsageError(f"{file} cannot be used: {why}",
                         "certificates and key are of the form PEM") from None  # fmt: skip


def _no_passphrase() -> str:
    raise ValueError("its key is locked with a passphrase")
