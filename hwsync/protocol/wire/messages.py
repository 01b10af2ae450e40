"""Payloads into events: what the coordinator hears (docs/protocol.md, sections 3 to 5).

The law: the checks run in one order (user, retained, size, UTF-8, JSON and fields, id), the first
that fails names the error, and the error carries the message's id and journal where they can be
read. What a device says of a finished run is never refused for its size: it is cut and marked, and
never for an order that does not fit its texts: that is dropped.
"""

from __future__ import annotations

import hashlib
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from typing import Any, Final

from hwsync.protocol import limits, replies
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    Collected,
    Event,
    HeartbeatHeard,
    Ignored,
    Message,
    Queried,
    Requested,
    ResetAsked,
    Returned,
    StatusHeard,
)
from hwsync.protocol.jsons import MAX_INT, begins_object, dumps, is_count, loads, size
from hwsync.protocol.output import Order, keep_ends
from hwsync.protocol.record import RAN_BY_OUTCOME, Account, Analyser, Outcome, Ran, Request
from hwsync.protocol.topics import Kind, Topics
from hwsync.protocol.wire.schema import Fields, bounded

LATER: Final = "this version of hwsync does not have it"
_DEVICE_OUTCOMES: Final = frozenset(Outcome) - {Outcome.EXPIRED, Outcome.LOST}
_ANALYSERS: Final = frozenset(Analyser)
_HEXADECIMAL: Final = frozenset("0123456789abcdef")
_REQUEST_KEYS: Final = frozenset(
    [
        "program",
        "name",
        "id",
        "timeout",
        "expires",
        "expires_at",
        "grace",
        "queue",
        "stdin",
        "args",
        "analysis",
        "start",
        "meta",
    ]
)


_Read = Event | HeartbeatHeard | StatusHeard | Ignored
_Reader = Callable[[bytes], _Read]


def read(message: Message, topics: Topics) -> _Read:
    """The event that a message means. Raises ``Refused``."""
    user, kind = topics.split(message.topic)
    reader = _READERS.get(kind) if kind else None
    if reader is None:
        return Ignored("not a topic that the coordinator reads")
    if user.startswith("@"):
        raise Refused(Code.NOT_ALLOWED, f"{user} is a group: {LATER}", "name one board")
    if not limits.is_user(user):
        raise Refused(
            Code.BAD_USER,
            f"{user[:80]!r} is no board's name",
            limits.USER_FORM,
        )
    kept = message.retain and kind not in (Kind.HEARTBEAT, Kind.STATUS)
    event = _retained(message, kind, reader) if kept else reader(message.payload)
    if isinstance(event, Requested) and message.reply:
        replies.check(message.reply, topics.root, event.id)
        event = Requested(event.request, message.reply)
    return event


def _retained(message: Message, kind: Kind | None, reader: _Reader) -> _Read:
    """What a message means that comes again at every reconnect: only what names an id may.

    And no cancel or reset: whoever retained one did not mean every coordinator to come.
    """
    if not message.payload:
        return Ignored("an empty retained message clears one")
    stops = kind in (Kind.CANCEL, Kind.RESET)
    refusal = Refused(
        Code.RETAINED,
        f"a retained message {'' if stops else 'without an id '}on {message.topic}",
        f"it would be performed again at every reconnect: clear it with mosquitto_pub -r -n "
        f"-q 1 -t {message.topic} (on a broker without MQTT 5 clearing performs a reset, cancel "
        f"or collected once more), and publish without -r",
    )
    try:
        event = reader(message.payload)
    except Refused as error:
        if stops or error.id is None:
            raise refusal.about(error.id) from None
        raise
    if isinstance(event, HeartbeatHeard | StatusHeard | Ignored):
        return event
    if stops or event.id is None:
        raise refusal.about(event.id)
    return event


def named(message: Message, topics: Topics) -> str | None:
    """The id that a message names, where it can be read."""
    try:
        event = read(message, topics)
    except Refused as refusal:
        return refusal.id
    return None if isinstance(event, HeartbeatHeard | StatusHeard | Ignored) else event.id


