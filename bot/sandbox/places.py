"""Threads and direct messages: the places that are made while the guild runs."""

from bot.sandbox import shapes
from bot.sandbox.errors import Json
from bot.sandbox.feed import Feed
from bot.sandbox.gateway import Gateway
from bot.sandbox.guild import Guild
from bot.sandbox.messages import HAS_THREAD, THREAD_MADE, THREAD_START, Draft, Messages
from bot.sandbox.store import time_of


class Places:
    """Makes them and tells of them."""

    def __init__(self, guild: Guild, messages: Messages, feed: Feed, gateway: Gateway) -> None:
        self._guild, self._store, self._messages = guild, guild.store, messages
        self._feed, self._gateway = feed, gateway

    def direct(self, user_id: str) -> Json:
        """The bot's direct messages with someone, begun if there are none. Raises ApiError 10007."""
        found = self._guild.direct(user_id)
        if found is not None:
            return found
        made = shapes.direct(self._store.new_id(), self._guild.member(user_id)["user"])
        return self._keep(made)

    def thread(self, author: Json, parent: Json, name: str, message: Json | None) -> Json:
        """Begin a thread, under a message or on its own; the messages that Discord writes about it are written."""
        # As on Discord, a thread under a message has the message's id.
        thread_id = message["id"] if message else self._store.new_id()
        made = shapes.written(time_of(self._store.new_id()))
        thread = self._keep(shapes.thread(thread_id, parent, author["id"], name, made))
        self._gateway.dispatch("THREAD_CREATE", {**thread, "newly_created": True})
        place = {"type": 0, "guild_id": self._guild.id}
        if message is None:
            self._system(author, parent, THREAD_MADE, name, place | {"channel_id": thread_id})
        else:
            self._messages.change(message["id"], flags=message["flags"] | HAS_THREAD, thread=thread)
            start = {"channel_id": parent["id"], "message_id": message["id"]}
            self._system(author, thread, THREAD_START, "", place | start)
        return thread

    def _system(self, author: Json, channel: Json, kind: int, content: str, reference: Json) -> None:
        self._messages.create(author, channel["id"], Draft({}), type=kind, content=content, message_reference=reference)

    def _keep(self, channel: Json) -> Json:
        self._store.put("channel", channel)
        self._feed.publish("channel", self._guild.as_shown(channel))
        return channel
