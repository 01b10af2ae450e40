"""A wrong value is named by its key, file or line; where it may be a secret it is not repeated.

Nor is it in what a person is told of the next thing that fails with it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from hwsync import connection
from hwsync.address import BrokerUrl
from hwsync.broker import conf
from hwsync.broker.access import Acl, Passwords, hashed
from hwsync.cli.signer import signer_of
from hwsync.device import config as device
from hwsync.lab.accounts import Accounts
from hwsync.lab.folder import Folder
from hwsync.protocol.errors import HwsyncError, UsageError
from hwsync.signing import SECRET as OF_KEY
from hwsync.signing import SigningKey, public_key

SECRET: Final = "hunter2-s3cret"
BODY: Final = base64.b64encode(bytes(range(1, 200))).decode()  # of a PEM, without its frame
SEED: Final = base64.b64encode(bytes(range(100, 132))).decode()
LOGIN: Final = "broker = 'mqtts://lab'\naccount = 'anna'\n"

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*connection.VARIABLES.values(), connection.FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_one(text: str, name: str = "own.toml") -> Path:
        file = tmp_path / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    return write_one


def said(attempt: Callable[[], object]) -> str:
    """What a person is told, which shows no secret."""
    with pytest.raises(HwsyncError) as caught:
        attempt()
    text = str(caught.value) + caught.value.hint + repr(caught.value)
    for secret in (SECRET, BODY, BODY[:30], SEED, "hunter2", "$7$"):
        assert secret not in text
    assert caught.value.__cause__ is None
    return text


@pytest.mark.parametrize(
    "address",
    [
        f"mqtt://anna:{SECRET}@lab:x", f"mqtt://anna:{SECRET}@", f"mqt://anna:{SECRET}@lab",
        f"anna:{SECRET}@lab", f"mqtt://anna:{SECRET}/x@lab", f"mqtt://anna:{SECRET}@[::1",
        f"mqtt://anna:{SECRET}#@lab", f"mqtt://anna:{SECRET}?@lab", f"mqtt://anna:{SECRET}@lab/x",
        f"mqtt://lab:{SECRET}", f"mqtts:anna:{SECRET}@lab", f"mqtt://anna:{SECRET}@lab:99999",
    ],
)  # fmt: skip
def test_an_address_with_a_password(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "broker" in said(lambda: BrokerUrl.parse(address))
    monkeypatch.setenv("HWSYNC_BROKER", address)
    assert "broker" in said(lambda: connection.broker(connection.load(None, {})))
    assert "broker" in said(lambda: connection.broker(device.load(None, {})))


@pytest.mark.parametrize(
    "line",
    [
        f"password = {SECRET}", f"password = '{SECRET}", f"password '{SECRET}'", SECRET,
        f'password = "{SECRET}\\q"', f"password = '{SECRET}' x", f"password = ['{SECRET}'",
        f"password = '{SECRET}'\npassword = '{SECRET}'", f"password = '{SECRET}\x01'",
        f"password = {{a = '{SECRET}'", f"'{SECRET}' password", f"password == '{SECRET}'",
    ],
)  # fmt: skip
def test_a_line_that_is_no_toml(line: str, write: Write) -> None:
    file = write(LOGIN + line + "\n")
    for load in (connection.load, device.load):
        assert f"{file} is no TOML" in said(lambda load=load: load(file, {}))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (f"password = ['{SECRET}']", "password"), ("password = 12345678", "password"),
        (f"passwort = '{SECRET}'", "passwort"), (f"password = {{x = '{SECRET}'}}", "password"),
        (f"key = '{BODY}'", "key"), (f"key = '''\n{BODY}\n'''", "key"),
        (f"certificate = '{BODY}'", "certificate"), (f"ca = '{BODY}'", "ca"),
        (f"broker = ['mqtt://anna:{SECRET}@lab']", "broker"),
    ],
)  # fmt: skip
def test_a_value_that_is_none(line: str, key: str, write: Write) -> None:
    lines = [one for one in LOGIN.splitlines() if not one.startswith(f"{key} =")]
    file = write("\n".join([*lines, line]) + "\n")
    for load in (connection.load, device.load):
        text = said(lambda load=load: connection.broker(load(file, {})))
        assert key in text
        assert str(file) in text
        assert "12345678" not in text


def test_a_key_without_its_frame_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSYNC_BROKER", "mqtts://lab")
    for name in ("HWSYNC_KEY", "HWSYNC_CERT", "HWSYNC_CA"):
        monkeypatch.setenv(name, BODY)
        assert name in said(lambda: connection.broker(connection.load(None, {})))
        monkeypatch.delenv(name)


def test_a_path_that_is_none_is_shown(write: Write) -> None:
    file = write("broker = 'mqtts://lab'\nca = 'no/such/ca.pem'\n")
    url = connection.broker(connection.load(file, {}))
    assert url.tls.ca.endswith("no/such/ca.pem")


@pytest.mark.parametrize(
    "value", [f"{OF_KEY}{SEED}x", SEED, f"ed25519_secret:{SEED}", f"{OF_KEY}{SECRET}"]
)
def test_a_signing_key_that_is_none(value: str, write: Write) -> None:
    file = write(f"signing_key = '{value}'\n")

    def start() -> object:
        settings: Any = SimpleNamespace(given=connection.load(file, {}))
        return signer_of(settings, None)

    said(start)
    assert "no signing key" in said(lambda: SigningKey.load(write(value, "key")))


@pytest.mark.parametrize("value", [SEED, f"{OF_KEY}{SEED}", f"ed25519_secret:{SEED}", SECRET])
def test_a_secret_key_where_a_public_one_belongs(value: str, tmp_path: Path) -> None:
    said(lambda: public_key(value))
    folder = Folder(tmp_path / "lab")
    folder.create(Accounts(("lab",)), None, signing=False)
    said(lambda: folder.trust(value))
    said(lambda: folder.revoke(value))
    with pytest.raises(UsageError, match="'ed25519:x' is no public key"):
        public_key("ed25519:x")


@pytest.mark.parametrize("text", [f"anna:{SECRET}\n", f"\n{SECRET}\n", SECRET])
def test_a_file_of_a_login_that_is_none(text: str, write: Write) -> None:
    file = write(text, "login")
    given = device.load(None, {"credentials": str(file)})
    assert f"{file} is no credentials file" in said(lambda: connection.broker(given))


def test_a_login_in_the_place_of_its_file(write: Write) -> None:
    file = write(f"credentials = 'anna:{SECRET}'\n")
    assert "credentials" in said(lambda: connection.broker(device.load(file, {})))


@pytest.mark.parametrize("reader", [Acl, Passwords, conf.load])
@pytest.mark.parametrize(
    "text",
    [
        f"anna:{hashed(SECRET)}\n", f"anna:{SECRET}\n", f"password = '{SECRET}'\n",
        f"-----BEGIN PRIVATE KEY-----\n{BODY}\n", f"{SECRET}\n", f"{OF_KEY}{SEED}\n", f"{BODY}\n",
    ],
)  # fmt: skip
def test_a_file_of_the_broker_that_is_another_one(
    reader: Callable[[Path], object], text: str, write: Write
) -> None:
    """Somebody named the wrong one."""
    file = write(text, "broker.file")
    if reader is Passwords and "$7$" in text:
        Passwords(file)  # it is one
        return
    assert f"{file}, line 1" in said(lambda: reader(file))


def test_what_somebody_added_to_a_file_of_the_lab(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "lab")
    folder.create(Accounts(("lab",)), None, signing=False)
    [file] = folder.add_board("pi1").written
    whole = file.read_text()
    file.write_text(f"{whole}password = '{SECRET}'\n")
    assert "password" in said(lambda: folder.rotate("pi1"))
    file.write_text(f"{whole}token = '{SECRET}\n")
    assert str(file) in said(lambda: folder.rotate("pi1"))
    file.write_text(f"password = '{SECRET}\n")
    assert str(file) in said(lambda: folder.renew((), None))
