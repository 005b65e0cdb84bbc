"""Builds chat requests: the turns of a channel as members see them, with the lore, memories and
earlier talk that the last message finds.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import takewhile

from bot.chat.chat_words import called_names
from bot.chat.file_content import quoted_file
from bot.chat.message_tokens import MessageTokens
from bot.chat.model_names import ChatModel
from bot.chat.places import ChannelRef
from bot.chat.sent_files import SentFiles
from bot.chat.situation import Situation
from bot.generation.actions import EffectiveGeneration, GenerationActions
from bot.guilds.reply_candidates import ReplyCandidates
from bot.guilds.time_zones import GuildTimeZones
from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.store import EarlierTalk, Memory, QuotedMessage, Store, StoredMessage, StoreError
from personas.engine import Engine
from personas.engine.context_window import MAX_PICTURES, context_beside
from personas.lore.earlier_talk import MAX_EARLIER_LOOKED_AT, earlier_hits
from personas.lore.index import LoreIndex
from personas.lore.passages import WORLD, Passage
from personas.lore.semantic import embedding_scheme, match_earlier, pack_units, pack_vectors
from personas.prompt.frames import LOST_QUOTE, QUOTE, UNASKED_LINE, frame_name, member_name
from personas.prompt.history_window import HistoryWindow, NumberedMessage
from personas.prompt.renderer import EXAMPLE_USER, system_card
from personas.prompt.time_macros import Moment
from personas.schemas.chat import (
    MEMORY_SOURCE,
    AdapterRef,
    ChatRequest,
    LoreHit,
    Persona,
    Picture,
    SamplingParams,
    Turn,
)

log = logging.getLogger(__name__)
MAX_QUOTED_CHARS = 600
"""Characters of a message that another one replies to."""
FILE_SHARE = 0.3
"""Share of the room for a prompt that the files of its messages have together."""
MAX_FILE_TOKENS = 6000
MAX_MISSING_VECTORS = 4
"""Number of earlier messages without a vector that are embedded with a new one, some 7 ms each."""


@dataclass(frozen=True, kw_only=True)
class ChatRequestBuilder:
    """Builds `ChatRequest`s with the settings of the bot and of its guilds."""

    store: Store
    personas: PersonaRegistry
    served_versions: ServedVersions
    lore: LoreIndex
    sampling: SamplingParams
    candidates: ReplyCandidates
    generation: GenerationActions
    time_zones: GuildTimeZones
    message_tokens: MessageTokens
    files: SentFiles

    async def request(
        self,
        persona: Persona,
        place: ChannelRef,
        trigger_seq: int,
        *,
        event_id: int,
        member_id: int = 0,
        topic: str = "",
        untrained: bool = False,
    ) -> ChatRequest:
        """Build the request in which the persona answers a member's stored message `trigger_seq`,
        an event's; `untrained`: in which the base model does. `topic` is the channel's, where the
        persona is told it.

        Memories of the member compete with the lore for their place in the prompt. Raises
        `RefusedError` if the message is gone.
        """
        generation = self._generation(persona, place)
        window = HistoryWindow.of(generation.context_tokens, generation.max_new_tokens)
        if window.max_tokens is not None:
            await self.message_tokens.load()
        history = self._history(place, window, until_seq=trigger_seq)
        if not history or history[-1].seq != trigger_seq:
            raise RefusedError(
                gettext_lazy("What this reply answers is no longer there."),
                gettext_lazy("Ask again."),
            )
        adapter = None
        if not untrained:
            adapter = self.served_versions.speaking_adapter(persona.id, place.guild_id)
        shown = self._after_other_versions(history, persona, adapter)
        turns = self._turns(shown, persona, place, adapter)
        memories = MemoriesForReply(
            store=self.store,
            member_id=member_id,
            guild_id=place.guild_id,
            persona_id=persona.id,
            event_id=event_id,
        )
        asked = replace(turns[-1], text=self._asked_text(turns[-1], event_id))
        lore = await self._find_lore(asked, memories)
        if member_id and shown[-1].text:
            talk = EarlierTalk(
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                persona_id=persona.id,
                member_id=member_id,
                before_seq=shown[0].seq,
                version=adapter.version if adapter else None,
            )
            lore = (*await self._find_earlier(talk, shown[-1], lore), *lore)
        await self._read_files(shown, persona, place)
        turns = (*self._with_files(turns, shown, generation), *self._other_answers(event_id))
        pictures = self._pictures(shown)
        lines = self.store.replies.asked_messages(event_id)
        moment = Moment(self.time_zones.now(place.guild_id), _idle_s(shown, lines))
        situation = Situation(moment, topic)
        return self._reply_request(
            persona,
            place,
            turns=turns,
            lore=situation.told_beside(lore, persona),
            adapter=adapter,
            member_id=member_id,
            pictures=pictures,
        )

    async def line_request(
        self, persona: Persona, place: ChannelRef, prompt: str, *, topic: str = ""
    ) -> ChatRequest:
        """Build the request in which the persona says something that nobody has asked for, as a
        moderator's `prompt` describes.
        """
        generation = self._generation(persona, place)
        window = HistoryWindow.of(generation.context_tokens, generation.max_new_tokens)
        if window.max_tokens is not None:
            await self.message_tokens.load()
        adapter = self.served_versions.speaking_adapter(persona.id, place.guild_id)
        history = self._history(place, window, upcoming=1)
        shown = self._after_other_versions(history, persona, adapter)
        frame = UNASKED_LINE.fill(persona=persona.name, prompt=prompt)
        asked = Turn("", frame, frame_chars=len(frame))
        found = await self.lore.find(persona.id, prompt, place.guild_id)
        moment = Moment(self.time_zones.now(place.guild_id))
        return self._reply_request(
            persona,
            place,
            turns=(*self._turns(shown, persona, place, adapter), asked),
            lore=Situation(moment, topic).told_beside(tuple(found), persona),
            adapter=adapter,
        )

    def _reply_request(
        self,
        persona: Persona,
        place: ChannelRef,
        *,
        turns: tuple[Turn, ...],
        lore: tuple[LoreHit, ...],
        adapter: AdapterRef | None,
        member_id: int = 0,
        pictures: tuple[Picture, ...] = (),
    ) -> ChatRequest:
        generation = self._generation(persona, place)
        return ChatRequest(
            persona=persona,
            turns=turns,
            lore=lore,
            adapter=adapter,
            sampling=replace(
                generation.sampling(self.sampling),
                speakers=other_speakers(turns, self._other_names(persona, place)),
                candidates=self.candidates.in_guild(place.guild_id),
            ),
            context_tokens=context_beside(len(pictures), generation.context_tokens),
            pictures=pictures,
            # Guilds share the engine in turns; each direct-message channel is a guild of its own.
            guild_id=place.guild_id or place.channel_id,
            member_id=member_id,
        )

    def _other_names(self, persona: Persona, place: ChannelRef) -> list[str]:
        """List the names of the channel's other personas, which may not have spoken yet."""
        setting = self.store.channels.get(*astuple(place))
        if setting is None:
            return []
        living = self.store.channels.personas(setting.guild_id, setting.channel_id)
        others = sorted(set(living) - {persona.id})
        known = [self.personas.get(each, place.guild_id) for each in others]
        return [other.name for other in known if other]

    async def request_to_model(
        self,
        model: ChatModel,
        turns: Sequence[Turn],
        sampling: SamplingParams,
        instructions: str = "",
    ) -> ChatRequest:
        """Build the request in which a model answers the last turn, with the lore that this turn
        finds.

        Such replies are compared with each other, so `sampling` alone decides about candidates, and
        no other version answers in a model's place.
        """
        persona = model.persona
        card = model.persona
        turns = tuple(turns)
        if persona is None and model.dialogue and instructions:
            # The training data of dialogue adapters has system texts, and speakers without names.
            card = system_card(instructions)
            instructions = ""
            unnamed = []
            for turn in turns:
                if turn.name == EXAMPLE_USER:
                    turn = replace(turn, name="")
                unnamed.append(turn)
            turns = tuple(unnamed)
        adapter = None
        lore: Sequence[LoreHit] = ()
        context_tokens = 0
        if persona:
            generation = self.generation.of_persona(persona.id, model.guild_id)
            context_tokens = generation.context_tokens
        if model.dialogue:
            adapter = model.dialogue.ref
        elif persona and model.version:
            adapter = self.served_versions.adapter(persona.id, model.version)
        if persona:
            moment = Moment(self.time_zones.now(model.guild_id))
            found = await self.lore.find(persona.id, turns[-1].text, model.guild_id)
            lore = Situation(moment).told_beside(tuple(found), persona)
        speakers = other_speakers(turns) if card else ()
        return ChatRequest(
            persona=card,
            turns=turns,
            lore=tuple(lore),
            adapter=adapter,
            needs_adapter=True,
            sampling=replace(sampling, speakers=speakers),
            instructions=instructions,
            context_tokens=context_tokens,
        )

    def sampling_of(self, model: ChatModel) -> SamplingParams:
        """Return the sampling of a model's replies outside of channels: the bot's, or its
        persona's.
        """
        if model.persona is None:
            return self.sampling
        generation = self.generation.of_persona(model.persona.id, model.guild_id)
        return generation.sampling(self.sampling)

    def sampling_in(self, persona: Persona, place: ChannelRef) -> SamplingParams:
        """Return the sampling of a persona's replies in a channel."""
        return self._generation(persona, place).sampling(self.sampling)

    def prepare_next(
        self, engine: Engine, persona: Persona, place: ChannelRef, *, author: str
    ) -> None:
        """Have the engine compute the prompt after a reply in advance, up to the words of
        the member's next message.
        """
        try:
            generation = self._generation(persona, place)
            window = HistoryWindow.of(generation.context_tokens, generation.max_new_tokens)
            history = self._history(place, window, upcoming=1)
            adapter = self.served_versions.speaking_adapter(persona.id, place.guild_id)
        except StoreError as error:  # only time is lost
            log.info("the next prompt is not computed in advance: %s", error)
            return
        shown = self._after_other_versions(history, persona, adapter)
        turns = self._turns(shown, persona, place, adapter)
        turns = (*self._with_files(turns, shown, generation), Turn(author, ""))
        engine.prepare(
            persona,
            adapter,
            turns,
            max_new_tokens=generation.max_new_tokens,
            context_tokens=generation.context_tokens,
        )

    def _generation(self, persona: Persona, place: ChannelRef) -> EffectiveGeneration:
        return self.generation.in_channel(
            persona.id, place.guild_id, place.channel_id, place.parent_id
        )

    def _history(
        self,
        place: ChannelRef,
        window: HistoryWindow,
        until_seq: int | None = None,
        upcoming: int = 0,
    ) -> list[StoredMessage]:
        """Return the messages of a channel that a prompt has, oldest first, up to `until_seq`, or
        with room for so many `upcoming` ones.
        """
        numbered = self.store.messages.recent_numbered(
            place.channel_id, window.max_messages, until_seq=until_seq, upcoming=upcoming
        )
        if not numbered:
            return []
        last = numbered[-1][0] + upcoming
        earlier = []
        for ordinal, message in numbered:
            if ordinal < last:
                tokens = 0
                if window.max_tokens is not None:
                    tokens = self.message_tokens.of(message.text)
                earlier.append(NumberedMessage(ordinal, tokens))
        return [message for _, message in numbered[window.start(earlier, last) :]]

    def _after_other_versions(
        self, history: list[StoredMessage], persona: Persona, adapter: AdapterRef | None
    ) -> list[StoredMessage]:
        """Return the history after the last exchange with any other version, whose voice the new one
        would imitate. A reply counts where its question stands, however late it was stored.
        """
        version = adapter.version if adapter else None
        others = []
        for message in history:
            if message.persona_id == persona.id and message.adapter_version != version:
                others.append(message.seq)
        if not others:
            return history
        asked = self.store.messages.asked_seqs([message.seq for message in history])
        last = max(asked[seq] for seq in others)
        return [message for message in history if asked[message.seq] > last]

    # ---------------------------------------------------------------------------------------- turns

    def _turns(
        self,
        history: list[StoredMessage],
        persona: Persona,
        place: ChannelRef,
        adapter: AdapterRef | None,
    ) -> tuple[Turn, ...]:
        """Return the turns of a history as members see it: with quotes, and with the message that a
        thread was started from.

        A reply to the message right before it has no quote: that would only repeat it.
        """
        quoted_ids = [message.replies_to for message in history if message.replies_to]
        if place.parent_id:  # a thread has the id of the message that it was started from
            quoted_ids.append(place.channel_id)
        quoted = self.store.quoted.find(quoted_ids) if quoted_ids else {}
        turns = list[Turn]()
        before = None
        start = None
        version = adapter.version if adapter else None
        if place.parent_id:
            start = quoted.get(place.channel_id)
        if start and start.text:
            by_persona = start.persona_id == persona.id
            # Another version's voice would be imitated.
            is_by_other_version = by_persona and start.adapter_version != version
            ids = [message.discord_message_id for message in history]
            is_in_history = start.message_id in ids
            is_over = self.store.places.has_new_conversation(place.channel_id)
            if not (is_by_other_version or is_in_history or is_over):
                turns.append(Turn(start.author_name, start.text, by_persona=by_persona))
                before = start.message_id
        others = self._other_names(persona, place)
        for message in history:
            quote = ""
            if message.replies_to and message.replies_to != before:
                quote = _quote(quoted.get(message.replies_to))
            by_persona = message.persona_id == persona.id
            name = message.author_name
            if message.persona_id is None:
                name = member_name(name, others)
            turn = Turn(name, message.text, by_persona=by_persona)
            turns.append(_behind(turn, [quote] if quote else []))
            before = message.discord_message_id
        return tuple(turns)

    def _other_answers(self, event_id: int) -> list[Turn]:
        """Return what other personas have answered to the same message before."""
        events = self.store.replies.earlier_of_round(event_id)
        said = self.store.messages.of_replies(events) if events else []
        return [Turn(each.author_name, each.text, answers_too=True) for each in said]

    # --------------------------------------------------------------------------------------- files

    async def _read_files(
        self, history: list[StoredMessage], persona: Persona, place: ChannelRef
    ) -> None:
        """Read the files of the messages since the persona's last one, and of those that they
        reply to.
        """
        latest = list(takewhile(lambda said: said.persona_id != persona.id, reversed(history)))
        quoted_ids = [message.replies_to for message in latest if message.replies_to]
        quoted = self.store.quoted.find(quoted_ids) if quoted_ids else {}
        texts = dict[int, str]()
        for message in latest:
            if message.discord_message_id:
                texts[message.discord_message_id] = message.text
            if message.replies_to in quoted:
                texts.setdefault(message.replies_to, quoted[message.replies_to].text or "")
        if await self.files.read(place.channel_id, texts):
            await self.message_tokens.load()

    def _with_files(
        self,
        turns: tuple[Turn, ...],
        history: list[StoredMessage],
        generation: EffectiveGeneration,
    ) -> tuple[Turn, ...]:
        """Quote the files that have been read before the words that came with them. They share
        their room, which the latest ones get first.
        """
        room = generation.context_tokens - generation.max_new_tokens
        room = min(MAX_FILE_TOKENS, int(room * FILE_SHARE))
        shown = list(turns)
        ids = {message.discord_message_id for message in history}
        first = len(turns) - len(history)  # before them, a thread's start
        for at in range(len(history) - 1, -1, -1):
            message = history[at]
            files = self.files.known(message.discord_message_id)
            if message.replies_to not in ids:
                files = [*self.files.known(message.replies_to), *files]
            parts = list[str]()
            for file in reversed(files):
                if part := quoted_file(file, room, self.message_tokens.of):
                    room -= self.message_tokens.of(part)
                    parts.insert(0, part)
            if parts:
                shown[first + at] = _behind(shown[first + at], parts)
        return tuple(shown)

    def _pictures(self, history: list[StoredMessage]) -> tuple[Picture, ...]:
        """Return the latest pictures of a history that have been read, in their order."""
        pictures = list[Picture]()
        if not self.files.are_pictures_seen:
            return ()
        for message in reversed(history):
            for message_id in (message.discord_message_id, message.replies_to):
                for file in reversed(self.files.known(message_id)):
                    if file.picture and file.picture not in pictures:
                        pictures.append(file.picture)
        return tuple(reversed(pictures[:MAX_PICTURES]))

    # -------------------------------------------------------------- lore, memories and earlier talk

    def _asked_text(self, turn: Turn, event_id: int) -> str:
        """Return the last turn's text, after the lines of its member that the reply answers, too."""
        *earlier, _ = self.store.replies.lines(event_id) or [turn.text]
        return "\n".join([*earlier, turn.text])

    async def _find_lore(self, turn: Turn, memories: "MemoriesForReply") -> tuple[LoreHit, ...]:
        """Find lore and memories for a member's turn. Headings say whose words a memory is, and are
        not searched.
        """
        # Edits of messages can make two memories equal; keep one.
        seqs = {memory.text: memory.seq for memory in memories.read()}
        if not seqs:
            return tuple(await self.lore.find(memories.persona_id, turn.text, memories.guild_id))
        hits = await self._search_with(seqs, turn.text, memories)
        asked = f"{frame_name(turn.name)} asked you to remember"
        headings = {}
        for memory in memories.read():  # again: one may be forgotten during the search
            headings[memory.text] = f"your words, which {asked}" if memory.by_persona else asked
        shown = []
        for hit in hits:
            if hit.source != MEMORY_SOURCE:
                shown.append(hit)
            elif hit.text in headings:
                shown.append(replace(hit, heading=headings[hit.text]))
        return tuple(shown)

    async def _search_with(
        self, seqs: dict[str, int], message: str, memories: "MemoriesForReply"
    ) -> list[LoreHit]:
        """Search the lore together with memories, whose `seqs` are by text. Stores vectors that
        they lack.
        """
        lore = self.lore
        scheme = embedding_scheme(lore.encoder)
        passages = [Passage(WORLD, MEMORY_SOURCE, "", text) for text in seqs]
        stored = self.store.memories.vectors(seqs.values(), scheme)
        packed = [stored.get(seq) for seq in seqs.values()]

        def pack_and_search() -> tuple[list[bytes], list[LoreHit]]:
            vectors = pack_units(passages, packed, lore.encoder)
            hits = lore.search(
                memories.persona_id, message, guild_id=memories.guild_id, more=passages
            )
            return vectors, hits

        vectors, hits = await lore.in_order(pack_and_search)
        new = {}
        for (text, seq), vector in zip(seqs.items(), vectors, strict=True):
            if vector != stored.get(seq):
                new[seq, text] = vector
        if new:
            try:
                self.store.memories.store_vectors(scheme, new)
            except StoreError as error:  # a later search computes them again
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
        # Messages from before an update have no vectors.
        missing = [seq for seq, vector in vectors.items() if vector is None]
        texts = {}
        for exchange in messages.earlier_exchanges(talk, missing[:MAX_MISSING_VECTORS]):
            texts[exchange.seq] = exchange.question
        texts[message.seq] = message.text

        def embed_and_match() -> tuple[dict[int, bytes], dict[int, float]]:
            packed = pack_vectors([*texts.values()], encoder)
            new = dict(zip(texts, packed, strict=True))
            earlier = {seq: new.get(seq, vector or b"") for seq, vector in vectors.items()}
            return new, match_earlier(new[message.seq], earlier, encoder)

        new, scores = await self.lore.in_order(embed_and_match)
        try:
            # With its text: a vector of a message that was edited meanwhile is not stored.
            by_text = {(seq, texts[seq]): vector for seq, vector in new.items()}
            messages.store_vectors(scheme, by_text)
        except StoreError as error:  # a later message computes them again
            log.warning("the vectors of messages were not stored: %s", error)
        scored = []
        for exchange in messages.earlier_exchanges(talk, [*scores][:MAX_EARLIER_LOOKED_AT]):
            scored.append((exchange.question, exchange.reply, scores[exchange.seq]))
        return earlier_hits(scored, message.author_name, lore)


