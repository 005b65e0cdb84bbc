"""Recipes: every setting of a run under a name, `recipes/<name>.toml`; a request overrides single values."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from personas.contracts import Contract, TrainingRequest, explain
from personas.errors import RequestError

RECIPES = Path(__file__).parent / "recipes"


class Recipe(Contract):
    """A resolved recipe. The comments in `recipes/demo-cpu.toml` say what each value does."""

    quant_type: Literal["nf4", "fp4"]
    double_quant: bool
    lora_r: Annotated[int, Field(ge=1, le=256)]
    lora_alpha: Annotated[int, Field(ge=1, le=1024)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)]
    optim: Literal["adamw_torch", "adamw_torch_fused"]
    learning_rate: Annotated[float, Field(ge=1e-6, le=1e-2)]
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    num_train_epochs: Annotated[float, Field(gt=0, le=50)]
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=64)]
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=256)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    max_length: Annotated[int, Field(ge=64, le=32768)]
    history_turns: Annotated[int, Field(ge=1, le=64)]
    session_gap_minutes: Annotated[float, Field(gt=0)]
    lore_share: Annotated[float, Field(ge=0, le=1)]
    heldout_share: Annotated[float, Field(gt=0, lt=1)]

    @property
    def hyperparameters(self) -> dict[str, int | float | str]:
        """The single values, for the manifest."""
        return {key: value for key, value in self.model_dump().items() if isinstance(value, int | float | str)}


def resolve(request: TrainingRequest) -> Recipe:
    """The request's recipe with the request's values in it. Raises `RequestError` naming what is unknown or wrong."""
    table = _table(request.recipe)
    overrides = request.hyperparameters.model_dump(exclude_none=True)
    try:
        return Recipe.model_validate({**table, **overrides})
    except ValidationError as error:
        raise explain(error) from None


def recipe_names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def _table(name: str) -> dict[str, object]:
    known = recipe_names()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1) or known
        raise RequestError(f"There is no recipe {name!r}.", f"Did you mean {nearest[0]!r}? Known: {', '.join(known)}.")
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
