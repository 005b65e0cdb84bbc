"""Shared by the trainer's tests."""

import sys
from collections.abc import Callable, Iterator

import pytest

from tests.quick_libraries import kept_tokenizers, save_blank
from trainer.cli.main import main
from trainer.process.environment import RESTARTED_VARIABLE
from trainer.recipe.recipe_file import load_recipe
from trainer.schemas import Recipe


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home for every test, never the one of whoever runs them."""
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session", autouse=True)
def tokenizers() -> Iterator[None]:
    """Tokenizers are read once."""
    with kept_tokenizers():
        yield


@pytest.fixture
def blank_charts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Charts have their files and names, but are not drawn. Returns what would draw them."""
    from matplotlib.figure import Figure  # takes half a second

    draw: Callable[..., None] = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", save_blank)
    return draw


@pytest.fixture
def drawn_charts(monkeypatch: pytest.MonkeyPatch, blank_charts: Callable[..., None]) -> None:
    """Charts are drawn in this test of a module in which they are blank."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank_charts)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """demo-cpu, as it ships."""
    return load_recipe("demo-cpu")


@pytest.fixture(scope="session")
def two_trained(tmp_path_factory, tiny_base):
    """Job folders of two personas that answer everything with the same word, each with its own;
    both are trained.
    """
    from tests.trainer.job_folders import (
        export,
        message,
        persona_job,
    )  # import torch and peft, as in tests/conftest.py
    from trainer.run import run_job
    from trainer.train.training_run import RunControl

    folders = {}
    for persona, word in {"ada": "cogwheel", "bo": "marmalade"}.items():
        lines = [
            line
            for n in range(40)
            for line in (
                message(f"say {n}", minute=90 * n),
                message(f"{word} {word}", "Ada", minute=90 * n + 1),
            )
        ]
        folder = persona_job(
            tmp_path_factory.mktemp("jobs") / persona,
            tiny_base.source,
            export(lines),
            hyperparameters={"num_train_epochs": 4, "learning_rate": 1e-2},
        )
        run_job(folder, RunControl())
        folders[persona] = folder
    return folders


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs `python -m trainer …`, or the script of that name, in this process, in an empty home:
    exit code, output, errors.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(
        RESTARTED_VARIABLE, "1"
    )  # else what computes takes the place of this process

    def run(*words, program="trainer"):
        monkeypatch.setattr(sys, "argv", [program, *words])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
