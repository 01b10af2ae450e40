"""All SQL of the store, by name; what older schemas need stands in ``migrations``.

The law: a statement is made once, when hwsync is loaded, and every value is a parameter. What fills
a whole row takes its columns from the models, in their order, and its values from ``rows``
(docs/decisions.md, 19).
"""

from __future__ import annotations

from typing import Final

from peewee import Model

from hwsync.protocol.chain import HASHED
from hwsync.store.models import (
    BatchMember,
    BatchRow,
    CommandRow,
    Content,
    ContentUse,
    Heard,
    HwStatus,
    LifeRow,
    Meta,
    Packet,
    RefusedCount,
    RefusedMessage,
    RegradeRow,
    Transition,
    columns,
    keys,
    table,
)


def _insert(model: type[Model]) -> str:
    """Append a row; its number is SQLite's."""
    names, marks = columns(model), ", ".join("?" * len(columns(model)))
    return f"INSERT INTO {table(model)} ({', '.join(names)}) VALUES ({marks})"


def _save(model: type[Model], *fixed: str) -> str:
    """Make or change the row of a key; what is ``fixed`` is as it was made.

    Changed, not replaced: replacing one takes it out of every index first, and costs twice as much.
    And what is written anew, be it the same, is taken out of the index that it is in.
    """
    key = (*keys(model), *fixed)
    changed = [f"{name} = excluded.{name}" for name in columns(model) if name not in key]
    conflict = f"ON CONFLICT ({', '.join(keys(model))})"
    return f"{_insert(model)} {conflict} DO UPDATE SET {', '.join(changed)}"


# -- one transaction of the coordinator --------------------------------------------------------

BEGIN: Final = "BEGIN IMMEDIATE"  # the write lock at once: no transaction fails half way for it
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"

SAVE_RECORD: Final = _save(HwStatus)
SAVE_COMMAND: Final = _save(CommandRow, "number", "issued", "asked_by")
APPEND: Final = _insert(Transition)
REFUSE: Final = _insert(RefusedMessage)
COUNT_REFUSED: Final = _save(RefusedCount)
SAVE_PACKET: Final = _save(Packet)
FORGET_PACKET: Final = "DELETE FROM packets WHERE mid = ?"
FORGET_PACKETS: Final = "DELETE FROM packets"
SAVE_META: Final = _save(Meta)
SAVE_LIFE: Final = _insert(LifeRow)
SAVE_BATCH: Final = _save(BatchRow)
ADD_MEMBER: Final = _insert(BatchMember)
ADD_CONTENT: Final = f"{_insert(Content)} ON CONFLICT (sha256) DO NOTHING"
USE_CONTENT: Final = f"""
    {_insert(ContentUse)} ON CONFLICT (owner, sha256)
    DO UPDATE SET stays = max(stays, excluded.stays)"""
WITHDRAW: Final = "DELETE FROM regrades WHERE user = ? AND id = ?"
REGRADE: Final = _insert(RegradeRow)
TAG: Final = """
    INSERT INTO tags (user, tag, place) SELECT user, ?, rowid FROM commands
    WHERE user = ? AND id = ? ON CONFLICT DO NOTHING"""
TURN_AWAY: Final = "UPDATE batch_members SET refused = ? WHERE batch = ? AND user = ?"
SAVE_HEARD: Final = _save(Heard)
WRITE_DOWN: Final = """
    UPDATE hw_status SET remaining = ?, taken = ?, unoffered = ?
    WHERE user = ? AND epoch = ? AND seq = ?"""
WRITE_DOWN_WAIT: Final = """
    UPDATE batches SET wait_left = ? WHERE key = ? AND wait_left IS NOT NULL"""

# -- what the coordinator reads ----------------------------------------------------------------

RECORDS: Final = "SELECT * FROM hw_status"
COMMAND: Final = "SELECT * FROM commands WHERE user = ? AND id = ?"
OWED: Final = "SELECT * FROM commands WHERE replies != '[]' AND ran IS NOT NULL"
# In the order in which they came, which no clock changes.
REGRADES: Final = "SELECT * FROM regrades WHERE user = ? AND id = ? ORDER BY rowid"
CONTENT: Final = "SELECT data FROM contents WHERE sha256 = ?"
# Those that are open, whose replies may not have arrived, or that are the newest of their group.
BATCHES: Final = """
    SELECT * FROM batches WHERE ended IS NULL OR replies != '[]' OR rowid IN
    (SELECT max(rowid) FROM batches WHERE of_group != '' GROUP BY of_group) ORDER BY rowid"""
BATCH: Final = "SELECT * FROM batches WHERE key = ?"
MEMBERS: Final = "SELECT user, refused FROM batch_members WHERE batch = ? ORDER BY place"
# The second condition is that of the index.
PARTS: Final = """
    SELECT user, outcome, ran, exit_code, started, start_error, clock_bound
    FROM commands WHERE batch = ? AND batch != ''"""
