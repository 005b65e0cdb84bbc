"""Recipes: every setting of a run under a name, `recipes/<name>.toml`; a request overrides single values."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas import hyperparameters as of
from personas.contracts import Contract, TrainingRequest, explain
from personas.errors import RequestError

RECIPES = Path(__file__).parent / "recipes"


class Recipe(Contract):
    """A resolved recipe: every value of `Hyperparameters`, none left open. What a recipe's file leaves out is as here.

    `recipes/demo-cpu.toml` says what each value does.
    """

    quant_type: of.QuantType = "nf4"
    double_quant: bool = True
    precision: of.Precision = "auto"
    lora_r: of.Rank
    lora_alpha: of.Alpha
    lora_dropout: of.Dropout
    target_modules: of.Modules
    use_rslora: bool = False
    use_dora: bool = False
    loraplus_lr_ratio: of.RateRatio = 0.0
    neftune_noise_alpha: of.NoiseAlpha = 0.0
    optim: of.Optimiser
    learning_rate: of.LearningRate
    lr_scheduler_type: of.Schedule
    warmup_ratio: of.WarmupRatio = 0.0
    warmup_steps: of.Steps = 0
    weight_decay: of.WeightDecay = 0.0
    max_grad_norm: of.GradNorm = 1.0
    num_train_epochs: of.Epochs
    max_steps: of.Steps = 0
    per_device_train_batch_size: of.Batch
    gradient_accumulation_steps: of.Accumulation
    gradient_checkpointing: bool = False
    packing: of.Packing = "auto"
    logging_steps: of.OneOrMoreSteps = 1
    eval_strategy: of.Strategy = "epoch"
    eval_steps: of.OneOrMoreSteps = 500
    early_stopping_patience: of.Patience = 0
    seed: of.Seed = 0
    max_length: of.Length
    rope_scaling_factor: of.RopeFactor = 1.0
    rope_scaling_type: of.RopeType = of.DEFAULT_ROPE_TYPE
    history_turns: of.Turns = 8
    session_gap_minutes: of.Minutes = 30.0
    lore_share: of.Share = 0.3
    heldout_share: of.HeldoutShare
    general_share: of.GeneralShare = 0.0
    first_stage_epochs: of.StageEpochs = 0.0
    first_stage_learning_rate: of.LearningRate = 2e-4
    train_samples: of.Samples = 0
    preference_method: of.PreferenceMethod = "kto"
    preference_beta: of.PreferenceBeta = 0.1
    preference_share: of.PreferenceShare = 0.1

    @property
    def first_stage(self) -> Recipe:
        """The recipe of the first of two stages: its own passes and rate; nothing is measured on its way."""
        own = {"num_train_epochs": self.first_stage_epochs, "learning_rate": self.first_stage_learning_rate}
        return self.model_copy(update={**own, "max_steps": 0, "eval_strategy": "no"})

    @property
    def hyperparameters(self) -> dict[str, int | float | str]:
        """The single values, for the manifest."""
        return {key: value for key, value in self.model_dump().items() if isinstance(value, int | float | str)}


def request_of(**fields: Any) -> TrainingRequest:
    """A request of what a command line says, whose recipe there is. Raises `RequestError` that names what is wrong."""
    _table(str(fields["recipe"]))
    try:
        return TrainingRequest(**fields)
    except ValidationError as error:
        raise explain(error) from None


def resolve(request: TrainingRequest) -> Recipe:
    """The request's recipe with the request's values in it; `model_fields_set` are those that the request sets.

    Raises `RequestError` naming what is unknown or wrong.
    """
    table = _table(request.recipe)
    overrides = request.hyperparameters.model_dump(exclude_none=True)
    try:
        recipe = Recipe.model_validate({**table, **overrides})
    except ValidationError as error:
        raise explain(error) from None
    return Recipe.model_construct(_fields_set=set(overrides), **dict(recipe))


def recipe_names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def _table(name: str) -> dict[str, object]:
    known = recipe_names()
    if name not in known:
        meant = "".join(f"Did you mean {near!r}? " for near in difflib.get_close_matches(name, known, n=1))
        raise RequestError(f"There is no recipe {name!r}.", f"{meant}Known: {', '.join(known)}.")
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
