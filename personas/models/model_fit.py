"""Sums of what a base model of the catalogue takes on a machine: memory to serve it, disk, speed, and the engine that
serves it best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from personas.models.catalogue import NF4_BYTES, WEIGHT_BYTES, CatalogueModel

EngineName = Literal["local", "llamacpp"]
BATCHED_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Kinds of models whose replies the built-in engine computes in one batch: their linear layers see each
token once, and their attention is the usual one.
"""
GGUF_ADAPTER_MODEL_TYPES = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "gemma", "gemma2", "gemma3",
     "gemma3_text", "phi3"}
)  # fmt: skip
"""Kinds whose adapters can be written as GGUF (`personas.models.gguf_format.LORA_ARCHITECTURES`)."""
SERVED_TOKENS = 8192
"""Prompt and reply for which keys and values are counted."""
RESERVE_BYTES = 2**30
"""Main memory that is left to the system and other programs. What they hold at the moment does not count:
a model is chosen for good.
"""
LIBRARIES_BYTES = 2**30
"""The bot with torch and its libraries, without a model; an assumption."""
LLAMA_SERVER_BYTES = 2**29
"""Buffers of llama-server beside weights, keys and values; an assumption."""
GPU_OVERHEAD_BYTES = 3 * 2**29
"""What the engine keeps free on a GPU (`personas.models.serving_model`, which loads torch)."""
LLAMACPP_SHARE = 0.4
"""Bytes of weights per second that llama.cpp reads with an adapter, relative to the built-in engine in
bfloat16: one chat on Q4_K_M, in the shapes of Qwen3 1.7B (7.4 GB/s against 17.1) and 4B (docs/benchmarks.md).
"""
MEASURED_HERE = "measured here"
READING_TOKENS_PER_S = 5.0
"""Tokens per second that people read: some 240 words a minute (Brysbaert 2019), 1.3 tokens each."""


@dataclass(frozen=True)
class MachineCapacity:
    """A machine's memory in bytes (`card_bytes` is 0 without a graphics card that torch can use,
    `free_bytes` of the main memory are free at the moment), and bytes of weights that its processor
    reads per second in `precision`, 0 if it was not measured.
    """

    memory_bytes: int
    card_bytes: int = 0
    card_name: str = ""
    is_mac: bool = False
    weight_bytes_per_s: float = 0.0
    precision: str = "bfloat16"
    free_bytes: int = 0

    @property
    def room_bytes(self) -> int:
        """Main memory for models and trainings."""
        return self.memory_bytes - RESERVE_BYTES

    @property
    def has_bfloat16(self) -> bool:
        return self.precision == "bfloat16"


@dataclass(frozen=True)
class EngineChoice:
    """The engine that serves a model best on a machine, the precision of its weights, and the reason.

    `bytes` of memory are on the card if `on_card`. `read_bytes` are read for each token.
    """

    engine: EngineName
    precision: str
    on_card: bool
    bytes: int
    read_bytes: int
    reason: str


@dataclass(frozen=True)
class TrainingNeed:
    """Peak memory of the lightest recipe here in bytes, and whether the machine has as much."""

    recipe: str
    bytes: int
    fits: bool


@dataclass(frozen=True)
class ModelFit:
    """A model on a machine. `tokens_per_s` is for one chat, None if unknown; `speed_basis` says where
    it comes from.

    `fits`: `both`: it trains while it serves; `in turn`: either at a time; `serves`; `no`.
    """

    model: CatalogueModel
    engine: EngineChoice
    training: TrainingNeed | None
    disk_bytes: int
    fits: Literal["both", "in turn", "serves", "no"]
    tokens_per_s: float | None
    speed_basis: str
    expected_tokens_per_s: float | None = None

    @property
    def base_model(self) -> str:
        """The value of BASE_MODEL."""
        return self.model.gguf if self.engine.engine == "llamacpp" else self.model.id

    @property
    def unloaded_tokens_per_s(self) -> float | None:
        """The speed without other load, which slows what is measured: the faster of the two known."""
        known = [
            each for each in (self.tokens_per_s, self.expected_tokens_per_s) if each is not None
        ]
        return max(known, default=None)

    @property
    def is_slower_than_people_read(self) -> bool:
        """False while its speed is unknown."""
        speed = self.unloaded_tokens_per_s
        return speed is not None and speed < READING_TOKENS_PER_S


def fit_model(
    model: CatalogueModel,
    machine: MachineCapacity,
    training: TrainingNeed | None,
    measured: Mapping[tuple[str, str], float],
) -> ModelFit:
    """Sum up a model on a machine. `measured` has tokens per second of one chat by base model (without
    a revision) and engine.
    """
    choice = choose_engine(model, machine)
    has_file = choice.engine == "llamacpp"
    # A GGUF file is unpacked into 16 bits for training.
    disk_bytes = model.weight_bytes + (model.gguf_file_bytes if has_file else 0)
    name = model.gguf if has_file else model.id
    expected, basis = _expected_speed(choice, machine)
    speed = measured.get((name, choice.engine), expected)
    if (name, choice.engine) in measured:
        basis = MEASURED_HERE
    return ModelFit(
        model=model,
        engine=choice,
        training=training,
        disk_bytes=disk_bytes,
        fits=_fits(choice, machine, training),
        tokens_per_s=speed,
        speed_basis=basis,
        expected_tokens_per_s=expected,
    )


