"""``hwsync regrade``: judge stored results with another analyser, and no board is touched.

The law: what is passed over or changed is decided in ``regraded``; how a run is read, judged and
said is the analyst's (``hwsync.analyst.judging``). Nothing is said before it is known that this
account may read everybody's runs, and may judge. What failed is not said: it would take the place
of what the same analyser might say tomorrow.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from hwsync.analysers.engine import AT_ONCE, Engine, Judgement
from hwsync.analysers.folder import RESERVED, Analyser, Folder
from hwsync.analyst.judging import End, reading_stored, telling
from hwsync.analyst.words import printed_lines
from hwsync.cli import say
from hwsync.cli.common import FOLDER, Settings, common
from hwsync.cli.filters import filter_options, read_filters
from hwsync.cli.records import BOARDS, told
from hwsync.cli.regraded import (
    CORRECTED,
    Regraded,
    Version,
    exported,
    heard,
    regraded,
    shown,
    summary,
    why_not,
    why_not_stored,
)
from hwsync.cli.slow import say_slow
from hwsync.cli.targets import Target
from hwsync.operator.client import Client
from hwsync.operator.conversation import EVERYBODY, may_not_judge
from hwsync.protocol.errors import Code, NotFound, Refused, UsageError
from hwsync.protocol.topics import TopicKind

SLOW_S: Final = 2.0  # then it is said how far it is
SERVE_S: Final = 1.0  # the connection is looked after so often, while an analyser runs
STOPPED: Final = 130
PRINTED: Final = 10  # lines that the analyser printed of a run, the last ones

Fields = Mapping[str, Any]
Runs = Sequence[tuple[str, Fields]]
_UnderWay = tuple[str, Fields, End, Future[Judgement]]  # a board's run, and its judgement


@click.command()
@common
@BOARDS
@filter_options("analyser", "judged")
@click.option("--analyser", "wanted", required=True, metavar="NAME", help="Which one judges them.")
@click.option("--dir", "folder", type=FOLDER, required=True, metavar="DIR",
              help="The folder of analysers, as of hwsync analyst.")  # fmt: skip
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would change, and what the analyser prints; nothing is published.",
)
@click.pass_obj
def regrade(settings: Settings, /, targets: tuple[Target, ...], wanted: str, folder: Path,
            dry_run: bool, **given: Any) -> None:  # fmt: skip
    """Judge stored results anew, with the analyser NAME of DIR; no board runs anything.

    Old and new verdict stand beside each other. The new one is added and replaces nothing; of an
    analyser's verdicts the newest counts, and a person's first stays.

    The same command twice changes nothing, and goes on where Ctrl-C has ended it.
    """
    if not targets and not any(given.values()):
        raise UsageError(
            "which runs? Of all that there are, every assignment's would be judged with this one",
            "such as --meta assignment=lab3; really all of them: --since 2000-01-01",
        )
    analyser = _analyser(folder, wanted)
    by = Version(analyser.name, analyser.version)
    found = told(settings, targets, read_filters(given, datetime.datetime.now()), None)
    if found.own:
        raise Refused(
            Code.NOT_ALLOWED,
            f"{settings.url.username} may read only what {settings.url.username} has asked for",
            "the right to everybody's runs: hwsync operator change NAME --history",
        )
    rows = list(found.rows)
    if not rows:
        raise NotFound("nothing was run, as far as that was asked for", "hwsync history lists runs")
    work = _Work(settings, analyser, by, dry=dry_run)
    work.do(rows)
    _say(settings, work, by, dry=dry_run)


def _analyser(folder: Path, name: str) -> Analyser:
    """Raises ``UsageError``."""
    found = Folder(folder).scan()
    analyser = found.get(name)
    if analyser is None or name in RESERVED:
        names = sorted(set(found) - RESERVED)
        there = f"there are {', '.join(names)}" if names else "there is none"
        raise UsageError(f"{folder} has no analyser {name}", there)
    if analyser.problem is not None:
        raise UsageError(f"the analyser {name} cannot be used: {analyser.problem}")
    return analyser


class _Work:
    """The runs, one after the other: read here, judged by others meanwhile, said here."""

    def __init__(self, settings: Settings, analyser: Analyser, by: Version, *, dry: bool) -> None:
        self._settings, self._analyser, self._by, self._dry = settings, analyser, by, dry
        self.runs: list[Regraded] = []
        self.passed_over: Counter[str] = Counter()
        self.stopped: int | None = None  # runs that were left, where Ctrl-C came
        self._began = time.monotonic()
        self._told: set[str] = set()  # boards at which what was said has arrived

    def do(self, runs: Runs) -> None:
        """All of them, or until Ctrl-C. Raises ``HwsyncError``."""
        left = deque[tuple[str, Fields]]()
        for board, row in runs:
            if (why := why_not(row, self._by)) is not None:
                self.passed_over[why] += 1
            else:
                left.append((board, row))
        boards = list(dict.fromkeys(board for board, _ in left))
        total, under_way = len(left), deque[_UnderWay]()
        if not left:
            return
        with (
            Client(self._settings.url, self._settings.topics, EVERYBODY, named=boards) as client,
            _judging(self._analyser) as judge,
        ):
            client.standing.slow = say_slow
            try:
                if not self._dry:
                    _may_judge(client, boards)
                while left or under_way:
                    if left and len(under_way) <= AT_ONCE:
                        self._begin(client, *left[0], judge, under_way)
                        left.popleft()
                    else:
                        self._finish(client, *under_way[0])
                        under_way.popleft()
                    self._say_how_far(total - len(left) - len(under_way), total)
            except KeyboardInterrupt:
                self.stopped = len(left) + len(under_way)
        say.progress("")

    def _begin(
        self, client: Client, board: str, row: Fields, judge: Any,
        under_way: deque[_UnderWay],
    ) -> None:  # fmt: skip
        stored = client.wait(reading_stored(client.conversation(board), row["id"]))
        why = why_not_stored(stored.result, stored.gone, self._by)
        if why is not None:
            self.passed_over[why] += 1
        else:
            under_way.append((board, row, stored.end, judge(stored.run)))

    def _finish(
        self, client: Client, board: str, row: Fields, end: End, judged: Future[Judgement]
    ) -> None:
        while not concurrent.futures.wait([judged], SERVE_S).done:
            for _ in client.hear(0.0):
                pass
        judgement = judged.result()
        if judgement.fault is None and not self._dry:
            conversation = client.conversation(board)
            try:
                judgement = client.wait(telling(conversation, end, judgement, regrade=True))
            except Refused as error:
                if error.code is not Code.NOT_CURRENT:
                    raise
                self.passed_over[CORRECTED] += 1
                return
            if board not in self._told:
                self._check_it_came(client, board, row["id"])
                self._told.add(board)
        printed = printed_lines(judgement, PRINTED)
        one = regraded(board, row, judgement.analysis, self._by, judgement.fault, printed)
        self.runs.append(one)

    def _check_it_came(self, client: Client, board: str, id: str) -> None:
        """MQTT 3.1.1 does not say where a right is missing. Raises ``Refused``."""
        result = client.wait(client.conversation(board).querying(id))
        told = [result.get("analysed_by") or {}, *(result.get("regrades") or ())]
        if not any(map(self._by.is_of, told)):
            raise may_not_judge(board, "the coordinator answers, and has had nothing of it")

    def _say_how_far(self, done: int, total: int) -> None:
        if time.monotonic() - self._began >= SLOW_S:
            changed = sum(one.is_changed for one in self.runs)
            say.progress(f"{done} of {total} runs, {changed} changed … ")


@contextmanager
def _judging(analyser: Analyser) -> Iterator[Any]:
    """Judges a run in a thread; what is under way at the end is ended. Raises ``CannotRun``."""
    engine = Engine(at_once=AT_ONCE)
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        engine.start()
        yield lambda run: pool.submit(engine.judge, analyser, run)
    finally:
        engine.stop()
        pool.shutdown(cancel_futures=True)
        engine.close()


def _may_judge(client: Client, boards: Sequence[str]) -> None:
    """An empty analysis is none, and the broker says whether it takes it. Raises ``Refused``."""
    for board in boards:
        client.bring(board, TopicKind.ANALYSIS)


def _say(settings: Settings, work: _Work, by: Version, *, dry: bool) -> None:
    """The table, what was passed over, and how far it came; ends the process where not all is well.

    Each run for programs.
    """
    if settings.as_json:
        for one in work.runs:
            say.json_line({**exported(one), "published": one.fault is None and not dry})
    for line in () if settings.as_json else shown(work.runs):
        say.line(line)
    if not settings.as_json:
        for line in heard(one for one in work.runs if dry or one.fault is not None):
            say.remark(line)
    for line in summary(work.runs, work.passed_over, by, dry=dry):
        say.remark(line)
    if work.stopped is not None:
        say.line(f"stopped: {work.stopped} are left; the same command goes on with them", err=True)
        sys.exit(STOPPED)
    if any(one.fault is not None for one in work.runs):
        sys.exit(1)


COMMANDS = (regrade,)