HEARD: Final = "SELECT user, at FROM heard WHERE at > 0"
PACKETS: Final = "SELECT * FROM packets"
META: Final = "SELECT name, value FROM meta"
NEWEST_LIFE: Final = """
    SELECT name, boot, wall_us, raw_us, asleep_us FROM lives ORDER BY row DESC LIMIT 1"""
REFUSED_COUNTS: Final = "SELECT user, total FROM refused_counts"
HASH_OF: Final = "SELECT hash FROM transitions WHERE row = ?"
LAST_CHANGE: Final = "SELECT time FROM transitions ORDER BY row DESC LIMIT 1"

# -- what need not be kept ---------------------------------------------------------------------

LAST_LOG_ROW: Final = "SELECT max(row) FROM transitions"
LAST_REFUSED_ROW: Final = "SELECT max(row) FROM refused"
# CROSS JOIN: from the log, whose order counts, to the commands, which have an index for it.
PRUNABLE: Final = """
    SELECT c.user, c.id, c.batch, t.row FROM transitions t CROSS JOIN commands c
    ON c.user = t.user AND c.id = t.id
    WHERE t.row > ? AND t.row <= ? AND t.pruned = 0
    AND c.pruned = 0 AND c.ran IS NOT NULL AND c.replies = '[]'
    AND NOT EXISTS (SELECT 1 FROM hw_status s WHERE s.user = c.user AND s.id = c.id)
    ORDER BY t.row LIMIT ?"""
PRUNE_COMMAND: Final = """
    UPDATE commands SET program = '', stdin = '', args = '[]', response = '', not_kept = '[]',
    stderr = '', output_order = NULL, truncated = 1, pruned = 1 WHERE user = ? AND id = ?"""
IN_BATCH: Final = "SELECT 1 FROM commands WHERE batch = ? AND batch != '' AND pruned = 0 LIMIT 1"
DROP_USES: Final = "DELETE FROM content_uses WHERE owner = ? AND stays = 0 RETURNING sha256"
DROP_CONTENT: Final = """
    DELETE FROM contents WHERE sha256 = ?
    AND NOT EXISTS (SELECT 1 FROM content_uses u WHERE u.sha256 = contents.sha256)"""
PRUNE_REGRADE: Final = """
    UPDATE regrades SET analysis = ? WHERE user = ? AND id = ? AND name = ? AND version = ?"""
PRUNE_LOG: Final = """
    UPDATE transitions SET payload = x'', pruned = 1 WHERE user = ? AND id = ?"""
PRUNE_REFUSED: Final = """
    DELETE FROM refused WHERE row <= ? AND row < (SELECT max(row) FROM refused)"""

# -- history and show --------------------------------------------------------------------------

# Only the numbers of the rows are put in order: a board may have very many.
LOG_ROWS_OF: Final = "SELECT row FROM transitions WHERE user = ? ORDER BY row"
LOG_AT: Final = """
    SELECT t.*, c.asked_by, c.asked_known_by, c.program_sha256
    FROM transitions t LEFT JOIN commands c ON c.user = t.user AND c.id = t.id WHERE t.row = ?"""
REFUSED_OF: Final = "SELECT * FROM refused WHERE user = ? ORDER BY row"
REFUSED_COUNT_OF: Final = "SELECT total FROM refused_counts WHERE user = ?"
LOG_ROW: Final = "SELECT * FROM transitions WHERE row = ?"
LOG_OF_COMMAND: Final = "SELECT * FROM transitions WHERE user = ? AND id = ? ORDER BY row"
REFUSED_OF_COMMAND: Final = "SELECT * FROM refused WHERE user = ? AND id = ? ORDER BY row"
RECORD_OF: Final = "SELECT * FROM hw_status WHERE user = ?"
# CROSS JOIN: each board is asked for it, of whose commands there is an index by their ids.
STARTS_OF: Final = """
    SELECT c.user, c.outcome, c.reason, c.started, c.start_error, c.clock_bound
    FROM hw_status s CROSS JOIN commands c ON c.user = s.user AND c.id = ? ORDER BY s.user"""

PRINTED: Final = """
    SELECT response, truncated, started, clock_bound FROM commands WHERE user = ? AND id = ?"""
USERS: Final = "SELECT user FROM hw_status ORDER BY user"
# A board's commands as they came, which no clock can change; of both streams what has the line.
PAST_ROWS: Final = """
    SELECT c.rowid AS place, c.id, c.number, c.issued, c.asked_by, c.asked_known_by, c.name,
    c.orphan, c.outcome, c.ran, c.reason, c.exit_code, c.started, c.duration, c.analysis,
    c.analyser, c.analysed_by, c.regraded, c.no_analysis,
    c.clock_bound, c.ran_on,
    substr(c.response, 1, ?) AS response, substr(c.stderr, -?) AS stderr,
    coalesce(CAST(t.data AS TEXT), c.meta) AS meta, c.returned, coalesce(s.state, 0) AS state
    FROM commands c LEFT JOIN contents t ON t.sha256 = json_extract(c.long, '$.meta')
    LEFT JOIN hw_status s ON s.user = c.user AND s.id = c.id"""
