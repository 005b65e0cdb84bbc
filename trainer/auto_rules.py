"""The rules of the recipe `auto`: what follows from a machine, a base model and samples, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from personas.hyperparameters import Hyperparameters
from trainer.machine import Machine
from trainer.predict.memory import adapter_weights, predicted_memory
from trainer.predict.shape import Shape
from trainer.recipe import Recipe

AUTO = "auto"

SHARE_OF_MAIN_MEMORY, SHARE_OF_GPU, SHARE_OF_FREE = 0.7, 0.9, 0.9
"""What a run may plan to take: other programs live in main memory, few in a GPU's."""

LENGTHS, CPU_LONGEST, FULL_HISTORY = (2048, 1024, 640, 512, 384, 256), 1024, 512
WHOLE_WEIGHTS = 0.4
"""16-bit weights may take so much of the memory before they are held in 4 bits."""

CPU_BATCH, GPU_BATCH, LEAST_GPU_BATCH = 4, 16, 2
"""More samples at once are no faster: measured on two cores (demo-cpu); on a GPU some thousand tokens fill it. Rather
than go below the least, a GPU computes activations twice."""

STEP_SAMPLES = ((100, 4), (2_000, 8), (20_000, 16), (math.inf, 32))
"""Samples an optimiser step, by how many there are: with large batches LoRA learns worse (Schulman et al., LoRA Without
Regret, 2025); the published recipes take 16 for 9,000 to 30,000."""

FEWEST_EPOCHS = ((2_000, 3), (20_000, 2), (math.inf, 1))
WANTED_STEPS, MOST_EPOCHS = 60, 8

BITS_A_WEIGHT, BITS_A_TOKEN = 2, 1
"""What an adapter's weight can hold, and what a token of text asks of it (LoRA Without Regret)."""

MOST_RANK, ALPHA = 64, 32
RATE, RATE_WIDTH, EXPONENTS, OTHER_EXPONENT = 5e-4, 2000, {"qwen": 0.0775}, 0.781
"""Best rates over many models (Thinking Machines, tinker-cookbook): 5e-4 · (2000 / width) ^ exponent, at α = 32."""
HIGHEST_RATE = 1e-3
"""Chosen on held-out dialogues for the narrowest model that was tried, of width 576."""

MANY_SAMPLES, OFTEN = 10_000, 4


@dataclass(frozen=True)
class Replies:
    """The samples to train on: how many, tokens of the longest, and tokens that carry loss in all of them."""

    samples: int
    longest: int
    trained_tokens: int


@dataclass(frozen=True)
class Model:
    """A base model: its sizes, the tokens that it attends to at most (0 where it does not say), its kind."""

    shape: Shape
    context: int
    kind: str


