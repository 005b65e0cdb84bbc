"""Decides by rules whether a message is said to a persona, and names the rule.

No model takes part: the same message in the same channel is decided alike, also later, when a
moderator asks why (`/persona why`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

import regex

from bot.answering.actions import EffectiveAnswering
from bot.chat.chat_words import first_named, is_laughter, is_link
from bot.platform.localisation import gettext_lazy
from bot.store import AnswerMode

COMMAND = regex.compile(
    r"(?P<sign>[/!?.$%&+=;,>-]|[;!?]{2}|[a-z][!?$])(?P<name>[a-z][\w-]*)(?:@\w+)?(?=\s|$)",
    regex.IGNORECASE,
)
"""The beginning of a command to another bot, such as `!play`, `?rank`, `;;skip` or `t!catch`."""
PUNCTUATION = frozenset(".&+=;,>-")
"""Signs with which members begin a sentence, too ("-that was odd")."""
MAX_WORDS_AFTER_PUNCTUATION = 2
EXCLAMATIONS = frozenset("!?")
"""Signs before exclamations and questions, too, which some languages put there ("!hola a todos")."""
COMMON_COMMANDS = frozenset(
    """
    about addrole afk av avatar bal balance ban bet buy calc catch clear close coinflip commands
    config daily define dice disconnect echo flip gif gift give giveaway help hug image img info inv
    inventory invite join kick lb leaderboard leave level levels lock loop lyrics marry math meme mute
    np nowplaying p pat pause pay ping play poll prefix prune purge q queue quote rank remind remindme
    remove rep resume role roles roll search seek sell server serverinfo settings setup shop shuffle
    skip slap slots slowmode start stop suggest tag tags ticket timeout timer top translate unban
    unlock unmute urban user userinfo volume warn warnings warns weather whois work xp
    """.split()
)
"""Names of commands that many bots have."""
ARGUMENT = regex.compile(r"<[@#]|https?://|-*\d|--\w")
"""The beginning of what follows a command rather than an exclamation."""
LEADING_MENTION = regex.compile(r"\s*(?:<@!?\d+>|<@&\d+>|@everyone\b|@here\b)")
RepliesTo = Literal["nobody", "persona", "other"]


class Rule(Enum):
    """The rules, with what each says to a moderator."""

    DIRECT_MESSAGE = gettext_lazy("it is a direct message")
    REPLY = gettext_lazy("it replies to a message of the persona")
    MENTION = gettext_lazy("it mentions the bot")
    NAMED = gettext_lazy("it names the persona")
    EVERY_MESSAGE = gettext_lazy("the persona answers every message here")
    NO_PERSONA = gettext_lazy("no persona lives here, and it does not mention the bot")
    MENTIONS_ONLY = gettext_lazy("the persona answers only mentions and replies here")
    HIDDEN = gettext_lazy("Discord hides its text, since it does not mention the bot")
    QUIET_HOURS = gettext_lazy("a reply would have come in the quiet hours")
    REPLY_TO_OTHER = gettext_lazy("it replies to somebody else")
    MENTION_OF_OTHER = gettext_lazy("it begins with a mention of somebody else")
    COMMAND = gettext_lazy("it is a command to another bot")
    LINK = gettext_lazy("it is a link without words")
    REACTION = gettext_lazy("it is laughter or emoji alone")
    CHANCE = gettext_lazy("the reply chance did not fall on it")


ANSWERED = frozenset(
    {Rule.DIRECT_MESSAGE, Rule.REPLY, Rule.MENTION, Rule.NAMED, Rule.EVERY_MESSAGE}
)


@dataclass(frozen=True)
class Decision:
    """Whether a message is answered, and by which rule."""

    rule: Rule

    @property
    def is_answered(self) -> bool:
        """Whether the persona answers it."""
        return self.rule in ANSWERED


@dataclass(frozen=True, kw_only=True)
class SaidMessage:
    """What the rules look at of a message.

    `text` has Discord's markup. `at`: when it would be answered, which an edit or an absence of the
    bot may put off. `is_hidden`: Discord withholds its content. `has_more`: something
    stands beside its text, such as a file. `joins_reply`: a reply waits for further lines of its
    member.
    """

    event_id: int
    text: str
    at: datetime
    is_direct_message: bool = False
    mentions_bot: bool = False
    replies_to: RepliesTo = "nobody"
    is_hidden: bool = False
    has_more: bool = False
    joins_reply: bool = False


DEFAULT_ANSWERING = EffectiveAnswering()


@dataclass(frozen=True, kw_only=True)
class ListeningChannel:
    """What the rules look at of a channel. `answers` is None where no persona lives; `names` are
    those of its personas.
    """

    answers: AnswerMode | None
    names: tuple[str, ...] = ()
    answering: EffectiveAnswering = DEFAULT_ANSWERING


def decide(said: SaidMessage, channel: ListeningChannel) -> Decision:
    """Decide whether a message is answered."""
    return Decision(_addressed(said, channel) or _unasked(said, channel))


def is_command(text: str) -> bool:
    """Report whether a text is a command to another bot."""
    found = COMMAND.match(text)
    if found is None:
        return False
    _, *further = text.split()
    if found["sign"] in PUNCTUATION and 1 + len(further) > MAX_WORDS_AFTER_PUNCTUATION:
        return False
    if EXCLAMATIONS.issuperset(found["sign"]) and further:
        is_common = found["name"].lower() in COMMON_COMMANDS
        if not is_common and not ARGUMENT.match(further[0]):
            return False
    # "-that- " is emphasis.
    return not (len(text) > found.end() and text.rstrip()[-1] == text[0])


def _addressed(said: SaidMessage, channel: ListeningChannel) -> Rule | None:
    """Return the rule for a message that is said to a persona or to the bot; None for others."""
    if said.is_direct_message:
        return Rule.DIRECT_MESSAGE
    is_reply = said.replies_to == "persona"
    if not is_reply and not said.mentions_bot:
        return None
    if channel.answering.quiet_mentions and channel.answering.is_quiet(said.at):
        return Rule.QUIET_HOURS
    return Rule.REPLY if is_reply else Rule.MENTION


def _unasked(said: SaidMessage, channel: ListeningChannel) -> Rule:
    """Return the rule for a message that neither mentions the bot nor replies to a persona."""
    if channel.answers is None:
        return Rule.NO_PERSONA
    if channel.answers != "everything":
        return Rule.MENTIONS_ONLY
    if said.is_hidden:
        return Rule.HIDDEN
    if channel.answering.is_quiet(said.at):
        return Rule.QUIET_HOURS
    if first_named(said.text, channel.names) is not None:
        return Rule.NAMED
    for rule, applies in LEFT_ALONE.items():
        if applies(said):
            return rule
    # A chance that fell on a line before has drawn the reply, which answers all of them.
    is_drawn = said.joins_reply or channel.answering.draws(said.event_id)
    return Rule.EVERY_MESSAGE if is_drawn else Rule.CHANCE


LEFT_ALONE: dict[Rule, Callable[[SaidMessage], bool]] = {
    Rule.REPLY_TO_OTHER: lambda said: said.replies_to == "other",
    Rule.MENTION_OF_OTHER: lambda said: LEADING_MENTION.match(said.text) is not None,
    Rule.COMMAND: lambda said: is_command(said.text),
    Rule.LINK: lambda said: not said.has_more and is_link(said.text),
    Rule.REACTION: lambda said: not said.has_more and is_laughter(said.text),
}
"""In a channel where a persona answers everything: what is left alone unless it names the persona."""
