"""The transition table as people read it: Markdown and a Mermaid diagram, made from ``TABLE``.

The law: docs/protocol.md, section 2, never says another thing than ``moves.TABLE``. Between two
markers of a kind stands what this module writes; scripts/protocol-table puts it there, and a test
compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hwsync.protocol.moves import TABLE, Move
from hwsync.protocol.record import State, Verb
from hwsync.protocol.topics import TopicKind

Table = Mapping[tuple[Verb, State], Move]

RECEIVED_ON: Final[Mapping[Verb, TopicKind]] = {
    Verb.QUERY: TopicKind.QUERY,
    Verb.REQUEST: TopicKind.REQUEST,
    Verb.RETRIEVAL: TopicKind.COLLECTED,
    Verb.RESPONSE: TopicKind.RESPONSE,
    Verb.ANALYSIS: TopicKind.ANALYSIS,
    Verb.RESET: TopicKind.RESET,
    Verb.CANCEL: TopicKind.CANCEL,
}
"""The topic that brings a verb; one that is not here is the coordinator's own."""

OWN: Final[Mapping[Verb, str]] = {
    Verb.EXPIRE: "the coordinator's clock",
    Verb.START: "the batch: all are ready, or `wait` is over",
    Verb.LEFT_OUT: "the same, who is not ready",
    Verb.NEXT: "the queue or a batch, at rest",
    Verb.RESTORE: "an older database",
}

HOLE: Final = "-"


def _title(state: State) -> str:
    return f"{int(state)} {state.name.lower()}"


def _cell(move: Move | None) -> str:
    if move is None:
        return HOLE
    guard = move.guard
    condition = f"if {guard.when}, else {guard.instead}" if guard else ""
    said = "; ".join(text for text in (move.note, condition) if text)
    return f"{int(move.to)}: {said}" if said else str(int(move.to))


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown_table(table: Table = TABLE) -> str:
    """One row for each verb, one column for each state; a hole is ``-``."""
    lines = [
        row(["verb", "topic", *(_title(state) for state in State)]),
        "|---" * (2 + len(State)) + "|",
    ]
    for verb in Verb:
        kind = RECEIVED_ON.get(verb)
        start = [f"`{verb}`", f"`{kind}`" if kind else OWN[verb]]
        if verb is Verb.QUERY:
            cells = ["no change"] * len(State)
        else:
            cells = [_cell(table.get((verb, state))) for state in State]
        lines.append(row(start + cells))
    return "\n".join(lines)


def mermaid(table: Table = TABLE) -> str:
    """The same as a state diagram, in a fenced block; one arrow for each cell."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR"]
    lines += [f'    state "{_title(state)}" as s{int(state)}' for state in State]
    lines.append(f"    [*] --> s{int(State.REST)}")
    for state in State:
        for verb in Verb:
            move = table.get((verb, state))
            if move is not None:
                lines.append(f"    s{int(state)} --> s{int(move.to)} : {verb}{_label(move)}")
    return "\n".join([*lines, "```"])


def _label(move: Move) -> str:
    """The condition in brackets, as state diagrams have it, and what happens in parentheses."""
    condition = f" [{move.guard.when.replace('`', '')}]" if move.guard else ""
    # A semicolon would end the statement.
    return condition + (f" ({move.note.replace(';', ',')})" if move.note else "")


def rewrite(text: str, table: Table = TABLE) -> str:
    """The document with both blocks made anew. Raises ``ValueError`` where a marker is missing."""
    text = replaced(text, "table", markdown_table(table))
    return replaced(text, "diagram", mermaid(table))


def replaced(text: str, name: str, block: str) -> str:
    """The document with one block made anew. Raises ``ValueError`` where its marker is missing."""
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the marker {(end if found_begin else begin).strip()} is missing")
    return f"{before}{begin}{block}{end}{after}"
