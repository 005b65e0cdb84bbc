"""Predicts a run's peak memory by part: weights, gradients, optimiser state, retained
activations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from personas.models.model_fit import SERVED_TOKENS
from personas.models.serving_model import GPU_OVERHEAD_BYTES, requires_4_bit
from trainer.estimate.model_shape import ModelShape
from trainer.estimate.workload import EVAL_BATCH_SIZE, LOSS_CHUNK_TOKENS, BatchShape, Workload
from trainer.machine import MachineSpec
from trainer.process.environment import ALLOCATOR_SETTINGS
from trainer.schemas import ALL_LINEAR, Recipe

MAX_LOGIT_BYTES = 2**29
"""Limit of a batch's logits in evaluation, as in `trainer.train.losses`, whose import would load
torch.
"""
FLOAT32_BYTES = 4
HEAP_STEP_BYTES = int(ALLOCATOR_SETTINGS["MALLOC_TOP_PAD_"])  # bytes by which the heap grows
DROPOUT_MASK_BYTES = 1  # bytes of dropout's mask per value
SHARED_INPUT_MODULES = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Matrices of a layer with the same input."""
MASK_TRUTH_VALUES = 2
"""Truth values by token pair while a row's attention mask is made."""
LOSS_COPIES = 4
"""Float32 tensors of the logits' size: logits, log-softmax, and the gradients of both."""
# Gradients held at once in one layer's backward pass.
BACKWARD_COPIES = 4  # of the feed-forward's width
SCORE_COPIES = 2  # of attention scores
# Shares of a layer's temporary tensors that remain as holes in the heap, fitted to measured runs.
SCORES_LEFT = 0.25  # of attention scores
MIDDLE_LEFT = 1.2  # of the feed-forward's activations
MIDDLE_LEFT_TWICE = 1.8  # of these with checkpointing, which computes them twice
LIBRARIES_BYTES = 855 * 2**20
"""Torch, transformers, peft, trl, datasets, language detection, and the samples."""
CUDA_CONTEXT_BYTES = 500 * 2**20  # an assumption
GPU_FRAGMENTATION_SHARE = 0.1
"""Fragmentation by CUDA's allocator, as a share of a step's temporary tensors."""
WRITING_PART = "writing"
# Bytes of a float32 adapter weight, its gradient, and AdamW's two means of it.
WEIGHT_BYTES = 4
GRADIENT_BYTES = 4
OPTIMISER_STATE_BYTES = 8
OPTIMISER_STATE_8BIT_BYTES = 2
# Bytes of a 4-bit weight with its constants.
PACKED_WEIGHT_BYTES = 0.5625  # a float32 for 64 weights
DOUBLE_QUANT_WEIGHT_BYTES = 0.516  # a byte for 64 weights, and a float32 for 256 of these


def retained_activation_bytes(
    shape: ModelShape,
    recipe: Recipe,
    batch: BatchShape,
    value_bytes: int,
    *,
    has_scores: bool = True,
) -> int:
    """Bytes of activations that autograd retains after the forward pass, without the loss's.

    `value_bytes` is the size of a value in compute precision. Fused attention, as on GPUs, retains
    its output instead of the scores, and a mask makes it repeat keys and values for their heads.
    """

    def layer(part: BatchShape) -> int:
        scores = part.rows * part.own * (3 * shape.attended - 2 * shape.keys)
        if has_scores:
            scores = _attention_score_bytes(shape, part)
        return _layer_activation_bytes(shape, recipe, part, value_bytes) + scores * value_bytes

    if recipe.gradient_checkpointing:
        whole = batch.whole
        recomputed = recomputed_layers(shape, recipe)
        # Of one at a time, the activations are there again.
        retained = shape.layers - recomputed + 1
        return recomputed * whole.tokens * shape.width * value_bytes + retained * layer(whole)
    return shape.layers * sum(layer(part) for part in batch.parts)


def recomputed_layers(shape: ModelShape, recipe: Recipe) -> int:
    """Count the layers whose activations are computed again in the backward pass."""
    if not recipe.gradient_checkpointing:
        return 0
    return math.ceil(shape.layers / recipe.checkpoint_every_n_layers)


