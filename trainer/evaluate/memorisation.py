"""Memorisation and training data checks: verbatim continuations, personal data, duplicates,
leakage, loss curve.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from personas.schemas.scorecard import DataChecks, LossCurve, MemorisationScores, Side
from personas.schemas.training_events import Progress
from trainer.anonymise.allowlist import world_names
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.surrogates import is_surrogate
from trainer.dataset.dataset import Dataset
from trainer.dataset.minhash import MinHashIndex, split_words
from trainer.evaluate.candidates import BASE, NEW, Candidates
from trainer.evaluate.generation.reply_tasks import true_share
from trainer.evaluate.paired_losses import paired_losses
from trainer.evaluate.time_budget import TimeBudget
from trainer.process.events import StepEvent
from trainer.schemas import Recipe
from trainer.train.losses import TokenLosses

ContextAndText = tuple[str, str]  # what precedes a text, such as its prompt, and the text
MIN_NORMALISED_MATCH_CHARS = 8
"""Letters and digits that identify personal data however it is written; shorter matches are
chance.
"""
MIN_VERBATIM_TOKENS = 8  # shorter continuations are reproduced by chance
MIN_COMPARED_WORDS = 8  # shorter replies repeat by chance
# share and minimum number of training steps to average over
WINDOW_SHARE = 0.1
MIN_WINDOW_STEPS = 3
STEPS_FILE = Path("report") / "steps.csv"


def count_pii(data: Dataset, texts: Iterable[ContextAndText]) -> dict[str, int]:
    """Count personal data by kind, except in a text's context, in the persona's world, and the own
    surrogates.
    """
    return _count_by_kind(kind for kind, _ in _find_pii(data, texts))


def count_memorised_and_hallucinated_pii(
    data: Dataset, texts: Iterable[ContextAndText], trained: Callable[[], str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Count personal data from the training text, which `trained` loads if needed, and data that
    the model invented.
    """
    findings = list(_find_pii(data, texts))
    if not findings:
        return {}, {}
    text = trained().casefold()
    normalised_text = _alphanumeric(text)
    memorised: list[str] = []
    invented: list[str] = []
    for kind, value in findings:
        normalised = _alphanumeric(value.casefold())
        is_memorised_as_written = value.casefold() in text
        is_long = len(normalised) >= MIN_NORMALISED_MATCH_CHARS
        if is_memorised_as_written or (is_long and normalised in normalised_text):
            memorised.append(kind)
        else:
            invented.append(kind)
    return _count_by_kind(memorised), _count_by_kind(invented)


def _find_pii(data: Dataset, texts: Iterable[ContextAndText]) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each finding."""
    keep = world_names(data.persona, data.lore) if data.persona else ()
    anonymiser = Anonymiser(b"score card", persona=data.persona, keep=keep)
    for context, text in texts:
        for entity in anonymiser.find_entities(text):
            value = text[entity.start : entity.end]
            # A name that the prompt gave is no leak, and a surrogate was never anybody's.
            if value.casefold() not in context.casefold() and not is_surrogate(value):
                yield entity.kind, value


def _count_by_kind(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))


def _alphanumeric(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def memorisation_section(
    sides: Candidates,
    data: Dataset,
    *,
    heldout: Mapping[Side, float],
    end_tokens: int,
    budget: TimeBudget,
    between: Callable[[], None],
) -> MemorisationScores:
    """Measure trained replies, at most as many as held-out ones, whose losses are `heldout`; see
    `add_reply_pii`.
    """
    own = data.train[: len(data.train_prompt_replies)] or data.train
    # Every n-th sample, so that they come from the whole of the data.
    step = max(1, len(own) // max(1, len(data.heldout)))
    chosen = own[::step][: len(data.heldout)]
    measured = paired_losses(sides.use, sides.names, chosen, budget, between=between)
    long = []
    for place, losses in enumerate(measured.losses[NEW]):
        if continuation_tokens(losses, end_tokens) >= MIN_VERBATIM_TOKENS:
            long.append(place)

    def verbatim_share(side: Side) -> float:
        losses = measured.losses[side]
        return true_share(is_memorised(losses[place], end_tokens) for place in long)

    return MemorisationScores(
        prefixes=len(long),
        verbatim=verbatim_share(NEW),
        verbatim_base=verbatim_share(BASE),
        gap={side: heldout[side] - loss for side, loss in measured.means().items()},
        generated=0,
        private={},
    )


def continuation_tokens(losses: TokenLosses, end_tokens: int) -> int:
    """Return the token count of a reply's second half, without the end of turn."""
    length = len(losses.nll) - end_tokens
    return length - length // 2


