"""The configuration of a board: what is refused and how it is said, and what wins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwsync.connection import VARIABLES
from hwsync.device import config as module
from hwsync.device.config import KEYS, Config, load
from hwsync.protocol.errors import UsageError
from hwsync.runner import Isolation, Settings, Start

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/device.md"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "DEFAULT_FILE", tmp_path / "default.toml")


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "device.toml"
    file.write_text(text)
    return file


def settings(config: Config) -> Settings:
    return config.settings(Path("/state"), {"PATH": "/bin", "LANG": "C"})


def test_nothing_is_needed() -> None:
    config = load(None, {"user": None, "allow_root": False})
    assert config == Config({}, {})
    made = settings(config)
    assert made.directory == Path("/state/work")
    assert made.empty_directory
    assert made.start is Start.WARM
    assert made.isolation is Isolation.NONE
    assert made.environment == {"PATH": "/bin", "LANG": "C"}
    limits = made.limits
    assert (limits.processes, limits.open_files, limits.output_mb) == (256, 1024, 100)
    assert (limits.cpu_s, limits.file_size_mb, limits.free_disk_mb) == (None, None, 100)
    assert limits.memory_mb is not None
    assert limits.memory_mb > 100


def test_every_key_arrives(tmp_path: Path) -> None:
    text = """
user = "pi1"
max_timeout_s = 60
[programs]
runner = "cold"
python = "/usr/bin/python3"
preload = ["json", "socket"]
interpreter = ["/usr/bin/bash", "-u"]
directory = "/data"
run_as = "student"
environment = { LANG = "", GREETING = "hello" }
[limits]
cpu_s = 2.5
memory_mb = 0
processes = 10
[isolation]
kind = "bwrap"
network = true
devices = ["/dev/gpiochip0"]
readable = ["/opt/data"]
"""
    made = settings(load(written(tmp_path, text), {}))
    assert (made.start, made.python) == (Start.COLD, "/usr/bin/python3")
    assert (made.preload, made.interpreter) == (("json", "socket"), ("/usr/bin/bash", "-u"))
    assert (made.directory, made.empty_directory) == (Path("/data"), False)
    assert made.environment == {"PATH": "/bin", "GREETING": "hello"}
    assert (made.limits.cpu_s, made.limits.memory_mb, made.limits.processes) == (2.5, None, 10)
    assert (made.isolation, made.network) == (Isolation.BWRAP, True)
    assert (made.devices, made.readable) == (("/dev/gpiochip0",), ("/opt/data",))
    assert made.run_as == "student"


def test_what_is_nearer_to_the_person_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, 'user = "a"\nbroker = "mqtt://file"\nroot = "file"\n')
    monkeypatch.setenv("HWSYNC_BROKER", "mqtt://variable")
    monkeypatch.setenv("HWSYNC_ROOT", "variable")
    config = load(file, {"user": None, "root": "line"})
    assert config.values == {"user": "a", "broker": "mqtt://variable", "root": "line"}
    assert config.sources["user"] == str(file)
    assert config.sources["broker"] == "HWSYNC_BROKER"
    assert config.sources["root"] == "the command line"


def test_the_default_file_may_be_missing_and_is_read_where_it_is_not(tmp_path: Path) -> None:
    assert load(None, {}).values == {}
    (tmp_path / "default.toml").write_text("stop_s = 3\n")
    assert load(None, {}).get("stop_s") == 3
    with pytest.raises(UsageError, match=r"cannot read .*other\.toml: No such file"):
        load(tmp_path / "other.toml", {})


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("usr = 'a'", "there is no key usr", "did you mean user?"),
        ("[limits]\nmemory = 1", "there is no key limits.memory", "did you mean limits.memory_mb?"),
        ("memory_mb = 1", "there is no key memory_mb", "did you mean limits.memory_mb?"),
        ("[limit]\ncpu_s = 1", "there is no key limit", "docs/device.md|did you mean"),
        ("zzzzzz = 1", "there is no key zzzzzz", "docs/device.md lists every key"),
        ("user = 'a b'", "user = 'a b' is not allowed", "expected: text"),
        ("user = 1", "user = 1 is not allowed", "expected: text"),
        ("stop_s = -1", "stop_s = -1 is not allowed", "0 to 3600"),
        ("stop_s = true", "stop_s = True is not allowed", "0 to 3600"),
        ("stop_s = nan", "stop_s = nan is not allowed", "0 to 3600"),
        ("[limits]\nprocesses = 1.5", "limits.processes = 1.5 is not", "whole number"),
        ("[programs]\nrunner = 'hot'", "programs.runner = 'hot' is not", "`warm` or `cold`"),
        ("[programs]\npreload = 'json'", "programs.preload = 'json' is", "list of modules"),
        ("[programs]\nenvironment = {A = 1}", "programs.environment = ", "table of texts"),
        ("[isolation]\nkind = 'jail'", "isolation.kind = 'jail' is", "`none` or `bwrap`"),
        ("programs = 1", "there is no key programs", "did you mean|docs/device.md"),
        ("user = [", "is no TOML: Invalid value", ""),
        ("a = 1\nb b\n", "is no TOML: .*line 2", ""),
        ("stop_s = " + "9" * 5_000, "is no TOML: .*digits", ""),
        ("user = " + "[" * 5_000, "is no TOML: ", ""),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str, hint: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load(file, {})
    assert str(file) in caught.value.message
    assert re.search(said, caught.value.message)
    assert re.search(hint, caught.value.hint or "")


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_bytes(b"user = '\xff'")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(file, {})


def test_the_document_lists_every_key() -> None:
    rows = [f"| `{key.name}` | {key.kind} | {key.default} | {key.meaning} |" for key in KEYS]
    _, _, table = DOCUMENT.read_text().partition("| key | kind | default | meaning |\n")
    assert table.partition("\n\n")[0].splitlines()[1:] == rows
