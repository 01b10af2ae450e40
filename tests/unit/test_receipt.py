"""A receipt proves what it says without database and network; whatever was changed is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hwsync.cli.receipts import NOT_PROVED
from hwsync.protocol import chain, facts, receipt
from hwsync.protocol.errors import DatabaseError, NotFound
from hwsync.protocol.record import Request
from hwsync.store.receipts import Receipts
from tests.support.coordinator import Lab, change, request, result

LONG = "print(1)  # " + "x" * 2_000
FILES = {
    "a.csv": {
        "size": 2,
        "data": "MQo=",
        "sha256": "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865",
    }
}
RAN_ON = {"board": "Raspberry Pi 4", "python": "3.11.2", "packages": "ab" * 32, "throttled": 0}


def cycle(
    lab: Lab, id: str, program: str = "print(6*7)", collect: tuple[str, ...] = (), **answer: object
) -> None:
    """One run that somebody analyses by hand."""
    meta = {"by": "anna", "n": 1}
    lab.hear("request", request(id, program, analysis="manual", meta=meta, collect=collect))
    lab.hear("collected", json.dumps({"id": id, "journal": "j1", "boot": 1}).encode())
    said: dict[str, Any] = {
        "response": "42\n",
        "ran_on": RAN_ON,
        "clock_bound": 0.001,
        "started": 1.5,
        **answer,
    }
    lab.hear("response", result(id, **said))
    lab.hear("analysis", b"good")


@pytest.fixture
def made(lab: Lab, path: Path) -> Iterator[dict[str, Any]]:
    """The receipt of a run in the middle of others."""
    for number in range(5):
        cycle(lab, f"earlier{number}")
    cycle(lab, "c1")
    for number in range(20):
        cycle(lab, f"later{number}")
    lab.stop()
    with Receipts(path) as receipts:
        yield receipts.make("pi1", "c1", receipts.last())


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in items:
            yield from leaves(one, (*at, key))
    else:
        yield at, value


def changed(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return 1 if value is None else not value
    if isinstance(value, str):
        return "0" * len(value) if set(value) <= set("123456789abcdef") and value else f"{value}x"
    return value + 1 if isinstance(value, int | float) else ["x"]


def test_the_path_between_two_rows_is_short_and_each_covers_the_next() -> None:
    for last in range(1, 200):
        for first in range(1, last + 1):
            found = chain.path(first, last)
            assert (found[0], found[-1]) == (last, first)
            assert all(b in (a - 1, chain.back(a)) for a, b in pairwise(found))
    assert max(len(chain.path(first, 1_048_576)) for first in range(1, 1_048_576, 4_999)) <= 212


def test_the_tops_are_what_the_next_row_covers() -> None:
    tops: chain.Tops = ()
    for row in range(1, 300):
        number, previous, further = chain.covered(tops)
        known = dict(tops)
        assert number == row
        assert previous == known.get(row - 1, chain.START)
        assert chain.back(row) in {0, *known}
        assert further == known.get(chain.back(row), chain.START)
        tops = chain.followed(tops, bytes([row % 256]) * 32)
        assert [one for one, _ in tops] == chain.rows_of_tops(row)


def test_a_receipt_says_what_was_run_and_what_came_of_it(made: dict[str, Any]) -> None:
    told = receipt.verified(receipt.read(json.dumps(made).encode()))
    run = told.run
    assert (run["user"], run["id"], run["hw_command"]) == ("pi1", "c1", "print(6*7)")
    assert (run["asked_by"], run["asked_known_by"]) == ("anna", "claim")
    assert (run["outcome"], run["hw_response"], run["ran_on"]) == ("ok", "42\n", RAN_ON)
    assert [one["analysis"] for one in run["analyses"]] == ["good"]
    assert any("packages abab" in line for line in told.proved)
    assert "earlier" not in json.dumps(made)
    assert "later" not in json.dumps(made)


def test_each_field_that_is_changed_is_noticed(made: dict[str, Any]) -> None:
    count = 0
    for at, value in leaves(made):
        other = copy.deepcopy(made)
        inner: Any = other
        for key in at[:-1]:
            inner = inner[key]
        inner[at[-1]] = changed(value)
        with pytest.raises(receipt.Wrong) as found:
            receipt.verified(receipt.read(json.dumps(other).encode()))
        assert "\n" not in str(found.value)
        count += 1
    assert count > 100


def test_what_is_left_out_or_put_in_is_noticed(made: dict[str, Any]) -> None:
    for at in (("run",), ("head",), ("rows", 0), ("rows", 1), ()):
        inner: Any = made
        for key in at:
            inner = inner[key]
        for key in list(inner):
            other = copy.deepcopy(made)
            there: Any = other
            for step in at:
                there = there[step]
            del there[key]
            with pytest.raises(receipt.Wrong):
                receipt.verified(receipt.read(json.dumps(other).encode()))
            there["of somebody"] = 1
            with pytest.raises(receipt.Wrong):
                receipt.verified(receipt.read(json.dumps(other).encode()))
    for name in ("rows", "steps"):
        for place in range(len(made[name])):
            other = copy.deepcopy(made)
            del other[name][place]
            with pytest.raises(receipt.Wrong):
                receipt.verified(receipt.read(json.dumps(other).encode()))
    whole = json.dumps(made)
    for data in (whole[:-1], whole[: len(whole) // 2], "", "[]", "{}", '{"receipt": 2}', "\x00"):
        with pytest.raises(receipt.Wrong):
            receipt.verified(receipt.read(data.encode()))


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [[1]], [1], {"a": 1}, -1, 1e300, True])
def test_nonsense_is_refused_with_a_sentence(made: dict[str, Any], value: Any) -> None:
    places = [("run",), ("rows",), ("steps",), ("head",), ("signed",), ("rows", 0), ("steps", 0)]
    places += [("rows", 0, key) for key in made["rows"][0]] + [("head", "row"), ("head", "hash")]
    for at in places:
        other = copy.deepcopy(made)
        inner: Any = other
        for key in at[:-1]:
            inner = inner[key]
        if inner.get(at[-1]) == value if isinstance(inner, dict) else inner[at[-1]] == value:
            continue
        inner[at[-1]] = value
        with pytest.raises(receipt.Wrong):
            receipt.verified(receipt.read(json.dumps(other).encode()))


def test_a_long_program_and_a_result_with_files_are_proved_by_their_hashes(
    lab: Lab, path: Path
) -> None:
    cycle(lab, "c1", LONG, ("*",), files=FILES, stderr="w" * 1_500)
    cycle(lab, "c2", files=FILES)
    lab.stop()
    with Receipts(path) as receipts:
        receipt.verified(receipts.make("pi1", "c2", receipts.last()))
        made = receipts.make("pi1", "c1", receipts.last())
    assert made["rows"][0]["payload"] is None
    assert made["run"]["hw_command"] == LONG
    assert made["run"]["files"][0][0] == "a.csv"
    receipt.verified(made)
    for key, value in (("hw_command", "print(2)"), ("stderr", ""), ("files", []), ("timeout", 1)):
        other = copy.deepcopy(made)
        other["run"][key] = value
        with pytest.raises(receipt.Wrong):
            receipt.verified(other)


def test_who_asks_cannot_call_himself_the_hash_of_something_else(lab: Lab, path: Path) -> None:
    forged = facts.asked(Request("print('never ran')"))
    name = f"anna; {facts.NOTED}{facts.hash_of(forged)}"
    lab.hear("request", request("c1", "print(6*7)", meta={"by": name}))
    lab.hear("collected", json.dumps({"id": "c1", "journal": "j1", "boot": 1}).encode())
    lab.hear("response", result("c1"))
    lab.stop()
    with Receipts(path) as receipts:
        made = receipts.make("pi1", "c1", receipts.last())
    assert name in made["rows"][0]["note"]
    made["rows"][0]["payload"] = None
    made["run"].update(forged)
    with pytest.raises(receipt.Wrong, match="no hash of it"):
        receipt.verified(made)


def test_a_file_that_two_programs_read_in_two_ways_is_refused(made: dict[str, Any]) -> None:
    """Of a key that stands twice some take the first value, and others the last."""
    whole = json.dumps(made)
    for key in ("run", "hw_command", "payload", "row"):
        other = whole.replace(f'"{key}": ', f'"{key}": "forged", "{key}": ', 1)
        with pytest.raises(receipt.Wrong, match=f"'{key}' stands twice"):
            receipt.read(other.encode())
    assert receipt.read(whole.replace('"receipt": 1,', '"receipt": 1 ,').encode()) == made
    for form in ("1.0", "1e0", "true", "-1"):
        with pytest.raises(receipt.Wrong, match="later form"):
            receipt.read(whole.replace('"receipt": 1,', f'"receipt": {form},').encode())


def test_a_file_that_is_too_large_is_no_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipt, "MAX_FILE", 2**20)
    with pytest.raises(receipt.Wrong, match="more than 1 MiB"):
        receipt.read(b" " * (2**20 + 1))


def test_half_a_character_is_refused_like_anything_else(made: dict[str, Any]) -> None:
    for at in (("run", "stderr"), ("rows", 0, "note"), ("rows", 1, "topic"), ("signed",)):
        other = copy.deepcopy(made)
        inner: Any = other
        for key in at[:-1]:
            inner = inner[key]
        inner[at[-1]] = "\ud800"
        with pytest.raises(receipt.Wrong, match="half a surrogate pair"):
            receipt.read(json.dumps(other).encode())


def test_a_hash_has_64_digits(made: dict[str, Any]) -> None:
    for text in (" " * 64, made["head"]["hash"][:-2] + "  ", "\u0661" * 64):
        made["rows"][0]["further"] = text
        with pytest.raises(receipt.Wrong, match="64 hexadecimal digits"):
            receipt.verified(made)


@pytest.mark.parametrize(
    "other",
    [
        result("c1", journal="j2", outcome="error", exit_code=3, response="another\n"),
        result("c1", journal="j2", outcome="error", exit_code=3, response="y" * 2_000),
        b'{"id": "c1", "journal": "j2", "boot": 1, "outcome": "nonsense"}',
    ],
)
def test_what_another_device_says_is_proved_of_nobody(lab: Lab, path: Path, other: bytes) -> None:
    """It is in the log, and was refused."""
    cycle(lab, "c1")
    lab.hear("response", other)
    lab.stop()
    with Receipts(path) as receipts:
        made = receipts.make("pi1", "c1", receipts.last())
    rows = {row["row"]: row for row in made["rows"]}
    assert "refused: " in rows[5]["note"]
    said = receipt.verified(made).proved
    assert "row 3: its device answered: ok, ran yes, exit code 0" in said
    assert not [line for line in said if line.startswith("row 5: ")]
    if rows[5]["payload"] is not None:
        made["run"] |= {"outcome": "error", "exit_code": 3}
        with pytest.raises(receipt.Wrong, match="'outcome' is not what the rows"):
            receipt.verified(made)


def test_a_result_that_was_corrected_is_proved_as_it_is_known_now(lab: Lab, path: Path) -> None:
    lab.hear("request", request("c1", analysis="manual", collect=["*"]))
    lab.hear("collected", json.dumps({"id": "c1", "journal": "j1", "boot": 1}).encode())
    half = {"outcome": "interrupted", "ran": "maybe", "stderr": "z" * 2_000, "files": FILES}
    lab.hear("response", result("c1", **half))
    lab.hear("analysis", b"good")
    lab.hear("response", result("c1", journal="j2", response="42\n"))
    lab.stop()
    with Receipts(path) as receipts:
        made = receipts.make("pi1", "c1", receipts.last())
    told = receipt.verified(made)
    assert (told.run["outcome"], told.run["hw_response"]) == ("ok", "42\n")
    assert "row 5: its device answered: ok, ran yes, exit code 0" in told.proved
    assert "row 4: before that answer an analysis is good" in told.proved  # of another one


def test_who_asked_cannot_say_more_by_his_name_than_that_it_is_his_word(
    lab: Lab, path: Path
) -> None:
    """And what a person typed as an answer is no device's."""
    name = "anna asked, as is known by his reply topic; and bob"
    lab.hear("request", request("c1", meta={"by": name}))
    lab.hear("collected", b"")
    lab.hear("response", b"42")
    lab.stop()
    with Receipts(path) as receipts:
        said = receipt.verified(receipts.make("pi1", "c1", receipts.last())).proved
    assert f"row 1: who asked, as is known by his own word: {name}" in said
    assert "row 3: a person, and no device, answered: ok, ran yes" in said


