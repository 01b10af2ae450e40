"""Imports run downhill, and one file owns each outside thing.

    protocol <- transport, store, runner <- coordinator, device, operator <- cli

The law is in the tables below; the rest walks the syntax tree of every module of hwsync. A module
that is in no table fails: it needs a place. Imports inside functions, under ``TYPE_CHECKING`` and
through ``import_module("…")`` count like any other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.processes import python

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "hwsync"

# What each layer may import of hwsync, besides itself and the package's own name (its version).
MAY_IMPORT: dict[str, frozenset[str]] = {
    "protocol": frozenset(),
    "address": frozenset({"protocol"}),
    "configfile": frozenset({"protocol", "address"}),
    "connection": frozenset({"protocol", "address", "configfile", "signing"}),
    "paths": frozenset({"protocol"}),
    "groups": frozenset({"protocol"}),
    "transport": frozenset({"protocol", "address", "raw_clock"}),
    "findings": frozenset(),
    "probe": frozenset({"address", "transport"}),
    "webprobe": frozenset({"address", "transport"}),
    "packages": frozenset(),
    "runner": frozenset({"protocol", "packages"}),
    "broker": frozenset({"protocol", "notify"}),
    "logs": frozenset(),
    "numbers": frozenset(),
    "lab_time": frozenset(),
    "grading": frozenset({"protocol"}),
    "notify": frozenset({"logs"}),
    "orders": frozenset(),
    "raw_clock": frozenset(),
    "installing": frozenset(),
    "signing": frozenset({"protocol", "installing"}),
    "analysers": frozenset({"protocol", "runner", "numbers", "installing"}),
    "lab": frozenset({"protocol", "broker", "signing", "installing", "groups"}),
    "systemd": frozenset({"protocol"}),
    "store": frozenset({"protocol"}),
    "coordinator": frozenset(
        {
            *("protocol", "address", "transport", "store", "notify", "orders", "signing"),
            "raw_clock",
        }
    ),
    "device": frozenset(
        {
            *("protocol", "address", "paths", "transport", "runner", "logs", "notify"),
            *("findings", "probe", "signing", "configfile", "connection", "orders", "raw_clock"),
        }
    ),
    "operator": frozenset({"protocol", "address", "transport"}),
    "analyst": frozenset(
        {
            *("protocol", "address", "transport", "operator", "analysers", "notify", "orders"),
            "grading",
        }
    ),
    "cli": frozenset(
        {
            *("protocol", "address", "paths", "broker", "store", "coordinator", "operator"),
            *("logs", "findings", "probe"),
            *("configfile", "connection", "lab", "systemd", "webprobe", "installing", "signing"),
            *("groups", "grading", "analysers", "analyst", "numbers", "packages"),
        }
    ),
    "testing": frozenset(
        {
            *("address", "protocol", "transport", "runner", "store", "coordinator", "device"),
            *("operator", "analyst", "analysers", "notify"),
        }
    ),
    "api": frozenset(
        {
            *("protocol", "address", "operator", "connection", "configfile", "logs", "numbers"),
            "grading",
        }
    ),
    "pytest_plugin": frozenset({"api"}),
    "": frozenset({"api"}),  # hwsync/__init__.py
}

# Who may import a thing from outside: modules, or packages with everything in them.
OWNERS: dict[str, tuple[str, ...]] = {
    "paho": ("hwsync.transport.paho_client",),
    "amqtt": ("hwsync.broker",),
    "peewee": ("hwsync.store",),
    "playhouse": ("hwsync.store",),
    "sqlite3": ("hwsync.store", "hwsync.device.sealed", "hwsync.device.checking"),
    "click": ("hwsync.cli",),
    "nacl": ("hwsync.signing",),
    "cryptography": ("hwsync.lab.authority",),
    "subprocess": (
        *("hwsync.runner", "hwsync.cli.up", "hwsync.cli.service", "hwsync.pytest_plugin"),
        "hwsync.analysers.inside",
    ),
    "multiprocessing": ("hwsync.runner",),
    "pty": ("hwsync.runner",),
}

# Who imports what others name: the modules that a configuration wants ready for programs, those
# that paho and the standard library import, and that of the command that was typed (``PLACES``).
IMPORTS_FOR_OTHERS = frozenset({"hwsync.runner.server", "hwsync.device.later", "hwsync.cli.app"})

# Calls that start a process, whatever module they come from; the same owners as subprocess.
STARTS_A_PROCESS = frozenset(
    {
        *("fork", "forkpty", "posix_spawn", "posix_spawnp", "popen", "system"),
        *("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"),
        *("spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe"),
        *("create_subprocess_exec", "create_subprocess_shell"),
    }
)
MODULES_THAT_START = frozenset({"os", "posix", "asyncio"})

# What small boards run too: nothing from outside of the package, not even the standard library.
DEVICE_CORE = "hwsync.protocol.device"

# The protocol is pure: clock and randomness are arguments, and it performs nothing.
IMPURE = frozenset(
    {
        *("time", "datetime", "random", "secrets", "uuid"),
        *("os", "posix", "socket", "select", "selectors", "signal", "tempfile", "shutil"),
        *("threading", "asyncio", "concurrent", "queue", "logging"),
    }
)


@cache
def modules() -> dict[str, Path]:
    """Every module of hwsync by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(CHECKOUT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is imported (``from a import b`` gives ``a.b``)."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in ("import_module", "__import__"):
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield node.lineno, first.value
                else:
                    yield node.lineno, "a name that is computed"


def starts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything in a module that starts a process without ``subprocess``."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in STARTS_A_PROCESS
            and isinstance(node.value, ast.Name)
            and node.value.id in MODULES_THAT_START
        ):
            yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES_THAT_START:
            for name in node.names:
                if name.name in STARTS_A_PROCESS:
                    yield node.lineno, f"{node.module}.{name.name}"


