"""Shared by the trainer's tests."""

import tomllib

import pytest

from trainer.recipe import RECIPES, Recipe


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home for every test, never the one of whoever runs them."""
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """demo-cpu, as it ships."""
    return Recipe.model_validate(tomllib.loads((RECIPES / "demo-cpu.toml").read_text(encoding="utf-8")))
