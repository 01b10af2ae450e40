"""The protocol once more, plainly: dictionaries and lists, from docs/protocol.md, not from hwsync.

One user. ``hear`` says what a message does; what everybody is told by it is appended to ``told``.
Compared with the real coordinator by ``tests/property``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.level import LINE, REGRADES, ROW, TABLE, Level, Said, Told, file_of, new_command

HAND = ""  # who answered, where a person did
AMBIGUOUS_S = 2.0
VERBS = {
    "collected": "hw_command_retrieval",
    "response": "hw_response_provide",
    "analysis": "server_analysis_provide",
    "cancel": "cancel",
    "reset": "reset",
}


@dataclass
class Model(Level):
    """``hear`` a message, ``analyse`` and ``expire`` what is due."""

    # -- what is heard ------------------------------------------------------------------------

    def hear(self, said: Said) -> None:
        """One message that can be read."""
        if said.dup and said.id is None and said.mid:
            kind, payload, error = self.packets.get(said.mid, ("", b"", None))
            if (kind, payload) == (said.kind, said.payload):
                if error is not None:
                    self.told.append(Told("error", {"error": error, "id": None}))
                self.tell_status()
                return
        errors = len(self.refused)
        if said.retain and not said.payload:
            self.packets.pop(said.mid, None)
            return
        if said.retain and (said.id is None or said.kind in ("cancel", "reset")):
            self.refuse(said, "retained")
        else:
            getattr(self, f"_{said.kind}")(said)
        self.rest()
        if said.mid and said.id is None:
            error = self.refused[errors][0] if len(self.refused) > errors else None
            self.packets[said.mid] = (said.kind, said.payload, error)
        elif said.mid:
            self.packets.pop(said.mid, None)

    def _query(self, said: Said) -> None:
        if said.id is not None and said.id not in self.commands:
            self.refuse(said, "not_current")
            return
        self.tell_status()
        if said.id is not None:
            self.tell_result(said.id)

    def _request(self, said: Said) -> None:
        known = self.commands.get(said.id or "")
        if known is not None:
            same = known["program"] == said.args["program"]
            same = same and file_of(known) == file_of(new_command(said.args, 0))
            if known["orphan"] or same:
                self.answer(said.id)
            else:
                self.refuse(said, "id_reused")
            return
        expires_at = said.args.get("expires_at")
        if expires_at is not None and expires_at <= self.now[1]:
            self.refuse(said, "bad_payload")
            return
        waits = said.args["queue"] and self.state != 0
        if self.state != 0 and not waits:
            self.refuse(said, "busy")
            return
        waiting = sum(self.texts(id) for id in self.queue)
        if self.room() < self.most / 2 and self.room() <= waiting:
            self.refuse(said, "not_allowed")
            return
        self.count += 1
        id = said.id or f"{self.count}-{said.args['nonce']}"
        self.commands[id] = new_command(said.args, self.count)
        self.dirty.add(id)
        if waits:
            self.queue.append(id)
            self.change("hw_command_request", self.state, id)
            self.answer(id)
        else:
            self.id, self.taken = id, None
            self.move("hw_command_request", self.expires())

    def _event(self, said: Said) -> bool:
        """Whether the event is one for the record, as it stands; else it is dealt with."""
        if said.id is None:
            if self.taken is not None and self.now[0] - self.taken < AMBIGUOUS_S:
                self.refuse(said, "ambiguous")
                return False
        elif said.id not in self.commands:
            self.refuse(said, "not_current")
            return False
        elif said.id in self.queue:
            self.refuse(said, "wrong_state")
            return False
        elif VERBS[said.kind] in self.commands[said.id]["accepted"]:
            self.answer(said.id)
            return False
        if self.state not in TABLE[VERBS[said.kind]] and said.id in (None, self.id):
            self.refuse(said, "wrong_state")
            return False
        return True

    def _cancel(self, said: Said) -> None:
        if said.id in self.queue:
            assert said.id is not None
            self.queue.remove(said.id)
            one = self.commands[said.id]
            one.update(outcome="cancelled", ran="no")
            self.spend_command(said.id, queued=True)
            one["accepted"].add("cancel")
            self.dirty.add(said.id)
            self.change("cancel", self.state, said.id)
            self.answer(said.id)
        elif self._event(said):
            if said.id not in (None, self.id):
                self.answer(said.id)
            elif self.state == 1:
                self.end("cancelled", "no")
                self.move("cancel")
            elif self.cancelling:
                self.tell_status()
            else:
                self.cancelling = True
                grace = self.now[0] + self.command()["grace"]
                self.move("cancel", grace if self.due is None else min(self.due, grace))

    def _forget(self, said: Said) -> None:
        if self.state != 0 or self.queue:
            self.refuse(said, "wrong_state")
            return
        if self.seq and not self.forgotten:
            self.verb = "reset"
            self.spend(ROW)
            self.change("reset", 0, self.id)
            self.forgotten = True
        self.tell_status()
        self.told += 2 * [Told("cleared", {}, retain=True)]  # status and heartbeat

    def _reset(self, said: Said) -> None:
        if said.args.get("forget"):
            self._forget(said)
            return
        if said.id in self.queue:
            self.answer(said.id)
            return
        if not self._event(said):
            return
        if said.id not in (None, self.id):
            self.answer(said.id)
            return
        for id in list(self.queue) if said.args.get("queue") else []:
            self._cancel(Said("cancel", b"", id))
        if self.state == 1:
            self.end("cancelled", "no")
        if self.state == 2:
            self.end("lost", "maybe")
        if self.state == 0 and self.room() < ROW:
            self.saved = self.now[0]
            self.tell_status()
            return
        if self.state == 0:
            self.spend(ROW)
        self.move("reset")

    def _collected(self, said: Said) -> None:
        own = self.commands.get(said.id or self.id, {})
        journal, boot = said.journal, said.args.get("boot")
        if said.id in self.commands and said.id not in self.queue:
            held = journal == own["journal"] and boot <= own["boot"]
            if held or (journal, boot) == own["late_collected"]:
                self.answer(said.id, result=False)
                return
            if (
                said.id == self.id
                and self.state in (0, 3)
                and own["journal"] not in (None, journal)
            ):
                self.refuse(said, "not_current")
                return
        if not self._event(said):
            return
        if said.id not in (None, self.id):
            own.update(late_collected=(journal, boot), late=True)
            self.late("hw_command_retrieval", said.id or "")
            self.tell_status()
        elif self.state == 1 and self.over(self.id):
            self.refuse(said, "wrong_state")
        elif self.state == 1:
            own.update(journal=journal, boot=boot)
            self.settled = [pair for pair in self.settled if pair[0] != self.id]
            self.move("hw_command_retrieval", self.now[0] + own["timeout"] + own["grace"])
        elif (
            journal is not None
            and journal == own["journal"]
            and self.room() + 2 * self.beyond() < ROW
        ):
            self.refuse(said, "not_allowed")
        elif journal is not None and journal == own["journal"]:
            self.spend(ROW)
            own["boot"] = boot
            self.move("hw_command_retrieval", self.due)
        else:
            self.refuse(said, "not_current")

    def _analysis(self, said: Said) -> None:
        text, by = said.args["text"], said.args.get("by")
        one = self.commands.get(said.id or "")
        known = one is not None and said.id not in self.queue
        if known and self._is_copy(one or {}, said):
            self.answer(said.id)
        elif said.args.get("regrade"):
            self._regrade(said, one)
        elif known and one is not None and one["analysis"] is not None:
            self.refuse(said, "wrong_state")
        elif known and one is not None and (said.id != self.id or self.state == 0):
            one.update(analysis=text, by=by, late=True, no_analysis=None)
            self.late("server_analysis_provide", said.id or "", first=True)
            self.answer(said.id)
        elif self._event(said):
            self.command().update(analysis=text, by=by, no_analysis=None)
            self.move("server_analysis_provide")

    def _is_copy(self, one: dict[str, Any], said: Said) -> bool:
        """By name and version, of an analyst's; a regrade is none of the first analysis."""
        by, first = said.args.get("by"), one["analysis"]
        if by is None:
            return first is not None and bool(first == said.args["text"])
        kept = by in one["regrades"] and (said.args["regrade"] or first is not None)
        return by == one["by"] or kept

    def _regrade(self, said: Said, one: dict[str, Any] | None) -> None:
        if one is None:
            self.refuse(said, "not_current")
        elif said.id in self.queue or one["outcome"] is None:
            self.refuse(said, "wrong_state")
        elif len(one["regrades"]) >= REGRADES:
            self.refuse(said, "not_allowed")
        else:
            one["regrades"][said.args["by"]] = said.args["text"]
            one["late"] = True
            self.dirty.add(said.id or "")
            self.change("server_analysis_provide", self.state, said.id or "", True)
            self.answer(said.id)

    def _response(self, said: Said) -> None:
        report = {key: said.args[key] for key in ("outcome", "ran", "response")}
        if said.id is None:
            if self._event(said):
                if self.command()["journal"] is not None:
                    self.refuse(said, "wrong_state")
                else:
                    self.command().update(report, answered_by=HAND)
                    self.move("hw_response_provide", self._analysis_due())
            return
        assert said.journal is not None
        one = self.commands.get(said.id)
        if one is None:
            self._orphan(said, report)
        elif report["ran"] == "no" and said.journal == one["journal"] and one["boot"] > 1:
            self.answer(said.id, result=False)  # every result here says boot 1: it is outdated
        elif said.id in self.queue or (said.id == self.id and self.state == 1):
            self._kept(said, "wrong_state")
        elif said.journal in one["heard"] and not (
            report["ran"] == "yes" and one["ran"] in ("no", "maybe")
        ):
            if (said.id, said.journal) in self.settled:
                self.answer(said.id, result=False)
            else:
                self._kept(said)
        elif said.id == self.id and self.state == 2 and said.journal == one["journal"]:
            one.update(report, answered_by=said.journal)
            one["heard"].add(said.journal)
            self.settle(said.id, said.journal)
            self.move("hw_response_provide", self._analysis_due())
        elif said.id == self.id and self.state == 2:
            first = not one["heard"]
            one["heard"].add(said.journal)
            self._kept(said, "not_current", first)
        else:
            self._late_result(said, one, report)

    def _orphan(self, said: Said, report: dict[str, Any]) -> None:
        """Kept whole, without its texts, or not at all."""
        assert said.id is not None
        assert said.journal is not None
        cost = 2 * ROW + len(report["response"])
        if self.room() < 2 * ROW:
            self.refused.append(("not_allowed", said.id))
            fields = {"error": "not_allowed", "id": said.id, "state": self.state}
            self.told.append(Told("error", fields))
            self.settle(said.id, said.journal)
            self.saved = self.now[0]
            self.tell_status()
            return
        if self.room() - self.most / 2 < cost:
            cost, report = 2 * ROW, report | {"response": ""}
        doubted = {"ran": "maybe"} if report["ran"] == "no" else {}
        self.spend(cost - ROW)
        self.commands[said.id] = new_command({}, 0) | report | doubted | {
            "answered_by": said.journal, "heard": {said.journal}, "late": True, "orphan": True
        }  # fmt: skip
        self._kept(said, None, first=True)

    def _late_result(self, said: Said, one: dict[str, Any], report: dict[str, Any]) -> None:
        """The first answer of a command that ended without one, or a second one from elsewhere."""
        first = not one["heard"]
        one["heard"].add(said.journal)
        ran, holds = report["ran"], said.journal == one["journal"]
        truer = ran == "yes" and one["ran"] != "yes"
        if one["answered_by"] is not None and not truer:
            self._kept(said, "not_current", first)
        elif ran == "no" == one["ran"]:
            one["late"] = True
            self._kept(said, None, first)
        elif truer or holds or (ran == "maybe" and one["ran"] == "no"):
            one.update(report, answered_by=said.journal, late=True, regrades={})
            if one["by"] is not None:  # it was said of what was only assumed
                one.update(analysis=None, by=None)
            self._kept(said, None, first=True)
        else:
            self._kept(said, "not_current", first)

    def _kept(self, said: Said, code: str | None = None, first: bool = False) -> None:
        """A result that moves nothing: refused or stored, it is settled."""
        assert said.id is not None
        assert said.journal is not None
        if code is not None:
            self.refused.append((code, said.id))
            self.told.append(Told("error", {"error": code, "id": said.id, "state": self.state}))
        self.settle(said.id, said.journal)
        self.late("hw_response_provide", said.id, first)
        self.tell_status()

    def _analysis_due(self) -> float | None:
        return self.now[0] + self.within if self.within else None

    # -- what happens by itself ---------------------------------------------------------------

    def analyse(self, ids: list[str]) -> None:
        """The analyses that are due."""
        for id in ids:
            if id == self.id and self.command()["outcome"] and self.command()["analysis"] is None:
                self._analysis(Said("analysis", b"", id, None, {"text": LINE}))
                self.rest()

    def expire(self, settled: bool) -> None:
        """The present state ends where its deadline has passed, or its time of day has come."""
        alone = self.unoffered is not None and self.unoffered <= self.now[0]
        passed = settled and (alone or (self.due is not None and self.due <= self.now[0]))
        if not passed and not (self.state == 1 and self.over(self.id)):
            return
        if self.state == 1:
            self.end("expired", "no")
        if self.state == 3:
            why = self.why() if alone else f"none came within {self.within:g} s"
            self.command()["no_analysis"] = why
        if self.state == 2:
            self.end("lost", "maybe")
        self.move("expire", self._analysis_due() if self.state == 2 else None)
        self.rest()

    def write_down(self) -> None:
        """What is left of the deadline is saved; it is no change."""
        if self.due is not None or self.unoffered is not None:
            self.saved = self.now[0]

    def read_again(self, ticks: float) -> None:
        """Deadlines count on from what was left when that was last written down."""
        if self.due is not None:
            self.due += ticks - self.saved
        if self.unoffered is not None:
            self.unoffered += ticks - self.saved
        if self.taken is not None:
            self.taken += ticks - self.saved
        self.saved = ticks
