"""What ``--help`` says beside each command's own words: groups, summaries, examples, exit codes.

The law: each command has one summary, which fits a line of 80 columns, and an example that can be
typed as it stands. Options of the connection are shown once, by ``hwsync --help``.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

import click

SECTIONS: Final = {
    "Run programs": ("run", "send", "get", "wait", "logs", "cancel", "analyse"),
    "See what is going on": ("status", "why", "modules", "doctor"),
    "See what happened": ("history", "show", "grades", "regrade", "export", "sync"),
    "Prove it": ("replay", "receipt", "verify"),
    "Put something right": ("reset", "forget"),
    "Make a lab": ("up", "init", "device", "operator", "group", "key"),
    "Keep it running": (
        *("service", "coordinator", "analyst", "broker", "backup", "restore", "check-db"),
        "import-original",
    ),
    "This terminal": ("completion",),
}
"""The commands, in the order in which they are listed."""

SUMMARIES: Final = {
    "run": "Run a program on a board: its output here, its exit code.",
    "send": "Have a program run, and do not wait for it.",
    "get": "Fetch the files that a run has left.",
    "wait": "Wait until a command has ended.",
    "logs": "The output of a board's program, or of a command.",
    "cancel": "Take a program back, or end it.",
    "analyse": "Say what a result is worth.",
    "status": "Which boards there are, what they do, and one in full.",
    "why": "Why something is as it is, and what to do.",
    "modules": "What programs can import on a board.",
    "doctor": "Look at every part, and say what is wrong.",
    "history": "What was run, and what became of it: one line a run.",
    "show": "One run: how it ended, its output, its program.",
    "grades": "Who has passed: one line for each, out of the history.",
    "regrade": "Judge stored results anew; no board is touched.",
    "export": "The history as CSV or JSON, for other programs.",
    "replay": "Run the program of an earlier run again.",
    "receipt": "A file that proves one run.",
    "verify": "Check such a file, without database or network.",
    "sync": "How far apart boards began that began together.",
    "reset": "Bring a board to rest, whatever it does.",
    "forget": "Forget a board whose name was a typing error.",
    "up": "Start everything on this machine, for the first minutes.",
    "init": "Make a lab that lets nobody in but its accounts.",
    "device": "The boards of a lab: accounts, and files for each.",
    "operator": "The people of a lab: accounts and rights.",
    "group": "Names for several boards of a lab, such as @lab1.",
    "key": "Keys for signed commands.",
    "service": "The parts as systemd units on this machine.",
    "coordinator": "Run the coordinator, which keeps the record.",
    "analyst": "Judge results with a folder of analysers.",
    "broker": "Serve a broker.conf without mosquitto.",
    "backup": "Copy the database, also while it is used.",
    "restore": "Put a backup in the database's place.",
    "check-db": "Look for damage and foreign changes in the database.",
    "import-original": "Take over what the original system has recorded.",
    "completion": "Have the shell complete commands, boards and ids.",
}

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "run": (
        "hwsync run pi1 blink.py",
        "hwsync run pi1 --timeout 60 blink.py --speed 2",
        "hwsync run pi1,pi2 -c 'print(6*7)'",
        "hwsync run @lab1 --together blink.py",
        "hwsync run pi1 --with data.csv --get plot.png exp.py",
    ),
    "send": ("hwsync send pi1 blink.py", "hwsync send --queue pi1 blink.py"),
    "get": ("hwsync get cli-4c1b2f8a90d3e7f1", "hwsync get cli-4c1b2f8a90d3e7f1 'plot*.png'"),
    "wait": ("hwsync wait cli-4c1b2f8a90d3e7f1",),
    "logs": ("hwsync logs pi1 -f",),
    "cancel": (
        "hwsync cancel pi1",
        "hwsync cancel pi1 cli-4c1b2f8a90d3e7f1",
        "hwsync cancel @lab1",
    ),
    "analyse": ("hwsync analyse pi1 'well done'",),
    "status": ("hwsync status", "hwsync status pi1", "hwsync status @lab1 --watch"),
    "why": ("hwsync why pi1", "hwsync why cli-4c1b2f8a90d3e7f1", "hwsync why @lab1"),
    "modules": (
        "hwsync modules pi1",
        "hwsync modules pi1 numpy gpiozero",
        "hwsync modules pi1 --packages",
    ),
    "doctor": ("hwsync doctor", "hwsync doctor pi1"),
    "history": (
        "hwsync history pi1",
        "hwsync history --since 2d --outcome error,timeout",
        "hwsync history --by anna --meta course=1b",
    ),
    "show": (
        "hwsync show cli-4c1b2f8a90d3e7f1",
        "hwsync show cli-4c1b2f8a90d3e7f1 --output > out.txt",
        "hwsync show @lab1",
    ),
    "grades": (
        "hwsync grades --meta assignment=lab3",
        "hwsync grades --meta assignment=lab3 --until 23:59 --csv > lab3.csv",
        "hwsync grades @lab1 --by student --analyser check1",
    ),
    "regrade": ("hwsync regrade --meta assignment=lab3 --analyser check2 --dir analysers/",),
    "export": (
        "hwsync export --since 2026-09-01 --meta course=1b > course.csv",
        "hwsync export --numbers --meta exp=heat > numbers.csv",
    ),
    "replay": (
        "hwsync replay cli-4c1b2f8a90d3e7f1",
        "hwsync replay cli-4c1b2f8a90d3e7f1 --on pi2",
    ),
    "receipt": ("hwsync receipt cli-4c1b2f8a90d3e7f1 -o run.json",),
    "verify": ("hwsync verify run.json", "hwsync verify run.json --trust ed25519:KEY"),
    "sync": ("hwsync sync hello-1", "hwsync sync hello-1 --save starts.png"),
    "reset": ("hwsync reset pi1", "hwsync reset @lab1", "hwsync reset --all"),
    "forget": ("hwsync forget pj1",),
    "up": ("hwsync up", "hwsync up --analysers analysers/", "hwsync up --lan"),
    "init": ("hwsync init /etc/hwsync --host lab.local",),
    "device": (),
    "device add": ("hwsync device add pi1 pi2",),
    "device remove": ("hwsync device remove pi1",),
    "device rotate": ("hwsync device rotate pi1",),
    "device list": ("hwsync device list",),
    "operator": (),
    "operator add": (
        "hwsync operator add anna --boards pi1,pi2",
        "hwsync operator add teacher --boards all --history --analyse",
    ),
    "operator change": ("hwsync operator change anna --groups lab1",),
    "operator remove": ("hwsync operator remove anna",),
    "operator rotate": ("hwsync operator rotate anna",),
    "operator list": ("hwsync operator list",),
    "group": (),
    "group set": ("hwsync group set lab1 pi1 pi2 'bench-*'",),
    "group remove": ("hwsync group remove lab1",),
    "group list": ("hwsync group list",),
    "key": (),
    "key make": ("hwsync key make signing.key",),
    "key show": ("hwsync key show signing.key",),
    "key list": ("hwsync key list",),
    "key trust": ("hwsync key trust ed25519:KEY",),
    "key revoke": ("hwsync key revoke ed25519:KEY",),
    "key rotate": ("hwsync key rotate",),
    "service": (),
    "service install": (
        "hwsync service install broker coordinator",
        "hwsync service install device pi1",
        "hwsync service install analyst check",
    ),
    "service uninstall": ("hwsync service uninstall device pi1",),
    "service status": ("hwsync service status",),
    "coordinator": ("hwsync coordinator --keep-days 90",),
    "analyst": ("hwsync analyst --dir analysers/",),
    "analyst add": ("hwsync analyst add check",),
    "analyst list": ("hwsync analyst list",),
    "analyst remove": ("hwsync analyst remove check",),
    "analyst rotate": ("hwsync analyst rotate check",),
    "broker": ("hwsync broker broker.conf",),
    "backup": ("hwsync backup lab.db",),
    "restore": ("hwsync restore lab.db",),
    "check-db": ("hwsync check-db",),
    "import-original": ("hwsync import-original hw_status.db hw_status_archive.db --dry-run",),
    "completion": (),
    "completion install": ("hwsync completion install", "hwsync completion install fish"),
    "completion show": ("hwsync completion show zsh",),
}
"""By command, what a person may type; each is a line."""

EXIT_CODES: Final = (
    ("0", "it was done; run: the program ended with 0"),
    ("1", "refused, or not found; of several boards: not all ended ok"),
    ("2", "wrong usage: nothing was asked"),
    ("3", "another coordinator serves this lab already"),
    ("74", "the output cannot be written here"),
    ("124", "run: the program's time was over"),
    ("125", "nobody answers; run: it did not run, or nobody knows"),
    ("130", "run: it was cancelled; else: Ctrl-C"),
    ("141", "nobody reads the output any more"),
    ("128 + n", "run: the program was ended by signal n"),
    ("any other", "run: the program's own exit code"),
)

JSON_LINES: Final = {
    "run": "the command's end, with the fields of a status or result (protocol.md, sections 1 and "
    "3); of several boards one for each, with `user`, `refused` and `message`, and last `batch`, "
    "`target`, `counts`, `spread`",
    "send": "the status that acknowledged it; of several boards as `run`",
    "cancel": "the status, or the result of a command that is not the present one",
    "analyse": "the same",
    "reset": "the status; of a group `target`, `stopped`, `left`",
    "status": "the status, with `online` (true, false, null: nobody can say) and `clock` of the "
    "heartbeat; of a group `group`, `batch`, `members`",
    "why": "`board`, `id`, `happened`, `waits_for`, `ran`, `do`, and `kind`, the cause: {kinds}; "
    "of a group one for each board that is not ok, where `kind` may also be a refusal's code",
    "modules": "`board`, `python`, `modules`: by name the version (empty: not known), or null "
    "where it cannot be imported",
    "doctor": "one for each finding: `check`, `result` (`ok`, `warning`, `error`), `found`, `cure`",
    "wait": "the command's end, as `run`; of several boards one for each",
    "history": "a row (protocol.md, section 10), and `user`; with `--log` a change of the record, "
    "or a refused message",
    "show": "all fields of a result, and `asked_by`; of several boards one for each, as `run`; "
    "with `--db` who asked, and its `history`",
    "grades": "a line of the table, with the columns of history.md, without `time`",
    "regrade": "a run that was judged anew: `board`, `id`, `asker`, `old` and `new` (as in a row's "
    "`verdicts`: protocol.md, section 10), `changed`, `published`",
    "export": "as `--jsonl`: the columns of history.md",
    "replay": "as `run`",
    "receipt": "`receipt`, `run`, `rows`, `steps`, `head`, and `signed` where a key was there",
    "verify": "`verified`, and `run`, `head`, `proved`, `not_proved`, or `message`: what is wrong",
    "sync": "`id`, `spread`, and `starts`: one for each board",
    "forget": "`forgotten`, `online`",
    "backup": "what was copied, and where to",
    "restore": "`restored`, `epoch`, `open`, `aside`",
    "check-db": "one for each finding: `found`",
    "import-original": "one for each user there: `board`, `user`, and counts",
    "device, operator, analyst, group, key": "of a change `done`, `files`, `missing`, `gains`; of "
    "a list one line for each",
    "service": "one for each unit",
    "completion": "`shell`, `file`, `start`",
}
"""By command, what ``--json`` prints."""

CONNECTION: Final = (
    *("broker", "root", "credentials", "config", "profile", "ca", "certificate", "key"),
    "allow_plaintext",
)
"""The options that are shown once."""
ONCE: Final = "Options of the connection, and exit codes: hwsync --help"


def finish(command: click.Command, path: str) -> click.Command:
    """The command with its examples, and its commands with theirs."""
    lines = EXAMPLES.get(path, ())
    connects = False
    for option in command.params:
        if option.name in CONNECTION and isinstance(option, click.Option):
            option.hidden = connects = True
    if lines:
        head = "Example:" if len(lines) == 1 else "Examples:"
        command.epilog = "\n".join(["\b", head, *(f"  {line}" for line in lines)])
        command.epilog += f"\n\n{ONCE}" if connects else ""
    elif connects:
        command.epilog = ONCE
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            finish(one, f"{path} {name}")
    return command


def write_commands(formatter: click.HelpFormatter, there: Container[str]) -> None:
    """All commands that are ``there``, in their groups."""
    for title, names in SECTIONS.items():
        rows = [(name, SUMMARIES[name]) for name in names if name in there]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows, col_max=12)


def write_exit_codes(formatter: click.HelpFormatter) -> None:
    """The table of them."""
    with formatter.section("Exit codes"):
        formatter.write_dl(EXIT_CODES, col_max=12)
