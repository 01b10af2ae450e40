"""What the pages of ``TYPED`` say is run by a test, and every relative link leads somewhere.

A command of theirs stands in a fenced block tagged ``console`` (lines with ``$ `` are commands, the
rest is what they print) or ``sh`` (every line is a command). Each one has an entry in ``RUN_BY``
below, which names the test that runs it. A command without an entry fails; so does an entry without
its command or its test.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from hwsync.cli.app import cli
from hwsync.cli.document import context_of
from hwsync.device.service import main as device_daemon
from tests.support import ways

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / "README.md"
TYPED = (
    README,
    *(CHECKOUT / "docs" / name for name in ("by-hand.md", "records.md", "reliability.md")),
)
DOCUMENTS = (
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((CHECKOUT / "docs").rglob("*.md")),
)

# A command, exactly as one of TYPED has it (continued lines joined by one space) -> who runs it:
# "tests/…/test_x.py::test_y", or a script of the checkout that contains the command literally.
README_TESTS = "tests/acceptance/test_readme.py"
TWO_BOARDS = f"{README_TESTS}::test_up_starts_a_broker_where_there_is_none"
BY_HAND = f"{README_TESTS}::test_each_part_by_itself"
SEVERAL = f"{README_TESTS}::test_several_boards"
RECORDS = "tests/acceptance/test_records_cli.py::test_the_page_of_records"
SIMULATED = "tests/simulation/test_worlds.py::test_as_it_is_typed"
RUN_BY: dict[str, str] = {
    "scripts/test": ".ci/run",
    "scripts/broker": "tests/integration/test_broker_script.py",
    "scripts/demo": f"{README_TESTS}::test_the_demo_shows_the_whole_cycle",
    ". .venv/bin/activate": f"{README_TESTS}::test_the_demo_shows_the_whole_cycle",
    "hwsync up --user pi1": f"{README_TESTS}::test_up_uses_the_broker_that_is_there",
    "hwsync up --user pi1 --user pi2": TWO_BOARDS,
    "mosquitto_sub -v -t 'hw/pi1/#'": BY_HAND,
    "mosquitto_pub -q 1 -t hw/pi1/command -m 'print(6*7)'": BY_HAND,
    "hwsync status pi1": BY_HAND,
    "mosquitto_pub -q 1 -t hw/pi1/analysis -m right": BY_HAND,
    "hwsync run pi1 -c 'print(6*7)'": BY_HAND,
    "hwsync history pi1": BY_HAND,
    "hwsync run pi1 --timeout 60 blink.py --speed 2": BY_HAND,
    "hwsync why pi1": BY_HAND,
    "hwsync doctor pi1": BY_HAND,
    "hwsync run pi1,pi2 blink.py --speed 2": SEVERAL,
    "hwsync run --all --get result.txt --out results measure.py": SEVERAL,
    "hwsync reset --all": SEVERAL,
    "hwsync run pi1 --meta exp=heat --with data.csv heat.py": RECORDS,
    "hwsync export --numbers --meta exp=heat > numbers.csv": RECORDS,
    "hwsync replay cli-4c1b2f8a90d3e7f1 --on pi2 --with data.csv": RECORDS,
    "hwsync receipt cli-4c1b2f8a90d3e7f1 -o run.json": RECORDS,
    "hwsync verify run.json": RECORDS,
    "hwsync modules pi1 --packages": RECORDS,
    "mosquitto_sub -C 1 -t hw/@hwsync/health >> heads.jsonl": RECORDS,
    "hwsync coordinator": BY_HAND,
    "hwsync-device --user pi1": BY_HAND,
    "scripts/simulate --steps 20000 --seed 1": SIMULATED,
}

# Each difference of a program from `python3 -`, as the list in docs/device.md has it: the words it
# begins with -> the test that finds it to be one (of CONFORMANCE, where it names no file). What is
# after "Warm only:" is parted at each ";".
CONFORMANCE = "tests/integration/test_runner_conformance.py"
SETTINGS = "tests/integration/test_runner_settings.py"
DIFFERENCES: dict[str, str] = {
    "Standard output is line-buffered": "test_standard_output_is_line_buffered",
    "Two frames lie below": "test_two_frames_lie_below_the_module",
    "`RecursionError` comes": "test_a_recursion_ends_a_few_calls_earlier",
    "`/proc/self/cmdline` is": "test_command_line_and_parent_are_the_fork_servers",
    "Signals that the daemon": "test_ignored_and_blocked_signals_are_not_the_programs",
    "There are no core files": "test_there_are_no_core_files",
    "In a folder that is kept": f"{SETTINGS}::test_in_a_folder_that_is_kept_only_the_program_goes",
    "In bubblewrap it does not lead": "test_in_bubblewrap_it_does_not_lead_its_session",
    "what was preloaded is loaded": "test_what_was_preloaded_is_loaded",
    "the seed of `hash()`": "test_the_seed_of_hashes_is_the_servers",
    "generators of random numbers": "test_random_numbers_are_seeded_anew",
    "`gc.get_freeze_count()` is not 0": "test_the_collector_of_garbage_passes_over_what_was_there",
    "at the end, objects": "test_what_only_a_preloaded_module_holds_is_not_finalized",
    "with `run_as` the": f"{SETTINGS}::test_nothing_that_an_account_left_runs_as_root",
}

# The words of --help that mean something of their own here: docs/glossary.md has each of them.
GLOSSARY = CHECKOUT / "docs/glossary.md"
TERMS_OF_HELP = frozenset(
    re.findall(
        r"\w+",
        """
        account analyser analysis authority backup board boot broker cancel certificate chain
        collected command coordinator credentials database deadline device epoch expires forget
        grace heartbeat history id isolation journal key lab log lost operator outcome output
        program queue record refused request reset rest restore result root session signed state
        status timeout topic unit
        """,
    )
)

COMMAND_TAGS = frozenset({"console", "sh"})
# Blocks that hold no commands. Another tag, or none, is refused: a command could hide there.
OTHER_TAGS = frozenset({"text", "python", "json", "ini", "conf", "mermaid", "toml", "yaml"})


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its tag, the line of its opening fence, and its lines."""

    tag: str
    line: int
    lines: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text, also those inside a list."""
    fence, tag, opened, held = "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not fence:
            if match := re.match(r"(`{3,}|~{3,})\s*(\S*)", bare):
                fence, tag, opened, held = match[1], match[2], number, []
        elif bare.startswith(fence) and not bare.strip(fence[0]):
            yield Block(tag, opened, tuple(held))
            fence = ""
        else:
            held.append(line)
    if fence:
        raise ValueError(f"line {opened}: the block is never closed")


def commands(text: str) -> Iterator[tuple[int, str]]:
    """Line number and command, for every command in a text's blocks."""
    for block in blocks(text):
        if block.tag in OTHER_TAGS:
            continue
        if block.tag not in COMMAND_TAGS:
            raise ValueError(
                f"line {block.line}: the tag {block.tag!r} is none of "
                f"{', '.join(sorted(COMMAND_TAGS | OTHER_TAGS))}"
            )
        pending: list[str] = []
        first = 0
        for number, line in enumerate(block.lines, block.line + 1):
            bare = line.strip()
            if not pending:
                first = number
                if block.tag == "console":
                    if not bare.startswith("$ "):
                        continue
                    bare = bare.removeprefix("$ ")
                elif not bare or bare.startswith("#"):
                    continue
            elif block.tag == "console":
                bare = bare.removeprefix("> ")
            pending.append(bare.removesuffix("\\").strip())
            if not bare.endswith("\\"):
                yield first, without_comment(" ".join(pending))
                pending = []
        if pending:
            raise ValueError(f"line {first}: the command goes on after the block's end")


