"""The broker's address: what is understood, what is refused and how, and what is never shown."""

from __future__ import annotations

import pytest

from hwsync.address import BrokerUrl
from hwsync.protocol.errors import BadUrl


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("mqtt://pi", "pi", 1883, ""),
        ("mqtt://pi:1884/", "pi", 1884, ""),
        ("mqtt://[::1]:1884", "::1", 1884, ""),
        ("ws://pi", "pi", 8080, "/mqtt"),
        ("ws://pi:80/broker", "pi", 80, "/broker"),
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
        ("mqtt://pi/topic", "a part too many"),
        ("ws://pi/mqtt?x=1", "a part too many"),
        ("mqtts://pi", "mqtts:// is not in this version"),
        ("http://teacher:secret@pi", "is no broker's address"),
    ],
)
def test_bad_addresses_are_named_with_an_example(text: str, said: str) -> None:
    with pytest.raises(BadUrl) as caught:
        BrokerUrl.parse(text)
    assert said in caught.value.message
    assert "secret" not in str(caught.value)
    assert "mqtt://" in caught.value.hint
