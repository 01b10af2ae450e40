"""TLS with a broker: whom we trust, who we are, and in words why a connection did not come about.

The law: the broker's certificate and its name are checked whenever anything is sent, and nothing
below TLS 1.2 is spoken. Where an error alone does not say what was wrong, the broker is looked at
once more; nothing secret is sent then, since such a look may trust anybody.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from hwsync.address import PEM, PORTS, BrokerUrl, Tls
from hwsync.transport.failed import Failed
from hwsync.transport.signals import Secured

LOOK_S: Final = 2.0  # for each further look at a broker that did not let us in
ALERT_S: Final = 0.5  # for a broker to refuse our certificate, after the handshake (TLS 1.3)
NAMES: Final = 5  # of a certificate, at most, in a message
# MQTT 3.1.1, clean session, the client id "hwsync-look": what a broker without TLS answers.
CONNECT: Final = b"\x10\x17\x00\x04MQTT\x04\x02\x00\x14\x00\x0bhwsync-look"
GET: Final = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"  # and one with websockets

_HUNG_UP: Final = "the broker closed the connection during the TLS handshake"
# X.509 verification results (openssl/x509_vfy.h)
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21, 27})
_OTHER_NAME: Final = frozenset({62, 64})
# What OpenSSL says of an answer that is no TLS.
_NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
)
# What a server says that wants a certificate: the first before TLS 1.3.
_NO_CERTIFICATE: Final = ("HANDSHAKE_FAILURE", "CERTIFICATE_REQUIRED", "BAD_CERTIFICATE")
# What a server says of our certificate, as OpenSSL names its alerts.
_OUR_CERTIFICATE: Final = {
    "CERTIFICATE_EXPIRED": "it has expired, by the broker's clock",
    "CERTIFICATE_REVOKED": "it was revoked",
    "UNKNOWN_CA": "the broker does not know the authority that signed it",
    "BAD_CERTIFICATE": "the broker calls it bad",
    "UNSUPPORTED_CERTIFICATE": "the broker cannot use one of its kind",
    "CERTIFICATE_UNKNOWN": "the broker does not say why",
    "ACCESS_DENIED": "its name may not come in",
    "DECRYPT_ERROR": "its signature is not that of its key",
}


def context(url: BrokerUrl) -> ssl.SSLContext:
    """How to speak to this broker; the files are read anew. Raises ``Failed``."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and its name
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if url.tls.ca:
        _trust(made, url.tls.ca)
    else:
        made.load_default_certs()
    if url.tls.certificate:
        _present(made, url.tls.certificate, url.tls.key)
    return made


def _trust(made: ssl.SSLContext, ca: str) -> None:
    shown = _shown(ca, "the authority's certificate")
    cure = "name the file with the certificate of the lab's authority: --ca FILE"
    with _file(ca, shown, cure) as path:
        try:
            made.load_verify_locations(path)
        except ssl.SSLError:
            raise Failed(f"{shown} holds no certificate in the form PEM", cure) from None


def _present(made: ssl.SSLContext, certificate: str, key: str) -> None:
    shown, cure = _shown(certificate, "our certificate"), "see --cert FILE and --key FILE"
    shown_key = _shown(key, "our key") if key else shown
    encrypted: list[bool] = []

    def no_passphrase() -> str:
        encrypted.append(True)
        return ""

    with _file(certificate, shown, cure) as path, _file(key or certificate, shown_key, cure) as own:
        try:
            made.load_cert_chain(path, own, no_passphrase)
        except ssl.SSLError as error:
            if encrypted:
                plain = "write it without one: openssl pkey -in KEY -out NEW"
                raise Failed(f"{shown_key} is locked with a passphrase", plain) from None
            if error.reason == "KEY_VALUES_MISMATCH":
                said = f"the key in {shown_key} is not that of the certificate in {shown}"
                raise Failed(said, cure) from None
            said = f"no certificate in {shown}, or no private key in {shown_key}, in the form PEM"
            raise Failed(said, cure) from None


def _shown(text: str, name: str) -> str:
    """A path, or what a PEM text is."""
    return f"{name} (given as text)" if PEM in text else text


@contextmanager
def _file(text: str, shown: str, cure: str) -> Iterator[str]:
    """The path of what is a path or a PEM text: ssl reads files only, and no key goes to a disk."""
    if PEM not in text:
        try:
            with open(text, "rb"):
                pass  # ssl does not say which file it could not read
        except OSError as error:
            raise Failed(f"cannot read {shown}: {error.strerror}", cure) from None
        yield text
        return
    with os.fdopen(os.memfd_create("hwsync"), "wb") as memory:
        memory.write(text.encode())
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"


def secured(sock: Any) -> Secured | None:
    """What protects this connection; None: nothing."""
    if not isinstance(sock, ssl.SSLSocket):
        return None
    ends: Any = (sock.getpeercert() or {}).get("notAfter")
    expires = float(ssl.cert_time_to_seconds(ends)) if ends else None
    return Secured(sock.version() or "TLS", expires)


