"""A program means the same to ``Runner``, warm, cold and in bubblewrap, as to ``python3 NAME``.

Exit codes and streams must be equal, the streams byte for byte but for addresses of objects, the
depth of a recursion and seconds that passed. Each program also gets the same standard input. The
differences that are known and meant (docs/device.md) are tested at the end; tests/test_docs.py says
which test has which.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hwsync.runner import Isolation, Job, RunEnd, Runner, Settings, Start, StopSwitch
from tests.support.processes import python
from tests.support.programs import require_program

BLOT = re.compile(
    r"0x[0-9a-f]{6,}"  # an object's address
    r"|\b\d{12,}\b"  # a thread's identity
    r"|(?<=repeated )\d+"  # frames of a recursion: two fewer fit
    r"|(?<=in )\d+\.\d+s"  # what a test took
)

NAME = "a_program.py"
ARGUMENTS = ("one", "-c", "--help", "-")

# Whether it was written is what the tests look at, too.
UNCLOSED = """
unclosed = open("unclosed", "w")
unclosed.write("all of it")
"""

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
    "unflushed output": "import sys\nsys.stdout.write('no newline')\nsys.stderr.write('here too')",
    "closed standard output": "import sys\nprint('x')\nsys.stdout.close()",
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
    "a file that nobody closed": f"""{UNCLOSED}
def held():
    print(unclosed)
""",
    "a file that nobody closed, in an object of itself": f"""{UNCLOSED}
class Self:
    pass
one = Self()
one.one, one.file = one, unclosed
del unclosed
""",
    "a file that nobody closed, and a handler of signals": f"""{UNCLOSED}
import signal, sys
def handle(*_):
    print(unclosed)
signal.signal(signal.SIGTERM, handle)
sys.excepthook = handle
class Late:
    def __del__(self, write=__import__("os").write):
        write(1, b"deleted")
late = Late()
""",
    "a file that nobody closed, and no collector": f"""{UNCLOSED}
import gc
gc.disable()
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
    "input at end of file": "print(repr(__import__('sys').stdin.read()))\ninput('? ')",
    "arguments": "import sys\nprint(sys.argv, sys.orig_argv[1:], sys.path, sys.flags)",
    "names": """
print(sorted(dir()), list(vars()))
print(__name__, __doc__, __package__, __spec__, __loader__, __annotations__, __builtins__)
print(__file__, __cached__, __loader__.path, __loader__.name)
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

PROGRAMS |= {
    "its own source": """
import inspect, linecache, sys
def f(x):
    # a comment
    return x
class Point:
    'the documentation'
print(inspect.getsource(f), inspect.getsource(Point), inspect.getfile(f), inspect.getcomments(f))
print(linecache.getline(__file__, 2))
print(open(__file__).read() == inspect.getsource(sys.modules[__name__]))
""",
    "a pool, spawned": """
import multiprocessing
def square(x):
    return x * x
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(square, range(5)))
""",
    "a pool of a fork server": """
import multiprocessing, sys
def where(x):
    return x, __name__, __file__, sys.argv
if __name__ == "__main__":
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        print(pool.map(where, range(2)))
""",
    "a spawned process that fails": """
import multiprocessing, sys
def work(x):
    print("child", x, sys.path[0] == sys.path[1], flush=True)
    raise LookupError("in the child")
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work, args=(1,), name="one")
    process.start()
    process.join()
    sys.exit(process.exitcode + 10)
""",
    "a spawned process without the guard": """
import multiprocessing
multiprocessing.get_context("spawn").Process(target=print, args=(1,), name="one").start()
""",
    "futures": """
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
def work(x):
    return 1 / x
if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        print(list(executor.map(work, (1, 2))))
        executor.submit(work, 0).result()
""",
    "shared memory": """
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=100)
block.buf[0] = 7
print(bytes(shared_memory.SharedMemory(name=block.name).buf[:1]))
block.close()
block.unlink()
""",
    "argparse": "import argparse\nargparse.ArgumentParser(description='d').parse_args()",
    "argparse that is asked for help": (
        "import argparse\nargparse.ArgumentParser().parse_args(['--help'])"
    ),
    "pytest of itself": """
import pytest, sys
def test_one():
    assert 1 + 1 == 2
def test_two():
    value = [1, 2]
    assert value == [1, 3]
