"""docs/analysers.md: each analyser of it is run, and its tables are those of the code."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from hwsync.analysers import Run
from hwsync.analysers.builtins import BUILTINS
from hwsync.analysers.builtins.parts import ENDED, OF
from hwsync.analysers.engine import Engine
from hwsync.analysers.folder import PASSED_OVER, Folder
from hwsync.analysers.written import KEYS, Limits

PAGE = Path(__file__).resolve().parents[2] / "docs/analysers.md"
FILE = re.compile(r"```\w+\n((?:#![^\n]*\n)?# (\w+(?:\.\w+)?)\n.*?)```", re.DOTALL)
SAID = re.compile(r"program that prints `(.*?)`, `(\w+)` says:\n\n```json\n(.*?)```", re.DOTALL)
MARKS = "<!-- built-in analysers: begin -->\n", "<!-- built-in analysers: end -->"


def table() -> str:
    lines = []
    for name, builtin in BUILTINS.items():
        lines += [f"**`{name}`**: {builtin.meaning}.", ""]
        if builtin.arguments:
            lines += ["| argument | value | meaning |", "|---|---|---|"]
        for key, one in builtin.arguments.items():
            if one in (OF, ENDED):
                continue  # which all have: the page says them once
            lacks = f"; {one.default} where it lacks" if one.default else ""
            lines.append(f"| `{key}` | {one.kind}{lacks} | {one.meaning} |")
        lines += [""] if builtin.arguments else []
    return "\n".join(lines)


def test_each_example_judges_as_the_page_says(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    written = {name: source for source, name in FILE.findall(text)}
    for name, source in written.items():
        (tmp_path / name).write_text(source)
        if "." not in name:
            (tmp_path / name).chmod(0o755)
    folder = Folder(tmp_path)
    analysers = folder.scan()
    assert folder.problems == ()
    assert len(written) == 8
    said = SAID.findall(text)
    assert {name for _, name, _ in said} | {"short", "outcome"} == analysers.keys()
    with Engine(at_once=1) as engine:
        for stdout, name, analysis in said:
            judgement = engine.judge(analysers[name], Run(stdout=stdout))
            assert judgement.analysis == json.loads(analysis), name
        short = engine.judge(analysers["short"], Run(program="print(1)"))
        assert short.analysis == {"passed": True, "message": ""}


def test_the_table_of_built_in_analysers_is_the_codes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in MARKS)
    assert text[begin + len(MARKS[0]) : end].strip() == table().strip()


def test_the_page_has_every_key() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [key for key in KEYS if f"`{key}`" not in text and f"`[{key}]`" not in text]
    missing += [one.name for one in fields(Limits) if f"`{one.name}` (" not in text]
    limits = Limits()
    assert f"`time_s` ({limits.time_s:g} where it lacks), `memory_mb` ({limits.memory_mb})" in text
    sentence = text[text.index("The keys are those") :]
    missing += [one.name for one in fields(Run) if f"`{one.name}`" not in sentence]
    assert not missing


@pytest.mark.parametrize(
    "name", ["_a.py", ".a", "#a#", "a~", "README.md", "test_a.py", "ruff.toml"]
)
def test_the_page_and_the_folder_pass_over_the_same(name: str) -> None:
    assert PASSED_OVER.fullmatch(name)


if __name__ == "__main__":  # writes the table into the page
    whole = PAGE.read_text(encoding="utf-8")
    first, last = whole.index(MARKS[0]) + len(MARKS[0]), whole.index(MARKS[1])
    PAGE.write_text(whole[:first] + "\n" + table() + "\n" + whole[last:], encoding="utf-8")
