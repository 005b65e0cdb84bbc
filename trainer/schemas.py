"""Types that all parts of the trainer share: the recipe, and a prompt with its reply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from personas.schemas.hyperparameters import RecipeSettings

ALL_LINEAR = "all-linear"
"""Value of `target_modules` for every linear layer of the decoder's blocks, named as in peft."""
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
    its own. The message of a line without `message`, as older data sets have them, is its last
    message as it was rendered.
    """
    *before, reply = line["messages"]
    talk = f"{line.get('source')} {line.get('talk') or line.get('row')}"
    message = line.get("message")
    if message is None:
        message = before[-1]["content"] if before else ""
    return PromptReply(talk, message, reply["content"], line.get("kind") != GENERAL_KIND)


class Recipe(RecipeSettings):
    """A recipe: a value for every setting, and with `gradient_checkpointing` for 1 in how many
    layers is recomputed, which the machine decides.
    """

    checkpoint_every_n_layers: int = 1

    @property
    def recomputes_all(self) -> bool:
        """Tell whether no layer's activations are kept for the backward pass."""
        return self.gradient_checkpointing and self.checkpoint_every_n_layers == 1

    def with_values(self, **values: Any) -> Recipe:
        """Return the recipe with other values, which do not count as set by the request
        (`model_fields_set`).
        """
        return Recipe.model_construct(_fields_set=self.model_fields_set, **{**dict(self), **values})

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
        values = self.model_dump()
        return {
            name: value for name, value in values.items() if isinstance(value, int | float | str)
        }


@dataclass(frozen=True)
class ResolvedRecipe:
    """A resolved recipe with reasons.

    `chosen` has those of the recipe `auto`, one line per setting; `notes` say what differs from the
    request. `order_batch` is the batch size by which samples are ordered, where merged batches keep
    the order of the recipe's own; 0 for the recipe's.
    """

    recipe: Recipe
    chosen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    order_batch: int = 0


def format_setting(value: Any) -> str:
    """Format a setting's value as in `--set`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def optimiser_steps(recipe: Recipe, samples: int) -> int:
    """Return the optimiser steps of a run over so many samples. `max_steps` takes precedence, as in
    transformers.
    """
    if recipe.max_steps:
        return recipe.max_steps
    return math.ceil(recipe.num_train_epochs * _steps_per_epoch(recipe, samples))


def epoch_count(recipe: Recipe, samples: int) -> float:
    """Return the number of epochs of a run over so many samples."""
    if not recipe.max_steps:
        return recipe.num_train_epochs
    return recipe.max_steps / max(_steps_per_epoch(recipe, samples), 1)


def _steps_per_epoch(recipe: Recipe, samples: int) -> int:
    batches = math.ceil(samples / recipe.per_device_train_batch_size)
    return math.ceil(batches / recipe.gradient_accumulation_steps)
