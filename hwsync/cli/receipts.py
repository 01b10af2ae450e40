"""``hwsync receipt`` and ``verify``: a file that proves one run, and what it proves.

The law: ``verify`` asks nobody and opens no database; whatever is wrong with the file is one
sentence, and the exit code 1.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from hwsync.cli import say
from hwsync.cli.common import DATABASE, FILE, JSON, Settings, common, read_bytes
from hwsync.cli.completion import of_broker
from hwsync.cli.elsewhere import own_database
from hwsync.cli.show import MOST_WORDS, board_and_id
from hwsync.cli.signer import signer_of
from hwsync.operator.client import QUIET_S, Client
from hwsync.protocol import receipt as receipts
from hwsync.protocol.errors import HwsyncError, NotFound, OutputError, UsageError
from hwsync.protocol.jsons import dumps, is_count
from hwsync.protocol.topics import ITSELF, TopicKind
from hwsync.protocol.wire.schema import Json
from hwsync.signing import Trusted, public_key
from hwsync.store.receipts import Receipts

ANSWER_S: Final = 5.0  # for the coordinator's health
NOT_PROVED: Final = (
    "that the device told the truth of what it ran, and on what",
    "who a name is: a claim is its sender's own word",
    "when it was: times are those of the clocks of coordinator and device",
    "that nothing was left out: the log may say more of this run, such as another verdict",
)


@click.command()
@common
@click.argument("words", metavar="[BOARD] ID", nargs=-1, required=True, shell_complete=of_broker)
@DATABASE
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write it there.  [default: here]")
@click.option("--to", "head", type=click.IntRange(1), metavar="ROW",
              help="Up to that row of the log, whose hash somebody has kept.  [default: the newest "
              "that the coordinator has published]")  # fmt: skip
@click.option("--signing-key", type=FILE, metavar="FILE",
              help="Sign it with this key.  [default: that of the connection file, if "
              "any]")  # fmt: skip
@click.pass_obj
def receipt(
    settings: Settings, words: tuple[str, ...], db: Path | None, output: Path | None,
    head: int | None, signing_key: Path | None,
) -> None:  # fmt: skip
    """A file that proves what the command ID ran and what came of it, for `hwsync verify`.

    It has that run's rows of the log, and the hashes from them to one that the coordinator has
    published in its health. Of other runs it has nothing. Made on the coordinator's machine, from
    the database.
    """
    if len(words) > MOST_WORDS:
        raise UsageError(f"{len(words)} words, and it is [BOARD] ID")
    user, id = board_and_id(words)
    signer = signer_of(settings, signing_key)
    with own_database(settings, db) as own, Receipts(own.path) as found:
        user = user or _only_board(found, id)
        row = head or _published(settings, found, found.last_of(user, id))
        made = found.make(user, id, row or found.last())
    if signer is not None:
        made = receipts.signed(made, signer.public, signer.sign(receipts.to_sign(made)))
    _write(dumps(made), output)
    said = f"the head: row {made['head']['row']} of the log, hash {made['head']['hash']}"
    if head is None and row is None:
        said += "; it is not published: no coordinator has answered with one that is this log's"
    say.remark(said)


def _only_board(found: Receipts, id: str) -> str:
    having = found.users_of(id)
    if not having:
        raise NotFound(f"no board has a command {id}", "hwsync history lists them with their ids")
    if len(having) > 1:
        several = f"{', '.join(having[:5])}{' …' * (len(having) > 5)}"
        hint = f"name one: hwsync receipt {having[0]} {id}"
        raise UsageError(f"{id} is of {len(having)} boards: {several}", hint)
    return having[0]


def _published(settings: Settings, found: Receipts, least: int) -> int | None:
    """The row of the coordinator's published head, if it is of this log and late enough."""
    with suppress(HwsyncError), Client(settings.url, settings.topics, ITSELF) as operator:
        for heard in operator.hear(QUIET_S):
            if heard.health is not None and (row := _row(heard.health, found, least)) is not None:
                return row
        answer = operator.ask(
            TopicKind.QUERY, b"",
            lambda came: came.health is not None and _row(came.health, found, least) is not None,
            patience=ANSWER_S,
        )  # fmt: skip
        return _row(answer.health or {}, found, least)
    return None


def _row(health: object, found: Receipts, least: int) -> int | None:
    head = health.get("head") if isinstance(health, dict) else None
    if not isinstance(head, dict) or not is_count(head.get("row")):
        return None
    row = int(head["row"])
    return row if row >= least and found.hash_of(row) == head.get("hash") else None


def _write(text: str, output: Path | None) -> None:
    if output is None:
        if sys.stdout is None or sys.stdout.isatty():
            say.line(text)
        else:
            say.program(f"{text}\n", sys.stdout, as_it_is=True)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}") from None


@click.command()
@JSON
@click.argument("file", type=FILE)
@click.option("--head", metavar="HASH",
              help="The hash of a head that somebody has kept: the receipt must lead to "
              "it.")  # fmt: skip
@click.option("--trust", multiple=True, metavar="KEY",
              help="A public key (ed25519:…): one of these must have signed it.")  # fmt: skip
@click.pass_obj
def verify(settings: Settings, file: Path, head: str | None, trust: tuple[str, ...]) -> None:
    """Check the receipt FILE, without database or network: what it proves, and what not.

    The FILE - is standard input. Exit code 1 where it was changed or proves nothing.
    """
    for key in trust:
        public_key(key)
    try:
        made = receipts.read(read_bytes(str(file), receipts.MAX_FILE + 1))
        told = receipts.verified(made)
        lines = [*told.proved, _about_head(told, head), *_about_signature(told, made, trust)]
    except receipts.Wrong as wrong:
        said = f"{file} proves nothing: {wrong}"
        say.either(settings.as_json, {"verified": False, "message": str(wrong)}, said)
        sys.exit(1)
    if settings.as_json:
        say.json_line({"verified": True, "run": told.run, "head": told.head, "proved": lines,
                       "not_proved": NOT_PROVED})  # fmt: skip
        return
    say.line("proved, by the hashes of the log:")
    for line in lines:
        say.line(f"  {line}")
    say.line("not proved:")
    for line in NOT_PROVED:
        say.line(f"  {line}")


def _about_head(told: receipts.Verified, kept: str | None) -> str:
    row, hash = told.head["row"], told.head["hash"]
    if kept is None:
        return (f"none of this was changed since row {row} of the log had the hash {hash}; whoever "
                "has kept that compares it with --head HASH")  # fmt: skip
    if kept.strip().lower() != hash:
        raise receipts.Wrong(f"it leads to row {row} with the hash {hash}, not to the one given")
    return f"none of this was changed since row {row} of the log had the hash that you gave"


def _about_signature(told: receipts.Verified, made: Json, trust: tuple[str, ...]) -> list[str]:
    key = told.signed_by
    if not key:
        if trust:
            raise receipts.Wrong("nobody has signed it")
        return []
    if trust and key not in trust:
        raise receipts.Wrong(f"{key[:80]} has signed it, which is none of the keys given")
    try:
        public_key(key)
    except UsageError:
        raise receipts.Wrong("signed: its key is none") from None
    try:
        trusted = Trusted([key])
    except UsageError as error:  # PyNaCl is not here
        if trust:
            raise
        return [f"not looked at: the signature of {key} ({error.message})"]
    if not trusted.verifies(key, receipts.to_sign(made), told.signature):
        raise receipts.Wrong(f"its signature is not that of {key[:80]}")
    return [f"{key} has signed it" + ("" if trust else "; --trust KEY says whom you believe")]


COMMANDS = (receipt, verify)
