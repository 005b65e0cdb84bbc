"""Places where the bot is not: channels of other guilds, and groups of members.

People who have installed the application for themselves use its commands there. The bot gets these
interactions alone: it can reach neither the channel nor its guild, and gets no events of them.
"""

from sandbox.channel_types import GROUP_CHANNEL, TEXT_CHANNEL
from sandbox.guild_seed import MEMBER_PERMISSIONS, Permission, has_permissions
from sandbox.object_store import ObjectStore
from sandbox.sandbox_errors import Json

OUTSIDE = "outside"
"""The kind under which these places are stored."""
GUILD_CONTEXT = 0
PRIVATE_CONTEXT = 2
MAX_FOLLOW_UPS = 5
"""Further messages to an interaction of an application that the guild has not installed."""


def create_channel(
    store: ObjectStore, name: str, *, permissions: int = MEMBER_PERMISSIONS, nsfw: bool = False
) -> Json:
    """Create a text channel of a guild without the bot, in which members have these permissions."""
    place = {
        "id": store.new_id(),
        "type": TEXT_CHANNEL,
        "name": name,
        "guild_id": store.new_id(),
        "nsfw": nsfw,
        "permissions": str(permissions),
    }
    return store.put(OUTSIDE, place)


def create_group(store: ObjectStore, name: str) -> Json:
    """Create a group of members without the bot."""
    place = {
        "id": store.new_id(),
        "type": GROUP_CHANNEL,
        "name": name,
        "permissions": str(MEMBER_PERMISSIONS),
    }
    return store.put(OUTSIDE, place)


def context_of(place: Json) -> int:
    """Return Discord's context of the interactions of a place."""
    return GUILD_CONTEXT if "guild_id" in place else PRIVATE_CONTEXT


def is_private(place: Json) -> bool:
    """Return whether Discord shows all responses in a place to their member alone."""
    bits = int(place["permissions"])
    return "guild_id" in place and not has_permissions(bits, Permission.USE_EXTERNAL_APPS)


def origin(place: Json, member: Json) -> Json:
    """Build the fields of an interaction that say where it comes from, and who brought the
    application there.
    """
    user = member["user"]
    fields = {
        "channel": _channel(place, user),
        "app_permissions": place["permissions"],
        "authorizing_integration_owners": {"1": user["id"]},
        "context": context_of(place),
    }
    if "guild_id" not in place:
        return fields | {"user": user}
    guild_id = place["guild_id"]
    stranger = member | {"roles": [], "permissions": place["permissions"]}
    return fields | {
        "guild_id": guild_id,
        "guild": {"id": guild_id, "locale": "en-US", "features": []},
        "guild_locale": "en-US",
        "member": stranger,
    }


def _channel(place: Json, user: Json) -> Json:
    """Build the partial channel of an interaction."""
    if "guild_id" not in place:
        return {
            "id": place["id"],
            "type": GROUP_CHANNEL,
            "name": place["name"],
            "icon": None,
            "owner_id": user["id"],
            "last_message_id": None,
            "recipients": [user],
            "flags": 0,
        }
    return {
        **place,
        "topic": None,
        "position": 0,
        "parent_id": None,
        "last_message_id": None,
        "rate_limit_per_user": 0,
        "flags": 0,
    }
