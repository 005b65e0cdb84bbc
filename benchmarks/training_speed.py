"""`python -m benchmarks.training_speed`: training speed and memory beside the plain peft and trl
recipe.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peak_memory import measure_in_subprocess
from personas.shipped_folders import SHIPPED_DATA
from trainer.process.environment import ALLOCATOR_SETTINGS, RESTARTED_VARIABLE, configure_process

RESULT = Path("build/bench/train.json")
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
PERSONAS = ("ballast", "oda", "thrip")
"""One persona per round."""
STEPS = 7
WARM_STEPS = 2
STEP_SAMPLES = 16
MAX_LENGTH = 512
SHORT = "short"
"""The second workload's name, in the place of a persona's."""
SHORT_STEPS = 11
"""Steps of each of its rounds."""
SHORT_TOKENS = range(100, 151)
"""Tokens of its samples."""
SHORT_ROUNDS = 3
SHORT_CARD = (
    "You work on the quay of a small harbour and have seen most of it twice.\nYou answer in plain "
    "words, briefly."
)
LORA_RANK = 16
LORA_ALPHA = 32
LEARNING_RATE = 2e-4
SEED = 0
BASELINE_BATCH_SIZE = 2
OWN_BATCH_SIZE = 8


def load_samples(persona: str, steps: int) -> list[Any]:
    """Load a shipped persona's first training samples, enough for this many steps."""
    from trainer.cli.dataset_args import make_build_spec
    from trainer.cli.dataset_command import add_sources
    from trainer.dataset.builder import DatasetBuilder
    from trainer.dataset.dedup_split import TRAIN
    from trainer.dataset.ledger import Ledger

    parser = argparse.ArgumentParser()
    add_sources(parser, required=True)
    log = SHIPPED_DATA / "logs" / f"{persona}.json"
    indices = make_build_spec(
        parser.parse_args(
            ["--persona", persona, "--source", str(log), "--max-length", str(MAX_LENGTH)]
        )
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        DatasetBuilder(indices.plan, Ledger(), Path(folder)) as builder,
    ):
        for source, items in indices.sources:
            builder.add_source(source, items)
        samples = [built.made.sample for built in builder.samples() if built.side == TRAIN]
    if len(samples) < steps * STEP_SAMPLES:
        raise SystemExit(
            f"{persona} has {len(samples)} samples, {steps * STEP_SAMPLES} are needed for {steps} "
            "steps."
        )
    return samples[: steps * STEP_SAMPLES]