def without_comment(command: str) -> str:
    """The command without a comment at its end (a ``#`` after a space and outside quotes)."""
    quote = ""
    for position, character in enumerate(command):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and command[:position].endswith(" "):
            return command[:position].rstrip()
    return command


def runner_is_missing(command: str, runner: str) -> str:
    """What is wrong with an entry of RUN_BY; empty when it is right."""
    path_text, _, test = runner.partition("::")
    path = CHECKOUT / path_text
    if not path.is_file():
        return f"{path_text} does not exist"
    source = path.read_text(encoding="utf-8")
    if not test:
        return "" if command in source else f"{path_text} does not contain {command!r}"
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == test:
            skipped = any("mark.skip" in ast.unparse(mark) for mark in node.decorator_list)
            return f"{runner} is skipped" if skipped else ""
    return f"{path_text} has no {test}"


def slugs(text: str) -> set[str]:
    """The anchors that a Markdown text's headings get on GitHub and its like."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", without_blocks(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found


def without_blocks(text: str) -> str:
    """The text without its fenced blocks, in which nothing is a link or a heading."""
    hidden: set[int] = set()
    for block in blocks(text):
        hidden.update(range(block.line, block.line + len(block.lines) + 2))
    kept = [line for number, line in enumerate(text.splitlines(), 1) if number not in hidden]
    return "\n".join(kept)


def broken_links(document: Path) -> list[str]:
    """Every relative link of a document that leads nowhere."""
    raw = document.read_text(encoding="utf-8")
    # Nor is anything in a code span a link.
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "code", without_blocks(raw))
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", text)
    targets += re.findall(r"^\s*\[[^\]]+\]:\s*<?(\S+?)>?\s*$", text, re.MULTILINE)
    targets += re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
    broken = []
    for target in targets:
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue  # another place: no test asks the network
        path_text, _, anchor = target.partition("#")
        path = (document.parent / path_text).resolve() if path_text else document
        if not path.exists():
            broken.append(f"{document.name}: {target}: there is no {path_text}")
        elif anchor and path.suffix == ".md" and anchor not in slugs(path.read_text("utf-8")):
            broken.append(f"{document.name}: {target}: there is no heading for #{anchor}")
    return broken


def test_every_command_that_is_to_be_typed_is_run() -> None:
    for page in TYPED:
        found = list(commands(page.read_text(encoding="utf-8")))
        unknown = [f"{page.name}:{line}: {one}" for line, one in found if one not in RUN_BY]
        assert not unknown, "in no table of tests/test_docs.py:\n" + "\n".join(unknown)
        assert found, f"{page.name} has no command at all"


def test_nobody_is_told_to_install_hwsync_by_its_name() -> None:
    """It is on no package index, so there the name belongs to whoever takes it."""
    by_name = re.compile(
        r"\bpip3?\b[^\n`]*?\b(?:install|download|wheel)\b[^\n`]*?(?<![\w./:-])hwsync(?![\w./-])"
    )
    assert by_name.search("sudo pip install 'hwsync[tls]'")
    assert by_name.search("/opt/hwsync/bin/pip3 install --no-deps hwsync paho-mqtt")
    assert not by_name.search("/opt/hwsync/bin/pip install '/path/to/hwsync[tls]'")
    places = [*DOCUMENTS, *(CHECKOUT / "scripts").iterdir(), *(CHECKOUT / "hwsync").rglob("*.*")]
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path in places
        if path.is_file() and path.suffix != ".pyc"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if by_name.search(line) or "pypi.org/project/hwsync" in line
    ]
    assert not found, "\n".join(found)


def test_every_entry_is_in_a_page() -> None:
    found = {command for page in TYPED for _, command in commands(page.read_text(encoding="utf-8"))}
    assert not RUN_BY.keys() - found, "no longer in any of TYPED"


def test_who_runs_a_command_exists() -> None:
    wrong = [
        f"{command}: {reason}"
        for command, runner in RUN_BY.items()
        if (reason := runner_is_missing(command, runner))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_difference_of_a_program_is_tested_as_one() -> None:
    """A line of docs/device.md may hold several; each line, and each part of the last, has some."""
    text = (CHECKOUT / "docs/device.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"What differs:\n\n((?:[- ] .*\n)+)", text)
    items = [" ".join(item.split()) for item in re.split(r"^- ", listed, flags=re.MULTILINE)[1:]]
    warm = items.pop()
    assert warm.startswith("Warm only: ")
    for item in (*items, *warm.removeprefix("Warm only: ").split("; ")):
        assert any(item.startswith(words) for words in DIFFERENCES), f"no test for: {item}"
    missing = [words for words in DIFFERENCES if " ".join(listed.split()).count(words) != 1]
    assert not missing, "no longer in docs/device.md, or twice"
    tests = [test if "::" in test else f"{CONFORMANCE}::{test}" for test in DIFFERENCES.values()]
    wrong = [reason for test in tests if (reason := runner_is_missing("", test))]
    assert not wrong, "\n".join(wrong)


def glossary() -> list[tuple[str, str]]:
    """The words of the glossary, in its order, and what it says of each."""
    return re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|", GLOSSARY.read_text("utf-8"), re.MULTILINE)


def pages_of_help(command: click.Command, parent: click.Context | None = None) -> Iterator[str]:
    """``--help`` of a command, and of all below it."""
    context = (
        context_of(command, "hwsync")
        if parent is None
        else click.Context(command, parent, info_name=command.name)
    )
    yield command.get_help(context)
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        below = command.get_command(context, name)
        assert below is not None
        yield from pages_of_help(below, context)


def test_the_glossary_has_each_word_once_in_order_and_says_it_in_a_sentence() -> None:
    words = [word for word, _ in glossary()]
    assert words == sorted(set(words), key=str.lower)
    long = [word for word, meaning in glossary() if ". " in meaning or meaning.endswith(".")]
    assert not long


def test_the_glossary_has_the_words_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        device_daemon(["--help"])
    text = " ".join([*pages_of_help(cli), capsys.readouterr().out]).lower()
    used = {word.removesuffix("s") for word in re.findall("[a-z]+", text)}
    unused = {word for word in TERMS_OF_HELP if word.removesuffix("s") not in used}
    assert not unused, "no longer in any --help"
    assert not TERMS_OF_HELP - {word for word, _ in glossary()}, "not in docs/glossary.md"


def test_the_help_calls_a_board_a_board() -> None:
    """``user`` is an option of a board's name, and the login in a file; else nobody is one."""
    for page in pages_of_help(cli):
        words = re.sub(r"--user \S+", "", page).replace("two lines: user, password", "")
        assert not re.search(r"\busers?\b", " ".join(words.split()), re.IGNORECASE), page


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []


