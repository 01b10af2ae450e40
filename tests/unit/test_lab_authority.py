"""A lab's certificates: TLS itself says whom they are for, also on a board that lives in 1970."""

from __future__ import annotations

import datetime
import ssl
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import verification

from hwsync.lab.accounts import Accounts, OperatorRights
from hwsync.lab.authority import Pair, make_authority, sign
from hwsync.lab.certificates import Given
from hwsync.lab.folder import Folder
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import is_user
from tests.support.certificates import Authority, Certificate

EMPTY = Accounts(("lab.local",))
NEW_YEAR = datetime.datetime(1970, 1, 1, 0, 1)  # a board without a clock, a minute after its start
LATER = datetime.datetime.now() + datetime.timedelta(days=365 * 9)


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def lab_authority() -> Pair:
    return make_authority()


def server(tmp_path: Path, pair: Pair) -> ssl.SSLContext:
    file = tmp_path / "server.pem"
    file.write_text(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def shake(serving: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """A whole handshake in memory. Raises ``ssl.SSLError``."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=host),
            serving.wrap_bio(to_server, to_client, server_side=True)]  # fmt: skip
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in ends:
        end.do_handshake()
    ends[1].write(b"in")
    assert ends[0].read() == b"in"


def test_the_brokers_certificate_is_for_each_of_its_hosts(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "lab")
    hosts = ("x" * 60 + ".example.org", "lab.local", "10.0.0.1", "fd00::1")  # one above 64
    folder.create(replace(EMPTY, hosts=hosts), None, signing=False)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder.path / "broker/broker.crt", folder.path / "broker/broker.key")
    client = ssl.create_default_context(cadata=(folder.path / "ca.crt").read_text())
    for host in (*hosts, "localhost", "127.0.0.1", "::1"):
        shake(serving, client, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(serving, client, "other.local")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"issuer|self-signed"):
        shake(serving, ssl.create_default_context(), "lab.local")


@pytest.mark.parametrize("moment", [NEW_YEAR, LATER], ids=["1970", "in nine years"])
def test_a_certificate_is_valid_in_1970_and_for_years(
    lab_authority: Pair, moment: datetime.datetime
) -> None:
    made = sign(lab_authority, "lab.local", ("lab.local",))
    leaf, ca = (
        x509.load_pem_x509_certificate(pem.encode())
        for pem in (made.certificate, lab_authority.certificate)
    )
    store = verification.Store([ca])
    verifier = verification.PolicyBuilder().store(store).time(moment)
    verifier.build_server_verifier(x509.DNSName("lab.local")).verify(leaf, [])
    for one in (leaf, ca):
        assert one.not_valid_before_utc == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def test_each_certificate_is_for_its_purpose_and_none_makes_others(
    tmp_path: Path, lab_authority: Pair
) -> None:
    broker = sign(lab_authority, "lab.local", ("lab.local",))
    board = sign(lab_authority, "pi1")
    trusting = ssl.create_default_context(cadata=lab_authority.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):  # a board cannot pass for the broker
        shake(server(tmp_path, board), trusting, "pi1")

    def mutual(own: Pair) -> None:
        serving = server(tmp_path, broker)
        serving.load_verify_locations(cadata=lab_authority.certificate)
        serving.verify_mode = ssl.CERT_REQUIRED
        file = tmp_path / "own.pem"
        file.write_text(own.certificate + own.key)
        client = ssl.create_default_context(cadata=lab_authority.certificate)
        client.load_cert_chain(file)
        shake(serving, client, "lab.local")

    mutual(board)
    with pytest.raises(ssl.SSLError):
        mutual(broker)
    with pytest.raises(ssl.SSLError):
        mutual(sign(make_authority(), "pi1"))
    # What a board could sign with its own key is nobody's.
    forged = sign(board, "lab.local", ("lab.local",))
    serving = server(tmp_path, Pair(forged.certificate + board.certificate, forged.key))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(serving, trusting, "lab.local")
    subject = x509.load_pem_x509_certificate(board.certificate.encode()).subject
    assert subject.rfc4514_string() == "CN=pi1"


@pytest.mark.parametrize(
    "host", ["", "a b", "http://x", "a/b", "x@y", "a:b", "lab.local:8883", "[::1]", "*", "ü.local",
             "a\nb", "fd00::1::2"],
)  # fmt: skip
def test_what_is_no_host_is_refused_before_anything_is_made(tmp_path: Path, host: str) -> None:
    folder = Folder(tmp_path / "lab")
    with pytest.raises(UsageError, match="is no host of a broker"):
        folder.create(replace(EMPTY, hosts=("good", host)), None, signing=False)
    assert list(tmp_path.iterdir()) == []
    folder.create(EMPTY, None, signing=False)
    before = (folder.path / "broker/broker.crt").read_text()
    with pytest.raises(UsageError, match="is no host of a broker"):
        folder.renew((host,), None)
    assert (folder.path / "broker/broker.crt").read_text() == before
    assert folder.accounts == EMPTY


# -- certificates that are given -------------------------------------------------------------------


def given(authority: Authority, of: Certificate | None = None) -> Given:
    pair = of or authority.server
    return Given(pair.certificate, pair.key, authority.ca)


def test_given_certificates_are_the_brokers_and_their_authority_everybodys(
    tmp_path: Path, authority: Authority
) -> None:
    folder = Folder(tmp_path / "lab")
    folder.create(EMPTY, given(authority), signing=False)
    [file] = folder.add_board("pi1").written
    server = authority.server
    assert (folder.path / "broker/broker.crt").read_text() == server.certificate.read_text()
    assert (folder.path / "broker/broker.key").read_text() == server.key.read_text()
    assert tomllib.loads(file.read_text())["ca"].strip() == authority.ca.read_text().strip()
    assert not (folder.path / "ca.key").exists()
    with pytest.raises(UsageError, match=r"ca\.key is not here, so nothing can be signed"):
        folder.renew((), None)
    folder.renew(("new.local",), given(authority))


def test_a_lab_that_is_given_certificates_later_has_no_authority_of_its_own_any_more(
    tmp_path: Path, authority: Authority
) -> None:
    folder = Folder(tmp_path / "lab")
    folder.create(EMPTY, None, signing=False)
    own_key = (folder.path / "ca.key").read_text()
    draft = folder.renew((), given(authority))
    assert tomllib.loads(draft.written[0].read_text())["ca"].strip() == (
        authority.ca.read_text().strip()
    )
    assert not (folder.path / "ca.key").exists()
    with pytest.raises(UsageError, match="so nothing can be signed"):
        folder.renew((), None)
    (folder.path / "ca.key").write_text(own_key)  # by hand
    with pytest.raises(UsageError, match="is not the key of the authority"):
        folder.renew((), None)


def test_given_certificates_that_no_broker_could_use_are_refused(
    tmp_path: Path, authority: Authority
) -> None:
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(authority.server.key.read_bytes(), None)
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM,
                                         serialization.PrivateFormat.PKCS8,
                                         serialization.BestAvailableEncryption(b"x")))  # fmt: skip
    text = tmp_path / "text"
    text.write_text("no PEM")
    good, other = given(authority), authority.client
    folder = Folder(tmp_path / "lab")
    for bad, said in (
        (replace(good, key=other.key), "is not its key"),
        (replace(good, key=locked), "locked with a passphrase"),
        (replace(good, certificate=text), "text cannot be used"),
        (replace(good, ca=text), "text cannot be used"),
        (replace(good, ca=tmp_path / "none"), "No such file"),
        (replace(good, certificate=tmp_path / "none"), "No such file"),
    ):
        with pytest.raises(UsageError, match=said):
            folder.create(EMPTY, bad, signing=False)
        with pytest.raises(UsageError, match="is no lab"):
            _ = folder.accounts
    with pytest.raises(UsageError, match="mutual TLS needs the lab's own authority"):
        folder.create(replace(EMPTY, mutual_tls=True), good, signing=False)
    folder.create(EMPTY, good, signing=False)


def test_with_mutual_tls_each_account_has_a_certificate_that_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "lab")
    folder.create(replace(EMPTY, mutual_tls=True), None, signing=False)
    [file] = folder.add_board("pi1").written
    own = tomllib.loads(file.read_text())
    assert "password" not in own
    made = x509.load_pem_x509_certificate(own["certificate"].encode())
    serial = f"{made.serial_number:040x}"
    assert made.subject.rfc4514_string() == f"CN=pi1~{serial[:8]}"
    assert folder.accounts.identity("pi1") == f"pi1~{serial[:8]}"
    folder.renew(("new.local",), None)
    again = tomllib.loads(file.read_text())
    assert (again["certificate"], again["key"]) == (own["certificate"], own["key"])
    folder.rotate("pi1")
    assert tomllib.loads(file.read_text())["certificate"] != own["certificate"]
    assert folder.accounts.revoked == (serial,)
    conf = (folder.path / "broker.conf").read_text()
    for line in ("require_certificate true", "use_identity_as_username true", "crlfile "):
        assert conf.count(line) == 2
    assert "password_file" not in conf


def test_a_list_of_certificates_that_count_no_more_is_valid_by_any_clock_and_ever_later(
    tmp_path: Path,
) -> None:
    """A broker that reads it again has the one before still, and takes the later one."""
    folder = Folder(tmp_path / "lab")
    folder.create(replace(EMPTY, mutual_tls=True), None, signing=False)
    lists: dict[str, list[x509.CertificateRevocationList]] = {"boards": [], "operators": []}

    def look() -> None:
        for kind, ones in lists.items():
            text = (folder.path / f"broker/{kind}.crl").read_bytes()
            ones.append(x509.load_pem_x509_crl(text))

    for change in (
        lambda: folder.add_board("pi1"),
        lambda: folder.add_operator("alice", OperatorRights(None)),
        lambda: folder.rotate("pi1"),
        lambda: folder.remove("alice"),
        lambda: folder.remove("pi1"),
        lambda: folder.rotate("coordinator"),
    ):
        look()
        change()
    look()
    ca = x509.load_pem_x509_certificate((folder.path / "clients.crt").read_bytes())
    for kind, ones in lists.items():
        times = [one.last_update_utc for one in ones]
        assert times == sorted(set(times))
        assert times[-1].year == 1970
        for one in ones:
            assert one.next_update_utc == ca.not_valid_after_utc
            assert one.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
        sizes = [len(list(one)) for one in ones]
        assert sizes == sorted(sizes), kind
    assert [len(list(ones[-1])) for ones in lists.values()] == [4, 5]


@pytest.mark.parametrize("name", ["p" * 64, "p" * 55, "p"])
def test_the_common_name_of_a_long_account_is_one(name: str) -> None:
    lab = replace(EMPTY, certificates={}).with_board(name).with_certificate(name, 40 * "a")
    assert len(lab.identity(name)) <= 64
    assert lab.identity(name).endswith("~aaaaaaaa")
    assert not is_user(lab.identity(name))  # so that nobody is called like that
