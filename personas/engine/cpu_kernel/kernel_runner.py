"""Runs a model with the compiled CPU kernel, after comparing it with torch."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import CDLL, POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from typing import Any

import torch

from personas.engine.cpu_kernel.build import (
    KernelUnavailableError,
    compile_and_load,
    load_compiled,
    require_supported_cpu,
)
from personas.engine.kv_cache import SequenceKVCache
from personas.engine.lora_slots import StackedLora
from personas.engine.model_runner import ScheduledTokens, StackedLoraRunner
from personas.models.int8_linear import Int8Linear

MAX_STEP_TOKENS = 512


MAX_KERNEL_RANK = 256


MAX_INT8_WIDTH = 2**16


"""Products of so many bytes fit into a sum of 32 bits."""


NORMS = ("q_norm", "k_norm")


LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip


class _Shape(Structure):
    _fields_ = (
        *(
            (name, c_int64)
            for name in "layers hidden inner heads kv_heads width vocabulary most_tokens most_rank".split()
        ),
        ("epsilon", c_float),
        ("scale", c_float),
    )


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
    """Computes spans as `StackedDecoder` does, for a model that it recognises."""

    def __init__(
        self, library: ctypes.CDLL, model: Any, linears: Mapping[str, Any], stack: StackedLora, threads: int
    ) -> None:
        """Raises `KernelUnavailableError` when the model is built otherwise than the kernel computes."""
        self._model, self._stack, self._library = model, stack, library
        self._shape = _kernel_shape(model)
        self._kept: list[Any] = []
        layers = (self._layer(layer, _layer_linears(at, linears)) for at, layer in enumerate(model.model.layers))
        self._layers = (_KernelLayer * self._shape.layers)(*layers)
        self._stacks = (_Stack * (len(LINEARS) * self._shape.layers))()
        self._stack_version = -1
        library.understudy_open.restype = c_void_p
        library.understudy_open.argtypes = [
            POINTER(_Shape),
            POINTER(_KernelLayer),
            c_void_p,
            c_void_p,
            POINTER(_Matrix),
            c_int,
        ]
        library.understudy_step.argtypes = [
            c_void_p,
            POINTER(_KernelToken),
            c_int64,
            *[c_void_p] * 4,
            c_int64,
            c_void_p,
        ]
        library.understudy_step.restype = None
        library.understudy_close.argtypes = [c_void_p]
        library.understudy_close.restype = None
        around = [weight.data_ptr() for weight in (model.model.embed_tokens.weight, model.model.norm.weight)]
        head = byref(self._matrix(model.lm_head))
        self._handle = library.understudy_open(byref(self._shape), self._layers, *around, head, threads)

    def forward(self, spans: Sequence[ScheduledTokens]) -> Any:
        """Logits `[wanted spans, vocabulary]`, float32, after each wanted span's last token."""
        self._look_at_stack()
        parts = [self._forward(piece) for piece in _split_into_steps(spans)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def close(self) -> None:
        """Let go of the kernel's threads and memory."""
        self._library.understudy_close(self._handle)

    def _layer(self, layer: Any, linears: Sequence[Any]) -> _KernelLayer:
        attention = layer.self_attn
        around = (layer.input_layernorm.weight.data_ptr(), layer.post_attention_layernorm.weight.data_ptr())
        matrices = [self._matrix(linear) for linear in linears]
        biases = [0 if linear.bias is None else linear.bias.data_ptr() for linear in linears]
        norms = [getattr(attention, name).weight.data_ptr() if hasattr(attention, name) else 0 for name in NORMS]
        window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)) or 0
        return _KernelLayer(*around, *matrices, *biases, *norms, window)

    def _matrix(self, linear: Any) -> _Matrix:
        if not isinstance(linear, Int8Linear):
            return _Matrix(linear.weight.data_ptr(), 0, 0)
        factors, sums = linear.factors.float(), linear.values.sum(1, dtype=torch.int32)
        self._kept += (factors, sums)
        return _Matrix(linear.values.data_ptr(), factors.data_ptr(), sums.data_ptr())

    def _forward(self, spans: Sequence[ScheduledTokens]) -> Any:
        tokens = [token for span in spans for token in _tokens(span)]
        at = torch.tensor([[token.position for token in tokens]])
        cosines, sines = (part[0].contiguous() for part in self._model.model.rotary_emb(torch.empty(0), at))
        ends, end = [], -1
        for span in spans:
            end += len(span.tokens)
            if span.wanted:
                ends.append(end)
        wanted = (c_int64 * len(ends))(*ends)
        logits = torch.empty(len(ends), self._shape.vocabulary, dtype=torch.float32)
        self._library.understudy_step(
            self._handle, (_KernelToken * len(tokens))(*tokens), len(tokens), cosines.data_ptr(), sines.data_ptr(),
            ctypes.addressof(self._stacks), ctypes.addressof(wanted), len(ends), logits.data_ptr(),
        )  # fmt: skip
        for span in spans:
            span.row.tokens += span.tokens
        return logits

    def _look_at_stack(self) -> None:
        """Learn where the adapters lie, which changes when the stack grows."""
        if self._stack_version == self._stack.version:
            return
        for layer in range(self._shape.layers):
            for number, name in enumerate(LINEARS):
                a, b = self._stack.pairs.get(f"model.layers.{layer}.{name}", (None, None))
                found = _Stack() if a is None else _Stack(a.data_ptr(), b.data_ptr(), a.shape[1])
                self._stacks[layer * len(LINEARS) + number] = found
        self._stack_version = self._stack.version