def test_commands_are_found_in_both_kinds_of_block() -> None:
    text = (
        "```console\n$ scripts/demo\n0 rest\n$ mosquitto_pub -q 1 \\\n>   -t 'hw/pi1/#'\n```\n"
        "- in a list:\n  ```sh\n  # a remark\n  hwsync run pi1 \\\n    x.py  # another\n  ```\n"
        "````text\n```sh\nno command\n```\n````\n"
    )
    assert list(commands(text)) == [
        (2, "scripts/demo"),
        (4, "mosquitto_pub -q 1 -t 'hw/pi1/#'"),
        (10, "hwsync run pi1 x.py"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nhwsync up\n```\n", "the tag '' is none of"),
        ("```bash\nhwsync up\n```\n", "the tag 'bash' is none of"),
        ("```sh\nhwsync up\n", "line 1: the block is never closed"),
        ("```sh\nhwsync \\\n```\n", "line 2: the command goes on"),
    ],
)
def test_a_block_that_could_hide_a_command_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        list(commands(text))


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ("tests/no_such.py::test_x", "does not exist"),
        ("tests/test_docs.py::test_no_such", "has no test_no_such"),
        ("tests/test_docs.py::skipped_for_the_test_above", "has no skipped"),
        ("scripts/check", "does not contain"),
    ],
)
def test_an_entry_that_names_nobody_is_found(runner: str, said: str) -> None:
    assert said in runner_is_missing("hwsync up --no-such-option", runner)