def is_query(message: Message, topics: Topics) -> bool:
    """Whether this is a query that can be read: it changes nothing."""
    _, kind = topics.split(message.topic)
    if kind is not Kind.QUERY:
        return False
    try:
        return isinstance(read(message, topics), Queried)
    except Refused:
        return False


def _text(payload: bytes) -> str:
    if len(payload) > limits.MAX_MESSAGE:
        raise Refused(
            Code.TOO_LARGE,
            f"a message of {len(payload)} bytes",
            f"at most {limits.MAX_MESSAGE} bytes",
        )
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"the payload is not UTF-8: byte {error.start} is 0x{payload[error.start]:02x}",
            "send UTF-8 text",
        ) from None


def _request(payload: bytes) -> Requested | Ignored:
    if not payload:
        return Ignored("an empty message clears a retained one")
    text = _text(payload)
    obj: Any = None
    if begins_object(text):
        try:
            obj = loads(text)
        except ValueError as error:
            if '"program"' in text:
                raise Refused(
                    Code.BAD_PAYLOAD,
                    f"the request looks like JSON but is none: {error}",
                    "mend the JSON; a program in plain text must not begin with { and contain "
                    '"program"',
                ) from None
    if isinstance(obj, dict) and "program" in obj:
        return Requested(_structured(Fields(obj, "the request")))
    return Requested(Request(bounded(text, limits.MAX_PROGRAM, "the program")))


def _structured(fields: Fields) -> Request:
    fields.only(_REQUEST_KEYS)
    ident = fields.ident("id") if fields.obj.get("id") is not None else None
    queue = fields.boolean("queue")
    if queue and ident is None:
        raise fields.refuse(
            Code.BAD_PAYLOAD, "'queue' needs an id", "name one, to ask for it and to cancel it by"
        )
    if fields.obj.get("start") is not None:
        raise fields.refuse(Code.NOT_ALLOWED, f"'start': {LATER}", "leave the key out")
    program = fields.text("program", limit=limits.MAX_PROGRAM)
    stdin, args, meta = _extras(fields)
    analysis = fields.obj.get("analysis")
    if analysis is not None and (not isinstance(analysis, str) or analysis not in _ANALYSERS):
        raise fields.refuse(
            Code.BAD_PAYLOAD,
            f"no analyser is called {str(analysis)[:40]!r}",
            "there are " + ", ".join(Analyser),
        )
    return Request(
        program,
        ident,
        fields.number("timeout", limits.DEFAULT_TIMEOUT_S, limits.TIMEOUT_S),
        fields.number("expires", limits.DEFAULT_EXPIRES_S, limits.EXPIRES_S, zero=True),
        fields.number("grace", limits.DEFAULT_GRACE_S, limits.GRACE_S),
        stdin,
        args,
        analysis,
        meta,
        queue,
        fields.name("name"),
        fields.instant("expires_at"),
    )


def _extras(fields: Fields) -> tuple[str, tuple[str, ...], str]:
    """stdin, args and meta, which have one limit together; ``meta`` as compact JSON."""
    args = fields.obj.get("args", [])
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        raise fields.refuse(Code.BAD_PAYLOAD, "'args' must be a list of texts")
    stdin = fields.text("stdin")
    try:
        meta = dumps(fields.obj.get("meta", {}))
        extras = size(stdin) + sum(size(arg) for arg in args) + size(meta)
    except ValueError as error:
        raise fields.refuse(Code.BAD_PAYLOAD, f"'args' or 'meta': {error}") from None
    if any("\0" in arg for arg in args):
        raise fields.refuse(Code.BAD_PAYLOAD, "'args' contains a NUL, which no program can get")
    if extras > limits.MAX_EXTRAS:
        raise fields.refuse(
            Code.TOO_LARGE,
            f"stdin, args and meta have {extras} bytes together",
            f"at most {limits.MAX_EXTRAS} bytes",
        )
    return stdin, tuple(args), meta


def _command(payload: bytes) -> Requested | Ignored:
    if payload.removeprefix(BOM_UTF8)[:1] == b"{":
        try:
            obj = loads(payload.decode())
        except ValueError:
            obj = None
        if isinstance(obj, dict) and "v" in obj:
            return Ignored("an envelope is for the device")
    return _request(payload)


