"""The promises about files (docs/protocol.md, section 5, "Files"), held against what was seen.

The law: a program has the files of its own request, all of them as they were sent; what came back
is what its own run has written, or it says why not; names and hashes stay, and bytes come only to
who asks for them. Like ``checker``, it knows of a run only what a witness saw.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Iterator, Mapping

from hwsync.testing.history import Began, FileList, Json, Said, Violation
from hwsync.testing.sorted_history import Name, Sorted

FILES = "files"  # the promise


def check_files(seen: Sorted, commands: Mapping[Name, Json]) -> list[Violation]:
    """Every promise about files that was not kept. ``commands``: as in ``checker.FinalState``."""
    rules = (_had, _came_back, _stays, _bytes)
    return [violation for rule in rules for violation in rule(seen, commands)]


def _had(seen: Sorted, _: Mapping[Name, Json]) -> Iterator[Violation]:
    """A program finds exactly the files that were sent with it."""
    for (user, id), begun in seen.began.items():
        for one in begun:
            sent = {asked.files for asked in seen.requests(user, id, one.program)} or {()}
            if one.files is not None and tuple(sorted(one.files)) not in map(_sorted, sent):
                text = f"had {_names(one.files)}, sent were {' or '.join(map(_names, sent))}"
                yield Violation(FILES, user, id, text)


def _came_back(seen: Sorted, commands: Mapping[Name, Json]) -> Iterator[Violation]:
    """What a command has is what its run has written; what it lacks of that is named."""
    for (user, id), end in commands.items():
        begun = seen.began.get((user, id), [])
        runs = [one for one in begun if one.made is not None and _is_of(one, end)]
        has = _listed(end)
        if has and not any(set(has) <= set(one.made or ()) for one in runs) and _is_seen(begun):
            yield Violation(FILES, user, id, f"has {_names(has)}, which its run did not write")
        if end["ran"] != "yes" or end.get("pruned") or not runs:
            continue
        left = end.get("not_kept", ())
        named = {path for path, *_ in has} | {one["path"] for one in left if "path" in one}
        lost = [path for path, *_ in runs[-1].made or () if path not in named]
        if len(lost) > sum(one.get("others", 0) for one in left):
            text = f"{' and '.join(lost)} neither came back, nor is it said why"
            yield Violation(FILES, user, id, text)


def _is_of(run: Began, end: Json) -> bool:
    return not run.journal or end["journal"] in (None, run.journal)  # of an orphan none is kept


def _is_seen(begun: list[Began]) -> bool:
    """Whether a witness knows of files here at all."""
    return not begun or any(one.made is not None for one in begun)


def _stays(seen: Sorted, commands: Mapping[Name, Json]) -> Iterator[Violation]:
    """Names and hashes of an ended command stay as they were said, also when its bytes are gone."""
    said: dict[Name, Said] = {}
    for one in seen.said:
        if one.fields["outcome"] is not None and one.fields.get("files"):
            said[one.user, one.fields["id"]] = one
    for (user, id), one in said.items():
        end = commands.get((user, id))
        if seen.put_back_since(one.at) or end is None:
            continue  # what is unknown is another promise's
        told, has = _listed(one.fields), _listed(end)
        if told != has:
            text = f"has {_names(has)}; at {one.at:.3f} that was {_names(told)}"
            yield Violation(FILES, user, id, text)


def _bytes(seen: Sorted, _: Mapping[Name, Json]) -> Iterator[Violation]:
    """No status has any bytes, nor what a broker keeps; those of a result are of its hash."""
    for one in seen.said:
        for path, file in (one.fields.get("files") or {}).items():
            if "data" not in file:
                continue
            if one.kind == "status" or one.kept:
                yield Violation(FILES, one.user, one.fields["id"], f"a status has bytes of {path}")
            elif hashlib.sha256(b64decode(file["data"])).hexdigest() != file["sha256"]:
                yield Violation(FILES, one.user, one.fields["id"], f"other bytes of {path}")


def _listed(fields: Json) -> FileList:
    """The files of a status or result."""
    files = fields.get("files") or {}
    return tuple((path, one["size"], one["sha256"]) for path, one in sorted(files.items()))


def _sorted(files: FileList) -> FileList:
    return tuple(sorted(files))


def _names(files: FileList) -> str:
    return ", ".join(f"{path} ({sha256[:8]})" for path, _, sha256 in files) or "nothing"
