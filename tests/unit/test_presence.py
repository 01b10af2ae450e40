"""What a heartbeat says of the board: what can be read, and nothing where it cannot."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from hwsync.device import presence as module
from hwsync.device.presence import presence


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a board that has none of them yet."""
    monkeypatch.setattr(module, "MODELS", (f"{tmp_path}/model", f"{tmp_path}/product"))
    monkeypatch.setattr(module, "TEMPERATURE", f"{tmp_path}/temp")
    monkeypatch.setattr(module, "THROTTLED", f"{tmp_path}/soc*/*/get_throttled")
    return tmp_path


def test_a_raspberry_pi(board: Path) -> None:
    (board / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.5\0")
    (board / "temp").write_text("48312\n")
    firmware = board / "soc" / "soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text("50005\n")
    said = presence(board, "3.11.2")
    assert said.pop("disk_free_mb") > 0
    assert said.pop("memory_free_mb") > 0
    assert said == {
        "python": "3.11.2",
        "board": "Raspberry Pi 4 Model B Rev 1.5",
        "temperature": 48.312,
        "throttled": 0x50005,
    }


def test_another_machine_is_called_by_its_product_and_the_daemons_python_stands_in(
    board: Path,
) -> None:
    (board / "product").write_text("X7 DESK\n")
    said = presence(board, "")
    assert (said["board"], said["python"]) == ("X7 DESK", platform.python_version())


def test_what_cannot_be_read_is_not_there(board: Path) -> None:
    assert presence(board / "no" / "folder", "3").keys() == {"python", "memory_free_mb"}


@pytest.mark.parametrize("text", [b"", b"\xff\n", b"-\n", b"hot\n", b"\0"])
def test_nonsense_is_no_error(board: Path, text: bytes) -> None:
    firmware = board / "soc" / "soc:firmware"
    firmware.mkdir(parents=True)
    for path in (board / "temp", firmware / "get_throttled"):
        path.write_bytes(text)
    assert presence(board, "3").keys() == {"python", "disk_free_mb", "memory_free_mb"}


def test_a_frost(board: Path) -> None:
    (board / "temp").write_text("-5000\n")
    assert presence(board, "3")["temperature"] == -5.0
