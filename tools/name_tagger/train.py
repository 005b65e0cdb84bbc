"""Trains the name tagger on generated texts (`python -m tools.name_tagger.train`, about seven
minutes).
"""

import argparse
import hashlib
import importlib.metadata
import itertools
import json
import lzma
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import pycrfsuite  # type: ignore[import-untyped]

from tools.name_tagger.synthetic_corpus import CorpusGenerator, LabelledText
from trainer.anonymise.crf_ner.crf_tagger import LABEL_KINDS, MODEL_FILE, MODEL_FORMAT
from trainer.anonymise.crf_ner.gazetteer import fold_word, load_gazetteer
from trainer.anonymise.crf_ner.token_features import FeatureExtractor
from trainer.anonymise.crf_ner.tokeniser import TokenisedText, tokenise

TRAINING_TEXTS = 60_000
SEED = 5
HIDDEN_PERCENT = {
    **dict.fromkeys("gf", 30),
    **dict.fromkeys("ybos", 25),
    **dict.fromkeys("cwze", 20),
}
"""Percentage of each list's words hidden during training: no list has every name, so the tagger has
to learn from the context too.
"""

UNFOUND_LABELS = {"X": "X", "N": "O", "E": "O"}
"""Labels of other spans: other names, telephone numbers and e-mail addresses, which have
patterns.
"""
CRFSUITE_PARAMETERS = {
    "c1": 0.4,
    "c2": 0.01,
    "max_iterations": 90,
    "feature.minfreq": 3,
    "feature.possible_transitions": True,
}
"""Parameters of crfsuite: L1 and L2 penalties, iterations, and minimum feature frequency."""


def train(out: Path, count: int, seed: int) -> dict[str, object]:
    """Train on `count` texts, write the model, and print its composition."""
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(CRFSUITE_PARAMETERS)
    features = FeatureExtractor(groups_with_dropout)
    for text in itertools.islice(CorpusGenerator(seed), count):
        cut = tokenise(text.text)
        if cut.words:
            trainer.append(features.of(cut.words), bio_labels(text, cut))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.crf"
        trainer.train(str(path))
        model = path.read_bytes()
    about: dict[str, object] = {
        "texts": count,
        "seed": seed,
        "settings": CRFSUITE_PARAMETERS,
        "python-crfsuite": importlib.metadata.version("python-crfsuite"),
    }
    write_model(out, model, about)
    return about


def bio_labels(text: LabelledText, cut: TokenisedText) -> list[str]:
    """Return a label per token: "BP IP …" for a person, "BA IA …" for an address, "X" for another
    name, "O".
    """
    found = ["O"] * len(cut.words)
    spans = iter(text.spans)
    span = next(spans, None)
    started = False
    for index, (start, end) in enumerate(zip(cut.starts, cut.ends, strict=True)):
        while span and start >= span[2]:
            span = next(spans, None)
            started = False
        if span and end > span[1]:
            found[index] = (
                ("I" if started else "B") + span[0]
                if span[0] in LABEL_KINDS
                else UNFOUND_LABELS[span[0]]
            )
            started = True
    return found


def groups_with_dropout(word: str) -> str:
    """Return the groups of a word, without those hidden for this word during training."""
    groups = load_gazetteer().of(word)
    if not groups:
        return groups
    draw = zlib.crc32(fold_word(word).encode())
    return "".join(
        sign for sign in groups if (draw + 37 * ord(sign)) % 100 >= HIDDEN_PERCENT.get(sign, 0)
    )


def main(arguments: Iterable[str] | None = None) -> int:
    """Train the tagger."""
    parser = argparse.ArgumentParser("python -m tools.name_tagger.train", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=MODEL_FILE,
        help="the model file (default: the one that is shipped)",
    )
    parser.add_argument(
        "--texts",
        type=int,
        default=TRAINING_TEXTS,
        help=f"how many texts to learn from (default: {TRAINING_TEXTS:,})",
    )
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(None if arguments is None else list(arguments))
    started = time.perf_counter()
    train(options.out, options.texts, options.seed)
    size = options.out.stat().st_size / 1e6
    print(
        f"{options.out}: {size:.2f} MB, trained on {options.texts:,} texts in "
        f"{time.perf_counter() - started:.0f} s"
    )
    return 0


def write_model(path: Path, model: bytes, about: dict[str, object]) -> None:
    """Write crfsuite's model with its head; `about` describes the training."""
    packed = lzma.compress(model, preset=9 | lzma.PRESET_EXTREME)
    head = {"format": MODEL_FORMAT, "sha256": hashlib.sha256(packed).hexdigest(), **about}
    path.write_bytes(json.dumps(head).encode() + b"\n" + packed)


if __name__ == "__main__":
    sys.exit(main())
