"""The guilds of the sandbox, the components of each and of all, and the fault-injection controls
over them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from sandbox.account_deletion import delete_departed_accounts
from sandbox.application_commands import CommandRegistry
from sandbox.channel_messages import MessageManager
from sandbox.channel_webhooks import WebhookManager
from sandbox.gateway import Gateway
from sandbox.guild import Guild, open_guild_facts
from sandbox.guild_seed import GuildSeed, Permission
from sandbox.interactions import InteractionManager
from sandbox.network_conditions import NetworkConditions, RateLimits, SimulatedClock
from sandbox.object_store import ObjectStore
from sandbox.sandbox_errors import ApiError, Json, SandboxRefusal
from sandbox.threads import ThreadManager
from sandbox.traffic_log import EventFeed
from sandbox.wire_faults import FaultRates, RequestFault, WireFaults

MAX_DELAY_S = 10.0
MAX_RATE_LIMITED_REQUESTS = 1_000


class SharedComponents:
    """The components that all guilds share, and the guilds; the first one has the bot's own
    requests.
    """

    def __init__(
        self,
        seeds: Sequence[GuildSeed],
        state: Path | None,
        rate_window: float,
        shards: int,
    ) -> None:
        """Build everything over the state file. Raises StateUnreadable."""
        self.clock = SimulatedClock()
        self.feed = EventFeed()
        self.conditions = NetworkConditions(seeds[0].message_content)
        self.rates = RateLimits(self.clock, self.conditions, rate_window)
        self.store = ObjectStore(state, self.clock)
        delete_departed_accounts(self.store)  # of a sandbox that was killed
        # As after a restart of Discord's client, ephemeral messages are gone.
        self.store.clear("ephemeral")
        self.store.delete_unused_files()
        facts = open_guild_facts(self.store, len(seeds))
        guilds = [Guild(self.store, seed, facts, number) for number, seed in enumerate(seeds)]
        self.gateway = Gateway(guilds, self.conditions, self.rates, shards)
        self.guilds = [SandboxContainer(self, guild) for guild in guilds]

    def of_guild(self, guild_id: object) -> "SandboxContainer | None":
        for container in self.guilds:
            if container.guild.id == guild_id:
                return container
        return None

    def find_user(self, user_id: object) -> Json | None:
        """Return the account of a member of any guild."""
        for container in self.guilds:
            if member := container.guild.find_member(user_id):
                return cast(Json, member["user"])
        return None

    def of_channel(self, channel_id: object) -> "SandboxContainer | None":
        """Return the components for a channel; for direct messages, those of the first guild with
        the member.
        """
        channel = self.store.get("channel", channel_id)
        if channel is None:
            return None
        if "guild_id" in channel:
            return self.of_guild(channel["guild_id"])
        for container in self.guilds:
            if container.guild.find_member(channel["recipients"][0]["id"]):
                return container
        return None

    def of_request(self, path: Mapping[str, str]) -> "SandboxContainer":
        """Return the components for the ids in a request's path. Raises ApiError 10004 for an
        unknown guild.
        """
        home = self.guilds[0]
        if "guild_id" in path:
            container = self.of_guild(path["guild_id"])
            if container is None:
                raise ApiError(10004)
            return container
        if "channel_id" in path:
            return self.of_channel(path["channel_id"]) or home
        if "token" in path:
            for container in self.guilds:
                if container.interactions.has_token(path["token"]):
                    return container
        if hook := self.store.get("webhook", path.get("webhook_id")):
            return self.of_guild(hook["guild_id"]) or home
        return home


class SandboxContainer:
    """The components of one guild, for the HTTP API, the page and the members."""

    def __init__(self, shared: SharedComponents, guild: Guild) -> None:
        self.shared = shared
        self.guild = guild
        self.store = shared.store
        self.gateway = shared.gateway
        self.clock = shared.clock
        self.feed = shared.feed
        self.conditions = shared.conditions
        self.rates = shared.rates
        self.messages = MessageManager(self.guild, self.feed, self.gateway, self.clock)
        self.threads = ThreadManager(self.guild, self.messages, self.feed, self.gateway)
        self.webhooks = WebhookManager(self.guild, self.messages, self.gateway, self.conditions)
        self.commands = CommandRegistry(self.guild, self.feed)
        self.interactions = InteractionManager(
            self.guild, self.messages, self.feed, self.gateway, clock=self.clock
        )
        self.threads.create_seeded_posts()


class FaultControls:
    """Fault controls. Each takes effect at once and is published to the pages."""

    def __init__(self, container: SandboxContainer) -> None:
        self._container = container

    def controls(self) -> Json:
        container = self._container
        granted = int(container.guild.bot_role["permissions"])
        permissions = []
        for permission in Permission:
            name = permission.name or ""
            label = name.replace("_", " ").title()
            is_granted = bool(granted & permission)
            permissions.append({"name": name, "label": label, "granted": is_granted})
        webhooks = []
        for hook in container.webhooks.of_guild():
            webhooks.append({key: hook[key] for key in ("id", "name", "channel_id")})
        return {
            "connected": container.gateway.connected,
            "delay_s": container.conditions.delay_s,
            "rate_limited": container.conditions.rate_limited,
            "message_content": container.conditions.message_content,
            "clock_ahead_s": round(container.clock.ahead_s, 3),
            "permissions": permissions,
            "webhooks": webhooks,
        }

    def publish(self) -> None:
        self._container.feed.publish("controls", self.controls())

    async def drop_gateway(self, code: int = 4000) -> None:
        """Disconnect the bot; after most close codes it reconnects and resumes."""
        await self._container.gateway.drop(code)

    def refuse_sessions(self, refused: bool = True) -> None:
        """Refuse every identify and resume, or accept them again."""
        self._container.conditions.session_refused = refused

    def delay(self, seconds: float) -> None:
        """Delay every response and every event to the bot."""
        self._container.conditions.delay_s = min(max(float(seconds), 0.0), MAX_DELAY_S)
        self.publish()

    def rate_limit(self, count: int) -> None:
        """Refuse the bot's next requests with 429."""
        self._container.conditions.rate_limited = min(max(int(count), 0), MAX_RATE_LIMITED_REQUESTS)
        self.publish()

    def disturb(self, rates: FaultRates | None = None, seed: int = 0) -> None:
        """Disturb requests and events from now on, by seed; without rates, no longer."""
        self._container.conditions.faults = WireFaults(rates, seed)

    def fail_requests(self, route: str, fault: str, times: int) -> None:
        """Disturb the next requests to a route so many times in a row, by a fault such as
        "error_after".
        """
        self._container.conditions.faults.plan(route, RequestFault(fault), times)

    def set_permission(self, name: str, granted: bool) -> None:
        if name not in Permission.__members__:
            raise SandboxRefusal(f"There is no permission called {name}.")
        bits = int(self._container.guild.bot_role["permissions"])
        if granted:
            bits |= Permission[name]
        else:
            bits &= ~Permission[name]
        self.set_bot_permissions(bits)

    def set_bot_permissions(self, bits: int) -> None:
        """Set the permissions of the bot's role, and notify the bot."""
        guild = self._container.guild
        role = guild.set_bot_permissions(bits)
        self._container.gateway.dispatch("GUILD_ROLE_UPDATE", {"guild_id": guild.id, "role": role})
        self.publish()

    def set_preferred_locale(self, locale: str) -> None:
        """Set the server's preferred locale, such as "vi", until the end, and notify the bot."""
        guild = self._container.guild
        guild.preferred_locale = locale
        self._container.gateway.dispatch("GUILD_UPDATE", guild.shape())

    def set_age_restricted(self, channel_name: str, restricted: bool) -> None:
        """Mark a channel as age-restricted, or take the mark away, and notify the bot."""
        container = self._container
        channel = container.guild.set_age_restricted(channel_name, restricted)
        container.gateway.dispatch("CHANNEL_UPDATE", channel)
        container.feed.publish("channel", container.guild.client_view(channel))

    def archive_thread(self, thread_id: str, *, locked: bool = False) -> None:
        """Archive a thread or post, as Discord does after days without a message, or lock it, as
        moderators do, and notify the bot. The next message in it opens it again.
        """
        self._container.messages.set_archived(thread_id, True, locked=locked)

    def open_thread(self, thread_id: str) -> None:
        """Open an archived thread or post again, as a member does, and notify the bot."""
        self._container.messages.set_archived(thread_id, False)

    def join(self, name: str, *, bot: bool = False) -> Json:
        """Let a new member join, and notify the bot; returns the member."""
        container = self._container
        member = container.guild.add_member(name, bot=bot)
        container.gateway.dispatch("GUILD_MEMBER_ADD", member | {"guild_id": container.guild.id})
        self.publish()
        return member

    def leave(self, user_id: str) -> None:
        """Let a member leave, and notify the bot. Raises SandboxRefusal."""
        container = self._container
        user = container.guild.remove_member(user_id)
        container.gateway.dispatch(
            "GUILD_MEMBER_REMOVE", {"guild_id": container.guild.id, "user": user}
        )
        self.publish()

    def set_roles(self, user_id: str, role_names: Sequence[str]) -> None:
        """Give a member these roles beside that of all members, until the next start, and notify
        the bot. Raises SandboxRefusal.
        """
        container = self._container
        member = container.guild.set_member_roles(user_id, role_names)
        container.gateway.dispatch("GUILD_MEMBER_UPDATE", member | {"guild_id": container.guild.id})
        self.publish()

    def withhold_members(self, withheld: bool = True) -> None:
        """Revoke or grant the server members intent for the sessions to come."""
        self._container.conditions.members = not withheld

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook as a moderator would, without the bot's doing."""
        try:
            self._container.webhooks.delete(self._container.webhooks.find(webhook_id))
        except ApiError as error:
            raise SandboxRefusal("This webhook was deleted.") from error

    def withhold_content(self, withheld: bool = True) -> None:
        """Revoke or grant the message-content intent, also for the current session."""
        self._container.conditions.message_content = not withheld
        self.publish()

    def advance(self, seconds: float) -> None:
        """Advance the sandbox's clock, which tokens, nonces, rate limits and timestamps use."""
        if not 0 <= seconds <= 10 * 365 * 86_400:
            raise SandboxRefusal("The clock can only go forward, by at most ten years.")
        self._container.clock.advance(float(seconds))
        self.publish()
