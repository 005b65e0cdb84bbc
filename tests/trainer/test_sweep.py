"""`train --sweep`: a run for each value, none of them twice, and the one that predicts held-out
replies best.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest

import trainer.cli.main
from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.job_material import ShippedData
from personas.schemas.training_events import Failed
from tests.trainer.job_folders import ADA, export, shipping_little, sign, talks
from trainer.cli.create_job import draft_job
from trainer.cli.train_command import add_train
from trainer.study.sweep import (
    SweepResult,
    best_result,
    make_sweep_folders,
    read_sweep_result,
    run_sweep,
    sweep_folder,
    sweep_points,
    sweep_results_table,
    write_sweep_results,
)

SETTINGS = ("lora_r=4", "num_train_epochs=1", "gradient_accumulation_steps=1")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory, tiny_base):
    """Ada's run, as the command line asks for it."""
    here = tmp_path_factory.mktemp("sweep")
    (here / "ada.toml").write_text(ADA, encoding="utf-8")
    (here / "talk.json").write_text(export(talks(16)), encoding="utf-8")
    sign(here / "talk.json")
    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers())
    words = ["--persona", str(here / "ada.toml"), "--dataset", str(here / "talk.json")]
    little = shipping_little(here)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShippedData, "from_source_tree", lambda: little)
        return draft_job(
            parser.parse_args(["train", *words, "--base-model", tiny_base.source]), here / "home"
        )


@pytest.fixture
def run(monkeypatch):
    """Runs a folder as `trainer run` does; with a rate of 5e-3 every loss counts as too high."""
    monkeypatch.setattr(trainer.cli.main, "cancel_on_signals", lambda stop: None)

    def ran(folder):
        diverges = "5e-3" in folder.name
        monkeypatch.setattr(
            "trainer.train.divergence.DIVERGENCE_RISE_NATS", -100.0 if diverges else 3.0
        )
        monkeypatch.setattr(
            "trainer.train.divergence.DIVERGENCE_WINDOW_STEPS", 1 if diverges else 10
        )
        of = {
            "stop_on_eof": False,
            "checkpoint_every": 45,
            "home": None,
            "ignore_memory": False,
            "attempt": 0,
            "defer_card": False,
            "only_write": False,
        }
        of["card"] = "losses"
        return trainer.cli.main._run(argparse.Namespace(folder=folder, **of), io.StringIO())

    return ran


def forbidden(folder):
    raise AssertionError(f"{folder} is run again")


@pytest.mark.slow
def test_each_value_is_run_once_the_best_is_taken_and_a_diverged_one_is_a_row(
    wanted, run, tmp_path
):
    points = sweep_points(["learning_rate=1e-5, 1e-3,5e-3"], SETTINGS)
    folders = make_sweep_folders(wanted, points, tmp_path)
    result = []
    results, code = run_sweep(folders, run, result.append)
    assert code == 0 and result == [
        f"{n} of 3: learning_rate={rate}" for n, rate in enumerate(("1e-5", "1e-3", "5e-3"), 1)
    ]
    assert [path.name for path in sorted((tmp_path / "sweep").iterdir())] == sorted(
        point.name for point, _ in points
    )
    slow, right, diverged = results
    assert right.loss < slow.loss and right.loss_base == slow.loss_base and diverged.loss is None
    assert "diverged" in diverged.why and "learning_rate=0.0005" not in diverged.why
    best = best_result(results)
    assert best is right
    write_sweep_results(tmp_path, results, best)

    kept = json.loads((tmp_path / "sweep.json").read_text())
    assert kept["best"] == "learning_rate=1e-3" and [it["loss"] for it in kept["runs"]] == [
        slow.loss,
        right.loss,
        None,
    ]
    chart = (tmp_path / "sweep.svg").read_text()
    assert "learning_rate" in chart and (tmp_path / "sweep.png").stat().st_size > 1000
    manifest = verify_adapter(tmp_path / "adapter")
    source = verify_adapter(tmp_path / "sweep" / best.name / "adapter")
    assert (
        manifest.checksums["adapter_model.safetensors"]
        == source.checksums["adapter_model.safetensors"]
    )
    assert "3 runs of a sweep" in manifest.caveats[-1]
    assert manifest.caveats[-1].endswith(": learning_rate=1e-3.")
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "## Sweep" in card and f"| learning_rate=1e-3 (best) | {right.loss:.4f} |" in card
    assert f"| learning_rate=5e-3 | – | – | {diverged.why} |" in card

    again, code = run_sweep(make_sweep_folders(wanted, points, tmp_path), forbidden, result.append)
    assert (again, code, len(result)) == (results, 0, 3)
    sealed = (tmp_path / "adapter" / "manifest.json").stat().st_mtime_ns
    write_sweep_results(tmp_path, results, best)
    assert (tmp_path / "adapter" / "manifest.json").stat().st_mtime_ns == sealed
    write_sweep_results(tmp_path, results, slow)
    assert (
        verify_adapter(tmp_path / "adapter").job_id
        == verify_adapter(tmp_path / "sweep" / slow.name / "adapter").job_id
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "sweep",
        "sweep.json",
        "sweep.svg",
        "sweep.png",
        "adapter",
    }


