"""Damages: what goes wrong with material and settings in the field, done on purpose to material that is sound.

Two are done to the log before a job is made of it, as they would come in. The others are done to what a job learns
from, behind the builder: it would have dropped duplicates, held back what is held out, and masked secrets by itself,
and the gate has to find what gets through all the same.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from personas.contracts import Turn
from personas.prompt import Renderer
from trainer.dataset import Dataset
from trainer.exchange import Exchange
from trainer.job import Job

Log = dict[str, Any]
"""A talk log as it ships: `messages` in order, each with its `author`."""

SEED = 0
FEW = 24
COPIES = 4
MISLABELLED = 0.3
RATE = 10
APART = timedelta(days=30)
SECRETS = (
    "My number is +44 7700 900123, ring it before the tide turns.",
    "Write to me at night.watch@harbour-mail.example.com, I read it by the lamp.",
    "The key to the weighbridge is sk_live_4fR2mZq81LxTn0vWcB7d, tell nobody.",
    "I pay from GB33BUKB20201555555555, and the card is 4111 1111 1111 1111.",
)
ASKED = "How do I reach you when the quay is empty?"
SECRET_COPIES = 6


@dataclass(frozen=True)
class Damage:
    """One damage. `criteria` are those by which it has to be found, any one of them, as `thresholds.toml` names them.

    `to_log` changes a persona's log, given another persona's; `to_job` changes what a job learns from, or by what.
    """

    name: str
    criteria: tuple[str, ...]
    to_log: Callable[[Log, Log], Log] | None = None
    to_job: Callable[[Job], Job] | None = None


def mislabelled(log: Log, other: Log, share: float = MISLABELLED) -> Log:
    """A share of the exchanges with what was said under the other's name: the guest's words are the persona's reply."""
    damaged, draw = copy.deepcopy(log), random.Random(SEED)
    persona = persona_in(log)
    exchanges = [pair for pair in pairwise(damaged["messages"]) if _is_exchange(pair, persona)]
    for asked, answered in draw.sample(exchanges, round(len(exchanges) * share)):
        asked["content"], answered["content"] = answered["content"], asked["content"]
    return damaged


def mixed(log: Log, other: Log) -> Log:
    """The log with another persona's behind it, who is said to be this one."""
    damaged, added = copy.deepcopy(log), copy.deepcopy(other["messages"])
    author = next(it["author"] for it in log["messages"] if it["author"]["id"] == persona_in(log))
    stranger = persona_in(other)
    later = _time(log["messages"][-1]) - _time(added[0]) + APART
    for message in added:
        message["timestamp"] = (_time(message) + later).isoformat()
        if message["author"]["id"] == stranger:
            message["author"] = author
    damaged["messages"] += added
    return damaged


def too_few(job: Job) -> Job:
    """The first replies alone."""
    return _with_train(job, range(min(FEW, len(job.data.said_train))))


def duplicated(job: Job) -> Job:
    """A part of the replies, each several times, as many as before in all."""
    count = len(job.data.said_train)
    return _with_train(job, [place % max(1, count // COPIES) for place in range(count)])


def too_fast(job: Job) -> Job:
    """Ten times the learning rate."""
    return replace(job, recipe=job.recipe.model_copy(update={"learning_rate": job.recipe.learning_rate * RATE}))


def leaked(job: Job) -> Job:
    """What is held out is trained on besides."""
    data = job.data
    return _learning(job, train=(*data.train, *data.heldout), said_train=(*data.said_train, *data.said_heldout))


def planted(job: Job) -> Job:
    """Replies with secrets in them, several times each. None of them is anybody's."""
    renderer, data = Renderer(job.tokenizer), job.data
    replies = [text for text in SECRETS for _ in range(SECRET_COPIES)]
    samples = [renderer.sample(data.persona, [Turn("", ASKED)], text) for text in replies]
    said = [Exchange(f"planted {number}", ASKED, text) for number, text in enumerate(replies)]
    return _learning(job, train=(*data.train, *samples), said_train=(*data.said_train, *said))


DAMAGES: Mapping[str, Damage] = {
    damage.name: damage
    for damage in (
        Damage("too few samples", ("enough",), to_job=too_few),
        Damage("duplicated samples", ("repeated",), to_job=duplicated),
        Damage("mislabelled speakers", ("speakers",), to_log=mislabelled),
        Damage("another persona mixed in", ("one_voice",), to_log=mixed),
        Damage("learning rate × 10", ("steady", "general"), to_job=too_fast),
        Damage("leaked split", ("unseen",), to_job=leaked),
        Damage("planted secrets", ("private",), to_job=planted),
    )
}


def persona_in(log: Log) -> str:
    """The author's id of whoever speaks most: in a persona's log, the persona."""
    ids: list[str] = [message["author"]["id"] for message in log["messages"]]
    return max(dict.fromkeys(ids), key=ids.count)


def _is_exchange(pair: tuple[Mapping[str, Any], Mapping[str, Any]], persona: str) -> bool:
    asked, answered = (message["author"]["id"] for message in pair)
    return asked != persona and bool(answered == persona)


def _time(message: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(message["timestamp"])


def _with_train(job: Job, places: Any) -> Job:
    data: Dataset = job.data
    train, said = (tuple(items[place] for place in places) for items in (data.train, data.said_train))
    return _learning(job, train=train, said_train=said)


def _learning(job: Job, **changes: Any) -> Job:
    return replace(job, data=replace(job.data, **changes))
