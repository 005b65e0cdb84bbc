"""QLoRA fine-tuning with TRL's SFTTrainer over rendered, masked samples."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as Table
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import BitsAndBytesConfig, EarlyStoppingCallback, PrinterCallback
from trl import SFTConfig, SFTTrainer

from personas.errors import TrainingError
from personas.models.base_model import BaseModel, TrainingPrecision, load_model
from personas.prompt import TokenizedSample
from trainer.estimate.workload import group_by_length
from trainer.machine import probe_machine
from trainer.process.events import StepEvent
from trainer.schemas import Recipe
from trainer.train.callbacks import EventCallback, HeapTrimCallback, can_trim_heap
from trainer.train.checkpoint import checkpoint_step, latest_valid_checkpoint
from trainer.train.collator import IGNORE_INDEX, PADDING_SAMPLE, collate, drop_padding_samples, pack, reply_losses
from trainer.train.job import RunUsage
from trainer.train.kernels import KernelSelection, choose_kernels, share_dropout, use_grouped_attention
from trainer.train.trainer_base import StageInputs, TrainerBase

DTYPES: dict[str, TrainingPrecision] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
MAX_CHECKPOINTS = 3
"""The best among them."""
Collator = Callable[[Sequence[TokenizedSample]], dict[str, torch.Tensor]]
log = logging.getLogger(__name__)


class ReplySFTTrainer(TrainerBase, SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Batches of like length, logits for the trained tokens only, held-out replies measured by themselves."""

    loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        course = self._course
        absent = [len(course.train)] * self._absent()
        if course.order:
            return [*course.order, *absent]
        lengths = [len(sample.ids) for sample in course.train]
        return LengthSortedSampler(
            lengths, course.length_group_batch or self.args.train_batch_size, self.args.seed, absent
        )

    def _absent(self) -> int:
        """Returns how many samples are missing for equally many full batches in each process."""
        processes = self._course.processes
        return (
            -len(self._course.train) % (self.args.train_batch_size * processes.count) if processes.is_distributed else 0
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the trained tokens of the whole optimiser step."""
        losses = reply_losses(model, inputs)
        self.tokens_done += int(inputs["lengths"].sum())
        if num_items_in_batch is None:
            return losses.mean()
        return losses.sum() / num_items_in_batch * self._course.processes.count  # whose gradients are averaged


class LengthSortedSampler(torch.utils.data.Sampler[int]):
    """Another `group_by_length` order in each epoch; the places `at_the_end` follow."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, at_the_end: Sequence[int] = ()) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0
        self._at_the_end = at_the_end

    def __len__(self) -> int:
        return len(self._lengths) + len(self._at_the_end)

    def __iter__(self) -> Iterator[int]:
        yield from group_by_length(self._lengths, self._batch_size, self._seed + self._epoch)
        yield from self._at_the_end

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer when an epoch begins."""
        self._epoch = epoch


@dataclass(frozen=True)
class TrainResult:
    """The peft model that holds the new adapter, in evaluation mode, and every event of the run so far.

    `account` has counted the run's time and memory and goes on counting. `resumed_at` is the step at which this process
    took over, 0 from the start. `kernels` says what computed.
    """

    model: Any
    history: tuple[StepEvent, ...]
    account: RunUsage
    resumed_at: int
    kernels: tuple[str, ...]


def train_sft(base: BaseModel, tokenizer: Any, course: StageInputs) -> TrainResult:
    """Train a LoRA adapter, from the latest checkpoint in the course's folder on where there is one.

    Raises `TrainingError` when the loss diverges, and whatever `course.check` raises.
    """
    return run_trainer(course, functools.partial(make_sft_trainer, base, tokenizer, course))


def run_trainer(course: StageInputs, trainer_in: Callable[[Path], TrainerBase]) -> TrainResult:
    """Train with the trainer that is made for a folder of checkpoints. Raises as `train_sft` does."""
    with ExitStack() as stack:
        folder = course.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-train-")))
        trainer = trainer_in(folder)
        reporter = EventCallback(course, trainer)
        trainer.add_callback(reporter)
        if can_trim_heap(on_cpu=trainer.model.device.type == "cpu"):
            trainer.add_callback(HeapTrimCallback())
        kept = latest_valid_checkpoint(course.folder) if course.folder else None
        run_training_loop(trainer, kept)
    return TrainResult(
        trainer.model.eval(),
        tuple(reporter.history),
        course.account,
        checkpoint_step(kept) if kept else 0,
        trainer.kernels.notes,
    )


def make_sft_trainer(base: BaseModel, tokenizer: Any, course: StageInputs, folder: Path) -> ReplySFTTrainer:
    """A trainer of a new adapter over the base model, as it is before the first step."""
    model, kernels = load_model_with_kernels(base, course.recipe)
    model = add_lora_adapter(model, course.recipe)
    trainer = ReplySFTTrainer(
        course,
        kernels,
        model=model,
        args=SFTConfig(**training_arguments(course, folder), dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=make_hf_dataset(
            [*course.train, PADDING_SAMPLE] if course.processes.is_distributed else course.train
        ),
        eval_dataset=make_hf_dataset(course.heldout) if course.heldout else None,
        data_collator=functools.partial(_collate_rows, pack if kernels.packing else collate),
        processing_class=tokenizer,
    )
    if course.recipe.early_stopping_patience and _evaluates(course):
        trainer.add_callback(EarlyStoppingCallback(course.recipe.early_stopping_patience))
    cast_adapter_to_float32(model)
    if course.begin:
        course.begin(model)
    if model.device.type == "cpu":
        share_dropout(model)
    return trainer


def run_training_loop(trainer: TrainerBase, checkpoint: Path | None = None) -> None:
    """All steps. The adapter's inputs need no float32 copies where autocast multiplies in 16 bits anyway."""
    trainer.remove_callback(PrinterCallback)
    computes_in_16_bits = trainer.args.bf16 or trainer.args.fp16
    with (
        disable_input_dtype_casting(trainer.model, active=computes_in_16_bits),
        trainer.kernels.in_use(trainer.model),
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.load_best_weights()


def load_model_with_kernels(base: BaseModel, recipe: Recipe) -> tuple[Any, KernelSelection]:
    """The base model, with what was chosen for it to compute with."""
    model = load_quantised(base, recipe)
    kernels = choose_kernels(model, recipe, probe_machine())
    log.info("%s", " ".join(kernels.notes))
    return model, kernels


def load_quantised(base: BaseModel, recipe: Recipe) -> Any:
    """The base model with its linear layers in 4 bits, if the recipe says so; on the CPU with those values unpacked.

    `recipe.precision` is resolved (`trainer.recipe.resolve`).
    """
    precision = DTYPES[recipe.precision]
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    if recipe.quant_type == "none":
        model = load_model(base, precision, device_map={"": device})
    else:
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=recipe.quant_type,
            bnb_4bit_use_double_quant=recipe.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, precision),
        )
        model = load_model(base, precision, quantization_config=quantisation, device_map={"": device})
    if device != "cpu":
        return model
    if recipe.quant_type != "none":
        model = model.dequantize()
        model.is_loaded_in_4bit = False  # left over by transformers; TRL would take the adapter down to 16 bits
    use_grouped_attention(model)
    return model


