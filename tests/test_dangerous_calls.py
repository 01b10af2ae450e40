"""What hwsync's source never does: SQL with values in its text or outside of its modules, code from
data, a shell.

The law is in the tables below; the rest walks the syntax tree of every module. What stands in
``ALLOWED`` is allowed there only, for the reason beside it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "hwsync"

# Calls by their name, and modules whose every use is meant.
CALLS = frozenset({"eval", "exec", "compile", "__import__", "os.system", "os.popen"})
MODULES = frozenset({"pickle", "marshal", "shelve", "yaml", "dill", "cPickle"})
# What writes to the terminal. Everything but these goes through hwsync.logs.escape.
PRINTS = re.compile(
    r"(print|click\.(echo|secho|style|prompt)|sys\.(stdout|stderr)\.write|.*\.print_exc)$"
)

ALLOWED = {
    ("hwsync.runner.execute", "compile"): "a program is code, and this is where it runs",
    ("hwsync.runner.execute", "exec"): "a program is code, and this is where it runs",
    ("hwsync.runner.server", "__import__"): "the modules that a board's configuration preloads",
    ("hwsync.analysers.inside", "compile"): "a teacher's analyser is code, in a process of its own",
    ("hwsync.analysers.inside", "exec"): "a teacher's analyser is code, in a process of its own",
    ("hwsync.testing.switched_off", "compile"): "a safeguard's own text, switched off for a test",
    ("hwsync.testing.switched_off", "exec"): "a safeguard's own text, switched off for a test",
    ("hwsync.runner.execute", "print"): "in a program's process, whose streams are captured",
    ("hwsync.runner.server", "sys.stderr.write"): "the last word of a fork server that failed",
    ("hwsync.cli.say", "click.echo"): "escaped there, or ASCII",
    ("hwsync.cli.say", "sys.stderr.write"): "a line of progress, escaped there",
    ("hwsync.device.checking", "print"): "escaped there, or ASCII",
    ("hwsync.device.service", "print"): "escaped there",
}

SQL = re.compile(
    r"\s*(select|insert|update|delete|replace|pragma|alter|create|drop|attach|vacuum)\b.*", re.I
)
# What may stand in the text of SQL beside constants: names of tables and columns of our own.
SQL_NAMES = (
    re.compile(r"_?[A-Z][A-Z_]*"),
    re.compile(r"', '\.join\([A-Z]+\)"),
)
SQL_ALLOWED = {
    ("hwsync.store.statements", "table(model)"): "a model's own name",
    ("hwsync.store.statements", "', '.join(names)"): "a model's columns",
    ("hwsync.store.statements", "marks"): "question marks",
    ("hwsync.store.original", "_quoted(table)"): "the original has a table for each of its users",
    ("hwsync.device.sealed", "where"): "constants of the journal; values are parameters",
    ("hwsync.device.sealed", "', '.join('?' * (len(COLUMNS) + 1))"): "question marks",
    ("hwsync.device.sealed", "', '.join((f'{name} = excluded.{name}' for name in COLUMNS))"):
        "columns of our own",
}  # fmt: skip


# Where SQL stands: the store's statements and its older schemas, the original's databases,
# and the device's journal.
SQL_OWNERS = frozenset(
    {
        *("hwsync.store.statements", "hwsync.store.migrations", "hwsync.store.original"),
        *("hwsync.device.sealed", "hwsync.device.checking"),
    }
)


@cache
def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def found(module: str, source: str) -> Iterator[tuple[str, str]]:
    """(what, a line for people) of everything in a module that is in a table above."""
    for node in ast.walk(ast.parse(source)):
        where = f"{module}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS or PRINTS.match(name) or name.partition(".")[0] in MODULES:
                yield name, f"{where} calls {name}"
            if any(one.arg == "shell" for one in node.keywords):
                yield "shell", f"{where} starts a shell"
            first = node.args[0] if node.args else None
            if name.rpartition(".")[2].startswith("execute") and isinstance(first, ast.Call):
                yield "format", f"{where}: SQL that is made by {ast.unparse(first.func)}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            base = [getattr(node, "module", None) or ""]
            for name in [*base, *(one.name for one in node.names)]:
                if name.partition(".")[0] in MODULES:
                    yield name, f"{where} imports {name}"
        elif isinstance(node, ast.JoinedStr):
            yield from _of_text(where, node)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
            text = node.left.value if isinstance(node.left, ast.Constant) else None
            if isinstance(text, str) and SQL.match(text):
                yield "SQL", f"{where}: SQL that is put together"


def is_sql(text: str) -> bool:
    """A sentence for people may begin with such a word; SQL has one of these as well."""
    return bool(
        SQL.match(text) and re.search(r"\b(from|into|set|pragma|table)\b", text, re.IGNORECASE)
    )


def _of_text(where: str, text: ast.JoinedStr) -> Iterator[tuple[str, str]]:
    words = "".join(str(one.value) for one in text.values if isinstance(one, ast.Constant))
    if not is_sql(words):
        return
    for one in text.values:
        if isinstance(one, ast.FormattedValue):
            value = ast.unparse(one.value)
            if not any(pattern.fullmatch(value) for pattern in SQL_NAMES):
                yield value, f"{where}: {value} in the text of SQL; make it a parameter"


def sql_in(source: str) -> list[int]:
    """The lines of a module where SQL stands; docstrings are for people."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
        and is_sql(node.value)
    ]


