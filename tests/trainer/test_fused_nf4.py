"""LoRA layers over packed 4-bit weights, fused as on a GPU: the same gradients and steps as peft's,
with fewer calls and no more memory than predicted.

bitsandbytes computes 4-bit weights on a CPU too; the GPU's choices follow from the description of a
machine.
"""

import copy
import random
from contextlib import ExitStack, nullcontext

import pytest
import torch
from transformers import BitsAndBytesConfig

from personas.models.loading import load_model
from personas.prompt.renderer import TokenizedSample
from tests.model_families import FAMILIES
from tests.trainer.call_counter import CallCounter, one_call_norms
from tools.tiny_models import make_model
from trainer.estimate.memory_model import retained_activation_bytes
from trainer.estimate.model_shape import model_shape_of
from trainer.estimate.workload import BatchShape
from trainer.machine import MachineSpec
from trainer.train.collator import collate_rows, reply_losses
from trainer.train.fused_lora import AdapterCopies, LoraGroup, fused_lora
from trainer.train.kernels import (
    FUSED_LORA_NOTE,
    choose_kernels,
    share_dropout,
    verify_fused_lora,
)
from trainer.train.sft_trainer import add_lora_adapter, cast_adapter_to_float32

CARD = MachineSpec(has_cuda=True, best="bf16")
TOLERANCE = 1e-5
"""Of the size of a gradient, in float32."""
pytestmark = pytest.mark.usefixtures("one_thread")


def packed_model(base, dtype="float32"):
    """The base model in 4 bits, as a GPU gets it."""
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    model = load_model(base, dtype, device_map={"": "cpu"}, quantization_config=quantisation)
    for layer in model.modules():
        # Some processors would reorder the weights in evaluation.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model


def adapted(model, recipe, **changes):
    """The model with an adapter that is no longer zero."""
    peft_model = add_lora_adapter(model, recipe.model_copy(update={"lora_r": 4, **changes}))
    cast_adapter_to_float32(peft_model)
    draw = torch.Generator().manual_seed(1)
    for name, weight in peft_model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05, generator=draw)
    return peft_model.train()


