"""Fallback runner through peft, one sequence at a time, and the switcher of peft adapters over one
base model.
"""

import inspect
import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import DynamicCache

from personas.engine.kv_cache import PrefixCache, kv_token_bytes
from personas.engine.model_runner import ForwardBackend, ScheduledTokens
from personas.errors import AdapterError, is_out_of_memory
from personas.home.adapters import verify_for_base_model
from personas.home.lora_checks import check_lora_and_values, linear_shapes
from personas.models.probe import differs, plain_logits, probe_tokens
from personas.models.rope_scaling import has_angles_by_length
from personas.schemas.chat import AdapterRef

CACHE_PARAMETERS = ("past_key_values", "cache_params")
"""Names of the cache among the parameters of a model: attention's and hybrids', and those of pure
Mamba.
"""
LOGITS_PARAMETER = "logits_to_keep"
PROBE_TOKENS = 18  # of each of a probe's two texts
PROBE_STEPS = 3  # tokens of them that are decoded one by one
log = logging.getLogger(__name__)


class PeftSwitcher:
    """A base model and the peft adapters over it in its precision; at most one is active. Use from
    one thread.
    """

    def __init__(self, base: Any, base_hash: str, keep: int = 8) -> None:
        """Keep at most `keep` adapters loaded; the least recently used is deleted beyond that."""
        self._base = base
        self._base_hash = base_hash
        self._keep = keep
        self.layers = linear_shapes(base)
        # The base model with the loaded adapters; None while there are none.
        self.peft_model: Any = None
        self._loaded: dict[str, None] = {}  # by name, least recently used first

    @property
    def model(self) -> Any:
        """The model to call inside `use`."""
        return self.peft_model or self._base

    def use(self, adapter: AdapterRef | None) -> AbstractContextManager[Any]:
        """Activate an adapter, or none, for a `with` block; one that is not loaded yet is verified
        and loaded.
        """
        if adapter is None:
            if self.peft_model is None:
                return nullcontext()
            without: AbstractContextManager[Any] = self.peft_model.disable_adapter()
            return without
        self.load(adapter)
        self.peft_model.set_adapter(adapter.name)
        return nullcontext()

    def load(self, adapter: AdapterRef) -> None:
        """Verify and load an adapter folder. Raises `AdapterError`; the loaded adapters are
        unchanged then.
        """
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
        """Load and activate an adapter folder for good: unverified, and never deleted. Raises
        `AdapterError`.
        """
        what = f"{adapter.persona_id} {adapter.version}"
        check_lora_and_values(adapter.folder, self.layers, what)
        options = {"adapter_name": adapter.name, "autocast_adapter_dtype": False}
        # Raised by peft's own call.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        try:
            if self.peft_model is None:
                model = PeftModel.from_pretrained(self._base, adapter.folder, **options)
                self.peft_model = model.eval()
            else:
                self.peft_model.load_adapter(adapter.folder, **options)
        except Exception as error:
            self._remove_remains(adapter.name)
            raise AdapterError(
                f"peft cannot load {what}: {error}", "Train it again, or choose another."
            ) from error
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
            # Otherwise peft activates any other adapter.
            self.peft_model.set_adapter(next(reversed(self._loaded)))
            self.peft_model.delete_adapter(name)
        else:
            self._base = self.peft_model.unload()
            self.peft_model = None


class CacheUse(Enum):
    """How a model's cache is used: a prompt computed in parts, a prompt in one pass, or no cache at
    all.
    """

    PARTS = "its cache takes a prompt in parts"
    WHOLE_PROMPTS = (
        "a prompt is computed in one pass, because the model keeps a state besides keys and values, "
        "or changes its rotary angles with the length of a text"
    )
    NONE = (
        "each token is computed with the whole text before it, because the model's cache gives "
        "other results"
    )


class PeftKVCache:
    """The cache of one sequence as transformers keeps it. `tokens` are all scheduled so far,
    `cached` those in it.
    """

    def __init__(self) -> None:
        self.memory: Any = None
        self.cached = 0
        self.tokens: list[int] = []


