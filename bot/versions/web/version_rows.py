"""The versions of a persona, as their page lists them."""

from dataclasses import dataclass, field

from bot.chat.model_names import version_label
from bot.personas.web.lookup import live_in_servers
from bot.platform.web_kit.charts import format_figure
from bot.services import Services
from bot.store import ALL_GUILDS, InstalledVersion


@dataclass
class VersionRow:
    """A version; `installed` is None for the base model.

    `is_live`: in all servers without a live version of their own; `live_in` are servers of which it
    is the own one.
    """

    installed: InstalledVersion | None
    is_live: bool = False
    is_withdrawn: bool = False
    live_in: list[str] = field(default_factory=list)

    @property
    def version(self) -> str | None:
        return self.installed.version if self.installed else None

    @property
    def answers(self) -> bool:
        """True if it is live anywhere."""
        return self.is_live or bool(self.live_in)

    @property
    def name(self) -> str:
        """Its name for people."""
        return version_label(self.version)

    @property
    def better(self) -> float | None:
        """Relative difference of its held-out loss to the base model's; below 0 is better."""
        if self.installed is None or not self.installed.scorecard.is_measured:
            return None
        card = self.installed.scorecard
        return card.loss_tuned / card.loss_base - 1


def version_rows(services: Services, persona_id: str) -> list[VersionRow]:
    """Every version of a persona, even withdrawn ones, newest first, and the base model last."""
    versions = services.store.versions
    live = versions.live(persona_id, ALL_GUILDS)
    rows = {}
    for installed in reversed(versions.ever_installed(persona_id)):
        version = installed.version
        rows[version] = VersionRow(
            installed,
            is_live=version == live,
            is_withdrawn=versions.is_withdrawn(persona_id, version),
        )
    for server, version in live_in_servers(services, persona_id):
        rows[version].live_in.append(server)
    return [*rows.values(), VersionRow(None, is_live=live is None)]


def score_text(installed: InstalledVersion) -> str:
    """Held-out loss of the base model and of the version."""
    card = installed.scorecard
    if not card.is_measured:
        return "not measured"
    return f"{format_figure(card.loss_base)} → {format_figure(card.loss_tuned)}"
