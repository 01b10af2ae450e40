"""``hwsync run`` and ``send`` on several boards: a group's batch, or boards that are named.

The law: a group is asked once and followed by its own status; boards that are named are asked each
on its own topic, in one batch, and followed one by one. What programs write is overheard.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, NoReturn

from hwsync.cli import say
from hwsync.cli.brought_each import bring_each
from hwsync.cli.common import Settings, own_words
from hwsync.cli.instants import Wish, in_lab_time
from hwsync.cli.looking import busy_with
from hwsync.cli.members import Members, some
from hwsync.cli.names import members as members_of
from hwsync.cli.request import Asked
from hwsync.cli.rows import Lines, Rows
from hwsync.cli.run_verdicts import Verdicts
from hwsync.cli.run_verdicts import lines as verdict_lines
from hwsync.cli.seen import Seen, refuse_strangers
from hwsync.cli.slow import SLOW, somebody_waits
from hwsync.cli.targets import Target
from hwsync.operator.batch import Batch, overhearing
from hwsync.operator.client import Client
from hwsync.operator.conversation import EVERYBODY, Conversation, Talk
from hwsync.operator.offering import awaiting, is_analysts
from hwsync.operator.run import NOT_RUN, TICK_S, Run
from hwsync.operator.streams import TEXTS, Streams
from hwsync.protocol.errors import NoCoordinator, OutputError, Refused, TooLarge, Unreachable
from hwsync.protocol.groups import ALL
from hwsync.protocol.limits import DEFAULT_START_LEAD_S
from hwsync.protocol.record import State
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import CommandFields

BY_NAME: Final = 100  # boards of a group that are heard by their names; more: everybody is heard
UNDER_WAY_S: Final = 1.0  # for what boards have said, behind the end of their batch
AT_A_TIME: Final = 50  # boards that are asked for it; each answer is looked at for each of them
UNKNOWN: Final = "not all of its output could be had"


class Many:
    """One batch of several boards, as a person sees it."""

    def __init__(self, settings: Settings, target: Target, asked: Asked, last: State) -> None:
        self._settings, self._target, self._asked, self._last = settings, target, asked, last
        self.is_judged = is_analysts(asked.request.analysis)
        self._online: dict[str, bool | None] = {}
        users = target.boards
        if target.group:
            self._online = members_of(settings, target.user) or {}
            users = tuple(self._online)
        self.members = Members(asked.id, users)
        for user, online in self._online.items():
            self.members.of(user).online = online
        self._rows = Rows(self.members, wanted=not settings.as_json)
        self._show = not (self._rows.live or settings.as_json)  # output, line by line
        self._streams: dict[str, tuple[Streams, Lines]] = {}
        self._shown: set[str] = set()  # whose end was shown
        self._runs: dict[str, Run] = {}
        self._overheard: Future[None] = Future()  # of a group's boards, as long as it goes on
        self._heard = set(users)  # whose topics are heard; or everybody's are
        self._whole: set[str] = set()  # who has said all that is kept of its command
        self._saved: dict[str, dict[str, str]] = {}  # where the files are, by board and path
        self._said: set[str] = set()  # with --json
        self._is_left = False  # Ctrl-C came

    def client(self) -> Client:
        """A connection that hears the group and its boards, or the boards."""
        users = tuple(self.members.by_user)
        if self._target.group:
            # Of all boards the newest may not be in the list yet.
            if not 0 < len(users) <= BY_NAME or self._target.group == ALL:
                self._heard = {EVERYBODY}
            users = (self._target.user, *sorted(self._heard))
        return Client(
            self._settings.url, self._settings.topics, EVERYBODY, named=users, live=True,
            analysts=self.is_judged,
        )  # fmt: skip

    def start(self, keys: dict[str, Any], at: float | None) -> None:
        """At one instant, as the request's key ``start`` says; ``at``: in so many seconds."""
        self._asked = replace(self._asked, request=replace(self._asked.request, start=keys))
        instant = None if at is None else time.monotonic() + at
        self.members.start(instant, lead=keys.get("lead", DEFAULT_START_LEAD_S))

    # -- what is done --------------------------------------------------------------------------

    def send(self, operator: Client) -> None:
        """Only until it is acknowledged."""
        if self._target.group:
            batch = self._batch(operator)
            told = operator.wait(batch.requesting(self._asked.request))
            say.either(self._settings.as_json, told, self._asked.id)
            return
        for user, future in self._ask_each(operator, {}, follow=False).items():
            self._take(user, operator, future)
        if not self._settings.as_json:
            say.line(self._asked.id)
        for member in self.members.by_user.values():
            if self._settings.as_json:
                say.json_line(self._json(member.user))
            elif member.refused:
                say.line(f"{member.user}: {member.refused}: {member.message}", err=True)

    def run(self, operator: Client) -> None:
        """To its end; the first Ctrl-C cancels it."""
        self._begin_to_overhear(operator)
        self._rows.draw()
        try:
            if self._target.group:
                self._run_group(operator)
            else:
                self._run_each(operator)
            self._look_whether_it_can_be_shown()
        except OutputError as error:
            hint = f"this does not end the batch {self._asked.id}; hwsync status {self._target}"
            raise OutputError(error.message, f"{hint} shows its end") from None
        finally:
            self._overheard.cancel()
            self._rows.leave()
        ended = {user: one.fields for user, one in self.members.by_user.items() if one.fields}
        as_json = self._settings.as_json
        self._saved = bring_each(operator, ended, self._asked, as_json=as_json)
        self._finish()

    def _begin_to_overhear(self, operator: Client) -> None:
        if self._target.group:
            everybody = operator.conversation(EVERYBODY)
            talk = overhearing(everybody, self._overhear)
            self._overheard = operator.switchboard.begin(talk)

    def _look_whether_it_can_be_shown(self) -> None:
        """Nobody waits for what is overheard. Raises ``OutputError``."""
        one = self._overheard
        if one.done() and not one.cancelled() and (error := one.exception()) is not None:
            raise error

    def _run_group(self, operator: Client) -> None:
        batch = self._batch(operator)

        def hear(heard: Received) -> None:
            self._hear_group(heard)
            self._hear_new_members(operator)

        options: dict[str, Any] = {"on_received": hear, "waiting": self._rows.tick}
        try:
            self.members.hear_batch(
                operator.wait(batch.requesting(self._asked.request, **options)), time.monotonic()
            )
            end = operator.wait(batch.following(**options))
        except KeyboardInterrupt:
            self._say_cancelling()
            if self._overheard.cancelled():  # Ctrl-C came while it heard something
                self._begin_to_overhear(operator)
            end = operator.wait(batch.cancelling(**options))
            self._is_left = True
        self.members.hear_batch(end, time.monotonic())
        self._await_verdicts(operator)
        self._complete(operator)

    def _run_each(self, operator: Client) -> None:
        futures: dict[str, Future[CommandFields]] = {}
        try:
            for user, future in self._ask_each(operator, futures, follow=True).items():
                self._take(user, operator, future)
        except KeyboardInterrupt:
            self._say_cancelling()
            for future in futures.values():
                future.cancel()
            left = [run for user, run in self._runs.items() if not self.members.of(user).is_over]
            ends = {run: operator.switchboard.begin(self._ending(run)) for run in left}
            for run, end in ends.items():
                self._take(run.user, operator, end)
            self._is_left = True
        self._await_verdicts(operator)

    def _await_verdicts(self, operator: Client) -> None:
        """The programs have ended; their verdicts come behind that."""
        if self.is_judged:
            analyser = self._asked.request.analysis
            verdicts = Verdicts(self.members, analyser, self._rows, self._overhear)
            if self._is_left:
                verdicts.leave()
            else:
                verdicts.await_all(operator)

    def _ask_each(
        self, operator: Client, futures: dict[str, Future[CommandFields]], *, follow: bool
    ) -> dict[str, Future[CommandFields]]:
        """Ask each board; the others go on while one is waited for. ``futures`` are added to."""
        for user in self._target.boards:
            last = State.RETURNED if self.is_judged else self._last
            run = Run(operator.conversation(user), self._asked.request, last)
            self._runs[user] = run
            talk = self._following(run) if follow else self._requesting(run)
            futures[user] = operator.switchboard.begin(talk)
        return futures

    def _following(self, run: Run) -> Talk[CommandFields]:
        """One board, from its request to its end."""
        yield from self._requesting(run)
        end = yield from run.following(on_received=self._overhear, waiting=self._rows.tick)
        return (yield from run.completing(end)) if end["truncated"] else end

    def _requesting(self, run: Run) -> Talk[CommandFields]:
        """Ask one board, and say where its device was never seen."""
        seen = Seen(run.user)

        def hear(heard: Received) -> None:
            seen.hear(heard)
            self._overhear(heard)

        fields = yield from run.requesting(on_received=hear, waiting=self._rows.tick)
        said = "" if self._asked.seen_only else seen.warning(fields)
        if said and not self._settings.as_json:
            self._rows.remark(said)
        return fields

    def _ending(self, run: Run) -> Talk[CommandFields]:
        end = yield from run.cancelling(on_received=self._overhear, waiting=self._rows.tick)
        return (yield from run.completing(end)) if end["truncated"] else end

    def _take(self, user: str, operator: Client, future: Future[CommandFields]) -> None:
        """Wait for one board; what it refused, or what went wrong, is its own."""
        member = self.members.of(user)
        try:
            fields = operator.wait_for(future)
        except Refused as refusal:
            told = busy_with(refusal, operator, user, self._asked.words)
            member.refused, member.message = str(told.code), told.message
        except TooLarge as error:
            member.refused, member.message = "too_large", error.message
        except NoCoordinator as error:
            if not any(one.fields for one in self.members.by_user.values()):
                raise
            member.message = error.message
        else:
            self.members.hear_fields(user, fields, time.monotonic())
        self._look(user)

    def _hear_new_members(self, operator: Client) -> None:
        """Who has connected since the list was made is in the batch, and is heard from now on."""
        if EVERYBODY not in self._heard and (new := set(self.members.by_user) - self._heard):
            self._heard |= new
            operator.hear_too(sorted(new), live=True)

    def _complete(self, operator: Client) -> None:
        """What a group's boards have said beyond what was overheard, where we may ask them."""
        operator.wait(self._hearing_the_rest(operator.conversation(self._target.user)))
        left = self._unknown()
        for first in range(0, len(left), AT_A_TIME):
            few = left[first : first + AT_A_TIME]
            asked = {
                user: operator.switchboard.begin(
                    operator.conversation(user).querying(self._asked.id)
                )
                for user in few
            }
            for user, answer in asked.items():
                try:
                    found = operator.wait_for(answer)
                except (Refused, Unreachable) as error:
                    self.members.of(user).message = f"{UNKNOWN}: {error.message}"
                else:
                    self.members.hear_fields(user, found, time.monotonic())
                    self._whole.add(user)
            if set(few) <= set(self._unknown()):  # we may ask none of them, or nobody answers
                break
        for user in self._unknown():
            member = self.members.of(user)
            member.message = member.message or UNKNOWN

    def _hearing_the_rest(self, conversation: Conversation) -> Talk[None]:
        """What boards have said, and is under way: the batch's own end may have overtaken it."""
        limit = conversation.now + UNDER_WAY_S
        while self._unknown() and conversation.now < limit:
            yield from conversation.hearing(min(conversation.now + TICK_S, limit), ())

    def _unknown(self) -> list[str]:
        """The boards of which not all that they have said is known."""
        return [
            user
            for user, member in self.members.by_user.items()
            if not (member.refused or member.get("ran") == "no" or user in self._whole)
            and not _is_whole(member.fields)
        ]

    # -- what is heard -------------------------------------------------------------------------

    def _hear_group(self, heard: Received) -> None:
        self._look_whether_it_can_be_shown()
        if (batch := heard.batch) is not None and batch["id"] == self._asked.id and not heard.kept:
            self.members.hear_batch(batch, time.monotonic())
            for user in self.members.by_user:
                self._look(user)
        elif heard.members is not None:
            for user, online in heard.members["members"].items():
                if user in self.members.by_user:
                    self.members.of(user).online = online
        self._rows.tick()

    def _overhear(self, heard: Received) -> None:
        """Something of a board."""
        user = heard.user
        if user not in self.members.by_user:
            return
        streams, _ = self._streams_of(user)
        streams.hear(heard.kind, heard.fields)
        fields = heard.command_fields
        # Some brokers mark as kept what waited for us; an old one of this id is an answer as well.
        if fields is not None and (not heard.kept or fields["id"] == self._asked.id):
            self.members.hear_fields(user, fields, time.monotonic())
            self._look(user)
        self._rows.tick()

    def _streams_of(self, user: str) -> tuple[Streams, Lines]:
        if user not in self._streams:
            member = self.members.of(user)
            show = self._show
            lines = Lines(user, show=show, on_line=lambda line: setattr(member, "line", line))
            exact = TEXTS if show else ()
            streams = Streams(self._asked.id, lines, exact, together=False)
            self._streams[user] = streams, lines
        return self._streams[user]

    def _look(self, user: str) -> None:
        """Where a board has just ended and all of it is known, show what is left of its output."""
        member = self.members.of(user)
        fields = member.fields
        if user in self._shown or fields is None or not fields["outcome"] or fields["truncated"]:
            return
        if fields["state"] in (State.REST, self._last):
            self._show_end(user, fields)

    def _show_end(self, user: str, fields: CommandFields) -> None:
        self._shown.add(user)
        streams, lines = self._streams_of(user)
        streams.finish(fields)
        lines.end()
        if not self._asked.request.collect:  # else it says where the files are
            self._say_json(user)

    # -- what is said --------------------------------------------------------------------------

    def _finish(self) -> None:
        for user, member in self.members.by_user.items():
            if user not in self._shown and member.fields is not None and member.fields["outcome"]:
                self._show_end(user, member.fields)
            self._say_json(user)
        if self._settings.as_json:
            counts = {**self.members.counts}
            name = str(self._target)
            say.json_line({"batch": self._asked.id, "target": name, "counts": counts,
                           "spread": self.members.spread})  # fmt: skip
            return
        if self._target.group and (self._show or self._asked.request.collect):
            self._say_what_was_not_shown()
        well = self.members.exit_code == 0
        for line in self.members.summary(str(self._target)):
            if not (well and say.quiet):
                say.line(line, err=True)
        for line in verdict_lines(self.members) if self.is_judged else ():
            say.line(line, err=True)

    def _say_what_was_not_shown(self) -> None:
        """No output is missing without a word; the same ones together."""
        alike: dict[str, list[str]] = {}
        for user in self._unknown():
            alike.setdefault(self.members.of(user).message or UNKNOWN, []).append(user)
        for message, users in alike.items():
            say.line(f"{some(users)}: {message}", err=True)

    def say_slow(self) -> None:
        """Nobody answers for a while."""
        if somebody_waits():
            self._rows.remark(SLOW)

    def _say_cancelling(self) -> None:
        self._rows.clear()
        say.line("", err=True)  # behind ^C
        self._rows.tell(
            f"hwsync: cancelling {self._asked.id} on {self._target}: programs may end by "
            "themselves, which can take some seconds; Ctrl-C again leaves"
        )

    def _say_json(self, user: str) -> None:
        if self._settings.as_json and user not in self._said:
            self._said.add(user)
            say.json_line(self._json(user))

    def _json(self, user: str) -> dict[str, Any]:
        member = self.members.of(user)
        fields: dict[str, Any] = dict(member.fields or member.told)
        if self._asked.request.collect:
            fields["saved"] = self._saved.get(user, {})
        return {**fields, "user": user, "refused": member.refused or None,
                "message": own_words(member.message) or None}  # fmt: skip

    def _batch(self, operator: Client) -> Batch:
        return Batch(operator.conversation(self._target.user), self._asked.id)


