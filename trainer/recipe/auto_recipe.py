"""Chooses the recipe `auto`: settings that follow from machine, base model and samples, with
reasons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from typing import Any

from personas.models.base_model import BaseModel, max_positions, read_config
from personas.prompt.renderer import TokenizedSample
from personas.schemas.formatting import count_of, format_gib
from personas.schemas.hyperparameters import MAX_ACCUMULATION_STEPS
from trainer.estimate.memory_model import adapter_parameter_count, predict_memory
from trainer.estimate.model_shape import ModelShape, model_shape_of
from trainer.machine import MachineSpec, probe_machine_without_torch
from trainer.schemas import Recipe, ResolvedRecipe, format_setting

AUTO_RECIPE = "auto"
MAX_MAIN_MEMORY_SHARE = 0.7
MAX_GPU_MEMORY_SHARE = 0.9
MAX_FREE_MEMORY_SHARE = 0.9
"""Shares of memory that a run may plan to use; other programs need main memory more than a
GPU's.
"""
CANDIDATE_LENGTHS = (2048, 1024, 640, 512, 384, 256)
MAX_CPU_LENGTH = 1024
MIN_FULL_HISTORY_LENGTH = 512
MAX_16BIT_WEIGHT_SHARE = 0.4
"""16-bit weights may take so much of the memory before they are held in 4 bits."""
MAX_CPU_BATCH = 4
"""Batches of short samples are merged later (`trainer.recipe.machine_fit`)."""
MAX_GPU_BATCH = 16
"""Some thousand tokens fill a GPU."""
GPU_OPTIMISERS = ("adamw_torch_fused", "paged_adamw_8bit")
"""The faster one, and the one that takes no memory of a GPU that is full."""
SAMPLES_PER_STEP = ((100, 4), (2_000, 8), (20_000, 16), (math.inf, 32))
"""Samples per optimiser step, by number of samples: with large batches LoRA learns worse (Schulman
et al., LoRA Without Regret, 2025); the published recipes take 16 for 9,000 to 30,000.
"""
MIN_EPOCHS = ((2_000, 3), (20_000, 2), (math.inf, 1))
TARGET_STEPS = 60
MAX_EPOCHS = 8
BITS_PER_WEIGHT = 2
"""Capacity of an adapter weight (LoRA Without Regret)."""
BITS_PER_TOKEN = 1
"""Demand of a token of text (as above)."""
MAX_RANK = 64
ALPHA = 32
REFERENCE_LEARNING_RATE = 5e-4
REFERENCE_WIDTH = 2000
WIDTH_EXPONENTS = {"qwen": 0.0775}
DEFAULT_WIDTH_EXPONENT = 0.781
"""Best rates over many models (Thinking Machines, tinker-cookbook): 5e-4 · (2000 / width) ^
exponent, at α = 32.
"""
MAX_AUTO_LEARNING_RATE = 1e-3
"""Chosen on held-out dialogues for the narrowest model that was tried, of width 576."""
NO_DROPOUT_SAMPLES = 10_000
EVALUATIONS_PER_EPOCH = 4
AUTO_SETTINGS = frozenset(
    ("max_length", "history_turns", "precision", "quant_type", "lora_r", "lora_alpha", "lora_dropout", "learning_rate",
     "optim", "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing",
     "num_train_epochs", "eval_strategy", "eval_steps", "early_stopping_patience")
)  # fmt: skip
"""Settings that the automatic recipe chooses."""


@dataclass(frozen=True)
class SampleStats:
    """Training samples: their number, the tokens of the longest, and the tokens with loss in all of
    them.
    """

    samples: int
    longest: int
    trained_tokens: int


@dataclass(frozen=True)
class ModelTraits:
    """A base model: its sizes, its context length in tokens (0 if unknown), its kind."""

    shape: ModelShape
    context: int
    kind: str


class RecipeChooser:
    """Chooses a recipe step by step; `why` collects the reasons."""

    def __init__(self, recipe: Recipe, model: ModelTraits, machine: MachineSpec) -> None:
        self.recipe = recipe
        self.why: list[str] = []
        self._given = recipe.model_fields_set
        self._model = model
        self._machine = machine
        share = MAX_GPU_MEMORY_SHARE if machine.has_cuda else MAX_MAIN_MEMORY_SHARE
        free_bytes = machine.free_bytes or machine.memory_bytes
        self._share = machine.memory_bytes * share
        self._room = min(self._share, free_bytes * MAX_FREE_MEMORY_SHARE)

    def choose_data_settings(self, made_length: int = 0) -> None:
        """Choose the maximum length and history of samples; free memory has no influence, so they
        stay the same. Samples that are made already may have a longer `made_length`.
        """
        bound = "the model sets no bound"
        longest = CANDIDATE_LENGTHS[0]
        if self._model.context:
            bound = f"the model attends to {self._model.context:,}"
            longest = self._model.context
        if not self._machine.has_cuda:
            longest = min(longest, MAX_CPU_LENGTH)
        lengths = [length for length in CANDIDATE_LENGTHS if length <= longest] or [longest]
        # The lightest run decides: a longer sample is worth a smaller batch.
        lightest = {
            "per_device_train_batch_size": 1,
            "gradient_checkpointing": True,
            "quant_type": "nf4" if self._machine.has_cuda else "none",
        }
        fit = "nothing"
        length = lengths[-1]
        for candidate in lengths:
            if self._memory(candidate, **lightest) <= self._share:
                fit = "one such sample"
                length = candidate
                break
        why = f"{bound}, and {fit} fits into {format_gib(self._share)}"
        if made_length > length:
            why = "the persona's card is long"
            length = made_length
        self._take(why, max_length=length)
        turns = 8 if self.recipe.max_length >= MIN_FULL_HISTORY_LENGTH else 4
        self._take(
            f"as much of the talk as {self.recipe.max_length} tokens have room for",
            history_turns=turns,
        )

    def choose_run_settings(self, replies: SampleStats) -> None:
        """Choose all other settings."""
        where = self._machine.device if self._machine.has_cuda else "this processor"
        self._take(f"what {where} multiplies fastest in", precision=self._machine.best)
        self._quantisation()
        self._rank(replies)
        self._rate()
        self._batches(replies)
        self._optimiser(replies)
        self._epochs(replies)

    def _quantisation(self) -> None:
        takes = self._model.shape.weights * 2  # bytes of 16-bit weights
        weights = f"{format_gib(takes)} of weights"
        room = format_gib(self._room)
        if not self._machine.has_cuda:
            why = "on a CPU 4-bit weights are unpacked before training and would save nothing"
            self._take(why, quant_type="none")
        elif takes <= MAX_16BIT_WEIGHT_SHARE * self._room:
            self._take(f"{weights} leave room enough of {room}", quant_type="none")
        else:
            self._take(f"{weights} would take too much of {room}", quant_type="nf4")

    def _rank(self, replies: SampleStats) -> None:
        rank = self.recipe.lora_r
        bits = replies.trained_tokens * BITS_PER_TOKEN
        while rank < MAX_RANK and self._capacity(rank) < bits:
            rank *= 2
        millions = self._capacity(rank) / BITS_PER_WEIGHT / 1e6
        why = (
            f"{millions:.1f} M weights hold what {replies.trained_tokens:,} tokens of replies teach"
        )
        self._take(why, lora_r=rank)
        self._take("the best learning rate then hardly depends on the rank", lora_alpha=ALPHA)
        if replies.samples >= NO_DROPOUT_SAMPLES:
            self._take(f"{replies.samples:,} samples are not learned by heart", lora_dropout=0.0)

    def _capacity(self, rank: int) -> int:
        """Return the capacity of an adapter in bits."""
        recipe = self.recipe.model_copy(update={"lora_r": rank})
        return BITS_PER_WEIGHT * adapter_parameter_count(recipe, self._model.shape)

    def _rate(self) -> None:
        width = self._model.shape.width
        exponent = DEFAULT_WIDTH_EXPONENT
        for kind, known in WIDTH_EXPONENTS.items():
            if self._model.kind.startswith(kind):
                exponent = known
        rate = float(f"{REFERENCE_LEARNING_RATE * (REFERENCE_WIDTH / width) ** exponent:.2g}")
        why = f"{REFERENCE_LEARNING_RATE:g} · ({REFERENCE_WIDTH} / width {width}) ^ {exponent:g}"
        if rate > MAX_AUTO_LEARNING_RATE:
            rate = MAX_AUTO_LEARNING_RATE
            why = f"the highest rate that worked well; {why} would be more"
        self._take(why, learning_rate=rate)

    def _optimiser(self, replies: SampleStats) -> None:
        """Choose the optimiser. On a GPU the batch comes first, and what it leaves decides."""
        fused, paged = GPU_OPTIMISERS
        has_room = self._memory(replies.longest, optim=fused) <= self._room
        if has_room or not self._machine.has_cuda:
            self._take("there is memory for its whole state", optim=fused)
        else:
            self._take(
                "memory is short: its state takes 8 bits, and may leave the GPU", optim=paged
            )

    def _batches(self, replies: SampleStats) -> None:
        """Choose the largest batch that fits, preferably without gradient checkpointing.

        On a GPU batches come first: it computes a larger one in little more time.
        """
        per_step = _by_size(SAMPLES_PER_STEP, replies.samples)
        most = MAX_GPU_BATCH if self._machine.has_cuda else MAX_CPU_BATCH
        most = min(most, per_step, replies.samples or 1)
        # The request's accumulation stays, and with it the number of samples in a step.
        if "gradient_accumulation_steps" in self._given:
            most = min(most, max(1, per_step // self.recipe.gradient_accumulation_steps))
        batches = self._open("per_device_train_batch_size", _powers_of_two(most))
        choices = list(product(self._open("gradient_checkpointing", (False, True)), batches))
        if self._machine.has_cuda:
            choices.sort(key=itemgetter(1), reverse=True)
        for checkpointing, batch in choices:
            changes = {
                "gradient_checkpointing": checkpointing,
                "per_device_train_batch_size": batch,
            }
            if self._memory_of_batch(replies, changes) <= self._room:
                return self._take_batch(replies, per_step, changes, "fit into")
        return self._take_batch(replies, per_step, changes, "is the least, and takes")

    def _memory_of_batch(self, replies: SampleStats, changes: dict[str, Any]) -> int:
        """Return the least bytes of a batch: on a GPU, with the optimiser that takes fewest."""
        if self._machine.has_cuda:
            changes = {**changes, "optim": GPU_OPTIMISERS[-1]}
        return self._memory(replies.longest, **changes)

    def _take_batch(
        self, replies: SampleStats, per_step: int, changes: dict[str, Any], fit: str
    ) -> None:
        if changes["gradient_checkpointing"]:
            why = "batches would not fit otherwise"
        else:
            why = "there is memory to keep what is computed"
        self._take(why, gradient_checkpointing=changes["gradient_checkpointing"])
        batch = changes["per_device_train_batch_size"]
        steps = min(math.ceil(per_step / batch), MAX_ACCUMULATION_STEPS)
        needs = self._memory_of_batch(replies, changes)
        self._take(
            f"{count_of(batch, 'sample')} of {replies.longest} tokens {fit} "
            f"{needs / 2**30:.1f} of {format_gib(self._room)}",
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
        )

    def _epochs(self, replies: SampleStats) -> None:
        per_step = self.recipe.per_device_train_batch_size * self.recipe.gradient_accumulation_steps
        epoch_steps = max(1, math.ceil(replies.samples / per_step))
        if self.recipe.max_steps:
            epochs = math.ceil(self.recipe.max_steps / epoch_steps)
        else:
            least = _by_size(MIN_EPOCHS, replies.samples)
            epochs = min(MAX_EPOCHS, max(least, math.ceil(TARGET_STEPS / epoch_steps)))
            why = f"{replies.samples:,} samples are {epoch_steps:,} steps an epoch"
            self._take(why, num_train_epochs=float(epochs))
            epochs = math.ceil(self.recipe.num_train_epochs)
        if epochs > 1:
            self._take(
                "ends the run once held-out replies become no likelier",
                eval_strategy="epoch",
                early_stopping_patience=1 if epochs <= 3 else 2,
            )
        else:
            self._take(
                "within the only epoch",
                eval_strategy="steps",
                eval_steps=max(1, epoch_steps // EVALUATIONS_PER_EPOCH),
                early_stopping_patience=2,
            )

    def _open(self, name: str, choices: Sequence[Any]) -> Sequence[Any]:
        """Return the values to choose from for a setting: the request's alone, or these."""
        if name in self._given:
            return (getattr(self.recipe, name),)
        return choices

    def _take(self, why: str, **values: Any) -> None:
        """Set those of the values that the request leaves open, and record the reason."""
        mine = {name: value for name, value in values.items() if name not in self._given}
        if mine:
            self.recipe = self.recipe.with_values(**mine)
            chosen = ", ".join(f"{name} {format_setting(value)}" for name, value in mine.items())
            self.why.append(f"chosen {chosen}: {why}.")

    def _memory(self, longest: int, **changes: Any) -> int:
        changed = {name: value for name, value in changes.items() if name not in self._given}
        recipe = self.recipe.model_copy(update=changed)
        return predict_memory(recipe, self._model.shape, longest, self._machine).total


