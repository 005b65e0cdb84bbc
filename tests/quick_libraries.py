"""Spares tests the slow parts of libraries that they do not test: tokenizer files, drawn charts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BLANK_SVG = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>\n'
BLANK_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ff"
    "ff3f0005fe02fe0def46b80000000049454e44ae426082"
)
"""A white pixel."""


@contextmanager
def kept_tokenizers() -> Iterator[None]:
    """Read the tokenizer of each folder once as long as its files stay as they are.

    Each caller gets a copy with settings of its own. The tables of tokens are shared: a test that
    changes them, as by `add_tokens`, changes a deep copy.
    """
    from transformers import PreTrainedTokenizerBase  # takes a second

    load = PreTrainedTokenizerBase.from_pretrained.__func__
    kept: dict[Any, Any] = {}

    def from_pretrained(cls: Any, name: Any, *inputs: Any, **options: Any) -> Any:
        folder = Path(name)
        if inputs or not folder.is_dir():
            return load(cls, name, *inputs, **options)
        files = sorted(
            (it.name, it.stat().st_mtime_ns, it.stat().st_size) for it in folder.iterdir()
        )
        key = (cls, str(folder), repr(sorted(options.items())), tuple(files))
        if key not in kept:
            kept[key] = load(cls, name, **options)
        twin = copy.copy(kept[key])
        twin._special_tokens_map = dict(twin._special_tokens_map)
        return twin

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedTokenizerBase, "from_pretrained", classmethod(from_pretrained))
        yield


def save_blank(figure: Any, file: Any, **_: Any) -> None:
    """Write an empty picture in place of a drawn one."""
    if str(file).endswith(".svg"):
        Path(file).write_text(BLANK_SVG, encoding="utf-8")
    elif isinstance(file, str | Path):
        Path(file).write_bytes(BLANK_PNG)
    else:
        file.write(BLANK_PNG)