def within(module: str, owners: tuple[str, ...]) -> bool:
    return any(module == owner or module.startswith(f"{owner}.") for owner in owners)


def layer_of(dotted: str, known: frozenset[str]) -> str:
    """The layer of a name inside hwsync; empty for the package's own names, as its version."""
    parts = dotted.split(".")
    if len(parts) == 1:
        return ""
    return parts[1] if parts[1] in known or parts[1] in MAY_IMPORT else ""


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """One line for each import or call of ``module`` that the tables forbid."""
    tree = ast.parse(source)
    known = frozenset(name.split(".")[1] for name in modules() if "." in name)
    layer = layer_of(module, known)
    if layer not in MAY_IMPORT:
        return [f"{module}: the layer {layer!r} is in no table; give it a place in MAY_IMPORT"]
    found = []
    for line, name in imports(tree, module, is_package=is_package):
        where = f"{module}:{line} imports {name}"
        top = name.split(".")[0]
        if top == "a name that is computed" and module not in IMPORTS_FOR_OTHERS:
            found.append(f"{where}: nobody can see which layer that is")
        if top == "hwsync":
            target = layer_of(name, known)
            if target not in ("", layer) and target not in MAY_IMPORT[layer]:
                found.append(f"{where}: {layer or 'hwsync'} may not import {target}")
        if top in OWNERS and not within(module, OWNERS[top]):
            found.append(f"{where}: only {' and '.join(OWNERS[top])} may")
        if layer == "protocol" and top in IMPURE:
            found.append(f"{where}: the protocol is pure")
        if within(module, (DEVICE_CORE,)) and not within(name, (DEVICE_CORE,)):
            found.append(f"{where}: the device's core imports nothing but itself")
    found += [
        f"{module}:{line} uses {name}: only {' and '.join(OWNERS['subprocess'])} may"
        for line, name in starts(tree)
        if not within(module, OWNERS["subprocess"])
    ]
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_run_downhill(module: str) -> None:
    path = modules()[module]
    found = violations(
        module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py"
    )
    assert not found, "\n".join(found)


def test_no_edge_is_unused() -> None:
    """What nobody imports is not allowed either: the table says how the parts hang together."""
    known = frozenset(name.split(".")[1] for name in modules() if "." in name)
    used: dict[str, set[str]] = {layer: set() for layer in known | {""}}
    for module, path in modules().items():
        tree, package = ast.parse(path.read_text(encoding="utf-8")), path.name == "__init__.py"
        layer = layer_of(module, known)
        for _, name in imports(tree, module, is_package=package):
            if name.split(".")[0] == "hwsync":
                used[layer].add(layer_of(name, known))
    unused = {layer: may - used[layer] for layer, may in MAY_IMPORT.items()}
    assert not {layer: may for layer, may in unused.items() if may}
    assert MAY_IMPORT.keys() == used.keys()


