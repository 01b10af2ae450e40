"""One program in one Runner, and the three ways in which a board may run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hwsync.runner import Group, Isolation, Job, Piece, RunEnd, Runner, Settings, Start, StopSwitch

WAYS: Final[dict[str, dict[str, Any]]] = {
    "warm": {"start": Start.WARM},
    "cold": {"start": Start.COLD},
    "bwrap": {"isolation": Isolation.BWRAP},
}
LONG: Final = 60.0  # seconds: a limit that no passing test reaches


@dataclass
class OneRun:
    """``OneRun(folder, **settings)(program)``: run it in an empty folder, and end the server."""

    folder: Path
    settings: dict[str, Any]
    stop: StopSwitch = field(default_factory=StopSwitch)
    groups: list[Group] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def __call__(
        self,
        program: str,
        *,
        stdin: str = "",
        args: tuple[str, ...] = (),
        timeout: float = LONG,
        on_output: Callable[[Piece], None] = lambda piece: None,
        **job: Any,
    ) -> RunEnd:
        def output(piece: Piece) -> None:
            self.pieces.append(piece)
            on_output(piece)

        runner = Runner(Settings(self.folder, **{"empty_directory": True} | self.settings))
        try:
            return runner.run(
                Job(program, stdin, args, timeout, **job),
                on_started=self.groups.append,
                on_output=output,
                stop=self.stop,
            )
        finally:
            runner.close()

    def shown(self, stream: str = "stdout") -> str:
        """What came live."""
        return "".join(piece.text for piece in self.pieces if piece.stream == stream)
