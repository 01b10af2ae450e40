"""Programs of a pretended world: a line that says what it prints, how long it runs, how it ends."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from hwsync.protocol.files import NOT_ASKED, File, Files, NotKept, is_asked_for, names_and_hashes
from hwsync.protocol.wire.files import read_files
from hwsync.runner import Job, RunEnd
from hwsync.testing.history import FileList

OUT: Final = "out.txt"  # no other run writes the same
SAME: Final = "same.txt"  # every run writes the same, so that it is kept once
LEFT: Final = "left.txt"  # nobody asks for it
COLLECT: Final = (("*.txt",), (OUT,), (OUT, SAME), ("**/*.png",))
SENT: Final = tuple(File.of("data.csv", b"%d," % number * 50) for number in range(3))


@dataclass(frozen=True, slots=True)
class Program:
    """A program of this world: it prints ``token``, after so many seconds, and exits.

    ``lines``: so many more, of a hundred characters each.
    """

    token: str
    seconds: float
    exit_code: int = 0
    lines: int = 0

    @property
    def text(self) -> str:
        return f"print({self.token!r})  # {self.seconds:.3f} {self.exit_code} {self.lines}"

    @property
    def output(self) -> str:
        """What it prints."""
        return self.token + "\n" + ("=" * 99 + "\n") * self.lines

    @classmethod
    def read(cls, text: str) -> Program:
        """The program of a text; any other text is one that prints nothing."""
        try:
            token, how = text.removeprefix("print('").split("')  # ")
            seconds, code, lines = how.split()
            return cls(token, float(seconds), int(code), int(lines))
        except ValueError:
            return cls("", 0.0)


def output(text: str) -> str:
    """What that program prints."""
    return Program.read(text).output


def listed(files: Files) -> FileList:
    """Their paths, sizes and hashes."""
    return tuple((one.path, one.size, one.sha256) for one in files)


def files_of(keys: dict[str, Any]) -> FileList:
    """Those of a request's keys."""
    return listed(read_files(keys.get("files", {}), ""))


def files_along(dice: Random, user: str, id: str) -> dict[str, Any]:
    """Keys of a request: files that others send, too, and one of its own; what comes back."""
    keys: dict[str, Any] = {"collect": list(dice.choice(COLLECT))}
    files = [dice.choice(SENT)] if dice.random() < 0.7 else []
    if dice.random() < 0.5:
        files.append(File.of("in/own.txt", f"for {id} of {user}".encode()))
    if files:
        keys["files"] = {one.path: b64encode(one.data or b"").decode() for one in files}
    return keys


def made_by(user: str, id: str, job: Job) -> Files:
    """What a program writes as it begins, where it is asked for anything."""
    if not job.collect:
        return ()
    made = f"{user} {id} {job.program} {names_and_hashes(job.files)}"
    return (File.of(LEFT, b"left"), File.of(OUT, made.encode()), File.of(SAME, b"same" * 50))


def run_end(job: Job, outcome: str, *, began: bool = True, made: Files = ()) -> RunEnd:
    program = Program.read(job.program)
    response = program.output if outcome in ("ok", "error") else ""
    code = program.exit_code if outcome in ("ok", "error") else None
    return RunEnd(
        outcome,
        "",
        response,
        "",
        code,
        program.seconds,
        0.0,
        truncated=False,
        sha256_stdout="",
        sha256_stderr="",
        began=began,
        files=tuple(one for one in made if is_asked_for(job.collect, one.path)),
        not_kept=tuple(
            NotKept(one.path, one.size, NOT_ASKED)
            for one in made
            if not is_asked_for(job.collect, one.path)
        ),
    )
