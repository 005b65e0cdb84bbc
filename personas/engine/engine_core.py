"""The engine's step (schedule, run, postprocess), prefixes computed while it is idle, and the parts
around a model.
"""

import logging
import time
from collections import abc, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import torch

from personas.engine import EngineState
from personas.engine.admission import AdapterState, SchedulerLimits
from personas.engine.hugepages import move_weights_to_huge_pages
from personas.engine.kv_cache import BLOCK_TOKENS
from personas.engine.lora_slots import (
    MAX_STACKED_RANK,
    AdapterWeights,
    LoraSlot,
    LoraSlots,
    read_adapter,
)
from personas.engine.model_runner import ModelRunner, ScheduledTokens, Sequence, StackedLoraRunner
from personas.engine.peft_runner import PROBE_TOKENS, PeftRunner, PeftSwitcher
from personas.engine.sampler import NotFiniteError, SampledToken, sample_tokens
from personas.engine.scheduler import Phase, ScheduledBatch, Scheduler, run_or_log
from personas.engine.sequence import ReplySink
from personas.errors import AdapterError, BaseModelError, is_out_of_memory
from personas.home.adapters import ROLL_BACK_ADVICE
from personas.models.known_tokens import require_known_tokens
from personas.models.probe import differs, plain_logits, probe_tokens
from personas.models.serving_model import precision_of
from personas.prompt.renderer import RenderedPrompt, Renderer
from personas.schemas.chat import AdapterRef, ChatRequest

