"""What a command prints cannot be written, or nobody reads it; and an installation without it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.cli.say import NOBODY_READS
from hwsync.installing import install
from hwsync.protocol.errors import OutputError
from tests.support.brokers import MosquittoBroker
from tests.support.lab import HWSYNC, Lab
from tests.support.mqtt import Watcher
from tests.support.processes import CHECKOUT, Process
from tests.support.waiting import START_PATIENCE

FULL = Path("/dev/full")
Environment = Callable[..., dict[str, str]]

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def lab(
    mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path,
    watch: Callable[..., Watcher],
) -> Lab:  # fmt: skip
    lab = Lab(mosquitto, start, tmp_path)
    lab.coordinator("--settle", "0")
    lab.device()
    beats = watch(mosquitto, "hw/pi1/heartbeat")
    beats.wait_for(lambda message: True, START_PATIENCE, "the device")
    return lab


def full(arguments: list[str], variables: dict[str, str], *, both: bool = False) -> str:
    """What a command says on standard error whose standard output has no space left."""
    with FULL.open("wb") as nowhere:
        done = subprocess.run(
            [*HWSYNC, *arguments], env=variables, stdin=subprocess.DEVNULL, stdout=nowhere,
            stderr=nowhere if both else subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    said = (done.stderr or b"").decode()
    assert done.returncode == OutputError.exit_code == 74, said
    for wrong in ("Traceback", "bug of hwsync", "Exception ignored"):
        assert wrong not in said
    return said


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said(lab: Lab, environment_of: Environment, unbuffered: str) -> None:
    variables = environment_of(HWSYNC_BROKER=lab.url, PYTHONUNBUFFERED=unbuffered)
    cannot = "hwsync: cannot write the output: No space left on device\n"
    commands = (
        ["send", "pi1", "--queue", "-c", "1"], ["status"], ["status", "pi1"], ["--json", "status"],
        ["--help"], ["run", "--help"], ["--version"],
    )  # fmt: skip
    for arguments in commands:
        assert full(arguments, variables) == cannot
    for options in [], ["--json"]:
        said = full(["run", "pi1", "--queue", "--id", "c1", *options, "-c", "print(1)"], variables)
        assert said.startswith(cannot)
        hint = "  this does not end the command c1; hwsync status pi1 shows its end\n"
        assert said == cannot + (hint if not options else "")
    for arguments in (["status"], ["frobnicate"], ["run", "pi1", "--queue", "-c", "print(1)"]):
        full(arguments, variables, both=True)


def test_a_reader_that_has_gone_ends_it_without_a_word(
    lab: Lab, environment_of: Environment
) -> None:
    program = "import itertools\nfor n in itertools.count(): print(n, flush=True)"
    for arguments in (["run", "pi1", "-c", program], ["status", "--watch"]):
        process = subprocess.Popen(
            [*HWSYNC, *arguments], env=environment_of(HWSYNC_BROKER=lab.url),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() != b""
            process.stdout.close()
            if "--watch" in arguments:  # it writes when something changes
                lab.cli("cancel", "pi1").wait()
            assert process.wait(30) == NOBODY_READS
            assert process.stderr.read() == b""
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def test_streams_that_are_closed_are_no_bug(lab: Lab) -> None:
    for closed, code in ((">&-", 3), (">&- 2>&-", 3), ("2>&-", 3)):
        line = " ".join([*HWSYNC, "run pi1 -c 'print(1); raise SystemExit(3)'", closed])
        done = lab.start(["bash", "-c", f"exec {line}"], variables={"HWSYNC_BROKER": lab.url})
        assert done.wait() == code, done.account()
        assert "bug" not in done.stderr
    line = " ".join([*HWSYNC, "run pi1 - <&-"])
    done = lab.start(["bash", "-c", f"exec {line}"], variables={"HWSYNC_BROKER": lab.url})
    assert done.wait() == 2
    assert "standard input is closed" in done.stderr


# A board's installation

WITHOUT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
from {module} import main
sys.argv[0] = "hwsync"
main()
"""


def without(
    environment: dict[str, str], names: tuple[str, ...], *words: str, module: str = "hwsync.cli"
) -> subprocess.CompletedProcess[str]:
    """The command where these packages are not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=names, module=module), *words],
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("names", [("click", "peewee"), ("peewee",)])
def test_a_boards_installation_says_what_it_has(
    environment_of: Environment, names: tuple[str, ...]
) -> None:
    for words in ([], ["check-db"], ["--help"]):
        done = without(environment_of(), names, *words)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == (
            "hwsync: this is a board's installation: it has hwsync-device and no other command\n"
            f"  {names[0]} is missing; what adds the rest: {install()}\n"
        )


def test_hwsync_device_needs_none_of_it(environment_of: Environment) -> None:
    done = without(environment_of(), ("click", "peewee"), "--help", module="hwsync.device.service")
    assert done.returncode == 0, done.stderr
    assert "usage: hwsync-device" in done.stdout


def test_another_package_that_is_missing_is_named(environment_of: Environment) -> None:
    done = without(environment_of(), ("paho",), "status")
    assert done.returncode == 1
    assert "No module named 'paho" in done.stderr
