"""Exports a built data set to OpenAI, ShareGPT and Alpaca files, with a rights statement beside
them.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from personas.errors import RequestError
from personas.home.built_dataset import (
    EVAL_FILE,
    TRAIN_FILE,
    combine_rights,
    format_right_counts,
    is_built_dataset,
)
from personas.home.data_subjects import Storing
from personas.home.rights import RIGHTS_FILE
from personas.home.toml_text import toml_table
from trainer.anonymise.output_files import open_atomic, write_rows
from trainer.dataset.layout import read_samples, require_outside

TABLE_NAME = re.compile(r"^\s*\[(.+)\]\s*(?:#.*)?$")
ChatMessage = dict[str, Any]
JSONL_SUFFIXES = (".jsonl", ".ndjson")
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


def write_right(out: Path, folder: Path, rights: Mapping[str, int]) -> None:
    """State the right to an exported file in `rights.toml`, preserving statements on other files.

    `rights` counts its samples by right, "" if unknown. With several rights, `discord-api` takes
    precedence, otherwise the reason lists them. Raises `RequestError` if the statement cannot be
    added, and `OSError`.
    """
    stated = {right: count for right, count in rights.items() if right}
    if not stated:
        return
    right = combine_rights(stated)
    why = (
        f"Exported; samples by right: {format_right_counts(stated)}. The data set's data sheet "
        "names who states them."
    )
    stated_by = f"the data set {folder.resolve().name}"
    stated_on = datetime.now(UTC).date()
    table = {"right": right, "stated_by": stated_by, "stated_on": stated_on, "why": why}
    file = out.parent / RIGHTS_FILE
    try:
        before = file.read_text(encoding="utf-8-sig") if file.exists() else ""
        whole = f"{_remove_table(before, out.name).rstrip()}\n\n" if before.strip() else ""
        whole += toml_table(out.name, table)
        if _parse_other_tables(before, out.name) != _parse_other_tables(whole, out.name):
            raise ValueError("its tables are interleaved")
    except (ValueError, OSError) as error:
        message = f"The right to {out.name} cannot be added to {file}: {error}."
        raise RequestError(message, "Correct it, or name a file in another folder.") from error
    with open_atomic(file) as rights_file:
        rights_file.write(whole)


def _remove_table(text: str, name: str) -> str:
    kept = []
    is_ours = False
    for line in text.splitlines():
        if TABLE_NAME.match(line):
            is_ours = False
            # A line of an array, for example, looks like a table's name and is none.
            with suppress(tomllib.TOMLDecodeError):
                is_ours = name in tomllib.loads(line)
        # A comment may be about the next table.
        if not is_ours or line.lstrip().startswith("#"):
            kept.append(line)
    return "\n".join(kept)


def _parse_other_tables(text: str, name: str) -> dict[str, object]:
    return {key: value for key, value in tomllib.loads(text).items() if key != name}


@dataclass(frozen=True)
class ExportedDataset:
    """Number of exported samples, in total and by right ("" if unknown)."""

    samples: int
    rights: Mapping[str, int]


def export_dataset(
    folder: Path, target: str, out: Path, *, held_out: bool = False, storing: Storing = nullcontext
) -> ExportedDataset:
    """Write the training or held-out samples; the file is complete or absent, and never without its
    right.

    A `.jsonl` file has one object per line, any other file of an array target a single array.
    Raises `RequestError` for a folder that is not a data set or an invalid file, `MaterialError`
    for a damaged data set or one without such samples.
    """
    if not is_built_dataset(folder):
        raise RequestError(
            f"{folder} contains no data set.", "Name a folder that `dataset build` made."
        )
    if out.is_dir():
        raise RequestError(f"{out} is a folder.", "Name a file.")
    require_outside(out)
    shape, is_lines = EXPORT_FORMATS[target]
    is_lines = is_lines or out.suffix.lower() in JSONL_SUFFIXES
    source = folder / (EVAL_FILE if held_out else TRAIN_FILE)
    if target == "alpaca":
        shape = _shape_with_used_fields(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(out, storing) as file:
        rights = Counter[str]()
        rows = _convert_samples(read_samples(source), shape, rights)
        suffix = ".jsonl" if is_lines else ".json"
        write_rows(rows, file, suffix)
        # Before the file gets its name, so that it is never there without its right.
        write_right(out, folder, rights)
    return ExportedDataset(rights.total(), rights)


def _convert_samples(
    samples: Iterable[dict[str, Any]],
    shape: Callable[[dict[str, Any]], dict[str, Any]],
    rights: Counter[str],
) -> Iterator[dict[str, Any]]:
    for sample in samples:
        rights[str(sample.get("right") or "")] += 1
        yield shape(sample)


def _openai(sample: dict[str, Any]) -> dict[str, Any]:
    """Return the messages. Replies in the history have no weight: a sample is for its last reply
    alone.
    """
    *before, reply = sample["messages"]
    messages: list[ChatMessage] = []
    for message in before:
        is_reply = message["role"] == "assistant"
        if is_reply:
            message = {**message, "weight": 0}
        messages.append(message)
    return {"messages": [*messages, reply]}


def _sharegpt(sample: dict[str, Any]) -> dict[str, Any]:
    turns = []
    for message in sample["messages"]:
        turns.append({"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]})
    return {"conversations": turns}


def _alpaca(sample: dict[str, Any]) -> dict[str, Any]:
    """Return instruction, input and output, with what precedes them in the fields of
    LLaMA-Factory.
    """
    messages: list[ChatMessage] = sample["messages"]
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    talk = messages[bool(system) :]
    contents: list[str] = [message["content"] for message in talk]
    if talk[0]["role"] == "assistant":
        # LLaMA-Factory's pairs have a question each.
        contents.insert(0, "")
    *before, question, reply = contents
    history = [list(pair) for pair in zip(before[::2], before[1::2], strict=False)]
    text = str(sample.get("input") or "")
    if question != text and not question.endswith(f"\n{text}"):
        # Something follows it, such as a card's instructions.
        text = ""
    instruction = question[: -len(text)].removesuffix("\n") if text else question
    return {
        "instruction": instruction,
        "input": text,
        "output": reply,
        "system": system,
        "history": history,
    }


def _shape_with_used_fields(source: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the Alpaca shape without the fields `system` and `history` if they are empty in every
    sample.
    """
    used = {"instruction", "input", "output"}
    for sample in read_samples(source):
        used.update(name for name, value in _alpaca(sample).items() if value)
    return lambda sample: {name: value for name, value in _alpaca(sample).items() if name in used}


EXPORT_FORMATS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], bool]] = {
    "openai": (_openai, True),
    "sharegpt": (_sharegpt, False),
    "alpaca": (_alpaca, False),
}
