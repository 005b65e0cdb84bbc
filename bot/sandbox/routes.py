"""Discord's HTTP API as far as the bot uses it: one small handler a route, and the table of them."""

from bot.sandbox import limits, shapes
from bot.sandbox.commands import GLOBAL
from bot.sandbox.errors import ApiError, Json
from bot.sandbox.interactions import Interaction
from bot.sandbox.messages import HAS_THREAD, Draft
from bot.sandbox.permissions import Permission
from bot.sandbox.ratelimits import STARTS
from bot.sandbox.rest import Call, Route
from bot.sandbox.sessions import withheld
from bot.sandbox.shapes import DIRECT, TEXT, THREAD
from bot.sandbox.world import World


def me(world: World, call: Call) -> Json:
    return world.guild.bot | {"mfa_enabled": False, "locale": "en-US", "verified": True, "email": None}


def gateway_bot(world: World, call: Call) -> Json:
    left, seconds = world.gateway.starts_left()
    starts = {"total": STARTS.most, "remaining": left, "reset_after": int(seconds * 1000), "max_concurrency": 1}
    return {"url": world.gateway.url, "shards": 1, "session_start_limit": starts}


def get_guild(world: World, call: Call) -> Json:
    return world.guild.shape() | {"approximate_member_count": len(world.guild.members())}


def get_members(world: World, call: Call) -> list[Json]:
    after = call.number("after") or 0
    later = [member for member in world.guild.members() if int(member["user"]["id"]) > after]
    return later[: call.number("limit") or 1]


def _scope(call: Call) -> str:
    return str(call.path.get("guild_id", GLOBAL))


def open_direct(world: World, call: Call) -> Json:
    recipient = world.store.get("member", (call.body or {}).get("recipient_id"))
    if recipient is None or recipient["user"]["bot"]:
        raise ApiError(50033)
    return world.places.direct(recipient["user"]["id"])


def _channel(world: World, call: Call, needed: Permission) -> Json:
    channel = world.guild.channel(call.path["channel_id"])
    world.guild.require(needed, channel)
    return channel


def _as_read(world: World, channel: Json, message: Json) -> Json:
    """The message as the HTTP API gives it: the portal's switch decides here, not a session's intents."""
    is_open = world.conditions.message_content or channel["type"] == DIRECT
    return message if is_open else withheld(message, world.guild.bot_id)


def history(world: World, call: Call) -> list[Json]:
    channel = _channel(world, call, Permission.VIEW_CHANNEL)
    if not _reads_history(world, channel):
        return []
    limit = min(call.number("limit") or 50, 100)
    found = world.messages.history(channel["id"], limit, call.number("before"), call.number("after"))
    return [_as_read(world, channel, message) for message in reversed(found)]


def get_message(world: World, call: Call) -> Json:
    channel = _channel(world, call, Permission.READ_MESSAGE_HISTORY)
    return _as_read(world, channel, world.messages.find(call.path["message_id"], channel["id"]))


def create_message(world: World, call: Call) -> Json:
    channel, draft = _channel(world, call, Permission.SEND_MESSAGES), call.draft()
    draft.check()
    _check_parts(world, channel, draft)
    if draft.body.get("message_reference") and not _reads_history(world, channel):
        raise ApiError(160002)
    return world.messages.create(world.guild.bot, channel["id"], draft)


def _reads_history(world: World, channel: Json) -> bool:
    return world.guild.may(world.guild.bot_id, Permission.READ_MESSAGE_HISTORY, channel)


def _check_parts(world: World, channel: Json, draft: Draft) -> None:
    if draft.body.get("embeds"):
        world.guild.require(Permission.EMBED_LINKS, channel)
    if draft.files:
        world.guild.require(Permission.ATTACH_FILES, channel)


def start_thread(world: World, call: Call) -> Json:
    channel, message = _channel(world, call, Permission.CREATE_PUBLIC_THREADS), None
    limits.check(call.body, limits.THREAD)
    if "message_id" in call.path:
        message = world.messages.find(call.path["message_id"], channel["id"])
    if channel["type"] != TEXT or (message is None and call.body.get("type") != THREAD):
        raise ApiError(50024)
    if message and message["flags"] & HAS_THREAD:
        raise ApiError(160004)
    return world.places.thread(world.guild.bot, channel, call.body["name"], message)


def edit_message(world: World, call: Call) -> Json:
    channel, draft = _channel(world, call, Permission.VIEW_CHANNEL), call.draft()
    message = world.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != world.guild.bot_id:
        raise ApiError(50005)
    _check_parts(world, channel, draft)
    return world.messages.edit(message["id"], draft)


def delete_message(world: World, call: Call) -> None:
    channel = _channel(world, call, Permission.VIEW_CHANNEL)
    message = world.messages.find(call.path["message_id"], channel["id"])
    if message["author"]["id"] != world.guild.bot_id:
        world.guild.require(Permission.MANAGE_MESSAGES, channel)
    world.messages.delete(message["id"])


def typing(world: World, call: Call) -> None:
    channel = _channel(world, call, Permission.SEND_MESSAGES)
    world.feed.publish("typing", {"channel_id": channel["id"], "user": world.guild.bot})


def _webhook_channel(world: World, call: Call) -> Json:
    """A thread has none of its own: its channel's webhooks speak in it."""
    channel = _channel(world, call, Permission.MANAGE_WEBHOOKS)
    if channel["type"] != TEXT:
        raise ApiError(50024)
    return channel


