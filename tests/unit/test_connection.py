"""Which broker and who we are there: what wins, what is refused, and what is never shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwsync import connection
from hwsync.address import BrokerUrl
from hwsync.connection import (
    KEYS,
    ROLE,
    SIGNING_KEY,
    VARIABLES,
    broker,
    load,
    variables,
)
from hwsync.device import config as device
from hwsync.protocol.errors import BadUrl, UsageError
from tests.support.certificates import Authority
from tests.support.lab import here

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/operations.md"
LAB = "broker = 'mqtts://lab'\n"
LOGIN = "account = 'alice'\npassword = 's3cret'\n"

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (*VARIABLES.values(), connection.FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(connection, "FOR_ALL", tmp_path / "etc.toml")
    return tmp_path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_one(text: str, name: str = "lab.toml", mode: int = 0o600) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    return write_one


def reached(file: Path | None = None, **options: Any) -> BrokerUrl:
    return broker(load(file, options))


def refused(file: Path | None = None, **options: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        reached(file, **options)
    assert caught.value.hint
    assert "s3cret" not in str(caught.value)
    return caught.value


# Which file


def test_nothing_is_needed() -> None:
    assert reached() == BrokerUrl.parse("mqtt://127.0.0.1:1883")


def test_the_nearest_file_is_read_alone(
    write: Write, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    write("broker = 'mqtt://etc'\nroot = 'etc'\n", "etc.toml")
    assert load(None, {}).get("root") == "etc"
    write("broker = 'mqtt://home'\n", connection.BELOW_HOME)
    assert reached().host == "home"
    assert load(None, {}).get("root") is None
    monkeypatch.setenv("HWSYNC_CONFIG", str(write("broker = 'mqtt://named'\n", "named.toml")))
    assert reached().host == "named"
    assert reached(write("broker = 'mqtt://option'\n", "option.toml")).host == "option"
    monkeypatch.setenv("HWSYNC_CONFIG", str(home / "no.toml"))
    assert "no.toml: No such file" in refused().message


# What wins


def test_what_is_nearer_wins_key_by_key(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(f"{LAB}root = 'file'\nca = '/file.pem'\n{LOGIN}")
    assert reached(file).host == "lab"
    monkeypatch.setenv("HWSYNC_BROKER", "mqtts://variable")
    monkeypatch.setenv("HWSYNC_ROOT", "variable")
    given = load(file, {"root": "option", "ca": None, "allow_plaintext": False})
    assert (given.get("root"), given.sources["root"]) == ("option", "the command line")
    assert given.sources["broker"] == "HWSYNC_BROKER"
    url = broker(given)
    assert (url.host, url.tls.ca) == ("variable", "/file.pem")
    assert (url.username, url.password) == ("alice", "s3cret")


def test_account_and_password_are_one_thing(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(LAB + LOGIN)
    lines = write("carol\nsecret\n", "two")

    def login(**options: Any) -> tuple[str | None, str | None]:
        url = reached(file, **options)
        return url.username, url.password

    assert login() == ("alice", "s3cret")
    assert login(broker="mqtts://bob@other") == ("bob", None)
    monkeypatch.setenv("HWSYNC_BROKER", "mqtts://dora:pw@other")
    assert login() == ("dora", "pw")
    assert login(broker="mqtts://other") == ("alice", "s3cret")
    assert login(credentials=lines) == ("carol", "secret")
    assert login(broker="mqtts://bob@other", credentials=lines) == ("carol", "secret")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("password = 's3cret'", "a password without its account"),
        ("broker = 'mqtts://bob@lab'\naccount = 'alice'", "two logins, account and broker"),
        ("broker = 'mqtts://bob:s3cret@lab'", "a password in broker is seen"),
        ("key = 'k.pem'\n" + LAB, "a key without its certificate"),
        ("passwort = 's3cret'", "there is no key passwort"),
        ("password = ['s3cret']", "the value of password is not allowed"),
        ("key = ['s3cret']", "the value of key is not allowed"),
        ("[password]\nx = 's3cret'", "the value of password is not allowed"),
        ("broker = ['mqtt://bob:s3cret@lab']", "the value of broker is not allowed"),
        ("root = ['ed25519-secret:s3cret']", "the value of root is not allowed"),
        ("allow_plaintext = 1", "allow_plaintext = 1 is not allowed"),
    ],
)
def test_a_file_that_is_refused(write: Write, text: str, said: str) -> None:
    error = refused(write(text + "\n"))
    assert said in error.message
    assert "lab.toml" in error.message or "two logins" in said


def test_the_nearest_key_is_named(write: Write) -> None:
    assert refused(write("passwort = 'x'")).hint == "did you mean password?"


def test_a_device_has_the_same_keys_and_one_login(write: Write) -> None:
    assert set(KEYS) <= set(device.KEYS)
    lines = write("carol\nsecret\n", "two")
    file = write(f"credentials = 'two'\n{LAB}", "device.toml")
    url = broker(device.load(file, {}))
    assert (url.username, url.password) == ("carol", "secret"), f"{lines} is beside the file"
    file = write(f"credentials = 'two'\n{LOGIN}", "device.toml")
    with pytest.raises(UsageError, match="two logins, credentials and account"):
        broker(device.load(file, {}))
    assert "s3cret" not in repr(device.load(file, {}))
    assert "s3cret" not in repr(load(write(LAB + LOGIN), {}))


# Certificates


def test_paths_are_from_the_folder_of_the_file(write: Write, tmp_path: Path) -> None:
    text = f"{LAB}ca = 'ca.pem'\ncertificate = '/own.pem'\nkey = '-----BEGIN PRIVATE KEY-----'\n"
    tls = reached(write(text, "lab/lab.toml")).tls
    assert (tls.ca, tls.certificate) == (str(tmp_path / "lab/ca.pem"), "/own.pem")
    assert tls.key == "-----BEGIN PRIVATE KEY-----"


def test_certificate_and_key_are_one_thing(write: Write) -> None:
    file = write(f"{LAB}certificate = '/file.pem'\nkey = '/file.key'\n")
    tls = reached(file, certificate="both.pem").tls
    assert (tls.certificate, tls.key) == ("both.pem", "")
    tls = reached(file, key="other.key").tls
    assert (tls.certificate, tls.key) == ("/file.pem", "other.key")


def test_certificates_without_tls_are_an_error(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "mqtt://127.0.0.1:1883 is not encrypted, so --ca" in refused(ca="x").message
    assert "use wss://" in refused(broker="ws://h", certificate="x").hint
    error = refused(write("broker = 'mqtt://h'\nca = 'x'\n"))
    assert "so --ca (" in error.message
    # A broker that is named nearer is meant without them.
    assert not reached(write(f"{LAB}ca = 'x'\n"), broker="mqtt://127.0.0.1").tls.ca
    monkeypatch.setenv("HWSYNC_CA", "x")
    assert "HWSYNC_CA" in refused().message


def test_no_text_of_a_key_is_an_argument() -> None:
    pem = "-----BEGIN PRIVATE KEY-----s3cret"
    error = refused(broker="mqtts://h", certificate="x", key=pem)
    assert error.message == "--key names a file"


# Files that others can read


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666])
@pytest.mark.parametrize("text", [LOGIN, "key = '''\n-----BEGIN PRIVATE KEY-----'''\n"])
def test_a_file_with_a_secret_is_its_owners(write: Write, text: str, mode: int) -> None:
    file = write(LAB + text, mode=mode)
    error = refused(file)
    assert f"(mode 0{mode:o})" in error.message
    assert error.hint == f"chmod o= {file}"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o400])
def test_its_group_may_read_it(write: Write, mode: int) -> None:
    assert reached(write(LAB + LOGIN, mode=mode)).password == "s3cret"


def test_a_file_without_a_secret_is_anybodys(write: Write) -> None:
    text = (
        f"{LAB}account = 'a'\nca = '-----BEGIN CERTIFICATE-----'\nkey = '/k'\ncertificate = '/c'\n"
    )
    assert reached(write(text, mode=0o644)).username == "a"


def test_credentials_and_keys_are_their_owners(write: Write, tmp_path: Path) -> None:
    lines = write("carol\ns3cret\n", "two words", 0o644)
    assert refused(credentials=lines).hint == f"chmod o= '{tmp_path}/two words'"
    key = write("k", "k.pem", 0o604)
    options = {"broker": "mqtts://h", "certificate": "c.pem"}
    assert refused(**options, key=str(key)).hint == f"chmod o= {key}"
    both = write("both", "both.pem", 0o644)
    assert "holds a private key" in refused(broker="mqtts://h", certificate=str(both)).message
    assert reached(broker="mqtts://h", certificate=str(both), key="no such").tls.key


# Passwords without TLS


@pytest.mark.parametrize("address", ["mqtt://lab", "ws://lab", "mqtt://192.168.1.10"])
def test_a_password_without_tls_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    file = write(f"broker = '{address}'\n{LOGIN}")
    error = refused(file)
    assert error.message.startswith(f"{address}:")
    assert re.match(r"use (mqtts|wss)://, or --allow-plaintext", error.hint)
    assert reached(file, allow_plaintext=True).password == "s3cret"
    assert reached(write(f"broker = '{address}'\n{LOGIN}allow_plaintext = true\n")).password
    monkeypatch.setenv("HWSYNC_BROKER", address.replace("//", "//alice:s3cret@"))
    assert "can read the password" in refused().message


@pytest.mark.parametrize("address", ["mqtt://localhost", "ws://127.0.0.1", "mqtts://lab"])
def test_where_nobody_listens_it_is_not(write: Write, address: str) -> None:
    assert reached(write(f"broker = '{address}'\n{LOGIN}")).password == "s3cret"
    assert reached(broker="mqtt://alice@lab").username == "alice"


def test_a_child_uses_the_same(
    monkeypatch: pytest.MonkeyPatch, write: Write, authority: Authority
) -> None:
    pem, client = authority.ca.read_text(), authority.client
    url = reached(
        write(f"{LAB}{LOGIN}ca = '''{pem}'''\n"),
        certificate=str(client.certificate),
        key=str(client.key),
    )
    for name, value in variables(url, "lab").items():
        monkeypatch.setenv(name, value)
    assert reached() == url
    assert load(None, {}).get("root") == "lab"


def test_a_bad_address_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSYNC_BROKER", "http://alice:s3cret@lab")
    with pytest.raises(BadUrl) as caught:
        reached()
    assert "s3cret" not in str(caught.value)


def test_the_document_lists_every_key() -> None:
    rows = [
        f"| `{key.name}` | {key.kind} | {key.default} | {key.meaning} |"
        for key in (*KEYS, SIGNING_KEY, ROLE)
    ]
    _, _, table = DOCUMENT.read_text().partition("| key | kind | default | meaning |\n")
    assert table.partition("\n\n")[0].splitlines()[1:] == rows


JUDGE = LAB + LOGIN + "role = 'analyst'\n"


def test_an_analysts_file_says_so(write: Write, tmp_path: Path) -> None:
    file = write(JUDGE)
    assert connection.analyst_of(load(file, {})) == "alice"
    assert connection.analyst_of(load(write(LAB + LOGIN, "own.toml"), {})) is None
    # Another login than the file's is another account.
    other = {"credentials": write("bob\nsecret\n", "two-lines")}
    assert connection.analyst_of(load(file, other)) is None
    wrong = write(LAB + "role = 'pupil'\n", "wrong.toml")
    with pytest.raises(UsageError, match="role"):
        load(wrong, {})


@pytest.mark.parametrize(
    ("words", "code"),
    [(("run", "pi1", "-c", "1"), 125), (("run", "pi1,pi2", "-c", "1"), 125),
     (("send", "pi1", "-c", "1"), 1), (("cancel", "pi1"), 1), (("reset", "@lab1", "-y"), 1)],
)  # fmt: skip
def test_who_asks_with_an_analysts_file_is_told_so_at_once(
    write: Write, words: tuple[str, ...], code: int
) -> None:
    said = here(*words, "--config", str(write(JUDGE)))
    assert (said.exit_code, said.stdout) == (code, "")
    assert "hwsync: alice is an analyst's account" in said.stderr
    assert "hwsync operator add NAME" in said.stderr
