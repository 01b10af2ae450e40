"""A client of the broker for one operator: it connects, and waits for what a conversation waits.

The law: it decides nothing of the protocol. It says how long it waits for a broker, and what to do
where that does not let us in. It has no thread: the connection is served while something is waited
for, and comes back by itself where that was too long ago.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

from hwsync.address import BrokerUrl
from hwsync.operator.conversation import Conversation, T, Talk, raise_refused
from hwsync.operator.history import Answers
from hwsync.operator.interrupt import Interrupts
from hwsync.operator.reaching import CONNECT_S, LEAVE_S, lab, no_broker, of_lab, of_users
from hwsync.operator.switchboard import Switchboard
from hwsync.protocol import limits
from hwsync.protocol.errors import NoBroker
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.protocol.wire.asking import FORGET
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import CommandFields, Result, Status
from hwsync.transport import (
    Connection,
    Delivery,
    Disconnected,
    Listener,
    Signal,
    Subscribed,
    Subscription,
    Waker,
)

FORGET_S: Final = 10.0  # for a coordinator that is there
QUIET_S: Final = 0.3  # retained messages come at once: after such a pause there are no more


class Client(Conversation):
    """A connection of one operator, for one user's topics (``+``: everybody's); it waits itself.

        with Client(url, Topics("hw"), "pi1") as client:
            print(client.record()["state"])
            print(client.query("c1")["outcome"])

    ``live``: the output of programs too; ``boards``: whom the coordinator hears, too; ``groups``:
    who is in each group, too; ``named``: these users' topics in the place of ``user``'s, which may
    be groups (``@lab1``); ``analysts``: what analysts offer, too (``standing.offers``); ``guest``:
    not with an account that has a session of its own, such as the coordinator's: this connection
    would end it; ``answers``: what is asked of the past, too.

    What is asked raises ``Refused`` where the answer is a refusal, ``NoCoordinator`` where none
    comes within ``ANSWER_S`` (``Degraded``: it is there, and cannot save), ``TooLarge`` for what
    the broker does not take. After any of them the client goes on, and to ask the same again, with
    the same id, is always safe (docs/protocol.md, section 2, "Events that name an id").
    """

    def __init__(
        self,
        url: BrokerUrl,
        topics: Topics,
        user: str,
        *,
        live: bool = False,
        boards: bool = False,
        groups: bool = False,
        named: Sequence[str] = (),
        analysts: bool = False,
        guest: bool = True,
        answers: Answers | None = None,
    ) -> None:
        self.url = url
        filters = [Subscription(topics.analyst("+"), as_published=False)] if analysts else []
        filters += of_users(topics, named or (user,), live=live)
        filters += of_lab(topics, boards=boards, groups=groups)
        filters += [] if answers is None else [Subscription(answers.filter, as_published=False)]
        client = f"hwsync-cli-{secrets.token_hex(6)}"
        self._connection = Connection(
            url, client, subscriptions=filters, prefer_v5=True, guest=guest
        )
        self._waker = Waker()
        self._interrupts = Interrupts(self._waker)
        self._listener = Listener(self._connection, self._waker, self._interrupts)
        self.switchboard = Switchboard(self._acknowledge)
        super().__init__(
            topics, user, self._say, lab=lab(url, topics, user), inquire=self.ask_coordinator
        )

    def conversation(self, user: str) -> Conversation:
        """Another one on this connection, with a user whose topics it hears (``named``).

        What is begun on the ``switchboard`` goes on whenever this client waits:

            with Client(url, topics, "+", named=("pi1", "pi2")) as client:
                runs = [Run(client.conversation(user), request) for user in ("pi1", "pi2")]
                futures = [client.switchboard.begin(run.requesting()) for run in runs]
                answers = [client.wait_for(future) for future in futures]
        """
        return Conversation(
            self.topics,
            user,
            self._say,
            lab=lab(self.url, self.topics, user),
            inquire=self.ask_coordinator,
            standing=self.standing,
        )

    def hear_too(self, users: Iterable[str], *, live: bool = False) -> None:
        """Hear these users from now on: what the broker keeps of them comes at once."""
        with self._interrupts:
            self._connection.subscribe(of_users(self.topics, users, live=live))

    def __enter__(self) -> Self:
        """Connect, for at most ``CONNECT_S``. Raises ``NoBroker``: why, and what to do."""
        self._interrupts.listen()
        try:
            failed = self._connect()
        except BaseException:
            self._leave(0.0)
            raise
        if failed is None:
            return self
        self._leave(0.0)
        raise no_broker(self.url, *failed)

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._leave(LEAVE_S)

    def _connect(self) -> tuple[str, str] | None:
        """Until it is subscribed; else why that did not come about, and the cure."""
        self._connection.start()
        limit = time.monotonic() + CONNECT_S
        early: list[Signal] = []
        reason, cure = "no answer", ""
        while (signal := self._listener.next(limit - time.monotonic())) is not None:
            if isinstance(signal, Subscribed):
                self._listener.put_back(early)
                return None
            self.hear_of_connection(signal)
            if isinstance(signal, Delivery):
                early.append(signal)
            if isinstance(signal, Disconnected):
                reason, cure = signal.reason, signal.cure
                if not signal.was_connected:
                    break  # one that let us in and dropped us is tried again
        return reason, cure

    def _leave(self, patience: float) -> None:
        """Leave the broker, for at most so many seconds; Ctrl-C ends that, too."""
        try:
            self._listener.leave(patience)
        finally:
            self._interrupts.ignore()
            self._waker.close()

    def clear(self, *kinds: TopicKind) -> None:
        """Take from the broker what it keeps of the user on the topics of these kinds.

        Raises like ``bring``.
        """
        for kind in kinds:
            self._say(self.topics.of(self.user, kind), b"", retain=True)
        self._wait_until_it_has_all()

    def clear_analyst(self, name: str) -> None:
        """Take from the broker what it keeps of an analyst. Raises like ``bring``."""
        self._say(self.topics.analyst(name), b"", retain=True)
        self._wait_until_it_has_all()

    def bring(self, user: str, kind: TopicKind, payload: bytes = b"") -> None:
        """Say something once, and wait until the broker has it.

        Raises ``NoBroker`` where it does not acknowledge, ``Refused`` where it says that a right is
        missing. MQTT 3.1.1 does not say that: look whether it was done.
        """
        self._say(self.topics.of(user, kind), payload)
        self._wait_until_it_has_all()

    def _wait_until_it_has_all(self) -> None:
        if not self._listener.arrives(CONNECT_S):
            raise NoBroker(f"{self.url} did not acknowledge", "try again")
        for _ in self.hear(0.0):
            pass

    def forget(self) -> None:
        """Have the coordinator forget the user (docs/protocol.md, section 3, "Forget").

        Raises ``Refused`` where a command of it is open or waits, ``NoCoordinator`` after
        ``FORGET_S``.
        """

        def answer(came: Received) -> bool:
            return came.kind is TopicKind.ERROR or (
                came.kind is TopicKind.STATUS and not came.fields
            )

        raise_refused(self.ask(TopicKind.RESET, FORGET, answer, patience=FORGET_S))

    def answers(self, patience: float) -> bool:
        """Whether a coordinator is there, and says so within so many seconds; raises nothing."""
        limit = time.monotonic() + patience
        while not self.standing.answers and time.monotonic() < limit:
            self.ask_coordinator()
            for came in self.hear(min(limits.REPEAT_FIRST_S, patience)):
                if came.kind is TopicKind.HEALTH and self.standing.answers:
                    break
        return self.standing.answers

    def ask_coordinator(self) -> None:
        """Have the coordinator say how it is, and whom it hears.

        At QoS 0: whoever may not ask is not told that he may not, as if he had sent a command.
        """
        self._say(self.topics.of(ITSELF, TopicKind.QUERY), b"", qos=0)

    def hear(self, seconds: float) -> Iterator[Received]:
        """What comes for so many seconds, one after the other, as ``hearing`` returns it."""
        limit = time.monotonic() + seconds
        while (came := self.wait(self.hearing(limit))) is not None:
            yield came

    def ask(
        self, kind: TopicKind, payload: bytes, answer: Callable[[Received], bool], **options: Any
    ) -> Received:
        """Like ``asking``, with its options."""
        return self.wait(self.asking(kind, payload, answer, **options))

    def tell(self, kind: TopicKind, payload: bytes, id: str, **options: Any) -> CommandFields:
        """Like ``telling``, with its options."""
        return self.wait(self.telling(kind, payload, id, **options))

    def query(self, id: str) -> Result:
        """Like ``querying``."""
        return self.wait(self.querying(id))

    def record(self, waiting: Callable[[], None] = lambda: None) -> Status:
        """Like ``reading``."""
        return self.wait(self.reading(waiting))

    def wait(self, talk: Talk[T]) -> T:
        """Wait as long as it says, again and again, until it returns.

        Whatever else has begun on the ``switchboard`` hears meanwhile what it would.
        """
        return self.wait_for(self.switchboard.begin(talk))

    def wait_for(self, future: Future[T]) -> T:
        """Wait for a talk that has begun on the ``switchboard``; what it returns, or raises.

        It ends with the waiting: where Ctrl-C comes first, or another talk fails on it, no further
        word of it is said. What it has asked goes on.
        """
        try:
            while not future.done():
                self.switchboard.hear(self._listener.next(self.switchboard.patience))
        finally:
            future.cancel()
        return future.result()

    def _say(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        with self._interrupts:
            self._connection.publish(topic, payload, qos=qos, retain=retain)

    def _acknowledge(self, delivery: Delivery) -> None:
        with self._interrupts:
            self._connection.acknowledge(delivery)
