"""What the daemon does not load, and that whoever asks for it finds it nevertheless."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def said_by(program: str) -> str:
    """In a fresh interpreter: here pytest has loaded everything."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nimport hwsync.device.service\n{program}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_daemon_does_not_load_what_only_a_proxy_needs() -> None:
    loaded = set(said_by("print(*sys.modules)").split())
    assert "paho.mqtt.client" in loaded
    assert not loaded & {"http.client", "email", "urllib.error"}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="dataclasses itself uses inspect there")
def test_a_daemon_does_not_load_inspect() -> None:
    """A dataclass without a docstring would."""
    assert not {"ast", "dis"} & set(said_by("print(*sys.modules)").split())


@pytest.mark.parametrize(
    ("used", "name"),
    [
        ("import inspect\ninspect.signature(print)", "inspect"),
        ("from inspect import signature", "inspect"),
        ("import paho.mqtt.client as c\nc.urllib.request.getproxies()", "urllib.request"),
        ("import urllib.request\nurllib.request.proxy_bypass('host')", "urllib.request"),
        ("from urllib.request import urlopen", "urllib.request"),
    ],
)
def test_what_is_loaded_later_is_the_module_itself(used: str, name: str) -> None:
    assert said_by(f"{used}\nprint(type(sys.modules[{name!r}]).__name__)") == "module\n"


def test_what_is_not_in_it_is_an_attribute_error() -> None:
    program = "import inspect\nprint(hasattr(inspect, 'no_such'), hasattr(inspect, 'signature'))"
    assert said_by(program) == "False True\n"
