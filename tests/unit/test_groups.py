"""The file of groups: who is in one, and what is said where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsync import groups
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import NO_GROUPS, Groups

KNOWN = ("pi2", "bench-2", "bench-10", "bench-1", "Bench-1", "xbench-1")


def said(text: str) -> Groups:
    return groups.parse(text.encode(), "groups.toml")


def test_a_group_has_its_boards_in_the_files_order_then_those_of_its_patterns() -> None:
    found = said('lab1 = ["pi9", "bench-*", "pi1", "pi9", "bench-2"]\n"lab.2" = []\n')
    assert found.members("lab1", KNOWN) == ("pi9", "pi1", "bench-2", "bench-1", "bench-10")
    assert found.members("lab1", ()) == ("pi9", "pi1", "bench-2")
    assert found.members("lab.2", KNOWN) == ()


def test_who_is_no_group_is_none() -> None:
    found = said('lab1 = ["pi1"]')
    assert [found.members(name, KNOWN) for name in ("lab2", "LAB1", "all", "", "pi1")] == [None] * 5
    assert NO_GROUPS.members("lab1", KNOWN) is None


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("*", set(KNOWN)),
        ("bench-?", {"bench-1", "bench-2"}),
        ("bench-*", {"bench-1", "bench-2", "bench-10"}),
        ("*-1", {"bench-1", "Bench-1", "xbench-1"}),
        ("bench.?", set()),
        ("pi2?", set()),
    ],
)
def test_what_a_pattern_means(pattern: str, meant: set[str]) -> None:
    assert set(said(f'g = ["{pattern}"]').members("g", KNOWN) or ()) == meant


def test_a_pattern_is_slow_for_nobody() -> None:
    """A regular expression made carelessly of such a pattern takes years."""
    hard = "a*" * 32
    users = [f"{'a' * 60}{n:04}" for n in range(1_000)]
    assert said(f'g = ["{hard}"]').members("g", users) == tuple(users)
    assert said(f'g = ["{hard[:-1]}b"]').members("g", users) == ()


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("lab1 = [", "is no TOML", "lab1 = ["),
        ("lab1 = 'pi1'", "lab1 is no list of boards", 'lab1 = ["pi1"'),
        ("lab.1 = ['pi1']", "lab is no list of boards", "in quotes"),
        ("[lab1]\nboards = ['pi1']", "lab1 is no list of boards", "like this"),
        ("lab1 = ['pi1', 2]", "'2' of lab1 is no board's name", "* stands for"),
        ("lab1 = ['pi 1']", "'pi 1' of lab1 is no board's name", "1 to 64 of"),
        ("lab1 = ['']", "'' of lab1 is no board's name", "1 to 64 of"),
        ("lab1 = ['[ab]*']", "'[ab]*' of lab1 is no board's name", "in a pattern"),
        ("lab1 = ['pi*/request']", "of lab1 is no board's name", "in a pattern"),
        ("lab1 = ['@lab2']", "'@lab2' of lab1", "and no groups"),
        ("all = ['pi1']", "no group can be called all: @all is everybody", "another name"),
        ("hwsync = ['pi1']", "no group can be called hwsync", "another name"),
        ("'@lab1' = ['pi1']", "'@lab1' cannot be a group's name", "1 to 64 of"),
        ("'a b' = ['pi1']", "'a b' cannot be a group's name", "1 to 64 of"),
        ("lab1 = ['pi1']\nlab1 = ['pi2']", "is no TOML", "like this"),
        (f"n = {'9' * 5_000}", "is no TOML", "like this"),
        ("a = " + "[" * 5_000, "is no TOML", ""),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(text: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        said(text)
    assert raised.value.message.startswith("groups.toml")
    assert what in raised.value.message
    assert hint in raised.value.hint


def of_size(size: int) -> str:
    line = 'lab1 = ["pi1"]\n'
    return line + "#" * (size - len(line))


def many(number: int) -> str:
    return "\n".join(f"g{n} = []" for n in range(number))


def entries(number: int, more: str = "") -> str:
    return f"g = {[f'{n}{more}' for n in range(number)]}"


@pytest.mark.parametrize(
    ("at", "above"),
    [
        (of_size(limits.MAX_GROUPS_FILE), of_size(limits.MAX_GROUPS_FILE + 1)),
        (many(limits.MAX_GROUPS), many(limits.MAX_GROUPS + 1)),
        (entries(limits.MAX_GROUP), entries(limits.MAX_GROUP + 1)),
        (entries(limits.MAX_PATTERNS, "*"), entries(limits.MAX_PATTERNS + 1, "*")),
        (f"g = ['{'x' * (limits.MAX_PATTERN - 1)}*']", f"g = ['{'x' * limits.MAX_PATTERN}*']"),
    ],
    ids=["bytes", "groups", "boards", "patterns", "pattern"],
)  # fmt: skip
def test_its_limits(at: str, above: str) -> None:
    said(at)
    with pytest.raises(UsageError, match=r"groups\.toml"):
        said(above)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "groups.toml"
    assert groups.load(file, may_lack=True) == NO_GROUPS
    with pytest.raises(UsageError, match="cannot read"):
        groups.load(file)
    with pytest.raises(UsageError, match="is no file"):
        groups.load(tmp_path, may_lack=True)
    file.write_bytes(b'lab1 = ["pi\xff"]')
    with pytest.raises(UsageError, match="not UTF-8"):
        groups.load(file, may_lack=True)
    file.write_text('lab1 = ["pi1"]')
    assert groups.load(file).entries == {"lab1": ("pi1",)}
