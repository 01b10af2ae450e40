"""Analysers that do what they should not, and what is said of them: never of the pupil's run.

One engine for all, so that each also shows that the one before it has left nothing behind.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.analysers import Analysis, Run
from hwsync.analysers.answer import Fault, one_line, read
from hwsync.analysers.engine import Engine, Judgement
from hwsync.analysers.folder import Folder
from hwsync.analysers.place import PREFIX
from hwsync.protocol.errors import CannotRun
from hwsync.protocol.limits import MAX_FAULT

RUN = Run(id="c1", board="pi1", stdout='42\n{"passed": true, "score": 1}\n{"fault": "x"}\n')


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(at_once=1) as engine:
        yield engine


def judged(engine: Engine, folder: Path, name: str = "check1", run: Run = RUN) -> Judgement:
    return engine.judge(Folder(folder).scan()[name], run)


def returns(expression: str) -> str:
    return f"import os, sys\ndef analyse(run):\n    return {expression}\n"


def does(*lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"import os, sys, time\ndef analyse(run):\n{body}    return True\n"


SHORT = "[limits]\ntime_s = 0.6\n"
SMALL = "[limits]\nmemory_mb = 64\n"
NO_JSON = "what it returned is no JSON: "
KILLED = "it was killed: "
TOO_DEEP = f"{NO_JSON}nested too deeply, more than 100 levels"
LARGE = "its answer is larger than 64 KiB"

# The analyser, the TOML beside it, and its whole fault.
BAD = {
    "loops": (does("while True: pass"), SHORT, "it took longer than 0.6 s"),
    "sleeps": (does("time.sleep(99)"), SHORT, "it took longer than 0.6 s"),
    "stops itself": (does("os.kill(os.getpid(), 19)"), SHORT, "it took longer than 0.6 s"),
    "ignores signals": (
        does("import signal", "signal.signal(2, lambda *_: None)", "while True: time.sleep(9)"),
        *(SHORT, "it took longer than 0.6 s"),
    ),
    "takes 1 GB": (
        *(does("len(b'x' * 10**9)"), SMALL),
        "it raised MemoryError (check1.py, line 3); limits.memory_mb = 64",
    ),
    "takes it in children": (
        does("for _ in range(4):", "    if not os.fork():",
             "        x = bytearray(b'x') * 30_000_000",
             "        time.sleep(99)", "time.sleep(99)"),
        *(SMALL, f"{KILLED}memory limit of 64 MB"),
    ),
    "has many children": (
        does("for _ in range(50):", "    os.fork() or time.sleep(99)", "time.sleep(99)"),
        *("", f"{KILLED}limit of 32 processes and threads"),
    ),
    "returns an object": (returns("object()"), "", f"{NO_JSON}a value of type object"),
    "is a generator": (does("yield 1"), "", f"{NO_JSON}a value of type generator"),
    "is async": (
        "async def analyse(run):\n    return 1\n", "", f"{NO_JSON}a value of type coroutine"),
    "returns nan": (returns("float('nan')"), "", f"{NO_JSON}NaN is not a finite number"),
    "returns inf": (returns("[1e999]"), "", f"{NO_JSON}Infinity is not a finite number"),
    "returns nothing": (
        *(returns("None"), ""), "it returned nothing: a verdict is given back with return"),
    "returns itself": (
        *("def analyse(run):\n    a = []\n    a.append(a)\n    return a\n", ""),
        f"{NO_JSON}Circular reference detected",
    ),
    "returns half a character": (
        *(returns("{'message': chr(0xd800)}"), ""),
        f"{NO_JSON}it contains half a surrogate pair, which is no character",
    ),
    "a score of 7": (
        *(returns("{'score': 7}"), ""),
        "its score is 7: it can be a number from 0 to 1, or null",
    ),
    "a score of true": (
        *(returns("{'score': True}"), ""),
        "its score is true: it can be a number from 0 to 1, or null",
    ),
    "passed is yes": (
        *(returns("{'passed': 'yes'}"), ""),
        'its passed is "yes": it can be true, false or null',
    ),
    "a message of 3": (
        *(returns("{'message': [3]}"), ""), "its message is [3]: it can be a text, or null"),
    "returns much": (returns("'x' * 70_000"), "", LARGE),
    "returns 50 MB": (returns("'x' * 50_000_000"), "", LARGE),
    "nested 40 deep": (
        *("def analyse(run):\n    a = 1\n    for _ in range(40): a = [a]\n    return a\n", ""),
        "its answer is nested more than 32 levels deep",
    ),
    "nested 200 deep": (
        "def analyse(run):\n    a = 1\n    for _ in range(200): a = [a]\n    return a\n",
        *("", TOO_DEEP),
    ),
    "nested 99,999 deep": (
        "def analyse(run):\n    a = 1\n    for _ in range(99999): a = {'a': a}\n    return a\n",
        "",
        f"{NO_JSON}maximum recursion depth exceeded while encoding a JSON object",
    ),
    "raises": (
        *(does("int('forty-two')"), ""),
        "it raised ValueError: invalid literal for int() with base 10: 'forty-two' "
        "(check1.py, line 3)",
    ),
    "raises in lines": (
        *(does("raise ValueError('a\\nb\\x1b[2J\\u202e')"), ""),
        "it raised ValueError: a b\\x1b[2J\\u202e (check1.py, line 3)",
    ),
    "raises what cannot be shown": (
        "class E(Exception):\n    def __str__(self): 1 / 0\n"
        + does("raise E"), "", "it raised E: (it cannot be shown) (check1.py, line 5)",
    ),
    "raises KeyboardInterrupt": (
        does("raise KeyboardInterrupt"), "", "it raised KeyboardInterrupt (check1.py, line 3)"),
    "raises BaseException": (
        does("raise BaseException(1)"), "", "it raised BaseException: 1 (check1.py, line 3)"),
    "recurses": (
        *("def analyse(run):\n    return analyse(run)\n", ""),
        "it raised RecursionError: maximum recursion depth exceeded (check1.py, line 2)",
    ),
    "sys.exit": (does("sys.exit(0)"), "", "it ended itself: sys.exit(0) (check1.py, line 3)"),
    "os._exit": (does("os._exit(0)"), "", "it ended without an answer (exit code 0)"),
    "crashes": (does("os.kill(os.getpid(), 11)"), "", f"{KILLED}SIGSEGV"),
    "an import that fails": (
        *("import no_such\n" + returns("1"), ""),
        "it raised ModuleNotFoundError: No module named 'no_such' (check1.py, line 1); a file of "
        'its own is named in its TOML: files = ["no_such.py"]',
    ),
    "a file that is not there": (
        *(does("open('expected.csv')"), ""),
        "it raised FileNotFoundError: [Errno 2] No such file or directory: 'expected.csv' "
        '(check1.py, line 3); a file of its own is named in its TOML: files = ["expected.csv"]',
    ),
    "a syntax error": (
        *("def analyse(run)\n", ""),
        "it cannot be read: SyntaxError: expected ':' (check1.py, line 1)",
    ),
    "no function": (
        *("def analyze(run): pass\n", ""),
        "it is no analyser: there is no function analyse in check1.py; a file that others import "
        'begins with _, and is named in their TOML: files = ["_check1.py"]',
    ),
    "a function that is none": (
        "analyse = 3\n", "", "it is no analyser: there is no function analyse"),
    "takes no run": (
        *("def analyse(): pass\n", ""),
        "it raised TypeError: analyse() takes 0 positional arguments but 1 was given",
    ),
    "prints 2 MB": (does("print('x' * 2_000_000)"), "", f"{KILLED}output limit of 1 MB"),
    "removes its folder": (
        does("import shutil", "shutil.rmtree(os.getcwd())"),
        *("", "it ended without an answer (exit code 1)"),
    ),
    "kills its parent": (
        does("os.kill(os.getppid(), 9)", "time.sleep(9)"),
        *("", f"{KILLED}its parent process was ended, and so it was"),
    ),
    "a fault of its own": (
        does("open('hwsync-answer', 'w').write('{\"fault\": \"\"}')", "os._exit(0)"),
        *("", "it failed, and did not say how"),
    ),
    "writes its answer by itself": (
        does("open('hwsync-answer', 'w').write('[1]')", "os._exit(0)"),
        *("", "what it wrote down is no answer"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_an_analyser_is_its_own_fault(
    engine: Engine, tmp_path: Path, case: str
) -> None:
    source, written, fault = BAD[case]
    (tmp_path / "check1.py").write_text(source)
    (tmp_path / "check1.toml").write_text(written)
    judgement = judged(engine, tmp_path)
    assert (judgement.fault, judgement.analysis) == (fault, {"error": fault})


EXECUTABLES = {
    "no first line": (
        b"echo true\n",
        "it cannot be executed: Exec format error; its first line has to say what runs it, such "
        "as #!/bin/sh",
    ),
    "names what is not there": (
        b"#!/no/such\n",
        "it cannot be executed: what its first line names is not there",
    ),
    "fails": (b"#!/bin/sh\necho true\necho oh >&2\nexit 3\n", "it ended with exit code 3: oh"),
    "prints nothing": (b"#!/bin/sh\n", "it printed no answer"),
    "prints no JSON": (b"#!/bin/sh\necho ok\n", f"{NO_JSON}Expecting value at line 1, column 1"),
    "prints two": (b"#!/bin/sh\necho 1 2\n", f"{NO_JSON}Extra data at line 1, column 3"),
    "prints null": (
        b"#!/bin/sh\necho null\n",
        "it returned nothing: a verdict is given back with return",
    ),
    "prints no UTF-8": (b"#!/bin/sh\nprintf '\"\\377\"'\n", "what it printed is no UTF-8"),
    "prints 300 KB": (
        b"#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' ' '\necho 1\n",
        LARGE,
    ),
    "writes the file of an answer": (
        b"#!/bin/sh\necho '{\"passed\": 1}' > hwsync-answer\n",
        "what it wrote down is no answer",
    ),
}


@pytest.mark.parametrize("case", EXECUTABLES)
def test_what_is_wrong_with_an_executable_is_its_own_fault(
    engine: Engine, tmp_path: Path, case: str
) -> None:
    source, fault = EXECUTABLES[case]
    (tmp_path / "check1").write_bytes(source)
    (tmp_path / "check1").chmod(0o755)
    judgement = judged(engine, tmp_path)
    assert (judgement.fault, judgement.analysis) == (fault, {"error": fault})


def test_a_fork_bomb_is_ended(engine: Engine, tmp_path: Path) -> None:
    """As another account than root it gets no further processes; as root it is ended."""
    (tmp_path / "check1.py").write_text(does("while True: os.fork()"))
    fault = judged(engine, tmp_path).fault
    assert fault is not None
    assert "limit of 32 processes" in fault or "Resource temporarily unavailable" in fault


# What is no fault, however odd: the analyser, and its whole analysis.
ODD: dict[str, tuple[str, Any]] = {
    "prints 100 KB": (does("print('x' * 100_000)"), {"passed": True}),
    "prints what looks like an answer": (
        does("print('{\"answer\": false}', run.stdout)"), {"passed": True}),
    "closes everything": (
        does("sys.stdout.close()", "os.closerange(0, 99)"), {"passed": True}),
    "has another stdout": (does("sys.stdout = None", "sys.stderr = 3"), {"passed": True}),
    "leaves a child": (
        does("import subprocess", "subprocess.Popen(['sleep', '98765'])"), {"passed": True}),
    "leaves a thread": (
        does("import threading", "threading.Thread(target=time.sleep, args=(99,)).start()"),
        {"passed": True},
    ),
    "comes back twice": (
        returns("{'data': 'parent' if os.fork() else time.sleep(0.1) or 'child'}").replace(
            "import", "import time,"), {"data": "parent"}),
    "escapes in a message": (
        returns("{'message': '\\x1b[2Jgone\\r\\n', 'data': '\\x00'}"),
        {"message": "\x1b[2Jgone\r\n", "data": "\x00"},
    ),
    "goes elsewhere": (does("os.chdir('/')", "os.umask(0o777)"), {"passed": True}),
    "catches everything": (
        "def analyse(run):\n    try: raise SystemExit\n    finally: return 0\n", 0),
    "an error of its own": (returns("{'error': 'nothing'}"), {"error": "nothing"}),
    "a text": (returns("'well done'"), "well done"),
    "a number": (returns("0.5"), 0.5),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_what_is_odd_is_no_fault(engine: Engine, tmp_path: Path, case: str) -> None:
    source, analysis = ODD[case]
    (tmp_path / "check1.py").write_text(source)
    judgement = judged(engine, tmp_path)
    assert (judgement.fault, judgement.analysis) == (None, analysis)


def test_a_child_that_is_left_ends_with_the_analysis(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "check1.py").write_text(
        "import subprocess\ndef analyse(run):\n"
        "    return subprocess.Popen(['sleep', '98'], start_new_session=True).pid\n"
    )
    pid = judged(engine, tmp_path).analysis
    assert not os.path.exists(f"/proc/{pid}")


def test_nothing_of_one_run_reaches_the_next(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "check1.py").write_text(
        "import os, sys, tempfile\nfrom pathlib import Path\nseen = []\n"
        "def analyse(run):\n"
        "    seen.append(run.stdout)\n"
        "    places = [Path.cwd(), Path.home(), Path(tempfile.gettempdir())]\n"
        "    for place in places:\n"
        "        seen.extend(one.read_text() for one in place.glob('kept*'))\n"
        "    for number, place in enumerate(places):\n"
        "        (place / f'kept{number}').write_text(run.stdout)\n"
        "    return Path(__file__).parent == Path.cwd() and seen[:2]\n"
    )
    analyser = Folder(tmp_path).scan()["check1"]
    for stdout in ("first", "second"):
        assert engine.judge(analyser, Run(stdout=stdout)).analysis == [stdout]


def test_what_changes_while_it_runs_is_another_version(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "check1.py"
    file.write_text(does(f"open({str(file)!r}, 'w').write('def analyse(run): return 2')"))
    folder = Folder(tmp_path, settle_s=0)
    first = folder.scan()["check1"]
    assert engine.judge(first, RUN).analysis == {"passed": True}
    assert engine.judge(first, RUN) == Judgement("check1", first.version, {"passed": True})
    second = folder.scan()["check1"]
    assert second.version != first.version
    assert engine.judge(second, RUN).analysis == 2


def test_an_analyser_sees_the_whole_run(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "check1.py").write_text(
        "def analyse(run):\n    return [repr(run), run.numbers(), run.files['a.bin'].hex()]\n"
    )
    (tmp_path / "check1.toml").write_text("[arguments]\nhottest = 30\n")
    run = Run(
        id="c1", board="pi1", outcome="error", reason="exit code 1", exit_code=1, duration=0.5,
        stdout="temp=21.5 é\n", stderr="oh", truncated=True, files={"a.bin": b"\xff\0"},
        program="print()", args=("a", "b"), stdin="x", meta={"student": "s07"},
        arguments={"hottest": 99},
    )  # fmt: skip
    shown, numbers, data = judged(engine, tmp_path, run=run).analysis
    assert shown.replace("'hottest': 30", "'hottest': 99") == repr(run)
    assert "'hottest': 30" in shown
    assert (numbers, data) == ({"temp": [21.5]}, "ff00")


def test_an_executable_reads_and_writes_json(engine: Engine, tmp_path: Path) -> None:
    script = tmp_path / "check1"
    script.write_text(
        "#!/usr/bin/env python3\nimport base64, json, sys\nrun = json.load(sys.stdin)\n"
        "print('noise', file=sys.stderr)\n"
        "print(json.dumps([run['board'], base64.b64decode(run['files']['a']).decode()]))\n"
    )
    script.chmod(0o755)
    judgement = judged(engine, tmp_path, run=Run(board="pi1", files={"a": b"abc"}))
    assert judgement.analysis == ["pi1", "abc"]
    assert judgement.printed == "noise\n"


def test_files_that_it_names_come_along(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "check1.py").write_text(
        "from pathlib import Path\nimport own\n"
        "def analyse(run):\n"
        "    return [own.VALUE, Path(__file__).with_name('data.csv').read_text()]\n"
    )
    (tmp_path / "own.py").write_text("VALUE = 7\n")
    (tmp_path / "data.csv").write_text("1,2\n")
    (tmp_path / "check1.toml").write_text('files = ["own.py", "data.csv"]\n')
    assert judged(engine, tmp_path).analysis == [7, "1,2\n"]


def test_it_sees_no_password_of_the_analyst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSYNC_PASSWORD", "secret")
    (tmp_path / "check1.py").write_text(returns("[n for n in os.environ if 'HWSYNC' in n]"))
    with Engine(at_once=1, place=tmp_path / "place") as engine:
        assert judged(engine, tmp_path).analysis == []


def test_several_run_at_a_time_and_are_ended_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    (tmp_path / "check1.py").write_text(
        does(f"open({str(tmp_path)!r} + f'/{{os.getpid()}}.on', 'w')", "time.sleep(99)")
    )
    analyser, ended = Folder(tmp_path).scan()["check1"], list[str]()
    engine = Engine(at_once=2)

    def judge() -> None:
        try:
            engine.judge(analyser, RUN)
        except CannotRun as error:
            ended.append(str(error))

    threads = [threading.Thread(target=judge) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("*.on"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engine.close()
    for thread in threads:
        thread.join(20)
    assert len(ended) == 3
    with pytest.raises(CannotRun, match="being ended"):
        engine.judge(analyser, RUN)


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, others = tmp_path / f"{PREFIX}left", tmp_path / "others"
    (left / "0").mkdir(parents=True)
    others.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(others)
    with Engine(at_once=1) as one, Engine(at_once=1) as two:
        one.start()
        two.start()
        assert not left.exists()
        assert len(list(tmp_path.iterdir())) == 4
    assert {file.name for file in tmp_path.iterdir()} == {"others", f"{PREFIX}link"}


def test_one_that_has_not_settled_judges_nobody(engine: Engine, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.scan()
    (tmp_path / "check1.py").write_text("def ana")
    with pytest.raises(CannotRun, match="it is new"):
        engine.judge(folder.scan()["check1"], RUN)


def test_where_nothing_can_be_run_nothing_is_said_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "check1.py").write_text(returns("True"))
    (tmp_path / "file").write_text("")
    engine = Engine(at_once=1, place=tmp_path / "file")
    with pytest.raises(CannotRun, match="cannot be made"):
        judged(engine, tmp_path)
    engine.close()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Analysis(), {"passed": None}),
        (Analysis(True), {"passed": True}),
        (Analysis(False, 0, "no"), {"passed": False, "score": 0, "message": "no"}),
        (Analysis(data=[]), {"passed": None, "data": []}),
    ],
)
def test_an_analysis_says_no_more_than_was_given(value: Analysis, said: object) -> None:
    assert value.as_json() == said


def test_a_fault_is_one_short_line() -> None:
    with pytest.raises(Fault) as caught:
        read('{"passed": "' + "x\\n" * 9000 + '"}')
    assert len(str(caught.value)) < 150
    assert one_line("a" * 999) == "a" * (MAX_FAULT - 1) + "…"
    assert one_line("\x9b2J\ta\x00") == "\\x9b2J a\\x00"


def test_a_run_is_read_from_its_result() -> None:
    result = {
        "id": "c1", "user": "pi1", "outcome": "ok", "reason": "", "exit_code": 0, "duration": 0.1,
        "hw_response": "1\n", "stderr": "", "truncated": False, "hw_command": "print(1)",
        "args": ["a"], "stdin": "", "meta": '{"student":"s07"}',
        "files": {"a": {"size": 1, "sha256": "", "data": "eA=="}, "b": {"size": 1, "sha256": ""}},
    }  # fmt: skip
    assert Run.of_result(result) == Run(
        id="c1", board="pi1", exit_code=0, duration=0.1, stdout="1\n", program="print(1)",
        args=("a",), meta={"student": "s07"}, files={"a": b"x"},
    )  # fmt: skip
    assert Run.of_result({"meta": "[" * 9999, "outcome": None}) == Run(outcome="")