def _object(payload: bytes, what: str, example: str) -> Fields:
    try:
        obj = loads(_text(payload))
    except ValueError as error:
        raise Refused(Code.BAD_PAYLOAD, f"{what} is no JSON: {error}", example) from None
    if not isinstance(obj, dict):
        raise Refused(Code.BAD_PAYLOAD, f"{what} must be a JSON object", example)
    return Fields(obj, what)


def _collected(payload: bytes) -> Collected:
    if not payload:
        return Collected()
    fields = _object(
        payload, "collected", 'by hand send it empty; a device sends {"id", "journal", "boot"}'
    )
    return Collected(fields.ident("id"), fields.ident("journal"), _boot(fields))


def _boot(fields: Fields) -> int:
    boot = fields.integer("boot", MAX_INT)
    if boot is None or boot < 0:
        raise fields.refuse(Code.BAD_PAYLOAD, "'boot' must be a whole number from 0")
    return boot


def _response(payload: bytes) -> Returned:
    text = _text(payload)
    obj: Any = None
    if begins_object(text):
        try:
            obj = loads(text)
        except ValueError as error:
            raise Refused(
                Code.BAD_PAYLOAD,
                f"the response looks like JSON but is none: {error}",
                "mend the JSON; plain text must not begin with {",
            ) from None
    if isinstance(obj, dict) and "outcome" in obj:
        return _result(Fields(obj, "the result"))
    answer = bounded(text, limits.MAX_RESPONSE, "the response")
    return Returned(Account(Outcome.OK, Ran.YES, response=answer))


def _result(fields: Fields) -> Returned:
    """A device's result. Keys of later versions are passed over: a result is never lost by one."""
    ident, journal, boot = fields.ident("id"), fields.ident("journal"), _boot(fields)
    outcome = fields.obj["outcome"]
    if not isinstance(outcome, str) or outcome not in _DEVICE_OUTCOMES:
        raise fields.refuse(
            Code.BAD_PAYLOAD,
            "'outcome' is none that a device can give",
            "one of " + ", ".join(sorted(_DEVICE_OUTCOMES)),
        )
    implied = RAN_BY_OUTCOME.get(Outcome(outcome))
    ran = fields.obj.get("ran", implied)
    if not isinstance(ran, str) or ran not in frozenset(Ran) or (implied and ran != implied):
        must = implied or "yes, no or maybe"
        raise fields.refuse(Code.BAD_PAYLOAD, f"'ran' must be {must} with {outcome!r}")
    response, stderr = fields.text("response"), fields.text("stderr")
    sha256 = fields.obj.get("sha256")
    hashes = sha256 if isinstance(sha256, dict) else {}
    kept, response_cut = keep_ends(response, limits.MAX_RESPONSE)
    kept_stderr, stderr_cut = keep_ends(stderr, limits.MAX_STDERR)
    truncated = fields.boolean("truncated") or response_cut or stderr_cut
    account = Account(
        Outcome(outcome),
        Ran(ran),
        " ".join(fields.text("reason").split())[: limits.MAX_REASON],
        kept,
        kept_stderr,
        fields.integer("exit_code", 2**32),
        fields.optional("duration"),
        fields.optional("started"),
        fields.optional("start_error"),
        fields.optional("clock_bound"),
        truncated,
        _hash(hashes.get("stdout"), None if truncated else response),
        _hash(hashes.get("stderr"), None if truncated else stderr),
        _order(fields.obj.get("order"), {"stdout": size(kept), "stderr": size(kept_stderr)}),
    )
    return Returned(account, ident, journal, boot)


def _order(value: object, sizes: Mapping[str, int]) -> Order | None:
    """The order of a result; None where it is none of these texts, whose bytes are ``sizes``."""
    if not isinstance(value, list) or len(dumps(value)) > limits.MAX_ORDER:
        return None
    if not all(map(_is_part, value)):
        return None
    order = tuple((stream, count) for stream, count in value)
    sums = {name: sum(count for stream, count in order if stream == name) for name in sizes}
    return order if sums == sizes else None


def _is_part(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and value[0] in ("stdout", "stderr")
        and is_count(value[1])
        and value[1] > 0
    )


