"""What several integration tests start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.faults import FaultyLab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.proxy import Proxy


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
