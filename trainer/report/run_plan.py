"""Plans a run without executing it: data used and dropped, time and memory by recipe."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.home.built_dataset import EVAL_FILE, TRAIN_FILE
from personas.home.column_maps import split_pairs
from personas.home.data_subjects import Consent
from personas.home.rights import decide_right
from personas.home.teacher_setting import UNKNOWN_TIME_NOTE, teacher_notes
from personas.models.base_model import (
    BaseModel,
    apply_rope_factor,
    locate,
)
from personas.models.base_notes import base_model_notes
from personas.outside_names import path_inside
from personas.schemas.base import DISCORD_API
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.import_report import ImportItem, ImportReport
from personas.schemas.scorecard import EvaluationExtent
from personas.schemas.training import JobSpec
from trainer.dataset.dataset_card import DatasetStatistics, dataset_summary, length_distribution
from trainer.dataset.dedup_split import TRAIN
from trainer.dataset.inspection import form_items
from trainer.dataset.layout import read_participants, read_samples, read_stats
from trainer.dataset.sample_renderer import TOO_LONG, SampleHash, require_both_sides
from trainer.dataset.writer import DatasetBuildSpec, ReadProgress
from trainer.estimate.memory_check import memory_reductions
from trainer.estimate.run_estimate import MachineSpeed, estimate_run, estimate_speed
from trainer.estimate.workload import Workload, WorkloadCounter, common_prefix_length, workload_of
from trainer.machine import probe_machine_without_torch
from trainer.recipe.auto_recipe import SampleStats, choose_settings, sample_stats
from trainer.recipe.card_fit import fit_length_to_card
from trainer.recipe.machine_fit import fit_notes, fit_to_machine, stage_warnings
from trainer.recipe.model_fit import context_length_error, match_target_modules
from trainer.recipe.recipe_file import load_recipe, recipe_names
from trainer.recipe.target_modules import find_target_modules
from trainer.report.loss_mask_view import (
    MaskedSample,
    labelled_samples,
    mask_sample,
    temporary_build,
)
from trainer.schemas import Recipe, ResolvedRecipe
from trainer.sources.registry import describe_content
from trainer.sources.source_format import ReadOptions
from trainer.train.job import PreparedJob, load_fast_tokenizer, prepare_job_without_torch
from trainer.train.resume_config import resumed_recipe

MAX_EXAMPLE_SAMPLES = 3
PREFERENCE_RECIPE = "preference"
LORE_PAIR_COUNTS = (
    "lore_pairs_extracted",
    "lore_pairs_synthesised",
    "lore_pairs_used",
    "samples_from_lore",
)


@dataclass(frozen=True)
class RunPlan:
    """A planned run: the statistics of its samples (as in `dataset build`) and the settings it
    would use.

    `examples` are training samples. `history_trimmed` counts samples whose oldest turns did not
    fit, `too_long` replies that yield no sample because they do not fit at all. `why` explains the
    choices of the recipe `auto`; `notes` lists deviations of the material from the request. `first`
    is the workload of a first stage. `by_preference` marks an adapter that continues with
    preferences, for which no other recipe applies. Other recipes are fitted to the `card_tokens`.
    """

    persona: str | None
    base: BaseModel
    recipe: str
    settings: Recipe
    statistics: dict[str, Any]
    work: Workload
    replies: SampleStats
    examples: tuple[MaskedSample, ...]
    history_trimmed: int
    too_long: int
    why: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first: Workload | None = None
    by_preference: bool = False
    card_tokens: int = 0

    def as_json(
        self,
        adapters: Iterable[Path],
        *,
        with_samples: bool = False,
        card: EvaluationExtent = "full",
    ) -> dict[str, Any]:
        """Return the published object of `plan --json`. `adapters` are those of earlier runs, whose
        speed is reused; `card` is the extent of the score card.
        """
        speed = estimate_speed(self.base, self.settings, self.work, adapters)
        machine = probe_machine_without_torch()
        recipes: dict[str, Recipe] = {}
        if not self.by_preference:
            for name in recipe_names():
                recipes[name] = fit_length_to_card(load_recipe(name), self.card_tokens, self.base)
            del recipes[PREFERENCE_RECIPE]
        recipes[self.recipe] = self.settings
        reductions = memory_reductions(self.settings, self.base, self.work, speed, machine=machine)
        plan = {
            "persona": self.persona,
            "base_model": self.base.name,
            "recipe": self.recipe,
            **self.statistics,
            "adapter": self._adapter_coverage(),
            "longest_tokens": max(self.work.seen(self.settings), default=0),
            "tokens_per_sample": length_distribution([*self.work.train, *self.work.heldout]),
            "recipes": [
                self._estimate_recipe(name, recipe, speed, card) for name, recipe in recipes.items()
            ],
            "free_bytes": machine.free_bytes,
            "lighter": [vars(reduction) for reduction in reductions],
            "truncation": {
                "max_length": self.settings.max_length,
                "history_trimmed": self.history_trimmed,
                "too_long": self.too_long,
            },
        }
        if with_samples:
            plan["examples"] = [sample.as_text() for sample in self.examples]
            plan["masks"] = [sample.as_json() for sample in self.examples]
        return plan

    def _adapter_coverage(self) -> dict[str, Any]:
        """Return the layers that get an adapter, their share of the blocks' parameters, and the
        shares of the other layers.
        """
        targets = find_target_modules(self.base, self.settings.target_modules)
        return {
            "target_modules": list(targets.names),
            "coverage": targets.coverage,
            "left_out": dict(targets.left_out),
        }

    def _estimate_recipe(
        self, name: str, recipe: Recipe, speed: MachineSpeed, card: EvaluationExtent
    ) -> dict[str, Any]:
        """Estimate a recipe on this machine; `warnings` lists unavailable and probably unintended
        settings.
        """
        if name == self.recipe:
            chosen = ResolvedRecipe(recipe, self.why, self.notes)
            first = self.first
        else:
            made = recipe.max_length if recipe.max_length > load_recipe(name).max_length else 0
            chosen = choose_settings(name, recipe, self.base, self.replies, made_length=made)
            first = None
        machine = probe_machine_without_torch()
        fitted = fit_to_machine(
            name,
            chosen.recipe,
            self.base,
            self.work,
            machine=machine,
            free_bytes=machine.free_bytes,
        )
        cost = estimate_run(name, fitted, self.base, self.work, speed=speed, card=card)
        first_samples = len(first.train) if first else 0
        warnings = [
            *chosen.chosen,
            *chosen.notes,
            *self._notes_on_model(chosen.recipe),
            *fit_notes(chosen.recipe, fitted),
            *stage_warnings(chosen.recipe, cost["samples"], first_samples),
        ]
        if first:
            first_cost = estimate_run(
                name, chosen.recipe.first_stage, self.base, first, speed=speed
            )
            cost = _add_first_stage(cost, first_cost)
        return {**cost, "warnings": warnings}

    def _notes_on_model(self, recipe: Recipe) -> list[str]:
        """Return the recipe's settings that the base model replaces or does not support."""
        base = apply_rope_factor(self.base, recipe.rope_scaling_factor)
        longest = max(
            (tokens for tokens in self.work.train if tokens <= recipe.max_length), default=0
        )
        error = context_length_error(base, longest)
        notes = [*base_model_notes(base), *match_target_modules(recipe, base)[1], str(error or "")]
        return [note for note in notes if note]


