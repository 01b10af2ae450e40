"""A PUBLISH of MQTT 5 as we read it, beside what paho makes of the same bytes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers

from hwsync.protocol.limits import MAX_PROPERTIES
from hwsync.transport.publish import Malformed, Publish, read_publish

EMPTY_PAIR = b"\x26\0\0\0\0"  # a user property without name and value

# paho takes a byte order mark in a text for an error; it is none.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=9)
properties = st.fixed_dictionaries(
    {},
    optional={
        "PayloadFormatIndicator": st.integers(0, 1),
        "MessageExpiryInterval": st.integers(0, 2**32 - 1),
        "ContentType": texts,
        "ResponseTopic": texts.filter(lambda text: not set(text) & {"+", "#"}),
        "CorrelationData": st.binary(max_size=9),
        "SubscriptionIdentifier": st.lists(st.integers(1, 268_435_455), max_size=3),
        "TopicAlias": st.integers(1, 65_535),
        "UserProperty": st.lists(st.tuples(texts, texts), max_size=5),
    },
)


def packet(topic: bytes, mid: int, packed: bytes, payload: bytes, length: int = -1) -> bytes:
    """All behind the fixed header; ``length``: another one of the properties than theirs."""
    size = VariableByteIntegers.encode(len(packed) if length < 0 else length)
    identifier = mid.to_bytes(2, "big") if mid else b""
    return len(topic).to_bytes(2, "big") + topic + identifier + size + packed + payload


def packed(values: dict[str, Any]) -> bytes:
    """As paho packs them, without their length."""
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            setattr(made, name, one)
    data: bytes = made.pack()  # type: ignore[no-untyped-call]
    _, size = VariableByteIntegers.decode(data)  # type: ignore[no-untyped-call]
    return data[size:]


@given(st.binary(min_size=1, max_size=9), st.integers(0, 65_535), properties, st.binary(max_size=9))
def test_it_reads_what_paho_packs(
    topic: bytes, mid: int, values: dict[str, Any], payload: bytes
) -> None:
    expected = Publish(
        topic, mid, payload, values.get("ResponseTopic", ""), values.get("CorrelationData", b"")
    )
    assert read_publish(int(mid > 0), packet(topic, mid, packed(values), payload)) == expected


@given(st.binary(max_size=40), st.binary(max_size=5))
def test_whatever_paho_cannot_read_is_trouble_and_what_it_can_is_the_same(
    region: bytes, payload: bytes
) -> None:
    read = read_publish(1, packet(b"t", 7, region, payload))
    assert (read.topic, read.mid) == (b"t", 7)
    paho = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    data = VariableByteIntegers.encode(len(region)) + region
    try:
        paho.unpack(data + payload)  # type: ignore[no-untyped-call]
    except Exception:  # of many kinds
        return
    if not read.trouble:
        assert read.payload == payload
        assert read.reply_topic == getattr(paho, "ResponseTopic", "")
        assert read.correlation == getattr(paho, "CorrelationData", b"")


@given(st.integers(0, 3), st.binary(max_size=60))
def test_no_bytes_end_it_otherwise(qos: int, data: bytes) -> None:
    try:
        read = read_publish(qos, data)
    except Malformed:
        return
    assert bool(read.mid) == bool(qos)


@pytest.mark.parametrize(
    ("region", "trouble"),
    [
        (b"\x27\0\0\0\1", "a property 39, which no message has"),
        (b"\x88\0", "a property 136, which no message has"),
        (b"\x08\0\1a\x08\0\1b", "the property 8 twice"),
        (b"\x09\0\0\x09\0\0", "the property 9 twice"),
        (b"\x08\0\2\xc3(", "its response topic is not UTF-8"),
        (b"\x02\0\0", "a property that is cut"),
        (b"\x26\0\0\0\5a", "a text that is cut"),
        (b"\x08\0", "a text that is cut"),
        (b"\x0b\xff\xff\xff\xff\1", "a length without an end"),
    ],
)
def test_what_is_wrong_is_named_and_can_be_acknowledged(region: bytes, trouble: str) -> None:
    assert read_publish(1, packet(b"t", 9, region, b"x")) == Publish(b"t", 9, trouble=trouble)


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        (packet(b"t", 9, b"", b"", length=3), "its properties are longer than itself"),
        (b"\0\1t\0\x09\xff\xff\xff\xff", "a length without an end"),
        (b"\0\1t\0\x09", "a length without an end"),
        (packet(b"", 9, b"", b"x"), "no topic"),
    ],
)
def test_a_length_that_is_wrong_is_trouble_too(body: bytes, trouble: str) -> None:
    read = read_publish(1, body)
    assert (read.mid, read.trouble) == (9, trouble)


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\5abc", b"\0\1t", b"\0\1t\0", b"\0\1t\0\0\0"])
def test_without_an_identifier_nothing_can_be_acknowledged(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_publish(1, body)
    with pytest.raises(Malformed, match="QoS 2"):
        read_publish(2, b"\0\1t\0\1\0")


def test_as_many_properties_as_are_allowed_are_read_at_once_and_no_more() -> None:
    allowed = EMPTY_PAIR * (MAX_PROPERTIES // len(EMPTY_PAIR))
    began = time.monotonic()
    assert read_publish(1, packet(b"t", 1, allowed, b"x")).payload == b"x"
    assert time.monotonic() - began < 0.5  # 4 ms; paho: 0.3 s
    more = EMPTY_PAIR * (MAX_PROPERTIES // len(EMPTY_PAIR) + 1)
    read = read_publish(1, packet(b"t", 1, more, b"x"))
    assert read.trouble == "65540 bytes of properties, at most 65536 are read"
    assert read_publish(1, packet(b"t", 1, EMPTY_PAIR * 300_000, b"")).trouble
    assert time.monotonic() - began < 5.0  # paho: minutes


def test_mqtt_3_1_1_has_no_properties() -> None:
    body = b"\0\x04hw/a\0\x07\0text"
    read = read_publish(1, body, has_properties=False)
    assert read == Publish(b"hw/a", 7, b"\0text")
    assert read_publish(0, b"\0\x04hw/a", has_properties=False) == Publish(b"hw/a", 0)
    assert read_publish(1, b"\0\0\0\x07x", has_properties=False).trouble == "no topic"
    for qos, cut in ((0, b"\0\x05hw/a"), (1, b"\0\x04hw/a\0"), (1, b"\0\x04hw/a\0\0x")):
        with pytest.raises(Malformed):
            read_publish(qos, cut, has_properties=False)
