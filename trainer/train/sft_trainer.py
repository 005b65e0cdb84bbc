"""QLoRA fine-tuning with TRL's SFTTrainer over rendered, masked samples."""

import functools
import logging
import sys
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

from personas.errors import TrainingError, is_out_of_memory
from personas.models.base_model import BaseModel
from personas.models.loading import TrainingPrecision, load_model
from personas.models.probe import require_finite_activations
from personas.prompt.renderer import TokenizedSample
from trainer.estimate.workload import group_by_length
from trainer.machine import probe_machine
from trainer.process.events import StepEvent
from trainer.schemas import Recipe, optimiser_steps
from trainer.train.callbacks import EventCallback, HeapTrimCallback, can_trim_heap
from trainer.train.checkpoint import (
    MALFORMED_ERRORS,
    REMOVE_ADVICE,
    checkpoint_step,
    latest_valid_checkpoint,
    trainable_weights,
)
from trainer.train.collator import (
    IGNORE_INDEX,
    PADDING_SAMPLE,
    drop_padding_samples,
    lay_out,
    reply_losses,
)
from trainer.train.kernels import (
    KernelSelection,
    choose_kernels,
    share_dropout,
    use_grouped_attention,
    verify_fused_lora,
)
from trainer.train.lora_layers import lora_targets
from trainer.train.trainer_base import StageInputs, TrainerBase, between_layers

DTYPES: dict[str, TrainingPrecision] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
MAX_CHECKPOINTS = 3  # including the best one
Collator = Callable[[Sequence[TokenizedSample]], dict[str, Any]]
log = logging.getLogger(__name__)


class ReplySFTTrainer(TrainerBase, SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Batches samples of similar length, and computes logits of trained tokens only."""

    loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        stage = self.stage
        absent = [len(stage.train)] * self._absent()
        if stage.order:
            return [*stage.order, *absent]
        lengths = [len(sample.ids) for sample in stage.train]
        batch_size = stage.length_group_batch or self.args.train_batch_size
        return LengthSortedSampler(lengths, batch_size, self.args.seed, absent)

    def _absent(self) -> int:
        """Return how many samples are missing for equally many full batches in each process."""
        processes = self.stage.control.processes
        per_step = self.args.train_batch_size * processes.count
        return -len(self.stage.train) % per_step if processes.is_distributed else 0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over the trained tokens of the whole optimiser step."""
        losses = reply_losses(model, inputs, self.kernels.chunked_loss)
        self.samples_done += len(inputs["lengths"])
        self.tokens_done += inputs["tokens"]
        if num_items_in_batch is None:
            return losses.mean()
        # The gradients of several processes are averaged, and `num_items_in_batch` is of all.
        return losses.sum() / num_items_in_batch * self.stage.control.processes.count


class LengthSortedSampler(torch.utils.data.Sampler[int]):
    """Samples in a new `group_by_length` order in each epoch, followed by the places
    `at_the_end`.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, at_the_end: Sequence[int] = ()
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._at_the_end = at_the_end

    def __len__(self) -> int:
        return len(self._lengths) + len(self._at_the_end)

    def __iter__(self) -> Iterator[int]:
        yield from group_by_length(self._lengths, self._batch_size, self._seed + self._epoch)
        yield from self._at_the_end

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, at its start."""
        self._epoch = epoch


@dataclass(frozen=True)
class TrainResult:
    """The peft model with the new adapter, in evaluation mode, and every event of the run so far.

    `resumed_at` is the step from which this process resumed, 0 for the start. `kernels` describes
    the kernels in use.
    """

    model: Any
    history: tuple[StepEvent, ...]
    resumed_at: int
    kernels: tuple[str, ...]


def train_sft(base: BaseModel, tokenizer: Any, stage: StageInputs) -> TrainResult:
    """Train a LoRA adapter from the latest checkpoint, if any. Raises `TrainingError` and
    `stage.check`'s errors.
    """
    return run_trainer(stage, functools.partial(make_sft_trainer, base, tokenizer, stage))


def run_trainer(stage: StageInputs, make_trainer: Callable[[Path], TrainerBase]) -> TrainResult:
    """Train with a trainer made for the checkpoints' folder. Raises the errors of `train_sft`."""
    with ExitStack() as stack:
        folder = stage.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-train-"))
        )
        trainer = make_trainer(folder)
        # What is imported from here on is little, and checkpoints and weights may fill the disk: of a
        # module's bytecode, a part would be left (`personas.cli_entry`).
        sys.dont_write_bytecode = True
        events = EventCallback(stage, trainer)
        trainer.add_callback(events)
        if can_trim_heap(on_cpu=trainer.model.device.type == "cpu"):
            trainer.add_callback(HeapTrimCallback())
        weights = trainable_weights(trainer.model)
        checkpoint = latest_valid_checkpoint(stage.folder, weights) if stage.folder else None
        try:
            run_training_loop(trainer, checkpoint)
        except (*MALFORMED_ERRORS, RuntimeError) as error:
            if (
                checkpoint
                and trainer.state.global_step <= checkpoint_step(checkpoint)
                and not is_out_of_memory(error)
            ):
                what = f"The checkpoint {checkpoint} cannot be resumed: {error}."
                raise TrainingError(what, REMOVE_ADVICE) from error
            raise
    resumed_at = checkpoint_step(checkpoint) if checkpoint else 0
    return TrainResult(
        model=trainer.model.eval(),
        history=tuple(events.history),
        resumed_at=resumed_at,
        kernels=trainer.kernels.notes,
    )


