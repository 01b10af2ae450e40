"""``--mutual-tls``: a certificate is its account's, and what counts no more lets nobody in."""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.lab import texts
from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import AccountLab, folder_for_broker
from tests.support.packets import Client, Login, Told
from tests.support.waiting import wait_until

BROKERS: Final = ("mosquitto", "amqtt")
OPERATORS: Final = {"alice": OperatorRights(None), "bob": OperatorRights(("pi1",))}


@dataclass
class Site:
    """A lab, and how an account comes in with the certificate of a moment."""

    lab: AccountLab

    def card(self, account: str) -> ssl.SSLContext:
        """With the certificate that the account has now."""
        own = self.lab.connection(account)
        made = ssl.create_default_context(cadata=own["ca"])
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(own["certificate"] + own["key"])
            file.flush()
            made.load_cert_chain(file.name)
        return made

    def client(
        self, card: ssl.SSLContext, login: Login, id: str = "", password: str | None = None
    ) -> Client | None:
        """None: it was not let in."""
        try:
            made = Client(login, card, id=id)
        except (ssl.SSLError, ConnectionError):
            return None
        if made.accepted:
            self.lab._stack.callback(made.close)
            return made
        made.close()
        return None

    def come_in(self, account: str, id: str = "") -> Client:
        made = self.client(self.card(account), self.lab.login(account), id)
        assert made is not None, account
        return made

    def told(self) -> None:
        """The broker has read its files again; what follows a signal comes a moment later."""
        assert self.lab.process is not None
        assert self.lab.folder.reload() == ([self.lab.process.pid], [])


