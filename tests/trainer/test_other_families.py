"""Models with a state besides keys and values, or built otherwise: batches are theirs alone, and
they train for real.

The reference is transformers' own model, one sample at a time, without any of our code.
"""

import logging

import pytest
import torch
from torch.nn import functional

from personas.errors import BaseModelError, TrainingError
from personas.models import probe
from personas.models.base_notes import keeps_state
from personas.models.loading import load_model, load_tokenizer
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona, Turn
from tests.model_families import OTHER_FAMILIES
from tools.tiny_models import make_model
from trainer.doctor.machine_checks import check_base_model
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.recipe.model_fit import match_target_modules
from trainer.train import layout_probe
from trainer.train.collator import collate, reply_losses
from trainer.train.fused_lora import LoraGroup
from trainer.train.kernels import verify_fused_lora
from trainer.train.layout_probe import prefix_obstacle
from trainer.train.losses import load_serving_model, mean_loss, measure_reply_losses
from trainer.train.sft_trainer import add_lora_adapter, load_model_with_kernels, train_sft
from trainer.train.trainer_base import StageInputs

FAST = ("LFM2", "Mamba", "OPT", "Doge")
UNQUANTISED = {"precision": "fp32", "quant_type": "none"}
SHARING = (
    "Llama 4", "gpt-oss", "OPT", "Doge", "Ministral 3", "Gemma 4", "Granite", "OLMo 3", "SmolLM3", "GLM-4", "EXAONE 4",
)  # fmt: skip
ADA = Persona(
    "ada", "Ada", description="You are Ada, {{char}} to {{user}}.", personality="You speak plainly."
)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(
    params=[
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in OTHER_FAMILIES
    ]
)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    bases = {}

    def make(name):
        if name not in bases:
            bases[name] = make_model(OTHER_FAMILIES[name], folder / name)
        return bases[name]

    return make


def samples_of(base, count=4):
    renderer = Renderer(load_tokenizer(base))
    talk = [Turn("Bo", "hello there"), Turn("Ada", "Yes.", True)]
    asked = [[*talk, Turn("Bo", f"what is it, number {n}? " * (1 + n % 3))] for n in range(count)]
    return [
        renderer.sample(ADA, turns, f"I sit by the sea, {n % 2}.") for n, turns in enumerate(asked)
    ]


