"""What each account of a lab can do in fact: on every topic, in every way, on a real broker.

No waiting for what must not come: each series ends with one that must, on the same connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from tests.support.account_lab import EVERYTHING, OBSERVER, AccountLab
from tests.support.packets import Client, Closed, Login, Told, publishing, subscribing


class Way(StrEnum):
    """How a topic is used."""

    PUBLISH = "publish"
    RETAIN = "retain"  # the broker keeps it
    WILL = "will"
    HEAR = "hear"  # delivered while subscribed
    FIND = "find"  # what was kept before is delivered at the subscription


Cell = tuple[str, Way, str]  # (account, way, topic)

OF_BROKER: Final = {"mosquitto": "$SYS/", "amqtt": "$"}  # where nobody else may write, ever


class Rights:
    """``fences``: for each account a topic on which it may speak, and one on which it may hear."""

    def __init__(self, lab: AccountLab, topics: Sequence[str],
                 fences: Mapping[str, tuple[str, str]]) -> None:  # fmt: skip
        self.lab, self.topics, self.fences = lab, topics, fences
        self.writable = [one for one in topics if not one.startswith(OF_BROKER[lab.kind])]
        self.observer = lab.come_in(OBSERVER)
        self.observer.subscribe(EVERYTHING)
        self._number = 0

    def fence(self) -> str:
        """A text that was never said before."""
        self._number += 1
        return f"fence {self._number}"

    def all_cells(self) -> dict[Cell, bool]:
        """What comes through, of everything that each account can try."""
        cells: dict[Cell, bool] = {}
        clients = {account: self.lab.come_in(account) for account in self.fences}
        for account, client in clients.items():
            cells |= self._say(account, client, Way.PUBLISH)
            cells |= self._say(account, client, Way.RETAIN)
        cells |= self._listen(clients, Way.HEAR)
        self.tell_all("kept", retain=True)
        cells |= self._listen(clients, Way.FIND)
        self.tell_all("", retain=True)
        for client in clients.values():
            client.close()
        for account in self.fences:
            cells |= self._say_apart(account, Way.PUBLISH)
            cells |= self._say_apart(account, Way.RETAIN)
            cells |= self._wills(account)
        return cells

    def tell_all(self, text: str, *, retain: bool = False) -> None:
        """The observer says it on every topic, and has heard it."""
        self.observer.publish(Told(topic, text, retain) for topic in self.writable)
        self.heard()

    def heard(self) -> set[str]:
        """What the observer was told since, as texts."""
        fence = self.fence()
        self.observer.publish([Told("hw/observer/fence", fence)])
        came = self.observer.until(lambda one: one.text == fence, "the observer hears itself")
        return {one.text for one in came}

    def kept(self) -> set[str]:
        """The texts of what the broker has retained."""
        fresh = self.lab.come_in(OBSERVER)
        fresh.subscribe(EVERYTHING)
        fresh.subscribe(["hw/observer/fence"])  # answered when all of the former was sent
        fence = self.fence()
        fresh.publish([Told("hw/observer/fence", fence)])
        came = fresh.until(lambda one: one.text == fence, "a fresh observer hears itself")
        fresh.close()
        return {one.text for one in came if one.retain}

    def after(self, account: str, client: Client) -> set[str]:
        """What came through of whatever that client published until now."""
        fence = self.fence()
        client.publish([Told(self.fences[account][0], fence)])
        came = self.observer.until(lambda one: one.text == fence, f"{account} can speak")
        return {one.text for one in came}

    def hears(self, account: str, client: Client, messages: Iterable[Told] = ()) -> list[Told]:
        """What is delivered to that client until it hears what it must."""
        fence = self.fence()
        self.observer.publish([*messages, Told(self.fences[account][1], fence)])
        return client.until(lambda one: one.text == fence, f"{account} hears")[:-1]

    def refused(self, who: str, login: Login, wills: Sequence[str]) -> dict[Cell, bool]:
        """Of somebody who must not come in and does not wait for the answer: all at once."""
        said = [Told(topic, f"{who}: {topic}") for topic in self.topics]
        early = b"".join(publishing(one, number) for number, one in enumerate(said, 1))
        client = self.lab.client(login, early=early)
        cells = {(who, Way.PUBLISH, one.topic): client.accepted for one in said}
        listening = self.lab.client(login, early=subscribing(list(self.topics), 1))
        for topic in wills:
            dying = self.lab.client(login, id=who, will=Told(topic, f"{who} will: {topic}"))
            dying.drop()
            cells[who, Way.WILL, topic] = dying.accepted
        self.tell_all("told to all")
        heard = self.heard()
        listening.until_closed()
        for topic in self.topics:
            cells[who, Way.PUBLISH, topic] |= f"{who}: {topic}" in heard
            came = [one for one in listening.received if one.topic == topic]
            cells[who, Way.HEAR, topic] = listening.accepted or bool(came)
        for topic in wills:
            cells[who, Way.WILL, topic] |= f"{who} will: {topic}" in heard
        return cells

    def _say(self, account: str, client: Client, way: Way) -> Iterable[tuple[Cell, bool]]:
        retain = way is Way.RETAIN
        topics = [topic for topic in self.topics if not topic.startswith("$")]
        said = [Told(topic, f"{account} {way}: {topic}", retain) for topic in topics]
        client.publish(said)
        seen = self.after(account, client)
        if retain:
            seen = self.kept()
            self.tell_all("", retain=True)
        return [((account, way, one.topic), one.text in seen) for one in said]

    def _say_apart(self, account: str, way: Way) -> Iterator[tuple[Cell, bool]]:
        """What may end the connection: on a fresh one for each topic."""
        for topic in (topic for topic in self.topics if topic.startswith("$")):
            said = Told(topic, f"{account} {way}: {topic}", way is Way.RETAIN)
            with contextlib.suppress(OSError, Closed):
                self.lab.come_in(account, id=f"apart-{account}").publish([said])
            again = self.lab.come_in(account, id=f"apart-{account}")  # the former has ended
            seen = self.after(account, again)
            again.close()
            came = said.text in (self.kept() if way is Way.RETAIN else seen)
            yield (account, way, topic), came

    def _listen(self, clients: Mapping[str, Client], way: Way) -> Iterator[tuple[Cell, bool]]:
        """With each topic as a filter of its own."""
        for account, client in clients.items():
            client.subscribe(self.topics)
            client.subscribe([self.fences[account][1]])  # answered when what was kept was sent
        if way is Way.HEAR:
            self.tell_all("told to all")
        for account, client in clients.items():
            came = {one.topic for one in self.hears(account, client) if one.text}
            client.unsubscribe([*self.topics, self.fences[account][1]])
            yield from (((account, way, topic), topic in came) for topic in self.topics)

    def _wills(self, account: str) -> Iterable[tuple[Cell, bool]]:
        """One client id: a connection's will is published before the next one is let in."""
        wills = [Told(topic, f"{account} will: {topic}") for topic in self.topics]
        for will in wills:
            self.lab.come_in(account, id=f"dying-{account}", will=will).drop()
        self.lab.come_in(account, id=f"dying-{account}").close()
        heard = self.heard()
        return [((account, Way.WILL, one.topic), one.text in heard) for one in wills]
