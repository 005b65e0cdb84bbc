"""Renders turns into token ids: the only prompt renderer, for serving and training alike."""

import copy
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from personas.prompt.chat_template import ChatTemplate, Message
from personas.prompt.frames import NAMED, PASSAGE, break_frames, member_name
from personas.prompt.macros import normalise_macros
from personas.prompt.message_order import with_opening, with_system
from personas.prompt.short_card import short_card
from personas.prompt.time_macros import fill_time_macros, time_phrase
from personas.schemas.chat import (
    EARLIER_SOURCE,
    MEMORY_SOURCE,
    SITUATION_SOURCE,
    CardChoice,
    LoreHit,
    Persona,
    Turn,
    asked_turn,
)

# Must change whenever samples would render to other tokens. Adapters record it.
PROMPT_VERSION = "4"
VERSIONS_BEFORE_4 = frozenset(("1", "2", "3"))
"""Prompts without what the persona says first and without forced prefixes, with `user: ` before a
row's messages.
"""

HISTORY_BLOCK_TURNS = 4
"""History is dropped in blocks of this many turns, so that the prefix of a prompt stays the same
for a while.
"""

RECENT_MESSAGES = 8
RECENT_BLOCK_MESSAGES = 6
"""A channel's prompt has its last messages: at least eight, in a window that moves by six
(`recent_start`).
"""

EXAMPLE_USER = "Guest"
"""The user's name in a card's examples: always the same, so that all members' prompts share a
prefix.
"""

DATASET_USER = "user"
DATASET_ASSISTANT = "assistant"
"""Names of the two speakers of data sets whose conversations name none."""

CONTEXT_TOKENS = 2048
"""Limit for prompt and reply together where no engine says one, as in evaluations."""
MAX_CARD_TOKENS = 1400
"""Limit for a card's prose and examples within a prompt; example conversations beyond it are left
out.
"""

PROBE_TURNS = (Turn("Ann", "hi"), Turn("Zoe", "Why?"))
"""Two turns with nothing in common: what both prompts begin with belongs to the persona."""

CHAT_ROLES = ("User", "Assistant")  # names of the speakers in the plain template without a persona

PICTURE_MARK = f"<picture {secrets.token_hex(8)}>"
"""Stands for a picture in a prompt's text. Nobody can type it, as it is new in every process."""

PEOPLES_SOURCES = (MEMORY_SOURCE, EARLIER_SOURCE, SITUATION_SOURCE)
"""Sources of passages that may hold what members have written."""

EXAMPLE_LINE_PATTERN = re.compile(r"\{\{(char|user)\}\}:", re.IGNORECASE)


class PromptTooLongError(ValueError):
    """Not even an empty turn fits beside the persona's card and the instructions."""


@dataclass(frozen=True)
class RenderedPrompt:
    """A rendered prompt with the number of turns that fitted; `shortened`: the middle of the last
    one was left out.

    `messages` are those that were rendered, `lore` what of it had room. `card` are the tokens of
    `Renderer.card_prompt`, for a reply that is chosen among candidates, and `negative` those of the
    talk without the persona, for one that is guided.
    """

    ids: tuple[int, ...]
    text: str
    turns_kept: int
    shortened: bool = False
    messages: tuple[Message, ...] = ()
    lore: tuple[LoreHit, ...] = ()
    card: tuple[int, ...] = ()
    negative: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenizedSample:
    """A training sample. `ids` and `mask` have the same length; the mask is True for tokens with
    loss.
    """

    ids: tuple[int, ...]
    mask: tuple[bool, ...]

    @property
    def reply_tokens(self) -> int:
        return sum(self.mask)


