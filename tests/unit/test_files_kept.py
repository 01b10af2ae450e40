"""Files at the coordinator: kept by their content, once; sent, answered, compared and dropped."""

from __future__ import annotations

import os
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol import limits, machine
from hwsync.protocol.errors import DatabaseError, StoreError
from hwsync.protocol.events import Requested
from hwsync.protocol.files import File
from hwsync.protocol.groups import Groups
from hwsync.protocol.record import Moment, Record, State, replace
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.asking import encode_query
from hwsync.protocol.wire.envelope import read_envelope, read_seal
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.protocol.wire.request import read_request
from hwsync.store.backups import back_up
from hwsync.store.checking import check
from hwsync.store.pruning import Pruning
from hwsync.store.restoring import restore
from tests.support.coordinator import Deed, Lab, request, result, sent

CSV = File.of("data/a.csv", b"1,2\n" * 500)
PNG = File.of("plot.png", b"\x89PNG" + bytes(3000))
SENT = {CSV.path: b64encode(CSV.data or b"").decode()}
GROUP = tuple(f"pi{number}" for number in range(1, 31))


def returned(*files: File) -> dict[str, Any]:
    return {
        one.path: {
            "size": one.size,
            "sha256": one.sha256,
            "data": b64encode(one.data or b"").decode(),
        }
        for one in files
    }


def can(lab: Lab, *what: str, user: str = "pi1") -> list[Deed]:
    beat = encode_heartbeat(online=True, journal="j1", boot=1, can=list(what))
    return lab.hear("heartbeat", beat, user=user)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    rules = Rules(groups=Groups({"lab": GROUP}))
    with Lab(tmp_path / "hwsync.db", rules=rules) as lab:
        yield lab


def answered(lab: Lab, id: str = "c1", user: str = "pi1", **keys: Any) -> list[Deed]:
    """Collected, and answered with a picture."""
    lab.hear("collected", b'{"id":"%s","journal":"j1","boot":1}' % id.encode(), user=user)
    said = {"files": returned(PNG), "not_kept": [{"path": "x", "size": 1, "reason": "a link"}]}
    return lab.hear("response", result(id, **(said | keys)), user=user)


def contents(lab: Lab) -> set[str]:
    return {sha256 for (sha256,) in lab.rows("contents", "sha256")}


def ask(lab: Lab, *paths: str, id: str = "c1") -> list[Deed]:
    return lab.hear("query", encode_query(id, paths))


def error(deeds: list[Deed]) -> str:
    return "".join(one.json["error"] for one in sent(deeds, "error"))


def test_a_board_brings_back_nothing_that_was_not_asked_for(lab: Lab) -> None:
    """``hwsync get`` writes what came back: a board that lies must not choose names there."""
    lab.hear("request", request(collect=["*.png"]))
    evil = File.of(".ssh/authorized_keys", b"mine" * 100)
    (status,) = sent(answered(lab, files=returned(PNG, evil), not_kept=[]), "status")[:1]
    assert list(status.json["files"]) == [PNG.path]
    said = {"path": evil.path, "size": evil.size, "reason": "not asked for"}
    assert status.json["not_kept"] == [said]
    assert contents(lab) == {PNG.sha256}


# -- a request -------------------------------------------------------------------------------------


def test_the_envelope_has_the_files_also_after_a_restart(lab: Lab) -> None:
    deeds = lab.hear("request", request(files=SENT, collect=["*.png"]))
    for told in (deeds, lab.restart(), can(lab, "files")):
        (one,) = sent(told, "command")
        envelope = read_envelope(one.payload)
        assert envelope is not None
        assert (envelope.files, envelope.collect) == ((CSV,), ("*.png",))
        assert envelope.files[0].data == CSV.data
    assert lab.rows("transitions", "payload") == [(b"",)]  # the hash alone: bytes are kept once


