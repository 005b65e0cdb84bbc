"""Checks cards and versions against the served base model: token budget, adapters of another
model.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bot.platform.localisation import gettext_lazy, join_texts
from bot.store import Store
from personas.card.card_summary import CountTokens, token_counter
from personas.errors import BaseModelError, CardError, RequestError
from personas.home.adapters import MANIFEST_FILE, DialogueAdapter, adapter_ref
from personas.models.base_model import EMBEDDED, default_template, locate, name_with_settings
from personas.prompt.renderer import EXAMPLE_USER, MAX_CARD_TOKENS, system_text
from personas.schemas.chat import Persona
from personas.schemas.training import TrainingRequest

MAX_GREETING_CHARS = 6000
"""Characters of a greeting: at most four messages at once."""
MAX_CARD_SHARE = 0.7
"""Share of a small context that a card may take."""
CHARS_PER_TOKEN = 3
"""Low estimate of the characters of a token, where there is no tokenizer."""
NO_ADAPTERS = "an engine with adapters"
"""Stands for the other base model of all versions where the engine serves no adapters."""
VersionKey = tuple[str, str]  # persona and version


@dataclass(frozen=True)
class CardTokenCount:
    """Token count of a card: its prose, which is in every prompt, and its examples, which fit in
    part. Prompt and reply have `context_tokens` together.
    """

    prose: int
    examples: int
    context_tokens: int

    @property
    def most(self) -> int:
        """Maximum tokens of a card in a prompt."""
        return min(MAX_CARD_TOKENS, int(self.context_tokens * MAX_CARD_SHARE))

    @property
    def examples_used(self) -> int:
        """Maximum tokens of examples in a prompt."""
        return min(self.examples, max(0, self.most - self.prose))

    @property
    def tokens(self) -> int:
        """All tokens in a prompt."""
        return self.prose + self.examples_used

    @property
    def share(self) -> float:
        """Share of the context of prompt and reply."""
        return self.tokens / self.context_tokens


@functools.cache
def load_token_counter(base_model: str) -> CountTokens | None:
    """The token counter of a base model; None where its tokenizer is not on this machine."""
    name = base_model
    try:
        if base_model != EMBEDDED:
            name = str(locate(base_model, fetch=False).folder)
        return token_counter(name)
    except BaseModelError:
        return None


def token_counter_or_estimate(base_model: str) -> CountTokens:
    """The token counter of a base model, or an estimate where its tokenizer is not on this
    machine.
    """
    return load_token_counter(base_model) or (lambda text: len(text) // CHARS_PER_TOKEN)


def count_card_tokens(persona: Persona, base_model: str, context_tokens: int) -> CardTokenCount:
    """Count the card's tokens with this base model, for prompts with replies of `context_tokens`."""
    count = token_counter_or_estimate(base_model)
    prose = system_text(persona, EXAMPLE_USER) + persona.post_history_instructions
    return CardTokenCount(count(prose), count(persona.mes_example), context_tokens)


def require_token_budget(persona: Persona, where: str, room: CardTokenCount) -> None:
    """Raise `CardError` when the card's prose leaves no room for messages, or its greeting is too
    long.
    """
    if len(persona.first_mes) > MAX_GREETING_CHARS:
        raise CardError(
            f"The greeting in {where} has {len(persona.first_mes)} characters, more than "
            f"{MAX_GREETING_CHARS}.",
            "Shorten first_mes.",
        )
    if room.prose > room.most:
        raise CardError(
            f"{where} would take about {room.prose} tokens of every prompt; at most "
            f"{room.most} leave room to talk.",
            "Shorten the description, or move parts of it into the character book.",
        )