def test_a_device_loads_neither_the_database_layer_nor_the_command_line() -> None:
    """Tiny boards have only paho: what is really loaded counts, not only what the files name."""
    done = python("import hwsync.device.service, sys; print(*sys.modules)", cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "paho.mqtt.client" in loaded
    unwanted = {"peewee", "playhouse", "click", "amqtt"}
    unwanted |= {"hwsync.store", "hwsync.coordinator", "hwsync.cli"}
    unwanted |= {"tomllib", "hwsync.transport.tls"}  # for boards with a file, and with TLS
    assert not loaded & unwanted


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("hwsync.protocol.record", "import time", "pure"),
        ("hwsync.protocol.record", "from datetime import datetime", "pure"),
        ("hwsync.protocol.record", "def f():\n    import os.path", "pure"),
        ("hwsync.protocol.record", "from ..transport import Transport", "may not import transport"),
        ("hwsync.protocol.record", "from .. import transport", "may not import transport"),
        ("hwsync.protocol.device.core", "from typing import Any", "nothing but itself"),
        ("hwsync.protocol.device.core", "from hwsync.protocol import limits", "but itself"),
        ("hwsync.transport", "from hwsync import coordinator", "may not import coordinator"),
        ("hwsync.transport", "import peewee", "only hwsync.store"),
        ("hwsync.runner.cold", "import hwsync.transport", "may not import transport"),
        ("hwsync.broker.embedded", "import hwsync.transport", "may not import transport"),
        ("hwsync.coordinator.loop", "import hwsync.device.agent", "may not import device"),
        ("hwsync.coordinator.loop", "import paho.mqtt.client as mqtt", "only hwsync.transport"),
        ("hwsync.coordinator.loop", "import subprocess", "only hwsync.runner"),
        ("hwsync.device.agent", "from hwsync.coordinator import x", "may not import coordinator"),
        ("hwsync.device.agent", "import sqlite3", "hwsync.device.sealed"),
        ("hwsync.device.agent", "import os\nos.fork()", "uses os.fork"),
        ("hwsync.device.agent", "from os import execv", "uses os.execv"),
        ("hwsync.device.service", "import click", "only hwsync.cli"),
        ("hwsync.operator.run", "from hwsync.cli import main", "may not import cli"),
        (
            "hwsync.operator.run",
            "import importlib\nimportlib.import_module('amqtt')",
            "hwsync.broker",
        ),
        (
            "hwsync.operator.run",
            "import importlib\nimportlib.import_module(name)",
            "nobody can see",
        ),
        ("hwsync.cli.broker", "from amqtt.broker import Broker", "only hwsync.broker"),
        ("hwsync.cli.run", "import subprocess", "only hwsync.runner"),
        ("hwsync.cli.run", "from hwsync.testing import clock", "may not import testing"),
    ],
)
def test_an_import_uphill_is_found(module: str, source: str, said: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert said in found[0]


def test_a_module_without_a_place_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(MAY_IMPORT, "protocol")
    assert "in no table" in violations("hwsync.protocol", "", is_package=True)[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hwsync.protocol.machine", "from .record import Record\nfrom hwsync import __version__"),
        ("hwsync.protocol.device.core", "from hwsync.protocol.device import values"),
        ("hwsync.device.sealed", "import sqlite3\nfrom hwsync.runner import Job"),
        ("hwsync.store.store", "import peewee, sqlite3"),
        ("hwsync.runner.cold", "import os, subprocess\nos.fork()"),
        ("hwsync.cli.up", "import subprocess, click\nfrom ..broker import conf"),
        ("hwsync.transport.paho_client", "import paho.mqtt.client, time, os\nos.getpid()"),
    ],
)
def test_what_is_allowed_is_not_complained_of(module: str, source: str) -> None:
    assert violations(module, source) == []


NAMES_FOR_PEOPLE = {"PyNaCl": "nacl", "fork and subprocess": "subprocess"}


def test_the_table_of_owners_is_the_one_in_contributing() -> None:
    page = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| (.*`hwsync/.*) \|$", page, re.MULTILINE)
    found = {
        NAMES_FOR_PEOPLE.get(thing, thing): {
            path.removesuffix(".py").replace("/", ".")
            for path in re.findall(r"`(hwsync/[\w/.]+)`", owners)
        }
        for thing, owners in rows
    }
    said = {"paho", "amqtt", "peewee", "sqlite3", "click", "nacl", "cryptography", "subprocess"}
    assert found == {thing: set(OWNERS[thing]) for thing in said}


def test_everything_was_walked() -> None:
    """A walk over nothing would pass."""
    assert {"hwsync", "hwsync.protocol", "hwsync.protocol.errors"} <= modules().keys()