class Renderer:
    """Renders prompts and samples with one tokenizer and its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._chat = ChatTemplate(tokenizer)
        self._anchor: tuple[int, int] | None = None
        self._is_before_4 = False
        self.card: CardChoice = "full"
        self.end_of_turn = self._chat.end_of_turn
        self.end_ids = self._chat.end_ids
        self.stop_ids = self._chat.stop_ids

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template, without a speaker."""
        return self._chat

    def frozen_template(self) -> str:
        """Return the chat template that writes this renderer's prompts in other programs."""
        return self._chat.frozen(with_prefix=not self._is_before_4)

    def for_version(self, prompt_version: str) -> "Renderer":
        """Return the renderer of the prompts that an adapter has learned: itself, unless the
        version is an older one.

        Adapters of other programs have no version.
        """
        if self._is_before_4 == (prompt_version in VERSIONS_BEFORE_4):
            return self
        other = copy.copy(self)
        other._is_before_4 = not self._is_before_4
        return other

    def with_card(self, card: CardChoice) -> "Renderer":
        """Return the renderer whose prompts have this card of their persona."""
        if card == self.card:
            return self
        other = copy.copy(self)
        other.card = card
        return other

    def prompt(
        self,
        persona: Persona | None,
        turns: Sequence[Turn],
        lore: Sequence[LoreHit] = (),
        max_tokens: int = CONTEXT_TOKENS,
        instructions: str = "",
        prefill: str = "",
    ) -> RenderedPrompt:
        """Render card, history and the last member turn (with its lore) up to where the reply
        begins.

        `instructions` follow the card's prose, and `prefill` is the beginning of the reply;
        training has none.

        Until the prompt fits `max_tokens`, drops earlier talk from the worst match on, then blocks
        of the oldest turns, then what others have answered to the turn that is asked, then lore and
        memories. If that turn alone is too long, its middle is left out; if the card leaves no room
        at all, its examples are dropped. Raises `ValueError` if the last turn is not a member's, and
        its subclass `PromptTooLongError` if not even an empty turn fits.
        """
        if not turns or turns[-1].by_persona:
            raise ValueError("a prompt ends with a member's turn")
        kept = list(turns)
        hits = list(lore)
        chat = self._chat_of(persona)
        while True:
            messages = self.messages(persona, kept, hits, instructions)
            opening = self._opening(chat, messages)
            ids = (*chat.encode(opening), *self.prefill_ids(prefill))
            if len(ids) <= max_tokens:
                return RenderedPrompt(
                    ids,
                    text=opening + chat.sanitise(prefill).rstrip(),
                    turns_kept=len(kept),
                    shortened=asked_turn(kept).text != asked_turn(turns).text,
                    messages=tuple(messages),
                    lore=tuple(hits),
                )
            droppable = [hit for hit in hits if hit.source == EARLIER_SOURCE]
            if not droppable and len(kept) == 1:
                droppable = hits
            if droppable:
                hits.remove(min(droppable, key=lambda hit: hit.score))
                continue
            try:
                kept = self._shorten(kept, len(ids) - max_tokens)
            except ValueError:
                if persona is None or not persona.mes_example:
                    raise
                persona = replace(persona, mes_example="")
                kept = list(turns)
                hits = list(lore)

    def prefill_ids(self, prefill: str) -> tuple[int, ...]:
        """Return the tokens of a reply's beginning: apart from the prompt's, as in training,
        without a blank end.
        """
        if not prefill:
            return ()
        return tuple(self._chat.encode(self._chat.sanitise(prefill).rstrip()))

    def card_prompt(
        self,
        persona: Persona | None,
        user: str,
        instructions: str = "",
        max_tokens: int = CONTEXT_TOKENS,
    ) -> tuple[int, ...]:
        """Return the tokens of a prompt in which the user says nothing. Raises `ValueError` for a
        card too long.
        """
        turns = [Turn(user, "")]
        prompt = self.prompt(persona, turns, max_tokens=max_tokens, instructions=instructions)
        return prompt.ids

    def picture_text(
        self, persona: Persona | None, messages: Sequence[Message], names: Sequence[str]
    ) -> str:
        """Return the text of a prompt of these messages, with each picture's name and a
        `PICTURE_MARK` behind the last one.
        """
        chat = self._chat_of(persona)
        lines = [messages[-1]["content"]]
        for name in names:
            lines += [chat.sanitise(picture_line(name)), PICTURE_MARK]
        last: Message = {**messages[-1], "content": "\n".join(lines)}
        return self._opening(chat, [*messages[:-1], last])

    def common_prefix(
        self, persona: Persona, max_tokens: int, talk: Sequence[Turn] = ()
    ) -> tuple[int, ...]:
        """Return the tokens that all prompts of a persona begin with, or all of a talk, whatever
        its last turn says.

        Raises `ValueError` for a card too long.
        """
        prompts = []
        for probe in PROBE_TURNS:
            turns = [probe]
            if talk:
                turns = [*talk[:-1], replace(talk[-1], text=probe.text)]
            prompts.append(self.prompt(persona, turns, max_tokens=max_tokens).ids)
        prefix = []
        for token, other in zip(*prompts, strict=False):
            if token != other:
                break
            prefix.append(token)
        return tuple(prefix)

    def sample(
        self,
        persona: Persona | None,
        turns: Sequence[Turn],
        reply: str,
        lore: Sequence[LoreHit] = (),
        max_tokens: int = CONTEXT_TOKENS,
    ) -> TokenizedSample:
        """Render a prompt and its reply; `max_tokens` limits both together."""
        chat = self._chat_of(persona)
        answer = _answer(chat, reply)
        prompt = self.prompt(persona, turns, lore, max_tokens=max_tokens - len(answer))
        return self._masked_sample(chat, list(prompt.messages), prompt.ids, answer)

    def answer_tokens(self, persona: Persona | None, reply: str) -> int:
        """Return the number of tokens that follow a prompt in a sample: the reply's and its end of
        turn's.
        """
        return len(_answer(self._chat_of(persona), reply))

    @property
    def framing_tokens(self) -> int:
        """Number of tokens with loss of an empty reply: of a forced prefix, and the end of
        turn's.
        """
        prefix = self._chat.reply_prefix if self._chat.forces_prefix else ""
        return len(self._chat.encode(prefix)) + len(self.end_ids)

    def sample_from_messages(
        self, messages: list[Message], reply: str, speaker: str = ""
    ) -> TokenizedSample:
        """Render a sample from chat messages (as `messages` returns and data sets store them) and
        the reply to them.

        `speaker` is the name of the persona that replies, if one does.

        Another model's renderer may have built the messages: this model's control tokens in them
        are broken up, and where its template has no system role the system message is prepended to
        the first turn.
        """
        chat = self._chat.for_speaker(speaker)
        talk: list[Message] = []
        for message in messages:
            talk.append({**message, "content": chat.break_control_tokens(message["content"])})
        system = ""
        if talk[0]["role"] == "system":
            system = talk.pop(0)["content"]
        opened = with_opening(talk, may_open=self._chat.may_open)
        messages = with_system(system, opened, has_role=self._chat.has_system)
        return self._masked_sample(
            chat,
            messages,
            prompt=chat.encode(self._opening(chat, messages)),
            answer=_answer(chat, reply),
        )

    def stop_strings(self, persona: Persona | None) -> tuple[str, ...]:
        """Return the beginnings of lines that begin the next turn where the template's lines name
        their speakers: the persona's own, and without one those of both roles.
        """
        if not self._chat.prints_speaker:
            return ()
        names = (persona.name,) if persona else CHAT_ROLES
        return tuple(f"\n{name.strip()}:" for name in names if name.strip())

    def lore_headings(
        self, persona: Persona | None, turns: Sequence[Turn], lore: Sequence[LoreHit]
    ) -> list[str]:
        """Return the headings of passages as the prompt has them, such as "[The tower]"."""
        if not lore:
            return []
        chat = self._chat_of(persona)
        user = asked_turn(turns).name
        named = [with_names(hit, persona, user) if persona else hit for hit in lore]
        return [f"[{chat.sanitise(_heading(hit))}]" for hit in named]

    def _chat_of(self, persona: Persona | None) -> ChatTemplate:
        if persona is None:
            return self._chat
        return self._chat.for_speaker(persona.name)

    def decode_token(self, token: int) -> str:
        """Decode one token, with its leading space; U+FFFD for part of a character."""
        if self._anchor is None:  # some tokenizers drop the leading space of a token decoded alone
            ids = self._chat.encode("a")
            self._anchor = ids[-1], len(self.tokenizer.decode(ids[-1:]))
        before, size = self._anchor
        text: str = self.tokenizer.decode([before, token])
        return text[size:]

    def messages(
        self,
        persona: Persona | None,
        turns: Sequence[Turn],
        lore: Sequence[LoreHit] = (),
        instructions: str = "",
    ) -> list[Message]:
        """Build the chat messages of a prompt, the system message first if there is one."""
        if persona and self.card == "short":
            persona = short_card(persona)
        # The card's examples are turns, because a model imitates turns even without training.
        examples = self._examples(persona) if persona else []
        chat = self._chat_of(persona)
        messages = self._merge_turns(persona, examples, are_typed=False)
        messages += self._merge_turns(persona, turns)
        messages = with_opening(messages, may_open=self._chat.may_open)
        user = asked_turn(turns).name
        if lore:
            # With the last message, not in the card: so the start of the prompt stays the same from
            # turn to turn, and its keys and values can be reused.
            passages = []
            for hit in lore:
                named = with_names(hit, persona, user) if persona else hit
                heading = chat.sanitise(_heading(named))
                passages.append(
                    PASSAGE.template.format(heading=heading, text=chat.sanitise(named.text))
                )
            messages[-1]["content"] = "\n".join(passages) + "\n\n" + messages[-1]["content"]
        closing = closing_text(persona, user)
        if closing is not None:
            messages[-1]["content"] += "\n\n" + chat.sanitise(closing)
        parts = (system_text(persona, user), instructions)
        system = chat.sanitise("\n".join(filter(None, parts)))
        return with_system(system, messages, has_role=self._chat.has_system)

    def _examples(self, persona: Persona) -> list[Turn]:
        """Select the card's example conversations that fit `MAX_CARD_TOKENS`. Depends on the card
        alone.
        """
        room = MAX_CARD_TOKENS - len(self._chat.encode(system_text(persona, EXAMPLE_USER)))
        examples: list[Turn] = []
        for conversation in example_conversations(persona):
            room -= sum(len(self._chat.encode(turn.text)) for turn in conversation)
            if room < 0:
                break
            examples += conversation
        return examples

    def _merge_turns(
        self, persona: Persona | None, turns: Sequence[Turn], *, are_typed: bool = True
    ) -> list[Message]:
        """Merge consecutive turns of one side into a message: templates require alternating
        roles. In what people have typed, frames are broken up.
        """
        speakers: list[str] = []
        own = ("", "")
        if persona and persona.id and are_typed:  # rows of data sets have no frames
            own = (persona.name, persona.nickname)
            names = [member_name(turn.name, own) for turn in turns if not turn.by_persona]
            speakers = [*dict.fromkeys([*filter(None, own), *names])]
        chat = self._chat_of(persona)
        messages: list[Message] = []
        for turn in turns:
            role = "assistant" if turn.by_persona else "user"
            name = turn.name.strip()
            if not name and self._is_before_4:
                name = DATASET_USER
            text = turn.text
            if speakers and not turn.by_persona:
                frames = text[: turn.frame_chars]
                typed = text[turn.frame_chars :]
                text = frames + break_frames(typed, speakers, has_line_before=bool(frames))
                name = member_name(name, own)
            if name and persona is not None and not turn.by_persona:
                text = f"{name}: {text.strip()}"
            text = chat.sanitise(text)
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] += "\n" + text
            elif messages or role == "user" or not self._is_before_4:
                messages.append({"role": role, "content": text})
        return messages

    def _opening(self, chat: ChatTemplate, messages: list[Message]) -> str:
        if self._is_before_4:
            return chat.render(messages)
        return chat.opening(messages)

    def _masked_sample(
        self,
        chat: ChatTemplate,
        messages: list[Message],
        prompt: Sequence[int],
        answer: Sequence[int],
    ) -> TokenizedSample:
        """Return prompt and answer, with loss on the answer and on a prefix that prompts force.

        Other programs do not force it, so the model has to write it itself there.
        """
        start = len(prompt)
        if chat.forces_prefix and not self._is_before_4:
            opened = chat.encode(chat.render(messages))
            if list(prompt[: len(opened)]) == opened:
                start = len(opened)
        mask = (False,) * start + (True,) * (len(prompt) - start + len(answer))
        return TokenizedSample((*prompt, *answer), mask)

    def _shorten(self, turns: list[Turn], over: int) -> list[Turn]:
        asked = max(at for at, turn in enumerate(turns) if not turn.answers_too)
        if asked:
            return turns[min(HISTORY_BLOCK_TURNS, asked) :]
        if len(turns) > 1:
            return [turns[0], *turns[2:]]
        text = turns[0].text
        if not text:
            raise PromptTooLongError("the persona's card alone does not fit into the context")
        keep = max(0, len(text) - max(2 * over, 8))
        if not keep:
            return [Turn(turns[0].name, "")]
        head = text[: keep // 2]
        gap = " … "
        tail = text[len(text) - (keep - keep // 2) :]
        framed = min(turns[0].frame_chars, len(head))
        if (in_tail := turns[0].frame_chars - (len(text) - len(tail))) > 0:
            framed = len(head) + len(gap) + in_tail
        return [Turn(turns[0].name, f"{head}{gap}{tail}", frame_chars=framed)]


def picture_line(name: str) -> str:
    """Return the line that names a picture before it stands in a prompt; a name with a colon would
    be a speaker's.
    """
    return NAMED.fill(name=name)


def _heading(hit: LoreHit) -> str:
    """Return the heading of a passage; a name in one of people's would end it with a bracket."""
    return hit.heading.replace("]", ")") if hit.source in PEOPLES_SOURCES else hit.heading


def with_names(hit: LoreHit, persona: Persona, user: str) -> LoreHit:
    """Fill in the names of a file's lore, and phrases for the present moment where nobody has told
    it; what people have said stays as it is.
    """
    if hit.source in PEOPLES_SOURCES or "{{" not in hit.heading + hit.text:
        return hit
    filled = []
    for text in (hit.heading, hit.text):
        phrased = fill_time_macros(normalise_macros(text), time_phrase)
        filled.append(fill_macros(phrased, persona, user))
    return replace(hit, heading=filled[0], text=filled[1])


def _answer(chat: ChatTemplate, reply: str) -> list[int]:
    prefix = "" if chat.forces_prefix else chat.reply_prefix
    return chat.encode(prefix + chat.sanitise(reply)) + list(chat.end_ids)


def recent_start(count: int) -> int:
    """Return how many of a channel's `count` messages, the oldest, a prompt leaves out."""
    # A window that moved with each reply would invalidate the KV cache each time. Larger blocks
    # cost less, but a prompt then has more of the persona's own replies, which it imitates.
    return max(0, count - RECENT_MESSAGES) // RECENT_BLOCK_MESSAGES * RECENT_BLOCK_MESSAGES


def system_text(persona: Persona | None, user: str) -> str:
    """Build the system message: the card's prose with `{{char}}` and `{{user}}` filled in; empty
    without a persona.

    `creator_notes` and `tags` are for people and never appear here. `{{original}}`, which stands
    for a program's own instructions in V2 cards, is replaced by nothing: here the card is the whole
    system message.
    """
    if persona is None:
        return ""
    speech = persona.speech and f"{{{{char}}}} speaks like this:\n{persona.speech}"
    parts = (
        persona.system_prompt,
        persona.description,
        persona.personality,
        persona.scenario,
        speech,
    )
    return fill_macros("\n".join(filter(None, parts)), persona, user)


def closing_text(persona: Persona | None, user: str) -> str | None:
    """Build the text that ends a prompt's last message: the card's closing instructions, filled in
    as by `system_text`, which may leave nothing of them. None if the card has none.
    """
    if persona is None or not persona.post_history_instructions:
        return None
    return fill_macros(persona.post_history_instructions, persona, user)


def system_card(text: str, name: str = DATASET_ASSISTANT) -> Persona:
    """Return the card that stands for a conversation's own system text, such as a list of facts
    about `name`.
    """
    return Persona("", name, description=text)


def example_turns(persona: Persona) -> list[Turn]:
    """Parse the conversations in the card's `mes_example`.

    The format is that of V2 cards: each line begins with `{{user}}:` or `{{char}}:` (text up to the
    next such line belongs to it), and `<START>` separates conversations. Raises `ValueError` for
    anything else: each conversation has to begin with the user and end with the character.
    """
    return [turn for conversation in example_conversations(persona) for turn in conversation]


def example_conversations(persona: Persona, user: str = EXAMPLE_USER) -> list[list[Turn]]:
    """Parse the conversations as `example_turns` does, each by itself, with a user of this name."""
    conversations: list[list[Turn]] = []
    for conversation in persona.mes_example.split("<START>"):
        before, *lines = EXAMPLE_LINE_PATTERN.split(conversation.strip())
        sides = [side.lower() == "char" for side in lines[::2]]
        if before or (sides and (sides[0] or not sides[-1])):
            raise ValueError(
                "mes_example has to go {{user}}: … {{char}}: …, with <START> between conversations"
            )
        turns = []
        for by_persona, text in zip(sides, lines[1::2], strict=True):
            name = persona.name if by_persona else user
            turns.append(Turn(name, fill_macros(text.strip(), persona, user), by_persona))
        conversations.append(turns)
    return conversations


def fill_macros(text: str, persona: Persona, user: str) -> str:
    """Replace `{{char}}` and `{{user}}` in a text of the card by names."""
    # The user's name comes last, so that macros in a name stay as they are.
    text = text.replace("{{original}}", "").replace("{{char}}", persona.nickname or persona.name)
    return text.replace("{{user}}", user or DATASET_USER)
