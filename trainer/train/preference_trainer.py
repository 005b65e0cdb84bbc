"""KTO and DPO with TRL's trainers over an adapter, a frozen copy of it as the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as Table
from torch import Tensor
from torch.nn import functional
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference
from trl.trainer.utils import FusedCausalLMOutput

from personas.errors import RequestError, TrainingError
from personas.models.base_model import BaseModel
from trainer.dataset.preference_policy import (
    LabelledReply,
    PreferencePair,
    PreferenceSet,
    arrange_batches,
    class_weights,
    shuffle_pairs,
)
from trainer.train.collator import IGNORE_INDEX, reply_logits, with_targets
from trainer.train.kernels import verify_fused_lora
from trainer.train.sft_trainer import (
    TrainResult,
    add_lora_adapter,
    cast_adapter_to_float32,
    evaluates,
    load_model_with_kernels,
    run_trainer,
    training_arguments,
)
from trainer.train.trainer_base import StageInputs, TrainerBase

REFERENCE_ADAPTER = "ref"  # TRL's name for the frozen copy of the adapter
PADDING_TOKEN_ID = 0  # comes after the end of a row, where no token attends to it


def train_preferences(
    base: BaseModel, tokenizer: Any, stage: StageInputs, preferences: PreferenceSet
) -> TrainResult:
    """Train the adapter that `stage.begin` loads, from the latest checkpoint on.

    Raises `TrainingError` if the loss diverges, `RequestError` for several processes, and the
    errors of `stage.check`.
    """
    if stage.control.processes.is_distributed:
        raise RequestError(
            "Several processes cannot learn from preferences together.", "Start one process."
        )
    make_trainer = partial(make_preference_trainer, base, tokenizer, stage, preferences)
    trained = run_trainer(stage, make_trainer)
    trained.model.delete_adapter(REFERENCE_ADAPTER)
    return trained


def make_preference_trainer(
    base: BaseModel, tokenizer: Any, stage: StageInputs, preferences: PreferenceSet, folder: Path
) -> PreferenceTrainer:
    """Make the trainer before its first step: the adapter and its reference are equal."""
    # A batch of TRL's has a row for each reply.
    model, kernels = load_model_with_kernels(base, stage.recipe, pads=True)
    model = add_lora_adapter(model, stage.recipe)
    kernels = verify_fused_lora(model, kernels)
    make_parts = _kto_parts if preferences.method == "kto" else _dpo_parts
    trainer_class, args, table, collator = make_parts(stage, preferences, folder)
    trainer: PreferenceTrainer = trainer_class(
        stage,
        kernels,
        model=model,
        processing_class=tokenizer,
        args=args,
        train_dataset=table,
        # TRL requires one to evaluate at all; `TrainerBase` measures the stage's held-out replies.
        eval_dataset=table if evaluates(stage) else None,
        data_collator=collator(pad_token_id=PADDING_TOKEN_ID),
    )
    cast_adapter_to_float32(model)
    if stage.begin:
        stage.begin(model)
    # After `begin`: TRL copied the adapter while it was still untrained.
    _copy_adapter_to_reference(model)
    patch_reply_scoring(model.get_base_model(), shares_prefix=kernels.shares_prefix)
    return trainer


TrainerParts = tuple[type["PreferenceTrainer"], Any, Any, Callable[..., Any]]
"""Trainer class, arguments, data set and collator class."""


def _kto_parts(stage: StageInputs, preferences: PreferenceSet, folder: Path) -> TrainerParts:
    batch = stage.recipe.per_device_train_batch_size
    if batch < 2:
        lacks = "KTO needs two replies at once, and there is memory for one."
        raise TrainingError(lacks, "Set a lower max_length, or lora_r.")
    good, bad = class_weights(preferences.judged)
    arguments = _preference_arguments(stage, folder)
    args = KTOConfig(**arguments, desirable_weight=good, undesirable_weight=bad)
    arranged_batch = max(stage.length_group_batch, batch)
    order = arrange_batches(preferences.judged, arranged_batch, stage.recipe.seed)
    return ReplyKTOTrainer, args, kto_dataset(order, batch), DataCollatorForUnpairedPreference


def _dpo_parts(stage: StageInputs, preferences: PreferenceSet, folder: Path) -> TrainerParts:
    args = DPOConfig(**_preference_arguments(stage, folder))
    table = dpo_dataset(shuffle_pairs(preferences.pairs, stage.recipe.seed))
    return ReplyDPOTrainer, args, table, DataCollatorForPreference


def _preference_arguments(stage: StageInputs, folder: Path) -> dict[str, Any]:
    """Return the arguments of both methods. Held-out loss selects no checkpoint: it is not what is
    optimised.
    """
    return {
        **training_arguments(stage, folder),
        "load_best_model_at_end": False,
        "beta": stage.recipe.preference_beta,
        # The rows are in order already: batches have replies of both labels.
        "train_sampling_strategy": "sequential",
    }


def kto_dataset(order: Sequence[LabelledReply], batch: int) -> Any:
    """Make the rows of `KTOTrainer`: prompt, reply, its label, and the reply of another row of the
    batch.
    """
    prompts: list[list[int]] = []
    replies: list[list[int]] = []
    for reply in order:
        prompt_ids, reply_ids = _prompt_and_reply(reply)
        prompts.append(prompt_ids)
        replies.append(reply_ids)
    # KTO estimates the KL divergence with replies to other prompts: within each batch, every row
    # gets the reply of the row before it, as in TRL's own preparation.
    others: list[list[int]] = []
    for first in range(0, len(replies), batch):
        of_batch = replies[first : first + batch]
        others += [of_batch[-1], *of_batch[:-1]]
    return Table.from_dict(
        {
            "prompt_ids": prompts,
            "completion_ids": replies,
            "KL_completion_ids": others,
            "label": [reply.is_good for reply in order],
        }
    )


def dpo_dataset(pairs: Sequence[PreferencePair]) -> Any:
    """Make the rows of `DPOTrainer`: prompt, chosen and rejected reply."""
    rows: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for pair in pairs:
        prompt, chosen = _prompt_and_reply(pair.chosen)
        _, rejected = _prompt_and_reply(pair.rejected)
        rows["prompt_ids"].append(prompt)
        rows["chosen_ids"].append(chosen)
        rows["rejected_ids"].append(rejected)
    return Table.from_dict(rows)


def _prompt_and_reply(reply: LabelledReply) -> tuple[list[int], list[int]]:
    ids = list(reply.sample.ids)
    prompt = len(reply.sample.ids) - reply.sample.reply_tokens
    return ids[:prompt], ids[prompt:]


class PreferenceTrainer(TrainerBase):
    """Base of both preference trainers: the tables are ready, and samples and tokens are
    counted.
    """

    rows_per_sample = 1

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss: its mean over the batch, which transformers divides by the batches of a
        step.
        """
        self.samples_done += len(inputs["attention_mask"]) // self.rows_per_sample
        self.tokens_done += int(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]


