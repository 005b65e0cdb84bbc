"""Chat types shared by the bot, the engine and the trainer: persona, turns, sampling, request, reply."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Persona:
    """A character: who it is, how it speaks, where. The prose fields go into the prompt; the others do not.

    `nickname` is what `{{char}}` stands for, if not the name. `mes_example` holds talks, `speech` says in prose how the
    character speaks; `system_prompt` opens the prompt and `post_history_instructions` close it.
    """

    id: str
    name: str
    tagline: str = ""
    description: str = ""
    personality: str = ""
    scenario: str = ""
    first_mes: str = ""
    mes_example: str = ""
    tags: tuple[str, ...] = ()
    creator_notes: str = ""
    license: str = ""
    avatar: Path | None = None
    nickname: str = ""
    speech: str = ""
    system_prompt: str = ""
    post_history_instructions: str = ""
    alternate_greetings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One message of a talk. `name` is the speaker's: a display name when serving, a pseudonym when training."""

    name: str
    text: str
    by_persona: bool = False


@dataclass(frozen=True)
class LoreHit:
    """A passage of lore that matches a message. `source` is the file's name, `score` grows with the match."""

    source: str
    heading: str
    text: str
    score: float


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn. `seed` None draws a fresh one; the reply says which it was.

    `temperature` 0 takes the likeliest. `top_k` 0, `top_p` 1 and `min_p` 0 leave nothing out. `logprobs` asks for the
    log-probabilities of the reply's tokens, `alternatives` for its tokens and so many of the likeliest at each place.
    `stop_loops` ends a reply that goes round in circles at the end of its sentence (`personas.engine.detokenizer`).
    """

    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.05
    stop_loops: bool = True
    max_new_tokens: int = 120
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    alternatives: int | None = None


@dataclass(frozen=True)
class AdapterRef:
    """One version of a persona's adapter on disk."""

    persona_id: str
    version: str
    folder: Path

    @property
    def name(self) -> str:
        """Unique in the engine; a new version is a new name."""
        return f"{self.persona_id}-{self.version}"


@dataclass(frozen=True)
class ChatRequest:
    """Everything a reply depends on. `persona` None asks nobody in particular, `adapter` None the base model.

    `instructions` stand after the card's prose. The engine is fair between guilds: `guild_id` says who asks.
    """

    persona: Persona | None
    turns: tuple[Turn, ...]
    lore: tuple[LoreHit, ...] = ()
    adapter: AdapterRef | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    guild_id: int = 0
    instructions: str = ""


@dataclass(frozen=True)
class ReplyToken:
    """A token of a reply, as text, and the natural logarithm of the probability that the model itself gave it.

    `alternatives` are the likeliest at its place with theirs, the likeliest first; it may be among them. The text of a
    part of a character is U+FFFD.
    """

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ChatReply:
    """A finished reply. `version` is that of the adapter that made it, None for the base model.

    `logprobs` are, where they were asked for, the natural logarithms of the probabilities that the model itself gave to
    the `new_tokens` tokens (the end of turn included), before temperature and the rest. `tokens` are there where
    `alternatives` were asked for. `prompt` is the rendered prompt, control tokens and all; `shortened` says that the
    middle of the last turn was left out of it. `repeated` says that the reply was ended where it went round in a circle
    and that this was taken out.
    """

    text: str
    version: str | None
    seed: int
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length", "cancelled"]
    logprobs: tuple[float, ...] = ()
    tokens: tuple[ReplyToken, ...] = ()
    prompt: str = ""
    shortened: bool = False
    repeated: bool = False
