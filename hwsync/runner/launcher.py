"""The daemon's side of one fork server (``server.py``): start it, ask it for a run, end it.

A server runs one program at a time, and is worth nothing once its socket has closed.
"""

from __future__ import annotations

import array
import contextlib
import logging
import math
import os
import pwd
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from hwsync.protocol.errors import CannotRun
from hwsync.runner.beside import Beside
from hwsync.runner.bubblewrap import inside
from hwsync.runner.cgroup import Cgroup
from hwsync.runner.folder import account_of
from hwsync.runner.processes import KILL_LIMIT_S, SWEEP_LIMIT_S, read_process
from hwsync.runner.settings import MEGABYTE, Isolation, Settings, Start
from hwsync.runner.workplace import MARK

START_LIMIT_S: Final = 60.0  # for an interpreter to start: a cold SD card under load takes seconds
LEAVE_LIMIT_S: Final = 1.0  # for a server to leave once its socket is closed: a millisecond
LOOK_S: Final = 0.1  # between two looks at the limits that the kernel does not enforce
PATIENCE_S: Final = 0.2  # for what a program leaves to end by itself
LOOKS: Final = 4  # that still find somebody new, before the cgroup is ended: one more is usual
OTHERS: Final = 200  # processes of the same account that may begin while a program runs
SHOWN: Final = 300  # characters of an interpreter's own complaint in an error's message

_HERE: Final = Path(__file__).parent
EXECUTE: Final = _HERE.joinpath("execute.py").read_text(encoding="utf-8")
RELEASE: Final = _HERE.joinpath("release.py").read_text(encoding="utf-8")
SERVER: Final = _HERE.joinpath("server.py").read_text(encoding="utf-8")

# The compiler leaves 1.5 MB in its process: so a child compiles the server's text, which is the
# first message in its socket, and hands back code of this interpreter, whatever version that is.
# The functions are called from here: one more frame below them would be seen by programs.
START: Final = """
import marshal, os, sys
reader, writer = os.pipe()
child = os.fork()
if not child:
    code = compile(os.read({control}, {size}), "<string>", "exec")
    with open(writer, "wb") as pipe:
        marshal.dump(code, pipe)
    os._exit(0)
os.close(writer)
with open(reader, "rb") as pipe:
    code = pipe.read()
if os.waitpid(child, 0)[1]:
    sys.exit(1)
exec(marshal.loads(code))
serve({control}, given, become, release)
execute(*task)
"""

log = logging.getLogger("hwsync.runner")


