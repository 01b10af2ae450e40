"""10,000 hostile payloads over all topics: no process stops, and the next cycle is a normal one.

``scripts/fuzz lab`` does the same with as many as one likes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.fuzz_lab import GROWTH, LARGEST, rage
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process

COUNT = 10_000
SEED = int(os.environ.get("HWSYNC_SEED", str(random.randrange(10**6))))


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_hostile_payloads_stop_no_process(
    broker: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    lab = Lab(broker, start, tmp_path)
    lab.coordinator("--settle", "1")
    lab.device()
    storm = rage(lab, watch(broker, "hw/pi1/#"), SEED, COUNT)
    assert storm.sent + storm.left_out == COUNT
    assert storm.sent > COUNT * 3 / 4
    assert storm.unreadable > COUNT / 5, "nearly everything was valid"
    # So few do not fill what a coordinator keeps; ``scripts/fuzz lab`` sees that it is level then.
    assert max(storm.memory["coordinator"]) < LARGEST, f"seed {SEED}: {storm.memory}"
    before, *_, after = storm.memory["device"]
    assert after - before < GROWTH, f"seed {SEED}: {storm.memory}"
