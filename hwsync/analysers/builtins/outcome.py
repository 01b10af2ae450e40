"""``outcome``: passed, where the program ended well."""

from __future__ import annotations

from typing import Final

from hwsync.analysers.builtins.parts import Builtin, not_ended
from hwsync.analysers.run import Analysis, Run


def _analyse(run: Run) -> Analysis:
    ended = not_ended(run)
    return Analysis(True, score=1.0, message="The program ended well.") if ended is None else ended


OUTCOME: Final = Builtin("the program ended well", _analyse)