class ReplyKTOTrainer(PreferenceTrainer, KTOTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Kahneman-Tversky optimisation (arXiv 2402.01306)."""


class ReplyDPOTrainer(PreferenceTrainer, DPOTrainer):  # type: ignore[misc]  # as above
    """Direct preference optimisation (arXiv 2305.18290)."""

    rows_per_sample = 2  # the chosen and the rejected reply


def _copy_adapter_to_reference(model: Any) -> None:
    """Copy the adapter's initial weights to the reference, in float32 like the adapter."""
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if f".{REFERENCE_ADAPTER}." in name:
            original = weights[name.replace(f".{REFERENCE_ADAPTER}.", ".default.")]
            weight.data = original.detach().clone()


def patch_reply_scoring(causal: Any, *, shares_prefix: bool = True) -> None:
    """Score replies by `reply_log_probabilities` in calls of TRL, which pass `fused_lm_head`."""
    forward = causal.forward

    @wraps(forward)
    def scoring(*arguments: Any, fused_lm_head: bool = False, **more: Any) -> Any:
        if not fused_lm_head:
            return forward(*arguments, **more)
        labels = more["labels"]
        log_probs = reply_log_probabilities(causal, more["input_ids"], labels, shares_prefix)
        # TRL makes metrics of these, and no loss.
        nothing = torch.zeros_like(log_probs)
        return FusedCausalLMOutput(
            log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )

    causal.forward = scoring


def reply_log_probabilities(
    causal: Any, input_ids: Tensor, labels: Tensor, shares_prefix: bool = True
) -> Tensor:
    """Return the log-probability of each labelled token in nats, [rows, length - 1], 0 where there
    is no label.

    `input_ids` and `labels` [rows, length] are padded on the right.
    """
    labelled = labels != IGNORE_INDEX
    shared = _shared_prefix(input_ids, labelled) if shares_prefix else 0
    batch = {
        "prefix_ids": input_ids[:1, :shared],
        "input_ids": input_ids[:, shared:],
        **with_targets(labels[:, shared:]),
    }
    logits, targets = reply_logits(causal, batch)
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    places = labelled[:, 1:]
    return losses.new_zeros(places.shape).masked_scatter(places, -losses)


def _shared_prefix(input_ids: Tensor, labelled: Tensor) -> int:
    """Count the tokens that all rows share at the start, without a prompt's last, which predicts
    the reply.
    """
    alike = (input_ids == input_ids[:1]).all(dim=0).long().cumprod(dim=0).sum()
    shortest_prompt = labelled.long().argmax(dim=1).min()
    return int(torch.minimum(alike, shortest_prompt - 1).clamp(min=0))
