"""Programs of a pretended world: a line that says what it prints, how long it runs, how it ends."""

from __future__ import annotations

from dataclasses import dataclass

from hwsync.runner import Job, RunEnd


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


def run_end(job: Job, outcome: str, *, began: bool = True) -> RunEnd:
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
    )
