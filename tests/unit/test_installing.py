"""What an error says where a part of hwsync is not installed can be typed as it stands."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from hwsync import installing

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("extra", ["sign", "tls", ""])
def test_it_names_this_environment_and_a_checkout(extra: str) -> None:
    said = installing.install(extra)
    command, _, where = said.partition(" (")
    words = shlex.split(command)
    assert words[0] == f"{sys.prefix}/bin/pip"
    assert words[1:] == [
        "install",
        f"{installing.CHECKOUT}[{extra}]" if extra else installing.CHECKOUT,
    ]
    assert "scripts/wheelhouse" in where
    if extra:
        assert re.search(rf"^{extra} =$", (CHECKOUT / "setup.cfg").read_text(), re.MULTILINE)


def test_a_folder_with_a_blank_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/srv/a lab")
    assert shlex.split(installing.install())[0] == "/srv/a lab/bin/pip"


def test_services_are_told_of_an_environment_that_they_see() -> None:
    said = installing.environment()
    assert said.startswith("python3 -m venv /opt/hwsync && /opt/hwsync/bin/pip install /path/to/")
