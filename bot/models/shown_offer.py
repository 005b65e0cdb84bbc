"""The offer of a larger model on the local guild's page, and how its fetch goes, in words."""

from dataclasses import dataclass

from bot.data.jobs import DataJob
from bot.models.fetch import FetchPlan, duration_text
from personas.models.catalogue import CatalogueModel
from personas.schemas.formatting import format_size

MINUTE_S = 60.0


@dataclass(frozen=True)
class ShownOffer:
    """Words, a link as its label and address, and the label of a button that fetches or continues; each
    may be empty. It changes by itself while it `is_running`; one that has `begun` is shown until the
    model is served.
    """

    text: str = ""
    link: tuple[str, str] | None = None
    button: str = ""
    begun: bool = False
    is_running: bool = False


def show_plan(plan: FetchPlan, models_path: str, bytes_per_s: float | None) -> ShownOffer:
    """Offer a model, or the rest of it, or to serve the one that is here. Without a measured rate no
    time is said.
    """
    files = plan.files
    missing = files.missing_bytes
    if not missing and plan.model:
        return ShownOffer(
            f"{plan.title} is here. What changes with it, and how to serve it:",
            ("Serve it …", f"{models_path}?use={plan.model.name}"),
            begun=True,
        )
    begun = missing < files.bytes
    size = format_size(missing) + (f" left of {format_size(files.bytes)}" if begun else "")
    takes = [size, plan.licence]
    if bytes_per_s:
        takes.insert(1, f"{_waiting_text(missing / bytes_per_s)} on this line")
    what = "Continue with" if begun else "Fetch"
    text = "A larger model fits this machine. Everybody goes on talking while it is fetched."
    if plan.unpacked_bytes:
        text += f" Training unpacks it into {format_size(plan.unpacked_bytes)} more of disk."
    return ShownOffer(
        f"{text} Whoever fetches it accepts its licence:",
        (plan.licence, plan.licence_url),
        f"{what} {plan.title}: {', '.join(takes)}",
        begun=begun,
    )


def _waiting_text(seconds: float) -> str:
    return f"about {duration_text(seconds)}" if seconds >= MINUTE_S else "under a minute"


def show_job(job: DataJob, model: CatalogueModel) -> ShownOffer:
    """Say how a fetch goes, or why it failed."""
    if job.is_open:
        return ShownOffer(
            f"Fetching {model.title}: {job.said or 'it waits for its turn'}",
            begun=True,
            is_running=True,
        )
    return show_failure(model, job.error)


def show_failure(model: CatalogueModel, error: str) -> ShownOffer:
    """Say why a fetch failed, whose rest can be fetched."""
    return ShownOffer(
        f"{model.title} is not whole yet: {error}",
        button=f"Continue with {model.title}",
        begun=True,
    )
