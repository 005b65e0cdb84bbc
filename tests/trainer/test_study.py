"""`study scale`: growing data, each run kept when it is measured, and what all of them say together."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from personas.errors import RequestError
from personas.home.adapters import write_manifest
from personas.home.atomic_files import atomic_folder
from personas.home.job_folder import read_spec
from tests.tiny_models import manifest_over
from tests.trainer.job_folders import ADA, export, persona_job, sign, talks
from trainer.cli.create_job import draft_job
from trainer.study.scale import (
    SCALE_RESULTS_FOLDER,
    ScalePoint,
    ScaleResult,
    _RemainingTime,
    read_scale_result,
    run_scale_study,
    scale_points,
    summarise_sizes,
    write_study,
)
from trainer.train.job import prepare_job_without_torch

SETTINGS = ("lora_r=2", "lora_alpha=4", "num_train_epochs=1")
POINTS = [ScalePoint(4, 0), ScalePoint(8, 0)]


@pytest.fixture
def wanted(tiny_base, tmp_path, monkeypatch):
    """What a study of Ada's talk asks for."""
    monkeypatch.chdir(tmp_path)
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(talks(16)), encoding="utf-8")
    sign(tmp_path / "talk.json")
    options = argparse.Namespace(
        persona="ada.toml", dataset="talk.json", names=[], recipe="demo-cpu", settings=[], right=None, general=None,
        base_model=tiny_base.source, dialogue=False, start_from=None,
    )  # fmt: skip
    return draft_job(options, tmp_path / "home")


@pytest.fixture
def train(tiny_base):
    """Takes the place of a run: an adapter folder such as one leaves, of 13 samples at most."""

    def run(folder):
        spec = read_spec(folder)
        if not (folder / "adapter").exists():
            asked_for = spec.request.hyperparameters.train_samples
            made = manifest_over(tiny_base, "ada", spec.version)
            with atomic_folder(folder / "adapter") as aside:
                for name, text in (("adapter_model.safetensors", "w"), ("adapter_config.json", "{}")):
                    (aside / name).write_text(text)
                (aside / "report").mkdir()
                (aside / "report" / "training.json").write_text('{"seconds": 1.5}')
                write_manifest(aside, made.model_copy(update={"dataset": {"samples_train": min(asked_for, 13)}}))
        return 0

    return run


def test_a_study_that_was_broken_off_goes_on_with_what_is_missing(wanted, train, tmp_path):
    out, answer, trained, times = tmp_path / "study", [], [], iter(range(0, 6000, 60))
    (tmp_path / "home").mkdir()

    def study(measure, points):
        return run_scale_study(
            wanted, points, SETTINGS, out, lambda folder: trained.append(folder.name) or train(folder), measure,
            answer.append, lambda: float(next(times)),
        )  # fmt: skip

    def broken(folder):
        if "samples=8" in folder.name:
            raise KeyboardInterrupt
        return {"rougeL": 0.25}, 3

    with pytest.raises(KeyboardInterrupt):
        study(broken, POINTS)
    kept = read_scale_result(out, POINTS[0])
    assert kept.scores == {"rougeL": 0.25} and read_scale_result(out, POINTS[1]) is None
    assert (kept.trained, kept.samples, kept.loss, kept.seconds) == (4, 4, 1.0, 1.5)
    results, code = study(lambda folder: ({"rougeL": 0.5}, 3), POINTS)
    assert code == 0 and [result.scores["rougeL"] for result in results] == [0.25, 0.5]
    assert trained == ["samples=4,seed=0", "samples=8,seed=0", "samples=8,seed=0"]  # the last one was trained already
    assert answer[-1] == "2 of 2: 8 samples, seed 0"
    results, _ = study(lambda folder: ({"rougeL": 0.5}, 3), [*POINTS, ScalePoint(12, 0), ScalePoint(20, 0)])
    assert [(result.samples, result.trained) for result in results] == [(4, 4), (8, 8), (12, 12), (20, 13)]
    assert answer[-1] == "4 of 4: 20 samples, seed 0, about 1 min left"  # 12 took one, of which training took 1.5 s
    (out / SCALE_RESULTS_FOLDER / "samples=4,seed=0.json").write_text("{")
    with pytest.raises(RequestError, match="is damaged"):
        study(broken, POINTS)


