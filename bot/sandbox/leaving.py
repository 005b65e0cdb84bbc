"""Somebody leaves for good: what they wrote goes at once, their account when the sandbox ends.

The bot's home holds the sandbox's state too. What Discord would keep of somebody whom the bot forgets is therefore
deleted here, where nobody else has it.
"""

import json
from collections.abc import Callable, Collection

from bot.sandbox.errors import Json
from bot.sandbox.guild import Guild
from bot.sandbox.messages import Messages
from bot.sandbox.shapes import DIRECT
from bot.sandbox.store import Store

Finds = Callable[[str], bool]
Redacts = Callable[[str], str]
KEPT_KINDS = ("channel", "webhook", "role")


def leave(guild: Guild, messages: Messages, ids: Collection[str], finds: Finds, redacted: Redacts) -> None:
    """Delete what these people wrote, what answers them, and what `finds` them; note that their accounts leave."""
    store = guild.store
    gone: set[str] = set()
    for kind in ("message", "ephemeral"):
        for message in store.all(kind):
            replied_to = (message.get("message_reference") or {}).get("message_id")
            if replied_to in gone or _by(message, ids) or finds(_text(message)):
                gone.add(message["id"])
                for attachment in message["attachments"]:
                    store.delete_file(int(attachment["id"]))
                messages.delete(message["id"])
    for user_id in ids:
        if store.get("member", user_id):
            store.put("leaving", {"id": user_id})
    for kind in KEPT_KINDS:
        for item in store.all(kind):
            if kind != "channel" or item["type"] != DIRECT:
                _redact(store, kind, item, redacted)
    store.compact()


def end_accounts(store: Store) -> None:
    """Delete the accounts of those who have left, and their direct messages. The guild makes its cast anew."""
    leaving = {one["id"] for one in store.all("leaving")}
    if not leaving:
        return
    for channel in store.all("channel"):
        if channel["type"] == DIRECT and channel["recipients"][0]["id"] in leaving:
            store.delete("channel", channel["id"])
        elif channel.get("owner_id") in leaving:
            store.put("channel", channel | {"owner_id": "0"})
    for facts in store.all("guild"):
        store.put("guild", {key: value for key, value in facts.items() if key != "owner_id" or value not in leaving})
    for message in store.all("ephemeral"):
        if _by(message, leaving):
            store.delete("ephemeral", message["id"])
    for user_id in leaving:
        store.delete("member", user_id)
    store.clear("leaving")
    store.compact()


def _by(message: Json, ids: Collection[str]) -> bool:
    cause: Json = message.get("interaction_metadata") or {}
    return message["author"]["id"] in ids or (cause.get("user") or {}).get("id") in ids


def _text(message: Json) -> str:
    return json.dumps(message, ensure_ascii=False)


def _redact(store: Store, kind: str, item: Json, redacted: Redacts) -> None:
    for field in ("name", "topic"):
        value = item.get(field)
        if isinstance(value, str) and redacted(value) != value:
            store.put(kind, item | {field: redacted(value)})
