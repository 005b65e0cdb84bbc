"""`python -m trainer.anonymise.tagger.train`: make the tagger's model from generated texts (some three minutes).

Nothing but the templates, the lists and the seed goes in; the same seed and packages give the same model.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import pycrfsuite  # type: ignore[import-untyped]

from trainer.anonymise.tagger.features import Features
from trainer.anonymise.tagger.model import MODEL, write_model
from trainer.anonymise.tagger.texts import Labelled, Texts
from trainer.anonymise.tagger.tokens import Tokens, tokens
from trainer.anonymise.tagger.vocabulary import folded, vocabulary

TEXTS = 36_000
SEED = 5
HIDDEN = {**dict.fromkeys("gf", 30), **dict.fromkeys("ybos", 25), **dict.fromkeys("cwz", 20)}
"""Percentage of each list's words that are not found in it while training: no list holds every name, and the tagger
has to learn from the words around."""
SETTINGS = {"c1": 0.35, "c2": 0.01, "max_iterations": 90, "feature.minfreq": 3, "feature.possible_transitions": True}
"""crfsuite's: L1 and L2 penalties, passes, and how often a feature must occur to count."""


def train(out: Path, count: int, seed: int) -> dict[str, object]:
    """Write a model trained on `count` texts; says what went in."""
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(SETTINGS)
    features = Features(partly_hidden)
    for made in itertools.islice(Texts(seed), count):
        cut = tokens(made.text)
        if cut.words:
            trainer.append(features.of(cut.words), labels(made, cut))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.crf"
        trainer.train(str(path))
        model = path.read_bytes()
    about: dict[str, object] = {
        "texts": count,
        "seed": seed,
        "settings": SETTINGS,
        "python-crfsuite": importlib.metadata.version("python-crfsuite"),
    }
    write_model(out, model, about)
    return about


def labels(made: Labelled, cut: Tokens) -> list[str]:
    """One label per token: "BP IP …" for a person, "BA IA …" for an address, "X" for another name, "O"."""
    found = ["O"] * len(cut.words)
    spans = iter(made.spans)
    span = next(spans, None)
    begun = False
    for index, (start, end) in enumerate(zip(cut.starts, cut.ends, strict=True)):
        while span and start >= span[2]:
            span, begun = next(spans, None), False
        if span and end > span[1]:
            found[index] = "X" if span[0] == "X" else ("I" if begun else "B") + span[0]
            begun = True
    return found


def partly_hidden(word: str) -> str:
    """The lists that hold a word, less those that are kept from the tagger for this word while it trains."""
    groups = vocabulary().of(word)
    if not groups:
        return groups
    draw = zlib.crc32(folded(word).encode())
    return "".join(sign for sign in groups if (draw + 37 * ord(sign)) % 100 >= HIDDEN.get(sign, 0))


def main(arguments: Iterable[str] | None = None) -> int:
    """Train and say so."""
    parser = argparse.ArgumentParser("python -m trainer.anonymise.tagger.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL, help="the model file (default: the one that is shipped)")
    parser.add_argument("--texts", type=int, default=TEXTS, help=f"how many texts to learn from (default: {TEXTS:,})")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(None if arguments is None else list(arguments))
    begun = time.perf_counter()
    train(options.out, options.texts, options.seed)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.2f} MB, trained on {options.texts:,} texts in {time.perf_counter() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