def choose_engine(model: CatalogueModel, machine: MachineCapacity) -> EngineChoice:
    """Choose the engine that serves a model best on a machine."""
    cache = model.kv_bytes(SERVED_TOKENS)
    if machine.card_bytes:
        for precision, size in (
            ("16 bits", model.weight_bytes),
            ("NF4", model.packed_bytes(NF4_BYTES)),
        ):
            if size + cache + GPU_OVERHEAD_BYTES <= machine.card_bytes:
                reason = f"fits {machine.card_name or 'the card'} in {precision}"
                needed = size + cache + GPU_OVERHEAD_BYTES
                return EngineChoice(
                    "local",
                    precision,
                    on_card=True,
                    bytes=needed,
                    read_bytes=size,
                    reason=reason,
                )
    if obstacle := _obstacle_to_gguf(model):
        return _local_choice(model, machine, cache, obstacle)
    if machine.is_mac:
        return _llamacpp_choice(model, cache, "llama.cpp computes on Apple's GPU")
    if not machine.has_bfloat16:
        reason = "this processor has no bfloat16, and the file is a quarter of float32"
        return _llamacpp_choice(model, cache, reason)
    if model.config["model_type"] not in BATCHED_MODEL_TYPES:
        reason = "the built-in engine computes one reply at a time of this family"
        return _llamacpp_choice(model, cache, reason)
    local = _local_choice(model, machine, cache, "computes many voices in one batch")
    if local.bytes > machine.room_bytes:
        return _llamacpp_choice(model, cache, "in 16 bits it is larger than the memory")
    return local


def recommend(fits: Sequence[ModelFit]) -> ModelFit | None:
    """Return the largest model that is worth its size here; None if none fits.

    It has an open licence, trains here while it serves, and writes as fast as people read where the
    speed is known; the smallest where none is as fast. Its replies are computed in one batch, or by
    llama.cpp. The load of the moment does not count.
    """
    candidates = [fit for fit in fits if _is_worth_serving(fit)]
    if not candidates:
        return None
    fast = [fit for fit in candidates if not fit.is_slower_than_people_read]
    if not fast:
        return min(candidates, key=lambda fit: fit.model.parameters)
    return max(fast, key=lambda fit: fit.model.parameters)


def _is_worth_serving(fit: ModelFit) -> bool:
    is_batched = (
        fit.engine.engine == "llamacpp" or fit.model.config["model_type"] in BATCHED_MODEL_TYPES
    )
    is_candidate = fit.model.is_open and fit.model.is_recommended
    return is_candidate and fit.fits == "both" and is_batched


def _obstacle_to_gguf(model: CatalogueModel) -> str:
    if not model.gguf:
        return "no GGUF file of it can be a base model here"
    if model.config["model_type"] not in GGUF_ADAPTER_MODEL_TYPES:
        return "llama.cpp takes no adapter of this family"
    return ""


def _llamacpp_choice(model: CatalogueModel, cache: int, reason: str) -> EngineChoice:
    size = model.gguf_file_bytes
    precision = model.gguf.removesuffix(".gguf").rpartition(":")[2].rpartition("-")[2]
    needed = size + cache + LLAMA_SERVER_BYTES + LIBRARIES_BYTES
    return EngineChoice(
        "llamacpp", precision, on_card=False, bytes=needed, read_bytes=size, reason=reason
    )


def _local_choice(
    model: CatalogueModel, machine: MachineCapacity, cache: int, reason: str
) -> EngineChoice:
    model_bytes = 2 if machine.has_bfloat16 else 4
    size = model.parameters * model_bytes
    # Of an untied table of embeddings only a row is read.
    read = size
    if not model.config["tie_word_embeddings"]:
        read -= model.embedding_parameters // 2 * model_bytes
    precision = "bfloat16" if machine.has_bfloat16 else "float32"
    needed = size + cache * model_bytes // WEIGHT_BYTES + LIBRARIES_BYTES
    return EngineChoice(
        "local", precision, on_card=False, bytes=needed, read_bytes=read, reason=reason
    )


def _expected_speed(choice: EngineChoice, machine: MachineCapacity) -> tuple[float | None, str]:
    """Return the expected speed of one chat: the weights are read once for each token."""
    if choice.on_card:
        return None, "on a card it is measured with its first replies"
    if machine.is_mac:
        return None, "on Apple's GPU it is measured with its first replies"
    if not machine.weight_bytes_per_s:
        return None, "not measured"
    share = LLAMACPP_SHARE if choice.engine == "llamacpp" else 1
    return (
        share * machine.weight_bytes_per_s / choice.read_bytes,
        "estimated from this processor's speed",
    )


def _fits(
    choice: EngineChoice, machine: MachineCapacity, training: TrainingNeed | None
) -> Literal["both", "in turn", "serves", "no"]:
    room = machine.card_bytes if choice.on_card else machine.room_bytes
    if choice.bytes > room:
        return "no"
    if training is None or not training.fits:
        return "serves"
    # A training on a card takes it alone: the engine leaves it meanwhile.
    trains_on_card = bool(machine.card_bytes)
    if trains_on_card != choice.on_card:
        return "both"
    together = choice.bytes + training.bytes <= room
    return "both" if together or choice.on_card else "in turn"
