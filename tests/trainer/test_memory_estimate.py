"""Predicted memory against torch's own counts, part by part, and against a whole run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from personas.models.loading import load_tokenizer
from personas.prompt.renderer import TokenizedSample
from tests.trainer.job_folders import persona_job
from tests.trainer.model_sizes import QWEN_3B
from trainer.estimate.memory_model import (
    MAX_LOGIT_BYTES,
    adapter_parameter_count,
    memory_of_batches,
    predict_memory,
    retained_activation_bytes,
)
from trainer.estimate.model_shape import model_shape_of, shape_from_config
from trainer.estimate.workload import BatchShape, Workload, group_by_length, workload_of
from trainer.machine import MachineSpec
from trainer.recipe.recipe_file import load_recipe
from trainer.train import losses
from trainer.train.collator import collate, reply_losses
from trainer.train.sft_trainer import make_sft_trainer
from trainer.train.trainer_base import StageInputs

CPU = MachineSpec(has_cuda=False, best="fp32")
GPU = MachineSpec(has_cuda=True, best="bf16")
SHARED = tuple(range(10, 40))


def samples(count, own=50, reply=10):
    """They share a beginning; every other one is shorter by a token."""
    return [_sample(number, own - number % 2, reply) for number in range(count)]


def _sample(number, own, reply):
    ids = (*SHARED, *(100 + number * 60 + place for place in range(own)))
    return TokenizedSample(ids, (False,) * (len(ids) - reply) + (True,) * reply)


def changed(recipe, **changes):
    return recipe.model_copy(
        update={"precision": "fp32", "quant_type": "none", "lora_r": 4, **changes}
    )


def made(tiny_base, recipe, tmp_path):
    course = StageInputs(samples(8), (), recipe, lambda event: None)
    return make_sft_trainer(tiny_base, load_tokenizer(tiny_base), course, tmp_path)


def kept_by_torch(model, batch):
    """Bytes of all that autograd keeps for the way back, each storage once; without weights and
    what the loss keeps.
    """
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and model.config.vocab_size not in tensor.shape:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        reply_losses(model, batch)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora_dropout": 0.0},
        {"target_modules": ("q_proj", "v_proj")},
        {"lora_r": 16},
    ],
)
def test_what_is_kept_is_what_torch_keeps(tiny_base, recipe, tmp_path, changes):
    recipe = changed(recipe, **changes)
    together = samples(4)
    model = made(tiny_base, recipe, tmp_path).model.train()
    counted = kept_by_torch(model, collate(together))
    predicted = retained_activation_bytes(
        model_shape_of(tiny_base), recipe, BatchShape(4, 50, 30, 40), 4
    )
    assert predicted == pytest.approx(counted, rel=0.05), (
        "all but what the first layer keeps before its first adapter"
    )


def test_adapter_gradients_and_state_are_counted_to_the_byte(tiny_base, recipe, tmp_path):
    recipe = changed(recipe, max_steps=1, optim="adamw_torch")
    shape = model_shape_of(tiny_base)
    trainer = made(tiny_base, recipe, tmp_path)
    trainer.train()
    trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    state = [
        it
        for of in trainer.optimizer.optimizer.state.values()
        for name, it in of.items()
        if name != "step"
    ]
    parts = memory_of_batches(
        recipe, shape, BatchShape(4, 50, 30, 40), BatchShape(4, 50, 30, 40), CPU
    ).parts
    assert adapter_parameter_count(recipe, shape) == sum(weight.numel() for weight in trained)
    assert parts["adapter"] == sum(weight.nbytes for weight in trained) == parts["gradients"]
    assert parts["optimiser"] == sum(it.nbytes for it in state)


def test_the_weights_of_a_model_follow_from_its_configuration(tiny_base, recipe, tmp_path):
    model = made(tiny_base, changed(recipe), tmp_path).model.get_base_model()
    shape = model_shape_of(tiny_base)
    base = [weight for name, weight in model.named_parameters() if "lora_" not in name]
    assert shape.weights == sum(weight.numel() for weight in base)
    of_config = shape_from_config(json.loads((tiny_base.folder / "config.json").read_text()))
    assert of_config.weight_bytes == shape.weights * 2


def test_parts_add_up_and_grow_with_what_they_grow_with(tiny_base, recipe):
    shape = model_shape_of(tiny_base)
    for machine in (CPU, GPU):

        def total(longest=500, machine=machine, **changes):
            memory = predict_memory(recipe.model_copy(update=changes), shape, longest, machine)
            assert memory.total == sum(memory.parts.values()) and min(memory.parts.values()) >= 0
            return memory.total - memory.parts["measuring"]  # of this tiny model it is the most

        for name, values in (("per_device_train_batch_size", (4, 8, 16)), ("lora_r", (4, 16, 64))):
            found = [total(longest=900, **{name: value}) for value in values]
            assert found == sorted(set(found)), name
        lengths = [total(longest=longest) for longest in (400, 800, 1600)]
        assert lengths == sorted(set(lengths))
        assert total(900, gradient_checkpointing=True) < total(900)
        assert total(optim="adamw_8bit") < total(optim="adamw_torch")


def test_on_a_gpu_weights_stay_packed(tiny_base, recipe):
    shape = model_shape_of(tiny_base)
    packed, whole = (
        predict_memory(recipe.model_copy(update={"quant_type": kind}), shape, 500, GPU).parts[
            "base model"
        ]
        for kind in ("nf4", "none")
    )
    assert whole - packed == pytest.approx(shape.linear_weights * 1.484, rel=0.01)


def test_a_run_that_ends_early_is_reckoned_by_what_it_sees(recipe):
    lengths = [*range(100, 400), 600]
    recipe = recipe.model_copy(update={"max_steps": 2, "seed": 3})
    seen = [lengths[place] for place in group_by_length(lengths, 4, 3)[: 2 * 2 * 4]]
    assert Workload(lengths, [100]).seen(recipe) == seen
    assert Workload(lengths, [100]).largest_trained(recipe) == BatchShape(
        4, max(seen), 0, round(4 * max(seen) / 4)
    )


def test_samples_are_counted_as_batches_share_them():
    work = workload_of(samples(6), samples(2), samples(3))
    assert (work.shared, work.reply_tokens, len(work.general)) == (30, 10, 3)
    batch = collate(samples(6))
    rows, own = batch["input_ids"].shape
    largest = work.batch(6, max(work.train))
    assert (largest.rows, largest.own, largest.shared) == (rows, own, batch["prefix_ids"].shape[1])
    alone = collate(samples(1))
    assert work.batch(1, work.train[0]).own == alone["input_ids"].shape[1]
    assert losses.EVAL_MAX_LOGIT_BYTES == MAX_LOGIT_BYTES


@pytest.mark.slow
def test_a_whole_run_holds_what_was_predicted(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source, hyperparameters={"max_steps": 2})
    words = [sys.executable, "-m", "trainer", "run", str(folder)]
    done = subprocess.run(
        [*words, "--dry-run", "--json"], capture_output=True, text=True, check=True
    )
    result = next(
        recipe for recipe in json.loads(done.stdout)["recipes"] if recipe["recipe"] == "demo-cpu"
    )
    subprocess.run(words, capture_output=True, check=True)
    measured = json.loads((folder / "adapter" / "report" / "training.json").read_text())[
        "peak_bytes"
    ]
    assert result["memory_bytes"] == pytest.approx(measured, rel=0.15)


def test_a_small_card_is_reckoned_with_4_bits_where_16_do_not_fit():
    three_billion = QWEN_3B.shape
    recipe = load_recipe("s0-6gb")

    def needed(gib):
        return predict_memory(
            recipe, three_billion, 512, MachineSpec(True, "bf16", gib * 2**30)
        ).total

    assert needed(6) < 6 * 2**30 < needed(16)
