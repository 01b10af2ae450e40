"""docs/cli.md: the command line as a page, made from the commands themselves.

The law: what stands there is what ``--help`` says on a terminal of 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from hwsync.cli.app import cli
from hwsync.cli.causes import KINDS
from hwsync.cli.help import EXIT_CODES, JSON_LINES, SECTIONS, SUMMARIES

WIDTH: Final = 78  # click leaves two columns of 80 free
HEAD: Final = """\
# The command line

This page is made by `scripts/cli-page` from the commands, and a test compares. `--help` says the
same.

Options stand before or behind the command, but for `run` and `send`: there they stand before FILE,
and everything behind FILE is the program's. Which broker is meant, and who you are there, is best
said once, in a [connection file](operations.md#the-connection-file). `--profile school` takes
`~/.config/hwsync/school.toml`. As root on the lab's own machine, where no such file is found,
hwsync takes the file of the one operator who may use all boards.

What was asked for goes to standard output, remarks and errors to standard error. `--quiet` leaves
remarks out. With `NO_COLOR` set, the colours of programs do not pass to a terminal either.
"""


def page() -> str:
    """The whole of it."""
    return "\n".join([HEAD, *_commands(), *_exit_codes(), *_json(), *_helps()])


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    for title, names in SECTIONS.items():
        there = [name for name in names if name in cli.list_commands(click.Context(cli))]
        if there:
            yield f"**{title}**\n\n| command | |\n|---|---|"
            yield from (f"| [`{name}`](#{name}) | {SUMMARIES[name]} |" for name in there)
            yield ""


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n\n| code | meaning |\n|---|---|"
    yield from (f"| {code} | {meaning} |" for code, meaning in EXIT_CODES)
    yield ""


def _json() -> Iterator[str]:
    yield (
        "## JSON\n\nWith `--json` each line of standard output is one JSON object; an error is one "
        "too: `error`\n(a word), `message`, `hint`, and of a message that the coordinator refused "
        "also the other fields of\n[an error](protocol.md#what-each-message-says). Later versions "
        "may add keys.\n\n| command | one line is |\n|---|---|"
    )
    kinds = ", ".join(f"`{kind}`" for kind in KINDS)
    for name, meaning in JSON_LINES.items():
        yield f"| `{name}` | {meaning.replace('{kinds}', kinds)} |"
    yield ""


def _helps() -> Iterator[str]:
    yield "## hwsync\n"
    yield _help(context_of(cli, "hwsync"))
    for names in SECTIONS.values():
        for name in names:
            command = cli.get_command(click.Context(cli), name)
            if command is not None:
                yield f"## {name}\n"
                yield from _below(command, name)


def _below(command: click.Command, path: str) -> Iterator[str]:
    yield _help(context_of(command, f"hwsync {path}"))
    if isinstance(command, click.Group):
        for name, one in sorted(command.commands.items()):
            yield f"### {path} {name}\n"
            yield from _below(one, f"{path} {name}")


def context_of(command: click.Command, path: str) -> click.Context:
    """As if it was typed."""
    command._help_option = None  # click keeps that of the first context, whatever its names were
    names = cli.context_settings["help_option_names"]
    return click.Context(command, info_name=path, terminal_width=WIDTH, help_option_names=names)


def _help(context: click.Context) -> str:
    return f"```text\n{context.command.get_help(context)}\n```\n"