def _is_whole(fields: CommandFields | None) -> bool:
    return fields is not None and bool(fields["outcome"]) and not fields["truncated"]


def perform(settings: Settings, target: Target, asked: Asked, wanted: Wish | None, last: State,
            *, send: bool = False) -> NoReturn:  # fmt: skip
    """``run`` or ``send``; ends the process. Raises ``HwsyncError`` where nothing was asked."""
    if target.boards:
        asked = replace(asked, request=replace(asked.request, batch=target.boards))
    many = Many(settings, target, asked, last)
    with many.client() as operator:
        operator.standing.slow = many.say_slow
        if many.is_judged:
            operator.wait(awaiting(operator, asked.request.analysis))
        if asked.seen_only and target.boards:
            refuse_strangers(settings, operator, target.boards)
        if wanted is not None:
            start, said = in_lab_time(operator, wanted)
            if said and not settings.as_json:
                say.remark(said)
            many.start(start, None if wanted.at is None else wanted.at - time.time())
        (many.send if send else many.run)(operator)
    sys.exit(many.members.exit_code if not send else _exit_of_send(many.members))


def _exit_of_send(members: Members) -> int:
    refused = [one for one in members.by_user.values() if one.refused]
    if not refused:
        return 0
    return NOT_RUN if len(refused) == len(members.by_user) else 1
