"""A lab's accounts and what is made of them: the broker's ACL, the file of each account, keys."""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from hwsync import connection
from hwsync.broker.access import Passwords
from hwsync.cli import doctor, labs
from hwsync.cli.common import Settings
from hwsync.cli.labs import folder_of
from hwsync.device import config as device
from hwsync.device import service
from hwsync.lab import texts
from hwsync.lab.accounts import COORDINATOR, Accounts, OperatorRights, acl
from hwsync.lab.authority import Pair
from hwsync.lab.folder import Folder
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import NO_GROUPS, Groups
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.signing import SigningKey
from hwsync.transport import paho_client
from tests.support.lab import here

EMPTY = Accounts(("lab.local",))
TWO = EMPTY.with_board("pi1").with_board("pi2")
PEM = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # nothing here loses its power
    for name in (*connection.VARIABLES.values(), connection.FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def made(tmp_path: Path, accounts: Accounts = EMPTY, *, signing: bool = False) -> Folder:
    folder = Folder(tmp_path / "lab")
    folder.create(accounts, None, signing=signing)
    return folder


def own(folder: Folder, name: str) -> dict[str, Any]:
    return tomllib.loads(folder.file_of(name, folder.accounts).read_text())


# -- accounts --------------------------------------------------------------------------------------


def test_boards_and_operators_have_names_of_their_own() -> None:
    lab = EMPTY.with_board("pi2").with_board("pi1").with_operator("alice", OperatorRights(("pi2",)))
    assert lab.boards == ("pi1", "pi2")
    for name, said in (
        ("pi1", "there is a board pi1 already"),
        ("alice", "there is an? operator alice already"),
        ("coordinator", "the coordinator's own account"),
        ("all", "means every board"),
    ):
        with pytest.raises(UsageError, match=said):
            lab.with_board(name)
    for name in ("pi1", "coordinator"):
        with pytest.raises(UsageError):
            lab.with_operator(name, OperatorRights(None))


@pytest.mark.parametrize("name", ["", "a b", "+", "#", "a/b", "@hwsync", ".x", "x:y", "a\nb", "ü",
                                  "x" * 65])  # fmt: skip
def test_a_name_that_could_be_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name of an account"):
        EMPTY.with_board(name)
    with pytest.raises(UsageError, match="is no name of an account"):
        EMPTY.with_operator(name, OperatorRights(None))


def test_an_operator_is_given_boards_that_there_are_and_other_ones_later() -> None:
    with pytest.raises(UsageError, match="there is no board pi3"):
        TWO.with_operator("alice", OperatorRights(("pi1", "pi3")))
    lab = TWO.with_operator("alice", OperatorRights(("pi1",)))
    assert lab.with_operator("alice", OperatorRights(None, True)).operators["alice"].read_only


def test_a_removed_board_is_taken_from_the_operators_and_the_last_one_leaves_none() -> None:
    lab = TWO.with_operator("alice", OperatorRights(("pi1", "pi2"))).with_operator(
        "bob", OperatorRights(None)
    )
    lab = lab.without("pi1")
    assert (lab.boards, lab.operators["alice"].boards) == (("pi2",), ("pi2",))
    lab = lab.without("pi2")
    assert lab.operators["alice"].boards == ()  # and not None, which would be all
    assert lab.operators["bob"].boards is None
    assert "alice" not in lab.without("alice").operators
    for name in ("pi1", COORDINATOR, "nobody"):
        with pytest.raises(UsageError, match=f"there is no account {name}"):
            lab.without(name)


def test_what_is_kept_in_the_file_is_everything() -> None:
    lab = Accounts(
        ("a", "::1"), "some/root", 1, 2, True, ("pi1",),
        {"alice": OperatorRights(("pi1",), True), "bob": OperatorRights(None),
        "eve": OperatorRights((), analyse=None), "eva": OperatorRights((), analyse=True)}, ("k",),
        {"pi1": "0a"}, ("0b", "0c"), ("check",),
    )  # fmt: skip
    assert Accounts.of_json(json.loads(json.dumps(lab.as_json()))) == lab


@pytest.mark.parametrize("root", ["replies", "replies/alice", "hw\nuser alice", "hw\x7f"])
def test_a_root_that_would_give_operators_more_is_refused(root: str) -> None:
    with pytest.raises(UsageError, match="cannot be the root of a lab"):
        replace(EMPTY, root=root)
    assert replace(EMPTY, root="replies2/x").root == "replies2/x"


@pytest.mark.parametrize(
    "change",
    [
        "", "[]", "null", "{", "\xff", {"version": 2}, {"version": None}, {"hosts": []},
        {"hosts": "lab"}, {"boards": "pi1"}, {"boards": [1]}, {"trust": None}, {"boards_port": "x"},
        {"operators": []}, {"operators": {"a": {}}}, {"root": "replies"},
        {"operators": {"a": {"boards": "every", "read_only": False}}},
        {"analysts": "check"}, {"analysts": ["a b"]},
        {"certificates": []}, {"certificates": {"a": 1}}, {"certificates": {"a": "x"}},
        {"certificates": {"a": "0"}}, {"revoked": [""]}, {"revoked": ["f" * 41]}, {"revoked": None},
    ],
)  # fmt: skip
def test_a_broken_list_of_accounts_is_said_with_its_file(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "lab.json"
    text = change if isinstance(change, str) else json.dumps(EMPTY.as_json() | change)
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"lab\.json|cannot be the root"):
        _ = Folder(tmp_path).accounts


# -- what the broker is told -----------------------------------------------------------------------


def test_the_broker_is_told_what_each_account_may_do() -> None:
    lab = EMPTY.with_board("pi1").with_operator("a", OperatorRights(("pi1",)))
    lab = lab.with_operator("b", OperatorRights(None, True)).with_operator("c", OperatorRights(()))
    lab = lab.with_operator("d", OperatorRights(("pi1",), True, analyse=True)).with_analyst("z")
    _, _, text = acl(replace(lab, root="x/y")).partition("\n\n")
    blocks = dict(block.split("\n", 1) for block in text.strip().split("\n\n"))
    assert list(blocks) == ["user coordinator", "user pi1", "user a", "user b", "user c",
                            "user d", "user z"]  # fmt: skip
    seen = ("status", "error", "heartbeat", "collected", "output", "response", "result/+")
    everybody = [
        "read x/y/@hwsync/health",
        "read x/y/@hwsync/boards",
        "read x/y/@hwsync/analysts/+",
        "write x/y/@hwsync/query",
    ]

    def own(name: str) -> list[str]:
        echo = f"readwrite x/y/@hwsync/echo/{name}"
        return [
            *everybody,
            f"{echo}/there",
            f"{echo}/back",
            f"{echo}/with.dot",
            f"read replies/{name}/#",
        ]

    expected = {
        "coordinator": ["readwrite x/y/#", "write replies/#"],
        "pi1": ["read x/y/pi1/command", "read x/y/pi1/status", "read x/y/pi1/clock/reply",
                "write x/y/pi1/collected", "write x/y/pi1/output", "write x/y/pi1/response",
                "write x/y/pi1/heartbeat", "write x/y/pi1/clock"],
        "a": [*(f"read x/y/pi1/{kind}" for kind in seen), "write x/y/pi1/request",
              "write x/y/pi1/cancel", "write x/y/pi1/reset",
              "write x/y/pi1/query", "write x/y/pi1/history", *own("a")],
        "b": [*(f"read x/y/pi1/{kind}" for kind in seen), "write x/y/pi1/query",
              "write x/y/pi1/history", *own("b"),
              *(f"read x/y/@all/{kind}" for kind in ("status", "error", "members", "result/+")),
              "write x/y/@all/query"],
        "c": own("c"),
        "d": [*(f"read x/y/pi1/{kind}" for kind in seen), "write x/y/pi1/query",
              "write x/y/pi1/history", "write x/y/pi1/analysis", *own("d")],
        "z": [*(f"read x/y/pi1/{kind}" for kind in ("status", "error", "result/+")),
              *(f"write x/y/pi1/{kind}" for kind in ("analysis", "query", "history")),
              "write x/y/pi1/history/all", "write x/y/@hwsync/analysts/z", *own("z")],
    }  # fmt: skip
    for name, lines in expected.items():
        given = blocks[f"user {name}"].splitlines()
        assert sorted(given) == sorted(f"topic {line}" for line in lines), name


def test_a_group_is_a_right_to_ask_it_and_to_see_its_boards() -> None:
    lab = TWO.with_board("pi11")
    lab = lab.with_operator("a", OperatorRights(("pi2",), groups=("g", "gone")))
    lab = lab.with_operator("b", OperatorRights((), True, ("g",)))
    lab = lab.with_operator("c", OperatorRights(None))
    lab = lab.with_operator("d", OperatorRights((), False, ("all",)))
    groups = Groups({"g": ("pi1*", "elsewhere"), "h": ()})
    _, *found = acl(lab, groups).strip().split("\n\n")
    blocks = dict(block.split("\n", 1) for block in found)
    lines = {name.removeprefix("user "): text.splitlines() for name, text in blocks.items()}

    def topics(name: str, right: str, user: str) -> set[str]:
        begin = f"topic {right} hw/{user}/"
        return {one.removeprefix(begin) for one in lines[name] if one.startswith(begin)}

    seen = {"status", "error", "heartbeat", "collected", "output", "response", "result/+"}
    for name in ("a", "b"):
        assert topics(name, "read", "@g") == {"status", "error", "members", "result/+"}
        assert topics(name, "read", "pi1") == topics(name, "read", "pi11") == seen
        assert topics(name, "write", "pi1") == topics(name, "write", "pi11") == {"history"}
        assert "elsewhere" not in str(lines[name])
        assert "gone" not in str(lines[name])
    asks = {"request", "cancel", "reset", "query"}
    assert topics("a", "write", "@g") == asks
    assert topics("b", "write", "@g") == {"query"}
    assert "analysis" not in topics("a", "write", "pi2")
    assert topics("b", "read", "pi2") == set()
    assert all(topics("c", "write", user) == asks for user in ("@g", "@h", "@all"))
    assert topics("d", "write", "@all") == asks
    assert topics("d", "write", "@g") == set()
    assert topics("d", "write", "pi1") == {"history"}
    assert all(topics("d", "read", board) == seen for board in lab.boards)
    assert all(len(set(one)) == len(one) for one in lines.values())


def test_everybodys_history_is_a_right_of_its_own() -> None:
    lab = TWO.with_operator("a", OperatorRights(("pi1",), read_only=True, history=True))
    lab = lab.with_operator("b", OperatorRights(None))
    everybodys = [line for line in acl(lab).splitlines() if "history/all" in line]
    assert everybodys == ["topic write hw/pi1/history/all"]
    assert Accounts.of_json(lab.as_json()).operators == lab.operators
    fields = lab.as_json()
    for one in fields["operators"].values():
        del one["history"]  # of a lab of before
    assert not any(one.history for one in Accounts.of_json(fields).operators.values())


def judges(lab: Accounts, groups: Groups = NO_GROUPS) -> set[tuple[str, str]]:
    """Who may judge on which board."""
    found, name = set(), ""
    for line in acl(lab, groups).splitlines():
        name = line.removeprefix("user ") if line.startswith("user ") else name
        if line.endswith("/analysis"):
            found.add((name, line.split("/")[-2]))
    return found


def test_nobody_judges_but_analysts_and_who_was_given_that_right() -> None:
    """Also of boards that he has by a group, and where he may only look on."""
    lab = TWO.with_operator("pupil", OperatorRights(None, history=True))
    lab = lab.with_operator("teacher", OperatorRights(None, analyse=True))
    lab = lab.with_operator("helper", OperatorRights(("pi1",), read_only=True, analyse=True))
    lab = lab.with_operator("group", OperatorRights((), groups=("g",), analyse=True))
    assert judges(lab, Groups({"g": ("pi2",)})) == {
        ("teacher", "pi1"), ("teacher", "pi2"), ("helper", "pi1"), ("group", "pi2"),
    }  # fmt: skip
    lab = lab.with_analyst("check").with_board("pi3")
    assert {board for name, board in judges(lab) if name == "check"} == {"pi1", "pi2", "pi3"}
    assert ("teacher", "pi3") in judges(lab)
    assert lab.unsettled == ()


def test_in_a_lab_of_before_who_asks_a_board_judges_it_until_that_is_settled() -> None:
    lab = TWO.with_operator("pupil", OperatorRights(("pi1",), groups=("g",)))
    lab = lab.with_operator("looker", OperatorRights(None, read_only=True))
    lab = lab.with_operator("teacher", OperatorRights(None, analyse=True))
    fields = lab.as_json()
    del fields["analysts"]
    for name in ("pupil", "looker"):
        del fields["operators"][name]["analyse"]
    of_before = Accounts.of_json(fields)
    groups = Groups({"g": ("pi2",)})
    settled = {("teacher", "pi1"), ("teacher", "pi2")}
    assert judges(of_before, groups) == {("pupil", "pi1"), *settled}
    assert of_before.unsettled == ("pupil",)
    again = Accounts.of_json(json.loads(json.dumps(of_before.with_board("pi3").as_json())))
    assert again.unsettled == ("pupil",)  # a change of something else settles nothing
    changed = again.with_operator("pupil", OperatorRights(("pi1",)))
    assert changed.unsettled == ()
    assert {name for name, _ in judges(changed, groups)} == {"teacher"}


def test_who_judges_in_a_lab_of_before_is_said_with_the_line_that_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path)
    monkeypatch.setenv(labs.VARIABLE, str(folder.path))
    folder.add_board("pi1")
    folder.add_operator("pupil", OperatorRights(("pi1",), history=True))
    assert list(doctor._accounts()) == []
    fields = folder.accounts.as_json()
    del fields["operators"]["pupil"]["analyse"]
    (folder.path / "lab.json").write_text(json.dumps(fields))
    (found,) = doctor._accounts()
    line = "hwsync operator change pupil --boards pi1 --history"
    assert f"not any more: {line}; " in found.cure
    listed = here("operator", "list", HWSYNC_LAB=str(folder.path))
    assert listed.stdout == "pupil: pi1, everybody's history, judges, as in a lab of before\n"
    assert line in listed.stderr
    added = here("device", "add", "pi2", HWSYNC_LAB=str(folder.path))
    assert line in added.stderr
    done = here(*line.split()[1:], HWSYNC_LAB=str(folder.path))
    assert (done.exit_code, done.stderr) == (0, "")
    assert list(doctor._accounts()) == []
    assert ("pupil", "pi1") not in judges(folder.accounts)


