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
from trainer.data.preference_policy import (
    LabelledReply,
    PreferencePair,
    PreferenceSet,
    arrange_batches,
    class_weights,
    shuffle_pairs,
)
from trainer.train.collator import IGNORE_INDEX, reply_logits
from trainer.train.sft_trainer import (
    TrainResult,
    add_lora_adapter,
    cast_adapter_to_float32,
    load_model_with_kernels,
    run_trainer,
    training_arguments,
)
from trainer.train.trainer_base import StageInputs, TrainerBase

REFERENCE_ADAPTER = "ref"
"""TRL's name for the frozen copy of the adapter."""
PADDING_TOKEN_ID = 0
"""Stands behind the end of a row, where no token sees it."""


def train_preferences(base: BaseModel, tokenizer: Any, course: StageInputs, preferences: PreferenceSet) -> TrainResult:
    """Let the adapter that `course.begin` puts into the model go on learning, from the latest checkpoint on.

    Raises `TrainingError` when the loss diverges, `RequestError` for several processes, and whatever `course.check`
    raises.
    """
    if course.processes.is_distributed:
        raise RequestError("Several processes cannot learn from preferences together.", "Start one process.")
    trained = run_trainer(course, partial(make_preference_trainer, base, tokenizer, course, preferences))
    trained.model.delete_adapter(REFERENCE_ADAPTER)
    return trained


def make_preference_trainer(
    base: BaseModel, tokenizer: Any, course: StageInputs, preferences: PreferenceSet, folder: Path
) -> PreferenceTrainer:
    """The trainer, as it is before the first step: the adapter and its reference are the same."""
    recipe = course.recipe.model_copy(update={"packing": "off"})
    model, kernels = load_model_with_kernels(base, recipe)
    model = add_lora_adapter(model, recipe)
    of: dict[str, Any] = {"model": model, "processing_class": tokenizer}
    made = (_kto_factory if preferences.method == "kto" else _dpo_factory)(course, preferences, folder)
    trainer: PreferenceTrainer = made(course, kernels, **of)
    cast_adapter_to_float32(model)
    if course.begin:
        course.begin(model)
    _copy_adapter_to_reference(model)
    patch_reply_scoring(model.get_base_model())
    return trainer


def _kto_factory(course: StageInputs, preferences: PreferenceSet, folder: Path) -> Callable[..., PreferenceTrainer]:
    batch = course.recipe.per_device_train_batch_size
    if batch < 2:
        raise TrainingError(
            "KTO needs two replies at once, and there is memory for one.", "Set a lower max_length, or lora_r."
        )
    good, bad = class_weights(preferences.judged)
    args = KTOConfig(
        **_preference_arguments(course, folder),
        beta=course.recipe.preference_beta,
        desirable_weight=good,
        undesirable_weight=bad,
        train_sampling_strategy="sequential",
    )
    order = arrange_batches(preferences.judged, max(course.length_group_batch, batch), course.recipe.seed)
    table = kto_dataset(order, batch)
    return partial(
        ReplyKTOTrainer,
        args=args,
        train_dataset=table,
        eval_dataset=_eval_dataset(table, course),
        data_collator=DataCollatorForUnpairedPreference(pad_token_id=PADDING_TOKEN_ID),
    )


def _dpo_factory(course: StageInputs, preferences: PreferenceSet, folder: Path) -> Callable[..., PreferenceTrainer]:
    args = DPOConfig(
        **_preference_arguments(course, folder),
        beta=course.recipe.preference_beta,
        train_sampling_strategy="sequential",
    )
    table = dpo_dataset(shuffle_pairs(preferences.pairs, course.recipe.seed))
    return partial(
        ReplyDPOTrainer,
        args=args,
        train_dataset=table,
        eval_dataset=_eval_dataset(table, course),
        data_collator=DataCollatorForPreference(pad_token_id=PADDING_TOKEN_ID),
    )


def _preference_arguments(course: StageInputs, folder: Path) -> dict[str, Any]:
    """Held-out replies are measured where the recipe says so, but choose nothing: they are not what is learned here."""
    return {**training_arguments(course, folder), "load_best_model_at_end": False}


