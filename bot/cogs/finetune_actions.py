"""What moderators do with a job or a version, by command or by the button under its message."""

from __future__ import annotations

import discord

from bot import promoting
from bot.cogs.asking import Interaction, known_persona, require_moderator
from bot.cogs.errors import tell
from bot.cogs.lasting import LastingButton
from bot.store import Job
from personas.contracts import Persona


async def make_live(interaction: Interaction, persona: Persona, version: str) -> str:
    """Make a version live after loading it, so that a damaged one never gets to speak. Gives the words to say."""
    asked_in = (interaction.guild_id or 0, interaction.channel_id or 0, interaction.user.id)
    if not await promoting.make_live(interaction.client.house, persona.id, version, *asked_in):
        return f"{version} of **{persona.name}** speaks already."
    return f"{version} of **{persona.name}** speaks from the next reply on."


async def promote_or_ask(interaction: Interaction, persona: Persona, version: str) -> None:
    """Make a version live and say so; of one that the gate or the members reject say why, and ask once more.

    The interaction has been acknowledged.
    """
    house, guild_id = interaction.client.house, interaction.guild_id or 0
    spoke_already = house.store.versions.live(persona.id) == version
    if found := await promoting.objections_to(house, persona.id, version, guild_id):
        view = discord.ui.View(timeout=None)
        view.add_item(PromoteAnywayButton(persona.id, version))
        why = "\n".join(f"- {reason}" for reason in found.reasons)
        asked = f"{found.who} {version} of **{persona.name}**:\n{why}"[:2000]
        await interaction.followup.send(asked, view=view, ephemeral=True)
        return
    await interaction.followup.send(await make_live(interaction, persona, version), ephemeral=spoke_already)


async def roll_back(interaction: Interaction, persona: Persona) -> str:
    """Make the version live that was so before. Gives the words to say."""
    row = promoting.roll_back(interaction.client.house, persona, interaction.guild_id or 0, interaction.user.id)
    return f"Rolled back: {row.version or 'the base model'} speaks for **{persona.name}** from the next reply on."


async def cancel_job(interaction: Interaction, job_id: str) -> None:
    """Cancel, and tell the moderator what happened."""
    interaction.client.house.queue.cancel(job_id)
    await tell(interaction, f"`{job_id}` is cancelled.")


async def resume_job(interaction: Interaction, job_id: str) -> None:
    """Resume, and tell the moderator what happened."""
    interaction.client.house.queue.resume(job_id)
    await tell(interaction, f"`{job_id}` goes on.")


def buttons(job: Job, live: str | None) -> discord.ui.View | None:
    """What can be pressed under a job's message; `live` is the version of its persona that speaks now."""
    view = discord.ui.View(timeout=None)
    if job.state in ("queued", "running"):
        view.add_item(CancelButton(job.job_id))
    elif job.state == "done" and job.persona:
        promoted = live == job.version
        view.add_item(RollbackButton(job.persona) if promoted else PromoteButton(job.persona, job.version))
    elif job.can_resume:
        view.add_item(ResumeButton(job.job_id))
    else:
        return None
    return view


class ModeratorButton(LastingButton, template=r"never:"):
    """A button that only moderators may press."""

    def require(self, interaction: Interaction) -> None:
        require_moderator(interaction)


class CancelButton(ModeratorButton, template=r"cancel:(?P<job_id>[\w.-]+)"):
    """Cancels a job."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(discord.ui.Button(label="Cancel", custom_id=f"cancel:{job_id}"))

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        await cancel_job(interaction, self.job_id)


class ResumeButton(ModeratorButton, template=r"resume:(?P<job_id>[\w.-]+)"):
    """Resumes a job that has failed."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(discord.ui.Button(label="Resume", custom_id=f"resume:{job_id}"))

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        await resume_job(interaction, self.job_id)


class PromoteButton(ModeratorButton, template=r"promote:(?P<persona_id>[\w-]+):(?P<version>v[0-9]+)"):
    """Makes a version live."""

    def __init__(self, persona_id: str, version: str) -> None:
        self.persona_id, self.version = persona_id, version
        super().__init__(
            discord.ui.Button(
                label="Promote", style=discord.ButtonStyle.success, custom_id=f"promote:{persona_id}:{version}"
            )
        )

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        persona = known_persona(interaction, self.persona_id)
        await promote_or_ask(interaction, persona, self.version)


class PromoteAnywayButton(ModeratorButton, template=r"promote-anyway:(?P<persona_id>[\w-]+):(?P<version>v[0-9]+)"):
    """Makes a version live that the gate has rejected."""

    def __init__(self, persona_id: str, version: str) -> None:
        self.persona_id, self.version = persona_id, version
        super().__init__(
            discord.ui.Button(
                label="Promote anyway",
                style=discord.ButtonStyle.danger,
                custom_id=f"promote-anyway:{persona_id}:{version}",
            )
        )

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        persona = known_persona(interaction, self.persona_id)
        await interaction.followup.send(await make_live(interaction, persona, self.version))


class RollbackButton(ModeratorButton, template=r"rollback:(?P<persona_id>[\w-]+)"):
    """Goes back to the version before."""

    def __init__(self, persona_id: str) -> None:
        self.persona_id = persona_id
        super().__init__(discord.ui.Button(label="Roll back", custom_id=f"rollback:{persona_id}"))

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        await interaction.followup.send(await roll_back(interaction, known_persona(interaction, self.persona_id)))


JOB_BUTTONS = (CancelButton, ResumeButton, PromoteButton, PromoteAnywayButton, RollbackButton)
