"""The schema's versions: an empty file becomes the newest, an older one is migrated.

A newer one is refused. The version is SQLite's ``user_version``. A migration runs in one
transaction, after a backup beside the database.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, connect
from typing import Final

from peewee import SqliteDatabase

from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.jsons import dumps
from hwsync.protocol.tags import tags_of
from hwsync.store import chain, private, statements
from hwsync.store.contents import EMPTY, SHORT, STAY, sha256_of
from hwsync.store.models import TABLES

log = logging.getLogger("hwsync.coordinator")

BYTES_A_MINUTE: Final = 500_000_000  # copied and migrated
APPLICATION_ID: Final = 0x68777379  # "hwsy": says whose file it is


def _second(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE hw_status ADD COLUMN queue TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE hw_status ADD COLUMN taken REAL",
        "ALTER TABLE hw_status ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE commands ADD COLUMN replies TEXT NOT NULL DEFAULT '[]'",
        "CREATE INDEX commands_owed ON commands (user) WHERE replies != '[]'",
        "ALTER TABLE commands ADD COLUMN doubtful INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE commands ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE transitions ADD COLUMN payload_sha256 BLOB NOT NULL DEFAULT x''",
        "ALTER TABLE transitions ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0",
        'CREATE TABLE meta ("name" VARCHAR(255) NOT NULL PRIMARY KEY, "value" TEXT NOT NULL)',
        "ALTER TABLE transitions ADD COLUMN hash BLOB NOT NULL DEFAULT x''",
    ):
        connection.execute(statement)
    chain.write(connection)


def _third(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE commands ADD COLUMN asked_by TEXT",
        "ALTER TABLE commands ADD COLUMN asked_known_by TEXT",
        "ALTER TABLE commands ADD COLUMN program_sha256 TEXT NOT NULL DEFAULT ''",
    ):
        connection.execute(statement)
    connection.create_function("sha256", 1, _sha256, deterministic=True)
    connection.execute(
        "UPDATE commands SET program_sha256 = sha256(program) WHERE NOT orphan AND NOT pruned"
    )
    connection.create_function("sha256", 1, None)


def _fourth(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE commands ADD COLUMN name TEXT",
        "ALTER TABLE commands ADD COLUMN expires_at REAL",
        "ALTER TABLE commands ADD COLUMN output_order TEXT",
    ):
        connection.execute(statement)


def _fifth(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE hw_status ADD COLUMN idle REAL NOT NULL DEFAULT 0",
        "ALTER TABLE hw_status ADD COLUMN idle_at REAL NOT NULL DEFAULT 0",
    ):
        connection.execute(statement)


def _sixth(connection: Connection) -> None:
    for statement in (
        'CREATE TABLE lives ("row" INTEGER NOT NULL PRIMARY KEY, "name" TEXT NOT NULL, '
        '"boot" TEXT NOT NULL, "wall_us" INTEGER NOT NULL, "raw_us" INTEGER NOT NULL, '
        '"asleep_us" INTEGER NOT NULL)',
        "ALTER TABLE commands ADD COLUMN start TEXT",
        "ALTER TABLE commands ADD COLUMN start_at_us INTEGER",
        "ALTER TABLE commands ADD COLUMN start_life TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE hw_status ADD COLUMN batched TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE commands ADD COLUMN batch TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX commands_batch ON commands (batch) WHERE batch != ''",
        'CREATE TABLE batches ("key" TEXT NOT NULL PRIMARY KEY, "of_group" TEXT NOT NULL, '
        '"id" TEXT NOT NULL, "digest" TEXT NOT NULL, "parallel" INTEGER, "abort" REAL, '
        '"online" INTEGER NOT NULL, "seq" INTEGER NOT NULL, "issued" REAL NOT NULL, '
        '"ended" REAL, "replies" TEXT NOT NULL, "start" TEXT, "wait_left" REAL, '
        '"start_at_us" INTEGER, "start_life" TEXT NOT NULL)',
        'CREATE TABLE batch_members ("batch" TEXT NOT NULL, "place" INTEGER NOT NULL, '
        '"user" TEXT NOT NULL, "refused" TEXT, PRIMARY KEY ("batch", "user"))',
        'CREATE TABLE batch_texts ("batch" TEXT NOT NULL PRIMARY KEY, "program" TEXT NOT NULL, '
        '"stdin" TEXT NOT NULL, "args" TEXT NOT NULL, "meta" TEXT NOT NULL)',
        'CREATE TABLE heard ("user" TEXT NOT NULL PRIMARY KEY, "at" REAL NOT NULL)',
    ):
        connection.execute(statement)


COMMANDS_OF_6: Final = """
    SELECT c.*, t.program AS t_program, t.stdin AS t_stdin, t.args AS t_args, t.meta AS t_meta
    FROM commands c LEFT JOIN batch_texts t ON t.batch = c.batch"""
"""In schema 6 a member of a group's batch had its texts there."""


