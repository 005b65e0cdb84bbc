"""What training keeps of a batch between the way there and the way back, as torch's autograd keeps it.

Counted from the layers of a Llama (RMSNorm, rotary positions, grouped heads, SwiGLU) under LoRA: frozen matrices keep
no input, an adapter keeps its own. Qwen's and Mistral's layers are the same but for norms of queries and keys.
`tests/trainer/test_activations.py` compares with torch's own count.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.predict.shape import Shape
from trainer.process.environment import ALLOCATOR
from trainer.recipe import Recipe

LOGIT_BYTES = 2**29
"""What the logits of replies that are measured together may take, as in `trainer.evaluate`, which would load torch."""

FLOAT32 = 4
HEAP_STEP = int(ALLOCATOR["MALLOC_TOP_PAD_"])
"""Bytes by which the heap grows."""

DROPPED = 1
"""Byte for each value that dropout decided on."""

GATE, LOW = ("gate_proj", "up_proj"), ("q_proj", "k_proj", "v_proj")
LOSS_COPIES = 4
"""Of the float32 logits: themselves, their log-softmax, the gradient that comes to it, and the one that it gives."""

BACKWARD_COPIES, SCORE_COPIES = 4, 2
"""At once, on the way back through one layer: gradients as wide as the feed-forward's middle, and of the scores."""


SCORES_LEFT, MIDDLE_LEFT, MIDDLE_LEFT_TWICE = 0.25, 1.2, 1.8
"""Of what only comes and goes in a layer, attention's scores and the feed-forward's middle, without and with
checkpointing: what is left as holes in the heap. Fitted to measured runs."""


@dataclass(frozen=True)
class Batch:
    """Samples that are computed at once: `rows` of `own` tokens each, padded, after `shared` ones that are computed
    once for all; `trained` tokens in all rows carry loss.
    """

    rows: int
    own: int
    shared: int
    trained: int

    @property
    def whole(self) -> Batch:
        """The same with each row's own beginning."""
        return Batch(self.rows, self.own + self.shared, 0, self.trained)

    @property
    def parts(self) -> tuple[Batch, ...]:
        """What goes through the layers, one after another."""
        return (Batch(1, self.shared, 0, 0), self) if self.shared else (self,)

    @property
    def tokens(self) -> int:
        """That are computed."""
        return self.rows * self.own + self.shared


def kept_bytes(shape: Shape, recipe: Recipe, batch: Batch, value_bytes: int, *, has_scores: bool = True) -> int:
    """Bytes that are kept when the loss has been computed, without those of the loss itself.

    `value_bytes` is what a value takes in the precision that is computed in. Fused attention, as on GPUs, keeps its
    result in place of the scores.
    """

    def layer(part: Batch) -> int:
        scores = _scores(shape, part) if has_scores else part.rows * part.own * shape.attended
        return _layer(shape, recipe, part, value_bytes) + scores * value_bytes

    if recipe.gradient_checkpointing:
        whole = batch.whole
        return shape.layers * whole.tokens * shape.width * value_bytes + layer(whole)
    return shape.layers * sum(layer(part) for part in batch.parts)


def loss_bytes(shape: Shape, batch: Batch) -> int:
    """Bytes of the loss over the trained tokens' logits, on the way back."""
    return LOSS_COPIES * FLOAT32 * batch.trained * shape.vocabulary


def backward_bytes(shape: Shape, recipe: Recipe, batch: Batch, value_bytes: int) -> int:
    """Bytes of the gradients that one layer holds at once on the way back."""
    part = batch.whole if recipe.gradient_checkpointing else batch
    middle = BACKWARD_COPIES * part.rows * part.own * shape.intermediate
    return value_bytes * max(middle, SCORE_COPIES * _scores(shape, part))


def stranded_bytes(shape: Shape, recipe: Recipe, batch: Batch, value_bytes: int, base_bytes: int) -> int:
    """Bytes of the heap that lie free between what is kept, and into which nothing fits.

    Each layer leaves holes where its scores and its feed-forward's middle came and went: the next layer's do not fit
    into them, because something small that is kept has been put there. Under checkpointing they go twice. And what came
    and went while the base model was loaded leaves some: a step of the heap at most, and at most twice what it holds.
    Batches of other lengths leave more, until it is given back (`trainer.loop.trimming`).
    """
    parts = (batch.whole,) if recipe.gradient_checkpointing else batch.parts
    middle_left = MIDDLE_LEFT_TWICE if recipe.gradient_checkpointing else MIDDLE_LEFT
    holes = sum(
        SCORES_LEFT * _scores(shape, part) + middle_left * part.rows * part.own * shape.intermediate for part in parts
    )
    return round(shape.layers * holes * value_bytes) + min(HEAP_STEP, 2 * base_bytes)


def measuring_bytes(shape: Shape, batch: Batch, value_bytes: int) -> int:
    """Bytes that measuring a batch takes: keys and values of all layers, and the loss over its logits."""
    seen = batch.rows * (batch.own + batch.shared)
    cached = 2 * shape.layers * seen * shape.keys * value_bytes
    at_once = max(batch.trained / batch.rows, LOGIT_BYTES // (shape.vocabulary * (value_bytes + 2 * FLOAT32)))
    logits = round(min(batch.trained, at_once)) * shape.vocabulary * (value_bytes + 2 * FLOAT32)
    layer = value_bytes * max(3 * batch.rows * batch.own * shape.intermediate, 2 * _scores(shape, batch))
    return cached + max(logits, layer)


def _layer(shape: Shape, recipe: Recipe, batch: Batch, value_bytes: int) -> int:
    """What one layer keeps of a batch, but for attention's scores."""
    tokens, seen = batch.rows * batch.own, batch.rows * (batch.own + batch.shared)
    norms = 2 * FLOAT32 * shape.width
    feed_forward = (
        3 * shape.intermediate * value_bytes
    )  # the gate before and after SiLU, and what it is multiplied with
    values = norms + shape.attended * value_bytes + feed_forward
    return tokens * (values + _adapters(shape, recipe, value_bytes)) + seen * 2 * shape.keys * value_bytes


def _adapters(shape: Shape, recipe: Recipe, value_bytes: int) -> int:
    """Bytes that a layer's adapters keep of a token: what comes in, once for those that share it, and what A gives."""
    targets = [name for name in recipe.target_modules if name in shape.adaptable]
    inputs = {_sharing(name): shape.adaptable[name][0] for name in targets}
    each = value_bytes + (DROPPED if recipe.lora_dropout else 0)
    return sum(inputs.values()) * each + len(targets) * recipe.lora_r * value_bytes


def _sharing(name: str) -> str:
    return next((group[0] for group in (LOW, GATE) if name in group), name)


def _scores(shape: Shape, batch: Batch) -> int:
    """Attention's weights of one layer: of each head, from each own token to each that stands before it."""
    return batch.rows * shape.heads * batch.own * (batch.own + batch.shared)
