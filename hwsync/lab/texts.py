"""The files of a lab as texts: the broker's configuration, a connection file for each account.

Nothing here touches a file, and no secret is made here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from hwsync.lab.accounts import COORDINATOR, Accounts
from hwsync.lab.authority import Pair
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.protocol.topics import DEFAULT_ROOT

DIGITS: Final = 15  # of a limit
OWN: Final = "# What you add below this line stays when hwsync makes the file anew."
PACKET: Final = MAX_MESSAGE + 65_536  # bytes: the largest message, its topic and its properties
QUEUED: Final = 10_000  # messages that wait for one client that is away
UNDER_WAY: Final = 2**20  # bytes that one client may leave unacknowledged; at least one message
MIB: Final = 2**20
LIMITS: Final = {  # MiB without boards, and for each: a status of at most 1 MiB is kept of it
    "memory_limit": (256, 8),  # of the whole broker; a last resort: one that has none left is deaf
    "max_queued_bytes": (6, 1),  # for one client, also of what is kept, when it subscribes
}


def limit(name: str, accounts: Accounts) -> int:
    """That limit of ``LIMITS`` for so many boards, in bytes."""
    some, each = LIMITS[name]
    return MIB * (some + each * len(accounts.boards))


def with_limits(conf: str, accounts: Accounts) -> str:
    """A configuration whose limits are enough for these boards; without such lines as it is."""
    return re.sub(
        rf"(?m)^({'|'.join(LIMITS)}) (\d{{1,{DIGITS}}})$",
        lambda line: f"{line[1]} {max(int(line[2]), limit(line[1], accounts))}",
        conf,
    )


def served_by(conf: str, server: str) -> str:
    """A configuration with which mosquitto, started by root, becomes that account."""
    return re.sub(r"(?m)^user \S+$", f"user {server}", conf)


def broker_conf(accounts: Accounts, folder: Path, server: str = "") -> str:
    """mosquitto's configuration, with absolute paths: mosquitto looks from where it was started.

    ``server``: whom mosquitto becomes where root starts it.
    """
    lines = [
        "# Made by hwsync init: mosquitto -c FILE, or hwsync broker FILE. hwsync device and hwsync",
        "# operator add and remove accounts, and have the broker read its files again.",
        "per_listener_settings true",
        "set_tcp_nodelay true",
        "# hwsync's largest message is 4 MiB; here the whole packet counts.",
        f"max_packet_size {PACKET}",
        "# What one account makes the broker keep has an end: for one client, and in all.",
        f"max_queued_messages {QUEUED}",
        "max_inflight_messages 100",
        f"max_inflight_bytes {UNDER_WAY}",
        *(f"{name} {limit(name, accounts)}" for name in LIMITS),
        "# Sessions and retained messages: in the folder where the broker is started.",
        "persistence true",
        "autosave_interval 1",
        *_account(server),
        "",
        "# Boards and the coordinator. The account is the client id: no session is another's.",
        *_listener(accounts, accounts.boards_port, folder, "boards"),
        "use_username_as_clientid true",
        "",
        "# Operators, who have several connections at once.",
        *_listener(accounts, accounts.operators_port, folder, "operators"),
    ]
    return "\n".join(lines) + "\n"


def _account(server: str) -> list[str]:
    why = "# Whom mosquitto becomes where root starts it: that group reads the files below."
    return [why, f"user {server}"] if server else []


def _listener(accounts: Accounts, port: int, folder: Path, who: str) -> list[str]:
    files = folder / "broker"
    lines = [
        f"listener {port}",
        f"certfile {files / 'broker.crt'}",
        f"keyfile {files / 'broker.key'}",
        "tls_version tlsv1.2",
    ]
    proof = [f"password_file {files / who}.passwords"]
    if accounts.bound:
        # A certificate is its account: no password is asked for, and none would be looked at.
        lines += [f"cafile {files / 'clients.crt'}", "require_certificate true"]
        proof = [f"crlfile {files / who}.crl", "use_identity_as_username true"]
    elif accounts.mutual_tls:
        lines += [f"cafile {files / 'ca.crt'}", "require_certificate true"]
    return [*lines, "allow_anonymous false", *proof, f"acl_file {files / 'acl'}"]


def connection(
    accounts: Accounts,
    account: str,
    password: str,
    ca: str,
    own: Pair | None,
    signing_key: str = "",
) -> str:
    """What that account needs to come in; for a board also its name, and whom it trusts.

    ``password`` empty: its certificate says who it is.
    """
    board = account in accounts.boards
    port = accounts.operators_port if account in accounts.people else accounts.boards_port
    host = "localhost" if account == COORDINATOR else accounts.hosts[0]
    host = f"[{host}]" if ":" in host else host
    lines = [_head(accounts, account), f"broker = {_text(f'mqtts://{host}:{port}')}"]
    if accounts.root != DEFAULT_ROOT:
        lines.append(f"root = {_text(accounts.root)}")
    if board:
        lines.append(f"user = {_text(account)}")
    lines.append(f"account = {_text(account)}")
    lines += [f"password = {_text(password)}"] if password else []
    lines += ['role = "analyst"'] if account in accounts.analysts else []
    if board and accounts.trust:
        lines.append(f"trust = [{', '.join(map(_text, accounts.trust))}]")
    if signing_key:
        lines.append(f"signing_key = {_text(signing_key)}")
    lines.append(f"ca = {_pem(ca)}")
    if own is not None:
        lines += [f"certificate = {_pem(own.certificate)}", f"key = {_pem(own.key)}"]
    return "\n".join([*lines, "", OWN]) + "\n"


def written_part(text: str) -> str:
    """What hwsync wrote into such a file."""
    return text.partition(f"\n{OWN}\n")[0]


def own_part(text: str) -> str:
    """What somebody added to such a file below its last line."""
    return text.partition(f"\n{OWN}\n")[2]


def _head(accounts: Accounts, account: str) -> str:
    if account in accounts.boards:
        return "# Put this on the board as /etc/hwsync/device.toml, with mode 0600. It is a secret."
    if account == COORDINATOR:
        return "# For hwsync coordinator --config. It is a secret."
    if account in accounts.analysts:
        return "# For hwsync analyst --config, and for its unit. It is a secret."
    return "# Put this into ~/.config/hwsync/hwsync.toml, with mode 0600. It is a secret."


def _text(text: str) -> str:
    """A basic string of TOML: JSON's but for its surrogates, which TOML does not have."""
    return json.dumps(text, ensure_ascii=False)


def _pem(text: str) -> str:
    return f'"""\n{text.strip()}\n"""'
