"""Effect probe: an engine has to show the shift that a version's training measured before the
version speaks there.

An engine can answer without the adapter that it was asked for and report no error, or with another
adapter's weights. The log-probabilities of a few replies tell: the trained adapter makes them
likelier by an amount that its training stored (`personas.schemas.effect_probe`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from personas.errors import AdapterError
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import TokenizedReply

TokenLogprobs = tuple[float | None, ...]
"""Natural log-probabilities of a reply's tokens; None where an engine does not tell."""


class EffectError(AdapterError):
    """An engine that shows another effect of an adapter than its training measured."""


class CacheLeakError(AdapterError):
    """An engine whose prompt cache mixes the adapters of two versions."""


class ReplyScorer(Protocol):
    """The part of an engine that both probes ask. It computes with what replies are computed with:
    the same server, adapter path, precision and kernels.

    All methods raise an `UnderstudyError` where the engine is away or refuses.
    """

    @property
    def place(self) -> str:
        """The engine, where it runs and what it runs, such as `vllm http://…`: a result holds as
        long as it is the same. A server that was restarted is another place.
        """

    async def score_replies(
        self, adapter: AdapterRef | None, replies: Sequence[TokenizedReply]
    ) -> list[TokenLogprobs]:
        """Return the log-probability of each token of each reply, after its prompt and the tokens
        before it, at temperature 1 and without filters. None as the adapter is the base model.

        No prompt cache is read. An engine that tells only some tokens (the likeliest, or every
        other one) returns None for the others; the same tokens have to be told for the base model
        and the adapter, or they do not count.
        """

    async def next_tokens(
        self, adapter: AdapterRef | None, text: Sequence[int], *, cached: bool
    ) -> Mapping[int, float]:
        """Return the likeliest tokens after a text with their log-probabilities, some five of them.

        `cached` is True for a request as replies are: it reads and fills the same prompt cache, on
        the same slot for all adapters where the engine lets choose. Otherwise the whole text is
        computed, and nothing is kept.
        """
