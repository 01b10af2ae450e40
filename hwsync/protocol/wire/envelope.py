"""The envelope: a program for the device, signed or not (docs/protocol.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps, is_count, is_number
from hwsync.protocol.record import NO_COMMAND, Record
from hwsync.protocol.wire.schema import are_counts, are_texts, read_object

Json = dict[str, Any]

_NUMBERS: Final = 64  # bytes by which an envelope's numbers may grow while it waits


@dataclass(frozen=True, slots=True)
class Envelope:
    """A program for the device."""

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


@dataclass(frozen=True, slots=True)
class Seal:
    """What a signed envelope says beside its fields: who signed which text, and for which journal.

    Nothing of this is verified here; only what is inside ``text`` counts.
    """

    text: str
    key: str
    signature: str
    journal: str | None


def envelope_json(record: Record, max_message: int = limits.MAX_MESSAGE) -> Json:
    """What the device is sent while the record is in state 1 (docs/protocol.md, section 5).

    ``max_message``: bytes that the broker is known to take; said where that is less than usual.
    """
    command = record.current or NO_COMMAND
    request = command.request
    return {
        "v": 1,
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
        "expires_at": record.deadline,
        "start": None,
        **({"max_message": max_message} if max_message < limits.MAX_MESSAGE else {}),
    }


def encode_envelope(record: Record, max_message: int = limits.MAX_MESSAGE) -> bytes:
    """The same as it is published by a coordinator that signs nothing."""
    return dumps(envelope_json(record, max_message)).encode()


def envelope_size(record: Record, *, signed: bool) -> int:
    """About how many bytes its envelope has, rather more than fewer; ``signed``: by a key."""
    fields = envelope_json(record)
    if not signed:
        return len(dumps(fields).encode()) + _NUMBERS
    return len(encode_signed(dumps(fields | {"journal": "j" * 64}), "k" * 52, "s" * 88)) + _NUMBERS


def encode_signed(text: str, key: str, signature: str) -> bytes:
    """A signed envelope: ``text`` has the fields, ``key`` is the public key that verifies it."""
    return dumps({"v": 1, "signed": text, "key": key, "sig": signature}).encode()


def read_envelope(payload: bytes) -> Envelope | None:
    """The envelope, or None: a person's plain program, or one that this version cannot run."""
    obj = _inside(read_object(payload))
    if obj is None or obj.get("v") != 1:
        return None
    try:
        envelope = Envelope(
            obj["id"],
            obj["user"],
            obj["epoch"],
            obj["seq"],
            obj["program"],
            float(obj["timeout"]),
            obj["stdin"],
            tuple(obj["args"]),
            obj.get("expires_at"),
            name=obj.get("name", limits.DEFAULT_NAME),
            grace=float(obj.get("grace", limits.DEFAULT_GRACE_S)),
            max_message=obj.get("max_message"),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    # Of ``args`` the list itself: a text would be a tuple of letters, and so sound.
    runs = isinstance(obj["args"], list) and obj.get("start") is None
    return envelope if runs and _is_sound(envelope) else None


def read_seal(payload: bytes) -> Seal | None:
    """The seal of a signed envelope, or None where it is not signed."""
    outer = read_object(payload)
    inner = _inside(outer)
    if outer is None or inner is None or outer is inner:
        return None
    key, signature, journal = outer.get("key"), outer.get("sig"), inner.get("journal")
    if not are_texts(key, signature) or not isinstance(journal, str | None):
        return None
    return Seal(outer["signed"], str(key), str(signature), journal)


def _inside(outer: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields that count: those of the signed text, where there is one."""
    if outer is None or outer.get("v") != 1 or "signed" not in outer:
        return outer
    return read_object(outer["signed"].encode()) if are_texts(outer["signed"]) else None


def _is_sound(envelope: Envelope) -> bool:
    """Whether each value is one that a coordinator may send."""
    return (
        limits.is_id(envelope.id)
        and limits.is_user(envelope.user)
        and are_counts(envelope.epoch, envelope.seq)
        and are_texts(envelope.program, envelope.stdin, *envelope.args)
        and limits.is_name(envelope.name)
        and limits.TIMEOUT_S[0] <= envelope.timeout <= limits.TIMEOUT_S[1]
        and limits.GRACE_S[0] <= envelope.grace <= limits.GRACE_S[1]
        and (envelope.expires_at is None or is_number(envelope.expires_at))
        and (envelope.max_message is None or is_count(envelope.max_message))
    )
