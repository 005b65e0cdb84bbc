"""The memory of a vLLM server of the bot's own, and its place on a card that others use, too."""

from collections.abc import Mapping
from dataclasses import dataclass

from personas.engine.packed_size import packed_weight_bytes
from personas.engine.remote.llamacpp_memory import kv_bytes_per_token
from personas.engine.remote.vllm_command import VllmOptions
from personas.home.lora_checks import LayerShapes
from personas.models.base_model import BaseModel, load_config
from personas.models.graphics_cards import Gpu

SERVER_BYTES = 2 * 2**30
"""CUDA's context, activations and graphs; an assumption."""
SPARE_BYTES = 2**29
"""What stays free on the card."""
MAX_CARD_SHARE = 0.9
"""vLLM's own default."""
LORA_BYTES = 2
"""vLLM keeps adapters in 16 bits."""


@dataclass(frozen=True)
class VllmMemory:
    """Bytes that a server takes on a card: weights in 16 bits or packed to NF4, the places of its
    adapters, keys and values of all replies with full windows, and of one.
    """

    weight_bytes: int
    packed_bytes: int
    lora_bytes: int
    kv_bytes: int
    least_kv_bytes: int

    @classmethod
    def of(cls, base: BaseModel, layers: LayerShapes, options: VllmOptions) -> "VllmMemory":
        """Add up what a server with these options takes."""
        token_bytes = kv_bytes_per_token(load_config(base))
        window_bytes = token_bytes * options.context_tokens
        widths = _widths(layers)
        return cls(
            weight_bytes=base.weight_bytes,
            packed_bytes=packed_weight_bytes(base, layers),
            lora_bytes=options.adapters * options.rank * widths * LORA_BYTES,
            kv_bytes=window_bytes * options.rows,
            least_kv_bytes=window_bytes,
        )

    def least(self, *, packs: bool) -> int:
        """Bytes with which the server can run."""
        weights = self.packed_bytes if packs else self.weight_bytes
        return weights + self.lora_bytes + self.least_kv_bytes + SERVER_BYTES

    def freed_by_packing(self, held_bytes: int) -> int:
        """Return what a server in 16 bits that holds so much frees at most where it is started again
        in NF4.
        """
        return max(0, held_bytes - self.least(packs=True) - SPARE_BYTES)

    def wanted(self, *, packs: bool) -> int:
        """Bytes with which no reply waits for keys and values."""
        return self.least(packs=packs) - self.least_kv_bytes + self.kv_bytes


@dataclass(frozen=True)
class CardPlace:
    """A server's share of a card's memory; `packs`: its weights are packed to NF4."""

    share: float
    packs: bool


def place_on_card(
    card: Gpu, memory: VllmMemory, *, free_bytes: int, packs: bool = False
) -> CardPlace | None:
    """Return a server's place in so many free bytes of a card: in 16 bits unless `packs` or that
    does not fit, else in NF4; None if neither fits.
    """
    room = min(free_bytes - SPARE_BYTES, round(MAX_CARD_SHARE * card.memory_bytes))
    for is_packed in (True,) if packs else (False, True):
        if memory.least(packs=is_packed) <= room:
            taken = min(room, memory.wanted(packs=is_packed))
            return CardPlace(taken / card.memory_bytes, is_packed)
    return None


def _widths(layers: Mapping[str, tuple[int, int]]) -> int:
    return sum(height + width for height, width in layers.values())
