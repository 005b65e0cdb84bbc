"""The target model's tokenizer without the model libraries: for commands that only count."""

from __future__ import annotations

from typing import Any

from personas.base_model import BaseModel, load_tokenizer, read_tokenizer


def counting_tokenizer(base: BaseModel) -> Any:
    """The same tokens as `load_tokenizer` gives, in half a second.

    transformers' automatic class loads torch, which takes seconds. What a tokenizer does stands in `tokenizer.json`,
    where a model has one. Raises `BaseModelError`.
    """
    if not (base.folder / "tokenizer.json").exists():
        return load_tokenizer(base)
    from transformers import PreTrainedTokenizerFast

    tokenizer = read_tokenizer(PreTrainedTokenizerFast, base)
    return tokenizer if tokenizer.chat_template else load_tokenizer(base)  # which says what is missing
