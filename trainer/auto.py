"""The recipe `auto`: it looks at the machine, the base model and the samples, and says why it chose what.

It chooses in two steps. How long samples may be decides what they hold, so that follows from machine and model alone
(`for_samples`); all else waits until the samples are there (`for_run`). What the request sets itself
(`Recipe.model_fields_set`) is never changed, and the rest is chosen around it. The rules are in `trainer.auto_rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from personas.base_model import BaseModel, positions_of, read_config
from personas.prompt import Sample
from trainer.auto_rules import AUTO, Choice, Model, Replies, with_values
from trainer.frozen import Frozen
from trainer.machine import Machine, machine_guessed
from trainer.predict.shape import config_of
from trainer.recipe import Recipe

DECIDED = frozenset(
    ("max_length", "history_turns", "precision", "quant_type", "lora_r", "lora_alpha", "lora_dropout", "learning_rate",
     "optim", "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing",
     "num_train_epochs", "eval_strategy", "eval_steps", "early_stopping_patience")
)  # fmt: skip
"""What it chooses."""


@dataclass(frozen=True)
class Chosen:
    """A recipe in which nothing is left to choose, and `why` what was chosen was chosen; one line each."""

    recipe: Recipe
    why: tuple[str, ...] = ()


def for_samples(
    name: str, recipe: Recipe, base: BaseModel, begun: Frozen | None = None, machine: Machine | None = None
) -> Recipe:
    """The recipe by which samples are made: as a run that was `begun` has it. One that is not `auto` stays as it is."""
    if name != AUTO:
        return recipe
    if begun:
        return with_values(recipe, **{key: getattr(begun.recipe, key) for key in DECIDED - recipe.model_fields_set})
    choice = Choice(recipe, model_of(base), machine or machine_guessed())
    choice.of_samples()
    return choice.recipe


def for_run(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    replies: Replies,
    begun: Frozen | None = None,
    machine: Machine | None = None,
) -> Chosen:
    """The recipe for a run over these samples. What a run that was `begun` was held to is not chosen again."""
    if name != AUTO:
        return Chosen(recipe)
    if begun:
        return Chosen(recipe, begun.chosen)
    return choose(recipe, model_of(base), replies, machine or machine_guessed())


def choose(recipe: Recipe, model: Model, replies: Replies, machine: Machine) -> Chosen:
    """All that the request leaves open."""
    choice = Choice(recipe, model, machine)
    choice.of_samples()
    choice.of_run(replies)
    return Chosen(choice.recipe, tuple(choice.why))


def model_of(base: BaseModel) -> Model:
    """What a base model's folder says of it. Raises `BaseModelError`."""
    shape = config_of(base)
    return Model(shape, positions_of(base) or 0, str(read_config(base).get("model_type", "")))


def replies_in(samples: Sequence[Sample]) -> Replies:
    """Of the samples themselves."""
    longest = max((len(sample.ids) for sample in samples), default=0)
    return Replies(len(samples), longest, sum(sample.reply_tokens for sample in samples))
