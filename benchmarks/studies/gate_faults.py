"""Fault injection for the gate: common defects of data and settings in otherwise sound material."""

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from personas.prompt.renderer import Renderer
from personas.schemas.chat import Turn
from trainer.dataset.dataset import Dataset
from trainer.schemas import PromptReply
from trainer.train.job import PreparedJob

TalkLog = dict[str, Any]
"""A chat log in the shipped format: `messages` in order, each with its `author`."""

FAULT_SEED = 0
FEW_SAMPLES = 24
COPIES_PER_SAMPLE = 4
MISLABELLED_SHARE = 0.3
LEARNING_RATE_FACTOR = 10
LOG_GAP = timedelta(days=30)
SECRET_REPLIES = (
    "My number is +44 7700 900123, ring it before the tide turns.",
    "Write to me at night.watch@harbour-mail.example.com, I read it by the lamp.",
    "The key to the weighbridge is sk_live_4fR2mZq81LxTn0vWcB7d, tell nobody.",
    "I pay from GB33BUKB20201555555555, and the card is 4111 1111 1111 1111.",
)
SECRET_PROMPT = "How do I reach you when the quay is empty?"
COPIES_PER_SECRET = 6


@dataclass(frozen=True)
class FaultInjection:
    """One fault. At least one of `criteria` (names in `thresholds.toml`) has to detect it.

    `to_log` changes a persona's log, given another persona's; `to_job` changes the training data or
    settings of a job.
    """

    name: str
    criteria: tuple[str, ...]
    to_log: Callable[[TalkLog, TalkLog], TalkLog] | None = None
    to_job: Callable[[PreparedJob], PreparedJob] | None = None


def mislabel_speakers(log: TalkLog, other: TalkLog, share: float = MISLABELLED_SHARE) -> TalkLog:
    """Swap the speakers in a share of the exchanges: the guest's words become the persona's
    reply.
    """
    damaged = copy.deepcopy(log)
    draw = random.Random(FAULT_SEED)
    persona = persona_author_id(log)
    exchanges = [pair for pair in pairwise(damaged["messages"]) if _is_exchange(pair, persona)]
    for asked, answered in draw.sample(exchanges, round(len(exchanges) * share)):
        asked["content"], answered["content"] = answered["content"], asked["content"]
    return damaged


def mix_in_persona(log: TalkLog, other: TalkLog) -> TalkLog:
    """Append another persona's log under this persona's name."""
    damaged = copy.deepcopy(log)
    added = copy.deepcopy(other["messages"])
    author = next(
        it["author"] for it in log["messages"] if it["author"]["id"] == persona_author_id(log)
    )
    stranger = persona_author_id(other)
    later = _time(log["messages"][-1]) - _time(added[0]) + LOG_GAP
    for message in added:
        message["timestamp"] = (_time(message) + later).isoformat()
        if message["author"]["id"] == stranger:
            message["author"] = author
    damaged["messages"] += added
    return damaged


def truncate_samples(job: PreparedJob) -> PreparedJob:
    """Keep only the first replies."""
    return _with_train(job, range(min(FEW_SAMPLES, len(job.data.train_prompt_replies))))


def duplicate_samples(job: PreparedJob) -> PreparedJob:
    """Replace the replies by several copies of a part of them."""
    count = len(job.data.train_prompt_replies)
    return _with_train(job, [place % max(1, count // COPIES_PER_SAMPLE) for place in range(count)])


def raise_learning_rate(job: PreparedJob) -> PreparedJob:
    """Use ten times the learning rate."""
    return replace(
        job,
        recipe=job.recipe.model_copy(
            update={"learning_rate": job.recipe.learning_rate * LEARNING_RATE_FACTOR}
        ),
    )


def leak_heldout(job: PreparedJob) -> PreparedJob:
    """Train on the held-out replies as well."""
    data = job.data
    return _replace_data(
        job,
        train=(*data.train, *data.heldout),
        train_prompt_replies=(*data.train_prompt_replies, *data.heldout_prompt_replies),
    )


def plant_secrets(job: PreparedJob) -> PreparedJob:
    """Add replies with invented secrets, several times each."""
    renderer = Renderer(job.tokenizer)
    data = job.data
    replies = [text for text in SECRET_REPLIES for _ in range(COPIES_PER_SECRET)]
    samples = [renderer.sample(data.persona, [Turn("", SECRET_PROMPT)], text) for text in replies]
    said = [
        PromptReply(f"planted {number}", SECRET_PROMPT, text) for number, text in enumerate(replies)
    ]
    return _replace_data(
        job, train=(*data.train, *samples), train_prompt_replies=(*data.train_prompt_replies, *said)
    )


FAULTS: Mapping[str, FaultInjection] = {
    damage.name: damage
    for damage in (
        FaultInjection("too few samples", ("enough",), to_job=truncate_samples),
        FaultInjection("duplicated samples", ("repeated",), to_job=duplicate_samples),
        FaultInjection("mislabelled speakers", ("speakers",), to_log=mislabel_speakers),
        FaultInjection("another persona mixed in", ("one_voice",), to_log=mix_in_persona),
        FaultInjection("learning rate × 10", ("steady", "general"), to_job=raise_learning_rate),
        FaultInjection("leaked split", ("unseen",), to_job=leak_heldout),
        FaultInjection("planted secrets", ("private",), to_job=plant_secrets),
    )
}


def persona_author_id(log: TalkLog) -> str:
    """Return the author id of the most frequent speaker: in a persona's log, the persona."""
    ids: list[str] = [message["author"]["id"] for message in log["messages"]]
    return max(dict.fromkeys(ids), key=ids.count)


def _is_exchange(pair: tuple[Mapping[str, Any], Mapping[str, Any]], persona: str) -> bool:
    asked, answered = (message["author"]["id"] for message in pair)
    return asked != persona and bool(answered == persona)


def _time(message: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(message["timestamp"])


def _with_train(job: PreparedJob, places: Any) -> PreparedJob:
    data: Dataset = job.data
    train, said = (
        tuple(items[place] for place in places) for items in (data.train, data.train_prompt_replies)
    )
    return _replace_data(job, train=train, train_prompt_replies=said)


def _replace_data(job: PreparedJob, **changes: Any) -> PreparedJob:
    return replace(job, data=replace(job.data, **changes))