def _tokens(span: ScheduledTokens) -> Iterator[_KernelToken]:
    memory, capacity, before = span.row.memory.data_ptr(), span.row.memory.shape[3], len(span.row.tokens)
    for number, token in enumerate(span.tokens):
        yield _KernelToken(memory, capacity, before + number, span.seat.slot or 0, token)


def _split_into_steps(spans: Sequence[ScheduledTokens]) -> Iterator[list[ScheduledTokens]]:
    """The spans in order, in groups that the kernel takes at once; a long span is cut."""
    piece: list[ScheduledTokens] = []
    room = MAX_STEP_TOKENS
    for span in spans:
        rest = span.tokens
        while len(rest) > room:
            yield [*piece, ScheduledTokens(span.row, rest[:room], span.seat, wanted=False)]
            piece, rest, room = [], rest[room:], MAX_STEP_TOKENS
        piece.append(ScheduledTokens(span.row, rest, span.seat, span.wanted))
        room -= len(rest)
    yield piece


def _kernel_shape(model: Any) -> _Shape:
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = _Shape(
        config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads,
        config.num_key_value_heads, width, config.vocab_size, MAX_STEP_TOKENS, MAX_KERNEL_RANK, config.rms_norm_eps, width**-0.5,
    )  # fmt: skip
    fits = {
        "weights that are not bfloat16 or int8": {it.dtype for it in model.parameters()}
        <= {torch.bfloat16, torch.int8},
        "another activation": config.hidden_act == "silu",
        "odd widths": _has_supported_widths(shape, is_int8=isinstance(model.lm_head, Int8Linear)),
        "a bias at the end": model.lm_head.bias is None,
        "another device": model.device.type == "cpu",
    }
    if odd := [what for what, right in fits.items() if not right]:
        raise KernelUnavailableError(f"the model has {', '.join(odd)}")
    return shape


def _has_supported_widths(shape: _Shape, *, is_int8: bool) -> bool:
    """Whether all widths are multiples of what is computed at once."""
    widths = (shape.hidden, shape.inner, shape.heads * shape.width)
    at_once = 64 if is_int8 else 32
    most = MAX_INT8_WIDTH if is_int8 else max(widths)
    of_heads = shape.width % 32 == 0 and shape.width <= 256
    return all(wide % at_once == 0 and wide <= most for wide in widths) and of_heads and shape.vocabulary % 4 == 0


def _layer_linears(layer: int, linears: Mapping[str, Any]) -> list[Any]:
    return [linears[f"model.layers.{layer}.{name}"] for name in LINEARS]


__all__ = ["compile_kernel", "enable_kernel", "load_compiled", "supports_model"]


log = logging.getLogger(__name__)


PROBE_TOKENS = 8


MAX_LOGPROB_DIFFERENCE = 0.2


"""So far apart may log-probabilities of likely tokens be on average: bfloat16 is coarse, a wrong sum is far beyond."""


def supports_model(model: Any) -> bool:
    """Whether it is worth compiling for this model on this machine; the reason why not is logged."""
    try:
        require_supported_cpu()
    except KernelUnavailableError as error:
        log.info("replies are computed by torch: %s", error)
        return False
    return bool(model.device.type == "cpu" and model.dtype == torch.bfloat16)


def compile_kernel(use: Callable[[CDLL], None]) -> None:
    """Compile the kernel, on a thread beside the engine's, and hand it over."""
    try:
        use(compile_and_load())
    except KernelUnavailableError as error:
        log.info("replies are computed by torch: %s", error)


def enable_kernel(library: CDLL, decoder: StackedLoraRunner) -> None:
    """Have a decoder compute by the kernel from now on, unless what it gives is not what the model gives."""
    try:
        kernel = KernelRunner(library, decoder.model, decoder.linears, decoder.stack, torch.get_num_threads())
        _verify_kernel(kernel, decoder)
    except KernelUnavailableError as error:
        log.info("replies are computed by torch: %s", error)
        return
    decoder.quick = kernel
    log.info("replies are computed by the compiled kernel")


def _verify_kernel(kernel: KernelRunner, decoder: StackedLoraRunner) -> None:
    ours, models = (_probe_logprobs(decoder, forward) for forward in (kernel.forward, decoder.compute))
    likely = models.topk(PROBE_TOKENS).indices
    apart = float((ours.gather(-1, likely) - models.gather(-1, likely)).abs().mean())
    if not apart < MAX_LOGPROB_DIFFERENCE:
        kernel.close()
        raise KernelUnavailableError(f"the kernel is {apart:.2f} away from the model")


def _probe_logprobs(decoder: StackedLoraRunner, forward: Callable[[list[ScheduledTokens]], Any]) -> Any:
    """Log-probabilities after two texts, one of them in two parts."""
    numbers = torch.arange(1, 3 * PROBE_TOKENS).mul(7919).remainder(decoder.model.config.vocab_size).tolist()
    rows = [SequenceKVCache(decoder.shape, len(numbers)) for _ in range(2)]
    first = ScheduledTokens(rows[0], numbers[:PROBE_TOKENS])
    forward([first])
    return forward(
        [ScheduledTokens(rows[0], numbers[PROBE_TOKENS:]), ScheduledTokens(rows[1], numbers[1:])]
    ).log_softmax(-1)