if __name__ == "__main__":
    off = [word for name in ("cacheprovider", "xdist", "hwsync") for word in ("-p", f"no:{name}")]
    sys.exit(pytest.main([__file__, *off, "-rN"]))
""",
    "unittest of itself": """
import sys, unittest
class Tests(unittest.TestCase):
    def test_one(self):
        self.assertEqual(1, 2)
unittest.main(argv=sys.argv[:1], buffer=True) if len(sys.argv) < 2 else None
unittest.TextTestRunner(stream=sys.stdout).run(unittest.defaultTestLoader.loadTestsFromName(
    "Tests.test_one", sys.modules["__main__"])).printErrors()
""",
    "doctest of itself": """
'''
>>> 1 + 1
3
'''
import doctest
print(doctest.testmod())
""",
    "it starts itself again": """
import subprocess, sys
if "again" in sys.argv:
    print("again", __file__, flush=True)
    1 / 0
print(subprocess.run([sys.executable, __file__, "again"]).returncode)
""",
    "it becomes itself": """
import os, sys
if "again" not in sys.argv:
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "again"])
print("became", sys.argv)
""",
    "it imports itself": """
import sys
print(__name__)
if __name__ == "__main__":
    import a_program
    print(a_program.__file__ == __file__, a_program.__spec__.origin)
""",
    "it runs itself as a module": """
import runpy
if __name__ == "__main__":
    print(sorted(runpy.run_path(__file__, run_name="other")))
""",
    "a script of the folder": "import beside, pathlib\nprint(pathlib.Path(beside.__file__).parent)",
    "where it is": """
import os, pathlib, sys
print(pathlib.Path(__file__).parent == pathlib.Path.cwd(), sys.path[0])
print([name for name in sorted(os.listdir()) if name[0] != "."])
""",
    "its text changes while it runs": """
def f():
    1 / 0
with open(__file__, "w") as file:
    file.write("# other lines\\n" * 9)
f()
""",
    "its file goes while it runs": "import os\nos.remove(__file__)\n1 / 0",
    "it leaves the folder": "import os\nos.chdir('/')\ndef f():\n    1 / 0\nf()",
    "warnings show their lines": "import warnings\nwarnings.warn('first')\nimport imp_no_such",
    "a warning of the compiler, and an error": "x = '\\d'\ny = 1 is 1\nreturn\n",
    "traceback of frames": """
import traceback
def f():
    try:
        g()
    except ValueError as error:
        print(traceback.format_exception(error), error.__traceback__.tb_frame.f_code.co_filename)
def g():
    raise ValueError(
        "of two lines"
    )
f()
g()
""",
    "logging says where": """
import logging
logging.basicConfig(format="%(pathname)s %(filename)s %(module)s %(lineno)d %(message)s")
logging.error("here")
""",
    "tracemalloc": """
import tracemalloc
tracemalloc.start()
x = [bytes(100) for _ in range(10)]
print(tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, __file__)])
      .statistics("lineno")[0].traceback)
""",
    "trace": """
import sys, trace
def f():
    return 1
tracer = trace.Trace(count=False, trace=True, ignoredirs=[sys.prefix, sys.base_prefix])
tracer.runfunc(f)
""",
    "timeit and cProfile": """
import cProfile, pstats
def f():
    return sum(range(10))
profile = cProfile.Profile()
profile.runcall(f)
print(sorted(name for name in pstats.Stats(profile).stats if name[2] == "f"))
""",
    "importlib finds it": """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("another", __file__)
print(spec.name, spec.origin, importlib.util.find_spec("a_program").origin)
""",
    "resources beside it": """
import pathlib
print((pathlib.Path(__file__).with_name("broken_beside.py")).read_text())
""",
    "ast and tokenize of itself": """
import ast, tokenize
print(ast.dump(ast.parse(open(__file__).read()).body[0]))
print(len(list(tokenize.tokenize(open(__file__, "rb").readline))), tokenize.open(__file__).encoding)
""",
    "a thread's traceback": """
