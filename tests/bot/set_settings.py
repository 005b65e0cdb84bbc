"""Sets what moderators set on Discord, without a command."""

from bot.guild_settings.definitions import ANSWERING, COOLDOWN_S, MODERATORS_EXEMPT, PER_DAY
from bot.guild_settings.store import SettingScope


def set_answering(services, guild_id, channel_id, changes):
    """Set when the personas of a channel answer."""
    scope = SettingScope(int(guild_id), channel_id=int(channel_id))
    services.guild_settings.change(ANSWERING, scope, changes)


def set_limits(store, guild_id, limits):
    """Set how often a member is answered."""
    PER_DAY.write(store, limits.per_day, int(guild_id))
    COOLDOWN_S.write(store, limits.cooldown_s, int(guild_id))
    MODERATORS_EXEMPT.write(store, limits.exempts_moderators, int(guild_id))
