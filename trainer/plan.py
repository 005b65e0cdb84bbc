"""What a run would do, before anything is done: what is kept and dropped, how long it takes, how much memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from personas.base_model import BaseModel, locate, scaled
from personas.consent import Consent
from personas.contracts import Hyperparameters
from personas.rights import DISCORD_API, decide
from trainer.auto import Chosen, for_run, replies_in
from trainer.auto_rules import Replies
from trainer.building.build import Builder
from trainer.building.folder import EVAL_FILE, TRAIN_FILE, people_of, read_samples, read_stats
from trainer.building.ledger import Ledger
from trainer.building.samples import TOO_LONG, SampleHash, require_both_sides
from trainer.building.sieve import TRAIN
from trainer.building.statistics import Statistics, spread, summary
from trainer.building.write import Heard, Order, held_out_before
from trainer.fitted import Fitted, fitted, warnings_in_stages
from trainer.frozen import begun
from trainer.loop.kept_activations import kept_activations
from trainer.loop.positions import too_long
from trainer.loop.target_modules import suited
from trainer.machine import machine_guessed
from trainer.mask import Masked, judged_samples, masked
from trainer.predict.estimate import Speed, Workload, estimate, speed_of
from trainer.predict.lighter import lighter
from trainer.predict.work import WorkCount, workload_of
from trainer.recipe import Recipe, recipe_names, request_of, resolve
from trainer.run import planned
from trainer.tokenizers import counting_tokenizer

SHOWN_SAMPLES = 3
FOR_PREFERENCES = "preference"


@dataclass(frozen=True)
class Planned:
    """A run that could be: its samples' figures (`told` as `dataset build` tells them) and what it would run with.

    `examples` are samples to train on; of `history_trimmed` the oldest turns did not fit, and `too_long` are replies
    that make no sample because they do not fit at all. `why` says why the recipe `auto` has chosen these settings,
    `notes` what of the material is not as asked. `first` is what a first stage would learn from. `by_preference`: an
    adapter goes on with preferences, for which no other recipe is meant.
    """

    persona: str | None
    base: BaseModel
    recipe: str
    settings: Recipe
    told: dict[str, Any]
    work: Workload
    replies: Replies
    examples: tuple[Masked, ...]
    history_trimmed: int
    too_long: int
    why: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first: Workload | None = None
    by_preference: bool = False

    def as_json(self, adapters: Iterable[Path], *, with_samples: bool = False) -> dict[str, Any]:
        """The published object of `plan --json`. `adapters` are those of earlier runs, for their speed."""
        speed = speed_of(self.base, self.settings, self.work, adapters)
        others = [name for name in recipe_names() if name != FOR_PREFERENCES and not self.by_preference]
        recipes = {name: recipe_named(name) for name in others} | {self.recipe: self.settings}
        machine = machine_guessed()
        return {
            "persona": self.persona,
            "base_model": self.base.name,
            "recipe": self.recipe,
            **self.told,
            "longest_tokens": max(self.work.seen(self.settings), default=0),
            "tokens_per_sample": spread([*self.work.train, *self.work.heldout]),
            "recipes": [self._told_of(name, recipe, speed) for name, recipe in recipes.items()],
            "free_bytes": machine.free_bytes,
            "lighter": [vars(way) for way in lighter(self.settings, self.base, self.work, speed, machine)],
            "truncation": {
                "max_length": self.settings.max_length,
                "history_trimmed": self.history_trimmed,
                "too_long": self.too_long,
            },
            **(self._shown() if with_samples else {}),
        }

    def _shown(self) -> dict[str, Any]:
        """The first samples, as text for people and in parts for programs."""
        return {
            "examples": [it.as_text() for it in self.examples],
            "masks": [it.as_json() for it in self.examples],
        }

    def _told_of(self, name: str, recipe: Recipe, speed: Speed) -> dict[str, Any]:
        """What a recipe would take here; `warnings` say what of it cannot be done here, or is hardly meant."""
        mine = name == self.recipe
        chosen = Chosen(recipe, self.why) if mine else for_run(name, recipe, self.base, self.replies)
        fit = self._fitted(chosen.recipe)
        took = estimate(name, fit.recipe, self.base, self.work, speed)
        notes = [*self._notes_on_model(chosen.recipe), *fit.notes]
        first = self.first if mine else None
        warnings = warnings_in_stages(chosen.recipe, took["samples"], len(first.train) if first else 0)
        if first:
            took = _with_first(took, estimate(name, chosen.recipe.first_stage, self.base, first, speed))
        return {**took, "warnings": [*chosen.why, *(self.notes if mine else ()), *notes, *warnings]}

    def _fitted(self, recipe: Recipe) -> Fitted:
        """The recipe as a run would have it here."""
        machine = machine_guessed()
        fit = fitted(recipe, machine)
        if recipe.gradient_checkpointing and "gradient_checkpointing" in recipe.model_fields_set:
            return fit
        return kept_activations(fit, self.base, self.work, machine, machine.free_bytes)

    def _notes_on_model(self, recipe: Recipe) -> list[str]:
        """What of a recipe the base model has another way, or cannot read."""
        base = scaled(self.base, recipe.rope_scaling_type, recipe.rope_scaling_factor)
        longest = max((tokens for tokens in self.work.train if tokens <= recipe.max_length), default=0)
        error = too_long(base, longest)
        return [*suited(recipe, base)[1], *([str(error)] if error else [])]


def plan_of_job(folder: Path) -> Planned:
    """The plan of a job folder's run. Raises `UnderstudyError` as the run would."""
    job = planned(folder)
    data, request = job.data, job.spec.request
    sums = [sum(len(sample.ids) for sample in side) for side in (data.trained, data.heldout)]
    told = {
        "samples": {"train": len(data.trained), "eval": len(data.heldout)},
        "tokens": sum(sums),
        "rows": data.ledger.rows,
        "rows_used": data.ledger.rows_used,
        "dropped": dict(data.ledger.dropped.most_common()),
        "sources": data.sources,
        "hash": data.hash,
    }
    method = data.preferences.method if data.preferences else None
    work = workload_of(data.train, data.heldout, data.general, method)
    shown = itertools.islice(judged_samples(data), SHOWN_SAMPLES)
    examples = tuple(masked(job.tokenizer, sample, rejected=bad) for sample, bad in shown)
    replies = replies_in(data.train)
    chosen = for_run(request.recipe, job.recipe, job.base, replies, begun(folder, job.spec))
    first = workload_of(data.first, ()) if data.first else None
    fitting = (data.trimmed, data.counts.get(f"dropped: {TOO_LONG}", 0))
    of = (told, work, replies, examples, *fitting, chosen.why, data.caveats, first)
    by_preference = request.task_type == "preference"
    return Planned(request.persona, job.base, request.recipe, chosen.recipe, *of, by_preference=by_preference)


