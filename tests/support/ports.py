"""Free ports on the loopback interface, for servers that cannot choose one themselves."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST = 10_000  # above the ports of well-known services, 1883 among them
TRIES = 10_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_random = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """A port on which nothing listens, below those that the kernel gives to outgoing connections.

    A broker that is killed and started again on its port must find it free. A port of the outgoing
    range may be taken meanwhile, even by the very client that tries to reach it (TCP connects to
    itself). No port is given twice in one process, nor by two of pytest-xdist's workers: each, with
    all that it starts, has every n-th port.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    try:
        highest = int(EPHEMERAL_RANGE.read_text().split()[0]) - 1
    except OSError:
        highest = 32_767
    for _ in range(TRIES):
        port = _random.randint(LOWEST, highest)
        if port % workers != mine or port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free port between {LOWEST} and {highest} in {TRIES} tries")
