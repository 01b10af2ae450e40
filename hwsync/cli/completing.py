"""``hwsync completion``: has the shell complete commands, options, boards, ids and files.

The law: of a person's own files one line is added, once, and it says whose it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from hwsync.cli import say
from hwsync.cli.common import JSON, Settings
from hwsync.protocol.errors import UsageError

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_HWSYNC_COMPLETE"
OURS: Final = "# hwsync completion"
READY: Final = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
START_FILES: Final = {"bash": ".bashrc", "zsh": ".zshrc"}
SHELL = click.argument("shell", type=click.Choice(SHELLS), required=False)


@click.group()
def completion() -> None:
    """Have the shell complete commands, options, boards, groups, ids and files.

    Boards and ids are asked for at the broker, while you type.
    """


@completion.command("install")
@JSON
@SHELL
@click.pass_obj
def install(settings: Settings, shell: str | None) -> None:
    """Set it up for SHELL, else for the one that you use.

    It writes one file, and for bash and zsh one line into ~/.bashrc or ~/.zshrc. Again, it brings
    the file up to date.
    """
    shell = shell or _own_shell()
    home = Path.home()
    if shell == "fish":
        file = home / ".config/fish/completions/hwsync.fish"
        _write(file, script(shell))
        start: Path | None = None
    else:
        file = home / ".config/hwsync" / f"completion.{shell}"
        _write(file, script(shell))
        start = home / START_FILES[shell]
        _add_line(start, file)
    said = {"shell": shell, "file": str(file), "start": str(start) if start else None}
    also = f", and {start} reads it" if start else ""
    say.either(settings.as_json, said, f"{file} is written{also}: open a new terminal")


@completion.command("show")
@SHELL
def show(shell: str | None) -> None:
    """Print the script for SHELL, to be put where you like."""
    for line in script(shell or _own_shell()).splitlines():
        say.line(line)


def script(shell: str) -> str:
    """What the shell is to read."""
    from hwsync.cli.app import cli

    made = get_completion_class(shell)
    assert made is not None
    text = made(cli, {}, "hwsync", VARIABLE).source()
    return READY + text if shell == "zsh" else text


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError("which shell?", f"hwsync completion install {'|'.join(SHELLS)}")
    return name


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None


def _add_line(start: Path, file: Path) -> None:
    """Have the shell read the file when it starts; what stands there stays, whatever goes wrong."""
    line = f'[ -f "{file}" ] && . "{file}"  {OURS}\n'
    try:
        with start.open("a+", encoding="utf-8", errors="surrogateescape") as lines:
            lines.seek(0)
            before = lines.read()
            if OURS not in before:
                lines.write(line if not before or before.endswith("\n") else f"\n{line}")
    except OSError as error:
        raise UsageError(f"cannot write {start}: {error.strerror}") from None


COMMANDS = (completion,)
