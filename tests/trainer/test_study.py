"""`study scale`: growing data, each run kept when it is measured, and what all of them say
together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
from personas.home.rights import read_statement
from personas.schemas.hyperparameters import Hyperparameters
from tests.tiny_models import manifest_over
from tests.trainer.job_folders import ADA, export, sign, talks
from trainer.cli.create_job import draft_job
from trainer.cli.main import build_parser
from trainer.cli.study_command import _study_tasks
from trainer.study.scale import (
    HELDOUT_REPLIES,
    SCALE_RESULTS_FOLDER,
    ScalePoint,
    ScaleResult,
    StudyScores,
    _RemainingTime,
    read_scale_result,
    require_enough_samples,
    run_scale_study,
    scale_points,
)
from trainer.study.scale_report import ALL_TASKS, summarise_sizes, write_study
from trainer.study.scale_tasks import DIALOGUE_TASKS, require_untrained_tasks, score_adapter
from trainer.train.job import prepare_job_without_torch
from trainer.train.job_folder import make_job_folder

SETTINGS = ("lora_r=2", "lora_alpha=4", "num_train_epochs=1")
POINTS = [ScalePoint(4, 0), ScalePoint(8, 0)]


def scored(rouge: float) -> StudyScores:
    return StudyScores({HELDOUT_REPLIES: {"rougeL": rouge}}, {HELDOUT_REPLIES: 3})


@pytest.fixture
def wanted(tiny_base, tmp_path, monkeypatch):
    """What a study of Ada's talk asks for."""
    monkeypatch.chdir(tmp_path)
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(talks(16)), encoding="utf-8")
    sign(tmp_path / "talk.json")
    options = argparse.Namespace(
        persona="ada.toml", dataset="talk.json", names=[], recipe="demo-cpu", settings=[], right=None, general=None,
        base_model=tiny_base.source, dialogue=False, start_from=None, lore_pairs=None, from_card=None, lore=None,
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
                for name, text in (
                    ("adapter_model.safetensors", "w"),
                    ("adapter_config.json", "{}"),
                ):
                    (aside / name).write_text(text)
                (aside / "report").mkdir()
                (aside / "report" / "training.json").write_text('{"seconds": 1.5}')
                write_manifest(
                    aside,
                    made.model_copy(update={"dataset": {"samples_train": min(asked_for, 13)}}),
                )
        return 0

    return run


def test_a_study_that_was_broken_off_goes_on_with_what_is_missing(wanted, train, tmp_path):
    out = tmp_path / "study"
    answer = []
    trained = []
    times = iter(range(0, 6000, 60))
    (tmp_path / "home").mkdir()

    def study(measure, points):
        return run_scale_study(
            wanted, points, SETTINGS, out, lambda folder: trained.append(folder.name) or train(folder), measure,
            answer.append, lambda: float(next(times)),
        )  # fmt: skip

    def broken(folder):
        if "samples=8" in folder.name:
            raise KeyboardInterrupt
        return scored(0.25)

    with pytest.raises(KeyboardInterrupt):
        study(broken, POINTS)
    kept = read_scale_result(out, POINTS[0])
    assert kept.scores == {"rougeL": 0.25} and read_scale_result(out, POINTS[1]) is None
    assert (kept.trained, kept.samples, kept.loss, kept.seconds) == (4, 4, 1.0, 1.5)
    results, code = study(lambda folder: scored(0.5), POINTS)
    assert code == 0 and [result.scores["rougeL"] for result in results] == [0.25, 0.5]
    assert trained == [
        "samples=4,seed=0",
        "samples=8,seed=0",
        "samples=8,seed=0",
    ]  # the last one was trained already
    assert answer[-1] == "2 of 2: 8 samples, seed 0"
    results, _ = study(lambda folder: scored(0.5), [*POINTS, ScalePoint(12, 0), ScalePoint(20, 0)])
    assert [(result.samples, result.trained) for result in results] == [
        (4, 4),
        (8, 8),
        (12, 12),
        (20, 13),
    ]
    assert answer[-1].startswith("4 of 4: 20 samples, seed 0, ")
    assert "1 min left" in answer[-1]  # 12 took one, of which training took 1.5 s
    other = StudyScores({HELDOUT_REPLIES: {"rougeL": 0.5}}, {HELDOUT_REPLIES: 9})
    with pytest.raises(RequestError, match=r"samples=16,seed=0 .*samples=4,seed=0"):
        study(lambda folder: other, [*POINTS, ScalePoint(16, 0)])
    (out / SCALE_RESULTS_FOLDER / "samples=4,seed=0.json").write_text("{")
    with pytest.raises(RequestError, match="is damaged"):
        study(broken, POINTS)


def test_of_what_is_left_training_alone_grows_with_the_samples():
    left = _RemainingTime()
    done = ScaleResult(50, 0, 50, 1.0, 2.0, {}, 3, 100.0)
    assert left.words([ScalePoint(50, 1)]) == ""
    left.add(done, 160.0)
    assert left.words([ScalePoint(50, 1)]) == ", about 3 min left"  # 100 s and 60 s
    assert (
        left.words([ScalePoint(200, 0), ScalePoint(200, 1)]) == ", about 15 min left"
    )  # twice 400 s and 60 s
    left.add(done, 30.0)  # trained before this process
    assert left.words([ScalePoint(50, 1)]) == ", about 2 min left"  # 100 s and 30 s


def test_a_run_that_fails_ends_the_study_with_its_code(wanted, train, tmp_path):
    (tmp_path / "home").mkdir()
    results, code = run_scale_study(
        wanted, POINTS, SETTINGS, tmp_path / "s", lambda folder: 143, train, lambda line: None
    )
    assert (results, code) == ([], 143)


def test_what_a_study_cannot_be_made_of_is_refused():
    with pytest.raises(RequestError, match="sizes from 1 on"):
        scale_points([0, 5], 3, ())
    with pytest.raises(RequestError, match="seed=3 "):
        scale_points([5], 3, ("lora_r=4", "seed=3"))
    assert [point.name for point in scale_points([9, 5, 5], 2, ())] == [
        "samples=5,seed=0", "samples=5,seed=1", "samples=9,seed=0", "samples=9,seed=1",
    ]  # fmt: skip


def test_the_table_says_mean_and_deviation(tmp_path, blank_charts):
    scores = {
        "rouge1": 0.2,
        "rouge2": 0.1,
        "rougeL": 0.2,
        "bleu": 0.0,
        "chrf": 0.2,
        "length_ratio": 1.0,
    }
    results = [
        ScaleResult(
            size,
            seed,
            size if size < 40 else 31,
            loss,
            4.0,
            {**scores, "rougeL": 0.2 + 0.1 * seed},
            5,
            1.0,
        )
        for size, seed, loss in [(20, 0, 3.0), (20, 1, 3.5), (40, 0, 2.0), (40, 1, 2.0)]
    ]
    first, second = summarise_sizes(results)
    assert (first.loss.mean, first.loss.runs) == (3.25, 2) and first.loss.sd == pytest.approx(
        0.25 * 2**0.5
    )
    assert second.loss.sd == 0 and first.scores["rougeL"].mean == pytest.approx(0.25)
    write_study(tmp_path, "ada", results)
    text = (tmp_path / "study.md").read_text()
    assert "3.2500 ± 0.3536" in text and "0.250 ± 0.071" in text and "untrained: 4.0000" in text
    assert re.search(r"40 asked for .*31 samples \(seed 1\)", text)
    answer = json.loads((tmp_path / "study.json").read_text())
    assert [size["samples"] for size in answer["sizes"]] == [20, 40] and len(answer["runs"]) == 4


# ----------------------------------------------------------------------------------------- dialogue


def said(file: Path, topic: str, count: int) -> Path:
    """Writes a source of so many dialogues."""
    rows = [
        [{"role": "user", "content": f"What do you know of {topic} number {n}?"},
         {"role": "assistant", "content": f"All {topic} of the kind {n * n} are kept in the {topic} room, shelf {n}."}]
        for n in range(count)
    ]  # fmt: skip
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def dialogue(tiny_base, tmp_path, monkeypatch):
    """Options of a study of dialogue, which grows from eleven dialogues on clocks to as many on
    boats.
    """
    monkeypatch.chdir(tmp_path)
    first = said(tmp_path / "clocks.jsonl", "clocks", 11)
    more = said(tmp_path / "boats.jsonl", "boats", 11)
    options = argparse.Namespace(
        persona=None, dataset=str(first), more=[str(more)], names=[], recipe="demo-cpu", settings=[],
        right="own-writing", general=None, base_model=tiny_base.source, dialogue=True, start_from=None,
        lore_pairs=None, from_card=None, lore=None,
    )  # fmt: skip
    (tmp_path / "home").mkdir()
    return options


def test_the_set_grows_from_the_first_source_to_the_second_and_held_out_replies_stay(
    dialogue, tmp_path
):
    draft = draft_job(dialogue, tmp_path / "home")
    found = []
    for size, seed in ((4, 0), (12, 0), (12, 1), (0, 0)):
        changes = {"train_samples": size, "seed": seed, "lora_r": 2}
        folder = make_job_folder(
            draft.with_settings(Hyperparameters(**changes)), tmp_path / f"{size}-{seed}"
        )
        found.append(prepare_job_without_torch(folder).data)
    few, many, other, whole = (
        [pair.talk.split()[0] for pair in data.train_prompt_replies] for data in found
    )
    of_first = whole.count("clocks.jsonl")
    assert 4 < of_first < 12 <= len(whole), "the second source begins between the sizes"
    assert set(few) == {"clocks.jsonl"}
    assert many.count("clocks.jsonl") == other.count("clocks.jsonl") == of_first and len(many) == 12
    small, large, drawn_anew = (set(data.train_prompt_replies) for data in found[:3])
    assert small < large and large != drawn_anew
    assert len({data.heldout_prompt_replies for data in found}) == 1
    assert {pair.talk.split()[0] for pair in found[0].heldout_prompt_replies} <= {
        "clocks.jsonl",
        "boats.jsonl",
    }


def test_every_shipped_task_has_held_out_conversations_that_nothing_may_train_on(
    dialogue, tmp_path
):
    draft = draft_job(dialogue, tmp_path / "home")
    require_untrained_tasks(draft, DIALOGUE_TASKS)
    for task, file in DIALOGUE_TASKS.items():
        assert len(file.read_text(encoding="utf-8").splitlines()) >= 24, task
        assert read_statement(file).right == "own-writing"
        copy = tmp_path / "renamed.jsonl"
        copy.write_bytes(file.read_bytes())
        dialogue.more = [str(copy)]
        with pytest.raises(RequestError, match=f"cannot measure {task}: it is trained on"):
            require_untrained_tasks(draft_job(dialogue, tmp_path / "home"), DIALOGUE_TASKS)
    with pytest.raises(RequestError, match=r"gone\.jsonl for the task poems"):
        require_untrained_tasks(draft, {"poems": tmp_path / "gone.jsonl"})


def test_sizes_beyond_the_data_are_refused_before_anything_is_trained(dialogue, wanted, tmp_path):
    grown = draft_job(dialogue, tmp_path / "home")
    for draft, fits in ((wanted, 8), (grown, 12)):
        require_enough_samples(draft, scale_points((4, fits), 1, SETTINGS), SETTINGS)
        with pytest.raises(RequestError, match=r"--sizes asks for 5,000 .* \d+ to train on"):
            require_enough_samples(draft, scale_points((5000, 4), 2, SETTINGS), SETTINGS)
    assert not (tmp_path / "home" / "runs").exists()


def test_sources_of_one_name_and_options_for_dialogue_alone_are_refused(
    dialogue, tmp_path, monkeypatch
):
    (tmp_path / "other").mkdir()
    dialogue.more = [str(said(tmp_path / "other" / "clocks.jsonl", "watches", 3))]
    with pytest.raises(RequestError, match=r"Two sources .*clocks\.jsonl"):
        draft_job(dialogue, tmp_path / "home")
    words = ["study", "scale", "--persona", "ada", "--sizes", "4", "--more", "boats.jsonl"]
    with pytest.raises(RequestError, match="--more and --task "):
        _study_tasks(build_parser().parse_args(words), {})


def four_tasks(rouge: float) -> dict[str, dict[str, float]]:
    metrics = {
        "rouge1": rouge,
        "rouge2": rouge / 2,
        "rougeL": rouge,
        "chrf": 0.2,
        "length_ratio": 1.0,
    }
    return {
        task: {name: value + place / 100 for name, value in metrics.items()}
        for place, task in enumerate(DIALOGUE_TASKS)
    }


def test_each_task_has_rouge_by_size_beside_the_untrained_models_and_a_panel(tmp_path):
    heldout = {"rouge1": 0.5, "rouge2": 0.3, "rougeL": 0.4, "chrf": 0.2, "length_ratio": 1.0}
    results = [
        ScaleResult(
            size, seed, size, 3.0, 4.0, heldout, 12, 1.0, four_tasks(0.2 + size / 1000 + seed / 10),
            {HELDOUT_REPLIES: heldout, **four_tasks(0.1)} if size == 100 else {}, dict.fromkeys(DIALOGUE_TASKS, 24),
        )
        for size in (100, 200, 300) for seed in (0, 1, 2)
    ]  # fmt: skip
    write_study(tmp_path, None, results)
    text = (tmp_path / "study.md").read_text()
    assert "| task | samples | ROUGE-1 | ROUGE-2 | ROUGE-L |" in text
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in text.partition("## By task")[2].splitlines()
        if "±" in row
    ]
    assert [row[:2] for row in rows[4:8]] == [
        ["instructions (24 prompts)", "untrained"], ["", "100"], ["", "200"], ["", "300"],
    ]  # fmt: skip
    assert (
        rows[4][2] == "0.100 ± 0.000"
        and rows[5][2] == "0.400 ± 0.100"
        and rows[7][3] == "0.300 ± 0.050"
    )
    mean = next(row for row in rows if row[0] == ALL_TASKS)
    assert mean[2] == "0.208 ± 0.000", "(0.5 + 0.1 + 0.11 + 0.12) / 4"
    answer = json.loads((tmp_path / "study.json").read_text())
    assert answer["sizes"][0]["tasks"]["summarising"]["rouge1"] == {
        "mean": pytest.approx(0.42),
        "sd": pytest.approx(0.1),
        "runs": 3,
    }
    assert answer["untrained"]["general dialogue"]["rouge1"]["mean"] == pytest.approx(0.11)
    drawn = (tmp_path / "study.svg").read_text()
    assert all(
        f"{task.capitalize()}<" in drawn for task in (HELDOUT_REPLIES, *DIALOGUE_TASKS, ALL_TASKS)
    )
    assert (tmp_path / "study.png").stat().st_size > 5000


