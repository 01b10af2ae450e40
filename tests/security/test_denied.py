"""What an operator is told who asks for a board that he was not given."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.support.brokers import MosquittoBroker
from tests.support.lab import HWSYNC, Lab
from tests.support.processes import Process


def accounts(folder: Path) -> list[str]:
    """The lines of broker.conf that let anna ask for pi1 only."""
    rights = folder / "acl"
    rights.write_text(
        "pattern readwrite hw/pi1/#\ntopic readwrite hw/#\nuser anna\ntopic read hw/pi2/#\n"
    )
    return [f"acl_file {rights}"]


def test_he_is_told_at_once(
    start_mosquitto: Callable[..., MosquittoBroker], start: Callable[..., Process], tmp_path: Path
) -> None:
    lab = Lab(start_mosquitto(extra=accounts(tmp_path)), start, tmp_path)
    began = time.monotonic()
    done = _run(lab, "pi2")
    assert done.exit_code == 125, done.account()
    said = "hwsync: the broker does not let us publish for pi2 (not authorized)"
    assert done.stderr.splitlines()[0] == said
    assert time.monotonic() - began < 10.0  # nobody is waited for


def _run(lab: Lab, user: str) -> Process:
    url = lab.url.replace("//", "//anna:x@")
    done = lab.start(
        [*HWSYNC, "run", user, "-c", "print(1)"], variables={"HWSYNC_BROKER": url}, name="run"
    )
    done.wait(60.0)
    return done
