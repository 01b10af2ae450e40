"""The request: what an operator asks for (docs/protocol.md, section 4).

The law: a text that is no JSON object with the key ``program`` is a program. An unknown key is
refused, since its sender counts on what it says.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypedDict

from hwsync.protocol import limits
from hwsync.protocol.batch import NO_OPTIONS, Options
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import dumps, is_count, is_number, loads, size
from hwsync.protocol.record import Analyser, Reply, Request, Start
from hwsync.protocol.wire.files import Patterns, SentFiles, bare, contents_of, read_files
from hwsync.protocol.wire.forms import (
    ANYTHING,
    Flag,
    Id,
    Instant,
    Name,
    Text,
    as_float,
    bounded,
    named,
    seconds,
    text,
)
from hwsync.protocol.wire.schema import (
    CLEARS,
    Default,
    Doubt,
    Form,
    Json,
    Schema,
    object_in,
    text_of,
)
from hwsync.protocol.wire.start import START_OBJECT, read_start

if TYPE_CHECKING:
    from hwsync.protocol import events


def _no_args(key: str, value: Any) -> Doubt:
    if isinstance(value, list) and all(isinstance(arg, str) for arg in value):
        return Code.BAD_PAYLOAD, f"{key!r} contains a NUL, which no program can get", ""
    return Code.BAD_PAYLOAD, f"{key!r} must be a list of texts", ""


def _are_args(value: Any) -> bool:
    # Half a character is found where their sizes are added.
    return isinstance(value, list) and all(
        isinstance(arg, str) and "\0" not in arg for arg in value
    )


def _no_analyser(key: str, value: Any) -> Doubt:
    hint = f"{named(list(Analyser))}, or an analyst's: {limits.ANALYSER_FORM}".replace("`", "")
    return Code.BAD_PAYLOAD, f"no analyser is called {str(value)[:40]!r}", hint


_ARGS: Final = Form("list of texts", _are_args, _no_args)
_ANALYSER: Final = Form("name of an analyser", limits.is_analyser, _no_analyser)


def _are_boards(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= limits.MAX_BATCH_LIST
        and all(map(limits.is_user, value))
        and len(set(value)) == len(value)
    )


def _no_boards(key: str, value: Any) -> Doubt:
    most = f"1 to {limits.MAX_BATCH_LIST:,} names of boards, each once"
    return Code.BAD_PAYLOAD, f"{key!r} must be a list of {most}", limits.USER_FORM


def _no_parallel(key: str, value: Any) -> Doubt:
    return Code.BAD_PAYLOAD, f"{key!r} must be a whole number from 1 to {limits.MAX_USERS:,}", ""


def _no_share(key: str, value: Any) -> Doubt:
    return Code.BAD_PAYLOAD, f"{key!r} must be a share of all boards, 0 to 1", "half of them is 0.5"


_BOARDS: Final = Form("list of names of boards", _are_boards, _no_boards)
_PARALLEL: Final = Form(
    f"integer, 1 to {limits.MAX_USERS:,}",
    lambda value: is_count(value) and 1 <= value <= limits.MAX_USERS,
    _no_parallel,
)
_SHARE: Final = Form(
    "number, 0 to 1", lambda value: is_number(value) and 0 <= value <= 1, _no_share
)


class RequestFields(TypedDict):
    """On ``request``, and on ``command`` by hand."""

    program: Annotated[str, text(limits.MAX_PROGRAM), "the program's text"]
    name: NotRequired[
        Annotated[
            Name | None,
            Default(None, f"`{limits.DEFAULT_NAME}`"),
            "the file that it is run as: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter, "
            "digit or `_`",
        ]
    ]
    id: NotRequired[
        Annotated[
            Id | None,
            Default(None, "made by the coordinator"),
            "1 to 64 of `A-Z a-z 0-9 . _ : -`, once a board",
        ]
    ]
    timeout: NotRequired[
        Annotated[
            float,
            seconds(limits.TIMEOUT_S),
            Default(limits.DEFAULT_TIMEOUT_S),
            "seconds that the program may run; a device may have a lower maximum of its own",
        ]
    ]
    expires: NotRequired[
        Annotated[
            float,
            seconds(limits.EXPIRES_S, zero=True),
            Default(limits.DEFAULT_EXPIRES_S),
            "seconds until it must be collected; 0: no limit",
        ]
    ]
    expires_at: NotRequired[
        Annotated[
            Instant | None,
            Default(None),
            "time of day, in Unix seconds of the coordinator's clock, before which it must be "
            "collected, too; with `expires` 0 it alone counts",
        ]
    ]
    grace: NotRequired[
        Annotated[
            float,
            seconds(limits.GRACE_S),
            Default(limits.DEFAULT_GRACE_S),
            "seconds beyond `timeout` until a collected command without an answer is `lost`; a "
            "device takes at most half of it to end a program and to bring its files back",
        ]
    ]
    queue: NotRequired[
        Annotated[
            Flag,
            Default(False),
            "wait behind the present command instead of being refused (section 2); needs an `id`",
        ]
    ]
    stdin: NotRequired[Annotated[Text, Default(""), "standard input"]]
    args: NotRequired[
        Annotated[
            list[str],
            _ARGS,
            Default([]),
            "texts for `sys.argv[1:]`; no argument may contain a NUL",
        ]
    ]
    analysis: NotRequired[
        Annotated[
            Annotated[str, _ANALYSER] | None,
            Default(None, "the coordinator's"),
            "who analyses it: `manual`, `outcome`, or what an analyst offers (section 7)",
        ]
    ]
    batch: NotRequired[
        Annotated[
            Annotated[list[str], _BOARDS] | None,
            Default(None),
            "the boards of a batch without a group, this one among them; needs an `id`, and the "
            "same list in each one's request (section 9)",
        ]
    ]
    parallel: NotRequired[
        Annotated[
            Annotated[int, _PARALLEL] | None,
            Default(None),
            "of a group: at most so many boards at the same time; without `queue`",
        ]
    ]
    abort: NotRequired[
        Annotated[
            Annotated[float, _SHARE] | None,
            Default(None),
            "of a group: once more than this share of its boards have ended otherwise than `ok`, "
            "nobody begins any more",
        ]
    ]
    online: NotRequired[
        Annotated[
            Flag,
            Default(False),
            "of a group: boards that are offline now are `missing` at once",
        ]
    ]
    start: NotRequired[
        Annotated[
            Annotated[Json, START_OBJECT] | None,
            Default(None),
            "at which instant it begins (section 6); not with `queue`",
        ]
    ]
    files: NotRequired[
        Annotated[
            SentFiles,
            Default({}),
            "put into the run's folder before it starts, none of them being `name`: at most 64 "
            'files and 1 MiB, decoded (section 5, "Files")',
        ]
    ]
    collect: NotRequired[
        Annotated[
            Patterns,
            Default([]),
            "of the files that come back: in a part of a path `*` is any characters, `?` one, and "
            "`**` as a whole part any number of parts; at most 32, each as a path",
        ]
    ]
    reply: NotRequired[
        Annotated[
            Annotated[str, text(limits.MAX_REPLY_TOPIC)] | None,
            Default(None),
            "`replies/<account>`, or below it: a response topic for who has no MQTT 5 (section 3)",
        ]
    ]
    meta: NotRequired[
        Annotated[
            object,
            ANYTHING,
            Default({}),
            "kept with the command and shown with it; its key `by` says who asks (below)",
        ]
    ]


REQUEST: Final = Schema.of("the request", RequestFields, closed=True)


def extras_size(stdin: str, args: Iterable[str], meta: str) -> int:
    """Bytes of what has one limit together, ``MAX_EXTRAS``; ``meta``: compact JSON.

    Raises ``ValueError`` where one is not to be written as UTF-8.
    """
    return size(stdin) + sum(map(size, args)) + size(meta)


def encode_request(program: str, **keys: object) -> bytes:
    """A structured request; the keys are those of docs/protocol.md, section 4."""
    return dumps({"program": program, **keys}).encode()


def read_request(payload: bytes) -> events.Requested | events.Ignored:
    """What is asked for. Raises ``Refused``."""
    from hwsync.protocol import events

    if not payload:
        return events.Ignored(CLEARS)
    text = text_of(payload)
    obj: Json | None = None
    try:
        obj = object_in(text)
    except ValueError as error:
        if '"program"' in text:
            raise Refused(
                Code.BAD_PAYLOAD,
                f"the request looks like JSON but is none: {error}",
                "mend the JSON; a program in plain text must not begin with { and contain "
                '"program"',
            ) from None
    if obj is not None and "program" in obj:
        return _structured(obj)
    return events.Requested(Request(bounded(text, limits.MAX_PROGRAM, "the program")))


def read_command(payload: bytes) -> events.Requested | events.Ignored:
    """The same on ``command``, where our own envelopes come back. Raises ``Refused``."""
    from hwsync.protocol import events

    if payload.removeprefix(BOM_UTF8)[:1] == b"{":
        try:
            obj = loads(payload.decode())
        except ValueError:
            obj = None
        if isinstance(obj, dict) and "v" in obj:
            return events.Ignored("an envelope is for the device")
    return read_request(payload)


def _structured(obj: dict[str, Any]) -> events.Requested:
    from hwsync.protocol import events

    fields = REQUEST.read(obj)
    ident, queue = fields["id"], fields["queue"]
    for key, there in (("queue", queue), ("batch", fields["batch"] is not None)):
        if there and ident is None:
            raise REQUEST.refuse(
                obj,
                Code.BAD_PAYLOAD,
                f"{key!r} needs an id",
                "name one, to ask for it and to cancel it by",
            )
    for key, there in (("queue", queue), ("start", fields["start"] is not None)):
        if there and fields["parallel"] is not None:
            raise REQUEST.refuse(
                obj,
                Code.BAD_PAYLOAD,
                f"{key!r} and 'parallel' exclude each other",
                "with 'parallel' the boards wait for their place in the batch",
            )
    try:
        meta = dumps(fields["meta"])
        extras = extras_size(fields["stdin"], fields["args"], meta)
    except ValueError as error:
        raise REQUEST.refuse(obj, Code.BAD_PAYLOAD, f"'args' or 'meta': {error}") from None
    if extras > limits.MAX_EXTRAS:
        raise REQUEST.refuse(
            obj,
            Code.TOO_LARGE,
            f"stdin, args and meta have {extras} bytes together",
            f"at most {limits.MAX_EXTRAS} bytes",
        )
    try:
        files = read_files(fields["files"], fields["name"] or limits.DEFAULT_NAME)
    except Refused as refusal:
        raise REQUEST.refuse(obj, refusal.code, refusal.message, refusal.hint) from None
    start, abort, boards = _start(obj, fields), fields["abort"], fields["batch"]
    request = Request(
        program=fields["program"],
        id=ident,
        timeout=float(fields["timeout"]),
        expires=float(fields["expires"]),
        grace=float(fields["grace"]),
        stdin=fields["stdin"],
        args=tuple(fields["args"]),
        analysis=fields["analysis"],
        meta=meta,
        queue=queue,
        name=fields["name"],
        expires_at=as_float(fields["expires_at"]),
        start=start,
        files=bare(files),
        collect=tuple(fields["collect"]),
    )
    options = Options(fields["parallel"], as_float(abort), fields["online"])
    listed = None if boards is None else tuple(boards)
    reply = None if fields["reply"] is None else Reply(fields["reply"])
    contents = contents_of(files)
    return events.Requested(request, reply, listed=listed, options=options, contents=contents)


def check_of_group(event: events.Requested) -> None:
    """Raises ``Refused`` where a request for a group has what only one for a board may have."""
    if event.listed is not None:
        raise Refused(
            Code.BAD_PAYLOAD,
            "the request: 'batch' is for a board's own topic",
            "a group's request goes to all of its boards: leave the key out",
            id=event.id,
        )


def check_of_board(event: events.Requested) -> None:
    """Raises ``Refused`` where a request for a board has what only one for a group may have."""
    if event.options != NO_OPTIONS:
        raise Refused(
            Code.BAD_PAYLOAD,
            "the request: 'parallel', 'abort' and 'online' are for a group",
            "publish it on the topic of a group, such as @all",
            id=event.id,
        )


def _start(obj: dict[str, Any], fields: RequestFields) -> Start | None:
    """When it is to begin. Raises ``Refused``."""
    said = fields["start"]
    if said is None:
        return None
    for key in ("queue", "parallel"):
        if fields[key]:
            raise REQUEST.refuse(
                obj,
                Code.BAD_PAYLOAD,
                f"'start' and {key!r} exclude each other",
                "nobody knows when the turn of who waits comes: leave one of them out",
            )
    try:
        return read_start(said)
    except Refused as refusal:
        raise REQUEST.refuse(obj, refusal.code, refusal.message, refusal.hint) from None
