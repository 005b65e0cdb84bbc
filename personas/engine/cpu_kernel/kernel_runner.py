"""Runs a model with the compiled CPU kernel, after comparing its logits with torch's."""

import ctypes
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import CDLL, POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from typing import Any

import torch

from personas.engine.cpu_kernel.build import (
    KernelUnavailableError,
    compile_and_load,
    require_supported_cpu,
)
from personas.engine.lora_runner import StackedLoraRunner
from personas.engine.lora_slots import StackedLora
from personas.engine.model_runner import ForwardBackend, ScheduledTokens
from personas.models.int8_linear import Int8Linear

log = logging.getLogger(__name__)
MAX_STEP_TOKENS = 512  # tokens that one call of the kernel computes
MAX_KERNEL_RANK = 256  # largest rank for which the kernel has memory
MAX_INT8_WIDTH = 2**16  # longest dot product of int8 weights whose sum fits into 32 bits
# Length of the probe's prompts, and number of likely tokens whose log-probabilities are compared.
PROBE_TOKENS = 8
MAX_LOGPROB_DIFFERENCE = 0.2
"""Largest accepted mean difference in nats on the probe; bfloat16 rounding stays far below, a wrong
sum far above.
"""
NORMS = ("q_norm", "k_norm")
LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
"""Linear layers by their names in `_KernelLayer`, in the order of the kernel's stacks."""

# The structures mirror those of forward.cpp, field by field.


