"""The tables, as peewee models: what the database keeps and what each column means.

``hw_status`` has the original system's columns (user, state, command, hw_command, hw_response,
server_analysis, time) and what the record needs beside them.
"""

from __future__ import annotations

from typing import Final

from peewee import (
    AutoField,
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    FloatField,
    IntegerField,
    Model,
    TextField,
)


class HwStatus(Model):
    """The present record, one row a user."""

    user = CharField(primary_key=True)
    state = IntegerField()
    command = TextField()  # the last accepted verb
    hw_command = TextField()  # empty for a long one (``Content``)
    hw_response = TextField()
    server_analysis = TextField()
    time = FloatField()  # Unix seconds of the last change
    id = TextField()  # the current command's
    epoch = IntegerField()
    seq = IntegerField()
    deadline = FloatField(null=True)  # Unix seconds, an estimate of the last change
    remaining = FloatField(null=True)  # seconds that were left when that was last written down
    cancelling = BooleanField()
    settled = TextField()  # JSON list of [id, journal]
    count = IntegerField()
    queue = TextField()  # JSON list of the ids that wait, the next one first
    taken = FloatField(null=True)  # seconds since the command was taken from the queue, then
    forgotten = BooleanField()
    idle = FloatField()  # bytes stored of what led to no answer of a device, at ``idle_at``
    idle_at = FloatField()  # Unix seconds
    batched = TextField()  # JSON list of [id, batch] that wait for a place in their batch
    unoffered = FloatField(null=True)  # as ``remaining``, while nobody offers its analyser

    class Meta:
        table_name = "hw_status"


class CommandRow(Model):
    """One command, from its request to its end."""

    user = CharField()
    id = CharField()
    number = IntegerField()
    issued = FloatField()  # Unix seconds
    named = BooleanField()  # the sender chose the id
    program = TextField()
    stdin = TextField()
    args = TextField()  # JSON list of texts
    timeout = FloatField()
    expires = FloatField()
    grace = FloatField()
    meta = TextField()  # JSON
    digest = TextField()  # SHA-256 of what a repeat must equal (machine.digest_of)
    analyser = TextField()
    journal = TextField(null=True)  # the grant
    boot = IntegerField(null=True)
    outcome = TextField(null=True)  # null while it is open
    ran = TextField(null=True)
    reason = TextField()
    response = TextField()
    stderr = TextField()
    exit_code = IntegerField(null=True)
    duration = FloatField(null=True)
    started = FloatField(null=True)
    start_error = FloatField(null=True)
    clock_bound = FloatField(null=True)
    truncated = BooleanField()
    sha256_stdout = TextField()
    sha256_stderr = TextField()
    answered_by = TextField(null=True)
    heard = TextField()  # JSON list of journals
    accepted = TextField()  # JSON list of verbs
    late_collected = TextField(null=True)  # JSON [journal, boot]
    analysis = TextField(null=True)
    late = BooleanField()
    orphan = BooleanField()
    replies = TextField()  # JSON list of [topic, correlation data in hexadecimal]
    doubtful = BooleanField()  # a restore ended it, or it may be a repeat from before one
    pruned = BooleanField()  # its texts are gone (retention.py); hashes and end stay
    asked_by = TextField(null=True)  # null: nobody is known
    asked_known_by = TextField(null=True)  # "reply topic" or "claim"
    program_sha256 = TextField()  # hexadecimal; empty where its text was never known
    name = TextField(null=True)  # of the file that is run; null: not given
    expires_at = FloatField(null=True)  # Unix seconds
    output_order = TextField(null=True)  # JSON list of [stream, bytes] of response and stderr
    start = TextField(null=True)  # JSON, as in the request; null: it begins when it is granted
    start_at_us = IntegerField(null=True)  # microseconds of lab time; null: no instant is fixed
    start_life = TextField()  # the life whose lab time that is
    batch = TextField()  # the key of the batch that made it; empty: none
    files = TextField()  # JSON list of [path, size, sha256] of those that go with the program
    collect = TextField()  # JSON list of patterns
    returned = TextField()  # as ``files``, of those that came back
    not_kept = TextField()  # JSON list, as in a result
    ran_on = TextField()  # JSON object; empty: nobody said
    long = TextField()  # JSON: the SHA-256 of texts above that are empty here, by column
    analysed_by = TextField(null=True)  # JSON; null: a person, or the coordinator's ``outcome``
    regraded = TextField()  # JSON list of [name, version] of its regrades, the oldest first
    no_analysis = TextField()  # why state 3 ended without one; empty: it has one, or never waited

    class Meta:
        table_name = "commands"
        primary_key = CompositeKey("user", "id")


# Those that are owed a reply are few, and looked for at each start.
CommandRow.add_index(CommandRow.user, name="commands_owed", where=CommandRow.replies != "[]")


CommandRow.add_index(CommandRow.batch, name="commands_batch", where=CommandRow.batch != "")

# The commands of a board in their order, which of them were asked for when, and by whom (``past``).
CommandRow.add_index(CommandRow.user, name="commands_user")
CommandRow.add_index(CommandRow.user, CommandRow.issued, name="commands_issued")
CommandRow.add_index(CommandRow.user, CommandRow.asked_by, name="commands_asked")


class Tag(Model):
    """What the metas of a board's commands say, by its number (``protocol.tags``)."""

    user = TextField()
    tag = IntegerField()
    place = IntegerField()  # the rowid of the command, whose rows are never taken out

    class Meta:
        table_name = "tags"
        primary_key = CompositeKey("user", "tag", "place")
        without_rowid = True


