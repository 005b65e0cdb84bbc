"""The recipes: each ends in an adapter; names, values and comments hold together; what they take is
said.
"""

from __future__ import annotations

import json
import re

import pytest

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.recipe_files import BASE_RECIPE
from personas.schemas.hyperparameters import Hyperparameters, describe_allowed_values
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Epoch, Evaluation, Progress
from tests.trainer.job_folders import export, persona_job, sign, talks
from trainer.cli.recipes_command import recipe_comments
from trainer.machine import MachineSpec, probe_machine, probe_machine_without_torch
from trainer.recipe.auto_recipe import AUTO_RECIPE, AUTO_SETTINGS
from trainer.recipe.machine_fit import fit_notes, fit_to_hardware, recipe_warnings
from trainer.recipe.recipe_file import (
    RECIPES_FOLDER,
    load_recipe,
    recipe_names,
    requested_recipe,
)
from trainer.run import run_job
from trainer.schemas import Recipe, epoch_count, optimiser_steps
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

NAMES = ("demo-cpu", "s0-6gb", "s1-t4", "s3-dialogue", "s3-persona-16gb", "s4-persona-chat")
CPU = MachineSpec(has_cuda=False, best="bf16")
T4 = MachineSpec(has_cuda=True, best="bf16")


def recipe_of(name: str, **changes: object) -> Recipe:
    hyperparameters = Hyperparameters.model_validate(changes)
    return requested_recipe(
        TrainingRequest(job_name="j", persona="ada", recipe=name, hyperparameters=hyperparameters)
    )


def trained(folder, base, recipe, **changes):
    """A whole run by the recipe as it ships, but for what is changed: its events."""
    job = persona_job(folder, base.source, recipe=recipe)
    spec = json.loads((job / "request.json").read_text())
    spec["request"]["hyperparameters"] = changes
    (job / "request.json").write_text(json.dumps(spec))
    received = []
    run_job(job, RunControl(received.append))
    return received, verify_adapter(job / "adapter")


def test_the_published_recipes_ship():
    assert set(NAMES) <= set(recipe_names())


IN_EVERY_RUN = ("auto",)
"""It resolves in a way of its own, by the machine; most tests train by `demo-cpu`."""


@pytest.mark.parametrize(
    "name",
    [
        name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow)
        for name in recipe_names()
        if name != "s1-t4"
    ],
)
def test_each_recipe_by_name_ends_in_an_adapter(tmp_path, tiny_base, name):
    """Whatever lies in the folder; s1-t4 has a test of its own below."""
    received, manifest = trained(tmp_path, tiny_base, name)
    assert manifest.recipe == name and manifest.metrics.loss_tuned < manifest.metrics.loss_base
    if name in NAMES:
        check_as_published(name, received, manifest)


def check_as_published(name, received, manifest):
    recipe = recipe_of(name)
    assert (
        manifest.hyperparameters["learning_rate"] == recipe.learning_rate
        and manifest.lora["r"] == recipe.lora_r
    )
    epochs = [event for event in received if isinstance(event, Epoch)]
    assert len(epochs) == recipe.num_train_epochs
    assert all((event.eval_loss is None) == (recipe.eval_strategy == "steps") for event in epochs)
    steps = [event for event in received if isinstance(event, Progress)]
    assert not steps or steps[-1].of == optimiser_steps(recipe, manifest.dataset["samples_train"])


@pytest.mark.slow
def test_s1_t4_warms_up_fifty_steps_of_forty_as_published_and_that_is_said(tmp_path, tiny_base):
    received, manifest = trained(tmp_path, tiny_base, "s1-t4")
    steps = [event for event in received if isinstance(event, Progress)]
    ends_of_epochs = {event.step for event in received if isinstance(event, Epoch)}
    assert {event.step for event in steps} == {10, 20, 30, 40} | ends_of_epochs and steps[
        -1
    ].of == 40
    assert [event.step for event in received if isinstance(event, Evaluation)] == [10, 20, 30, 40]
    rates = [event.lr for event in steps]
    assert rates == sorted(rates) and rates[-1] < recipe_of("s1-t4").learning_rate
    said = (
        "The warm-up of 50 steps is not shorter than the run of 40: the learning rate never "
        "reaches 2e-05."
    )
    assert said in manifest.caveats
    assert (manifest.hyperparameters["warmup_steps"], manifest.hyperparameters["max_steps"]) == (
        50,
        40,
    )


