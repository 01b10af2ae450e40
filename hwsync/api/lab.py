"""A lab, as a Python program uses it: programs to its boards, over one connection.

The law: nothing here waits but what says so, and whatever waits can be interrupted: by Ctrl-C,
which cancels what was waited for, and by ``close``, which never takes long.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, Unpack

from hwsync.address import BrokerUrl
from hwsync.api.board import Board, boards_of
from hwsync.api.callbacks import Callbacks
from hwsync.api.calling import make_call, value_in
from hwsync.api.group import Group
from hwsync.api.options import (
    ASKER,
    Options,
    Program,
    Together,
    beginning,
    check_board,
    check_options,
    make_request,
)
from hwsync.api.past import When, filters, history
from hwsync.api.run import FoundRun, Run
from hwsync.api.runs import Runs
from hwsync.api.waiting import wait_for
from hwsync.grading import ASKER as BY_ASKER
from hwsync.grading import Grades, exported
from hwsync.operator.client import Client
from hwsync.operator.conversation import EVERYBODY
from hwsync.operator.line import Line
from hwsync.operator.run import RunRequest, claim, fresh_id
from hwsync.protocol.errors import Closed, UsageError
from hwsync.protocol.groups import SIGN
from hwsync.protocol.limits import ID_FORM, USER_FORM, is_id, is_name, is_user
from hwsync.protocol.topics import ITSELF, Topics

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
        check_options(options)
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
        check_options(options)
        run = self._begin(board, program, options)
        wait_for([run])
        if check or run.outcome is None:
            run.result()
        return run

    def call(
        self, function: Callable[..., Any], /, *args: Any, on: str, timeout: float | None = None,
        queue: bool = False, **keywords: Any,
    ) -> Any:  # fmt: skip
        """Call a function on a board; what it returns.

            def temperature(pin, times=3):
                import random
                return [random.random() for _ in range(times)]

            print(lab.call(temperature, 4, times=5, on="pi1"))

        Its source goes there, and its arguments as JSON: so it imports what it needs itself, and
        uses nothing that stands outside of it. A tuple arrives as a list. Raises ``UsageError`` for
        what cannot go there, and else like ``run``; ``Failed`` has its traceback.
        """
        call = make_call(function, args, keywords)
        options: Options = {"name": f"{call.name[:60]}.py", "queue": queue}
        if timeout is not None:
            options["timeout"] = timeout
        if not is_name(options["name"]):
            del options["name"]
        return value_in(self.run(on, call.program, **options).stdout, call)

    def find(self, board: str, id: str) -> Run:
        """A command that was asked for before, here or elsewhere, to be followed to its end.

        Its ``result()`` raises ``Refused`` where the board never had that id. What it wrote before
        is not heard again while it runs; at its end all of it is there.
        """
        if not is_id(id):
            raise UsageError(f"{id!r} is no id: {ID_FORM}")
        request = RunRequest(program="", id=id)
        return self._follow(FoundRun(self._line, self._callbacks, check_board(board), request))

    def map(self, program: Program, boards: Iterable[str], **options: Unpack[Together]) -> Runs:
        """Run a program on several boards at the same time, and wait until each has ended.

        What became of each says its run; ``check()`` raises where one did not end ``ok``. Options
        are those of ``submit``, and ``together=True``: then all begin at one instant. With it may
        stand ``wait``, ``lead`` and ``need``.
        """
        check_options(options, Together)
        if isinstance(boards, str):
            raise UsageError(f"boards is a text ({boards!r})", 'a list: ["pi1", "pi2"]')
        names = tuple(dict.fromkeys(map(check_board, boards)))
        batch = names if options.get("together") else ()
        if batch:
            options.setdefault("need", len(batch))
            options.setdefault("id", fresh_id(ASKER))
        runs = Runs(self._begin(board, program, options, batch) for board in names)
        wait_for(runs)
        return runs

    def group(self, name: str) -> Group:
        """A group of boards by its name, as in ``lab.group("lab1").run("print(6*7)")``."""
        name = name.removeprefix(SIGN)
        if not is_user(name) or f"{SIGN}{name}" == ITSELF:
            raise UsageError(f"{name[:80]!r} is no group's name: {USER_FORM}")
        return Group(self, self._line, self._callbacks, self._by, name)

    def boards(self) -> list[Board]:
        """The boards that are known, by name: who is online, and who is busy.

        Takes about half a second. Raises ``NoBroker``, and ``Closed``.
        """
        self._check_open()
        with Client(self.url, self._line.topics, EVERYBODY, boards=True) as client:
            return boards_of(client)

    def history(
        self, *boards: str, since: When | None = None, until: When | None = None,
        last: int | None = None, outcome: str | Sequence[str] = (), by: str | None = None,
        name: str | None = None, meta: Mapping[str, Any] | None = None,
        analyser: str | None = None, judged: bool | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """What was run on these boards, or on all: a dict for each command, the oldest first.

            pandas.DataFrame(lab.history(since=timedelta(days=1), outcome=["error", "timeout"]))

        Its keys are ``board`` and those of docs/protocol.md, section 10. ``last``: so many of each
        board; ``by``: who asked; ``name``: of the program's file; ``meta``: what was kept with it;
        ``analyser``: that its request names; ``judged``: whether it has an analysis.
        What your account asked for, or everybody's where it has that right. Raises ``Refused``,
        ``NoCoordinator``, ``NoBroker``, ``Closed``.
        """
        self._check_open()
        wanted = filters(
            since, until, outcome, meta or {}, last=last, by=by, name=name, analyser=analyser,
            judged=judged,
        )  # fmt: skip
        names = tuple(map(check_board, boards))
        return history(self.url, self._line.topics, names, wanted)

    def grades(
        self, *boards: str, by: str = BY_ASKER, analyser: str | None = None, last: bool = False,
        least: float | None = None, asker: str | None = None, **filters: Any,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Who has passed: a dict for each asker, board, or value of a key of ``meta``.

            pandas.DataFrame(lab.grades(meta={"assignment": "lab3"}, by="student"))

        Its keys stand in docs/history.md ("Grades"), and so does what counts: the best attempt, or
        the ``last``; verdicts of one ``analyser`` only; ``least``: the score that passes. Which
        runs: who is the ``asker``, and else the keywords of ``history``; it raises like that.
        """
        grades = Grades(by, analyser=analyser, last=last, least=least)
        for row in self.history(*boards, by=asker, **filters):
            grades.add(row["board"], row)
        return [exported(grade) for grade in grades.lines()]

    def _check_open(self) -> None:
        if not self._closes.alive:
            raise Closed("the connection to the lab was closed", "connect() makes another")

    def _begin(
        self,
        board: str,
        program: Program,
        options: Mapping[str, object],
        batch: tuple[str, ...] = (),
    ) -> Run:
        request = replace(make_request(program, options, self._by), batch=batch)
        run = Run(
            *(self._line, self._callbacks, check_board(board), request),
            beginning=beginning(options),
            fresh="id" not in options,
        )
        return self._follow(run)

    def _follow(self, run: Run) -> Run:
        # A run that is asked for is worth its lab, also where nobody else holds that any more.
        self._line.order(partial(run.begin, self), run.refuse)
        return run
