"""The process ``hwsync-device``: its options, its signals, and one life after the other."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from hwsync import __version__, connection, logs
from hwsync.device.config import DEFAULT_FILE, STOP_S, Config, load
from hwsync.device.life import Process, Reload, Setup, live
from hwsync.device.no_journal import AnyJournal, open_journal
from hwsync.device.trust import Trust
from hwsync.logs import escape
from hwsync.notify import Notifier
from hwsync.orders import listening
from hwsync.paths import state_directory
from hwsync.protocol import limits
from hwsync.protocol.errors import HwsyncError, UsageError
from hwsync.protocol.topics import DEFAULT_ROOT, Topics
from hwsync.transport import Waker

log = logging.getLogger("hwsync.device")

OWN_VARIABLES: Final = frozenset(
    {
        *("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "INVOCATION_ID"),
        *("WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID"),
    }
)
"""What systemd tells the daemon, and no program."""

OPTIONS: Final = (
    *("user", "broker", "root", "state_dir", "credentials", "allow_root"),
    *("ca", "certificate", "key", "allow_plaintext"),
)
"""Those that are called like their key."""


def _for_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment without what is for it alone, such as the broker's password."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("HWSYNC_") and name not in OWN_VARIABLES
    }


def _configured(options: argparse.Namespace) -> tuple[Config, Setup]:
    """The configuration, and what it means. Raises ``HwsyncError``."""
    given = {name: getattr(options, name) for name in OPTIONS}
    given["max_timeout_s"] = options.max_timeout
    given["programs.directory"] = options.directory
    config = load(options.config, given)
    user = config.get("user", socket.gethostname())
    if not limits.is_user(user):
        raise UsageError(
            f"{user!r} is no board's name ({limits.USER_FORM})", "choose one with --user"
        )
    if os.geteuid() == 0 and not config.get("allow_root") and not config.get("programs.run_as"):
        raise UsageError(
            "started as root: every program sent here would run as root",
            "start it as an ordinary user, name an account for programs with run_as in the "
            "configuration, or allow it with --allow-root",
        )
    low, high = limits.TIMEOUT_S
    if options.max_timeout is not None and not low <= options.max_timeout <= high:
        raise UsageError(f"--max-timeout must be {low:.12g} to {high:.12g} seconds")
    url = connection.broker(config)
    state = Path(config.get("state_dir") or state_directory("--state-dir", f"device-{user}"))
    return config, Setup(
        user,
        url,
        Topics(config.get("root", DEFAULT_ROOT)),
        state,
        config.settings(state, _for_programs(os.environ)),
        config.get("max_timeout_s"),
        config.get("stop_s", STOP_S),
        _trust(user, config.get("trust")),
        int(config.get("max_message", limits.MAX_MESSAGE)),
    )


def _trust(user: str, keys: list[str] | None) -> Trust | None:
    """An empty list trusts nobody: then nothing runs. Raises ``UsageError``."""
    return None if keys is None else Trust(user, keys)


def _check(options: argparse.Namespace) -> int:
    from hwsync.device.checking import findings, show

    config, setup = _configured(options)
    return show(findings(config, setup), as_json=options.as_json)


def _serve(options: argparse.Namespace) -> None:
    def read() -> Reload | None:
        if connection.handed_over(options.config):
            return Reload(None)
        try:
            return Reload(_configured(options)[1])
        except HwsyncError as error:
            log.error("%s; the configuration stays as it was", error)
            return None

    waker = Waker()
    # Before anything else: a signal that comes early is kept for the first life.
    with listening(waker.wake) as orders:
        _, setup = _configured(options)
        logs.setup("device", user=setup.user)
        process = Process(orders, waker, Notifier(), read)
        following: tuple[Setup, AnyJournal] | None = (setup, open_journal(setup.state))
        while following is not None:
            setup, journal = following
            if not journal.needs_reopening:
                _make(setup)
            following = live(setup, journal, process)


def _make(setup: Setup) -> None:
    """The folder of programs, and the way to it for the account that runs them."""
    directory = setup.settings.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if setup.settings.run_as and directory.parent == setup.state:
            os.chmod(setup.state, 0o711)  # what else is in it is closed by itself
    except OSError as error:
        raise UsageError(
            f"programs cannot run in {directory}: {error.strerror}",
            "name a folder with --directory",
        ) from None


class _Parser(argparse.ArgumentParser):
    """Says an argument that was not meant without what a terminal would obey."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))


def main(argv: Sequence[str] | None = None) -> int:
    """``hwsync-device``; returns the exit code."""
    parser = _Parser(
        prog="hwsync-device", description="Run the programs that hwsync sends to this board."
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help=f"default {DEFAULT_FILE}, where it exists")
    add("--check", action="store_true", help="say what it would do and whether that works, and end")
    add("--json", dest="as_json", action="store_true", help="with --check: one object a line")
    add("--user", metavar="BOARD", help="this board's name (default: the host's)")
    add("--broker", metavar="URL", help="or HWSYNC_BROKER; default mqtt://127.0.0.1:1883")
    add("--root", help="of the topics, default hw; or HWSYNC_ROOT")
    state = "for the journal; default $STATE_DIRECTORY, else ~/.local/state/hwsync/device-BOARD"
    add("--state-dir", type=Path, metavar="DIR", help=state)
    add("--credentials", type=Path, metavar="FILE", help="two lines: user, password")
    ca = "PEM: the authority that signed the broker's certificate; or HWSYNC_CA"
    add("--ca", metavar="FILE", help=ca)
    own = "PEM: our own, for a broker that asks for one; or HWSYNC_CERT"
    add("--cert", dest="certificate", metavar="FILE", help=own)
    add("--key", metavar="FILE", help="PEM: its private key; or HWSYNC_KEY")
    plain = "let a password go to another machine without TLS"
    add("--allow-plaintext", action="store_true", help=plain)
    add("--directory", type=Path, metavar="DIR", help="where programs run; default STATE-DIR/work")
    add("--max-timeout", type=float, metavar="SECONDS", help="no program runs longer on this board")
    add("--allow-root", action="store_true", help="run programs as root, if started as root")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(argv)
    logs.setup("device")
    try:
        if options.check:
            return _check(options)
        _serve(options)
    except HwsyncError as error:
        print(escape(f"hwsync-device: {error}"), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        log.exception("hwsync-device failed; this is a bug")
        print(escape(f"hwsync-device: {type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
