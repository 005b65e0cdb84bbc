"""The same loss every way: alone, in a batch, packed, computed twice, by whichever attention, in
training and after.
"""

from __future__ import annotations

import itertools
import random
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from transformers import BitsAndBytesConfig

from personas.models.loading import load_model
from personas.prompt.renderer import TokenizedSample
from trainer.train import losses as evaluate
from trainer.train.collator import collate, collate_rows, has_plain_head, pack, reply_losses
from trainer.train.fused_lora import fused_lora
from trainer.train.kernels import share_dropout, use_grouped_attention
from trainer.train.losses import measure_reply_losses
from trainer.train.sft_trainer import add_lora_adapter, load_quantised

SHARED = (5, 6, 7, 8, 9)
TOLERANCE = 1e-5
"""Of the size of what is compared. Weights and activations have 64 bits; norms, softmax and losses
are taken in 32.
"""

LAYOUTS = {"padded": collate, "packed": pack, "rows": collate_rows}
ATTENTIONS = ("eager", "sdpa", "grouped_matmul")


def sample(prompt: tuple[int, ...], reply: tuple[int, ...]) -> TokenizedSample:
    return TokenizedSample(prompt + reply, (False,) * len(prompt) + (True,) * len(reply))


def random_samples(shared: tuple[int, ...], count: int = 5) -> list[TokenizedSample]:
    draw = random.Random(0)
    numbers = range(10, 4000)
    return [
        sample(
            (*shared, *draw.choices(numbers, k=draw.randint(1, 30))),
            tuple(draw.choices(numbers, k=draw.randint(1, 12))),
        )
        for _ in range(count)
    ]


def exact_model(
    base, recipe, attention: str = "eager", checkpointed: bool = False, dropout: float = 0.0
):
    """With an adapter that is no longer zero, in 64 bits."""
    model = load_model(base, "float32")
    if attention == "grouped_matmul":
        use_grouped_attention(model)
    else:
        model.set_attn_implementation(attention)
    assert model.config._attn_implementation == attention
    peft = add_lora_adapter(
        model, recipe.model_copy(update={"lora_dropout": dropout, "lora_r": 4})
    ).double()
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(1))
    if checkpointed:
        model.activation_checkpointing_enable()
    return peft


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.fixture(scope="module", params=[(), SHARED], ids=["nothing shared", "shared beginning"])
def plainly(request, tiny_base, recipe):
    """Samples, and each one's loss and all gradients, computed one by one by transformers and torch
    alone.
    """
    samples = random_samples(request.param)
    model = exact_model(tiny_base, recipe).train()
    losses = []
    for one in samples:
        ids = torch.tensor([one.ids])
        each = functional.cross_entropy(
            model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"
        )
        losses.append(each[torch.tensor(one.mask[1:])].sum())
    torch.stack(losses).sum().backward()
    return samples, torch.stack(losses).detach(), gradients(model)


def by_sample(losses: torch.Tensor, samples: list[TokenizedSample]) -> torch.Tensor:
    return torch.stack([part.sum() for part in losses.split([one.reply_tokens for one in samples])])


@pytest.mark.parametrize(
    ("layout", "attention", "checkpointed"),
    [
        *itertools.product(LAYOUTS, ATTENTIONS, (False,)),
        *itertools.product(LAYOUTS, ("grouped_matmul",), (True,)),
    ],
)
def test_in_training_loss_and_gradients_are_those_of_each_sample_alone(
    tiny_base, recipe, plainly, layout, attention, checkpointed
):
    samples, alone, expected = plainly
    model = exact_model(tiny_base, recipe, attention, checkpointed).train()
    losses = reply_losses(model, LAYOUTS[layout](samples))
    losses.sum().backward()
    assert by_sample(losses, samples).tolist() == pytest.approx(alone.tolist(), rel=TOLERANCE)
    for name, gradient in gradients(model).items():
        assert (gradient - expected[name]).norm() < TOLERANCE * expected[name].norm(), name


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fused_layers_and_losses_in_chunks_give_the_same_losses_and_gradients(
    tiny_base, recipe, layout, dropout, monkeypatch
):
    monkeypatch.setattr("trainer.train.collator.LOSS_CHUNK_TOKENS", 7)
    samples = random_samples(SHARED)
    found = []
    for is_fused in (False, True):
        model = exact_model(tiny_base, recipe, "grouped_matmul", dropout=dropout).train()
        share_dropout(model)
        assert has_plain_head(model.get_base_model())
        torch.manual_seed(5)
        with fused_lora(model) if is_fused else nullcontext():
            losses = reply_losses(model, LAYOUTS[layout](samples), in_chunks=is_fused)
            (losses * torch.linspace(0.5, 2, len(losses))).sum().backward()
        found.append((losses.detach(), gradients(model)))
    (plain, expected), (fused, computed) = found
    assert fused.tolist() == pytest.approx(plain.tolist(), rel=TOLERANCE)
    for name, gradient in computed.items():
        assert (gradient - expected[name]).norm() < TOLERANCE * expected[name].norm(), name