def alone(model, sample):
    ids = torch.tensor([sample.ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    losses = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    return losses[torch.tensor(sample.mask[1:])].sum()


def test_losses_in_a_batch_are_those_of_transformers_alone(made, name, caplog):
    base = made(name)
    samples = samples_of(made(name))
    with torch.inference_mode():
        expected = [alone(load_model(base, "float32"), sample).item() for sample in samples]
    with caplog.at_level(logging.WARNING):
        model = load_serving_model(base, "float32")
    assert [loss.nll for loss in measure_reply_losses(model, samples)] == pytest.approx(
        expected, rel=1e-4
    )
    assert bool(prefix_obstacle(model)) == (name not in SHARING)
    assert keeps_state(base) == (name not in SHARING), (
        "which a plan says before the model is loaded"
    )
    assert ("layers that keep a state" in check_base_model(base.source).found) == (
        name not in SHARING
    )
    assert ("measured padded" in caplog.text) == (name not in SHARING)


def test_gradients_are_those_of_transformers_alone(made, name):
    base = made(name)
    samples = samples_of(made(name))
    ours = load_serving_model(base, "float32")
    theirs = load_model(base, "float32")
    shares = not prefix_obstacle(ours, trains=True)
    reply_losses(ours, collate(samples, shares_prefix=shares)).sum().backward()
    for sample in samples:
        alone(theirs, sample).backward()
    found = {key: weight.grad for key, weight in ours.named_parameters()}
    for key, weight in theirs.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(
                found[key],
                weight.grad,
                rtol=1e-3,
                atol=1e-5 + 1e-3 * float(weight.grad.abs().max()),
            )


@pytest.mark.slow
def test_it_trains_and_says_how_its_batches_are_made(made, name, recipe):
    base = made(name)
    changes = {**UNQUANTISED, "lora_r": 8, "learning_rate": 1e-2, "max_steps": 6}
    settings, _ = match_target_modules(
        recipe.model_copy(update={**changes, "eval_strategy": "no"}), base
    )
    settings = fit_to_hardware(settings)
    samples = samples_of(base)
    stage = StageInputs(samples, samples[:2], settings, lambda _: None)
    trained = train_sft(base, load_tokenizer(base), stage)
    with trained.model.disable_adapter():
        before = mean_loss(measure_reply_losses(trained.model, samples))
    least = (
        0.2 if name != "RWKV" else 0.0
    )  # whose random layers hardly change what the last one says
    assert mean_loss(measure_reply_losses(trained.model, samples)) < before - least
    padded = (
        "samples padded, what their prompts share computed for each (the cache cannot be shared"
    )
    assert (padded in " ".join(trained.kernels)) == (name not in SHARING)


def test_a_cache_that_gives_other_losses_or_no_gradient_is_not_shared(made, monkeypatch):
    """A fault that no error gives away."""
    base = made("OPT")
    prefix_cache = layout_probe.reply_losses.__globals__["_prefix_cache"]

    def changed(change):
        def cache(model, prefix, rows):
            return change(prefix_cache(model, prefix, rows))

        monkeypatch.setitem(layout_probe.reply_losses.__globals__, "_prefix_cache", cache)
        return prefix_obstacle(load_model(base, "float32"), trains=True)

    assert changed(lambda cache: cache) == ""
    assert changed(lambda cache: spoil(cache, lambda keys: keys * 1.5)).startswith(
        "the losses are not those"
    )
    assert changed(lambda cache: spoil(cache, torch.Tensor.detach)).startswith(
        "the gradients are not those"
    )


def spoil(cache, change):
    for layer in cache.layers:
        layer.keys, layer.values = change(layer.keys), change(layer.values)
    return cache


def test_a_model_that_no_batch_leaves_as_it_is_is_refused_by_name(made, monkeypatch):
    monkeypatch.setattr(layout_probe, "lay_out", lambda *_, **__: 1 / 0)
    with pytest.raises(
        TrainingError,
        match=r"kind opt .*in a batch, .*ZeroDivision",
    ):
        prefix_obstacle(load_model(made("OPT"), "float32"))


def test_a_model_that_cannot_be_computed_is_refused_by_name(made):
    model = load_model(made("OPT"), "float32")
    del model.model.decoder.layers[0].fc1
    with pytest.raises(BaseModelError, match=r"kind opt .*\(AttributeError"):
        prefix_obstacle(model)
    with pytest.raises(BaseModelError, match=r"kind opt, .*not finite"):
        broken = load_model(made("OPT"), "float32")
        broken.model.decoder.layers[0].fc1.weight.data.fill_(torch.nan)
        probe.plain_logits(broken, [5, 6, 7])


def test_fused_adapters_are_given_up_where_they_learn_something_else(
    made, recipe, monkeypatch, caplog
):
    settings, _ = match_target_modules(recipe.model_copy(update=UNQUANTISED), made("Doge"))
    model, kernels = load_model_with_kernels(made("Doge"), fit_to_hardware(settings))
    peft_model = add_lora_adapter(model, settings)
    before = {key: weight.clone() for key, weight in peft_model.named_parameters()}
    assert verify_fused_lora(peft_model, kernels) is kernels and kernels.fuses_lora
    for key, weight in peft_model.named_parameters():
        assert torch.equal(weight, before[key]), "the probe leaves the adapter as it was"
    compute = LoraGroup._compute
    monkeypatch.setattr(
        LoraGroup, "_compute", lambda self, x: tuple(part * 1.1 for part in compute(self, x))
    )
    given_up = verify_fused_lora(peft_model, kernels)
    assert not given_up.fuses_lora and given_up.notes[-1] in caplog.text
    assert not any("computed together" in note for note in given_up.notes)
