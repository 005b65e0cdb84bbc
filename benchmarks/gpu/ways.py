"""The ways that are compared, each in its own process: what one of them computes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.gpu.random_models import (
    LLAMA_3B,
    QWEN_3B,
    SMOLLM_135M,
    compute_device,
    write_random_model,
)

Report = Callable[[dict[str, Any]], None]
"""Receives figures as soon as they are known: a run may be cut off."""
SHAPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"qwen2.5-3b": QWEN_3B, "llama-3.2-3b": LLAMA_3B, "smollm2-135m": SMOLLM_135M}
)
MODEL_FOLDER = "model"
WORKLOAD_FOLDER = "chats"
SERVED_TOKENS = 48
TINY_SERVED_TOKENS = 6
SMALL_CARD_GIB = 6
TINY_PROMPT_TOKENS = 16
TINY_REPLY_TOKENS = 24
"""What is left of the samples for a tiny model."""


@dataclass(frozen=True)
class WayInputs:
    """What a way is computed over: `inputs` has samples and tokenizer, `scratch` the model."""

    inputs: Path
    scratch: Path
    shape: str
    tiny: bool

    @property
    def served_tokens(self) -> int:
        return TINY_SERVED_TOKENS if self.tiny else SERVED_TOKENS


def prepare(given: WayInputs, report: Report) -> None:
    """Write the model and the adapters that all other ways read, and describe the machine."""
    from benchmarks.engine.engine_workload import write_workload
    from benchmarks.gpu.inputs import read_tokenizer
    from benchmarks.gpu.machine import describe_machine
    from personas.models.base_model import locate

    report({"machine": describe_machine()})
    began = time.perf_counter()
    folder = given.scratch / MODEL_FOLDER
    tokenizer = read_tokenizer(given.inputs)
    write_random_model(SHAPES[given.shape], folder, tokenizer, tiny=given.tiny)
    report({"model_s": time.perf_counter() - began})
    workload = given.scratch / WORKLOAD_FOLDER
    write_workload(workload, locate(str(folder)), device=compute_device())
    report({"adapters_s": time.perf_counter() - began})


def train_plain(given: WayInputs, report: Report) -> None:
    """TRL's SFTTrainer with peft and bitsandbytes, the recipe's values as published."""
    from benchmarks.gpu.training import prepare_plain

    _train(prepare_plain, given, report)


def train_own(given: WayInputs, report: Report) -> None:
    """This project's trainer, the recipe fitted to this card."""
    from benchmarks.gpu.training import prepare_own

    _train(prepare_own, given, report)


def train_own_on_small_card(given: WayInputs, report: Report) -> None:
    """This project's trainer with the memory of the card that the recipe was made for."""
    from benchmarks.gpu.training import prepare_own

    _train(partial(prepare_own, card_gib=SMALL_CARD_GIB), given, report)


def _train(prepare_trainer: Any, given: WayInputs, report: Report) -> None:
    from benchmarks.gpu.inputs import read_samples
    from benchmarks.gpu.training import measure_training
    from personas.models.base_model import locate

    samples = read_samples(given.inputs)
    if given.tiny:
        samples = [_shorten(sample) for sample in samples]
    base = locate(str(given.scratch / MODEL_FOLDER))
    checkpoints = given.scratch / "checkpoints"
    measure_training(partial(prepare_trainer, base, samples, checkpoints), samples, report)


def _shorten(sample: Any) -> Any:
    """Return the beginning and the end of a sample: a processor takes minutes for whole ones."""
    from personas.prompt.renderer import TokenizedSample

    cut = slice(TINY_PROMPT_TOKENS, -TINY_REPLY_TOKENS)
    ids = list(sample.ids)
    mask = list(sample.mask)
    del ids[cut], mask[cut]
    return TokenizedSample(tuple(ids), tuple(mask))


def serve_own(given: WayInputs, report: Report) -> None:
    """This project's engine, each reply with its own adapter."""
    from benchmarks.gpu.serving import measure_engine

    measure_engine(_workload(given), report)


def serve_generate(given: WayInputs, report: Report) -> None:
    """transformers' generate of the base model, without adapters."""
    from benchmarks.gpu.serving import measure_generate

    measure_generate(_workload(given), report)


def _workload(given: WayInputs) -> Any:
    from benchmarks.gpu.serving import ServingWorkload
    from personas.models.base_model import locate

    base = locate(str(given.scratch / MODEL_FOLDER))
    return ServingWorkload(base, given.scratch / WORKLOAD_FOLDER, given.served_tokens)


PREPARE = "prepare"
WAYS: Mapping[str, Callable[[WayInputs, Report], None]] = MappingProxyType(
    {
        "ours": train_own,
        "plain": train_plain,
        "engine": serve_own,
        "generate": serve_generate,
        f"ours-{SMALL_CARD_GIB}gb": train_own_on_small_card,
    }
)
"""In the order of a run; where the time is up, the last ones are left out."""
