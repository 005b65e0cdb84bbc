"""What moderators do with a rollout, by command or by the button under its message."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import discord

from bot.cogs.asking import Interaction, known_persona
from bot.cogs.finetune_actions import ModeratorButton, PromoteButton, make_live
from bot.errors import RefusedError
from bot.place import SpeakChannel, place_of
from bot.rollout import words
from bot.rollout.history import History
from bot.store import NewRollout, Rollout
from bot.voices import NO_MENTIONS
from personas.contracts import Persona
from personas.errors import RequestError


async def start_rollout(interaction: Interaction, new: NewRollout) -> Rollout:
    """Load the version, so that a damaged one never gets to speak, and let it answer its part."""
    house = interaction.client.house
    house.store.versions.require_installed(new.persona_id, new.version)
    await house.answerer.engine.load(house.conversations.adapter(new.persona_id, new.version))
    return house.store.rollouts.start(new, time.time())


def require_lives_in(interaction: Interaction, persona: Persona, channel: discord.TextChannel) -> None:
    """Raise `RequestError` where a persona answers neither in a channel nor in a thread of it."""
    conversations = interaction.client.house.conversations
    places: list[SpeakChannel] = [channel, *channel.threads]
    here = [conversations.persona_in(place_of(place)) for place in places]
    if not any(it and it.id == persona.id for it in here):
        raise RequestError(
            f"{persona.name} does not live in #{channel.name}, so none of its versions would answer there.",
            "Name the channel in which it lives, or give it that one with `/persona set`.",
        )


def stop_rollout(interaction: Interaction, rollout: Rollout) -> str:
    """End a rollout; gives the words to say."""
    persona = persona_of(interaction, rollout)
    if not interaction.client.house.store.rollouts.end(rollout.seq, "stopped", time.time(), interaction.user.id):
        raise RefusedError("This rollout has ended already.", "`/finetune history` says how.")
    return words.stopped(rollout, persona.name)


async def undo(interaction: Interaction, rollout: Rollout) -> str:
    """Give a version that was taken back by itself another chance; what was counted before counts no more."""
    persona = persona_of(interaction, rollout)
    if not interaction.client.house.store.rollouts.is_last(rollout):
        raise RefusedError(
            "More has happened since this version was taken back.",
            "`/finetune history` says what; `/finetune rollout start` and `/finetune promote` let it speak again.",
        )
    if rollout.is_promoted:
        return await make_live(interaction, persona, rollout.version)
    names = NewRollout.__dataclass_fields__
    new = replace(NewRollout(**{name: getattr(rollout, name) for name in names}), started_by=interaction.user.id)
    return words.begun(await start_rollout(interaction, new), persona.name)


def persona_of(interaction: Interaction, rollout: Rollout) -> Persona:
    """Whose version it is. Raises `RequestError` where the persona is no longer here."""
    return known_persona(interaction, rollout.persona_id)


def running_view(rollout: Rollout) -> discord.ui.View:
    """Under a rollout that goes on."""
    return _view(PromoteButton(rollout.persona_id, rollout.version), StopRolloutButton(str(rollout.seq)))


def ended_view(rollout: Rollout) -> discord.ui.View | None:
    """Under the message that a rollout has ended by itself."""
    return _view(UndoButton(str(rollout.seq))) if rollout.ending == "worse" else None


def history_view(persona_id: str, page: int, pages: int) -> discord.ui.View | None:
    """To turn the pages of a history, from 0."""
    turns = []
    if page > 0:
        turns.append(PageButton(persona_id, str(page - 1), "Newer"))
    if page + 1 < pages:
        turns.append(PageButton(persona_id, str(page + 1), "Older"))
    return _view(*turns) if turns else None


class _RolloutButton(ModeratorButton, template=r"never:"):
    """A button for one rollout, by its number."""

    def __init__(self, seq: str, custom_id: str, label: str) -> None:
        self.seq = int(seq)
        super().__init__(discord.ui.Button(label=label, custom_id=f"{custom_id}:{seq}"))

    def rollout(self, interaction: Interaction) -> Rollout:
        """Raises `RefusedError` where it is not, or no longer, known."""
        found = interaction.client.house.store.rollouts.get(self.seq)
        if found is None or found.guild_id != interaction.guild_id:
            raise RefusedError("This rollout is no longer known.", "`/finetune history` says what there was.")
        return found


class StopRolloutButton(_RolloutButton, template=r"rollout-stop:(?P<seq>[0-9]+)"):
    """Ends a rollout."""

    def __init__(self, seq: str) -> None:
        super().__init__(seq, "rollout-stop", "Stop")

    async def pressed(self, interaction: Interaction) -> None:
        said = stop_rollout(interaction, self.rollout(interaction))
        await interaction.response.send_message(said, ephemeral=True, allowed_mentions=NO_MENTIONS)


class UndoButton(_RolloutButton, template=r"rollout-undo:(?P<seq>[0-9]+)"):
    """Undoes that a version was taken back by itself."""

    def __init__(self, seq: str) -> None:
        super().__init__(seq, "rollout-undo", "Undo")

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        said = await undo(interaction, self.rollout(interaction))
        await interaction.followup.send(said, allowed_mentions=NO_MENTIONS)


class PageButton(ModeratorButton, template=r"history:(?P<persona_id>[\w-]+):(?P<page>[0-9]+)"):
    """Turns the pages of a history."""

    def __init__(self, persona_id: str, page: str, label: str = "Page") -> None:
        self.persona_id, self.page = persona_id, int(page)
        super().__init__(discord.ui.Button(label=label, custom_id=f"history:{persona_id}:{page}"))

    async def pressed(self, interaction: Interaction) -> None:
        persona = known_persona(interaction, self.persona_id)
        pages = History(interaction.client.house, persona, interaction.guild_id or 0).pages()
        page = min(self.page, len(pages) - 1)
        await interaction.response.edit_message(
            content=pages[page], view=history_view(persona.id, page, len(pages)), allowed_mentions=NO_MENTIONS
        )


def _view(*buttons: discord.ui.DynamicItem[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view


ROLLOUT_BUTTONS = (StopRolloutButton, UndoButton, PageButton)