import threading, traceback
def work():
    traceback.print_stack()
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "faulthandler": """
import faulthandler, sys
def f():
    faulthandler.dump_traceback(sys.stderr, all_threads=False)
import threading
thread = threading.Thread(target=f)
thread.start()
thread.join()
""",
    "an unknown coding": "# coding: no-such-codec\n",
    "bytes that its coding cannot mean": "# coding: ascii\nx = 'é'\n",
    "a NUL": "x = 1\ny = '\0'\n",
    "shelve and pickle of a class": """
import pickle, shelve
class Point:
    pass
with shelve.open("shelf") as shelf:
    shelf["one"] = Point()
    print(type(shelf["one"]).__module__, pickle.dumps(Point())[:40])
import glob, os
for name in glob.glob("shelf*"):
    os.remove(name)
""",
    "bytes below the text are buffered": (
        "import os, sys\nsys.stdout.buffer.write(b'lost\\n')\nos._exit(0)"
    ),
    "a file that it writes": """
with open("written.txt", "w") as file:
    print("text", file=file)
import os
print(os.path.abspath("written.txt"), open("written.txt").read())
os.remove("written.txt")
""",
}

# Programs whose standard output is looked at more closely than by what it carries: it is
# line-buffered, as in a terminal. Compared with ``python3 NAME`` where the program does so itself.
LINE_BUFFERED = {
    "encodings": """
import sys
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.encoding, stream.errors, stream.line_buffering, stream.isatty(), stream.name)
""",
    "os._exit loses only a line that is not complete": (
        "import os\nprint('kept')\nprint('lost', end='')\nos._exit(7)"
    ),
    "stdout closed below": "import os\nprint('x')\nos.close(1)",
    "a signal loses only a line that is not complete": (
        "import os\nprint('kept')\nprint('lost', end='')\nos.kill(os.getpid(), 9)"
    ),
    "a copy of a fork prints nothing twice": "import os\nprint('once')\nos.fork()",
}

# Programs and the whole standard input of each.
WITH_INPUT = {
    "input() to the end": ("while True:\n    print(repr(input('? ')))", "a\n\nb\r\nlast"),
    "input() of nothing": ("input('? ')", ""),
    "read": ("import sys\nprint(ascii(sys.stdin.read()), repr(sys.stdin.read()))", "a\r\nb\rc é"),
    "iteration": (
        "import sys\nfor n, line in enumerate(sys.stdin):\n    print(n, ascii(line))",
        "\ufeffa\n\nb\r\nlast",
    ),
    "a line, then the rest": (
        "import sys\nprint(repr(sys.stdin.readline()), sys.stdin.readlines(), repr(input()))",
        "1\n2\n3",
    ),
    "buffer": (
        """
import sys
buffer = sys.stdin.buffer
print(buffer.read(3), buffer.peek(), buffer.readline(), buffer.raw.read(1), buffer.read())
""",
        "abcdef\r\n\0é",
    ),
    "more than a pipe holds": (
        "import sys\nprint(sum(len(line) for line in sys.stdin))",
        "é\n" * 50_000,
    ),
    "most of it unread": ("print(input())", "first\n" + "x" * 200_000),
    "what the stream is": (
        """
import os, stat, sys
s = sys.stdin
print(s.isatty(), os.isatty(0), stat.S_ISFIFO(os.fstat(0).st_mode), os.get_blocking(0))
print(s, s.fileno(), s.errors, s.newlines, s.line_buffering, s.write_through, s is sys.__stdin__)
print(s.buffer, s.buffer.raw, s.readable(), s.writable(), s.seekable())
s.tell()
""",
        "x",
    ),
    "another encoding": (
        "import sys\nsys.stdin.reconfigure(encoding='utf-16-le')\nprint(ascii(sys.stdin.read()))",
        "a\0b\0",
    ),
    "bytes that its encoding cannot mean": (
        "import sys\nsys.stdin.reconfigure(encoding='ascii', errors='strict')\nsys.stdin.read()",
        "é",
    ),
    "a subprocess takes it": (
        """
import subprocess, sys
print(subprocess.run(["head", "-c", "4"], capture_output=True).stdout)
print(repr(sys.stdin.read()))
""",
        "four and the rest",
    ),
    "python3 - inside": (
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-']).returncode)",
        "print('a program')\n1 / 0\n",
    ),
    "a forked child reads first": (
        """
import os, sys
if os.fork() == 0:
    print(repr(input()), flush=True)
    os._exit(0)
os.wait()
print(repr(sys.stdin.read()))
""",
        "for the child\nin its buffer\n",
    ),
    "select, then its end": (
        """
import os, select, sys
print([len(ready) for ready in select.select([sys.stdin], [], [], 30)], repr(input()))
os.read(0, 1)
poll = select.poll()
poll.register(sys.stdin, select.POLLIN)
print(poll.poll(30_000) == [(0, select.POLLHUP)], select.select([0], [], [], 30)[0])
input()
""",
        "one\n",
    ),
    "asyncio": (
        """
import asyncio, sys
async def main():
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    print([line async for line in reader])
asyncio.run(main())
""",
        "1\n2\n",
    ),
    "opened once more": (
        "print(open('/dev/stdin').readline(), open(0).read())\nimport sys\nsys.stdin.read()",
        "a\nb\n",
    ),
    "closed": ("import sys\nsys.stdin.close()\ninput()", "x\n"),
    "none": ("import sys\nsys.stdin = None\ninput()", "x\n"),
    "replaced and put back": (
        """
import io, sys
sys.stdin = io.StringIO("mine\\n")
print(input())
sys.stdin = sys.__stdin__
print(input())
""",
        "its own\n",
    ),
    "a debugger": ("x = 1\nbreakpoint()\nprint(x)", "p x\nn\nc\n"),
    "a prompt of Python": ("import code\ncode.interact('hi', exitmsg='bye')", "1 + 1\n1 / 0\n"),
}


