"""Who may do what in a lab that ``hwsync init`` made: every account, on every topic, in every way.

What is expected is written here by hand and is nobody else's: the rules of who may do what as a
table, beside which what a real broker does is held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import EVERYTHING, OBSERVER, AccountLab, folder_for_broker
from tests.support.packets import Client, Login, Told
from tests.support.rights import Cell, Rights, Way
from tests.support.waiting import wait_until

BROKERS: Final = ("mosquitto", "amqtt")

# w: may publish, let the broker keep, leave as a will. r: is told, at once and of what was kept.
# The columns: the coordinator; the board pi1; an operator of pi1, one who looks at pi1, one of all;
# who may judge; one of the group lab1, which is pi2; an analyst.
ACCOUNTS: Final = ("coordinator", "pi1", "alice", "rita", "teacher", "greta", "check")
TABLE: Final = """
hw/pi1/request                 rw   -    w    -    w    -    -
hw/pi1/command                 rw   r    -    -    -    -    -
hw/pi1/collected               rw   w    r    r    r    -    -
hw/pi1/output                  rw   w    r    r    r    -    -
hw/pi1/response                rw   w    r    r    r    -    -
hw/pi1/analysis                rw   -    -    -    w    -    w
hw/pi1/analysis/more           rw   -    -    -    -    -    -
hw/pi1/cancel                  rw   -    w    -    w    -    -
hw/pi1/reset                   rw   -    w    -    w    -    -
hw/pi1/query                   rw   -    w    w    w    -    w
hw/pi1/history                 rw   -    w    w    w    -    w
hw/pi1/history/all             rw   -    -    -    w    -    w
hw/pi1/history/all/more        rw   -    -    -    -    -    -
hw/pi1/status                  rw   r    r    r    r    -    r
hw/pi1/error                   rw   -    r    r    r    -    r
hw/pi1/result/c1               rw   -    r    r    r    -    r
hw/pi1/heartbeat               rw   w    r    r    r    -    -
hw/pi1/clock                   rw   w    -    -    -    -    -
hw/pi1/clock/reply             rw   r    -    -    -    -    -
hw/pi2/clock                   rw   -    -    -    -    -    -
hw/pi2/clock/reply             rw   -    -    -    -    -    -
hw/pi2/request                 rw   -    -    -    w    -    -
hw/pi2/command                 rw   -    -    -    -    -    -
hw/pi2/collected               rw   -    -    -    r    r    -
hw/pi2/output                  rw   -    -    -    r    r    -
hw/pi2/response                rw   -    -    -    r    r    -
hw/pi2/analysis                rw   -    -    -    w    -    w
hw/pi2/cancel                  rw   -    -    -    w    -    -
hw/pi2/reset                   rw   -    -    -    w    -    -
hw/pi2/query                   rw   -    -    -    w    -    w
hw/pi2/history                 rw   -    -    -    w    w    w
hw/pi2/history/all             rw   -    -    -    w    -    w
hw/@lab1/history               rw   -    -    -    -    -    -
hw/@hwsync/history             rw   -    -    -    -    -    -
hw/pi2/status                  rw   -    -    -    r    r    r
hw/pi2/error                   rw   -    -    -    r    r    r
hw/pi2/result/c1               rw   -    -    -    r    r    r
hw/pi2/heartbeat               rw   -    -    -    r    r    -
hw/@lab1/request               rw   -    -    -    w    w    -
hw/@lab1/cancel                rw   -    -    -    w    w    -
hw/@lab1/reset                 rw   -    -    -    w    w    -
hw/@lab1/query                 rw   -    -    -    w    w    -
hw/@lab1/status                rw   -    -    -    r    r    -
hw/@lab1/error                 rw   -    -    -    r    r    -
hw/@lab1/members               rw   -    -    -    r    r    -
hw/@lab1/result/c1             rw   -    -    -    r    r    -
hw/@lab1/command               rw   -    -    -    -    -    -
hw/@lab1/analysis              rw   -    -    -    -    -    -
hw/@lab1/request/more          rw   -    -    -    -    -    -
hw/@all/request                rw   -    -    -    w    -    -
hw/@all/cancel                 rw   -    -    -    w    -    -
hw/@all/reset                  rw   -    -    -    w    -    -
hw/@all/query                  rw   -    -    -    w    -    -
hw/@all/status                 rw   -    -    -    r    -    -
hw/@all/members                rw   -    -    -    r    -    -
hw/@lab2/request               rw   -    -    -    -    -    -
hw/@lab2/status                rw   -    -    -    -    -    -
hw/lab1/request                rw   -    -    -    -    -    -
hw/@hwsync/health              rw   -    r    r    r    r    r
hw/@hwsync/boards              rw   -    r    r    r    r    r
hw/@hwsync/analysts/check      rw   -    r    r    r    r    rw
hw/@hwsync/analysts/alice      rw   -    r    r    r    r    r
hw/@hwsync/analysts            rw   -    -    -    -    -    -
hw/@hwsync/analysts/check/more rw   -    -    -    -    -    -
hw/@hwsync/query               rw   -    w    w    w    w    w
hw/@hwsync/echo/alice/there    rw   -    rw   -    -    -    -
hw/@hwsync/echo/rita/there     rw   -    -    rw   -    -    -
hw/@hwsync/echo/teacher/there  rw   -    -    -    rw   -    -
hw/@hwsync/echo/greta/there    rw   -    -    -    -    rw   -
hw/@hwsync/echo/check/there    rw   -    -    -    -    -    rw
hw/@hwsync/echo/alice/with.dot rw   -    rw   -    -    -    -
hw/@hwsync/echo/alice          rw   -    -    -    -    -    -
hw/@hwsync/echo/alice/there/1  rw   -    -    -    -    -    -
hw/@hwsync/echo/x/there        rw   -    -    -    -    -    -
hw/@hwsync/other               rw   -    -    -    -    -    -
hw/@hwsync/command             rw   -    -    -    -    -    -
hw/pi1                         rw   -    -    -    -    -    -
hw/pi1/other                   rw   -    -    -    -    -    -
hw/pi1/result                  rw   -    -    -    -    -    -
hw/pi1/result/c1/more          rw   -    -    -    -    -    -
hw/pi1/command/more            rw   -    -    -    -    -    -
hw/pi1/request/more            rw   -    -    -    -    -    -
hw/pi1/response/more           rw   -    -    -    -    -    -
hw/pi11/response               rw   -    -    -    -    -    -
hw/pi11/request                rw   -    -    -    -    -    -
hw/pi11/command                rw   -    -    -    -    -    -
hw                             rw   -    -    -    -    -    -
replies/alice                  w    -    r    -    -    -    -
replies/alice/1                w    -    r    -    -    -    -
replies/alice/1/2/3            w    -    r    -    -    -    -
replies/rita/1                 w    -    -    r    -    -    -
replies/teacher/1              w    -    -    -    r    -    -
replies/check/1                w    -    -    -    -    -    r
replies/alice2/1               w    -    -    -    -    -    -
replies/pi1/1                  w    -    -    -    -    -    -
replies/1                      w    -    -    -    -    -    -
hwx/pi1/command                -    -    -    -    -    -    -
other/pi1/command              -    -    -    -    -    -    -
pi1/command                    -    -    -    -    -    -    -
/hw/pi1/command                -    -    -    -    -    -    -
$hw/pi1/command                -    -    -    -    -    -    -
$SYS/broker/version            -    -    -    -    -    -    -
"""
GRANTED: Final = {
    topic: dict(zip(ACCOUNTS, columns, strict=True))
    for topic, *columns in map(str.split, TABLE.strip().splitlines())
}
TOPICS: Final = tuple(GRANTED)

FENCES: Final = {  # where each may speak; where each may hear
    "coordinator": ("hw/fence/status", "hw/fence/response"),
    "pi1": ("hw/pi1/heartbeat", "hw/pi1/status"),
    "alice": ("hw/@hwsync/echo/alice/back", "hw/pi1/status"),
    "rita": ("hw/@hwsync/echo/rita/back", "hw/pi1/status"),
    "teacher": ("hw/@hwsync/echo/teacher/back", "hw/pi1/status"),
    "greta": ("hw/@hwsync/echo/greta/back", "hw/pi2/status"),
    "check": ("hw/@hwsync/echo/check/back", "hw/pi1/status"),
}
WILLS: Final = (
    *("hw/pi1/command", "hw/pi1/status", "hw/pi1/response", "hw/pi1/heartbeat"),
    "hw/@hwsync/analysts/check",
)
CELLS: Final = 1_500  # that the matrix has at least

Named = dict[tuple[str, str], str]  # (broker, what): why
NOT_KEPT: Final[Named] = {
    ("mosquitto", "a board's connection, from the operators' listener"): "mosquitto 2.0 gives a "
    "client id to whoever has any account: the board's connection ends. It comes in again.",
    ("mosquitto", "what waits for a board, from the operators' listener"): "the session goes with "
    "the client id, and mosquitto drops it: hwsync sends again what nobody collected.",
    ("mosquitto", "what waits for the coordinator, from the operators' listener"): "likewise: an "
    "operator who takes its client id can make a request vanish that was acknowledged. Whoever "
    "names an id and asks for it, as hwsync run does, finds out and sends it again.",
}
NOT_KEPT_CELLS: Final[dict[str, dict[Cell, str]]] = {"mosquitto": {}, "amqtt": {}}


@pytest.fixture(scope="module", params=BROKERS)
def lab(request: pytest.FixtureRequest) -> Iterator[AccountLab]:
    """Two boards, four operators, an analyst; ``gone`` was a board, and is none any more."""
    with folder_for_broker() as path:
        operators = {
            "alice": OperatorRights(("pi1",)),
            "rita": OperatorRights(("pi1",), read_only=True),
            "teacher": OperatorRights(None, history=True, analyse=True),
        }
        made = AccountLab(request.param, path, ("pi1", "pi2", "gone"), operators)
        made.folder.set_group("lab1", ("pi2", "gone", "bench-*"))
        made.folder.add_operator("greta", OperatorRights((), groups=("lab1", "all")))
        made.folder.change_operator("greta", OperatorRights((), groups=("lab1",)))
        made.folder.add_analyst("check")
        made.removed = made.login("gone")
        made.folder.remove("gone")
        made.add_observer()
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def observed(lab: AccountLab) -> Rights:
    return Rights(lab, TOPICS, FENCES)


@pytest.fixture
def rights(observed: Rights) -> Rights:
    """What an earlier test has said is not heard in this one."""
    observed.heard()
    return observed


def logins(lab: AccountLab) -> dict[str, Login]:
    """Those who must not come in, on both listeners where that makes a difference."""
    boards, operators = lab.ports["boards"], lab.ports["operators"]
    pi1, alice = lab.login("pi1"), lab.login("alice")
    return {
        "nobody, with the boards": Login(None, None, boards),
        "nobody, with the operators": Login(None, None, operators),
        "a wrong password, with the boards": Login("pi1", "wrong", boards),
        "a wrong password, with the operators": Login("alice", "wrong", operators),
        "no password, with the boards": Login("coordinator", None, boards),
        "an empty password, with the operators": Login("teacher", "", operators),
        "another board's password": Login("pi2", pi1.password, boards),
        "a removed board": lab.removed,
        "an unknown account": Login("mallory", "mallory", operators),
        "a board, with the operators": Login("pi1", pi1.password, operators),
        "the coordinator, with the operators": lab.login("coordinator", "operators"),
        "an operator, with the boards": Login("alice", alice.password, boards),
        "an analyst, with the boards": lab.login("check", "boards"),
    }


def expected(cell: Cell) -> bool:
    account, way, topic = cell
    granted = GRANTED[topic].get(account, "-")  # whoever is not in the table may do nothing
    return ("r" if way in (Way.HEAR, Way.FIND) else "w") in granted


def test_every_account_on_every_topic_in_every_way(
    lab: AccountLab, rights: Rights, record_property: Callable[[str, object], None]
) -> None:
    cells = rights.all_cells()
    for who, login in logins(lab).items():
        cells |= rights.refused(who, login, WILLS)
    record_property(f"cells on {lab.kind}", len(cells))
    print(f"{len(cells)} cells on {lab.kind}")
    assert len(cells) >= CELLS
    wrong = {cell: came for cell, came in cells.items() if came != expected(cell)}
    excused = NOT_KEPT_CELLS[lab.kind]
    assert {cell: came for cell, came in wrong.items() if cell not in excused} == {}
    assert [cell for cell in excused if cell not in wrong] == [], "kept after all"
    # It must be able to see both: what comes through, and what does not.
    assert {(way, came) for (_, way, _), came in cells.items()} == {
        (way, came) for way in Way for came in (True, False)
    }


def kept_or_excused(lab: AccountLab, what: str, kept: bool) -> None:
    """A promise that a broker cannot keep is one that it really does not keep."""
    assert kept != ((lab.kind, what) in NOT_KEPT), f"{what} on {lab.kind}: kept {kept}"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("response", {"id": "c1", "journal": "j", "boot": 1, "outcome": "ok", "ran": "yes"}),
        ("collected", {"id": "c1", "journal": "j", "boot": 1}),
        ("heartbeat", {"online": True, "journal": "j", "boot": 9}),
        ("output", {"id": "c1", "n": 1, "stream": "stdout", "text": "forged"}),
    ],
)
def test_a_board_cannot_speak_for_another(
    lab: AccountLab, rights: Rights, kind: str, fields: dict[str, object]
) -> None:
    pi1 = lab.come_in("pi1")
    own, forged = json.dumps(fields | {"n": "own"}), json.dumps(fields | {"n": "forged"})
    pi1.publish([Told(f"hw/pi1/{kind}", own), Told(f"hw/pi2/{kind}", forged),
                 Told(f"hw/pi2/{kind}", forged, retain=True)])  # fmt: skip
    heard = rights.after("pi1", pi1)
    assert own in heard
    assert forged not in heard
    assert forged not in rights.kept()


@pytest.mark.parametrize("kind", ["command", "status"])
@pytest.mark.parametrize("account", ["pi1", "alice", "rita", "teacher"])
def test_nobody_can_give_a_board_orders_but_the_coordinator(
    lab: AccountLab, rights: Rights, account: str, kind: str
) -> None:
    """Not at once, not kept for when the board comes, not as a last word."""
    topic = f"hw/pi1/{kind}"
    will = Told(topic, "order as a will", retain=True)
    client = lab.come_in(account, id=f"order-{account}", will=will)
    client.publish([Told(topic, "order"), Told(topic, "order kept", retain=True)])
    heard = rights.after(account, client)
    client.drop()
    lab.come_in(account, id=f"order-{account}").close()
    heard |= rights.heard()
    assert not {text for text in heard | rights.kept() if text.startswith("order")}
    coordinator = lab.come_in("coordinator")
    coordinator.publish([Told(topic, "order of the coordinator")])
    assert "order of the coordinator" in rights.after("coordinator", coordinator)


def test_whoever_is_given_one_board_hears_and_asks_nothing_of_another(
    lab: AccountLab, rights: Rights
) -> None:
    foreign = [topic for topic in TOPICS if topic.startswith("hw/pi2/")]
    for account in ("pi1", "alice", "rita"):
        client = lab.come_in(account)
        client.subscribe([*foreign, "hw/pi2/#", "hw/pi2/+", FENCES[account][1]])
        assert rights.hears(account, client, [Told(topic, "secret") for topic in foreign]) == []
        client.publish(Told(topic, f"{account} asks") for topic in foreign)
        assert f"{account} asks" not in rights.after(account, client)


@pytest.mark.parametrize("account", ["pi1", "alice", "rita", "greta"])
def test_nobody_grades_himself(lab: AccountLab, rights: Rights, account: str) -> None:
    """Nor another, at once or as a last word; nor does he say that an analyst is there."""
    presence = "hw/@hwsync/analysts/check"
    topics = ("hw/pi1/analysis", "hw/pi2/analysis", "hw/@lab1/analysis", presence)
    client = lab.come_in(account)
    for topic in topics:
        client.publish([Told(topic, "passed"), Told(topic, "passed, kept", retain=True)])
    assert not {text for text in rights.after(account, client) if text.startswith("passed")}
    for topic in topics:
        will = Told(topic, "passed as a will", retain=topic == presence)
        lab.come_in(account, id=f"grades-{account}", will=will).drop()
        lab.come_in(account, id=f"grades-{account}").close()
    heard = rights.heard() | rights.kept()
    assert not {text for text in heard if text.startswith("passed")}


@pytest.mark.parametrize("account", ["teacher", "check"])
def test_who_may_judge_does_so_of_every_board(
    lab: AccountLab, rights: Rights, account: str
) -> None:
    client = lab.come_in(account)
    topics = ("hw/pi1/analysis", "hw/pi2/analysis")
    client.publish(Told(topic, f"{account} of {topic}") for topic in topics)
    assert rights.after(account, client) >= {f"{account} of {topic}" for topic in topics}


def test_an_analyst_asks_for_nothing_and_says_nothing_in_anothers_name(
    lab: AccountLab, rights: Rights
) -> None:
    client = lab.come_in("check")
    kinds = ("request", "command", "cancel", "reset", "heartbeat", "response", "status")
    topics = [f"hw/{user}/{kind}" for user in ("pi1", "pi2", "@lab1", "@all") for kind in kinds]
    topics += ["hw/@hwsync/analysts/other", "hw/@hwsync/health", "hw/@hwsync/boards"]
    for topic in topics:
        client.publish([Told(topic, "no"), Told(topic, "no, kept", retain=True)])
    client.publish([Told("hw/@hwsync/analysts/check", "own", retain=True)])
    heard = rights.after("check", client)
    assert not {text for text in heard | rights.kept() if text.startswith("no")}
    assert "own" in heard & rights.kept()
    rights.tell_all("", retain=True)


FILTERS: Final = (
    "#", "+/#", "hw/#", "hw/+/status", "+/+/command", "hw/+/+", "+/pi2/#", "hw/pi2/#", "+/+/+/+",
    "replies/#", "replies/+/1", "$SYS/#", "$hw/#", "$share/g/#", "$share/g/hw/#",
    "$share/g/hw/pi2/status", "$share/g/+/+/command", "$share/h/replies/#",
)  # fmt: skip


@pytest.mark.parametrize("wanted", FILTERS)
def test_a_wildcard_gives_nobody_more(lab: AccountLab, rights: Rights, wanted: str) -> None:
    """SUBSCRIBE may be granted; what is delivered is what the topic's own right gives."""
    heard: set[str] = set()
    for account in ACCOUNTS:
        client = lab.come_in(account, id=f"wild-{account}")
        client.subscribe([wanted, FENCES[account][1]])
        came = rights.hears(account, client, [Told(topic, "told") for topic in rights.writable])
        topics = {one.topic for one in came} - {topic for _, topic in FENCES.values()}
        allowed = {topic for topic in TOPICS if "r" in GRANTED[topic][account]}
        assert topics <= allowed, f"{account} subscribes {wanted}"
        heard |= topics
        client.close()
    if wanted.startswith("$share/") and lab.kind == "amqtt":
        assert not heard  # it knows no shared subscriptions
    elif wanted.removeprefix("$share/g/") in (
        "#",
        "hw/#",
        "+/#",
        "hw/+/+",
    ):  # of these there is much that one may hear
        assert len(heard) > 20