def loss_bytes(shape: ModelShape, batch: BatchShape, value_bytes: int) -> int:
    """Bytes of the loss over the trained tokens' logits: of a chunk of them and its gradient, or of
    all.
    """
    if shape.plain_head and not batch.judged:
        logits = min(batch.trained, LOSS_CHUNK_TOKENS) * shape.vocabulary
        states = batch.trained * shape.width
        return (FLOAT32_BYTES + 2 * value_bytes) * logits + 2 * value_bytes * states
    return LOSS_COPIES * FLOAT32_BYTES * batch.trained * shape.vocabulary


def backward_bytes(
    shape: ModelShape,
    recipe: Recipe,
    batch: BatchShape,
    value_bytes: int,
    *,
    has_scores: bool = True,
) -> int:
    """Bytes of the gradients of one layer held at once in the backward pass.

    Fused attention, as on GPUs, computes its scores piece by piece.
    """
    part = batch.whole if recipe.gradient_checkpointing else batch
    middle = BACKWARD_COPIES * part.rows * part.own * shape.intermediate
    scores = SCORE_COPIES * _attention_score_bytes(shape, part) if has_scores else 0
    return value_bytes * max(middle, scores)


def row_mask_bytes(shape: ModelShape, batch: BatchShape, value_bytes: int) -> int:
    """Bytes of the attention masks of a batch in rows, with the truth values that they are made of:
    where layers have a sliding window, others may have none.
    """
    masks = 2 if shape.window else 1
    return batch.rows * batch.own**2 * (masks * value_bytes + MASK_TRUTH_VALUES)


def fragmentation_bytes(
    shape: ModelShape, recipe: Recipe, batch: BatchShape, value_bytes: int, base_bytes: int
) -> int:
    """Bytes of free heap blocks between allocations that cannot be reused.

    Each layer leaves holes in place of its temporary scores and feed-forward activations, which the
    next layer's do not fit because a small retained allocation lies in them. With checkpointing
    this happens twice. Loading the base model leaves at most one heap step, and at most twice its
    size. Batches of other lengths leave more, until it is trimmed (`trainer.train.callbacks`).
    """
    parts = batch.parts
    middle_left = MIDDLE_LEFT
    if recipe.gradient_checkpointing:
        parts = (batch.whole,)
        middle_left = MIDDLE_LEFT_TWICE
    holes = 0.0
    for part in parts:
        scores_left = SCORES_LEFT * _attention_score_bytes(shape, part)
        holes += scores_left + middle_left * part.rows * part.own * shape.intermediate
    return round(shape.layers * holes * value_bytes) + min(HEAP_STEP_BYTES, 2 * base_bytes)


