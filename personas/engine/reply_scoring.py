"""Scores given replies on a model runner, in short steps between which other work goes on."""

from collections.abc import Generator, Sequence
from typing import Any

from personas.engine.lora_slots import LoraSlot
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.errors import AdapterError
from personas.home.adapters import ROLL_BACK_ADVICE
from personas.schemas.effect_probe import TokenizedReply

STEP_TOKENS = 256
"""Tokens of a step: on a CPU, more are no cheaper each."""
LIKELIEST_TOKENS = 5
ScoringSteps = Generator[None, None, list[tuple[float, ...]]]
"""Computes a part whenever it is advanced, and returns the log-probabilities of each reply."""


def score_in_steps(
    runner: ModelRunner, slot: LoraSlot, replies: Sequence[TokenizedReply]
) -> ScoringSteps:
    """Compute the log-probabilities of replies under an adapter's slot with what computes served
    replies. Reads and fills no prefix cache.

    Raises `AdapterError` for an adapter whose numbers are not finite.
    """
    prefix, cache = yield from _compute_prefix(runner, slot, replies)
    scores: list[tuple[float, ...]] = []
    for batch in _batches(runner, replies, prefix):
        scheduled = []
        for reply in batch:
            kv = runner.new_kv_cache(len(reply.prompt) + len(reply.reply))
            if prefix:
                kv.copy_from(cache, prefix)
            tokens = (*reply.prompt, *reply.reply)[prefix:-1]
            scheduled.append(ScheduledTokens(kv, tokens, slot, logits=len(reply.reply)))
        logits = runner.backend.forward(scheduled)
        scores += _reply_logprobs(logits, batch, slot)
        yield
    return scores


def finish(steps: ScoringSteps) -> list[tuple[float, ...]]:
    """Run all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return list(stop.value)


def next_tokens(
    runner: ModelRunner, slot: LoraSlot, text: Sequence[int], *, cached: bool
) -> dict[int, float]:
    """Return the likeliest tokens after a text with their log-probabilities; `cached`: through the
    prefix cache, as replies are computed.
    """
    kv = runner.new_kv_cache(len(text) + 1)
    computed = 0
    prefixes = runner.prefixes if cached else None
    if prefixes:
        computed = prefixes.load_prefix(slot.name, text, kv)
    (logits,) = runner.backend.forward([ScheduledTokens(kv, tuple(text[computed:]), slot)])
    if prefixes:
        prefixes.store(slot.name, kv)
    highest, tokens = logits.log_softmax(-1).topk(LIKELIEST_TOKENS)
    return dict(zip(tokens.tolist(), highest.tolist(), strict=True))


def _compute_prefix(
    runner: ModelRunner, slot: LoraSlot, replies: Sequence[TokenizedReply]
) -> Generator[None, None, tuple[int, Any]]:
    """Compute what all prompts begin with once, if the runner's caches can be copied; returns its
    length and its cache.
    """
    if runner.prefixes is None:
        return 0, None
    # The last token of a prompt is computed in any case: its logits are needed.
    shortest = min(len(reply.prompt) for reply in replies) - 1
    prefix = []
    for tokens in zip(*(reply.prompt[:shortest] for reply in replies), strict=True):
        if len(set(tokens)) > 1:
            break
        prefix.append(tokens[0])
    kv = runner.new_kv_cache(max(1, len(prefix)))
    for start in range(0, len(prefix), STEP_TOKENS):
        part = tuple(prefix[start : start + STEP_TOKENS])
        runner.backend.forward([ScheduledTokens(kv, part, slot, logits=0)])
        yield
    return len(prefix), kv


def _batches(
    runner: ModelRunner, replies: Sequence[TokenizedReply], prefix: int
) -> list[list[TokenizedReply]]:
    """Group replies into steps: one each for a runner that computes one sequence at a time."""
    batches: list[list[TokenizedReply]] = []
    room = 0
    for reply in replies:
        size = len(reply.prompt) + len(reply.reply) - prefix
        if not batches or size > room or runner.prefixes is None:
            batches.append([])
            room = STEP_TOKENS
        batches[-1].append(reply)
        room -= size
    return batches


def _reply_logprobs(
    logits: Any, replies: Sequence[TokenizedReply], slot: LoraSlot
) -> list[tuple[float, ...]]:
    """Return the log-probability of each reply's tokens from logits `[all of them, vocabulary]`."""
    tokens = logits.new_tensor([token for reply in replies for token in reply.reply]).long()
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    # Not by log_softmax, which copies all logits.
    logprobs = (chosen - logits.logsumexp(-1)).cpu()
    if not logprobs.isfinite().all():
        name = "The base model"
        if slot.ref:
            name = f"{slot.ref.persona_id} {slot.ref.version}"
        raise AdapterError(f"{name} computes numbers that are not finite.", ROLL_BACK_ADVICE)
    parts = logprobs.split([len(reply.reply) for reply in replies])
    return [tuple(min(0.0, float(value)) for value in part) for part in parts]
