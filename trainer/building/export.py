"""A built data set in the formats of other tools.

`openai`: https://platform.openai.com/docs/guides/supervised-fine-tuning (JSON lines of `messages`, roles system, user
and assistant, the assistant last). `sharegpt`: `conversations` of `from` (system, human, gpt) and `value`, as a JSON
array, or in lines where the file's name says `.jsonl`. `alpaca`: `instruction`, `input`, `output`, `system` and
`history` (pairs of what was said before), the same way. None of them has a field for the right: it is stated in
`rights.toml` beside the file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from personas.errors import RequestError
from trainer.building.exported_right import state_right
from trainer.building.folder import EVAL_FILE, TRAIN_FILE, is_data_set, read_samples, require_outside

Message = dict[str, str]
LINES = (".jsonl", ".ndjson")
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class Exported:
    """How many samples were written, and how many of them by right ("" where they do not say)."""

    samples: int
    rights: Mapping[str, int]


def export_dataset(folder: Path, target: str, out: Path, *, held_out: bool = False) -> Exported:
    """Write the samples to train on, or those held out; the file is there whole or not at all, never without its right.

    A file whose name ends in `.jsonl` holds one object a line, any other of a target that is an array one array.
    Raises `RequestError` for a folder that is no data set or a file that cannot be it, `MaterialError` for a data set
    that is damaged or has no such samples.
    """
    if not is_data_set(folder):
        raise RequestError(f"{folder} holds no data set.", "Name a folder that `dataset build` made.")
    if out.is_dir():
        raise RequestError(f"{out} is a folder.", "Name a file.")
    require_outside(out)
    shape, is_lines = TARGETS[target]
    is_lines = is_lines or out.suffix.lower() in LINES
    source = folder / (EVAL_FILE if held_out else TRAIN_FILE)
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            rights = Counter[str]()
            count = _write(file, _shaped(read_samples(source), shape, rights), is_lines)
        Path(aside).chmod(0o644)
        state_right(out, folder, rights)
        Path(aside).replace(out)
    finally:
        Path(aside).unlink(missing_ok=True)
    return Exported(count, rights)


def _shaped(
    samples: Iterable[dict[str, Any]], shape: Callable[[list[Message]], dict[str, Any]], rights: Counter[str]
) -> Iterator[dict[str, Any]]:
    for sample in samples:
        rights[str(sample.get("right") or "")] += 1
        yield shape(sample["messages"])


def _write(file: TextIO, shaped: Iterable[dict[str, Any]], is_lines: bool) -> int:
    count = 0
    for count, sample in enumerate(shaped, start=1):
        before = "" if is_lines else "[\n" if count == 1 else ",\n"
        file.write(before + json.dumps(sample, ensure_ascii=False) + ("\n" if is_lines else ""))
    file.write("" if is_lines else "\n]\n")
    return count


def _openai(messages: list[Message]) -> dict[str, Any]:
    return {"messages": messages}


def _sharegpt(messages: list[Message]) -> dict[str, Any]:
    return {"conversations": [{"from": SHAREGPT_ROLES[m["role"]], "value": m["content"]} for m in messages]}


def _alpaca(messages: list[Message]) -> dict[str, Any]:
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    *before, question, reply = [m["content"] for m in messages[bool(system) :]]
    history = [list(pair) for pair in zip(before[::2], before[1::2], strict=False)]
    return {"instruction": question, "input": "", "output": reply, "system": system, "history": history}


TARGETS: dict[str, tuple[Callable[[list[Message]], dict[str, Any]], bool]] = {
    "openai": (_openai, True),
    "sharegpt": (_sharegpt, False),
    "alpaca": (_alpaca, False),
}
