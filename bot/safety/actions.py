"""The safety protocol (docs/safety.md): answers with helplines in place of a persona's, replies that
are withheld, and the disclosure that personas are AI.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bot.guild_settings.definitions import HAS_MINORS
from bot.platform.errors import RefusedError
from bot.platform.localisation import LANGUAGES, gettext_lazy
from bot.safety.reply_guard import ReplyGuard
from bot.safety.rules import SafetyRules
from bot.store import Store, StoreError
from personas.engine import ReplyStream
from personas.schemas.chat import ChatRequest

log = logging.getLogger(__name__)
TALK_GAP_S = 3600.0
"""Silence that ends a talk."""
DISCLOSURE_INTERVAL_S = 3 * 3600.0
DISCLOSURE = gettext_lazy("-# You are talking with an AI, not with a person.")
PLAIN_DISCLOSURE = gettext_lazy("**You are talking with an AI, not with a person.**")
MINORS_BREAK = gettext_lazy("**You are talking with an AI, not with a person. Time for a break?**")
"""The lines below a reply. Servers with minors have none in small print, and neither has the reply to
a member who asks.
"""
WITHHELD = gettext_lazy(
    "No persona answers that, because what a model writes may suggest self-harm. If that is close to "
    "you: findahelpline.com lists people to talk to, by country."
)
"""In place of a reply, in the bot's own name."""
DISCLOSURE_LINES = frozenset(
    line.in_language(language)
    for line in (DISCLOSURE, PLAIN_DISCLOSURE, MINORS_BREAK)
    for language in LANGUAGES
)
"""The same in all languages: a message may have been posted before a server chose another one."""


class SelfHarmError(RefusedError):
    """A message speaks of self-harm or suicide, or of an emergency. `message` is the answer to it: a
    fixed text with helplines.
    """


@dataclass(frozen=True)
class Disclosure:
    """What tells a member, below a reply, that it is AI; an empty `line` where nothing does. One that
    only a question called for is not due: the time until the next one goes on. `correction` is the
    line for a reply in which the persona claims to be a human being.
    """

    line: str = ""
    is_due: bool = False
    correction: str = ""


@dataclass(frozen=True)
class SafetyProtocol:
    """Finds messages that speak of self-harm or of an emergency, and says how they are answered.
    `texts` are those about self-harm, by language; `on_answer` is called with the language of each of
    these answers.
    """

    store: Store
    texts: Mapping[str, str]
    on_answer: Callable[[str], None]

    def answer(self, *texts: str) -> str | None:
        """Return the answer to a member's message, and count it; None where no text of it speaks of
        self-harm or of an emergency.
        """
        rules = SafetyRules.shipped()
        for text in texts:
            if language := rules.find(text):
                self._count(language)
                return self.texts[language]
        for text in texts:
            if language := rules.find_emergency(text):
                self._count_emergency(language)
                return rules.emergency_text(language)
        return None

    def uncounted_answer(self, text: str) -> str | None:
        """Return the answer to a text that is tried out; None where it speaks of neither."""
        rules = SafetyRules.shipped()
        if language := rules.find(text):
            return self.texts[language]
        language = rules.find_emergency(text)
        return rules.emergency_text(language) if language else None

    def finds(self, text: str) -> str | None:
        """Return the language in which a text speaks of self-harm or of an emergency; None if it does
        not.
        """
        rules = SafetyRules.shipped()
        return rules.find(text) or rules.find_emergency(text)

    def require_safe(self, *texts: str) -> None:
        """Raise `SelfHarmError` for a message that `answer` answers, and count that."""
        if answer := self.answer(*texts):
            raise SelfHarmError(answer)

    def _count(self, language: str) -> None:
        self.on_answer(language)
        try:
            self.store.safety_answers.count(_today(), language)
        except StoreError as error:  # the answer matters more than its count
            log.warning("an answer with helplines is not counted: %s", error)

    def _count_emergency(self, language: str) -> None:
        try:
            self.store.emergency_answers.count(_today(), language)
        except StoreError as error:
            log.warning("an answer to an emergency is not counted: %s", error)

    def guard(self, generate: Callable[[ChatRequest], ReplyStream]) -> ReplyGuard:
        """Return the guard of the replies that `generate` submits to the engine."""
        return ReplyGuard(generate, SafetyRules.shipped(), self._count_withheld)

    def _count_withheld(self, language: str) -> None:
        log.info("a reply is withheld")
        try:
            self.store.withheld_replies.count(_today(), language)
        except StoreError as error:
            log.warning("a withheld reply is not counted: %s", error)

    def disclosure(
        self, guild_id: int, channel_id: int, user_id: int, *, event_id: int, asked: str
    ) -> Disclosure:
        """Return what tells a member, below the reply to what they have `asked`, that it is AI. It is
        due at the start of a talk and every three hours of it. A reply that told it tells it when it
        is made again, too.
        """
        now = time.time()
        talk = self.store.talks.get(channel_id, user_id)
        goes_on = talk is not None and now - talk.spoke_at < TALK_GAP_S
        is_recent = talk is not None and now - talk.told_at < DISCLOSURE_INTERVAL_S
        is_due = not (talk and goes_on and is_recent and talk.told_event != event_id)
        has_minors = bool(guild_id) and HAS_MINORS.held(self.store, guild_id)
        line = ""
        if is_due and has_minors and goes_on:
            line = MINORS_BREAK
        elif (is_due and has_minors) or SafetyRules.shipped().find_sincere_question(asked):
            line = PLAIN_DISCLOSURE
        elif is_due:
            line = DISCLOSURE
        return Disclosure(line, is_due, correction=line or _correction(has_minors))

    def unasked_disclosure(self, guild_id: int) -> Disclosure:
        """Return what tells, below a line that answers nobody, that it is AI."""
        has_minors = bool(guild_id) and HAS_MINORS.held(self.store, guild_id)
        return Disclosure(correction=_correction(has_minors))


def _today() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%d")


def _correction(has_minors: bool) -> str:
    return PLAIN_DISCLOSURE if has_minors else DISCLOSURE
