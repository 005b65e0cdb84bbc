"""A built data set in the formats of other tools.

`openai`: https://platform.openai.com/docs/guides/supervised-fine-tuning (JSON lines of `messages`, roles system, user
and assistant, the assistant last). `sharegpt`: `conversations` of `from` (system, human, gpt) and `value`, as a JSON
array. `alpaca`: `instruction`, `input`, `output`, `system` and `history` (pairs of what was said before), the same way.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from personas.errors import MaterialError, RequestError
from trainer.write_dataset import EVAL_FILE, STATS_FILE, TRAIN_FILE

Message = dict[str, str]
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


def export_dataset(folder: Path, target: str, out: Path, *, held_out: bool = False) -> int:
    """Write the samples to train on, or those held out; the file is there whole or not at all. Gives their number.

    Raises `RequestError` for a folder that is no data set, `MaterialError` for one that is damaged.
    """
    if not (folder / STATS_FILE).is_file():
        raise RequestError(f"{folder} holds no data set.", "Name a folder that `dataset build` made.")
    if out.is_dir():
        raise RequestError(f"{out} is a folder.", "Name a file.")
    shape, in_lines = TARGETS[target]
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        count = 0
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for count, messages in enumerate(_samples(folder / (EVAL_FILE if held_out else TRAIN_FILE)), start=1):
                before = "" if in_lines else "[\n" if count == 1 else ",\n"
                file.write(before + json.dumps(shape(messages), ensure_ascii=False) + ("\n" if in_lines else ""))
            file.write("" if in_lines else "\n]\n" if count else "[]\n")
        Path(aside).chmod(0o644)
        Path(aside).replace(out)
    finally:
        Path(aside).unlink(missing_ok=True)
    return count


def _samples(path: Path) -> Iterator[list[Message]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _messages(line, f"{path}, line {number}")
    except OSError as error:
        raise MaterialError(f"{path} cannot be read: {error.strerror}.", "Build the data set anew.") from None


def _messages(line: str, where: str) -> list[Message]:
    try:
        messages: list[Message] = json.loads(line)["messages"]
        whole = messages[-1]["role"] == "assistant" and all(isinstance(m["content"], str) for m in messages)
    except (ValueError, LookupError, TypeError):
        whole = False
    if not whole:
        raise MaterialError(f"{where} is no sample.", "Build the data set anew.")
    return messages


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
