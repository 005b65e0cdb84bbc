"""Measures the effect probe of a new version: replies that it speaks itself, with their
log-probabilities.

Held-out replies would hold members' words, and an adapter that learned from few or contradictory
replies can make them less likely. What a version speaks itself is likelier under it than under any
other distribution: over replies drawn from it, the mean difference of the log-probabilities is the
Kullback-Leibler divergence, which is positive for each other adapter. The prompts are fixed
messages (`data/questions/small_talk.txt`) after the persona's card.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from personas.engine.lora_slots import BASE_MODEL_SLOT, LoraSlot, read_unverified_adapter
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.engine.peft_runner import PeftRunner
from personas.engine.reply_scoring import finish, score_in_steps
from personas.engine.sampler import SamplerState, sample_tokens
from personas.models.base_model import fingerprint
from personas.prompt.renderer import Renderer
from personas.schemas.chat import SamplingParams
from personas.schemas.effect_probe import (
    MAX_PROBE_REPLIES,
    EffectProbe,
    ProbeReply,
    TokenizedReply,
)
from trainer.evaluate.candidates import NEW, Candidates
from trainer.evaluate.generation.evaluation_prompts import PromptBuilder, small_talk_prompts
from trainer.evaluate.generation.reply_generator import compiled_kernel
from trainer.train.job import PreparedJob

PROBE_REPLY_TOKENS = 24
MAX_REPLIES_ONE_BY_ONE = 4
"""Replies of a model that computes one at a time, for which each token takes long."""
PROBE_SAMPLING = SamplingParams(temperature=1.0, top_p=1.0, repetition_penalty=1.0)
"""Replies are drawn from the version's own distribution, with a seed each: its number."""


def measure_effect_probe(sides: Candidates, job: PreparedJob) -> EffectProbe:
    """Let the new version reply to fixed messages, and measure its replies under it and under the
    base model, with what computes served replies. Raises an `UnderstudyError`.

    `sides` are those that speak.
    """
    prompts = _probe_prompts(sides, job)
    with _served(sides) as (runner, slot):
        if runner.prefixes is None:
            prompts = prompts[:MAX_REPLIES_ONE_BY_ONE]
        replies = probe_replies(runner, slot, prompts, Renderer(sides.tokenizer).stop_ids)
    stamp = sides.stamp(NEW)
    assert stamp is not None  # only the base model has none
    return EffectProbe(
        weights=stamp.weights,
        base_model_hash=fingerprint(sides.base),
        precision=sides.precision,
        replies=replies,
    )


def probe_replies(
    runner: ModelRunner, slot: LoraSlot, prompts: Sequence[tuple[int, ...]], ends: Collection[int]
) -> tuple[ProbeReply, ...]:
    """Draw a reply to each prompt under an adapter's slot, and measure it. A token of `ends` ends a
    reply. Raises an `UnderstudyError` or `ArithmeticError`.
    """
    replies = _speak(runner, slot, prompts, ends)
    base = finish(score_in_steps(runner, BASE_MODEL_SLOT, replies))
    tuned = finish(score_in_steps(runner, slot, replies))
    measured = []
    for reply, base_logprobs, tuned_logprobs in zip(replies, base, tuned, strict=True):
        measured.append(
            ProbeReply(
                prompt=reply.prompt,
                reply=reply.reply,
                base=_rounded(base_logprobs),
                tuned=_rounded(tuned_logprobs),
            )
        )
    return tuple(measured)


def _probe_prompts(sides: Candidates, job: PreparedJob) -> list[tuple[int, ...]]:
    """Render the fixed messages after the persona's card, in the language of its replies if there
    are some.
    """
    builder = PromptBuilder(Renderer(sides.tokenizer), job.data.persona, lore=None)
    prompts = small_talk_prompts(builder, job.data.language) or small_talk_prompts(builder)
    return [prompt.ids for prompt in prompts[:MAX_PROBE_REPLIES]]


@contextmanager
def _served(sides: Candidates) -> Iterator[tuple[ModelRunner, LoraSlot]]:
    """Give what computes the new version's served replies, and its slot there."""
    ref = sides.ref(NEW)
    parts = sides.parts
    assert ref is not None and parts is not None  # the new version has an adapter, and speaks
    weights = read_unverified_adapter(ref, parts.peft.layers, can_stack=parts.stacked is not None)
    if parts.stacked is None or weights.pairs is None:
        yield PeftRunner(parts.peft), LoraSlot(None, ref)
        return
    if not parts.lora.add(weights):
        raise RuntimeError("no slot is free for the new version")
    slot = parts.lora.acquire(ref)
    try:
        with compiled_kernel(parts):
            yield parts.stacked, slot
    finally:
        parts.lora.release(slot)


@dataclass
class _Draft:
    """A reply that is being drawn: `next` are the tokens to compute before its next one."""

    kv: Any
    prompt: tuple[int, ...]
    next: tuple[int, ...]
    state: SamplerState
    reply: list[int] = field(default_factory=list)


def _speak(
    runner: ModelRunner, slot: LoraSlot, prompts: Sequence[tuple[int, ...]], ends: Collection[int]
) -> list[TokenizedReply]:
    """Draw a reply to each prompt, all at once. Raises `ArithmeticError` for numbers that are not
    finite.
    """
    drafts = [_begin(runner, slot, prompt, seed) for seed, prompt in enumerate(prompts)]
    unfinished = drafts
    while unfinished:
        scheduled = [ScheduledTokens(draft.kv, draft.next, slot) for draft in unfinished]
        logits = runner.backend.forward(scheduled)
        sampled = sample_tokens(logits, [draft.state for draft in unfinished])
        for draft, token in zip(unfinished, sampled, strict=True):
            if isinstance(token, Exception):
                raise token
            draft.reply.append(token.token)
            draft.next = (token.token,)
        unfinished = [
            draft
            for draft in unfinished
            if len(draft.reply) < PROBE_REPLY_TOKENS and draft.reply[-1] not in ends
        ]
    return [TokenizedReply(prompt=draft.prompt, reply=tuple(draft.reply)) for draft in drafts]


def _begin(runner: ModelRunner, slot: LoraSlot, prompt: tuple[int, ...], seed: int) -> _Draft:
    """Compute a prompt but for its last token, its beginning once for all prompts."""
    kv = runner.new_kv_cache(len(prompt) + PROBE_REPLY_TOKENS)
    if runner.prefixes is None:
        return _Draft(kv, prompt, prompt, SamplerState(PROBE_SAMPLING, seed, set()))
    computed = runner.prefixes.load_prefix(slot.name, prompt, kv)
    if rest := prompt[computed:-1]:
        runner.backend.forward([ScheduledTokens(kv, rest, slot, logits=0)])
    runner.prefixes.store(slot.name, kv)
    return _Draft(kv, prompt, prompt[-1:], SamplerState(PROBE_SAMPLING, seed, set()))


def _rounded(logprobs: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in logprobs)
