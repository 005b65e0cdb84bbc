"""Reads the built-in recipes, and applies the values of a request to them."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas.errors import RequestError
from personas.home.recipe_files import recipe_values
from personas.schemas.base import explain_validation_error
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import TrainingRequest
from trainer.schemas import Recipe

RECIPES_FOLDER = Path(__file__).parent / "recipes"


def make_request(**fields: Any) -> TrainingRequest:
    """Build the request of a command line. Raises `RequestError` naming an unknown recipe or
    invalid value.
    """
    _require_known(str(fields["recipe"]))
    try:
        return TrainingRequest(**fields)
    except ValidationError as error:
        raise explain_validation_error(error) from None


def requested_recipe(request: TrainingRequest) -> Recipe:
    """Return the request's recipe with the request's values; `model_fields_set` are those that the
    request sets.

    Raises `RequestError` naming an unknown recipe or invalid value.
    """
    return load_recipe(request.recipe, request.hyperparameters)


def load_recipe(name: str, changes: Hyperparameters | None = None) -> Recipe:
    """Return a built-in recipe with these changes; `model_fields_set` are those. Raises
    `RequestError` naming an unknown recipe or invalid value.
    """
    _require_known(name)
    overrides = changes.model_dump(exclude_none=True) if changes else {}
    try:
        recipe = Recipe.model_validate({**recipe_values(RECIPES_FOLDER, name), **overrides})
    except ValidationError as error:
        raise explain_validation_error(error) from None
    # Validated values, but of `model_fields_set` those alone that the request names: the settings
    # that a machine or `auto` may change are all others.
    return Recipe.model_construct(_fields_set=set(overrides), **dict(recipe))


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


def _require_known(name: str) -> None:
    known = recipe_names()
    if name not in known:
        advice = f"Known: {', '.join(known)}."
        for near in difflib.get_close_matches(name, known, n=1):
            advice = f"Did you mean {near!r}? {advice}"
        raise RequestError(f"There is no recipe {name!r}.", advice)
