"""Thresholds of the gate's criteria, by default and by recipe, as read from `thresholds.toml`."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from personas.errors import RequestError
from personas.schemas.base import FrozenModel, explain_validation_error
from trainer.gate.advice import ADVICE_BY_CRITERION

THRESHOLDS_FILE = Path(__file__).parent / "thresholds.toml"
RECIPE_TABLE = "recipe"
SHARE_TESTS = ("voice_kept", "facts", "contradictions", "safety")
"""Tests that ask whether two shares differ at all."""

Consequence = Literal["promote", "hold", "reject"]


class CriterionThresholds(FrozenModel):
    """What one criterion asks. `thresholds.toml` says what the values mean."""

    warn: float
    fail: float
    on_warn: Consequence
    on_fail: Consequence
    unmeasured: Consequence
    test: bool = False
    least: int = Field(default=0, ge=0)


class GateThresholds(FrozenModel):
    """The rules by criterion. `error_rate` is that of all tests together; `name` says which rules these are."""

    name: str
    error_rate: float = Field(gt=0, lt=1)
    rules: dict[str, CriterionThresholds]


@lru_cache(maxsize=1)
def read_default_table() -> dict[str, Any]:
    """The file as it ships. Raises `OSError`."""
    return tomllib.loads(THRESHOLDS_FILE.read_text(encoding="utf-8"))


def thresholds_for(recipe: str, table: dict[str, Any] | None = None) -> GateThresholds:
    """The rules for runs of a recipe; of the shipped file unless another table is given.

    Raises `RequestError` that names what is unknown or wrong in it.
    """
    whole = dict(read_default_table() if table is None else table)
    own: dict[str, dict[str, Any]] = whole.pop(RECIPE_TABLE, {}).get(recipe, {})
    error_rate = whole.pop("error_rate", None)
    if unknown := sorted((own.keys() | whole.keys()) - ADVICE_BY_CRITERION.keys()):
        raise RequestError(f"The gate has no criterion {unknown[0]!r}.", f"Known: {', '.join(ADVICE_BY_CRITERION)}.")
    if missing := sorted(ADVICE_BY_CRITERION.keys() - whole.keys()):
        raise RequestError(f"The thresholds say nothing of {missing[0]!r}.", "Give it a table of its own.")
    rules = {name: {**values, **own.get(name, {})} for name, values in whole.items()}
    name = f"default, with the changes for {recipe}" if own else "default"
    try:
        found = GateThresholds.model_validate({"name": name, "error_rate": error_rate, "rules": rules})
    except ValidationError as error:
        raise explain_validation_error(error) from None
    if wrong := [it for it in SHARE_TESTS if found.rules[it].fail or not found.rules[it].test]:
        raise RequestError(f"{wrong[0]} is a test of two shares: it asks whether they differ.", "Leave fail at 0.")
    return found
