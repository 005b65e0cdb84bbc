"""The engine's step: schedule, run, postprocess."""

import logging
import time
from collections.abc import Callable

from personas.engine.candidates import CandidateChooser
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.guidance import apply_guidance, with_negatives
from personas.engine.lora_slots import LoraSlots
from personas.engine.model_runner import ModelRunner
from personas.engine.prefix_warmer import PrefixWarmer
from personas.engine.reply_sequence import ReplySink
from personas.engine.sampler import NotFiniteError, SampledToken, sample_tokens
from personas.engine.scheduler import Phase, Sampled, ScheduledBatch, Scheduler
from personas.engine.sequence import Sequence
from personas.engine.trials import AdapterTrials
from personas.errors import AdapterError, is_out_of_memory
from personas.home.adapters import ROLL_BACK_ADVICE
from personas.models.known_tokens import require_known_tokens
from personas.prompt.renderer import RenderedPrompt, Renderer
from personas.schemas.chat import ChatRequest

log = logging.getLogger(__name__)
# After so many prompt tokens, all replies get a token, even if further requests have come.
MAX_PREFILL_TOKENS_IN_A_ROW = 400


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
        self.scheduler = Scheduler(limits, lora, runner=runner, fallback=fallback, clock=clock)
        self.warmer = PrefixWarmer(runner, lora, limits.prefill_tokens)
        self.trials = AdapterTrials(runner, fallback, lora)
        self.has_arrivals: Callable[[], bool] = lambda: False
        self.vocabulary: int | None = None
        self._runners = (runner, fallback)
        self._lora = lora
        self._chooser = CandidateChooser(self.scheduler, free_memory=self._free_prefixes)
        self._prefilled_in_a_row = 0

    @property
    def runner(self) -> ModelRunner:
        """The runner of all sequences whose adapters fit into a slot."""
        return self._runners[0]

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
        require_known_tokens([prompt.ids, prompt.negative], self.vocabulary, renderer.tokenizer)
        seq = Sequence.create(request, prompt, renderer, sink=sink, on_end=on_end)
        seq.card_prompt = prompt.card
        seq.negative_prompt = prompt.negative
        self.scheduler.add(seq)

    def step(self) -> bool:
        """Compute a part of an adapter's trial, prompt chunks, a token of every reply, and prefixes
        in advance; False if nothing was computed.
        """
        self.scheduler.expire()  # first, so that rows are free for those who wait
        self.scheduler.admit()
        self._prefetch_adapters()
        is_trying = self.trials.step()
        has_replies = self.running > 0
        self._chooser.make_room()
        prefilled = self._compute("prefill")
        if prefilled and self._prefers_prompts(prefilled):
            return True
        self._prefilled_in_a_row = 0
        self._compute("decode")
        self._chooser.choose()
        if not has_replies:
            return is_trying or (not self.waiting and self.warmer.step())
        if not prefilled and self._has_time():
            self.warmer.step(of_talks=True)
        return True

    def _compute(self, phase: Phase) -> int:
        """Compute a phase of a step; returns the number of its tokens."""
        computed = 0
        for batch in self.scheduler.schedule(phase):
            computed += sum(len(item.tokens) for item in with_negatives(batch.tokens))
            sampled = self._run(batch)
            self._chooser.begin(sampled)
            self.scheduler.postprocess(sampled)
        return computed

    def _run(self, batch: ScheduledBatch) -> list[Sampled]:
        """Compute a batch and sample; an error takes the place of the tokens that it prevents."""
        sequences = batch.sampled
        items = with_negatives(batch.tokens)
        lengths = [len(item.kv.tokens) for item in items]
        try:
            logits = apply_guidance(batch.runner.backend.forward(items), batch.tokens)
            tokens = sample_tokens(logits, [seq.sampler for seq in sequences])
            named = map(_name_adapter, sequences, tokens)
            return list(zip(sequences, named, strict=True))
        except Exception as error:
            if is_out_of_memory(error):
                self._free_prefixes()
            if len(batch.sequences) == 1:
                return [(batch.sequences[0], error)]
            log.warning(
                "a batch of %d failed; each reply in it is computed alone",
                len(batch.sequences),
                exc_info=True,
            )
        # One sequence may have caused the error: the other ones must not fail with it. This is
        # outside of the handler, because the error's traceback holds the memory of the batch.
        for item, length in zip(items, lengths, strict=True):
            del item.kv.tokens[length:]
        sampled = []
        for single in batch.split():
            sampled += self._run(single)
        return sampled

    def _prefetch_adapters(self) -> None:
        """Read the adapters that the next sequences and prefixes need."""
        waiting = [seq.adapter for seq in self.scheduler.queue if seq.adapter]
        self._lora.prefetch([*waiting, *self.warmer.adapters])

    def _prefers_prompts(self, prefilled_tokens: int) -> bool:
        """Tell whether the prompts of new requests come before the replies' next tokens.

        A token of every reply takes as long as a short prompt, but the replies must go on.
        """
        self._prefilled_in_a_row += prefilled_tokens
        return self._prefilled_in_a_row < MAX_PREFILL_TOKENS_IN_A_ROW and self.has_arrivals()

    def _has_time(self) -> bool:
        """Tell whether few replies run, all of which have begun, and nobody waits."""
        running = self.scheduler.running
        if len(running) > self.scheduler.limits.candidate_rows or self.waiting:
            return False
        if any(seq.is_prefilling or seq.other_candidates for seq in running):
            return False
        return not self.has_arrivals()

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


def _name_adapter(seq: Sequence, token: SampledToken | Exception) -> SampledToken | Exception:
    """Turn the error of logits that are not finite into an error of the adapter that caused
    them.
    """
    if not isinstance(token, NotFiniteError) or seq.adapter is None:
        return token
    adapter = f"{seq.adapter.persona_id} {seq.adapter.version}"
    return AdapterError(f"{adapter} computes numbers that are not finite.", ROLL_BACK_ADVICE)