def evaluation_bytes(shape: ModelShape, batch: BatchShape, value_bytes: int) -> int:
    """Bytes to evaluate a batch: keys and values of all layers, and the loss over its logits.

    Computed in chunks, the loss takes a whole chunk: the score card's replies to instructions are
    longer than one.
    """
    seen = batch.rows * (batch.own + batch.shared)
    cached = 2 * shape.layers * seen * shape.keys * value_bytes
    token = shape.vocabulary * (value_bytes + 2 * FLOAT32_BYTES)
    # At least a whole row's, however many bytes these are.
    at_once = min(batch.trained, max(batch.trained / batch.rows, MAX_LOGIT_BYTES // token))
    if shape.plain_head:
        at_once = LOSS_CHUNK_TOKENS
    logits = round(at_once) * token
    feed_forward = 3 * batch.rows * batch.own * shape.intermediate
    layer = value_bytes * max(feed_forward, 2 * _attention_score_bytes(shape, batch))
    return cached + max(logits, layer)


def _layer_activation_bytes(
    shape: ModelShape, recipe: Recipe, batch: BatchShape, value_bytes: int
) -> int:
    """Bytes that one layer retains of a batch, without attention scores."""
    tokens = batch.rows * batch.own
    seen = batch.rows * (batch.own + batch.shared)
    norms = 2 * FLOAT32_BYTES * shape.width
    # The gate before and after SiLU, and its factor.
    feed_forward = 3 * shape.intermediate * value_bytes
    adapters = _adapter_activation_bytes(shape, recipe, value_bytes)
    values = norms + shape.attended * value_bytes + feed_forward + adapters
    return tokens * values + seen * 2 * shape.keys * value_bytes


def _adapter_activation_bytes(shape: ModelShape, recipe: Recipe, value_bytes: int) -> int:
    """Bytes that a layer's adapters retain per token: shared inputs once, and the outputs of A."""
    matrices = _adapted_matrices(recipe, shape)
    inputs: dict[str, int] = {}
    for name, (size, _) in matrices.items():
        # Matrices of a group read one tensor, which is retained once.
        group = next((names[0] for names in SHARED_INPUT_MODULES if name in names), name)
        inputs[group] = size
    each = value_bytes
    if recipe.lora_dropout:
        each += DROPOUT_MASK_BYTES
    return sum(inputs.values()) * each + len(matrices) * recipe.lora_r * value_bytes


def _adapted_matrices(recipe: Recipe, shape: ModelShape) -> Mapping[str, tuple[int, int]]:
    """Inputs and outputs of each matrix of a layer that gets an adapter, by its name."""
    if ALL_LINEAR in recipe.target_modules:
        return shape.projections
    adaptable = shape.adaptable
    return {name: adaptable[name] for name in recipe.target_modules if name in adaptable}


def _attention_score_bytes(shape: ModelShape, batch: BatchShape) -> int:
    """Bytes of one layer's attention weights: per head, from each own token to each preceding
    one.
    """
    return batch.rows * shape.heads * batch.own * (batch.own + batch.shared)


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak bytes by part: `libraries`, `base model`, `adapter`, `gradients`, `optimiser`,
    `activations` (retained for the backward pass), `loss` (logits and gradients in flight),
    `measuring` (evaluation beyond training), `allocator` (fragmentation), `checkpoint` (the best
    checkpoint's file when it is loaded). Where a model of this machine writes replies before the
    training, `writing` is what that takes beyond all the rest.
    """

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def is_writing_largest(self) -> bool:
        """Report whether the writing of replies takes the most, which no setting lessens."""
        return self.parts.get(WRITING_PART, 0) > 0


def predict_memory(
    recipe: Recipe, shape: ModelShape, longest_tokens: int, machine: MachineSpec
) -> MemoryEstimate:
    """Predict the peak over samples of `longest_tokens`, a quarter of each its reply, without
    shared prefixes.
    """
    train = [longest_tokens] * recipe.per_device_train_batch_size
    work = Workload(train, [longest_tokens] * EVAL_BATCH_SIZE)
    longest = recipe.model_copy(update={"max_length": longest_tokens})
    return memory_of_batches(
        recipe,
        shape,
        trained=work.largest_trained(longest),
        measured=work.largest_measured(longest),
        machine=machine,
    )


def memory_of_batches(
    recipe: Recipe,
    shape: ModelShape,
    trained: BatchShape,
    measured: BatchShape,
    machine: MachineSpec,
    writer: ModelShape | None = None,
) -> MemoryEstimate:
    """Predict the peak for known largest batches: one trained on, one evaluated. `writer` is a model
    that writes replies before, and is gone when the training begins.
    """
    value = compute_dtype_bytes(recipe, machine)
    served = 2 if machine.has_cuda or machine.best == "bf16" else 4
    base = _training_base_bytes(recipe, shape, value, machine)
    weights = adapter_parameter_count(recipe, shape)
    mask = 0
    if machine.has_cuda and not trained.judged:  # as `trainer.train.kernels` lays them out
        trained = trained.in_rows
        mask = row_mask_bytes(shape, trained, value)
    elif machine.has_cuda:
        trained = trained.whole
    adapter = weights * WEIGHT_BYTES
    if value < WEIGHT_BYTES:
        adapter += weights * value  # autocast keeps a 16-bit copy, too
    state = weights * _optimiser_state_bytes(recipe, machine)
    activations = retained_activation_bytes(
        shape, recipe, trained, value, has_scores=not machine.has_cuda
    )
    # The loss is over before the first layer's gradients are computed.
    backward = backward_bytes(shape, recipe, trained, value, has_scores=not machine.has_cuda)
    in_flight = max(loss_bytes(shape, trained, value), backward)
    training = {
        "adapter": adapter,
        "gradients": weights * GRADIENT_BYTES,
        "optimiser": state,
        "activations": activations + mask,
        "loss": in_flight,
    }
    if machine.has_cuda:
        temporary = training["activations"] + training["loss"]
        wasted = round(GPU_FRAGMENTATION_SHARE * temporary)
    else:
        wasted = fragmentation_bytes(shape, recipe, trained, value, base_bytes=base)
    training_at_most = base + sum(training.values()) + wasted
    checkpoint = 0
    if not machine.has_cuda and recipe.eval_strategy != "no":
        checkpoint = weights * WEIGHT_BYTES + state
    between = evaluation_bytes(shape, measured, value) + base + adapter + state
    serving_base = _serving_base_bytes(shape, served, machine)
    after = evaluation_bytes(shape, measured, served) + serving_base + weights * served
    libraries = CUDA_CONTEXT_BYTES if machine.has_cuda else LIBRARIES_BYTES
    parts = {
        "libraries": libraries,
        "base model": base,
        **training,
        "allocator": wasted,
        "checkpoint": checkpoint,
        "measuring": max(0, between - training_at_most, after - training_at_most),
    }
    if writer:
        needed = libraries + _writing_bytes(writer, served, machine)
        parts[WRITING_PART] = max(0, needed - sum(parts.values()))
    return MemoryEstimate(parts)


def adapter_parameter_count(recipe: Recipe, shape: ModelShape) -> int:
    """Count an adapter's parameters: r · (inputs + outputs) per matrix."""
    sizes = _adapted_matrices(recipe, shape).values()
    return shape.layers * recipe.lora_r * sum(inputs + outputs for inputs, outputs in sizes)


def compute_dtype_bytes(recipe: Recipe, machine: MachineSpec) -> int:
    """Bytes of a value in the recipe's compute precision on this machine
    (`trainer.recipe.machine_fit`).
    """
    precision = machine.best if recipe.precision == "auto" else recipe.precision
    computed = precision if machine.has_cuda or precision == "fp32" else machine.best
    return 4 if computed == "fp32" else 2


def _optimiser_state_bytes(recipe: Recipe, machine: MachineSpec) -> int:
    """Bytes of optimiser state per adapter parameter. Paged state moves out of a full GPU."""
    if machine.has_cuda and recipe.optim.startswith("paged_"):
        return 0
    return OPTIMISER_STATE_8BIT_BYTES if recipe.optim.endswith("8bit") else OPTIMISER_STATE_BYTES


def _training_base_bytes(
    recipe: Recipe, shape: ModelShape, value: int, machine: MachineSpec
) -> int:
    """Bytes of the base model during training."""
    if recipe.quant_type == "none":
        return shape.weights * value if machine.has_cuda else _cpu_model_bytes(shape, value)
    if machine.has_cuda:
        packed = DOUBLE_QUANT_WEIGHT_BYTES if recipe.double_quant else PACKED_WEIGHT_BYTES
        return _quantised_model_bytes(shape, value, packed)
    unpacked = shape.linear_weights * value
    # What is not quantised stays where the file is mapped, and all of the file with it, or is
    # copied.
    if value == shape.stored:
        return unpacked + shape.weight_bytes
    return unpacked + (shape.weights - shape.linear_weights) * value


def _serving_base_bytes(shape: ModelShape, value: int, machine: MachineSpec) -> int:
    """Bytes of the base model during evaluation in serving precision
    (`personas.models.serving_model`).
    """
    if not machine.has_cuda:
        return _cpu_model_bytes(shape, value)
    if machine.memory_bytes and requires_4_bit(shape.weight_bytes, machine.memory_bytes):
        return _quantised_model_bytes(shape, value, DOUBLE_QUANT_WEIGHT_BYTES)
    return shape.weights * value


def _writing_bytes(writer: ModelShape, value: int, machine: MachineSpec) -> int:
    """Bytes of an engine whose replies are trained on, counted as `personas.models.model_fit` does."""
    cache = 2 * writer.layers * writer.keys * SERVED_TOKENS * value
    overhead = GPU_OVERHEAD_BYTES if machine.has_cuda else 0
    return _serving_base_bytes(writer, value, machine) + cache + overhead


def _quantised_model_bytes(shape: ModelShape, value: int, packed: float) -> int:
    """Bytes of the whole model with 4-bit linear layers."""
    return round(shape.linear_weights * packed) + (shape.weights - shape.linear_weights) * value


def _cpu_model_bytes(shape: ModelShape, value: int) -> int:
    """Bytes of the whole model on a CPU: the mapped file, or a copy in another precision."""
    return shape.weight_bytes if value == shape.stored else shape.weights * value
