"""The manifest of a new adapter: what it was made from and with."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from personas.base_model import fingerprint
from personas.contracts import Manifest
from personas.prompt import PROMPT_VERSION
from trainer.frozen import Frozen
from trainer.report.training import Training

if TYPE_CHECKING:
    from trainer.run import Job

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


def manifest_of(job: Job, frozen: Frozen, caveats: tuple[str, ...], training: Training) -> Manifest:
    """The manifest, without checksums: those are taken when the folder is sealed."""
    spec, recipe = job.spec, frozen.used
    lora = {"r": recipe.lora_r, "alpha": recipe.lora_alpha, "dropout": recipe.lora_dropout}
    return Manifest(
        persona=spec.request.persona,
        version=spec.version,
        job_id=spec.job_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        base_model=job.base.name,
        base_model_hash=fingerprint(job.base),
        prompt_version=PROMPT_VERSION,
        lora={**lora, "target_modules": list(recipe.target_modules)},
        recipe=spec.request.recipe,
        hyperparameters=recipe.hyperparameters,
        training_precision=f"{recipe.quant_type} base, {recipe.precision} compute, float32 adapter",
        serving_precision=spec.serving_precision,
        dataset_hash=job.data.hash,
        dataset=job.data.counts,
        rights=job.data.rights,
        seed=recipe.seed,
        packages=frozen.packages,
        threads=frozen.threads,
        kernels=training.kernels,
        caveats=caveats,
        start_from=job.start.told if job.start else None,
        metrics=training.metrics,
        checksums={},
    )


def packages() -> dict[str, str]:
    """The versions of the packages that compute."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