class Launcher:
    """One running server. Its construction raises ``CannotRun``."""

    def __init__(self, settings: Settings) -> None:
        if not settings.directory.is_dir():
            raise CannotRun(
                f"the working directory {settings.directory} does not exist",
                "create it, or name another",
            )
        account = account_of(settings.run_as)
        environment = dict(os.environ if settings.environment is None else settings.environment)
        if account is not None:
            environment |= {"HOME": account.pw_dir, "USER": account.pw_name,
                            "LOGNAME": account.pw_name}  # fmt: skip
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._beside: Beside | None = None
        self._cgroup: Cgroup | None = None
        # Its home is the account's, and it is root: nothing that lies there may run in it.
        options = [] if account is None else ["-s"]
        try:
            if not settings.empty_directory:
                self._beside = Beside(account)
            given = _given(settings, account, None if self._beside is None else self._beside.path)
            self._cgroup = Cgroup.make()
            given["cgroup"] = "" if self._cgroup is None else str(self._cgroup.path)
            text = f"{EXECUTE}\n\n{RELEASE}\n\n{SERVER}\n\ngiven = {given!r}\n".encode()
            start = START.format(control=theirs.fileno(), size=len(text))
            ours.send(text)
            self._process = subprocess.Popen(
                [settings.python, *options, "-c", start],
                stdin=subprocess.PIPE,  # three pipes: streams like those that a program will have
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                cwd=settings.directory,
                env=environment,
                start_new_session=True,
            )
        except BaseException as error:
            ours.close()
            self._remove_places()
            if not isinstance(error, OSError | ValueError):
                raise
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise CannotRun(
                f"{settings.python} cannot be started: {why}", "check the interpreter's path"
            ) from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._socket = ours
        assert self._process.stdin is not None
        self._process.stdin.close()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
        self.version = ""
        self.paths: tuple[str, ...] = ()  # of its modules
        try:
            self._wait_until_warm(settings)
        except BaseException:
            self.close()
            raise

    def _wait_until_warm(self, settings: Settings) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        said = ""
        while not poll.poll(50):
            said += self._complaints()
            if time.monotonic() > deadline:
                raise CannotRun(f"{settings.python} was not ready within {START_LIMIT_S:g} s")
        with contextlib.suppress(OSError):
            version, *paths = os.fsdecode(self._socket.recv(1 << 16)).split("\0")
            self.version, self.paths = version.removeprefix("warm "), tuple(paths)
        said += self._complaints(wait=not self.version)
        if not self.version:
            modules = f" with preload {', '.join(settings.preload)}" if settings.preload else ""
            last = " ".join(said.split())[-SHOWN:] or "it said nothing"
            raise CannotRun(
                f"{settings.python}{modules} cannot be used: {last}",
                "it must be Python 3.11 or later; modules of preload must be there, and leave no "
                "threads running",
            )
        if said:
            log.warning("%s said at its start: %.300s", settings.python, said)

    def _complaints(self, *, wait: bool = False) -> str:
        """What it wrote to its own streams; ``wait``: to the end of it, since it has ended."""
        if wait:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_LIMIT_S)
        said = b""
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                while part := os.read(stream.fileno(), 65536):
                    said += part
        return said.decode("utf-8", "replace")

    def begin(self, name: str, arguments: tuple[str, ...], files: tuple[int, ...]) -> bool:
        """Have a program's process forked; False: the server is gone."""
        message = b"\0".join([b"run", *(text.encode() for text in (name, *arguments))])
        if said := self._complaints():
            log.warning("the fork server said: %.300s", said)
        try:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
            self._socket.sendmsg([message], [rights])
        except ConnectionError:
            return False
        except OSError as error:
            raise CannotRun(
                f"the program's arguments cannot be passed: {error.strerror}"
            ) from error
        return True

    def clean_up(self) -> None:
        """Remove what a program left beside its folder. Raises ``CannotRun``."""
        if self._beside is not None:
            self._beside.make_empty()

    @property
    def is_working(self) -> bool:
        """False: it is gone, or stopped."""
        process = read_process(self.pid)
        return process is not None and process.state not in "TtZX"

    def signal(self, number: int) -> None:
        """Have it send that signal to the program's foreground group."""
        with contextlib.suppress(OSError):
            self._socket.send(b"signal %d" % number, socket.MSG_DONTWAIT)

    def end(self) -> None:
        """Ask it to end its program and everything below it."""
        with contextlib.suppress(OSError):
            self._socket.send(b"end", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """End it, and its program; it may be stopped, or gone."""
        self._socket.close()
        try:
            self._process.wait(LEAVE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._remove_places()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _remove_places(self) -> None:
        if self._cgroup is not None:
            self._cgroup.remove()
        if self._beside is not None:
            self._beside.remove()

    def kill(self) -> None:
        """End it at once, when it does not answer."""
        self._process.kill()
        self.close()


def _given(
    settings: Settings, account: pwd.struct_passwd | None, beside: Path | None
) -> dict[str, Any]:
    """What the server is told: plain values, since they travel as Python text."""
    limits = settings.limits
    isolated = settings.isolation is Isolation.BWRAP
    command: list[str] = []
    if isolated:
        command = [*inside(settings, beside), settings.python]
    elif settings.start is Start.COLD and not settings.interpreter:
        command = [settings.python]

    def in_bytes(megabytes: int | None) -> int:
        return (megabytes or 0) * MEGABYTE

    return {
        "preload": settings.preload if settings.start is Start.WARM else (),
        "directory": str(settings.directory),
        "command": command,  # of a fresh Python; empty: the program's process is forked
        "interpreter": list(settings.interpreter),
        "isolated": isolated,
        "execute": EXECUTE if command else "",
        "release": RELEASE if command else "",
        "beside": "" if beside is None else str(beside),
        "mark": "" if settings.empty_directory else MARK,
        "uid": os.geteuid() if account is None else account.pw_uid,
        "gid": os.getegid() if account is None else account.pw_gid,
        "groups": None if account is None else os.getgrouplist(account.pw_name, account.pw_gid),
        "cpu": math.ceil(limits.cpu_s or 0),
        "memory": in_bytes(limits.memory_mb),
        "processes": limits.processes or 0,
        "open_files": limits.open_files or 0,
        "file_size": in_bytes(limits.file_size_mb),
        "free_disk": in_bytes(limits.free_disk_mb),
        "others": OTHERS,
        "look": LOOK_S,
        "kill_limit": KILL_LIMIT_S,
        "sweep_limit": SWEEP_LIMIT_S,
        "looks": LOOKS,
        "patience": PATIENCE_S,
    }
