"""The fixtures that every test may use; their parts, and plain functions, are in ``tests.support``.

    start            start(command, name=…, variables=…, cwd=…, stdin=…) -> Process
    mosquitto        a MosquittoBroker, running
    amqtt_broker     an AmqttBroker, running (``hwsync broker``)
    broker           both, one after the other: the test runs twice
    start_mosquitto, start_amqtt
                     the same for a test that needs further configuration lines or several brokers
    start_tiny       start_tiny(refusals=0, …) -> TinyBroker (tests.support.tiny_broker), running
    start_proxy      start_proxy(broker) -> Proxy (tests.support.proxy), running
    authority        a certificate authority (tests.support.certificates), one for all tests
    watch            watch(broker, topic_filter="hw/#") -> Watcher, closed after the test
    environment_of   environment_of(**variables) -> dict, for a test that calls subprocess itself

What a test started is ended after it, the last first; pytest shows its output on failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.brokers import AmqttBroker, Broker, MosquittoBroker
from tests.support.certificates import Authority
from tests.support.mqtt import HasPort, Watcher
from tests.support.processes import Process, environment, starting
from tests.support.proxy import Proxy
from tests.support.sharing import COMPUTING, WAITING, shared
from tests.support.tiny_broker import TinyBroker

# A developer's shell or CI may set these, a board does not, and what they hide is what users see.
for variable in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(variable, None)

# No deadline for one example: the machine's load is not what a property is about.
hypothesis.settings.register_profile("hwsync", deadline=None, print_blob=True)
hypothesis.settings.load_profile("hwsync")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several run at a time, those that only compute stand among those that mostly wait.

    Else the cores would idle through the first half and be too few for the second.
    """
    if not hasattr(config, "workerinput"):
        return
    computing = [item for item in items if _folder(item) in COMPUTING]
    waiting = [item for item in items if _folder(item) in WAITING]
    others = [item for item in items if _folder(item) not in COMPUTING + WAITING]
    spread: list[pytest.Item] = []
    for number, item in enumerate(computing):
        begin, end = (len(waiting) * n // len(computing) for n in (number, number + 1))
        spread += [item, *waiting[begin:end]]
    items[:] = (spread or waiting) + others


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadgroup``, who runs what is said by ``tests.support.sharing``."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared(nodeid)

    config.option.loadscopereorder = False  # their order is that of the items
    return Sharing(config, log)


def _folder(item: pytest.Item) -> str:
    return item.path.parent.name


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts commands (the arguments of ``Process``; ``directory``, ``name`` are optional)."""
    with starting(tmp_path) as start_one:
        yield start_one


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., MosquittoBroker]]:
    """Starts mosquitto with configuration lines of its own (``extra``); again: another broker."""
    yield from _starter(MosquittoBroker, tmp_path)


@pytest.fixture
def start_amqtt(tmp_path: Path) -> Iterator[Callable[..., AmqttBroker]]:
    """Starts ``hwsync broker`` with further configuration lines (``extra``)."""
    yield from _starter(AmqttBroker, tmp_path)


def _starter(kind: type[Any], directory: Path) -> Iterator[Callable[..., Any]]:
    started: list[Broker] = []

    def start_one(**options: Any) -> Broker:
        broker: Broker = kind(directory / f"{kind.name}-{len(started) + 1}", **options)
        started.append(broker)
        broker.start()
        return broker

    yield start_one
    for broker in reversed(started):
        broker.stop()
        print(broker.account())


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., MosquittoBroker]) -> MosquittoBroker:
    return start_mosquitto()


@pytest.fixture
def amqtt_broker(start_amqtt: Callable[..., AmqttBroker]) -> AmqttBroker:
    return start_amqtt()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The lab's own certificate authority, and the certificates that it signs."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Both brokers. ``remembers`` and ``speaks_v5`` tell them apart where it matters."""
    started: Broker = request.getfixturevalue(
        {"mosquitto": "mosquitto", "amqtt": "amqtt_broker"}[request.param]
    )
    return started


@pytest.fixture
def watch() -> Iterator[Callable[..., Watcher]]:
    """Starts watchers (the arguments of ``Watcher``)."""
    with ExitStack() as stack:

        def watch_one(broker: HasPort, topic_filter: str = "hw/#", **options: Any) -> Watcher:
            watcher = Watcher(broker, topic_filter, **options)
            stack.callback(watcher.close)
            return watcher

        yield watch_one


@pytest.fixture
def start_tiny() -> Iterator[Callable[..., TinyBroker]]:
    """Starts brokers with the habits of others."""
    with ExitStack() as stack:

        def start_one(**habits: Any) -> TinyBroker:
            broker = TinyBroker(**habits)
            stack.callback(broker.stop)
            return broker

        yield start_one


@pytest.fixture
def start_proxy() -> Iterator[Callable[[HasPort], Proxy]]:
    """Starts proxies in front of a broker; what connects through one is in the test's hands."""
    with ExitStack() as stack:

        def start_one(broker: HasPort) -> Proxy:
            proxy = Proxy(broker)
            proxy.start()
            stack.callback(proxy.stop)
            return proxy

        yield start_one


@pytest.fixture
def environment_of(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a test's process (``tests.support.processes.environment``)."""
    return lambda **variables: environment(tmp_path, variables)