class _Shape(Structure):
    _fields_ = (
        ("layers", c_int64),
        ("hidden", c_int64),
        ("inner", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("width", c_int64),
        ("vocabulary", c_int64),
        ("most_tokens", c_int64),
        ("most_rank", c_int64),
        ("epsilon", c_float),
        ("scale", c_float),
    )


class _Matrix(Structure):
    _fields_ = (("values", c_void_p), ("factors", c_void_p), ("sums", c_void_p))


class _KernelLayer(Structure):
    _fields_ = (
        ("norm", c_void_p),
        ("inner_norm", c_void_p),
        *((name, _Matrix) for name in LINEARS),
        *((f"{name}_bias", c_void_p) for name in LINEARS),
        *((name, c_void_p) for name in NORMS),
        ("window", c_int64),
    )


class _Stack(Structure):
    _fields_ = (("a", c_void_p), ("b", c_void_p), ("rank", c_int64))


class _KernelToken(Structure):
    _fields_ = (
        ("memory", c_void_p),
        ("capacity", c_int64),
        ("position", c_int64),
        ("slot", c_int64),
        ("id", c_int64),
    )


class KernelRunner:
    """Computes the forward pass of `StackedLoraRunner` in one call of the compiled kernel per
    batch.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        model: Any,
        linears: Mapping[str, Any],
        stack: StackedLora,
        threads: int,
    ) -> None:
        """Raises `KernelUnavailableError` when the kernel does not support the model."""
        self._model = model
        self._stack = stack
        self._library = library
        self._shape = _kernel_shape(model)
        self._referenced: list[Any] = []  # tensors that the kernel reads and nothing else holds
        self._layers = (_KernelLayer * self._shape.layers)()
        for number, layer in enumerate(model.model.layers):
            self._layers[number] = self._layer(number, layer, linears)
        self._stacks = (_Stack * (len(LINEARS) * self._shape.layers))()
        self._stack_version = -1
        _declare_functions(library)
        embedding = model.model.embed_tokens.weight.data_ptr()
        norm = model.model.norm.weight.data_ptr()
        head = byref(self._matrix(model.lm_head))
        # Functions of a C library take no keywords: the order is that of `_declare_functions`.
        arguments = (byref(self._shape), self._layers, embedding, norm, head, threads)
        self._handle = library.understudy_open(*arguments)

    def forward(self, scheduled: Sequence[ScheduledTokens]) -> Any:
        self._update_stacks()
        parts = [self._forward(part) for part in _split_into_calls(scheduled)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)

    def close(self) -> None:
        self._library.understudy_close(self._handle)

    def _layer(self, number: int, layer: Any, linears: Mapping[str, Any]) -> _KernelLayer:
        """Return the addresses of a layer's weights; those that it lacks stay null."""
        attention = layer.self_attn
        kernel_layer = _KernelLayer(
            norm=layer.input_layernorm.weight.data_ptr(),
            inner_norm=layer.post_attention_layernorm.weight.data_ptr(),
        )
        for name, path in LINEARS.items():
            linear = linears[f"model.layers.{number}.{path}"]
            setattr(kernel_layer, name, self._matrix(linear))
            if linear.bias is not None:
                setattr(kernel_layer, f"{name}_bias", linear.bias.data_ptr())
        for name in NORMS:
            if hasattr(attention, name):
                setattr(kernel_layer, name, getattr(attention, name).weight.data_ptr())
        # Some families have a window in some layers only, and say so at the layer.
        model_window = getattr(attention.config, "sliding_window", None)
        kernel_layer.window = getattr(attention, "sliding_window", model_window) or 0
        return kernel_layer

    def _matrix(self, linear: Any) -> _Matrix:
        if not isinstance(linear, Int8Linear):
            return _Matrix(linear.weight.data_ptr(), 0, 0)
        factors = linear.factors.float()
        sums = linear.values.sum(1, dtype=torch.int32)
        self._referenced += (factors, sums)
        return _Matrix(linear.values.data_ptr(), factors.data_ptr(), sums.data_ptr())

    def _forward(self, scheduled: Sequence[ScheduledTokens]) -> Any:
        tokens: list[_KernelToken] = []
        for item in scheduled:
            tokens += _kernel_tokens(item)
        positions = torch.tensor([[token.position for token in tokens]])
        cosines, sines = self._model.model.rotary_emb(torch.empty(0), positions)
        cosines = cosines[0].contiguous()
        sines = sines[0].contiguous()
        last: list[int] = []  # rows whose logits are computed: the last ones of each item
        end = -1
        for item in scheduled:
            end += len(item.tokens)
            last += range(end - item.logits + 1, end + 1)
        rows = (c_int64 * len(last))(*last)
        logits = torch.empty(len(last), self._shape.vocabulary, dtype=torch.float32)
        arguments = (
            self._handle,
            (_KernelToken * len(tokens))(*tokens),
            len(tokens),
            cosines.data_ptr(),
            sines.data_ptr(),
            ctypes.addressof(self._stacks),
            ctypes.addressof(rows),
            len(last),
            logits.data_ptr(),
        )
        self._library.understudy_step(*arguments)
        for item in scheduled:
            item.kv.tokens += item.tokens
        return logits

    def _update_stacks(self) -> None:
        """Read the addresses of the stacked adapters, which change when the stack grows."""
        if self._stack_version == self._stack.version:
            return
        for layer in range(self._shape.layers):
            for number, path in enumerate(LINEARS.values()):
                a, b = self._stack.pairs.get(f"model.layers.{layer}.{path}", (None, None))
                stack = _Stack()
                if a is not None:
                    stack = _Stack(a=a.data_ptr(), b=b.data_ptr(), rank=a.shape[1])
                self._stacks[layer * len(LINEARS) + number] = stack
        self._stack_version = self._stack.version


def _declare_functions(library: ctypes.CDLL) -> None:
    library.understudy_open.restype = c_void_p
    library.understudy_open.argtypes = [
        POINTER(_Shape), POINTER(_KernelLayer), c_void_p, c_void_p, POINTER(_Matrix), c_int,
    ]  # fmt: skip
    library.understudy_step.restype = None
    library.understudy_step.argtypes = [
        c_void_p, POINTER(_KernelToken), c_int64, *[c_void_p] * 4, c_int64, c_void_p,
    ]  # fmt: skip
    library.understudy_close.restype = None
    library.understudy_close.argtypes = [c_void_p]


def _kernel_tokens(item: ScheduledTokens) -> Iterator[_KernelToken]:
    memory = item.kv.memory.data_ptr()
    capacity = item.kv.memory.shape[3]
    cached = len(item.kv.tokens)
    for number, token in enumerate(item.tokens):
        yield _KernelToken(
            memory=memory,
            capacity=capacity,
            position=cached + number,
            slot=item.slot.index or 0,
            id=token,
        )


def _split_into_calls(scheduled: Sequence[ScheduledTokens]) -> Iterator[list[ScheduledTokens]]:
    """Group the items, in order, into calls of at most `MAX_STEP_TOKENS` tokens; a longer item is
    split.
    """
    call: list[ScheduledTokens] = []
    budget = MAX_STEP_TOKENS
    for item in scheduled:
        rest = item.tokens
        while len(rest) > budget:
            logits = max(0, item.logits - len(rest[budget:]))
            yield [*call, ScheduledTokens(item.kv, rest[:budget], item.slot, logits)]
            call = []
            rest = rest[budget:]
            budget = MAX_STEP_TOKENS
        call.append(ScheduledTokens(item.kv, rest, item.slot, min(item.logits, len(rest))))
        budget -= len(rest)
    yield call


def _kernel_shape(model: Any) -> _Shape:
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = _Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        width=width,
        vocabulary=config.vocab_size,
        most_tokens=MAX_STEP_TOKENS,
        most_rank=MAX_KERNEL_RANK,
        epsilon=config.rms_norm_eps,
        scale=width**-0.5,
    )
    dtypes = {weight.dtype for weight in model.parameters()}
    obstacles = []
    if not dtypes <= {torch.bfloat16, torch.int8}:
        obstacles.append("weights that are not bfloat16 or int8")
    if config.hidden_act != "silu":
        obstacles.append("another activation than SiLU")
    if not _has_supported_widths(shape, is_int8=isinstance(model.lm_head, Int8Linear)):
        obstacles.append("unsupported widths")
    if model.lm_head.bias is not None:
        obstacles.append("a bias in its head")
    if model.device.type != "cpu":
        obstacles.append("a device other than the CPU")
    if obstacles:
        raise KernelUnavailableError(f"the model has {', '.join(obstacles)}")
    return shape


