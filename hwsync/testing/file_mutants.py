"""The safeguards of files, each of which can be switched off.

The law: as in ``mutants``.
"""

from __future__ import annotations

from typing import Final

from hwsync.coordinator.publishing import Publishing
from hwsync.device.deeds import Deeds
from hwsync.device.journal import Journal
from hwsync.protocol.wire import response
from hwsync.store import pruning
from hwsync.store.pruning import Pruning
from hwsync.store.store import Store
from hwsync.testing.switched_off import Edit, Mutant

FILE_MUTANTS: Final = (
    Mutant(
        "a program finds the files that were sent along",
        (Edit(Deeds, "_job", "files=envelope.files,", ""),),
        files=True,
    ),
    Mutant(
        "files are those of one's own command",
        (
            # Of a list each board may be sent others, under one id.
            Edit(Publishing, "envelope", "try:",
                 "if record.current and files:\n"
                 "        of = vars(self).setdefault('of_ids', {})\n"
                 "        files = of.setdefault(record.id, files)\n"
                 "        request = replace(record.current.request, files=files)\n"
                 "        current = replace(record.current, request=request)\n"
                 "        record = replace(record, current=current)\n"
                 "    try:"),
        ),
        files=True,
    ),
    Mutant(
        "what waits for its grant has its files after a restart",
        (Edit(Journal, "received", "envelope_text(envelope)",
              "bare_envelope(envelope_text(envelope))"),),
        faults=("kill", "kill at a point"),
        files=True,
    ),
    Mutant(
        "a result's files are written down before it is said",
        (
            # They are in memory, from where they are said.
            Edit(Journal, "finished", "account=report_text(report), settled=0)",
                 "account=report_text(replace(report, files=())), settled=0)\n"
                 "    vars(self).setdefault('unwritten', {})[id] = report"),
            Edit(Journal, "_entry", "return _entry(row)",
                 "entry = _entry(row)\n"
                 "        held = vars(self).get('unwritten', {}).get(entry.id)\n"
                 "        return entry if held is None or entry.settled else "
                 "replace(entry, report=held)"),
        ),
        faults=("kill", "kill at a point", "partition"),
        files=True,
    ),
    Mutant(
        "files are saved in one transaction with who has them",
        (Edit(Store, "save", "for statement, rows in written:",
              "for statement, rows in sorted(written, key=lambda one: 'contents' in one[0]):\n"
              "            if 'contents' in statement:\n"
              "                connection.execute('COMMIT')\n"
              "                if hasattr(self, 'process'):\n"
              "                    self.process.point('after a commit')\n"
              "                connection.execute('BEGIN IMMEDIATE')"),),
        faults=("kill at a point",),
        files=True,
    ),
    Mutant(
        "a content stays while somebody has it",
        (Edit(pruning, "_drop_contents", "statements.DROP_CONTENT",
              "'DELETE FROM contents WHERE sha256 = ?'"),),
        files=True,
    ),
    Mutant(
        "names and hashes stay when the bytes go",
        (Edit(Pruning, "prune", "connection.executemany(statements.PRUNE_COMMAND, found)",
              "connection.executemany(statements.PRUNE_COMMAND, found)\n"
              "        bare = \"UPDATE commands SET returned = '[]' WHERE user = ? AND id = ?\"\n"
              "        connection.executemany(bare, found)"),),
        files=True,
    ),
    Mutant(
        "a status has no bytes",
        (Edit(response, "_result", "files=bare(files)", "files=files"),),
        files=True,
    ),
    Mutant(
        "a query brings the bytes that it names",
        (Edit(Publishing, "_asked_for", "if one.path in effect.files", "if not one"),),
        files=True,
    ),
)  # fmt: skip
