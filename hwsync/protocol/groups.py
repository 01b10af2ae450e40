"""Groups: names for several boards, as a file of the lab says (docs/protocol.md, "Groups").

The law: who is in a group is what the file says, and for its patterns who is known at that moment;
no message makes anybody a member. A file is right as a whole, or nothing of it counts.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import USER_FORM, is_user

SIGN: Final = "@"  # stands before a group's name where a board's could be
ALL: Final = "all"  # everybody; built in
RESERVED: Final = (ALL, "hwsync")
EXAMPLE: Final = 'lab1 = ["pi1", "pi2", "bench-*"]'
_PATTERN: Final = re.compile(r"[A-Za-z0-9.*?_-]+")


def is_pattern(text: str) -> bool:
    """Whether it means the boards whose names are like it: ``*`` any characters, ``?`` one."""
    return "*" in text or "?" in text


def matches(patterns: Iterable[str]) -> re.Pattern[str]:
    """What fully matches the names that one of these patterns means; with none: nobody's."""
    return re.compile("|".join(fnmatch.translate(one) for one in patterns) or r"(?!)")


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a lab: by name the boards and patterns, in the order of the file.

    It knows nothing of ``all``: the coordinator knows who is heard.
    """

    entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def members(self, group: str, users: Iterable[str]) -> tuple[str, ...] | None:
        """Its boards: first those with a name, then what its patterns mean of ``users``, sorted.

        ``users``: of whom there is a record, or a heartbeat was heard. None: no such group.
        """
        entries = self.entries.get(group)
        if entries is None:
            return None
        named = dict.fromkeys(one for one in entries if not is_pattern(one))
        patterns = [one for one in entries if is_pattern(one)]
        if not patterns:
            return tuple(named)
        alike = matches(patterns).match
        found = sorted(user for user in users if user not in named and alike(user))
        return (*named, *found)

    def having(self, group: str, entries: tuple[str, ...]) -> Groups:
        """The same, but that one has these boards and patterns."""
        return Groups({**self.entries, group: tuple(dict.fromkeys(entries))})

    def without(self, group: str) -> Groups:
        """The same without that one."""
        return Groups({name: one for name, one in self.entries.items() if name != group})


NO_GROUPS: Final = Groups()


def read_groups(tree: Mapping[str, Any], source: str) -> Groups:
    """The groups that a file's tree of TOML says; ``source``: its name.

    Raises ``UsageError`` with the file, the key, and what to do.
    """
    if len(tree) > limits.MAX_GROUPS:
        raise UsageError(f"{source}: {len(tree):,} groups, and {limits.MAX_GROUPS:,} are the most")
    return Groups({name: _entries(name, value, source) for name, value in tree.items()})


def check_name(name: str, source: str = "") -> None:
    """Raises ``UsageError`` for what no group can be called."""
    where = f"{source}: " if source else ""
    if name in RESERVED:
        said = "@all is everybody" if name == ALL else f"@{name} is the coordinator itself"
        raise UsageError(f"{where}no group can be called {name}: {said}", "take another name")
    if not is_user(name):
        raise UsageError(f"{where}{name[:80]!r} cannot be a group's name", USER_FORM)


def check_entry(name: str, entry: object, source: str = "") -> None:
    """Raises ``UsageError`` for what is neither a board's name nor a pattern."""
    where = f"{source}: " if source else ""
    if isinstance(entry, str) and is_pattern(entry):
        if len(entry) > limits.MAX_PATTERN:
            raise UsageError(
                f"{where}a pattern of {name} has {len(entry):,} characters",
                f"{limits.MAX_PATTERN} are the most",
            )
        if _PATTERN.fullmatch(entry):
            return
    if not is_user(entry):
        raise UsageError(
            f"{where}{str(entry)[:80]!r} of {name} is no board's name and no pattern",
            "a group has boards, and no groups"
            if str(entry).startswith(SIGN)
            else f"{USER_FORM}; in a pattern * stands for any characters, ? for one",
        )


def _entries(name: str, value: object, source: str) -> tuple[str, ...]:
    check_name(name, source)
    if not isinstance(value, list):
        hint = f"like this: {EXAMPLE}"
        if isinstance(value, dict):
            hint += "; a name with a dot stands in quotes"
        raise UsageError(f"{source}: {name} is no list of boards", hint)
    if len(value) > limits.MAX_GROUP:
        raise UsageError(
            f"{source}: {name} has {len(value):,} entries, and {limits.MAX_GROUP:,} are the most"
        )
    for entry in value:
        check_entry(name, entry, source)
    entries = tuple(dict.fromkeys(value))
    patterns = sum(map(is_pattern, entries))
    if patterns > limits.MAX_PATTERNS:
        raise UsageError(
            f"{source}: {name} has {patterns:,} patterns, and {limits.MAX_PATTERNS} are the most",
            "name its boards",
        )
    return entries