def test_of_what_is_left_training_alone_grows_with_the_samples():
    left, done = _RemainingTime(), ScaleResult(50, 0, 50, 1.0, 2.0, {}, 3, 100.0)
    assert left.words([ScalePoint(50, 1)]) == ""
    left.add(done, 160.0)
    assert left.words([ScalePoint(50, 1)]) == ", about 3 min left"  # 100 s and 60 s
    assert left.words([ScalePoint(200, 0), ScalePoint(200, 1)]) == ", about 15 min left"  # twice 400 s and 60 s
    left.add(done, 30.0)  # trained before this process
    assert left.words([ScalePoint(50, 1)]) == ", about 2 min left"  # 100 s and 30 s


def test_a_run_that_fails_ends_the_study_with_its_code(wanted, train, tmp_path):
    (tmp_path / "home").mkdir()
    results, code = run_scale_study(
        wanted, POINTS, SETTINGS, tmp_path / "s", lambda folder: 143, train, lambda line: None
    )
    assert (results, code) == ([], 143)


def test_smaller_parts_lie_in_larger_ones_and_what_is_held_out_is_the_same(tiny_base, tmp_path):
    datas = [
        prepare_job_without_torch(
            persona_job(tmp_path / f"{n}-{seed}", tiny_base.source, hyperparameters={"train_samples": n, "seed": seed})
        ).data
        for n, seed in ((3, 1), (6, 1), (6, 2), (0, 1))
    ]
    few, more, others, all_of_them = (set(data.train_prompt_replies) for data in datas)
    assert len(few) == 3 and few < more < all_of_them and others < all_of_them and others != more
    assert len({data.heldout_prompt_replies for data in datas}) == 1


def test_what_a_study_cannot_be_made_of_is_refused():
    with pytest.raises(RequestError, match="sizes from 1 on"):
        scale_points([0, 5], 3, ())
    with pytest.raises(RequestError, match="seed=3 is what the study itself sets"):
        scale_points([5], 3, ("lora_r=4", "seed=3"))
    assert [point.name for point in scale_points([9, 5, 5], 2, ())] == [
        "samples=5,seed=0", "samples=5,seed=1", "samples=9,seed=0", "samples=9,seed=1",
    ]  # fmt: skip


def test_the_table_says_mean_and_deviation_and_the_chart_is_drawn(tmp_path):
    scores = {"rouge1": 0.2, "rouge2": 0.1, "rougeL": 0.2, "bleu": 0.0, "chrf": 0.2, "length_ratio": 1.0}
    results = [
        ScaleResult(size, seed, size if size < 40 else 31, loss, 4.0, {**scores, "rougeL": 0.2 + 0.1 * seed}, 5, 1.0)
        for size, seed, loss in [(20, 0, 3.0), (20, 1, 3.5), (40, 0, 2.0), (40, 1, 2.0)]
    ]
    first, second = summarise_sizes(results)
    assert (first.loss.mean, first.loss.runs) == (3.25, 2) and first.loss.sd == pytest.approx(0.25 * 2**0.5)
    assert second.loss.sd == 0 and first.scores["rougeL"].mean == pytest.approx(0.25)
    write_study(tmp_path, "ada", results)
    text = (tmp_path / "study.md").read_text()
    assert "3.2500 ± 0.3536" in text and "0.250 ± 0.071" in text and "untrained: 4.0000" in text
    assert "With 40 asked for there were 31 samples (seed 1)." in text
    answer = json.loads((tmp_path / "study.json").read_text())
    assert [size["samples"] for size in answer["sizes"]] == [20, 40] and len(answer["runs"]) == 4
    assert (tmp_path / "study.svg").read_text().count("ROUGE-L") and (tmp_path / "study.png").stat().st_size > 5000


@pytest.mark.slow
def test_killed_with_9_the_command_goes_on_and_ends_with_a_table(tiny_base, wanted, tmp_path):
    words = [sys.executable, "-m", "trainer", "study", "scale", "--persona", "ada.toml", "--dataset", "talk.json",
             "--sizes", "4,8", "--runs", "2", "--base-model", tiny_base.source, "--out", "study", "--threads", "1",
             *(word for pair in SETTINGS for word in ("--set", pair))]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "UNDERSTUDY_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, start_new_session=True)
    first = tmp_path / "study" / SCALE_RESULTS_FOLDER / "samples=4,seed=0.json"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = first.read_bytes()
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert first.read_bytes() == kept
    assert "4 of 4: 8 samples, seed 1, about" in done.stdout and "| samples | runs |" in done.stdout
    answer = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [(run["samples"], run["seed"]) for run in answer["runs"]] == [(4, 0), (4, 1), (8, 0), (8, 1)]
    assert all(0 <= run["scores"]["rougeL"] <= 1 and run["prompts"] for run in answer["runs"])
