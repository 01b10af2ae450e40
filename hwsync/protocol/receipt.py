"""A receipt: one run's rows of the log, what they say, and the hashes from them to a later row.

    {"receipt": 1, "run": {…}, "rows": [{…}, …], "steps": [[row, digest, covered], …],
     "head": {"row", "hash"}, "signed": {"key", "signature"}}

The law: ``verified`` believes nothing that does not follow from the hash of the head. Whatever was
changed, cut off or put in is refused with one sentence, and what is not proved is not said to be.
Of other runs' rows a receipt has digests alone (docs/decisions.md, 352).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from hwsync.protocol import chain, facts
from hwsync.protocol.analysis import outcome_line
from hwsync.protocol.errors import Refused
from hwsync.protocol.events import Analysed, Requested
from hwsync.protocol.files import only_asked_for
from hwsync.protocol.jsons import BOM, dumps, is_count, is_number, loads, size
from hwsync.protocol.limits import KIB
from hwsync.protocol.named import OF_NO_RESULT
from hwsync.protocol.record import NO_REPORT, WHO_ASKED, Analyser, Request, RunReport, Verb, replace
from hwsync.protocol.wire.asking import read_analysis
from hwsync.protocol.wire.request import read_request
from hwsync.protocol.wire.response import read_response
from hwsync.protocol.wire.schema import Json

VERSION: Final = 1
MAX_FILE: Final = 64 * 1024 * KIB  # a run with all that it may have takes less
MAX_STEPS: Final = 10_000  # hashes between a run's rows and the head; hundreds are many
SHOWN: Final = 200  # characters of an analysis in a sentence
_KEYS: Final = frozenset({"receipt", "run", "rows", "steps", "head"})
_SIGNED: Final = "signed"
_ROW: Final = frozenset({"row", *chain.HASHED, "payload", "previous", "further"})
_TEXTS: Final = ("user", "command", "id", "note", "topic")
_COUNTS: Final = ("epoch", "seq", "before", "state", "late")
_HASH: Final = re.compile("[0-9a-f]{64}")
_ASKED: Final = tuple(facts.asked(Request("")))
_ENDED: Final = tuple(facts.ended(NO_REPORT, None))


class Wrong(ValueError):
    """A receipt that proves nothing; its text is one sentence for people."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a receipt proves."""

    run: Json  # what is known of the run
    head: Json  # ``row`` and ``hash``
    signed_by: str  # a public key whose signature was not looked at here; empty: nobody's
    rows: tuple[Json, ...]
    proved: tuple[str, ...]  # sentences
    signature: str = field(default="", repr=False)


# -- what the rows say ----------------------------------------------------------------------------


def told_by(rows: Sequence[Mapping[str, Any]], kept: Json | None = None) -> Json:
    """What a run's rows say of it; ``kept``: facts of which a row has but the hash.

    Raises ``Wrong`` where they do not say what was asked for, and what came of it.
    """
    first = next((row for row in rows if row["command"] == Verb.REQUEST), None)
    if first is None:
        raise Wrong("none of its rows has the request, so what was to be run is not proved")
    _, asked, who = first["note"].partition(WHO_ASKED)
    known_by, _, by = who.removeprefix("(").partition("): ")
    run: Json = {
        "user": first["user"],
        "id": first["id"],
        "issued": first["time"],
        "asked_by": by if asked else None,
        "asked_known_by": known_by if asked else None,
        **_asked(first, kept),
    }
    answer = _answer(rows)
    ended, report = _ended(answer, kept, run["collect"])
    analyses = [
        _analysis(row, report if row["row"] > answer["row"] else None)
        for row in rows
        if row["command"] == Verb.ANALYSIS
    ]
    return {**run, **ended, "analyses": analyses}


