"""Compares what members have sent with what has answered it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import pairwise

from bot.demo_guild import MODERATOR
from bot.moderation.limits import ReplyLimits
from bot.platform.db.database import Row
from bot.safety.texts import shipped_texts
from tests.chaos.message_kinds import SELF_HARM, Sent, Traffic
from tests.chaos.outcome import Outcome

NUMBER = re.compile(r"question (\d+)")
HEARD = re.compile(r"Lines:([ \d]*)\.")
"""How a reply lists the numbers of the members' last messages."""
SEARCHED_MESSAGES, SEARCHED_CALLS = 45, 4
"""Latest messages of a channel, and calls among them, that a bot surely searches when it comes back
(`bot.chat.discord_missed`); one more may come meanwhile.
"""
BUSY_TEXT = "as many as"
"""Words of the notice that a member has too many unfinished replies, which names no message."""
REPLIES_SQL = """select *, exists (select 1 from reply_parts
    where reply_parts.event_id = replies.event_id) as is_seen from replies"""
MESSAGES_SQL = "select * from messages where persona_id is null"


class AnswerCheck:
    """Each message has the answers that it deserves, once, and nobody else's."""

    def __init__(
        self, traffic: Traffic, limits: ReplyLimits, rows: Callable[[str], list[Row]]
    ) -> None:
        self._traffic = traffic
        self.limits = limits
        self._rows = rows
        self._owed: set[Sent] = set()
        self.replies: list[Row] = []
        self.messages: list[Row] = []
        self._lines: list[Row] = []

    def owe(self, sent: Iterable[Sent]) -> None:
        """Note messages that have to be answered: the bot was there, and stays."""
        self._owed.update(sent)

    def note_owed(self) -> None:
        """Note the latest messages that call a persona: a bot that comes back has to answer them."""
        for channel in self._traffic.channels:
            calls = []
            for message in self._traffic.sandbox.messages(channel)[-SEARCHED_MESSAGES:]:
                sent = self._traffic.sent.get(int(message["id"]))
                if sent and sent.is_call:
                    calls.append(sent)
            self.owe(calls[-SEARCHED_CALLS:])

    def check(self, outcome: Outcome, *, is_all_owed: bool) -> None:
        """Add what is lost, doubled or said by or to the wrong one."""
        self.replies = self._rows(REPLIES_SQL)
        self.messages = self._rows(MESSAGES_SQL)
        self._lines = self._rows("select * from reply_lines")
        sent = set(self._traffic.sent.values())
        if is_all_owed:
            # A bot that ends while it recognises a voice message has not stored it.
            self.owe(each for each in sent if each.kind != "voice message")
        for message in self.messages:
            self._check_stored(outcome, message)
        for each in sent:
            self._check_sent(outcome, each)
        self._check_help(outcome, sent)
        self._check_limits(outcome)

    def rounds(self, message: Row) -> list[Row]:
        """List the replies of all personas to a stored message, alone or with other lines."""
        seq = message["seq"]
        firsts = {line["event_id"] for line in self._lines if line["seq"] == seq}
        return [
            reply
            for reply in self.replies
            if reply["trigger_seq"] == seq
            or reply["event_id"] in firsts
            or reply["first_event"] in firsts
        ]

    def _check_stored(self, outcome: Outcome, message: Row) -> None:
        what = f"the message {message['discord_message_id']} ({message['text'][:40]!r})"
        sent = self._traffic.sent.get(message["discord_message_id"])
        personas = [reply["persona_id"] for reply in self.rounds(message)]
        if SELF_HARM in message["text"]:
            outcome.orphans.append(f"{what} is stored")
        if len(set(personas)) < len(personas):
            outcome.doubled.append(f"{what} is answered by {personas}")
        if not personas:
            outcome.lost.append(f"{what} has no reply")
        if sent is None or sent.personas is None:
            return
        what += f", {sent.kind},"
        if others := set(personas) - sent.personas:
            outcome.orphans.append(f"{what} is answered by {others}, not by {set(sent.personas)}")
        if sent.personas - set(personas) and not self._is_limited(sent):
            outcome.lost.append(f"{what} is answered by {personas}, not by {set(sent.personas)}")

    def _check_sent(self, outcome: Outcome, sent: Sent) -> None:
        stored = [row for row in self.messages if row["discord_message_id"] in sent.ids]
        replies = [reply for row in stored for reply in self.rounds(row)]
        replies += [reply for reply in self.replies if reply["event_id"] in sent.ids]
        replies += [reply for reply in self.replies if reply["first_event"] in sent.ids]
        by_event = {reply["event_id"]: reply for reply in replies}
        seen = Counter(reply["persona_id"] for reply in by_event.values() if reply["is_seen"])
        if any(count > 1 for count in seen.values()):
            outcome.doubled.append(f"{sent} has the replies {seen}")
        if sent not in self._owed:
            return
        if self._may_be_refused(sent):
            outcome.exempt += 1
            return
        outcome.owed += 1
        answered = {reply["persona_id"] for reply in by_event.values()}
        if not answered if sent.personas is None else sent.personas - answered:
            outcome.lost.append(f"{sent} is answered by {answered or 'nobody'}")

    def _may_be_refused(self, sent: Sent) -> bool:
        """Report whether a message may have no answer: it is deleted, its member has a limit, or the
        bot was too busy in its channel, of which a notice tells once in a while.
        """
        if self._traffic.deleted.issuperset(sent.ids) or self._is_limited(sent):
            return True
        shown = self._traffic.sandbox.messages(sent.channel)
        return any(BUSY_TEXT in message["content"] for message in shown)

    def _is_limited(self, sent: Sent) -> bool:
        return sent.author != MODERATOR and self.limits != ReplyLimits()

    def _check_help(self, outcome: Outcome, sent: Iterable[Sent]) -> None:
        """Each message that speaks of self-harm has the fixed text, once."""
        answers = Counter[int | str]()
        for channel in self._traffic.channels:
            for message in self._traffic.sandbox.messages(channel):
                if message["content"] == shipped_texts()["en"]:
                    # Without one, the message was deleted before its answer came.
                    reference = message.get("message_reference")
                    answers[int(reference["message_id"]) if reference else channel] += 1
        for each in sent:
            number = sum(answers.pop(one, 0) for one in each.ids)
            if each.kind == "self-harm" and self._traffic.deleted.intersection(each.ids):
                number += answers.pop(each.channel, 0)
            if each.kind != "self-harm":
                outcome.orphans += [f"{each} is answered with helplines"] * number
            elif number > 1:
                outcome.doubled.append(f"{each} has {number} answers with helplines")
            elif not number and each in self._owed:
                outcome.lost.append(f"{each} has no answer with helplines")
        outcome.orphans += [f"helplines in {one} answer nobody" for one in answers.elements()]

    def _check_limits(self, outcome: Outcome) -> None:
        """No member but a moderator has more replies than the limits allow."""
        moderator_id = int(self._traffic.sandbox.member(MODERATOR).id)
        by_day = Counter[tuple[int, str]]()
        times = defaultdict[int, list[float]](list)
        for reply in self.replies:
            member_id = reply["asked_by"]
            if not member_id or member_id == moderator_id or reply["state"] == "failed":
                continue
            day = datetime.fromtimestamp(reply["created_at"], UTC).date()
            by_day[member_id, str(day)] += reply["attempt"]
            if reply["first_event"] is None:
                times[member_id].append(reply["created_at"])
        if self.limits.per_day:
            for key, number in by_day.items():
                if number > self.limits.per_day:
                    outcome.doubled.append(f"{key} had {number} replies")
        if self.limits.cooldown_s:
            for member_id, at in times.items():
                gaps = [later - earlier for earlier, later in pairwise(sorted(at))]
                if gaps and min(gaps) < self.limits.cooldown_s:
                    outcome.doubled.append(f"{member_id} waited {min(gaps):.2f} s for a reply")

    def check_heard(self, outcome: Outcome, reply: Row, text: str) -> None:
        """Compare a whole reply with the message, or all lines, that it answers."""
        first = reply["first_event"] or reply["event_id"]
        seqs = [line["seq"] for line in self._lines if line["event_id"] == first]
        seqs = seqs or [reply["trigger_seq"]]
        asked = [row for row in self.messages if row["seq"] in seqs]
        numbers = [number for row in asked for number in NUMBER.findall(row["text"])[-1:]]
        ordinals = sorted(row["ordinal"] for row in asked)
        is_together = len(asked) == len(seqs) == ordinals[-1] - ordinals[0] + 1 if asked else False
        if not is_together:  # somebody has spoken between the lines, or one is deleted
            return
        found = HEARD.search(text)
        heard = found[1].split() if found else []
        if missing := [number for number in numbers if number not in heard]:
            outcome.lost.append(f"the reply {reply['event_id']} has not heard {missing}: {text}")
