"""Assigns blind comparisons to members: a prompt, two replies in random order, and a daily limit."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bot.chat.streaming_reply import remove_links
from bot.errors import RefusedError
from bot.personas.registry import guild_suffix
from bot.services import Services
from bot.store import BASE_MODEL_NAME, BlindComparison, NewBlindComparison
from personas.errors import RequestError, UnderstudyError
from personas.prompt import EXAMPLE_USER
from personas.schemas.chat import ChatReply, ChatRequest, Persona, Turn

SHIPPED_PROMPTS_FOLDER = Path(__file__).resolve().parents[3] / "data" / "evaluation" / "prompts"


GENERAL_PROMPTS_NAME = "general"


MAX_PROMPT_CHARACTERS = 300


"""Characters of a prompt: it stands above two replies in one message."""


class PromptsError(UnderstudyError):
    """A file of prompts that cannot be used."""


@dataclass(frozen=True)
class ComparisonPrompt:
    """A prompt. The id is a hash of the text, so that it stays the same wherever the line stands."""

    id: str
    text: str


def prompts_for(persona_id: str, home: Path, shipped: Path = SHIPPED_PROMPTS_FOLDER) -> list[ComparisonPrompt]:
    """The prompts for a persona, in the file's order, each once. Raises `PromptsError`."""
    for folder in (home / "prompts", shipped):
        for name in (persona_id, GENERAL_PROMPTS_NAME):
            if (file := folder / f"{name}.txt").is_file():
                return _read_prompts(file)
    raise PromptsError(
        "There are no prompts to compare versions by.", "The operator can write some into prompts/general.txt."
    )


def draw_prompt(prompts: Sequence[ComparisonPrompt], seen: Counter[str]) -> ComparisonPrompt:
    """One of those that somebody has seen least, by chance."""
    fewest = min(seen[prompt.id] for prompt in prompts)
    return random.choice([prompt for prompt in prompts if seen[prompt.id] == fewest])


def _read_prompts(file: Path) -> list[ComparisonPrompt]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptsError(f"{file.name} cannot be read.", "It has to be a text file in UTF-8.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise PromptsError(
                f"Line {number} of {file.name} has {len(text)} characters.",
                f"{MAX_PROMPT_CHARACTERS} are the most that fit.",
            )
        found[text] = ComparisonPrompt(hashlib.sha256(text.encode()).hexdigest()[:16], text)
    if not found:
        raise PromptsError(f"There is no prompt in {file.name}.", "Write one a line.")
    return list(found.values())


MAX_GENERATION_ATTEMPTS = 3


"""How often replies are made before two versions count as saying the same."""


@dataclass(frozen=True)
class Contest:
    """Which two versions of a persona are compared; None is the base model."""

    persona: Persona
    version: str | None
    against: str | None

    @property
    def names(self) -> tuple[str, str]:
        """How they are called."""
        return self.version or BASE_MODEL_NAME, self.against or BASE_MODEL_NAME


def resolve_contest(services: Services, persona: Persona, version: str | None, against: str | None) -> Contest:
    """The versions that somebody named, `base` being the base model.

    Without a name it is the newest that does not speak, against the one that speaks now. Raises `RequestError` where
    there is none, and for one that is not installed or cannot be served.
    """
    speaking = services.request_builder.speaking(persona.id)
    other = _resolve_version(services, persona, against) if against else speaking
    one = _resolve_version(services, persona, version) if version else _newest_version(services, persona, other)
    if one == other:
        raise RequestError(f"Both are {one or 'the base model'}.", "Name two versions, with `version` and `against`.")
    return Contest(persona, one, other)


def version_names(services: Services, persona: Persona) -> list[str]:
    """What can be compared, newest first, the base model last."""
    behind = services.request_builder.incompatible_versions
    found = [one.version for one in services.store.versions.installed(persona.id)]
    return [*(version for version in reversed(found) if not behind.model_of(persona.id, version)), BASE_MODEL_NAME]


async def generate_comparison(services: Services, contest: Contest, user_id: int, guild_id: int) -> NewBlindComparison:
    """A comparison for one member: a prompt that they have seen least, two replies, in an order drawn by chance.

    Each is made for one member alone: were it shown to many, what chance made of two replies would sway all of them.
    Raises `UnderstudyError` when a reply cannot be made, and `RequestError` where both say the same each time.
    """
    prompts = prompts_for(contest.persona.id, services.home)
    seen = services.store.comparisons.prompts_seen(user_id, contest.persona.id)
    for _ in range(MAX_GENERATION_ATTEMPTS):
        prompt = draw_prompt(prompts, seen)
        one, other = await _generate_both(services, contest, prompt, guild_id)
        if remove_links(one.text) != remove_links(other.text):
            pair = [(contest.version, one), (contest.against, other)]
            random.shuffle(pair)
            (version_a, a), (version_b, b) = pair
            return NewBlindComparison(
                guild_id, contest.persona.id, user_id, prompt.id, prompt.text, version_a, version_b, a.text, b.text,
                a.seed, b.seed,
            )  # fmt: skip
    raise RequestError("Both versions say the same, word for word.", "There is nothing to choose between them.")


