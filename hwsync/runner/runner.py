"""Run programs as the settings say, one after the other or in several threads.

Each run has a fork server of its own while it lasts; one server is kept between runs. A server
that died is replaced: that is logged, and costs the time of a start.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import replace

from hwsync.packages import Installed
from hwsync.protocol.errors import CannotRun
from hwsync.protocol.files import PATH_FORM, is_path
from hwsync.protocol.limits import NAME_FORM, is_name
from hwsync.runner.bubblewrap import visible
from hwsync.runner.job import Instant, Job, Piece, RunEnd, StopSwitch
from hwsync.runner.launcher import Launcher
from hwsync.runner.page import Page
from hwsync.runner.processes import Group, boot_id, end_orphans, keep_orphans
from hwsync.runner.run import Run
from hwsync.runner.settings import Settings
from hwsync.runner.shared_memory import SharedMemory
from hwsync.runner.workplace import Workplace

log = logging.getLogger("hwsync.runner")


class Runner:
    """Runs programs with the meaning of ``python3 NAME`` (docs/device.md has the differences).

        runner = Runner(Settings(Path("programs")))
        runner.start()
        end = runner.run(Job("print(6*7)", "", (), 10.0),
                         on_started=..., on_output=..., stop=StopSwitch())
        runner.close()

    ``alone``: this process has no children but the runner's, so that whatever else becomes its
    child is a program's, and is ended.
    """

    def __init__(self, settings: Settings, *, alone: bool = False) -> None:
        # The fork server lives in that folder: a relative path would mean another one there.
        self._settings = replace(settings, directory=settings.directory.absolute())
        self._alone = alone
        self._workplace = Workplace(self._settings)
        self._shared_memory = SharedMemory(self._settings)
        self._unusable = ""  # why the interpreter cannot be used, as far as is known
        self._idle: Launcher | None = None
        self._lock = threading.Lock()
        self.version = ""  # of the interpreter that was last made ready
        self._installed: Installed | None = None
        if alone:
            keep_orphans()

    def start(self) -> None:
        """Have a server ready; best called before there is any thread.

        Raises ``CannotRun`` where the interpreter, the account or the folder cannot be used;
        ``run`` tries anew, and raises the same while that is not mended.
        """
        boot_id()
        self._workplace.prepare()
        self._workplace.release()
        with self._lock:
            if self._idle is None:
                self._idle = self._launch()

    @property
    def refusal(self) -> str:
        """Why every program is refused, as far as is known; empty while there is no such reason."""
        self._workplace.look_again()
        return self._unusable or self._workplace.refusal

    @property
    def packages(self) -> str:
        """The hash of those that Python programs can import; empty: not known."""
        return "" if self._installed is None else self._installed.sha256

    def close(self) -> None:
        """End the server that is kept. No run may be under way."""
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is not None:
            idle.close()

    def run(
        self,
        job: Job,
        *,
        on_started: Callable[[Group], None],
        on_output: Callable[[Piece], None],
        stop: StopSwitch,
    ) -> RunEnd:
        """Run the job to its end, and that of every process that it has left; blocks.

        At once: whoever wants it to begin at an instant calls ``prepare``.

        ``on_started`` is called once, before the program can do anything: in it the group is
        written down, so that another life can end it. What it raises comes out of here, and nothing
        has run then. It is not called when ``stop`` is set before. ``on_output`` gets live pieces;
        it is called in this thread and must not block: the time limit would wait for it.

        Raises ``CannotRun`` when the program could not be started or did not begin: nothing has
        run, and it may be tried again. Once it has begun nothing is raised: what fails then makes
        the outcome ``interrupted`` (docs/protocol.md, section 1, "Outcomes").
        """
        boot = boot_id()
        source, given = _texts(job)
        run = Run(self._settings, given, on_output, stop)
        launcher: Launcher | None = None
        prepared = False
        try:
            group = None
            if not stop.is_set:
                self._workplace.prepare(job)
                self._shared_memory.prepare()
                prepared = True
                launcher = self._begin(run, job)
                group = run.wait_for_session(boot)
            if group is not None:
                on_started(group)
            if group is None or stop.is_set:
                return run.cancelled()
            try:
                end = run.perform(job, source)
            except CannotRun:
                raise
            except Exception as error:
                # It may have begun, and may have ended in any way: to say more would be a guess.
                log.exception("lost sight of a program that had been handed over")
                end = run.lost(f"the device lost sight of it: {error}")
            return self._with_files(run, job, source, end)
        finally:
            self._leave(run, launcher, prepared)

    def prepare(
        self, job: Job, *, on_output: Callable[[Piece], None], stop: StopSwitch
    ) -> Prepared:
        """Have the job's process ready: its session, its file, the program compiled; blocks.

        Who has it calls ``Prepared.run`` or ``Prepared.drop``, from any thread, and nothing else is
        run meanwhile. Raises ``CannotRun`` where it cannot be made ready, or was stopped: nothing
        is left then.
        """
        boot = boot_id()
        source, given = _texts(job)
        page = Page(math.ceil(self._settings.limits.cpu_s or 0))
        run = Run(self._settings, given, on_output, stop, page)
        launcher: Launcher | None = None
        taken = False
        try:
            if not stop.is_set:
                self._workplace.prepare(job)
                self._shared_memory.prepare()
                taken = True
                launcher = self._begin(run, job)
                group = run.wait_for_session(boot)
                if group is not None and run.prepare(job, source):
                    held = launcher
                    return Prepared(
                        *(run, job, page, group, lambda: self._leave(run, held, True)),
                        lambda end: self._with_files(run, job, source, end),
                    )
            raise CannotRun("it was stopped while it was prepared")
        except BaseException:
            self._leave(run, launcher, taken)
            raise

    def _with_files(self, run: Run, job: Job, source: bytes, end: RunEnd) -> RunEnd:
        """With what it leaves in its folder, whatever its outcome, if it began."""
        if not end.began:
            return end
        try:
            run.end_all()
            if run.server_failed:  # what it held may go on
                self._end_orphans()
            files, not_kept = self._workplace.bring_back(job, source, run.left_for_files(job))
        except Exception:
            log.exception("cannot look for the files of a program")
            return end
        return replace(end, files=files, not_kept=not_kept)

    def _leave(self, run: Run, launcher: Launcher | None, prepared: bool) -> None:
        """Whatever fails here, how the program ended is known, and that is reported."""
        good = False
        try:
            good = run.close()
        except Exception:
            log.exception("cannot release a run")
        try:
            if launcher is not None:
                self._give_back(launcher, good)
        except Exception:
            log.exception("cannot release a fork server")
        if prepared:
            self._clean_up()

    def _begin(self, run: Run, job: Job) -> Launcher:
        with self._lock:
            launcher, self._idle = self._idle, None
        for _ in range(2):
            launcher = launcher or self._launch()
            try:
                if launcher.is_working and run.start(launcher, job):
                    return launcher
            except BaseException:
                launcher.close()
                raise
            log.warning("the fork server has died, or is stopped; another one is started")
            launcher.kill()
            launcher = None
        raise CannotRun("the fork server dies again and again", "see the log")

    def _launch(self) -> Launcher:
        try:
            launcher = Launcher(self._settings)
        except CannotRun as error:
            self._unusable = error.message
            raise
        self._unusable = ""
        if self._installed is None and not self._settings.interpreter:
            paths = visible(self._settings, launcher.paths)
            self._installed = Installed(paths, str(self._settings.directory))
        self.version = launcher.version
        return launcher

    def _give_back(self, launcher: Launcher, good: bool) -> None:
        try:
            launcher.clean_up()
        except (OSError, CannotRun) as error:
            log.error("cannot clean up after a program: %s", error)
            good = False
        if not good:
            log.warning("the fork server was ended, stopped or failed; the next run starts another")
            launcher.close()
            return
        with self._lock:
            if self._idle is None:
                self._idle = launcher
                return
        launcher.close()

    def _clean_up(self) -> None:
        """After a run: what it left, in processes, in memory and in its folder."""
        for work in (self._end_orphans, self._shared_memory.clean_up, self._workplace.clean_up):
            try:
                work()
            except (OSError, CannotRun) as error:
                log.error("cannot clean up after a program: %s", error)
            except Exception:
                log.exception("cannot clean up after a program")

    def _end_orphans(self) -> None:
        if self._alone:
            idle = self._idle
            end_orphans({idle.pid} if idle is not None else set())


class Prepared:
    """A program whose process waits for its instant. ``group``: for the journal.

    It ends with the daemon, at the latest.
    """

    def __init__(
        self,
        run: Run,
        job: Job,
        page: Page,
        group: Group,
        leave: Callable[[], None],
        with_files: Callable[[RunEnd], RunEnd],
    ) -> None:
        self._with_files = with_files
        self._run = run
        self._job = job
        self._page = page
        self._leave = leave
        self.group = group

    def aim(self, instant: Instant) -> None:
        """When it is to be released, as far as is known now; from any thread, until it ends."""
        self._page.aim(instant)

    def disarm(self) -> None:
        """It is not to be released any more; it may have been. From any thread."""
        self._page.disarm()

    def run(self) -> RunEnd:
        """Allow the release at the instant, and run it to its end, as ``Runner.run``; blocks.

        Raises ``CannotRun`` where it was not released: surely nothing has run.
        """
        try:
            try:
                end = self._run.release(self._job)
            except CannotRun:
                raise
            except Exception as error:
                log.exception("lost sight of a program that had been handed over")
                end = self._run.lost(f"the device lost sight of it: {error}")
            return self._with_files(end)
        finally:
            self._leave()

    def drop(self) -> None:
        """End it before it was allowed to begin; it leaves nothing."""
        self._page.disarm()
        self._leave()


def _texts(job: Job) -> tuple[bytes, bytes]:
    """Program and standard input. Raises ``CannotRun`` for what cannot be run, whatever it does."""
    if not is_name(job.name):
        raise CannotRun(f"{job.name[:80]!r} is no name for a program's file", NAME_FORM)
    for file in job.files:
        if not is_path(file.path) or file.path == job.name:
            raise CannotRun(f"{file.path[:80]!r} is no path for a file of its own", PATH_FORM)
    for number, argument in enumerate(job.args, 1):
        _encoded(argument, f"argument {number}")
        if "\0" in argument:
            raise CannotRun(f"argument {number} holds a NUL character")
    return _encoded(job.program, "the program"), _encoded(job.stdin, "the standard input")


def _encoded(text: str, what: str) -> bytes:
    """``text`` as UTF-8. Raises ``CannotRun`` for half a surrogate pair, which JSON can spell."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CannotRun(f"{what} is no valid Unicode text (position {error.start})") from error
