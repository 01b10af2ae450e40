"""What the fork server is told is what stands at its top."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from hwsync.runner import Settings, server
from hwsync.runner.launcher import _given


def test_each_key_that_the_server_is_given_is_listed_at_its_top(tmp_path: Path) -> None:
    table = (server.serve.__doc__ or "").partition("by its key:")[2]
    found = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*)   *\S", table, re.M)
    listed = {key for keys in found for key in keys.split(", ")}
    used = set(re.findall(r"""given\[['"](\w+)['"]\]""", inspect.getsource(server.serve)))
    assert listed == used == {*_given(Settings(tmp_path), None, None), "cgroup"}
