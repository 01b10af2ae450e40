"""A lab, as a Python program uses it: programs to its boards, over one connection.

The law: nothing here waits but what says so, and whatever waits can be interrupted: by Ctrl-C,
which cancels what was waited for, and by ``close``, which never takes long.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from concurrent.futures import wait
from types import TracebackType
from typing import Final, Self, Unpack

from hwsync.address import BrokerUrl
from hwsync.api.callbacks import Callbacks
from hwsync.api.options import Options, Program, check_board, make_request
from hwsync.api.run import FoundRun, Run
from hwsync.api.runs import Runs
from hwsync.operator.line import Line
from hwsync.operator.run import RunRequest, claim
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import ID_FORM, is_id
from hwsync.protocol.topics import Topics

CANCEL_S: Final = 5.0  # for programs to end by themselves after Ctrl-C
CALLBACKS_S: Final = 2.0  # for those of what has ended when the lab is closed


class Lab:
    """The boards of a lab; ``hwsync.connect`` makes it. Any thread may use it.

    with hwsync.connect() as lab:
        print(lab.run("pi1", "print(6*7)").stdout)
    """

    def __init__(self, url: BrokerUrl, topics: Topics) -> None:
        """Connects. Raises ``NoBroker``: why that is not possible, and what to do."""
        self.url = url
        self._by = claim(url)
        self._callbacks = Callbacks()
        self._line = Line(url, topics)
        self._line.open()
        self._closes = weakref.finalize(self, self._line.close)  # also at the interpreter's end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lab {self.url}{'' if self._closes.alive else ', closed'}>"

    def close(self) -> None:
        """Leave the lab. It takes seconds at most; what runs there goes on.

        A run that has not ended here raises ``Closed`` then; ``find`` follows it again.
        """
        self._closes()
        self._callbacks.wait(CALLBACKS_S)

    def submit(self, board: str, program: Program, **options: Unpack[Options]) -> Run:
        """Ask for a program to run on a board, and do not wait for it.

        ``program`` is its text, or the ``Path`` of its file. Options: ``args``, ``stdin``,
        ``name``, ``timeout``, ``expires``, ``grace``, ``queue``, ``meta``, ``id``, ``at``,
        ``within`` (docs/python.md). Unless ``queue=False`` says otherwise it waits behind what the
        board does. Raises ``UsageError`` for what cannot be meant, and ``Closed``.
        """
        options.setdefault("queue", "at" not in options)
        return self._begin(board, program, options)

    def run(
        self, board: str, program: Program, *, check: bool = True, **options: Unpack[Options]
    ) -> Run:
        """Run a program on a board, and wait for its end.

        Raises ``NotOk`` where it did not end ``ok``, unless ``check=False``: then its ``outcome``
        says how. Raises ``Refused`` where the board is busy, unless ``queue=True``. Ctrl-C cancels
        it, waits a moment for its end, and is raised then. Options are those of ``submit``.
        """
        run = self._begin(board, program, options)
        self._wait_for([run])
        if check or run.outcome is None:
            run.result()
        return run

    def find(self, board: str, id: str) -> Run:
        """A command that was asked for before, here or elsewhere, to be followed to its end.

        Its ``result()`` raises ``Refused`` where the board never had that id. What it wrote before
        is not heard again while it runs; at its end all of it is there.
        """
        if not is_id(id):
            raise UsageError(f"{id!r} is no id: {ID_FORM}")
        request = RunRequest(program="", id=id)
        return self._follow(FoundRun(self._line, self._callbacks, check_board(board), request))

    def map(self, program: Program, boards: Iterable[str], **options: Unpack[Options]) -> Runs:
        """Run a program on several boards at the same time, and wait until each has ended.

        What became of each says its run; ``check()`` raises where one did not end ``ok``. Options
        are those of ``submit``.
        """
        names = dict.fromkeys(map(check_board, boards))
        runs = Runs(self._begin(board, program, options) for board in names)
        self._wait_for(runs)
        return runs

    def _begin(self, board: str, program: Program, options: Options) -> Run:
        request = make_request(program, options, self._by)
        run = Run(
            self._line, self._callbacks, check_board(board), request, fresh="id" not in options
        )
        return self._follow(run)

    def _follow(self, run: Run) -> Run:
        self._line.order(run.begin, run.refuse)
        return run

    def _wait_for(self, runs: Iterable[Run]) -> None:
        runs = list(runs)
        try:
            wait(runs)
        except BaseException:
            for run in runs:
                run.cancel()
            wait(runs, CANCEL_S)
            raise
