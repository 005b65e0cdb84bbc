"""The memory of a llama.cpp server, and whether a second one has room beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from personas.schemas.formatting import format_gib

KV_BYTES = 2  # llama.cpp keeps keys and values in float16
FIXED_BYTES = 400 * 2**20
"""The program itself, and its buffers for a batch."""
SPARE_SHARE = 0.1
"""Share of the machine's memory that a second server has to leave free."""


@dataclass(frozen=True)
class ServerMemory:
    """Bytes that a server takes, and those that are free on this machine."""

    need_bytes: int
    free_bytes: int
    total_bytes: int

    @property
    def has_room(self) -> bool:
        """A further server fits beside what runs now."""
        return self.need_bytes + SPARE_SHARE * self.total_bytes <= self.free_bytes

    @property
    def switch(self) -> str:
        """How a promotion gets its adapter to a server, for people."""
        sizes = (
            f"a server takes {format_gib(self.need_bytes)}, and {format_gib(self.free_bytes)} are "
            "free"
        )
        if self.has_room:
            return f"a promotion starts a second server beside the first ({sizes})"
        return f"a promotion restarts the server between replies, which wait meanwhile ({sizes})"


def server_memory(files: Sequence[Path], config: Any, tokens: int) -> ServerMemory:
    """Estimate the memory of a server that loads these files, with a context of so many tokens in
    all its slots.
    """
    weights = sum(path.stat().st_size for path in files if path.exists())
    need = weights + tokens * kv_bytes_per_token(config) + FIXED_BYTES
    memory = psutil.virtual_memory()
    return ServerMemory(need, memory.available, memory.total)


def kv_bytes_per_token(config: Any) -> int:
    """Return the bytes of a token's keys and values in all layers."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    key_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    head_size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    return int(2 * KV_BYTES * text.num_hidden_layers * key_heads * head_size)
