"""The broker's address: what is understood, what is refused and how, and what is never shown."""

from __future__ import annotations

import pytest

from hwsync.address import BrokerUrl, Tls
from hwsync.protocol.errors import BadUrl


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("mqtt://pi", "pi", 1883, ""),
        ("mqtt://pi:1884/", "pi", 1884, ""),
        ("mqtt://[::1]:1884", "::1", 1884, ""),
        ("ws://pi", "pi", 8080, "/mqtt"),
        ("ws://pi:80/broker", "pi", 80, "/broker"),
        ("mqtts://pi", "pi", 8883, ""),
        ("mqtts://[::1]:1/", "::1", 1, ""),
        ("wss://pi", "pi", 8443, "/mqtt"),
        ("wss://pi/broker/", "pi", 8443, "/broker/"),
    ],
)
def test_good_addresses(text: str, host: str, port: int, path: str) -> None:
    url = BrokerUrl.parse(text)
    assert (url.host, url.port, url.path) == (host, port, path)
    assert BrokerUrl.parse(str(url)) == url


def test_a_login_is_decoded_and_never_printed() -> None:
    url = BrokerUrl.parse("mqtt://teacher:p%40ss%3Aword@pi:1883")
    assert (url.username, url.password) == ("teacher", "p@ss:word")
    assert str(url) == repr(url) == "mqtt://pi:1883"
    assert str(BrokerUrl.parse("mqtt://pi").with_credentials("a", "secret")) == "mqtt://pi:1883"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pi:1883", "'pi:1883' is no broker's address"),
        ("", "is no broker's address"),
        ("http://pi", "is no broker's address"),
        ("mqtt://", "is no broker's address"),
        ("mqtt://pi:99999", "is no URL"),
        ("mqtt://pi:x", "is no URL"),
        ("mqtt://pi:0", "port 0"),
        ("mqtt://p i", "a space"),
        ("ws://pi/mq tt", "a space"),
        ("mqtt://pi\n:1883", "a control character"),
        ("mqtt://teacher:secret@pi\t", "a control character"),
        ("mqtt://pi/topic", "a part too many"),
        ("ws://pi/mqtt?x=1", "a part too many"),
        ("mqtts://pi/topic", "a part too many"),
        ("mqttss://pi", "is no broker's address"),
        ("http://teacher:secret@pi", "is no broker's address"),
    ],
)
def test_bad_addresses_are_named_with_an_example(text: str, said: str) -> None:
    with pytest.raises(BadUrl) as caught:
        BrokerUrl.parse(text)
    assert said in caught.value.message
    assert "secret" not in str(caught.value)
    assert "mqtt://" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True),
        ("128.0.0.1", False), ("127.0.0.1.lab", False), ("127.lab", False), ("[::2]", False),
        ("pi", False), ("[fe80::1]", False),
    ],
)  # fmt: skip
def test_what_never_leaves_this_machine(host: str, local: bool) -> None:
    assert BrokerUrl.parse(f"mqtt://{host}").local is local


def test_what_is_encrypted() -> None:
    schemes = ("mqtt", "mqtts", "ws", "wss")
    urls = [BrokerUrl.parse(f"{scheme}://pi") for scheme in schemes]
    assert [url.encrypted for url in urls] == [False, True, False, True]
    assert [url.websockets for url in urls] == [False, False, True, True]


def test_no_key_is_printed() -> None:
    url = BrokerUrl.parse("mqtts://pi").with_tls(Tls("CA", "CERTIFICATE", "S3CRET"))
    assert "S3CRET" not in f"{url} {url!r} {url.tls} {url.tls!r}"


@pytest.mark.parametrize(
    "text",
    [
        "mqtts://anna:s3cr/et@host",
        "mqtt://anna:geheim\u2100@host",
        "mqtt:/anna:s3cret/x",
        "anna:s3cret@host",
        "http://anna:s3cret@host",
        "mqtt://anna:s3cret@host:0",
    ],
)
def test_no_part_of_a_password_is_in_an_error(text: str) -> None:
    with pytest.raises(BadUrl) as caught:
        BrokerUrl.parse(text)
    assert "s3cr" not in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_an_address_without_a_login_is_shown() -> None:
    with pytest.raises(BadUrl, match=r"'broker\.lab:1883' is no broker's address"):
        BrokerUrl.parse("broker.lab:1883")
