"""The configuration file, the passwords and the access rules of the embedded broker."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from hwsync.broker.access import Acl, Passwords, matches
from hwsync.broker.certificates import context
from hwsync.broker.conf import Listener, Rules, load
from hwsync.protocol.errors import BadConfig
from tests.support.certificates import Authority
from tests.support.programs import require_program


def write(folder: Path, text: str) -> Path:
    path = folder / "made.conf"
    path.write_text(text)
    return path


def test_the_projects_own_file_is_honoured() -> None:
    config = load(Path("broker.conf"))
    assert config.listeners == (Listener(1883, "127.0.0.1"),)
    assert config.rules.allow_anonymous
    assert config.message_size_limit > 4 * 1024 * 1024
    assert "set_tcp_nodelay" in config.passed_over


def test_listeners_and_websockets(tmp_path: Path) -> None:
    config = load(write(tmp_path, "listener 1\nlistener 2 ::1\nprotocol websockets\n"))
    assert config.listeners == (Listener(1), Listener(2, "::1", True))
    assert not config.rules.allow_anonymous


def test_pages_from_elsewhere_stand_below_their_listener(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            "listener 1\nprotocol websockets\nwebsockets_origin https://lab.example.org\n"
            "websockets_origin http://10.0.0.1:8080\nlistener 2\nprotocol websockets\n",
        )
    )
    pages = ("https://lab.example.org", "http://10.0.0.1:8080")
    assert [listener.origins for listener in config.listeners] == [pages, ()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listener 1\nrequire_certificate true\n", "line 2: require_certificate without cafile"),
        ("listener 1\nciphers ALL\n", "line 2: the embedded broker has no ciphers"),
        ("listener 1\ncapath x\n", "line 2: the embedded broker has no capath"),
        ("listener 1\n\ncertfile FILE\n", "line 3: certfile without keyfile"),
        ("listener 1\nkeyfile FILE\nlistener 2\n", "line 2: keyfile without certfile"),
        ("listener 1\ncafile FILE\n", "line 2: cafile without certfile"),
        ("listener 1\ntls_version tlsv1.2\n", "line 2: tls_version without certfile"),
        ("listener 1\ntls_version tlsv1.1\n", "line 2: the embedded broker has no tls_version"),
        ("listener 1\nuse_identity_as_username true\n",
         "line 2: use_identity_as_username without require_certificate"),
        ("listener 1\nrequire_certificate yes\n", "line 2: require_certificate yes"),
        ("cafile FILE\nlistener 1\n", "line 1: cafile"),
        ("listener 1\ncafile /no/such\n", "line 2: cafile /no/such: there is no such file"),
        ("listener 1\nwebsockets_origin http://a\n", "line 2: websockets_origin without"),
        ("websockets_origin http://a\nlistener 1\n", "line 1: websockets_origin http://a"),
        ("listener 1\nprotocol websockets\nwebsockets_origin *\n", "line 3: websockets_origin *"),
        ("listener 1\nprotocol websockets\nwebsockets_origin null\n", "line 3: websockets_"),
        ("listener 1\nprotocol websockets\nwebsockets_origin http://a/b\n", "line 3: websockets_"),
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
)  # fmt: skip
def test_what_cannot_be_honoured_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(write(tmp_path, text.replace("FILE", __file__)))
    assert said in caught.value.message
    assert caught.value.hint


def test_the_tls_of_each_listener(tmp_path: Path) -> None:
    pair = f"certfile {__file__}\nkeyfile {__file__}\n"
    config = load(write(tmp_path, (
        f"listener 1\n\nlistener 2\n{pair}\nlistener 3\nprotocol websockets\n{pair}"
        f"cafile {__file__}\nrequire_certificate true\nuse_identity_as_username true\n"
        "tls_version tlsv1.3\n"
    )))  # fmt: skip
    plain, tls, mutual = config.listeners
    here = Path(__file__)
    assert plain == Listener(1)
    assert tls == Listener(2, certfile=here, keyfile=here)
    assert mutual == Listener(
        3, "0.0.0.0", True, here, here, here, True, True, tls_version="tlsv1.3"
    )
    assert [listener.encrypted for listener in config.listeners] == [False, True, True]


def test_what_a_listener_speaks(tmp_path: Path, authority: Authority) -> None:
    pair = f"certfile {authority.server.certificate}\nkeyfile {authority.server.key}\n"
    asked = f"cafile {authority.ca}\nrequire_certificate true\ntls_version tlsv1.3\n"
    config = load(write(tmp_path, f"listener 1\nlistener 2\n{pair}listener 3\n{pair}{asked}"))
    plain, tls, mutual = (context(config, listener) for listener in config.listeners)
    assert plain is None
    assert tls is not None
    assert (tls.minimum_version, tls.verify_mode) == (ssl.TLSVersion.TLSv1_2, ssl.CERT_NONE)
    assert mutual is not None
    wanted = (ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED)
    assert (mutual.minimum_version, mutual.verify_mode) == wanted


def test_certificates_that_cannot_be_used_name_their_line(
    tmp_path: Path, authority: Authority
) -> None:
    server, client = authority.server, authority.client
    for text, said in (
        (f"certfile {__file__}\nkeyfile {server.key}", "line 2: certfile .*: "),
        (f"certfile {server.certificate}\nkeyfile {client.key}", "line 2: .* is not its key"),
        (f"keyfile {server.key}\ncafile {__file__}\nrequire_certificate true\n"
         f"certfile {server.certificate}\n", "line 3: cafile .*cannot be used"),
    ):  # fmt: skip
        config = load(write(tmp_path, f"listener 1\n{text}\n"))
        with pytest.raises(BadConfig, match=said):
            context(config, config.listeners[0])


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


def test_who_comes_in_at_each_listener(tmp_path: Path) -> None:
    accounts = f"password_file {__file__}\nacl_file {__file__}\nallow_anonymous false\n"
    config = load(write(tmp_path, (
        f"per_listener_settings true\nlistener 1\n{accounts}use_username_as_clientid true\n"
        "listener 2\nallow_anonymous true\n"
    )))  # fmt: skip
    boards, operators = config.listeners
    assert config.rules_of(boards) == Rules(False, Path(__file__), Path(__file__))
    assert boards.use_username_as_clientid
    assert config.rules_of(operators) == Rules(allow_anonymous=True)
    assert not operators.use_username_as_clientid
    shared = load(write(tmp_path, f"listener 1\nlistener 2\n{accounts}"))
    assert {shared.rules_of(one) for one in shared.listeners} == {
        Rules(False, Path(__file__), Path(__file__))
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listener 1\nper_listener_settings true\n", "line 2: per_listener_settings below a"),
        ("per_listener_settings true\nallow_anonymous true\nlistener 1\n", "line 2: allow_anon"),
        ("per_listener_settings maybe\nlistener 1\n", "line 1: per_listener_settings maybe"),
    ],
)
def test_rules_stand_where_they_count(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=said):
        load(write(tmp_path, text))
