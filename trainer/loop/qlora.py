"""QLoRA fine-tuning: TRL's SFTTrainer over a 4-bit base model, fed with samples that are rendered and masked already.

On the CPU the 4-bit weights are unpacked once to 16 bits: the values stay those of the 4-bit format, and no step has to
unpack them again. On a GPU they stay packed.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as Table
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import BitsAndBytesConfig, EarlyStoppingCallback, PrinterCallback
from trl import SFTConfig

from personas.base_model import BaseModel, TrainingPrecision, load_model
from personas.errors import TrainingError
from personas.prompt import Sample
from trainer.kernels.choice import Kernels, choose_kernels
from trainer.loop.account import Account
from trainer.loop.batches import ABSENT, NO_LOSS, collate, pack, without_absent
from trainer.loop.checkpoints import latest_whole, step_of
from trainer.loop.course import Course, CourseTrainer, Heard
from trainer.loop.cpu_kernels import share_dropout, use_grouped_attention
from trainer.loop.reply_trainer import ReplyTrainer
from trainer.loop.reporter import Reporter
from trainer.loop.trimming import HeapTrimmer, trims_here
from trainer.machine import machine_here
from trainer.recipe import Recipe

DTYPES: dict[str, TrainingPrecision] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
KEPT_CHECKPOINTS = 3
"""The best among them."""

Layout = Callable[[Sequence[Sample]], dict[str, torch.Tensor]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The peft model that holds the new adapter, in evaluation mode, and every event of the run so far.

    `account` has counted the run's time and memory and goes on counting. `resumed_at` is the step at which this process
    took over, 0 from the start. `kernels` says what computed.
    """

    model: Any
    history: tuple[Heard, ...]
    account: Account
    resumed_at: int
    kernels: tuple[str, ...]


def train_adapter(base: BaseModel, tokenizer: Any, course: Course) -> Trained:
    """Train a LoRA adapter, from the latest checkpoint in the course's folder on where there is one.

    Raises `TrainingError` when the loss diverges, and whatever `course.check` raises.
    """
    return trained_by(course, functools.partial(trainer_of, base, tokenizer, course))


def trained_by(course: Course, trainer_in: Callable[[Path], CourseTrainer]) -> Trained:
    """Train with the trainer that is made for a folder of checkpoints. Raises as `train_adapter` does."""
    with ExitStack() as stack:
        folder = course.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-train-")))
        trainer = trainer_in(folder)
        reporter = Reporter(course, trainer)
        trainer.add_callback(reporter)
        if trims_here(on_cpu=trainer.model.device.type == "cpu"):
            trainer.add_callback(HeapTrimmer())
        kept = latest_whole(course.folder) if course.folder else None
        train(trainer, kept)
    return Trained(
        trainer.model.eval(),
        tuple(reporter.history),
        course.account,
        step_of(kept) if kept else 0,
        trainer.kernels.notes,
    )


def trainer_of(base: BaseModel, tokenizer: Any, course: Course, folder: Path) -> ReplyTrainer:
    """A trainer of a new adapter over the base model, as it is before the first step."""
    model, kernels = model_with_kernels(base, course.recipe)
    model = with_new_adapter(model, course.recipe)
    trainer = ReplyTrainer(
        course,
        kernels,
        model=model,
        args=SFTConfig(**arguments(course, folder), dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=table_of([*course.train, ABSENT] if course.processes.are_many else course.train),
        eval_dataset=table_of(course.heldout) if course.heldout else None,
        data_collator=functools.partial(_collate_rows, pack if kernels.packing else collate),
        processing_class=tokenizer,
    )
    if course.recipe.early_stopping_patience and _measures(course):
        trainer.add_callback(EarlyStoppingCallback(course.recipe.early_stopping_patience))
    keep_adapter_in_float32(model)
    if course.begin:
        course.begin(model)
    if model.device.type == "cpu":
        share_dropout(model)
    return trainer


def train(trainer: CourseTrainer, checkpoint: Path | None = None) -> None:
    """All steps. The adapter's inputs need no float32 copies where autocast multiplies in 16 bits anyway."""
    trainer.remove_callback(PrinterCallback)
    computes_in_16_bits = trainer.args.bf16 or trainer.args.fp16
    with (
        disable_input_dtype_casting(trainer.model, active=computes_in_16_bits),
        trainer.kernels.in_use(trainer.model),
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.take_best()


def model_with_kernels(base: BaseModel, recipe: Recipe) -> tuple[Any, Kernels]:
    """The base model, with what was chosen for it to compute with."""
    model = load_quantised(base, recipe)
    kernels = choose_kernels(model, recipe, machine_here())
    log.info("%s", " ".join(kernels.notes))
    return model, kernels


def load_quantised(base: BaseModel, recipe: Recipe) -> Any:
    """The base model with its linear layers in 4 bits, if the recipe says so; on the CPU with those values unpacked.

    `recipe.precision` is resolved (`trainer.fitted`).
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
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def arguments(course: Course, folder: Path) -> dict[str, Any]:
    """What a course means for any of TRL's trainers."""
    recipe = course.recipe
    shared = (
        "learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "num_train_epochs", "logging_steps",
        "seed", "max_length",
    )  # fmt: skip
    batch, accumulation = course.processes.share(recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps)
    strategy = recipe.eval_strategy if _measures(course) else "no"
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
        save_total_limit=KEPT_CHECKPOINTS,
        load_best_model_at_end=strategy != "no",
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=True,
    )


def _measures(course: Course) -> bool:
    """Whether held-out replies are measured on the way, and the best adapter kept."""
    return bool(course.heldout) and course.recipe.eval_strategy != "no"


def table_of(samples: Sequence[Sample]) -> Any:
    """The samples as a `datasets` table of `input_ids` and `labels`."""
    labels = [[id if trained else NO_LOSS for id, trained in zip(s.ids, s.mask, strict=True)] for s in samples]
    return Table.from_dict({"input_ids": [list(sample.ids) for sample in samples], "labels": labels})


def _collate_rows(laid_out: Layout, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    samples = [Sample(tuple(row["input_ids"]), tuple(x != NO_LOSS for x in row["labels"])) for row in rows]
    return laid_out(without_absent(samples))


def keep_adapter_in_float32(model: Any) -> None:
    """TRL casts an adapter over a 4-bit base to 16 bits; steps of the optimiser would be lost in the rounding."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