def test_fused_layers_are_computed_apart_where_adapters_are_off_and_afterwards(tiny_base, recipe):
    model = exact_model(tiny_base, recipe).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        with model.disable_adapter():
            base = model(input_ids=ids).logits
        adapted = model(input_ids=ids).logits
        with fused_lora(model):
            assert torch.allclose(model(input_ids=ids).logits, adapted, rtol=TOLERANCE)
            with model.disable_adapter():
                assert torch.equal(model(input_ids=ids).logits, base)
        assert torch.equal(model(input_ids=ids).logits, adapted)
    assert not torch.allclose(base, adapted)


def test_a_head_whose_logits_are_scaled_is_not_taken_apart(tiny_base):
    model = load_model(tiny_base, "float32")
    assert has_plain_head(model)
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _head, _inputs, logits: logits)
    assert has_plain_head(model)
    model.register_forward_hook(
        lambda _model, _inputs, output: replace(output, logits=output.logits / 2)
    )
    assert not has_plain_head(model)


@pytest.mark.parametrize("attention", ["sdpa", "grouped_matmul"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_evaluation_the_loss_is_that_of_each_sample_alone(
    tiny_base, recipe, plainly, layout, attention
):
    samples, alone, _ = plainly
    found = measure_reply_losses(exact_model(tiny_base, recipe, attention), samples, layout=layout)
    assert [loss.nll for loss in found] == pytest.approx(alone.tolist(), rel=TOLERANCE)
    assert [loss.tokens for loss in found] == [one.reply_tokens for one in samples]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_of_a_batch_never_see_each_other(tiny_base, recipe, layout):
    samples = random_samples(SHARED)
    model = exact_model(tiny_base, recipe).train()
    ids = samples[1].ids
    others = [*samples]
    others[1] = TokenizedSample(
        (*ids[: len(SHARED)], *(token + 1 for token in ids[len(SHARED) :])), samples[1].mask
    )
    before, after = (
        by_sample(reply_losses(model, LAYOUTS[layout](each)), samples) for each in (samples, others)
    )
    kept = [0, 2, 3, 4]
    assert torch.equal(before[kept], after[kept])
    assert not torch.allclose(before[1], after[1])


def test_in_training_unpacked_four_bit_weights_give_the_losses_of_bitsandbytes_own_packed_ones(
    tiny_base, recipe
):
    """Outside of training bitsandbytes rounds to 16 bits on some processors, whatever precision is
    asked for.
    """
    samples = random_samples(SHARED)
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    packed = load_model(
        tiny_base, "float32", device_map={"": "cpu"}, quantization_config=quantisation
    )
    unpacked = load_quantised(tiny_base, recipe.model_copy(update={"precision": "fp32"}))
    losses = []
    for model in (packed, unpacked, load_model(tiny_base, "float32")):
        model.train().enable_input_require_grads()
        losses.append(by_sample(reply_losses(model, collate(samples)), samples).tolist())
    theirs, ours, whole = losses
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours != pytest.approx(whole, rel=1e-3)


def test_replies_are_measured_by_fewer_at_once_where_they_are_long(tiny_base, recipe, monkeypatch):
    samples = random_samples(SHARED, 20)
    model = exact_model(tiny_base, recipe)
    rows = []
    measure = evaluate._measure_batch
    monkeypatch.setattr(
        evaluate,
        "_measure_batch",
        lambda m, chosen, *a: rows.append(chosen) or measure(m, chosen, *a),
    )
    whole = measure_reply_losses(model, samples)
    longest = max(len(sample.ids) for sample in samples)
    monkeypatch.setattr(evaluate, "EVAL_BATCH_TOKENS", 5 * longest)
    few = measure_reply_losses(model, samples)
    assert [len(chosen) for chosen in rows[:2]] == [16, 4]
    assert len(rows) > 5 and all(
        len(it) * max(len(one.ids) for one in it) <= 5 * longest for it in rows[2:]
    )
    assert [loss.nll for loss in few] == pytest.approx([loss.nll for loss in whole], rel=TOLERANCE)
    monkeypatch.setattr(evaluate, "EVAL_BATCH_TOKENS", 1)
    assert len(measure_reply_losses(model, samples)) == 20


def test_replies_are_measured_by_fewer_at_once_where_logits_are_many(
    tiny_base, recipe, monkeypatch
):
    samples = random_samples(SHARED, 20)
    model = exact_model(tiny_base, recipe)
    tokens = []
    monkeypatch.setattr(evaluate, "has_plain_head", lambda model: False)
    counted = evaluate.reply_logits
    monkeypatch.setattr(
        evaluate, "reply_logits", lambda *a: tokens.append(len((found := counted(*a))[1])) or found
    )
    whole = measure_reply_losses(model, samples)
    at_once = tokens.copy()
    monkeypatch.setattr(
        evaluate, "EVAL_MAX_LOGIT_BYTES", 20 * evaluate.BYTES_PER_LOGIT * model.config.vocab_size
    )
    few = measure_reply_losses(model, samples)
    assert len(at_once) == 2 and max(tokens[2:]) <= 20 < max(at_once)
    assert [loss.nll for loss in few] == pytest.approx([loss.nll for loss in whole], rel=TOLERANCE)
    monkeypatch.setattr(evaluate, "EVAL_MAX_LOGIT_BYTES", 1)
    assert len(measure_reply_losses(model, samples)) == 20