def test_a_share_of_a_subscription_takes_nothing_from_others(
    lab: AccountLab, rights: Rights
) -> None:
    """Whoever may not hear a topic and shares its filter gets no message in place of another."""
    board = lab.come_in("pi1")
    board.subscribe(["hw/pi1/command", "hw/pi1/status"])
    thief = lab.come_in("alice", id="thief")
    thief.subscribe(["$share/g/hw/pi1/command", FENCES["alice"][1]])
    orders = [Told("hw/pi1/command", f"order {number}") for number in range(20)]
    came = [one.text for one in rights.hears("pi1", board, orders) if one.text.startswith("order")]
    assert came == [one.text for one in orders]
    stolen = rights.hears("alice", thief)
    assert [one.text for one in stolen if one.text.startswith("order")] == []


def test_with_the_boards_a_client_id_is_the_account(lab: AccountLab, rights: Rights) -> None:
    """Whoever names another's ends nobody's connection and gets nobody's session."""
    pi1 = lab.come_in("pi1", id="board", clean=False)
    pi1.subscribe(["hw/pi1/command", "hw/pi1/status"])
    for id in ("pi1", "hwsync-device-pi1", "coordinator"):
        other = lab.come_in("pi2", id=id, clean=False)
        assert not other.session_present
        assert pi1.lives(), id
        order = Told("hw/pi1/command", f"for pi1, not {id}")
        assert order in rights.hears("pi1", pi1, [order])
        other.subscribe(["hw/pi2/status"])
        own = Told("hw/pi2/status", rights.fence())
        rights.observer.publish([own])
        assert other.until(own.__eq__, "pi2 hears") == [own]
        lab.come_in("pi2").close()  # and its session is gone
    # The account's own second connection takes the first one's place, under any id.
    again = lab.come_in("pi1", id="another")
    assert not pi1.lives()
    assert again.lives()


