"""Writes a data set folder: samples, dropped records, statistics, charts and data sheet, all or
nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from personas.home.atomic_files import atomic_folder
from personas.home.built_dataset import EVAL_FILE, STATS_FILE, TRAIN_FILE
from personas.home.data_subjects import Storing, write_people
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex, add_to_holdout, holdout_file
from personas.home.pseudonyms import keyed_person
from personas.home.rights import RightsStatement
from personas.models.base_model import BaseModel
from personas.prompt.renderer import Renderer
from personas.schemas.base import DISCORD_API
from personas.schemas.import_report import ImportReport
from trainer.anonymise.output_files import ReviewLog
from trainer.dataset.builder import (
    SAMPLE_SETTINGS,
    BuiltSample,
    DatasetBuilder,
    DatasetPlan,
    SourceItems,
)
from trainer.dataset.charts import draw_composition, draw_lengths
from trainer.dataset.dataset_card import (
    DatasetStatistics,
    dataset_details,
    dataset_summary,
    render_data_sheet,
)
from trainer.dataset.dedup_split import TRAIN
from trainer.dataset.layout import DROPPED_FILE, install_dataset, require_free, staging_folder
from trainer.dataset.ledger import DroppedRecord, Ledger
from trainer.dataset.sample_renderer import SampleHash, require_both_sides

ReadProgress = Callable[[str, int], None]


@dataclass(frozen=True)
class DatasetBuildSpec:
    """A data set to build. `sources` are pairs of name and items.

    `statements` are the stated rights by source, `permission` is Discord's as the operator states
    it. `home` keeps the list of held-out texts; without one only the data set does. `review` logs
    the replacements for a person to check. The data set gets its name within `storing`. `describe`
    reports what becomes of the sources by their form.
    """

    plan: DatasetPlan
    base: BaseModel
    sources: Sequence[tuple[str, SourceItems]]
    statements: Mapping[str, RightsStatement] = field(default_factory=dict)
    permission: str = ""
    home: Path | None = None
    review: ReviewLog | None = None
    storing: Storing = nullcontext
    describe: Callable[[], ImportReport] = ImportReport


def write_dataset(out: Path, spec: DatasetBuildSpec, on_progress: ReadProgress) -> dict[str, Any]:
    """Build into the folder `out`, replacing an earlier data set there, and return the summary.

    `on_progress` gets the current step and the number of further records or samples. Raises
    `UnderstudyError`.
    """
    require_free(out)
    with staging_folder(out) as staging:
        spec = replace(spec, plan=replace(spec.plan, held_out=previous_holdout(spec, out)))
        finished = staging / "made"
        key = spec.plan.people_key
        with atomic_folder(finished) as folder:
            summary = _write(folder, staging, spec, on_progress, name=out.name)
            if spec.home:  # it must list the held-out texts before anybody can use the data set
                add_to_holdout(
                    spec.home,
                    spec.plan.persona_id,
                    HoldoutIndex.read(folder / HOLDOUT_FILE, key),
                    key,
                )
        with spec.storing():
            install_dataset(finished, out, staging / "earlier")
    return summary


def previous_holdout(spec: DatasetBuildSpec, out: Path | None = None) -> HoldoutIndex:
    """Merge the home's holdout list with that of the data set to be replaced. Raises
    `MaterialError`.
    """
    plan = spec.plan
    home = spec.home
    held_out = HoldoutIndex.empty(plan.people_key)
    for file in (home and holdout_file(home, plan.persona_id), out and out / HOLDOUT_FILE):
        held_out = held_out.merge(HoldoutIndex.read(file, plan.people_key)) if file else held_out
    return held_out


def format_sample(renderer: Renderer, built: BuiltSample, stages: bool, people_key: bytes) -> str:
    """Format a sample as a line of JSON.

    One that came through Discord's API lists its people, under the key of such lists: it may be
    trained on only while all of them allow it.
    """
    made = built.made
    if made.has_short_card:
        renderer = renderer.with_card("short")
    messages = renderer.messages(made.persona, made.turns, made.lore)
    line: dict[str, Any] = {
        "messages": [*messages, {"role": "assistant", "content": made.reply.strip()}],
        "message": made.turns[-1].text,
        "kind": built.kind,
        "source": built.source,
        "row": made.row,
        "talk": made.talk,
        "right": built.right,
        "speakers": list(made.speakers),
    }
    if made.persona:
        line["speaker"] = made.persona.name
    line |= {
        "arrived": made.arrived,
        "tokens": len(made.sample.ids),
        "reply_tokens": made.sample.reply_tokens,
        "lore": [hit.source for hit in made.lore],
    }
    if built.right == DISCORD_API:
        line["people"] = [keyed_person(people_key, person) for person in made.people]
    if made.input:
        line["input"] = made.input
    if made.has_short_card:
        line["short_card"] = True
    if stages:
        line["stage"] = 2 if built.kind == "persona" else 1
    return json.dumps(line, ensure_ascii=False)


def _write(
    folder: Path, work_folder: Path, spec: DatasetBuildSpec, on_progress: ReadProgress, name: str
) -> dict[str, Any]:
    plan = spec.plan
    with (
        spec.review or nullcontext(),
        _SampleFiles(folder, plan) as samples,
        DatasetBuilder(plan, Ledger(samples.note), work_folder, spec.review) as builder,
    ):
        for source, items in spec.sources:
            builder.add_source(source, items, partial(on_progress, f"reading {source}"))
        for built in builder.samples():
            samples.add(built)
            on_progress("making samples", 1)
        digest = samples.hexdigest(builder.ledger.dropped)
        summary = dataset_summary(samples.statistics, builder, digest, spec.describe())
        stats = {
            **summary,
            **dataset_details(samples.statistics, builder.ledger),
            "mix": builder.shares,
            "persona": plan.persona_id,
            "base_model": spec.base.name,
            "seed": plan.seed,
            "statements": {name: asdict(stated) for name, stated in spec.statements.items()},
            "permission": spec.permission if DISCORD_API in samples.statistics.rights else "",
            "replaced": dict(builder.anonymiser.counts),
            "recipe": {key: getattr(plan.recipe, key) for key in SAMPLE_SETTINGS},
        }
    builder.held_out.write(folder / HOLDOUT_FILE)
    (folder / STATS_FILE).write_text(
        json.dumps(stats, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_people(folder, builder.participants.listed(plan.people_key))
    draw_composition(folder, stats["by_source"])
    draw_lengths(folder, stats["tokens_per_sample"], plan.recipe.max_length)
    (folder / "README.md").write_text(
        render_data_sheet(name, plan, spec.base.name, stats), encoding="utf-8"
    )
    return summary


class _SampleFiles(ExitStack):
    """The open files of samples and dropped records."""

    def __init__(self, folder: Path, plan: DatasetPlan) -> None:
        super().__init__()
        self.statistics = DatasetStatistics()
        self._plan = plan
        self._dropped = self._create(folder / DROPPED_FILE)
        self._train = self._create(folder / TRAIN_FILE)
        self._eval = self._create(folder / EVAL_FILE)
        self._hash = SampleHash()

    def _create(self, path: Path) -> TextIO:
        return self.enter_context(path.open("x", encoding="utf-8"))

    def note(self, drop: DroppedRecord) -> None:
        """Write a dropped record."""
        print(json.dumps(asdict(drop), ensure_ascii=False), file=self._dropped)

    def add(self, built: BuiltSample) -> None:
        """Write a sample."""
        self.statistics.add(built)
        line = format_sample(self._plan.renderer, built, self._plan.stages, self._plan.people_key)
        is_trained = built.side == TRAIN
        self._hash.add(built.made.sample, held_out=not is_trained)
        print(line, file=self._train if is_trained else self._eval)

    def hexdigest(self, dropped: Mapping[str, int]) -> str:
        """Return the data set's hash when all samples are written. Raises `MaterialError` if there
        are too few.
        """
        require_both_sides(
            self.statistics.samples["train"], self.statistics.samples["eval"], dropped
        )
        return self._hash.hexdigest()
