"""A transformers model run by the compiled kernel, over the model's own weights and the rows' own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from typing import Any

import torch

from personas.engine.adapters import AdapterStack
from personas.engine.decoder import Span
from personas.engine.kernel.build import NoKernelError
from personas.int8 import Int8Linear

MOST_TOKENS = 512
MOST_RANK = 256
MOST_INT8_WIDTH = 2**16
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


class _Layer(Structure):
    _fields_ = (
        *((name, c_void_p) for name in "norm inner_norm".split()),
        *((name, _Matrix) for name in "q k v o gate up down".split()),
        *((f"{name}_bias", c_void_p) for name in "q k v o gate up down".split()),
        *((name, c_void_p) for name in "q_norm k_norm".split()),
        ("window", c_int64),
    )


class _Stack(Structure):
    _fields_ = (("a", c_void_p), ("b", c_void_p), ("rank", c_int64))


class _Token(Structure):
    _fields_ = (
        ("memory", c_void_p),
        *((name, c_int64) for name in "capacity position slot id".split()),
    )


class KernelRows:
    """Computes spans as `StackedDecoder` does, for a model that it recognises."""

    def __init__(
        self, library: ctypes.CDLL, model: Any, linears: Mapping[str, Any], stack: AdapterStack, threads: int
    ) -> None:
        """Raises `NoKernelError` when the model is built otherwise than the kernel computes."""
        self._model, self._stack, self._library = model, stack, library
        self._shape = _recognised(model)
        self._kept: list[Any] = []
        layers = (self._layer(layer, _linears_of(at, linears)) for at, layer in enumerate(model.model.layers))
        self._layers = (_Layer * self._shape.layers)(*layers)
        self._stacks = (_Stack * (len(LINEARS) * self._shape.layers))()
        self._stack_version = -1
        library.understudy_open.restype = c_void_p
        library.understudy_open.argtypes = [
            POINTER(_Shape),
            POINTER(_Layer),
            c_void_p,
            c_void_p,
            POINTER(_Matrix),
            c_int,
        ]
        library.understudy_step.argtypes = [c_void_p, POINTER(_Token), c_int64, *[c_void_p] * 4, c_int64, c_void_p]
        library.understudy_step.restype = None
        library.understudy_close.argtypes = [c_void_p]
        library.understudy_close.restype = None
        around = [weight.data_ptr() for weight in (model.model.embed_tokens.weight, model.model.norm.weight)]
        head = byref(self._matrix(model.lm_head))
        self._handle = library.understudy_open(byref(self._shape), self._layers, *around, head, threads)

    def forward(self, spans: Sequence[Span]) -> Any:
        """Logits `[wanted spans, vocabulary]`, float32, after each wanted span's last token."""
        self._look_at_stack()
        parts = [self._forward(piece) for piece in _pieces(spans)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def close(self) -> None:
        """Let go of the kernel's threads and memory."""
        self._library.understudy_close(self._handle)

    def _layer(self, layer: Any, linears: Sequence[Any]) -> _Layer:
        attention = layer.self_attn
        around = (layer.input_layernorm.weight.data_ptr(), layer.post_attention_layernorm.weight.data_ptr())
        matrices = [self._matrix(linear) for linear in linears]
        biases = [0 if linear.bias is None else linear.bias.data_ptr() for linear in linears]
        norms = [getattr(attention, name).weight.data_ptr() if hasattr(attention, name) else 0 for name in NORMS]
        window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)) or 0
        return _Layer(*around, *matrices, *biases, *norms, window)

    def _matrix(self, linear: Any) -> _Matrix:
        if not isinstance(linear, Int8Linear):
            return _Matrix(linear.weight.data_ptr(), 0, 0)
        factors, sums = linear.factors.float(), linear.values.sum(1, dtype=torch.int32)
        self._kept += (factors, sums)
        return _Matrix(linear.values.data_ptr(), factors.data_ptr(), sums.data_ptr())

    def _forward(self, spans: Sequence[Span]) -> Any:
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
            self._handle, (_Token * len(tokens))(*tokens), len(tokens), cosines.data_ptr(), sines.data_ptr(),
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


def _tokens(span: Span) -> Iterator[_Token]:
    memory, capacity, before = span.row.memory.data_ptr(), span.row.memory.shape[3], len(span.row.tokens)
    for number, token in enumerate(span.tokens):
        yield _Token(memory, capacity, before + number, span.seat.slot or 0, token)


def _pieces(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """The spans in order, in groups that the kernel takes at once; a long span is cut."""
    piece: list[Span] = []
    room = MOST_TOKENS
    for span in spans:
        rest = span.tokens
        while len(rest) > room:
            yield [*piece, Span(span.row, rest[:room], span.seat, wanted=False)]
            piece, rest, room = [], rest[room:], MOST_TOKENS
        piece.append(Span(span.row, rest, span.seat, span.wanted))
        room -= len(rest)
    yield piece


def _recognised(model: Any) -> _Shape:
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = _Shape(
        config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads,
        config.num_key_value_heads, width, config.vocab_size, MOST_TOKENS, MOST_RANK, config.rms_norm_eps, width**-0.5,
    )  # fmt: skip
    fits = {
        "weights that are not bfloat16 or int8": {it.dtype for it in model.parameters()}
        <= {torch.bfloat16, torch.int8},
        "another activation": config.hidden_act == "silu",
        "odd widths": _even(shape, is_int8=isinstance(model.lm_head, Int8Linear)),
        "a bias at the end": model.lm_head.bias is None,
        "another device": model.device.type == "cpu",
    }
    if odd := [what for what, right in fits.items() if not right]:
        raise NoKernelError(f"the model has {', '.join(odd)}")
    return shape


def _even(shape: _Shape, *, is_int8: bool) -> bool:
    """Whether all widths are multiples of what is computed at once."""
    widths = (shape.hidden, shape.inner, shape.heads * shape.width)
    at_once = 64 if is_int8 else 32
    most = MOST_INT8_WIDTH if is_int8 else max(widths)
    of_heads = shape.width % 32 == 0 and shape.width <= 256
    return all(wide % at_once == 0 and wide <= most for wide in widths) and of_heads and shape.vocabulary % 4 == 0


def _linears_of(layer: int, linears: Mapping[str, Any]) -> list[Any]:
    return [linears[f"model.layers.{layer}.{name}"] for name in LINEARS]