log = logging.getLogger(__name__)
STACKED_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose linear layers see each token once and whose attention is the usual one."""
SLOT_MEMORY_FRACTION = 0.2
"""Share of the free memory for LoRA slots, assuming adapters of the largest rank on all layers."""
ROUNDING_ALLOWANCE = 3.0
"""A batch is given up where it differs by so many times the limit of rounding: one at a time is
many times slower.
"""
MAX_QUEUED_PREFIXES, MAX_QUEUED_TALKS = 256, 8
"""Prefixes of personas that wait, further ones are ignored; and of talks, of which the oldest are
left out.
"""
CARD_WEIGHT = 0.7  # λ of the choice among candidates
CHUNK_TOKENS_BESIDE_REPLIES = (
    2 * BLOCK_TOKENS
)  # of a talk's next prompt, computed after a token of every reply
MAX_PREFILL_TOKENS_IN_A_ROW = 400  # after these, all replies get a token, whoever came meanwhile
Sampled = tuple[Sequence, SampledToken | Exception]
"""A sequence with its next token, or the error that prevents it."""


class BatchGenerator:
    """Generates the replies of all running sequences, a token per step. Used by one thread.

    `has_arrivals` tells during a step whether requests have come since its begin. `vocabulary` is
    the number of tokens that the model has embeddings for, None if it is not checked.
    """

    def __init__(
        self,
        runner: ModelRunner,
        fallback: ModelRunner,
        lora: LoraSlots,
        limits: SchedulerLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fallback` computes sequences whose adapters fit into no slot, one at a time."""
        self._runners = (runner, fallback)
        self._lora = lora
        self.scheduler = Scheduler(limits, lora, runner, fallback, clock)
        self.warmer = PrefixWarmer(runner, lora, limits.prefill_tokens)
        self.has_arrivals: Callable[[], bool] = lambda: False
        self.vocabulary: int | None = None
        self._prefilled = 0

    @property
    def running(self) -> int:
        """Number of replies being generated. Thread-safe."""
        return len(self.scheduler.running)

    @property
    def waiting(self) -> int:
        """Number of queued requests. Thread-safe."""
        return len(self.scheduler.queue)

    def submit(
        self,
        request: ChatRequest,
        prompt: RenderedPrompt,
        renderer: Renderer,
        sink: ReplySink,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Queue a request, whose reply streams into `sink`. `on_end` is called once, however it
        ends.

        Raises `BaseModelError` for a prompt with tokens that the model does not know.
        """
        require_known_tokens([prompt.ids], self.vocabulary, renderer.tokenizer)
        seq = Sequence.create(request, prompt, renderer, sink, on_end)
        seq.card_prompt = prompt.card
        self.scheduler.add(seq)

    def step(self) -> bool:
        """Compute prompt chunks, a token of every reply, and prefixes in advance; False if nothing
        was computed.
        """
        self.scheduler.expire()
        if self.waiting or self.warmer.jobs or self._lora.reads:
            self._admit()
        has_computed = self.running > 0
        self._drop_rivals()
        prefilled = self._compute("prefill")
        if prefilled:
            self._prefilled += prefilled
            if self._prefilled < MAX_PREFILL_TOKENS_IN_A_ROW and self.has_arrivals():
                # Their prompts come first: a token of every reply takes as long as a short prompt.
                return True
        self._prefilled = 0
        self._compute("decode")
        for seq in self.scheduler.running:
            if seq.can_choose:
                self._choose(seq)
        if has_computed and not prefilled and self._has_time():
            self.warmer.step(of_talks=True)
        return has_computed or (not self.waiting and self.warmer.step())

    def _has_time(self) -> bool:
        """Tell whether few replies run, all of which have begun, and nobody waits."""
        running = self.scheduler.running
        are_few = len(running) <= self.scheduler.limits.candidate_rows and not self.waiting
        return (
            are_few
            and not any(seq.is_prefilling or seq.rivals for seq in running)
            and not self.has_arrivals()
        )

    def _compute(self, phase: Phase) -> int:
        """Compute a phase of a step; returns the number of its tokens."""
        batches = self.scheduler.schedule(phase)
        count = sum(len(item.tokens) for batch in batches for item in batch.tokens)
        for batch in batches:
            self.scheduler.postprocess(self._advance_candidates(self._run(batch)))
        return count

    def _admit(self) -> None:
        """Start waiting sequences, and read the adapters that the next ones need."""
        self.scheduler.admit()
        waiting = [seq.adapter for seq in self.scheduler.queue if seq.adapter]
        self._lora.prefetch([*waiting, *self.warmer.adapters])

    def _run(self, batch: ScheduledBatch) -> list[Sampled]:
        """Compute a batch and sample; an error takes the place of the tokens that it prevents."""
        sequences = batch.sampled
        computed = [len(item.kv.tokens) for item in batch.tokens]
        try:
            logits = batch.runner.backend.forward(batch.tokens)
            sampled = sample_tokens(logits, [seq.sampler for seq in sequences])
            return [
                (seq, _name_adapter(seq, token))
                for seq, token in zip(sequences, sampled, strict=True)
            ]
        except Exception as error:
            if is_out_of_memory(error):
                self._free_prefixes()
            if len(batch.sequences) == 1:
                return [(batch.sequences[0], error)]
            log.warning(
                "a batch of %d failed; each reply in it is computed alone",
                len(computed),
                exc_info=True,
            )
        for item, length in zip(batch.tokens, computed, strict=True):
            del item.kv.tokens[length:]
        return [sampled for alone in batch.split() for sampled in self._run(alone)]

    def _advance_candidates(self, sampled: list[Sampled]) -> list[Sampled]:
        """Append the rivals' tokens, leaving out those that fail, and fork new sequences; return
        what is left.
        """
        own = []
        for seq, token in sampled:
            if not seq.original:
                own.append((seq, token))
                if seq.is_prefilling and not isinstance(token, Exception):
                    run_or_log(partial(self._fork, seq))
                continue
            try:
                if isinstance(token, Exception):
                    raise token
                seq.append(token)
                self.scheduler.queue.count_token(seq)
            except Exception:  # of this candidate: the others go on
                log.info("a candidate of a reply is left out", exc_info=True)
                seq.original.rivals.remove(seq)
        return own

    def _fork(self, seq: Sequence) -> None:
        """Let a reply begin with several candidates, if it is meant to and there is room for
        them.
        """
        sampling = seq.request.sampling
        count = min(sampling.candidates, 1 + self.scheduler.limits.candidate_rows - self._rows())
        if count > 1 and seq.card_prompt and sampling.temperature > 0 and seq.runner.prefixes:
            seq.fork(count)

    def _drop_rivals(self) -> None:
        """Let replies go on as their first candidate once others need the rows of the rest."""
        if self._rows() > self.scheduler.limits.candidate_rows:
            for seq in self.scheduler.running:
                seq.drop_rivals()

    def _rows(self) -> int:
        """Count the sequences that run, candidates included, and those that wait."""
        return sum(1 + len(seq.rivals) for seq in self.scheduler.running) + self.waiting

    def _choose(self, seq: Sequence) -> None:
        """Choose the beginning of a reply; where that fails, it is the first candidate."""
        try:
            best = best_candidate(seq)
        except Exception as error:
            if is_out_of_memory(error):
                self._free_prefixes()
            log.warning("the candidates of a reply cannot be compared", exc_info=True)
            best = seq
            seq.rivals = []
        seq.choose(best)

    def clear_prefix_cache(self) -> None:
        """Discard all stored and queued prefixes; sequences that run or wait now are not stored
        later either.
        """
        self.warmer.clear()
        self._free_prefixes()
        for seq in (*self.scheduler.running, *self.scheduler.queue):
            seq.is_cacheable = False

    def _free_prefixes(self) -> None:
        for runner in self._runners:
            if runner.prefixes:
                runner.prefixes.clear()


def best_candidate(seq: Sequence) -> Sequence:
    """Return the candidate with the highest log p(text | talk) − λ log p(text | card alone) per
    token.

    What would fit any talk loses against what fits this one (arXiv 1510.03055, anti-language
    model). Candidates without a letter or digit are not compared.
    """
    candidates = seq.compared
    if len(candidates) == 1:
        return candidates[0]
    scores = [
        (it.reply_logprob - CARD_WEIGHT * logprob) / len(it.reply_ids)
        for it, logprob in zip(
            candidates, _card_logprobs(seq, [it.reply_ids for it in candidates]), strict=True
        )
    ]
    return candidates[scores.index(max(scores))]


def _card_logprobs(seq: Sequence, replies: list[list[int]]) -> list[float]:
    """Compute the log-probability of each reply after the card's prompt, which is computed once."""
    runner = seq.runner
    slot = seq.slot
    *prompt, last = seq.card_prompt
    card = runner.new_kv_cache(len(prompt))
    if runner.prefixes:
        runner.prefixes.load_prefix(slot.name, seq.card_prompt, card)
    if rest := prompt[len(card.tokens) :]:
        runner.backend.forward([ScheduledTokens(card, rest, slot, logits=0)])
    scheduled = []
    for reply in replies:
        kv = runner.new_kv_cache(len(prompt) + len(reply))
        kv.copy_from(card, len(prompt))
        scheduled.append(ScheduledTokens(kv, (last, *reply[:-1]), slot, logits=len(reply)))
    tokens = torch.tensor([token for reply in replies for token in reply])
    logprobs = (
        runner.backend.forward(scheduled).cpu().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    )
    return [float(part.sum()) for part in logprobs.split([len(reply) for reply in replies])]


@dataclass(frozen=True)
class PrefixJob:
    """A prefix to compute under an adapter: whole blocks, and one more token that is never
    computed.

    A talk's replaces what was used least recently in the prefix cache, a persona's takes free room
    only.
    """

    adapter: AdapterRef | None
    tokens: abc.Sequence[int]
    is_talk: bool = False


class PrefixWarmer:
    """Prefixes to compute while there is time: those of the latest talks first. Used by the
    engine's thread.
    """

    def __init__(self, runner: ModelRunner, lora: LoraSlots, chunk_tokens: int) -> None:
        """`chunk_tokens` are computed at once while nothing else is."""
        self._runner, self._lora, self._chunk_tokens = runner, lora, max(chunk_tokens, BLOCK_TOKENS)
        self._talks: deque[PrefixJob] = deque(maxlen=MAX_QUEUED_TALKS)
        self._personas: deque[PrefixJob] = deque()

    @property
    def jobs(self) -> list[PrefixJob]:
        """The prefixes that are to be computed, in order."""
        return [*self._talks, *self._personas]

    @property
    def adapters(self) -> list[AdapterRef]:
        """The adapter to read for the next prefix, if it has one."""
        return [job.adapter for job in self.jobs[:1] if job.adapter]

    def add(
        self, adapter: AdapterRef | None, tokens: abc.Sequence[int], *, is_talk: bool = False
    ) -> None:
        """Queue a prefix, unless it is queued already or the runner stores none."""
        job = PrefixJob(
            adapter, tokens[: (len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS + 1], is_talk
        )
        if self._runner.prefixes is None or job in self.jobs:
            return
        if is_talk:
            self._talks.appendleft(job)  # the oldest makes room for it
        elif len(self._personas) < MAX_QUEUED_PREFIXES:
            self._personas.append(job)

    def clear(self) -> None:
        """Compute none of the queued prefixes."""
        self._talks.clear()
        self._personas.clear()

    def drop_adapter(self, adapter: AdapterRef) -> None:
        """Compute none of an adapter's prefixes."""
        for jobs in (self._talks, self._personas):
            for job in [job for job in jobs if job.adapter == adapter]:
                jobs.remove(job)

    def step(self, *, of_talks: bool = False) -> bool:
        """Compute a chunk of the next prefix, a short one `of_talks` beside running replies.

        Returns False when none is left or its adapter cannot be used yet.
        """
        while jobs := self._talks or (() if of_talks else self._personas):
            job = jobs[0]
            if self._lora.state(job.adapter) in (AdapterState.LOADING, AdapterState.NO_SLOT):
                return False
            try:
                if self._compute_chunk(
                    job, CHUNK_TOKENS_BESIDE_REPLIES if of_talks else self._chunk_tokens
                ):
                    return True
            except (
                Exception
            ) as error:  # only time is lost; a request that needs the adapter reports the error
                log.info("a prompt prefix was not computed: %s", error)
            jobs.popleft()
        return False

    def _compute_chunk(self, job: PrefixJob, size: int) -> bool:
        """Compute the next tokens. Returns False when the prefix is complete or cannot be
        stored.
        """
        slot = self._lora.acquire(job.adapter)
        try:
            return slot.index is not None and self._forward(slot, job, size)
        finally:
            self._lora.release(slot)

    def _forward(self, slot: LoraSlot, job: PrefixJob, size: int) -> bool:
        prefixes = self._runner.prefixes
        assert prefixes is not None  # otherwise nothing is queued
        kv = self._runner.new_kv_cache(len(job.tokens))
        computed = prefixes.load_prefix(slot.name, job.tokens, kv)
        chunk = job.tokens[computed:-1][:size]
        if not chunk or kv.memory.nbytes > (
            prefixes.max_bytes if job.is_talk else prefixes.free_bytes
        ):
            return False
        self._runner.backend.forward([ScheduledTokens(kv, chunk, slot, logits=0)])
        prefixes.store(slot.name, kv)
        return True


def _name_adapter(seq: Sequence, token: SampledToken | Exception) -> SampledToken | Exception:
    """Turn the error of logits that are not finite into one of the adapter that caused them."""
    if not isinstance(token, NotFiniteError) or seq.adapter is None:
        return token
    what = f"{seq.adapter.persona_id} {seq.adapter.version} computes numbers that are not finite."
    return AdapterError(what, ROLL_BACK_ADVICE)


@dataclass(frozen=True)
class EngineParts:
    """A loaded model, its adapters and its batch. `read` may run on any thread, the rest on the
    model's thread.
    """

    batch: BatchGenerator
    stacked: StackedLoraRunner | None
    lora: LoraSlots
    peft: PeftSwitcher
    read: Callable[[AdapterRef], AdapterWeights]

    def state(self, name: str, context_tokens: int, rows: int) -> EngineState:
        """Return the current load. Thread-safe."""
        prefixes = self.stacked.prefixes if self.stacked else None
        return EngineState(
            model=name,
            device=self.peft.model.device.type,
            precision=precision_of(self.peft.model),
            context_tokens=context_tokens,
            running=self.batch.running,
            rows=rows,
            waiting=self.batch.waiting,
            slots=self.stacked.stack.slots if self.stacked else 0,
            adapters=self.lora.resident,
            kept_bytes=prefixes.bytes if prefixes else 0,
            kept_most_bytes=prefixes.max_bytes if prefixes else 0,
        )

    def load_adapter(self, weights: AdapterWeights) -> None:
        """Load an adapter before it is needed, if a slot is free. Raises `AdapterError` when it
        does not fit.
        """
        if weights.pairs is None:
            self.peft.load(weights.ref)
        self.lora.add(weights)

    def drop_adapter(self, ref: AdapterRef, on_dropped: Callable[[], None]) -> None:
        """Remove an adapter and the prefixes computed with it once its replies have ended."""
        self.batch.warmer.drop_adapter(ref)

        def forget() -> None:
            try:
                self.peft.drop(ref)
                if self.stacked and self.stacked.prefixes:
                    self.stacked.prefixes.drop_adapter(ref.name)
            finally:
                on_dropped()

        self.lora.drop(ref, forget)

    def close(self) -> None:
        """Stop the threads of the adapter reader and of the compiled kernel."""
        self.lora.close()
        if self.stacked:
            self.stacked.close()


def build_engine_parts(
    model: Any,
    base_hash: str,
    limits: SchedulerLimits,
    *,
    slots: int,
    prefix_bytes: int,
    on_adapter_read: Callable[[], None] = lambda: None,
) -> EngineParts:
    """Build an engine around a loaded model. `on_adapter_read` is called on the thread that reads
    adapters.

    Its short cuts are compared with the plain model first. Raises `BaseModelError` if that gives no
    numbers.
    """
    peft = PeftSwitcher(model, base_hash)
    fallback = PeftRunner(peft)
    stacked = _build_stacked_runner(model, peft, slots, prefix_bytes)
    if stacked is None:
        fallback.probe()
    read = partial(
        read_adapter, base_hash=base_hash, layers=peft.layers, can_stack=stacked is not None
    )
    lora = LoraSlots(stacked.stack if stacked else None, read, on_adapter_read)
    batch = BatchGenerator(stacked or fallback, fallback, lora, limits)
    batch.vocabulary = int(model.get_input_embeddings().weight.shape[0])
    return EngineParts(batch, stacked, lora, peft, read)


def _build_stacked_runner(
    model: Any, peft: PeftSwitcher, slots: int, prefix_bytes: int
) -> StackedLoraRunner | None:
    if model.config.model_type not in STACKED_ARCHITECTURES:
        log.warning(
            "replies are generated one at a time: %s models cannot be batched",
            model.config.model_type,
        )
        return None
    move_weights_to_huge_pages(model)

    def without_peft() -> AbstractContextManager[Any]:
        return peft.peft_model.disable_adapter() if peft.peft_model else nullcontext()

    runner = StackedLoraRunner(
        model, min(slots, _max_slots_in_memory(model)), prefix_bytes, without_peft
    )
    if _differs_from_plain_model(runner):
        log.warning(
            "replies are generated one at a time: a batch gives other results than this model alone"
        )
        return None
    return runner


def _differs_from_plain_model(runner: StackedLoraRunner) -> bool:
    """Compare two texts that are prefilled in parts and decoded together with a full pass over
    each.
    """
    model = runner.model
    half = PROBE_TOKENS // 2
    texts = [probe_tokens(model, PROBE_TOKENS, first) for first in (0, PROBE_TOKENS)]
    one, other = (runner.new_kv_cache(PROBE_TOKENS) for _ in texts)
    try:
        with torch.inference_mode():
            expected = torch.stack([plain_logits(model, text)[-1] for text in texts])
            runner.forward([ScheduledTokens(one, texts[0][:half], logits=0)])
            runner.forward(
                [ScheduledTokens(one, texts[0][half:-1]), ScheduledTokens(other, texts[1][:-1])]
            )
            found = runner.forward(
                [
                    ScheduledTokens(kv, text[-1:])
                    for kv, text in zip((one, other), texts, strict=True)
                ]
            )
    except BaseModelError:
        raise
    except Exception as error:  # such as a layer with other arguments; the fallback computes one sequence at a time
        if is_out_of_memory(error):
            raise
        log.info("a batch that does not work here", exc_info=True)
        return True
    return differs(model, found, expected, ROUNDING_ALLOWANCE)


def _max_slots_in_memory(model: Any) -> int:
    widths = sum(
        m.in_features + m.out_features for m in model.modules() if hasattr(m, "in_features")
    )
    adapter_bytes = widths * MAX_STACKED_RANK * model.dtype.itemsize
    return max(2, int(psutil.virtual_memory().available * SLOT_MEMORY_FRACTION / adapter_bytes))
