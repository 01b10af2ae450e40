"""A lab's folder, changed by one command at a time.

The law: an account's own file is written first, then what the broker is told, ``lab.json`` last: a
command that was cut off has let nobody in, and is typed again. A password is known here only while
its file is written; the broker has its hash.
"""

from __future__ import annotations

import json
import secrets
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hwsync import groups
from hwsync.broker.access import hashed
from hwsync.lab import certificates, serving, texts
from hwsync.lab.accounts import (
    COORDINATOR,
    VISITOR,
    Accounts,
    OperatorRights,
    acl,
    visitors_rights,
)
from hwsync.lab.authority import Pair, check_host, fresh_serial, revocations, sign
from hwsync.lab.certificates import Given
from hwsync.lab.files import (
    FOR_ALL,
    FOR_BROKER,
    SECRET,
    closed_to_server,
    exists,
    hand_over,
    locked,
    make_folder,
    read,
    remove,
    server,
    write,
)
from hwsync.lab.grouping import Gain, gains, with_group, without_group
from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import (
    ALL,
    NO_GROUPS,
    Groups,
    check_entry,
    check_name,
    is_pattern,
)
from hwsync.signing import SigningKey, public_key

PASSWORD_BYTES: Final = 24
READ: Final = 0o750  # of the folder from which the broker's group reads
WRITTEN: Final = 0o770  # of the one into which it writes


@dataclass(slots=True)
class Draft:
    """What one command makes of a lab."""

    accounts: Accounts
    groups: Groups = NO_GROUPS
    gains: list[Gain] = field(default_factory=list)  # what operators reach by a group since now
    groups_file: Path | None = None  # where the groups have changed
    hashes: dict[str, str] = field(default_factory=dict)  # of new passwords, by account
    written: list[Path] = field(default_factory=list)  # files that somebody has to get
    missing: list[str] = field(default_factory=list)  # accounts whose file is not here any more


@dataclass(frozen=True, slots=True)
class Visitor:
    """How somebody comes in at the operators' listener, as PEM where it is a certificate."""

    account: str
    password: str = field(repr=False)
    ca: str = field(repr=False)
    own: Pair | None = field(repr=False)


