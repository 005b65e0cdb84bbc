"""`study strategies`: the persona's data alone, mixed with general dialogue, and in two stages,
measured alike.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from tests.trainer.job_folders import ADA, dialogues, export, sign, talks
from tools.tiny_models import TINY_MODELS, make_model
from trainer.dataset.data_mixture import general_sample_count
from trainer.recipe.recipe_file import load_recipe
from trainer.study.strategies import (
    StrategyRun,
    strategies_markdown,
    strategy_points,
    write_strategies,
)

RUNS = [
    StrategyRun("persona", 0, 40, 0, 2.0, 3.0, 3.3, 3.0, 60.0),
    StrategyRun("persona", 1, 40, 0, 2.2, 3.0, 3.3, 3.0, 60.0),
    StrategyRun("mixed", 0, 40, 160, 2.1, 3.0, 2.7, 3.0, 180.0),
    StrategyRun("two-stage", 0, 40, 160, 2.3, 3.0, 3.0, 3.0, 100.0),
]


def test_three_strategies_with_the_same_seeds_differ_in_their_use_of_general_dialogue():
    points = strategy_points(0.8, 2, ["num_train_epochs=1"])
    assert [point.name for point, _ in points[:3]] == [f"strategy={name},seed=0" for name in ("persona", "mixed",
                                                                                              "two-stage")]  # fmt: skip
    assert [settings.seed for _, settings in points] == [0, 0, 0, 1, 1, 1]
    alone, mixed, stages = (load_recipe("demo-cpu", settings) for _, settings in points[:3])
    assert [general_sample_count(recipe, 300) for recipe in (alone, mixed, stages)] == [
        0,
        1200,
        None,
    ]
    assert [recipe.first_stage_epochs for recipe in (alone, mixed, stages)] == [0, 0, 1]
    assert all(
        recipe.general_share or recipe.first_stage_epochs for recipe in (alone, mixed, stages)
    )


@pytest.mark.parametrize("setting", ["general_share=0.5", "first_stage_epochs=2", "seed=3"])
def test_what_the_study_sets_is_refused(setting):
    with pytest.raises(RequestError, match=f"{setting} is set by the study itself"):
        strategy_points(0.8, 1, [setting])
    with pytest.raises(RequestError, match="general_share cannot be '1'"):
        strategy_points(1.0, 1, [])


def test_the_table_has_a_line_for_each_strategy_and_a_chart_goes_with_it(tmp_path):
    text = write_strategies(tmp_path, "ada", RUNS)
    assert (
        text
        == strategies_markdown("ada", RUNS)
        == (tmp_path / "strategies.md").read_text().rstrip("\n")
    )
    lines = [line for line in text.splitlines() if line.startswith(("| A", "| B", "| C"))]
    assert [line.split("|")[2:5] for line in lines] == [[" 40 ", " 0 ", " 2 "], [" 40 ", " 160 ", " 1 "],
                                                        [" 40 ", " 160 ", " 1 "]]  # fmt: skip
    assert "2.1000 ± 0.1414 | 3.3000 ± 0.0000 | +10.0% | 60 s" in lines[0] and "-10.0%" in lines[1]
    assert "±" not in strategies_markdown("ada", RUNS[:1]).split("\n\n")[1], (
        "one run has no deviation"
    )
    assert json.loads((tmp_path / "strategies.json").read_text())["runs"][2]["general"] == 160
    assert "C: general dialogue first" in (tmp_path / "strategies.svg").read_text()


@pytest.mark.slow
def test_all_three_are_trained_and_measured_alike_and_a_second_call_trains_what_is_missing(
    tmp_path, command, monkeypatch
):
    monkeypatch.setattr("trainer.cli.study_command.claim_stdout", lambda: sys.stdout)
    monkeypatch.setattr(
        "trainer.cli.study_command.configure_process",
        lambda nice, threads: torch.set_num_threads(1),
    )
    base = make_model(TINY_MODELS["SmolLM2"], tmp_path / "base")
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(talks(24)), encoding="utf-8")
    Path("chat.jsonl").write_text(dialogues(40), encoding="utf-8")
    sign(tmp_path / "talk.json", tmp_path / "chat.jsonl")
    words = ["study", "strategies", "--persona", "ada.toml", "--dataset", "talk.json", "--general", "chat.jsonl",
             "--base-model", base.source, "--runs", "1", "--share", "0.75", "--set", "train_samples=8",
             "--set", "num_train_epochs=1", "--out", "study", "--json"]  # fmt: skip
    code, out, _ = command(*words)
    alone, mixed, stages = json.loads(out)["runs"]
    assert code == 0 and [run["strategy"] for run in (alone, mixed, stages)] == [
        "persona",
        "mixed",
        "two-stage",
    ]
    assert [(run["samples"], run["general"]) for run in (alone, mixed)] == [(8, 0), (8, 24)]
    assert stages["samples"] == 8 and stages["general"] >= 24
    assert (
        len({(run["loss_base"], run["general_loss_base"]) for run in (alone, mixed, stages)}) == 1
    )
    assert len({run["loss"] for run in (alone, mixed, stages)}) == 3
    run = Path("study/sweep/strategy=mixed,seed=0")
    kept = verify_adapter(Path("study/sweep/strategy=persona,seed=0/adapter")).created_at
    shutil.rmtree(run / "adapter")
    code, again, _ = command(*words)
    assert code == 0 and json.loads(again)["runs"][0] == alone
    assert json.loads(again)["runs"][1]["loss"] == mixed["loss"]
    assert verify_adapter(Path("study/sweep/strategy=persona,seed=0/adapter")).created_at == kept
