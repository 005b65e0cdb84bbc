"""The versions of personas that the engine can serve, and the one that answers in a guild."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from bot.personas.base_model_compat import IncompatibleVersions, explain_unserved
from bot.platform.errors import hide_paths
from bot.platform.localisation import gettext_lazy
from bot.store import Store
from personas.home.adapters import (
    DIALOGUE_PREFIX,
    DialogueAdapter,
    adapter_ref,
    find_dialogue_adapters,
)
from personas.schemas.chat import AdapterRef

SHIPPED_ORIGIN = gettext_lazy("shipped with Understudy")
"""Origin of a version that came with the project, under its replies and in its history."""


@dataclass(frozen=True)
class ServedVersions:
    """Finds versions and their adapters. `home` is UNDERSTUDY_HOME, with the adapters."""

    store: Store
    home: Path
    incompatible: IncompatibleVersions = field(default_factory=IncompatibleVersions)

    def speaking(self, persona_id: str, guild_id: int) -> str | None:
        """Return the version that answers in a guild: the live one, unless it was made for another
        base model.
        """
        live = self.store.versions.live(persona_id, guild_id)
        if self.incompatible.model_of(persona_id, live):
            return None
        return live

    def unserved(self, persona_id: str, guild_id: int) -> str:
        """Return the live version of a guild if it cannot be served, else an empty name."""
        live = self.store.versions.live(persona_id, guild_id)
        if live and self.incompatible.model_of(persona_id, live):
            return live
        return ""

    def reason_unserved(self, persona_id: str, version: str | None) -> str:
        """Say why a version cannot be served, without this machine's paths; empty where it can, and
        for the base model (None).
        """
        model = self.incompatible.model_of(persona_id, version)
        if version is None or model is None:
            return ""
        why, _ = explain_unserved(version, hide_paths(model))
        return why

    def adapter(self, persona_id: str, version: str) -> AdapterRef:
        """Return a version of a persona's adapter, with the card that it is served with.

        It asks the database: call it on the event loop.
        """
        card = self.store.versions.card_of(persona_id, version)
        return replace(adapter_ref(self.home, persona_id, version), card=card)

    def speaking_adapter(self, persona_id: str, guild_id: int) -> AdapterRef | None:
        """Return the adapter of the version that answers in a guild; None for the base model."""
        version = self.speaking(persona_id, guild_id)
        return self.adapter(persona_id, version) if version else None

    def of_persona(self, persona_id: str) -> list[str]:
        """List the versions of a persona that can be served, oldest first."""
        versions = [installed.version for installed in self.store.versions.installed(persona_id)]
        other_model = self.incompatible.model_of
        return [version for version in versions if not other_model(persona_id, version)]

    def dialogue_of(self, adapter: AdapterRef | None) -> str | None:
        """Return the name of the dialogue adapter that a version is a copy of; None for other
        versions.
        """
        if adapter is None:
            return None
        job_id = self.store.versions.job_of(adapter.persona_id, adapter.version)
        job = self.store.jobs.get(job_id or "")
        return job.dialogue if job else None

    def is_shipped(self, persona_id: str, version: str | None) -> bool:
        """Report whether a version came with the project."""
        job_id = self.store.versions.job_of(persona_id, version) if version else None
        job = self.store.jobs.get(job_id or "")
        return bool(job and job.shipped)

    def origin_of(self, adapter: AdapterRef | None) -> str:
        """Describe where a version came from, for the note under its replies; empty for trained
        ones.
        """
        if dialogue := self.dialogue_of(adapter):
            return f"{DIALOGUE_PREFIX}{dialogue}"
        if adapter and self.is_shipped(adapter.persona_id, adapter.version):
            return SHIPPED_ORIGIN
        return ""

    def dialogue_adapters(self) -> list[DialogueAdapter]:
        """List the dialogue adapters that can be served."""
        served = []
        for adapter in find_dialogue_adapters(self.home).values():
            if adapter.version and not self.incompatible.model_of_dialogue(adapter):
                served.append(adapter)
        return served
