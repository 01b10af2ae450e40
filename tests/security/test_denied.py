"""What an operator is told who asks for a board that he was not given."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.brokers import AmqttBroker, MosquittoBroker
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


def kept(folder: Path) -> list[str]:
    """Everybody asks and reads; nobody but the coordinator's account moves or clears anything."""
    rights = folder / "acl"
    lines = ["topic readwrite hw/#", "user anna", "topic read hw/#", "topic write hw/@hwsync/query"]
    rights.write_text("\n".join(lines) + "\n")
    return [f"acl_file {rights}"]


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_who_may_not_forget_is_told_and_nothing_is_forgotten(
    kind: str,
    start_mosquitto: Callable[..., MosquittoBroker],
    start_amqtt: Callable[..., AmqttBroker],
    start: Callable[..., Process],
    tmp_path: Path,
) -> None:
    make = start_mosquitto if kind == "mosquitto" else start_amqtt
    lab = Lab(make(extra=kept(tmp_path)), start, tmp_path)
    coordinator = lab.coordinator()
    lab.cli("send", "pi9", "--wait-for-board", "--id", "x", "-c", "1").wait(30.0)
    lab.cli("cancel", "pi9", "x").wait(30.0)

    def forget(*options: str) -> str:
        url = lab.url.replace("//", "//anna:x@")
        variables = {"HWSYNC_BROKER": url, "STATE_DIRECTORY": str(tmp_path / "none")}
        done = lab.start([*HWSYNC, "forget", "pi9", *options], variables=variables, name="forget")
        assert done.wait(60.0) != 0, done.account()
        return done.stderr

    said = forget()
    denied = "the broker does not let us publish for pi9" if kind == "mosquitto" else "may not ask"
    assert denied in said
    assert "start one" not in said
    coordinator.terminate()
    assert coordinator.wait() == 0
    said = forget("--db", str(lab.db))
    still = "does not let us" if kind == "mosquitto" else "still keeps the status of pi9"
    assert still in said
    assert "no coordinator answers" in forget()
    with closing(sqlite3.connect(lab.db)) as database:
        assert database.execute("SELECT forgotten FROM hw_status").fetchall() == [(0,)]