def test_results_of_a_study_made_before_there_were_tasks_are_read(tmp_path):
    old = {
        "samples": 4,
        "seed": 0,
        "trained": 4,
        "loss": 1.0,
        "loss_base": 2.0,
        "scores": {},
        "prompts": 3,
        "seconds": 1.0,
    }
    (tmp_path / SCALE_RESULTS_FOLDER).mkdir()
    (tmp_path / SCALE_RESULTS_FOLDER / "samples=4,seed=0.json").write_text(json.dumps(old))
    assert read_scale_result(tmp_path, ScalePoint(4, 0)).tasks == {}


@pytest.mark.slow
def test_a_study_of_dialogue_measures_four_tasks_on_the_same_prompts(dialogue, tiny_base, tmp_path):
    words = [sys.executable, "-m", "trainer", "study", "scale", "--dialogue", "--dataset", "clocks.jsonl", "--more",
             "boats.jsonl", "--right", "own-writing", "--sizes", "4,12", "--runs", "2", "--prompts", "2",
             "--base-model", tiny_base.source,
             "--out", "study", "--threads", "1", *(word for pair in SETTINGS for word in ("--set", pair))]  # fmt: skip
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert "## By task" in done.stdout and "summarising (2 prompts)" in done.stdout
    answer = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [size["tasks"]["summarising"]["rouge1"]["runs"] for size in answer["sizes"]] == [2, 2]
    assert set(answer["untrained"]) == {HELDOUT_REPLIES, *DIALOGUE_TASKS, ALL_TASKS}
    job = tmp_path / "study" / "runs" / "samples=4,seed=0"
    again = score_adapter(job, DIALOGUE_TASKS, 2, with_base=False)
    assert again.tasks["instructions"] == answer["runs"][0]["tasks"]["instructions"], (
        "the same seed, the same prompts"
    )


