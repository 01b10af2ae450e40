"""A program means the same to ``Runner``, warm and cold, as to ``python3 -``.

Exit codes and streams must be equal, the streams byte for byte but for addresses of objects and the
depth of a recursion. The differences that are known and meant (docs/device.md)
are tested at the end.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwsync.runner import Job, RunEnd, Runner, Settings, Start, StopSwitch

BLOT = re.compile(
    r"0x[0-9a-f]{6,}"  # an object's address
    r"|\b\d{12,}\b"  # a thread's identity
    r"|(?<=repeated )\d+"  # frames of a recursion: two fewer fit
)

ARGUMENTS = ("one", "-c", "--help", "-")

PROGRAMS = {
    "print": "print(6 * 7)",
    "empty": "",
    "only a comment, no newline at the end": "# nothing",
    "windows line ends": "x = 1\r\nif x:\r\n    print('yes')\r\n1 / 0\r\n",
    "byte order mark": "\ufeffprint('ok')",
    "coding line": "# -*- coding: latin-1 -*-\nprint(ascii('é'), len('é'))",
    "coding line on line 2": "#!/usr/bin/python3\n# vim: set fileencoding=utf-8 :\nprint('é')",
    "nested functions": """
def outer():
    def inner():
        return [x / 0 for x in (1, 2)]
    return inner()

outer()
""",
    "chained exceptions": """
class Wrong(ValueError):
    pass

def convert(text):
    try:
        return int(text)
    except ValueError as error:
        raise Wrong("no number") from error

try:
    convert("x")
except Wrong:
    {}["missing"]
""",
    "exception group and notes": """
error = ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [TypeError("t")])])
error.add_note("a note\\nof two lines")
raise error
""",
    "exception whose str fails": """
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")
raise Odd
""",
    "syntax error": "print('before')\nx = (1,\ny = 2\n",
    "syntax error on line 1": "def f(:",
    "indentation error": "if True:\nprint(1)\n",
    "tab error": "if True:\n\tx = 1\n        y = 2\n",
    "syntax error after unicode": "x = 'äöü' +* 3\n",
    "unterminated string": "x = '''abc\ndef\n",
    "return at the top": "x = 1\nreturn x\n",
    "syntax error inside a run exec": "exec('a b c')",
    "syntax warning": "x = 1\nprint(x is 1)",
    "invalid escape": "print('\\d')",
    "sys.exit()": "import sys\nprint(1)\nsys.exit()",
    "sys.exit(None)": "import sys; sys.exit(None)",
    "sys.exit(3)": "import sys; sys.exit(3)",
    "sys.exit(-1)": "import sys; sys.exit(-1)",
    "sys.exit(256)": "import sys; sys.exit(256)",
    "sys.exit(text)": "import sys; sys.exit('the text\\né')",
    "sys.exit(object)": "import sys; sys.exit((1, 'a'))",
    "sys.exit in a function": "import sys\ndef f():\n    sys.exit(4)\nf()",
    "raise SystemExit in finally": "try:\n    1 / 0\nfinally:\n    raise SystemExit(5)",
    "quit": "quit(6)",
    "os._exit loses what is buffered": "import os\nprint('lost')\nos._exit(7)",
    "unflushed output": "import sys\nsys.stdout.write('no newline')\nsys.stderr.write('here too')",
    "closed standard output": "import sys\nprint('x')\nsys.stdout.close()",
    "stdout closed below": "import os\nprint('x')\nos.close(1)",
    "order on one descriptor": "import os\nprint('first')\nos.dup2(1, 2)\n1 / 0",
    "atexit": """
import atexit, sys
atexit.register(print, "last")
atexit.register(lambda: print("first", sys.excepthook is sys.__excepthook__))
1 / 0
""",
    "exception in atexit": "import atexit\natexit.register(lambda: 1 / 0)\nprint('x')",
    "sys.exit in atexit": "import atexit, sys\natexit.register(lambda: sys.exit(9))\nprint('x')",
    "destructor at the end": """
class Late:
    def __del__(self):
        print("deleted")
late = Late()
""",
    "threads outlive the main thread": """
import threading, time
def work():
    time.sleep(0.05)
    print("thread done")
threading.Thread(target=work).start()
print("main done")
""",
    "exception in a thread": """
import threading
def work():
    raise ValueError("in a thread")
thread = threading.Thread(target=work, name="worker")
thread.start()
thread.join()
print("main goes on")
""",
    "main thread": """
import threading
print(threading.current_thread() is threading.main_thread(), threading.current_thread().name)
""",
    "warnings": """
import warnings
warnings.warn("watch out")
def old():
    warnings.warn("old", DeprecationWarning, stacklevel=2)
old()
""",
    "unicode": "print('äß→😀')\nimport sys; print('é', file=sys.stderr)",
    "lone surrogate": "print('before')\nprint('\\ud800')",
    "lone surrogate in the message": "raise ValueError('\\ud800 é')",
    "encodings": """
