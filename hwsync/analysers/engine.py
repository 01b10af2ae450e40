"""Run analysers on runs, several at a time, each in hwsync's own runner and within its limits.

The law: a judgement is always made, and is either what the analyser answered, whole, or its fault;
nothing of a run can make the one look like the other. An analyser has a folder of its own, which is
as new each time, and an environment without hwsync's passwords. Only what is wrong with this
machine is raised, since that says nothing about analyser or run: it is tried again later.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import hwsync
from hwsync.analysers import inside
from hwsync.analysers.answer import TOO_LARGE, Fault, one_line, read
from hwsync.analysers.folder import Analyser, Kind
from hwsync.analysers.place import OwnPlace
from hwsync.analysers.run import Run
from hwsync.analysers.written import DEFAULTS, Limits
from hwsync.protocol.errors import CannotRun
from hwsync.protocol.files import File
from hwsync.runner import Job, RunEnd, Runner, Settings, StopSwitch
from hwsync.runner import Limits as RunnerLimits

AT_ONCE: Final = 2
PROCESSES: Final = 32  # of one analyser, with their threads
OPEN_FILES: Final = 256
FILE_MB: Final = 64  # of each file that it writes
MOST_RUNNERS: Final = 3  # of one place: analysers with other limits take another runner
PRINTED: Final = 4000  # characters of what it printed, at its end
GRACE_S: Final = 30.0  # for what it left to be ended
PROGRAM: Final = "hwsync-analyser.py"
HARNESS: Final = """\
from hwsync.analysers import inside
inside.{kind}({arguments})
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be said of a run. ``fault``: None, or one line why the analyser itself failed."""

    name: str
    version: str
    analysis: Any  # has JSON; {"error": …} where there is a fault
    fault: str | None = None
    printed: str = ""  # the end of what the analyser printed, for its author; never published


class Engine:
    """``judge`` is called from any number of threads, also while another calls ``close``.

        with Engine(at_once=2) as engine:
            print(engine.judge(folder.scan()["check1"], Run(stdout="42\\n")).analysis)

    ``place``: the folder of the analysers' working folders, which are emptied; no other process may
    use it. None: a new one.
    """

    def __init__(self, *, at_once: int = AT_ONCE, place: Path | None = None) -> None:
        self._own_place = OwnPlace() if place is None else None
        above = self._own_place.path if self._own_place is not None else place
        assert above is not None
        self._places = [_Place(above / str(number)) for number in range(at_once)]
        self._free = self._places[::-1]  # the last one is taken first: it is the warmest
        self._under_way: set[StopSwitch] = set()
        self._news = threading.Condition()  # of the two above, and of the next
        self._stopped = False

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Have everything ready for the first run. Raises ``CannotRun``."""
        for one in self._places:
            one.runner(DEFAULTS).start()

    def judge(self, analyser: Analyser, run: Run) -> Judgement:
        """Run the analyser on the run; blocks, also until a place is free.

        Raises ``CannotRun`` where nothing can be run here, the analyser is so new that it has no
        version yet, or ``stop`` was called: nothing is known then, and it may be tried again.
        """
        if not analyser.version:
            raise CannotRun(f"analyser {analyser.name}: {analyser.problem}")
        if analyser.problem is not None:
            return _failed(analyser, analyser.problem)
        job = _job(analyser, replace(run, arguments=analyser.arguments))
        with self._place_and_switch() as (place, stop):
            end = place.runner(analyser.limits).run(
                job, on_started=lambda group: None, on_output=lambda piece: None, stop=stop
            )
        if end.outcome in ("cancelled", "interrupted"):
            raise CannotRun(f"analyser {analyser.name}: {end.reason}")
        try:
            return replace(_judgement(analyser, end), printed=_printed(analyser, end))
        except Fault as fault:
            return replace(_failed(analyser, str(fault)), printed=_printed(analyser, end))

    def stop(self) -> None:
        """End what is under way; each ``judge`` raises ``CannotRun`` from now on."""
        with self._news:
            self._stopped = True
            for switch in self._under_way:
                switch.set()
            self._news.notify_all()

    def close(self) -> None:
        """``stop``, then end the runners, and remove their folders."""
        self.stop()
        with self._news:
            self._news.wait_for(lambda: not self._under_way)
        for one in self._places:
            one.close()
        if self._own_place is not None:
            self._own_place.remove()
            self._own_place = None

    @contextmanager
    def _place_and_switch(self) -> Iterator[tuple[_Place, StopSwitch]]:
        switch = StopSwitch()
        with self._news:
            self._news.wait_for(lambda: self._stopped or self._free)
            if self._stopped:
                raise CannotRun("the analysers are being ended")
            place = self._free.pop()
            self._under_way.add(switch)
        try:
            yield place, switch
        finally:
            with self._news:
                self._under_way.discard(switch)
                self._free.append(place)
                self._news.notify_all()