class RegradeRow(Model):
    """A later analysis of a command, beside its first one."""

    user = TextField()
    id = TextField()
    name = TextField()  # the analyser's
    version = TextField()
    fault = TextField(null=True)  # why the analyser itself failed
    analysis = TextField()
    time = FloatField()  # Unix seconds

    class Meta:
        table_name = "regrades"
        primary_key = CompositeKey("user", "id", "name", "version")


class BatchRow(Model):
    """One batch: what none of its members' commands has (``protocol.batch``)."""

    key = TextField(primary_key=True)
    of_group = TextField()  # without the sign; empty: each member was asked by itself
    id = TextField()
    digest = TextField()  # SHA-256 of what a repeat must equal; empty without a group
    parallel = IntegerField(null=True)
    abort = FloatField(null=True)
    online = BooleanField()
    seq = IntegerField()
    issued = FloatField()  # Unix seconds
    ended = FloatField(null=True)  # Unix seconds; null while it is open
    replies = TextField()  # JSON list of [topic, correlation data in hexadecimal]
    start = TextField(null=True)  # JSON, as in the request
    wait_left = FloatField(null=True)  # seconds that its members were waited for then; null: none
    start_at_us = IntegerField(null=True)  # microseconds of lab time; null: no instant is fixed
    start_life = TextField()  # the life whose lab time that is

    class Meta:
        table_name = "batches"


class BatchMember(Model):
    """One member of a batch, as they were when it was accepted."""

    batch = TextField()
    place = IntegerField()
    user = TextField()
    refused = TextField(null=True)  # a code: it has no command of this batch

    class Meta:
        table_name = "batch_members"
        primary_key = CompositeKey("batch", "user")


class Content(Model):
    """The bytes of a file, or a long text, once for all commands that have it (``contents``)."""

    sha256 = TextField(primary_key=True)  # hexadecimal
    data = BlobField()

    class Meta:
        table_name = "contents"


class ContentUse(Model):
    """Who has a content: a command (``user/id``), or for all of its members a group's batch."""

    owner = TextField()
    sha256 = TextField(index=True)
    stays = BooleanField()  # also when its owner's texts are dropped: names and hashes

    class Meta:
        table_name = "content_uses"
        primary_key = CompositeKey("owner", "sha256")


class Heard(Model):
    """When a heartbeat of a board came, within ten minutes."""

    user = TextField(primary_key=True)
    at = FloatField()  # Unix seconds

    class Meta:
        table_name = "heard"


class Transition(Model):
    """The append-only log: every change of a record, with the message that caused it."""

    row = AutoField()
    user = CharField()
    epoch = IntegerField()
    seq = IntegerField()
    time = FloatField()
    command = TextField()  # the verb
    before = IntegerField()
    state = IntegerField()
    id = TextField()
    late = BooleanField()
    note = TextField()
    topic = TextField()  # empty: the coordinator itself (a deadline, an analyser)
    payload = BlobField()  # empty where ``pruned``
    payload_sha256 = BlobField()
    pruned = BooleanField()
    hash = BlobField()  # chain.py

    class Meta:
        table_name = "transitions"


# A board's rows, and among them those of a command.
Transition.add_index(Transition.user, Transition.id, name="transitions_command")


class RefusedMessage(Model):
    """A message that was refused; the payload's first part only. Invalid users share ``""``."""

    row = AutoField()
    user = CharField(index=True)
    time = FloatField()
    error = TextField()
    message = TextField()
    hint = TextField()
    topic = TextField()
    id = TextField(null=True)
    journal = TextField(null=True)
    state = IntegerField(null=True)
    payload = BlobField()

    class Meta:
        table_name = "refused"


class RefusedCount(Model):
    """How many were refused in all, a user: beyond the cap no rows are kept."""

    user = CharField(primary_key=True)
    total = IntegerField()

    class Meta:
        table_name = "refused_counts"


class Packet(Model):
    """The last message without an id that each packet identifier carried, and its answer."""

    mid = IntegerField(primary_key=True)
    topic = TextField()
    digest = BlobField()
    error = BlobField(null=True)  # the error that answered it

    class Meta:
        table_name = "packets"


class Meta(Model):
    """What is known of the database itself.

    ``epoch``, ``restored_at`` (Unix seconds), ``doubted`` (of connection since), and the days of
    running (``pruning.Pruning.running_days``).
    """

    name = CharField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "meta"


class LifeRow(Model):
    """The lives of lab time, in their order; the last one is the present one."""

    row = AutoField()
    name = TextField()
    boot = TextField()  # of the machine; empty: not known
    wall_us = IntegerField()  # microseconds, as below: the wall clock where it began
    raw_us = IntegerField()  # the raw clock there
    asleep_us = IntegerField()  # how long the machine had been suspended until then

    class Meta:
        table_name = "lives"


TABLES: Final = (
    *(Meta, HwStatus, CommandRow, Transition, RefusedMessage, RefusedCount, Packet, LifeRow),
    *(BatchRow, BatchMember, Heard, Content, ContentUse, RegradeRow, Tag),
)


def table(model: type[Model]) -> str:
    """The name of a model's table."""
    return str(model._meta.table_name)


def columns(model: type[Model]) -> tuple[str, ...]:
    """The columns that a row is given, in their order: all but its number, which is SQLite's."""
    fields = model._meta.sorted_fields
    return tuple(field.name for field in fields if not isinstance(field, AutoField))


def keys(model: type[Model]) -> tuple[str, ...]:
    """The columns that say which row it is."""
    fields = model._meta.get_primary_keys()  # type: ignore[no-untyped-call]
    return tuple(field.name for field in fields)
