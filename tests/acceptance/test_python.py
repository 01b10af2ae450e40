"""docs/python.md, a user's program and a notebook, with real devices."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hwsync
from tests.support.lab import Lab, standing
from tests.support.mqtt import Watcher
from tests.support.processes import CHECKOUT
from tests.support.python_user import day
from tests.support.waiting import START_PATIENCE, wait_until

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    groups = 'lab1 = ["pi1", "pi2"]\n'
    with standing(tmp_path_factory.mktemp("python"), groups) as made:
        for user in ("pi1", "pi2"):
            made.device(user, user)
        watcher = Watcher(made.broker, "hw/+/heartbeat")
        wait_until(lambda: len(watcher.messages()) >= 2, START_PATIENCE)
        watcher.close()
        yield made


@pytest.fixture(autouse=True)
def here(master: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWSYNC_BROKER", master.url)


def test_the_page_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (CHECKOUT / "docs/python.md").read_text()
    blocks, names = BLOCK.findall(page), dict[str, Any]()
    assert len(blocks) > 10
    for number, block in enumerate(blocks):
        file = tmp_path / f"block{number}.py"  # whose source can be had
        file.write_text(block)
        exec(compile(block, str(file), "exec", dont_inherit=True), names)
    said = capsys.readouterr().out
    parts = ["42\n", "speed 2\n", "pi1: error: exit code 1", "['7\\n', '7\\n']", "no\n", "2.33"]
    parts += ["{'t': [0, 1, 2], 'temp': [20.0, 20.5, 21.0]}", "pi2 True False", "b'6'"]
    parts += ["('pi1', 'cancelled',", "s07 waiting None 0"]
    for one in parts:
        assert one in said


def test_a_users_program_that_mypy_has_read(master: Lab, tmp_path: Path) -> None:
    with hwsync.connect(master.url) as lab:
        said = day(lab, tmp_path, "pi1", "pi2", "lab1")
    for one in ("speed 2 x\n", "{'a': [1], 'b': [2]}", "ok", "3 error", "7\n7\n", "timed\n True",
                "{'ok': 2} 8\n True", "True ok", "42", "{'a.txt': b'7'}"):  # fmt: skip
        assert one in said
    assert "('pi1', True, False)" in " ".join(said)


def test_a_notebook_is_executed_and_shows_what_ran() -> None:
    """As IPython does: a cell's last expression is shown by its ``_repr_html_``."""
    notebook = json.loads((CHECKOUT / "tests/fixtures/lab.ipynb").read_text())
    names, shown = dict[str, Any](), list[str]()
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "a cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "a cell", "eval"), names)
            shown += [value._repr_html_()] if value is not None else []
    one, picture, several = shown
    assert "&lt;b&gt;6 * 7&lt;/b&gt; 42" in one
    assert '<img src="data:image/png;base64,iVBORw0KGgo=" alt="plot.png">' in picture
    assert several.count("<tr>") == 3
