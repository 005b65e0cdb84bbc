"""The tagger: its model file, and the people and addresses that it finds in a text.

The file is one line of JSON (format, what it was trained with, SHA-256 of what follows), then the CRF as crfsuite
writes it, compressed with xz. The checksum comes first because crfsuite trusts a file's own offsets.
"""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
from dataclasses import dataclass, field
from pathlib import Path

import pycrfsuite  # type: ignore[import-untyped]

from personas.errors import UnderstudyError
from trainer.anonymise.tagger.features import Features
from trainer.anonymise.tagger.tokens import is_east_asian, is_written_out, tokens
from trainer.anonymise.tagger.vocabulary import vocabulary

MODEL = Path(__file__).parent / "model.crf.xz"
FORMAT = 1
KINDS = {"P": "PERSON", "A": "STREET_ADDRESS"}
"""A label's second letter to its kind; other labels ("X": another name, "O": nothing) are no findings."""
ENOUGH = 0.2
"""A token this probable is taken: what is missed harms somebody, what is taken wrongly costs a word. Chosen by trial:
lower finds little more."""

log = logging.getLogger(__name__)


class TaggerError(UnderstudyError):
    """The tagger's model file is missing or damaged."""


@dataclass(frozen=True)
class Tagger:
    """Finds people and street addresses in text in Latin letters. For one thread at a time."""

    name: str
    """Which model this is: its size and the start of its checksum, for reports."""
    _crf: pycrfsuite.Tagger = field(repr=False)
    _features: Features = field(repr=False)
    _model: bytes = field(repr=False)
    """crfsuite reads it where it lies, so it must live as long as the tagger."""

    def find(self, text: str) -> list[tuple[str, int, int, float]]:
        """(kind, start, end, score) in the order of the text: PERSON and STREET_ADDRESS, offsets in code points, the
        score the least probable token's probability. Nothing where Chinese, Japanese or Korean prevails."""
        if is_east_asian(text):
            return []
        cut = tokens(text)
        if not cut.words:
            return []
        self._crf.set(self._features.of(cut.words))
        labels = self._crf.tag()
        likely = [{kind: self._likely(kind, index) for kind in KINDS} for index in range(len(labels))]
        return [
            (
                KINDS[kind],
                cut.starts[first],
                cut.ends[last],
                round(min(likely[at][kind] for at in range(first, last + 1)), 3),
            )
            for kind, first, last in runs(raised(labels, likely))
            if is_written_out(text[cut.starts[first] : cut.ends[last]])
        ]

    def _likely(self, kind: str, index: int) -> float:
        """How probable it is that a token is part of such a name or address."""
        return float(self._crf.marginal("B" + kind, index) + self._crf.marginal("I" + kind, index))


def raised(labels: list[str], likely: list[dict[str, float]]) -> list[str]:
    """The best labels, with tokens added that are no finding in them but probable enough to be one."""
    found: list[str] = []
    for label, kinds in zip(labels, likely, strict=True):
        kind = max(kinds, key=kinds.__getitem__)
        if label[1:] not in KINDS and kinds[kind] >= ENOUGH:
            label = ("I" if found and found[-1][1:] == kind else "B") + kind
        found.append(label)
    return found


def runs(labels: list[str]) -> list[tuple[str, int, int]]:
    """(kind's letter, first, last) for every run "BP IP …" or "BA IA …"."""
    found: list[tuple[str, int, int]] = []
    for index, label in enumerate(labels):
        kind = label[1:]
        if kind not in KINDS:
            continue
        if label[0] == "I" and found and found[-1][0] == kind and found[-1][2] == index - 1:
            found[-1] = (kind, found[-1][1], index)
        else:
            found.append((kind, index, index))
    return found


def load(path: Path = MODEL) -> Tagger | None:
    """The tagger, or None, with the reason in the log, where the model file is missing or damaged."""
    try:
        head, model = read_model(path)
        crf = pycrfsuite.Tagger()
        crf.open_inmemory(model)
    except (TaggerError, ValueError) as error:
        log.warning("Names and addresses are found by rules only. %s", error)
        return None
    return Tagger(f"CRF {len(model) / 1e6:.1f} MB {head['sha256'][:8]}", crf, Features(vocabulary().of), model)


def read_model(path: Path) -> tuple[dict[str, str], bytes]:
    """(head, crfsuite's model). Raises `TaggerError`."""
    advice = "Train it anew: python -m trainer.anonymise.tagger.train"
    try:
        line, _, packed = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise TaggerError(f"{path.name} cannot be read: {error.strerror}.", advice) from error
    try:
        head = json.loads(line)
        whole = head["format"] == FORMAT and head["sha256"] == hashlib.sha256(packed).hexdigest()
    except (ValueError, KeyError, TypeError) as error:
        raise TaggerError(f"{path.name} is no model of the tagger's.", advice) from error
    if not whole:
        raise TaggerError(f"{path.name} is damaged, or of another format.", advice)
    return head, lzma.decompress(packed)


def write_model(path: Path, model: bytes, about: dict[str, object]) -> None:
    """Write crfsuite's model with its head; `about` says what it was trained with."""
    packed = lzma.compress(model, preset=9 | lzma.PRESET_EXTREME)
    head = {"format": FORMAT, "sha256": hashlib.sha256(packed).hexdigest(), **about}
    path.write_bytes(json.dumps(head).encode() + b"\n" + packed)