import sys
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.encoding, stream.errors, stream.line_buffering, stream.isatty(), stream.name)
""",
    "input at end of file": "print(repr(__import__('sys').stdin.read()))\ninput('? ')",
    "arguments": "import sys\nprint(sys.argv, sys.orig_argv[1:], sys.path[0] == '', sys.flags)",
    "names": """
print(sorted(set(dir()) - {"__file__", "__cached__"}))
print(__name__, __doc__, __package__, __spec__, __loader__, __annotations__, __builtins__)
""",
    "docstring and annotations": "'a docstring'\nx: int = 1\nprint(__doc__, __annotations__)",
    "loaded modules": "import sys\nprint(sorted(sys.modules))",
    "main module": """
import __main__, sys
print(__main__.__dict__ is globals(), sys.modules["__main__"] is __main__, vars() is globals())
""",
    "working directory on the path": "import beside\nprint(beside.__name__)",
    "multiprocessing by fork": """
import multiprocessing
context = multiprocessing.get_context("fork")
def square(x):
    return x * x
with context.Pool(2) as pool:
    print(pool.map(square, range(5)))
""",
    "fork": """
import os, sys
sys.stdout.flush()
if os.fork() == 0:
    print("child")
    sys.exit(3)
print("parent saw", os.waitstatus_to_exitcode(os.wait()[1]))
""",
    "asyncio": """
import asyncio
async def main():
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(3)))
    process = await asyncio.create_subprocess_exec("echo", "hi", stdout=asyncio.subprocess.PIPE)
    print(await process.communicate())
    raise LookupError("from a coroutine")
asyncio.run(main())
""",
    "subprocess": """
import subprocess
print(subprocess.run(["sh", "-c", "cat; exit 3"]).returncode)
""",
    "killed by a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "terminates itself": """
