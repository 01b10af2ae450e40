"""Files in requests, envelopes, results, statuses and queries: each limit, and what is wrong."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from hwsync.protocol import files
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import Queried, Requested
from hwsync.protocol.files import NO_ROOM, TOO_LARGE, TOO_MANY, File, NotKept
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Command, Outcome, Ran, Record, Request, RunReport, State
from hwsync.protocol.wire.asking import encode_query, read_query
from hwsync.protocol.wire.envelope import encode_envelope, envelope_size, read_envelope
from hwsync.protocol.wire.files import contents_of
from hwsync.protocol.wire.request import encode_request, read_request
from hwsync.protocol.wire.response import encode_response, fit, read_response
from hwsync.protocol.wire.status import encode_result, encode_status

MIB = 1024 * 1024


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def asked(**keys: Any) -> Requested:
    event = read_request(encode_request("p", id="c1", **keys))
    assert isinstance(event, Requested)
    return event


def refusal(**keys: Any) -> Refused:
    with pytest.raises(Refused) as found:
        asked(**keys)
    assert found.value.id == "c1"
    return found.value


# -- the request -----------------------------------------------------------------------------------


def test_a_request_has_files_and_patterns() -> None:
    event = asked(files={"lib/b.py": base64(b"bb"), "a": ""}, collect=["*.png", "out/**"])
    assert event.request.files == (File.of("a", b""), File.of("lib/b.py", b"bb"))
    assert [one.data for one in event.request.files] == [None, None]
    assert sorted(event.contents.values()) == [b"", b"bb"]
    assert event.request.collect == ("*.png", "out/**")


def test_a_request_without_them_is_as_before() -> None:
    assert asked() == Requested(Request("p", "c1"))
    assert asked(files={}, collect=[]) == asked()


@pytest.mark.parametrize(
    ("files", "above"),
    [
        ({f"f{n}": "" for n in range(64)}, {"more": ""}),
        ({"a": base64(bytes(MIB - 1)), "b": base64(b"1")}, {"c": base64(b"1")}),
        ({"a" * 255: ""}, {"a" * 256: ""}),
    ],
    ids=["MAX_FILES", "MAX_FILES_BYTES", "MAX_PATH"],
)
def test_files_have_limits(files: dict[str, str], above: dict[str, str]) -> None:
    assert len(asked(files=files).request.files) == len(files)
    refused = refusal(files=files | above)
    assert refused.code is (Code.BAD_PAYLOAD if len(files) == 1 else Code.TOO_LARGE)
    assert refused.hint


@pytest.mark.parametrize(
    ("collect", "above", "code"),
    [
        (["*"] * 32, ["*"] * 33, Code.TOO_LARGE),
        (["a" * 255], ["a" * 256], Code.BAD_PAYLOAD),
    ],
    ids=["MAX_COLLECT", "MAX_COLLECT_PATTERN"],
)
def test_patterns_have_limits(collect: list[str], above: list[str], code: Code) -> None:
    assert asked(collect=collect).request.collect == tuple(collect)
    assert refusal(collect=above).code is code


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"files": []}, "'files' must be an object"),
        ({"files": None}, "'files' must be an object"),
        ({"files": {"../a": ""}}, "'../a': no path"),
        ({"files": {"/etc/passwd": ""}}, "'/etc/passwd': no path"),
        ({"files": {"a\n": ""}}, "no path"),
        ({"files": {"a": "!"}}, "'a' in 'files' is no text in base64"),
        ({"files": {"a": "YQ"}}, "base64"),
        ({"files": {"a": "YQ==\n"}}, "base64"),
        ({"files": {"a": "ä"}}, "base64"),
        ({"files": {"a": 1}}, "base64"),
        ({"files": {"a": None}}, "base64"),
        ({"files": {"program.py": ""}}, "'program.py', which the program itself"),
        ({"files": {"b.py": ""}, "name": "b.py"}, "'b.py', which the program itself"),
        ({"files": {"b.py/x": ""}, "name": "b.py"}, "'b.py' is a file"),
        ({"files": {"a": "", "a/b": ""}}, "'a/b', but 'a' is a file"),
        ({"collect": "*"}, "list of patterns"),
        ({"collect": [1]}, "list of patterns"),
        ({"collect": ["a", "../*"]}, "'../*': no pattern"),
        ({"collect": [""]}, "no pattern"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(keys: dict[str, Any], said: str) -> None:
    refused = refusal(**keys)
    assert refused.code is Code.BAD_PAYLOAD
    assert said in refused.message


def test_the_name_of_the_default_is_free_where_another_is_given() -> None:
    assert asked(files={"program.py": ""}, name="b.py").request.files


# -- the envelope ----------------------------------------------------------------------------------

FILES = (File.of("a", b"1" * 1000), File.of("lib/b.py", b"bb"))
BARE = tuple(one.bare for one in FILES)


def waiting(**keys: Any) -> Record:
    return Record("pi1", State.REQUESTED, 1, 1, current=Command("pi1", "c1", Request("p", **keys)))


def test_an_envelope_has_them_and_needs_version_2() -> None:
    record = waiting(files=BARE, collect=("*.png",))
    payload = encode_envelope(record, contents=contents_of(FILES))
    assert json.loads(payload)["v"] == 2
    envelope = read_envelope(payload)
    assert envelope is not None
    assert (envelope.files, envelope.collect) == (FILES, ("*.png",))
    assert [one.data for one in envelope.files] == [one.data for one in FILES]
    assert len(payload) <= envelope_size(record, signed=False) <= len(payload) + 100


def test_an_envelope_without_them_is_as_before() -> None:
    said = json.loads(encode_envelope(waiting()))
    assert said["v"] == 1
    assert not {"files", "collect"} & said.keys()


def test_bytes_that_are_not_there_are_never_left_out() -> None:
    with pytest.raises(KeyError):
        encode_envelope(waiting(files=BARE))


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({}, True),
        ({"v": 1}, False),
        ({"files": {}}, True),  # a pattern is left
        ({"files": {}, "collect": []}, False),
        ({"files": {"../a": ""}}, False),
        ({"files": {"a": "!"}}, False),
        ({"files": {"program.py": ""}}, False),
        ({"files": {f"f{n}": "" for n in range(65)}}, False),
        ({"collect": ["../a"]}, False),
        ({"collect": ["*"] * 33}, False),
    ],
    ids=str,
)
def test_a_device_takes_only_what_is_right(changes: dict[str, Any], runs: bool) -> None:
    record = waiting(files=FILES, collect=("*",))
    said = json.loads(encode_envelope(record)) | changes
    assert (read_envelope(dumps(said).encode()) is not None) is runs


# -- the result ------------------------------------------------------------------------------------

ENDED = RunReport(Outcome.OK, Ran.YES, exit_code=0)


def heard(report: RunReport, **changes: Any) -> RunReport:
    """What the coordinator reads of a device's report, its message changed."""
    said = json.loads(encode_response("c1", "j1", 1, report)) | changes
    event = read_response(dumps(said).encode())
    assert event.contents.keys() == {one.sha256 for one in event.report.files}
    assert all(one.data is None for one in event.report.files)
    return event.report


