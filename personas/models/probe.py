"""Compares ways to compute a loaded model with the plain one: a text alone, in one pass, without a
cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from personas.errors import BaseModelError, TrainingError, is_out_of_memory

MAX_PROBED_TOKEN_ID = 5000
FINITE_PROBE_TOKENS = 16
TOKEN_STRIDE = 7919
"""A prime, so that the probes' tokens differ from each other."""
MAX_DIFFERENCE, MAX_DIFFERENCE_16_BITS = 1e-3, 0.06
"""Largest difference of two computations of the same logits or gradients, as a share of their size,
that rounding explains in float32 and in 16 bits (3 % on the bundled model, whose layers are
narrow). Bamba's cache, whose results are the least wrong of all that were found, differs by 7 %; a
state or a mask that is left out, by 30 % and more.
"""


OVERFLOW_ADVICE = (
    "Its activations are too large for float16: train it with precision=bf16 on a GPU that "
    "computes in bfloat16, "
    "elsewhere with precision=fp32. A lower learning rate does not help."
)


class Float16OverflowError(BaseModelError, TrainingError):
    """A model whose activations exceed float16's largest number, 65,504."""


def probe_tokens(model: Any, count: int, first: int = 0) -> list[int]:
    """Return token ids of a probe, ordinary ones of any vocabulary."""
    known = int(model.config.get_text_config().vocab_size)
    lowest = min(3, known - 1)  # the first are usually control tokens
    return [
        lowest + (first + n) * TOKEN_STRIDE % min(known - lowest, MAX_PROBED_TOKEN_ID)
        for n in range(count)
    ]


def plain_logits(model: Any, tokens: list[int]) -> Any:
    """Return the logits after each token, `[tokens, vocabulary]`, in one pass without a cache.

    Raises `BaseModelError` if the model cannot be computed at all, or gives no number.
    """
    import torch  # takes seconds

    kind = model.config.model_type
    try:
        logits = (
            model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False)
            .logits[0]
            .float()
        )
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
        what = (
            f"The base model, of the kind {kind}, computes numbers that are not finite in "
            f"{precision}."
        )
        if precision == "float16":
            raise Float16OverflowError(what, OVERFLOW_ADVICE)
        raise BaseModelError(what, "Its weights may be damaged: fetch them again.")
    return logits


def require_finite_activations(model: Any) -> None:
    """Compute a short text that begins as the model's texts do, where activations are the largest.

    Raises `Float16OverflowError` if float16 is too small for them, `BaseModelError` if any
    precision is.
    """
    import torch  # takes seconds

    begin = getattr(model.config.get_text_config(), "bos_token_id", None)
    with torch.no_grad():
        plain_logits(
            model,
            [
                *([begin] if isinstance(begin, int) else []),
                *probe_tokens(model, FINITE_PROBE_TOKENS),
            ],
        )


@contextmanager
def float32_layers(model: Any) -> Iterator[bool]:
    """For a `with` block, compute a model that is on the CPU in float32, whatever its weights are.

    Yields whether it is computed so; quantised weights and those on a card stay as they are. In 16
    bits, two right computations of a model of half a billion parameters differ by as much as a wrong
    one does of the bundled model. Each layer's weights are cast while it runs, so that the memory of
    one layer is needed. Gradients cannot be computed inside: they would keep the casts of all
    layers.
    """
    weights = list(model.parameters())
    if model.device.type != "cpu" or not all(weight.is_floating_point() for weight in weights):
        yield False
        return

    import torch  # takes seconds

    def widen(module: Any, _inputs: Any) -> None:
        stored.append([(weight, weight.data) for weight in module.parameters(recurse=False)])
        for weight, values in stored[-1]:
            weight.data = values.float()

    def restore(_module: Any, _inputs: Any, _output: Any) -> None:
        for weight, values in stored.pop():
            weight.data = values

    stored: list[list[tuple[Any, Any]]] = []
    hooks = []
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        # Weights of 64 bits stay as they are, with inputs that are as wide.
        if any(weight.dtype.itemsize < torch.float32.itemsize for weight in own):
            hooks.append(module.register_forward_pre_hook(widen))
            hooks.append(module.register_forward_hook(restore))
    try:
        yield True
    finally:
        for hook in hooks:
            hook.remove()
        # Layers that failed on the way, from the innermost.
        while stored:
            restore(None, None, None)


def differs(
    model: Any,
    found: Any,
    expected: Any,
    allowance: float = 1.0,
    *,
    in_float32: bool = False,
) -> bool:
    """Report whether two results of the same computation differ by more than rounding; NaN always
    differs.

    `allowance` widens the limit in 16 bits, where a false alarm would be dear. `in_float32`: both
    were computed in `float32_layers`.
    """
    limit = MAX_DIFFERENCE_16_BITS * allowance
    if in_float32 or str(model.dtype) == "torch.float32":
        limit = MAX_DIFFERENCE
    size = (expected.float() - expected.float().mean()).norm()
    return not bool((found.float() - expected.float()).norm() <= limit * size)