import os, signal
print("x", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
""",
    "abort": "import os\nos.abort()",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "SIGINT": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)",
    "broken pipe": """
import os, sys
read, write = os.pipe()
os.close(read)
os.write(write, b"x")
""",
    "signal handlers": """
import signal
print([(n, signal.getsignal(n)) for n in sorted(signal.valid_signals()) if n < 32])
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
""",
    "pickle of a class in main": """
import pickle
class Point:
    def __init__(self, x):
        self.x = x
print(pickle.loads(pickle.dumps(Point(3))).x, Point.__module__, Point.__qualname__)
""",
    "dataclass, inspect, type hints": """
import dataclasses, inspect, typing
@dataclasses.dataclass
class Point:
    x: int
    y: "typing.Optional[Point]" = None
def f(a: "Point", /, *, b: int = 2) -> None: ...
print(Point(1), typing.get_type_hints(Point), typing.get_type_hints(f), inspect.signature(f))
print(inspect.getmodule(f).__name__, f.__code__.co_filename, f.__code__.co_firstlineno)
inspect.getsource(f)
""",
    "future annotations": """
from __future__ import annotations
def f(x: undefined) -> nothing: ...
print(f.__annotations__)
""",
    "annotations without the future": "def f(x: undefined): ...",
    "excepthook replaced": """
import sys, traceback
def hook(kind, error, trace):
    print("hook", kind.__name__, error)
    traceback.print_exception(kind, error, trace)
    print(len(traceback.extract_tb(error.__traceback__)), sys.last_value is error)
sys.excepthook = hook
def f():
    raise OSError("told")
f()
""",
    "excepthook that fails": """
import sys
def hook(*args):
    raise TypeError("the hook's own")
sys.excepthook = hook
1 / 0
""",
    "excepthook that exits": "import sys\nsys.excepthook = lambda *args: sys.exit(12)\n1 / 0",
    "excepthook that is none": "import sys\nsys.excepthook = None\n1 / 0",
    "recursion error": """
def f():
    f()
try:
    f()
except RecursionError as error:
    print(error)
""",
    "recursion error, uncaught": "def f():\n    f()\nf()",
    "memory error": "x = bytearray(1 << 60)",
    "unraisable": """
class Bad:
    def __del__(self):
        raise ValueError("in del")
del_me = Bad()
del del_me
print("goes on")
""",
    "import error": "import no_such_module_at_all",
    "error in an imported module": "import broken_beside",
    "assertion": "assert 1 == 2, 'not equal'",
    "traceback module": """
import traceback
def f():
    raise KeyError("k")
try:
    f()
except KeyError:
    traceback.print_exc()
""",
    "logging": "import logging\nlogging.warning('w')\nlogging.getLogger('x').error('e')",
    "generator left open": """
def numbers():
    try:
        yield 1
    finally:
        print("closed")
g = numbers()
print(next(g))
""",
    "session and group": """
import os
print(os.getsid(0) == os.getpgrp() == os.getpid(), os.isatty(0))
""",
    "open descriptors": """
import os
print(sorted(name for name in os.listdir("/proc/self/fd") if int(name) > 2)[:1] == ["3"])
print(len(os.listdir("/proc/self/fd")))
""",
    "global and local": """
x = 1
def f():
    global y
    y = x + 1
f()
print(y, locals() is globals())
""",
}


def expected(program: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    # Through a file: from a pipe python3 - cannot honour a coding line other than UTF-8.
    file = directory / "program"
    file.write_bytes(program.encode())
    with file.open("rb") as stdin:
        return subprocess.run(
            [sys.executable, "-", *ARGUMENTS],
            stdin=stdin,
            capture_output=True,
            cwd=directory,
            timeout=60,
            check=False,
            start_new_session=True,
        )


@pytest.fixture(params=[Start.WARM, Start.COLD], scope="module")
def start(request: pytest.FixtureRequest) -> Start:
    return Start(request.param)


@pytest.fixture
def got(start: Start, directory: Path) -> Iterator[Callable[[str], RunEnd]]:
    runners = []

    def run(program: str) -> RunEnd:
        runners.append(Runner(Settings(directory, start=start)))
        return runners[-1].run(
            Job(program, "", ARGUMENTS, 60.0),
            on_started=lambda group: None,
            on_output=lambda number, stream, text: None,
            stop=StopSwitch(),
        )

    yield run
    for runner in runners:
        runner.close()


def blotted(text: str) -> str:
    return BLOT.sub("#", text)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person's own, such as PYTHONUNBUFFERED, hides a difference."""
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        monkeypatch.delenv(name)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "broken_beside.py").write_text("def f():\n    1 / 0\n\nf()\n")
    return tmp_path


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_means_the_same_as_to_python(
    name: str, directory: Path, got: Callable[[str], RunEnd]
) -> None:
    program = PROGRAMS[name]
    reference = expected(program, directory)
    run = got(program)
    assert blotted(run.response) == blotted(reference.stdout.decode("utf-8", "replace"))
    assert blotted(run.stderr) == blotted(reference.stderr.decode("utf-8", "replace"))
    code = reference.returncode
    assert run.exit_code == (128 - code if code < 0 else code)
    assert run.outcome == ("ok" if code == 0 else "error" if code > 0 else "killed")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONIOENCODING", "ascii:backslashreplace"),
        ("PYTHONDEVMODE", "1"),
        ("PYTHONSAFEPATH", "1"),
        ("LC_ALL", "C"),
    ],
)
def test_the_environment_of_python_counts(
    variable: str,
    value: str,
    directory: Path,
    got: Callable[[str], RunEnd],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    program = """
'docstring'
import sys, warnings
print(sys.flags, sys.path, __debug__, __doc__, sys.stdout.encoding, 'é')
sys.stdout.write('unflushed')
assert False
warnings.warn('w')
"""
    reference = expected(program, directory)
    run = got(program)
    assert (run.response, run.stderr) == (reference.stdout.decode(), reference.stderr.decode())
    assert run.exit_code == reference.returncode


def test_the_module_has_no_file(directory: Path, got: Callable[[str], RunEnd]) -> None:
    """docs/protocol.md, section 5 (CPython's own ``python3 -`` sets it to "<stdin>")."""
    run = got("print([name in globals() for name in ('__file__', '__cached__')])")
    assert run.response == "[False, False]\n"


def test_two_frames_lie_below_the_module(directory: Path, got: Callable[[str], RunEnd]) -> None:
    run = got("import inspect; print(len(inspect.stack()))")
    assert run.response == "3\n"


@pytest.mark.parametrize(
    "program", ["# coding: no-such-codec\n", "# coding: ascii\nx = 'é'\n", "x = 1\ny = '\0'\n"]
)
def test_source_that_cannot_be_read_is_a_syntax_error(
    program: str, directory: Path, got: Callable[[str], RunEnd]
) -> None:
    reference = expected(program, directory)
    run = got(program)
    assert run.exit_code == reference.returncode == 1
    assert "Traceback" not in run.stderr
    assert "SyntaxError" in run.stderr


def test_a_daemons_ignored_and_blocked_signals_are_not_the_programs(
    directory: Path, got: Callable[[str], RunEnd]
) -> None:
    daemon = """
import pathlib, signal, sys
from pathlib import Path
from hwsync.runner import Job, Runner, Settings, StopSwitch
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
program = "import _signal as s; print(s.getsignal(1), s.getsignal(2), s.pthread_sigmask(0, ()))"
end = Runner(Settings(Path.cwd())).run(Job(program, "", (), 60.0), on_started=lambda group: None,
                       on_output=lambda *piece: None, stop=StopSwitch())
print(end.response, end=end.stderr)
"""
    checkout = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", daemon],
        env={**os.environ, "PYTHONPATH": checkout},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("0 <built-in function default_int_handler> set()"), done