def test_a_result_has_files_and_what_is_not_kept() -> None:
    report = replace(
        ENDED, files=FILES, not_kept=(NotKept("c", 7, "a link"), NotKept("", 0, "", 3))
    )
    assert heard(report) == replace(report, files=BARE)
    said = json.loads(encode_response("c1", "j1", 1, report))
    assert said["files"]["lib/b.py"] == {"size": 2, "sha256": BARE[1].sha256, "data": "YmI="}
    assert said["not_kept"] == [{"path": "c", "size": 7, "reason": "a link"}, {"others": 3}]
    assert heard(ENDED) == ENDED


GOOD = {"size": 1, "sha256": File.of("a", b"1").sha256, "data": base64(b"1")}


@pytest.mark.parametrize(
    ("path", "said", "reason"),
    [
        ("../a", GOOD, "its path leads out of the folder"),
        ("a\x1b", GOOD, "its path leads out of the folder"),
        ("a", GOOD | {"size": 2}, "its bytes are not those that the device hashed"),
        ("a", GOOD | {"sha256": "0" * 64}, "its bytes are not those that the device hashed"),
        ("a", GOOD | {"data": "!"}, "it came without its bytes"),
        ("a", {"size": 1}, "it came without its bytes"),
        ("a", None, "it came without its bytes"),
    ],
    ids=str,
)
def test_a_file_that_is_not_right_is_not_kept(path: str, said: Any, reason: str) -> None:
    report = heard(ENDED, files={path: said, "b": GOOD})
    assert [one.path for one in report.files] == ["b"]
    (left,) = report.not_kept
    assert (left.path, left.reason) == (path.replace("\x1b", "?"), reason)


