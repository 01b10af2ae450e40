"""A command that a test starts: its output in files, its end in the test's hands.

Every process is ended by its own id, never by its name. It runs in a session of its own, so that
what it left behind can be ended with it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.waiting import PATIENCE, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
SHOWN = 4_000  # characters of each stream that a failure shows
# A person's own settings must not reach a test. PYTHONUNBUFFERED, which shells of developers and of
# CI often have, would hide what users meet: output that stays in a buffer.
OURS = ("HWSYNC_", "STATE_DIRECTORY", "PYTHON")

Stream = Literal["stdout", "stderr"]


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a test's process.

    ``hwsync`` and ``hwsync-device`` are found first, the person's own settings are not seen,
    and the defaults below the home directory end in ``home``. The checkout is importable where
    hwsync is not installed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    binaries = str(Path(sys.executable).parent)
    inherited["PATH"] = os.pathsep.join([binaries, inherited.get("PATH", os.defpath)])
    inherited["HOME"] = str(home)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        inherited.pop(name, None)
    if not _installed():
        inherited["PYTHONPATH"] = str(CHECKOUT)
    return inherited | dict(extra or {})


@functools.cache
def _installed() -> bool:
    try:
        importlib.metadata.distribution("hwsync")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def python(
    source: str, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A text of Python in a process of its own, to its end; it finds this checkout."""
    return subprocess.run(
        [sys.executable, "-c", source, *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def read_terminal(terminal: int) -> str:
    """What was written to a pseudo-terminal, up to the end of all who hold its other side.

    Without the terminal's own line ends, and the line that says for how long hwsync waits.
    """
    heard = b""
    try:
        while data := os.read(terminal, 4_096):
            heard += data
    except OSError:  # how a terminal without a program ends
        pass
    return heard.decode().replace("\r\n", "\n").rpartition("\r\x1b[K")[2]


class Process:
    """A running command.

    ``directory`` gets ``NAME.stdout`` and ``NAME.stderr``, and is the home and, unless ``cwd`` says
    otherwise, the working directory. ``variables`` are added to the environment (above).
    ``stdin`` is the whole input. ``user`` is the number of the account that runs it, and of its
    only group; only root can choose one.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        directory: Path,
        name: str,
        variables: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        user: int | None = None,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self._files: dict[Stream, Path] = {
            "stdout": directory / f"{name}.stdout",
            "stderr": directory / f"{name}.stderr",
        }
        given = directory / f"{name}.stdin"
        given.write_bytes(stdin)
        with (
            given.open("rb") as source,
            self._files["stdout"].open("wb") as stdout,
            self._files["stderr"].open("wb") as stderr,
        ):
            self._child = subprocess.Popen(
                self.command,
                stdin=source,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd or directory,
                env=environment(directory, variables),
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.poll()

    def output(self, stream: Stream = "stdout") -> str:
        """What was written so far, bad bytes replaced."""
        return self._files[stream].read_text(encoding="utf-8", errors="replace")

    @property
    def stdout(self) -> str:
        return self.output("stdout")

    @property
    def stderr(self) -> str:
        return self.output("stderr")

    def send_signal(self, number: int) -> None:
        self._child.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self._child.terminate()

    def interrupt(self) -> None:
        """SIGINT, as Ctrl-C gives it; does not wait."""
        self._child.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to this one process, as a crash: what it started lives on. Waits for its end."""
        self._child.kill()
        self._child.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code. Fails the test when it does not end within ``timeout`` seconds."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {timeout:g} s\n{self.account()}")

    def wait_for_log(
        self, pattern: str, timeout: float = PATIENCE, stream: Stream = "stderr", count: int = 1
    ) -> re.Match[str]:
        """The ``count``-th match of the regular expression in a stream (lines: ``^`` and ``$``).

        Fails at once when the process has ended without it.
        """
        expression = re.compile(pattern, re.MULTILINE)

        def found() -> re.Match[str] | None:
            ended = not self.running  # before the look: what it wrote last must count
            matches = list(expression.finditer(self.output(stream)))
            if len(matches) >= count:
                return matches[count - 1]
            if ended:
                pytest.fail(f"{self.name} ended without {pattern!r}\n{self.account()}")
            return None

        match = wait_until(
            found, timeout, lambda: f"{pattern!r} in {self.name}'s {stream}\n{self.account()}"
        )
        assert match is not None
        return match

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM, after ``timeout`` seconds SIGKILL; also ends the rest of its process group."""
        if self.running:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._child.wait()

    def account(self) -> str:
        """Command, exit code and the last of both streams, for a failure's message."""
        parts = [f"--- {self.name} (exit code {self.exit_code}): {' '.join(self.command)}"]
        streams: tuple[Stream, Stream] = ("stdout", "stderr")
        parts += [
            f"--- {self.name} {stream}\n{text[-SHOWN:]}"
            for stream in streams
            if (text := self.output(stream))
        ]
        return "\n".join(parts)


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Callable[..., Process]]:
    """What starts commands, and ends them afterwards, the last first: a fixture's inside.

    It takes the arguments of ``Process``; ``directory`` and ``name`` are optional.
    """
    started: list[Process] = []

    def start_one(command: Sequence[str | Path], *, name: str = "", **options: Any) -> Process:
        label = name or Path(command[0]).name
        # A second life of the same name must not overwrite what the first one said.
        again = sum(other.name.split("#")[0] == label for other in started)
        options.setdefault("directory", folder)
        process = Process(command, name=f"{label}#{again + 1}" if again else label, **options)
        started.append(process)
        return process

    try:
        yield start_one
    finally:
        for process in reversed(started):
            process.stop()
            print(process.account())