def test_an_entry_that_names_somebody_is_accepted() -> None:
    here = "tests/test_docs.py::test_an_entry_that_names_somebody_is_accepted"
    assert runner_is_missing("scripts/test", here) == ""
    assert runner_is_missing("scripts/test", ".ci/run") == ""


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    other = tmp_path / "other.md"
    other.write_text(
        "# The `table`, and 2. more\n\n## Same\n\n## Same\n\n```text\n# Not one\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#the-table-and-2-more) [c](other.md#same-1) [d](#here)\n"
        "[e](https://example.org/nowhere) `[f](no-code.md)` [g](gone.md) [h](other.md#not-one)\n"
        "[i][r] ![j](gone.png)\n\n[r]: gone-too.md\n\n# Here\n\n```text\n[k](no-block.md)\n```\n"
    )
    assert [line.split(": ")[1] for line in broken_links(page)] == [
        *("gone.md", "other.md#not-one", "gone.png", "gone-too.md")
    ]


def test_every_function_of_the_ways_of_a_message_is_there() -> None:
    """In their order, and nothing else: ``tests/unit/test_ways.py``."""
    for file, name in {step for way in ways.listed() for step in way}:
        tree = ast.parse((CHECKOUT / "hwsync" / file).read_text())
        for part in name.split("."):
            found = [node for node in tree.body if getattr(node, "name", None) == part]
            assert found, f"{file} has no {name}: docs/architecture.md, Four ways"
            tree = found[0]
