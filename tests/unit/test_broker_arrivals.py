"""What the embedded broker allows before a login, and which web pages it lets in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

import pytest
from amqtt.adapters import BufferReader
from websockets.datastructures import Headers

from hwsync.broker.arrivals import Arrivals
from hwsync.broker.mended import StreamConnection
from hwsync.broker.reading import FIRST_PACKET, Malformed, read_connect, whole
from hwsync.broker.web import foreign
from tests.support.certificates import Authority
from tests.support.fuzz_packets import PINGREQ, connect, packet, publish, remaining, text
from tests.support.ports import LOOPBACK


class Connection(asyncio.WriteTransport):
    """One that can be ended."""

    ended = False

    def abort(self) -> None:
        self.ended = True


def test_the_one_that_has_waited_longest_goes_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hwsync.broker.arrivals.WAITING", 3)
    arrivals, connections = Arrivals(), [Connection() for _ in range(6)]
    came = [arrivals.came(one) for one in connections[:3]]
    came[0].over()  # it said who it is
    with caplog.at_level(logging.WARNING):
        came += [arrivals.came(one) for one in connections[3:]]
    assert [one.ended for one in connections] == [False, True, True, False, False, False]
    assert [one.waits for one in came] == [False, False, False, True, True, True]
    assert caplog.text.count("refused before a login") == 1  # not a line for each


@pytest.mark.parametrize("leaves", [False, True])
def test_what_comes_with_the_last_part_of_tls_is_heard(authority: Authority, leaves: bool) -> None:
    """A client of TLS 1.3 may send its first packet, and its farewell, along with it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.server.certificate, authority.server.key)
    client = ssl.create_default_context(cafile=str(authority.ca))

    async def run() -> bytes:
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.set_result(await (reader.read() if leaves else reader.read(5)))
            writer.transport.abort()

        arrivals = Arrivals()
        listening = await asyncio.get_running_loop().create_server(
            lambda: StreamConnection(arrivals, server, serve), LOOPBACK, 0
        )
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname=LOOPBACK)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65_536))
        assert len(arrivals.waiting) == 1
        tls.write(b"first")
        if leaves:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.unwrap()
        writer.write(outgoing.read())
        found = await asyncio.wait_for(heard, 10)
        writer.close()
        listening.close()
        return found

    assert asyncio.run(run()) == b"first"


def test_what_is_refused_is_counted_until_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times = iter((1_000.0, 1_001.0, 1_059.0, 1_060.5, 1_060.5))
    monkeypatch.setattr("hwsync.broker.arrivals.time.monotonic", lambda: next(times))
    arrivals = Arrivals()
    for _ in range(4):
        arrivals.note("a web page", "somebody", "x")
    arrivals.note("before a login", "somebody", "y")
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "refused a web page, somebody: x",
        "refused a web page, somebody: x (3 since it was last said)",
        "refused before a login, somebody: y",
    ]


def first(data: bytes) -> bytes:
    found = asyncio.run(read_connect(BufferReader(data)))
    assert found is not None
    return whole(found)


def test_a_connect_may_be_as_long_as_its_limit() -> None:
    fill = FIRST_PACKET - (len(connect("me", flags=6, more=text("will") + text(b""))) - 2)
    largest = connect(
        "x" * (fill - 60_000) + "me", flags=6, more=text("will") + text(b"x" * 60_000)
    )
    assert len(largest) == FIRST_PACKET + 4
    assert first(largest) == largest
    with pytest.raises(Malformed, match="a CONNECT of 100001 bytes: at most 100000"):
        first(b"\x10" + remaining(FIRST_PACKET + 1))


@pytest.mark.parametrize(
    "data",
    [
        publish("a", b"x"),
        PINGREQ,
        b"\x30" + remaining(4_000_000),
        packet(0x20, b"\0\0"),
        b"\x00\x00",
    ],
    ids=lambda data: data[:8].hex(),
)
def test_the_first_packet_is_a_connect_or_is_not_even_read(data: bytes) -> None:
    with pytest.raises(Malformed, match="no CONNECT"):
        first(data)


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        (None, "lab:9001", True),
        ("http://192.168.0.7:9001", "192.168.0.7:9001", True),
        ("http://localhost:9001", "localhost:9001", True),
        ("http://lab:9001", "LAB:9001", True),
        ("http://lab.local:9001", "lab.local:9001", True),
        ("https://lab", "lab", True),
        ("http://lab:80", "lab", True),
        ("http://[::1]:9001", "[::1]:9001", True),
        ("https://course.example.org", "lab:9001", True),  # listed
        ("http://course.example.org", "lab:9001", False),
        ("https://course.example.org.evil.com", "lab:9001", False),
        ("http://evil.com", "lab:9001", False),
        ("http://lab:9002", "lab:9001", False),
        ("http://localhost:9001", "127.0.0.1:9001", False),
        # A name that was made to point at this machine (DNS rebinding).
        ("http://evil.com:9001", "evil.com:9001", False),
        ("null", "lab:9001", False),
        ("", "lab:9001", False),
        ("http://lab:no", "lab:no", False),
        ("file://", "lab:9001", False),
        ("http://", "", False),
    ],
)
def test_which_pages_may_speak(origin: str | None, host: str, welcome: bool) -> None:
    headers = Headers({"Host": host})
    if origin is not None:
        headers["Origin"] = origin
    assert (foreign(headers, ("https://course.example.org",)) is None) == welcome


def test_of_two_origins_none_counts() -> None:
    headers = Headers([("Host", "lab:9001"), ("Origin", "http://lab:9001"), ("Origin", "http://x")])
    assert foreign(headers, ()) == "http://lab:9001, http://x"
