"""Hostile payloads and topics: valid ones of every kind, spoilt; each from a seed and its number.

The law: (seed, number) decides a payload completely, so that what was found once is found again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from hwsync.protocol.record import Command, Record, Request, State
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.status import result_json, status_json

Json = dict[str, Any]

LONGEST: Final = 5_000_000  # bytes; above MAX_MESSAGE
DEEP: Final = (20, 90, 110, 400, 900, 960, 980, 1_000, 3_000, 100_000)  # around every limit
_SHA: Final = "a" * 64
_ENVELOPE: Final[Json] = {
    "v": 1, "id": "c1", "user": "pi1", "epoch": 0, "seq": 1, "program": "print(1)", "timeout": 10.0,
    "stdin": "", "args": ["x"], "issued": 1.7e9, "expires_at": 1.7e9, "start": None,
    "name": "blink.py", "grace": 30,
}  # fmt: skip
_RESULT: Final[Json] = {
    "id": "c1", "journal": "j1", "boot": 1, "outcome": "ok", "ran": "yes", "reason": "",
    "response": "42\n", "stderr": "", "exit_code": 0, "duration": 0.1, "started": 1.7e9,
    "start_error": None, "clock_bound": None, "truncated": False,
    "sha256": {"stdout": _SHA, "stderr": _SHA}, "order": [["stdout", 3]],
}  # fmt: skip
_HEARTBEAT: Final[Json] = {
    "online": True, "journal": "j1", "boot": 1, "seen": [0, 1], "version": "0.1.0", "busy": "c1",
    "running": "c1", "time": 1.7e9, "refusing": None, "board": "a Pi", "temperature": 40.5,
    "memory_free_mb": 100, "disk_free_mb": 1_000,
}  # fmt: skip
_HEALTH: Final[Json] = {
    "condition": "ok", "reason": "", "version": "0.1.0", "schema": 1, "started": 1.7e9,
    "host": "lab", "database": "/db", "time": 1.7e9, "uptime": 1.5,
    "other": {"host": "there", "database": "/db", "started": 1.7e9, "seconds": 3.5},
    "users": 1, "states": {"rest": 1, "collected": 0}, "queued": 0,
}  # fmt: skip
_BOARDS: Final[Json] = {
    "time": 1.7e9, "listening": 12.5, "left_out": 0, "boards": {"pi1": 3.5, "pi2": None},
}  # fmt: skip
_ERROR: Final[Json] = {
    "error": "busy", "message": "pi1 is busy", "hint": "wait", "topic": "hw/pi1/request",
    "id": "c1", "journal": None, "state": 2,
}  # fmt: skip
_STATUS: Final[Json] = {
    **status_json(Record("pi1")), "id": "c1", "state": 2, "journal": "j1", "boot": 1,
    "settled": [["c0", "j1"]], "command": "hw_command_request", "hw_command": "print(1)",
    "name": "blink.py", "hw_response": "42\n", "order": [["stdout", 3]],
}  # fmt: skip
_REQUEST: Final[Json] = {
    "program": "print(1)", "id": "c1", "timeout": 1, "expires": 1, "grace": 1, "queue": False,
    "stdin": "in", "args": ["a", "b"], "analysis": "outcome", "start": None, "meta": {"a": [1]},
    "name": "blink.py", "expires_at": 1.8e9,
}  # fmt: skip
_FILES: Final[Json] = {"data.csv": "MSwyCg==", "lib/a.py": ""}
_COLLECT: Final = ["*.png", "data/**", "plot.csv"]
_RETURNED: Final[Json] = {
    "files": {"plot.png": {"size": 4, "data": "MSwyCg==", "sha256":
              "52186c933993da4082b3cdc7c40bb4bf735b391ff54a2ef78c037dda6c38a680"}},
    "not_kept": [{"path": "big.bin", "size": 9_000_000, "reason": "it is too large"},
                 {"path": "a", "size": 1, "reason": "not asked for"}, {"others": 3}],
}  # fmt: skip
_QUESTION: Final[Json] = {
    "since": -3600, "until": 1.7e9, "last": 10, "outcome": ["ok", "open"], "by": "anna",
    "meta": {"course": "1b", "n": 3}, "name": "blink*.py", "id": "c1", "after": 7,
    "reply": "replies/anna/1",
}  # fmt: skip
PAGE: Final[Json] = {
    "user": "pi1", "all": False, "time": 1.7e9, "after": 7, "rows": [{
        "id": "c1", "number": 1, "state": 0, "issued": 1.7e9, "by": "anna",
        "known_by": "reply topic", "name": "blink.py", "outcome": "ok", "ran": "yes", "reason": "",
        "exit_code": 0, "started": 1.7e9, "duration": 0.1, "files": ["plot.png"], "analysis": "ok",
        "meta": "{}", "line": "42",
    }],
}  # fmt: skip
"""The answer to a question about the past; it has no topic of its own."""

VALID: Final[Mapping[TopicKind, tuple[Json | bytes, ...]]] = {
    TopicKind.REQUEST: (b"print(6*7)", {"program": "print(1)"}, _REQUEST, b"",
    {"program": "print(1)", "id": "c1", "files": _FILES, "collect": _COLLECT, "reply":
     "replies/anna/1"}),
    TopicKind.ENVELOPE: (
        *(_ENVELOPE, b"print(6*7)", _REQUEST),
        {**_ENVELOPE, "v": 2, "files": _FILES, "collect": _COLLECT},
    ),
    TopicKind.COLLECTED: ({"id": "c1", "journal": "j1", "boot": 1}, b""),
    TopicKind.OUTPUT: (
        {"id": "c1", "n": 0, "stream": "stdout", "text": "42\n", "at": 9, "skipped": 2},
        {"id": "c1", "n": 0, "stream": "stdout", "text": "42\n"},
    ),
    TopicKind.RESPONSE: (_RESULT, b"42\n", {"id": "c1", "journal": "j1", "boot": 1,
    "outcome": "ok"}, {**_RESULT, **_RETURNED}),
    TopicKind.ANALYSIS: ({"analysis": {"points": 1}, "id": "c1"}, {"analysis": "right"}, b"right"),
    TopicKind.CANCEL: ({"id": "c1"}, b""),
    TopicKind.RESET: ({"id": "c1"}, {"queue": True}, {"id": "c1", "queue": True}, {"forget": True},
    b""),
    TopicKind.QUERY: ({"id": "c1"}, {"id": "c1", "files": ["plot.png"]}, b""),
    TopicKind.HISTORY: (_QUESTION, {"reply": "replies/anna"}),
    TopicKind.HISTORY_ALL: (_QUESTION, {"last": 1, "reply": "replies/anna"}),
    TopicKind.STATUS: (_STATUS, {**_STATUS, "state": 0, "outcome": "ok", "ran": "yes",
    "exit_code": 0}),
    TopicKind.ERROR: (_ERROR,),
    TopicKind.RESULT: (
        {**result_json(Command("pi1", "c1", Request("print(1)")), State.REST), "outcome": "lost",
         "ran": "maybe"},
    ),
    TopicKind.HEARTBEAT: (_HEARTBEAT, {"online": False, "journal": "j1", "boot": 1}),
    TopicKind.CLOCK: ({"n": 7, "t0": 5_000_000},),
    TopicKind.CLOCK_REPLY: (
        {"n": 7, "t0": 5_000_000, "t1": 1_700_000_000_000_000, "t2": 1_700_000_000_000_050,
         "life": "9f3c", "seen": [0, 1]},
    ),
    TopicKind.HEALTH: (_HEALTH, {"condition": "gone"}),
    TopicKind.COORDINATOR: (
        {"host": "lab", "database": "/db", "started": 1.7e9, "time": 1.7e9, "stopped": False},
    ),
    TopicKind.BOARDS: (_BOARDS, {"time": 1.7e9, "listening": 0.0, "left_out": 3, "boards": {}}),
}  # fmt: skip
"""Valid payloads of every kind (docs/protocol.md, sections 3 to 5)."""

_ALL: Final = [(kind, one) for kind, some in VALID.items() for one in some]
_KEYS: Final = sorted({key for _, one in _ALL if isinstance(one, dict) for key in one})
HOSTILE: Final = (
    "\x1b]0;owned\x07", "\x1b[2J\x1b[31mred", "\r\nforged line", "\x9b31m", "\x7f\x08\x08", "\0",
    "\u202etxt.exe\u202c", "\u2066\u2069\u200b", "\u2028\u2029", "\ud800", "\udfff\ud800", "\ufffe",
    "😀", "ü" * 40, "%s%n{0}{x!r}", "'; DROP TABLE commands; --", "../../etc/passwd", "$(reboot)",
    "<script>", "+", "#", "hw/+/#", "@all", "-bad", " ", "", "x" * 65, "nan", "Infinity",
)  # fmt: skip
"""Texts that terminals, logs, topics, paths, SQL and formats may trip over."""

_NUMBERS: Final = (
    *("0", "-0", "-1", "1", "2", "3", "4", "0.1", "2592000", "2592001", "9007199254740992"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "1e308", "1e309", "-1e999"),
    *("NaN", "Infinity", "-Infinity", "1e-400", "1.0", "1" + "0" * 400, "1" * 4_299, "9" * 4_301),
    *("0x10", "01", "1_0", "1e1000000000", "5e-324"),
)
_RAW: Final = "\ue000"  # stands in a tree for text that is put into the JSON as it is


class Mutator:
    """Payloads of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._dice = random.Random()

    def at(self, number: int) -> tuple[TopicKind, bytes]:
        """The kind that it was made from, and the payload; the same for the same number."""
        self._dice.seed((self._seed << 40) + number)
        dice = self._dice
        kind, one = _ALL[int(dice.random() * len(_ALL))]
        data = self._spoilt(one) if isinstance(one, dict) else self._text(one)
        while dice.random() < 0.3:
            data = dice.choice(_BYTES)(data, dice)
        return kind, data

    def page(self, number: int) -> bytes:
        """An answer about the past, or one of its rows, spoilt."""
        self._dice.seed((self._seed << 40) + number + (1 << 39))
        if self._dice.random() < 0.5:
            return self._spoilt(PAGE)
        row = self._spoilt(PAGE["rows"][0]).decode("utf-8", "surrogatepass")
        return encoded({**PAGE, "rows": [_RAW + row]}).encode("utf-8", "surrogatepass")

    def topic(self, number: int) -> str:
        """A topic of ours or of nobody."""
        self._dice.seed((self._seed << 40) + number + (1 << 36))
        dice = self._dice
        root = "hw" if dice.random() < 0.9 else dice.choice(HOSTILE)
        user = "pi1" if dice.random() < 0.5 else dice.choice((*HOSTILE, "pi2", "@hwsync", "a" * 64))
        kind = dice.choice(
            (*TopicKind, "result/c1", f"result/{dice.choice(HOSTILE)}", "nothing", "")
        )
        topic = f"{root}/{user}/{kind}"
        if dice.random() < 0.2:
            topic = topic.replace("/", dice.choice(("//", "", "/+/", "/#", "\0", "/../")), 1)
        return topic

    def file(self, data: bytes, number: int) -> bytes:
        """A file of lines, spoilt: lines left out, twice, moved; words of others; bytes."""
        self._dice.seed((self._seed << 40) + number + (1 << 37))
        dice = self._dice
        lines = data.split(b"\n")
        for _ in range(1 + int(dice.random() * 3)):
            at = int(dice.random() * len(lines))
            choice = int(dice.random() * 6)
            word = (dice.choice((*HOSTILE, *_NUMBERS))).encode("utf-8", "surrogatepass")
            if choice == 0:
                lines[at] = dice.choice(lines)
            elif choice == 1:
                lines.insert(at, dice.choice(lines) + b" " + word)
            elif choice == 2:
                words = lines[at].split(b" ")
                words[int(dice.random() * len(words))] = word
                lines[at] = b" ".join(words)
            elif choice == 3:
                lines[at] = lines[at].partition(b"=")[0] + b"= " + word
            elif choice == 4:
                lines[at] = lines[at].partition(b"=")[0] + b"= [" * dice.choice((1, 50, 2_000))
            else:
                lines[at] = dice.choice(_BYTES)(lines[at], dice)
        data = b"\n".join(lines)
        return dice.choice(_BYTES)(data, dice) if dice.random() < 0.3 else data

    def image(self, data: bytes, number: int) -> bytes:
        """A database's file, spoilt."""
        self._dice.seed((self._seed << 40) + number + (1 << 38))
        dice = self._dice
        for _ in range(1 + int(dice.random() * 3)):
            data = dice.choice((_flip, _flip, _cut, _noise))(data, dice)
        return data

    def value(self) -> object:
        """Some JSON value, often of the wrong kind."""
        dice = self._dice
        choice = int(dice.random() * 9)
        if choice == 0:
            return dice.choice((None, True, False))
        if choice < 3:
            return _RAW + dice.choice(_NUMBERS)
        if choice < 6:
            return dice.choice(HOSTILE)
        if choice == 6:
            return [dice.choice(HOSTILE), dice.randrange(-1, 9)][: dice.randrange(3)]
        if choice == 7:
            return {dice.choice((*_KEYS, *HOSTILE)): dice.choice((1, None, "x", [], {}))}
        return self._odd()

    def _odd(self) -> object:
        dice = self._dice
        if dice.random() < 0.9:
            return dice.choice((1.5, -7, 10**20, "yes", "no", "maybe", "lost", "ok", "c1", "j1"))
        if dice.random() < 0.9:
            depth = dice.choice(DEEP)
            mark = dice.choice(("[]", '{"a":}', "[{}"))
            left, right = (("[", "]"), ('{"a":', "}"), ('[{"b":', "}]"))[len(mark) % 3]
            return _RAW + left * depth + "1" + right * depth * (dice.random() < 0.8)
        return dice.choice(HOSTILE) * dice.choice((100, 7_000, 30_000))

    def _spoilt(self, one: Json) -> bytes:
        dice = self._dice
        fields = dict(one)
        for _ in range(int(dice.random() * 4)):
            choice = dice.random()
            if choice < 0.6 and fields:
                fields[dice.choice(list(fields))] = self.value()
            elif choice < 0.75 and fields:
                del fields[dice.choice(list(fields))]
            elif choice < 0.9:
                fields[dice.choice((*_KEYS, *HOSTILE))] = self.value()
            elif fields:  # one level below
                key = dice.choice(list(fields))
                fields[key] = [fields[key], self.value()]
        text = encoded(fields)
        if dice.random() < 0.1 and text.startswith("{"):  # a key twice
            text = f"{{{encoded(dice.choice(_KEYS))}:{encoded(self.value())},{text[1:]}"
        return text.encode("utf-8", "surrogatepass")

    def _text(self, one: bytes) -> bytes:
        dice = self._dice
        choice = dice.random()
        if choice < 0.3:
            return one
        if choice < 0.6:
            return encoded(self.value()).encode("utf-8", "surrogatepass")
        text = "".join(dice.choice(HOSTILE) for _ in range(dice.randrange(5)))
        data = one + text.encode("utf-8", "surrogatepass")
        return data * (dice.choice((70_000, 300_000)) if choice > 0.999 else 1)