def adapter_of(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def step_samples(count=6):
    draw = random.Random(0)
    numbers = range(10, 500)
    samples = []
    for _ in range(count):
        ids = (5, 6, 7, 8, 9, *draw.choices(numbers, k=draw.randint(8, 30)))
        samples.append(TokenizedSample(ids, (False,) * (len(ids) - 5) + (True,) * 5))
    return samples


def relative_difference(found, expected):
    difference = sum((found[name] - expected[name]).norm() ** 2 for name in expected)
    return float((difference / sum(it.norm() ** 2 for it in expected.values())) ** 0.5)


def gradients_after(model, batch):
    reply_losses(model, batch).sum().backward()
    found = {}
    for name, weight in adapter_of(model).items():
        found[name] = weight.grad
        weight.grad = None
    return found


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """Its q, k and v have a bias."""
    return make_model(FAMILIES["Qwen2.5"], tmp_path_factory.mktemp("qwen") / "model")


@pytest.mark.parametrize(("recomputes", "dropout"), [(False, 0.0), (True, 0.25)])
def test_gradients_are_those_of_peft(qwen, recipe, recomputes, dropout):
    model = adapted(packed_model(qwen), recipe, lora_dropout=dropout)
    share_dropout(model)  # peft would draw for each layer anew
    if recomputes:
        model.get_base_model().activation_checkpointing_enable()
    batch = collate_rows(step_samples())
    torch.manual_seed(5)
    expected = gradients_after(model, batch)
    with fused_lora(model):
        torch.manual_seed(5)
        assert relative_difference(gradients_after(model, batch), expected) < TOLERANCE
        groups = {layer.forward.func.__self__ for layer in model.modules() if is_fused(layer)}
        assert len(groups) == 4 * model.config.num_hidden_layers, "q, k, v; o; gate, up; down"


def is_fused(layer):
    owner = getattr(getattr(layer.forward, "func", None), "__self__", None)
    return isinstance(owner, LoraGroup)


@pytest.mark.parametrize("compute", ["float16", "float32"])
def test_a_checkpoint_in_another_precision_is_trained_in_that_of_autocast(qwen, recipe, compute):
    """Checkpoints in 4 bits name the precision to unpack to, which a T4 may lack."""
    packed = packed_model(qwen, "bfloat16")
    for layer in packed.modules():
        if hasattr(layer, "compute_dtype"):
            layer.compute_dtype = layer.weight.quant_state.dtype = getattr(torch, compute)
    model = adapted(packed, recipe, lora_dropout=0.0)
    batch = collate_rows(step_samples())
    found = []
    for context in (nullcontext(), fused_lora(model)):
        with context, torch.autocast("cpu", torch.bfloat16):
            found.append(gradients_after(model, batch))
    peft, fused = found
    assert relative_difference(fused, peft) < 0.05


@pytest.mark.parametrize("optimiser", ["torch", "bitsandbytes"])
def test_each_step_is_computed_with_the_adapter_of_the_step_before(
    qwen, recipe, optimiser, monkeypatch
):
    """The copies in 16 bits last one step; bitsandbytes writes weights behind torch's back."""
    from bitsandbytes.optim import AdamW8bit

    model = adapted(packed_model(qwen), recipe, lora_dropout=0.0)
    first = copy.deepcopy({name: weight.data for name, weight in adapter_of(model).items()})
    make = torch.optim.AdamW if optimiser == "torch" else AdamW8bit
    batch = collate_rows(step_samples())

    def trained(context):
        weights = adapter_of(model)
        for name, weight in weights.items():
            weight.data.copy_(first[name])
        steps = make(weights.values(), lr=1e-2)
        with context:
            for _ in range(3):
                reply_losses(model, batch).sum().backward()
                steps.step()
                steps.zero_grad()
        return {name: weight.data - first[name] for name, weight in weights.items()}

    expected = trained(nullcontext())
    assert relative_difference(trained(fused_lora(model)), expected) < 0.02
    monkeypatch.setattr(AdapterCopies, "expire", lambda copies: None)
    assert relative_difference(trained(fused_lora(model)), expected) > 0.05


def test_on_a_gpu_they_are_chosen_and_given_up_where_they_learn_something_else(
    qwen, recipe, monkeypatch
):
    model = packed_model(qwen)
    kernels = choose_kernels(model, recipe, CARD)
    peft_model = adapted(model, recipe, lora_dropout=0.0)
    assert kernels.layout == "rows" and FUSED_LORA_NOTE in kernels.notes
    assert verify_fused_lora(peft_model, kernels) is kernels and kernels.fuses_lora
    with kernels.in_use(peft_model):
        assert any(is_fused(layer) for layer in peft_model.modules())
    assert not any(is_fused(layer) for layer in peft_model.modules())
    compute = LoraGroup._compute
    monkeypatch.setattr(
        LoraGroup, "_compute", lambda group, x: tuple(part * 1.1 for part in compute(group, x))
    )
    assert not verify_fused_lora(peft_model, kernels).fuses_lora


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_gpu_retains_what_is_predicted(qwen, recipe, dropout):
    recipe = recipe.model_copy(update={"lora_r": 4, "lora_dropout": dropout})
    model = adapted(packed_model(qwen), recipe, lora_dropout=dropout)
    share_dropout(model)  # a byte of mask for each value, as on a GPU
    batch = collate_rows(step_samples(24))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    retained = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        is_loss = model.config.vocab_size in tensor.shape
        if storage.data_ptr() not in weights and not is_loss:
            retained[storage.data_ptr()] = storage
        return tensor

    with fused_lora(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        reply_losses(model, batch)
    rows, tokens = batch["input_ids"].shape
    mask = rows * tokens**2 * 4
    counted = sum(storage.nbytes() for storage in retained.values()) - mask
    shape = BatchShape(rows, tokens, 0, 0)
    predicted = retained_activation_bytes(model_shape_of(qwen), recipe, shape, 4, has_scores=False)
    assert predicted == pytest.approx(counted, rel=0.05)


def test_a_micro_batch_takes_few_calls(qwen, recipe):
    """Printed with -s: calls of a micro-batch beside those of plain transformers and peft."""
    plain_model = packed_model(qwen, "bfloat16")
    model = adapted(plain_model, recipe, lora_dropout=0.05)
    samples = step_samples(16)
    batch = collate_rows(samples)
    single = {"input_ids": torch.tensor([samples[0].ids])}
    causal = model.get_base_model()

    step = torch.optim.SGD(adapter_of(model).values(), lr=0.0)

    def passes(compute):
        with torch.autocast("cpu", torch.bfloat16):
            loss = compute()
        loss.backward()

    def count(compute, recomputes, *patches):
        if recomputes:
            causal.activation_checkpointing_enable()
        with ExitStack() as stack:
            stack.enter_context(one_call_norms())
            for patch in patches:
                stack.enter_context(patch(model))
            # The first step makes places for copies of the adapter, which later ones renew.
            passes(compute)
            step.step()
            step.zero_grad()
            with CallCounter() as counter:
                passes(compute)
            step.zero_grad()
        if recomputes:
            causal.activation_checkpointing_disable()
        return counter

    def plain():
        return model(**single, labels=single["input_ids"], use_cache=False).loss

    def ours():
        return reply_losses(model, batch, in_chunks=True).sum()

    plainly = count(plain, True)
    unfused = count(ours, True)
    recomputed = count(ours, True, fused_lora)
    retained = count(ours, False, fused_lora)
    for name, counter in {
        "plain, one sample, recomputed": plainly,
        "sixteen samples by peft's layers, recomputed": unfused,
        "sixteen samples, recomputed": recomputed,
        "sixteen samples": retained,
    }.items():
        dispatches = counter.dispatches / plainly.dispatches
        kernels = counter.kernels / plainly.kernels
        print(
            f"{name}: {counter.dispatches} dispatches ({dispatches:.2f}), {counter.kernels} kernels "
            f"({kernels:.2f}), {counter.waits} waits"
        )
    assert recomputed.dispatches < 0.75 * unfused.dispatches
    assert recomputed.kernels < 0.85 * unfused.kernels
    assert retained.dispatches < 0.55 * plainly.dispatches
    assert retained.waits == 0
