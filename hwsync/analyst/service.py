"""The process ``hwsync analyst``: its signals, its connection, its analysers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.analysers.engine import Engine
from hwsync.analysers.folder import Folder
from hwsync.analyst.life import Life, Process, Setup
from hwsync.notify import Notifier
from hwsync.operator.conversation import EVERYBODY
from hwsync.operator.history import Answers
from hwsync.operator.reaching import of_lab
from hwsync.orders import listening
from hwsync.protocol.errors import HwsyncError
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.analyst import GONE, encode_offer
from hwsync.transport import Connection, Subscription, Waker, Will

log = logging.getLogger("hwsync.analyst")

CLIENT_ID: Final = "hwsync-analyst"


def serve(setup: Setup, path: Path, address: Callable[[], BrokerUrl] | None = None) -> None:
    """Judge what the folder's analysers can judge, until SIGTERM or SIGINT.

    ``address``: how the broker is reached, with the login of that moment; None: as ``setup`` says.
    Raises, at the start only, ``UsageError`` where there is no such folder, ``CannotRun`` where
    this machine runs no analysers. A broker that is away is waited for.
    """
    folder = Folder(path)
    folder.scan()
    waker = Waker()
    answers = Answers(setup.url.username)
    with listening(waker.wake) as orders, Engine(at_once=setup.at_once) as engine:
        engine.start()  # before there is any thread
        connection = Connection(
            setup.url,
            setup.topics.client_id(f"{CLIENT_ID}-{setup.name}"),
            subscriptions=subscriptions(setup.topics, answers),
            will=Will(setup.topics.analyst(setup.name), encode_offer(GONE)),
            prefer_v5=True,
            takeover_hint=(
                f"another analyst is called {setup.name}: stop one of the two, or give it a name "
                "of its own (hwsync analyst add NAME; without accounts: --name NAME)"
            ),
            address=None if address is None else _present(address, setup.url),
        )
        process = Process(orders, waker, Notifier())
        life = Life(setup, folder, engine, connection, answers, process)
        if os.geteuid() == 0:
            log.warning("analysers run as root: nothing limits how many processes they start")
        log.info("called %s, with the analysers of %s", setup.name, path)
        try:
            life.run()
        finally:
            engine.stop()
            life.end()
            connection.close()
    waker.close()


def subscriptions(topics: Topics, answers: Answers) -> list[Subscription]:
    """What an analyst hears: every board's status and what answers it, and the coordinator."""
    kinds = (TopicKind.STATUS, TopicKind.ERROR)
    heard = [topics.of(EVERYBODY, kind) for kind in kinds] + [topics.result(EVERYBODY, "+")]
    heard.append(answers.filter)
    return [*(Subscription(topic, as_published=False) for topic in heard),
            *of_lab(topics, boards=True)]  # fmt: skip


def _present(address: Callable[[], BrokerUrl], first: BrokerUrl) -> Callable[[], BrokerUrl]:
    """The login of each connect; while it cannot be read, the one of before."""
    last = first

    def read() -> BrokerUrl:
        nonlocal last
        try:
            last = address()
        except HwsyncError as error:
            log.warning("%s; the login stays as it was", error)
        return last

    return read
