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
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
_SIZES = "layers hidden inner heads kv_heads width vocabulary most_tokens most_rank".split()


class _Shape(Structure):
    _fields_ = (*((name, c_int64) for name in _SIZES), ("epsilon", c_float), ("scale", c_float))


class _Matrix(Structure):
    _fields_ = (("values", c_void_p), ("factors", c_void_p), ("sums", c_void_p))


class _KernelLayer(Structure):
    _fields_ = (
        *((name, c_void_p) for name in "norm inner_norm".split()),
        *((name, _Matrix) for name in "q k v o gate up down".split()),
        *((f"{name}_bias", c_void_p) for name in "q k v o gate up down".split()),
        *((name, c_void_p) for name in "q_norm k_norm".split()),
        ("window", c_int64),
    )


class _Stack(Structure):
    _fields_ = (("a", c_void_p), ("b", c_void_p), ("rank", c_int64))


class _KernelToken(Structure):
    _fields_ = (
        ("memory", c_void_p),
        *((name, c_int64) for name in "capacity position slot id".split()),
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
        layers = (
            self._layer(layer, _layer_linears(at, linears))
            for at, layer in enumerate(model.model.layers)
        )
        self._layers = (_KernelLayer * self._shape.layers)(*layers)
        self._stacks = (_Stack * (len(LINEARS) * self._shape.layers))()
        self._stack_version = -1
        _declare_functions(library)
        embedding = model.model.embed_tokens.weight.data_ptr()
        norm = model.model.norm.weight.data_ptr()
        head = byref(self._matrix(model.lm_head))
        self._handle = library.understudy_open(
            byref(self._shape), self._layers, embedding, norm, head, threads
        )

    def forward(self, scheduled: Sequence[ScheduledTokens]) -> Any:
        self._update_stacks()
        parts = [self._forward(part) for part in _split_into_calls(scheduled)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def close(self) -> None:
        self._library.understudy_close(self._handle)

    def _layer(self, layer: Any, linears: Sequence[Any]) -> _KernelLayer:
        attention = layer.self_attn
        norms = (
            layer.input_layernorm.weight.data_ptr(),
            layer.post_attention_layernorm.weight.data_ptr(),
        )
        matrices = [self._matrix(linear) for linear in linears]
        biases = [0 if linear.bias is None else linear.bias.data_ptr() for linear in linears]
        qk_norms = [
            getattr(attention, name).weight.data_ptr() if hasattr(attention, name) else 0
            for name in NORMS
        ]
        window = (
            getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
            or 0
        )
        return _KernelLayer(*norms, *matrices, *biases, *qk_norms, window)

    def _matrix(self, linear: Any) -> _Matrix:
        if not isinstance(linear, Int8Linear):
            return _Matrix(linear.weight.data_ptr(), 0, 0)
        factors = linear.factors.float()
        sums = linear.values.sum(1, dtype=torch.int32)
        self._referenced += (factors, sums)
        return _Matrix(linear.values.data_ptr(), factors.data_ptr(), sums.data_ptr())

    def _forward(self, scheduled: Sequence[ScheduledTokens]) -> Any:
        tokens = [token for item in scheduled for token in _kernel_tokens(item)]
        positions = torch.tensor([[token.position for token in tokens]])
        cosines, sines = (
            part[0].contiguous() for part in self._model.model.rotary_emb(torch.empty(0), positions)
        )
        last: list[int] = []
        end = -1
        for item in scheduled:
            end += len(item.tokens)
            last += range(end - item.logits + 1, end + 1)
        rows = (c_int64 * len(last))(*last)
        logits = torch.empty(len(last), self._shape.vocabulary, dtype=torch.float32)
        self._library.understudy_step(
            self._handle, (_KernelToken * len(tokens))(*tokens), len(tokens), cosines.data_ptr(), sines.data_ptr(),
            ctypes.addressof(self._stacks), ctypes.addressof(rows), len(last), logits.data_ptr(),
        )  # fmt: skip
        for item in scheduled:
            item.kv.tokens += item.tokens
        return logits

    def _update_stacks(self) -> None:
        """Read the addresses of the stacked adapters, which change when the stack grows."""
        if self._stack_version == self._stack.version:
            return
        for layer in range(self._shape.layers):
            for number, name in enumerate(LINEARS):
                a, b = self._stack.pairs.get(f"model.layers.{layer}.{name}", (None, None))
                stack = _Stack() if a is None else _Stack(a.data_ptr(), b.data_ptr(), a.shape[1])
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
        yield _KernelToken(memory, capacity, cached + number, item.slot.index or 0, token)


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
        config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads,
        config.num_key_value_heads, width, config.vocab_size, MAX_STEP_TOKENS, MAX_KERNEL_RANK,
        config.rms_norm_eps, width**-0.5,
    )  # fmt: skip
    dtypes = {weight.dtype for weight in model.parameters()}
    is_supported = {
        "weights that are not bfloat16 or int8": dtypes <= {torch.bfloat16, torch.int8},
        "another activation than SiLU": config.hidden_act == "silu",
        "unsupported widths": _has_supported_widths(
            shape, is_int8=isinstance(model.lm_head, Int8Linear)
        ),
        "a bias in its head": model.lm_head.bias is None,
        "a device other than the CPU": model.device.type == "cpu",
    }
    if obstacles := [what for what, supported in is_supported.items() if not supported]:
        raise KernelUnavailableError(f"the model has {', '.join(obstacles)}")
    return shape


def _has_supported_widths(shape: _Shape, *, is_int8: bool) -> bool:
    widths = (shape.hidden, shape.inner, shape.heads * shape.width)
    block = 64 if is_int8 else 32
    max_width = MAX_INT8_WIDTH if is_int8 else max(widths)
    has_supported_heads = shape.width % 32 == 0 and shape.width <= 256
    fits = all(width % block == 0 and width <= max_width for width in widths)
    return fits and has_supported_heads and shape.vocabulary % 4 == 0


def _layer_linears(layer: int, linears: Mapping[str, Any]) -> list[Any]:
    return [linears[f"model.layers.{layer}.{name}"] for name in LINEARS]


def supports_model(model: Any) -> bool:
    """Return whether compiling the kernel is worthwhile for a model on this machine; logs the
    obstacle.
    """
    try:
        require_supported_cpu()
    except KernelUnavailableError as error:
        log.info("replies are computed by torch: %s", error)
        return False
    return bool(model.device.type == "cpu" and model.dtype == torch.bfloat16)


def compile_kernel(on_compiled: Callable[[CDLL], None]) -> None:
    """Compile the kernel and pass it to `on_compiled`; a failure is logged."""
    try:
        on_compiled(compile_and_load())
    except KernelUnavailableError as error:
        log.info("replies are computed by torch: %s", error)


def enable_kernel(library: CDLL, runner: StackedLoraRunner) -> None:
    """Let a runner compute with the kernel from now on, unless its logits differ from the
    model's.
    """
    try:
        kernel = KernelRunner(
            library, runner.model, runner.linears, runner.stack, torch.get_num_threads()
        )
        _verify_kernel(kernel, runner)
    except KernelUnavailableError as error:
        log.info("replies are computed by torch: %s", error)
        return
    runner.kernel = kernel
    log.info("replies are computed by the compiled kernel")


def _verify_kernel(kernel: KernelRunner, runner: StackedLoraRunner) -> None:
    actual, expected = (_probe_logprobs(runner, backend) for backend in (kernel, runner))
    likely = expected.topk(PROBE_TOKENS).indices
    difference = float((actual.gather(-1, likely) - expected.gather(-1, likely)).abs().mean())
    if not difference < MAX_LOGPROB_DIFFERENCE:
        kernel.close()
        raise KernelUnavailableError(
            f"the kernel's log-probabilities differ from the model's by {difference:.2f}"
        )


def _probe_logprobs(runner: StackedLoraRunner, backend: ForwardBackend) -> Any:
    """Return log-probabilities after two prompts, one of them computed in two parts."""
    tokens = (
        torch.arange(1, 3 * PROBE_TOKENS)
        .mul(7919)
        .remainder(runner.model.config.vocab_size)
        .tolist()
    )
    one, other = (runner.new_kv_cache(len(tokens)) for _ in range(2))
    backend.forward([ScheduledTokens(one, tokens[:PROBE_TOKENS])])
    logits = backend.forward(
        [ScheduledTokens(one, tokens[PROBE_TOKENS:]), ScheduledTokens(other, tokens[1:])]
    )
    return logits.log_softmax(-1)
