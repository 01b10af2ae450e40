"""Several runs on one connection of an operator, with a real broker, coordinator and device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.address import BrokerUrl
from hwsync.operator.client import Client
from hwsync.operator.run import Run, RunRequest, exit_code
from hwsync.protocol.topics import Topics
from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.processes import Process


@pytest.fixture
def lab(broker: Broker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    return Lab(broker, start, tmp_path)


def test_one_connection_follows_a_run_and_asks_for_another_meanwhile(lab: Lab) -> None:
    """Both have the same id: of another user it is another command."""
    lab.coordinator()
    lab.device()  # of pi1; pi2 has none
    url = BrokerUrl.parse(lab.broker.url)
    with Client(url, Topics(), "+", named=("pi1", "pi2")) as client:
        runs = {
            user: Run(client.conversation(user), RunRequest(program="print(6*7)", id="c1"))
            for user in ("pi1", "pi2")
        }
        asked = [client.switchboard.begin(run.requesting()) for run in runs.values()]
        assert [client.wait_for(one)["user"] for one in asked] == ["pi1", "pi2"]
        other = client.switchboard.begin(runs["pi2"].following())
        end = client.wait(runs["pi1"].following())
        assert (end["user"], end["hw_response"], exit_code(end)) == ("pi1", "42\n", 0)
        assert not other.done()
        cancelled = client.wait(runs["pi2"].cancelling())
        assert (cancelled["user"], exit_code(cancelled)) == ("pi2", 130)
        assert client.wait_for(other)["outcome"] == "cancelled"
