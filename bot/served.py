"""Which base model is served, and what that means for adapters that are, or will be, made for another one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from personas.adapters import MANIFEST, adapter_ref
from personas.base_model import locate, named_with
from personas.contracts import TrainingRequest
from personas.errors import BaseModelError

log = logging.getLogger(__name__)

Version = tuple[str, str]
"""Persona and version."""


@dataclass(frozen=True)
class LeftBehind:
    """The versions that were made for another base model than the one served, and for which."""

    models: Mapping[Version, str] = field(default_factory=dict)

    def model_of(self, persona_id: str, version: str | None) -> str | None:
        """The base model that a version was made for; None where it can be served, and for the base model itself."""
        return self.models.get((persona_id, version)) if version else None

    def words(self, live: Mapping[str, str | None], served: str) -> str:
        """For the operator: whose live versions they are; empty when there are none. `live` is by persona."""
        behind = {who: model for who, version in live.items() if (model := self.model_of(who, version))}
        if not behind:
            return ""
        whose = ", ".join(f"{who} {live[who]} (for {model})" for who, model in behind.items())
        return (
            f"Made for another base model than {served}: {whose}. The base model speaks for them until they are "
            "trained again, or BASE_MODEL names theirs."
        )


def left_behind(home: Path, installed: Iterable[Version], served_hash: str) -> LeftBehind:
    """What of the installed versions cannot be served, by their manifests. A damaged one is found when it is loaded."""
    models = {}
    for persona_id, version in installed:
        try:
            manifest = json.loads((adapter_ref(home, persona_id, version).folder / MANIFEST).read_bytes())
            if manifest["base_model_hash"] != served_hash:
                models[persona_id, version] = str(manifest["base_model"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return LeftBehind(models)


def notes_on(request: TrainingRequest, served: str) -> list[str]:
    """What should be known of a job before it starts."""
    settings = request.hyperparameters
    wanted = named_with(request.base_model, settings.rope_scaling_type, settings.rope_scaling_factor)
    if is_same_model(wanted, served):
        return []
    return [
        f"The adapter is made for {wanted} and cannot be served here: this bot serves {served}. "
        f"Start the bot with BASE_MODEL={wanted} to hear it."
    ]


def is_same_model(one: str, other: str) -> bool:
    """Whether two names mean one base model: the same name, or the same files with the same scaling."""
    if one == other:
        return True
    try:
        first, second = locate(one, fetch=False), locate(other, fetch=False)
        return first.scaling == second.scaling and first.folder.samefile(second.folder)
    except (BaseModelError, OSError, RuntimeError, ValueError):
        return False