def test_a_small_request_with_files_is_in_the_log_too(lab: Lab) -> None:
    lab.hear("request", request(files={"a": "MQ=="}))
    (row,) = lab.rows("transitions", "payload, note")
    assert row[0] == request(files={"a": "MQ=="})
    assert row[1].startswith("files ")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, ""),
        ({"files": {"data/a.csv": "MQ=="}}, "id_reused"),
        ({"files": {"b.csv": SENT["data/a.csv"]}}, "id_reused"),
        ({"files": {}}, "id_reused"),
        ({"collect": []}, "id_reused"),
        ({"collect": ["*.png", "*"]}, "id_reused"),
    ],
    ids=str,
)
def test_what_must_be_equal_in_a_repeat(lab: Lab, changes: dict[str, Any], code: str) -> None:
    keys = {"files": SENT, "collect": ["*.png"]}
    lab.hear("request", request(**keys))
    for _ in range(2):
        assert error(lab.hear("request", request(**(keys | changes)))) == code
        lab.restart()


def test_without_files_a_digest_is_what_it_was(lab: Lab) -> None:
    lab.hear("request", request())
    assert lab.rows("commands", "digest") == [
        ("f9726c03abd3f424c3c42d2893289b0d63f8e65c330388a6eb20fab9390f937c",)
    ]


@pytest.mark.parametrize("keys", [{"files": SENT}, {"collect": ["*"]}])
def test_a_board_that_is_online_and_cannot_is_refused(lab: Lab, keys: dict[str, Any]) -> None:
    can(lab, "start")
    deeds = lab.hear("request", request(**keys))
    assert error(deeds) == "not_allowed"
    assert f"'{next(iter(keys))}'" in sent(deeds, "error")[0].json["hint"]
    assert contents(lab) == set()
    can(lab, "start", "files")
    assert error(lab.hear("request", request(**keys))) == ""


def test_a_refused_request_keeps_nothing(lab: Lab) -> None:
    lab.hear("request", request("c0"))
    assert error(lab.hear("request", request(files=SENT))) == "busy"
    assert contents(lab) == set()
    assert error(lab.hear("request", request(files=SENT, queue=True))) == ""
    assert contents(lab) == {CSV.sha256}


def test_what_waits_in_the_queue_weighs_with_its_files(lab: Lab) -> None:
    lab.hear("request", request("c0"))
    large = {f"f{number}": b64encode(bytes([number]) * 262_000).decode() for number in range(4)}
    codes = [
        error(lab.hear("request", request(f"q{number}", files=large, queue=True)))
        for number in range(9)
    ]
    assert codes == [""] * 8 + ["queue_full"]
    assert len(contents(lab)) == 4
    before = lab.record.queue_bytes
    lab.restart()
    assert lab.record.queue_bytes == before


def test_a_reset_of_large_requests_counts_against_the_allowance(lab: Lab) -> None:
    large = {"a": b64encode(os.urandom(1_000_000)).decode()}
    codes = []
    for number in range(7):
        codes.append(error(lab.hear("request", request(f"c{number}", files=large))))
        lab.hear("reset")
    assert codes[:4] == [""] * 4
    assert codes[-1] == "not_allowed"


class Signer:
    """Says of a text how many characters it has."""

    public = "ed25519:key"

    def sign(self, text: str) -> str:
        return str(len(text))


def test_a_signature_covers_the_files(lab: Lab) -> None:
    lab.coordinator.sign_with(Signer())
    deeds = lab.hear("request", request(files=SENT, collect=["*"]))
    (one,) = sent(deeds, "command")
    seal = read_seal(one.payload)
    assert seal is not None
    assert SENT[CSV.path] in seal.text
    assert seal.signature == str(len(seal.text))
    assert one.json["v"] == 2
    assert not {"files", "collect"} & one.json.keys()
    envelope = read_envelope(one.payload)
    assert envelope is not None
    assert (envelope.files, envelope.collect) == ((CSV,), ("*",))


def test_a_request_is_refused_whose_files_the_broker_does_not_take() -> None:
    rules = Rules(max_message=131_072)
    large = {"a": b64encode(bytes(100_000)).decode()}
    event = read_request(request(files=large))
    assert isinstance(event, Requested)
    decided = machine.decide(Record("pi1"), event, Moment(1.0, 1.0), None, rules)
    assert decided.refused is not None
    assert decided.refused.code == "too_large"
    event = replace(event, request=replace(event.request, files=()))
    assert machine.decide(Record("pi1"), event, Moment(1.0, 1.0), None, rules).refused is None


# -- once ------------------------------------------------------------------------------------------


def used(lab: Lab) -> int:
    return Pruning(lab.store.database).used()


