"""The recipe `auto`: what it chooses where, that it says why, and that a run keeps to what it
chose.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from personas.home.adapters import verify_adapter
from personas.home.job_folder import read_spec
from personas.home.job_material import ShippedData
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Progress
from tests.trainer.job_folders import persona_job, shipping_few
from tests.trainer.model_sizes import LLAMA_3B, LLAMA_8B, QWEN_3B
from trainer.estimate.memory_model import adapter_parameter_count, predict_memory
from trainer.estimate.model_shape import shape_from_config
from trainer.machine import MachineSpec
from trainer.recipe.auto_recipe import (
    AUTO_RECIPE,
    AUTO_SETTINGS,
    ModelTraits,
    SampleStats,
    choose_recipe,
)
from trainer.recipe.recipe_file import RECIPES_FOLDER, requested_recipe
from trainer.run import run_job
from trainer.schemas import Recipe, ResolvedRecipe
from trainer.train.resume_config import RUN_FILE, ResumeConfig, request_hash, resumed_recipe
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

GIB = 2**30
EMBEDDED = ModelTraits(
    shape_from_config(
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        }
    ),
    8192,
    "llama",
)


def machine(gib: float, best: str = "bf16", device: str = "main memory") -> MachineSpec:
    return MachineSpec(device != "main memory", best, int(gib * GIB), int(gib * GIB), device)


LAPTOP = machine(8, "fp32")
SERVER = machine(64)
CARD_6 = machine(6, device="RTX 3060")
T4 = machine(16, "fp16", "T4")
H100 = machine(80, device="H100")
FEW = SampleStats(20, 412, 900)
USUAL = SampleStats(178, 412, 7_000)
MANY = SampleStats(9_000, 512, 540_000)
ENORMOUS = SampleStats(300_000, 900, 60_000_000)


def recipe_of(**changes: object) -> Recipe:
    hyperparameters = Hyperparameters.model_validate(changes)
    return requested_recipe(
        TrainingRequest(
            job_name="j", persona="ada", recipe=AUTO_RECIPE, hyperparameters=hyperparameters
        )
    )


@pytest.mark.parametrize(
    ("where", "model", "replies", "expected"),
    [
        (
            LAPTOP, EMBEDDED, USUAL,
            {"precision": "fp32", "quant_type": "none", "samples": 8, "num_train_epochs": 3, "learning_rate": 1e-3,
             "optim": "adamw_torch_fused", "gradient_checkpointing": False, "max_length": 1024, "lora_r": 16},
        ),
        (
            SERVER, EMBEDDED, FEW,
            {"precision": "bf16", "samples": 4, "num_train_epochs": 8, "early_stopping_patience": 2, "lora_r": 16},
        ),
        (
            CARD_6, QWEN_3B, MANY,
            {"precision": "bf16", "quant_type": "nf4", "samples": 16, "num_train_epochs": 2, "learning_rate": 5e-4,
             "optim": "adamw_torch_fused", "gradient_checkpointing": True},
        ),
        (
            T4, LLAMA_3B, MANY,
            {"precision": "fp16", "quant_type": "nf4", "samples": 16, "learning_rate": 3.6e-4},
        ),
        (
            H100, LLAMA_8B, ENORMOUS,
            {"quant_type": "none", "samples": 32, "num_train_epochs": 1, "eval_strategy": "steps", "eval_steps": 2343,
             "lora_dropout": 0.0, "learning_rate": 2.9e-4, "optim": "adamw_torch_fused", "lora_r": 16},
        ),
        (SERVER, EMBEDDED, ENORMOUS, {"lora_r": 64, "lora_alpha": 32, "samples": 32}),
    ],
    ids=["a laptop", "little data", "6 GB", "T4", "H100", "much data, small model"],
)  # fmt: skip
def test_what_is_chosen_where(where, model, replies, expected):
    chosen = choose_recipe(recipe_of(), model, replies, where).recipe
    samples = chosen.per_device_train_batch_size * chosen.gradient_accumulation_steps
    found = {name: getattr(chosen, name) for name in expected if name != "samples"} | {
        "samples": samples
    }
    assert found == {"samples": samples, **expected}


def needed(recipe: Recipe, model: ModelTraits, replies: SampleStats, where: MachineSpec) -> int:
    return predict_memory(recipe, model.shape, replies.longest, where).total


@pytest.mark.parametrize("where", [LAPTOP, SERVER, T4, H100], ids=lambda it: it.device)
@pytest.mark.parametrize("replies", [FEW, USUAL, MANY], ids=lambda it: str(it.samples))
def test_the_batch_is_the_largest_useful_one_that_fits(where, replies):
    chosen = choose_recipe(recipe_of(), EMBEDDED, replies, where).recipe
    room = where.memory_bytes * (0.9 if where.has_cuda else 0.7)
    assert needed(chosen, EMBEDDED, replies, where) <= room
    batch = chosen.per_device_train_batch_size
    twice = chosen.model_copy(update={"per_device_train_batch_size": 2 * batch})
    enough = min(batch * chosen.gradient_accumulation_steps, 16 if where.has_cuda else 4)
    assert batch == enough or needed(twice, EMBEDDED, replies, where) > room


def test_on_a_gpu_the_batch_comes_first_and_the_optimiser_takes_what_is_left():
    plenty = choose_recipe(recipe_of(), QWEN_3B, MANY, CARD_6).recipe
    paged = plenty.model_copy(update={"optim": "paged_adamw_8bit"})
    least = needed(paged, QWEN_3B, MANY, CARD_6) / GIB / 0.9
    chosen = choose_recipe(recipe_of(), QWEN_3B, MANY, machine(least + 0.01, device="full"))
    assert chosen.recipe == paged
    assert any("may leave the GPU" in why for why in chosen.chosen)


def test_with_less_memory_free_the_batch_is_smaller_and_learns_from_as_many_samples():
    long = SampleStats(500, 1024, 50_000)
    chosen = [
        choose_recipe(recipe_of(), EMBEDDED, long, MachineSpec(False, "bf16", 16 * GIB, free * GIB))
        for free in (16, 3)
    ]
    plenty, scarce = (choice.recipe for choice in chosen)
    assert scarce.per_device_train_batch_size < plenty.per_device_train_batch_size
    assert plenty.max_length == scarce.max_length, (
        "how long samples are does not hang on what is free at the moment"
    )
    for recipe in (plenty, scarce):
        assert recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps == 8


def test_what_fits_nowhere_is_said_with_what_it_needs():
    chosen = choose_recipe(recipe_of(), LLAMA_8B, USUAL, machine(4, device="an old card"))
    assert (chosen.recipe.per_device_train_batch_size, chosen.recipe.gradient_checkpointing) == (
        1,
        True,
    )
    said = (
        r"accumulation_steps 8: 1 sample of 412 tokens is the least, and takes [\d.]+ of 3.6 GiB\.$"
    )
    assert any(re.search(said, why) for why in chosen.chosen)
    assert "and nothing fits into 3.6 GiB" in chosen.chosen[0]


# ----------------------------------------------------------------------------- said, and left alone


def test_everything_that_is_chosen_is_said_with_its_reason():
    begin = recipe_of()
    chosen = choose_recipe(recipe_of(), EMBEDDED, USUAL, SERVER)
    changed = {name for name, value in dict(chosen.recipe).items() if value != getattr(begin, name)}
    said = {
        name: why
        for why in chosen.chosen
        for name in re.findall(r"[a-z_]{5,}", why.partition(":")[0])
    }
    assert changed <= said.keys() & AUTO_SETTINGS and all(
        len(why.partition(": ")[2]) > 10 for why in said.values()
    )
    needs = needed(chosen.recipe, EMBEDDED, USUAL, SERVER) / GIB
    chosen_words, _, why = said["per_device_train_batch_size"].partition(": ")
    assert chosen_words.endswith("per_device_train_batch_size 4, gradient_accumulation_steps 2")
    assert "4 samples of 412 tokens" in why and f"{needs:.1f} of 44.8 GiB" in why


ODD = {
    "max_length": 300, "history_turns": 3, "precision": "fp32", "quant_type": "fp4", "lora_r": 5, "lora_alpha": 7,
    "lora_dropout": 0.21, "learning_rate": 1.7e-5, "optim": "adamw_8bit", "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 5, "gradient_checkpointing": True, "num_train_epochs": 7.5, "eval_strategy": "no",
    "eval_steps": 11, "early_stopping_patience": 9,
}  # fmt: skip


def test_what_is_set_stays_as_it_is_set_alone_and_together():
    assert ODD.keys() == AUTO_SETTINGS
    for given in ({name: value} for name, value in ODD.items()):
        for where in (LAPTOP, CARD_6, H100):
            assert_kept(given, choose_recipe(recipe_of(**given), EMBEDDED, MANY, where))
    all_given = choose_recipe(recipe_of(**ODD), EMBEDDED, MANY, T4)
    assert_kept(ODD, all_given)
    assert all_given.chosen == ()


def assert_kept(given, chosen):
    assert {name: getattr(chosen.recipe, name) for name in given} == given
    assert not [
        why
        for why in chosen.chosen
        for name in given
        if re.search(rf"\b{name} ", why.partition(":")[0])
    ]


def test_a_value_that_is_set_to_what_the_file_says_is_set_too():
    assert recipe_of().lora_dropout == 0.05
    assert (
        choose_recipe(recipe_of(lora_dropout=0.05), EMBEDDED, MANY, SERVER).recipe.lora_dropout
        == 0.05
    )
    assert choose_recipe(recipe_of(), EMBEDDED, ENORMOUS, SERVER).recipe.lora_dropout == 0.0


def test_the_rest_is_chosen_around_what_is_set():
    chosen = choose_recipe(recipe_of(per_device_train_batch_size=2), EMBEDDED, USUAL, SERVER).recipe
    assert chosen.gradient_accumulation_steps == 4
    chosen = choose_recipe(recipe_of(gradient_accumulation_steps=8), EMBEDDED, USUAL, SERVER).recipe
    assert chosen.per_device_train_batch_size == 1
    chosen = choose_recipe(recipe_of(num_train_epochs=1), EMBEDDED, USUAL, SERVER).recipe
    assert (chosen.eval_strategy, chosen.eval_steps) == ("steps", 5)
    assert adapter_parameter_count(chosen, EMBEDDED.shape) == 4_884_480


def test_the_file_says_of_each_value_whether_it_is_chosen():
    text = (RECIPES_FOLDER / "auto.toml").read_text(encoding="utf-8")
    assert (
        set(re.findall(r"^(\w+) = .*# chosen", text, re.MULTILINE)) | {"lora_alpha"}
        == AUTO_SETTINGS
    )


# ------------------------------------------------------------------------------------------ runs


def auto_job(folder: Path, base_model: str, **hyperparameters: object) -> Path:
    """A job of the recipe in which nothing else is set."""
    job = persona_job(folder, base_model, recipe=AUTO_RECIPE)
    spec = json.loads((job / "request.json").read_text())
    spec["request"]["hyperparameters"] = hyperparameters
    (job / "request.json").write_text(json.dumps(spec))
    return job


def test_a_run_chooses_says_so_and_learns(tmp_path, tiny_base, command):
    job = auto_job(tmp_path / "job", tiny_base.source, seed=3, num_train_epochs=2)
    _, output, _ = command("run", str(job), "--dry-run", "--json")
    planned = next(it for it in json.loads(output)["recipes"] if it["recipe"] == AUTO_RECIPE)
    received = []
    run_job(job, RunControl(received.append))
    manifest = verify_adapter(job / "adapter")
    kept = ResumeConfig.model_validate_json((job / RUN_FILE).read_bytes())
    assert (
        manifest.recipe == AUTO_RECIPE and manifest.metrics.loss_tuned < manifest.metrics.loss_base
    )
    assert manifest.hyperparameters["seed"] == 3 and kept.recipe.seed == 3
    assert (
        manifest.hyperparameters["per_device_train_batch_size"]
        == kept.recipe.per_device_train_batch_size
        == 4
    )
    assert kept.chosen and set(kept.chosen) <= set(manifest.caveats)
    free = re.compile(r"[\d.]+ GiB")  # what is free changes from one moment to the next
    result = [free.sub("GiB", why) for why in planned["warnings"] if why.startswith("chosen ")]
    assert result == [free.sub("GiB", why) for why in kept.chosen]
    assert planned["steps"] == [event.of for event in received if isinstance(event, Progress)][-1]
    card = (job / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "4 samples of" in card and "`auto`" in card


def test_a_run_that_goes_on_keeps_to_what_was_chosen_and_another_request_does_not(
    tmp_path, tiny_base
):
    job = auto_job(tmp_path, tiny_base.source)
    (job / "checkpoints").mkdir()
    spec = read_spec(job)
    held = ResumeConfig(
        recipe=recipe_of(),
        used=recipe_of(),
        batches="",
        base_model_hash="",
        threads=1,
        packages={},
        asked="x",
    )
    (job / RUN_FILE).write_text(held.model_dump_json(), encoding="utf-8")
    assert resumed_recipe(job, spec) is None
    own = held.model_copy(update={"asked": request_hash(spec), "chosen": ("chosen lora_r 4: so",)})
    (job / RUN_FILE).write_text(own.model_dump_json(), encoding="utf-8")
    assert resumed_recipe(job, spec) == ResolvedRecipe(own.recipe, own.chosen)


# ------------------------------------------------------------------------------------------ told


@pytest.mark.slow
def test_the_sheet_and_a_plan_say_what_would_be_chosen(command, tmp_path, monkeypatch):
    few = shipping_few(tmp_path)
    monkeypatch.setattr(ShippedData, "from_source_tree", lambda: few)
    _, output, _ = command("recipes", "auto", "--set", "lora_r=8")
    assert re.search(r"^lora_r = 8 .*\(the recipe's: 16\)$", output, re.MULTILINE)
    assert re.search(r"chosen per_device_train_batch_size \d.* [\d.]+ of [\d.]+ GiB", output)
    assert "chosen lora_r" not in output
    _, output, _ = command(
        "plan", "--persona", "oda", "--recipe", "auto", "--set", "max_length=900"
    )
    assert "note: chosen num_train_epochs 3:" in output and "chosen max_length" not in output
