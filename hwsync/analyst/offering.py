"""What an analyst offers: the analysers of its folder, as they were read last.

The law: what changes is in the log, once. A folder that cannot be read for a while takes nothing
away.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from hwsync.analysers.folder import Analyser, Folder
from hwsync.analyst.work import NOT_OURS
from hwsync.protocol.errors import HwsyncError
from hwsync.protocol.wire.analyst import Offer

log = logging.getLogger("hwsync.analyst")


class Offering:
    """The folder, looked at now and then.

    offering = Offering(Folder(path))
    new = offering.begin()
    if (new := offering.look()) is not None:
        print(offering.offer(time.time()))
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._problems: tuple[str, ...] = ()  # of the folder, as they were said
        self.analysers: Mapping[str, Analyser] = {}

    def begin(self) -> None:
        """The first look. Raises ``UsageError`` where there is no folder."""
        self._take(self._folder.scan())
        if not self.analysers:
            self._say_that_it_is_empty()

    def look(self, *, again: bool = False) -> set[str] | None:
        """Take what is there now; the names that were not offered before, None: nothing changed.

        ``again``: somebody asked for it.
        """
        if again:
            log.info("reading %s anew", self._folder.path)
        try:
            found = self._folder.scan()
        except HwsyncError as error:
            if self._problems != (str(error),):
                log.error("%s; what was offered stays", error)
            self._problems = (str(error),)
            return None
        return self._take(found)

    def offer(self, now: float) -> Offer:
        """As it is said to everybody."""
        versions = {name: one.version for name, one in self.analysers.items()}
        broken = tuple(name for name, one in self.analysers.items() if one.problem)
        return Offer(True, versions, now, broken)

    def _take(self, found: Mapping[str, Analyser]) -> set[str] | None:
        """One that was seen a moment ago has no version yet."""
        for problem in self._folder.problems:
            if problem not in self._problems:
                log.warning("%s: %s", self._folder.path, problem)
        self._problems = self._folder.problems
        before = {name: one.version for name, one in self.analysers.items()}
        offered = {name: one for name, one in found.items() if one.version and name not in NOT_OURS}
        versions = {name: one.version for name, one in offered.items()}
        if versions == before:
            return None
        self.analysers = offered
        for name, one in offered.items():
            if before.get(name) != one.version:
                broken = ", which is broken: each run gets a fault" if one.problem else ""
                log.info("offers %s %s%s", name, one.version, broken)
        for name in before.keys() - versions.keys():
            log.info("does not offer %s any more", name)
        if not offered:
            self._say_that_it_is_empty()
        return versions.keys() - before.keys()

    def _say_that_it_is_empty(self) -> None:
        log.warning(
            "%s has no analyser yet; what is put there counts a moment later", self._folder.path
        )
