"""Measures a way of training: TRL with peft as people run them, or this project's trainer."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.gpu.machine import GIB, cap_gpu_memory
from benchmarks.gpu.meters import (
    StepProfiler,
    UtilisationMeter,
    compilations,
    memory_peaks,
    reset_peak,
    synchronise,
)
from benchmarks.gpu.steps import MEASURED_STEPS, STEP_SAMPLES, STEPS, WARM_UP_STEPS
from benchmarks.gpu.ways import Report
from personas.models.base_model import BaseModel
from personas.models.loading import load_tokenizer
from personas.prompt.renderer import TokenizedSample
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import TrainingRequest
from trainer.estimate.memory_check import available_memory_bytes
from trainer.estimate.workload import workload_of
from trainer.machine import probe_machine
from trainer.recipe.machine_fit import fit_to_hardware, fit_to_machine
from trainer.recipe.recipe_file import requested_recipe
from trainer.schemas import Recipe

RECIPE = "s0-6gb"
SEED = 0


@dataclass(frozen=True)
class PreparedTraining:
    """A trainer before its first step, the function that runs it, and what people should know."""

    trainer: Any
    run: Callable[[], object]
    notes: tuple[str, ...] = ()


def published_recipe() -> Recipe:
    """Return the recipe as published, for the steps that are measured. A CPU computes in bfloat16,
    because accelerate offers float16 on cards alone.
    """
    values: dict[str, Any] = {"max_steps": STEPS, "logging_steps": 1}
    if not torch.cuda.is_available():
        values["precision"] = "bf16"
    return requested_recipe(
        TrainingRequest(
            job_name="bench",
            task_type="dialogue",
            recipe=RECIPE,
            hyperparameters=Hyperparameters(**values),
        )
    )


def prepare_plain(
    base: BaseModel, samples: Sequence[TokenizedSample], folder: Path
) -> PreparedTraining:
    """Prepare TRL's SFTTrainer over transformers, peft and bitsandbytes with the recipe's
    values.
    """
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    from trainer.train.sft_trainer import make_hf_dataset

    recipe = fit_to_hardware(published_recipe())
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[recipe.precision]
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=recipe.quant_type,
        bnb_4bit_use_double_quant=recipe.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base.source,
        dtype=dtype,
        quantization_config=quantisation,
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=recipe.per_device_train_batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps,
            gradient_checkpointing=True,
            max_steps=STEPS,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.lr_scheduler_type,
            warmup_steps=recipe.warmup_ratio,
            weight_decay=recipe.weight_decay,
            optim=recipe.optim,
            bf16=recipe.precision == "bf16",
            fp16=recipe.precision == "fp16",
            use_cpu=not torch.cuda.is_available(),
            seed=recipe.seed,
            max_length=recipe.max_length,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=make_hf_dataset(samples),
        processing_class=load_tokenizer(base),
        peft_config=LoraConfig(
            r=recipe.lora_r,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    return PreparedTraining(trainer, trainer.train)


def prepare_own(
    base: BaseModel,
    samples: Sequence[TokenizedSample],
    folder: Path,
    *,
    card_gib: int | None = None,
) -> PreparedTraining:
    """Prepare the trainer as a run does: the recipe fitted to this machine, or to a card with
    `card_gib` of memory.
    """
    from trainer.train.sft_trainer import make_sft_trainer, run_training_loop
    from trainer.train.trainer_base import StageInputs

    machine = probe_machine()
    free_bytes = available_memory_bytes(machine)
    if card_gib is not None:
        free_bytes = min(free_bytes, card_gib * GIB)
        cap_gpu_memory(card_gib)
    work = workload_of(samples, ())
    recipe = fit_to_machine(
        RECIPE, published_recipe(), base, work, machine=machine, free_bytes=free_bytes
    )
    stage = StageInputs(samples, (), recipe, lambda event: None, order=range(len(samples)))
    trainer = make_sft_trainer(base, load_tokenizer(base), stage, folder)
    batch = recipe.per_device_train_batch_size
    checkpointing = "off"
    if recipe.gradient_checkpointing:
        checkpointing = f"of one layer in {recipe.checkpoint_every_n_layers}"
    settings = (
        f"batches of {batch} × {recipe.gradient_accumulation_steps}, {recipe.precision}, "
        f"{recipe.optim}, gradient checkpointing {checkpointing}"
    )
    return PreparedTraining(
        trainer, lambda: run_training_loop(trainer), notes=(settings, *trainer.kernels.notes)
    )


def initialise_lora(model: Any) -> None:
    """Give the adapter's A the same first values in every way of training; B begins as zero."""
    draw = torch.Generator().manual_seed(SEED)
    for name, weight in sorted(model.named_parameters()):
        if ".lora_A." in name:
            values = torch.empty(weight.shape).uniform_(-1, 1, generator=draw)
            weight.data.copy_(values / math.sqrt(weight.shape[1]))


def measure_training(
    prepare: Callable[[], PreparedTraining], samples: Sequence[TokenizedSample], report: Report
) -> None:
    """Train and report: the settings, then the figures of the measured steps, then the counts of a
    micro-batch.
    """
    began = time.perf_counter()
    prepared = prepare()
    initialise_lora(prepared.trainer.model)
    synchronise()
    report({"load_s": time.perf_counter() - began, "notes": list(prepared.notes)})
    prepared.trainer.add_callback(StepMeter(samples, report))
    prepared.run()


class StepMeter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Measures whole optimiser steps of a transformers trainer between synchronised clocks."""

    def __init__(self, samples: Sequence[TokenizedSample], report: Report) -> None:
        self._samples = samples
        self._report = report
        self._utilisation = UtilisationMeter()
        self._profiler: StepProfiler | None = None
        self._losses: list[float] = []
        self._began = self._started = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._utilisation.start()
        self._began = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == WARM_UP_STEPS:
            synchronise()
            reset_peak()
            self._started = time.perf_counter()
        elif state.global_step == WARM_UP_STEPS + MEASURED_STEPS:
            synchronise()
            self._report(self._figures(args, time.perf_counter()))
            self._profiler = StepProfiler()
            self._profiler.start()

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self._count()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._count()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self._losses.append(float(logs["loss"]))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._utilisation.stop()

    def _count(self) -> None:
        """Report the counts of the first micro-batch of the profiled step."""
        if self._profiler:
            counts = self._profiler.stop()
            self._profiler = None
            self._report(asdict(counts))

    def _figures(self, args: Any, now: float) -> dict[str, Any]:
        seconds = now - self._started
        first = WARM_UP_STEPS * STEP_SAMPLES
        measured = self._samples[first : first + MEASURED_STEPS * STEP_SAMPLES]
        return {
            "step_s": seconds / MEASURED_STEPS,
            "samples_per_s": len(measured) / seconds,
            "tokens_per_s": sum(len(sample.ids) for sample in measured) / seconds,
            "warm_up_s": self._started - self._began,
            "busy_percent": self._utilisation.percent(self._started, now),
            "losses": self._losses[-MEASURED_STEPS:],
            "micro_batches": args.gradient_accumulation_steps,
            **memory_peaks(),
            **compilations(),
        }
