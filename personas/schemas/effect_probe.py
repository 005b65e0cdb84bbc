"""Effect probe of a version: replies with their log-probabilities, and what an engine showed of
them.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from personas.schemas.base import FrozenModel

MAX_PROBE_REPLIES = 10
MAX_PROBE_REPLY_TOKENS = 64
LogProbability = Annotated[float, Field(le=0, allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0)]
EffectVerdict = Literal["shown", "refused", "too weak"]
"""`shown`: the engine has the trained effect; `refused`: it has another one; `too weak`: training
changed so little that the engine's precision hides it.
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


class EffectResult(FrozenModel):
    """What an engine showed of a version's probe. Figures are nats per token of the replies.

    `expected_*` were measured at training, `shown_*` on the engine, both over the same `tokens`.
    The shift is how much likelier the adapter makes the replies; `shift_error` is the standard
    error of the two shifts' difference over the replies. `tolerance` is the largest difference of
    the shifts at which the engine is taken to have this adapter. `probe` is the digest of the
    probe's file; `engine` names the engine and where it runs.
    """

    persona: str
    version: str
    probe: str
    engine: str
    precision: str
    verdict: EffectVerdict
    tokens: int
    expected_base: float
    shown_base: float
    expected_shift: float
    shown_shift: float
    shift_error: float
    tolerance: float
    seconds: float
    at: str
