"""All settings that are made on Discord."""

from bot.guild_settings.quiet_hours import QuietHours
from bot.guild_settings.registry import Bounds, Setting, SettingGroup, number_text
from bot.platform.localisation import gettext_lazy, gettext_noop
from bot.setting_values import MAX_NEW_TOKENS_LIMIT
from personas.engine.context_window import MAX_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS

MAX_TEMPERATURE = 2.0
MIN_TOP_P = 0.01
MAX_WAIT_S = 10.0
MAX_CHANCE = 100
MAX_PER_DAY = 10_000
MAX_COOLDOWN_S = 3600


def _say_tokens(value: int) -> str:
    return gettext_lazy("{number} tokens", number=number_text(value))


def _say_seconds(value: float) -> str:
    return gettext_lazy("{number} s", number=number_text(value))


def _say_percent(value: int) -> str:
    return gettext_lazy("{number} %", number=number_text(value))


def _say_hours(value: str) -> str:
    if not value:
        return gettext_lazy("none")
    return gettext_lazy("{hours} in this server's time zone", hours=value)


def say_yes_or_no(value: bool) -> str:
    """Write a value of yes or no."""
    return gettext_lazy("yes") if value else gettext_lazy("no")


def _read_hours(text: str) -> str:
    return str(QuietHours.parse(text))


# The engine decides more about the first and the last: `bot.generation.actions.EngineRules`.
MAX_NEW_TOKENS = Setting(
    key="max_new_tokens",
    type=int,
    default=0,
    scope="persona",
    title=gettext_lazy("Longest reply"),
    option="max_new_tokens",
    help=gettext_noop("The longest reply in tokens; 120 are about 450 letters"),
    hint="120 are about 450 letters.",
    say=_say_tokens,
    bounds=Bounds(1, MAX_NEW_TOKENS_LIMIT),
    in_direct_messages=False,
)
TEMPERATURE = Setting(
    key="temperature",
    type=float,
    default=0.0,
    scope="persona",
    title=gettext_lazy("Temperature"),
    option="temperature",
    help=gettext_noop("0 always takes the likeliest word; above 1 words get random"),
    hint="0 takes the likeliest word; above 1, words get random.",
    bounds=Bounds(0.0, MAX_TEMPERATURE, gettext_lazy("the most that can be set")),
    in_direct_messages=False,
)
TOP_P = Setting(
    key="top_p",
    type=float,
    default=1.0,
    scope="persona",
    title=gettext_lazy("Top-p"),
    option="top_p",
    help=gettext_noop("Share of the likeliest words that are drawn from: 1 is all"),
    hint="Share of the likeliest words that are drawn from.",
    bounds=Bounds(MIN_TOP_P, 1.0, gettext_lazy("all tokens")),
    in_direct_messages=False,
)
CONTEXT_TOKENS = Setting(
    key="context_tokens",
    type=int,
    default=0,
    scope="persona",
    title=gettext_lazy("Context"),
    option="context_tokens",
    help=gettext_noop("The most tokens of card, lore, talk and reply; more of the talk is slower"),
    hint="Card, lore, earlier messages and the reply together.",
    say=_say_tokens,
    bounds=Bounds(MIN_CONTEXT_TOKENS, MAX_CONTEXT_TOKENS),
    in_direct_messages=False,
)
GENERATION = SettingGroup("generation", (MAX_NEW_TOKENS, TEMPERATURE, TOP_P, CONTEXT_TOKENS))
"""Length, sampling and context of replies. A setting with the key of a field of `SamplingParams` sets
that field.
"""

