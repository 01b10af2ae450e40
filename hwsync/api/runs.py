"""Several runs that belong together: one program on some boards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from hwsync.api import notebook
from hwsync.api.run import Run


class Runs(Sequence[Run]):
    """In the order in which the boards were named; a board's name finds its run, too.

    runs = lab.map("print(6*7)", ["pi1", "pi2"])
    print(runs["pi2"].stdout, runs.counts)
    """

    def __init__(
        self, runs: Iterable[Run], id: str = "", spread: Mapping[str, Any] | None = None
    ) -> None:
        """``id``: that all have in common; ``spread``: how far apart they began, of one instant."""
        self._runs = tuple(runs)
        self.id, self.spread = id, spread

    @overload
    def __getitem__(self, key: int | str) -> Run: ...
    @overload
    def __getitem__(self, key: slice) -> Runs: ...
    def __getitem__(self, key: int | str | slice) -> Run | Runs:
        if isinstance(key, slice):
            return Runs(self._runs[key], self.id, self.spread)
        if isinstance(key, int):
            return self._runs[key]
        found = next((run for run in self._runs if run.board == key), None)
        if found is None:
            raise KeyError(key)
        return found

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def ok(self) -> bool:
        """Whether each has ended ``ok``."""
        return all(run.outcome == "ok" for run in self._runs)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many have each outcome; ``open``, and ``refused`` for what came to none."""
        return Counter(run.outcome or ("refused" if run.done() else "open") for run in self._runs)

    def check(self) -> Runs:
        """These runs, where each has ended ``ok``.

        Raises an ``ExceptionGroup`` of what the others' ``result()`` raises. Waits for their ends.
        """
        errors = []
        for run in self._runs:
            try:
                run.result()
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(self)} runs did not end ok", errors)
        return self

    def _repr_html_(self) -> str:
        return notebook.of_runs(self)

    def __repr__(self) -> str:
        return f"<Runs: {', '.join(f'{count} {name}' for name, count in self.counts.items())}>"