def take(lab: AccountLab, rights: Rights, *, live: bool) -> tuple[Client, Client, Told]:
    """An operator asks for a board's client id: (board, operator, the board's last command).

    ``live``: while the board is connected, which has that command; else the command waits for it.
    """
    order = Told("hw/pi1/command", rights.fence())
    pi1 = lab.come_in("pi1", id="board", clean=False)
    pi1.subscribe(["hw/pi1/command", "hw/pi1/status"])
    rights.hears("pi1", pi1, [order] if live else [])
    if not live:
        pi1.close()
        rights.observer.publish([order])
    operator = lab.client(lab.login("teacher"), id="pi1", clean=False)
    if operator.accepted:
        operator.subscribe(["replies/teacher/x", "hw/pi1/command"])
        fence = Told("replies/teacher/x", rights.fence())
        rights.observer.publish([Told("hw/pi1/command", "meanwhile"), fence])
        came = operator.until(fence.__eq__, "the operator hears")
        assert came == [fence], "a command was delivered to an operator"
    return pi1, operator, order


def come_again(lab: AccountLab, rights: Rights) -> set[str]:
    """The board comes in, whoever has its client id; what it hears, as texts."""
    again = lab.come_in("pi1", id="board", clean=False)
    again.subscribe(["hw/pi1/command", "hw/pi1/status"])
    new = Told("hw/pi1/command", "sent again")
    came = rights.hears("pi1", again, [new])
    assert new in came
    again.close()
    lab.come_in("pi1").close()  # and its session is gone
    return {one.text for one in came}


