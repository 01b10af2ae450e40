"""The configuration file, the passwords and the access rules of the embedded broker."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hwsync.broker.access import Acl, Passwords, matches
from hwsync.broker.conf import Listener, load
from hwsync.protocol.errors import BadConfig
from tests.support.programs import require_program


def write(folder: Path, text: str) -> Path:
    path = folder / "made.conf"
    path.write_text(text)
    return path


def test_the_projects_own_file_is_honoured() -> None:
    config = load(Path("broker.conf"))
    assert config.listeners == (Listener(1883, "127.0.0.1"),)
    assert config.allow_anonymous
    assert config.message_size_limit > 4 * 1024 * 1024
    assert "set_tcp_nodelay" in config.passed_over


def test_listeners_and_websockets(tmp_path: Path) -> None:
    config = load(write(tmp_path, "listener 1\nlistener 2 ::1\nprotocol websockets\n"))
    assert config.listeners == (Listener(1), Listener(2, "::1", True))
    assert not config.allow_anonymous


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listener 1\nrequire_certificate true\n", "line 2: the embedded broker has no require"),
        ("listener x\n", "line 1: listener x is no number"),
        ("listener " + "9" * 5_000, "line 1: listener 999"),
        ("listener 1\nmessage_size_limit ٣\n", "line 2: message_size_limit ٣ is no number"),
        ("listener 70000\n", "line 1: there is no port 70000"),
        ("listener\n", "line 1: listener"),
        ("# nothing\n", "has no listener"),
        ("listener 1\nallow_anonymous perhaps\n", "line 2: allow_anonymous perhaps"),
        ("listener 1\nacl_file /no/such\n", "line 2: acl_file /no/such: there is no such file"),
        ("protocol websockets\n", "line 1: protocol websockets"),
    ],
)
def test_what_cannot_be_honoured_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(write(tmp_path, text))
    assert said in caught.value.message
    assert caught.value.hint


def test_passwords_of_mosquitto_passwd(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    program = require_program("mosquitto_passwd", "mosquitto")
    subprocess.run([program, "-c", "-b", path, "pi1", "sécret"], check=True, capture_output=True)
    subprocess.run([program, "-H", "sha512", "-b", path, "pi2", "other"], check=True,
                   capture_output=True)  # fmt: skip
    passwords = Passwords(path)
    assert passwords.accept("pi1", "sécret")
    assert passwords.accept("pi2", "other")
    assert not passwords.accept("pi1", "other")
    assert not passwords.accept("pi3", "other")


@pytest.mark.parametrize(
    "stored",
    [
        *("plain", "", "$5$c2FsdA==$aGFzaA==", "$7$", "$7$1", "$7$101$c2FsdA==", "$6$c2FsdA=="),
        *("$7$101$c2FsdA==$", "$7$101$c2F_dA==$aGFzaA==", "$7$101$c2FsdA==$aGFzaA==$x"),
        *("$7$-1$c2FsdA==$aGFzaA==", "$7$x$c2FsdA==$aGFzaA==", "$6$ü$aGFzaA=="),
        "$7$999999999999$c2FsdA==$aGFzaA==",  # one login would take days, if Python took the number
    ],
)
def test_what_is_no_password_of_mosquitto_passwd_names_its_line(
    tmp_path: Path, stored: str
) -> None:
    path = tmp_path / "passwords"
    path.write_text(f"# accounts\npi1:{stored}\n")
    with pytest.raises(BadConfig, match="line 2"):
        Passwords(path)


def test_access_rules(tmp_path: Path) -> None:
    acl = Acl(write(tmp_path, (
        "topic read news/#\n\nuser boss\ntopic hw/#\ntopic deny hw/secret\n\n"
        "pattern read hw/%u/command\npattern write hw/%u/response\n"
    )))  # fmt: skip
    assert acl.allows("read", "news/today", None, "c")
    assert not acl.allows("write", "news/today", None, "c")
    assert acl.allows("write", "hw/x", "boss", "c")
    assert not acl.allows("read", "hw/secret", "boss", "c")
    assert acl.allows("read", "hw/pi1/command", "pi1", "c")
    assert not acl.allows("write", "hw/pi1/command", "pi1", "c")
    assert not acl.allows("read", "hw/pi2/command", "pi1", "c")
    assert not acl.allows("read", "hw/+/command", "+", "c")
    with pytest.raises(BadConfig, match="line 1"):
        Acl(write(tmp_path, "everything allowed\n"))


@pytest.mark.parametrize(
    ("wanted", "topic", "expected"),
    [
        ("a/b", "a/b", True), ("a/+", "a/b", True), ("a/#", "a/b/c", True), ("a/#", "a", True),
        ("a/+", "a/b/c", False), ("a/b", "a", False), ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
    ],
)  # fmt: skip
def test_filters(wanted: str, topic: str, expected: bool) -> None:
    assert matches(wanted, topic) is expected
