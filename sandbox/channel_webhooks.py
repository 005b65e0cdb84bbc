"""Channel webhooks: created by the bot, executed under any name and avatar."""

import hashlib
import re
import secrets
from typing import Any

from sandbox import payloads
from sandbox.channel_messages import MessageDraft, MessageManager
from sandbox.channel_types import FORUM_CHANNEL
from sandbox.gateway import Gateway
from sandbox.guild import Guild
from sandbox.network_conditions import NetworkConditions
from sandbox.object_store import StoredFile
from sandbox.pictures import read_picture
from sandbox.sandbox_errors import ApiError, Json

MAX_WEBHOOKS_PER_CHANNEL = 15  # Discord's
FORBIDDEN_NAMES = re.compile(r"discord|clyde", re.IGNORECASE)
LINKED_IMAGE_TYPE = "text/uri-list"


class WebhookManager:
    """All webhooks; each belongs to the bot's application, so buttons on its messages work."""

    def __init__(
        self,
        guild: Guild,
        messages: MessageManager,
        gateway: Gateway,
        conditions: NetworkConditions,
    ) -> None:
        self._guild = guild
        self._store = guild.store
        self._messages = messages
        self._gateway = gateway
        self._conditions = conditions

    def of_channel(self, channel_id: str) -> list[Json]:
        return [hook for hook in self._store.all("webhook") if hook["channel_id"] == channel_id]

    def of_guild(self) -> list[Json]:
        return [hook for hook in self._store.all("webhook") if hook["guild_id"] == self._guild.id]

    def find(self, webhook_id: object, token: str | None = None) -> Json:
        """Find a webhook; raises 10015 if there is none, 50027 if the token is not its own."""
        found = self._store.get("webhook", webhook_id)
        if found is None:
            raise ApiError(10015)
        if token is not None and token != found["token"]:
            raise ApiError(50027)
        return found

    def create(self, channel_id: str, body: Json, owner: Json | None = None) -> Json:
        """Create a webhook of an application's bot, by default of the bot's.

        Refuses the 16th of a channel (30007) and forbidden names (50035).
        """
        owner = owner or self._guild.bot
        if len(self.of_channel(channel_id)) >= MAX_WEBHOOKS_PER_CHANNEL:
            raise ApiError(30007)
        webhook_id = self._store.new_id()
        hook = {
            "id": webhook_id,
            "type": 1,
            "application_id": owner["id"],
            "guild_id": self._guild.id,
            "channel_id": channel_id,
            "user": owner,
            "token": secrets.token_urlsafe(51),  # 68 characters; discord.py wants 60 or more
            "avatar": None,
        }
        return self._save(hook, {"name": "", **body})

    def edit(self, hook: Json, body: Json) -> Json:
        if body.get("channel_id"):
            hook = hook | {"channel_id": str(body["channel_id"])}
        return self._save(hook, body)

    def _save(self, hook: Json, body: Json) -> Json:
        if "name" in body:
            hook["name"] = _allowed_name(body["name"], "name")
        if "avatar" in body:
            picture = read_picture(body["avatar"])
            hook["avatar"] = picture and self._store.put_avatar(picture)
        self._store.put("webhook", hook)
        self._dispatch_update(hook)
        return hook

    def delete(self, hook: Json) -> None:
        """Delete a webhook; its messages stay."""
        self._store.delete("webhook", hook["id"])
        self._dispatch_update(hook)

    def place(self, hook: Json, thread_id: str | None) -> str:
        """Return the channel to post in: the webhook's, or a thread of it. Raises ApiError
        10003.
        """
        if thread_id is None:
            return str(hook["channel_id"])
        if self._guild.channel(thread_id).get("parent_id") != hook["channel_id"]:
            raise ApiError(10003)
        return thread_id

    def execute(self, hook: Json, place: str, draft: MessageDraft) -> Json:
        if self._guild.channel(place)["type"] == FORUM_CHANNEL:
            raise ApiError(220001)
        draft.check()
        avatar_hash = hook["avatar"]
        if url := draft.body.get("avatar_url"):
            avatar_hash = self._linked_picture(url)
        name = hook["name"]
        if draft.body.get("username"):
            name = _allowed_name(draft.body["username"], "username")
        author = payloads.webhook_author(hook["id"], name, avatar_hash)
        owner: dict[str, Any] = {"webhook_id": hook["id"], "application_id": hook["application_id"]}
        return self._messages.create(author, place, draft, **owner)

    def _linked_picture(self, url: str) -> str:
        # Discord fetches the image; the sandbox makes no requests and leaves that to the page.
        name = hashlib.sha256(url.encode()).hexdigest()
        return self._store.put_avatar(StoredFile(name, LINKED_IMAGE_TYPE, url.encode()))

    def _dispatch_update(self, hook: Json) -> None:
        self._gateway.dispatch(
            "WEBHOOKS_UPDATE", {"guild_id": self._guild.id, "channel_id": hook["channel_id"]}
        )
        self._conditions.on_change()


def _allowed_name(name: str, field: str) -> str:
    if not 1 <= len(name.strip()) <= 80:
        raise ApiError.field(field, "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 80 in length.")
    if found := FORBIDDEN_NAMES.search(name):
        raise ApiError.field(
            field, "USERNAME_INVALID_CONTAINS", f'Username cannot contain "{found[0].lower()}"'
        )
    return name