def violations(module: str, source: str) -> list[str]:
    allowed = ALLOWED.keys() | SQL_ALLOWED.keys()
    return [line for what, line in found(module, source) if (module, what) not in allowed]


@pytest.mark.parametrize("module", modules())
def test_nothing_dangerous_is_called(module: str) -> None:
    assert violations(module, modules()[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", sorted(modules().keys() - SQL_OWNERS))
def test_sql_stands_with_its_owners(module: str) -> None:
    assert sql_in(modules()[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", sorted(SQL_OWNERS))
def test_an_owner_of_sql_has_some(module: str) -> None:
    """And so the walk above finds what it looks for."""
    assert sql_in(modules()[module].read_text(encoding="utf-8"))


def test_what_is_allowed_is_still_there() -> None:
    """An entry without its call would allow a later one."""
    used = {
        (module, what)
        for module, path in modules().items()
        for what, _ in found(module, path.read_text(encoding="utf-8"))
    }
    assert used >= ALLOWED.keys() | SQL_ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)", "exec(x)", "compile(x, '', 'exec')", "__import__(x)", "import pickle",
        "from pickle import loads", "from yaml import load", "yaml.load(x)", "marshal.loads(x)",
        "os.system(x)", "os.popen(x)", "subprocess.run(x, shell=True)", "f(x, shell=flag)",
        "db.execute(f'SELECT * FROM t WHERE user = {user}')",
        "db.execute(f\"delete from entries where id = '{id}'\")",
        "db.execute('SELECT * FROM t WHERE user = %s' % user)",
        "db.execute('SELECT * FROM t WHERE user = ' + user)",
        "db.execute('SELECT * FROM t WHERE user = {}'.format(user))",
        "sql = f'PRAGMA table_info({name})'", "print(x)", "click.echo(x)", "sys.stdout.write(x)",
        "traceback.print_exc()",
    ],
)  # fmt: skip
def test_what_is_dangerous_is_found(source: str) -> None:
    assert len(violations("hwsync.coordinator.loop", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "db.execute('SELECT * FROM t WHERE user = ?', (user,))",
        "db.execute(f'PRAGMA user_version = {SCHEMA}')",
        "sql = f'SELECT {\", \".join(HASHED)} FROM transitions'",
        "raise Error(f'select {path}')",
        "re.compile(x)", "record.execute()", "model.loads(x)", "log.info('eval(%s)', x)",
    ],
)  # fmt: skip
def test_what_is_harmless_is_not_complained_of(source: str) -> None:
    assert violations("hwsync.coordinator.loop", source) == []
