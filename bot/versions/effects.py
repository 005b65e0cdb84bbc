"""Effects of versions: what their training measured, and what the engines of this home showed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from personas.home.adapters import adapter_ref
from personas.home.effect_probe import load_effect_probe, read_effect_results
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import EffectProbe, EffectResult

REFUSED_VERDICTS = ("refused", "leaks")
UNMEASURED_TEXT = "not measured: trained elsewhere, with an earlier program, or for losses alone"


@dataclass(frozen=True)
class VersionEffect:
    """A version's effect. `probe` is None where it was not measured, `results` are the latest of
    each engine, the newest first.
    """

    persona_id: str
    version: str
    probe: EffectProbe | None
    results: tuple[EffectResult, ...]

    @property
    def refused(self) -> EffectResult | None:
        """The latest result of an engine that refuses the version, if one does."""
        return next((shown for shown in self.results if shown.verdict in REFUSED_VERDICTS), None)

    @property
    def measured_text(self) -> str:
        """What training measured, for people."""
        if self.probe is None:
            return UNMEASURED_TEXT
        return f"{self.probe.shift:+.3f} nats per token measured at training"

    @property
    def shown_texts(self) -> tuple[str, ...]:
        """What each engine showed, for people."""
        return tuple(map(result_text, self.results))


def result_text(result: EffectResult) -> str:
    """Describe what an engine showed, for people."""
    shown = (
        f"{result.shown_shift:+.3f} shown by {result.server} in {result.precision}, token by token "
        f"{result.strength:.0%} of the effect: {result.verdict}"
    )
    if result.cache:
        shown += (
            f"; its prompt cache changes {result.cache.gap:.2f} nats, another adapter "
            f"{result.cache.separation:.2f}"
        )
    return shown


def read_effects(home: Path, versions: Iterable[AdapterRef]) -> list[VersionEffect]:
    """Read the effects of versions from their adapter folders and the home's results."""
    results = _results_by_probe(home)
    return [_effect_of(version, results) for version in versions]


def list_version_effects(home: Path) -> list[VersionEffect]:
    """Read the effects of all versions in a home, by persona and version."""
    versions = []
    for folder in sorted((home / "models" / "persona_adapters").glob("*/*/")):
        if not folder.name.startswith("."):  # being deleted, or written
            versions.append(adapter_ref(home, folder.parent.name, folder.name))
    return read_effects(home, versions)


def latest_results(home: Path) -> list[EffectResult]:
    """Return the latest result of each version on each engine of a home, the newest first."""
    latest: dict[tuple[str, ...], EffectResult] = {}
    for result in sorted(read_effect_results(home), key=lambda one: one.at):
        key = (result.persona, result.version, result.server, result.precision)
        latest[key] = result
    return sorted(latest.values(), key=lambda one: one.at, reverse=True)


def _effect_of(version: AdapterRef, results: Mapping[str, Sequence[EffectResult]]) -> VersionEffect:
    try:
        stored = load_effect_probe(version.folder)
    except (OSError, ValidationError):
        stored = None
    if stored is None:
        return VersionEffect(version.persona_id, version.version, None, ())
    latest: dict[tuple[str, str], EffectResult] = {}
    for result in sorted(results.get(stored.digest, ()), key=lambda one: one.at):
        latest[result.server, result.precision] = result
    newest_first = sorted(latest.values(), key=lambda one: one.at, reverse=True)
    return VersionEffect(version.persona_id, version.version, stored.probe, tuple(newest_first))


def _results_by_probe(home: Path) -> Mapping[str, Sequence[EffectResult]]:
    by_probe = defaultdict[str, list[EffectResult]](list)
    for result in read_effect_results(home):
        by_probe[result.probe].append(result)
    return by_probe