@pytest.mark.slow
def test_s0_6gb_stops_early_once_held_out_replies_become_no_likelier(tmp_path, tiny_base):
    still = {"learning_rate": 1e-6, "warmup_steps": 1_000_000}  # steps too small to change anything
    received, manifest = trained(tmp_path, tiny_base, "s0-6gb", **still)
    losses = [event.eval_loss for event in received if isinstance(event, Epoch)]
    assert (
        manifest.hyperparameters["num_train_epochs"] == 6
        and manifest.hyperparameters["early_stopping_patience"] == 2
    )
    assert len(losses) == 3 and min(losses) == losses[0]


# ------------------------------------------------------------------------------- names and comments


def test_requests_and_recipes_know_the_same_settings_with_the_same_ranges():
    recipe, request = (kind.model_json_schema()["properties"] for kind in (Recipe, Hyperparameters))
    for name in request:
        own = {key: value for key, value in recipe[name].items() if key not in ("title", "default")}
        assert own == {
            key: value for key, value in request[name]["anyOf"][0].items() if key not in ("title",)
        }, name


@pytest.mark.parametrize("path", sorted(RECIPES_FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_value_of_a_recipe_has_a_comment(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if re.match(r"\w+\s*=", line)]
    comments = recipe_comments(path.stem)
    assert len(values) == len(comments) and all(
        len(comment) > 3 for comment in comments.values()
    ), comments
    assert lines[0].startswith(f"# {path.stem}: ")


def test_the_base_recipe_explains_every_setting_and_the_others_what_differs():
    assert set(recipe_comments(BASE_RECIPE)) == set(Hyperparameters.model_fields)
    base = load_recipe(BASE_RECIPE)
    for name in set(recipe_names()) - {BASE_RECIPE}:
        recipe = load_recipe(name)
        differing = {key for key, value in recipe if value != getattr(base, key)}
        explained = AUTO_SETTINGS if name == AUTO_RECIPE else set()
        assert set(recipe_comments(name)) == differing | explained, name


# ----------------------------------------------------------------------------- what is hardly meant


def test_steps_are_those_that_a_run_has():
    assert (
        optimiser_steps(recipe_of("s1-t4"), 30_000) == optimiser_steps(recipe_of("s1-t4"), 16) == 40
    )
    assert epoch_count(recipe_of("s1-t4"), 30_000) == pytest.approx(40 / 1875)
    assert (optimiser_steps(recipe_of("s0-6gb"), 9000), epoch_count(recipe_of("s0-6gb"), 9000)) == (
        6 * 563,
        6,
    )


@pytest.mark.parametrize(
    ("changes", "samples", "said"),
    [
        ({"warmup_steps": 46}, 178, ["The warm-up of 46 steps is not shorter than the run of 46"]),
        ({"warmup_steps": 45}, 178, []),
        ({"eval_strategy": "steps", "eval_steps": 47}, 178, ["has 46: only its end is measured"]),
        ({"eval_strategy": "steps", "eval_steps": 46}, 178, []),
    ],
)
def test_what_is_hardly_meant_is_said(changes, samples, said):
    found = recipe_warnings(recipe_of("demo-cpu", **changes), samples)
    assert len(found) == len(said) and all(
        words in text for words, text in zip(said, found, strict=True)
    )


def test_what_a_machine_cannot_do_is_done_the_nearest_way_and_said():
    large = recipe_of("s0-6gb")
    small = recipe_of("demo-cpu")
    fitted = fit_to_hardware(large, CPU)
    assert (fitted.precision, fitted.optim) == ("bf16", "adamw_torch_fused")
    assert len(fit_notes(large, fitted)) == 2
    assert fit_notes(large, fit_to_hardware(large, T4)) == ()
    assert fit_notes(small, fit_to_hardware(small, CPU)) == ()


def test_the_machine_is_guessed_as_it_is():
    assert probe_machine_without_torch().has_cuda == probe_machine().has_cuda


# -------------------------------------------------------------------------------------- the command


def test_the_list_has_a_line_for_each(command):
    code, output, _ = command("recipes")
    assert code == 0 and [line.split()[0] for line in output.splitlines()] == recipe_names()
    result = json.loads(command("recipes", "--json")[1])["recipes"]
    assert result["s0-6gb"] == "One character on a 6 GB GPU." and set(result) == set(recipe_names())
    for name, summary in result.items():
        assert len(f"{name}: {summary}") <= 100, "it is a label in a menu on Discord"


def test_a_recipe_is_shown_with_comments_ranges_memory_and_warnings(command):
    _, output, _ = command("recipes", "s1-t4")
    assert "warmup_steps = 50" in output and "as published" in output
    for fact in ("a number from 1e-07 to 0.01", "40 steps", "GiB: it fits."):
        assert fact in output
    assert re.search("note: .*warm-up of 50 steps .*run of 40", output)
    sheet = json.loads(
        command("recipes", "s1-t4", "--json", "--set", "per_device_train_batch_size=64")[1]
    )
    assert {it["name"] for it in sheet["settings"]} == set(Hyperparameters.model_fields)
    changed = next(it for it in sheet["settings"] if it["name"] == "per_device_train_batch_size")
    assert (changed["value"], changed["recipes"], changed["allowed"]) == (
        64,
        4,
        describe_allowed_values("per_device_train_batch_size"),
    )
    assert not sheet["fits"] and sheet["memory_bytes"] > sheet["machine_bytes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recipes", "s1-t5"), "Did you mean 's1-t4'?"),
        (("recipes", "nope"), "no recipe 'nope'. Known: "),
        (("recipes", "s1-t4", "--set", "lora_r=0"), "lora_r cannot be '0'"),
        (("plan", "--persona", "oda", "--set", "epochs=2"), "num_train_epochs"),
        (
            ("plan", "--persona", "oda", "--set", "max_length=512", "--max-length", "640"),
            "both set max_length",
        ),
        (
            ("dataset", "build", "--source", "x", "--out", "y", "--set", "lore_share=2"),
            "lore_share cannot be '2'",
        ),
    ],
)
def test_wrong_names_and_values_are_refused(command, words, said):
    code, _, errors = command(*words)
    assert code == 1 and said in errors


