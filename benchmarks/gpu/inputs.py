"""What a measurement needs beside the code: rendered samples and a tokenizer."""

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.steps import STEPS

PERSONA = "ballast"
SAMPLES_FILE = "samples.json"
TOKENIZER_FOLDER = "tokenizer"


def write_inputs(folder: Path) -> None:
    """Write a shipped persona's first samples, as ids and the place where the loss begins to count
    per token, and the bundled model's tokenizer.
    """
    from benchmarks.training_speed import load_samples
    from personas.models.base_model import EMBEDDED, locate
    from personas.models.loading import load_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        {"ids": sample.ids, "mask": [int(trained) for trained in sample.mask]}
        for sample in load_samples(PERSONA, STEPS)
    ]
    (folder / SAMPLES_FILE).write_text(json.dumps(samples), encoding="utf-8")
    load_tokenizer(locate(EMBEDDED)).save_pretrained(folder / TOKENIZER_FOLDER)


def read_samples(folder: Path) -> list[Any]:
    """Read the samples (`TokenizedSample`)."""
    from personas.prompt.renderer import TokenizedSample

    rows = json.loads((folder / SAMPLES_FILE).read_text(encoding="utf-8"))
    return [TokenizedSample(tuple(row["ids"]), tuple(map(bool, row["mask"]))) for row in rows]


def read_tokenizer(folder: Path) -> Any:
    """Read the tokenizer."""
    from transformers import AutoTokenizer  # takes seconds

    return AutoTokenizer.from_pretrained(folder / TOKENIZER_FOLDER)
