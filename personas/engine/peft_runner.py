"""Fallback runner through peft, one sequence at a time, and the switcher of peft adapters over one base model."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import DynamicCache

from personas.engine.kv_cache import PrefixCache
from personas.engine.model_runner import ForwardBackend, ScheduledTokens
from personas.errors import AdapterError
from personas.home.adapters import verify_for_base_model
from personas.home.lora_checks import check_lora_and_values, linear_shapes
from personas.schemas.chat import AdapterRef


class PeftSwitcher:
    """A base model and the peft adapters over it in its precision; at most one is active. Use from one thread."""

    def __init__(self, base: Any, base_hash: str, keep: int = 8) -> None:
        """Keep at most `keep` adapters loaded; the least recently used is deleted beyond that."""
        self._base, self._base_hash, self._keep = base, base_hash, keep
        self.layers = linear_shapes(base)
        self.peft_model: Any = None  # the base model with the loaded adapters; None while there are none
        self._loaded: dict[str, None] = {}  # by name, least recently used first

    @property
    def model(self) -> Any:
        """The model to call inside `use`."""
        return self.peft_model or self._base

    def use(self, adapter: AdapterRef | None) -> AbstractContextManager[Any]:
        """Activate an adapter, or none, for a `with` block; one that is not loaded yet is verified and loaded."""
        if adapter is None:
            return self.peft_model.disable_adapter() if self.peft_model else nullcontext()
        self.load(adapter)
        self.peft_model.set_adapter(adapter.name)
        return nullcontext()

    def load(self, adapter: AdapterRef) -> None:
        """Verify and load an adapter folder. Raises `AdapterError`; the loaded adapters are unchanged then."""
        if adapter.name in self._loaded:
            self._loaded[adapter.name] = self._loaded.pop(adapter.name)
            return
        verify_for_base_model(adapter, self._base_hash)
        self.load_unverified(adapter)

    def load_unverified(self, adapter: AdapterRef) -> None:
        """Load an adapter folder that is not sealed yet. Raises `AdapterError`."""
        self.attach(adapter)
        self._loaded[adapter.name] = None
        if len(self._loaded) > self._keep:
            self._delete(next(iter(self._loaded)))

    def drop(self, adapter: AdapterRef) -> None:
        if adapter.name in self._loaded:
            self._delete(adapter.name)

    def attach(self, adapter: AdapterRef) -> None:
        """Load and activate an adapter folder for good: unverified, and never deleted. Raises `AdapterError`."""
        what = f"{adapter.persona_id} {adapter.version}"
        check_lora_and_values(adapter.folder, self.layers, what)
        options = {"adapter_name": adapter.name, "autocast_adapter_dtype": False}
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # raised by peft's own call
        try:
            if self.peft_model is None:
                self.peft_model = PeftModel.from_pretrained(self._base, adapter.folder, **options).eval()
            else:
                self.peft_model.load_adapter(adapter.folder, **options)
        except Exception as error:
            self._remove_remains(adapter.name)
            raise AdapterError(f"peft cannot load {what}: {error}", "Train it again, or choose another.") from error
        for name, weight in self.peft_model.named_parameters():
            if f".{adapter.name}." in name and weight.is_floating_point():
                weight.data = weight.data.to(self._base.dtype)

    def _remove_remains(self, name: str) -> None:
        """Take out the layers of an adapter that peft loaded in part."""
        for path, layer in list(self._base.named_modules()):
            if isinstance(layer, BaseTunerLayer) and self.peft_model is None:
                self._base.set_submodule(path, layer.get_base_layer())
            elif isinstance(layer, BaseTunerLayer):
                layer.delete_adapter(name)
        if self.peft_model is None:
            vars(self._base).pop("peft_config", None)
        else:
            self.peft_model.peft_config.pop(name, None)

    def _delete(self, name: str) -> None:
        del self._loaded[name]
        if self._loaded:
            self.peft_model.set_adapter(next(reversed(self._loaded)))  # otherwise peft activates any other
            self.peft_model.delete_adapter(name)
        else:
            self._base, self.peft_model = self.peft_model.unload(), None


class PeftKVCache:
    """Keys and values of one sequence in a cache of transformers. `tokens` are those computed so far."""

    def __init__(self, config: Any) -> None:
        self.memory = DynamicCache(config=config)
        self.tokens: list[int] = []


class PeftRunner:
    """Computes one sequence at a time with the adapter that `PeftSwitcher` activates; it stores no prefixes."""

    prefixes: PrefixCache | None = None

    def __init__(self, switcher: PeftSwitcher) -> None:
        self._switcher = switcher

    @property
    def backend(self) -> ForwardBackend:
        return self

    def new_kv_cache(self, capacity: int) -> PeftKVCache:
        """Create an empty cache, which grows with its sequence whatever the capacity."""
        return PeftKVCache(self._switcher.model.config)

    def forward(self, scheduled: Sequence[ScheduledTokens]) -> Any:
        """Return float32 logits `[all of them, vocabulary]`, None if no item needs any. Raises `AdapterError`."""
        logits = [self._last_logits(item) for item in scheduled]
        needed = [part for part, item in zip(logits, scheduled, strict=True) if item.logits]
        return torch.cat(needed) if needed else None

    def _last_logits(self, item: ScheduledTokens) -> Any:
        with self._switcher.use(item.slot.ref), torch.inference_mode():
            model = self._switcher.model
            ids = torch.tensor([item.tokens], device=model.device)
            kept = item.logits or 1
            output = model(input_ids=ids, past_key_values=item.kv.memory, use_cache=True, logits_to_keep=kept)
        item.kv.tokens += item.tokens
        return output.logits[0].float()
