"""Types that all parts of the trainer share: the recipe, and a prompt with its reply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from personas.schemas import hyperparameters as of
from personas.schemas.base import FrozenModel

GENERAL_KIND = "general"
"""The kind of samples in a data set that are general dialogue."""


@dataclass(frozen=True)
class PromptReply:
    """The last message before a reply, without lore and the speaker's name, and the reply.

    `talk` identifies the conversation; `by_persona` is set if the persona replies.
    """

    talk: str
    message: str
    reply: str
    by_persona: bool = True


def prompt_reply_of_line(line: Mapping[str, Any]) -> PromptReply:
    """Build it from a line of a data set's file. A line that names no conversation counts as one of
    its own.
    """
    *before, reply = line["messages"]
    talk = f"{line.get('source')} {line.get('talk') or line.get('row')}"
    message = _strip_speaker(before[-1]["content"] if before else "", line.get("speakers") or ())
    return PromptReply(talk, message, reply["content"], line.get("kind") != GENERAL_KIND)


def _strip_speaker(content: str, speakers: tuple[str, ...] | list[str]) -> str:
    """Strip lore and the speaker's name from the front of a rendered message."""
    for name in speakers:
        lead = f"{name}: "
        if content.startswith(lead):
            return content.removeprefix(lead)
        lore, separator, message = content.rpartition(f"\n\n{lead}")
        if separator and lore.startswith("["):
            return message
    return content


class Recipe(FrozenModel):
    """A recipe with every value of `Hyperparameters`; the defaults apply to values that a recipe's
    file leaves out.

    `recipes/demo-cpu.toml` documents each value.
    """

    quant_type: of.QuantType = "nf4"
    double_quant: bool = True
    precision: of.Precision = "auto"
    lora_r: of.Rank
    lora_alpha: of.Alpha
    lora_dropout: of.Dropout
    target_modules: of.Modules
    use_rslora: bool = False
    use_dora: bool = False
    loraplus_lr_ratio: of.RateRatio = 0.0
    neftune_noise_alpha: of.NoiseAlpha = 0.0
    optim: of.Optimiser
    learning_rate: of.LearningRate
    lr_scheduler_type: of.Schedule
    warmup_ratio: of.WarmupRatio = 0.0
    warmup_steps: of.Steps = 0
    weight_decay: of.WeightDecay = 0.0
    max_grad_norm: of.GradNorm = 1.0
    num_train_epochs: of.Epochs
    max_steps: of.Steps = 0
    per_device_train_batch_size: of.BatchSize
    gradient_accumulation_steps: of.Accumulation
    gradient_checkpointing: bool = False
    packing: of.Packing = "auto"
    logging_steps: of.PositiveSteps = 1
    eval_strategy: of.Strategy = "epoch"
    eval_steps: of.PositiveSteps = 500
    early_stopping_patience: of.Patience = 0
    seed: of.Seed = 0
    max_length: of.SequenceLength
    rope_scaling_factor: of.RopeFactor = 1.0
    rope_scaling_type: of.RopeType = of.DEFAULT_ROPE_TYPE
    chat_template: of.TemplateChoice = "auto"
    history_turns: of.TurnCount = 8
    session_gap_minutes: of.Minutes = 30.0
    cross_session_share: of.Fraction = 0.3
    lore_share: of.Fraction = 0.3
    trained_replies: of.TrainedReplies = "all"
    reasoning: of.Reasoning = "strip"
    heldout_share: of.HeldoutShare
    general_share: of.GeneralShare = 0.0
    first_stage_epochs: of.StageEpochs = 0.0
    first_stage_learning_rate: of.LearningRate = 2e-4
    train_samples: of.SampleCount = 0
    preference_method: of.PreferenceMethod = "kto"
    preference_beta: of.PreferenceBeta = 0.1
    preference_share: of.PreferenceShare = 0.1

    @property
    def first_stage(self) -> Recipe:
        """The recipe of the first of two stages: its own epochs and learning rate, and no
        evaluation on its way.
        """
        own = {
            "num_train_epochs": self.first_stage_epochs,
            "learning_rate": self.first_stage_learning_rate,
        }
        return self.model_copy(update={**own, "max_steps": 0, "eval_strategy": "no"})

    @property
    def hyperparameters(self) -> dict[str, int | float | str]:
        """The scalar values, for the manifest."""
        return {
            key: value
            for key, value in self.model_dump().items()
            if isinstance(value, int | float | str)
        }


@dataclass(frozen=True)
class ResolvedRecipe:
    """A resolved recipe with reasons.

    `chosen` has those of the recipe `auto`, one line per setting; `notes` say what differs from the
    request.
    """

    recipe: Recipe
    chosen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def optimiser_steps(recipe: Recipe, samples: int) -> int:
    """Return the optimiser steps of a run over so many samples. `max_steps` takes precedence, as in
    transformers.
    """
    return recipe.max_steps or math.ceil(
        recipe.num_train_epochs * _steps_per_epoch(recipe, samples)
    )


def epoch_count(recipe: Recipe, samples: int) -> float:
    """Return the number of epochs of a run over so many samples."""
    if not recipe.max_steps:
        return recipe.num_train_epochs
    return recipe.max_steps / max(_steps_per_epoch(recipe, samples), 1)


def _steps_per_epoch(recipe: Recipe, samples: int) -> int:
    batches = math.ceil(samples / recipe.per_device_train_batch_size)
    return math.ceil(batches / recipe.gradient_accumulation_steps)