def add_lora_adapter(model: Any, recipe: Recipe) -> Any:
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
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def training_arguments(course: StageInputs, folder: Path) -> dict[str, Any]:
    """Translates a schedule into arguments for TRL's trainers."""
    recipe = course.recipe
    shared = (
        "learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "num_train_epochs", "logging_steps",
        "seed", "max_length",
    )  # fmt: skip
    batch, accumulation = course.processes.share(recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps)
    strategy = recipe.eval_strategy if _evaluates(course) else "no"
    return dict(
        output_dir=str(folder),
        **{name: getattr(recipe, name) for name in shared},
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        optim=recipe.optim,
        max_steps=recipe.max_steps or -1,
        warmup_steps=recipe.warmup_steps or recipe.warmup_ratio,  # below 1 transformers takes it for a ratio
        neftune_noise_alpha=recipe.neftune_noise_alpha or None,
        bf16=recipe.precision == "bf16",
        fp16=recipe.precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=recipe.gradient_checkpointing,
        dataloader_pin_memory=False,
        logging_nan_inf_filter=False,
        eval_strategy=strategy,
        eval_steps=recipe.eval_steps,
        save_strategy=strategy,
        save_steps=recipe.eval_steps,
        save_total_limit=MAX_CHECKPOINTS,
        load_best_model_at_end=strategy != "no",
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=True,
    )


def _evaluates(course: StageInputs) -> bool:
    """Tells whether held-out loss is measured during training and the best adapter kept."""
    return bool(course.heldout) and course.recipe.eval_strategy != "no"


def make_hf_dataset(samples: Sequence[TokenizedSample]) -> Any:
    """The samples as a `datasets` table of `input_ids` and `labels`."""
    labels = [[id if trained else IGNORE_INDEX for id, trained in zip(s.ids, s.mask, strict=True)] for s in samples]
    return Table.from_dict({"input_ids": [list(sample.ids) for sample in samples], "labels": labels})


def _collate_rows(laid_out: Collator, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    samples = [
        TokenizedSample(tuple(row["input_ids"]), tuple(x != IGNORE_INDEX for x in row["labels"])) for row in rows
    ]
    return laid_out(drop_padding_samples(samples))


def cast_adapter_to_float32(model: Any) -> None:
    """TRL casts an adapter over a 4-bit base to 16 bits; steps of the optimiser would be lost in the rounding."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