PAST_AT_ONCE: Final = 20  # so many at a time, in any order
PAST_AT: Final = f"{PAST_ROWS} WHERE c.rowid IN ({', '.join('?' * PAST_AT_ONCE)})"
# The numbers of a board's commands: of all, of one id, of those that an account has asked for, and
# of those whose meta may say something.
PLACES: Final = """
    SELECT rowid FROM commands WHERE user = ?
    AND rowid < ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ?"""
PLACE_OF_ID: Final = """
    SELECT rowid FROM commands WHERE user = ? AND id = ?
    AND rowid < ? AND rowid BETWEEN ? AND ? LIMIT ?"""
PLACES_OF_ASKER: Final = """
    SELECT rowid FROM commands WHERE user = ? AND asked_by = ?
    AND rowid < ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ?"""
COUNT_OF_ASKER: Final = """
    SELECT count(*) FROM (SELECT 1 FROM commands WHERE user = ? AND asked_by = ? LIMIT ?)"""
PLACES_OF_TAG: Final = """
    SELECT place FROM tags WHERE user = ? AND tag IN (?, ?, ?)
    AND place < ? AND place BETWEEN ? AND ? ORDER BY place DESC LIMIT ?"""
COUNT_OF_TAG: Final = """
    SELECT count(*) FROM (SELECT 1 FROM tags WHERE user = ? AND tag IN (?, ?, ?) LIMIT ?)"""
# Whoever's clock jumped: the first and the last of those that were asked for in that time.
PAST_WITHIN: Final = """
    SELECT min(rowid), max(rowid) FROM commands
    WHERE user = ? AND issued BETWEEN ? AND ?"""

# -- checks ------------------------------------------------------------------------------------

COMMANDS: Final = "SELECT * FROM commands"  # of any schema
EPOCH: Final = "SELECT value FROM meta WHERE name = 'epoch'"
RECORD_ENDS: Final = "SELECT user, seq, state FROM hw_status"
LOG_ENDS: Final = """
    SELECT user, seq, state FROM transitions
    WHERE row IN (SELECT max(row) FROM transitions GROUP BY user)"""
# CROSS JOIN: from the log to the commands, which have an index for it.
NOTED: Final = """
    SELECT c.*, l.note FROM transitions l CROSS JOIN commands c ON c.user = l.user AND c.id = l.id
    WHERE l.command = ? ORDER BY l.row"""
ANALYSES: Final = """
    SELECT user, id, analysis, analysed_by, regraded, pruned FROM commands
    WHERE analysed_by IS NOT NULL OR regraded != '[]'"""
IS_NOTED: Final = """
    SELECT 1 FROM transitions WHERE user = ? AND id = ? AND instr(note, ?) = 1 LIMIT 1"""
ALL_CONTENTS: Final = "SELECT sha256, data FROM contents"
MISSING_CONTENTS: Final = """
    SELECT owner, sha256 FROM content_uses u
    WHERE NOT EXISTS (SELECT 1 FROM contents c WHERE c.sha256 = u.sha256)"""
CHAIN: Final = f"""
    SELECT row, hash, pruned, payload, {", ".join(HASHED)} FROM transitions ORDER BY row"""
WRITE_HASH: Final = "UPDATE transitions SET hash = ?, payload_sha256 = ? WHERE row = ?"

# -- the file ----------------------------------------------------------------------------------

OWNER: Final = "PRAGMA application_id"
VERSION: Final = "PRAGMA user_version"
HOW_MANY_TABLES: Final = "SELECT count(*) FROM sqlite_master"
PAGES: Final = "PRAGMA page_count"
FREE_PAGES: Final = "PRAGMA freelist_count"
PAGE_SIZE: Final = "PRAGMA page_size"
EVERY_FAULT: Final = "PRAGMA integrity_check"
A_FAULT: Final = "PRAGMA quick_check(1)"
SOME_FAULTS: Final = "PRAGMA quick_check(3)"  # one is enough to worry
ONE_FILE: Final = "PRAGMA journal_mode = delete"
EMPTY_THE_LOG: Final = "PRAGMA wal_checkpoint(truncate)"
DO_NOT_WAIT: Final = "PRAGMA busy_timeout = 0"
BUSY: Final = 5_000  # milliseconds: a reader's checkpoint may hold the file for a moment
WAIT: Final = f"PRAGMA busy_timeout = {BUSY}"
