"""``files=`` of the Python API: which files of this machine go along, and which never."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwsync.api.options import Files, make_request
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError


def sent(files: Files) -> dict[str, bytes]:
    return dict(make_request("pass", {"files": files}, "").files)


def test_what_goes_along(tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    (folder / "sub").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    for path in ("a.py", "sub/b.py", ".hidden", "__pycache__/a.pyc"):
        (folder / path).write_bytes(b"x")
    assert sent({"a": b"1", "b": "2", "c.py": folder / "a.py"}) == {
        "a": b"1",
        "b": b"2",
        "c.py": b"x",
    }
    assert sent([folder]) == {"lib/a.py": b"x", "lib/sub/b.py": b"x"}


def test_no_link_in_a_folder_is_followed_and_nothing_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "a.py").write_bytes(b"x")
    os.symlink(tmp_path / "secret", folder / "link")
    os.mkfifo(folder / "pipe")
    assert sent([folder]) == {"lib/a.py": b"x"}
    with pytest.raises(UsageError, match="pipe is no file"):
        sent([folder / "pipe"])
    with pytest.raises(UsageError, match=r"cannot read .*none"):
        sent([tmp_path / "none"])


def test_more_than_can_go_along_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=f"more than {limits.MAX_FILES_BYTES:,} bytes"):
        sent([large])
    many = tmp_path / "many"
    many.mkdir()
    for number in range(limits.MAX_FILES + 1):
        (many / str(number)).touch()
    with pytest.raises(UsageError, match="more than 64 files"):
        sent([many])
