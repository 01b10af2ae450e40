"""hwsync's own analysers, by name: what each is given in its TOML, and how it judges.

The law: each says what was expected and what came, in a few short lines that a pupil reads; no sign
in them moves a cursor. A run that did not end well has not passed, whatever it printed.
"""

from __future__ import annotations

from typing import Final

from hwsync.analysers.builtins.numeric import NUMERIC
from hwsync.analysers.builtins.outcome import OUTCOME
from hwsync.analysers.builtins.parts import Argument, Builtin
from hwsync.analysers.builtins.schema import SCHEMA
from hwsync.analysers.builtins.similar import SIMILAR
from hwsync.analysers.builtins.texts import CONTAINS, EQUALS, REGEX

BUILTINS: Final[dict[str, Builtin]] = {
    "outcome": OUTCOME,
    "equals": EQUALS,
    "contains": CONTAINS,
    "regex": REGEX,
    "numeric": NUMERIC,
    "json-schema": SCHEMA,
    "similar": SIMILAR,
}

__all__ = ["BUILTINS", "Argument", "Builtin"]
