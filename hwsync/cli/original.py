"""``hwsync import-original``: what the original system has recorded, into the database here."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli import say
from hwsync.cli.common import DATABASE, FILE, Settings, common, the_database
from hwsync.store.importing import Taken, take_over

PATIENCE_S: Final = 2.0  # from then on it is said how far it is
SHOWN: Final = ("commands", "known", "changed", "open", "unclear", "ignored", "odd")
WORDS: Final = {
    "commands": "imported",
    "known": "here already",
    "changed": "of them with another end there now: what is here stays",
    "open": "had not ended there: may have run",
    "unclear": "with the analysis of the run before: the same again, or a reset",
    "ignored": "requests that had changed nothing",
    "odd": "rows without a state: passed over",
}
"""What the counts of a board are, where they are not 0."""


@click.command("import-original")
@common
@DATABASE
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and change nothing.")
@click.argument("hw_status", metavar="HW_STATUS.DB", type=FILE)
@click.argument("archive", metavar="ARCHIVE.DB", type=FILE)
@click.pass_obj
def import_original(
    settings: Settings, db: Path | None, dry_run: bool, hw_status: Path, archive: Path
) -> None:
    """Take over what the original system has recorded: its HW_STATUS.DB and its ARCHIVE.DB.

    The coordinator must not run. Both files are only read. Who has a name there that is no board's
    here gets another, which is said. Calling it again imports only what is new.
    """
    target, began = the_database(db), time.monotonic()

    def progress(count: int) -> None:
        if time.monotonic() - began > PATIENCE_S:
            say.progress(f"{count:,} commands … ")

    taken, others = take_over(
        target, hw_status, archive, time.time(), dry_run=dry_run, progress=progress
    )
    say.progress("")
    if settings.as_json:
        for one in taken:
            fields: dict[str, Any] = asdict(one)
            del fields["seen"]
            say.json_line(fields)
        return
    for line in _lines(taken):
        say.line(line)
    for name in others:
        say.line(
            f"the table {name!r} of {archive} is none of the original's: passed over", err=True
        )
    count = sum(one.commands for one in taken)
    if dry_run:
        say.line(f"{count:,} commands would be imported into {target}; nothing was changed")
    else:
        say.line(f"{count:,} commands were imported into {target}")


def _lines(taken: Iterable[Taken]) -> Iterable[str]:
    for one in taken:
        counts = [f"{getattr(one, name):,} {WORDS[name]}" for name in SHOWN if getattr(one, name)]
        named = "" if one.board == one.user else f" (there {one.user!r})"
        yield f"{one.board}{named}: {'; '.join(counts) or 'nothing'}"


COMMANDS = (import_original,)
