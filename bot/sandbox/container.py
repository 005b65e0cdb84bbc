"""Container of the sandbox's components, and the fault-injection controls over them."""

from dataclasses import dataclass
from pathlib import Path

from bot.sandbox.account_deletion import delete_departed_accounts
from bot.sandbox.application_commands import CommandRegistry
from bot.sandbox.channel_messages import MessageManager, ThreadManager
from bot.sandbox.channel_webhooks import WebhookManager
from bot.sandbox.gateway import Gateway
from bot.sandbox.guild import Guild
from bot.sandbox.guild_seed import GuildSeed, Permission
from bot.sandbox.interactions import InteractionManager
from bot.sandbox.network_conditions import NetworkConditions, RateLimits, SimulatedClock
from bot.sandbox.object_store import ObjectStore
from bot.sandbox.sandbox_errors import ApiError, Json, SandboxRefusal
from bot.sandbox.traffic_log import EventFeed

MAX_DELAY_S = 10.0
MAX_RATE_LIMITED_REQUESTS = 1_000


@dataclass(frozen=True)
class SandboxContainer:
    """The components that the HTTP API, the page and the members use."""

    clock: SimulatedClock
    conditions: NetworkConditions
    rates: RateLimits
    store: ObjectStore
    guild: Guild
    feed: EventFeed
    gateway: Gateway
    messages: MessageManager
    places: ThreadManager
    webhooks: WebhookManager
    commands: CommandRegistry
    interactions: InteractionManager

    @classmethod
    def open(cls, seed: GuildSeed, state: Path | None, rate_window: float) -> "SandboxContainer":
        """Build the components over the state file. Raises StateUnreadable."""
        clock, feed, conditions = SimulatedClock(), EventFeed(), NetworkConditions(seed.message_content)
        rates = RateLimits(clock, conditions, rate_window)
        store = ObjectStore(state, clock)
        delete_departed_accounts(store)  # of a sandbox that was killed
        guild = Guild(store, seed)
        gateway = Gateway(guild, conditions, rates)
        messages = MessageManager(guild, feed, gateway, clock)
        return cls(
            clock=clock,
            conditions=conditions,
            rates=rates,
            store=store,
            guild=guild,
            feed=feed,
            gateway=gateway,
            messages=messages,
            places=ThreadManager(guild, messages, feed, gateway),
            webhooks=WebhookManager(guild, messages, gateway, conditions),
            commands=CommandRegistry(guild, feed),
            interactions=InteractionManager(guild, messages, feed, gateway, clock),
        )


class FaultControls:
    """Fault controls. Each takes effect at once and is published to the pages."""

    def __init__(self, container: SandboxContainer) -> None:
        self._container = container
        container.conditions.on_change = self._tell

    def controls(self) -> Json:
        """Return the state of all controls."""
        container = self._container
        granted = int(container.guild.bot_role["permissions"])
        return {
            "connected": container.gateway.connected,
            "delay_s": container.conditions.delay_s,
            "rate_limited": container.conditions.rate_limited,
            "message_content": container.conditions.message_content,
            "clock_ahead_s": round(container.clock.ahead_s, 3),
            "permissions": [
                {"name": one.name, "label": (one.name or "").replace("_", " ").title(), "granted": bool(granted & one)}
                for one in Permission
            ],
            "webhooks": [
                {key: hook[key] for key in ("id", "name", "channel_id")} for hook in container.webhooks.of_guild()
            ],
        }

    def _tell(self) -> None:
        self._container.feed.publish("controls", self.controls())

    async def drop_gateway(self, code: int = 4000) -> None:
        """Disconnect the bot; after most close codes it reconnects and resumes."""
        await self._container.gateway.drop(code)

    def delay(self, seconds: float) -> None:
        """Delay every response and every event to the bot."""
        self._container.conditions.delay_s = min(max(float(seconds), 0.0), MAX_DELAY_S)
        self._tell()

    def rate_limit(self, count: int) -> None:
        """Refuse the bot's next requests with 429."""
        self._container.conditions.rate_limited = min(max(int(count), 0), MAX_RATE_LIMITED_REQUESTS)
        self._tell()

    def set_permission(self, name: str, granted: bool) -> None:
        """Grant a permission to the bot's role, or revoke it."""
        if name not in Permission.__members__:
            raise SandboxRefusal(f"There is no permission called {name}.")
        held = int(self._container.guild.bot_role["permissions"])
        self.set_bot_permissions(held | Permission[name] if granted else held & ~Permission[name])

    def set_bot_permissions(self, bits: int) -> None:
        """Set the permissions of the bot's role, and notify the bot."""
        guild = self._container.guild
        role = guild.set_bot_permissions(bits)
        self._container.gateway.dispatch("GUILD_ROLE_UPDATE", {"guild_id": guild.id, "role": role})
        self._tell()

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook as a moderator would, without the bot's doing."""
        try:
            self._container.webhooks.delete(self._container.webhooks.find(webhook_id))
        except ApiError as error:
            raise SandboxRefusal("This webhook was deleted.") from error

    def withhold_content(self, withheld: bool = True) -> None:
        """Revoke or grant the message-content intent, also for the current session."""
        self._container.conditions.message_content = not withheld
        self._tell()

    def advance(self, seconds: float) -> None:
        """Advance the sandbox's clock, which tokens, nonces, rate limits and timestamps use."""
        if not 0 <= seconds <= 10 * 365 * 86_400:
            raise SandboxRefusal("The clock can only go forward, by at most ten years.")
        self._container.clock.advance(float(seconds))
        self._tell()
