"""NEFTune's noise has the size of each sample's own length, whatever the batch it is in."""

import math
from functools import partial

import pytest
import torch

from personas.models.loading import load_model
from personas.prompt.renderer import TokenizedSample
from trainer.machine import probe_machine
from trainer.train.collator import collate, pack, reply_losses
from trainer.train.embedding_noise import EmbeddingNoise, sample_lengths
from trainer.train.kernels import choose_kernels
from trainer.train.preference_trainer import patch_reply_scoring

ALPHA = 5.0
PREFIX = tuple(range(20, 60))
pytestmark = pytest.mark.usefixtures("one_thread")


def sample(own: int, first: int) -> TokenizedSample:
    ids = (*PREFIX, *range(first, first + own))
    return TokenizedSample(ids, tuple(place >= len(ids) - 4 for place in range(len(ids))))


SHORT = sample(8, 100)
LONG = sample(150, 200)


class Recorder:
    """The noise that the model's embeddings got in each pass, [rows, tokens, width]."""

    def __init__(self, model) -> None:
        embeddings = model.get_input_embeddings()
        self.added: list[torch.Tensor] = []
        embeddings.register_forward_hook(self.record)

    def record(self, layer, inputs, output):
        plain = torch.nn.functional.embedding(inputs[0], layer.weight)
        self.added.append((output - plain).detach())


@pytest.fixture
def model(tiny_base):
    return load_model(tiny_base, "float32").train()


def size(added: torch.Tensor, tokens: int) -> float:
    """The noise relative to the paper's bound of a sample of so many tokens: at most 1, and nearly
    that.
    """
    return float(added.abs().max()) / (ALPHA / math.sqrt(tokens * added.shape[-1]))


@pytest.mark.parametrize(
    "layout", [pack, partial(collate, shares_prefix=False)], ids=["packed", "padded"]
)
def test_noise_is_the_same_in_every_layout(model, layout):
    noise = EmbeddingNoise(model, ALPHA)
    recorder = Recorder(model)
    batch = layout([SHORT, LONG])
    with noise.over(sample_lengths(batch)):
        reply_losses(model, batch)
    (added,) = recorder.added
    first = len(SHORT.ids)
    short, long = (
        (added[:, :first], added[:, first:]) if len(added) == 1 else (added[0, :first], added[1])
    )
    assert size(short, len(SHORT.ids)) == pytest.approx(1, abs=0.01)
    assert size(long, len(LONG.ids)) == pytest.approx(1, abs=0.01)


def test_a_sample_alone_has_the_noise_that_it_has_in_a_batch(model):
    noise = EmbeddingNoise(model, ALPHA)
    recorder = Recorder(model)
    batch = collate([LONG], shares_prefix=False)
    with noise.over(sample_lengths(batch)):
        reply_losses(model, batch)
    assert size(recorder.added[0], len(LONG.ids)) == pytest.approx(1, abs=0.01)


def test_there_is_none_outside_of_training_and_no_prefix_is_shared_with_it(model, recipe):
    noise = EmbeddingNoise(model, ALPHA)
    recorder = Recorder(model)
    batch = collate([SHORT], shares_prefix=False)
    reply_losses(model, batch)
    with noise.over(sample_lengths(batch)):
        reply_losses(model.eval(), batch)
    assert all(not added.any() for added in recorder.added)
    resolved = recipe.model_copy(update={"precision": "fp32"})
    assert choose_kernels(model, resolved, probe_machine()).shares_prefix
    noisy = choose_kernels(
        model, resolved.model_copy(update={"neftune_noise_alpha": ALPHA}), probe_machine()
    )
    assert not noisy.shares_prefix and "its own noise" in noisy.notes[0]


def test_judged_replies_have_noise_of_their_own_length_too(model):
    noise = EmbeddingNoise(model, ALPHA)
    recorder = Recorder(model)
    patch_reply_scoring(model, noise, shares_prefix=False)
    batch = collate([SHORT, LONG], shares_prefix=False)
    model(input_ids=batch["input_ids"], labels=batch["labels"], fused_lm_head=True)
    (added,) = recorder.added
    assert size(added[0], len(SHORT.ids)) == pytest.approx(1, abs=0.01)
    assert size(added[1], len(LONG.ids)) == pytest.approx(1, abs=0.01)
