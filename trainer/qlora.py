"""QLoRA fine-tuning: TRL's SFTTrainer over a 4-bit base model, fed with samples that are rendered and masked already.

On the CPU the 4-bit weights are unpacked once to 16 bits: the values stay those of the 4-bit format, and no step has to
unpack them again. On a GPU they stay packed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from datasets import Dataset as Table
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import BitsAndBytesConfig, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from personas.base_model import BaseModel, best_precision, load_model
from personas.contracts import Epoch, Progress
from personas.errors import TrainingError
from personas.prompt import Sample
from trainer.batches import NO_LOSS, collate, length_sorted, reply_losses
from trainer.cpu_kernels import share_dropout, use_grouped_attention
from trainer.evaluate import mean_loss, measure
from trainer.recipe import Recipe


@dataclass(frozen=True)
class Course:
    """What a training run goes by. `listen` gets each event; `check` raises to stop, and is called between steps.

    `order` is the samples' in every epoch, where it is not to be drawn.
    """

    train: Sequence[Sample]
    heldout: Sequence[Sample]
    recipe: Recipe
    listen: Callable[[Progress | Epoch], None]
    check: Callable[[], None]
    order: Sequence[int] = ()


def train_adapter(base: BaseModel, tokenizer: Any, course: Course) -> Any:
    """Train a LoRA adapter; returns the peft model that holds it, in evaluation mode.

    Raises `TrainingError` when the loss is no longer a number, and whatever `course.check` raises.
    """
    with tempfile.TemporaryDirectory(prefix="understudy-train-") as scratch:
        trainer = trainer_of(base, tokenizer, course, scratch)
        trainer.add_callback(Reporter(course, trainer))
        train(trainer)
    return trainer.model.eval()


def trainer_of(base: BaseModel, tokenizer: Any, course: Course, scratch: str) -> ReplyTrainer:
    """A trainer of a new adapter over the base model, as it is before the first step."""
    model = with_new_adapter(load_quantised(base, course.recipe), course.recipe)
    trainer = ReplyTrainer(
        course,
        model=model,
        args=_arguments(course.recipe, scratch),
        train_dataset=table_of(course.train),
        data_collator=_collate_rows,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    _keep_adapter_in_float32(model)
    if model.device.type == "cpu":
        share_dropout(model)
    return trainer


def train(trainer: ReplyTrainer) -> None:
    """All steps. The adapter's inputs need no float32 copies: autocast multiplies in 16 bits anyway."""
    with disable_input_dtype_casting(trainer.model, active=best_precision() == "bfloat16"):
        trainer.train()


def load_quantised(base: BaseModel, recipe: Recipe) -> Any:
    """The base model with its linear layers in 4 bits; on the CPU with those values unpacked to `best_precision`."""
    precision = best_precision()
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=recipe.quant_type,
        bnb_4bit_use_double_quant=recipe.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, precision),
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(base, precision, quantization_config=quantisation, device_map={"": device})
    if device == "cuda":
        return model
    model = model.dequantize()
    use_grouped_attention(model)
    model.is_loaded_in_4bit = False  # left over by transformers; TRL would take the adapter down to 16 bits
    return model


def with_new_adapter(model: Any, recipe: Recipe) -> Any:
    """The model with an untrained adapter over the recipe's target modules, as far as the model has them."""
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = [name for name in recipe.target_modules if name in present]
    if not targets:
        raise TrainingError(
            f"The base model has none of the modules that the recipe adapts: {', '.join(recipe.target_modules)}.",
            "Choose another base model, or a recipe that names its linear layers.",
        )
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


class ReplyTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """SFTTrainer with batches of like length, and with logits for the trained tokens only."""

    loss_is_scaled_for_ga = True

    def __init__(self, course: Course, **options: Any) -> None:
        self._course = course
        self.tokens_done = 0
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._course.order:
            return self._course.order
        lengths = [len(sample.ids) for sample in self._course.train]
        return LengthSortedSampler(lengths, self.args.train_batch_size, self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the trained tokens of the whole optimiser step."""
        losses = reply_losses(model, inputs)
        self.tokens_done += int(inputs["lengths"].sum())
        return losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)


class LengthSortedSampler(torch.utils.data.Sampler[int]):
    """Another `length_sorted` order in each epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Any:
        yield from length_sorted(self._lengths, self._batch_size, self._seed + self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer when an epoch begins."""
        self._epoch = epoch


class Reporter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Turns the trainer's callbacks into events, and stops the run when asked to or when the loss is no number."""

    def __init__(self, course: Course, trainer: ReplyTrainer) -> None:
        self._course, self._trainer = course, trainer
        self._tokens = sum(len(sample.ids) for sample in course.train) * course.recipe.num_train_epochs
        self._process = psutil.Process()
        self._started = self._epoch_started = self._measuring_s = 0.0
        self._losses: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = time.perf_counter()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._epoch_started, self._losses = time.perf_counter(), []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._course.check()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"The loss is {logs['loss']} at step {state.global_step}: training has diverged.",
                "Lower the learning rate, or lengthen the warm-up.",
            )
        self._losses.append(logs["loss"])
        self._course.listen(self._progress(state, logs))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = time.perf_counter() - self._epoch_started
        eval_loss = mean_loss(measure(self._trainer.model, self._course.heldout, self._course.check))
        self._measuring_s += time.perf_counter() - self._epoch_started - seconds
        train_loss = math.fsum(self._losses) / len(self._losses)
        epoch = math.ceil(state.epoch)
        self._course.listen(Epoch(epoch=epoch, train_loss=train_loss, eval_loss=eval_loss, seconds=seconds))

    def _progress(self, state: Any, logs: dict[str, float]) -> Progress:
        """The rate is the mean since the start of training, of the samples' own tokens; measuring does not count."""
        done = self._trainer.tokens_done
        rate = done / (time.perf_counter() - self._started - self._measuring_s)
        return Progress(
            step=state.global_step,
            of=state.max_steps,
            epoch=state.epoch,
            loss=logs["loss"],
            lr=logs["learning_rate"],
            tokens_per_s=rate,
            eta_s=max(0.0, self._tokens - done) / rate,
            memory_bytes=self._process.memory_info().rss,
        )


def _arguments(recipe: Recipe, scratch: str) -> Any:
    shared = (
        "optim", "learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "num_train_epochs",
        "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "max_length",
    )  # fmt: skip
    return SFTConfig(
        output_dir=scratch,
        **{name: getattr(recipe, name) for name in shared},
        warmup_steps=recipe.warmup_ratio,  # below 1 transformers takes it for a ratio
        bf16=best_precision() == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        dataset_kwargs={"skip_prepare_dataset": True},
        activation_checkpointing=False,  # the memory suffices, and computing everything twice does not
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def table_of(samples: Sequence[Sample]) -> Any:
    """The samples as a `datasets` table of `input_ids` and `labels`."""
    labels = [[id if trained else NO_LOSS for id, trained in zip(s.ids, s.mask, strict=True)] for s in samples]
    return Table.from_dict({"input_ids": [list(sample.ids) for sample in samples], "labels": labels})


def _collate_rows(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return collate([Sample(tuple(row["input_ids"]), tuple(x != NO_LOSS for x in row["labels"])) for row in rows])


def _keep_adapter_in_float32(model: Any) -> None:
    """TRL casts an adapter over a 4-bit base to 16 bits; steps of the optimiser would be lost in the rounding."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