class PeftRunner:
    """Computes one sequence at a time with the adapter that `PeftSwitcher` activates; it stores no
    prefixes.

    How the model's cache is used is probed once, without an adapter, before the first token.
    """

    prefixes: PrefixCache | None = None

    def __init__(self, switcher: PeftSwitcher) -> None:
        self._switcher = switcher
        parameters = inspect.signature(switcher.model.forward).parameters
        self._cache_name = next((name for name in CACHE_PARAMETERS if name in parameters), None)
        self._keeps_logits = LOGITS_PARAMETER in parameters

    @property
    def backend(self) -> ForwardBackend:
        return self

    @cached_property
    def cache_use(self) -> CacheUse:
        """The fastest use of the cache that gives the results of a full pass. Raises
        `BaseModelError` if none does.
        """
        with self._switcher.use(None), torch.inference_mode():
            return self._probe_cache()

    def probe(self) -> None:
        """Probe the cache now, and log how it is used. Raises `BaseModelError` if the model gives
        no numbers.
        """
        log.warning("%s models: %s", self._switcher.model.config.model_type, self.cache_use.value)

    def new_kv_cache(self, capacity: int) -> PeftKVCache:
        """Create an empty cache, which grows with its sequence whatever the capacity."""
        return PeftKVCache()

    def kv_bytes(self, tokens: int) -> int:
        return tokens * kv_token_bytes(self._switcher.model)

    def forward(self, scheduled: Sequence[ScheduledTokens]) -> Any:
        """Return float32 logits `[all of them, vocabulary]`, None if no item needs any. Raises
        `AdapterError`.
        """
        logits = [self._last_logits(item) for item in scheduled]
        needed = [part for part, item in zip(logits, scheduled, strict=True) if item.logits]
        if not needed:
            return None
        return torch.cat(needed)

    def _last_logits(self, item: ScheduledTokens) -> Any:
        logits = None
        use = self.cache_use
        if item.logits or use == CacheUse.PARTS:
            with self._switcher.use(item.slot.ref), torch.inference_mode():
                logits = self._compute(item, use)
        item.kv.tokens += item.tokens
        return logits

    def _compute(self, item: ScheduledTokens, use: CacheUse) -> Any:
        """Compute the tokens that the cache lacks, and return the logits of the item's last
        ones.
        """
        kv = item.kv
        text = [*item.kv.tokens, *item.tokens]
        # A cache that is ahead of its tokens stems from a batch that failed. States cannot be
        # rolled back.
        can_go_on = 0 < kv.cached == len(text) - 1
        if use == CacheUse.PARTS:
            can_go_on = kv.cached == len(kv.tokens)
        if not can_go_on or kv.memory is None:
            kv.memory = self._new_memory(use)
            kv.cached = 0
        options: dict[str, Any] = {"use_cache": use != CacheUse.NONE}
        if use != CacheUse.NONE:
            options[str(self._cache_name)] = kv.memory
        kept = item.logits or 1
        if self._keeps_logits:
            options[LOGITS_PARAMETER] = kept
        model = self._switcher.model
        ids = torch.tensor([text[kv.cached :]], device=model.device)
        kv.cached = 0 if use == CacheUse.NONE else len(text)
        return model(input_ids=ids, **options).logits[0, -kept:].float()

    def _new_memory(self, use: CacheUse) -> Any:
        if use == CacheUse.NONE:
            return None
        return DynamicCache(config=self._switcher.model.config)

    def _probe_cache(self) -> CacheUse:
        model = self._switcher.model
        texts = [probe_tokens(model, PROBE_TOKENS, first) for first in (0, PROBE_TOKENS)]
        expected = torch.cat([plain_logits(model, text)[-PROBE_STEPS:] for text in texts])
        uses = [CacheUse.PARTS, CacheUse.WHOLE_PROMPTS]
        # A prompt in parts may continue a state wrongly, or have keys of outdated angles.
        if getattr(model, "_is_stateful", False) or has_angles_by_length(model.config):
            uses = [CacheUse.WHOLE_PROMPTS]
        if not self._cache_name:
            uses = []
        for use in uses:
            try:
                if not differs(model, self._decode(texts, use), expected):
                    return use
            except Exception as error:  # models fail in many ways, and there is another one
                if is_out_of_memory(error):
                    raise
                log.info("a cache that does not work here", exc_info=True)
        return CacheUse.NONE

    def _decode(self, texts: Sequence[Sequence[int]], use: CacheUse) -> Any:
        """Return the logits of each text's last tokens, which are decoded by turns after a prompt
        in two parts.
        """
        caches = [PeftKVCache() for _ in texts]
        half = PROBE_TOKENS // 3
        prompt = PROBE_TOKENS - PROBE_STEPS
        parts = [(0, half), (half, prompt + 1)]
        if use != CacheUse.PARTS:
            parts = [(0, prompt + 1)]
        parts += [(at, at + 1) for at in range(prompt + 1, PROBE_TOKENS)]
        logits: list[list[Any]] = [[] for _ in texts]
        for first, last in parts:
            for kv, text, text_logits in zip(caches, texts, logits, strict=True):
                text_logits.append(self._compute(ScheduledTokens(kv, text[first:last]), use))
                kv.tokens += text[first:last]
        last_logits = []
        for text_logits in logits:
            last_logits += text_logits[-PROBE_STEPS:]
        return torch.cat(last_logits)
