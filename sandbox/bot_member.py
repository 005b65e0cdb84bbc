"""The bot's own member of a guild: the nickname and the picture that it has there.

Source: discord.com/developers/docs/resources/guild#modify-current-member.
"""

from sandbox.container import SandboxContainer
from sandbox.guild_seed import Permission
from sandbox.network_conditions import RateLimit
from sandbox.pictures import read_picture
from sandbox.sandbox_errors import ApiError, Json

MAX_NICK_UNITS = 32
"""Characters in UTF-16."""
MAX_PICTURE_BYTES = 10 * 2**20
SIGNATURES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}
"""How the files of the types begin that Discord takes here."""
PICTURE_LIMIT = RateLimit(5, 600.0)
"""Discord does not say how often a picture may change; it is seldom."""


def edit(parts: SandboxContainer, body: Json) -> Json:
    """Change the bot's nickname or picture in a guild, all of the body or nothing; returns the
    member. Raises ApiError 50013 and 50035.
    """
    fields: dict[str, str | None] = {}
    if "nick" in body:
        parts.guild.require(Permission.CHANGE_NICKNAME)
        fields["nick"] = _nick(body["nick"])
    if "avatar" in body:
        fields["avatar"] = _picture(parts, body["avatar"])
    member = parts.guild.change_bot(**fields)
    parts.gateway.dispatch("GUILD_MEMBER_UPDATE", member | {"guild_id": parts.guild.id})
    parts.feed.publish("member", member | {"guild_id": parts.guild.id})
    return member


def _nick(nick: str | None) -> str | None:
    nick = (nick or "").strip()
    if len(nick.encode("utf-16-le")) // 2 > MAX_NICK_UNITS:
        message = f"Must be {MAX_NICK_UNITS} or fewer in length."
        raise ApiError.field("nick", "BASE_TYPE_BAD_LENGTH", message)
    return nick or None


def _picture(parts: SandboxContainer, uri: str | None) -> str | None:
    picture = read_picture(uri)
    if picture is None:
        return None
    if not picture.data.startswith(SIGNATURES.get(picture.type, ())):
        raise ApiError.field("avatar", "IMAGE_INVALID", "Invalid image data")
    if len(picture.data) > MAX_PICTURE_BYTES:
        message = "File cannot be larger than 10240.0 kb."
        raise ApiError.field("avatar", "BINARY_TYPE_MAX_SIZE", message)
    if not parts.rates.spend(("own picture", parts.guild.id), PICTURE_LIMIT):
        message = "You are changing your avatar too fast. Try again later."
        raise ApiError.field("avatar", "AVATAR_RATE_LIMIT", message)
    return parts.store.put_avatar(picture)