def _by_size(table: Sequence[tuple[float, int]], size: int) -> int:
    return next(value for below, value in table if size < below)


def _powers_of_two(most: int) -> list[int]:
    """Return the powers of two from `most` down to 1."""
    return [2**power for power in range(most.bit_length() - 1, -1, -1)]


def choose_sample_settings(
    name: str, recipe: Recipe, base: BaseModel, machine: MachineSpec | None = None
) -> Recipe:
    """Choose the settings that the recipe `auto` leaves open and that shape samples; another recipe
    stays the same.
    """
    if name != AUTO_RECIPE:
        return recipe
    choice = RecipeChooser(recipe, model_traits(base), machine or probe_machine_without_torch())
    choice.choose_data_settings()
    return choice.recipe


def choose_settings(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    replies: SampleStats,
    machine: MachineSpec | None = None,
    made_length: int = 0,
) -> ResolvedRecipe:
    """Choose all settings that the recipe `auto` leaves open; another recipe stays the same.
    `made_length`: see `RecipeChooser.choose_data_settings`.
    """
    if name != AUTO_RECIPE:
        return ResolvedRecipe(recipe)
    machine = machine or probe_machine_without_torch()
    return choose_recipe(recipe, model_traits(base), replies, machine, made_length=made_length)


def choose_recipe(
    recipe: Recipe,
    model: ModelTraits,
    replies: SampleStats,
    machine: MachineSpec,
    made_length: int = 0,
) -> ResolvedRecipe:
    """Choose all settings that the request leaves open."""
    choice = RecipeChooser(recipe, model, machine)
    choice.choose_data_settings(made_length)
    choice.choose_run_settings(replies)
    return ResolvedRecipe(choice.recipe, tuple(choice.why))


def model_traits(base: BaseModel) -> ModelTraits:
    """Read a base model's traits from its folder. Raises `BaseModelError`."""
    return ModelTraits(
        shape=model_shape_of(base),
        context=max_positions(base) or 0,
        kind=str(read_config(base).get("model_type", "")),
    )


def sample_stats(samples: Sequence[TokenizedSample]) -> SampleStats:
    """Count samples, their longest length, and their tokens with loss."""
    return SampleStats(
        samples=len(samples),
        longest=max((len(sample.ids) for sample in samples), default=0),
        trained_tokens=sum(sample.reply_tokens for sample in samples),
    )
