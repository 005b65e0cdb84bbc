"""Shared by the trainer's tests."""

import sys
import tomllib

import pytest

from trainer.__main__ import main
from trainer.recipe import RECIPES, Recipe


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home for every test, never the one of whoever runs them."""
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """demo-cpu, as it ships."""
    return Recipe.model_validate(tomllib.loads((RECIPES / "demo-cpu.toml").read_text(encoding="utf-8")))


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs `python -m trainer …` in this process, in an empty home: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["trainer", *words])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