def _seventh(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE commands ADD COLUMN files TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE commands ADD COLUMN collect TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE commands ADD COLUMN returned TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE commands ADD COLUMN not_kept TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE commands ADD COLUMN long TEXT NOT NULL DEFAULT '{}'",
        'CREATE TABLE contents ("sha256" TEXT NOT NULL PRIMARY KEY, "data" BLOB NOT NULL)',
        'CREATE TABLE content_uses ("owner" TEXT NOT NULL, "sha256" TEXT NOT NULL, '
        '"stays" INTEGER NOT NULL, PRIMARY KEY ("owner", "sha256"))',
        "CREATE INDEX contentuse_sha256 ON content_uses (sha256)",
        "CREATE INDEX commands_user ON commands (user)",
        "CREATE INDEX commands_issued ON commands (user, issued)",
    ):
        connection.execute(statement)
    for key, *values in connection.execute("SELECT * FROM batch_texts").fetchall():
        texts = dict(zip(("program", "stdin", "args", "meta"), values, strict=True))
        long = {name: sha256_of(text) for name, text in texts.items() if len(text) > SHORT}
        for name, sha256 in long.items():
            connection.execute(statements.ADD_CONTENT, (sha256, texts[name].encode()))
            connection.execute(statements.USE_CONTENT, (key, sha256, name in STAY))
        short = [EMPTY[name] if name in long else text for name, text in texts.items()]
        connection.execute(
            "UPDATE commands SET program = ?, stdin = ?, args = ?, meta = ?, long = ? "
            "WHERE batch = ? AND pruned = 0",
            (*short, dumps(long), key),
        )
    connection.execute("DROP TABLE batch_texts")


def _eighth(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE commands ADD COLUMN analysed_by TEXT",
        "ALTER TABLE commands ADD COLUMN regraded TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE commands ADD COLUMN no_analysis TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE commands ADD COLUMN ran_on TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE hw_status ADD COLUMN unoffered REAL",
        'CREATE TABLE regrades ("user" TEXT NOT NULL, "id" TEXT NOT NULL, "name" TEXT NOT NULL, '
        '"version" TEXT NOT NULL, "fault" TEXT, "analysis" TEXT NOT NULL, "time" REAL NOT NULL, '
        'PRIMARY KEY ("user", "id", "name", "version"))',
    ):
        connection.execute(statement)
    _find_faster(connection)


def _find_faster(connection: Connection) -> None:
    """What a large database is asked for is found by an index."""
    for statement in (
        "CREATE INDEX commands_asked ON commands (user, asked_by)",
        "DROP INDEX IF EXISTS transition_user",
        "CREATE INDEX transitions_command ON transitions (user, id)",
        'CREATE TABLE tags ("user" TEXT NOT NULL, "tag" INTEGER NOT NULL, "place" INTEGER NOT NULL,'
        ' PRIMARY KEY ("user", "tag", "place")) WITHOUT ROWID',
    ):
        connection.execute(statement)
    metas = """
        SELECT c.user, c.rowid, CAST(coalesce(t.data, c.meta) AS BLOB) FROM commands c
        LEFT JOIN contents t ON t.sha256 =
            CASE WHEN json_valid(c.long) THEN json_extract(c.long, '$.meta') END
        WHERE c.meta != '{}' OR c.long != '{}'"""
    connection.executemany(
        "INSERT INTO tags (user, tag, place) VALUES (?, ?, ?)",
        (
            (user, tag, place)
            for user, place, meta in connection.execute(metas)
            for tag in _tags_of(meta)
        ),
    )


def _tags_of(meta: bytes) -> tuple[int, ...]:
    """None of one that is damaged: for a single old row no coordinator is kept from its start."""
    try:
        return tags_of(meta.decode())
    except ValueError:
        return ()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


MIGRATIONS: Final[tuple[Callable[[Connection], None], ...]] = (
    *(_second, _third, _fourth, _fifth, _sixth, _seventh, _eighth),
)
"""The first one brings a database from version 1 to 2, and so on."""

SCHEMA: Final = len(MIGRATIONS) + 1


def migrate(database: SqliteDatabase, path: Path) -> None:
    """Bring an open database to ``SCHEMA``; an empty one gets its tables.

    ``path``: the file, beside which a copy of an older one is made first (``….schema-N``). All of
    it is one transaction. Raises ``DatabaseError`` for a newer or another program's, and what
    SQLite, peewee or the disk raise; then nothing has changed.
    """
    connection: Connection = database.connection()  # type: ignore[no-untyped-call]
    (version,) = connection.execute(statements.VERSION).fetchone()
    (owner,) = connection.execute(statements.OWNER).fetchone()
    (tables,) = connection.execute(statements.HOW_MANY_TABLES).fetchone()
    if tables and owner != APPLICATION_ID:
        raise DatabaseError(f"{path} is another program's database", "name another file with --db")
    if version > SCHEMA:
        raise DatabaseError(
            f"{path} was written by a newer hwsync (schema {version}, this one knows {SCHEMA})",
            "use that hwsync, or name another file with --db",
        )
    if version == SCHEMA:
        return
    if tables:
        log.info("%s is brought from schema %d to %d, %s", path, version, SCHEMA, _patience(path))
        _back_up(connection, path.with_name(f"{path.name}.schema-{version}"))
    with database.atomic("IMMEDIATE"):
        if tables:
            for step in MIGRATIONS[version - 1 :]:
                step(connection)
        else:
            with database.bind_ctx(TABLES):
                database.create_tables(TABLES)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _patience(path: Path) -> str:
    """How long that may take, in words: it was measured, on a slow machine."""
    minutes = path.stat().st_size / BYTES_A_MINUTE
    return "which takes a moment" if minutes < 0.5 else f"which may take {minutes:.0f} min or more"


def _back_up(connection: Connection, target: Path) -> None:
    """Where it fails nothing is left of it: half a copy would keep a full disk full."""
    private.make(target)
    with closing(connect(target)) as copy:
        try:
            connection.backup(copy)
        except BaseException:
            copy.close()
            for left in (target, target.with_name(f"{target.name}-journal")):
                left.unlink(missing_ok=True)
            raise
