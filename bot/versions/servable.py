"""Checks that a version can be served: installed, not withdrawn, made for the served base model."""

from __future__ import annotations

from bot.personas.base_model_compat import IncompatibleVersions
from bot.store import Store
from personas.errors import RequestError


def require_servable(store: Store, incompatible: IncompatibleVersions, persona_id: str, version: str) -> None:
    """Raise `RequestError` for a version that is withdrawn, not installed, or made for another base model."""
    if store.versions.is_withdrawn(persona_id, version):
        raise RequestError(f"{version} was withdrawn.", "Train another one.")
    store.versions.require_installed(persona_id, version)
    if model := incompatible.model_of(persona_id, version):
        raise RequestError(f"{version} was made for {model}, which is not served here.", "Train it again.")