def _with_first(took: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """What both stages take together. The program is started once."""
    sums = {name: took[name] + first[name] for name in ("steps", "samples", "trained_tokens")}
    seconds = round(took["seconds"] + first["trained_tokens"] / max(first["tokens_per_s"], 1))
    most = max(took, first, key=lambda it: it["memory_bytes"])
    return {**took, **sums, "seconds": seconds, "memory_bytes": most["memory_bytes"], "memory": most["memory"]}


def plan_of_order(order: Order, recipe: str, heard: Heard) -> Planned:
    """The plan for sources that are named on the command line; nothing is left of what is made for it."""
    plan, statistics, digest = replace(order.plan, held_out=held_out_before(order)), Statistics(), SampleHash()
    count = WorkCount()
    examples: list[Masked] = []
    with tempfile.TemporaryDirectory(prefix="understudy-plan-") as folder, ExitStack() as stack:
        builder = stack.enter_context(Builder(plan, Ledger(), Path(folder)))
        for source, items in order.sources:
            builder.take(source, items, partial(heard, f"reading {source}"))
        for built in builder.samples():
            sample, trains = built.made.sample, built.side == TRAIN
            statistics.add(built)
            digest.add(sample, held_out=not trains)
            (count.train_on if trains else count.hold_out)(sample)
            if trains and len(examples) < SHOWN_SAMPLES:
                examples.append(masked(plan.renderer.tokenizer, sample))
            heard("making samples", 1)
    require_both_sides(count.trained, count.held_out, builder.ledger.dropped)
    told, work = summary(statistics, builder.ledger, digest.hexdigest()), count.work()
    replies = Replies(count.trained, max(work.train), count.trained_tokens)
    chosen = for_run(recipe, plan.recipe, order.base, replies)
    fitting = (statistics.with_trimmed_history, builder.ledger.replies[TOO_LONG])
    of = (told, work, replies, tuple(examples), *fitting, chosen.why)
    return Planned(plan.persona_id, order.base, recipe, chosen.recipe, *of)


def plan_of_dataset(folder: Path, recipe: str, changes: Hyperparameters, consent: Consent) -> Planned:
    """The plan for a data set that `dataset build` made.

    Raises `MaterialError` when it is damaged, and when it may not be trained on under today's consent.
    """
    settings = recipe_named(recipe, changes)
    stats = read_stats(folder)
    people_of(folder)
    told = {key: stats[key] for key in ("samples", "tokens", "rows", "rows_used", "dropped", "sources", "hash")}
    persona, base_model = stats["persona"], stats["base_model"]
    lines = [list(read_samples(folder / name)) for name in (TRAIN_FILE, EVAL_FILE)]
    if any(line.get("right") == DISCORD_API for side in lines for line in side):
        decide(folder.resolve().name, signed=DISCORD_API, consent=consent).require()
    train, heldout = ([line["tokens"] for line in side] for side in lines)
    examples = tuple(_plainly(line) for line in lines[0][:SHOWN_SAMPLES])
    base, trained_tokens = locate(base_model), sum(line.get("reply_tokens", 0) for line in lines[0])
    work = Workload(train, heldout, shared=_shared(base, lines[0]), reply_tokens=trained_tokens / len(train) or None)
    replies = Replies(len(train), max(train), trained_tokens)
    chosen = for_run(recipe, settings, base, replies)
    fitting = (stats.get("with_trimmed_history", 0), stats.get("dropped_replies", {}).get(TOO_LONG, 0))
    return Planned(persona, base, recipe, chosen.recipe, told, work, replies, examples, *fitting, chosen.why)


def recipe_named(name: str, changes: Hyperparameters | None = None) -> Recipe:
    """A recipe as it ships, but for what is changed. Raises `RequestError`."""
    changes = changes or Hyperparameters()
    return resolve(request_of(job_name="plan", task_type="dialogue", recipe=name, hyperparameters=changes))


def _shared(base: BaseModel, lines: Sequence[dict[str, Any]]) -> int:
    """Tokens that all prompts of a built data set begin with."""
    beginnings = [line["messages"][0]["content"] for line in lines]
    first, last = min(beginnings), max(beginnings)  # what these share, all between them share, too
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return len(counting_tokenizer(base)("".join(pair[0] for pair in alike))["input_ids"])


def _plainly(line: dict[str, Any]) -> Masked:
    """A line of a data set without a model's control tokens."""
    *before, reply = line["messages"]
    prompt = "".join(f"{message['role']}: {message['content']}\n" for message in before)
    parts = ((f"{prompt}{reply['role']}: ", False), (reply["content"], True))
    return Masked(TRAIN, parts, line.get("reply_tokens", 0), line["tokens"])
