"""Roles whose holders may talk, teach, train or promote in a server, beside its moderators."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, get_args

import discord

from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.permissions import is_moderator
from bot.store import Store

Action = Literal["talk", "teach", "train", "promote"]
ACTIONS: tuple[Action, ...] = get_args(Action)
ACTION_WORDS: dict[Action, str] = {
    "talk": gettext_lazy("talk with personas"),
    "teach": gettext_lazy("teach personas"),
    "train": gettext_lazy("train personas"),
    "promote": gettext_lazy("promote versions"),
}
ACTION_TITLES: dict[Action, str] = {
    "talk": gettext_lazy("Talk with personas"),
    "teach": gettext_lazy("Teach personas"),
    "train": gettext_lazy("Train personas"),
    "promote": gettext_lazy("Promote versions"),
}
DEFAULT_HOLDERS: dict[Action, str] = {
    "talk": gettext_lazy("everybody"),
    "teach": gettext_lazy("members who opted in, and moderators"),
    "train": gettext_lazy("moderators alone"),
    "promote": gettext_lazy("moderators alone"),
}
"""Who may do it where no role is named."""
OPEN_ACTIONS = frozenset[Action]({"talk", "teach"})
"""Actions of any member where no role is named."""
MAX_ROLES = 10
"""Roles of one action."""
FINETUNE_ACTIONS: dict[str, tuple[Action, ...]] = {
    "start": ("train",),
    "preview": ("train",),
    "cancel": ("train",),
    "resume": ("train",),
    "all": ("train",),
    "schedule": ("train",),
    "promote": ("promote",),
    "rollback": ("promote",),
    "compare": ("promote",),
    "judgement": ("promote",),
    "status": ("train", "promote"),
    "history": ("train", "promote"),
    "promotion": (),
    "remove": (),
}
"""For each subcommand of `/finetune`, the actions of which one has to be allowed; none where it is
for moderators alone.
"""


def command_actions(qualified_name: str) -> tuple[Action, ...]:
    """Return the actions of which one has to be allowed for a moderators' command, such as
    "finetune schedule set"; none where it is for moderators alone.
    """
    group, _, rest = qualified_name.partition(" ")
    return FINETUNE_ACTIONS[rest.partition(" ")[0]] if group == "finetune" else ()


@dataclass(frozen=True)
class RolePermissions:
    """Decides by roles what members of a guild may do. Moderators may do everything."""

    store: Store

    def allows(self, member: discord.abc.User, guild_id: int, action: Action) -> bool:
        """Report whether a member may do something. In direct messages (guild 0), all may. One whose
        roles Discord does not tell has none.
        """
        if not guild_id or is_moderator(member):
            return True
        named = self.store.action_roles.get(guild_id, action)
        if not named:
            return action in OPEN_ACTIONS
        roles = member.roles if isinstance(member, discord.Member) else []
        return any(role.id in named for role in roles)

    def require(self, member: discord.abc.User, guild_id: int, *actions: Action) -> None:
        """Raise `RefusedError` for a member who may do none of some actions."""
        if any(self.allows(member, guild_id, action) for action in actions):
            return
        named: set[int] = set()
        for action in actions:
            named |= self.store.action_roles.get(guild_id, action)
        if not named:
            raise RefusedError(
                gettext_lazy("Only moderators may do this."),
                gettext_lazy("It takes the permission Manage Server."),
            )
        roles, *others = (f"<@&{role_id}>" for role_id in sorted(named))
        for other in others:
            roles = gettext_lazy("{names} or {name}", names=roles, name=other)
        raise RefusedError(
            _role_refusal(actions, roles),
            gettext_lazy(
                "A moderator can give it to you, or change that with `/moderation roles`."
            ),
        )

    def change(
        self,
        guild_id: int,
        action: Action,
        *,
        add: discord.Role | None = None,
        remove: discord.abc.Snowflake | None = None,
        reset: bool = False,
        seen: AbstractSet[int] | None = None,
        name: str = "",
    ) -> list[str]:
        """Change which roles may do something: remove all first (`reset`), add one, remove one, which
        may be deleted on Discord. Returns the changes in words.

        `seen` are the roles that a form showed: if they are no longer these, the change is refused. Raises
        `RefusedError`, which calls the removed role by `name`, or mentions it; and changes nothing.
        """
        words = ACTION_WORDS[action]
        changes: list[str] = []
        if add and remove and add.id == remove.id:
            raise RefusedError(
                gettext_lazy("These exclude each other."), gettext_lazy("Give `add` or `remove`.")
            )
        with self.store.atomic():
            if seen is not None and seen != self.store.action_roles.get(guild_id, action):
                raise RefusedError(
                    "Somebody else has changed the roles meanwhile.",
                    "Look at it again.",
                )
            if reset:
                self.store.action_roles.clear(guild_id, action)
                changes.append(gettext_lazy("removed all roles that may {action}", action=words))
            if add:
                self._add(guild_id, action, add)
                changes.append(gettext_lazy("let {role} {action}", role=add.mention, action=words))
            if remove:
                mention = f"<@&{remove.id}>"
                self._remove(guild_id, action, remove.id, name or mention)
                changes.append(
                    gettext_lazy("no longer let {role} {action}", role=mention, action=words)
                )
        return changes

    def _add(self, guild_id: int, action: Action, role: discord.Role) -> None:
        if role.is_default():
            raise RefusedError(
                gettext_lazy("@everyone is no role that some have and others do not."),
                gettext_lazy("Choose another role."),
                field="role",
            )
        if len(self.store.action_roles.get(guild_id, action) | {role.id}) > MAX_ROLES:
            raise RefusedError(
                gettext_lazy(
                    "{count} roles may {action}, which is the limit.",
                    count=MAX_ROLES,
                    action=ACTION_WORDS[action],
                ),
                gettext_lazy("Remove one."),
                field="role",
            )
        self.store.action_roles.add(guild_id, action, role.id)

    def _remove(self, guild_id: int, action: Action, role_id: int, called: str) -> None:
        if not self.store.action_roles.remove(guild_id, action, role_id):
            raise RefusedError(
                gettext_lazy(
                    "{role} is not among the roles that may {action}.",
                    role=called,
                    action=ACTION_WORDS[action],
                ),
                gettext_lazy("`/moderation roles` lists them."),
            )


def _role_refusal(actions: tuple[Action, ...], roles: str) -> str:
    """Say which role is missing."""
    if actions == ("talk",):
        return gettext_lazy(
            "You may not talk with personas here: that takes the role {roles}.", roles=roles
        )
    if actions == ("teach",):
        return gettext_lazy(
            "You may not teach personas here: that takes the role {roles}.", roles=roles
        )
    if actions == ("train",):
        return gettext_lazy(
            "You may not train personas here: that takes the role {roles}.", roles=roles
        )
    if actions == ("promote",):
        return gettext_lazy(
            "You may not promote versions here: that takes the role {roles}.", roles=roles
        )
    return gettext_lazy(
        "You may not train personas or promote versions here: that takes the role {roles}.",
        roles=roles,
    )
