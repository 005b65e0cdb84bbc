"""On-policy distillation: the student's own replies, by the divergence from the teacher at each token.

The teacher is the base model, the student's adapter switched off, under a richer prompt (OPCD,
arXiv 2602.12275; SDFT, arXiv 2601.19897).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from trl import SFTConfig

from personas.models.base_model import BaseModel
from personas.prompt.renderer import TokenizedSample
from trainer.dataset.distillation import DistillationPrompt, DistillationSet
from trainer.train.collator import causal_model, lay_out
from trainer.train.embedding_noise import sample_lengths
from trainer.train.kernels import share_dropout, verify_fused_lora
from trainer.train.reverse_kl import reply_divergences, teacher_outputs
from trainer.train.sft_trainer import (
    ReplySFTTrainer,
    TrainResult,
    add_lora_adapter,
    cast_adapter_to_float32,
    load_model_with_kernels,
    make_hf_dataset,
    run_trainer,
    training_arguments,
)
from trainer.train.trainer_base import StageInputs

SAMPLED_BATCHES = 2
"""Batches whose replies are sampled together: without gradients there is room for twice as many rows,
and each token takes little longer for them.
"""
MAX_SEED = 2**63 - 1
SEED_STRIDE = 1_000_003  # a prime: no two steps of a run and of its neighbours share a seed


def train_distillation(
    base: BaseModel, tokenizer: Any, stage: StageInputs, distillation: DistillationSet
) -> TrainResult:
    """Distil the adapter that `stage.begin` loads, from the latest checkpoint on; `stage.train` are
    `prompt_samples`. Raises the errors of `train_sft`.
    """
    make_trainer = functools.partial(
        make_distillation_trainer, base, tokenizer, stage, distillation
    )
    return run_trainer(stage, make_trainer)


def prompt_samples(distillation: DistillationSet) -> tuple[TokenizedSample, ...]:
    """Return the student's prompts as samples without a reply, which a stage counts and orders."""
    return tuple(
        TokenizedSample(prompt.student, (False,) * len(prompt.student))
        for prompt in distillation.prompts
    )


def make_distillation_trainer(
    base: BaseModel,
    tokenizer: Any,
    stage: StageInputs,
    distillation: DistillationSet,
    folder: Path,
) -> DistillationTrainer:
    """Make the trainer before its first step."""
    model, kernels = load_model_with_kernels(base, stage.recipe)
    # Replies are drawn from what is trained, not with the penalties that a model comes with.
    ends = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=ends.bos_token_id,
        eos_token_id=ends.eos_token_id,
        pad_token_id=ends.pad_token_id,
    )
    model = add_lora_adapter(model, stage.recipe)
    kernels = verify_fused_lora(model, kernels)
    trainer = DistillationTrainer(
        stage,
        kernels,
        distillation=distillation,
        model=model,
        args=SFTConfig(
            **training_arguments(stage, folder), dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=make_hf_dataset(stage.train),
        data_collator=_collate_prompts,
        processing_class=tokenizer,
    )
    cast_adapter_to_float32(model)
    if stage.begin:
        stage.begin(model)
    if model.device.type == "cpu":
        share_dropout(model)
    return trainer


def _collate_prompts(rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
    return {"prompts": [row["input_ids"] for row in rows]}


class DistillationTrainer(ReplySFTTrainer):
    """Samples the replies of an optimiser step before it, and trains on their divergence from the
    teacher.
    """

    def __init__(self, *parts: Any, distillation: DistillationSet, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._distillation = distillation
        self._taught = {prompt.student: prompt for prompt in distillation.prompts}

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Take the prompts of a step, sample a reply to each, and return the batches with the number
        of tokens in all replies.

        What is drawn depends on the recipe's seed and on the step alone, and on the weights.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        prompts = [[self._taught[tuple(ids)] for ids in batch["prompts"]] for batch in batches]
        replied: list[dict[str, Any]] = []
        tokens = 0
        for start in range(0, len(prompts), SAMPLED_BATCHES):
            together = prompts[start : start + SAMPLED_BATCHES]
            replies = iter(self._sample([prompt for batch in together for prompt in batch], start))
            for batch in together:
                own = [next(replies) for _ in batch]
                tokens += sum(map(len, own))
                replied.append(self._lay_out(batch, own))
        return replied, tokens

    def _sample(self, prompts: Sequence[DistillationPrompt], place: int) -> list[list[int]]:
        """Sample the student's reply to each prompt, up to and with its end."""
        distillation = self._distillation
        longest = max(len(prompt.student) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        attended = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt.student) :] = torch.tensor(prompt.student)
            attended[row, longest - len(prompt.student) :] = 1
        config = GenerationConfig(
            max_new_tokens=distillation.max_reply_tokens,
            do_sample=True,
            temperature=self.stage.recipe.distillation_temperature,
            top_k=0,
            eos_token_id=list(distillation.stop_ids) or None,
            pad_token_id=0,  # comes after the end
            use_cache=True,
        )
        seed = (self.stage.recipe.seed * SEED_STRIDE + self.state.global_step) * SEED_STRIDE + place
        device = self.model.device
        # The trainer computes in 16 bits where the model is called, and not in what it generates.
        with self._evaluating(), self.accelerator.autocast(), _own_random(seed, device):
            rows = causal_model(self.model).generate(
                input_ids=ids.to(device),
                attention_mask=attended.to(device),
                generation_config=config,
            )
        return [_until_end(row[longest:].tolist(), distillation.stop_ids) for row in rows]

    def _lay_out(
        self, prompts: Sequence[DistillationPrompt], replies: Sequence[list[int]]
    ) -> dict[str, Any]:
        """Return the tensors of both sides: the same replies, each after its two prompts."""
        return {
            "student": self._tensors([prompt.student for prompt in prompts], replies),
            "teacher": self._tensors([prompt.teacher for prompt in prompts], replies),
            "tokens": sum(
                len(prompt.student) + len(reply)
                for prompt, reply in zip(prompts, replies, strict=True)
            ),
        }

    def _tensors(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[list[int]]
    ) -> dict[str, Tensor]:
        samples = [
            TokenizedSample((*prompt, *reply), (False,) * len(prompt) + (True,) * len(reply))
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        kernels = self.kernels
        return lay_out(samples, kernels.layout, shares_prefix=kernels.shares_prefix)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean divergence over the tokens of the whole optimiser step, in nats."""
        in_chunks = self.kernels.chunked_loss
        with self._evaluating(), model.disable_adapter():
            teacher = teacher_outputs(model, inputs["teacher"], in_chunks)
        with self.noise.over(sample_lengths(inputs["student"])):
            divergences = reply_divergences(model, inputs["student"], teacher, in_chunks)
        self.samples_done += len(inputs["student"]["lengths"])
        self.tokens_done += inputs["tokens"]
        return divergences.sum() / num_items_in_batch

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """For a `with` block, compute without dropout, noise and gradients."""
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train()


@contextmanager
def _own_random(seed: int, device: torch.device) -> Iterator[None]:
    """For a `with` block, draw from this seed; dropout goes on drawing as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed % MAX_SEED)
        yield


def _until_end(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Return a reply up to its first token that ends it, with that one."""
    for place, token in enumerate(ids):
        if token in stop_ids:
            return ids[: place + 1]
    return ids
