"""Renders turns into token ids: the only prompt renderer, for serving and training alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from personas.chat_template import ChatTemplate, Message
from personas.schemas.chat import LoreHit, Persona, Turn

PROMPT_VERSION = "3"
"""Changes whenever the same turns would render to other tokens. Adapters record it."""

HISTORY_BLOCK_TURNS = 4
"""History is dropped in blocks of so many turns, so that the prefix of a prompt stays the same for a while."""

EXAMPLE_USER = "Guest"
"""Who asks in a card's examples: always the same name, so that all members' prompts begin with the same tokens."""

CONTEXT_TOKENS = 2048
"""What prompt and reply may take together."""
MAX_CARD_TOKENS = 1400
"""What a card's prose and examples may take of a prompt: talks beyond that are left out."""

EXAMPLE_LINE_PATTERN = re.compile(r"\{\{(char|user)\}\}:", re.IGNORECASE)


class PromptTooLongError(ValueError):
    """Not even an empty turn fits beside the persona's card and the instructions."""


@dataclass(frozen=True)
class RenderedPrompt:
    """A rendered prompt. `turns_kept` counts the turns that fitted; of the last the middle is out where `shortened`."""

    ids: tuple[int, ...]
    text: str
    turns_kept: int
    shortened: bool = False


@dataclass(frozen=True)
class TokenizedSample:
    """A training sample: `ids` and `mask` have the same length; the mask is True where loss is taken."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]

    @property
    def reply_tokens(self) -> int:
        """Number of tokens with loss."""
        return sum(self.mask)


class Renderer:
    """Renders with one tokenizer and its own chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._chat = ChatTemplate(tokenizer)
        self._anchor: tuple[int, int] | None = None
        self.end_of_turn, self.end_ids, self.stop_ids = self._chat.end_of_turn, self._chat.end_ids, self._chat.stop_ids

    def prompt(
        self,
        persona: Persona | None,
        turns: Sequence[Turn],
        lore: Sequence[LoreHit] = (),
        max_tokens: int = CONTEXT_TOKENS,
        instructions: str = "",
    ) -> RenderedPrompt:
        """Render card, history and the last member turn (with its lore) up to where the reply begins.

        `instructions` come after the card's prose; training never has any.

        Drops whole blocks of the oldest turns until it fits in `max_tokens`; if the last turn alone is too long, its
        middle is left out, and beside a card that leaves no room at all its examples are. Raises `ValueError` if the
        last turn is not a member's, and `PromptTooLongError`, which is one, if not even an empty turn fits.
        """
        if not turns or turns[-1].by_persona:
            raise ValueError("a prompt ends with a member's turn")
        kept = list(turns)
        while True:
            text = self._chat.render(self.messages(persona, kept, lore, instructions))
            ids = tuple(self._chat.encode(text))
            if len(ids) <= max_tokens:
                return RenderedPrompt(ids, text, len(kept), kept[-1] != turns[-1])
            try:
                kept = self._shorten(kept, len(ids) - max_tokens)
            except ValueError:
                if persona is None or not persona.mes_example:
                    raise
                persona, kept = replace(persona, mes_example=""), list(turns)

    def sample(
        self,
        persona: Persona | None,
        turns: Sequence[Turn],
        reply: str,
        lore: Sequence[LoreHit] = (),
        max_tokens: int = CONTEXT_TOKENS,
    ) -> TokenizedSample:
        """Render a prompt and the reply to it; `max_tokens` bounds the whole."""
        answer = self._answer(reply)
        return _masked_sample(self.prompt(persona, turns, lore, max_tokens - len(answer)).ids, answer)

    def sample_of(self, messages: list[Message], reply: str) -> TokenizedSample:
        """A sample from chat messages that `messages` made, as data sets keep them, and the reply to them.

        Another model's renderer may have made them: this one's control tokens are broken up in them, and where its
        template knows no system message the first turn begins with it.
        """
        plain = [{**message, "content": self._chat.break_control_tokens(message["content"])} for message in messages]
        if plain[0]["role"] == "system":
            plain = self._with_system(plain[0]["content"], plain[1:])
        return _masked_sample(self._chat.encode(self._chat.render(plain)), self._answer(reply))

    def _answer(self, reply: str) -> list[int]:
        return self._chat.encode(self._chat.lead + self._chat.plain(reply)) + list(self.end_ids)

    def piece(self, token: int) -> str:
        """A token alone as text, the blank that it begins with too; U+FFFD where it is a part of a character."""
        if self._anchor is None:  # decoded alone, tokens of some tokenizers lose their blank
            ids = self._chat.encode("a")
            self._anchor = ids[-1], len(self.tokenizer.decode(ids[-1:]))
        before, size = self._anchor
        text: str = self.tokenizer.decode([before, token])
        return text[size:]

    # -------------------------------------------------------------------------------- from turns to messages

    def messages(
        self, persona: Persona | None, turns: Sequence[Turn], lore: Sequence[LoreHit] = (), instructions: str = ""
    ) -> list[Message]:
        """The chat messages that a prompt is rendered from, the system message first where there is one."""
        examples = self._examples(persona) if persona else []
        messages = self._merged(persona, examples) + self._merged(persona, turns)
        if lore:
            messages[-1]["content"] = self._notes(lore) + "\n\n" + messages[-1]["content"]
        if persona and persona.post_history_instructions:
            last = fill_macros(persona.post_history_instructions, persona, turns[-1].name)
            messages[-1]["content"] += "\n\n" + self._chat.plain(last)
        parts = (system_text(persona, turns[-1].name), instructions)
        return self._with_system(self._chat.plain("\n".join(part for part in parts if part)), messages)

    def _examples(self, persona: Persona) -> list[Turn]:
        """The card's examples, as many of its talks as leave room for the real one. The card alone decides."""
        room = MAX_CARD_TOKENS - len(self._chat.encode(system_text(persona, EXAMPLE_USER)))
        kept: list[Turn] = []
        for talk in _example_talks(persona):
            room -= sum(len(self._chat.encode(turn.text)) for turn in talk)
            if room < 0:
                break
            kept += talk
        return kept

    def _merged(self, persona: Persona | None, turns: Sequence[Turn]) -> list[Message]:
        """One message for all that one side says in a row: templates want the sides to alternate."""
        messages: list[Message] = []
        for turn in turns:
            role = "assistant" if turn.by_persona else "user"
            text = self._chat.plain(turn.text) if turn.by_persona or persona is None else self._said(turn)
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] += "\n" + text
            elif messages or role == "user":  # many templates refuse a talk that the assistant opens
                messages.append({"role": role, "content": text})
        return messages

    def _said(self, turn: Turn) -> str:
        return self._chat.plain(f"{turn.name.strip()}: {turn.text.strip()}")

    def _notes(self, lore: Sequence[LoreHit]) -> str:
        return "\n".join(f"[{self._chat.plain(hit.heading)}] {self._chat.plain(hit.text)}" for hit in lore)

    def _with_system(self, system: str, messages: list[Message]) -> list[Message]:
        if not system:
            return messages
        if self._chat.has_system:
            return [{"role": "system", "content": system}, *messages]
        first = {"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}
        return [first, *messages[1:]]

    def _shorten(self, turns: list[Turn], over: int) -> list[Turn]:
        if len(turns) > 1:
            return turns[min(HISTORY_BLOCK_TURNS, len(turns) - 1) :]
        text = turns[0].text
        if not text:
            raise PromptTooLongError("the persona's card alone does not fit into the context")
        keep = max(0, len(text) - max(2 * over, 8))
        head, tail = text[: keep // 2], text[len(text) - (keep - keep // 2) :]
        return [Turn(turns[0].name, f"{head} … {tail}" if keep else "")]


def _masked_sample(prompt: Sequence[int], answer: Sequence[int]) -> TokenizedSample:
    return TokenizedSample((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


def system_text(persona: Persona | None, user: str) -> str:
    """The system message: the card's prose with `{{char}}` and `{{user}}` filled in; empty without a persona.

    `creator_notes` and `tags` are for people and never appear here. `{{original}}`, by which cards V2 mean the
    instructions of the program, stands for nothing: here the card is all there is.
    """
    if persona is None:
        return ""
    speech = persona.speech and f"{{{{char}}}} speaks like this:\n{persona.speech}"
    parts = (persona.system_prompt, persona.description, persona.personality, persona.scenario, speech)
    return fill_macros("\n".join(part for part in parts if part), persona, user)


def example_turns(persona: Persona) -> list[Turn]:
    """The talk in the card's `mes_example`, for a model to go on in the same voice.

    Its form is that of character cards V2: each line begins with `{{user}}:` or `{{char}}:` (what follows it up to the
    next such line belongs to it), and `<START>` divides talks. Raises `ValueError` when it is anything else: each talk
    has to begin with the user and end with the character.
    """
    return [turn for talk in _example_talks(persona) for turn in talk]


def _example_talks(persona: Persona) -> list[list[Turn]]:
    talks: list[list[Turn]] = []
    for talk in persona.mes_example.split("<START>"):
        before, *said = EXAMPLE_LINE_PATTERN.split(talk.strip())
        sides = [side.lower() == "char" for side in said[::2]]
        if before or (sides and (sides[0] or not sides[-1])):
            raise ValueError("mes_example has to go {{user}}: … {{char}}: …, with <START> between talks")
        turns = []
        for by_persona, text in zip(sides, said[1::2], strict=True):
            name = persona.name if by_persona else EXAMPLE_USER
            turns.append(Turn(name, fill_macros(text.strip(), persona, EXAMPLE_USER), by_persona))
        talks.append(turns)
    return talks


def fill_macros(text: str, persona: Persona, user: str) -> str:
    """A text of the card with names in place of `{{char}}` and `{{user}}`."""
    # The user's name comes last: nobody's name is read as a macro.
    text = text.replace("{{original}}", "").replace("{{char}}", persona.nickname or persona.name)
    return text.replace("{{user}}", user)