def encoded(value: object) -> str:
    """JSON with what ``json`` would refuse: raw numbers, deep nesting, half surrogate pairs."""
    if isinstance(value, str):
        if value[:1] == _RAW:
            return value[1:]
        return json.dumps(value, ensure_ascii=len(value) % 2 > 0)
    if isinstance(value, dict):
        inside = ",".join(f"{encoded(key)}:{encoded(one)}" for key, one in value.items())
        return "{" + inside + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(encoded, value)) + "]"
    return json.dumps(value)


# Bytes, whatever they mean.


def _flip(data: bytes, dice: random.Random) -> bytes:
    if not data:
        return b"\x80"
    spoilt = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 8))):
        spoilt[int(dice.random() * len(spoilt))] ^= 1 << int(dice.random() * 8)
    return bytes(spoilt)


def _cut(data: bytes, dice: random.Random) -> bytes:
    at = int(dice.random() * (len(data) + 1))
    return data[:at] if dice.random() < 0.7 else data[at:]


def _splice(data: bytes, dice: random.Random) -> bytes:
    """The beginning of one and the end of another, of another kind perhaps."""
    _, other = dice.choice(_ALL)
    more = encoded(other).encode() if isinstance(other, dict) else other
    return data[: int(dice.random() * len(data))] + more[int(dice.random() * len(more)) :]


_PIECES: Final = (
    *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\0", b"\x1b[", b"\x85", b"\r"),
    *(b"\xef\xbb\xbf", b"\xe2\x80\xae", b'"', b"\\", b"\\ud800", b"\\u0000"),
    *(b"{", b"}", b"[", b","),
)


def _insert(data: bytes, dice: random.Random) -> bytes:
    at = int(dice.random() * (len(data) + 1))
    piece = dice.choice(_PIECES)
    return data[:at] + piece * dice.choice((1, 1, 1, 3)) + data[at:]


def _noise(data: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(int(dice.random() * 64)) if dice.random() < 0.5 else data + data


def _long(data: bytes, dice: random.Random) -> bytes:
    """Rarely longer than any message may be: that costs time."""
    if dice.random() < 0.995 or not data:
        return data
    return (data * (LONGEST // len(data) + 1))[: dice.choice((65_537, 262_145, LONGEST))]


_BYTES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    *(_flip, _flip, _cut, _splice, _insert, _insert, _noise, _long),
)
