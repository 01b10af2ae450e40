"""``hwsync coordinator`` and ``hwsync broker``: the two processes of a lab's own machine."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from hwsync import connection, groups, logs
from hwsync.address import BrokerUrl
from hwsync.cli.common import (
    DATABASE,
    FILE,
    FOLDER,
    USUAL,
    Settings,
    common,
    default_database,
    seconds,
)
from hwsync.cli.signer import signer_of
from hwsync.protocol import limits
from hwsync.protocol.errors import AnotherCoordinator
from hwsync.protocol.groups import NO_GROUPS, Groups
from hwsync.protocol.record import Analyser
from hwsync.store.backups import DEFAULT_EVERY_S, EVERY_S, KEPT
from hwsync.store.retention import KEEP_DAYS, KEEP_MB

log = logging.getLogger("hwsync.coordinator")

PAUSE_S: Final = 30.0
"""Before the end for another coordinator, under systemd, which then starts it again: each look
costs the other one its connection. Shorter than what is left of TimeoutStartSec then."""


@click.command()
@common
@DATABASE
@click.option(
    "--analysis",
    type=click.Choice(tuple(map(str, Analyser))),
    default=str(Analyser.MANUAL),
    show_default=True,
    help="The analyser of a request that names none.",
)
@click.option(
    "--settle",
    "hold_deadlines_s",
    metavar="SECONDS",
    type=seconds(limits.SETTLE_S),
    default=limits.DEFAULT_SETTLE_S,
    show_default=True,
    help="After a connect no deadline fires for so long.",
)
@click.option(
    "--analysis-within",
    type=seconds(limits.ANALYSIS_WITHIN_S, zero=True),
    metavar="SECONDS",
    show_default=True,
    default=limits.DEFAULT_ANALYSIS_WITHIN_S,
    help="State 3 waits so long for its analysis; 0: for ever.",
)
@click.option(
    "--clean-session", is_flag=True, help="Keep no session at the broker (for amqtt alone)."
)
@click.option(
    "--backup-dir",
    type=FOLDER,
    metavar="DIR",
    help=f"Back the database up there; the last {KEPT} stay.",
)
@click.option(
    "--backup-every",
    type=seconds(EVERY_S),
    metavar="SECONDS",
    default=DEFAULT_EVERY_S,
    show_default=True,
    help="How often, with --backup-dir.",
)
@click.option(
    "--metrics-file",
    type=FILE,
    metavar="FILE",
    help="Figures for Prometheus (node_exporter's textfile collector), every 15 s.",
)
@click.option(
    "--keep-days",
    type=seconds(KEEP_DAYS, zero=True, unit="days"),
    metavar="DAYS",
    default=0.0,
    help="Drop the texts of older commands, in days of running; 0: never.  [default: 0]",
)
@click.option(
    "--keep-mb",
    type=seconds(KEEP_MB, zero=True, unit="megabytes"),
    metavar="MB",
    default=0.0,
    help="And the oldest of what is more than this.  [default: 0]",
)
@click.option(
    "--signing-key",
    type=FILE,
    metavar="FILE",
    help="Sign every command with this key (hwsync key make).",
)
@click.option(
    "--groups",
    "groups_file",
    type=FILE,
    metavar="FILE",
    help='The lab\'s groups, TOML: lab1 = ["pi1", "bench-*"].  [default: groups.toml beside the '
    "connection file, where there is one]",
)
@click.option(
    "--requests-per-minute",
    type=click.IntRange(0, int(limits.REQUESTS_PER_MINUTE[1])),
    metavar="N",
    default=0,
    show_default=True,
    help="New requests for one board; 0: no limit.",
)
@click.option(
    "--max-program-kb",
    type=click.IntRange(1, limits.MAX_PROGRAM // limits.KIB),
    metavar="N",
    default=limits.MAX_PROGRAM // limits.KIB,
    show_default=True,
    help="The largest program, in units of 1,024 bytes.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1, limits.MAX_QUEUE),
    metavar="N",
    default=limits.MAX_QUEUE,
    show_default=True,
    help="So many requests may wait for one board.",
)
@click.option(
    "--max-message",
    type=click.IntRange(*limits.MESSAGE_BYTES),
    metavar="BYTES",
    default=limits.MAX_MESSAGE,
    show_default=True,
    help="The largest message that the broker takes; without it that is found out.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Start also where another coordinator serves this root (stop that one yourself), or "
    "where an empty database takes the place of the lab's.",
)
@click.pass_obj
def coordinator(
    settings: Settings, /, db: Path | None, signing_key: Path | None, groups_file: Path | None,
    **others: Any,
) -> None:  # fmt: skip
    """Run the coordinator until SIGTERM or Ctrl-C."""
    from hwsync.coordinator.options import Options
    from hwsync.coordinator.service import Access, serve

    logs.setup("coordinator")
    # Options and environment stay; the files that they name may have changed.
    found = connection.used(settings.config)
    again = not connection.handed_over(found)

    def address() -> BrokerUrl:
        return replace(settings, _given=None).url

    def access() -> Access:
        now = replace(settings, _given=None)
        signer = signer_of(now, signing_key)
        return Access(now.url, now.topics.root, signer, _groups(groups_file, found, again))

    by_systemd = "NOTIFY_SOCKET" in os.environ  # not any more after ``serve``
    try:
        options = Options(db=db or default_database(), **others)
        serve(options, access(), address if again else None, access)
    except AnotherCoordinator as error:
        if by_systemd:
            log.error("%s; this one ends in %g s, and systemd tries again", error, PAUSE_S)
            time.sleep(PAUSE_S)  # a stop ends it at once: the signals mean what they always do
        raise


def _groups(option: Path | None, connection_file: Path | None, again: bool) -> Groups:
    """Of the option's file, else of the one beside the connection file. Raises ``UsageError``.

    ``again`` False: the connection file is a copy, and the lab is where the unit has it from.
    """
    if option is not None:
        return groups.load(option)
    if connection_file is None:
        return NO_GROUPS
    folder = connection_file.parent if again else USUAL
    return groups.load(folder / groups.NAME, may_lack=True)


@click.command()
@common
@click.argument("file", required=False, type=FILE)
def broker(file: Path | None) -> None:
    """Serve FILE (./broker.conf, else the packaged one) with the embedded broker."""
    from hwsync.broker.conf import load
    from hwsync.broker.embedded import serve

    logs.setup("broker")
    serve(load(file))


COMMANDS = (coordinator, broker)
