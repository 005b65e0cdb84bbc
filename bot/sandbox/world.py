"""The parts of a sandbox, put together."""

from dataclasses import dataclass
from pathlib import Path

from bot.sandbox.commands import Commands
from bot.sandbox.conditions import Clock, Conditions
from bot.sandbox.feed import Feed
from bot.sandbox.gateway import Gateway
from bot.sandbox.guild import Guild
from bot.sandbox.interactions import Interactions
from bot.sandbox.leaving import end_accounts
from bot.sandbox.messages import Messages
from bot.sandbox.places import Places
from bot.sandbox.ratelimits import RateLimits
from bot.sandbox.seed import GuildSeed
from bot.sandbox.store import Store
from bot.sandbox.webhooks import Webhooks


@dataclass(frozen=True)
class World:
    """Everything that the HTTP API, the page and the members act on."""

    clock: Clock
    conditions: Conditions
    rates: RateLimits
    store: Store
    guild: Guild
    feed: Feed
    gateway: Gateway
    messages: Messages
    places: Places
    webhooks: Webhooks
    commands: Commands
    interactions: Interactions

    @classmethod
    def open(cls, seed: GuildSeed, state: Path | None, rate_window: float) -> "World":
        """Build the parts over the state file. Raises StateUnreadable."""
        clock, feed, conditions = Clock(), Feed(), Conditions(seed.message_content)
        rates = RateLimits(clock, conditions, rate_window)
        store = Store(state, clock)
        end_accounts(store)  # of a sandbox that was killed
        guild = Guild(store, seed)
        gateway = Gateway(guild, conditions, rates)
        messages = Messages(guild, feed, gateway, clock)
        return cls(
            clock=clock,
            conditions=conditions,
            rates=rates,
            store=store,
            guild=guild,
            feed=feed,
            gateway=gateway,
            messages=messages,
            places=Places(guild, messages, feed, gateway),
            webhooks=Webhooks(guild, messages, gateway, conditions),
            commands=Commands(guild, feed),
            interactions=Interactions(guild, messages, feed, gateway, clock),
        )
