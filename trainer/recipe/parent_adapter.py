"""The adapter that a job trains further: its checks, its effect on the recipe, its weights."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personas.errors import AdapterError, RequestError
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE, require_servable, verify_adapter
from personas.home.data_subjects import read_people
from personas.home.lora_checks import check_lora, read_lora
from personas.models.base_model import BaseModel, fingerprint
from personas.prompt.renderer import PROMPT_VERSION
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import AdapterManifest, ParentAdapterInfo
from trainer.dataset.dataset import Dataset, add_counts
from trainer.dataset.preference_policy import GOOD_REPLIES_KEY
from trainer.recipe.target_modules import LLAMA_MODULES, order_modules
from trainer.schemas import ALL_LINEAR, Recipe, format_setting

SHAPE_SETTINGS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "target_modules": "target_modules",
}
"""Settings determined by an adapter's weights, with peft's names for them."""
PREFERENCE_SETTING_PREFIXES = ("preference_", "heldout_share")
"""Prefixes of settings that a preference job keeps when it trains from scratch."""


@dataclass(frozen=True)
class ParentAdapter:
    """An adapter's folder, its manifest, and the SHA-256 of its weights."""

    folder: Path
    manifest: AdapterManifest
    weights: str

    @property
    def info(self) -> ParentAdapterInfo:
        """The entry in the new adapter's manifest."""
        fields = self.manifest.model_dump(include={"persona", "version", "job_id"})
        return ParentAdapterInfo(**fields, weights=self.weights)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on settings that differ from the parent's."""
        if self.manifest.prompt_version == PROMPT_VERSION:
            return ()
        return (
            "The adapter to train further learned prompts of format "
            f"{self.manifest.prompt_version}; the format is "
            f"{PROMPT_VERSION} now.",
        )

    def shaped(self, recipe: Recipe, requested: Hyperparameters) -> Recipe:
        """Return the recipe with the adapter's shape. Raises `RequestError` if the request sets
        another one.
        """
        config = _read_peft_config(self.folder)
        own: dict[str, Any] = {name: config[key] for name, key in SHAPE_SETTINGS.items()}
        names = [
            path.rpartition(".")[2] for path in own["target_modules"]
        ]  # whole paths in a multimodal model
        own["target_modules"] = order_modules(names, LLAMA_MODULES)
        for name, value in requested.model_dump(
            include=set(SHAPE_SETTINGS), exclude_none=True
        ).items():
            # Which layers those are was resolved when the adapter was made.
            is_resolved = name == "target_modules" and ALL_LINEAR in value
            if not is_resolved and _comparable(value) != _comparable(own[name]):
                raise RequestError(
                    f"{name} cannot be {format_setting(value)}: the adapter to train further has "
                    f"{format_setting(own[name])}.",
                    f"Leave {name} out, or train a new adapter.",
                )
        return recipe.model_copy(update=own)

    def trained_by(self, recipe: Recipe, requested: Hyperparameters, default: Recipe) -> Recipe:
        """Return the recipe that trained the adapter, with the request's values in it.

        An adapter that has itself learned from preferences gets the `default` recipe. Settings of
        samples and preferences are those of the given recipe.
        """
        manifest = self.manifest
        current = recipe.model_dump()
        table = {**manifest.hyperparameters, "target_modules": manifest.lora["target_modules"]}
        if GOOD_REPLIES_KEY in manifest.dataset:
            table = default.model_dump()
        kept = {
            name: value
            for name, value in current.items()
            if name.startswith(PREFERENCE_SETTING_PREFIXES)
        }
        known = {
            name: value for name, value in table.items() if name in Hyperparameters.model_fields
        }
        own = requested.model_dump(exclude_none=True)
        again = Recipe.model_validate({**current, **known, **kept, **own})
        return Recipe.model_construct(_fields_set=set(own), **dict(again))

    def with_people(self, data: Dataset) -> Dataset:
        """Add the people whose messages the adapter was trained on: the new adapter has learned
        from them too.
        """
        return replace(data, people=add_counts(data.people, read_people(self.folder)))


def find_parent_adapter(folder: Path | None, base: BaseModel) -> ParentAdapter | None:
    """Verify the adapter in a folder, to be trained further over `base`; None without a folder.

    Raises `AdapterError` for a damaged one, one that is never served, and one that was made for
    another base model.
    """
    if folder is None:
        return None
    manifest = verify_adapter(folder)
    require_servable(manifest, folder)
    check_lora(folder, None, "The adapter to start from")
    config = _read_peft_config(folder)
    if config.get("use_dora") or config.get("use_rslora"):
        kind = "DoRA" if config.get("use_dora") else "rsLoRA"
        raise AdapterError(
            f"The adapter to start from is a {kind}, and only plain LoRA can be trained further.",
            "Start from another adapter.",
        )
    if manifest.base_model_hash != fingerprint(base):
        raise AdapterError(
            f"The adapter to start from was made for the base model {manifest.base_model}, not for "
            f"{base.name}.",
            "Train over that base model, or start from another adapter.",
        )
    return ParentAdapter(
        folder, manifest, hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    )


def load_parent_weights(folder: Path, model: Any) -> None:
    """Load an adapter's weights into a model's new adapter. Raises `AdapterError` if they do not
    fit.
    """
    from peft import set_peft_model_state_dict  # loads torch, which takes seconds

    _, weights = read_lora(folder, None, "The adapter to start from")
    try:
        left = set_peft_model_state_dict(model, weights).unexpected_keys
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise AdapterError(
            f"The adapter in {folder} does not fit: {error}", "Start from another adapter."
        ) from error
    expected = sum(1 for weight in model.parameters() if weight.requires_grad)
    if left or len(weights) != expected:
        raise AdapterError(
            f"The adapter in {folder} has {len(weights)} matrices, and {expected} are to be "
            "trained.",
            "Start from another adapter.",
        )


def _read_peft_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if missing := sorted(set(SHAPE_SETTINGS.values()) - config.keys()):
        lacks = f"The {CONFIG_FILE} of the adapter lacks {', '.join(missing)}."
        raise AdapterError(lacks, "Start from another adapter.")
    return config


def _comparable(value: Any) -> Any:
    return set(value) if isinstance(value, list | tuple) else value
