"""What ``--help`` says: at 80 columns, with an example for each command; and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hwsync.cli.app import OTHER_NAMES, PLACES, cli
from hwsync.cli.document import context_of, page
from hwsync.cli.help import CONNECTION, EXAMPLES, ONCE, SECTIONS, SUMMARIES
from tests.support.golden import WIDTH, pages

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/cli.md"
LISTED = [name for names in SECTIONS.values() for name in names]


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in sorted(set(PLACES) - set(OTHER_NAMES)):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", one) for below, one in command.commands.items())


def test_each_command_stands_in_one_group_with_a_summary_that_fits_a_line() -> None:
    assert len(LISTED) == len(set(LISTED))
    assert set(PLACES) - set(OTHER_NAMES) <= set(LISTED) == set(SUMMARIES)
    first = cli.get_help(context_of(cli, "hwsync"))
    for name in set(PLACES) - set(OTHER_NAMES):
        assert SUMMARIES[name] in first, f"the summary of {name} does not stand in one line"


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=[path for path, _ in commands()]
)
def test_each_command_has_an_example_that_can_be_typed(path: str, command: click.Command) -> None:
    text = command.get_help(context_of(command, f"hwsync {path}"))
    assert max(map(len, text.splitlines())) <= WIDTH
    if isinstance(command, click.Group):
        return
    assert EXAMPLES[path]
    for line in EXAMPLES[path]:
        assert f"\n    {line}\n" in f"{text}\n"
        assert line.startswith(f"hwsync {path}")
    for option in command.params:
        if option.name in CONNECTION and isinstance(option, click.Option):
            assert option.opts[0] not in text.replace(ONCE, "").split()


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    assert DOCUMENT.read_text("utf-8") == page(), "run scripts/cli-page"


@pytest.mark.parametrize("file", list(pages()), ids=lambda file: file.stem)
def test_what_is_shown_is_what_was_read(file: Path) -> None:
    assert file.read_text("utf-8") == pages()[file], "read it as a pupil would: scripts/cli-page"
