"""Fine-tuning: the 4-bit values are kept, the adapter learns in full precision, the loss has to be
a number.
"""

import math

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from personas.errors import TrainingError
from personas.models.loading import load_model
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training_events import Epoch, Progress
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.recipe.recipe_file import load_recipe
from trainer.train.sft_trainer import (
    DTYPES,
    LengthSortedSampler,
    load_quantised,
    train_sft,
)
from trainer.train.trainer_base import StageInputs
from trainer.train.training_run import RunControl


@pytest.fixture(scope="module")
def recipe():
    values = {"lora_r": 4, "lora_alpha": 8, "num_train_epochs": 2}
    return fit_to_hardware(load_recipe("demo-cpu").with_values(**values))


def samples(count: int) -> list[TokenizedSample]:
    return [
        TokenizedSample((5, 6, 7, 8, 20 + n % 3, 40, 2), (False,) * 5 + (True,) * 2)
        for n in range(count)
    ]


def train(base, renderer, recipe, check=lambda: None):
    received = []
    course = StageInputs(samples(20), samples(3), recipe, received.append, RunControl(check=check))
    return train_sft(base, renderer.tokenizer, course).model, received


def test_unpacking_keeps_the_four_bit_values(tiny_base, recipe):
    unpacked = load_quantised(tiny_base, recipe).model.layers[1].mlp.up_proj.weight
    precision = DTYPES[recipe.precision]  # float32 where the processor has no bfloat16
    original = load_model(tiny_base, precision).model.layers[1].mlp.up_proj.weight
    packed, state = quantize_4bit(original.data, quant_type="nf4", compress_statistics=True)
    assert torch.equal(unpacked, dequantize_4bit(packed, state).to(unpacked.dtype))
    assert not torch.equal(unpacked.float(), original.float())


def test_training_lowers_the_loss_and_reports_each_step(tiny_base, renderer, recipe):
    model, received = train(tiny_base, renderer, recipe)
    steps = [event for event in received if isinstance(event, Progress)]
    epochs = [event for event in received if isinstance(event, Epoch)]
    assert [(event.step, event.of) for event in steps] == [(n, 6) for n in range(1, 7)]
    assert [event.epoch for event in epochs] == [1, 2]
    assert epochs[1].eval_loss < epochs[0].eval_loss
    assert steps[-1].eta_s == pytest.approx(0) and all(event.tokens_per_s > 0 for event in steps)
    weights = [weight for name, weight in model.named_parameters() if "lora_" in name]
    assert {weight.dtype for weight in weights} == {torch.float32} and not model.training


def test_packed_a_run_learns_what_it_learns_otherwise(tiny_base, renderer, recipe, monkeypatch):
    exact = recipe.model_copy(
        update={"precision": "fp32", "lora_dropout": 0.0, "num_train_epochs": 1}
    )
    losses = []
    for layout in ("padded", "packed"):
        chosen = (layout, [])
        monkeypatch.setattr("trainer.train.kernels._choose_layout", lambda *_, it=chosen: it)
        _, received = train(tiny_base, renderer, exact)
        losses.append(
            [event.loss if isinstance(event, Progress) else event.eval_loss for event in received]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 4


def test_a_loss_that_is_no_number_stops_with_advice(tiny_base, renderer, recipe, monkeypatch):
    monkeypatch.setattr("trainer.train.sft_trainer.reply_losses", lambda model, *_: _nan(model))
    with pytest.raises(TrainingError, match=r"diverged.*learning rate"):
        train(tiny_base, renderer, recipe)


def _nan(model):
    weight = next(weight for weight in model.parameters() if weight.requires_grad)
    return (weight.sum() * math.nan).reshape(1)


def test_each_epoch_has_its_own_order():
    sampler = LengthSortedSampler(list(range(100)), 4, 0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert sorted(sampler) == sorted(first) and list(sampler) != first and len(sampler) == 100