def make_sft_trainer(
    base: BaseModel, tokenizer: Any, stage: StageInputs, folder: Path
) -> ReplySFTTrainer:
    """Make a trainer of a new adapter, before its first step."""
    model, kernels = load_model_with_kernels(base, stage.recipe)
    model = add_lora_adapter(model, stage.recipe)
    kernels = verify_fused_lora(model, kernels)
    collator = functools.partial(
        lay_out, layout=kernels.layout, shares_prefix=kernels.shares_prefix
    )
    train = (
        [*stage.train, PADDING_SAMPLE] if stage.control.processes.is_distributed else stage.train
    )
    trainer = ReplySFTTrainer(
        stage,
        kernels,
        model=model,
        args=SFTConfig(
            **training_arguments(stage, folder), dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=make_hf_dataset(train),
        eval_dataset=make_hf_dataset(stage.heldout) if stage.heldout else None,
        data_collator=functools.partial(_collate_rows, collator),
        processing_class=tokenizer,
    )
    if stage.recipe.early_stopping_patience and evaluates(stage):
        trainer.add_callback(EarlyStoppingCallback(stage.recipe.early_stopping_patience))
    cast_adapter_to_float32(model)
    if stage.begin:
        stage.begin(model)
    if model.device.type == "cpu":
        share_dropout(model)
    return trainer


def run_training_loop(trainer: TrainerBase, checkpoint: Path | None = None) -> None:
    """Run all steps. The adapter's inputs need no float32 copies if autocast multiplies in 16
    bits.
    """
    trainer.remove_callback(PrinterCallback)
    computes_in_16_bits = trainer.args.bf16 or trainer.args.fp16
    with (
        disable_input_dtype_casting(trainer.model, active=computes_in_16_bits),
        trainer.kernels.in_use(trainer.model),
        between_layers(trainer.model, trainer.stage.control.pause.wait),
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.load_best_weights()


def load_model_with_kernels(
    base: BaseModel, recipe: Recipe, *, pads: bool = False
) -> tuple[Any, KernelSelection]:
    """Load the base model and choose its kernels, with `pads` for batches with a row for each
    sample. Raises `Float16OverflowError` if float16 is too small for it.
    """
    model = load_quantised(base, recipe)
    if recipe.precision == "fp16":
        require_finite_activations(model)
    if recipe.checkpoint_every_n_layers > 1:
        checkpoint_some_layers(model, recipe.checkpoint_every_n_layers)
    kernels = choose_kernels(model, recipe, probe_machine(), pads=pads)
    log.info("%s", " ".join(kernels.notes))
    return model, kernels


def load_quantised(base: BaseModel, recipe: Recipe) -> Any:
    """Load the base model, with 4-bit linear layers if the recipe says so; a CPU computes with the
    unpacked values.

    `recipe.precision` is resolved (`trainer.recipe.machine_fit`).
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
        model = load_model(
            base, precision, quantization_config=quantisation, device_map={"": device}
        )
    if device != "cpu":
        return model
    if recipe.quant_type != "none" and getattr(
        model, "hf_quantizer", None
    ):  # unless its stored form is unpacked
        model = model.dequantize()
        model.is_loaded_in_4bit = (
            False  # left over by transformers; TRL would take the adapter down to 16 bits
        )
    use_grouped_attention(model)
    return model


def checkpoint_some_layers(model: Any, every: int) -> None:
    """Let gradient checkpointing, whoever enables it, recompute every n-th layer alone.

    Transformers' trainer has an option for that. TRL, which disables checkpointing while the
    reference of preference training computes, would enable it for all layers then.
    """
    enable = model.activation_checkpointing_enable

    def enable_for_some(*_: Any, **__: Any) -> None:
        enable(every_n_layers=every)

    model.activation_checkpointing_enable = enable_for_some


def add_lora_adapter(model: Any, recipe: Recipe) -> Any:
    """Add an untrained adapter to the recipe's target modules. Raises `TrainingError` if the
    language model lacks one.
    """
    targets = lora_targets(model, recipe.target_modules)
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def training_arguments(stage: StageInputs, folder: Path) -> dict[str, Any]:
    """Translate a recipe into arguments of TRL's trainers."""
    recipe = stage.recipe
    has_gpu = torch.cuda.is_available()
    shared = (
        "learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "num_train_epochs", "logging_steps",
        "seed", "max_length", "optim", "eval_steps",
    )  # fmt: skip
    batch, accumulation = stage.control.processes.share(
        recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps
    )
    strategy = recipe.eval_strategy if evaluates(stage) else "no"
    # transformers begins a warm-up at a rate of zero and rounds a ratio up: a run of one step would
    # learn nothing
    warmup_ratio = recipe.warmup_ratio if optimiser_steps(recipe, len(stage.train)) > 1 else 0.0
    return dict(
        output_dir=str(folder),
        **{name: getattr(recipe, name) for name in shared},
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        max_steps=recipe.max_steps or -1,
        warmup_steps=recipe.warmup_steps
        or warmup_ratio,  # below 1 transformers takes it for a ratio
        bf16=recipe.precision == "bf16",
        fp16=recipe.precision == "fp16",
        use_cpu=not has_gpu,
        activation_checkpointing=recipe.gradient_checkpointing,
        # A GPU copies a batch while the host prepares the step, and neither waits.
        dataloader_pin_memory=has_gpu,
        accelerator_config={"non_blocking": has_gpu},
        logging_nan_inf_filter=False,
        eval_strategy=strategy,
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


def evaluates(stage: StageInputs) -> bool:
    """Report whether held-out loss is measured during training and the best adapter is selected by
    it.
    """
    return bool(stage.heldout) and stage.recipe.eval_strategy != "no"


def make_hf_dataset(samples: Sequence[TokenizedSample]) -> Any:
    """Make a `datasets` table of `input_ids` and `labels`."""
    labels = [
        [id if trained else IGNORE_INDEX for id, trained in zip(s.ids, s.mask, strict=True)]
        for s in samples
    ]
    return Table.from_dict(
        {"input_ids": [list(sample.ids) for sample in samples], "labels": labels}
    )


def _collate_rows(collator: Collator, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
    """Collate rows of the table; `tokens` counts those of all samples, on the host."""
    masks = [tuple(label != IGNORE_INDEX for label in row["labels"]) for row in rows]
    samples = [
        TokenizedSample(tuple(row["input_ids"]), mask)
        for row, mask in zip(rows, masks, strict=True)
    ]
    samples = list(drop_padding_samples(samples))
    return {**collator(samples), "tokens": sum(len(sample.ids) for sample in samples)}


def cast_adapter_to_float32(model: Any) -> None:
    """Cast the adapter back to float32: TRL's 16 bits over a 4-bit base would round optimiser steps
    away.
    """
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
