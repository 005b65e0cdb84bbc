"""The parts of a sandbox, put together."""

from dataclasses import dataclass
from pathlib import Path

from bot.sandbox.commands import Commands
from bot.sandbox.feed import Feed
from bot.sandbox.gateway import Gateway
from bot.sandbox.guild import Guild
from bot.sandbox.interactions import Interactions
from bot.sandbox.messages import Messages
from bot.sandbox.seed import GuildSeed
from bot.sandbox.store import Store
from bot.sandbox.webhooks import Webhooks


@dataclass(frozen=True)
class World:
    """Everything that the HTTP API, the page and the members act on."""

    store: Store
    guild: Guild
    feed: Feed
    gateway: Gateway
    messages: Messages
    webhooks: Webhooks
    commands: Commands
    interactions: Interactions

    @classmethod
    def open(cls, seed: GuildSeed, state: Path | None) -> "World":
        """Build the parts over the state file. Raises StateUnreadable."""
        store, feed = Store(state), Feed()
        guild = Guild(store, seed)
        gateway = Gateway(guild)
        messages = Messages(guild, feed, gateway)
        return cls(
            store=store,
            guild=guild,
            feed=feed,
            gateway=gateway,
            messages=messages,
            webhooks=Webhooks(guild, messages, gateway),
            commands=Commands(guild, feed),
            interactions=Interactions(guild, messages, feed, gateway),
        )