def guild_webhooks(world: World, call: Call) -> list[Json]:
    world.guild.require(Permission.MANAGE_WEBHOOKS)
    return world.webhooks.of_guild()


def get_webhook(world: World, call: Call) -> Json:
    """The webhook, by its own token or by the bot's right to manage it."""
    if "token" not in call.path:
        world.guild.require(Permission.MANAGE_WEBHOOKS)
    return world.webhooks.find(call.path["webhook_id"], call.path.get("token"))


def execute_webhook(world: World, call: Call) -> Json | None:
    interaction = world.interactions.by_token(call.path["token"])
    if interaction is not None:
        return world.interactions.follow_up(interaction, call.draft())
    hook = get_webhook(world, call)
    message = world.webhooks.execute(hook, world.webhooks.place(hook, call.query.get("thread_id")), call.draft())
    return message if call.asks("wait") else None


def get_webhook_message(world: World, call: Call) -> Json:
    """The message, if the webhook or the interaction wrote it; one in a thread needs the thread's id."""
    interaction = world.interactions.by_token(call.path["token"])
    if interaction is not None and call.path["message_id"] == "@original":
        return world.interactions.original(interaction)
    hook = None if interaction else get_webhook(world, call)
    place = world.webhooks.place(hook, call.query.get("thread_id")) if hook else None
    message = world.messages.find(call.path["message_id"], place)
    if message.get("webhook_id") != call.path["webhook_id"]:
        raise ApiError(10008)
    return message


def callback(world: World, call: Call) -> Json | None:
    ids = call.path["interaction_id"], call.path["token"]
    interaction: Interaction = world.interactions.answer(*ids, call.body or {}, call.draft("data"))
    return world.interactions.receipt(interaction) if call.asks("with_response") else None


COMMANDS = "/applications/{application_id}/commands"
GUILD_COMMANDS = "/applications/{application_id}/guilds/{guild_id}/commands"
MESSAGE = "/channels/{channel_id}/messages/{message_id}"
WEBHOOKS = "/channels/{channel_id}/webhooks"
WEBHOOK = "/webhooks/{webhook_id}"
SPOKEN = "/webhooks/{webhook_id}/{token}"
SPOKEN_MESSAGE = SPOKEN + "/messages/{message_id}"

ROUTES: tuple[Route, ...] = (
    ("GET", "/users/@me", me),
    ("POST", "/users/@me/channels", open_direct),
    ("GET", "/oauth2/applications/@me", lambda world, call: shapes.application(world.guild.bot, world.guild.owner)),
    ("GET", "/gateway/bot", gateway_bot),
    ("GET", "/guilds/{guild_id}", get_guild),
    ("GET", "/guilds/{guild_id}/roles", lambda world, call: world.guild.roles()),
    ("GET", "/guilds/{guild_id}/channels", lambda world, call: world.guild.channels()),
    ("GET", "/guilds/{guild_id}/members", get_members),
    ("GET", "/guilds/{guild_id}/members/{user_id}", lambda world, call: world.guild.member(call.path["user_id"])),
    ("GET", "/guilds/{guild_id}/webhooks", guild_webhooks),
    ("GET", COMMANDS, lambda world, call: world.commands.registered(_scope(call))),
    ("PUT", COMMANDS, lambda world, call: world.commands.replace(_scope(call), call.body or [])),
    ("GET", GUILD_COMMANDS, lambda world, call: world.commands.registered(_scope(call))),
    ("PUT", GUILD_COMMANDS, lambda world, call: world.commands.replace(_scope(call), call.body or [])),
    ("GET", "/channels/{channel_id}", lambda world, call: _channel(world, call, Permission.VIEW_CHANNEL)),
    ("GET", "/channels/{channel_id}/messages", history),
    ("POST", "/channels/{channel_id}/messages", create_message),
    ("GET", MESSAGE, get_message),
    ("PATCH", MESSAGE, edit_message),
    ("DELETE", MESSAGE, delete_message),
    ("POST", MESSAGE + "/threads", start_thread),
    ("POST", "/channels/{channel_id}/threads", start_thread),
    ("POST", "/channels/{channel_id}/typing", typing),
    ("GET", WEBHOOKS, lambda world, call: world.webhooks.of_channel(_webhook_channel(world, call)["id"])),
    ("POST", WEBHOOKS, lambda world, call: world.webhooks.create(_webhook_channel(world, call)["id"], call.body or {})),
    ("GET", WEBHOOK, get_webhook),
    ("PATCH", WEBHOOK, lambda world, call: world.webhooks.edit(get_webhook(world, call), call.body)),
    ("DELETE", WEBHOOK, lambda world, call: world.webhooks.delete(get_webhook(world, call))),
    ("GET", SPOKEN, get_webhook),
    ("PATCH", SPOKEN, lambda world, call: world.webhooks.edit(get_webhook(world, call), call.body)),
    ("DELETE", SPOKEN, lambda world, call: world.webhooks.delete(get_webhook(world, call))),
    ("POST", SPOKEN, execute_webhook),
    ("GET", SPOKEN_MESSAGE, get_webhook_message),
    (
        "PATCH",
        SPOKEN_MESSAGE,
        lambda world, call: world.messages.edit(get_webhook_message(world, call)["id"], call.draft()),
    ),
    ("DELETE", SPOKEN_MESSAGE, lambda world, call: world.messages.delete(get_webhook_message(world, call)["id"])),
    ("POST", "/interactions/{interaction_id}/{token}/callback", callback),
)