def test_thirty_boards_with_the_same_file_cost_the_database_one(lab: Lab) -> None:
    mib = {"a.bin": b64encode(os.urandom(limits.MAX_FILES_BYTES)).decode()}
    program = "#" * 200_000
    before = used(lab)
    for user in GROUP:  # each by itself
        lab.hear("request", request("c1", program, files=mib), user=user)
    assert used(lab) - before < 1.5 * limits.MAX_FILES_BYTES
    assert len(contents(lab)) == 2
    for user in GROUP:
        lab.hear("reset", user=user)
    middle = used(lab)
    assert error(lab.hear("request", request("b1", program, files=mib), user="@lab")) == ""
    assert used(lab) - middle < 300_000
    assert [state for (state,) in lab.rows("hw_status", "state")] == [1] * 30


def test_every_member_of_a_batch_is_sent_the_files(lab: Lab) -> None:
    deeds = lab.hear("request", request("b1", files=SENT, collect=["*"]), user="@lab")
    envelopes = [read_envelope(one.payload) for one in sent(deeds, "command")]
    assert [one.files for one in envelopes if one] == [(CSV,)] * 30
    assert lab.rows("content_uses", "owner, sha256") == [("@lab b1", CSV.sha256)]


# -- a result --------------------------------------------------------------------------------------


def test_status_and_result_have_names_and_hashes(lab: Lab) -> None:
    lab.hear("request", request(collect=["*.png"]))
    answered(lab)
    for _ in range(2):
        deeds = lab.hear("query", b'{"id":"c1"}')
        for topic in ("status", "result/c1"):
            (said,) = sent(deeds, topic)
            assert said.json["files"] == {"plot.png": {"size": PNG.size, "sha256": PNG.sha256}}
            assert said.json["not_kept"] == [{"path": "x", "size": 1, "reason": "a link"}]
        lab.restart()
    assert contents(lab) == {PNG.sha256}


def test_a_query_with_names_is_answered_with_bytes_once_a_second(lab: Lab) -> None:
    lab.hear("request", request(collect=["*"]))
    other = File.of("b", b"b")
    answered(lab, files=returned(PNG, other))
    (said,) = sent(ask(lab, "plot.png", "nothing"), "result/c1")
    assert said.json["files"]["plot.png"]["data"] == b64encode(PNG.data or b"").decode()
    assert "data" not in said.json["files"]["b"]
    refused = ask(lab, "b")
    assert error(refused) == "not_allowed"
    assert "1 s" in sent(refused, "error")[0].json["hint"]
    assert error(ask(lab, "b", id="never")) == "not_allowed"
    lab.later(1.0)
    (said,) = sent(ask(lab, "b"), "result/c1")
    assert said.json["files"]["b"]["data"] == "Yg=="
    (plain,) = sent(lab.hear("query", b'{"id":"c1"}'), "result/c1")
    assert "data" not in plain.json["files"]["b"]


def test_two_queries_of_one_round_have_one_answer_with_bytes(lab: Lab) -> None:
    lab.hear("request", request(collect=["*"]))
    answered(lab)
    one = lab.delivery("query", encode_query("c1", ["plot.png"]))
    assert error(lab.step(one, lab.delivery("query", encode_query("c1", ["b"])))) == "not_allowed"