class _Place:
    """A working folder, in which one analyser runs at a time, and the runners for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runners: dict[tuple[int, int], Runner] = {}  # the longest unused first

    def runner(self, limits: Limits) -> Runner:
        """For analysers with such limits; the time is each job's own."""
        key = limits.memory_mb, limits.output_mb
        runner = self._runners.pop(key, None)
        if runner is None:
            if len(self._runners) == MOST_RUNNERS:
                self._runners.pop(next(iter(self._runners))).close()
            runner = Runner(_settings(self._folder, limits))
        self._runners[key] = runner
        return runner

    def close(self) -> None:
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()


def _settings(folder: Path, limits: Limits) -> Settings:
    return Settings(
        folder,
        empty_directory=True,
        environment=_environment(folder),
        preload=(inside.__name__,),
        limits=RunnerLimits(
            memory_mb=limits.memory_mb,
            processes=PROCESSES,
            open_files=OPEN_FILES,
            file_size_mb=FILE_MB,
            output_mb=limits.output_mb,
        ),
        end_grace_s=0.0,
    )


def _environment(folder: Path) -> dict[str, str]:
    """Ours without what is hwsync's own, which may be a password; its home is its folder."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("HWSYNC")}
    source = str(Path(hwsync.__file__).parent.parent)
    if source in sys.path and not source.endswith("-packages"):  # not installed: the source itself
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [source, found.get("PYTHONPATH")]))
    return found | {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8"}


def _job(analyser: Analyser, run: Run) -> Job:
    files = dict(analyser.files)
    arguments = repr(analyser.main)
    if analyser.kind is Kind.PYTHON:
        arguments += f", {analyser.source!r}"
    elif analyser.kind is Kind.EXECUTABLE:
        files[analyser.main] = analyser.source
    return Job(
        HARNESS.format(kind=analyser.kind, arguments=arguments),
        json.dumps(run.as_json()),
        (),
        analyser.limits.time_s,
        name=PROGRAM,
        grace=GRACE_S,
        files=tuple(File.of(path, data) for path, data in files.items()),
        collect=(inside.ANSWER,),
    )


def _judgement(analyser: Analyser, end: RunEnd) -> Judgement:
    """Raises ``Fault``."""
    if end.outcome == "timeout":
        raise Fault(f"it took longer than {analyser.limits.time_s:g} s")
    if end.outcome == "killed":
        limit = end.reason.partition(";")[0].removeprefix("killed by ")
        raise Fault(one_line(f"it was killed: {limit}"))
    said = _said(analyser, end)
    if said is None and analyser.kind is Kind.EXECUTABLE:
        return Judgement(analyser.name, analyser.version, read(_of_executable(end)))
    if said is None:
        raise Fault(f"it ended without an answer (exit code {end.exit_code})")
    return Judgement(analyser.name, analyser.version, read(said))


def _with_limit(fault: str, analyser: Analyser) -> str:
    """What Python says where it gets no more memory does not say how much it was."""
    if fault.startswith("it raised MemoryError"):
        return f"{fault}; limits.memory_mb = {analyser.limits.memory_mb}"
    return fault


def _said(analyser: Analyser, end: RunEnd) -> str | None:
    """The answer as JSON, as the process wrote it down; None: it wrote none. Raises ``Fault``."""
    data = next((one.data for one in end.files if one.path == inside.ANSWER), None)
    if data is None:
        return None
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not said.keys() & {"answer", "fault", "large"}:
        raise Fault("what it wrote down is no answer")
    if "large" in said:
        raise Fault(TOO_LARGE)
    if "fault" in said:
        raise Fault(one_line(_with_limit(str(said["fault"]), analyser)))
    try:
        return json.dumps(said["answer"])
    except RecursionError:
        raise Fault("its answer is nested too deeply") from None


def _of_executable(end: RunEnd) -> str:
    """What it printed. Raises ``Fault``."""
    if end.exit_code:
        last = end.stderr.rstrip().rpartition("\n")[2]
        raise Fault(one_line(f"it ended with exit code {end.exit_code}{last and ': '}{last}"))
    if not end.response.strip():
        raise Fault("it printed no answer")
    if end.truncated:
        raise Fault(TOO_LARGE)
    if hashlib.sha256(end.response.encode()).hexdigest() != end.sha256_stdout:
        raise Fault("what it printed is no UTF-8")
    return end.response


def _failed(analyser: Analyser, fault: str) -> Judgement:
    said = one_line(fault) or "it failed, and did not say how"
    return Judgement(analyser.name, analyser.version, {"error": said}, said)


def _printed(analyser: Analyser, end: RunEnd) -> str:
    """What its author may want to see of it."""
    own = "" if analyser.kind is Kind.EXECUTABLE else end.response
    return (own + end.stderr)[-PRINTED:]