def test_a_boards_client_id_from_the_operators_listener(lab: AccountLab, rights: Rights) -> None:
    """Where the broker gives it away, the board comes in again and no command went elsewhere."""
    pi1, _, _ = take(lab, rights, live=True)
    kept_or_excused(lab, "a board's connection, from the operators' listener", pi1.lives())
    come_again(lab, rights)


def test_what_waits_for_a_board_is_told_to_no_operator(lab: AccountLab, rights: Rights) -> None:
    """Who took the client id cannot stay when the board comes."""
    _, operator, order = take(lab, rights, live=False)
    came = come_again(lab, rights)
    kept_or_excused(lab, "what waits for a board, from the operators' listener", order.text in came)
    assert not operator.lives()


def test_a_board_that_comes_to_stay_while_its_clean_connection_lives_is_waited_for(
    lab: AccountLab, rights: Rights
) -> None:
    clean = lab.come_in("pi1", id="board")
    clean.subscribe(["hw/pi1/status"])
    pi1 = lab.come_in("pi1", id="board", clean=False)
    assert not pi1.session_present
    assert not clean.lives()
    pi1.subscribe(["hw/pi1/command"])
    pi1.close()
    order = Told("hw/pi1/command", rights.fence())
    foreign = Told("hw/pi1/status", "only the clean one wanted to hear it")
    rights.observer.publish([order, foreign])
    came = come_again(lab, rights)
    assert order.text in came
    assert foreign.text not in came