def explain(url: BrokerUrl, error: OSError) -> Failed | None:
    """Why a connection over TLS failed like this; None: it has nothing to do with TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _not_trusted(url, error)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return None if isinstance(error, ConnectionRefusedError) else _closed_on(url, error)
    if isinstance(error, ssl.SSLError):
        return _said(url, error.reason or str(error))
    if isinstance(error, TimeoutError) and "handshake" in str(error):
        if _speaks_plain(url):
            return _no_tls(url)
        return Failed("no answer to the TLS handshake", "is this the port of a broker with TLS?")
    return None


def _closed_on(url: BrokerUrl, error: OSError) -> Failed | None:
    """The same of a connection that was closed, if it was: a websocket may have been refused."""
    found = closed(url)
    if found is None and isinstance(error, ssl.SSLError | ConnectionResetError):
        return Failed(_HUNG_UP, "see its log")
    return found


def _said(url: BrokerUrl, reason: str) -> Failed:
    """What OpenSSL's name of an error means: an alert is the broker's own word."""
    if "ALERT" in reason:
        for name, meaning in _OUR_CERTIFICATE.items():
            if name in reason and url.tls.certificate:
                cure = "name another with --cert FILE and --key FILE, or see the broker's log"
                return Failed(f"the broker refuses our certificate: {meaning}", cure)
        if "PROTOCOL_VERSION" in reason:
            return Failed("the broker speaks no TLS 1.2 or later", "bring it up to date")
        if not url.tls.certificate and any(name in reason for name in _NO_CERTIFICATE):
            return _wants_certificate()
        return Failed(f"the broker ended the TLS handshake: {reason.lower()}", "see its log")
    if reason in _NO_TLS:
        return _no_tls(url)
    return Failed(f"TLS failed: {reason.lower()}")


def _wants_certificate() -> Failed:
    return Failed(
        "the broker wants a certificate of ours", "name one with --cert FILE and --key FILE"
    )


def _no_tls(url: BrokerUrl) -> Failed:
    usual, plain = PORTS[url.scheme], "ws" if url.websockets else "mqtt"
    return Failed(
        f"the broker speaks no TLS on port {url.port}",
        f"use the port of its TLS listener ({usual} by default); without TLS it is {plain}://",
    )


def _not_trusted(url: BrokerUrl, error: ssl.SSLCertVerificationError) -> Failed:
    clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    code = error.verify_code
    if code == _EXPIRED:
        return Failed(
            f"the broker's certificate, or its authority's, has expired (this machine's clock says "
            f"{clock})",
            "renew it at the broker; if the clock is wrong: timedatectl set-ntp true",
        )
    if code == _NOT_YET_VALID:
        return Failed(
            f"the broker's certificate, or its authority's, is not valid yet: this machine's clock "
            f"says {clock}",
            "set the clock, a board without one begins in 1970: timedatectl set-ntp true",
        )
    if code in _OTHER_NAME:
        names = _names(url)
        known = f" but for {', '.join(names)}" if names else ""
        cure = "name the broker in --broker as its certificate does" if names else ""
        cure = cure or "see its names: openssl x509 -noout -ext subjectAltName -in CERTIFICATE"
        return Failed(f"the broker's certificate is not for {url.host}{known}", cure)
    if code in _UNKNOWN_AUTHORITY:
        who = "the authority in --ca" if url.tls.ca else "an authority that this machine trusts"
        cure = "name the file with its authority's certificate: --ca FILE"
        return Failed(f"the broker's certificate is not signed by {who}", cure)
    return Failed(f"the broker's certificate is not accepted: {error.verify_message}")


def _names(url: BrokerUrl) -> list[str]:
    """Whom the certificate is for, of a broker whose authority we trust; empty: unknown."""
    anybody = context(url.with_tls(Tls(url.tls.ca)))
    anybody.check_hostname = False
    with (
        suppress(OSError),
        _connected(url) as raw,
        anybody.wrap_socket(raw, server_hostname=url.host) as sock,
    ):
        entries: Any = (sock.getpeercert() or {}).get("subjectAltName", ())
        return [str(name) for _, name in entries][:NAMES]
    return []


def closed(url: BrokerUrl) -> Failed | None:
    """Why a broker ends our connections before it answers; None: not because of TLS, or unknown."""
    if not url.encrypted:
        if not _speaks_tls(url):
            return None
        cure = f"use {url.scheme}s://, with --ca FILE where the lab has its own authority"
        return Failed(f"the broker speaks only TLS on port {url.port}", cure)
    ours = context(url)
    try:
        with _connected(url) as raw, ours.wrap_socket(raw, server_hostname=url.host) as sock:
            return _ended(url, sock)
    except TimeoutError:
        return None
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
        if _speaks_plain(url):
            return _no_tls(url)
        return Failed(_HUNG_UP, "see its log")
    except OSError as error:
        return explain(url, error)


def _ended(url: BrokerUrl, sock: ssl.SSLSocket) -> Failed | None:
    """Whether the broker ends a connection right after its handshake: then our certificate is why.

    With TLS 1.3 it looks at that only then. What it says is lost to whoever is writing.
    """
    sock.settimeout(ALERT_S)
    try:
        if sock.recv(1):
            return None
    except TimeoutError:
        return None  # it waits for our CONNECT: with TLS it has no quarrel
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
        pass
    except ssl.SSLError as error:
        return explain(url, error)
    if url.tls.certificate:
        return Failed(
            "the broker ends the connection after the TLS handshake: it refuses our certificate",
            "name another with --cert FILE and --key FILE, or see the broker's log",
        )
    return Failed(
        "the broker ends the connection after the TLS handshake: most likely it wants a "
        "certificate of ours",
        "name one with --cert FILE and --key FILE, or see the broker's log",
    )


def _speaks_tls(url: BrokerUrl) -> bool:
    """Whether TLS is spoken there; whoever it is, since nothing is sent to it."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        with _connected(url) as raw, anybody.wrap_socket(raw, server_hostname=url.host):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _speaks_plain(url: BrokerUrl) -> bool:
    """Whether a broker without TLS is there: it answers to a CONNECT, or as a web server."""
    for question in (GET, CONNECT) if url.websockets else (CONNECT, GET):
        with suppress(OSError), _connected(url) as sock:
            sock.sendall(question)
            if sock.recv(1):
                return True
    return False


@contextmanager
def _connected(url: BrokerUrl) -> Iterator[socket.socket]:
    with socket.create_connection((url.host, url.port), timeout=LOOK_S) as sock:
        yield sock
