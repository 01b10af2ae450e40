"""``hwsync modules``: what programs can import on a board, by the word of a program there."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from hwsync import packages
from hwsync.cli import say
from hwsync.cli.common import Settings, board_name, common
from hwsync.cli.completion import of_broker
from hwsync.cli.ends import ended
from hwsync.cli.looking import busy_with
from hwsync.cli.seen import refuse_strangers
from hwsync.cli.slow import say_slow
from hwsync.operator.client import Client
from hwsync.operator.run import Run, RunRequest, claim
from hwsync.protocol.errors import HwsyncError, Refused, UsageError
from hwsync.protocol.jsons import loads
from hwsync.protocol.wire.status import CommandFields

PROGRAM: Final = """\
import importlib.util, json, sys
from importlib import metadata

def version(name):
    try:
        return metadata.version(name)
    except Exception:
        return ""

def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except Exception:
        return False

by_name = metadata.packages_distributions()
if sys.argv[1:]:
    said = {name: version(by_name.get(name.partition(".")[0], [name])[0]) if there(name) else None
            for name in sys.argv[1:]}
else:
    said = {name: version(of[0]) for name, of in sorted(by_name.items())
            if name.isidentifier() and not name.startswith("_")}
print(json.dumps({"python": sys.version.split()[0], "modules": said}))
"""
"""It prints one line of JSON: a module is null where it cannot be imported."""
WIDTH: Final = 24  # of a name


@click.command()
@common
@click.argument("user", metavar="BOARD", type=board_name, shell_complete=of_broker)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--packages", "of_packages", is_flag=True,
              help="Name and version of each package there; the SHA-256 of these lines is "
              "`packages` in `ran_on` of each run.")  # fmt: skip
@click.pass_obj
def modules(settings: Settings, user: str, names: tuple[str, ...], of_packages: bool) -> None:
    """What programs can import on BOARD, beside what comes with Python.

    With NAMEs, whether they can be imported; the exit code is 1 where one cannot. A small program
    is run there for it, like any other.
    """
    if of_packages and names:
        raise UsageError("--packages is the list of all", "leave the names out")
    end = _look(settings, user, packages.program() if of_packages else PROGRAM, names)
    if of_packages:
        _show_packages(settings, user, end)
        return
    said = _read(end["hw_response"]) if end["outcome"] == "ok" else None
    if said is None:
        raise _nothing(user, end)
    if settings.as_json:
        say.json_line({"board": user, **said})
    else:
        say.line(f"{user}: Python {said['python']}, all that comes with it, and")
        for name, version in said["modules"].items():
            say.line(f"  {name:{WIDTH}} {'not there' if version is None else version}".rstrip())
    if None in said["modules"].values():
        sys.exit(1)


def _show_packages(settings: Settings, user: str, end: CommandFields) -> None:
    if end["outcome"] != "ok" or end["truncated"]:
        raise _nothing(user, end)
    lines = end["hw_response"].splitlines()
    if settings.as_json:
        say.json_line({"board": user, "packages": lines, "sha256": packages.hash_of(lines)})
        return
    for line in lines:
        say.line(line)
    say.remark(f"their hash: {packages.hash_of(lines)}")


def _look(settings: Settings, user: str, program: str, names: tuple[str, ...]) -> CommandFields:
    """The end of the program that looks."""
    request = RunRequest(
        program=program, args=names, name="modules.py", timeout=60.0, by=claim(settings.url)
    )
    with Client(settings.url, settings.topics, user) as operator:
        operator.standing.slow = say_slow
        refuse_strangers(settings, operator, (user,), may_wait=False)
        one = Run(operator, request)
        try:
            operator.wait(one.requesting())
        except Refused as refusal:
            raise busy_with(refusal, operator, user, "-c CODE") from None
        end = operator.wait(one.following())
        return operator.wait(one.completing(end)) if end["truncated"] else end


def _nothing(user: str, end: CommandFields) -> HwsyncError:
    _, happened, do = ended(f"the program that looks ({end['id']})", end)
    return HwsyncError(f"{user} did not say what it has: {happened}", "; ".join(do))


def _read(text: str) -> dict[str, Any] | None:
    try:
        said = loads(text)
    except ValueError:
        return None
    there = isinstance(said, dict) and isinstance(said.get("modules"), dict)
    return said if there and isinstance(said.get("python"), str) else None


COMMANDS = (modules,)
