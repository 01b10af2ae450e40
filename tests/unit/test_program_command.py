"""What is typed for ``hwsync run`` and ``send``: whose each word is, and the request it makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.cli import run
from hwsync.cli.common import Settings
from hwsync.cli.document import context_of
from hwsync.cli.request import Asked, make_request
from hwsync.cli.targets import Target, check_words, one_or_all, target
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.protocol.wire.schema import read_object

COMMANDS = pytest.mark.parametrize("command", [run.run, run.send], ids=["run", "send"])
ANY_WORD = st.sampled_from(
    ["-c", "--", "--timeout", "5", "-", "", "a", "-h", "--no-such", "-x", "é"]
)


def typed(command: click.Command, *words: str) -> dict[str, Any]:
    """What the command makes of the words, without the options that were not given."""
    context = command.make_context("x", list(words), obj=Settings())
    return {name: value for name, value in context.params.items() if value not in (None, (), False)}


@COMMANDS
@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("pi1 x.py", {"file": "x.py"}),
        ("pi1 x.py a b", {"file": "x.py", "args": ("a", "b")}),
        ("pi1 x.py -c my.ini", {"file": "x.py", "args": ("-c", "my.ini")}),
        ("pi1 x.py --timeout 5 --id", {"file": "x.py", "args": ("--timeout", "5", "--id")}),
        ("pi1 x.py -h", {"file": "x.py", "args": ("-h",)}),
        ("pi1 x.py -- a", {"file": "x.py", "args": ("--", "a")}),
        ("pi1 x.py -5", {"file": "x.py", "args": ("-5",)}),
        ("--timeout 5 pi1 x.py -x", {"timeout": 5.0, "file": "x.py", "args": ("-x",)}),
        ("pi1 --timeout=5 x.py -x", {"timeout": 5.0, "file": "x.py", "args": ("-x",)}),
        ("--id i pi1 --queue x.py -x", {"id": "i", "queue": True, "file": "x.py", "args": ("-x",)}),
        ("--arg 1 pi1 --arg 2 x.py", {"more": ("1", "2"), "file": "x.py"}),
        ("pi1 - -x", {"file": "-", "args": ("-x",)}),
        ("pi1 -c 1", {"code": "1"}),
        ("-c 1 pi1", {"code": "1"}),
        ("pi1 -c 1 --timeout 5", {"code": "1", "timeout": 5.0}),
        ("pi1 -c 1 --timeout 5 a --timeout 6",
         {"code": "1", "timeout": 5.0, "file": "a", "args": ("--timeout", "6")}),
        ("-c 1 pi1 --queue a -c 2", {"code": "1", "queue": True, "file": "a", "args": ("-c", "2")}),
        ("pi1 -c 1 -- --queue", {"code": "1", "file": "--queue"}),
        ("pi1 -- --queue", {"file": "--queue"}),
        ("-- pi1 x.py --queue", {"file": "x.py", "args": ("--queue",)}),
        ("-- pi1 --queue x.py", {"file": "--queue", "args": ("x.py",)}),
        ("pi1 -c -- x", {"code": "--", "file": "x"}),
        ("pi1 -c -- -- x", {"code": "--", "file": "x"}),
        ("-c -- pi1 --queue x -h", {"code": "--", "queue": True, "file": "x", "args": ("-h",)}),
        ("pi1", {}),
    ],
)  # fmt: skip
def test_what_stands_behind_the_file_is_the_programs(
    command: click.Command, words: str, meant: dict[str, Any]
) -> None:
    assert typed(command, *words.split()) == {"target": Target(("pi1",)), **meant}


@COMMANDS
@pytest.mark.parametrize(
    ("words", "boards", "group"),
    [
        ("pi1,pi2 x.py -x", ("pi1", "pi2"), ""),
        ("pi1,pi2,pi1 --queue x.py -x", ("pi1", "pi2"), ""),
        ("@lab1 x.py -x", (), "lab1"),
        ("--queue @lab1 --timeout 5 x.py -x", (), "lab1"),
        ("--all x.py -x", (), "all"),
        ("--queue --all --timeout 5 x.py -x", (), "all"),
        ("@all x.py -x", (), "all"),
        ("--all -- x.py -x", (), "all"),
    ],
)
def test_several_boards_may_be_meant(
    command: click.Command, words: str, boards: tuple[str, ...], group: str
) -> None:
    given_ = typed(command, *words.split())
    assert (given_["target"], given_["file"], given_["args"]) == (
        Target(boards, group), "x.py", ("-x",),
    )  # fmt: skip


@COMMANDS
@pytest.mark.parametrize("words", ["pi1, x.py", "pi1,@lab1 x.py", "@ x.py", "@a/b x.py", ",x x.py"])
def test_what_is_no_board_and_no_group_is_refused(command: click.Command, words: str) -> None:
    with pytest.raises(click.BadParameter, match=r"no board's name|no group"):
        typed(command, *words.split())


def test_all_stands_in_the_place_of_a_board() -> None:
    assert one_or_all(Target(group="all"), True) == Target(group="all")
    with pytest.raises(UsageError, match="--all and pi1"):
        one_or_all(Target(("pi1",)), True)
    with pytest.raises(UsageError, match="which board"):
        one_or_all(None, False)


@COMMANDS
@given(words=st.lists(ANY_WORD, max_size=6))
def test_no_word_behind_the_file_is_ever_read(command: click.Command, words: list[str]) -> None:
    given_ = typed(command, "--id", "i", "pi1", "--queue", "x.py", *words)
    meant = {
        "target": Target(("pi1",)),
        "id": "i",
        "queue": True,
        "file": "x.py",
        "args": tuple(words),
    }
    assert given_ == {name: value for name, value in meant.items() if value != ()}


@COMMANDS
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "Missing argument 'BOARD'"),
        ("--queue", "Missing argument 'BOARD'"),
        ("pi1 --timeout", "Option '--timeout' requires an argument"),
        ("--timeout", "Option '--timeout' requires an argument"),
        ("pi1 --no-such x.py", "No such option"),
        ("--no-such pi1 x.py", "No such option"),
        ("pi1 --timeout x x.py", "'x' is no number"),
    ],
)
def test_what_stands_before_it_is_ours(command: click.Command, words: str, said: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        typed(command, *words.split())
    assert said in refused.value.format_message()


@COMMANDS
def test_the_usage_names_the_file(command: click.Command) -> None:
    context = context_of(command, "hwsync x")
    assert context.get_usage() == "Usage: hwsync x [OPTIONS] BOARD FILE [ARGS]..."


# The request


def make(**changes: Any) -> Asked:
    names = ("file", "code", "name", "id", "timeout", "expires", "grace", "stdin")
    names = (*names, "parallel", "abort")
    flags = {"queue": False, "online": False}
    given_ = {**dict.fromkeys(names), "args": (), "more": (), "meta": (), **flags, **changes}
    return make_request("manual", "me@desk", **given_)


def fields_of(asked: Asked) -> dict[str, Any]:
    fields = read_object(asked.request.payload)
    assert fields is not None
    return fields


def test_arguments_may_stand_behind_code() -> None:
    fields = fields_of(make(code="1", file="a", args=("b",), more=("c",)))
    assert (fields["program"], fields["args"]) == ("1", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("file", "chosen", "sent"),
    [
        ("blink.py", None, "blink.py"),
        ("x.sh", None, "x.sh"),
        ("blink.py", "other.py", "other.py"),
        ("two words.py", None, None),
        (".hidden.py", None, None),
        ("n" * 65, None, None),
        ("größe.py", None, None),
    ],
)
def test_a_program_is_sent_under_the_name_of_its_file(
    tmp_path: Path, file: str, chosen: str | None, sent: str | None
) -> None:
    (tmp_path / file).write_text("print(1)")
    assert fields_of(make(file=str(tmp_path / file), name=chosen)).get("name") == sent


def test_code_has_a_name_only_where_one_was_chosen() -> None:
    assert "name" not in fields_of(make(code="1"))
    assert fields_of(make(code="1", name="n.py"))["name"] == "n.py"
    with pytest.raises(UsageError, match=r"'a/b' is no name of a program: 1 to 64 of"):
        make(code="1", name="a/b")


def test_what_is_needed_to_speak_of_the_end_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("print(1)")
    asked = make(file=str(tmp_path / "x.py"), stdin=str(tmp_path / "x.py"), timeout=5.0)
    request = asked.request
    assert (request.program, asked.timeout, request.stdin) == ("print(1)", 5.0, "print(1)")
    asked = make(code="1")
    assert (asked.file, asked.timeout, asked.request.stdin) == (
        None, limits.DEFAULT_TIMEOUT_S, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said", "cure"),
    [
        (b"x = 1\ny = '\xe9'\n", r"is not UTF-8: byte 11 \(0xe9\), in line 2",
         "iconv -f ISO-8859-1"),
        (b"# -*- coding: latin-1 -*-\ny = '\xe9'\n", r"in line 2; its first lines name latin-1",
         "iconv -f latin-1 -t UTF-8 .*and take that line out"),
        (b"#!/usr/bin/python3\n# vim: set fileencoding=cp1252 :\n'\xe9'",
         "in line 3; .* cp1252", "cp1252"),
        (b"\xff\xfep\0r\0", r"byte 0 \(0xff\), in line 1", "iconv -f UTF-16"),
        (b"\xef\xbb\xbf'\xe9'", r"byte 4 \(0xe9\)", "iconv -f ISO-8859-1"),
    ],
)  # fmt: skip
def test_a_program_that_is_not_utf8_says_how_to_save_it(
    tmp_path: Path, data: bytes, said: str, cure: str
) -> None:
    file = tmp_path / "my x.py"
    file.write_bytes(data)
    with pytest.raises(UsageError, match=said) as refused:
        make(file=str(file))
    assert "save it as UTF-8 in the editor, or: " in refused.value.hint
    assert f"'{file}' > new.py" in refused.value.hint
    assert re.search(cure, refused.value.hint)


def test_the_mark_that_some_editors_put_at_the_start_is_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_bytes(b"\xef\xbb\xbfprint(1)")
    assert make(file=str(file)).request.program == "print(1)"


def test_words_that_stand_where_others_should_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hello.py").write_text("print(1)")
    with pytest.raises(UsageError, match="--all and @lab1"):
        check_words(Target(group="all"), True, "@lab1", None)
    with pytest.raises(UsageError, match=r"hello\.py stands where the board does") as raised:
        check_words(Target(("hello.py",)), False, None, None)
    assert raised.value.hint.startswith("hwsync run BOARD hello.py")
    check_words(Target(("hello.py",)), False, None, "print(1)")
    check_words(Target(("pi1",)), False, None, None)
    Path("@odd.py").write_text("print(1)")
    check_words(None, True, "@odd.py", None)
    with pytest.raises(click.BadParameter, match="a group stands by itself, without boards: @lab1"):
        target("@lab1,pi1")


def test_a_program_that_is_too_large_is_said_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "big.py"
    file.write_bytes(b"#" * limits.MAX_PROGRAM)
    assert make(file=str(file)).request.program
    file.write_bytes(b"#" * (limits.MAX_PROGRAM + 1))
    with pytest.raises(
        UsageError, match=r"big\.py has 262,145 bytes; a program has at most 262,144"
    ):
        make(file=str(file))
    with pytest.raises(UsageError, match="the program has"):
        make(code="é" * (limits.MAX_PROGRAM // 2 + 1))


def test_many_boards_without_a_program_are_no_name_of_a_file() -> None:
    many = Target(tuple(f"board-{number:04}" for number in range(60)))
    check_words(many, False, None, None)  # more letters than a file's name may have
