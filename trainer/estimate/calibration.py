"""Compares predicted with measured memory and time on short runs in separate processes."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from personas.errors import TrainingError
from personas.home.job_material import ShippedData
from personas.models.base_model import locate
from personas.models.loading import load_tokenizer
from trainer.machine import total_memory_bytes

CASE_PERSONA = "ballast"
CASE_DIALOGUE = ShippedData.from_source_tree().general / "dialogue.jsonl"
EMBEDDED_MODEL = "embedded"
MEDIUM_MODEL = "llama-30m"
LARGE_MODEL = "qwen2-340m"
LONG_HISTORY_SETTINGS: Mapping[str, object] = MappingProxyType(
    {"history_turns": 64, "session_gap_minutes": 720}
)
"""Makes few, long conversations, so that prompts reach far back."""
SHAPE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
CASE_MODEL_SHAPES = {
    MEDIUM_MODEL: ("llama", 384, 1024, 8, 6, 2),
    LARGE_MODEL: ("qwen2", 896, 4864, 20, 14, 2),
}
"""Model type and `SHAPE_KEYS` of models with random weights: what they take does not depend on
their training.
"""
CALIBRATION_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
RUN_TIMEOUT_S = 900


@dataclass(frozen=True)
class CalibrationCase:
    """A run of a few steps. `what` it trains: `persona` or `dialogue`; `settings` are changes to
    demo-cpu.
    """

    name: str
    what: str
    settings: Mapping[str, object]
    base: str = EMBEDDED_MODEL
    steps: int = field(default=3)

    @property
    def arguments(self) -> list[str]:
        """Arguments of `python -m trainer train`."""
        if self.what == "persona":
            arguments = ["--persona", CASE_PERSONA]
        else:
            arguments = ["--dialogue", "--dataset", str(CASE_DIALOGUE)]
        settings = {"max_steps": self.steps, "heldout_share": 0.06, **self.settings}
        for name, value in settings.items():
            arguments += ["--set", f"{name}={value}"]
        return arguments


def _batch_settings(rows: int, accumulation: int = 1, /, **others: object) -> dict[str, object]:
    return {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        **others,
    }


CASES = (
    CalibrationCase("demo-cpu as it ships", "persona", {}),
    CalibrationCase("demo-cpu as it ships, thirty steps", "persona", {}, steps=30),
    CalibrationCase("one sample at a time", "persona", _batch_settings(1, 4)),
    CalibrationCase("activations computed twice", "persona", {"gradient_checkpointing": "true"}),
    CalibrationCase(
        "eight at a time, up to 512 tokens", "persona", _batch_settings(8, max_length=512)
    ),
    CalibrationCase(
        "up to 1024 tokens", "persona", _batch_settings(2, max_length=1024, **LONG_HISTORY_SETTINGS)
    ),
    CalibrationCase(
        "sixteen short ones, not quantised",
        "dialogue",
        _batch_settings(16, max_length=160, quant_type="none"),
    ),
    CalibrationCase(
        "rank 64, optimiser in 8 bits",
        "dialogue",
        _batch_settings(4, lora_r=64, optim="adamw_8bit"),
    ),
    CalibrationCase(
        "float32", "dialogue", _batch_settings(2, precision="fp32", quant_type="none", lora_r=8)
    ),
    CalibrationCase(
        "no dropout, attention only",
        "dialogue",
        _batch_settings(8, lora_dropout=0, target_modules="q_proj,v_proj"),
    ),
    CalibrationCase(
        "30 M weights, sixteen at a time", "dialogue", _batch_settings(16), MEDIUM_MODEL
    ),
    CalibrationCase("340 M weights", "dialogue", _batch_settings(2, 2), LARGE_MODEL),
    CalibrationCase(
        "340 M weights, computed twice",
        "persona",
        _batch_settings(2, gradient_checkpointing="true"),
        LARGE_MODEL,
        steps=2,
    ),
)
QUICK_CASES = (CASES[0], CASES[2], CASES[10])  # cases that take a minute or two


def make_random_model(name: str, folder: Path) -> None:
    """Create a model of one of `CASE_MODEL_SHAPES` with random weights and the embedded model's
    tokenizer.
    """
    import torch  # takes seconds
    from transformers import AutoConfig, AutoModelForCausalLM  # as above

    tokenizer = load_tokenizer(locate(EMBEDDED_MODEL))
    model_type, *sizes = CASE_MODEL_SHAPES[name]
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        **dict(zip(SHAPE_KEYS, sizes, strict=True)),
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class CalibrationResult:
    """The prediction and measurement of a run. `memory` is the prediction by part."""

    name: str
    base_model: str
    settings: dict[str, str]
    longest_tokens: int
    predicted_bytes: int
    measured_bytes: int
    predicted_s: float
    measured_s: float
    basis: str
    memory: dict[str, int]

    @property
    def memory_ratio(self) -> float:
        """Predicted by measured memory."""
        return self.predicted_bytes / self.measured_bytes

    @property
    def time_ratio(self) -> float:
        """Predicted by measured time."""
        return self.predicted_s / self.measured_s


def run_calibration(
    cases: Iterable[CalibrationCase], folder: Path, say: Callable[[str], None]
) -> list[CalibrationResult]:
    """Run each case in an empty folder. Raises `TrainingError` if one fails."""
    results = []
    for number, case in enumerate(cases, 1):
        say(f"{number}: {case.name} …")
        result = _run_case(case, folder, folder / f"run-{number}")
        memory = f"{result.memory_ratio:.2f} of {result.measured_bytes / 2**30:.2f} GiB"
        say(f"   {memory}, {result.time_ratio:.2f} of {result.measured_s:.0f} s")
        results.append(result)
    return results


def _run_case(case: CalibrationCase, folder: Path, job: Path) -> CalibrationResult:
    home = folder / "home"
    base = case.base
    home.mkdir(mode=0o700, exist_ok=True)
    if base != EMBEDDED_MODEL:
        base = str(folder / case.base)
        if not Path(base).exists():
            make_random_model(case.base, Path(base))
    places = ["--home", str(home), "--out", str(job)]
    _run_trainer(["train", *case.arguments, "--base-model", base, *places, "--make-only"])
    # Without earlier runs, which show how fast this machine is.
    no_home = str(folder / "nobody")
    losses = ["--card", "losses"]
    planned = _run_trainer(["run", str(job), "--dry-run", "--json", "--home", no_home, *losses])
    plan = json.loads(planned.splitlines()[-1])
    _run_trainer(["run", str(job), "--home", str(home), "--ignore-memory", *losses])
    prediction = next(recipe for recipe in plan["recipes"] if recipe["recipe"] == plan["recipe"])
    report = json.loads((job / "adapter" / "report" / "training.json").read_text(encoding="utf-8"))
    return CalibrationResult(
        name=case.name,
        base_model=case.base,
        settings=dict(pair.split("=", 1) for pair in case.arguments if "=" in pair),
        longest_tokens=plan["longest_tokens"],
        predicted_bytes=prediction["memory_bytes"],
        measured_bytes=report["peak_bytes"],
        predicted_s=prediction["seconds"],
        measured_s=report["seconds"],
        basis=prediction["basis"],
        memory=prediction["memory"],
    )


def _run_trainer(arguments: Sequence[str]) -> str:
    """Return the output of `python -m trainer …`."""
    # -P: the current folder may have a trainer.py of somebody's own.
    command = [sys.executable, "-P", "-m", "trainer", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or error.stdout.strip()).splitlines()[-1:]
        failed = f"python -m trainer {' '.join(arguments)} failed: {''.join(last)}"
        raise TrainingError(failed, "Run it alone.") from error
    except subprocess.TimeoutExpired as error:
        failed = f"{arguments[0]} took longer than {RUN_TIMEOUT_S} s."
        raise TrainingError(failed, "Try again when less is running.") from error
    return done.stdout


def calibration_json(results: Iterable[CalibrationResult]) -> dict[str, Any]:
    """Return the published object of `predictions --json`."""
    versions = {"python": platform.python_version()}
    for name in CALIBRATION_PACKAGES:
        versions[name] = importlib.metadata.version(name)
    runs = []
    for result in results:
        ratios = {
            "memory_ratio": round(result.memory_ratio, 3),
            "time_ratio": round(result.time_ratio, 3),
        }
        runs.append(asdict(result) | ratios)
    machine = {
        "cores": os.cpu_count(),
        "memory_bytes": total_memory_bytes(),
        "system": platform.platform(terse=True),
    }
    return {"machine": machine, "versions": versions, "runs": runs}


def calibration_markdown(results: dict[str, Any]) -> str:
    """Render the results as a Markdown page."""
    machine = results["machine"]
    versions = results["versions"]
    runs = results["runs"]
    gib = 2**30
    parts: dict[str, None] = {}
    measured_rows: list[str] = []
    memory_rows: list[str] = []
    settings_lines: list[str] = []
    for run in runs:
        parts |= dict.fromkeys(run["memory"])
    for run in runs:
        measured_rows.append(
            f"| {run['name']} | {run['base_model']} | {run['longest_tokens']} | "
            f"{run['predicted_bytes'] / gib:.2f} GiB "
            f"| {run['measured_bytes'] / gib:.2f} GiB | {run['memory_ratio']:.2f} | "
            f"{run['predicted_s']:.0f} s "
            f"| {run['measured_s']:.0f} s | {run['time_ratio']:.2f} |"
        )
        mebibytes = [str(run["memory"].get(part, 0) >> 20) for part in parts]
        memory_rows.append(f"| {run['name']} | {' | '.join(mebibytes)} |")
        settings = [f"{key}={value}" for key, value in run["settings"].items()]
        settings_lines.append(f"- {run['name']}: {', '.join(settings)}")
    packages = [f"{name} {version}" for name, version in versions.items()]
    lines = [
        "# Predictions and measurements",
        "",
        "Generated by `python -m trainer predictions`, which plans each configuration and then "
        "runs it for a few",
        "steps in its own process. Memory is the peak in the run's report; time covers the whole "
        "run with a score",
        "card of losses alone (`--card losses`). Both are predicted before a model is loaded. "
        "Unnamed settings are",
        "those of demo-cpu.",
        "",
        f"{machine['cores']} cores, {machine['memory_bytes'] / gib:.0f} GiB, {machine['system']}; "
        f"{', '.join(packages)}",
        "",
        "| configuration | base model | longest | memory predicted | measured | ratio "
        "| time predicted | measured | ratio |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
        *measured_rows,
        "",
        f"Memory: {_worst_ratio(runs, 'memory_ratio')} Time: {_worst_ratio(runs, 'time_ratio')} "
        f"Basis: {runs[0]['basis']}.",
        "",
        "## Predicted memory by part (MiB)",
        "",
        f"| configuration | {' | '.join(parts)} |",
        f"| --- |{' --: |' * len(parts)}",
        *memory_rows,
        "",
        "## Settings",
        "",
        *settings_lines,
    ]
    return "\n".join(lines) + "\n"


def _worst_ratio(runs: Iterable[dict[str, Any]], key: str) -> str:
    ratios = [run[key] for run in runs]
    return f"from {min(ratios):.2f} to {max(ratios):.2f} of the measurement."