@pytest.mark.parametrize("runs", ["0", "1001", "1000000000", "two"])
def test_the_number_of_runs_is_bounded(command, capsys, runs):
    with pytest.raises(SystemExit):
        command("study", "scale", "--sizes", "8", "--runs", runs)
    assert f"1 to 1000 runs, got '{runs}'" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_with_9_the_command_goes_on_and_ends_with_a_table(tiny_base, wanted, tmp_path):
    words = [sys.executable, "-m", "trainer", "study", "scale", "--persona", "ada.toml", "--dataset", "talk.json",
             "--sizes", "4,8", "--runs", "2", "--base-model", tiny_base.source, "--out", "study", "--threads", "1",
             *(word for pair in SETTINGS for word in ("--set", pair))]  # fmt: skip
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
    }
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, start_new_session=True
    )
    first = tmp_path / "study" / SCALE_RESULTS_FOLDER / "samples=4,seed=0.json"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = first.read_bytes()
    done = subprocess.run(
        words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert first.read_bytes() == kept
    assert "4 of 4: 8 samples, seed 1" in done.stdout and "| samples | runs |" in done.stdout
    answer = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [(run["samples"], run["seed"]) for run in answer["runs"]] == [
        (4, 0),
        (4, 1),
        (8, 0),
        (8, 1),
    ]
    assert all(0 <= run["scores"]["rougeL"] <= 1 and run["prompts"] for run in answer["runs"])
