"""The table of base models: what each takes on this machine, its speed, and the one recommended."""

import asyncio
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bot.models.measured_speeds import base_model_key, read_speeds
from bot.training.backends.trainer_environment import TRAINER_COMMAND, trainer_environment
from personas.models.base_model import EMBEDDED
from personas.models.catalogue import CatalogueModel, catalogue_models, find_model
from personas.models.model_fit import (
    MEASURED_HERE,
    RESERVE_BYTES,
    MachineCapacity,
    ModelFit,
    TrainingNeed,
    fit_model,
    recommend,
)
from personas.schemas.formatting import format_gib

SIZES_TIMEOUT_S = 120.0
WHOLE_TOKENS_PER_S = 10
"""From here on a speed is shown without decimals."""


@dataclass(frozen=True)
class TrainerSizes:
    """The trainer's view of this machine, and the lightest recipe for each model by its id on the hub.

    `error` says why there is none.
    """

    card_bytes: int = 0
    card_name: str = ""
    needs: Mapping[str, TrainingNeed] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class ModelTable:
    """The models of the catalogue on this machine, smallest first. `served` is the catalogue's model
    that BASE_MODEL names, if any.
    """

    machine: MachineCapacity
    base_model: str
    served: CatalogueModel | None
    fits: tuple[ModelFit, ...]
    recommended: ModelFit | None
    reason: str
    training_error: str = ""

    @property
    def shortage(self) -> str:
        """What of the recommended model does not fit at the moment; empty if all of it does."""
        return shortage_text(self.recommended, self.machine) if self.recommended else ""

    def fit_of(self, model: CatalogueModel) -> ModelFit:
        return next(fit for fit in self.fits if fit.model == model)

    def as_json(self) -> dict[str, Any]:
        """Return the published object of `models --json`; sizes in bytes."""
        return {
            "base_model": self.base_model,
            "machine": {
                "memory_bytes": self.machine.memory_bytes,
                "reserve_bytes": RESERVE_BYTES,
                "free_bytes": self.machine.free_bytes,
                "card_bytes": self.machine.card_bytes,
                "card": self.machine.card_name,
                "weight_bytes_per_s": round(self.machine.weight_bytes_per_s),
                "precision": self.machine.precision,
            },
            "recommended": self.recommended.model.name if self.recommended else None,
            "reason": self.reason,
            "shortage": self.shortage,
            "training_error": self.training_error,
            "models": [self._row(fit) for fit in self.fits],
        }

    def _row(self, fit: ModelFit) -> dict[str, Any]:
        model = fit.model
        training = fit.training
        return {
            "name": model.name,
            "title": model.title,
            "base_model": fit.base_model,
            "id": model.id,
            "gguf": model.gguf,
            "ollama": model.ollama,
            "parameters": model.parameters,
            "licence": model.licence,
            "licence_url": model.licence_url,
            "languages": model.languages,
            "context_tokens": model.context_tokens,
            "thinking": model.thinking,
            "system_role": model.has_system_role,
            "engine": fit.engine.engine,
            "engine_reason": fit.engine.reason,
            "precision": fit.engine.precision,
            "on_card": fit.engine.on_card,
            "serve_bytes": fit.engine.bytes,
            "train_bytes": training.bytes if training else None,
            "train_recipe": training.recipe if training else None,
            "disk_bytes": fit.disk_bytes,
            "fits": fit.fits,
            "tokens_per_s": round(fit.tokens_per_s, 1) if fit.tokens_per_s else None,
            "speed_basis": fit.speed_basis,
            "is_served": model == self.served,
            "checked": model.checked.isoformat(),
            "sources": list(model.sources),
        }


