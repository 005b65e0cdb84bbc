"""`/persona teach|taught|unteach`: replies that somebody writes for a persona to learn from.

The form is empty when it opens: what is taught is typed for this and was never a message, so it may be trained on
under the right `form` (docs/privacy.md). Moderators may teach, and members who have opted in.
"""

from __future__ import annotations

import time

import discord
from discord import app_commands
from discord.ext import commands

from bot import permissions
from bot.cogs.asking import Interaction, form_sent, known_persona, persona_choices, persona_meant
from bot.cogs.errors import tell
from bot.cogs.lasting import LastingButton
from bot.errors import RefusedError, words_for
from bot.store import Lesson
from bot.voices import NO_MENTIONS
from personas.contracts import Persona
from personas.errors import RequestError
from personas.rights import OPT_IN

FORM = "teach:"
"""How the custom id of the form begins; the persona's id follows."""
BY_FORM = "form"
"""The right to what was typed into it."""
MOST_LESSONS = 500
"""Of one member. Nobody's count beyond a share of all preferences, so more would not be heard."""
SHOWN, EXCERPT = 10, 90


class TeachCommands(commands.Cog):
    """Commands of the group `/persona`, and their form: a base of its cog."""

    @app_commands.command(description="Teach a persona what it should answer: you write both (moderators, opted-in).")
    @app_commands.describe(persona="Whom (this channel's persona if left out)")
    @app_commands.autocomplete(persona=persona_choices)
    async def teach(self, interaction: Interaction, persona: str | None = None) -> None:
        whom = persona_meant(interaction, persona)
        require_teacher(interaction)
        await interaction.response.send_modal(TeachForm(whom))

    @app_commands.command(description="What a persona was taught here: by you; by all, if you are a moderator.")
    @app_commands.describe(persona="Whom (this channel's persona if left out)")
    @app_commands.autocomplete(persona=persona_choices)
    async def taught(self, interaction: Interaction, persona: str | None = None) -> None:
        whom = persona_meant(interaction, persona)
        mine = _lessons_of(interaction, whom)
        lines = [f"`{one.seq}` {_excerpt(one.prompt)} → {_excerpt(one.reply)}" for one in mine[-SHOWN:]]
        count = "1 reply" if len(mine) == 1 else f"{len(mine)} replies"
        head = f"**{whom.name}** was taught {count} here. `/persona unteach` takes one back by its number."
        await interaction.response.send_message(
            "\n".join([head, *lines])[:2000], ephemeral=True, allowed_mentions=NO_MENTIONS, suppress_embeds=True
        )

    @app_commands.command(description="Take back a reply that a persona was taught.")
    @app_commands.describe(number="Its number, as `/persona taught` shows it")
    async def unteach(self, interaction: Interaction, number: app_commands.Range[int, 1]) -> None:
        await interaction.response.send_message(_taken_back(interaction, number), ephemeral=True)

    @commands.Cog.listener("on_interaction")
    async def on_teach_form(self, interaction: Interaction) -> None:
        """A form was sent."""
        if sent := form_sent(interaction, FORM):
            try:
                await _keep(interaction, *sent)
            except Exception as error:
                await tell(interaction, words_for(error))


class TeachForm(discord.ui.Modal):
    """What somebody says, what the persona should answer, and what it should not."""

    def __init__(self, persona: Persona) -> None:
        super().__init__(title=f"Teach {persona.name}"[:45], custom_id=f"{FORM}{persona.id}")
        long, most = discord.TextStyle.paragraph, 1500
        self.add_item(discord.ui.TextInput(label="Somebody says", custom_id="prompt", style=long, max_length=most))
        self.add_item(discord.ui.TextInput(label="It should answer", custom_id="reply", style=long, max_length=most))
        self.add_item(
            discord.ui.TextInput(
                label="It should not answer (optional)",
                custom_id="instead",
                style=long,
                max_length=most,
                required=False,
            )
        )


class UndoButton(LastingButton, template=r"unteach:(?P<seq>[0-9]+)"):
    """Takes back what was taught."""

    def __init__(self, seq: str) -> None:
        self.seq = int(seq)
        super().__init__(discord.ui.Button(custom_id=f"unteach:{seq}", label="Undo"))

    @classmethod
    def alone(cls, seq: int) -> discord.ui.View:
        """A view of this button."""
        view = discord.ui.View(timeout=None)
        view.add_item(cls(str(seq)))
        return view

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.edit_message(content=_taken_back(interaction, self.seq), view=None)


TEACH_BUTTONS = (UndoButton,)


def require_teacher(interaction: Interaction) -> bool:
    """Whether it is a moderator who teaches. Raises `RefusedError` where this member may not."""
    if interaction.guild_id is None:
        raise RefusedError("Personas are taught in a server.", "Try it in one of its channels.")
    if permissions.is_moderator(interaction.user):
        return True
    decision = interaction.client.house.store.people.decision(interaction.user.id)
    if decision is None or not decision.opted_in:
        raise RefusedError(
            "Members may teach once they have agreed that characters learn from what they write.",
            f"`{OPT_IN}` does that; it is explained before you press the button.",
        )
    return False


async def _keep(interaction: Interaction, persona_id: str, values: dict[str, str]) -> None:
    whom, is_moderator = known_persona(interaction, persona_id), require_teacher(interaction)
    store, user_id = interaction.client.house.store, interaction.user.id
    if store.taught.count(user_id) >= MOST_LESSONS:
        raise RefusedError(f"You have taught {MOST_LESSONS} replies already.", "Take some back: `/persona taught`.")
    prompt, reply, instead = (values.get(name, "").strip() for name in ("prompt", "reply", "instead"))
    if not (prompt and reply):
        raise RequestError("Both what is said and what is answered are needed.", "Fill in both fields.")
    if reply == instead:
        raise RequestError("What it should answer is what it should not.", "Change one of them.")
    lesson = Lesson(
        interaction.guild_id or 0, whom.id, user_id, is_moderator, prompt, reply, instead, BY_FORM, time.time()
    )
    seq = store.taught.add(lesson)
    await interaction.response.send_message(
        f"Kept: what **{whom.name}** should answer to that (number {seq}). It learns from it when a moderator starts a "
        "training of the type `preference`; `/privacy forget` takes it back with everything else of yours.",
        view=UndoButton.alone(seq),
        ephemeral=True,
        allowed_mentions=NO_MENTIONS,
    )


def _lessons_of(interaction: Interaction, whom: Persona) -> list[Lesson]:
    """What this member may see of what was taught here."""
    if interaction.guild_id is None:
        raise RefusedError("Personas are taught in a server.", "Try it in one of its channels.")
    lessons = interaction.client.house.store.taught.of_persona(whom.id, interaction.guild_id)
    return [one for one in lessons if _may_change(interaction, one)]


def _may_change(interaction: Interaction, lesson: Lesson) -> bool:
    is_here = lesson.guild_id == interaction.guild_id
    return is_here and (lesson.user_id == interaction.user.id or permissions.is_moderator(interaction.user))


def _taken_back(interaction: Interaction, seq: int) -> str:
    """Take it back, and say so. Raises `RefusedError` for somebody else's, or where there is no such."""
    taught = interaction.client.house.store.taught
    lesson = taught.get(seq)
    if lesson is None or not _may_change(interaction, lesson):
        raise RefusedError(f"There is no taught reply {seq} of yours here.", "`/persona taught` shows those there are.")
    taught.take_back(seq)
    return f"Taken back (number {seq}). Versions that have learned from it stay as they are."


def _excerpt(text: str) -> str:
    line = discord.utils.escape_markdown(" ".join(text.split()))
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]}…"