def _answer(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row whose result counts: the last one that was neither refused nor said again."""
    found = [row for row in rows if row["command"] == Verb.RESPONSE and not _moved_nothing(row)]
    if not found:
        raise Wrong("no device has answered it, so there is nothing to be proved of its run")
    return found[-1]


def _moved_nothing(row: Mapping[str, Any]) -> bool:
    return any(part.startswith(OF_NO_RESULT) for part in row["note"].split("; "))


def _asked(row: Mapping[str, Any], kept: Json | None) -> Json:
    if not row["topic"]:
        raise Wrong(f"row {row['row']} has no message: it was imported, and nobody asked here")
    if row["payload"] is None:
        return _by_hash(row, kept, _ASKED, "what was asked for")
    try:
        event = read_request(row["payload"].encode())
    except Refused as error:
        raise Wrong(f"the message of row {row['row']} is no request: {error.message}") from None
    if not isinstance(event, Requested):
        raise Wrong(f"the message of row {row['row']} is no request")
    return facts.asked(event.request)


def _ended(
    row: Mapping[str, Any], kept: Json | None, collect: Sequence[str]
) -> tuple[Json, RunReport | None]:
    if row["payload"] is None:
        return _by_hash(row, kept, _ENDED, "what came of it"), None
    try:
        event = read_response(row["payload"].encode())
    except Refused as error:
        raise Wrong(f"the message of row {row['row']} is no result: {error.message}") from None
    report = event.report
    files, not_kept = only_asked_for(collect, report.files, report.not_kept)
    report = replace(report, files=files, not_kept=not_kept)
    return facts.ended(report, event.journal), report


def _by_hash(row: Mapping[str, Any], kept: Json | None, keys: Sequence[str], what: str) -> Json:
    """Facts that are given, and of which the row's note has the hash."""
    noted = facts.noted_hash(row["note"])
    if not noted:
        raise Wrong(
            f"row {row['row']} has {what} no more, and no hash of it: its message was dropped with "
            "the years, or an hwsync of before wrote it"
        )
    said = {key: (kept or {}).get(key) for key in keys}
    if facts.hash_of(said) != noted:
        raise Wrong(f"what stands under run is not what row {row['row']} has the hash of: {what}")
    return said


def _analysis(row: Mapping[str, Any], report: RunReport | None) -> Json:
    """``analysis`` is None where the row has but its hash; ``analyser``: None is a person.

    ``report``: of which the coordinator itself has written a line; None: that is not known.
    """
    said: Json = {"row": row["row"], "time": row["time"], "analysis": None, "analyser": None}
    if row["payload"] is None:
        return said
    if not row["topic"]:
        line = None if report is None else outcome_line(report)
        return said | {"analysis": line, "analyser": str(Analyser.OUTCOME)}
    try:
        event = read_analysis(row["payload"].encode())
    except Refused:
        return said
    if not isinstance(event, Analysed):
        return said
    by = None if event.by is None else f"{event.by.name} {event.by.version}"
    return said | {"analysis": event.text, "analyser": by}


# -- the file -------------------------------------------------------------------------------------


def make(
    rows: Sequence[Mapping[str, Any]],
    run: Json,
    steps: Sequence[tuple[int, bytes, bytes]],
    head: tuple[int, bytes],
) -> Json:
    """The receipt, unsigned; ``rows``: the log's columns, and the hashes that each covers.

    ``steps``: of each other row on the path from the head, the digest and the hash that it covers
    and that is not on the path.
    """
    return {
        "receipt": VERSION,
        "run": run,
        "rows": [{name: _text(value) for name, value in row.items()} for row in rows],
        "steps": [[row, digest.hex(), other.hex()] for row, digest, other in steps],
        "head": {"row": head[0], "hash": head[1].hex()},
    }


def _text(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def to_sign(receipt: Mapping[str, Any]) -> str:
    """What a signature of it covers."""
    return dumps({key: value for key, value in receipt.items() if key != _SIGNED})


def signed(receipt: Json, key: str, signature: str) -> Json:
    """With the signature of that public key over ``to_sign``."""
    return {**receipt, _SIGNED: {"key": key, "signature": signature}}


def read(data: bytes) -> Json:
    """The receipt of a file. Raises ``Wrong``."""
    if len(data) > MAX_FILE:
        raise Wrong(f"this is no receipt: it has more than {MAX_FILE // KIB // 1024} MiB")
    try:
        text = data.decode()
        obj = loads(text)
        json.loads(text.removeprefix(BOM), object_pairs_hook=_each_once)
        size(dumps(obj))  # half a character has no hash
    except _Twice as error:
        raise Wrong(f"{str(error)[:40]!r} stands twice in one of its objects") from None
    except ValueError as error:
        raise Wrong(f"this is no receipt: it is no JSON, or was cut off ({error})") from None
    if not isinstance(obj, dict) or "receipt" not in obj:
        raise Wrong("this is no receipt: hwsync receipt ID makes one")
    if not is_count(obj["receipt"]) or obj["receipt"] != VERSION:
        raise Wrong(f"this receipt is of a later form than this hwsync knows ({VERSION})")
    if set(obj) - {_SIGNED} != _KEYS:
        raise Wrong("this receipt has other parts than one has: it was changed, or cut off")
    return obj


class _Twice(Exception):
    """A key that an object has twice: one program would read one value, and another the other."""


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            raise _Twice(key)
        seen.add(key)


def verified(receipt: Mapping[str, Any]) -> Verified:
    """What it proves; the signature is its caller's to look at. Raises ``Wrong``."""
    rows, head = _rows(receipt["rows"]), _head(receipt["head"])
    _follow(rows, _steps(receipt["steps"]), head)
    run = receipt["run"]
    if not isinstance(run, dict):
        raise Wrong("run is no object")
    told = told_by(rows, run)
    for key in {**told, **run}:
        if key not in told or key not in run or dumps(told[key]) != dumps(run[key]):
            raise Wrong(f"run: {key[:40]!r} is not what the rows of the log say")
    by, signature = _signature(receipt.get(_SIGNED), there=_SIGNED in receipt)
    return Verified(run, head, by, tuple(rows), tuple(_sentences(run, rows)), signature)


def _rows(given: Any) -> list[Json]:
    if not isinstance(given, list) or not given or len(given) > MAX_STEPS:
        raise Wrong("it has no rows of the log")
    for row in given:
        if not isinstance(row, dict) or set(row) != _ROW or not is_count(row["row"]):
            raise Wrong("rows: one has other fields than a row of the log")
        _check_row(row, f"row {row['row']}")
    for before, row in pairwise(given):
        if row["row"] <= before["row"]:
            raise Wrong(f"row {row['row']} does not stand in its place")
        if (row["user"], row["id"]) != (before["user"], before["id"]):
            raise Wrong(f"row {row['row']} is of another run")
    return given


def _check_row(row: Json, name: str) -> None:
    texts = all(isinstance(row[key], str) for key in _TEXTS)
    if not texts or not is_number(row["time"]) or not all(is_count(row[key]) for key in _COUNTS):
        raise Wrong(f"{name} has a field of another kind than a row of the log")
    payload, sha256 = row["payload"], _hash(row["payload_sha256"], name)
    if payload is None:
        return
    if not isinstance(payload, str):
        raise Wrong(f"{name}: its message is no text")
    if hashlib.sha256(_bytes(payload, name)).digest() != sha256:
        raise Wrong(f"{name}: its message is not the one whose hash it has")


def _bytes(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Wrong(f"{name}: its message is no UTF-8") from None


def _hash(text: Any, where: str) -> bytes:
    if isinstance(text, str) and _HASH.fullmatch(text):
        return bytes.fromhex(text)
    raise Wrong(f"{where}: one of its hashes is none (64 hexadecimal digits)")


def _head(given: Any) -> Json:
    if not isinstance(given, dict) or set(given) != {"row", "hash"}:
        raise Wrong("head has other fields than row and hash")
    if not is_count(given["row"]):
        raise Wrong("head: its row is no number")
    _hash(given["hash"], "head")
    return given


def _steps(given: Any) -> dict[int, tuple[bytes, bytes]]:
    if not isinstance(given, list) or len(given) > MAX_STEPS:
        raise Wrong("steps is no list of hashes")
    steps: dict[int, tuple[bytes, bytes]] = {}
    for one in given:
        if not isinstance(one, list) or len(one) != 3 or not is_count(one[0]) or one[0] in steps:
            raise Wrong("steps: one is not a row's number and two hashes, each row once")
        where = f"the step over row {one[0]}"
        steps[one[0]] = _hash(one[1], where), _hash(one[2], where)
    return steps


def _follow(rows: Sequence[Json], steps: Mapping[int, tuple[bytes, bytes]], head: Json) -> None:
    """From the first row up to the head. Raises ``Wrong`` where one hash does not follow."""
    if rows[-1]["row"] > head["row"]:
        raise Wrong("the head stands before the last row of the run")
    own = {row["row"]: row for row in rows}
    if own.keys() & steps.keys():
        raise Wrong("steps: one stands for a row of the run")
    # The distance is bounded by what the file has: a row and a step for each of the path.
    path = _path(sorted(own), head["row"], len(rows) + len(steps))
    if set(path) != own.keys() | steps.keys():
        raise Wrong("the hashes between the run's rows and the head are not all there")
    below, reached = 0, chain.START
    for row in reversed(path):
        where = f"row {row}"
        if row in own:
            digest = chain.digest_of([_hashed(own[row], name) for name in chain.HASHED])
            previous = _hash(own[row]["previous"], where)
            further = _hash(own[row]["further"], where)
        else:
            digest, other = steps[row]
            previous = reached if below == row - 1 else other
            further = reached if below == chain.back(row) else other
            if previous == further != other:
                raise Wrong(f"the step over {where} has a hash that it does not need")
        if (below == row - 1 and below and previous != reached) or (
            below == chain.back(row) and below and further != reached
        ):
            raise Wrong(f"{where} of the log does not follow from row {below}: one was changed")
        if chain.back(row) == row - 1 and previous != further:
            raise Wrong(f"{where} of the log covers one hash twice, and these are two")
        below, reached = row, chain.link(row, previous, further, digest)
    if reached.hex() != head["hash"]:
        raise Wrong("the rows do not lead to the hash of the head: a row or a step was changed")


def _path(rows: Sequence[int], last: int, most: int) -> list[int]:
    found = [last]
    for row in reversed(rows):
        while found[-1] > row and len(found) <= most:
            further = chain.back(found[-1])
            found.append(further if further >= row else found[-1] - 1)
    return found


def _hashed(row: Json, name: str) -> Any:
    return bytes.fromhex(row[name]) if name == "payload_sha256" else row[name]


def _signature(given: Any, *, there: bool) -> tuple[str, str]:
    if not there:
        return "", ""
    if not isinstance(given, dict) or set(given) != {"key", "signature"}:
        raise Wrong("signed has other fields than key and signature")
    key, signature = given["key"], given["signature"]
    if not isinstance(key, str) or not isinstance(signature, str) or not key or not signature:
        raise Wrong("signed: key and signature are texts")
    return key, signature


def _sentences(run: Json, rows: Sequence[Json]) -> list[str]:
    """What follows from the rows, one sentence each."""
    first = next(row["row"] for row in rows if row["command"] == Verb.REQUEST)
    answer = _answer(rows)["row"]
    said = [
        f"row {first}: {run['user']} was asked to run {run['id']}: {run['name']}, "
        f"SHA-256 {run['program_sha256']}",
    ]
    if run["asked_by"] is not None:
        # The name last: it may be any text.
        how = "by his own word" if run["asked_known_by"] == "claim" else "by his reply topic"
        said.append(f"row {first}: who asked, as is known {how}: {run['asked_by']}")
    if run["sent"]:
        said.append(f"row {first}: {len(run['sent'])} files went with it, with their hashes")
    code = "" if run["exit_code"] is None else f", exit code {run['exit_code']}"
    who = "its device" if run["journal"] else "a person, and no device,"
    said.append(f"row {answer}: {who} answered: {run['outcome']}, ran {run['ran']}{code}")
    hashes = run["sha256"]
    said += [f"row {answer}: SHA-256 of {name} is {hashes[name]}"
             for name in ("stdout", "stderr") if hashes[name]]  # fmt: skip
    if run["files"]:
        said.append(f"row {answer}: {len(run['files'])} files came back, with their hashes")
    if run["ran_on"]:
        on = ", ".join(f"{key} {value}" for key, value in run["ran_on"].items())
        said.append(f"row {answer}: it ran on: {on}")
    for one in run["analyses"]:
        text = one["analysis"]
        by = f" by {one['analyser']}" if one["analyser"] else ""
        about = "is known by its hash alone" if text is None else f"is {text[:SHOWN]}"
        which = "its analysis" if one["row"] > answer else "before that answer an analysis"
        said.append(f"row {one['row']}: {which}{by} {about}")
    return said