@dataclass(frozen=True)
class IncompatibleVersions:
    """The versions for other base models than the served one, and the names of those models.

    `served_hash` is the served base model's fingerprint, empty where it is unknown. `has_adapters`
    is False where the engine serves none: then no version can be served.
    """

    models: Mapping[VersionKey, str] = field(default_factory=dict)
    served_hash: str = ""
    has_adapters: bool = True

    def model_of(self, persona_id: str, version: str | None) -> str | None:
        """The other base model of a version; None where it can be served, and for the base model
        itself.
        """
        if version and not self.has_adapters:
            return NO_ADAPTERS
        if version:
            return self.models.get((persona_id, version))
        return None

    def model_of_dialogue(self, adapter: DialogueAdapter) -> str | None:
        """The other base model of a dialogue adapter; None where it can be served, or its manifest
        cannot be read.
        """
        if not self.has_adapters:
            return NO_ADAPTERS
        is_served = adapter.base_model_hash in ("", self.served_hash) or not self.served_hash
        return None if is_served else adapter.base_model

    def warning(self, live: Iterable[VersionKey], served: str) -> str:
        """Warn the operator about incompatible live versions; empty when there are none."""
        models = {key: model for key in live if (model := self.model_of(*key))}
        if not models:
            return ""
        if not self.has_adapters:
            names = ", ".join(f"{persona} {version}" for persona, version in models)
            return f"This engine serves no adapters. The base model answers instead of {names}."
        versions = []
        for (persona, version), model in models.items():
            versions.append(f"{persona} {version} (for {model})")
        names = ", ".join(versions)
        return (
            f"Made for another base model than {served}: {names}. The base model answers for them "
            "until they are "
            "trained again, or BASE_MODEL names theirs."
        )


def find_incompatible_versions(
    home: Path, installed: Iterable[VersionKey], served_hash: str
) -> IncompatibleVersions:
    """Find installed versions that cannot be served, by their manifests. Damaged ones are found
    when loaded.
    """
    models = {}
    for persona_id, version in installed:
        try:
            manifest = json.loads(
                (adapter_ref(home, persona_id, version).folder / MANIFEST_FILE).read_bytes()
            )
            if manifest["base_model_hash"] != served_hash:
                models[persona_id, version] = str(manifest["base_model"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return IncompatibleVersions(models, served_hash)


def explain_unserved(name: str, model: str) -> tuple[str, str]:
    """Return why a version or adapter made for another `model` cannot be served, and what to do."""
    if model == NO_ADAPTERS:
        return (
            gettext_lazy("{name} is kept, but this engine serves no adapters.", name=name),
            gettext_lazy("Start the bot with ENGINE=local or ENGINE=vllm."),
        )
    return (
        gettext_lazy(
            "{name} was made for {model}, which is not served here.", name=name, model=model
        ),
        gettext_lazy("Train it again, or start the bot with BASE_MODEL={model}.", model=model),
    )


def compatibility_notes(
    request: TrainingRequest, served: str, *, has_adapters: bool = True
) -> list[str]:
    """List warnings about a job before it starts; `has_adapters` is False where the engine serves
    none.
    """
    if not has_adapters:
        what, advice = explain_unserved(gettext_lazy("The version"), NO_ADAPTERS)
        return [join_texts(what, advice)]
    settings = request.hyperparameters
    wanted = name_with_settings(request.base_model, settings)
    if is_same_model(wanted, served):
        return []
    return [
        gettext_lazy(
            "The adapter is made for {wanted} and cannot be served here: this bot serves {served}. "
            "Start the bot with BASE_MODEL={wanted} to hear it.",
            wanted=wanted,
            served=served,
        )
    ]


def is_same_model(name: str, other: str) -> bool:
    """Report whether two names mean one base model: the same name, or the same files, scaling and
    chat template.
    """
    if name == other:
        return True
    try:
        first = locate(name, fetch=False)
        second = locate(other, fetch=False)
        alike = first.scaling == second.scaling and default_template(first) == default_template(
            second
        )
        return alike and first.folder.samefile(second.folder)
    except (BaseModelError, OSError, RuntimeError, ValueError):
        return False


def require_servable(
    store: Store,
    incompatible: IncompatibleVersions,
    persona_id: str,
    version: str,
    guild_id: int | None = None,
) -> None:
    """Raise `RequestError` for a version that is withdrawn, not installed, or made for another base
    model.

    Also for one that the guild may not use, if there is a `guild_id`.
    """
    if store.versions.is_withdrawn(persona_id, version):
        raise RequestError(
            gettext_lazy("{version} was withdrawn.", version=version),
            gettext_lazy("Train another one."),
        )
    store.versions.require_installed(persona_id, version, guild_id)
    if model := incompatible.model_of(persona_id, version):
        why, advice = explain_unserved(version, model)
        raise RequestError(why, advice)
