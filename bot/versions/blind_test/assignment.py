"""Assigns blind comparisons to members: a prompt, two replies in random order, and a daily
limit.
"""

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bot.chat.reply_text import remove_links
from bot.chat.request import ChatRequestBuilder
from bot.personas.base_model_compat import require_servable
from bot.platform.errors import RefusedError
from bot.store import (
    ALL_GUILDS,
    BASE_MODEL_NAME,
    BlindComparison,
    NewBlindComparison,
    Store,
    guild_suffix,
)
from bot.training.resource_sharing import TrainerThrottle
from personas.engine import Engine
from personas.errors import RequestError, UnderstudyError
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import ChatReply, ChatRequest, Persona, Turn

SHIPPED_PROMPTS_FOLDER = Path(__file__).resolve().parents[3] / "data" / "evaluation" / "prompts"
GENERAL_PROMPTS_NAME = "general"
MAX_PROMPT_CHARACTERS = 300
"""Characters of a prompt: it stands above two replies in one message."""
MAX_GENERATION_ATTEMPTS = 3
"""Pairs of replies that are generated before two versions count as saying the same."""
VOTE_LIMIT_WINDOW_S = 86_400.0


class PromptsError(UnderstudyError):
    """A file of prompts that cannot be used."""


@dataclass(frozen=True)
class ComparisonPrompt:
    """A prompt. The id is a hash of the text, so that it does not depend on the line's number."""

    id: str
    text: str


def prompts_for(
    persona_id: str, home: Path, shipped: Path = SHIPPED_PROMPTS_FOLDER
) -> list[ComparisonPrompt]:
    """The prompts for a persona, in the file's order, each once. Raises `PromptsError`."""
    for folder in (home / "prompts", shipped):
        for name in (persona_id, GENERAL_PROMPTS_NAME):
            if (file := folder / f"{name}.txt").is_file():
                return _read_prompts(file)
    raise PromptsError(
        "There are no prompts to compare versions by.",
        "The operator can write some into prompts/general.txt.",
    )


def draw_prompt(prompts: Sequence[ComparisonPrompt], seen: Counter[str]) -> ComparisonPrompt:
    """A random prompt of those that a member has seen least."""
    fewest = min(seen[prompt.id] for prompt in prompts)
    return random.choice([prompt for prompt in prompts if seen[prompt.id] == fewest])  # nosec B311  # guards nothing


def _read_prompts(file: Path) -> list[ComparisonPrompt]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptsError(
            f"{file.name} cannot be read.", "It has to be a text file in UTF-8."
        ) from error
    prompts = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if len(text) > MAX_PROMPT_CHARACTERS and not text.startswith("#"):
            advice = f"{MAX_PROMPT_CHARACTERS} are the most that fit."
            raise PromptsError(f"Line {number} of {file.name} has {len(text)} characters.", advice)
        if text and not text.startswith("#"):
            prompts[text] = ComparisonPrompt(hashlib.sha256(text.encode()).hexdigest()[:16], text)
    if not prompts:
        raise PromptsError(f"There is no prompt in {file.name}.", "Write one a line.")
    return list(prompts.values())


@dataclass(frozen=True)
class Contest:
    """Two versions of a persona to compare; None is the base model."""

    persona: Persona
    version: str | None
    against: str | None

    @property
    def names(self) -> tuple[str, str]:
        """Names of both versions."""
        return self.version or BASE_MODEL_NAME, self.against or BASE_MODEL_NAME