def expected(program: str, directory: Path, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    """What ``python3 NAME`` does with it, in the folder in which the runner then runs it."""
    file = directory / NAME
    file.write_bytes(program.encode())
    try:
        return subprocess.run(
            [sys.executable, NAME, *ARGUMENTS],
            input=stdin.encode(),
            capture_output=True,
            cwd=directory,
            timeout=60,
            check=False,
            start_new_session=True,
        )
    finally:
        file.unlink(missing_ok=True)


@pytest.fixture(params=[Start.WARM, Start.COLD], scope="module")
def start(request: pytest.FixtureRequest) -> Start:
    return Start(request.param)


def run_one(runner: Runner, program: str, stdin: str = "") -> RunEnd:
    return runner.run(
        Job(program, stdin, ARGUMENTS, 60.0, NAME),
        on_started=lambda group: None,
        on_output=lambda piece: None,
        stop=StopSwitch(),
    )


@pytest.fixture
def got(way: dict[str, Any], directory: Path) -> Iterator[Callable[[str], RunEnd]]:
    """Runs a program with a ``Runner`` of its own, which finds the environment of now."""
    runners = []

    def run(program: str) -> RunEnd:
        runners.append(Runner(Settings(directory, **way)))
        return run_one(runners[-1], program)

    yield run
    for runner in runners:
        runner.close()


class Bench:
    """One folder and one ``Runner`` on it for many programs, as a board has them."""

    def __init__(self, folder: Path, way: dict[str, Any]) -> None:
        self.directory, self._runner = folder, Runner(Settings(folder, **way))

    def clear(self) -> None:
        """Of what a program left there."""
        for path in self.directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        fill(self.directory)

    def run(self, program: str, stdin: str = "") -> RunEnd:
        return run_one(self._runner, program, stdin)

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    """One of each way that a test has asked for."""
    made: dict[str, Bench] = {}
    yield made
    for bench in made.values():
        bench.close()


@pytest.fixture
def bench(
    way: dict[str, Any],
    benches: dict[str, Bench],
    plain_environment: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    """The one of this way: to start a server for every program takes longer than the program."""
    name = str(way)
    if name not in benches:
        benches[name] = Bench(tmp_path_factory.mktemp("bench"), way)
    benches[name].clear()
    return benches[name]


def blotted(text: str) -> str:
    return BLOT.sub("#", text)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person's own, such as PYTHONUNBUFFERED, hides a difference."""
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        monkeypatch.delenv(name)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


def fill(directory: Path) -> None:
    (directory / "beside.py").write_text("")
    (directory / "broken_beside.py").write_text("def f():\n    1 / 0\n\nf()\n")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_means_the_same_as_to_python(name: str, bench: Bench) -> None:
    program, directory = PROGRAMS[name], bench.directory
    reference, left = expected(program, directory), unclosed(directory)
    same(bench.run(program), reference)
    assert unclosed(directory) == left


def unclosed(directory: Path) -> str | None:
    """What a program wrote to the file of that name, which then is gone."""
    file = directory / "unclosed"
    text = file.read_text() if file.exists() else None
    file.unlink(missing_ok=True)
    return text


@pytest.mark.parametrize("name", WITH_INPUT)
def test_a_program_that_reads_an_input_means_the_same(name: str, bench: Bench) -> None:
    program, stdin = WITH_INPUT[name]
    same(bench.run(program, stdin), expected(program, bench.directory, stdin))


def same(run: RunEnd, reference: subprocess.CompletedProcess[bytes]) -> None:
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


@pytest.mark.parametrize("name", LINE_BUFFERED)
def test_standard_output_is_line_buffered(
    name: str, directory: Path, got: Callable[[str], RunEnd]
) -> None:
    program = LINE_BUFFERED[name]
    does_so = f"import sys; sys.stdout.reconfigure(line_buffering=True)\n{program}"
    same(got(program), expected(does_so, directory))
    assert blotted(got(program).response) != blotted(expected(program, directory).stdout.decode())


LEADS = "import os; print(os.getsid(0) == os.getpgrp() == os.getpid(), os.isatty(0))"


def test_it_leads_its_session(start: Start, directory: Path) -> None:
    with server(Settings(directory, start=start)) as run:
        assert run(LEADS).response == expected(LEADS, directory).stdout.decode() == "True False\n"


def test_in_bubblewrap_it_does_not_lead_its_session(directory: Path) -> None:
    require_program("bwrap", "bubblewrap")
    with server(Settings(directory, isolation=Isolation.BWRAP)) as run:
        assert run(LEADS).response == "False False\n"
        assert run("import os; print(os.getppid())").response == "1\n"


def test_two_frames_lie_below_the_module(directory: Path, got: Callable[[str], RunEnd]) -> None:
    program = """
import inspect, traceback, warnings
print(len(inspect.stack()), len(traceback.extract_stack()))
for level in (1, 2, 3, 4):
    warnings.warn("w", stacklevel=level)
"""
    run = got(program)
    assert run.response == "3 3\n"
    places = [line.split(":")[0] for line in run.stderr.splitlines() if line[0] != " "]
    assert places == [str(directory / NAME), "<string>", "<string>", "sys"]
    reference = expected(program, directory)
    assert reference.stdout == b"1 1\n"
    assert reference.stderr.count(b"<string>") == 0


def test_a_recursion_ends_a_few_calls_earlier(
    directory: Path, got: Callable[[str], RunEnd]
) -> None:
    program = """
calls = 0
def f():
    global calls
    calls += 1
    f()
try:
    f()
except RecursionError:
    print(calls)
"""
    fewer = int(expected(program, directory).stdout) - int(got(program).response)
    assert fewer in (2, 3)  # whether the call of exec counts is CPython's affair


def test_ignored_and_blocked_signals_are_not_the_programs(
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
                       on_output=lambda piece: None, stop=StopSwitch())
print(end.response, end=end.stderr)
"""
    done = python(daemon, cwd=directory)
    assert done.stdout.startswith("0 <built-in function default_int_handler> set()"), done


def test_command_line_and_parent_are_the_fork_servers(start: Start, directory: Path) -> None:
    program = """
import os
for pid in (os.getpid(), os.getppid()):
    with open(f"/proc/{pid}/cmdline") as file:
        print(ascii(file.read()))
"""
    with server(Settings(directory, start=start)) as run:
        own, parent = run(program, "one").response.splitlines()
        (pid,) = run("import os; print(os.getppid())").response.split()
        assert run("import os; print(os.getppid())").response.split() == [pid]
        assert ascii(Path(f"/proc/{pid}/cmdline").read_text()) == parent
    assert "serve(" in parent
    assert (own == parent) == (start is Start.WARM)
    if start is Start.COLD:
        assert own.startswith(f"'{sys.executable}\\x00-c\\x00")
        assert own.endswith("\\x00one\\x00'")


def test_there_are_no_core_files(directory: Path, start: Start) -> None:
    # In a process of its own, since only root could raise the limit again.
    daemon = f"""
import resource, sys
from pathlib import Path
from hwsync.runner import Job, Runner, Settings, Start, StopSwitch
highest = resource.getrlimit(resource.RLIMIT_CORE)[1]
assert highest != 0, "this test needs a limit of core files that it can raise"
resource.setrlimit(resource.RLIMIT_CORE, (highest, highest))
program = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
runner = Runner(Settings(Path.cwd(), start=Start({str(start)!r})))
end = runner.run(Job(program, "", (), 60.0), on_started=lambda group: None,
                 on_output=lambda piece: None, stop=StopSwitch())
print(end.response, end=end.stderr)
"""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("core files are forbidden here already")
    done = python(daemon, cwd=directory)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


# -- only where it is warm ------------------------------------------------------------------------


@contextmanager
def server(settings: Settings) -> Iterator[Callable[..., RunEnd]]:
    """``run(program, *arguments)``: one fork server for all of them."""
    runner = Runner(settings)

    def run(program: str, *arguments: str) -> RunEnd:
        return runner.run(
            Job(program, "", arguments, 60.0),
            on_started=lambda group: None,
            on_output=lambda piece: None,
            stop=StopSwitch(),
        )

    try:
        yield run
    finally:
        runner.close()


def test_what_was_preloaded_is_loaded(start: Start, directory: Path) -> None:
    """A warm program finds it, and nothing else that it has not imported itself."""
    program = "import sys; print(sorted(sys.modules))"
    with server(Settings(directory, start=start)) as run:
        without = set(literal_eval(run(program).response))
    with server(Settings(directory, start=start, preload=("colorsys",))) as run:
        preloaded = set(literal_eval(run(program).response))
    assert preloaded - without == ({"colorsys"} if start is Start.WARM else set())


def test_the_seed_of_hashes_is_the_servers(start: Start, directory: Path) -> None:
    program = "print(hash('a text'), set(map(str, range(20))))"
    settings = Settings(directory, start=start)
    seen = []
    for _ in range(2):
        with server(settings) as run:
            seen.append({run(program).response for _ in range(3)})
    assert [len(said) for said in seen] == ([1, 1] if start is Start.WARM else [3, 3])
    assert not seen[0] & seen[1], "another server has another seed"


def test_random_numbers_are_seeded_anew(directory: Path) -> None:
    """numpy itself is not here: a module of its name, which is seeded when it is imported."""
    modules = directory / "modules"
    (modules / "numpy").mkdir(parents=True)
    (modules / "numpy/__init__.py").touch()
    (modules / "numpy/random.py").write_text(
        "import os\ndef seed():\n    global drawn\n    drawn = os.urandom(8).hex()\nseed()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    program = "import numpy.random, random; print(numpy.random.drawn, random.random())"
    settings = Settings(directory, environment=environment, preload=("numpy.random", "random"))
    with server(settings) as run:
        ends = [run(program) for _ in range(3)]
    assert [end.stderr for end in ends] == [""] * 3
    drawn = zip(*(end.response.split() for end in ends), strict=True)
    assert [len(set(numbers)) for numbers in drawn] == [3, 3]


def test_the_collector_of_garbage_passes_over_what_was_there(start: Start, directory: Path) -> None:
    program = """
import gc, sys
print(gc.get_freeze_count() > 0, any(one is sys.__dict__ for one in gc.get_objects()))
"""
    with server(Settings(directory, start=start)) as run:
        assert run(program).response == f"{start is Start.WARM} {start is Start.COLD}\n"


def test_what_only_a_preloaded_module_holds_is_not_finalized(start: Start, directory: Path) -> None:
    """All else is, also where a preloaded module knows a class of the program."""
    modules = directory / "modules"
    modules.mkdir()
    (modules / "keeper.py").write_text("kept = []\n")
    (modules / "another.py").write_text("kept = []\n")
    program = """
import another, keeper
class Late:
    def __init__(self, place):
        self.place = place
    def __del__(self, write=__import__("os").write):
        write(1, self.place.encode() + b"\\n")
keeper.kept.append(Late("preloaded"))
another.kept.append(Late("imported"))
own = Late("own")
"""
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    settings = Settings(directory, start=start, environment=environment, preload=("keeper",))
    with server(settings) as run:
        end = run(program)
    finalized = {"imported", "own"} | ({"preloaded"} if start is Start.COLD else set())
    assert (end.exit_code, set(end.response.split())) == (0, finalized), end
