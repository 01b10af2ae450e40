"""``hwsync backup``, ``restore``, ``forget``, ``check-db``: on the coordinator's machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hwsync.cli import say
from hwsync.cli.common import DATABASE, FILE, Settings, common, default_database, user_name
from hwsync.client import Operator
from hwsync.coordinator import maintenance
from hwsync.protocol.topics import Kind


@click.command()
@common
@DATABASE
@click.argument("file", type=FILE)
@click.pass_obj
def backup(settings: Settings, db: Path | None, file: Path) -> None:
    """Copy the database to FILE, also while the coordinator runs."""
    source = db or default_database()

    def progress(left: int, all: int) -> None:
        if all:
            say.progress(f"{100 * (all - left) // all} % ")

    maintenance.back_up(source, file, progress)
    size = file.stat().st_size
    say.either(
        settings.as_json,
        {"backup": str(file), "bytes": size},
        f"{source} → {file} ({size:,} bytes)",
    )


@click.command()
@common
@DATABASE
@click.argument("file", type=FILE)
@click.option("--damaged", is_flag=True, help="Also where check-db finds something in FILE.")
@click.pass_obj
def restore(settings: Settings, db: Path | None, file: Path, damaged: bool) -> None:
    """Put the backup FILE in the database's place; the coordinator must not run.

    A new epoch begins: what was open in the backup ends as lost, and may have run. The database
    that was there is kept beside it.
    """
    target = db or default_database()
    done = maintenance.restore(file, target, damaged=damaged)
    aside = str(done.aside) if done.aside else None
    if settings.as_json:
        said = {"restored": str(target), "epoch": done.epoch, "open": done.open, "aside": aside}
        say.json_line(said)
        return
    say.line(f"{file} → {target}; epoch {done.epoch} begins when the coordinator starts")
    if done.open:
        say.line(f"{done.open} commands that were open in it will end as lost, ran maybe")
    if aside:
        say.line(f"the database that was there is {aside}")


@click.command("check-db")
@common
@DATABASE
@click.pass_obj
def check_db(settings: Settings, db: Path | None) -> None:
    """Look for damage and for changes that hwsync did not make; 1 where there is any.

    Checks the file, the chain of hashes over the log, that each record is as far as its log, and
    programs and results against their hashes.
    """
    found = 0
    for line in maintenance.check(db or default_database()):
        found += 1
        say.either(settings.as_json, {"found": line}, line)
    if found:
        sys.exit(1)
    if not settings.as_json:
        say.line("nothing was found")


@click.command()
@common
@DATABASE
@click.argument("user", type=user_name)
@click.pass_obj
def forget(settings: Settings, db: Path | None, user: str) -> None:
    """Forget USER, who was a typing error; the coordinator must not run.

    Its status and heartbeat are taken from the broker. Its history stays, and so does the number of
    its last change, should it come back.
    """

    def clear() -> None:
        with Operator(settings.url, settings.topics, user) as operator:
            operator.clear(Kind.STATUS, Kind.HEARTBEAT)

    maintenance.forget(db or default_database(), user, clear)
    say.either(settings.as_json, {"forgotten": user}, f"{user} is forgotten")


COMMANDS = (backup, restore, forget, check_db)
