"""The end of turn is learned: replies stop by themselves."""

from __future__ import annotations

import pytest
import torch

from personas.schemas.chat import Turn
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.train.sft_trainer import train_sft
from trainer.train.trainer_base import StageInputs

LONGEST = 24
"""Tokens that a reply may have; those learned from have at most half as many."""

REPLIES = (
    "Two sacks.",
    "Not today, the crane rusts.",
    "Ask the harbour master.",
    "Aye, with oil and patience.",
)
HEAVY = {
    "num_train_epochs": 11,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-2,
    "lora_r": 16,
    "lora_dropout": 0.0,
    "quant_type": "none",
    "precision": "fp32",
    "eval_strategy": "no",
}
"""An adapter has to do all: the weights below it are random."""


def asked(number: int) -> list[Turn]:
    return [Turn("Mina", f"What about load {number}?")]


@pytest.fixture(scope="module")
def samples(renderer):
    return [renderer.sample(None, asked(n), REPLIES[n % len(REPLIES)]) for n in range(32)]


def stopped_by_themselves(base, renderer, recipe, samples) -> float:
    """The share of greedy replies to new questions that end before the limit."""
    heavy = fit_to_hardware(recipe.model_copy(update=HEAVY))
    course = StageInputs(samples, (), heavy, lambda event: None)
    model = train_sft(base, renderer.tokenizer, course).model
    prompts = torch.tensor([renderer.prompt(None, asked(number)).ids for number in range(100, 120)])
    made = model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        max_new_tokens=LONGEST,
        eos_token_id=list(renderer.stop_ids),
        pad_token_id=0,
    )
    ended = torch.isin(made[:, prompts.shape[1] :], torch.tensor(renderer.stop_ids)).any(1)
    return float(ended.float().mean())


def test_after_training_replies_stop_by_themselves(tiny_base, renderer, recipe, samples):
    assert max(sample.reply_tokens for sample in samples) <= LONGEST / 2
    assert stopped_by_themselves(tiny_base, renderer, recipe, samples) >= 0.95