def test_a_request_that_waits_for_the_coordinator_outlives_who_takes_its_client_id(
    lab: AccountLab, rights: Rights
) -> None:
    """While it is away for a moment, and an operator comes in as ``coordinator``."""
    coordinator = lab.come_in("coordinator", id="any", clean=False)
    coordinator.subscribe(["hw/+/request"])
    coordinator.close()
    alice = lab.come_in("alice")
    alice.publish([Told("hw/pi1/request", "acknowledged")])
    rights.after("alice", alice)
    thief = lab.client(lab.login("teacher"), id="coordinator", clean=False)
    if thief.accepted:
        thief.subscribe(["replies/teacher/x"])
        fence = Told("replies/teacher/x", rights.fence())
        rights.observer.publish([fence])
        assert thief.until(fence.__eq__, "the operator hears") == [fence]
    again = lab.come_in("coordinator", id="any", clean=False)
    again.subscribe([FENCES["coordinator"][1]])
    came = {one.text for one in rights.hears("coordinator", again)}
    kept_or_excused(lab, "what waits for the coordinator, from the operators' listener",
                    "acknowledged" in came)  # fmt: skip
    again.close()
    lab.come_in("coordinator").close()


def test_a_last_word_on_a_foreign_topic_is_not_said(lab: AccountLab, rights: Rights) -> None:
    for account, topic in (
        ("pi1", "hw/pi2/heartbeat"),
        ("pi1", "hw/pi1/status"),
        ("alice", "hw/pi1/response"),
        ("alice", "hw/pi2/request"),
        ("rita", "hw/pi1/request"),
        ("teacher", "hw/@hwsync/health"),
        ("teacher", "hw/@hwsync/analysts/check"),
        ("check", "hw/@hwsync/analysts/teacher"),
        ("alice", "hw/pi1/analysis"),
        ("check", "hw/pi1/request"),
    ):
        for retain in (False, True):
            will, id = Told(topic, "last word", retain), f"last-{account}"
            lab.come_in(account, id=id, will=will).drop()
            lab.come_in(account, id=id).close()
        assert "last word" not in rights.heard() | rights.kept()
    for account, topic in (
        ("pi1", "hw/pi1/heartbeat"),
        ("check", "hw/@hwsync/analysts/check"),
    ):
        own, id = Told(topic, f"{account} is gone", retain=True), f"last-{account}"
        lab.come_in(account, id=id, will=own).drop()
        lab.come_in(account, id=id).close()
        assert own.text in rights.heard() & rights.kept()
    rights.tell_all("", retain=True)


