"""Which recipes fit which base models: predicted memory on this machine, and on graphics cards of usual sizes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from personas.base_model import BaseModel
from trainer.auto import choose, model_of
from trainer.auto_rules import AUTO, Model, Replies
from trainer.doctor.check import GIB
from trainer.machine import Machine
from trainer.plan import recipe_named
from trainer.predict.memory import predicted_memory
from trainer.predict.shape import shape_of
from trainer.recipe import Recipe, recipe_names

SHAPES = Path(__file__).parent / "models.toml"
CARDS_GIB = (6, 16, 24)
"""Of an RTX 3060 for laptops, a T4, and an RTX 3090 or 4090."""

SAMPLES, TRAINED_SHARE = 1000, 0.25
"""What `auto` reckons with here: so many samples of the full length, so much of them replies."""


@dataclass(frozen=True)
class Fit:
    """A recipe over a model. `here_bytes` is predicted for this machine, `card_bytes` for the smallest card that holds
    it, or for the largest where none does; `card_gib` is that card's size, 0 where none holds it.
    """

    model: str
    recipe: str
    here_bytes: int
    fits_here: bool
    card_bytes: int
    card_gib: int


def fits(base: BaseModel | None, machine: Machine) -> list[Fit]:
    """Every recipe over the base model, if there is one, and each known model, with samples of its full length.

    Raises `BaseModelError` when the base model does not say how large it is.
    """
    models = ({base.name: model_of(base)} if base else {}) | known_models()
    return [_fit(model, name, models[model], machine) for model in models for name in recipe_names()]


def known_models() -> dict[str, Model]:
    """The models of `models.toml`, the smallest first."""
    table = tomllib.loads(SHAPES.read_text(encoding="utf-8"))
    return {name: _model(config) for name, config in table.items()}


def _model(config: Mapping[str, object]) -> Model:
    return Model(shape_of(config), int(str(config["max_position_embeddings"])), str(config["model_type"]))


def _fit(model: str, name: str, sizes: Model, machine: Machine) -> Fit:
    here = _needed(name, sizes, machine)
    for card_gib in CARDS_GIB:
        card = Machine(True, "bf16" if card_gib != 16 else "fp16", card_gib * GIB, card_gib * GIB, f"{card_gib} GB")
        needed = _needed(name, sizes, card)
        if needed <= card.memory_bytes:
            return Fit(model, name, here, here <= machine.memory_bytes, needed, card_gib)
    return Fit(model, name, here, here <= machine.memory_bytes, needed, 0)


def _needed(name: str, model: Model, machine: Machine) -> int:
    recipe = _recipe(name, model, replace(machine, free_bytes=machine.memory_bytes))
    longest = min(recipe.max_length, model.context or recipe.max_length)
    return predicted_memory(recipe, model.shape, longest, machine).total


def _recipe(name: str, model: Model, machine: Machine) -> Recipe:
    recipe = recipe_named(name)
    if name != AUTO:
        return recipe
    longest = choose(recipe, model, Replies(SAMPLES, recipe.max_length, 0), machine).recipe.max_length
    replies = Replies(SAMPLES, longest, round(SAMPLES * longest * TRAINED_SHARE))
    return choose(recipe, model, replies, machine).recipe