@dataclass(frozen=True)
class MemoriesForReply:
    """The texts that a member asked a persona to keep, for the reply to an event."""

    store: Store
    member_id: int
    guild_id: int
    persona_id: str
    event_id: int

    def read(self) -> list[Memory]:
        """List them, without copies of the reply that is made again."""
        reply = self.store.replies.get(self.event_id)
        own_parts = reply.parts if reply else ()
        memories = self.store.memories.of_member(self.member_id, self.guild_id, self.persona_id)
        return [memory for memory in memories if memory.message_id not in own_parts]


def other_speakers(turns: tuple[Turn, ...], others: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of those for whom a reply may not speak: of all who have spoken, and of
    `others`, each also by its first name.
    """
    names = [turn.name for turn in turns if turn.name and not turn.by_persona]
    called = dict[str, None]()
    for name in [*names, *others]:
        called |= dict.fromkeys([name, *called_names(name)[1:]])
    return tuple(called)


def _behind(turn: Turn, frames: list[str]) -> Turn:
    """Return a turn with what nobody has typed before its text."""
    if not frames:
        return turn
    before = "\n".join(frames) + "\n"
    text = (before + turn.text).rstrip()
    return replace(turn, text=text, frame_chars=min(len(text), len(before) + turn.frame_chars))


def _quote(quoted: QuotedMessage | None) -> str:
    """Return the message that another one replies to, as members see it; empty for none."""
    if quoted is None:
        return ""
    author = frame_name(quoted.author_name)
    if quoted.text is None:
        return LOST_QUOTE.fill(author=author)
    words = " ".join(quoted.text.split())
    if len(words) > MAX_QUOTED_CHARS:
        words = f"{words[: MAX_QUOTED_CHARS - 1]}…"
    return QUOTE.fill(author=author, words=words)


def _idle_s(history: list[StoredMessage], lines: Collection[int]) -> float | None:
    """Return the time between the first of the lines that a reply answers, by their Discord ids, and
    the message of a member before it.
    """
    *before, _ = history  # the last is a line, or was one until it was erased
    earlier = list(takewhile(lambda said: said.discord_message_id not in lines, before))
    first = history[len(earlier)]
    for message in reversed(earlier):
        if message.persona_id is None:
            return max(0.0, first.at - message.at)
    return None
