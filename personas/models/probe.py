"""Compares ways to compute a loaded model with the plain one: a text alone, in one pass, without a cache."""

from typing import Any

from personas.errors import BaseModelError, is_out_of_memory

MAX_PROBED_TOKEN_ID = 5000
TOKEN_STRIDE = 7919
"""A prime, so that the probes' tokens differ from each other."""
MAX_DIFFERENCE, MAX_DIFFERENCE_16_BITS = 1e-3, 0.06
"""Largest difference of two computations of the same logits or gradients, as a share of their size, that rounding
explains in float32 and in 16 bits (3 % on the bundled model, whose layers are narrow). Bamba's cache, whose results are
the least wrong of all that were found, differs by 7 %; a state or a mask that is left out, by 30 % and more."""


def probe_tokens(model: Any, count: int, first: int = 0) -> list[int]:
    """Return token ids of a probe, ordinary ones of any vocabulary."""
    known = int(model.config.get_text_config().vocab_size)
    lowest = min(3, known - 1)  # the first are usually control tokens
    return [lowest + (first + n) * TOKEN_STRIDE % min(known - lowest, MAX_PROBED_TOKEN_ID) for n in range(count)]


def plain_logits(model: Any, tokens: list[int]) -> Any:
    """Return the logits after each token, `[tokens, vocabulary]`, in one pass without a cache.

    Raises `BaseModelError` if the model cannot be computed at all, or gives no number.
    """
    import torch  # takes seconds

    kind = model.config.model_type
    try:
        logits = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0].float()
    except Exception as error:  # models fail in many ways
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {error}".strip().rstrip(".")
        raise BaseModelError(
            f"Models of the kind {kind} cannot be computed on this machine ({why}).",
            "Choose another base model; docs/models.md names the families that are tested.",
        ) from error
    if not bool(logits.isfinite().all()):
        precision = str(model.dtype).removeprefix("torch.")
        raise BaseModelError(
            f"The base model, of the kind {kind}, computes numbers that are not finite in {precision}.",
            OVERFLOW_ADVICE if precision == "float16" else "Its weights may be damaged: fetch them again.",
        )
    return logits


OVERFLOW_ADVICE = (
    "Its activations are too large for float16: use bfloat16 where the machine computes it, else float32 "
    "(for a training: precision=fp32)."
)


def differs(model: Any, found: Any, expected: Any, allowance: float = 1.0) -> bool:
    """Report whether two results of the same computation differ by more than rounding; NaN always differs.

    `allowance` widens the limit in 16 bits, where a false alarm would be dear.
    """
    limit = MAX_DIFFERENCE if str(model.dtype) == "torch.float32" else MAX_DIFFERENCE_16_BITS * allowance
    size = (expected.float() - expected.float().mean()).norm()
    return not bool((found.float() - expected.float()).norm() <= limit * size)
