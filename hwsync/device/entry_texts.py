"""Envelopes and results as a journal's rows have them: JSON, the bytes of files in base64.

The law: a file is there whole, or it is not there and the result says so. What a later version
leaves out here reads as its default.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import asdict, replace
from typing import Any, Final

from hwsync.protocol.files import File, NotKept, listed
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import Outcome, Ran, RunReport
from hwsync.protocol.wire.envelope import Envelope
from hwsync.protocol.wire.files import files_json, returned_json
from hwsync.protocol.wire.start import StartOrder

WITH_FILES: Final = '"files":{"'  # what a row's text has where there are any: no string can


def envelope_text(envelope: Envelope) -> str:
    """The whole envelope."""
    fields = asdict(replace(envelope, files=())) | {"files": files_json(envelope.files, {})}
    return dumps(fields)


def bare_envelope(text: str) -> str:
    """The same without what only a start needs: who has run, or will not, needs no files."""
    if WITH_FILES not in text:
        return text
    return dumps(loads(text) | {"files": {}})


def settled_envelope(text: str) -> str:
    """The same of a command whose result is settled: nobody needs its program either."""
    bare = {"program": "", "stdin": "", "args": [], "files": {}, "collect": []}
    return dumps(loads(text) | bare)


def read_envelope_text(text: str) -> Envelope:
    """Raises ``ValueError``, ``TypeError``, ``KeyError`` or ``AttributeError`` where it is none."""
    fields = loads(text)
    fields["args"] = tuple(fields["args"])
    if fields.get("start") is not None:
        fields["start"] = StartOrder(**fields["start"])
    fields["files"] = tuple(
        File.of(path, b64decode(data, validate=True))
        for path, data in fields.get("files", {}).items()
    )
    fields["collect"] = tuple(fields.get("collect", ()))
    return Envelope(**fields)


def report_text(report: RunReport) -> str:
    """The whole result."""
    return dumps(asdict(replace(report, files=())) | {"files": returned_json(report.files)})


def read_report_text(text: str) -> RunReport:
    """Raises ``ValueError``, ``TypeError``, ``KeyError`` or ``AttributeError`` where it is none."""
    fields: dict[str, Any] = loads(text)
    fields.update(outcome=Outcome(fields["outcome"]), ran=Ran(fields["ran"]))
    if fields.get("order") is not None:
        fields["order"] = tuple((stream, count) for stream, count in fields["order"])
    fields["files"] = tuple(_file(path, one) for path, one in fields.get("files", {}).items())
    fields["not_kept"] = tuple(NotKept(**one) for one in fields.get("not_kept", ()))
    return RunReport(**fields)


def _file(path: str, said: dict[str, Any]) -> File:
    file = File.of(path, b64decode(said["data"], validate=True))
    if (file.size, file.sha256) != (said["size"], said["sha256"]):
        raise ValueError(f"{path} is not what was written")
    return file


def bare_report(text: str, reason: str) -> str:
    """The same, its files not kept for that reason."""
    if WITH_FILES not in text:
        return text
    fields = loads(text)
    left = [NotKept(path, one["size"], reason) for path, one in fields["files"].items()]
    left += [NotKept(**one) for one in fields["not_kept"]]
    return dumps(fields | {"files": {}, "not_kept": [asdict(one) for one in listed(left)]})


def without_files(report: RunReport, reason: str) -> RunReport:
    """The same, its files not kept for that reason."""
    left = tuple(NotKept(one.path, one.size, reason) for one in report.files)
    return replace(report, files=(), not_kept=listed((*left, *report.not_kept)))
