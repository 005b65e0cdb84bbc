"""Computing with the compiled kernel where that is possible, after it has been compared with the model itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ctypes import CDLL
from typing import Any

import torch

from personas.engine.cache import RowCache
from personas.engine.decoder import Span, StackedDecoder
from personas.engine.kernel.build import NoKernelError, compiled, compiled_before, require_possible
from personas.engine.kernel.rows import KernelRows

__all__ = ["can_serve", "compile_for", "compiled_before", "use"]

log = logging.getLogger(__name__)

PROBE_TOKENS = 8
FAR = 0.2
"""So far apart may log-probabilities of likely tokens be on average: bfloat16 is coarse, a wrong sum is far beyond."""


def can_serve(model: Any) -> bool:
    """Whether it is worth compiling for this model on this machine; the reason why not is logged."""
    try:
        require_possible()
    except NoKernelError as error:
        log.info("replies are computed by torch: %s", error)
        return False
    return bool(model.device.type == "cpu" and model.dtype == torch.bfloat16)


def compile_for(use: Callable[[CDLL], None]) -> None:
    """Compile the kernel, on a thread beside the engine's, and hand it over."""
    try:
        use(compiled())
    except NoKernelError as error:
        log.info("replies are computed by torch: %s", error)


def use(library: CDLL, decoder: StackedDecoder) -> None:
    """Have a decoder compute by the kernel from now on, unless what it gives is not what the model gives."""
    try:
        kernel = KernelRows(library, decoder.model, decoder.linears, decoder.stack, torch.get_num_threads())
        _compare(kernel, decoder)
    except NoKernelError as error:
        log.info("replies are computed by torch: %s", error)
        return
    decoder.quick = kernel
    log.info("replies are computed by the compiled kernel")


def _compare(kernel: KernelRows, decoder: StackedDecoder) -> None:
    ours, models = (_probe(decoder, forward) for forward in (kernel.forward, decoder.compute))
    likely = models.topk(PROBE_TOKENS).indices
    apart = float((ours.gather(-1, likely) - models.gather(-1, likely)).abs().mean())
    if not apart < FAR:
        kernel.close()
        raise NoKernelError(f"the kernel is {apart:.2f} away from the model")


def _probe(decoder: StackedDecoder, forward: Callable[[list[Span]], Any]) -> Any:
    """Log-probabilities after two texts, one of them in two parts."""
    numbers = torch.arange(1, 3 * PROBE_TOKENS).mul(7919).remainder(decoder.model.config.vocab_size).tolist()
    rows = [RowCache(decoder.shape, len(numbers)) for _ in range(2)]
    first = Span(rows[0], numbers[:PROBE_TOKENS])
    forward([first])
    return forward([Span(rows[0], numbers[PROBE_TOKENS:]), Span(rows[1], numbers[1:])]).log_softmax(-1)