def test_an_analyst_is_an_account_of_its_own(tmp_path: Path) -> None:
    lab = TWO.with_analyst("check").with_operator("alice", OperatorRights(None))
    with pytest.raises(UsageError, match="there is an analyst check already"):
        lab.with_board("check")
    for name in ("check", "pi1", "alice", COORDINATOR, "a b"):
        with pytest.raises(UsageError):
            lab.with_analyst(name)
    assert lab.without("check").analysts == ()
    assert "check" not in acl(lab.without("check"))
    folder = made(tmp_path)
    (folder.path / "analysts").mkdir(0o755)
    folder.add_analyst("check")
    assert (folder.path / "analysts").stat().st_mode & 0o777 == 0o700
    file = folder.path / "analysts/check.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert own(folder, "check")["broker"].endswith(f":{folder.accounts.operators_port}")
    assert own(folder, "check")["role"] == "analyst"
    assert "check:" in (folder.path / "broker/operators.passwords").read_text()
    before = own(folder, "check")["password"]
    folder.rotate("check")
    assert own(folder, "check")["password"] != before
    with pytest.raises(UsageError, match="check is an account"), folder.visitor("check"):
        pass
    folder.remove("check")
    assert not file.exists()
    assert "check" not in (folder.path / "broker/operators.passwords").read_text()