@dataclass(frozen=True)
class BlindTests:
    """Generates and assigns the comparisons. `per_day` is how many votes a member has in 24
    hours.
    """

    store: Store
    engine: Engine
    throttle: TrainerThrottle
    builder: ChatRequestBuilder
    home: Path
    per_day: int = 20
    _pending: set[int] = field(
        default_factory=set
    )  # ids of the members for whom two replies are being generated

    def contest(
        self,
        persona: Persona,
        version: str | None,
        against: str | None,
        guild_id: int | None = None,
    ) -> Contest:
        """Resolve two versions (`base` is the base model): by default the newest that is not live,
        and the live one.

        A `guild_id` limits them to those that the guild may use; None is the operator. Raises
        `RequestError` where there is none, and for a version that cannot be served.
        """
        live = self.builder.speaking(persona.id, guild_id or ALL_GUILDS)
        other = self._resolve(persona, against, guild_id) if against else live
        one = (
            self._resolve(persona, version, guild_id)
            if version
            else self._newest(persona, other, guild_id)
        )
        if one == other:
            advice = "Name two versions, with `version` and `against`."
            raise RequestError(f"Both are {one or 'the base model'}.", advice)
        return Contest(persona, one, other)

    def version_names(self, persona: Persona, guild_id: int | None = None) -> list[str]:
        """The versions that can be compared (in a guild), newest first, the base model last."""
        incompatible = self.builder.incompatible_versions
        installed = [it.version for it in self.store.versions.installed(persona.id, guild_id)]
        return [
            *(it for it in reversed(installed) if not incompatible.model_of(persona.id, it)),
            BASE_MODEL_NAME,
        ]

    async def assign(self, contest: Contest, user_id: int, guild_id: int) -> BlindComparison:
        """Return the comparison that a member has not voted on yet, else a new one, stored as shown
        now.

        One at a time is generated for each member. Raises `RefusedError` where they have no votes
        left or their replies are being generated, and `UnderstudyError` where none can be
        generated.
        """
        self.require_votes_left(user_id)
        now = time.time()
        pair = (contest.version, contest.against)
        one = self.store.comparisons.find_open(user_id, guild_id, contest.persona.id, pair, now)
        if one is None:
            return await self._assign_new(contest, user_id, guild_id)
        self.store.comparisons.mark_shown_again(one.seq, now)
        return one

    def require_votes_left(self, user_id: int) -> None:
        """Raise `RefusedError` where a member has used all votes of the last 24 hours."""
        if (
            self.store.comparisons.votes_since(user_id, time.time() - VOTE_LIMIT_WINDOW_S)
            >= self.per_day
        ):
            count = "once" if self.per_day == 1 else f"{self.per_day} times"
            raise RefusedError(
                f"You have voted {count} in the last 24 hours, which is the limit.",
                "Come back tomorrow.",
            )

    async def generate(self, contest: Contest, user_id: int, guild_id: int) -> NewBlindComparison:
        """Generate a comparison for one member: a prompt that they have seen least, two replies in
        random order.

        No two members see the same pair: the randomness of one pair must not sway many votes.
        Raises `UnderstudyError` when a reply fails, and `RequestError` where both are the same each
        time.
        """
        prompts = prompts_for(contest.persona.id, self.home)
        seen = self.store.comparisons.prompts_seen(user_id, contest.persona.id)
        for _ in range(MAX_GENERATION_ATTEMPTS):
            prompt = draw_prompt(prompts, seen)
            one, other = await self._generate_both(contest, prompt, user_id, guild_id)
            if remove_links(one.text) != remove_links(other.text):
                pair = [(contest.version, one), (contest.against, other)]
                random.shuffle(pair)
                (version_a, a), (version_b, b) = pair
                return NewBlindComparison(
                    guild_id, contest.persona.id, user_id, prompt.id, prompt.text, version_a, version_b, a.text, b.text,
                    a.seed, b.seed,
                )  # fmt: skip
        raise RequestError(
            "Both versions say the same, word for word.", "There is nothing to choose between them."
        )

    async def _assign_new(self, contest: Contest, user_id: int, guild_id: int) -> BlindComparison:
        if user_id in self._pending:
            raise RefusedError("Your two replies are being written.", "They appear in a moment.")
        self._pending.add(user_id)
        try:
            generated = await self.generate(contest, user_id, guild_id)
        finally:
            self._pending.discard(user_id)
        return self.store.comparisons.show(generated, time.time())

    def _resolve(self, persona: Persona, name: str, guild_id: int | None) -> str | None:
        if name == BASE_MODEL_NAME:
            return None
        require_servable(self.store, self.builder.incompatible_versions, persona.id, name, guild_id)
        return name

    def _newest(self, persona: Persona, other: str | None, guild_id: int | None) -> str:
        for name in self.version_names(persona, guild_id):
            if name not in (BASE_MODEL_NAME, other):
                return name
        raise RequestError(
            f"{persona.name} has no second version to compare.", "Train one with `/finetune start`."
        )

    async def _generate_both(
        self, contest: Contest, prompt: ComparisonPrompt, user_id: int, guild_id: int
    ) -> tuple[ChatReply, ChatReply]:
        """Generate both replies at once; when one fails, the other is cancelled."""
        pair = (contest.version, contest.against)
        built = [
            await self._request(contest.persona, version, prompt, guild_id) for version in pair
        ]
        requests = [replace(request, member_id=user_id) for request in built]
        tasks = [asyncio.ensure_future(self._complete(request)) for request in requests]
        try:
            one, other = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        if "cancelled" in (one.finish, other.finish):
            raise RefusedError("The replies were stopped before they were complete.", "Try again.")
        return one, other

    async def _complete(self, request: ChatRequest) -> ChatReply:
        stream = self.throttle.submit(self.engine, request)
        try:
            async for _ in stream:
                pass
            return stream.reply
        finally:
            stream.cancel()

    async def _request(
        self, persona: Persona, version: str | None, prompt: ComparisonPrompt, guild_id: int
    ) -> ChatRequest:
        """Build the request of a conversation that begins with the prompt.

        Guild lore is used for the guild's personas only: replies of a shared persona may train it,
        for all guilds.
        """
        builder = self.builder
        lore_guild_id = guild_id if persona.id.endswith(guild_suffix(guild_id)) else 0
        return ChatRequest(
            persona=persona,
            turns=(Turn(EXAMPLE_USER, prompt.text),),
            lore=tuple(await builder.lore.find(persona.id, prompt.text, lore_guild_id)),
            adapter=builder.adapter(persona.id, version) if version else None,
            sampling=replace(builder.sampling, stop=(f"\n{EXAMPLE_USER}:",)),
            guild_id=guild_id,
        )
