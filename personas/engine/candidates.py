"""Chooses the beginning of a reply among candidates.

A reply that begins with candidates is several sequences: its own, which is the first candidate, and
forks of it with other seeds. The scheduler computes them like all sequences. Once each of them is
long enough, the reply continues as the best one. No text is streamed before that. Where all of them
are passed over, the forks are drawn once more.
"""

import hashlib
import logging
from collections import abc
from collections.abc import Callable
from functools import partial

import torch

from personas.engine.beginning_score import (
    CANDIDATE_TOKENS,
    all_passed_over,
    beginning_score,
    comparable,
    said_before,
)
from personas.engine.fair_scheduler import run_or_log
from personas.engine.model_runner import ScheduledTokens
from personas.engine.scheduler import Sampled, Scheduler
from personas.engine.sequence import Sequence
from personas.errors import is_out_of_memory

log = logging.getLogger(__name__)


class CandidateChooser:
    """Lets replies begin with candidates as far as there are rows and memory for them, and chooses
    among them.

    Candidates have to leave room for others: with them, at most `SchedulerLimits.candidate_rows`
    sequences run or wait. `free_memory` is called before a choice is given up for lack of memory.
    """

    def __init__(self, scheduler: Scheduler, free_memory: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._free_memory = free_memory

    def begin(self, sampled: list[Sampled]) -> None:
        """Fork the sequences that get their first token, if their replies are to be chosen."""
        for seq, token in sampled:
            # A fork copies the prompt's keys and values, which have just been computed.
            if not seq.is_prefilling or seq.is_candidate or isinstance(token, Exception):
                continue
            sampling = seq.request.sampling
            count = 1 + self._scheduler.free_candidates(seq, sampling.candidates - 1)
            # Greedy candidates would be equal, and a runner without a prefix cache computes one
            # sequence at a time.
            can_choose = seq.card_prompt and sampling.temperature > 0 and seq.runner.prefixes
            if count > 1 and can_choose and not seq.negative_prompt:
                run_or_log(partial(fork_candidates, seq, count))

    def make_room(self) -> None:
        """Let all replies go on as their first candidates once other requests need the rows."""
        if self._scheduler.rows > self._scheduler.limits.candidate_rows:
            for seq in self._scheduler.running:
                if seq.is_candidate:
                    seq.end_choice(seq)

    def choose(self) -> None:
        """Choose the beginnings whose candidates are all long enough."""
        for seq in self._scheduler.running:
            if not seq.is_candidate or seq.is_cancelled:
                continue
            if not any(candidate.needs_token for candidate in (seq, *seq.other_candidates)):
                self._choose(seq)

    def _choose(self, seq: Sequence) -> None:
        if should_redraw(seq):
            run_or_log(partial(redraw_candidates, seq))
            if seq.other_candidates:
                return
        candidates = comparable_candidates(seq)
        try:
            best = best_candidate(seq, candidates)
        except Exception as error:
            if is_out_of_memory(error):
                self._free_memory()
            log.warning("the candidates of a reply cannot be compared", exc_info=True)
            candidates = [seq]
            best = seq
        seq.end_choice(best, compared=len(candidates))


def fork_candidates(seq: Sequence, count: int) -> None:
    """Let a reply begin with `count` candidates."""
    forks = [seq.fork(candidate_seed(seq.seed, number)) for number in range(1, count)]
    seq.begin_choice(tuple(forks), CANDIDATE_TOKENS)


def candidate_seed(seed: int, number: int) -> int:
    """Return the seed of a further candidate of the reply with this seed."""
    text = f"{seed}:candidate:{number}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def should_redraw(seq: Sequence) -> bool:
    """Return whether a reply's candidates are all to be passed over, and have not been drawn again."""
    if seq.is_redrawn or not seq.other_candidates:
        return False
    candidates = (seq, *seq.other_candidates)
    return all_passed_over(candidates, lambda candidate: candidate.text, seq.request)


def redraw_candidates(seq: Sequence) -> None:
    """Draw the other candidates anew, each token the less likely, the longer it repeats what the
    persona has said before.
    """
    seq.is_redrawn = True
    count = 1 + len(seq.other_candidates)
    seq.other_candidates = ()  # their memory is free for the new ones
    said = seq.encode(said_before(seq.request))
    forks = []
    for number in range(count, 2 * count - 1):
        fork = seq.fork(candidate_seed(seq.seed, number))
        fork.sampler.said = said
        forks.append(fork)
    seq.begin_choice(tuple(forks), CANDIDATE_TOKENS)


def comparable_candidates(seq: Sequence) -> list[Sequence]:
    """Return a reply's candidates that can be compared, without those that are to be passed over if
    there are others; the first one if none can be.
    """
    candidates = (seq, *seq.other_candidates)
    compared = comparable(
        candidates,
        lambda candidate: candidate.text,
        seq.request,
        has_stopped=lambda candidate: candidate.has_stopped,
    )
    return [*compared] or [seq]


def best_candidate(seq: Sequence, candidates: abc.Sequence[Sequence]) -> Sequence:
    """Return the candidate with the highest score."""
    if len(candidates) == 1:
        return candidates[0]
    replies = [candidate.reply_ids for candidate in candidates]
    scores = []
    rows = zip(candidates, replies, _card_logprobs(seq, replies), strict=True)
    for candidate, reply, card_logprob in rows:
        scores.append(beginning_score(candidate.reply_logprob, card_logprob, len(reply)))
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
    logprobs = runner.backend.forward(scheduled).cpu().log_softmax(-1)
    tokens = torch.tensor([token for reply in replies for token in reply])
    token_logprobs = logprobs.gather(1, tokens[:, None])[:, 0]
    by_reply = token_logprobs.split([len(reply) for reply in replies])
    return [float(part.sum()) for part in by_reply]