def test_a_certificate_of_an_analyst_counts_with_the_operators_only() -> None:
    lab = TWO.with_operator("alice", OperatorRights(None)).with_analyst("check")
    lab = replace(lab, certificates={COORDINATOR: "0a", "pi1": "0b", "alice": "0c", "check": "0d"})
    assert lab.refused("boards") == ("0c", "0d")
    assert lab.refused("operators") == ("0a", "0b")
    assert f"user {lab.identity('check')}\n" in acl(lab)
    assert lab.identity("check") != "check"


def test_nobody_but_the_coordinator_writes_on_a_topic_that_is_not_named() -> None:
    """The broker keeps one message on each topic: so there is an end to what one account fills."""
    lab = TWO.with_operator("a", OperatorRights(None, analyse=True)).with_operator(
        "b", OperatorRights(None, True)
    )
    lab = lab.with_analyst("z")
    _, _, others = acl(lab).partition("\nuser pi1\n")
    written = [line for line in others.splitlines() if " write " in line or "readwrite" in line]
    assert len(written) > 20
    assert [line for line in written if set(line) & set("+#")] == []


def test_whoever_was_given_all_boards_is_given_each_new_one(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.add_operator("alice", OperatorRights(None))
    rights = "topic write hw/pi1/request"
    assert rights not in (folder.path / "broker/acl").read_text()
    folder.add_board("pi1")
    _, _, own = (folder.path / "broker/acl").read_text().partition("\nuser alice\n")
    assert rights in own
    folder.remove("pi1")
    assert "pi1" not in (folder.path / "broker/acl").read_text()
    assert folder.accounts.operators["alice"].boards is None


@pytest.mark.parametrize("name", texts.LIMITS)
def test_the_brokers_limits_grow_with_the_boards_and_a_change_by_hand_stays(
    tmp_path: Path, name: str
) -> None:
    folder = made(tmp_path)
    conf = folder.path / "broker.conf"

    def limit() -> int:
        return int(re.findall(rf"(?m)^{name} (\d+)$", conf.read_text())[0])

    before, more = limit(), texts.LIMITS[name][1] * 2**20
    conf.write_text(conf.read_text() + "# by hand\n")
    folder.add_board("pi1")
    assert limit() == before + more
    folder.remove("pi1")
    assert limit() == before + more  # mosquitto frees nothing when it is told less
    conf.write_text(conf.read_text().replace(str(limit()), str(2**40)))
    folder.add_board("pi2")
    assert limit() == 2**40
    assert conf.read_text().endswith("# by hand\n")
    conf.write_text("listener 1883\n")  # of an earlier version, or one's own
    folder.add_board("pi3")
    assert conf.read_text() == "listener 1883\n"


def test_no_session_expires_since_mosquitto_crashes_of_it(tmp_path: Path) -> None:
    """2.0.11, after an account was removed: docs/decisions.md, 131."""
    conf = (made(tmp_path).path / "broker.conf").read_text()
    assert "max_queued_bytes" in conf
    assert "persistent_client_expiration" not in conf
    assert paho_client.SESSION_S == 0xFFFF_FFFF  # MQTT 5, section 3.1.2.11.2: it does not end


def test_the_largest_message_of_the_protocol_fits_the_brokers_packet() -> None:
    """With the longest topic, response topic and correlation data, and the packet's own bytes."""
    root = 40 * "r"
    topic = Topics(root).of(64 * "u", TopicKind.RESPONSE)
    properties = limits.MAX_REPLY_TOPIC + limits.MAX_CORRELATION + 100
    packet = 5 + 2 + len(topic) + 2 + properties + limits.MAX_MESSAGE
    assert packet <= texts.PACKET < limits.MAX_MESSAGE + 100 * limits.KIB


# -- an account's own file -------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "own.toml"
    file.touch(0o600)
    file.write_text(text)
    return file


@pytest.mark.parametrize(("host", "shown"), [("lab.local", "lab.local"), ("10.0.0.1", "10.0.0.1"),
                                             ("fd00::1", "[fd00::1]")])  # fmt: skip
def test_an_operators_file_is_a_connection(tmp_path: Path, host: str, shown: str) -> None:
    lab = replace(EMPTY, hosts=(host, "other"), root='hw/\U0001f600 \\ "x"', operators_port=4711)
    lab = lab.with_operator("alice", OperatorRights(None))
    text = texts.connection(lab, "alice", "p'\"\\w", PEM, Pair("C" + PEM, "K" + PEM))
    given = connection.load(written(tmp_path, text), {})
    url = connection.broker(given)
    assert str(url) == f"mqtts://{shown}:4711"
    assert (url.host, url.port) == (host, 4711)
    assert (url.username, url.password) == ("alice", "p'\"\\w")
    assert (url.tls.ca.strip(), url.tls.certificate.strip()) == (PEM.strip(), "C" + PEM.strip())
    assert url.tls.key.strip() == "K" + PEM.strip()
    assert Topics(given.get("root")).root == lab.root


def test_the_coordinators_file_has_its_signing_key_and_it_is_on_the_brokers_machine(
    tmp_path: Path,
) -> None:
    key = SigningKey.make()
    lab = replace(TWO, trust=(key.public,), boards_port=4711)
    text = texts.connection(lab, COORDINATOR, "secret", PEM, None, key.secret)
    given = connection.load(written(tmp_path, text), {})
    assert given.get("signing_key") == key.secret
    assert str(connection.broker(given)) == "mqtts://localhost:4711"
    assert (given.get("root"), given.get("account")) == (None, COORDINATOR)
    with pytest.raises(UsageError, match="there is no key signing_key"):
        device.load(written(tmp_path, text), {})


def test_a_boards_file_configures_a_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name, the broker, whom it trusts: nothing else is to be typed on the board."""
    folder = made(tmp_path, replace(EMPTY, hosts=("localhost",), boards_port=9), signing=True)
    [file] = folder.add_board("pi1").written
    config = device.load(file, {})
    assert config.get("user") == "pi1"
    assert tuple(config.get("trust")) == folder.accounts.trust
    assert str(connection.broker(config)) == "mqtts://localhost:9"
    monkeypatch.setattr(service.logs, "setup", lambda *_, **__: None)  # the tests have their own
    options = ["--check", "--json", "--allow-root", "--state-dir", str(tmp_path / "state")]
    assert service.main(["--config", str(file), *options]) == 1  # nobody listens on that port
    said = capsys.readouterr()
    found = [json.loads(line) for line in said.out.splitlines()]
    assert any("mqtts://localhost:9" in one["found"] for one in found), found
    assert {one["check"] for one in found if one["result"] == "error"} == {"broker"}
    assert str(config.get("password")) not in said.out + said.err


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path)
    [file] = folder.add_board("pi1").written
    file.chmod(0o644)
    with pytest.raises(UsageError, match="every account of this machine"):
        device.load(file, {})


# -- the folder ------------------------------------------------------------------------------------


def test_the_broker_takes_the_password_in_each_file_and_no_other(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.add_board("pi1")
    folder.add_operator("alice", OperatorRights(None))
    before = {name: own(folder, name)["password"] for name in (COORDINATOR, "pi1", "alice")}
    assert len(set(before.values())) == 3
    assert all(len(password) >= 32 for password in before.values())
    for name in before:
        [file] = folder.rotate(name).written
        assert file == folder.file_of(name, folder.accounts)
    boards = Passwords(folder.path / "broker/boards.passwords")
    operators = Passwords(folder.path / "broker/operators.passwords")
    for name, file in ((COORDINATOR, boards), ("pi1", boards), ("alice", operators)):
        assert file.accept(name, own(folder, name)["password"])
        assert not file.accept(name, before[name])
        other = boards if file is operators else operators
        assert not other.accept(name, own(folder, name)["password"])


def test_a_change_keeps_everybody_elses_password(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.add_board("pi1")
    folder.add_operator("alice", OperatorRights(("pi1",)))
    passwords = {name: own(folder, name)["password"] for name in (COORDINATOR, "pi1", "alice")}
    folder.add_board("pi2")
    folder.change_operator("alice", OperatorRights(None))
    folder.rotate("pi2")
    folder.remove("pi2")
    folder.renew(("new.local",), None)
    assert {name: own(folder, name)["password"] for name in passwords} == passwords
    boards = Passwords(folder.path / "broker/boards.passwords")
    assert boards.accept("pi1", passwords["pi1"])
    assert "pi2" not in (folder.path / "broker/acl").read_text()
    assert "pi2" not in (folder.path / "broker/boards.passwords").read_text()
    assert not (folder.path / "boards/pi2.toml").exists()


def test_renew_writes_the_new_host_into_every_file_and_names_those_that_are_not_here(
    tmp_path: Path,
) -> None:
    folder = made(tmp_path)
    folder.add_board("pi1")
    folder.add_board("pi2")
    (folder.path / "boards/pi2.toml").unlink()
    ca = (folder.path / "ca.crt").read_text()
    draft = folder.renew(("new.local", "10.0.0.9"), None)
    assert [file.name for file in draft.written] == [
        "pi1.toml"
    ]  # the coordinator is beside its broker
    assert draft.missing == ["pi2"]
    assert own(folder, "pi1")["broker"] == "mqtts://new.local:8883"
    assert folder.accounts.hosts == ("new.local", "10.0.0.9")
    assert (folder.path / "ca.crt").read_text() == ca
    assert folder.renew((), None).accounts.hosts == ("new.local", "10.0.0.9")


def test_what_is_no_lab_is_said_and_stays_untouched(tmp_path: Path) -> None:
    for change in (lambda f: f.add_board("a"), lambda f: f.remove("a"), lambda f: f.renew((), None),
                   lambda f: f.rotate("a"), lambda f: f.rotate_key()):  # fmt: skip
        with pytest.raises(UsageError, match="is no lab"):
            change(Folder(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []
    folder = made(tmp_path)
    before = (folder.path / "coordinator.toml").read_text()
    with pytest.raises(UsageError, match="is a lab already"):
        folder.create(EMPTY, None, signing=True)
    assert (folder.path / "coordinator.toml").read_text() == before


def test_whom_there_is_not_can_be_neither_changed_nor_rotated_nor_removed(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.add_operator("alice", OperatorRights(None))
    with pytest.raises(UsageError, match="there is an operator alice already"):
        folder.add_operator("alice", OperatorRights(None))
    with pytest.raises(UsageError, match="there is no operator bob"):
        folder.change_operator("bob", OperatorRights(None))
    for change in (folder.rotate, folder.remove):
        with pytest.raises(UsageError, match="there is no account bob"):
            change("bob")


# -- keys ------------------------------------------------------------------------------------------


def test_a_new_key_is_trusted_beside_the_old_one_until_that_is_revoked(tmp_path: Path) -> None:
    folder = made(tmp_path, signing=True)
    folder.add_board("pi1")
    [old] = folder.accounts.trust
    with pytest.raises(UsageError, match="with which the coordinator signs"):
        folder.revoke(old)
    draft = folder.rotate_key()
    assert {file.name for file in draft.written} == {"coordinator.toml", "pi1.toml"}
    new = SigningKey.of(own(folder, COORDINATOR)["signing_key"]).public
    assert new != old
    assert own(folder, "pi1")["trust"] == [old, new] == list(folder.accounts.trust)
    folder.revoke(old)
    assert own(folder, "pi1")["trust"] == [new]
    assert "signing_key" not in own(folder, "pi1")
    folder.rotate(COORDINATOR)
    assert SigningKey.of(own(folder, COORDINATOR)["signing_key"]).public == new
    with pytest.raises(UsageError, match="is not trusted here"):
        folder.revoke(old)


def test_a_foreign_key_is_trusted_and_revoked(tmp_path: Path) -> None:
    folder = made(tmp_path, signing=True)
    folder.add_board("pi1")
    foreign = SigningKey.make().public
    folder.trust(foreign)
    folder.trust(foreign)
    assert own(folder, "pi1")["trust"] == list(folder.accounts.trust)
    assert folder.accounts.trust.count(foreign) == 1
    folder.revoke(foreign)
    assert foreign not in own(folder, "pi1")["trust"]
    for text in ("", "ed25519:", "ed25519:abc", foreign[:-1], foreign + "\n"):
        with pytest.raises(UsageError, match="is no public key"):
            folder.trust(text)
    secret = SigningKey.make().secret
    with pytest.raises(UsageError, match="a secret key stands where a public one") as refused:
        folder.trust(secret)
    assert secret not in str(refused.value)


def test_the_last_trusted_key_stays_since_boards_would_run_anything_without(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.add_board("pi1")
    foreign = SigningKey.make().public
    folder.trust(foreign)
    with pytest.raises(UsageError, match="boards trust no other key") as caught:
        folder.revoke(foreign)
    assert caught.value.hint == "first: hwsync key rotate"
    folder.rotate_key()
    folder.revoke(foreign)
    [new] = own(folder, "pi1")["trust"]
    assert SigningKey.of(own(folder, COORDINATOR)["signing_key"]).public == new


def test_files_that_are_not_here_are_named_and_a_lost_coordinators_file_is_made_anew(
    tmp_path: Path,
) -> None:
    folder = made(tmp_path, signing=True)
    for name in ("pi1", "pi2"):
        folder.add_board(name)
    [old] = folder.accounts.trust
    (folder.path / "boards/pi2.toml").unlink()
    assert folder.rotate_key().missing == ["pi2"]
    (folder.path / "coordinator.toml").unlink()
    with pytest.raises(UsageError, match="its signing key with it") as caught:
        folder.rotate_key()
    assert caught.value.hint == "first: hwsync device rotate coordinator"
    assert len(folder.accounts.trust) == 2
    draft = folder.rotate(COORDINATOR)
    assert [file.name for file in draft.written] == ["coordinator.toml", "pi1.toml"]
    assert draft.missing == ["pi2"]
    new = SigningKey.of(own(folder, COORDINATOR)["signing_key"]).public
    assert own(folder, "pi1")["trust"] == list(folder.accounts.trust)
    assert folder.accounts.trust[0] == old
    assert folder.accounts.trust[2:] == (new,)
    boards = Passwords(folder.path / "broker/boards.passwords")
    assert boards.accept(COORDINATOR, own(folder, COORDINATOR)["password"])


def test_a_file_that_is_no_toml_is_said(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.add_board("pi1")
    (folder.path / "boards/pi1.toml").write_text("user = [")
    with pytest.raises(UsageError, match=r"pi1\.toml is no TOML"):
        folder.rotate_key()
    (folder.path / "boards/pi1.toml").write_text("user = 'pi1'")
    assert folder.rotate_key().missing == ["pi1"]


# -- what the folder of somebody else could do -----------------------------------------------------


@pytest.mark.parametrize("name", ["x\nuser y", "../up", "", "a b", "+"])
@pytest.mark.parametrize("kind", ["boards", "operators"])
def test_a_name_in_lab_json_is_one(kind: str, name: str, tmp_path: Path) -> None:
    folder = made(tmp_path)
    file = folder.path / "lab.json"
    fields = json.loads(file.read_text())
    rights = {"boards": "all", "read_only": False}
    fields[kind] = [name] if kind == "boards" else {name: rights}
    file.write_text(json.dumps(fields))
    with pytest.raises(UsageError, match="is no list of a lab's accounts"):
        _ = folder.accounts


def test_the_lab_of_somebody_else_is_not_taken_because_one_stands_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)
    where = next(path.parent for path in tmp_path.rglob("lab.json"))
    monkeypatch.chdir(where)
    monkeypatch.delenv("HWSYNC_LAB", raising=False)
    assert folder_of(None).path == where
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert folder_of(None).path == Path("/etc/hwsync")


def test_what_somebody_added_to_a_boards_file_stays(tmp_path: Path) -> None:
    folder = made(tmp_path, signing=True)
    folder.add_board("pi1")
    file = folder.path / "boards/pi1.toml"
    added = "max_timeout_s = 60\n[isolation]\nkind = 'bwrap'\n"
    file.write_text(file.read_text() + added)
    before = own(folder, "pi1")
    for change in (folder.rotate_key, lambda: folder.rotate("pi1")):
        change()
        now = own(folder, "pi1")
        assert (now["max_timeout_s"], now["isolation"]) == (60, {"kind": "bwrap"})
        assert file.read_text().count("max_timeout_s") == 1
    assert now["password"] != before["password"]
    assert len(now["trust"]) == 2


def test_a_signing_key_that_somebody_added_stays_his(tmp_path: Path) -> None:
    folder, key = made(tmp_path), SigningKey.make()
    folder.add_board("pi1")
    key.save(folder.path / "signing.key")
    file = folder.path / "coordinator.toml"
    file.write_text(file.read_text() + 'signing_key = "signing.key"\n')
    folder.trust(SigningKey.make().public)
    folder.trust(key.public)
    folder.rotate("coordinator")
    assert own(folder, "coordinator")["signing_key"] == "signing.key"
    with pytest.raises(UsageError, match="the key with which the coordinator signs"):
        folder.revoke(key.public)
    before = [path.read_bytes() for path in sorted(folder.path.rglob("*.toml"))]
    with pytest.raises(UsageError, match=r"coordinator\.toml: signing_key was added at its end"):
        folder.rotate_key()
    assert [path.read_bytes() for path in sorted(folder.path.rglob("*.toml"))] == before


class Reading:
    """A broker that reads its files for 10 ms, and forgets a signal that comes meanwhile."""

    def __init__(self) -> None:
        self.written, self.knows = "", ""
        self._now = self._reads_until = 0.0

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def reload(self) -> tuple[list[int], list[int]]:
        if self._now >= self._reads_until:
            self._reads_until = self._now + 0.01
            self.knows = self.written
        return [1], []


def test_a_broker_that_is_told_while_it_reads_knows_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Reading()
    monkeypatch.setattr(time, "sleep", broker.sleep)
    broker.reload()  # another command
    broker.sleep(0.001)
    broker.written = "pi2 may come in"
    assert labs.reload(Settings(as_json=True), cast(Folder, broker))
    assert broker.knows == "pi2 may come in"


def test_what_somebody_added_and_hwsync_is_to_write_changes_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.add_board("pi0")
    folder.add_board("pi1")
    file = folder.path / "boards/pi1.toml"
    file.write_text(file.read_text() + f'trust = ["{SigningKey.make().public}"]\n')
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"pi1\.toml: trust was added at its end"):
        folder.trust(SigningKey.make().public)
    file.write_text(file.read_text() + "max_timeout_s =\n")
    before[file] = file.read_bytes()
    with pytest.raises(UsageError, match=r"pi1\.toml: what was added at its end is no TOML"):
        folder.trust(SigningKey.make().public)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("kind", "whose"), [("device", "board"), ("operator", "account"), ("analyst", "account")]
)
def test_a_name_that_is_none_is_called_what_it_would_be(kind: str, whose: str) -> None:
    told = here(kind, "add", "Zo\u00eb")
    assert told.exit_code == 2
    assert f"'Zo\u00eb' is no {whose}'s name" in told.stderr
