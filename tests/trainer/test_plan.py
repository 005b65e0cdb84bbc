"""What a run would do, said before it, and that it is what the run then does."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from personas.home.job_folder import read_spec
from personas.home.job_material import ShippedData
from personas.models.base_model import EMBEDDED, locate
from personas.models.loading import load_tokenizer
from tests.trainer.conversations import sentence
from tests.trainer.job_folders import export, persona_job, shipping_few, sign, talks
from tests.trainer.model_sizes import LLAMA_8B
from trainer.estimate import run_estimate
from trainer.estimate.model_shape import model_shape_of
from trainer.estimate.run_estimate import (
    MachineSpeed,
    adapters_by_recency,
    estimate_run,
    estimate_speed,
    run_cost,
)
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec
from trainer.process.timeline import PHASES
from trainer.train.job import load_fast_tokenizer, prepare_job

pytestmark = pytest.mark.usefixtures("blank_charts")

BF16 = MachineSpec(has_cuda=False, best="bf16")


def test_a_jobs_plan_is_what_its_run_makes_and_nothing_is_written(tmp_path, command):
    folder = persona_job(tmp_path / "job", "embedded")
    before = sorted(tmp_path.rglob("*"))
    code, output, _ = command("run", str(folder), "--dry-run", "--json", "--samples")
    result = json.loads(output)
    assert code == 0 and sorted(tmp_path.rglob("*")) == before
    data = prepare_job(folder, read_spec(folder)).data
    assert (
        result["samples"] == {"train": len(data.train), "eval": len(data.heldout)}
        and result["hash"] == data.hash
    )
    assert result["tokens"] == sum(len(sample.ids) for sample in (*data.train, *data.heldout))
    assert result["rows"] == 32 == result["rows_used"] + sum(result["dropped"].values())
    assert result["sources"] == {"talk.json": 16} and result["persona"] == "ada"
    assert result["free_bytes"] > 0
    recipe = next(recipe for recipe in result["recipes"] if recipe["recipe"] == "demo-cpu")
    assert (
        recipe["steps"] == 2 * math.ceil(math.ceil(len(data.train) / 4) / 2)
        and recipe["seconds"] > 0
    )
    assert len(result["examples"]) == 3 and result["examples"][0].count("⟦") == 1
    assert (
        result["examples"][0].endswith("<|im_end|>⟧") and "⟦I mended clock" in result["examples"][0]
    )


def test_a_plan_of_sources_is_what_a_build_makes(tmp_path, command):
    Path("ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    Path("talk.json").write_text(export(talks(30)))
    sign(tmp_path / "talk.json")
    words = ("--persona", "ada.toml", "--source", "talk.json", "--json")
    planned = json.loads(command("plan", *words)[1])
    built = json.loads(command("dataset", "build", *words, "--out", "out")[1])
    assert {key: planned[key] for key in built} == built
    again = json.loads(command("plan", "--dataset", "out", "--json", "--samples")[1])
    assert {key: again[key] for key in built} == built and again["recipes"][0]["steps"] == planned[
        "recipes"
    ][0]["steps"]
    assert again["examples"][0].endswith("⟧")


def test_builds_and_plans_of_sources_say_what_is_taken_of_them(tmp_path, command):
    rows = [
        {"prompt": f"{sentence(n, 7)}?", "completion": sentence(n, 9), "label": n % 4 != 0}
        for n in range(40)
    ]
    Path("marked.jsonl").write_text(
        "".join(json.dumps(row | {"mood": "calm"}) + "\n" for row in rows)
    )
    sign(tmp_path / "marked.jsonl")
    words = ("--source", "marked.jsonl")
    planned = json.loads(command("plan", *words, "--json")[1])["import_report"]
    assert planned["not_taken"] == [{"what": "column mood", "why": "it has no role"}]
    assert "marked as desirable" in planned["other_meaning"][0]["why"]
    for output in (
        command("plan", *words)[1],
        command("dataset", "build", *words, "--out", "out")[1],
    ):
        assert "Taken as is: column prompt " in output and ", column completion " in output
        assert "Taken with another meaning: " in output and "Not taken: column mood" in output
    assert json.loads(command("plan", "--dataset", "out", "--json")[1])["import_report"] == planned


@pytest.mark.slow
def test_a_plan_of_a_mapped_table_says_which_columns_are_taken(tmp_path, command):
    Path("ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    times = [f"2026-03-01 {n // 2:02}:0{n % 2}:00" for n in range(40)]
    rows = [
        f'{time},{("Corvin", "Tansy")[n % 2]},"{sentence(n, 9)}, {n} ropes.",x\n'
        for n, time in enumerate(times)
    ]
    Path("talk.csv").write_text("kwando,nani,neno,alama\n" + "".join(rows))
    sign(tmp_path / "talk.csv")
    words = (
        "train",
        "--persona",
        "ada.toml",
        "--dataset",
        "talk.csv",
        "--as",
        "Tansy",
        "--dry-run",
        "--json",
    )
    code, _, error = command(*words)
    assert code == 1 and "not guessed" in error and "speaker=nani text=neno time=kwando" in error
    code, output, error = command(*words, "--map", "speaker=nani", "text=neno", "time=kwando")
    result = json.loads(output)
    assert code == 0 and sum(result["samples"].values()) == 20, error
    report = result["import_report"]
    assert [one["what"] for one in report["not_taken"]] == ["column alama"] and len(
        report["as_is"]
    ) == 3


@pytest.mark.slow
def test_the_catalogue_names_what_to_plan(tmp_path, command, monkeypatch):
    few = shipping_few(tmp_path, messages=60)
    monkeypatch.setattr(ShippedData, "from_source_tree", lambda: few)
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.json").write_text(export(talks(30)))
    (home / "catalogue.toml").write_text(
        '[mine]\npath = "mine.json"\nright = "form"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "so"\n'
        '[other]\npath = "mine.json"\n'
    )
    Path("ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    words = ("plan", "--persona", "ada.toml", "--json")
    assert json.loads(command(*words, "--dataset", "mine")[1])["rows"] == 60
    for name, said in (
        ("other", "'other' leaves out stated_by"),
        ("mien", "There is no data set 'mien'. Known: ballast"),
    ):
        code, _, errors = command(*words, "--dataset", name)
        assert code == 1 and said in errors
    assert json.loads(command("plan", "--persona", "oda", "--lore", "home", "--json")[1])[
        "sources"
    ].keys() == {"oda.json"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "There is nothing to plan"),
        (("--dataset", "a", "--source", "b"), "--dataset and --source"),
        (("--persona", "adda"), "There is no persona 'adda'"),
    ],
)
def test_what_cannot_be_planned_is_said(command, words, said):
    code, _, errors = command("plan", *words)
    assert code == 1 and said in errors


def test_a_broken_job_is_said_and_a_damaged_data_set_too(tmp_path, command):
    (tmp_path / "job").mkdir()
    code, _, errors = command("run", "job", "--dry-run")
    assert code == 1 and "request.json cannot be read" in errors
    (tmp_path / "job" / "stats.json").write_text("{}")
    code, _, errors = command("plan", "--dataset", "job")
    assert code == 1 and "is not a complete data set" in errors


# ------------------------------------------------------------------------------------- the estimate


def test_steps_are_those_of_the_trainer(recipe):
    base = locate(EMBEDDED)
    for samples, steps in ((178, 46), (152, 38), (154, 40), (231, 58), (1, 2)):
        result = estimate_run(
            "demo-cpu",
            recipe,
            base,
            Workload([400] * samples, [400] * 30, [100] * 100),
            MachineSpeed(1, "x"),
        )
        assert result["steps"] == steps
    assert result["basis"] == "x" and 2**30 < result["memory_bytes"] < 2**33


def test_the_estimate_is_near_a_measured_run(recipe):
    """A run of 152 samples of some 410 tokens, 332 of them the card, took 136 s on two cores."""
    work = Workload([410] * 151 + [512], [410] * 32, [100] * 135, shared=332, reply_tokens=30)
    result = estimate_run(
        "demo-cpu", recipe, locate(EMBEDDED), work, MachineSpeed(1, "measured"), BF16, card="losses"
    )
    assert 100 < result["seconds"] < 180 and result["memory_bytes"] == sum(
        result["memory"].values()
    )


def test_what_is_measured_by_steps_is_measured_at_the_end_too(recipe):
    shape = model_shape_of(locate(EMBEDDED))
    work = Workload([400] * 40, [400])

    def measuring_s(every):
        rarely = recipe.model_copy(
            update={"eval_strategy": "steps", "eval_steps": every, "max_steps": 10}
        )
        return run_cost(rarely, shape, work, 4).measuring_s

    assert measuring_s(11) == measuring_s(10) < measuring_s(9) == measuring_s(5)


def test_samples_that_a_recipe_has_no_room_for_are_not_counted(recipe):
    work = Workload([400, 10_000], [400])
    assert (
        estimate_run("demo-cpu", recipe, locate(EMBEDDED), work, MachineSpeed(1, ""))["samples"]
        == 1
    )


def left_by_a_run(home, job, name="embedded", tokens_per_s=321.5, steps=10, seconds=61):
    report = home / "jobs" / job / "adapter" / "report"
    report.mkdir(parents=True)
    manifest = {
        "base_model": name,
        "created_at": "2026-11-20T11:35:00+00:00",
        "dataset": {"train": 40},
        "hyperparameters": {"gradient_checkpointing": 1, "per_device_train_batch_size": 1},
    }
    (report.parent / "manifest.json").write_text(json.dumps(manifest))
    lines = ["step,tokens_per_s,seconds", "1,10,20", f"{steps},{tokens_per_s},{20 + seconds}", ""]
    (report / "steps.csv").write_text("\n".join(lines))
    return report.parent


def test_an_earlier_run_on_this_machine_tells_the_speed_whatever_it_was_set_to(
    tmp_path, recipe, monkeypatch
):
    base = locate(EMBEDDED)
    work = Workload([400] * 40, [400], shared=300)
    monkeypatch.setattr(run_estimate, "_measure_gflops", lambda: 258.0)
    assert "scaled" in estimate_speed(base, recipe, work, adapters_by_recency(tmp_path)).basis
    assert estimate_speed(base, recipe, work, []).pace > 0
    left_by_a_run(tmp_path, "one")
    left_by_a_run(tmp_path, "two", "another", 5)
    (left_by_a_run(tmp_path, "three") / "report" / "steps.csv").write_text("")
    speed = estimate_speed(base, recipe, work, adapters_by_recency(tmp_path))
    assert "run of 2026-11-20T11:35" in speed.basis
    then = recipe.model_copy(
        update={"gradient_checkpointing": True, "per_device_train_batch_size": 1}
    )
    assert estimate_run("", then, base, work, speed)["tokens_per_s"] == pytest.approx(
        321.5, rel=0.01
    )
    assert estimate_run("", recipe, base, work, speed)["tokens_per_s"] > 1.5 * 321.5, (
        "it shares a beginning"
    )


def test_a_short_run_says_nothing_of_the_speed_and_a_disturbed_one_is_outvoted(
    tmp_path, recipe, monkeypatch
):
    monkeypatch.setattr(run_estimate, "_measure_gflops", lambda: 258.0)
    base = locate(EMBEDDED)
    work = Workload([400] * 40, [400], shared=300)
    hasty = [left_by_a_run(tmp_path, "few", steps=9), left_by_a_run(tmp_path, "soon", seconds=59)]
    assert "scaled" in estimate_speed(base, recipe, work, hasty).basis
    disturbed = left_by_a_run(tmp_path, "disturbed", tokens_per_s=32)
    rates = (310, 330, 5000, 5000, 5000)
    others = []
    for number, rate in enumerate(rates):
        others.append(left_by_a_run(tmp_path, f"run-{number}", tokens_per_s=rate))
    first, second = [estimate_speed(base, recipe, work, [run]).pace for run in others[:2]]
    for count, expected in ((1, first), (2, first), (3, second), (4, second), (5, second)):
        found = estimate_speed(base, recipe, work, [*hasty, disturbed, *others[:count]])
        assert found.pace == expected, (
            "of two the faster, of three the middle one; a sixth is not asked"
        )
    assert found.basis == "the last 5 runs on this machine, their median"


@pytest.mark.parametrize(("runs", "slower"), [(1, 2), (2, 3), (3, 8), (5, 8)])
def test_slow_runs_change_an_estimate_by_a_limited_factor(
    tmp_path, recipe, monkeypatch, runs, slower
):
    monkeypatch.setattr(run_estimate, "_measure_gflops", lambda: 258.0)
    base = locate(EMBEDDED)
    work = Workload([400] * 40, [400], shared=300)
    slow = [left_by_a_run(tmp_path, f"slow-{n}", tokens_per_s=1) for n in range(runs)]
    assert estimate_speed(base, recipe, work, slow).pace == pytest.approx(1 / slower)
    fast = [left_by_a_run(tmp_path, f"fast-{n}", tokens_per_s=1e6) for n in range(runs)]
    assert estimate_speed(base, recipe, work, fast).pace == pytest.approx(slower)


def test_an_estimate_has_all_phases_and_measuring_is_part_of_it(recipe):
    work = Workload([410] * 152, [410] * 32, [100] * 135, shared=332, reply_tokens=30)

    itself = model_shape_of(locate(EMBEDDED))

    def phases(recipe, card="full", pace=1.0, drafts=0, writer=itself):
        speed = MachineSpeed(pace, "")
        drafted = replace(work, drafts=drafts, writer=writer)
        result = estimate_run("", recipe, locate(EMBEDDED), drafted, speed, BF16, card=card)
        assert result["seconds"] == round(sum(result["phases"].values()))
        return result["phases"]

    whole = phases(recipe)
    from_card = phases(recipe, drafts=300)
    assert list(from_card) == list(PHASES[:-1])
    assert list(whole) == [name for name in PHASES[:-1] if name != "writing replies"]
    twice = phases(recipe, drafts=600, pace=2.0)["writing replies"]
    assert twice == pytest.approx(from_card["writing replies"], rel=0.01) and twice > 60
    larger = phases(recipe, drafts=300, writer=LLAMA_8B.shape)
    assert larger["writing replies"] > 20 * from_card["writing replies"]
    assert phases(recipe, drafts=300, writer=None) == whole, "who knows how long that takes"
    assert whole["measuring the adapter"] == pytest.approx(whole["training"], rel=0.2), (
        "a card takes as long as its training at most"
    )
    losses = phases(recipe, "losses")["measuring the adapter"]
    assert (
        losses < phases(recipe, "quick")["measuring the adapter"] < whole["measuring the adapter"]
    )
    quick = recipe.model_copy(update={"card_deadline_minutes": 5.0})
    assert sum(phases(quick).values()) < 300
    slow = phases(quick, pace=0.1)
    card_s = slow["measuring the adapter"]
    before_s = sum(slow.values()) - card_s
    assert card_s == pytest.approx(before_s / 4, rel=0.05), "a quarter whatever the time"


@pytest.mark.slow
def test_tokens_are_counted_without_the_model_libraries(tmp_path):
    base = locate(EMBEDDED)
    text = "Alas! <|im_end|> 今天\nthe tide"
    assert load_fast_tokenizer(base)(text)["input_ids"] == load_tokenizer(base)(text)["input_ids"]
    assert load_fast_tokenizer(base).chat_template == load_tokenizer(base).chat_template
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (tmp_path / "talk.json").write_text(export(talks(30)))
    sign(tmp_path / "talk.json")
    words = [
        "plan",
        "--persona",
        str(tmp_path / "ada.toml"),
        "--source",
        str(tmp_path / "talk.json"),
    ]
    code = "import sys; import trainer.cli.main as it; it.main(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_runs_of_the_command_line_tell_the_speed_too(tmp_path):
    places = [
        "jobs/j1/adapter",
        "runs/ballast-demo-cpu-1/adapter",
        "models/persona_adapters/ballast/v1",
    ]
    for at, place in enumerate(places):
        (tmp_path / place).mkdir(parents=True)
        os.utime(tmp_path / place, (at, at))
    assert adapters_by_recency(tmp_path) == [tmp_path / place for place in reversed(places)]
