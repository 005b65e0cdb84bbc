"""Blind comparisons of two versions: assigns them to members, takes votes, and judges.

Commands, buttons and pages call `BlindTests`; each member has a daily limit.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from bot.chat.model_names import version_label
from bot.chat.reply_text import remove_links
from bot.personas.base_model_compat import require_servable
from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, ngettext_lazy
from bot.platform.messages import markdown_name
from bot.safety.reply_guard import ReplyGuard
from bot.store import (
    ALL_GUILDS,
    BASE_MODEL_NAME,
    BlindComparison,
    JudgementCounts,
    NewBlindComparison,
    Store,
    VoteChoice,
    guild_suffix,
)
from bot.versions.blind_test.prompts import ComparisonPrompt, draw_prompt, prompts_for
from bot.versions.member_feedback import record_vote
from bot.versions.statistics.judgement import BlindTestJudgement, judge_votes
from personas.errors import RequestError
from personas.lore.index import LoreIndex
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import ChatReply, ChatRequest, Persona, SamplingParams, Turn

MAX_GENERATION_ATTEMPTS = 3
"""Pairs of replies that are generated before two versions count as saying the same."""
VOTE_LIMIT_WINDOW_S = 86_400.0


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

    @classmethod
    def of(cls, persona: Persona, comparison: BlindComparison) -> Self:
        """Return the contest of a comparison: the later version first, whichever was A."""
        versions = (comparison.version_a, comparison.version_b)
        version, against = sorted(versions, key=_version_number, reverse=True)
        return cls(persona, version, against)


def _version_number(version: str | None) -> int:
    return int(version.removeprefix("v")) if version else 0


@dataclass(frozen=True)
class VoteResult:
    """A comparison after a member has pressed a choice.

    `outcome`: "late" where it had expired, "repeated" where the member had voted on it before.
    """

    comparison: BlindComparison
    outcome: Literal["counted", "late", "repeated"]


@dataclass(frozen=True)
class BlindTests:
    """Assigns and judges the comparisons. `per_day` is how many votes a member has in 24 hours."""

    store: Store
    reply_guard: ReplyGuard
    personas: PersonaRegistry
    served_versions: ServedVersions
    lore: LoreIndex
    sampling: SamplingParams
    home: Path
    per_day: int = 20
    # Ids of the members for whom two replies are being generated.
    _pending: set[int] = field(default_factory=set)

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
        live = self.served_versions.speaking(persona.id, guild_id or ALL_GUILDS)
        other = self._resolve(persona, against, guild_id) if against else live
        if version:
            tested = self._resolve(persona, version, guild_id)
        else:
            tested = self._newest(persona, other, guild_id)
        if tested == other:
            advice = gettext_lazy("Name two versions, with `version` and `against`.")
            raise RequestError(
                gettext_lazy("Both are {version}.", version=version_label(tested)), advice
            )
        return Contest(persona, tested, other)

    def version_names(self, persona: Persona, guild_id: int | None = None) -> list[str]:
        """The versions that can be compared (in a guild), newest first, the base model last."""
        incompatible = self.served_versions.incompatible
        names = []
        for installed in reversed(self.store.versions.installed(persona.id, guild_id)):
            if not incompatible.model_of(persona.id, installed.version):
                names.append(installed.version)
        return [*names, BASE_MODEL_NAME]

    async def assign(self, contest: Contest, user_id: int, guild_id: int) -> BlindComparison:
        """Return the comparison that a member has not voted on yet, else a new one, stored as shown
        now.

        One at a time is generated for each member. Raises `RefusedError` where they have no votes
        left or their replies are being generated, and `UnderstudyError` where none can be
        generated.
        """
        self.require_votes_left(user_id)
        if comparison := self.find_open(contest, user_id, guild_id):
            return comparison
        if user_id in self._pending:
            raise RefusedError(
                gettext_lazy("Your two replies are being written."),
                gettext_lazy("They appear in a moment."),
            )
        self._pending.add(user_id)
        try:
            generated = await self.generate(contest, user_id, guild_id)
        finally:
            self._pending.discard(user_id)
        return self.store.comparisons.show(generated, time.time())

    def find_open(self, contest: Contest, user_id: int, guild_id: int) -> BlindComparison | None:
        """Find the comparison that a member has not voted on yet; its time to vote starts anew."""
        now = time.time()
        comparison = self.store.comparisons.find_open(
            user_id=user_id,
            guild_id=guild_id,
            persona_id=contest.persona.id,
            versions=(contest.version, contest.against),
            at=now,
        )
        if comparison:
            self.store.comparisons.mark_shown_again(comparison.seq, now)
        return comparison

    def require_votes_left(self, user_id: int) -> None:
        """Raise `RefusedError` where a member has used all votes of the last 24 hours."""
        if (
            self.store.comparisons.votes_since(user_id, time.time() - VOTE_LIMIT_WINDOW_S)
            >= self.per_day
        ):
            raise RefusedError(
                ngettext_lazy(
                    "You have voted once in the last 24 hours, which is the limit.",
                    "You have voted {count} times in the last 24 hours, which is the limit.",
                    self.per_day,
                ),
                gettext_lazy("Come back tomorrow."),
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
            reply, other = await self._generate_both(contest, prompt, user_id, guild_id)
            # Compared as members see them.
            if remove_links(reply.text) != remove_links(other.text):
                pair = [(contest.version, reply), (contest.against, other)]
                random.shuffle(pair)
                (version_a, a), (version_b, b) = pair
                return NewBlindComparison(
                    guild_id=guild_id,
                    persona_id=contest.persona.id,
                    user_id=user_id,
                    prompt_id=prompt.id,
                    prompt=prompt.text,
                    version_a=version_a,
                    version_b=version_b,
                    text_a=a.text,
                    text_b=b.text,
                    seed_a=a.seed,
                    seed_b=b.seed,
                )
        raise RequestError(
            gettext_lazy("Both versions say the same, word for word."),
            gettext_lazy("There is nothing to choose between them."),
        )

    def get(self, seq: int, user_id: int) -> BlindComparison:
        """Return a member's comparison. Raises `RefusedError` for another member's."""
        comparison = self.store.comparisons.get(seq)
        if comparison is None or comparison.user_id != user_id:
            raise RefusedError(
                gettext_lazy("This comparison is not yours, or it is no longer kept."),
                gettext_lazy("Ask for one of your own."),
            )
        return comparison

    def vote(self, seq: int, user_id: int, choice: VoteChoice) -> VoteResult:
        """Store a member's vote; the first one counts. Raises `RefusedError` for another member's
        comparison.
        """
        now = time.time()
        is_counted = self.store.comparisons.vote(seq, user_id, choice, now)
        comparison = self.get(seq, user_id)
        if is_counted:
            return VoteResult(comparison, "counted")
        return VoteResult(comparison, "late" if comparison.has_expired(now) else "repeated")

    async def record_feedback(self, result: VoteResult) -> None:
        """Write a vote that counted into the feedback that the gate reads. That takes longer than
        the vote, so members see the result first.
        """
        if result.outcome == "counted":
            await record_vote(self.home, self.store, self.personas, result.comparison)

    async def judge(
        self, contest: Contest, guild_id: int | None = None
    ) -> tuple[BlindTestJudgement, JudgementCounts]:
        """Judge the votes between two versions, in a guild or in all; count them, the tested version
        first.
        """
        comparisons = self.store.comparisons
        persona_id = contest.persona.id
        votes = comparisons.voted(persona_id, guild_id)
        judgement = await asyncio.to_thread(judge_votes, votes, *contest.names, time.time())
        counts = comparisons.judgement_counts(
            persona_id, contest.version, contest.against, guild_id
        )
        return judgement, counts

    def _resolve(self, persona: Persona, name: str, guild_id: int | None) -> str | None:
        if name == BASE_MODEL_NAME:
            return None
        require_servable(
            self.store,
            self.served_versions.incompatible,
            persona_id=persona.id,
            version=name,
            guild_id=guild_id,
        )
        return name

    def _newest(self, persona: Persona, other: str | None, guild_id: int | None) -> str:
        for name in self.version_names(persona, guild_id):
            if name not in (BASE_MODEL_NAME, other):
                return name
        raise RequestError(
            gettext_lazy(
                "{persona} has no second version to compare.", persona=markdown_name(persona)
            ),
            gettext_lazy("Train one with `/finetune start`."),
        )

    async def _generate_both(
        self, contest: Contest, prompt: ComparisonPrompt, user_id: int, guild_id: int
    ) -> tuple[ChatReply, ChatReply]:
        """Generate both replies at once; when one fails, the other is cancelled."""
        requests = []
        for version in (contest.version, contest.against):
            request = await self._request(contest.persona, version, prompt, guild_id)
            requests.append(replace(request, member_id=user_id))
        tasks = [asyncio.ensure_future(self._complete(request)) for request in requests]
        try:
            reply, other = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        if "cancelled" in (reply.finish, other.finish):
            raise RefusedError(
                gettext_lazy("The replies were stopped before they were complete."),
                gettext_lazy("Try again."),
            )
        if reply.withheld or other.withheld:
            raise RefusedError(
                gettext_lazy("A reply is withheld: what the model wrote speaks of self-harm."),
                gettext_lazy("Ask something else."),
            )
        return reply, other

    async def _complete(self, request: ChatRequest) -> ChatReply:
        stream = self.reply_guard.submit(request)
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
        lore_guild_id = 0
        if persona.id.endswith(guild_suffix(guild_id)):
            lore_guild_id = guild_id
        return ChatRequest(
            persona=persona,
            turns=(Turn(EXAMPLE_USER, prompt.text),),
            lore=tuple(await self.lore.find(persona.id, prompt.text, lore_guild_id)),
            adapter=self.served_versions.adapter(persona.id, version) if version else None,
            needs_adapter=True,
            sampling=replace(self.sampling, speakers=(EXAMPLE_USER,)),
            guild_id=guild_id,
        )