def plan_job(folder: Path) -> RunPlan:
    """Plan a job folder's run. Raises the same `UnderstudyError`s as the run."""
    job = prepare_job_without_torch(folder)
    data = job.data
    request = job.spec.request
    statistics = {
        "samples": {"train": len(data.trained), "eval": len(data.heldout)},
        "tokens": sum(len(sample.ids) for sample in (*data.trained, *data.heldout)),
        "rows": data.ledger.rows,
        "rows_used": data.ledger.rows_used,
        "dropped": dict(data.ledger.dropped.most_common()),
        "dropped_replies": dict(data.ledger.replies.most_common()),
        "sources": data.sources,
        "hash": data.hash,
        "import_report": _import_report(folder, job.spec).as_json(),
        "lore_pairs": {name: data.counts[name] for name in LORE_PAIR_COUNTS if name in data.counts},
    }
    # Of replies that are yet to be written there are stand-ins, which nobody will train on.
    shown = 0 if job.drafts else MAX_EXAMPLE_SAMPLES
    examples = [
        mask_sample(job.tokenizer, sample, rejected=is_rejected)
        for sample, is_rejected in itertools.islice(labelled_samples(data), shown)
    ]
    replies = sample_stats(data.train)
    if stored := resumed_recipe(folder, job.spec):
        chosen = ResolvedRecipe(job.recipe, stored.chosen)
    else:
        made = job.recipe.max_length
        chosen = choose_settings(request.recipe, job.recipe, job.base, replies, made_length=made)
    return RunPlan(
        persona=request.persona,
        base=job.base,
        recipe=request.recipe,
        settings=chosen.recipe,
        statistics=statistics,
        work=job.workload_over(data.train),
        replies=replies,
        examples=tuple(examples),
        history_trimmed=data.trimmed,
        too_long=data.counts.get(f"dropped: {TOO_LONG}", 0),
        why=chosen.chosen,
        notes=(*data.caveats, *job.length_notes, *teacher_notes(request), *_time_notes(job)),
        first=workload_of(data.first, ()) if data.first else None,
        by_preference=request.task_type == "preference",
        card_tokens=job.card_tokens,
    )


def _time_notes(job: PreparedJob) -> tuple[str, ...]:
    """Say what the plan's time leaves out."""
    return (UNKNOWN_TIME_NOTE,) if job.drafts and job.writer is None else ()


def _import_report(folder: Path, spec: JobSpec) -> ImportReport:
    """Report what becomes of the conversations' files by their form; what is dropped of them is
    counted elsewhere.
    """
    items: list[ImportItem] = []
    for material in spec.materials:
        if material.kind in ("log", "messages"):
            options = ReadOptions(mapping=split_pairs(material.mapping))
            file = path_inside(folder / "material", material.path)
            content = describe_content(file, options, material.format)
            items += form_items(content.formats, content.columns)
    return ImportReport.of(items)


