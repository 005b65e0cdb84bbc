"""NEFTune: noise on the embeddings in training (arXiv 2310.05914), the same however samples are
laid out in batches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class EmbeddingNoise:
    """Adds uniform noise within ± alpha / √(tokens · width) to a model's embeddings, by each
    sample's own tokens.

    transformers scales by the length of the tensor that is embedded: padding, packing or a shared
    prefix would change the noise. No prefix is shared here, whose noise would be the same for
    several samples. Without an `alpha`, and outside of `over`, nothing is added.
    """

    def __init__(self, model: Any, alpha: float) -> None:
        self._alpha = alpha
        self._lengths: Tensor | None = None
        if alpha:
            model.get_input_embeddings().register_forward_hook(self._add)

    @contextmanager
    def over(self, lengths: Tensor) -> Iterator[None]:
        """Add noise for a `with` block; `lengths` [rows, tokens or 1] is that of the sample which a
        token is in.
        """
        self._lengths = lengths
        try:
            yield
        finally:
            self._lengths = None

    def _add(self, layer: Any, _inputs: Any, embedded: Tensor) -> Tensor:
        if self._lengths is None or not layer.training:
            return embedded
        noise = torch.empty_like(embedded).uniform_(-1, 1)
        sizes = self._alpha / (self._lengths * embedded.shape[-1]).sqrt()
        added: Tensor = embedded + noise * sizes[..., None].to(embedded.dtype)
        return added


def sample_lengths(batch: dict[str, Tensor]) -> Tensor:
    """Return each token's sample's length, [1, tokens] for packed samples, [rows, tokens] for those
    in rows without a prefix, [rows, 1] for padded ones.
    """
    lengths = batch["lengths"]
    if "documents" in batch:
        # The last number is of what fills up a row, and belongs to no sample.
        return lengths[(batch["documents"] - 1).clamp(max=len(lengths) - 1)]
    if "position_ids" in batch:
        return lengths.repeat_interleave(lengths)[None]
    return lengths[:, None]