def test_a_status_that_a_board_retains_is_not_kept(lab: AccountLab, rights: Rights) -> None:
    """Nor can it clear the one that the coordinator had the broker keep."""
    coordinator, pi1 = lab.come_in("coordinator"), lab.come_in("pi1")
    coordinator.publish([Told("hw/pi1/status", "true", retain=True)])
    rights.after("coordinator", coordinator)
    pi1.publish([Told("hw/pi1/status", "forged", retain=True),
                 Told("hw/pi1/status", "", retain=True)])  # fmt: skip
    rights.after("pi1", pi1)
    kept = rights.kept()
    assert "true" in kept
    assert "forged" not in kept
    rights.tell_all("", retain=True)


def test_an_account_of_the_other_listener_is_refused(lab: AccountLab) -> None:
    for account, listener in (("pi1", "operators"), ("coordinator", "operators"),
                              ("alice", "boards"), ("check", "boards")):  # fmt: skip
        assert lab.come_in(account).lives()
        refused = lab.client(lab.login(account, listener), id="elsewhere")
        assert refused.code in (4, 5), f"{account} with the {listener}"


@pytest.mark.parametrize("kind", BROKERS)
def test_who_may_come_in_no_more_is_sent_away_and_nobody_else(kind: str) -> None:
    """After the broker was told, on connections that stood before."""
    with folder_for_broker() as path:
        operators = {"alice": OperatorRights(None), "bob": OperatorRights(("pi1",))}
        lab = AccountLab(kind, path, ("pi1", "pi2", "pi3"), operators)
        try:
            lab.folder.add_analyst("check")
            lab.folder.add_analyst("gone")
            lab.start()
            names = ("coordinator", "pi1", "pi2", "pi3", "alice", "bob", "check", "gone")
            before = {name: lab.login(name) for name in names}
            clients = {name: lab.come_in(name, id=name) for name in names}
            clients["bob"].subscribe(["hw/pi1/status", "hw/pi2/status", "replies/bob/x"])
            assert lab.process is not None
            assert lab.folder.reload() == ([lab.process.pid], [])
            lab.folder.remove("pi2")
            lab.folder.rotate("pi3")
            lab.folder.remove("alice")
            lab.folder.rotate("check")
            lab.folder.remove("gone")
            lab.folder.change_operator("bob", OperatorRights(("pi1",)))
            assert lab.folder.reload() == ([lab.process.pid], [])
            for name in ("pi2", "pi3", "alice", "check", "gone"):
                wait_until(lambda name=name: not clients[name].lives(), what=f"the end of {name}")
                assert not lab.client(before[name], id=name).accepted
            for name in ("coordinator", "pi1", "bob"):
                assert clients[name].lives(), name
            assert lab.come_in("pi3", id="pi3").lives()
            assert lab.come_in("check", id="check").lives()
            lab.folder.add_board("pi2")
            lab.folder.change_operator(
                "bob", OperatorRights(("pi2",))
            )  # bob stays, with other rights
            lab.folder.reload()
            wait_until(lambda: lab.client(lab.login("pi2"), id="pi2").accepted, what="pi2 again")
            said = [Told(topic, "now") for topic in
                    ("hw/pi1/status", "hw/pi2/status", "replies/bob/x")]  # fmt: skip
            clients["coordinator"].publish(said)
            assert clients["bob"].until(said[-1].__eq__, "bob hears") == said[1:]
        finally:
            lab.stop()


def test_every_promise_that_is_not_kept_is_of_a_broker_that_is_tested() -> None:
    assert {broker for broker, _ in NOT_KEPT} <= set(BROKERS)
    assert set(NOT_KEPT_CELLS) == set(BROKERS)
    assert OBSERVER not in ACCOUNTS
    assert "#" in EVERYTHING


@pytest.mark.parametrize("owner", ["pi2", "coordinator"])
def test_nobody_is_locked_out_by_who_took_his_id_while_he_was_away(
    lab: AccountLab, owner: str
) -> None:
    """amqtt gives a session to the account that has it: so it must not become another's."""
    for clean in (False, True):
        taken = lab.client(lab.login("alice"), id=owner, clean=clean)
        assert taken.accepted == (lab.kind == "mosquitto")  # as NOT_KEPT says
    assert lab.come_in(owner).lives()
    assert lab.client(lab.login("alice"), id="alices-own", clean=False).accepted
