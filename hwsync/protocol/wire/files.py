"""Files in messages: those that go with a program, and those that come back (docs/protocol.md, 5).

The law: a request or an envelope whose files are not all right is none. What a device says of a
finished run is never refused for its files: one that is not right moves to those that are not
kept, and the reason says why.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Annotated, Any, Final

from hwsync.protocol import files, limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.files import File, Files, NotKept, NotKeptFiles
from hwsync.protocol.jsons import is_count
from hwsync.protocol.wire.forms import is_text
from hwsync.protocol.wire.schema import Doubt, Form, Json

Contents = Mapping[str, bytes]
"""Bytes by their SHA-256 in hexadecimal."""

NO_CONTENTS: Final[Contents] = {}

_EXAMPLE: Final = 'such as {"data.csv": "MSwyCg=="}, the bytes in base64'


def _no_files(key: str, value: Any) -> Doubt:
    return Code.BAD_PAYLOAD, f"{key!r} must be an object of files", _EXAMPLE


def _no_patterns(key: str, value: Any) -> Doubt:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return Code.BAD_PAYLOAD, f"{key!r} must be a list of patterns", 'such as ["data/*.csv"]'
    if len(value) > limits.MAX_COLLECT:
        hint = f"at most {limits.MAX_COLLECT}: let one mean more, such as results/*"
        return Code.TOO_LARGE, f"{key!r} has {len(value)} patterns", hint
    wrong = next(one for one in value if not files.is_pattern(one))
    what = f"{key!r} has {wrong[:80]!a}: no pattern of files in the run's folder"
    return Code.BAD_PAYLOAD, what, files.PATH_FORM


def _are_patterns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= limits.MAX_COLLECT
        and all(map(files.is_pattern, value))
    )


def _no_paths(key: str, value: Any) -> Doubt:
    hint = 'such as ["plot.png"]: paths as they stand in the status'
    return Code.BAD_PAYLOAD, f"{key!r} must be 1 to {limits.MAX_COLLECTED} paths of files", hint


def _are_paths(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= limits.MAX_COLLECTED
        and all(map(files.is_path, value))
    )


def _is_returned(value: Any) -> bool:
    """Whether this says of files what a status does."""
    return isinstance(value, dict) and all(
        isinstance(one, dict)
        and is_count(one.get("size"))
        and is_text(one.get("sha256"))
        and is_text(one.get("data", ""))
        for one in value.values()
    )


def _are_not_kept(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and (is_count(one.get("others")) or _is_entry(one)) for one in value
    )


def _is_entry(one: Json) -> bool:
    return is_text(one.get("path")) and is_count(one.get("size")) and is_text(one.get("reason"))


SentFiles = Annotated[  # what is in it is looked at by ``read_files``
    dict[str, str],
    Form("object, base64 by path", lambda value: isinstance(value, dict), _no_files),
]
Patterns = Annotated[list[str], Form("list of patterns", _are_patterns, _no_patterns)]
Paths = Annotated[list[str], Form("list of paths", _are_paths, _no_paths)]
ReturnedFiles = Annotated[
    dict[str, Any], Form('object, `{"size", "sha256"}` by path', _is_returned)
]
NOT_KEPT: Final = Form('list of `{"path", "size", "reason"}`', _are_not_kept)
NotKeptList = Annotated[list[dict[str, Any]], NOT_KEPT]


def base64_size(length: int) -> int:
    """How many characters so many bytes have in base64."""
    return (length + 2) // 3 * 4


def files_json(sent: Files, contents: Contents) -> Json:
    """Files as a request and an envelope have them; ``contents``: of those without their bytes.

    Raises ``KeyError`` where they are neither here nor there.
    """
    return {
        one.path: b64encode(one.data if one.data is not None else contents[one.sha256]).decode()
        for one in sent
    }


def bare(some: Files) -> Files:
    """The same without their bytes."""
    return tuple(one.bare for one in some)


def contents_of(some: Files) -> dict[str, bytes]:
    """Their bytes, those that are alike once."""
    return {one.sha256: one.data for one in some if one.data is not None}


def read_files(said: Mapping[str, Any], name: str) -> Files:
    """The files of a request or an envelope, with their bytes, sorted by their paths.

    ``name``: of the program's own file. Raises ``Refused``, which says of which file and why.
    """
    if len(said) > limits.MAX_FILES:
        raise Refused(
            Code.TOO_LARGE,
            f"'files' has {len(said)} files",
            f"at most {limits.MAX_FILES}: one archive can hold them",
        )
    for path in said:
        if not files.is_path(path):
            what = f"'files' has {path[:80]!a}: no path of a file in the run's folder"
            raise Refused(Code.BAD_PAYLOAD, what, files.PATH_FORM)
    if name in said:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"'files' has {name!r}, which the program itself is run as",
            "give one of them another name; the program's is the key 'name'",
        )
    if pair := files.clash([*said, name]):
        folder, path = pair
        raise Refused(
            Code.BAD_PAYLOAD,
            f"'files' has {path!r}, but {folder!r} is a file",
            "a path can be a file or a folder, not both",
        )
    found = tuple(File.of(path, _decoded(path, said[path])) for path in sorted(said))
    total = sum(one.size for one in found)
    if total > limits.MAX_FILES_BYTES:
        raise Refused(
            Code.TOO_LARGE,
            f"'files' has {total} bytes, decoded",
            f"at most {limits.MAX_FILES_BYTES} bytes in all",
        )
    return found


def _decoded(path: str, text: Any) -> bytes:
    try:
        if isinstance(text, str):
            return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Refused(Code.BAD_PAYLOAD, f"{path!r} in 'files' is no text in base64", _EXAMPLE)


def returned_json(returned: Files, contents: Contents | None = None) -> Json:
    """Files that came back, by path; with their bytes where there are ``contents``, or else here.

    ``contents``: of those that are to have them; the others have none.
    """
    found: Json = {}
    for one in returned:
        said: Json = {"size": one.size, "sha256": one.sha256}
        data = one.data if contents is None else contents.get(one.sha256)
        found[one.path] = said if data is None else said | {"data": b64encode(data).decode()}
    return found


def not_kept_json(entries: NotKeptFiles) -> list[Json]:
    """What did not come back, as it is sent."""
    return [files.not_kept_json(one) for one in entries]


def read_returned(said: object, not_kept: object) -> tuple[Files, NotKeptFiles]:
    """The files of a result, with their bytes, and what is not kept; nothing of it is refused."""
    found: list[File] = []
    left = list(read_not_kept(not_kept))
    every = sorted(said.items()) if isinstance(said, dict) else []
    if len(every) > limits.MAX_ENTRIES:
        left.append(NotKept("", 0, "", len(every) - limits.MAX_ENTRIES))
    for path, one in every[: limits.MAX_ENTRIES]:
        file, doubt = _returned(path, one)
        if doubt:
            left.append(NotKept(_shown(path, limits.MAX_PATH), file.size, doubt))
        else:
            found.append(file)
    reasons = files.room_for([(one.path, one.size) for one in found])
    left += [
        NotKept(one.path, one.size, reason)
        for one, reason in zip(found, reasons, strict=True)
        if reason
    ]
    kept = tuple(one for one, reason in zip(found, reasons, strict=True) if not reason)
    return kept, files.listed(left)


def _returned(path: str, said: Any) -> tuple[File, str]:
    """A file of a result, and why it is none; empty: it is one."""
    none = File("", 0, "")
    text = said.get("data") if isinstance(said, dict) else None
    if not files.is_path(path):
        return none, "its path leads out of the folder"
    try:
        file = File.of(path, b64decode(text, validate=True)) if isinstance(text, str) else none
    except (binascii.Error, ValueError):
        file = none
    if file is none:
        return none, "it came without its bytes"
    if (said.get("size"), said.get("sha256")) != (file.size, file.sha256):
        return file, "its bytes are not those that the device hashed"
    return file, ""


def read_not_kept(said: object) -> NotKeptFiles:
    """What a message says that is not kept, as far as it can be read."""
    every = said if isinstance(said, list) else []
    found = []
    if len(every) > limits.MAX_ENTRIES:
        found.append(NotKept("", 0, "", len(every) - limits.MAX_ENTRIES))
    for one in every[: limits.MAX_ENTRIES]:
        if not isinstance(one, dict):
            continue
        others = one.get("others", 0)
        if is_count(others) and others:
            found.append(NotKept("", 0, "", others))
        elif _is_entry(one):
            path = _shown(one["path"], limits.MAX_PATH)
            reason = " ".join(one["reason"].split())[: limits.MAX_NOT_KEPT_REASON]
            found.append(NotKept(path, one["size"], reason))
    return tuple(found)


def _shown(path: str, most: int) -> str:
    """A path that may be none, as people can read it."""
    text = path.encode("utf-8", "replace").decode()
    printable = "".join(one if one.isprintable() else "?" for one in text)
    return printable.encode()[:most].decode(errors="ignore")
