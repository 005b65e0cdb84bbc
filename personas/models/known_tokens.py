"""Checks that a model has an embedding for each token that its tokenizer makes."""

from collections.abc import Iterable, Sequence
from typing import Any

from personas.errors import BaseModelError


def require_known_tokens(
    texts: Iterable[Sequence[int]], vocabulary: int | None, tokenizer: Any
) -> None:
    """Raise `BaseModelError` naming the first token of the texts that the model has no embedding
    for.

    `vocabulary` is the number of embeddings; None checks nothing. Otherwise the model would fail
    with an IndexError.
    """
    if vocabulary is None:
        return
    for ids in texts:
        if max(ids, default=0) < vocabulary:
            continue
        unknown = next(token for token in ids if token >= vocabulary)
        raise BaseModelError(
            f"The tokenizer makes token {unknown}, {tokenizer.convert_ids_to_tokens(unknown)!r}, "
            "and the base model "
            f"has embeddings for {vocabulary:,} tokens only.",
            "The tokenizer was extended without the model: use the files of the tokenizer that the "
            "model was made "
            "with, or extend the model by transformers' resize_token_embeddings and save both "
            "again.",
        )