def version_labels(one: BlindComparison) -> tuple[str, str]:
    """Who A and B were, for people."""
    a, b = (name if name != BASE_MODEL_NAME else "the base model" for name in one.versions)
    return a, b


def _resolve_version(services: Services, persona: Persona, name: str) -> str | None:
    if name == BASE_MODEL_NAME:
        return None
    services.store.versions.require_installed(persona.id, name)
    if model := services.request_builder.incompatible_versions.model_of(persona.id, name):
        raise RequestError(f"{name} was made for {model}, which is not served here.", "Name another version.")
    return name


def _newest_version(services: Services, persona: Persona, other: str | None) -> str:
    for name in version_names(services, persona):
        if name not in (BASE_MODEL_NAME, other):
            return name
    raise RequestError(f"{persona.name} has no second version to compare.", "Train one with `/finetune start`.")


async def _generate_both(
    services: Services, contest: Contest, prompt: ComparisonPrompt, guild_id: int
) -> tuple[ChatReply, ChatReply]:
    """Both replies, made at once; when one fails, the other is not waited for."""
    requests = [
        _request(services, contest.persona, version, prompt, guild_id) for version in (contest.version, contest.against)
    ]
    making = [asyncio.ensure_future(_complete_reply(services, request)) for request in requests]
    try:
        one, other = await asyncio.gather(*making)
    finally:
        for task in making:
            task.cancel()
    if "cancelled" in (one.finish, other.finish):
        raise RefusedError("The replies were stopped before they were complete.", "Try again.")
    return one, other


async def _complete_reply(services: Services, request: ChatRequest) -> ChatReply:
    with services.throttle.reply():
        stream = services.engine.submit(request)
        try:
            async for _ in stream:
                pass
            return stream.reply
        finally:
            stream.cancel()


def _request(
    services: Services, persona: Persona, version: str | None, prompt: ComparisonPrompt, guild_id: int
) -> ChatRequest:
    """As in a talk that begins with the prompt. A guild's lore is asked for its own personas only.

    What a version of a persona for everybody says here may come to train that persona, for all guilds.
    """
    talks = services.request_builder
    lore_of = guild_id if persona.id.endswith(guild_suffix(guild_id)) else 0
    return ChatRequest(
        persona=persona,
        turns=(Turn(EXAMPLE_USER, prompt.text),),
        lore=tuple(talks.lore.search(persona.id, prompt.text, guild_id=lore_of)),
        adapter=talks.adapter(persona.id, version) if version else None,
        sampling=replace(talks.sampling, stop=(f"\n{EXAMPLE_USER}:",)),
        guild_id=guild_id,
    )


VOTE_LIMIT_WINDOW_S = 86_400.0


async def assign_comparison(services: Services, contest: Contest, user_id: int, guild_id: int) -> BlindComparison:
    """The comparison that a member has not voted on yet, else a new one, noted as shown now.

    One at a time is made for each member. Raises `RefusedError` where they have voted as often as one may, or where
    their replies are being written, and `UnderstudyError` where none can be made.
    """
    require_votes_left(services, user_id)
    now, pair = time.time(), (contest.version, contest.against)
    one = services.store.comparisons.find_open(user_id, guild_id, contest.persona.id, pair, now)
    if one is None:
        return await _new_comparison(services, contest, user_id, guild_id)
    services.store.comparisons.mark_shown_again(one.seq, now)
    return one


def require_votes_left(services: Services, user_id: int) -> None:
    """Raise `RefusedError` where a member has voted as often as one may in 24 hours."""
    most = services.comparisons_per_day
    if services.store.comparisons.votes_since(user_id, time.time() - VOTE_LIMIT_WINDOW_S) >= most:
        often = "once" if most == 1 else f"{most} times"
        raise RefusedError(f"You have voted {often} in the last 24 hours, as often as one may.", "Come back tomorrow.")


async def _new_comparison(services: Services, contest: Contest, user_id: int, guild_id: int) -> BlindComparison:
    if user_id in services.pending_comparisons:
        raise RefusedError("Your two replies are being written.", "They come in a moment.")
    services.pending_comparisons.add(user_id)
    try:
        made = await generate_comparison(services, contest, user_id, guild_id)
    finally:
        services.pending_comparisons.discard(user_id)
    return services.store.comparisons.show(made, time.time())
