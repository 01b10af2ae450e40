"""Copies of the coordinator's database, and older ones in its place.

The law: what an operator of a real lab does with ``hwsync backup`` and ``restore``, or by hand.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.topics import TopicKind
from hwsync.store.backups import back_up
from hwsync.store.restoring import restore
from hwsync.testing.coordinators import CoordinatorProcess
from hwsync.testing.history import PutBack


class Copies:
    """The copies of one world. ``must_remember``: an older database was put back by hand."""

    def __init__(self, coordinator: CoordinatorProcess) -> None:
        self.coordinator = coordinator
        self.must_remember = False
        self._newest: tuple[Path, float] | None = None
        self._number = 0

    def copy(self) -> None:
        """One more; the newest is put back."""
        path = self.coordinator.path
        if path.exists():
            self._number += 1
            target = path.with_name(f"backup-{self._number}.db")
            back_up(path, target)
            self._newest = (target, self.coordinator.context.now)

    def put_back(self, how: str = "") -> None:
        """Restore a backup, or copy it into the place, or begin with no database at all."""
        context, coordinator = self.coordinator.context, self.coordinator
        if self._newest is None:
            return
        backup, copied_at = self._newest
        how = how or context.dice.choice(("restored", "copied", "deleted"))
        if how != "restored" and not self._all_is_retained():
            # The rise of the epoch then needs what is retained (docs/protocol.md, section 8).
            how = "restored"
        context.fault(f"database {how}", coordinator.name)
        coordinator.kill(restart=False)
        path = coordinator.path
        if how == "restored":
            try:
                restore(backup, path, now=coordinator.wall())
            except DatabaseError as error:
                context.violate("saved", "", "", f"a backup cannot be restored: {error}")
                return
        else:
            self.must_remember = True
            coordinator.cable.reorders = False
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            if how == "copied":
                shutil.copy(backup, path)
            else:
                copied_at = -1.0
        context.see(PutBack(context.now, copied_at))
        context.schedule.after(1.0 + 5.0 * context.dice.random(), coordinator.start)

    def _all_is_retained(self) -> bool:
        """Whether the broker keeps the newest status of every user."""
        context, coordinator = self.coordinator.context, self.coordinator
        if not (context.habits.remembers and context.broker.up):
            return False
        retained = context.broker.retained
        for user, payload in coordinator.said_last.items():
            kept = retained.get(coordinator.topics.of(user, TopicKind.STATUS))
            if kept is None or kept.payload != payload:
                return False
        store = coordinator.store
        return store is not None and store.committed.keys() == coordinator.said_last.keys()
