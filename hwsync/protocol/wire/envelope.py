"""The envelope: a program for the device, signed or not (docs/protocol.md, section 5).

The law: a device runs what is an envelope to the last field and passes over the rest, such as a
person's plain program. Of a signed one only what is inside the signed text counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, NotRequired, TypedDict, cast

from hwsync.protocol import limits
from hwsync.protocol.errors import Refused
from hwsync.protocol.files import Files
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import NO_COMMAND, Record, Request
from hwsync.protocol.wire.files import (
    NO_CONTENTS,
    Contents,
    Patterns,
    SentFiles,
    base64_size,
    files_json,
    read_files,
)
from hwsync.protocol.wire.forms import (
    ID,
    NUMBER,
    Count,
    Id,
    Name,
    Number,
    Text,
    Texts,
    User,
    seconds,
)
from hwsync.protocol.wire.schema import Default, Form, Json, Schema, loose, read_object
from hwsync.protocol.wire.start import (
    START_OBJECT,
    StartOrder,
    read_start_order,
    start_order_json,
)

_VERSION: Final = Form("1 or 2", lambda value: value in (1, 2))
_NUMBERS: Final = 64  # bytes by which an envelope's numbers may grow while it waits


class EnvelopeFields(TypedDict):
    """On ``command``, from the coordinator."""

    v: Annotated[
        int,
        _VERSION,
        "the version that the device must have: 2 where there is a `start`, `files` or `collect`, "
        "else 1; a device of version 1 passes 2 over",
    ]
    id: Annotated[Id, "of the command"]
    user: Annotated[User, "of the device"]
    epoch: Annotated[Count, "of the status that it was sent after"]
    seq: Annotated[Count, "of the status that it was sent after"]
    program: Annotated[Text, "the program's text"]
    name: NotRequired[
        Annotated[
            Name,
            Default(limits.DEFAULT_NAME, f"`{limits.DEFAULT_NAME}`"),
            "the file that it is run as; a coordinator of before does not say it",
        ]
    ]
    timeout: Annotated[float, seconds(limits.TIMEOUT_S), "as in the request"]
    grace: NotRequired[
        Annotated[
            float,
            seconds(limits.GRACE_S),
            Default(limits.DEFAULT_GRACE_S),
            "as in the request; a coordinator of before does not say it",
        ]
    ]
    stdin: Annotated[Text, "standard input"]
    args: Annotated[Texts, "texts for `sys.argv[1:]`"]
    issued: NotRequired[Annotated[object, loose(NUMBER), "when it was asked for, in Unix seconds"]]
    expires_at: NotRequired[
        Annotated[
            Number | None,
            Default(None),
            "the earlier of the time that `expires` is estimated to end at, and of the request's "
            "`expires_at`; null where there is neither",
        ]
    ]
    start: NotRequired[
        Annotated[
            Annotated[Json, START_OBJECT] | None,
            Default(None),
            "null, or at which instant it begins (section 6)",
        ]
    ]
    files: NotRequired[
        Annotated[
            SentFiles, Default({}), "put into the run's folder before it starts; only where any are"
        ]
    ]
    collect: NotRequired[
        Annotated[
            Patterns, Default([]), "patterns of the files that come back; only where there are any"
        ]
    ]
    max_message: NotRequired[
        Annotated[
            Count | None,
            Default(None),
            "bytes that the broker is known to take, where that is less than 4 MiB: then no "
            "message of the device is larger",
        ]
    ]
    journal: NotRequired[
        Annotated[
            object | None,
            loose(ID),
            "only in a signed one: the journal of the device that was last heard of, or null",
        ]
    ]


class SealFields(TypedDict):
    """On ``command``, from a coordinator with a signing key."""

    v: Annotated[int, _VERSION, "the same as inside"]
    signed: Annotated[Text, "the JSON text of the fields above"]
    key: Annotated[Text, "the public key, `ed25519:` and the base64 of its 32 bytes"]
    sig: Annotated[Text, "the base64 of the Ed25519 signature over the UTF-8 bytes of `signed`"]


ENVELOPE: Final = Schema.of("the envelope", EnvelopeFields)
SEAL: Final = Schema.of("the envelope", SealFields)
_TEXT_OF_SEAL: Final = SEAL.part("v", "signed")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A program for the device, as it was read (docs/protocol.md, section 5). Times are seconds."""

    id: str
    user: str
    epoch: int
    seq: int
    program: str
    timeout: float
    stdin: str
    args: tuple[str, ...]
    expires_at: float | None = None
    signed_by: str = ""  # the key whose signature this device has verified
    name: str = limits.DEFAULT_NAME  # of the file that is run
    grace: float = limits.DEFAULT_GRACE_S  # seconds; the end of a run takes at most half of it
    max_message: int | None = None  # bytes that the broker takes; None: nobody knows of less
    start: StartOrder | None = None  # None: it begins as soon as it is granted
    files: Files = ()  # that go into the run's folder, with their bytes
    collect: tuple[str, ...] = ()  # patterns of the files that come back


