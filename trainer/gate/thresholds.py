"""Thresholds of the gate's criteria, by recipe (`thresholds.toml`)."""

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from personas.errors import RequestError
from personas.schemas.base import FrozenModel, explain_validation_error
from trainer.gate.measurement import CRITERIA

THRESHOLDS_FILE = Path(__file__).parent / "thresholds.toml"
RECIPE_TABLE = "recipe"
SHARE_TESTS = ("voice_kept", "facts", "contradictions", "safety")
"""Tests of whether two shares differ at all."""
Consequence = Literal["promote", "hold", "reject"]


class CriterionThresholds(FrozenModel):
    """Thresholds of one criterion; `thresholds.toml` documents the values."""

    warn: float
    fail: float
    on_warn: Consequence
    on_fail: Consequence
    unmeasured: Consequence
    test: bool = False
    least: int = Field(default=0, ge=0)


class GateThresholds(FrozenModel):
    """Thresholds by criterion. `error_rate` applies to all tests together; `name` describes the
    set.
    """

    name: str
    error_rate: float = Field(gt=0, lt=1)
    rules: dict[str, CriterionThresholds]


@lru_cache(maxsize=1)
def read_default_table() -> dict[str, Any]:
    """Read the shipped thresholds file. Raises `OSError`."""
    return tomllib.loads(THRESHOLDS_FILE.read_text(encoding="utf-8"))


def thresholds_for(recipe: str, table: dict[str, Any] | None = None) -> GateThresholds:
    """Return a recipe's thresholds of the shipped or another table. Raises `RequestError` for an
    invalid entry.
    """
    whole = dict(read_default_table() if table is None else table)
    own: dict[str, dict[str, Any]] = whole.pop(RECIPE_TABLE, {}).get(recipe, {})
    error_rate = whole.pop("error_rate", None)
    # Both are refused: a criterion that is spelled otherwise would silently judge nothing.
    unknown = sorted((own.keys() | whole.keys()) - CRITERIA.keys())
    if unknown:
        raise RequestError(
            f"The gate has no criterion {unknown[0]!r}.",
            f"Known: {', '.join(CRITERIA)}.",
        )
    missing = sorted(CRITERIA.keys() - whole.keys())
    if missing:
        raise RequestError(f"The thresholds have no table for {missing[0]!r}.", "Add one.")
    rules = {name: {**values, **own.get(name, {})} for name, values in whole.items()}
    values = {
        "name": f"default, with the changes for {recipe}" if own else "default",
        "error_rate": error_rate,
        "rules": rules,
    }
    try:
        thresholds = GateThresholds.model_validate(values)
    except ValidationError as error:
        raise explain_validation_error(error) from None
    for name in SHARE_TESTS:
        rule = thresholds.rules[name]
        if rule.fail or not rule.test:
            raise RequestError(
                f"{name} tests whether two shares differ: its threshold must be 0.",
                "Set fail to 0.",
            )
    return thresholds
