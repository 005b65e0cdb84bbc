"""Writes a data set folder: samples, dropped records, statistics, charts and data sheet, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from personas.home.atomic_files import atomic_folder
from personas.home.data_subjects import write_people
from personas.home.datasets import EVAL_FILE, STATS_FILE, TRAIN_FILE
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex, add_to_holdout, holdout_file
from personas.home.pseudonyms import keyed_person
from personas.home.rights import RightsStatement
from personas.models.base_model import BaseModel
from personas.prompt import Renderer
from personas.schemas.base import DISCORD_API
from trainer.anonymise.output_files import ReviewLog
from trainer.data.builder import BuiltSample, DatasetBuilder, DatasetPlan, SourceItems
from trainer.data.charts import draw_composition, draw_lengths
from trainer.data.dataset_card import DatasetStatistics, dataset_details, dataset_summary, render_data_sheet
from trainer.data.dedup_split import TRAIN
from trainer.data.layout import DROPPED_FILE, install_dataset, require_free, staging_folder
from trainer.data.ledger import DroppedRecord, Ledger
from trainer.data.sample_renderer import SampleHash, require_both_sides

SAMPLE_SETTINGS = ("max_length", "history_turns", "session_gap_minutes", "lore_share", "heldout_share")
ReadProgress = Callable[[str, int], None]


@dataclass(frozen=True)
class DatasetBuildSpec:
    """A data set that is asked for. `sources` pairs what each is called with what it yields.

    `statements` are the rights that are stated, by source; `permission` is Discord's, as the operator states it.
    `home` keeps what has been held out; without one only the data set does. `review` lists what is replaced, for a
    person to check.
    """

    plan: DatasetPlan
    base: BaseModel
    sources: Sequence[tuple[str, SourceItems]]
    statements: Mapping[str, RightsStatement] = field(default_factory=dict)
    permission: str = ""
    home: Path | None = None
    review: ReviewLog | None = None


def write_dataset(out: Path, order: DatasetBuildSpec, heard: ReadProgress) -> dict[str, Any]:
    """Build into the folder `out`, in place of an earlier data set there, and give the summary.

    `heard` is told what is being done, and of how many more records or samples. Raises `UnderstudyError`.
    """
    require_free(out)
    with staging_folder(out) as aside:
        order = replace(order, plan=replace(order.plan, held_out=previous_holdout(order, out)))
        made = aside / "made"
        with atomic_folder(made) as folder:
            told = _write(folder, aside, order, heard, out.name)
            _save_holdout(order, folder)
        install_dataset(made, out, aside / "earlier")
    return told


def previous_holdout(order: DatasetBuildSpec, out: Path | None = None) -> HoldoutIndex:
    """Returns the home's held-out list joined with that of the data set to be replaced. Raises `MaterialError`."""
    plan, home = order.plan, order.home
    held_out = HoldoutIndex.empty(plan.people_key)
    for file in (home and holdout_file(home, plan.persona_id), out and out / HOLDOUT_FILE):
        held_out = held_out.merge(HoldoutIndex.read(file, plan.people_key)) if file else held_out
    return held_out


def format_sample(renderer: Renderer, built: BuiltSample, stages: bool, people_key: bytes) -> str:
    """A sample as a line of JSON.

    One that came through Discord's API says whose words it holds, under the key of lists of people: it may be trained
    on only while all of them allow it.
    """
    made = built.made
    messages = renderer.messages(made.persona, made.turns, made.lore)
    line = {
        "messages": [*messages, {"role": "assistant", "content": made.reply.strip()}],
        "kind": built.kind,
        "source": built.source,
        "row": made.row,
        "talk": made.talk,
        "right": built.right,
        "speakers": list(made.speakers),
        "arrived": made.arrived,
        "tokens": len(made.sample.ids),
        "reply_tokens": made.sample.reply_tokens,
        "lore": [hit.source for hit in made.lore],
    }
    if built.right == DISCORD_API:
        line["people"] = [keyed_person(people_key, person) for person in made.people]
    if stages:
        line["stage"] = 2 if built.kind == "persona" else 1
    return json.dumps(line, ensure_ascii=False)


def _save_holdout(order: DatasetBuildSpec, folder: Path) -> None:
    """Have the home know what is held out before anybody can use the data set."""
    plan, file = order.plan, folder / HOLDOUT_FILE
    if order.home:
        add_to_holdout(order.home, plan.persona_id, HoldoutIndex.read(file, plan.people_key), plan.people_key)


def _write(folder: Path, workshop: Path, order: DatasetBuildSpec, heard: ReadProgress, name: str) -> dict[str, Any]:
    plan = order.plan
    with (
        order.review or nullcontext(),
        _SampleFiles(folder, plan) as samples,
        DatasetBuilder(plan, Ledger(samples.note), workshop, order.review) as builder,
    ):
        for source, items in order.sources:
            builder.take(source, items, partial(heard, f"reading {source}"))
        for built in builder.samples():
            samples.add(built)
            heard("making samples", 1)
        digest = samples.hexdigest(builder.ledger.dropped)
        told = dataset_summary(samples.statistics, builder.ledger, digest)
        stats = {
            **told,
            **dataset_details(samples.statistics, builder.ledger),
            "mix": builder.shares,
            "persona": plan.persona_id,
            "base_model": order.base.name,
            "seed": plan.seed,
            "statements": {name: asdict(stated) for name, stated in order.statements.items()},
            "permission": order.permission if DISCORD_API in samples.statistics.rights else "",
            "replaced": dict(builder.anonymiser.counts),
            "recipe": {key: getattr(plan.recipe, key) for key in SAMPLE_SETTINGS},
        }
    builder.held_out.write(folder / HOLDOUT_FILE)
    (folder / STATS_FILE).write_text(json.dumps(stats, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_people(folder, builder.met.listed(plan.people_key))
    draw_composition(folder, stats["by_source"])
    draw_lengths(folder, stats["tokens_per_sample"], plan.recipe.max_length)
    (folder / "README.md").write_text(render_data_sheet(name, plan, order.base.name, stats), encoding="utf-8")
    return told


class _SampleFiles:
    """The files of samples and of what was dropped, while they are written."""

    def __init__(self, folder: Path, plan: DatasetPlan) -> None:
        self.statistics = DatasetStatistics()
        self._plan = plan
        self._stack = ExitStack()
        self._dropped, self._train, self._eval = (
            self._stack.enter_context((folder / file).open("x", encoding="utf-8"))
            for file in (DROPPED_FILE, TRAIN_FILE, EVAL_FILE)
        )
        self._hash = SampleHash()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def note(self, drop: DroppedRecord) -> None:
        """Write down what was dropped."""
        print(json.dumps(asdict(drop), ensure_ascii=False), file=self._dropped)

    def add(self, built: BuiltSample) -> None:
        """Write a sample."""
        self.statistics.add(built)
        line = format_sample(self._plan.renderer, built, self._plan.stages, self._plan.people_key)
        self._hash.add(built.made.sample, held_out=built.side != TRAIN)
        print(line, file=self._train if built.side == TRAIN else self._eval)

    def hexdigest(self, dropped: Mapping[str, int]) -> str:
        """The data set's hash, once all samples are in. Raises `MaterialError` when there are too few."""
        require_both_sides(self.statistics.samples["train"], self.statistics.samples["eval"], dropped)
        return self._hash.hexdigest()
