"""What devices and operators read and write: the other side of ``messages``; and the error.

The coordinator wrote an envelope or a status by the protocol, so a reader here takes what it needs
and passes over the rest; what cannot be read is None, and the caller says so (docs/protocol.md,
sections 1 and 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.effects import PublishError
from hwsync.protocol.jsons import cut, dumps, is_count, is_number, loads, size
from hwsync.protocol.output import fitted, keep_again
from hwsync.protocol.record import Account


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


@dataclass(frozen=True, slots=True)
class Status:
    """A retained status: what a device and an operator's client act on; ``fields`` has it all."""

    id: str
    state: int
    epoch: int
    seq: int
    journal: str | None
    boot: int | None
    start_at: float | None
    cancelling: bool
    settled: tuple[tuple[str, str], ...]
    fields: Mapping[str, Any]

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, seq): whatever is older than what was already seen is stale."""
        return (self.epoch, self.seq)


def read_object(payload: bytes) -> dict[str, Any] | None:
    """The JSON object of a payload, or None where it is none, or above ``MAX_MESSAGE``."""
    if len(payload) > limits.MAX_MESSAGE:
        return None
    try:
        obj = loads(payload.decode())
    except ValueError:
        return None
    return obj if isinstance(obj, dict) else None


def read_seal(payload: bytes) -> Seal | None:
    """The seal of a signed envelope, or None where it is not signed."""
    outer = read_object(payload)
    inner = _inside(outer)
    if outer is None or inner is None or outer is inner:
        return None
    key, signature, journal = outer.get("key"), outer.get("sig"), inner.get("journal")
    if not _texts(key, signature) or not isinstance(journal, str | None):
        return None
    return Seal(outer["signed"], str(key), str(signature), journal)


def _inside(outer: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields that count: those of the signed text, where there is one."""
    if outer is None or outer.get("v") != 1 or "signed" not in outer:
        return outer
    return read_object(outer["signed"].encode()) if _texts(outer["signed"]) else None


def _is_sound(envelope: Envelope) -> bool:
    """Whether each value is one that a coordinator may send."""
    return (
        limits.is_id(envelope.id)
        and limits.is_user(envelope.user)
        and _counts(envelope.epoch, envelope.seq)
        and _texts(envelope.program, envelope.stdin, *envelope.args)
        and limits.is_name(envelope.name)
        and limits.TIMEOUT_S[0] <= envelope.timeout <= limits.TIMEOUT_S[1]
        and limits.GRACE_S[0] <= envelope.grace <= limits.GRACE_S[1]
        and (envelope.expires_at is None or is_number(envelope.expires_at))
        and (envelope.max_message is None or is_count(envelope.max_message))
    )


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


def encode_error(effect: PublishError) -> bytes:
    """Why a message was refused, as it is published (docs/protocol.md, section 3)."""
    refusal = effect.refusal
    return dumps(
        {
            "error": refusal.code,
            "message": refusal.message,
            "hint": refusal.hint,
            "topic": effect.topic,
            "id": refusal.id,
            "journal": refusal.journal,
            "state": int(effect.state),
        }
    ).encode()


def read_status(payload: bytes) -> Status | None:
    """The status, or None where it is none (a cleared one is empty)."""
    obj = read_object(payload)
    if obj is None:
        return None
    try:
        status = Status(
            obj["id"],
            obj["state"],
            obj["epoch"],
            obj["seq"],
            obj["journal"],
            obj["boot"],
            obj["start_at"],
            bool(obj["cancelling"]),
            tuple((pair[0], pair[1]) for pair in obj["settled"]),
            obj,
        )
    except (KeyError, TypeError, IndexError):
        return None
    sound = (
        _texts(status.id, *(text for pair in status.settled for text in pair))
        and (status.journal is None or limits.is_id(status.journal))
        and _counts(status.state, status.epoch, status.seq)
        and (status.boot is None or is_count(status.boot))
    )
    return status if sound else None


def _texts(*values: object) -> bool:
    """Texts that UTF-8 can carry: half a surrogate pair, which JSON can spell, is none."""
    try:
        return all(isinstance(value, str) and size(value) >= 0 for value in values)
    except ValueError:
        return False


def _counts(*values: object) -> bool:
    return all(is_count(value) for value in values)


def encode_request(program: str, **keys: object) -> bytes:
    """A structured request; the keys are those of docs/protocol.md, section 4."""
    return dumps({"program": program, **keys}).encode()


def encode_collected(id: str, journal: str, boot: int) -> bytes:
    """ "I have it, it has not started"."""
    return dumps({"id": id, "journal": journal, "boot": boot}).encode()


def encode_result(
    id: str, journal: str, boot: int, account: Account, limit: int = limits.MAX_MESSAGE
) -> bytes:
    """The device's account of a run in at most ``limit`` bytes, its texts cut to fit.

    In the last resort only the bare outcome stays, which has less than a kilobyte.
    """
    named = {"id": id, "journal": journal, "boot": boot}
    fields = {
        **named,
        "outcome": account.outcome,
        "ran": account.ran,
        "reason": account.reason,
        "response": account.response,
        "stderr": account.stderr,
        "exit_code": account.exit_code,
        "duration": account.duration,
        "started": account.started,
        "start_error": account.start_error,
        "clock_bound": account.clock_bound,
        "truncated": account.truncated,
        "sha256": {"stdout": account.sha256_stdout, "stderr": account.sha256_stderr},
        **({} if account.order is None else {"order": account.order}),
    }

    def shortened(share: int) -> dict[str, object]:
        texts = (("response", account.response), ("stderr", account.stderr))
        less = {name: keep_again(text, share, account.truncated) for name, text in texts}
        return {**less, "truncated": True, "order": None}

    def last() -> dict[str, object]:
        bare = ("outcome", "ran", "exit_code", "duration", "started", "sha256")
        reason = cut(account.reason, limits.STATUS_FIRST // 16)
        return {**named, **{key: fields[key] for key in bare}, "reason": reason, "truncated": True}

    return fitted(fields, limit, limit // 2, shortened, last)


def encode_heartbeat(*, online: bool, journal: str, boot: int, **more: object) -> bytes:
    """The retained heartbeat, or (``online`` false) the will."""
    return dumps({"online": online, "journal": journal, "boot": boot, **more}).encode()


def encode_output(id: str, n: int, stream: str, text: str, at: int, skipped: int = 0) -> bytes:
    """One numbered piece of live output: ``at`` and ``skipped`` are bytes of its stream."""
    piece = {"id": id, "n": n, "stream": stream, "text": text, "at": at}
    return dumps({**piece, "skipped": skipped} if skipped else piece).encode()


def encode_id(id: str | None) -> bytes:
    """A cancel, reset or query: empty, or naming its command."""
    return b"" if id is None else dumps({"id": id}).encode()


def encode_reset(id: str | None, *, queue: bool) -> bytes:
    """A reset, which may empty the queue too."""
    named = {} if id is None else {"id": id}
    return dumps({**named, "queue": True}).encode() if queue else encode_id(id)


FORGET: Final = dumps({"forget": True}).encode()
"""A reset of a user who was a typing error."""


def encode_analysis(text: str, id: str | None) -> bytes:
    """An analysis in text for that command, or for the current one."""
    return dumps({"analysis": text, **({} if id is None else {"id": id})}).encode()
