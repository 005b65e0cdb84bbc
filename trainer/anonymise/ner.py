"""Named entity recognition with an installed spaCy or GLiNER model; nothing is downloaded."""

import importlib.metadata
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import constants

ANY_LANGUAGE = ""
GLINER_LABELS = {"person": "PERSON", "street address": "STREET_ADDRESS"}
GLINER_THRESHOLD = 0.5
SPACY_LABELS = {"PERSON": "PERSON", "PER": "PERSON"}
SPACY_SIZE_SUFFIXES = ("_trf", "_lg", "_md", "_sm")
"""Preference among several models of a language."""
log = logging.getLogger(__name__)
NerFinding = tuple[str, int, int, float]
"""(kind, start, end, score)."""


class NerModel(Protocol):
    """A model that finds people and addresses; `name` is for reports."""

    @property
    def name(self) -> str: ...

    def find(self, text: str) -> list[NerFinding]: ...


@dataclass(frozen=True)
class SpacyNer:
    """A spaCy pipeline for one language, or for many ("xx")."""

    name: str
    pipeline: Any

    def find(self, text: str) -> list[NerFinding]:
        """Find people."""
        found = self.pipeline(text).ents
        return [(SPACY_LABELS[e.label_], e.start_char, e.end_char, 1.0) for e in found if e.label_ in SPACY_LABELS]


@dataclass(frozen=True)
class GlinerNer:
    """A GLiNER model, for any language."""

    name: str
    model: Any

    def find(self, text: str) -> list[NerFinding]:
        """Find people and addresses."""
        found = self.model.predict_entities(text, list(GLINER_LABELS), threshold=GLINER_THRESHOLD)
        return [(GLINER_LABELS[e["label"]], e["start"], e["end"], float(e["score"])) for e in found]


def installed_models() -> dict[str, NerModel]:
    """Return the installed models by language ("" for any); empty without any."""
    return {**_spacy(), **_gliner()}


def _spacy() -> dict[str, NerModel]:
    models = sorted(point.name for point in importlib.metadata.entry_points(group="spacy_models"))
    if not models or importlib.util.find_spec("spacy") is None:
        return {}
    import spacy  # type: ignore[import-not-found, unused-ignore]  # optional

    chosen: dict[str, str] = {}
    for size in reversed(SPACY_SIZE_SUFFIXES):
        chosen |= {name[:2]: name for name in models if name.endswith(size)}
    found: dict[str, NerModel] = {}
    for language, name in chosen.items():
        try:
            found[ANY_LANGUAGE if language == "xx" else language] = SpacyNer(f"spaCy {name}", spacy.load(name))
        except (OSError, ValueError, ImportError) as error:
            log.warning("spaCy's model %s cannot be used: %s", name, error)
    return found


def _gliner() -> dict[str, NerModel]:
    if importlib.util.find_spec("gliner") is None:
        return {}
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*[gG][lL][iI][nN][eE][rR]*")):
        name = folder.name.removeprefix("models--").replace("--", "/")
        try:
            from gliner import GLiNER  # type: ignore[import-not-found, unused-ignore]  # optional

            return {ANY_LANGUAGE: GlinerNer(f"GLiNER {name}", GLiNER.from_pretrained(name, local_files_only=True))}
        except (OSError, ValueError, ImportError) as error:
            log.warning("GLiNER's model %s cannot be used: %s", name, error)
    return {}
