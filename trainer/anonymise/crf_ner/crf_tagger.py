"""CRF tagger: loads the model file, and finds people and addresses in a text."""

import hashlib
import json
import logging
import lzma
from dataclasses import dataclass, field
from pathlib import Path

import pycrfsuite  # type: ignore[import-untyped]

from personas.errors import UnderstudyError
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.crf_ner.token_features import FeatureExtractor
from trainer.anonymise.crf_ner.tokeniser import is_alphabetic, is_east_asian, tokenise

MODEL_FILE = Path(__file__).parent / "model.crf.xz"
MODEL_FORMAT = 1
LABEL_KINDS = {"P": "PERSON", "A": "STREET_ADDRESS"}
"""Kinds by a label's second letter; other labels ("X": another name, "O": nothing) are no
findings.
"""
MIN_PROBABILITY = 0.2
"""Threshold for adding a token: a missed name harms somebody, a false one costs a word. Found by
trial: lower values find little more.
"""
NO_KINDS = dict.fromkeys(LABEL_KINDS, 0.0)
log = logging.getLogger(__name__)


class TaggerError(UnderstudyError):
    """The model file is missing or damaged."""


@dataclass(frozen=True)
class CrfTagger:
    """Tagger of people and street addresses in Latin script. Not thread-safe."""

    name: str
    """Identity of the model, for reports: its size and the start of its checksum."""
    _crf: pycrfsuite.Tagger = field(repr=False)
    _features: FeatureExtractor = field(repr=False)
    _model: bytes = field(repr=False)
    """Buffer that crfsuite reads in place, so it must live as long as the tagger."""

    def find(self, text: str) -> list[tuple[str, int, int, float]]:
        """Return (kind, start, end, score) in order: PERSON and STREET_ADDRESS, offsets in code
        points.

        The score is the probability of the least probable token. Empty for mostly Chinese, Japanese
        or Korean texts.
        """
        if is_east_asian(text):
            return []
        cut = tokenise(text)
        if not cut.words:
            return []
        self._crf.set(self._features.of(cut.words))
        labels = self._crf.tag()
        likely = [self._likely(label, index) for index, label in enumerate(labels)]
        found = []
        for kind, first, last in label_runs(raise_probable_labels(labels, likely)):
            start = cut.starts[first]
            end = cut.ends[last]
            if is_alphabetic(text[start:end]):
                score = min(likely[index][kind] for index in range(first, last + 1))
                found.append((LABEL_KINDS[kind], start, end, round(score, 3)))
        return found

    def _likely(self, label: str, index: int) -> dict[str, float]:
        """Return the probability of each kind at a token; zeros if its best label leaves too little
        for any.
        """
        marginal = self._crf.marginal
        if label[1:] not in LABEL_KINDS and marginal(label, index) > 1 - MIN_PROBABILITY:
            return NO_KINDS
        likely: dict[str, float] = {}
        for kind in LABEL_KINDS:
            likely[kind] = marginal("B" + kind, index) + marginal("I" + kind, index)
        return likely


def raise_probable_labels(labels: list[str], likely: list[dict[str, float]]) -> list[str]:
    """Add tokens to the best labels that are no finding there but probable enough to be one."""
    found: list[str] = []
    for label, kinds in zip(labels, likely, strict=True):
        kind = max(kinds, key=kinds.__getitem__)
        if label[1:] not in LABEL_KINDS and kinds[kind] >= MIN_PROBABILITY:
            continues = bool(found) and found[-1][1:] == kind
            label = ("I" if continues else "B") + kind
        found.append(label)
    return found


def label_runs(labels: list[str]) -> list[tuple[str, int, int]]:
    """Yield (letter of the kind, first, last) for every run "BP IP …" or "BA IA …"."""
    found: list[tuple[str, int, int]] = []
    for index, label in enumerate(labels):
        kind = label[1:]
        if kind not in LABEL_KINDS:
            continue
        if label[0] == "I" and found and found[-1][0] == kind and found[-1][2] == index - 1:
            found[-1] = (kind, found[-1][1], index)
        else:
            found.append((kind, index, index))
    return found


def load_tagger(path: Path = MODEL_FILE) -> CrfTagger | None:
    """Load the tagger; None, with the reason in the log, if the model file is missing or
    damaged.
    """
    try:
        head, model = read_model(path)
        crf = pycrfsuite.Tagger()
        crf.open_inmemory(model)
    except (TaggerError, ValueError) as error:
        log.warning("Names and addresses are found by rules only. %s", error)
        return None
    return CrfTagger(
        f"CRF {len(model) / 1e6:.1f} MB {head['sha256'][:8]}",
        crf,
        FeatureExtractor(load_gazetteer().of),
        model,
    )


def read_model(path: Path) -> tuple[dict[str, str], bytes]:
    """Read the model file as (head, crfsuite model). Raises `TaggerError`."""
    advice = "Train it anew: python -m tools.name_tagger.train"
    try:
        line, _, packed = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise TaggerError(f"{path.name} cannot be read: {error.strerror}.", advice) from error
    try:
        head = json.loads(line)
        whole = (
            head["format"] == MODEL_FORMAT and head["sha256"] == hashlib.sha256(packed).hexdigest()
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TaggerError(f"{path.name} is no model of the tagger's.", advice) from error
    if not whole:
        raise TaggerError(f"{path.name} is damaged, or of another format.", advice)
    return head, lzma.decompress(packed)