class Choice:
    """The recipe while it is being chosen."""

    def __init__(self, recipe: Recipe, model: Model, machine: Machine) -> None:
        self.recipe, self.why = recipe, list[str]()
        self._given, self._model, self._machine = recipe.model_fields_set, model, machine
        self._share = machine.memory_bytes * (SHARE_OF_GPU if machine.has_cuda else SHARE_OF_MAIN_MEMORY)
        self._room = min(self._share, (machine.free_bytes or machine.memory_bytes) * SHARE_OF_FREE)

    def of_samples(self) -> None:
        """How long samples may be, with how much history: whatever is free at the moment, the same on this machine."""
        longest = self._model.context or LENGTHS[0]
        longest = longest if self._machine.has_cuda else min(longest, CPU_LONGEST)
        lengths = [length for length in LENGTHS if length <= longest] or [longest]
        one = {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "quant_type": self._lightest()}
        fitting = [length for length in lengths if self._memory(length, **one) <= self._share]
        within = f"the model attends to {self._model.context:,}" if self._model.context else "the model sets no bound"
        fit = f"one such sample fits into {_gib(self._share)}" if fitting else f"nothing fits into {_gib(self._share)}"
        self._take(f"{within}, and {fit}", max_length=(fitting or lengths[-1:])[0])
        turns = 8 if self.recipe.max_length >= FULL_HISTORY else 4
        self._take(f"as much of the talk as {self.recipe.max_length} tokens have room for", history_turns=turns)

    def of_run(self, replies: Replies) -> None:
        """All else."""
        self._precision()
        self._quantisation()
        self._rank(replies)
        self._rate()
        self._optimiser()
        samples = _by_size(STEP_SAMPLES, replies.samples)
        self._batches(replies, samples)
        self._epochs(replies, self.recipe.per_device_train_batch_size * self.recipe.gradient_accumulation_steps)

    def _precision(self) -> None:
        where = self._machine.device if self._machine.has_cuda else "this processor"
        self._take(f"what {where} multiplies fastest in", precision=self._machine.best)

    def _lightest(self) -> str:
        return "nf4" if self._machine.has_cuda else "none"

    def _quantisation(self) -> None:
        takes = self._model.shape.weights * 2
        if not self._machine.has_cuda:
            why = "on a CPU 4-bit weights are unpacked before training and would save nothing"
            self._take(why, quant_type="none")
        elif takes <= WHOLE_WEIGHTS * self._room:
            self._take(f"{_gib(takes)} of weights leave room enough of {_gib(self._room)}", quant_type="none")
        else:
            self._take(f"{_gib(takes)} of weights would take too much of {_gib(self._room)}", quant_type="nf4")

    def _rank(self, replies: Replies) -> None:
        rank, bits = self.recipe.lora_r, replies.trained_tokens * BITS_A_TOKEN
        while rank < MOST_RANK and self._capacity(rank) < bits:
            rank *= 2
        millions = self._capacity(rank) / BITS_A_WEIGHT / 1e6
        why = f"{millions:.1f} M weights hold what {replies.trained_tokens:,} tokens of replies teach"
        self._take(why, lora_r=rank)
        self._take("the best learning rate then hardly depends on the rank", lora_alpha=ALPHA)
        if replies.samples >= MANY_SAMPLES:
            self._take(f"{replies.samples:,} samples are not learned by heart", lora_dropout=0.0)

    def _capacity(self, rank: int) -> int:
        """Bits."""
        return BITS_A_WEIGHT * adapter_weights(self.recipe.model_copy(update={"lora_r": rank}), self._model.shape)

    def _rate(self) -> None:
        width = self._model.shape.width
        exponent = next((it for kind, it in EXPONENTS.items() if self._model.kind.startswith(kind)), OTHER_EXPONENT)
        rate = float(f"{RATE * (RATE_WIDTH / width) ** exponent:.2g}")
        why = f"{RATE:g} · ({RATE_WIDTH} / width {width}) ^ {exponent:g}"
        if rate > HIGHEST_RATE:
            rate, why = HIGHEST_RATE, f"the most that was found good; {why} would be more"
        self._take(why, learning_rate=rate)

    def _optimiser(self) -> None:
        if self._machine.has_cuda and self.recipe.quant_type != "none":
            self._take("memory is short: its state takes 8 bits, and may leave the GPU", optim="paged_adamw_8bit")
        else:
            self._take("there is memory for its whole state", optim="adamw_torch_fused")

    def _batches(self, replies: Replies, samples: int) -> None:
        """The largest batch that fits, better without computing activations twice than with."""
        most = min(samples, GPU_BATCH if self._machine.has_cuda else CPU_BATCH, replies.samples or 1)
        if "gradient_accumulation_steps" in self._given:
            most = min(most, max(1, samples // self.recipe.gradient_accumulation_steps))
        for checkpointing in self._open("gradient_checkpointing", (False, True)):
            least = LEAST_GPU_BATCH if self._machine.has_cuda and not checkpointing else 1
            for batch in self._open("per_device_train_batch_size", _halves(most, least)):
                changes = {"gradient_checkpointing": checkpointing, "per_device_train_batch_size": batch}
                if self._fits(replies.longest, **changes):
                    return self._take_batch(replies, samples, changes, "fit into")
        return self._take_batch(replies, samples, changes, "is the least, and takes")

    def _take_batch(self, replies: Replies, samples: int, changes: dict[str, Any], fit: str) -> None:
        batch, checkpointing = changes["per_device_train_batch_size"], changes["gradient_checkpointing"]
        accumulation = min(math.ceil(samples / batch), _highest("gradient_accumulation_steps"))
        needs, counted = self._memory(replies.longest, **changes), "1 sample" if batch == 1 else f"{batch} samples"
        twice = "batches would not fit otherwise" if checkpointing else "there is memory to keep what is computed"
        held = f"{counted} of {replies.longest} tokens {fit} {needs / 2**30:.1f} of {_gib(self._room)}"
        self._take(twice, gradient_checkpointing=checkpointing)
        self._take(held, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)

    def _epochs(self, replies: Replies, samples: int) -> None:
        a_pass = max(1, math.ceil(replies.samples / samples))
        least = _by_size(FEWEST_EPOCHS, replies.samples)
        epochs = min(MOST_EPOCHS, max(least, math.ceil(WANTED_STEPS / a_pass)))
        if self.recipe.max_steps:
            epochs = math.ceil(self.recipe.max_steps / a_pass)
        else:
            self._take(f"{replies.samples:,} samples are {a_pass:,} steps an epoch", num_train_epochs=float(epochs))
            epochs = math.ceil(self.recipe.num_train_epochs)
        if epochs > 1:
            patience = 1 if epochs <= 3 else 2
            why = "ends the run once held-out replies become no likelier"
            self._take(why, eval_strategy="epoch", early_stopping_patience=patience)
        else:
            every = max(1, a_pass // OFTEN)
            self._take("within the only epoch", eval_strategy="steps", eval_steps=every, early_stopping_patience=2)

    def _open(self, name: str, choices: Sequence[Any]) -> Sequence[Any]:
        """What a setting may be: as it was given, or one of these."""
        return (getattr(self.recipe, name),) if name in self._given else choices

    def _take(self, why: str, **values: Any) -> None:
        """Set what is open of these, and note it."""
        if mine := {name: value for name, value in values.items() if name not in self._given}:
            self.recipe = with_values(self.recipe, **mine)
            self.why.append(f"chosen {', '.join(f'{name} {_said(value)}' for name, value in mine.items())}: {why}.")

    def _fits(self, longest: int, **changes: Any) -> bool:
        return self._memory(longest, **changes) <= self._room

    def _memory(self, longest: int, **changes: Any) -> int:
        changed = {name: value for name, value in changes.items() if name not in self._given}
        recipe = self.recipe.model_copy(update=changed)
        return predicted_memory(recipe, self._model.shape, longest, self._machine).total


def with_values(recipe: Recipe, **values: Any) -> Recipe:
    """The recipe with other values, which do not count as set by the request."""
    return Recipe.model_construct(_fields_set=recipe.model_fields_set, **{**dict(recipe), **values})


def _by_size(table: Sequence[tuple[float, int]], size: int) -> int:
    return next(value for below, value in table if size < below)


def _halves(most: int, least: int) -> list[int]:
    """Powers of two from `most` down to `least`, as far as there are any."""
    return [2**power for power in range(most.bit_length() - 1, -1, -1) if 2**power >= min(least, most)]


def _highest(name: str) -> int:
    return int(Hyperparameters.model_json_schema()["properties"][name]["anyOf"][0]["maximum"])


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
