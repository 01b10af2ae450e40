"""Which packages an interpreter has, as a list and one hash: whether two runs had the same.

    >>> listed([])
    []

The law: folders are listed and nothing is imported, so that a board can look after each run. A
package is called as the registry calls it: small letters, ``-`` for ``_`` and ``.``. Its version is
that of the folder that its installer has written.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterable, Sequence


def listed(paths: Iterable[str]) -> list[str]:
    """``name==version`` of what is found there, sorted; of two of a name the first counts.

    It needs nothing of this module: its text is sent to boards.
    """
    import os
    import re

    found: dict[str, str] = {}
    for path in paths:
        try:
            names = os.listdir(path)
        except OSError:
            continue  # an archive, or not there
        for name in sorted(names):
            stem, _, kind = name.rpartition(".")
            project, _, version = stem.partition("-")
            if kind == "egg-info":
                version = re.sub(r"-py[0-9.]+.*", "", version)
            if kind in ("dist-info", "egg-info") and project and version:
                found.setdefault(re.sub(r"[-_.]+", "-", project).lower(), version)
    return [f"{name}=={found[name]}" for name in sorted(found)]


def hash_of(lines: Sequence[str]) -> str:
    """SHA-256 in hexadecimal, of these lines as ``sha256sum`` reads them."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def program() -> str:
    """A program that prints the lines, of the interpreter that runs it but not of its folder."""
    return f"""\
from __future__ import annotations

{inspect.getsource(listed)}
import os, sys
for line in listed([path for path in sys.path if path not in ("", os.getcwd())]):
    print(line)
"""


class Installed:
    """The hash of what an interpreter with these paths has; looked for again where that changed."""

    def __init__(self, paths: Sequence[str], folder: str) -> None:
        """``folder``: where programs run; it is none of the interpreter's."""
        self._paths = [path for path in paths if path not in ("", folder)]
        self._seen: list[int] | None = None
        self._hash = ""

    @property
    def sha256(self) -> str:
        """In hexadecimal; empty where no path is known."""
        if not self._paths:
            return ""
        seen = [_changed(path) for path in self._paths]
        if seen != self._seen:
            self._seen, self._hash = seen, hash_of(listed(self._paths))
        return self._hash


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