async def build_table(
    home: Path, base_model: str, command: Sequence[str] = TRAINER_COMMAND
) -> ModelTable:
    """Sum up every model here. Takes some seconds: the trainer predicts what trainings need, and the
    processor's speed is measured once a month.
    """
    sizes, speed = await asyncio.gather(
        read_trainer_sizes(command), asyncio.to_thread(_read_speed, home)
    )
    memory = psutil.virtual_memory()
    machine = MachineCapacity(
        memory_bytes=int(memory.total),
        free_bytes=int(memory.available) + psutil.Process().memory_info().rss,
        card_bytes=sizes.card_bytes,
        card_name=sizes.card_name,
        is_mac=platform.system() == "Darwin",
        weight_bytes_per_s=speed[0],
        precision=speed[1],
    )
    measured = await asyncio.to_thread(read_speeds, home)
    fits = [
        fit_model(model, machine, sizes.needs.get(model.id), measured)
        for model in catalogue_models()
    ]
    recommended = recommend(fits)
    return ModelTable(
        machine=machine,
        base_model=base_model,
        served=find_model(base_model_key(base_model)),
        fits=tuple(fits),
        recommended=recommended,
        reason=recommendation_text(recommended),
        training_error=sizes.error,
    )


async def read_trainer_sizes(command: Sequence[str] = TRAINER_COMMAND) -> TrainerSizes:
    """Ask the trainer what its recipes need on this machine."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(*command, "doctor", "--sizes", "--json", "--base-model", EMBEDDED),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=trainer_environment(os.environ, {}),
        )
    except OSError as error:
        reason = f"the trainer cannot be started: {error.strerror}"
        return TrainerSizes(error=reason)
    try:
        async with asyncio.timeout(SIZES_TIMEOUT_S):
            output, _ = await process.communicate()
        return parse_trainer_sizes(json.loads(output))
    except (TimeoutError, ValueError, LookupError, TypeError):
        return TrainerSizes(error="the trainer does not say what its recipes need")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def parse_trainer_sizes(answer: Mapping[str, Any]) -> TrainerSizes:
    """Read the answer of `trainer doctor --sizes --json`. Raises `LookupError` or `TypeError` for
    another object.
    """
    machine = answer["machine"]
    needs: dict[str, TrainingNeed] = {}
    for fit in answer["fits"]:
        known = needs.get(fit["model"])
        if known is None or int(fit["here_bytes"]) < known.bytes:
            needs[fit["model"]] = TrainingNeed(
                fit["recipe"], int(fit["here_bytes"]), bool(fit["fits_here"])
            )
    if not machine["has_cuda"]:
        return TrainerSizes(needs=needs)
    return TrainerSizes(int(machine["memory_bytes"]), str(machine["device"]), needs)


def _read_speed(home: Path) -> tuple[float, str]:
    # Loads torch, which takes a second or two.
    from bot.models.weight_read_speed import measured_speed

    speed = measured_speed(home)
    return speed.bytes_per_s, speed.precision


def recommendation_text(recommended: ModelFit | None) -> str:
    """Say why a model is recommended, or none."""
    if recommended is None:
        return "none of them trains here while it serves: keep the bundled model"
    rate = recommended.unloaded_tokens_per_s
    if rate is None:
        return (
            "the largest with an open licence that trains here while it serves; its speed is "
            "measured once it is used"
        )
    if recommended.is_slower_than_people_read:
        return (
            "the smallest with an open licence that trains here while it serves; it writes about "
            f"{rate:.1f} tokens per second, slower than people read"
        )
    return (
        "the largest with an open licence that trains here while it serves; it writes about "
        f"{rate:.0f} tokens per second, as fast as people read"
    )


def shortage_text(fit: ModelFit, machine: MachineCapacity) -> str:
    """Say what of a model does not fit into the main memory that is free at the moment; empty if all
    of it does.
    """
    serving = 0 if fit.engine.on_card else fit.engine.bytes
    training = fit.training.bytes if fit.training and not machine.card_bytes else 0
    free = format_gib(machine.free_bytes)
    if serving > machine.free_bytes:
        return (
            f"At the moment {free} of memory are free, too little to serve it "
            f"({format_gib(serving)}): close other programs first."
        )
    if serving + training > machine.free_bytes:
        return (
            f"At the moment {free} of memory are free, too little to train it while it serves "
            f"({format_gib(serving + training)}): close other programs before a training."
        )
    return ""


def speed_text(fit: ModelFit) -> str:
    """Return tokens per second in a few characters: `~` before an expected speed, a dash for none."""
    if fit.tokens_per_s is None:
        return "–"
    about = "" if fit.speed_basis == MEASURED_HERE else "~"
    digits = 1 if round(fit.tokens_per_s, 1) < WHOLE_TOKENS_PER_S else 0
    return f"{about}{fit.tokens_per_s:.{digits}f}"
