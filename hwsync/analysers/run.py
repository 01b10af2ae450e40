"""What an analyser is given, and what it may give back.

The law: a run is what its record says, and what the teacher's file says (``arguments``). Nothing of
the second comes from whoever asked for the run; ``meta`` is all theirs, and no more than a claim.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hwsync.numbers import columns


@dataclass(frozen=True, slots=True)
class Analysis:
    """A verdict: what ``analyse`` may return.

        return Analysis(passed=True, score=0.5, message="The last line is missing.")

    Everything may be left out: ``Analysis(data=numbers)`` says nothing about passing.
    """

    passed: bool | None = None  # None: neither
    score: float | None = None  # from 0 to 1; None: there is none
    message: str = ""  # for people: what was expected, and what came
    data: Any = None  # anything that has JSON

    def as_json(self) -> dict[str, Any]:
        """As it is kept; what says nothing is left out, but ``passed``."""
        said = {"score": self.score, "message": self.message or None, "data": self.data}
        return {"passed": self.passed} | {
            key: value for key, value in said.items() if value is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, as an analyser sees it.

        def analyse(run):
            temp = run.numbers()["temp"]
            return max(temp) < run.arguments["hottest"]

    Each field has a default, so that a test of an analyser makes one by hand:

        assert analyse(Run(stdout="temp=21.5", arguments={"hottest": 30}))
    """

    id: str = ""  # of the command
    board: str = ""  # on which it ran
    outcome: str = "ok"  # how it ended: "ok", "error", "timeout", … (docs/protocol.md, section 1)
    reason: str = ""  # why, in one line for people; empty for "ok"
    exit_code: int | None = None  # None: nobody knows
    duration: float | None = None  # seconds
    stdout: str = ""  # what it printed, at most 256 KiB: then the beginning and the end
    stderr: str = ""  # at most 64 KiB
    truncated: bool = False  # whether stdout or stderr is not the whole
    files: Mapping[str, bytes] = field(default_factory=dict)  # that came back, by path
    program: str = ""  # its source
    args: tuple[str, ...] = ()  # its arguments
    stdin: str = ""  # its standard input
    meta: Mapping[str, Any] = field(default_factory=dict)  # what its asker said of it: a claim
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the analyser's TOML

    def numbers(self) -> dict[str, list[float]]:
        """The numbers that it printed, by name (``hwsync.numbers``).

            temp=21.5
            temp=21.7

        gives ``{"temp": [21.5, 21.7]}``; lines of a CSV give their columns. Where a row lacks a
        value it is ``nan``.
        """
        return columns(self.stdout)

    def as_json(self) -> dict[str, Any]:
        """What an executable analyser reads on its standard input; bytes are base64."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        files = {path: b64encode(data).decode() for path, data in self.files.items()}
        return found | {"files": files, "args": list(self.args)}

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Run:
        """The same again."""
        files = {path: b64decode(data) for path, data in said["files"].items()}
        return cls(**{**said, "files": files, "args": tuple(said["args"])})

    @classmethod
    def of_result(cls, said: Mapping[str, Any]) -> Run:
        """Of what stands on ``result/<id>`` (docs/protocol.md, section 4), already read as JSON.

        Files without bytes are left out. What lacks is as if it were empty.
        """
        files = said.get("files") or {}
        return cls(
            id=said.get("id") or "",
            board=said.get("user") or "",
            outcome=said.get("outcome") or "",
            reason=said.get("reason") or "",
            exit_code=said.get("exit_code"),
            duration=said.get("duration"),
            stdout=said.get("hw_response") or "",
            stderr=said.get("stderr") or "",
            truncated=bool(said.get("truncated")),
            files={path: b64decode(one["data"]) for path, one in files.items() if "data" in one},
            program=said.get("hw_command") or "",
            args=tuple(said.get("args") or ()),
            stdin=said.get("stdin") or "",
            meta=_meta(said.get("meta")),
        )


def _meta(said: Any) -> Mapping[str, Any]:
    """A result has it as compact JSON; what is no object is none."""
    import json

    if isinstance(said, str):
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            return {}
    return said if isinstance(said, dict) else {}
