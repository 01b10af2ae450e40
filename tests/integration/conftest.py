"""What several integration tests start from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hwsync.address import BrokerUrl
from tests.support.brokers import MosquittoBroker
from tests.support.faults import FaultyLab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.proxy import Proxy
from tests.support.runs import WAYS, OneRun
from tests.support.transports import Client


@pytest.fixture
def lab(
    mosquitto: MosquittoBroker,
    start_proxy: Callable[..., Proxy],
    watch: Callable[..., Watcher],
    start: Callable[..., Process],
    tmp_path: Path,
) -> FaultyLab:
    """A coordinator whose messages can be dropped and repeated, and a place for a device."""
    proxies = start_proxy(mosquitto), start_proxy(mosquitto)
    one = FaultyLab(mosquitto, *proxies, watch(mosquitto), start, tmp_path)
    one.coordinator()
    return one


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Starts clients; stops them after the test."""
    with ExitStack() as stack:

        def connect_one(url: str | BrokerUrl, name: str, *topics: str, **options: Any) -> Client:
            client = Client(url, name, list(topics), **options)
            stack.callback(client.transport.stop, 0.0)
            return client

        yield connect_one


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a runner, for each way in which a board may run programs."""
    if request.param == "bwrap":
        require_program("bwrap", "bubblewrap")
    return WAYS[request.param]


@pytest.fixture
def one_run(way: dict[str, Any], tmp_path: Path) -> OneRun:
    """Runs one program, in each of these ways."""
    return OneRun(tmp_path / "work", dict(way))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that others may enter: any pytest that starts closes its own to them."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)