def _eval_dataset(table: Any, course: StageInputs) -> Any:
    """TRL wants some table where there is measuring on the way; what is measured is the course's held-out replies."""
    return table if course.heldout and course.recipe.eval_strategy != "no" else None


def kto_dataset(order: Sequence[LabelledReply], batch: int) -> Any:
    """The rows of `KTOTrainer`: prompt, reply, whether it is good, and the reply of another row of its batch."""
    rows = [_prompt_and_reply(one) for one in order]
    batches = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    others = [row for together in batches for row in (together[-1], *together[:-1])]
    return Table.from_dict(
        {
            "prompt_ids": [prompt for prompt, _ in rows],
            "completion_ids": [reply for _, reply in rows],
            "KL_completion_ids": [reply for _, reply in others],
            "label": [one.is_good for one in order],
        }
    )


def dpo_dataset(pairs: Sequence[PreferencePair]) -> Any:
    """The rows of `DPOTrainer`: prompt, chosen and rejected reply."""
    return Table.from_dict(
        {
            "prompt_ids": [_prompt_and_reply(pair.chosen)[0] for pair in pairs],
            "chosen_ids": [_prompt_and_reply(pair.chosen)[1] for pair in pairs],
            "rejected_ids": [_prompt_and_reply(pair.rejected)[1] for pair in pairs],
        }
    )


def _prompt_and_reply(one: LabelledReply) -> tuple[list[int], list[int]]:
    """Prompt and reply."""
    prompt = len(one.sample.ids) - one.sample.reply_tokens
    return list(one.sample.ids[:prompt]), list(one.sample.ids[prompt:])


class PreferenceTrainer(TrainerBase):
    """Base of both preference trainers: the tables are ready, and tokens are counted."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss: its mean over the batch, which transformers divides by the batches of a step."""
        self.tokens_done += int(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]


class ReplyKTOTrainer(PreferenceTrainer, KTOTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Kahneman-Tversky optimisation (arXiv 2402.01306)."""


class ReplyDPOTrainer(PreferenceTrainer, DPOTrainer):  # type: ignore[misc]  # as above
    """Direct preference optimisation (arXiv 2305.18290)."""


def _copy_adapter_to_reference(model: Any) -> None:
    """The reference is what training begins from, in float32 as the adapter is."""
    weights_of = dict(model.named_parameters())
    for name, weight in weights_of.items():
        if f".{REFERENCE_ADAPTER}." in name:
            start = weights_of[name.replace(f".{REFERENCE_ADAPTER}.", ".default.")]
            weight.data = start.detach().clone()


def patch_reply_scoring(causal: Any) -> None:
    """Scores replies by `reply_log_probabilities` when TRL asks for it, marked by `fused_lm_head`."""
    forward = causal.forward

    @wraps(forward)
    def scoring(*arguments: Any, fused_lm_head: bool = False, **more: Any) -> Any:
        if not fused_lm_head:
            return forward(*arguments, **more)
        log_probs = reply_log_probabilities(causal, more["input_ids"], more["labels"])
        nothing = torch.zeros_like(log_probs)
        return FusedCausalLMOutput(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    causal.forward = scoring


def reply_log_probabilities(causal: Any, input_ids: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of each labelled token in nats, [rows, length - 1], 0 where there is no label.

    `input_ids` and `labels` [rows, length] are padded on the right.
    """
    labelled = labels != IGNORE_INDEX
    shared = _shared_prefix(input_ids, labelled)
    batch = {"prefix_ids": input_ids[:1, :shared], "input_ids": input_ids[:, shared:], "labels": labels[:, shared:]}
    logits, targets = reply_logits(causal, batch)
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    places = labelled[:, 1:]
    return losses.new_zeros(places.shape).masked_scatter(places, -losses)


def _shared_prefix(input_ids: Tensor, labelled: Tensor) -> int:
    """Returns the number of tokens that all rows share at the start, without each prompt's last, which predicts the
    reply's first."""
    alike = (input_ids == input_ids[:1]).all(dim=0).long().cumprod(dim=0).sum()
    shortest_prompt = labelled.long().argmax(dim=1).min()
    return int(torch.minimum(alike, shortest_prompt - 1).clamp(min=0))