def is_memorised(losses: TokenLosses, end_tokens: int) -> bool:
    """Report whether greedy decoding continues the first half of a reply with its second half."""
    length = len(losses.nll) - end_tokens
    return bool(losses.likeliest[length // 2 : length].all())


def add_reply_pii(
    section: MemorisationScores, data: Dataset, replies: Sequence[ContextAndText], tokenizer: Any
) -> MemorisationScores:
    """Add the personal data in generated replies that is not in their prompts."""

    def trained() -> str:
        return "\n".join(tokenizer.batch_decode([sample.ids for sample in data.trained]))

    private, made_up = count_memorised_and_hallucinated_pii(data, replies, trained)
    return section.model_copy(
        update={"generated": len(replies), "private": private, "made_up": made_up}
    )


def data_checks_section(data: Dataset, recipe: Recipe, losses: Sequence[float]) -> DataChecks:
    """Build the section on a run's data and its training losses by step, which may be unknown."""
    trained = [pair.reply for pair in data.train_prompt_replies if pair.by_persona]
    heldout = [pair.reply for pair in data.heldout_prompt_replies if pair.by_persona]
    return DataChecks(
        replies=len(trained),
        repeated=duplicate_share(trained),
        leaked=split_leakage_share(trained, heldout),
        private=count_pii(data, (("", reply) for reply in trained)),
        rate=recipe.learning_rate,
        epochs=recipe.num_train_epochs,
        course=loss_curve_of(losses),
    )


def duplicate_share(texts: Sequence[str]) -> float:
    """Return the share of the longer texts that nearly repeat an earlier one."""
    firsts = _first_duplicates(_long_texts(texts))
    return true_share(place != first for place, first in enumerate(firsts))


def split_leakage_share(trained: Sequence[str], heldout: Sequence[str]) -> float:
    """Return the share of the longer held-out texts with a near duplicate among the trained
    ones.
    """
    known = _long_texts(trained)
    compared = _long_texts(heldout)
    # The trained texts come first in the index, so that a leaked text's first duplicate is among
    # them even if other held-out texts say the same.
    firsts = _first_duplicates([*known, *compared])[len(known) :]
    return true_share(first < len(known) for first in firsts)


def loss_curve_of(losses: Sequence[float]) -> LossCurve | None:
    """Summarise the training losses; None for too few steps."""
    window = max(MIN_WINDOW_STEPS, round(len(losses) * WINDOW_SHARE))
    means = []
    for begin in range(len(losses) - window + 1):
        means.append(fmean(losses[begin : begin + window]))
    # With fewer, the first and the last window would share steps.
    if len(means) <= window:
        return None
    return LossCurve(steps=len(losses), first=means[0], highest=max(means[1:]), last=means[-1])


def training_losses(history: Sequence[StepEvent]) -> tuple[float, ...]:
    """Return the training losses by step; of two stages, those of the last."""
    last = max((event.stage for event in history), default=0)
    steps = [event for event in history if isinstance(event, Progress)]
    return tuple(event.loss for event in steps if event.stage == last)


def read_training_losses(adapter: Path) -> tuple[float, ...]:
    """Read the training losses by step from an adapter's report, for two stages the last; empty
    without a report.
    """
    try:
        with (adapter / STEPS_FILE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        last = max((row.get("stage", "") for row in rows), default="")
        return tuple(float(row["loss"]) for row in rows if row.get("stage", "") == last)
    except (OSError, KeyError, ValueError):
        return ()


def _long_texts(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if len(split_words(text)) >= MIN_COMPARED_WORDS]


def _first_duplicates(texts: Sequence[str]) -> list[int]:
    """Return, for each text, the index of the first near duplicate."""
    with MinHashIndex() as index:
        for text in texts:
            index.add(text)
        return [int(first) for first in index.clusters()[1]] if texts else []
