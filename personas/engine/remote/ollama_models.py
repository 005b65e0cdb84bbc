"""The models that a home has at an Ollama server: their names, their use, and which stay in memory."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from personas.home.atomic_files import write_private_file
from personas.schemas.chat import AdapterRef
from personas.schemas.formatting import format_gib

MODELS_FILE = "cache/ollama_models.json"
FORMAT_VERSION = 1
"""Part of each name; raised when the same version would be merged otherwise."""
PREFIX = "understudy-"
BASE_NAME = "base"
MAX_PART_CHARS = 80
DIGEST_CHARS = 12
HOME_CHARS = 8
KEEP_UNUSED_S = 24 * 3600.0
"""A version that is not asked for so long, while another one of its persona is, is deleted there."""
LONG_KEEP_ALIVE_S = 3600
SHORT_KEEP_ALIVE_S = 30
HALF_LIFE_S = 3600.0
"""Time in which a request counts for half as much in the order of the most asked models."""


def namespace_of(home: Path) -> str:
    """Return the part of the names before the slash: another home on this machine has another."""
    digest = hashlib.sha256(str(home.absolute()).encode()).hexdigest()
    return PREFIX + digest[:HOME_CHARS]


def model_name(namespace: str, name: str, content: str) -> str:
    """Return the name of a model, such as `understudy-1f0c9a3e/ada-v3:5b0d4c9e12ab`. The tag differs
    for another content, so that a name never changes what it stands for.
    """
    digest = hashlib.sha256(f"{FORMAT_VERSION}\0{name}\0{content}".encode()).hexdigest()
    part = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:MAX_PART_CHARS].lstrip("-.") or "version"
    return f"{namespace}/{part}:{digest[:DIGEST_CHARS]}"


@dataclass
class ModelUse:
    """A version's model at the server: when it was asked last (seconds since 1970), and whether it is
    to be deleted there.
    """

    model: str
    persona_id: str
    used_at: float
    is_dropped: bool = False


@dataclass
class OllamaModels:
    """The home's models by their adapters' names, stored in the home. `limit` is the most of them."""

    home: Path
    limit: int
    clock: Callable[[], float] = time.time
    uses: dict[str, ModelUse] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return namespace_of(self.home)

    def read(self) -> None:
        """Read those of the last start."""
        try:
            stored = json.loads((self.home / MODELS_FILE).read_bytes())
            self.uses = {
                str(name): ModelUse(
                    str(use["model"]),
                    str(use["persona"]),
                    float(use["used_at"]),
                    is_dropped=bool(use["dropped"]),
                )
                for name, use in stored.items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            self.uses = {}

    def add(self, adapter: AdapterRef, model: str) -> None:
        self.uses[adapter.name] = ModelUse(model, adapter.persona_id, self.clock())
        self._write()

    def use(self, name: str) -> None:
        """Note that a version was asked; the time is stored with the next model."""
        if use := self.uses.get(name):
            use.used_at = self.clock()

    def drop(self, name: str) -> None:
        """Have a version's model deleted, at the latest when the server is checked again."""
        if use := self.uses.get(name):
            use.is_dropped = True
            self._write()

    def remove(self, name: str) -> None:
        """Forget a version whose model was deleted."""
        if self.uses.pop(name, None):
            self._write()

    def superfluous(self, in_flight: Collection[str]) -> list[str]:
        """Return the versions whose models are to be deleted: those that were dropped or that another
        version of the persona has replaced, and beyond the limit those not asked for longest.
        """
        idle = [name for name in self.uses if name not in in_flight]
        latest: dict[str, float] = {}
        for use in self.uses.values():
            latest[use.persona_id] = max(use.used_at, latest.get(use.persona_id, 0.0))
        replaced = [
            name
            for name in idle
            if self.uses[name].is_dropped
            or latest[self.uses[name].persona_id] - self.uses[name].used_at > KEEP_UNUSED_S
        ]
        left = sorted(
            (name for name in idle if name not in replaced),
            key=lambda name: self.uses[name].used_at,
        )
        surplus = len(self.uses) - len(replaced) - self.limit
        return [*replaced, *left[: max(0, surplus)]]

    def foreign(self, listed: Iterable[str]) -> list[str]:
        """Return models of this home that it does not know, such as after a lost file."""
        known = {use.model for use in self.uses.values()}
        start = f"{self.namespace}/"
        return [
            model
            for model in listed
            if model.startswith(start)
            and model not in known
            and not model.startswith(f"{start}{BASE_NAME}:")
        ]

    def _write(self) -> None:
        stored = {
            name: {
                "model": use.model,
                "persona": use.persona_id,
                "used_at": use.used_at,
                "dropped": use.is_dropped,
            }
            for name, use in self.uses.items()
        }
        (self.home / MODELS_FILE).parent.mkdir(parents=True, exist_ok=True)
        write_private_file(self.home / MODELS_FILE, json.dumps(stored).encode())


@dataclass
class AskedMost:
    """Which models stay in memory: those that are asked most, as many as have room there."""

    room: int = 1
    clock: Callable[[], float] = time.monotonic
    _scores: dict[str, tuple[float, float]] = field(default_factory=dict)

    def keep_alive_s(self, model: str) -> int:
        """Count a request of a model; returns the seconds for which it stays loaded after it."""
        self._scores[model] = (self._score(model) + 1, self.clock())
        return LONG_KEEP_ALIVE_S if model in self.favourites else SHORT_KEEP_ALIVE_S

    @property
    def favourites(self) -> list[str]:
        """The models that stay loaded, those asked most at the beginning."""
        return sorted(self._scores, key=self._score, reverse=True)[: max(1, self.room)]

    def forget(self, model: str) -> None:
        self._scores.pop(model, None)

    def _score(self, model: str) -> float:
        score, at = self._scores.get(model, (0.0, 0.0))
        return float(score * 0.5 ** ((self.clock() - at) / HALF_LIFE_S))


@dataclass(frozen=True)
class OllamaMemory:
    """What models take in memory: the base model's and each version's bytes, and what they may have
    together. `loaded_bytes` are those of this home's that are loaded now.
    """

    base_bytes: int
    version_bytes: int
    free_bytes: int
    loaded_bytes: int = 0
    max_loaded: int = 3
    """Ollama's own default for each card (OLLAMA_MAX_LOADED_MODELS)."""

    @property
    def room(self) -> int:
        """Number of versions that stay loaded together; Ollama swaps the others in."""
        free = self.free_bytes + self.loaded_bytes
        return max(1, min(self.max_loaded, free // max(1, self.version_bytes)))

    @property
    def has_room(self) -> bool:
        return self.version_bytes <= self.free_bytes + self.loaded_bytes

    @property
    def text(self) -> str:
        sizes = (
            f"each version takes {format_gib(self.version_bytes)} of memory with its own copy of the "
            f"base model, the untuned one {format_gib(self.base_bytes)}; "
            f"{format_gib(self.free_bytes + self.loaded_bytes)} are free for them"
        )
        if not self.has_room:
            return f"{sizes}: too little for one version"
        kept = "1 version stays" if self.room == 1 else f"{self.room} versions stay"
        return f"{sizes}: {kept} loaded, and Ollama loads others when they are asked"


def loaded_of(namespace: str, loaded: Mapping[str, int]) -> int:
    """Return the bytes of a home's models among those that are loaded."""
    return sum(size for model, size in loaded.items() if model.startswith(f"{namespace}/"))
