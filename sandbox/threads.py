"""Threads and direct-message channels: creation, with Discord's system messages about it."""

from sandbox import payloads
from sandbox.channel_messages import (
    HAS_THREAD,
    THREAD_STARTER,
    MessageDraft,
    MessageManager,
)
from sandbox.gateway import Gateway
from sandbox.guild import Guild
from sandbox.object_store import time_of
from sandbox.sandbox_errors import Json
from sandbox.traffic_log import EventFeed

THREAD_CREATED = 18
"""Type of the message in the parent channel."""


class ThreadManager:
    """Creates threads and direct-message channels, and publishes them."""

    def __init__(
        self, guild: Guild, messages: MessageManager, feed: EventFeed, gateway: Gateway
    ) -> None:
        self._guild = guild
        self._store = guild.store
        self._messages = messages
        self._feed = feed
        self._gateway = gateway

    def direct(self, user_id: str) -> Json:
        """Return the bot's direct messages with someone, created if there are none. Raises ApiError
        10007.
        """
        channel = self._guild.direct(user_id)
        if channel is not None:
            return channel
        user = self._guild.member(user_id)["user"]
        return self._save(payloads.direct(self._store.new_id(), user))

    def thread(self, author: Json, parent: Json, name: str, message: Json | None) -> Json:
        """Create a thread, under a message or on its own, with Discord's system messages about
        it.
        """
        # As on Discord, a thread under a message has the message's id.
        thread_id = message["id"] if message else self._store.new_id()
        created = payloads.format_timestamp(time_of(self._store.new_id()))
        thread = payloads.thread(thread_id, parent, author["id"], name, created_at=created)
        self._save(thread)
        self._gateway.dispatch("THREAD_CREATE", {**thread, "newly_created": True})
        reference = {"type": 0, "guild_id": self._guild.id}
        if message is None:
            self._messages.create(
                author,
                parent["id"],
                MessageDraft({}),
                type=THREAD_CREATED,
                content=name,
                message_reference=reference | {"channel_id": thread_id},
            )
        else:
            self._messages.change(message["id"], flags=message["flags"] | HAS_THREAD, thread=thread)
            start = {"channel_id": parent["id"], "message_id": message["id"]}
            self._messages.create(
                author,
                thread_id,
                MessageDraft({}),
                type=THREAD_STARTER,
                content="",
                message_reference=reference | start,
            )
        return thread

    def post(self, author: Json, forum: Json, name: str, draft: MessageDraft) -> Json:
        """Create a post in a forum: a thread, whose first message has its id. Raises ApiError for
        the message.
        """
        draft.check()
        thread_id = self._store.new_id()
        created = payloads.format_timestamp(time_of(thread_id))
        post = payloads.thread(thread_id, forum, author["id"], name, created_at=created)
        post["applied_tags"] = []
        self._save(post)
        self._gateway.dispatch("THREAD_CREATE", {**post, "newly_created": True})
        self._messages.create(author, thread_id, draft, id=thread_id)
        return self._guild.channel(thread_id)

    def create_seeded_posts(self) -> None:
        """Create the posts of the seed in the forums that have none yet."""
        people = {member["user"]["global_name"]: member["user"] for member in self._guild.people()}
        forums = {channel["name"]: channel for channel in self._guild.channels()}
        used = {thread["parent_id"] for thread in self._guild.threads()}
        for seed in self._guild.seed.channels:
            forum = forums[seed.name]
            if forum["id"] in used:
                continue
            for post in seed.posts:
                draft = MessageDraft({"content": post.content})
                self.post(people[post.author], forum, post.name, draft)

    def _save(self, channel: Json) -> Json:
        self._store.put("channel", channel)
        self._feed.publish("channel", self._guild.client_view(channel))
        return channel
