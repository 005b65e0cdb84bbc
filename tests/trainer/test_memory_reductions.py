"""What can be given up for memory: in which order, and that the bot reads it."""

from __future__ import annotations

from dataclasses import replace

from bot.training.training_plan import MemoryOption
from personas.schemas.hyperparameters import Hyperparameters, parse_settings
from trainer.estimate.memory_check import memory_reductions, settings_as_options
from trainer.estimate.run_estimate import MachineSpeed, estimate_run
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec
from trainer.recipe.recipe_file import load_recipe

SPEED = MachineSpeed(1.0, "a test")
CPU = MachineSpec(has_cuda=False, best="bf16")
ORDER = (
    "per_device_train_batch_size",
    "gradient_checkpointing",
    "optim",
    "precision",
    "lora_r",
    "max_length",
)
LONG = Workload(train=[600, 900, 1500], heldout=[700])


def ways(base, work=LONG, machine=CPU, **changes):
    recipe = load_recipe("demo-cpu").model_copy(update={"max_length": 2048, **changes})
    return recipe, memory_reductions(recipe, base, work, SPEED, machine=machine)


def test_the_same_is_learned_first_then_hardly_another_then_less(tiny_base):
    small = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    twice = {"gradient_checkpointing": True}
    recipe, found = ways(
        tiny_base, per_device_train_batch_size=4, gradient_accumulation_steps=2, precision="fp32"
    )
    sets = [way.set for way in found]
    assert sets[:2] == [{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, small]
    at = [next(place for place, it in enumerate(sets) if name in it) for name in ORDER]
    assert at == sorted(at), "each comes after what changes less"
    assert all(it["lora_alpha"] / it["lora_r"] == 2 for it in sets if "lora_r" in it)
    assert sets[-1] == {
        **twice, **small, "optim": "adamw_8bit", "precision": "bf16", "lora_r": 8, "lora_alpha": 16, "max_length": 128
    }  # fmt: skip
    whole = estimate_run("", recipe, tiny_base, LONG, SPEED, CPU)["memory_bytes"]
    needs = [whole, *(way.memory_bytes for way in found)]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) == len(needs), (
        "each takes less than the one before"
    )


def test_what_a_way_says_is_what_it_takes(tiny_base):
    recipe, found = ways(tiny_base)
    for way in found:
        changed = recipe.model_copy(update=way.set)
        work = replace(LONG, train=[min(tokens, changed.max_length) for tokens in LONG.train])
        assert (
            estimate_run("", changed, tiny_base, work, SPEED, CPU)["memory_bytes"]
            == way.memory_bytes
        )


def test_on_a_gpu_state_may_leave_it_and_weights_are_packed(tiny_base):
    _, found = ways(tiny_base, machine=MachineSpec(has_cuda=True, best="bf16"), quant_type="none")
    assert found[-1].set["optim"] == "paged_adamw_8bit" and found[-1].set["quant_type"] == "nf4"


def test_what_would_save_nothing_is_not_proposed(tiny_base):
    least = {
        "per_device_train_batch_size": 1, "gradient_checkpointing": True, "optim": "adamw_8bit", "lora_r": 8,
        "max_length": 128,
    }  # fmt: skip
    assert ways(tiny_base, Workload(train=[100], heldout=[100]), **least)[1] == []


def test_each_way_is_a_request_that_is_allowed_and_the_bot_reads_it(tiny_base):
    _, found = ways(tiny_base, per_device_train_batch_size=64, gradient_accumulation_steps=200)
    for way in found:
        assert MemoryOption.model_validate(vars(way)).set == way.set
        assert Hyperparameters(**way.set).model_dump(exclude_none=True) == way.set
        parsed = parse_settings(settings_as_options(way.set).replace("--set ", "").split())
        assert parsed.model_dump(exclude_none=True) == way.set
