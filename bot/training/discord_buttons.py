"""The buttons that cancel and resume a training, and stop its measuring."""

from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import PersistentButton, defer, respond_privately
from bot.platform.localisation import gettext_lazy


async def cancel_job(interaction: Interaction, job_id: str) -> None:
    """Cancel a job and confirm it."""
    await defer(interaction, ephemeral=True, thinking=True)
    interaction.client.services.trainings.cancel(job_id, by=interaction.user.id)
    await respond_privately(interaction, gettext_lazy("`{job}` is cancelled.", job=job_id))


async def resume_job(interaction: Interaction, job_id: str) -> None:
    """Resume a job and confirm it."""
    await defer(interaction, ephemeral=True, thinking=True)
    interaction.client.services.trainings.resume(job_id, by=interaction.user.id)
    await respond_privately(interaction, gettext_lazy("`{job}` is resumed.", job=job_id))


class CancelJobButton(PersistentButton, template=r"cancel:(?P<job_id>[\w.-]+)"):
    """Cancels a job."""

    label = gettext_lazy("Cancel")
    moderators_only = True
    actions = ("train",)
    job_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await cancel_job(interaction, self.job_id)


class StopMeasuringButton(PersistentButton, template=r"stop-measuring:(?P<job_id>[\w.-]+)"):
    """Leaves the rest of a finished job's score card unmeasured."""

    label = gettext_lazy("Stop measuring")
    moderators_only = True
    actions = ("train",)
    job_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True, thinking=True)
        interaction.client.services.trainings.cancel(self.job_id, by=interaction.user.id)
        await respond_privately(
            interaction, gettext_lazy("The rest of the score card is not measured.")
        )


class ResumeJobButton(PersistentButton, template=r"resume:(?P<job_id>[\w.-]+)"):
    """Resumes a failed job."""

    label = gettext_lazy("Resume")
    moderators_only = True
    actions = ("train",)
    job_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await resume_job(interaction, self.job_id)
