"""`/persona generation` and `/persona answering`: how and when the personas of a channel reply."""

from bot.guild_settings.definitions import ANSWERING, GENERATION
from bot.guild_settings.discord_groups import GroupDescriptions, SettingCommands
from bot.platform.discord_kit.transformers import PERSONA
from bot.platform.localisation import gettext_noop

SettingCommands(
    GENERATION,
    PERSONA,
    GroupDescriptions(
        group=gettext_noop(
            "How long and how varied replies are, and how much of the talk they see."
        ),
        show=gettext_noop("Show what holds for replies in this channel, and why."),
        set=gettext_noop("Set the length, sampling and context of replies (moderators)."),
        reset=gettext_noop("Remove what was set for replies, or one setting of it (moderators)."),
    ),
)
SettingCommands(
    ANSWERING,
    PERSONA,
    GroupDescriptions(
        group=gettext_noop(
            "When the persona of this channel answers: quick lines, chance, quiet hours."
        ),
        show=gettext_noop("Show when the persona of this channel answers."),
        set=gettext_noop("Set when the persona of this channel answers (moderators)."),
        reset=gettext_noop("Remove what was set for answers here, or one setting (moderators)."),
    ),
)