@pytest.fixture(params=BROKERS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with folder_for_broker() as path:
        lab = AccountLab(request.param, path, ("pi1", "pi2", "pi3"), OPERATORS, mutual_tls=True)
        try:
            lab.start()
            yield Site(lab)
        finally:
            lab.stop()


def test_a_certificate_is_its_account_whatever_name_and_password_come_with_it(site: Site) -> None:
    coordinator = site.come_in("coordinator")
    coordinator.subscribe(["hw/+/heartbeat"])
    login = site.lab.login("pi1")
    assert login.password is None  # there is none
    for name, password in (("pi1", None), (None, None), ("pi2", "x"), ("coordinator", "x")):
        pi1 = site.client(site.card("pi1"), replace(login, name=name, password=password))
        assert pi1 is not None
        own = Told("hw/pi1/heartbeat", f"as {name}")
        pi1.publish([Told("hw/pi2/heartbeat", "forged"), Told("hw/pi2/status", "forged"), own])
        assert coordinator.until(own.__eq__, "the coordinator hears pi1") == [own]
        order = Told("hw/pi2/command", "for pi2")
        pi1.subscribe(["hw/+/command"])
        mine = Told("hw/pi1/command", f"for pi1, not {name}")
        coordinator.publish([order, mine])
        assert pi1.until(mine.__eq__, "pi1 hears") == [mine]


def test_without_a_certificate_or_with_a_strangers_nobody_comes_in(site: Site) -> None:
    own = site.lab.connection("pi1")
    bare = ssl.create_default_context(cadata=own["ca"])
    assert site.client(bare, site.lab.login("pi1")) is None
    with folder_for_broker() as path:
        strange = Site(AccountLab("amqtt", path, ("pi1",), {}, mutual_tls=True)).card("pi1")
        strange.load_verify_locations(cadata=own["ca"])
        assert site.client(strange, site.lab.login("pi1")) is None
    assert site.client(site.card("pi1"), site.lab.login("pi1")) is not None


def test_a_certificate_counts_at_its_own_listener_only(site: Site) -> None:
    for account, listener in (("pi1", "operators"), ("coordinator", "operators"),
                              ("alice", "boards"), ("bob", "boards")):  # fmt: skip
        assert site.client(site.card(account), site.lab.login(account)) is not None
        assert site.client(site.card(account), site.lab.login(account, listener)) is None, account


def test_what_was_removed_or_rotated_out_comes_in_no_more(site: Site) -> None:
    """At once, after the broker was started again, and when the name is given once more."""
    lab = site.lab
    before = {name: (site.card(name), lab.login(name)) for name in ("pi1", "pi2", "alice", "bob")}
    for card, login in before.values():
        assert site.client(card, login) is not None
    lab.folder.remove("pi1")
    lab.folder.rotate("pi2")
    lab.folder.remove("alice")
    lab.folder.rotate("bob")
    site.told()

    def refused() -> bool:
        return all(site.client(card, login) is None for card, login in before.values())

    wait_until(refused, what="the end of what counts no more")
    for name in ("pi2", "bob", "pi3", "coordinator"):
        assert site.client(site.card(name), lab.login(name)) is not None, name
    lab.folder.add_board("pi1")
    lab.folder.add_operator("alice", OperatorRights(None))
    site.told()
    wait_until(
        lambda: site.client(site.card("alice"), lab.login("alice")) is not None, what="alice again"
    )
    assert site.client(site.card("pi1"), lab.login("pi1")) is not None
    assert refused()
    assert lab.process is not None
    lab.process.stop()
    lab.start()
    assert refused()
    for name in ("pi1", "pi2", "bob", "alice", "coordinator"):
        assert site.client(site.card(name), lab.login(name)) is not None, name


@pytest.mark.parametrize("how", ["remove", "rotate"])
def test_a_connection_that_stands_loses_its_rights_at_once(site: Site, how: str) -> None:
    """mosquitto leaves it connected; it says and hears nothing any more."""
    lab = site.lab
    coordinator, pi1, alice = (site.come_in(name) for name in ("coordinator", "pi1", "alice"))
    coordinator.subscribe(["hw/+/heartbeat", "hw/+/request"])
    pi1.subscribe(["hw/pi1/command"])
    alice.subscribe(["hw/pi2/status"])
    first = [Told("hw/pi1/heartbeat", "first"), Told("hw/pi2/request", "first")]
    pi1.publish(first[:1])
    assert coordinator.until(first[0].__eq__, "pi1 is heard")
    alice.publish(first[1:])
    assert coordinator.until(first[1].__eq__, "alice is heard")
    for name in ("pi1", "alice"):
        getattr(lab.folder, how)(name)
    site.told()
    if lab.kind == "amqtt":
        for one in (pi1, alice):
            wait_until(lambda one=one: not one.lives(), what="its end")
        return
    wait_until(lambda: site.client(site.card("pi3"), lab.login("pi3")) is not None, what="pi3")
    pi1.publish([Told("hw/pi1/heartbeat", "later")])
    alice.publish([Told("hw/pi2/request", "later")])
    fence = Told("hw/pi3/heartbeat", "fence")
    site.come_in("pi3").publish([fence])
    assert coordinator.until(fence.__eq__, "pi3 is heard") == [fence]
    coordinator.publish([Told("hw/pi1/command", "secret"), Told("hw/pi2/status", "secret")])
    assert pi1.lives()
    assert alice.lives()
    assert [*pi1.received, *alice.received] == []


def test_on_the_operators_listener_nobody_is_another(site: Site) -> None:
    alice = site.come_in("alice", "one")
    bob = site.come_in("bob", "two")
    for client, account in ((alice, "alice"), (bob, "bob")):
        echoes = [f"hw/@hwsync/echo/{account}/{way}" for way in ("there", "back")]
        client.subscribe(["hw/@hwsync/echo/+/+"])
        foreign = "bob" if account == "alice" else "alice"
        client.publish([Told(f"hw/@hwsync/echo/{foreign}/there", "forged"),
                        *(Told(topic, "own") for topic in echoes)])  # fmt: skip
        last = Told(echoes[1], "own")
        assert [one.topic for one in client.until(last.__eq__, "its own echo")] == echoes


def of_before(lab: AccountLab) -> None:
    """As an earlier version made it: one authority, passwords, and any certificate with any."""
    folder = lab.folder
    file = folder.path / "lab.json"
    fields: dict[str, Any] = json.loads(file.read_text())
    del fields["certificates"], fields["revoked"]
    file.write_text(json.dumps(fields | {"mutual_tls": True}))
    accounts = folder.accounts
    (folder.path / "broker.conf").write_text(texts.broker_conf(accounts, folder.path))
    for name in ("coordinator", *accounts.boards, *accounts.operators):
        folder.rotate(name)


@pytest.mark.parametrize("kind", BROKERS)
def test_a_lab_of_an_earlier_version_goes_on_and_is_renewed(kind: str) -> None:
    with folder_for_broker() as path:
        lab = AccountLab(kind, path, ("pi1", "pi2"), OPERATORS)
        site = Site(lab)
        try:
            of_before(lab)
            lab.start()
            assert lab.login("pi1").password
            removed = site.card("pi2")
            assert site.client(site.card("pi1"), lab.login("pi1")) is not None
            lab.folder.remove("pi2")
            lab.folder.add_board("pi3")
            site.told()
            wait_until(lambda: site.client(site.card("pi3"), lab.login("pi3")) is not None)
            stolen = lab.login("pi1")
            assert site.client(removed, stolen) is not None  # why it is to be renewed
            old = {name: site.card(name) for name in ("pi1", "alice", "coordinator")}
            Path(lab.folder.file_of("pi3", lab.folder.accounts)).unlink()
            draft = lab.folder.renew((), None)
            assert draft.missing == ["pi3"]
            assert {file.name for file in draft.written} == {
                "coordinator.toml", "pi1.toml", "alice.toml", "bob.toml"
            }  # fmt: skip
            lab.folder.rotate("pi3")
            assert lab.process is not None
            lab.process.stop()
            lab.start()
            assert site.client(removed, stolen) is None
            for name, card in old.items():
                assert site.client(card, lab.login(name)) is None, name
            for name in ("coordinator", "pi1", "pi3", "alice", "bob"):
                assert site.client(site.card(name), lab.login(name)) is not None, name
        finally:
            lab.stop()