def test_what_ends_a_run_says_that_it_ends_one_stage(command):
    lines = command("recipes", "two-stage")[1].splitlines()
    assert "or the stage of the persona's samples where there are two" in next(
        line for line in lines if line.startswith("max_steps")
    )


@pytest.mark.parametrize("samples", ["-3", "0", "1e3", ""])
def test_a_recipe_is_reckoned_with_one_sample_or_more(command, capsys, samples):
    with pytest.raises(SystemExit) as ended:
        command("recipes", "auto", f"--samples={samples}")
    assert ended.value.code == 2
    assert f"at least 1, got {samples!r}" in capsys.readouterr().err


def test_a_plan_takes_settings_and_says_what_is_hardly_meant(tmp_path, command):
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (tmp_path / "talk.json").write_text(export(talks(20)))
    sign(tmp_path / "talk.json")
    changes = ("--recipe", "s0-6gb", "--set", "warmup_steps=500", "--set", "num_train_epochs=1")
    words = ("plan", "--persona", "ada.toml", "--source", "talk.json", *changes)
    result = json.loads(command(*words, "--json")[1])
    mine, others = (
        [it for it in result["recipes"] if (it["recipe"] == "s0-6gb") is chosen]
        for chosen in (True, False)
    )
    assert (
        mine[0]["steps"] == -(-result["samples"]["train"] // 16)
        and "warm-up of 500" in mine[0]["warnings"][-1]
    )
    assert any("needs CUDA" in warning for it in others for warning in it["warnings"])


def test_unknown_recipes_are_refused():
    with pytest.raises(RequestError, match="Known: auto, card, demo-cpu"):
        recipe_of("s9")
