"""Chat types shared by bot, engine and trainer (persona, turns, sampling, request, reply), and the
form of names.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Persona:
    """A character card as data. The prose fields go into the prompt, the others do not.

    `{{char}}` stands for `nickname` if there is one, else for the name. `mes_example` holds example
    conversations; `speech` describes in prose how the character speaks. `system_prompt` opens the
    prompt and `post_history_instructions` end it. `asked_if_human` is what the character says to the
    sincere question whether it is human, in place of a model. `times` are the macros of the present moment that
    the prompt's fields have (`personas.prompt.time_macros`).
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
    asked_if_human: str = ""
    times: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. `name` is the speaker's: a display name in serving, a
    pseudonym in training.

    `answers_too`: another persona has said it in answer to the message that is to be answered. The
    first `frame_chars` of the text are quotes and files, which nobody has typed.
    """

    name: str
    text: str
    by_persona: bool = False
    answers_too: bool = False
    frame_chars: int = 0


def asked_turn(turns: Sequence[Turn]) -> Turn:
    """Return the turn that is to be answered: the last one that is no other persona's answer to it."""
    return next(turn for turn in reversed(turns) if not turn.answers_too)


VisionSetting = Literal["auto", "on", "off"]
"""Whether servers are given pictures; `auto`: those that take one."""


@dataclass(frozen=True)
class Picture:
    """A picture that came with the last turns, which name it. `data` is a file of `media_type`."""

    name: str
    media_type: str
    data: bytes = field(repr=False)


MEMORY_SOURCE = "memory"
"""Source of a passage that a member asked a persona to keep."""
EARLIER_SOURCE = "earlier talk"
"""Source of a passage that a member and the persona said before the prompt's history."""
SITUATION_SOURCE = "situation"
"""Source of what is told about the moment and the channel of a reply."""


@dataclass(frozen=True)
class LoreHit:
    """A lore passage that matches a message. A higher `score` is a better match.

    `source` is the file name, `MEMORY_SOURCE`, `EARLIER_SOURCE` or `SITUATION_SOURCE`.
    """

    source: str
    heading: str
    text: str
    score: float


MAX_CANDIDATES = 8
DEFAULT_CANDIDATES = 4
"""Candidates among which the beginning of a reply in a channel is chosen, by the engine in the
bot's own process.
"""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling parameters of a reply. `seed` None draws a random one, which the reply reports.

    `temperature` 0 is greedy decoding. `top_k` 0, `top_p` 1 and `min_p` 0 disable these filters.
    `logprobs` requests the log-probabilities of the reply's tokens; `alternatives` the tokens
    themselves and that many of the likeliest tokens at each position. `stop_loops` ends a reply
    that repeats itself at the end of its sentence (`personas.engine.detokenizer`). A reply ends
    before a line of one of the other `speakers` (`personas.engine.speaker_labels`). Its beginning is
    chosen among at most `candidates` (`personas.engine.candidates`).
    """

    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.05
    stop_loops: bool = True
    max_new_tokens: int = 120
    stop: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    alternatives: int | None = None
    candidates: int = 1


CardChoice = Literal["full", "short"]
"""The card of a prompt: all of its text, or the persona's name and one line
(`personas.prompt.short_card`).
"""


@dataclass(frozen=True)
class AdapterRef:
    """One version of a persona's adapter on disk. `card` is the one that its prompts have; the
    adapter is the same with either.
    """

    persona_id: str
    version: str
    folder: Path
    card: CardChoice = field(default="full", compare=False)

    @property
    def name(self) -> str:
        """Unique name in the engine; each version has its own."""
        return f"{self.persona_id}-{self.version}"


@dataclass(frozen=True)
class ChatRequest:
    """Everything a reply depends on. `persona` None is the model without a card, `adapter` None the
    base model. One that `needs_adapter` fails where no server has its adapter; without that, the
    base model may answer in its place.

    `instructions` follow the card's prose. The reply begins with `prefill`, which is not part of
    what is returned. The engine schedules guilds fairly, and the members of each; `guild_id` and
    `member_id` are those who ask, member 0 is nobody in particular. Prompt and reply have at most
    `context_tokens`; 0 is the engine's own limit. A model that does not see `pictures` gets the
    turns alone. `replaces` is the text in whose place the reply comes, and which it should not be
    again. With a `guidance_scale` above 1, the local engine weights the persona more strongly than
    its prompt alone does (`personas.engine.guidance`), for the time of two replies at most; other
    engines ignore it.
    """

    persona: Persona | None
    turns: tuple[Turn, ...]
    lore: tuple[LoreHit, ...] = ()
    adapter: AdapterRef | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    guild_id: int = 0
    instructions: str = ""
    member_id: int = 0
    prefill: str = ""
    context_tokens: int = 0
    pictures: tuple[Picture, ...] = ()
    replaces: str = ""
    guidance_scale: float = 1.0
    needs_adapter: bool = False


@dataclass(frozen=True)
class ReplyToken:
    """A token of a reply as text, with the natural log-probability that the model gave it.

    `alternatives` are the likeliest tokens at its position with theirs, likeliest first; the token
    may be among them. The text of a token that is part of a character is U+FFFD.
    """

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ChatReply:
    """A finished reply. `version` is that of its adapter, None for the base model.

    `logprobs`, if requested, are the model's own natural log-probabilities of the `new_tokens`
    tokens (end of turn included), before temperature and filters. `tokens` are filled if
    `alternatives` were requested. `prompt` is the rendered prompt with its control tokens;
    `shortened`: the middle of the last turn was left out of it; `lore`: what of the request's had
    room in it. `repeated`: the reply was ended because it repeated itself, and the repetition was
    cut off. `is_cut`: it was ended before a line that was not its own. Its beginning was chosen
    among `candidates`. `seeded` False: it was not drawn with the seed, which the server does not
    take. `withheld`: what was generated is not shown, and the text is empty.
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
    lore: tuple[LoreHit, ...] = ()
    shortened: bool = False
    repeated: bool = False
    is_cut: bool = False
    candidates: int = 1
    seeded: bool = True
    withheld: bool = False

    @property
    def used_seed(self) -> int | None:
        """The seed with which it was drawn; None where there was none."""
        return self.seed if self.seeded else None


def to_nfc(text: str) -> str:
    """Compose letters and their combining marks into single characters (NFC)."""
    return unicodedata.normalize("NFC", text)


def fold_name(name: str) -> str:
    """Return the form in which names are compared: stripped, case-folded and in NFC."""
    return to_nfc(to_nfc(name.strip()).casefold())