@dataclass(frozen=True, slots=True)
class Seal:
    """What a signed envelope says beside its fields: who signed which text, and for which journal.

    Nothing of this is verified here; only what is inside ``text`` counts.
    """

    text: str
    key: str
    signature: str
    journal: str | None


def needs_second(request: Request) -> bool:
    """Whether only a device of version 2 can run it."""
    return bool(request.start or request.files or request.collect)


def envelope_json(
    record: Record, max_message: int = limits.MAX_MESSAGE, contents: Contents = NO_CONTENTS
) -> Json:
    """What the device is sent while the record is in state 1 (docs/protocol.md, section 5).

    ``max_message``: bytes that the broker is known to take; said where that is less than usual.
    ``contents``: of the files that do not have their bytes with them; ``KeyError``: one lacks.
    """
    command = record.current or NO_COMMAND
    request = command.request
    fields: EnvelopeFields = {
        "v": 2 if needs_second(request) else 1,
        "id": command.id,
        "user": record.user,
        "epoch": record.epoch,
        "seq": record.seq,
        "program": request.program,
        "name": command.name,
        "timeout": request.timeout,
        "grace": request.grace,
        "stdin": request.stdin,
        "args": request.args,
        "issued": command.issued,
        "expires_at": record.deadline_wall,
        "start": start_order_json(command),
    }
    if request.files:
        fields["files"] = files_json(request.files, contents)
    if request.collect:
        fields["collect"] = list(request.collect)
    if max_message < limits.MAX_MESSAGE:
        fields["max_message"] = max_message
    return cast(Json, fields)


def encode_envelope(
    record: Record, max_message: int = limits.MAX_MESSAGE, contents: Contents = NO_CONTENTS
) -> bytes:
    """The same as it is published by a coordinator that signs nothing."""
    return dumps(envelope_json(record, max_message, contents)).encode()


def envelope_size(record: Record, *, signed: bool) -> int:
    """About how many bytes its envelope has, rather more than fewer; ``signed``: by a key."""
    files = (record.current or NO_COMMAND).request.files
    fields = envelope_json(record, contents={one.sha256: b"" for one in files})
    more = _NUMBERS + sum(base64_size(one.size) for one in files)
    if not signed:
        return len(dumps(fields).encode()) + more
    text = dumps(fields | {"journal": "j" * 64})
    return len(encode_signed(text, "k" * 52, "s" * 88, fields["v"])) + more


def above_limit(record: Record, most: int, *, signed: bool) -> str:
    """What its envelope has against a limit of the broker; empty where it can be sent."""
    if most >= limits.MAX_MESSAGE:
        return ""
    length = envelope_size(record, signed=signed)
    if length <= most:
        return ""
    return f"its message has {length} bytes, and the broker takes at most {most}"


def encode_signed(text: str, key: str, signature: str, version: int = 1) -> bytes:
    """A signed envelope: ``text`` has the fields, ``key`` is the public key that verifies it.

    ``version``: as in the fields.
    """
    fields: SealFields = {"v": version, "signed": text, "key": key, "sig": signature}
    return dumps(fields).encode()


def read_envelope(payload: bytes) -> Envelope | None:
    """The envelope, or None: a person's plain program, or one that this version cannot run."""
    obj = read_object(payload)
    if obj is not None and "signed" in obj:
        obj = _inside(obj)
    if obj is None:
        return None
    try:
        fields = ENVELOPE.read(obj)
    except Refused:
        return None
    said = fields["start"]
    start = None if said is None else read_start_order(said)
    try:
        files = read_files(fields["files"], fields["name"])
    except Refused:
        return None
    second = start is not None or bool(files) or bool(fields["collect"])
    if (fields["v"] == 2) != second or (said is not None and start is None):
        return None  # it needs what this version does not know
    return Envelope(
        fields["id"],
        fields["user"],
        fields["epoch"],
        fields["seq"],
        fields["program"],
        float(fields["timeout"]),
        fields["stdin"],
        tuple(fields["args"]),
        fields["expires_at"],
        name=fields["name"],
        grace=float(fields["grace"]),
        max_message=fields["max_message"],
        start=start,
        files=files,
        collect=tuple(fields["collect"]),
    )


def read_seal(payload: bytes) -> Seal | None:
    """The seal of a signed envelope, or None where it is not signed."""
    outer = read_object(payload)
    if outer is None or not SEAL.holds(outer):
        return None
    inner = _inside(outer)
    journal = None if inner is None else inner.get("journal")
    if inner is None or not isinstance(journal, str | None):
        return None
    return Seal(outer["signed"], outer["key"], outer["sig"], journal)


def _inside(outer: Json) -> Json | None:
    """The fields of the signed text."""
    return read_object(outer["signed"].encode()) if _TEXT_OF_SEAL.holds(outer) else None
