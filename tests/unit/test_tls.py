"""What is said of certificates that cannot be used, and of what a broker says of ours."""

from __future__ import annotations

import re
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from hwsync.address import BrokerUrl, Tls
from hwsync.transport.failed import Failed
from hwsync.transport.tls import context, explain
from tests.support.certificates import Authority

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/operations.md"
URL = BrokerUrl.parse("mqtts://lab")
OURS = URL.with_tls(Tls("", "own.pem", "own.key"))


def test_files_and_texts_mean_the_same(authority: Authority) -> None:
    client = authority.client
    files = Tls(str(authority.ca), str(client.certificate), str(client.key))
    texts = Tls(authority.ca.read_text(), client.certificate.read_text(), client.key.read_text())
    both = Tls(texts.ca, texts.certificate + texts.key)
    for tls in (files, texts, both):
        made = context(URL.with_tls(tls))
        (known,) = made.get_ca_certs()
        assert "the authority of lab" in str(known["subject"])
        assert made.verify_mode is ssl.CERT_REQUIRED
        assert made.check_hostname
        assert made.minimum_version is ssl.TLSVersion.TLSv1_2


def test_without_ca_the_systems_authorities_count(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *them: asked.append(them))
    context(URL)
    assert len(asked) == 1
    with pytest.raises(Failed):
        context(URL.with_tls(Tls("/no/such")))
    assert len(asked) == 1


def test_the_certificates_of_the_document_are_accepted(tmp_path: Path) -> None:
    block = re.search(r"```sh\n(openssl req -x509.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    done = subprocess.run(
        ["bash", "-euc", block[1]], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lab-ca.key").stat().st_mode & 0o077 == 0
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    ours = context(URL.with_tls(Tls(str(tmp_path / "lab-ca.pem"))))
    ours.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT  # as other clients may
    for name in ("broker.lab", "192.168.1.10"):
        assert shaken(ours, there, name)["subject"] == ((("commonName", "broker.lab"),),)
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(ours, there, "192.168.1.11")


def shaken(ours: ssl.SSLContext, there: ssl.SSLContext, name: str) -> Any:
    """The certificate that a client has after a handshake in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(down, up, server_hostname=name)
    server = there.wrap_bio(up, down, server_side=True)
    for _ in range(5):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client.getpeercert()


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        (Tls("/no/such.pem"), "cannot read /no/such.pem: No such file or directory; .*--ca FILE"),
        (Tls("EMPTY"), "EMPTY holds no certificate in the form PEM; .*--ca FILE"),
        (Tls("KEY"), "KEY holds no certificate in the form PEM"),
        (Tls("-----BEGIN nothing"), r"certificate \(given as text\) holds no certificate"),
        (Tls("", "/no.pem", "KEY"), "cannot read /no.pem: No such file or directory; .*--cert"),
        (Tls("", "CERTIFICATE", "/no.key"), "cannot read /no.key: No such file"),
        (Tls("", "EMPTY", "KEY"), "no certificate in EMPTY, or no private key in KEY"),
        (Tls("", "CERTIFICATE"), "or no private key in CERTIFICATE, in the form PEM"),
        (Tls("", "CERTIFICATE", "OTHER"), "the key in OTHER is not that of the certificate in CER"),
        (Tls("", "CERTIFICATE", "LOCKED"), "LOCKED is locked with a passphrase; .*openssl pkey"),
    ],
)
def test_what_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, tls: Tls, said: str
) -> None:
    client = authority.client
    locked, empty = tmp_path / "locked", tmp_path / "empty"
    empty.touch()
    key = serialization.load_pem_private_key(client.key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    names = {
        "CERTIFICATE": client.certificate, "KEY": client.key, "OTHER": authority.server.key,
        "LOCKED": locked, "EMPTY": empty,
    }  # fmt: skip

    def path(name: str) -> str:
        return str(names.get(name, name))

    with pytest.raises(Failed) as caught:
        context(URL.with_tls(Tls(path(tls.ca), path(tls.certificate), path(tls.key))))
    for name, file in names.items():
        said = said.replace(name, str(file)) if name != "KEY" else said.replace(" KEY", f" {file}")
    said = said.replace("KEY holds", f"{client.key} holds").replace(
        " CER", f" {client.certificate}"
    )
    assert caught.match(said)


@pytest.mark.parametrize(
    ("url", "reason", "said", "cure"),
    [
        (OURS, "SSLV3_ALERT_CERTIFICATE_EXPIRED", "our certificate: it has expired", "--cert"),
        (OURS, "SSLV3_ALERT_CERTIFICATE_REVOKED", "our certificate: it was revoked", "--cert"),
        (OURS, "TLSV1_ALERT_UNKNOWN_CA", "does not know the authority that signed it", "--cert"),
        (OURS, "SSLV3_ALERT_HANDSHAKE_FAILURE", "ended the TLS handshake: sslv3_alert", "log"),
        (URL, "SSLV3_ALERT_HANDSHAKE_FAILURE", "wants a certificate of ours", "--key"),
        (URL, "TLSV13_ALERT_CERTIFICATE_REQUIRED", "wants a certificate of ours", "--key"),
        (URL, "TLSV1_ALERT_INTERNAL_ERROR", "ended the TLS handshake: tlsv1_alert_int", "log"),
        (URL, "TLSV1_ALERT_PROTOCOL_VERSION", "speaks no TLS 1.2", "up to date"),
        (URL, "WRONG_VERSION_NUMBER", "speaks no TLS on port 8883", "8883 by default.*mqtt://"),
        (URL, "BAD_THING", "TLS failed: bad_thing", "bad_thing$"),
    ],
)  # fmt: skip
def test_what_a_broker_says_of_us(url: BrokerUrl, reason: str, said: str, cure: str) -> None:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    found = explain(url, error)
    assert found is not None
    assert said in found.reason
    with pytest.raises(Failed, match=cure):
        raise found


def test_what_is_no_matter_of_tls_is_left_alone() -> None:
    for error in (ConnectionRefusedError(111, "refused"), TimeoutError("timed out"), OSError(113)):
        assert explain(URL, error) is None


def test_the_clock_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.gmtime", lambda: (1970, 1, 1, 0, 1, 0, 3, 1, 0))
    for code, said in ((9, "is not valid yet"), (10, "has expired")):
        error = ssl.SSLCertVerificationError(1, "x")
        error.verify_code = code
        found = explain(URL, error)
        assert found is not None
        assert said in found.reason
        assert "1970-01-01 00:01 UTC" in found.reason
        assert "timedatectl" in found.cure
    assert "begins in 1970" in str(explain(URL, _of(9)))


def _of(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_code = code
    return error
