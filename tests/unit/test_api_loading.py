"""``import hwsync``: what it has, and that nobody pays for it before it is used."""

from __future__ import annotations

import pytest

import hwsync
from hwsync import api, connection
from hwsync.configfile import PROGRAM
from tests.support.processes import CHECKOUT, python


def test_its_names_are_those_of_the_api() -> None:
    assert set(api.__all__) == hwsync._PUBLIC
    for name in api.__all__:
        assert getattr(hwsync, name) is getattr(api, name)
    assert set(dir(hwsync)) >= {*api.__all__, "__version__"}


def test_whoever_imports_it_loads_nothing_and_asking_for_a_module_neither() -> None:
    asks = "import sys, hwsync; before = set(sys.modules); from hwsync import logs; "
    asks += "print([name for name in sys.modules if 'api' in name or 'operator' in name])"
    done = python(asks, cwd=CHECKOUT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hwsync.operator" not in done.stdout
    assert "hwsync.api" not in done.stdout


def test_the_api_loads_neither_the_command_line_nor_the_database() -> None:
    done = python("import sys, hwsync; hwsync.connect; print(*sys.modules)", cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    unwanted = {"click", "peewee", "sqlite3", "hwsync.cli", "asyncio", "hwsync.coordinator"}
    assert not unwanted & set(done.stdout.split())


def test_a_name_that_it_does_not_have_is_said_like_any() -> None:
    done = python("import hwsync; hwsync.conect", cwd=CHECKOUT)
    assert "module 'hwsync' has no attribute 'conect'" in done.stderr


def test_a_password_may_be_an_argument_but_not_go_over_a_network_as_it_is() -> None:
    """Nobody else sees the arguments of a function, as he would those of a command."""
    given = connection.load(None, {"broker": "mqtt://anna:x@127.0.0.1"}, PROGRAM)
    assert connection.broker(given).password == "x"
    own = {"broker": "mqtt://127.0.0.1", "account": "anna", "password": "y"}
    assert connection.broker(connection.load(None, own, PROGRAM)).password == "y"
    with pytest.raises(hwsync.UsageError, match="without TLS everybody") as error:
        hwsync.connect("mqtt://broker.lab", account="anna", password="y")
    assert "or allow_plaintext= where you trust the network" in error.value.hint
