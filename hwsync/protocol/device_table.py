"""The device's table as people read it: Markdown and a Mermaid diagram, made from its ``TABLE``.

The law: docs/protocol.md, section 5, never says another thing than ``device.moves.TABLE``: as in
``table``, scripts/protocol-table writes it, and a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hwsync.protocol.device.moves import (
    BARRED_GRANT,
    BUSY_OFFER,
    CANCEL,
    DOUBTED_OFFER,
    GRANT,
    MISSENT_OFFER,
    NEWER_OFFER,
    OFFER,
    OTHER,
    PENDING,
    SAME_OFFER,
    SETTLING,
    TABLE,
    TIMED_GRANT,
    TIMED_OFFER,
    UNHEARD_OF,
    WORDS,
)
from hwsync.protocol.device.values import NEW, STAGES
from hwsync.protocol.table import HOLE, replaced, row
from hwsync.protocol.topics import TopicKind

Table = Mapping[tuple[str, str], tuple[str, Callable[..., Any], str]]

RECEIVED_ON: Final[Mapping[str, TopicKind]] = {
    **dict.fromkeys(
        (OFFER, NEWER_OFFER, TIMED_OFFER, SAME_OFFER, DOUBTED_OFFER, MISSENT_OFFER, BUSY_OFFER),
        TopicKind.ENVELOPE,
    ),
    **dict.fromkeys(
        (GRANT, TIMED_GRANT, BARRED_GRANT, CANCEL, PENDING, OTHER, UNHEARD_OF, SETTLING),
        TopicKind.STATUS,
    ),
}
"""The topic that brings an event; one that is not here is the device's own."""


def markdown_table(table: Table = TABLE) -> str:
    """One row for each event, one column for each stage; a hole is ``-``."""
    lines = [row(["event", "topic", *STAGES]), "|---" * (2 + len(STAGES)) + "|"]
    for word in WORDS:
        cells = [_cell(table, word, stage) for stage in STAGES]
        kind = RECEIVED_ON.get(word)
        lines.append(row([word, f"`{kind}`" if kind else "", *cells]))
    return "\n".join(lines)


def _cell(table: Table, word: str, stage: str) -> str:
    if (word, stage) not in table:
        return HOLE
    to, _, note = table[word, stage]
    return note if to == stage else f"{to}: {note}" if note else to


def mermaid(table: Table = TABLE) -> str:
    """The same as a state diagram, without what stays where it is; one arrow for two stages."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f"    [*] --> {NEW}"]
    for stage in STAGES:
        for to in STAGES:
            words = [word for word in WORDS if _leads(table, word, stage, to)]
            if words and to != stage:
                label = " / ".join(word.replace(",", "") for word in words)
                lines.append(f"    {stage} --> {to} : {label}")
    return "\n".join([*lines, "```"])


def _leads(table: Table, word: str, stage: str, to: str) -> bool:
    return (word, stage) in table and table[word, stage][0] == to


def rewrite(text: str, table: Table = TABLE) -> str:
    """The document with both blocks made anew. Raises ``ValueError`` where a marker is missing."""
    text = replaced(text, "device table", markdown_table(table))
    return replaced(text, "device diagram", mermaid(table))
