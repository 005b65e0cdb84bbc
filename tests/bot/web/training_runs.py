"""Job folders of runs, as a trainer leaves them, for tests of what shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bot.store import TrainingJob
from bot.training.store import NewTrainingJob
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Done, Epoch, Phase, Progress, TrainerEvent
from tests.bot.web.conftest import DashboardClient

RECIPE: dict[str, Any] = {
    "quant_type": "nf4",
    "learning_rate": 0.001,
    "lr_scheduler_type": "cosine",
    "lora_r": 16,
    "target_modules": ["q_proj", "v_proj"],
    "num_train_epochs": 2.0,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "double_quant": True,
    "seed": 7,
}


def step(number: int, loss: float = 3.0, of: int = 20, **more: Any) -> Progress:
    """A step as the trainer tells it."""
    result = {"epoch": number / 10, "lr": 1e-3 / number, "tokens_per_s": 300.0, "eta_s": 2.0 * (of - number),
            "memory_bytes": 2**30 + number, "seconds": 2.0 * number}  # fmt: skip
    return Progress(step=number, of=of, loss=loss, **{**result, **more})


def epoch(number: int, at: int, loss: float = 2.5) -> Epoch:
    """The end of a pass."""
    return Epoch(
        epoch=number,
        train_loss=loss,
        eval_loss=loss + 0.1,
        seconds=20.0,
        samples_per_s=2.5,
        step=at,
    )


def whole_run(steps: int = 20) -> list[TrainerEvent]:
    """All that a run tells, in the order in which it does; its loss falls."""
    half = steps // 2
    first = [step(n, 4 - n / 10, steps) for n in range(1, half + 1)]
    second = [step(n, 4 - n / 10, steps) for n in range(half + 1, steps + 1)]
    result = [*first, epoch(1, half, 3.4), *second, epoch(2, steps, 2.6)]
    return [Phase(name="training"), *result, Done(adapter="adapter", seconds=60.0)]


def tell(folder: Path, *events: TrainerEvent) -> None:
    """Append events as the trainer does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(event.model_dump_json() + "\n" for event in events)


def put_run(folder: Path, recipe: dict[str, Any] | None = None, **more: Any) -> None:
    """`run.json`, which says what the run is held to."""
    folder.mkdir(parents=True, exist_ok=True)
    held = {"recipe": {**RECIPE, **(recipe or {})}, "base_model": "embedded", "threads": 2, "processes": 1,
            "chosen": []}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(held | more), encoding="utf-8")


def put_job(
    dashboard: DashboardClient, job_id: str, *, guild: int = 0, by: int = 0, **request: Any
) -> TrainingJob:
    """A job that waits, of which nothing has been told."""
    fields = {"job_name": job_id, "persona": "oda", **request}
    return dashboard.store.jobs.add(
        NewTrainingJob(job_id, guild, 0, by, TrainingRequest(**fields)), 1_000.0
    )


def folder_in(dashboard: DashboardClient, job_id: str) -> Path:
    """The folder of a job."""
    return dashboard.home / "jobs" / job_id
