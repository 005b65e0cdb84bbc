"""What cannot share a batch: one row after the other through transformers and peft themselves.

For adapters that are more than two matrices (DoRA, trained embeddings) and for architectures the batch does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personas.engine.cache import PrefixCache
from personas.engine.decoder import Span
from personas.engine.weights import AdaptedModel


class PlainCache:
    """A row's keys and values as transformers keeps them. `tokens` are those that have been computed."""

    def __init__(self, config: Any) -> None:
        from transformers import DynamicCache

        self.memory = DynamicCache(config=config)
        self.tokens: list[int] = []


class PlainDecoder:
    """Decodes with `AdaptedModel`, as slowly as that is."""

    prefixes: PrefixCache | None = None

    def __init__(self, adapted: AdaptedModel) -> None:
        self.adapted = adapted

    def open(self, capacity: int) -> PlainCache:
        """An empty row; `capacity` tokens are to fit, which here they always do."""
        return PlainCache(self.adapted.model.config)

    def forward(self, spans: Sequence[Span]) -> Any:
        """Logits `[wanted spans, vocabulary]`. Raises `AdapterError` when an adapter cannot be used."""
        import torch

        wanted = [logits for span in spans if (logits := self._logits(span)) is not None]
        return torch.cat(wanted) if wanted else None

    def _logits(self, span: Span) -> Any:
        import torch

        with self.adapted.use(span.seat.ref), torch.inference_mode():
            model = self.adapted.model
            ids = torch.tensor([span.tokens], device=model.device)
            output = model(input_ids=ids, past_key_values=span.row.memory, use_cache=True, logits_to_keep=1)
        span.row.tokens += span.tokens
        return output.logits[:, -1].float() if span.wanted else None