def _has_supported_widths(shape: _Shape, *, is_int8: bool) -> bool:
    widths = (shape.hidden, shape.inner, shape.heads * shape.width)
    if is_int8:
        fits = all(width % 64 == 0 and width <= MAX_INT8_WIDTH for width in widths)
    else:
        fits = all(width % 32 == 0 for width in widths)
    has_supported_heads = shape.width % 32 == 0 and shape.width <= 256
    return fits and has_supported_heads and shape.vocabulary % 4 == 0


def _log_obstacle(error: KernelUnavailableError) -> None:
    # As text: a handler that keeps the record would hold the model by the error's traceback.
    log.info("replies are computed by torch: %s", str(error))


def supports_model(model: Any) -> bool:
    """Return whether compiling the kernel is worthwhile for a model on this machine; logs the
    obstacle.
    """
    try:
        require_supported_cpu()
    except KernelUnavailableError as error:
        _log_obstacle(error)
        return False
    return bool(model.device.type == "cpu" and model.dtype == torch.bfloat16)


def compile_kernel(on_compiled: Callable[[CDLL], None]) -> None:
    """Compile the kernel and pass it to `on_compiled`; a failure is logged."""
    try:
        on_compiled(compile_and_load())
    except KernelUnavailableError as error:
        _log_obstacle(error)


def enable_kernel(library: CDLL, runner: StackedLoraRunner) -> None:
    """Let a runner compute with the kernel from now on, unless its logits differ from the
    model's.
    """
    try:
        kernel = KernelRunner(
            library,
            model=runner.model,
            linears=runner.linears,
            stack=runner.stack,
            threads=torch.get_num_threads(),
        )
        _verify_kernel(kernel, runner)
    except KernelUnavailableError as error:
        _log_obstacle(error)
        return
    runner.kernel = kernel
    log.info("replies are computed by the compiled kernel")


def _verify_kernel(kernel: KernelRunner, runner: StackedLoraRunner) -> None:
    actual = _probe_logprobs(runner, kernel)
    expected = _probe_logprobs(runner, runner)
    likely = expected.topk(PROBE_TOKENS).indices
    difference = float((actual.gather(-1, likely) - expected.gather(-1, likely)).abs().mean())
    # Not `>=`: a difference that is NaN has to fail, too.
    if not difference < MAX_LOGPROB_DIFFERENCE:
        kernel.close()
        raise KernelUnavailableError(
            f"the kernel's log-probabilities differ from the model's by {difference:.2f}"
        )


def _probe_logprobs(runner: StackedLoraRunner, backend: ForwardBackend) -> Any:
    """Return log-probabilities after two prompts, one of them computed in two parts."""
    numbers = torch.arange(1, 3 * PROBE_TOKENS) * 7919  # a prime: all over the vocabulary
    tokens = numbers.remainder(runner.model.config.vocab_size).tolist()
    cache = runner.new_kv_cache(len(tokens))
    other_cache = runner.new_kv_cache(len(tokens))
    backend.forward([ScheduledTokens(cache, tokens[:PROBE_TOKENS])])
    rest = ScheduledTokens(cache, tokens[PROBE_TOKENS:])
    logits = backend.forward([rest, ScheduledTokens(other_cache, tokens[1:])])
    return logits.log_softmax(-1)