def test_what_a_receipt_leaves_out_is_not_said_to_be_there(made: dict[str, Any]) -> None:
    """Nobody can tell a row of the run that is left out from one of another run: so it is said."""
    row = made["rows"].pop()
    values = [bytes.fromhex(row[name]) if name == "payload_sha256" else row[name]
              for name in chain.HASHED]  # fmt: skip
    made["steps"].append([row["row"], chain.digest_of(values).hex(), row["further"]])
    made["run"]["analyses"] = []
    assert row["row"] - 1 == made["rows"][-1]["row"]
    assert not [line for line in receipt.verified(made).proved if "analysis" in line]
    assert any("left out" in line for line in NOT_PROVED)


def test_a_receipt_leads_to_any_later_row_and_to_no_earlier_one(lab: Lab, path: Path) -> None:
    for number in range(8):
        cycle(lab, f"c{number}")
    lab.stop()
    with Receipts(path) as receipts:
        last, of_last = receipts.last_of("pi1", "c2"), receipts.last()
        for head in range(last, of_last + 1):
            made = receipts.make("pi1", "c2", head)
            assert receipt.verified(made).head == {"row": head, "hash": receipts.hash_of(head)}
        with pytest.raises(DatabaseError, match="before the last row"):
            receipts.make("pi1", "c2", last - 1)
        with pytest.raises(NotFound):
            receipts.make("pi1", "nobody", of_last)


def test_a_run_that_nobody_answered_or_that_was_changed_has_none(lab: Lab, path: Path) -> None:
    cycle(lab, "c1")
    lab.hear("request", request("c2"))
    lab.hear("reset", b"")
    lab.stop()
    with Receipts(path) as receipts, pytest.raises(DatabaseError, match="no device has answered"):
        receipts.make("pi1", "c2", receipts.last())
    change(path, "UPDATE transitions SET note = 'x' WHERE row = 2")
    with (
        Receipts(path) as receipts,
        pytest.raises(DatabaseError, match="row 2 of the log was changed"),
    ):
        receipts.make("pi1", "c1", receipts.last())


def test_what_the_years_have_taken_has_none(lab: Lab, path: Path) -> None:
    cycle(lab, "c1")
    lab.stop()
    change(path, "UPDATE transitions SET payload = x'', pruned = 1")
    with Receipts(path) as receipts, pytest.raises(DatabaseError, match="dropped with the years"):
        receipts.make("pi1", "c1", receipts.last())
