"""Shared by the trainer's tests."""

import tomllib

import pytest

from trainer.recipe import RECIPES, Recipe


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """demo-cpu, as it ships."""
    return Recipe.model_validate(tomllib.loads((RECIPES / "demo-cpu.toml").read_text(encoding="utf-8")))
