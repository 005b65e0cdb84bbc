"""On a GPU a step's samples lie in one row: each token once, and the gradients of single samples.

The CUDA branches run on a CPU here, by a description of a machine with a card.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from personas.prompt.renderer import TokenizedSample
from personas.shipped_folders import SHIPPED_DATA
from trainer.cli.dataset_args import make_build_spec
from trainer.cli.dataset_command import add_sources
from trainer.dataset.builder import DatasetBuilder
from trainer.dataset.dedup_split import TRAIN
from trainer.dataset.ledger import Ledger
from trainer.estimate.workload import MAX_ROW_TOKENS, workload_of
from trainer.machine import MachineSpec
from trainer.recipe.auto_recipe import choose_settings, sample_stats
from trainer.recipe.machine_fit import fit_to_machine
from trainer.recipe.recipe_file import RECIPES_FOLDER, load_recipe
from trainer.schemas import Recipe
from trainer.train.collator import collate_rows, shared_prefix_length
from trainer.train.sft_trainer import make_sft_trainer, run_training_loop
from trainer.train.trainer_base import StageInputs

CARD = MachineSpec(has_cuda=True, best="bf16", memory_bytes=2**36, free_bytes=2**36)
MUCH = 2**50
STEP_SAMPLES = 16
RECIPES = sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))
SFT_RECIPES = [name for name in RECIPES if name != "preference"]
"""`preference` compares replies (test_preference.py)."""


def sample(*tokens: int, reply: int) -> TokenizedSample:
    prompt = len(tokens) - reply
    return TokenizedSample(tokens, (False,) * prompt + (True,) * reply)


def test_a_row_has_the_shared_beginning_once_and_marks_whose_tokens_follow():
    batch = collate_rows([sample(1, 2, 3, 4, 5, reply=2), sample(1, 2, 9, 8, reply=1)])
    fill = [0] * 9
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 9, 8, *fill]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 2, 3, *fill]]
    assert batch["documents"].tolist() == [[0, 0, 1, 1, 1, 2, 2, *[3] * 9]]
    assert batch["targets"].tolist() == [4, 5, 8]
    assert batch["predictors"].tolist() == [2, 3, 5]
    assert batch["lengths"].tolist() == [5, 4]


def test_samples_without_a_shared_beginning_lie_behind_each_other():
    batch = collate_rows([sample(1, 2, reply=1), TokenizedSample((7, 8), (True, True))])
    assert batch["input_ids"][0, :4].tolist() == [1, 2, 7, 8]
    assert batch["targets"].tolist() == [2, 8], "a first token is predicted by none"


def test_a_row_is_as_long_as_its_mask_may_be_unless_one_sample_is_longer():
    half = MAX_ROW_TOKENS // 2
    three = [sample(*[n] * half, reply=1) for n in (5, 6, 7)]
    batch = collate_rows(three)
    assert batch["input_ids"].shape == (2, MAX_ROW_TOKENS)
    assert batch["predictors"].tolist() == [half - 2, 2 * half - 2, MAX_ROW_TOKENS + half - 2]
    long = sample(*[8] * (MAX_ROW_TOKENS + 1), reply=1)
    alone = collate_rows([long])
    assert "documents" not in alone and alone["input_ids"].shape[1] >= len(long.ids)
    assert "documents" in collate_rows([*three, long])


@pytest.fixture(scope="module")
def ballast() -> list[TokenizedSample]:
    """Sixteen samples of the shipped Ballast of up to 512 tokens."""
    parser = argparse.ArgumentParser()
    add_sources(parser, required=True)
    log = SHIPPED_DATA / "logs" / "ballast.json"
    spec = make_build_spec(
        parser.parse_args(["--persona", "ballast", "--source", str(log), "--max-length", "512"])
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        DatasetBuilder(spec.plan, Ledger(), Path(folder)) as builder,
    ):
        for adapter, info in spec.sources:
            builder.add_source(adapter, info)
        samples = [built.made.sample for built in builder.samples() if built.side == TRAIN]
    return samples[:: len(samples) // STEP_SAMPLES][:STEP_SAMPLES]


class Recorder(TrainerCallback):
    """Keeps the gradients of the first step, and counts micro-batches."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}
        self.micro_batches = 0

    def on_substep_end(self, *_, **__):
        self.micro_batches += 1

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.micro_batches += 1
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                self.gradients[name] = weight.grad.clone()


def first_step(base, tokenizer, samples: Sequence[TokenizedSample], recipe: Recipe) -> Recorder:
    """Train one step over the samples in their order."""
    stage = StageInputs(samples, (), recipe, lambda event: None, order=range(len(samples)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_sft_trainer(base, tokenizer, stage, Path(folder))
        draw = torch.Generator().manual_seed(1)
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0, 0.05, generator=draw)
        recorder = Recorder()
        trainer.add_callback(recorder)
        run_training_loop(trainer)
    return recorder


@pytest.fixture(scope="module")
def as_single_samples(tiny_base, renderer, ballast):
    """The gradients of a step of sixteen single samples, as plain as can be, by the settings."""
    known: dict[tuple[object, ...], dict[str, torch.Tensor]] = {}

    def gradients(recipe: Recipe) -> dict[str, torch.Tensor]:
        key = (recipe.lora_r, recipe.lora_alpha, recipe.target_modules)
        if key not in known:
            plain = recipe.model_copy(
                update={
                    "per_device_train_batch_size": 1,
                    "gradient_accumulation_steps": STEP_SAMPLES,
                    "gradient_checkpointing": False,
                }
            )
            known[key] = first_step(tiny_base, renderer.tokenizer, ballast, plain).gradients
        return known[key]

    return gradients


@pytest.mark.slow
@pytest.mark.parametrize("recomputes_every", [0, 1, 2], ids=["none", "all", "every second"])
@pytest.mark.parametrize("name", SFT_RECIPES)
def test_a_step_of_any_recipe_is_one_row_with_the_gradients_of_single_samples(
    tiny_base, renderer, ballast, as_single_samples, monkeypatch, name, recomputes_every
):
    chosen = choose_settings(
        name, load_recipe(name), tiny_base, sample_stats(ballast), machine=CARD
    ).recipe
    asked = chosen.with_values(
        precision="fp32",
        quant_type="none",
        optim="adamw_torch",
        lora_dropout=0.0,
        max_length=512,
        max_steps=1,
        gradient_accumulation_steps=STEP_SAMPLES // chosen.per_device_train_batch_size,
    )
    work = workload_of(ballast, ())
    recipe = fit_to_machine(name, asked, tiny_base, work, machine=CARD, free_bytes=MUCH)
    recipe = recipe.with_values(
        gradient_checkpointing=recomputes_every > 0,
        checkpoint_every_n_layers=max(recomputes_every, 1),
    )
    assert (recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps) == (16, 1)

    rows = collate_rows(ballast)["input_ids"]
    prefix = shared_prefix_length(ballast)
    distinct = prefix + sum(len(sample.ids) - prefix for sample in ballast)
    assert len(rows) == 1 and rows.numel() <= 1.05 * distinct
    assert distinct < 0.5 * sum(len(sample.ids) for sample in ballast)

    expected = as_single_samples(asked)
    monkeypatch.setattr("trainer.train.sft_trainer.probe_machine", lambda: CARD)
    step = first_step(tiny_base, renderer.tokenizer, ballast, recipe)
    assert step.micro_batches == 1
    difference = sum((step.gradients[name] - expected[name]).norm() ** 2 for name in expected)
    size = sum(gradient.norm() ** 2 for gradient in expected.values())
    assert (difference / size) ** 0.5 < 1e-5