class Folder:
    """The lab in ``path``.

    Every method raises ``UsageError``: what it did until then has let nobody in, and the command is
    typed again. What a method has changed counts once the broker has read its files (``reload``),
    and where ``Draft.written`` names an account's file, once that account has it
    (docs/security.md).
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._list = self.path / "lab.json"
        self._broker = self.path / "broker"
        self._ca = self.path / "ca.crt"

    @property
    def state(self) -> Path:
        """Where the broker may write: it keeps sessions and messages where it is started."""
        return self.path / "state"

    @property
    def closed(self) -> Path | None:
        """A folder on the way to this one through which the broker's account cannot pass."""
        return closed_to_server(self.path)

    @property
    def accounts(self) -> Accounts:
        """As they are now. Raises ``UsageError`` where this is no lab."""
        if not exists(self._list):
            raise UsageError(
                f"{self.path} is no lab", "hwsync init DIR makes one; --lab DIR names another"
            )
        try:
            return Accounts.of_json(json.loads(read(self._list)))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{self._list} is no list of a lab's accounts: {error}") from None

    @property
    def groups_file(self) -> Path:
        """Of the lab's groups; it may lack."""
        return self.path / groups.NAME

    @property
    def groups(self) -> Groups:
        """As the file says now. Raises ``UsageError``."""
        return groups.load(self.groups_file, may_lack=True)

    def file_of(self, account: str, accounts: Accounts) -> Path:
        """The file that this account needs."""
        if account == COORDINATOR:
            return self.path / "coordinator.toml"
        kind = "boards" if account in accounts.boards else "operators"
        kind = "analysts" if account in accounts.analysts else kind
        return self.path / kind / f"{account}.toml"

    # -- what is done to it --------------------------------------------------------------------

    def create(self, accounts: Accounts, given: Given | None, *, signing: bool) -> Draft:
        """A new lab with these accounts.

        ``given``: the broker's certificate, where the lab's own authority is not to sign it.
        ``signing``: its coordinator signs, and its boards run nothing else.
        """
        self._is_new()
        for host in accounts.hosts:
            check_host(host)
        key = SigningKey.make() if signing else None
        if accounts.mutual_tls:
            accounts = replace(accounts, certificates={})
        if key is not None:
            accounts = replace(accounts, trust=(key.public,))
        if not exists(self.path):
            make_folder(self.path, 0o755)
        make_folder(self._broker, READ, for_broker=True)
        make_folder(self.state, WRITTEN, for_broker=True)
        for name in ("boards", "operators"):
            make_folder(self.path / name, 0o700)
        with locked(self._broker / "lock"):
            self._is_new()
            draft = Draft(accounts)
            certificates.certify(self.path, accounts, given)
            self._let_in(draft, COORDINATOR, key.secret if key else "")
            self._configure(draft.accounts)
            self._publish(draft)
            return draft

    def renew(self, hosts: tuple[str, ...], given: Given | None) -> Draft:
        """The broker's certificate anew, for these hosts (none: as before), and all files with it.

        The passwords and the lab's own authority stay. With mutual TLS of an earlier version, where
        any certificate of the lab went with any password, each account gets a new one of its own.
        """
        with self._changing() as draft:
            draft.accounts = replace(draft.accounts, hosts=hosts or draft.accounts.hosts)
            bind = draft.accounts.mutual_tls and not draft.accounts.bound
            if bind:
                draft.accounts = replace(draft.accounts, certificates={})
            for host in draft.accounts.hosts:
                check_host(host)
            certificates.certify(self.path, draft.accounts, given)
            self._configure(draft.accounts)
            if bind:
                self._bind(draft)
            self._write_again(draft)
            return draft

    def add_board(self, name: str) -> Draft:
        """An account for a board, and its file."""
        with self._changing() as draft:
            draft.accounts = draft.accounts.with_board(name)
            self._let_in(draft, name)
            return draft

    def add_operator(self, name: str, operator: OperatorRights) -> Draft:
        """An account for a person, and its file."""
        with self._changing() as draft:
            if name in draft.accounts.operators:
                raise UsageError(
                    f"there is an operator {name} already", "hwsync operator change gives rights"
                )
            self._change_rights(draft, name, operator)
            self._let_in(draft, name)
            return draft

    def add_analyst(self, name: str) -> Draft:
        """An account for a program that judges, and its file."""
        with self._changing() as draft:
            draft.accounts = draft.accounts.with_analyst(name)
            make_folder(self.path / "analysts", 0o700)  # a lab of before has none
            self._let_in(draft, name)
            return draft

    def change_operator(self, name: str, operator: OperatorRights) -> Draft:
        """Other rights, the same password: no file is written that somebody has to get."""
        with self._changing() as draft:
            if name not in draft.accounts.operators:
                raise UsageError(f"there is no operator {name}", "hwsync operator list")
            self._change_rights(draft, name, operator)
            return draft

    def remove(self, name: str) -> Draft:
        """No such account any more; a connection that it has ends."""
        with self._changing() as draft:
            file = self.file_of(name, draft.accounts)
            draft.accounts = draft.accounts.without(name)
            for group, entries in draft.groups.entries.items():
                if name in entries:
                    left = tuple(entry for entry in entries if entry != name)
                    draft.groups = draft.groups.having(group, left)
            remove(file)
            return draft

    def set_group(self, name: str, entries: tuple[str, ...]) -> Draft:
        """That group has these boards and patterns from now on."""
        check_name(name)
        with self._changing() as draft:
            for entry in entries:
                check_entry(name, entry)
                if not is_pattern(entry) and entry not in draft.accounts.boards:
                    raise UsageError(
                        f"there is no board {entry}", f"hwsync device add {entry} makes its account"
                    )
            draft.groups = draft.groups.having(name, entries)
            return draft

    def remove_group(self, name: str) -> Draft:
        """There is no such group any more; its operators lose it."""
        with self._changing() as draft:
            if name not in draft.groups.entries:
                raise UsageError(f"there is no group {name}", "hwsync group list")
            draft.groups = draft.groups.without(name)
            draft.accounts = draft.accounts.without_group(name)
            return draft

    def rotate(self, name: str) -> Draft:
        """A new password, and a new file; a connection with the old one ends.

        A coordinator whose file is lost has lost its signing key too: then it gets a new one.
        """
        with self._changing() as draft:
            accounts = draft.accounts
            if name != COORDINATOR and name not in accounts.names:
                raise UsageError(
                    f"there is no account {name}", "hwsync device list, operator list, analyst list"
                )
            lost = not exists(self.file_of(name, accounts))
            if name == COORDINATOR and accounts.trust and lost:
                key = SigningKey.make()
                draft.accounts = replace(accounts, trust=(*accounts.trust, key.public))
                self._let_in(draft, name, key.secret)
                self._write_again(draft)
                return draft
            self._let_in(draft, name, self._signing_key() if name == COORDINATOR else "")
            return draft

    @contextmanager
    def visitor(self, name: str) -> Iterator[Visitor]:
        """For so long one account more: it may take away what the broker keeps of a removed one.

        The broker has to be told, before and after. The lab is locked meanwhile.
        """
        with self._changing() as draft:
            accounts = draft.accounts
            if name in accounts.names:
                raise UsageError(f"{name} is an account of this lab", "it is to be removed first")
            password, own, identity = secrets.token_urlsafe(PASSWORD_BYTES), None, VISITOR
            if accounts.bound:
                serial = fresh_serial()
                visited = accounts.with_certificate(VISITOR, serial)
                identity = visited.identity(VISITOR)
                own = sign(certificates.clients(self.path), identity, serial=serial)
                draft.accounts = visited.without_certificate(VISITOR)
                password = ""
            elif accounts.mutual_tls:
                own = sign(certificates.authority(self.path), VISITOR)
            file = self._broker / "operators.passwords"
            if not accounts.bound:
                write(file, f"{read(file)}{VISITOR}:{hashed(password)}\n", FOR_BROKER)
            rights = acl(accounts, draft.groups) + visitors_rights(accounts, identity, name)
            write(self._broker / "acl", rights, FOR_BROKER)
            try:
                yield Visitor(VISITOR, password, read(self._ca), own)
            finally:
                self._publish(draft)

    def trust(self, key: str) -> Draft:
        """Boards run what this key signed, too; each needs its new file."""
        public_key(key)
        with self._changing() as draft:
            others = tuple(one for one in draft.accounts.trust if one != key)
            draft.accounts = replace(draft.accounts, trust=(*others, key))
            self._write_again(draft)
            return draft

    def revoke(self, key: str) -> Draft:
        """Boards run nothing any more that this key signed; each needs its new file."""
        public_key(key)
        with self._changing() as draft:
            if key not in draft.accounts.trust:
                raise UsageError(f"{key[:80]} is not trusted here", "hwsync key list")
            if self._signs_with(key):
                raise UsageError(
                    "this is the key with which the coordinator signs", "first: hwsync key rotate"
                )
            trust = tuple(one for one in draft.accounts.trust if one != key)
            if not trust:
                raise UsageError(
                    "boards trust no other key, and would run what nobody signed",
                    "first: hwsync key rotate",
                )
            draft.accounts = replace(draft.accounts, trust=trust)
            self._write_again(draft)
            return draft

    def rotate_key(self) -> Draft:
        """A new key for the coordinator; boards trust it beside the ones before."""
        with self._changing() as draft:
            file = self.file_of(COORDINATOR, draft.accounts)
            if not exists(file):
                raise UsageError(f"{file} is not here, and its signing key with it",
                                 "first: hwsync device rotate coordinator")  # fmt: skip
            key = SigningKey.make()
            draft.accounts = replace(draft.accounts, trust=(*draft.accounts.trust, key.public))
            self._write_again(draft, key.secret)
            return draft

    def hand_over(self) -> bool:
        """Let the account read that serves now, where the lab is older; False: it may already."""
        if not exists(self._list):
            return False
        with locked(self._broker / "lock"):
            mine = [(self._broker, READ), (self.state, WRITTEN)]
            mine += [(file, FOR_BROKER) for file in self._broker.iterdir() if file.name != "lock"]
            given = [hand_over(path, mode) for path, mode in mine if exists(path)]
            conf = self.path / "broker.conf"
            if any(given) and exists(conf):
                write(conf, texts.served_by(read(conf), server()), FOR_ALL)
            return any(given)

    def reload(self) -> tuple[list[int], list[int]]:
        """Have the broker of this folder read its files again.

        Returns the processes that were told, and those that may not be told by this account.
        """
        return serving.reload(self.path / "broker.conf")

    def tell_coordinator(self) -> tuple[list[int], list[int]]:
        """Have a coordinator of this lab on this machine read its files again, as ``reload``."""
        return serving.reload_coordinator(self.path)

    # -- the files -----------------------------------------------------------------------------

    def _is_new(self) -> None:
        if exists(self._list):
            raise UsageError(f"{self.path} is a lab already", "--renew makes its certificates anew")

    @contextmanager
    def _changing(self) -> Iterator[Draft]:
        """One change at a time; what the broker is told follows where nothing was raised."""
        accounts = self.accounts  # says that this is no lab, before a lock is made there
        with locked(self._broker / "lock"):
            accounts, groups_before = self.accounts, self.groups
            draft = Draft(accounts, groups_before)
            yield draft
            if draft.groups != groups_before:
                self._write_groups(draft)
            self._publish(draft)
            before, after = (accounts, groups_before), (draft.accounts, draft.groups)
            draft.gains = list(gains(before, after))

    def _publish(self, draft: Draft) -> None:
        accounts = draft.accounts
        for kind, names in (
            ("boards", (COORDINATOR, *accounts.boards)),
            ("operators", accounts.people),
        ):
            if accounts.bound:
                refused = revocations(
                    certificates.clients(self.path), accounts.refused(kind), accounts.changes
                )
                write(self._broker / f"{kind}.crl", refused, FOR_BROKER)
                continue
            file = self._broker / f"{kind}.passwords"
            lines = read(file).splitlines() if exists(file) else []
            known = dict(line.split(":", 1) for line in lines if ":" in line) | draft.hashes
            text = "".join(f"{name}:{known[name]}\n" for name in names if name in known)
            write(file, text, FOR_BROKER)
        write(self._broker / "acl", acl(accounts, draft.groups), FOR_BROKER)
        self._widen(accounts)
        write(self._list, json.dumps(accounts.as_json(), indent=1) + "\n", FOR_ALL)

    def _change_rights(self, draft: Draft, name: str, operator: OperatorRights) -> None:
        for group in operator.groups:
            if group != ALL and group not in draft.groups.entries:
                raise UsageError(
                    f"there is no group {group}", f"hwsync group set {group} BOARD... makes it"
                )
        draft.accounts = draft.accounts.with_operator(name, operator)

    def _write_groups(self, draft: Draft) -> None:
        """What somebody wrote there beside the groups stays, as far as it can."""
        file, before = self.groups_file, self.groups.entries
        text = read(file) if exists(file) else ""
        after = draft.groups.entries
        for name in before.keys() - after.keys():
            text = without_group(text, name)
        for name, entries in after.items():
            if entries != before.get(name):
                text = with_group(text, name, entries)
        found = groups.parse(text.encode(), str(file))  # its limits too
        assert found.entries == after
        write(file, text, FOR_ALL)
        draft.groups_file = file

    def _configure(self, accounts: Accounts) -> None:
        write(self.path / "broker.conf", texts.broker_conf(accounts, self.path, server()), FOR_ALL)

    def _widen(self, accounts: Accounts) -> None:
        """The limits of the broker for more boards; what somebody changed in that file stays."""
        conf = self.path / "broker.conf"
        before = read(conf) if exists(conf) else ""
        after = texts.with_limits(before, accounts)
        if after != before:
            write(conf, after, FOR_ALL)

    def _let_in(self, draft: Draft, name: str, signing_key: str = "") -> None:
        """A new password for that account, or a certificate, in its file and for the broker."""
        if draft.accounts.bound:
            serial = fresh_serial()
            draft.accounts = draft.accounts.with_certificate(name, serial)
            own = sign(
                certificates.clients(self.path), draft.accounts.identity(name), serial=serial
            )
            self._keep(draft, *self._connection(draft.accounts, name, "", own, signing_key))
            return
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        of_before = (
            sign(certificates.authority(self.path), name) if draft.accounts.mutual_tls else None
        )
        self._keep(draft, *self._connection(draft.accounts, name, password, of_before, signing_key))
        draft.hashes[name] = hashed(password)

    def _bind(self, draft: Draft) -> None:
        """A certificate for each account whose file is still here."""
        accounts = draft.accounts
        for name in (COORDINATOR, *accounts.names):
            if exists(self.file_of(name, accounts)):
                self._let_in(draft, name, self._signing_key() if name == COORDINATOR else "")

    def _write_again(self, draft: Draft, new_signing_key: str = "") -> None:
        """Every account's file that is still here, with the password that it has; or none."""
        accounts, made = draft.accounts, []
        for name in (COORDINATOR, *accounts.names):
            file = self.file_of(name, accounts)
            known = self._known(file) if exists(file) else {}
            if ("certificate" if accounts.bound else "password") not in known:
                draft.missing.append(name)
                continue
            own = None
            if "certificate" in known and "key" in known:
                own = Pair(str(known["certificate"]), str(known["key"]))
            signing_key = new_signing_key or str(known.get("signing_key", ""))
            key = signing_key if name == COORDINATOR else ""
            password = "" if accounts.bound else str(known["password"])
            made.append(self._connection(accounts, name, password, own, key))
        for file, text in made:
            self._keep(draft, file, text)

    def _connection(
        self, accounts: Accounts, name: str, password: str, own: Pair | None, signing_key: str
    ) -> tuple[Path, str]:
        """The account's file, and what is to stand in it. Raises ``UsageError``."""
        file = self.file_of(name, accounts)
        text = texts.connection(accounts, name, password, read(self._ca), own, signing_key)
        added = texts.own_part(read(file) if exists(file) else "")
        try:
            twice = tomllib.loads(text).keys() & tomllib.loads(added).keys()
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{file}: what was added at its end is no TOML: {error}") from None
        if twice:
            raise UsageError(
                f"{file}: {', '.join(sorted(twice))} was added at its end, and is to stand above",
                "take it out there, and repeat the command",
            )
        return file, text + added

    def _keep(self, draft: Draft, file: Path, text: str) -> None:
        if exists(file) and read(file) == text:
            return  # nobody has to carry it anywhere
        write(file, text, SECRET)
        draft.written.append(file)

    def _signing_key(self) -> str:
        """The coordinator's that hwsync wrote, where its file is here and has one."""
        file = self.path / "coordinator.toml"
        return str(self._known(file).get("signing_key", "")) if exists(file) else ""

    def _signs_with(self, key: str) -> bool:
        """Whether that is the coordinator's key, also where somebody else wrote it there."""
        file = self.path / "coordinator.toml"
        signing = self._known(file, added=True).get("signing_key") if exists(file) else None
        return bool(signing) and SigningKey.given(str(signing), file.parent).public == key

    def _known(self, file: Path, *, added: bool = False) -> dict[str, Any]:
        """What hwsync wrote there; ``added``: with what somebody added at its end."""
        text = read(file)
        try:
            return tomllib.loads(text if added else texts.written_part(text))
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{file} is no TOML: {error}") from None
