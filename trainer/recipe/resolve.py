"""Loads recipes by name and applies a request's overrides."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas.errors import RequestError
from personas.schemas.base import explain_validation_error
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import TrainingRequest
from trainer.schemas import Recipe

RECIPES_FOLDER = Path(__file__).parent / "recipes"


def make_request(**fields: Any) -> TrainingRequest:
    """A request of what a command line says, whose recipe there is. Raises `RequestError` that names what is wrong."""
    _read_recipe_file(str(fields["recipe"]))
    try:
        return TrainingRequest(**fields)
    except ValidationError as error:
        raise explain_validation_error(error) from None


def resolve_recipe(request: TrainingRequest) -> Recipe:
    """The request's recipe with the request's values in it; `model_fields_set` are those that the request sets.

    Raises `RequestError` naming what is unknown or wrong.
    """
    table = _read_recipe_file(request.recipe)
    overrides = request.hyperparameters.model_dump(exclude_none=True)
    try:
        recipe = Recipe.model_validate({**table, **overrides})
    except ValidationError as error:
        raise explain_validation_error(error) from None
    return Recipe.model_construct(_fields_set=set(overrides), **dict(recipe))


def recipe_names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


def _read_recipe_file(name: str) -> dict[str, object]:
    known = recipe_names()
    if name not in known:
        meant = "".join(f"Did you mean {near!r}? " for near in difflib.get_close_matches(name, known, n=1))
        raise RequestError(f"There is no recipe {name!r}.", f"{meant}Known: {', '.join(known)}.")
    return tomllib.loads((RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def load_recipe(name: str, changes: Hyperparameters | None = None) -> Recipe:
    """A recipe as it ships, but for what is changed. Raises `RequestError`."""
    changes = changes or Hyperparameters()
    return resolve_recipe(make_request(job_name="plan", task_type="dialogue", recipe=name, hyperparameters=changes))