WAIT_S = Setting(
    key="wait_s",
    type=float,
    default=0.0,
    scope="channel",
    title=gettext_lazy("Wait for further lines"),
    option="wait",
    help=gettext_noop(
        "Seconds for which a reply waits for further lines of its member; 0 answers at once"
    ),
    hint="Seconds for which a reply waits for further lines of its member. One reply answers all.",
    say=_say_seconds,
    bounds=Bounds(0.0, MAX_WAIT_S),
)
REPLY_CHANCE = Setting(
    key="reply_chance",
    type=int,
    default=MAX_CHANCE,
    scope="channel",
    title=gettext_lazy("Reply chance"),
    option="chance",
    help=gettext_noop(
        "Share in percent of the messages said to nobody that it answers; 0: only if called"
    ),
    hint=(
        "Share in percent of the messages said to nobody that it answers. With 0, only its name, "
        "mentions and replies call it."
    ),
    say=_say_percent,
    bounds=Bounds(0, MAX_CHANCE),
    in_direct_messages=False,
)
QUIET_HOURS = Setting(
    key="quiet_hours",
    type=str,
    default="",
    scope="channel",
    title=gettext_lazy("Quiet hours"),
    option="quiet_hours",
    help=gettext_noop("Such as 22:00-07:00, in the server's time zone; `none` removes them"),
    hint=(
        "Such as 22:00-07:00, in the server's time zone. It is silent then, but for mentions and "
        "replies."
    ),
    say=_say_hours,
    parse=_read_hours,
    unset="none",
    in_direct_messages=False,
)
QUIET_MENTIONS = Setting(
    key="quiet_mentions",
    type=bool,
    default=False,
    scope="channel",
    title=gettext_lazy("Silent to mentions in quiet hours"),
    option="quiet_mentions",
    help=gettext_noop("Whether it is silent to mentions and replies, too, in quiet hours"),
    hint="Whether mentions and replies are silent in quiet hours, too.",
    say=say_yes_or_no,
    in_direct_messages=False,
)
ANSWERING = SettingGroup("answering", (WAIT_S, REPLY_CHANCE, QUIET_HOURS, QUIET_MENTIONS))
"""When the persona of a channel answers."""

PER_DAY = Setting(
    key="per_day",
    type=int,
    default=0,
    scope="guild",
    title=gettext_lazy("Replies to a member each day"),
    option="per_day",
    help=gettext_noop("Replies to a member each day; 0 for no limit"),
    hint="Empty or 0: no limit.",
    bounds=Bounds(0, MAX_PER_DAY),
    unset=0,
)
COOLDOWN_S = Setting(
    key="cooldown_s",
    type=int,
    default=0,
    scope="guild",
    title=gettext_lazy("Seconds between two replies to a member"),
    option="cooldown",
    help=gettext_noop("Seconds between two replies to a member; 0 for none"),
    hint="Empty or 0: no limit.",
    bounds=Bounds(0, MAX_COOLDOWN_S),
    unset=0,
)
MODERATORS_EXEMPT = Setting(
    key="exempts_moderators",
    type=bool,
    default=True,
    closed=False,
    scope="guild",
    title=gettext_lazy("Moderators have no limit"),
    option="moderators_exempt",
    help=gettext_noop("Whether moderators have no limits (they have none if left out)"),
    hint="Not set: they have none.",
    say=say_yes_or_no,
)
LIMITS = SettingGroup("limits", (PER_DAY, COOLDOWN_S, MODERATORS_EXEMPT))
"""How often a member is answered."""

TIME_ZONE = Setting(key="time_zone", type=str, default="", scope="guild")
"""By its IANA name; empty is the operator's."""
HAS_MINORS = Setting(key="has_minors", type=bool, default=False, closed=True, scope="guild")
CANDIDATES = Setting(key="reply_candidates", type=int, default=0, scope="guild")
"""Among how many candidates a reply's beginning is chosen; 0 is the operator's number."""
IS_PROMOTION_AUTOMATIC = Setting(
    key="automatic_promotion", type=bool, default=False, closed=False, scope="guild"
)
AUDIT_CHANNEL = Setting(key="audit_channel", type=int, default=0, scope="guild")
IS_TOPIC_TOLD = Setting(key="topic_told", type=bool, default=False, closed=False, scope="channel")
IS_AGE_RESTRICTED = Setting(
    key="age_restricted", type=bool, default=False, closed=True, scope="persona"
)
"""Where nothing is set, the persona's card decides."""
ALIASES = Setting[list[str]](key="aliases", type=list, default=[], scope="persona")
"""Further names by which members of a guild call a persona."""
