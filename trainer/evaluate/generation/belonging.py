"""Belonging: whether a reply fits its own question better than other held-out questions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from personas.lore.minilm import load_minilm
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Turn
from personas.schemas.scorecard import BELONGS, HELDOUT_TASK, Side
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import hash_fraction
from trainer.evaluate.candidates import BASE, Candidates
from trainer.evaluate.generation.reply_tasks import (
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    select_replies,
)
from trainer.evaluate.time_budget import TimeBudget
from trainer.schemas import PromptReply
from trainer.train.losses import measure_reply_losses

QUESTION_CHOICES = 8
Scores = NDArray[np.float64]
ScoreReplies = Callable[[Sequence[str], Sequence[str]], list[Scores]]
"""Scores replies and questions by each judge, higher is a better match: arrays of [replies,
questions].
"""


@dataclass(frozen=True)
class QuestionGroup:
    """Held-out exchanges by index: `questions` are `QUESTION_CHOICES` to choose among, the first
    `asked` are tested.
    """

    questions: tuple[int, ...]
    asked: int


def group_questions(asked: Sequence[int], pairs: Sequence[PromptReply]) -> list[QuestionGroup]:
    """Divide the asked held-out questions into groups of different texts; a last one is filled up
    with others.

    Empty if there are too few different questions. The same questions give the same groups.
    """

    def order_key(number: int) -> tuple[bool, float]:
        return number not in asked, hash_fraction("belongs", pairs[number].message)

    distinct: dict[str, int] = {}
    for number in sorted(range(len(pairs)), key=order_key):
        text = pairs[number].message.casefold().strip()
        if pairs[number].by_persona and text:
            distinct.setdefault(text, number)
    order = list(distinct.values())
    if len(order) < QUESTION_CHOICES:
        return []
    count = sum(number in asked for number in order)  # the asked ones come first
    groups = []
    for begin in range(0, count, QUESTION_CHOICES):
        tested = order[begin : min(begin + QUESTION_CHOICES, count)]
        others = [*order[count:], *order[:begin]]
        filling = others[: QUESTION_CHOICES - len(tested)]
        groups.append(QuestionGroup((*tested, *filling), asked=len(tested)))
    return groups


def match_questions(scores: Sequence[Scores], reference: Sequence[Scores]) -> Scores:
    """Combine the judges' scores into one of [replies, questions]: the sum of their z-scores over
    the questions.

    From each score, the mean over the questions is subtracted, and the mean that the question has
    with the `reference` replies, [questions, questions]: some questions suit any reply, and long
    replies are unlikely after all of them.
    """
    total = np.zeros_like(scores[0])
    for own, real in zip(scores, reference, strict=True):
        hubs = (real - real.mean(axis=1, keepdims=True)).mean(axis=0)
        centred = own - own.mean(axis=1, keepdims=True) - hubs
        total += centred / np.maximum(centred.std(axis=1, keepdims=True), np.finfo(float).tiny)
    return total


class QuestionJudges:
    """Scores pairs of replies and questions by MiniLM, for texts that it reads, and by the base
    model's likelihood.
    """

    def __init__(
        self, sides: Candidates, renderer: Renderer, *, reads: bool, between: Callable[[], None]
    ) -> None:
        self._sides = sides
        self._renderer = renderer
        self._reads = reads
        self._between = between

    def score(self, replies: Sequence[str], questions: Sequence[str]) -> list[Scores]:
        """Return the cosine of the embeddings, and log p(reply | question) in nats, each of
        [replies, questions].
        """
        samples = []
        for reply in replies:
            for question in questions:
                # Without card, lore and history, which would say more on the reply than it does.
                samples.append(self._renderer.sample(None, [Turn("", question)], reply))
        with self._sides.use(BASE) as model:
            losses = measure_reply_losses(model, samples, self._between)
        nll = np.array([loss.nll for loss in losses])
        likely = -nll.reshape(len(replies), len(questions))
        if not self._reads:
            return [likely]
        embed = load_minilm().embed
        return [(embed(replies) @ embed(questions).T).astype(np.float64), likely]


def measure_belonging(
    data: Dataset,
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    score: ScoreReplies,
    *,
    budget: TimeBudget,
) -> MeasuredShares | None:
    """Measure a reply to each held-out prompt within the time, by groups; None without replies or
    eight questions.

    The ceiling are the real replies, the floor the real replies of the other questions of a group.
    """
    pairs = data.heldout_prompt_replies
    shares = MeasuredShares()
    asked = _asked_questions(answers)
    replies: dict[Side, dict[int, GeneratedReply]] = {side: {} for side in sides}
    for side in sides:
        for answer in select_replies(answers, HELDOUT_TASK, side=side):
            replies[side].setdefault(answer.prompt.number, answer)
    for place, group in enumerate(group_questions(asked, pairs)):
        # The first group is measured in any case: the card has the section, with few replies.
        if place and budget.is_spent:
            break
        _measure_group(shares, group, pairs, replies, score=score)
    return shares if shares.values else None


def count_tested_questions(data: Dataset, answers: Sequence[GeneratedReply]) -> int:
    """Count the held-out questions that `measure_belonging` tests if there is time for all."""
    groups = group_questions(_asked_questions(answers), data.heldout_prompt_replies)
    return sum(group.asked for group in groups)


def _asked_questions(answers: Sequence[GeneratedReply]) -> list[int]:
    prompts = [answer.prompt for answer in answers]
    return sorted({prompt.number for prompt in prompts if prompt.task == HELDOUT_TASK})


def _measure_group(
    shares: MeasuredShares,
    group: QuestionGroup,
    pairs: Sequence[PromptReply],
    replies: Mapping[Side, Mapping[int, GeneratedReply]],
    *,
    score: ScoreReplies,
) -> None:
    """Add a group's hits: 1 for a reply whose own question matches best, else 0."""
    tested = group.questions[: group.asked]
    questions = [pairs[number].message for number in group.questions]
    real = score([pairs[number].reply for number in group.questions], questions)
    chosen = match_questions(real, real).argmax(axis=1)

    def values(choices: Sequence[int], seeds: Iterable[int]) -> Iterator[ReplyValue]:
        for place, (number, seed) in enumerate(zip(tested, seeds, strict=False)):
            yield ReplyValue(
                unit=pairs[number].talk,
                task=HELDOUT_TASK,
                number=number,
                seed=seed,
                value=float(choices[place] == place),
            )

    shares.ceiling.setdefault(BELONGS, []).extend(values(chosen, repeat(0)))
    # Rolled by one, each real reply is taken for the answer to another question of the group.
    shares.floor.setdefault(BELONGS, []).extend(values(np.roll(chosen, 1), repeat(0)))
    for side, by_number in replies.items():
        own = [by_number[number] for number in tested]
        scores = score([reply.text for reply in own], questions)
        matched = match_questions(scores, real).argmax(axis=1)
        shares.add(BELONGS, side, values(matched, [reply.seed for reply in own]))
