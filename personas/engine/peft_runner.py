"""Fallback runner through peft, one sequence at a time, and the peft adapter switcher."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from personas.engine.kv_cache import PrefixCache
from personas.engine.model_runner import ScheduledTokens
from personas.errors import AdapterError
from personas.home.adapters import verify_for_base_model
from personas.schemas.chat import AdapterRef


class PeftSwitcher:
    """One base model and the adapters that lie over it; exactly one, or none, is active at a time.

    Adapter weights take the base model's precision. Use from one thread.
    """

    def __init__(self, base: Any, base_hash: str, keep: int = 8) -> None:
        """`keep` adapters stay loaded; beyond that the one that was used longest ago leaves."""
        self._base, self._base_hash, self._keep = base, base_hash, keep
        self._peft: Any = None
        self._loaded: dict[str, None] = {}  # by name, least recently used first

    def load(self, adapter: AdapterRef) -> None:
        """Verify an adapter folder and load it. Raises `AdapterError`; the loaded ones are untouched then."""
        if adapter.name in self._loaded:
            self._loaded[adapter.name] = self._loaded.pop(adapter.name)
            return
        verify_for_base_model(adapter, self._base_hash)
        self.admit(adapter)

    def admit(self, adapter: AdapterRef) -> None:
        """The same without verifying: for an adapter that is not sealed yet."""
        self.attach(adapter)
        self._loaded[adapter.name] = None
        if len(self._loaded) > self._keep:
            self._forget(next(iter(self._loaded)))

    def drop(self, adapter: AdapterRef) -> None:
        """Let go of an adapter; nothing happens when it is not loaded."""
        if adapter.name in self._loaded:
            self._forget(adapter.name)

    def _forget(self, name: str) -> None:
        del self._loaded[name]
        if self._loaded:
            self._peft.set_adapter(next(reversed(self._loaded)))  # peft would choose one itself
            self._peft.delete_adapter(name)
        else:
            self._base, self._peft = self._peft.unload(), None

    def use(self, adapter: AdapterRef | None) -> AbstractContextManager[Any]:
        """The model with this adapter active, or the bare base model, for the time of a `with` block."""
        if adapter is None:
            return self._peft.disable_adapter() if self._peft else nullcontext()
        self.load(adapter)
        self._peft.set_adapter(adapter.name)
        return nullcontext()

    @property
    def model(self) -> Any:
        """The model to call inside `use`."""
        return self._peft or self._base

    def attach(self, adapter: AdapterRef) -> None:
        """Load an adapter folder unverified and make it active: for measuring one that is not sealed yet."""
        from peft import PeftModel

        options = {"adapter_name": adapter.name, "autocast_adapter_dtype": False}
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers for it
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self._base, adapter.folder, **options).eval()
            else:
                self._peft.load_adapter(adapter.folder, **options)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise AdapterError(f"The adapter in {adapter.folder} does not fit: {error}", "Train it again.") from error
        for name, weight in self._peft.named_parameters():
            if f".{adapter.name}." in name and weight.is_floating_point():
                weight.data = weight.data.to(self._base.dtype)


class PeftKVCache:
    """A row's keys and values as transformers keeps them. `tokens` are those that have been computed."""

    def __init__(self, config: Any) -> None:
        from transformers import DynamicCache

        self.memory = DynamicCache(config=config)
        self.tokens: list[int] = []


class PeftRunner:
    """Decodes with `PeftSwitcher`, as slowly as that is."""

    prefixes: PrefixCache | None = None

    def __init__(self, adapted: PeftSwitcher) -> None:
        self.adapted = adapted

    def open(self, capacity: int) -> PeftKVCache:
        """An empty row; `capacity` tokens are to fit, which here they always do."""
        return PeftKVCache(self.adapted.model.config)

    def forward(self, spans: Sequence[ScheduledTokens]) -> Any:
        """Logits `[wanted spans, vocabulary]`. Raises `AdapterError` when an adapter cannot be used."""
        import torch

        wanted = [logits for span in spans if (logits := self._logits(span)) is not None]
        return torch.cat(wanted) if wanted else None

    def _logits(self, span: ScheduledTokens) -> Any:
        import torch

        with self.adapted.use(span.seat.ref), torch.inference_mode():
            model = self.adapted.model
            ids = torch.tensor([span.tokens], device=model.device)
            output = model(input_ids=ids, past_key_values=span.row.memory, use_cache=True, logits_to_keep=1)
        span.row.tokens += span.tokens
        return output.logits[:, -1].float() if span.wanted else None