def load_short_samples(steps: int) -> list[Any]:
    """Load one-turn samples of 100 to 150 tokens under a card of two lines, from the shipped
    synthetic dialogues.
    """
    from personas.models.base_model import locate
    from personas.models.loading import load_tokenizer
    from personas.prompt.renderer import Renderer, system_card
    from personas.schemas.chat import Turn

    renderer = Renderer(load_tokenizer(locate("embedded")))
    card = system_card(SHORT_CARD)
    lines = (
        (SHIPPED_DATA / "synthetic" / "all_characters_synthetic.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    turns = [json.loads(line)["messages"] for line in lines]
    pairs = (pair for talk in turns for pair in zip(talk[::2], talk[1::2], strict=True))
    rendered = (
        renderer.sample(card, [Turn("Guest", ask["content"])], reply["content"])
        for ask, reply in pairs
    )
    samples = [sample for sample in rendered if len(sample.ids) in SHORT_TOKENS]
    if len(samples) < steps * STEP_SAMPLES:
        raise SystemExit(
            f"There are {len(samples)} short samples, {steps * STEP_SAMPLES} are needed."
        )
    return samples[: steps * STEP_SAMPLES]


def baseline_trainer(samples: Sequence[Any], scratch: str) -> tuple[Any, Callable[[], None]]:
    """Create the baseline's trainer, and the function that runs it."""
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    from personas.models.base_model import locate
    from personas.models.loading import load_model, load_tokenizer
    from trainer.train.sft_trainer import make_hf_dataset

    base = locate("embedded")
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    trainer = SFTTrainer(
        model=load_model(
            base, "bfloat16", quantization_config=quantisation, device_map={"": "cpu"}
        ),
        args=SFTConfig(
            output_dir=scratch,
            per_device_train_batch_size=BASELINE_BATCH_SIZE,
            gradient_accumulation_steps=STEP_SAMPLES // BASELINE_BATCH_SIZE,
            gradient_checkpointing=True,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            bf16=True,
            use_cpu=True,
            seed=SEED,
            max_length=MAX_LENGTH,
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
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    return trainer, trainer.train


def own_trainer(samples: Sequence[Any], scratch: str) -> tuple[Any, Callable[[], None]]:
    """Create our trainer as in a run, and the function that runs it."""
    from personas.models.base_model import locate
    from personas.models.loading import load_tokenizer
    from personas.schemas.hyperparameters import Hyperparameters
    from personas.schemas.training import TrainingRequest
    from trainer.estimate.memory_check import available_memory_bytes
    from trainer.estimate.workload import workload_of
    from trainer.machine import probe_machine
    from trainer.recipe.machine_fit import fit_to_hardware, memory_test, merge_batches
    from trainer.recipe.recipe_file import requested_recipe
    from trainer.train.sft_trainer import make_sft_trainer, run_training_loop
    from trainer.train.trainer_base import StageInputs

    values = Hyperparameters(
        num_train_epochs=1,
        per_device_train_batch_size=OWN_BATCH_SIZE,
        gradient_accumulation_steps=STEP_SAMPLES // OWN_BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        lora_r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        warmup_ratio=0.0,
        max_length=MAX_LENGTH,
        seed=SEED,
    )
    recipe = requested_recipe(
        TrainingRequest(job_name="bench", task_type="dialogue", hyperparameters=values)
    )
    base = locate("embedded")
    machine = probe_machine()
    recipe = fit_to_hardware(recipe, machine)
    if not machine.has_cuda:  # as in `fit_to_machine`
        work = workload_of(samples, ())
        fits = memory_test(base, work, machine, available_memory_bytes(machine))
        recipe = merge_batches(recipe, work, fits)
    order = _by_length_in_steps(samples)
    stage = StageInputs(samples, (), recipe, lambda event: None, order=order)
    trainer = make_sft_trainer(base, load_tokenizer(base), stage, Path(scratch))
    return trainer, lambda: run_training_loop(trainer)


def _by_length_in_steps(samples: Sequence[Any]) -> list[int]:
    """Sort the samples of each optimiser step by length; the samples of a step stay the same."""
    places = range(len(samples))
    steps = (places[start : start + STEP_SAMPLES] for start in range(0, len(samples), STEP_SAMPLES))
    return [
        place
        for step in steps
        for place in sorted(step, key=lambda place: -len(samples[place].ids))
    ]


def measure_training(make_trainer: str, persona: str, steps: int) -> dict[str, Any]:
    """Train this many steps; returns `seconds`, `tokens` (unpadded) and `losses` per step."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.begun)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any
        ) -> None:
            if "loss" in logs:
                losses.append(logs["loss"])

    seconds: list[float] = []
    losses: list[float] = []
    samples = load_short_samples(steps) if persona == SHORT else load_samples(persona, steps)
    with tempfile.TemporaryDirectory() as scratch:
        trainer, run = {"plain": baseline_trainer, "ours": own_trainer}[make_trainer](
            samples, scratch
        )
        draw = torch.Generator().manual_seed(SEED)
        for name, weight in sorted(trainer.model.named_parameters()):
            if ".lora_A." in name:  # the same first weights; B begins as zero
                weight.data.copy_(
                    torch.empty(weight.shape).uniform_(-1, 1, generator=draw)
                    / weight.shape[1] ** 0.5
                )
        trainer.add_callback(Clock())
        run()
    lengths = [len(sample.ids) for sample in samples]
    tokens = [
        sum(lengths[start : start + STEP_SAMPLES]) for start in range(0, len(lengths), STEP_SAMPLES)
    ]
    return {"seconds": seconds, "tokens": tokens, "losses": losses}


def run_benchmark(personas: Sequence[str], steps: int) -> dict[str, Any]:
    """Run all measurements; keys as in the file. Rates are medians of the steps after the second of
    each round.
    """
    return {**_measure_long(personas, steps), **_measure_short()}


def _measure_short() -> dict[str, Any]:
    """Measure short samples under a short card, with both as people run them."""
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    for number in range(SHORT_ROUNDS):
        for make_trainer, rounds in found.items():
            print(f"short samples, round {number + 1}: {make_trainer} …", file=sys.stderr)
            command = ["--measure", make_trainer, SHORT, str(SHORT_STEPS)]
            environment = _environment(tuned=make_trainer == "ours")
            figures, _ = measure_in_subprocess(
                [sys.executable, "-m", "benchmarks.training_speed", *command], environment
            )
            rounds.append(figures)
    rates = {key: _rate(rounds) for key, rounds in found.items()}
    losses = {
        key: statistics.fmean(loss for r in rounds for loss in r["losses"])
        for key, rounds in found.items()
    }
    return {
        "ratio_short": rates["ours"] / rates["plain"],
        "loss_ours_short": losses["ours"],
        "loss_plain_short": losses["plain"],
        "tokens_per_s_ours_short": rates["ours"],
        "tokens_per_s_plain_short": rates["plain"],
        "tokens_per_sample_short": statistics.fmean(t for r in found["ours"] for t in r["tokens"])
        / STEP_SAMPLES,
    }


def _measure_long(personas: Sequence[str], steps: int) -> dict[str, Any]:
    """Measure the shipped personas' conversations under their cards."""
    found: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    peaks: dict[tuple[str, bool], int] = {}
    for persona in personas:
        for tuned in (False, True):
            for make_trainer in ("plain", "ours"):
                print(
                    f"{persona}: {make_trainer}, allocator {'tuned' if tuned else 'as it is'} …",
                    file=sys.stderr,
                )
                figures, peak = measure_in_subprocess(
                    [
                        sys.executable,
                        "-m",
                        "benchmarks.training_speed",
                        "--measure",
                        make_trainer,
                        persona,
                        str(steps),
                    ],
                    _environment(tuned),
                )
                found.setdefault((make_trainer, tuned), []).append(figures)
                peaks[make_trainer, tuned] = max(peak, peaks.get((make_trainer, tuned), 0))
    rates = {key: _rate(rounds) for key, rounds in found.items()}
    losses = {
        key: statistics.fmean(loss for r in rounds for loss in r["losses"])
        for key, rounds in found.items()
    }
    tokens_a_sample = (
        statistics.fmean(t for r in found["ours", True] for t in r["tokens"]) / STEP_SAMPLES
    )
    return {
        "ratio": rates["ours", True] / rates["plain", False],
        "ratio_same_allocator": rates["ours", True] / rates["plain", True],
        "ratio_plain_allocator": rates["ours", False] / rates["plain", False],
        "loss_ours": losses["ours", True],
        "loss_plain": losses["plain", False],
        "tokens_per_s_ours": rates["ours", True],
        "tokens_per_s_plain": rates["plain", False],
        "tokens_per_s_ours_plain_allocator": rates["ours", False],
        "tokens_per_s_plain_tuned_allocator": rates["plain", True],
        "samples_per_s_ours": rates["ours", True] / tokens_a_sample,
        "samples_per_s_plain": rates["plain", False] / tokens_a_sample,
        "peak_bytes_ours": peaks["ours", True],
        "peak_bytes_plain": peaks["plain", False],
        "steps": steps * len(personas),
        "tokens_per_sample": tokens_a_sample,
    }


def _rate(rounds: Sequence[dict[str, Any]]) -> float:
    """Compute unpadded tokens per second."""
    steps = (
        zip(found["tokens"][WARM_STEPS:], found["seconds"][WARM_STEPS:], strict=True)
        for found in rounds
    )
    return float(statistics.median(tokens / seconds for step in steps for tokens, seconds in step))


def _environment(tuned: bool) -> dict[str, str]:
    """Return the environment, with or without the allocator's settings, such that no restart is
    needed.
    """
    bare = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_SETTINGS}
    return {**bare, **(ALLOCATOR_SETTINGS if tuned else {}), RESTARTED_VARIABLE: "1"}


def format_table(figures: dict[str, Any]) -> str:
    """Format the figures for people."""
    lines = [f"{'':34}{'tokens/s':>10}{'samples/s':>11}{'memory':>10}{'loss':>8}"]
    for label, key in (("plain, as people run it", "plain"), ("ours, as shipped", "ours")):
        lines.append(
            f"{label:34}{figures[f'tokens_per_s_{key}']:10.0f}{figures[f'samples_per_s_{key}']:11.2f}"
            f"{figures[f'peak_bytes_{key}'] / 2**30:6.2f} GiB{figures[f'loss_{key}']:8.4f}"
        )
    lines.append(
        f"{'plain, allocator tuned':34}{figures['tokens_per_s_plain_tuned_allocator']:10.0f}"
    )
    lines.append(
        f"{'ours, allocator as it is':34}{figures['tokens_per_s_ours_plain_allocator']:10.0f}"
    )
    lines.append(
        f"ratio {figures['ratio']:.2f}, with the same allocator settings "
        f"{figures['ratio_same_allocator']:.2f}, "
        f"losses {figures['loss_ours'] / figures['loss_plain'] - 1:+.2%}"
    )
    for label, key in (("short samples: plain", "plain"), ("short samples: ours", "ours")):
        rate = figures[f"tokens_per_s_{key}_short"]
        each = figures["tokens_per_sample_short"]
        lines.append(
            f"{label:34}{rate:10.0f}{rate / each:11.2f}{'':14}{figures[f'loss_{key}_short']:8.4f}"
        )
    difference = figures["loss_ours_short"] / figures["loss_plain_short"] - 1
    lines.append(f"ratio {figures['ratio_short']:.2f}, losses {difference:+.2%}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.training_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--personas", nargs="+", default=PERSONAS, help="one a round (default: all that ship)"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"of each round (default: {STEPS})"
    )
    parser.add_argument(
        "--measure", nargs=3, metavar=("WAY", "PERSONA", "STEPS"), help="one measurement, as JSON"
    )
    options = parser.parse_args()
    if options.measure:
        configure_process(niceness=0, threads=None)
        make_trainer, persona, steps = options.measure
        print(json.dumps(measure_training(make_trainer, persona, int(steps))))
        return 0
    figures = run_benchmark(options.personas, options.steps)
    print(format_table(figures))
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(
        json.dumps({**figures, "machine": machine, "versions": versions}, indent=2) + "\n"
    )
    print(f"written to {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
