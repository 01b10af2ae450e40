"""A lab's own certificate authority, and what it signs. Nothing else of hwsync makes certificates.

The law: a lab's certificates are valid from 1970 on, since a board without a clock boots there and
must still find its broker; they end years later, and can be made anew before.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from hwsync.installing import install
from hwsync.protocol.errors import UsageError

MAX_COMMON_NAME: Final = 64  # characters (RFC 5280); a host's name may be longer
BEGINS: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
AUTHORITY_YEARS: Final = 20
CERTIFICATE_YEARS: Final = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both as PEM."""

    certificate: str
    key: str


def make_authority() -> Pair:
    """A new one, that signs for brokers and clients and for no other authority.

    Valid from 1970, for ``AUTHORITY_YEARS`` from now. Raises ``UsageError`` where the library
    cryptography is missing, like all of this module.
    """
    x509, ec, *_ = _cryptography()
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"hwsync lab {secrets.token_hex(4)}")
    builder = _building(name, name, key.public_key(), AUTHORITY_YEARS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(certificates=True), critical=True)
    return _signed(builder, key, key, key.public_key())


def check_host(host: str) -> None:
    """Raises ``UsageError`` for what is no name and no address."""
    if not host or not host.isascii() or not host.isprintable() or set(host) & set("/@ *[]"):
        raise _no_host(host)
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _no_host(host) from None


def fresh_serial() -> str:
    """A serial number that no other certificate has, in hexadecimal."""
    return f"{_cryptography()[0].random_serial_number():040x}"


def sign(authority: Pair, name: str, hosts: tuple[str, ...] = (), serial: str = "") -> Pair:
    """A certificate for that common name: for a broker on these hosts, or for a client (none).

    ``serial``: of ``fresh_serial``; empty: any. Raises ``UsageError`` for a host that is no name
    and no address, and where the authority's key is not its own.
    """
    x509, ec, _, usages = _cryptography()
    ca, ca_key = _loaded(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _building(
        _name(name[:MAX_COMMON_NAME]), ca.subject, key.public_key(), CERTIFICATE_YEARS, serial
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_usage(certificates=False), critical=True)
    purpose = usages.SERVER_AUTH if hosts else usages.CLIENT_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if hosts:
        alternatives = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(alternatives, critical=False)
    return _signed(builder, key, ca_key, ca.public_key())


def revocations(authority: Pair, serials: Iterable[str], number: int) -> str:
    """The list (PEM) of certificates of that authority that count no more. Raises ``UsageError``.

    A broker that reads it again keeps the list of before and goes by the later one. ``number`` is
    its time too, in seconds since 1970: a machine whose clock is wrong finds it valid, as it finds
    the certificates.
    """
    x509 = _cryptography()[0]
    from cryptography.hazmat.primitives import hashes

    ca, ca_key = _loaded(authority)
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
    builder = builder.last_update(BEGINS + datetime.timedelta(seconds=number))
    builder = builder.next_update(ca.not_valid_after_utc)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for serial in serials:
        one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
        builder = builder.add_revoked_certificate(one.revocation_date(BEGINS).build())
    made = builder.sign(ca_key, hashes.SHA256())
    return str(made.public_bytes(_cryptography()[2].Encoding.PEM).decode())


def _loaded(authority: Pair) -> tuple[Any, Any]:
    """(certificate, key). Raises ``UsageError`` where they do not belong together."""
    x509, _, serialization, _ = _cryptography()
    ca = x509.load_pem_x509_certificate(authority.certificate.encode())
    key = serialization.load_pem_private_key(authority.key.encode(), None)
    if ca.public_key() != key.public_key():
        raise UsageError(
            "ca.key is not the key of the authority in ca.crt, so nothing can be signed",
            "put back the lab's own, or give the broker's certificate: --cert, --key and --ca",
        )
    return ca, key


def _building(name: Any, issuer: Any, public: Any, years: int, serial: str = "") -> Any:
    x509 = _cryptography()[0]
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365 * years)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(int(serial, 16) if serial else x509.random_serial_number())
        .not_valid_before(BEGINS)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _signed(builder: Any, key: Any, signer: Any, signer_public: Any) -> Pair:
    x509, _, serialization, _ = _cryptography()
    from cryptography.hazmat.primitives import hashes

    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_public)
    made = builder.add_extension(identifier, critical=False).sign(signer, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(made.public_bytes(pem).decode(), secret.decode())


def _usage(*, certificates: bool) -> Any:
    return _cryptography()[0].KeyUsage(
        digital_signature=not certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=certificates,
        crl_sign=certificates, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> Any:
    x509 = _cryptography()[0]
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> Any:
    x509 = _cryptography()[0]
    check_host(host)
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _no_host(host: str) -> UsageError:
    return UsageError(f"{host!r} is no host of a broker", "a name such as lab.local, or an address")


def _cryptography() -> tuple[Any, Any, Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID
    except ImportError:
        raise UsageError(
            "to make certificates needs the library cryptography, which is not installed",
            f"{install('tls')}; or give --cert, --key and --ca",
        ) from None
    return x509, ec, serialization, ExtendedKeyUsageOID