# ------------------------------------------------------------------------------------------ ends


def failing(**fields):
    """A trainer that writes its last word and ends."""

    def run(folder):
        (folder / "events.jsonl").write_text(Failed(**fields).model_dump_json() + "\n")
        return 143 if fields.get("retry") else 1

    return run


def test_what_could_succeed_later_ends_the_sweep(wanted, tmp_path):
    folders = make_sweep_folders(wanted, sweep_points(["seed=1,2"], SETTINGS), tmp_path)
    assert run_sweep(folders, failing(cause="stopped", retry=True), lambda line: None) == ([], 143)


def test_what_cannot_is_a_row_that_is_tried_again(wanted, tmp_path):
    folders = make_sweep_folders(wanted, sweep_points(["seed=1,2"], SETTINGS), tmp_path)
    results, code = run_sweep(folders, failing(cause="The model is not there."), lambda line: None)
    assert code == 0 and [it.why for it in results] == ["The model is not there."] * 2
    assert read_sweep_result(*folders[0]) is None
    with pytest.raises(RequestError, match="None of the runs"):
        best_result(results)


def test_losses_of_other_replies_are_not_compared_in_silence():
    rows = [
        SweepResult(f"max_length={n}", {"max_length": str(n)}, 2.0, 3.0, 1.0, tokens)
        for n, tokens in ((64, 9), (128, 12))
    ]
    assert "not of the same replies" in sweep_results_table(rows)
    assert "not of the same replies" not in sweep_results_table(rows[:1])


# ------------------------------------------------------------------------------------ what is swept


def test_several_settings_multiply():
    points = sweep_points(["learning_rate=1e-4,2e-4", "lora_r=4,8"], ["seed=3"])
    assert [point.name for point, _ in points] == [
        f"learning_rate={rate},lora_r={rank}" for rate in ("1e-4", "2e-4") for rank in (4, 8)
    ]
    assert [(own.learning_rate, own.lora_r, own.seed) for _, own in points][1] == (1e-4, 8, 3)


def test_further_values_belong_to_the_same_sweep_and_other_settings_do_not(wanted):
    def folder(sweeps, settings=()):
        points = sweep_points(sweeps, settings)
        return sweep_folder(wanted, [point for point, _ in points])

    assert folder(["seed=1,2"]) == folder(["seed=1,2,3"]) != folder(["lora_r=1,2"])
    assert folder(["seed=1,2"]).parent == wanted.home / "runs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sweep", "learning_rate"), "'learning_rate' is no sweep"),
        (("--sweep", "learning_rate=1e-4"), "'learning_rate=1e-4' is no sweep"),
        (("--sweep", "learning_rate=1e-4,fast"), "learning_rate cannot be 'fast'"),
        (("--sweep", "lerning_rate=1e-4,1e-3"), "Did you mean learning_rate"),
        (("--sweep", "seed=1,2", "--set", "seed=3"), "seed is set twice"),
        (("--sweep", "target_modules=q_proj,v_proj"), "target_modules cannot be swept"),
        (("--sweep", "seed=1,2", "--sweep", "seed=3,4"), "seed is set twice"),
    ],
)
def test_what_cannot_be_swept_is_said_by_name(command, words, said):
    code, _, errors = command("train", "--persona", "oda", *words)
    assert code == 1 and said in errors and not list(Path("home").glob("runs/*"))


def test_a_dry_run_of_a_sweep_says_how_many_there_would_be(command, wanted):
    files = [str(path) for it in wanted.materials[:2] for path, _ in it.copies]
    words = (
        "--persona",
        files[0],
        "--dataset",
        files[1],
        "--base-model",
        wanted.request.base_model,
    )
    code, out, _ = command("train", *words, "--sweep", "learning_rate=1e-4,2e-4", "--dry-run")
    assert code == 0 and "2 runs: the first" in out
    assert "learning_rate=1e-4, learning_rate=2e-4" in out
