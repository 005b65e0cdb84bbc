"""Builds a chat request from a channel: its persona, recent turns, matching lore and memories, and
the live adapter.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bot.chat.places import ChannelRef
from bot.personas.base_model_compat import IncompatibleVersions
from bot.personas.registry import PersonaRegistry
from bot.platform.errors import RefusedError
from bot.store import EarlierTalk, Memory, QuotedMessage, Store, StoredMessage, StoreError
from personas.engine import Engine
from personas.home.adapters import adapter_ref
from personas.lore.earlier_talk import MAX_EARLIER_LOOKED_AT, earlier_hits
from personas.lore.index import LoreIndex
from personas.lore.passages import WORLD, Passage
from personas.lore.semantic import embedding_scheme, match_earlier, pack_units, pack_vectors
from personas.schemas.chat import (
    MEMORY_SOURCE,
    AdapterRef,
    ChatRequest,
    LoreHit,
    Persona,
    SamplingParams,
    Turn,
)

log = logging.getLogger(__name__)
MAX_QUOTED_CHARS = 600
"""Characters of a message that another one replies to."""
MAX_MISSING_VECTORS = 4
"""Number of earlier messages without a vector that are embedded with a new one, some 7 ms each."""


@dataclass(frozen=True)
class ChatRequestBuilder:
    """Builds `ChatRequest`s. `home` is UNDERSTUDY_HOME with the adapters; incompatible versions are
    not used.

    Replies in channels are chosen among `candidates`, or as many as a guild has chosen, at most
    `max_candidates`; others, which are compared with each other, are sampled once.
    """

    store: Store
    personas: PersonaRegistry
    lore: LoreIndex
    sampling: SamplingParams
    home: Path
    incompatible_versions: IncompatibleVersions = field(default_factory=IncompatibleVersions)
    candidates: int = 1
    max_candidates: int = 1

    def persona_in(self, place: ChannelRef) -> Persona | None:
        """The persona of a channel or, for a thread without its own, of its parent."""
        channel = self.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        return self.personas.get(channel.persona_id, place.guild_id) if channel else None

    def speaking(self, persona_id: str, guild_id: int) -> str | None:
        """The version that answers in a guild: the live one, unless it was made for another base
        model.
        """
        live = self.store.versions.live(persona_id, guild_id)
        return None if self.incompatible_versions.model_of(persona_id, live) else live

    def unserved(self, persona_id: str, guild_id: int) -> str:
        """The live version of a guild if it cannot be served, else empty."""
        live = self.store.versions.live(persona_id, guild_id)
        return live if live and self.incompatible_versions.model_of(persona_id, live) else ""

    def adapter(self, persona_id: str, version: str) -> AdapterRef:
        """A version of a persona's adapter."""
        return adapter_ref(self.home, persona_id, version)

    def dialogue_of(self, version: AdapterRef | None) -> str | None:
        """The name of the dialogue adapter that a version is a copy of; None for other versions."""
        if version is None:
            return None
        job = self.store.jobs.get(
            self.store.versions.job_of(version.persona_id, version.version) or ""
        )
        return job.dialogue if job else None

    def candidates_in(self, guild_id: int) -> int:
        """Return among how many candidates replies in a guild begin; 0 stands for direct
        messages.
        """
        return min(
            self.store.guilds.reply_candidates(guild_id) or self.candidates, self.max_candidates
        )

    def choose_candidates(self, guild_id: int, candidates: int) -> None:
        """Store a guild's choice. Raises `RefusedError` for more than `max_candidates`."""
        if candidates > self.max_candidates == 1:
            raise RefusedError(
                "Every reply of this bot begins with one candidate.",
                "The operator can allow more with MAX_REPLY_CANDIDATES; only ENGINE=local compares "
                "several.",
            )
        if candidates > self.max_candidates:
            raise RefusedError(
                f"A server may choose at most {self.max_candidates} candidates.",
                "The operator can allow more with MAX_REPLY_CANDIDATES.",
            )
        self.store.guilds.set_reply_candidates(guild_id, candidates)

    async def request(
        self,
        persona: Persona,
        place: ChannelRef,
        trigger_seq: int,
        event_id: int,
        member_id: int = 0,
    ) -> ChatRequest:
        """Build the request in which the persona answers a member's stored message `trigger_seq`,
        an event's.

        What the member asked the persona to keep competes with the lore for its place in the
        prompt. Raises `RefusedError` if the message is gone.
        """
        history = self.store.messages.recent(place.channel_id, until_seq=trigger_seq)
        if not history or history[-1].seq != trigger_seq:
            raise RefusedError("What this reply answers is no longer there.", "Ask again.")
        version, versions = self._choose_version(persona.id, place.guild_id, event_id)
        shown = _turns_of_versions(history, persona, versions)
        turns = self._turns(shown, persona, place, versions)
        memories = partial(self._memories, member_id, place.guild_id, persona.id, event_id)
        lore = await self._find_lore(persona.id, turns[-1], place.guild_id, memories)
        if member_id and shown[-1].text:
            talk = EarlierTalk(
                place.guild_id,
                place.channel_id,
                persona.id,
                member_id,
                shown[0].seq,
                frozenset(versions),
            )
            lore = (*await self._find_earlier(talk, shown[-1], lore), *lore)
        candidates = self.candidates_in(place.guild_id)
        return ChatRequest(
            persona=persona,
            turns=turns,
            lore=lore,
            adapter=self.adapter(persona.id, version) if version else None,
            sampling=replace(self.sampling, stop=stop_sequences(turns), candidates=candidates),
            guild_id=place.guild_id
            or place.channel_id,  # each direct-message channel is a guild of its own
            member_id=member_id,
        )

    def prepare_next(
        self, engine: Engine, persona: Persona, place: ChannelRef, event_id: int, author: str
    ) -> None:
        """Have the engine compute the prompt after an event's reply in advance, up to what the
        member will say.
        """
        try:
            history = self.store.messages.recent(place.channel_id, upcoming=1)
            version, versions = self._choose_version(persona.id, place.guild_id, event_id)
        except StoreError as error:  # only time is lost
            log.info("the next prompt is not computed in advance: %s", error)
            return
        shown = _turns_of_versions(history, persona, versions)
        talk = (*self._turns(shown, persona, place, versions), Turn(author, ""))
        adapter = self.adapter(persona.id, version) if version else None
        engine.prepare(persona, adapter, talk, self.sampling.max_new_tokens)

    def _turns(
        self,
        history: list[StoredMessage],
        persona: Persona,
        place: ChannelRef,
        versions: set[str | None],
    ) -> tuple[Turn, ...]:
        """Return the turns of a history as members see it: with quotes, and with what a thread was
        started from.

        A reply to the message right before it has no quote: that would only repeat it.
        """
        start_id = place.channel_id if place.parent_id else None
        shown = [
            message_id
            for message_id in (start_id, *(it.replies_to for it in history))
            if message_id
        ]
        found = self.store.quoted.find(shown) if shown else {}
        start = found.get(start_id or 0)
        turns = list[Turn]()
        if start and self._is_start_shown(start, history, persona, place, versions):
            turns.append(
                Turn(start.author_name, start.text or "", by_persona=start.persona_id == persona.id)
            )
        before = start.message_id if turns and start else None
        for message in history:
            is_new = message.replies_to and message.replies_to != before
            text = _with_quote(message.text, found.get(message.replies_to or 0) if is_new else None)
            turns.append(
                Turn(message.author_name, text, by_persona=message.persona_id == persona.id)
            )
            before = message.discord_message_id
        return tuple(turns)

    def _is_start_shown(
        self,
        start: QuotedMessage,
        history: list[StoredMessage],
        persona: Persona,
        place: ChannelRef,
        versions: set[str | None],
    ) -> bool:
        """Report whether the message that a thread was started from precedes its history.

        It does not after a new conversation began there, nor where another version's voice would be
        imitated.
        """
        is_there = any(it.discord_message_id == start.message_id for it in history)
        if not start.text or is_there or self.store.messages.has_new_conversation(place.channel_id):
            return False
        return start.persona_id != persona.id or start.adapter_version in versions

    def _memories(
        self, member_id: int, guild_id: int, persona_id: str, event_id: int
    ) -> list[Memory]:
        """List what a member asked a persona to keep, without copies of the reply that is made
        again.
        """
        reply = self.store.replies.get(event_id)
        own = reply.parts if reply else ()
        return [
            it
            for it in self.store.memories.of_member(member_id, guild_id, persona_id)
            if it.message_id not in own
        ]

    async def _find_lore(
        self, persona_id: str, turn: Turn, guild_id: int, memories: Callable[[], list[Memory]]
    ) -> tuple[LoreHit, ...]:
        """Find lore and memories for a member's turn. Headings say whose words a memory is, and are
        not searched.

        Edits of messages can make two memories equal: a text has one place. One that is forgotten
        during the search is not found.
        """
        where = (persona_id, turn.text, guild_id)
        seqs = {it.text: it.seq for it in memories()}
        if not seqs:
            return tuple(await self.lore.find(*where))
        hits = await self._search_with(
            [Passage(WORLD, MEMORY_SOURCE, "", text) for text in seqs], seqs, *where
        )
        asked = f"{turn.name} asked you to remember"
        headings = {
            it.text: f"your words, which {asked}" if it.by_persona else asked for it in memories()
        }
        found = (it for it in hits if it.source != MEMORY_SOURCE or it.text in headings)
        return tuple(
            replace(it, heading=headings[it.text]) if it.source == MEMORY_SOURCE else it
            for it in found
        )

    async def _search_with(
        self,
        passages: list[Passage],
        seqs: dict[str, int],
        persona_id: str,
        message: str,
        guild_id: int,
    ) -> list[LoreHit]:
        """Search lore and memories, which are `passages`, and whose `seqs` are by text. Stores
        vectors they lack.
        """
        memories = self.store.memories
        lore = self.lore
        scheme = embedding_scheme(lore.encoder)
        stored = memories.vectors(seqs.values(), scheme)
        packed = [stored.get(seqs[it.text]) for it in passages]

        def pack_and_search() -> tuple[list[bytes], list[LoreHit]]:
            vectors = pack_units(passages, packed, lore.encoder)
            return vectors, lore.search(persona_id, message, guild_id=guild_id, more=passages)

        vectors, hits = await lore.in_order(pack_and_search)
        found = {
            (seqs[it.text], it.text): vector for it, vector in zip(passages, vectors, strict=True)
        }
        if new := {key: vector for key, vector in found.items() if vector != stored.get(key[0])}:
            try:
                memories.store_vectors(scheme, new)
            except StoreError as error:  # they are only missed later
                log.warning("the vectors of memories were not stored: %s", error)
        return hits

    async def _find_earlier(
        self, talk: EarlierTalk, message: StoredMessage, lore: tuple[LoreHit, ...]
    ) -> list[LoreHit]:
        """Find the exchanges that a member's message takes up, as many as have room beside lore,
        oldest first.

        Stores the message's vector, and those of a few earlier messages that have none.
        """
        messages = self.store.messages
        encoder = self.lore.encoder
        scheme = embedding_scheme(encoder)
        vectors = messages.earlier_vectors(talk, scheme)
        missing = [seq for seq, vector in vectors.items() if vector is None][:MAX_MISSING_VECTORS]
        texts = {it.seq: it.question for it in messages.earlier_exchanges(talk, missing)} | {
            message.seq: message.text
        }

        def embed_and_match() -> tuple[dict[int, bytes], dict[int, float]]:
            new = dict(zip(texts, pack_vectors([*texts.values()], encoder), strict=True))
            earlier = {seq: new.get(seq, vector or b"") for seq, vector in vectors.items()}
            return new, match_earlier(new[message.seq], earlier, encoder)

        new, scores = await self.lore.in_order(embed_and_match)
        try:
            messages.store_vectors(
                scheme, {(seq, texts[seq]): vector for seq, vector in new.items()}
            )
        except StoreError as error:  # they are only missed later
            log.warning("the vectors of messages were not stored: %s", error)
        found = messages.earlier_exchanges(talk, [*scores][:MAX_EARLIER_LOOKED_AT])
        return earlier_hits(
            ((it.question, it.reply, scores[it.seq]) for it in found), message.author_name, lore
        )

    def _choose_version(
        self, persona_id: str, guild_id: int, event_id: int
    ) -> tuple[str | None, set[str | None]]:
        """The version that makes a reply, and the versions whose earlier replies it sees.

        Where chance decides between two versions, both see the replies of both: they share one
        conversation.
        """
        live = self.speaking(persona_id, guild_id)
        rollout = self.store.rollouts.of_reply(event_id, time.time())
        if (
            rollout is None
            or rollout.is_promoted
            or self.incompatible_versions.model_of(persona_id, rollout.version)
        ):
            return live, {live}
        version = rollout.version if rollout.draws(event_id) else live
        return version, {live, rollout.version} if rollout.is_randomised else {version}


def _with_quote(text: str, quoted: QuotedMessage | None) -> str:
    """Put what a message replies to before its text, as members see it."""
    if quoted is None:
        return text
    if quoted.text is None:
        return f"[replying to {quoted.author_name}, whose message cannot be read]\n{text}".rstrip()
    words = " ".join(quoted.text.split())
    shown = words if len(words) <= MAX_QUOTED_CHARS else f"{words[: MAX_QUOTED_CHARS - 1]}…"
    return f"[replying to {quoted.author_name}: {shown}]\n{text}".rstrip()


def _turns_of_versions(
    history: list[StoredMessage], persona: Persona, shown: set[str | None]
) -> list[StoredMessage]:
    """The history after the last reply of any other version, whose voice the new one would
    imitate.
    """
    others = [
        at
        for at, m in enumerate(history)
        if m.persona_id == persona.id and m.adapter_version not in shown
    ]
    return history[others[-1] + 1 :] if others else history


def stop_sequences(turns: tuple[Turn, ...]) -> tuple[str, ...]:
    """Stop sequences that end a reply before it speaks for somebody else."""
    return tuple(
        dict.fromkeys(f"\n{turn.name}:" for turn in turns if turn.name and not turn.by_persona)
    )
