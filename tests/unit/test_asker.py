"""Who asked: what is written down of it, how that is known, and what never changes it."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwsync.address import BrokerUrl
from hwsync.cli.app import cli
from hwsync.cli.common import Settings
from hwsync.cli.metas import read_meta
from hwsync.cli.request import make_request
from hwsync.lab import accounts
from hwsync.operator.conversation import Standing
from hwsync.operator.run import RunRequest, claim
from hwsync.protocol import admission, limits, reply_topics
from hwsync.protocol.errors import Code, Refused, UsageError
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Asker, KnownBy, Reply, Request
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.schema import read_object
from hwsync.store.pruning import Pruning
from hwsync.store.reader import Reader
from tests.support.coordinator import COLLECTED, Deed, Lab, request, result, sent

FIELDS = ("asked_by", "asked_known_by", "program_sha256")
PROGRAM = "print(6*7)"
SHA256 = hashlib.sha256(PROGRAM.encode()).hexdigest()
ALICE = {"by": "alice"}


def ask(lab: Lab, payload: bytes, topic: str = "", **options: Any) -> list[Deed]:
    delivery = lab.delivery("request", payload, **options)
    return lab.step(replace(delivery, reply_topic=topic))


def asked(lab: Lab, id: str = "c1") -> tuple[str | None, ...]:
    with Reader(lab.path) as reader:
        shown = reader.show("pi1", id)
    return tuple(shown[name] for name in FIELDS)


def printed(lab: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    cli.main([*words, "--db", str(lab.path)], obj=Settings(), standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("replies/alice", "alice"),
        ("replies/alice/", "alice"),
        ("replies/alice/1/2", "alice"),
        ("replies/a.b-c_9/x", "a.b-c_9"),
        ("replies/", None),
        ("replies", None),
        ("replies//alice", None),
        ("replies/-alice/x", None),
        ("replies/al ice/x", None),
        ("replies/" + "a" * 65, None),
        ("Replies/alice/x", None),
        ("/replies/alice", None),
        ("other/alice/x", None),
    ],
)
def test_a_reply_topic_of_an_account_names_who_gets_the_answer(
    topic: str, name: str | None
) -> None:
    found = admission.asker_of(Request(""), Reply(topic))
    assert found == (None if name is None else Asker(name, KnownBy.REPLY_TOPIC))


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"by": "alice"}, "alice"),
        ({"by": "é\n" + "x" * (limits.MAX_CLAIM - 3)}, "é\n" + "x" * (limits.MAX_CLAIM - 3)),
        ({"by": "é\n" + "x" * (limits.MAX_CLAIM - 2)}, None),
        ({"by": ""}, None),
        ({"by": 7}, None),
        ({"by": ["alice"]}, None),
        ({"who": "alice"}, None),
        ({}, None),
        (["by"], None),
        ("by", None),
        (None, None),
    ],
)
def test_else_the_claim_counts_where_it_is_one(meta: object, name: str | None) -> None:
    found = admission.asker_of(Request("", meta=dumps(meta)), Reply("elsewhere/bob"))
    assert found == (None if name is None else Asker(name, KnownBy.CLAIM))
    both = admission.asker_of(Request("", meta=dumps(meta)), Reply("replies/bob/x"))
    assert both == Asker("bob", KnownBy.REPLY_TOPIC)


def test_the_topic_is_the_one_that_a_labs_accounts_read() -> None:
    lab = accounts.Accounts(("h",), operators={"bob": accounts.OperatorRights(None)})
    assert f"topic read {reply_topics.REPLIES}/bob/#" in accounts.acl(lab).splitlines()


@pytest.mark.parametrize(
    ("topic", "expected"),
    [("replies/bob/1", ("bob", "reply topic")), ("", ("alice", "claim"))],
)
def test_it_is_kept_through_every_state_and_restart(
    lab: Lab, topic: str, expected: tuple[str, str]
) -> None:
    ask(lab, request(meta=ALICE), topic)
    steps = [("collected", COLLECTED), ("response", result()), ("analysis", b"fine"),
             ("request", request("c2"))]  # fmt: skip
    for kind, payload in steps:
        assert asked(lab) == (*expected, SHA256)
        lab.restart()
        lab.hear(kind, payload)
    assert asked(lab) == (*expected, SHA256)
    assert asked(lab, "c2") == (None, None, SHA256)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("first", [{}, ALICE])
def test_a_repeat_with_another_claim_changes_nothing(
    lab: Lab, first: dict[str, str], ended: bool
) -> None:
    ask(lab, request(meta=first))
    if ended:
        lab.hear("cancel", b'{"id":"c1"}')
    before = asked(lab)
    ask(lab, request(meta={"by": "bob"}))
    ask(lab, request(meta={"by": "bob"}), "replies/bob/x")
    assert asked(lab) == before == (first.get("by"), "claim" if first else None, SHA256)


def test_what_waits_in_the_queue_keeps_who_asked_for_it(lab: Lab) -> None:
    lab.device(2)
    ask(lab, request("c2", "print(2)", queue=True, meta=ALICE))
    ask(lab, request("c2", "print(2)", queue=True, meta={"by": "bob"}))
    ask(lab, request("c3", queue=True))
    hers = ("alice", "claim", hashlib.sha256(b"print(2)").hexdigest())
    assert (asked(lab, "c2"), asked(lab, "c3")) == (hers, (None, None, SHA256))
    lab.restart()
    lab.hear("response", result())
    lab.hear("analysis", b'{"id":"c1","analysis":"fine"}')
    assert lab.record.id == "c2"
    assert asked(lab, "c2") == hers
    with Reader(lab.path) as reader:
        notes = [row["note"] for row in reader.history("pi1") if "queued at" in row["note"]]
    assert notes == ["queued at place 1; who asked (claim): alice", "queued at place 2"]


def test_a_late_result_leaves_it_and_an_orphan_has_nobody(lab: Lab) -> None:
    ask(lab, request(meta=ALICE))
    for kind, payload in [("collected", COLLECTED), ("reset", b""), ("response", result())]:
        lab.hear(kind, payload)
    assert asked(lab) == ("alice", "claim", SHA256)
    lab.hear("response", result("c9"))
    ask(lab, request("c9", meta=ALICE))
    assert asked(lab, "c9") == (None, None, None)


def test_a_plain_program_has_the_hash_of_its_text(lab: Lab) -> None:
    ask(lab, b"print(1)", "replies/bob")
    assert asked(lab, lab.record.id) == (
        *("bob", "reply topic"), hashlib.sha256(b"print(1)").hexdigest()
    )  # fmt: skip


def test_it_stays_when_the_program_goes(lab: Lab) -> None:
    ask(lab, request(meta=ALICE))
    lab.hear("cancel", b'{"id":"c1"}')
    lab.hear("request", request("c2"))
    Pruning(lab.store.database).prune(None, 10)
    command = lab.store.command("pi1", "c1")
    assert command is not None
    assert command.pruned
    assert asked(lab) == ("alice", "claim", SHA256)


def test_no_status_no_result_and_no_envelope_has_it(lab: Lab) -> None:
    deeds = ask(lab, request(meta=ALICE)) + lab.hear("query", b'{"id":"c1"}')
    told = [one.json for kind in ("status", "command", "result/c1") for one in sent(deeds, kind)]
    assert len(told) >= 4
    assert not [name for fields in told for name in FIELDS if name in fields]


def test_history_and_show_print_it_and_escape_it(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(lab, request(meta={"by": "al\x1b[2Jice\nroot"}))
    lab.hear("cancel", b'{"id":"c1"}')
    ask(lab, request("c2"), "replies/bob/x")
    lab.hear("cancel", b"x")
    lines = printed(lab, capsys, "history", "pi1", "--log").splitlines()
    assert len(lines) == 4
    assert "who asked (claim): al\\x1b[2Jice\\nroot" in lines[0]
    assert "who asked" not in lines[1] + lines[3]
    assert "who asked (reply topic): bob" in lines[2]
    shown = printed(lab, capsys, "show", "pi1", "c1").splitlines()
    assert f"{'asked_by':16} al\\x1b[2Jice\\nroot" in shown
    assert f"{'asked_known_by':16} claim" in shown
    assert f"{'program_sha256':16} {SHA256}" in shown


def test_the_json_of_history_has_it_in_each_line_of_a_command(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(lab, request(meta=ALICE))
    lab.hear("cancel", b'{"id":"c1"}')
    lab.hear("reset")
    lab.hear("cancel")
    lines = printed(lab, capsys, "history", "pi1", "--log", "--json").splitlines()
    rows = [read_object(line.encode()) or {} for line in lines]
    hers = ("alice", "claim", SHA256)
    assert [tuple(row.get(name) for name in FIELDS) for row in rows[:3]] == [hers] * 3
    assert [row.get("error") for row in rows] == [None, None, None, "wrong_state"]
    assert not set(FIELDS) & rows[3].keys()


# What our own commands claim


def made(by: str = "me@desk", **given: Any) -> dict[str, Any]:
    names = ("file", "name", "id", "timeout", "expires", "grace", "stdin", "meta")
    given["meta"] = () if given.get("meta") is None else (given["meta"],)
    given = {**dict.fromkeys(names), "code": "1", "args": (), "more": (), "queue": False, **given}
    fields = read_object(make_request("manual", by, **given).request.payload)
    assert fields is not None
    return fields


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (None, {"by": "me@desk"}),
        ('{"k":1}', {"k": 1, "by": "me@desk"}),
        ('{"by":"bob"}', {"by": "bob"}),
        ('{"by":null}', {"by": None}),
        ("[1]", [1]),
        ("null", None),
        ("course=1b", {"course": "1b", "by": "me@desk"}),
        ("by=bob", {"by": "bob"}),
        ("k=a=b {", {"k": "a=b {", "by": "me@desk"}),
        ("k=", {"k": "", "by": "me@desk"}),
    ],
)
def test_a_request_of_ours_claims_unless_it_was_said_otherwise(meta: str, expected: object) -> None:
    assert made(meta=meta)["meta"] == expected


def test_meta_may_be_several_pairs_and_json_stands_alone() -> None:
    assert read_meta(("course=1b", "team=3", "team=4")) == {"course": "1b", "team": "4"}
    for wrong in (("a=1", "{}"), ("{}", "{}"), ("a=1", "b")):
        with pytest.raises(UsageError, match="KEY=VALUE, as often as you like, or JSON once"):
            read_meta(wrong)


def test_an_account_is_known_by_its_reply_topic_and_nobody_else_is() -> None:
    assert RunRequest(program="1", by="anna").payload.endswith(b'"reply":"replies/anna/hwsync"}')
    assert b"reply" not in RunRequest(program="1", by="anna@desk").payload


def test_a_claim_never_makes_a_request_too_large(tmp_path: Path) -> None:
    file = tmp_path / "stdin"
    room = limits.MAX_EXTRAS - len('{"by":"me@desk"}') - len("é".encode())
    for spare, claims in ((0, True), (1, False)):
        file.write_text("x" * (room + spare))
        assert ("meta" in made(stdin=str(file), more=("é",))) is claims


def test_half_a_character_is_said_to_be_none() -> None:
    with pytest.raises(UsageError, match="--meta is no JSON: it contains half a surrogate"):
        made(meta='{"k":"\\ud800"}')


@pytest.mark.parametrize("command", ["run", "send"])
def test_both_commands_that_ask_claim_the_account_of_their_connection(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []

    class Nobody:
        user = "pi1"

        def __init__(self, *_: object, **__: object) -> None:
            self.standing = Standing()

        def __enter__(self) -> Nobody:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def telling(self, _: TopicKind, request: bytes, *__: object, **___: object) -> None:
            told.append(request)
            raise Refused(Code.QUEUE_FULL, "no")

        def wait(self, _: object) -> None:
            raise AssertionError("it was refused")

    monkeypatch.setattr("hwsync.cli.run.Client", Nobody)
    monkeypatch.setenv("HWSYNC_BROKER", "mqtt://carol:secret@127.0.0.1")
    with pytest.raises((Refused, SystemExit)):
        cli.main(
            [command, "pi1", "--wait-for-board", "-c", "1"], obj=Settings(), standalone_mode=False
        )
    (request,) = told
    assert (read_object(request) or {})["meta"] == {"by": "carol"}
    assert b"secret" not in request


def test_the_account_is_claimed_else_login_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    url = BrokerUrl("mqtt", "broker.lab", 1883)
    assert claim(url.with_credentials("alice", "secret")) == "alice"
    monkeypatch.setattr(socket, "gethostname", lambda: "desk")
    monkeypatch.setattr(getpass, "getuser", lambda: "me\udc80")
    assert claim(url) == "me?@desk"
    assert len(claim(url.with_credentials("é" * 200, None)).encode()) == limits.MAX_CLAIM

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert claim(url) == f"{os.getuid()}@desk"
