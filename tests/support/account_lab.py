"""A lab as ``hwsync init`` makes it, on a real broker: accounts, two listeners with TLS, rights.

Beside its accounts there is an observer, added by hand to the broker's files, who may do all: so a
test sees what was let through wherever it went, and can say anything anywhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from hwsync.broker.access import hashed
from hwsync.lab.accounts import COORDINATOR, Accounts, OperatorRights
from hwsync.lab.folder import Folder
from tests.support.packets import Client, Login, Told
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.waiting import wait_until

OBSERVER: Final = "observer"
EVERYTHING: Final = ("#", "$SYS/#", "$hw/#")
FOLDER_MODE: Final = 0o755  # mosquitto started by root becomes another account


@contextmanager
def folder_for_broker() -> Iterator[Path]:
    """A folder that the broker's account can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="hwsync-lab-") as made:
        Path(made).chmod(FOLDER_MODE)
        yield Path(made)


def serving(kind: str, conf: Path) -> list[str]:
    """What a person types to serve that configuration."""
    if kind == "mosquitto":
        return [require_program("mosquitto", "mosquitto"), "-c", str(conf)]
    return [sys.executable, "-m", "hwsync.cli", "broker", str(conf)]


def start_broker(kind: str, conf: Path, home: Path, ports: tuple[int, ...]) -> Process:
    """Returns when it listens. ``home`` becomes its own: sessions are kept where it is started."""
    home.mkdir(exist_ok=True)
    if os.geteuid() == 0 and kind == "mosquitto":
        with contextlib.suppress(LookupError):
            shutil.chown(home, "mosquitto")
    process = Process(serving(kind, conf), directory=home, name=kind)
    wait_until(
        lambda: not process.running or all(map(_listens, ports)), what=lambda: process.account()
    )
    assert process.running, process.account()
    return process


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), 1.0).close()
    except OSError:
        return False
    return True


class AccountLab:
    """The lab in ``path``, before its broker is started."""

    def __init__(
        self,
        kind: str,
        path: Path,
        boards: tuple[str, ...],
        operators: Mapping[str, OperatorRights],
        *,
        mutual_tls: bool = False,
    ) -> None:
        self.kind, self.path = kind, path
        self.folder = Folder(path / "lab")
        self.ports = {"boards": free_port(), "operators": free_port()}
        self.folder.create(
            Accounts(("localhost",), boards_port=self.ports["boards"],
                     operators_port=self.ports["operators"], mutual_tls=mutual_tls),
            None, signing=False,
        )  # fmt: skip
        for board in boards:
            self.folder.add_board(board)
        for name, operator in operators.items():
            self.folder.add_operator(name, operator)
        self.context = ssl.create_default_context(cadata=(path / "lab/ca.crt").read_text())
        self.removed = Login(None)  # of an account that was removed
        self.process: Process | None = None
        self._stack = ExitStack()

    def add_observer(self) -> None:
        """Until the next change of an account, which writes the files anew."""
        broker = self.folder.path / "broker"
        with (broker / "operators.passwords").open("a") as passwords:
            passwords.write(f"{OBSERVER}:{hashed(OBSERVER)}\n")
        with (broker / "acl").open("a") as acl:
            acl.write(f"\nuser {OBSERVER}\n")
            acl.writelines(f"topic readwrite {one}\n" for one in EVERYTHING)

    def start(self) -> None:
        self.process = start_broker(self.kind, self.folder.path / "broker.conf",
                                    self.path / "state", tuple(self.ports.values()))  # fmt: skip

    def stop(self) -> None:
        self._stack.close()
        if self.process is not None:
            self.process.stop()
            print(self.process.account())

    def login(self, account: str, listener: str = "") -> Login:
        """With the password in that account's own file; ``listener``: not the one in it."""
        if account == OBSERVER:
            return Login(OBSERVER, OBSERVER, self.ports["operators"])
        accounts = self.folder.accounts
        known = self.connection(account)
        own = "operators" if account in accounts.people else "boards"
        password = known.get("password")  # none where a certificate says who comes
        return Login(str(known["account"]), password, self.ports[listener or own])

    def connection(self, account: str) -> dict[str, Any]:
        """The account's own file."""
        return tomllib.loads(self.folder.file_of(account, self.folder.accounts).read_text())

    def passwords(self) -> set[str]:
        """All of them, as they are now."""
        accounts = self.folder.accounts
        names = (COORDINATOR, *accounts.names)
        return {str(self.connection(name)["password"]) for name in names}

    def client(
        self,
        login: Login,
        *,
        id: str = "",
        will: Told | None = None,
        clean: bool = True,
        early: bytes = b"",
        version: int = 4,
    ) -> Client:
        """Closed at the end of the lab, whatever became of it."""
        made = Client(login, self.context, id=id, will=will, clean=clean, early=early,
                      version=version)  # fmt: skip
        self._stack.callback(made.close)
        return made

    def come_in(self, account: str, **options: Any) -> Client:
        """A connection of that account, which must be let in."""
        made = self.client(self.login(account), **options)
        assert made.accepted, f"{account} is refused with {made.code}"
        return made


@contextmanager
def account_lab(
    kind: str,
    boards: tuple[str, ...],
    operators: Mapping[str, OperatorRights],
    *,
    start: bool = True,
) -> Iterator[AccountLab]:
    """One in a folder of its own, whose broker is stopped in the end; ``start``: and runs now."""
    with folder_for_broker() as path:
        made = AccountLab(kind, path, boards, operators)
        try:
            if start:
                made.start()
            yield made
        finally:
            made.stop()