def _hash(value: object, text: str | None) -> str:
    """A SHA-256 in hexadecimal; anything else, or one of another text, is no hash of it.

    ``text``: None where it is not whole. Bytes that were no UTF-8 were replaced in it: then nobody
    can compare.
    """
    if not (isinstance(value, str) and len(value) == 64 and not set(value) - _HEXADECIMAL):
        return ""
    if text is None or "\ufffd" in text or hashlib.sha256(text.encode()).hexdigest() == value:
        return value
    return ""


def _analysis(payload: bytes) -> Analysed | Ignored:
    if not payload:
        return Ignored("an empty message clears a retained one")
    text = _text(payload)
    obj: Any = None
    if begins_object(text):
        try:
            obj = loads(text)
        except ValueError:
            obj = None
    if not isinstance(obj, dict) or "analysis" not in obj:
        return Analysed(bounded(text, limits.MAX_ANALYSIS, "the analysis"))
    fields = Fields(obj, "the analysis")
    fields.only(frozenset(("analysis", "id")))
    ident = fields.ident("id") if obj.get("id") is not None else None
    value = obj["analysis"]
    try:
        stored = value if isinstance(value, str) else dumps(value)
        return Analysed(bounded(stored, limits.MAX_ANALYSIS, "the analysis"), ident)
    except ValueError as error:
        raise fields.refuse(Code.BAD_PAYLOAD, str(error)) from None
    except Refused as error:
        raise fields.named(error) from None


def _cancel(payload: bytes) -> CancelAsked:
    return CancelAsked(_only_id(payload, "the cancel"))


def _reset(payload: bytes) -> ResetAsked:
    if not payload:
        return ResetAsked()
    fields = _object(payload, "the reset", 'send it empty, {"id": "…"} or {"queue": true}')
    fields.only(frozenset(("id", "queue", "forget")))
    queue = fields.boolean("queue")
    if fields.boolean("forget"):
        if queue or "id" in fields.obj:
            raise fields.refuse(
                Code.BAD_PAYLOAD,
                "'forget' stands alone",
                'first {"queue": true}, then {"forget": true}',
            )
        return ResetAsked(forget=True)
    ident = fields.ident("id") if "id" in fields.obj or not queue else None
    return ResetAsked(ident, queue)


def _query(payload: bytes) -> Queried:
    return Queried(_only_id(payload, "the query"))


def _only_id(payload: bytes, what: str) -> str | None:
    if not payload:
        return None
    fields = _object(payload, what, 'send it empty, or {"id": "…"}')
    fields.only(frozenset(("id",)))
    return fields.ident("id")


def _heartbeat(payload: bytes) -> HeartbeatHeard | Ignored:
    if not payload:
        return Ignored("a cleared heartbeat")
    fields = _object(payload, "the heartbeat", 'a device sends {"online", "journal", "boot", …}')
    journal, boot = fields.ident("journal"), _boot(fields)
    if not isinstance(fields.obj.get("online"), bool):
        raise fields.refuse(Code.BAD_PAYLOAD, "'online' must be true or false")
    seen = fields.obj.get("seen")
    if seen is not None:
        if not isinstance(seen, list) or len(seen) != 2 or not all(map(is_count, seen)):
            raise fields.refuse(Code.BAD_PAYLOAD, "'seen' must be [epoch, seq]")
        seen = (seen[0], seen[1])
    return HeartbeatHeard(fields.obj["online"], journal, boot, seen)


def _status(payload: bytes) -> StatusHeard | Ignored:
    """The coordinator's own word: whatever else stands there is nobody's."""
    try:
        obj = loads(_text(payload))
    except (ValueError, Refused):
        obj = None
    order = (obj.get("epoch"), obj.get("seq")) if isinstance(obj, dict) else (None, None)
    return StatusHeard(order) if all(map(is_count, order)) else Ignored("no status")  # type: ignore[arg-type]


_READERS: Final[Mapping[Kind, _Reader]] = {
    Kind.REQUEST: _request,
    Kind.COMMAND: _command,
    Kind.COLLECTED: _collected,
    Kind.RESPONSE: _response,
    Kind.ANALYSIS: _analysis,
    Kind.CANCEL: _cancel,
    Kind.RESET: _reset,
    Kind.QUERY: _query,
    Kind.HEARTBEAT: _heartbeat,
    Kind.STATUS: _status,
}