def test_many_queries_of_one_round_have_files_up_to_a_limit(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer waits in memory until the broker has it."""
    monkeypatch.setattr(limits, "FILES_ROUND", 2 * PNG.size)
    for user in GROUP[:4]:
        lab.hear("request", request(collect=["*"]), user=user)
        answered(lab, user=user)
    asked = encode_query("c1", ["plot.png"])
    deeds = lab.step(*(lab.delivery("query", asked, user=user) for user in GROUP[:4]))
    said = {one.topic: "data" in one.json["files"][PNG.path] for one in sent(deeds, "result/c1")}
    assert said == {"hw/pi1/result/c1": True, "hw/pi2/result/c1": True}
    refused = sent(deeds, "error")
    assert [one.topic for one in refused] == ["hw/pi3/error", "hw/pi4/error"]
    assert [one.json["error"] for one in refused] == ["not_allowed"] * 2
    deeds = lab.step(*(lab.delivery("query", asked, user=user) for user in GROUP[2:4]))
    assert len(sent(deeds, "result/c1")) == 2


def test_a_group_has_no_files_to_ask_for(lab: Lab) -> None:
    lab.hear("request", request("b1", collect=["*"]), user="@lab")
    deeds = lab.hear("query", encode_query("b1", ["a"]), user="@lab")
    assert error(deeds) == "bad_payload"


def test_a_late_result_and_an_orphan_keep_their_files(lab: Lab) -> None:
    lab.hear("request", request(collect=["*"]))
    lab.hear("collected", b'{"id":"c1","journal":"j1","boot":1}')
    lab.hear("reset")
    lab.hear("response", result("c1", files=returned(PNG)))
    lab.hear("response", result("o1", files=returned(CSV)))
    assert contents(lab) == {PNG.sha256, CSV.sha256}
    assert list(check(lab.path)) == []
    (said,) = sent(ask(lab, CSV.path, id="o1"), "result/o1")
    assert "data" in said.json["files"][CSV.path]


def test_a_result_that_is_told_again_keeps_nothing_new(lab: Lab) -> None:
    lab.hear("request", request(collect=["*"]))
    answered(lab)
    lab.hear("response", result("c1", journal="j2", files=returned(CSV)))
    lab.hear("response", result("c1", files=returned(CSV)))
    assert contents(lab) == {PNG.sha256}
    assert list(check(lab.path)) == []


# -- the database ----------------------------------------------------------------------------------


def test_what_cannot_be_saved_is_not_half_there(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    save = lab.store.save

    def fails(*_: object) -> None:
        raise StoreError("the disk is full", "")

    monkeypatch.setattr(lab.store, "save", fails)
    assert sent(lab.hear("request", request(files=SENT)), "command") == []
    assert lab.rows("contents") == lab.rows("commands") == []
    monkeypatch.setattr(lab.store, "save", save)
    assert sent(lab.later(2.0), "command")
    assert contents(lab) == {CSV.sha256}


def test_files_that_cannot_be_read_are_not_sent_as_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.coordinator.publishing, "_contents", lambda hashes: {})
    deeds = lab.hear("request", request(files=SENT))
    assert sent(deeds, "command") == []
    assert sent(deeds, "status")[0].json["state"] == 1


def ended(lab: Lab, id: str = "c1", **keys: Any) -> None:
    lab.hear("request", request(id, analysis="outcome", **keys))
    answered(lab, id)
    lab.step()


def test_retention_drops_bytes_that_nobody_has_and_keeps_names(lab: Lab) -> None:
    ended(lab, "c1", program="#" * 5000, files=SENT, collect=["*"], meta={"x": "y" * 2000})
    lab.hear("request", request("c2", "#" * 5000, files=SENT, collect=["*"]))
    assert Pruning(lab.store.database).prune(None, 10) == 1
    assert PNG.sha256 not in contents(lab)
    assert CSV.sha256 in contents(lab)  # c2 has it
    answered(lab, "c2", files={})
    lab.hear("reset")
    lab.hear("request", request("c3"))
    assert Pruning(lab.store.database).prune(None, 10) == 1
    assert len(contents(lab)) == 1  # what was said of it (``meta``) stays
    command = lab.store.command("pi1", "c1")
    assert command is not None
    assert command.report is not None
    assert (command.request.files, command.report.files) == ((CSV,), (PNG,))
    assert (command.request.program, len(command.request.meta)) == ("", 2008)
    (said,) = sent(ask(lab, "plot.png"), "result/c1")
    assert "data" not in said.json["files"]["plot.png"]
    assert said.json["pruned"]
    assert list(check(lab.path)) == []


def test_what_comes_of_a_pruned_command_brings_no_bytes_back(lab: Lab) -> None:
    ended(lab, program="#" * 5000, files=SENT, collect=["*"])
    lab.hear("request", request("c2"))
    Pruning(lab.store.database).prune(None, 10)
    lab.hear("analysis", b'{"id":"c1","analysis":"late"}')
    lab.hear("collected", b'{"id":"c1","journal":"j2","boot":1}')
    lab.hear("response", result("c1", journal="j2", files=returned(PNG)))
    assert contents(lab) == set()
    assert list(check(lab.path)) == []


def test_a_long_answer_with_files_is_in_the_log_by_its_hash(lab: Lab) -> None:
    lab.hear("request", request(collect=["*"]))
    answered(lab, response="x" * 10_000)
    kept = dict(lab.rows("transitions", "command, length(payload)"))
    assert kept["hw_response_provide"] == 0
    lab.hear("reset")
    lab.hear("request", request("c2", collect=["*"]))
    answered(lab, "c2", response="x" * 10_000, files={})
    rows = lab.rows("transitions", "command, length(payload)")
    assert max(size for command, size in rows if command == "hw_response_provide") > 10_000


def test_what_a_batch_brought_goes_with_its_last_member(lab: Lab) -> None:
    lab.hear("request", request("b1", files=SENT), user="@lab")
    for user in GROUP:
        lab.hear("reset", user=user)
        lab.hear("request", request("c1"), user=user)
    Pruning(lab.store.database).prune(None, 29)
    assert contents(lab) == {CSV.sha256}
    Pruning(lab.store.database).prune(None, 29)
    assert contents(lab) == set()
    assert list(check(lab.path)) == []


def test_many_long_names_stay_too(lab: Lab) -> None:
    many = {f"{'n' * 200}{number}": "MQ==" for number in range(64)}
    ended(lab, files=many)
    lab.hear("request", request("c2"))
    Pruning(lab.store.database).prune(None, 10)
    command = lab.store.command("pi1", "c1")
    assert command is not None
    assert {one.path for one in command.request.files} == set(many)
    assert list(check(lab.path)) == []
    lab.restart()
    assert list(check(lab.path)) == []


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (
            "UPDATE contents SET data = x'00' WHERE sha256 LIKE '{csv}'",
            "contents: {csv} was",
        ),
        ("DELETE FROM contents WHERE sha256 = '{png}'", "contents: {png} of pi1/c1 is lost"),
        ("UPDATE commands SET returned = '[]'", "c1 of pi1: its returned were changed"),
        ("UPDATE commands SET files = '[]'", "c1 of pi1: its files were changed"),
        ("UPDATE commands SET files = replace(files, 'a.csv', 'b.csv')", "its files were changed"),
        ("UPDATE commands SET files = '[]', pruned = 1", "its files were changed"),
        ("UPDATE commands SET collect = '[]'", "start or files were changed"),
        ("DELETE FROM contents WHERE sha256 = program_sha", "its program"),
    ],
)
def test_what_was_changed_is_found(lab: Lab, sql: str, found: str) -> None:
    ended(lab, program="#" * 5000, files=SENT, collect=["*"])
    lab.stop()
    names = {"csv": CSV.sha256, "png": PNG.sha256}
    program = "(SELECT program_sha256 FROM commands)"
    with closing(sqlite3.connect(lab.path)) as connection, connection:
        connection.execute(sql.format(**names).replace("program_sha", program))
    said = list(check(lab.path))
    assert any(found.format(**names) in one for one in said), said
    lab.start()


def test_a_backup_has_the_files(lab: Lab, tmp_path: Path) -> None:
    ended(lab, files=SENT, collect=["*"])
    backup = tmp_path / "backup.db"
    back_up(lab.path, backup)
    lab.stop()
    lab.path.unlink()
    restore(backup, lab.path)
    lab.start()
    lab.connect()
    (said,) = sent(ask(lab, "plot.png"), "result/c1")
    assert "data" in said.json["files"]["plot.png"]
    assert lab.record.state is State.REST


def test_an_open_command_whose_program_is_lost_is_never_sent(lab: Lab) -> None:
    lab.hear("request", request("c1", "#" * 5000))
    with closing(sqlite3.connect(lab.path)) as connection, connection:
        connection.execute("DELETE FROM contents")
    with pytest.raises(DatabaseError, match="the program of c1 of pi1 is lost"):
        lab.store.load(0.0)
    with closing(sqlite3.connect(lab.path)) as connection, connection:
        connection.execute("UPDATE commands SET outcome = 'ok', ran = 'yes'")
    assert lab.store.load(0.0)["pi1"].id == "c1"


def test_ten_large_requests_of_a_round_leave_no_bytes_in_memory(lab: Lab) -> None:
    large = {"a": b64encode(os.urandom(1_000_000)).decode()}
    lab.step(*(lab.delivery("request", request(files=large), user=user) for user in GROUP[:10]))
    for user in GROUP[:10]:
        current = lab.coordinator.records[user].current
        assert current is not None
        assert [one.data for one in current.request.files] == [None]