@pytest.mark.parametrize(
    ("count", "size", "reason"),
    [(64, 10, ""), (65, 10, TOO_MANY), (2, 768 * 1024, ""), (2, 768 * 1024 + 1, TOO_LARGE)],
)
def test_files_of_a_result_have_limits(count: int, size: int, reason: str) -> None:
    many = tuple(File.of(f"f{number:02}", bytes(size)) for number in range(count))
    report = heard(replace(ENDED, files=many))
    assert len(report.files) == count - bool(reason)
    assert [one.reason for one in report.not_kept] == [reason] * bool(reason)


@pytest.mark.parametrize(
    "not_kept", [None, 1, {}, [1], [{}], [{"path": "a"}], [{"path": "\ud800", "size": 1}]]
)
def test_a_list_that_is_none_spoils_no_result(not_kept: Any) -> None:
    said = json.loads(encode_response("c1", "j1", 1, ENDED)) | {"not_kept": not_kept, "files": 7}
    event = read_response(json.dumps(said).encode())
    assert (event.report.files, event.report.not_kept) == ((), ())


def test_what_is_beyond_all_limits_is_counted_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of 4 MiB can name 100,000 of each, and a coordinator has one thread."""
    looked: list[object] = []
    is_right = files.is_path

    def look(path: object) -> bool:
        looked.append(path)
        return is_right(path)

    monkeypatch.setattr(files, "is_path", look)
    some = {f"{number:04}": {"size": 0, "sha256": "", "data": ""} for number in range(1_000)}
    entries = [{"path": f"x{number}", "size": 1, "reason": "a link"} for number in range(2_000)]
    result = {"id": "c1", "journal": "j1", "boot": 1, "outcome": "ok", "files": some}
    report = read_response(dumps(result | {"not_kept": entries}).encode()).report
    assert len(looked) == 256
    assert sum(one.others or 1 for one in report.not_kept) == 3_000


def test_reasons_and_paths_of_a_device_are_short_lines() -> None:
    report = heard(ENDED, not_kept=[{"path": "é" * 200, "size": 1, "reason": "a\n" * 300}])
    (left,) = report.not_kept
    assert (len(left.path.encode()), len(left.reason)) == (254, 200)
    assert "\n" not in left.reason


# -- fitting ---------------------------------------------------------------------------------------


def test_files_move_first_and_then_texts_are_cut() -> None:
    report = replace(ENDED, response="x" * 50_000, files=(
        File.of("a", bytes(40_000)), File.of("b", bytes(90_000)), File.of("c", bytes(9_000)),
    ))  # fmt: skip
    whole = len(encode_response("c1", "j1", 1, report))
    assert fit(report, whole + 200) == report
    less = fit(report, 140_000)
    assert [one.path for one in less.files] == ["a", "c"]
    assert less.not_kept == (NotKept("b", 90_000, NO_ROOM),)
    assert less.response == report.response
    least = fit(report, 30_000)
    assert least.files == ()
    assert [one.path for one in least.not_kept] == ["a", "b", "c"]
    assert 10_000 < len(least.response) < 30_000
    assert least.truncated


@pytest.mark.parametrize("limit", [600, 1_024, 3_000, 8_192, 20_000, 65_536, 131_072, 1_048_576])
@pytest.mark.parametrize("fill", ["x", "\x01", "é"])
def test_a_result_fits_any_limit_and_says_what_it_lost(limit: int, fill: str) -> None:
    report = replace(
        ENDED,
        reason=fill * 500,
        response=fill * 100_000,
        stderr=fill * 60_000,
        files=tuple(File.of(f"f{number:02}", bytes(number * 1000)) for number in range(50)),
        not_kept=tuple(NotKept(f"n{number}", 1, "a link") for number in range(60)),
    )
    less = fit(report, limit)
    payload = encode_response("i" * 64, "j" * 64, 2**53, less)
    assert len(payload) <= max(limit, 1_024)
    assert encode_response("i" * 64, "j" * 64, 2**53, report, limit) == payload
    assert fit(less, limit) == less  # what was journalled is not cut again
    named = len(less.files) + sum(one.others or 1 for one in less.not_kept)
    assert named == 110


def test_the_largest_result_there_can_be_is_sent_whole() -> None:
    report = replace(
        ENDED,
        response="\x01" * 262_144,
        stderr="\x01" * 65_536,
        files=(File.of("a", bytes(1_572_864)),),
    )
    assert len(encode_response("i" * 64, "j" * 64, 2**53, report)) <= 4_194_304
    assert fit(report) == report


# -- status, result and query ----------------------------------------------------------------------


def ended(report: RunReport) -> Command:
    return Command("pi1", "c1", Request("p"), journal="j1", boot=1, report=report)


def test_a_status_has_names_and_hashes_only() -> None:
    command = ended(replace(ENDED, files=BARE, not_kept=(NotKept("c", 7, "a link"),)))
    for payload in (
        encode_status(Record("pi1", State.RETURNED, 1, 1, current=command)),
        encode_result(command, State.RETURNED),
    ):
        said = json.loads(payload)
        assert said["files"]["lib/b.py"] == {"size": 2, "sha256": BARE[1].sha256}
        assert said["not_kept"] == [{"path": "c", "size": 7, "reason": "a link"}]
    said = json.loads(encode_status(Record("pi1")))
    assert (said["files"], said["not_kept"]) == ({}, [])


def test_a_result_has_the_bytes_that_were_asked_for() -> None:
    command = ended(replace(ENDED, response="x" * 200_000, files=BARE))
    contents = {BARE[1].sha256: b"bb"}
    said = json.loads(encode_result(command, State.RETURNED, contents=contents))
    assert said["files"]["lib/b.py"]["data"] == base64(b"bb")
    assert "data" not in said["files"]["a"]
    assert len(said["hw_response"]) == 200_000


@pytest.mark.parametrize("limit", [8_192, 65_536, 150_000, 300_000, 4_194_304])
def test_an_answer_with_bytes_fits_its_limit(limit: int) -> None:
    file = File.of("a", bytes(90_000))
    command = ended(replace(ENDED, response="\x01" * 200_000, files=(file.bare,)))
    payload = encode_result(command, State.REST, limit=limit, contents=contents_of((file,)))
    assert len(payload) <= limit
    said = json.loads(payload).get("files", {}).get("a", {})
    assert ("data" in said) is (limit >= 150_000)


@pytest.mark.parametrize("limit", [1_024, 8_192, 65_536, 1_048_576])
def test_a_status_with_many_files_fits_its_limit(limit: int) -> None:
    many = tuple(File("\\" * 250 + f"{number:02}", 2**53, "f" * 64) for number in range(64))
    left = tuple(NotKept(f"n{number}" * 30, 1, "x" * 100) for number in range(64))
    command = ended(replace(ENDED, response="x" * 9_000, files=many, not_kept=left))
    payload = encode_status(Record("u" * 64, State.RETURNED, 1, 1, current=command), limit)
    assert len(payload) <= limit
    assert (len(json.loads(payload).get("files", {})) == 64) is (limit > 60_000)


def test_a_query_asks_for_bytes() -> None:
    assert read_query(encode_query("c1", ["a", "b", "a"])) == Queried("c1", ("a", "b"))
    assert read_query(b'{"id":"c1"}') == Queried("c1")
    assert read_query(b"") == Queried()


@pytest.mark.parametrize(
    "files", [[], ["a"] * 65, ["../a"], [1], "a", {"a": 1}], ids=lambda one: str(one)[:20]
)
def test_a_query_names_paths(files: Any) -> None:
    with pytest.raises(Refused, match="1 to 64 paths") as found:
        read_query(dumps({"id": "c1", "files": files}).encode())
    assert found.value.code is Code.BAD_PAYLOAD
    with pytest.raises(Refused, match="'id' is missing"):
        read_query(b'{"files":["a"]}')
