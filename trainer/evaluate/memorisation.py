"""Memorisation: verbatim continuations of trained replies, and personal data in generated ones."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from personas.schemas.scorecard import MemorisationScores, Side
from trainer.anonymise.allowlist import world_names
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.surrogates import is_surrogate
from trainer.dataset.dataset import Dataset
from trainer.evaluate.candidates import BASE, NEW, Candidates
from trainer.evaluate.generation.reply_tasks import true_share
from trainer.evaluate.paired_losses import paired_losses
from trainer.evaluate.time_budget import TimeBudget
from trainer.train.losses import TokenLosses

ContextAndText = tuple[str, str]  # what precedes a text, such as its prompt, and the text
MIN_NORMALISED_MATCH_CHARS = 8
"""Letters and digits that identify personal data however it is written; shorter matches are
chance.
"""
MIN_VERBATIM_TOKENS = 8  # shorter continuations are reproduced by chance


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
    # Names of the persona's card and lore are nobody's data.
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
    # A prompt with less of the card makes each reply harder.
    alike = [it for place, it in enumerate(own) if place not in data.with_other_card]
    gap: dict[Side, float] = {}
    # Every n-th sample, so that they come from the whole of the data.
    measurable = alike or own
    step = max(1, len(measurable) // max(1, len(data.heldout)))
    chosen = measurable[::step][: len(data.heldout)]
    measured = paired_losses(
        sides.use, sides.names, chosen, budget, between=between, stored=sides.known_losses
    )
    if alike:
        gap = {side: heldout[side] - loss for side, loss in measured.means().items()}
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
        gap=gap,
        generated=0,
        private={},
    )


def continuation_tokens(losses: TokenLosses, end_tokens: int) -> int:
    """Return the token count of a reply's second half, without the end of turn."""
    length = len(losses.nll) - end_tokens
    return length - length // 2


def is_memorised(losses: TokenLosses, end_tokens: int) -> bool:
    """Report whether greedy decoding continues the first half of a reply with its second half."""
    # Nothing has to be generated: the second half is what greedy decoding writes if each of its
    # tokens is the likeliest after the real ones before it.
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
