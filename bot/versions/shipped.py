"""Makes the shipped adapters live versions of the shipped personas, until somebody trains their
own.
"""

import logging
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import SHIPPED_ORIGIN
from bot.store import ALL_GUILDS, JobResult, Store, TrainingJob
from bot.training.store import NewTrainingJob
from personas.errors import AdapterError
from personas.home.adapters import WEIGHTS_FILE, adapter_ref, install_adapter_folder
from personas.home.shipped_adapters import SHIPPED_ADVICE, find_shipped_adapters
from personas.schemas.training import AdapterManifest, TrainingRequest
from personas.schemas.training_events import ScoreSummary

SHIPPED_JOB_NAME = "shipped"
NOT_JUDGED_REASON = "It ships with the project and was not judged (measured: losses only)."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShippedVersions:
    """Installs the shipped adapters in a home, for all guilds.

    A persona gets its adapter as an ordinary version, which is live at once, unless it has a
    version or the operator has rewritten its card. A later release's adapter becomes a further
    version. It replaces the one before only where that is still live: a version of one's own, and
    a rollback to the base model, stay.
    """

    home: Path
    store: Store
    personas: PersonaRegistry

    def install(self, folder: Path, base_model: str, base_hash: str) -> None:
        """Install the adapters in `folder` that are made for this base model and not in the home
        yet.

        Reads and writes 10 MB for each. A damaged one is logged and left out: the base model
        answers. Raises `StoreError`.
        """
        for persona_id, (source, manifest) in find_shipped_adapters(folder, base_hash).items():
            try:
                self._install(persona_id, source, manifest, base_model)
            except (AdapterError, OSError) as error:
                log.error("the shipped version of %s is left out: %s", persona_id, error)

    def _install(
        self, persona_id: str, source: Path, manifest: AdapterManifest, base_model: str
    ) -> None:
        versions = self.store.versions
        before = self._newest_shipped(persona_id)
        if not self.personas.ships(persona_id) or self.personas.has_copy(persona_id):
            return
        if before is None and versions.ever_installed(persona_id):
            return  # they train their own
        weights = manifest.checksums.get(WEIGHTS_FILE, "")
        if before and before.shipped == weights:
            return
        new = NewTrainingJob(
            job_id=secrets.token_hex(5),
            guild_id=ALL_GUILDS,
            channel_id=0,
            requested_by=0,
            request=TrainingRequest(
                job_name=SHIPPED_JOB_NAME, base_model=base_model, persona=persona_id
            ),
        )
        now = time.time()
        # A crash leaves all of it or nothing; a copied folder has the same number next time.
        with self.store.atomic():
            version = versions.reserve(persona_id)
            target = adapter_ref(self.home, persona_id, version).folder
            install_adapter_folder(source, target, advice=SHIPPED_ADVICE)
            result = JobResult(
                adapter=str(target),
                seconds=0.0,
                scorecard=_unjudged(manifest.metrics),
                imported=True,
                shipped=weights,
            )
            self.store.jobs.add_imported(new, version, result, now)
            if versions.live(persona_id, ALL_GUILDS) == (before.version if before else None):
                versions.promote(persona_id, version, by=0, at=now, why=SHIPPED_ORIGIN)
        log.info("%s speaks with its shipped version, %s", persona_id, version)

    def _newest_shipped(self, persona_id: str) -> TrainingJob | None:
        for installed in reversed(self.store.versions.ever_installed(persona_id)):
            job = self.store.jobs.get(installed.job_id)
            if job and job.shipped:
                return job
        return None


def _unjudged(metrics: ScoreSummary) -> ScoreSummary:
    """Leave the verdict out: losses alone are too little for one, whatever the gate made of them."""
    update = {"verdict": "", "reasons": (NOT_JUDGED_REASON,), "advice": ()}
    return metrics.model_copy(update=update)