def _add_first_stage(cost: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """Add the cost of the first stage; start-up counts once."""
    sums = {name: cost[name] + first[name] for name in ("steps", "samples", "trained_tokens")}
    phases = dict(cost["phases"])
    phases["training"] += round(first["trained_tokens"] / max(first["tokens_per_s"], 1), 1)
    most = max(cost, first, key=lambda stage: stage["memory_bytes"])
    return {
        **cost,
        **sums,
        "seconds": round(sum(phases.values())),
        "phases": phases,
        "memory_bytes": most["memory_bytes"],
        "memory": most["memory"],
    }


def plan_sources(request: DatasetBuildSpec, recipe: str, report_progress: ReadProgress) -> RunPlan:
    """Plan a run on sources named on the command line; temporary files are removed."""
    plan = request.plan
    statistics = DatasetStatistics()
    digest = SampleHash()
    count = WorkloadCounter()
    examples: list[MaskedSample] = []
    with temporary_build(request, report_progress) as builder:
        for built in builder.samples():
            sample = built.made.sample
            trains = built.side == TRAIN
            statistics.add(built)
            digest.add(sample, held_out=not trains)
            if trains:
                count.train_on(sample)
                if len(examples) < MAX_EXAMPLE_SAMPLES:
                    examples.append(mask_sample(plan.renderer.tokenizer, sample))
            else:
                count.hold_out(sample)
            report_progress("making samples", 1)
    require_both_sides(count.trained, count.held_out, builder.ledger.dropped)
    summary = dataset_summary(statistics, builder, digest.hexdigest(), request.describe())
    work = count.work()
    replies = SampleStats(count.trained, max(work.train), count.trained_tokens)
    made = plan.recipe.max_length
    chosen = choose_settings(recipe, plan.recipe, request.base, replies, made_length=made)
    return RunPlan(
        persona=plan.persona_id,
        base=request.base,
        recipe=recipe,
        settings=chosen.recipe,
        statistics=summary,
        work=work,
        replies=replies,
        examples=tuple(examples),
        history_trimmed=statistics.with_trimmed_history,
        too_long=builder.ledger.replies[TOO_LONG],
        why=chosen.chosen,
    )


def plan_dataset(folder: Path, recipe: str, changes: Hyperparameters, consent: Consent) -> RunPlan:
    """Plan a run on a built data set. Raises `MaterialError` if it is damaged or consent forbids
    training on it.
    """
    settings = load_recipe(recipe, changes)
    stats = read_stats(folder)
    read_participants(folder)
    statistics = {
        key: stats[key]
        for key in ("samples", "tokens", "rows", "rows_used", "dropped", "sources", "hash")
    }
    statistics["import_report"] = stats.get("import_report", ImportReport().as_json())
    statistics |= {
        "dropped_replies": stats.get("dropped_replies", {}),
        "with_thought": stats.get("with_thought", 0),
        "name_search": stats.get("name_search", {}),
    }
    train = list(read_samples(folder / TRAIN_FILE))
    heldout = list(read_samples(folder / EVAL_FILE))
    if any(line.get("right") == DISCORD_API for line in (*train, *heldout)):
        decide_right(folder.resolve().name, stated=DISCORD_API, consent=consent).require()
    base = locate(stats["base_model"])
    lengths = [line["tokens"] for line in train]
    trained_tokens = sum(line.get("reply_tokens", 0) for line in train)
    work = Workload(
        train=lengths,
        heldout=[line["tokens"] for line in heldout],
        shared=_shared_prefix_tokens(base, train),
        reply_tokens=trained_tokens / len(train) or None,
    )
    replies = SampleStats(len(train), max(lengths), trained_tokens)
    chosen = choose_settings(recipe, settings, base, replies)
    return RunPlan(
        persona=stats["persona"],
        base=base,
        recipe=recipe,
        settings=chosen.recipe,
        statistics=statistics,
        work=work,
        replies=replies,
        examples=tuple(_plain_masked_sample(line) for line in train[:MAX_EXAMPLE_SAMPLES]),
        history_trimmed=stats.get("with_trimmed_history", 0),
        too_long=stats.get("dropped_replies", {}).get(TOO_LONG, 0),
        why=chosen.chosen,
    )


def _shared_prefix_tokens(base: BaseModel, lines: Sequence[dict[str, Any]]) -> int:
    """Count the tokens that all prompts of a built data set start with."""
    texts: list[str] = [line["messages"][0]["content"] for line in lines]
    return len(load_fast_tokenizer(base)(texts[0][: common_prefix_length(texts)])["input_ids"])


def _plain_masked_sample(line: dict[str, Any]) -> MaskedSample:
    """Render a line of a data set without a model's control tokens."""
    *before, reply = line["messages"]
    prompt = "".join(f"{message['role']}: {message['content']}\n" for message in before)
    parts = ((f"{prompt}{reply['role']}: ", False), (reply["content"], True))
    return MaskedSample(TRAIN, parts, line.get("reply_tokens", 0), line["tokens"])
