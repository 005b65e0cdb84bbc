"""Files of the effect probe: its replies in a version's folder, and what engines showed of them in
the home's cache.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from personas.home.adapters import EFFECT_PROBE_FILE, WEIGHTS_FILE, require_manifest
from personas.home.atomic_files import write_model, write_private_file
from personas.schemas.effect_probe import EffectProbe, EffectResult

RESULTS_FOLDER = "cache/effects"
log = logging.getLogger(__name__)


def write_effect_probe(folder: Path, probe: EffectProbe) -> None:
    """Write the probe of the adapter in a folder, readable by the bot's user alone. Raises
    `OSError`.
    """
    # Without line breaks: a probe has some five thousand numbers.
    write_private_file(folder / EFFECT_PROBE_FILE, probe.model_dump_json().encode() + b"\n")


@dataclass(frozen=True)
class StoredProbe:
    """A probe, and the digest of its file."""

    probe: EffectProbe
    digest: str


def read_effect_probe(folder: Path, base_model_hash: str) -> StoredProbe | None:
    """Read the probe of a verified adapter over this base model.

    None for a version without one. One that cannot be read, or was measured of other weights or
    over another base model, is logged and left aside: it says nothing of this adapter. Raises
    `AdapterError` for an adapter without a manifest.
    """
    file = folder / EFFECT_PROBE_FILE
    weights = require_manifest(folder).checksums[WEIGHTS_FILE]
    try:
        stored = load_effect_probe(folder)
    except (OSError, ValidationError):
        log.warning("%s cannot be read: the version's effect is not checked", file)
        return None
    if stored is None:
        return None
    probe = stored.probe
    if (probe.weights, probe.base_model_hash) != (weights, base_model_hash):
        log.warning("%s was measured of another adapter: the effect is not checked", file)
        return None
    return stored


def load_effect_probe(folder: Path) -> StoredProbe | None:
    """Read the probe in a folder, whatever adapter it is of; None without one. Raises `OSError` or
    `ValidationError`.
    """
    try:
        content = (folder / EFFECT_PROBE_FILE).read_bytes()
    except FileNotFoundError:
        return None
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return StoredProbe(EffectProbe.model_validate_json(content), digest)


class EffectResults:
    """What engines showed, by version and engine. A result that is on the disk is not measured
    again.

    Several processes may write into one home: each result is a file of its own.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / RESULTS_FOLDER
        self._results: dict[str, EffectResult] = {}

    def find(self, probe: str, engine: str, precision: str) -> EffectResult | None:
        """Return what an engine showed of a probe, by its digest, in a precision; None if it was
        not asked.
        """
        name = _file_name(probe, engine, precision)
        if name not in self._results:
            result = _read_result(self._folder / name)
            if result is not None:
                self._results[name] = result
        return self._results.get(name)

    def store(self, result: EffectResult) -> None:
        """Store a result. A disk that cannot be written to costs a further measurement later."""
        name = _file_name(result.probe, result.engine, result.precision)
        self._results[name] = result
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_model(self._folder / name, result)
        except OSError as error:
            log.warning(
                "the effect of %s %s is not stored: %s", result.persona, result.version, error
            )


def read_effect_results(home: Path) -> Iterator[EffectResult]:
    """Read all results of a home, those that cannot be read aside."""
    for file in sorted((home / RESULTS_FOLDER).glob("*.json")):
        result = _read_result(file)
        if result is not None:
            yield result


def _read_result(file: Path) -> EffectResult | None:
    try:
        return EffectResult.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _file_name(probe: str, engine: str, precision: str) -> str:
    key = "\0".join((probe, engine, precision))
    return f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json"
