"""Effect probe of a version: replies with their log-probabilities, and what an engine showed of
them.
"""

from statistics import fmean
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from personas.schemas.base import FrozenModel

MAX_PROBE_REPLIES = 10
MAX_PROBE_REPLY_TOKENS = 64
STARTED_AT = ", started at "
"""Separates a server from the time of its start in an engine's name."""
LogProbability = Annotated[float, Field(le=0, allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0)]
EffectVerdict = Literal["shown", "refused", "too weak", "leaks"]
"""`shown`: the engine has the trained effect; `refused`: it has another one; `too weak`: training
changed so little that the engine's precision hides it; `leaks`: its prompt cache mixes adapters.
"""


class TokenizedReply(FrozenModel):
    """A prompt and a reply as token ids of the base model's tokenizer."""

    prompt: Annotated[tuple[TokenId, ...], Field(min_length=1)]
    reply: Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=MAX_PROBE_REPLY_TOKENS)]


class ProbeReply(TokenizedReply):
    """A reply with its measurements: `base` and `tuned` are the natural log-probabilities of each
    token of it, after the prompt and the tokens before it, at temperature 1 and without filters.
    """

    base: tuple[LogProbability, ...]
    tuned: tuple[LogProbability, ...]

    @model_validator(mode="after")
    def _has_all_tokens(self) -> Self:
        if not len(self.base) == len(self.tuned) == len(self.reply):
            raise ValueError("a token of a reply has no log-probability")
        return self


class EffectProbe(FrozenModel):
    """Content of `effect_probe.json` in a version's folder, measured at the end of its training.

    `weights` is the SHA-256 of the adapter's weights, `precision` the one in which the base model
    was served.
    """

    format: Literal[1] = 1
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    base_model_hash: str
    precision: str
    replies: Annotated[tuple[ProbeReply, ...], Field(min_length=1, max_length=MAX_PROBE_REPLIES)]

    @property
    def shift(self) -> float:
        """How much likelier the version makes the replies, in nats per token."""
        shifts = []
        for reply in self.replies:
            shifts += [tuned - base for base, tuned in zip(reply.base, reply.tuned, strict=True)]
        return fmean(shifts)


class CacheFigures(FrozenModel):
    """What a prompt cache changes, in nats: the largest difference (`gap`) between an adapter's
    answers through the cache and without it, and the `separation` of two adapters' answers.
    """

    gap: float
    separation: float
    leaks: bool


class EffectFigures(FrozenModel):
    """What an engine shows of a probe, and the verdict. Figures are nats per token of the replies.

    `expected_*` were measured at training, `shown_*` on the engine, both over the same `tokens`.
    The shift is how much likelier the adapter makes the replies. Token by token, `strength` is the
    part of the expected shifts that the engine shows (their regression coefficient: 1 for the same
    adapter, 0 for none), and `deviation` the root mean square of what the shifts differ, as a share
    of that of the expected ones. They have to be within `strength_tolerance` of 1, and
    `deviation_tolerance`.
    """

    verdict: EffectVerdict
    tokens: int
    expected_base: float
    shown_base: float
    expected_shift: float
    shown_shift: float
    strength: float
    strength_tolerance: float
    deviation: float
    deviation_tolerance: float


class EffectResult(EffectFigures):
    """The stored result of a version's probe. `probe` is the digest of the probe's file; `engine`
    names the engine and where it runs. `cache` is None for an engine without a prompt cache.
    """

    persona: str
    version: str
    probe: str
    engine: str
    precision: str
    cache: CacheFigures | None = None
    seconds: float
    at: str

    @property
    def server(self) -> str:
        """The engine without the time at which its server was started."""
        return self.engine.partition(STARTED_AT)[0]
