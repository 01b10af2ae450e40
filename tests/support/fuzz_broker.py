"""Attacks against a real broker: does it live, does it serve others, does it forget who has left.

The law: each connection has a bound. One that leaves is let go by the broker, one that waits before
it has said who it is ends by itself; in between a client that behaves gets its own message back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.brokers import AmqttBroker, Broker
from tests.support.fuzz_packets import (
    CONNACK_OK,
    DISCONNECT,
    HANDSHAKE,
    LARGEST,
    Attack,
    Attacker,
    End,
    connect,
    publish,
    subscribe,
)
from tests.support.fuzz_run import resident
from tests.support.ports import LOOPBACK, free_port

AT_ONCE: Final = 40  # connections
NORMAL_EVERY: Final = 500  # attacks, between two clients that behave
ANSWER_S: Final = 15.0  # for a client that behaves; takes milliseconds
ENDS_S: Final = 30.0  # for a connection that sends no more; the broker gives a CONNECT ten
STAY_S: Final = 0.3  # how long one waits that says nothing more, and then leaves
FAULTS: Final = 20  # then it ends
HELD: Final = 100  # that never said who they are, and are held to the end
GROWTH: Final = 16 * 2**20  # bytes, from the second quarter to the last
TROUBLE: Final = re.compile(r"^.*(Traceback|this is a bug| ERROR | CRITICAL ).*$", re.MULTILINE)


@dataclass(slots=True)
class Siege:
    """What came of it."""

    seed: int
    attacks: int = 0
    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)  # of attacks, at each listener
    faults: list[str] = field(default_factory=list)
    normal_s: list[float] = field(default_factory=list)  # of each client that behaves
    longest_s: float = 0.0  # until the broker closed a connection that sent no more
    memory: list[int] = field(default_factory=list)  # bytes of the broker, after each quarter
    connections: tuple[int, int] = (0, 0)  # sockets of the broker before and after

    @property
    def growth(self) -> int:
        """Bytes, from the end of the second quarter to the end of the last."""
        return self.memory[-1] - self.memory[1] if len(self.memory) == 4 else 0


def fortress(folder: Path) -> tuple[AmqttBroker, int]:
    """``hwsync broker``, not started, and the port of its websockets."""
    port = free_port()
    more = [f"message_size_limit {LARGEST}", f"listener {port} {LOOPBACK}", "protocol websockets"]
    return AmqttBroker(folder, extra=more), port


async def besiege(
    broker: Broker,
    websockets: int,
    seed: int,
    count: int,
    first: int = 0,
    tell: Callable[[int], None] = lambda done: None,
) -> Siege:
    """Attacks ``first`` to ``first + count``; ``websockets``: the port of that listener."""
    siege, attacker, began = Siege(seed), Attacker(seed), time.monotonic()
    await _normal(broker, siege)
    before = sockets(broker.process.pid)
    held: list[asyncio.StreamWriter] = []
    part = max(count // 4, 1)
    numbers = iter(range(first, first + count))

    async def attack() -> None:
        for number in numbers:
            one = attacker.at(number)
            port = websockets if one.websocket else broker.port
            try:
                await asyncio.wait_for(_attack(port, one, siege, held), 2 * ENDS_S)
            except Exception as error:
                siege.faults.append(f"number {number}: {type(error).__name__}: {error}")
            siege.attacks += 1
            siege.kinds[f"{one.kind}, {'websocket' if one.websocket else 'tcp'}"] += 1
            if len(siege.faults) > FAULTS or not broker.process.running:
                return
            if siege.attacks % part == 0 and len(siege.memory) < 4:
                siege.memory.append(resident(broker.process.pid))
            if siege.attacks % NORMAL_EVERY == 0:
                tell(siege.attacks)
                await _normal(broker, siege)

    await asyncio.gather(*(attack() for _ in range(AT_ONCE)))
    await _normal(broker, siege)
    await _let_go(broker, siege, held, before)
    if not broker.process.running:
        siege.faults.append(f"the broker ended with {broker.process.exit_code}")
    siege.faults += [match[0][:300] for match in TROUBLE.finditer(broker.log)][:5]
    siege.seconds = time.monotonic() - began
    return siege


async def _attack(
    port: int, attack: Attack, siege: Siege, held: list[asyncio.StreamWriter]
) -> None:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), ANSWER_S)
    keep = False
    try:
        closed = await _send(reader, writer, attack)
        if closed:
            siege.ends["closed while it was sent"] += 1
        elif attack.end is End.HALF:
            sent = time.monotonic()
            if writer.can_write_eof():
                with contextlib.suppress(OSError):
                    writer.write_eof()
            await _until_closed(reader)
            siege.longest_s = max(siege.longest_s, time.monotonic() - sent)
            siege.ends["closed by the broker"] += 1
        elif attack.end is End.STAY:
            try:
                data = await asyncio.wait_for(reader.read(4_096), STAY_S)
                siege.ends["answered" if data else "closed by the broker"] += 1
            except TimeoutError:
                siege.ends["left after no answer"] += 1
                keep = attack.mute and len(held) < HELD
            except ConnectionError:
                siege.ends["reset by the broker"] += 1
        elif attack.end is End.RESET:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            siege.ends["left with a reset"] += 1
        else:
            siege.ends["left"] += 1
    finally:
        if keep:
            held.append(writer)
        else:
            writer.transport.abort() if attack.end is End.RESET else writer.close()


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attack: Attack) -> bool:
    """Whether the broker closed the connection meanwhile."""
    try:
        for piece in attack.pieces:
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), ENDS_S)
            if piece == HANDSHAKE:  # what follows at once is not read as frames
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_S)
    except (ConnectionError, EOFError):
        return True
    return False


async def _until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(ENDS_S):
            while await reader.read(65_536):
                pass


async def _normal(broker: Broker, siege: Siege) -> None:
    """One client that behaves: it subscribes, publishes, and gets its message."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, broker.port)
        try:
            name = f"normal-{siege.attacks}"
            writer.write(connect(name) + subscribe(f"normal/{name}"))
            wanted = publish(f"normal/{name}", b"mine", 1, 7)
            await _expect(reader, CONNACK_OK, b"\x90")
            writer.write(wanted)
            await _expect(reader, b"mine")
            writer.write(DISCONNECT)
        finally:
            writer.close()
    except Exception as error:
        siege.faults.append(
            f"after {siege.attacks} attacks a normal client: {type(error).__name__}: {error}"
        )
    siege.normal_s.append(time.monotonic() - began)


async def _expect(reader: asyncio.StreamReader, *parts: bytes) -> None:
    """Read until all of these came, in order."""
    heard = b""
    limit = time.monotonic() + ANSWER_S
    for part in parts:
        while part not in heard:
            data = await asyncio.wait_for(reader.read(4_096), max(limit - time.monotonic(), 0.01))
            if not data:
                raise ConnectionError(f"closed after {heard!r}")
            heard += data


async def _let_go(
    broker: Broker, siege: Siege, held: list[asyncio.StreamWriter], before: int
) -> None:
    """Who has left is forgotten, and who never said its name was sent away."""
    limit = time.monotonic() + ENDS_S
    while sockets(broker.process.pid) > before and time.monotonic() < limit:
        await asyncio.sleep(0.1)
    siege.connections = (before, sockets(broker.process.pid))
    if siege.connections[1] > before:
        siege.faults.append(f"the broker keeps connections: {siege.connections}, {len(held)} held")
    for writer in held:
        writer.close()


def sockets(pid: int) -> int:
    """Sockets that a process has open; 0 where it has ended."""
    found = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return found
