"""Loads the samples of a run from its data set folder: the only place that creates a `Dataset`.

A job's own samples lie there as token ids. Those of a data set built by `dataset build` lie in the
job's material as messages: they are rendered for the run's base model, and consent is checked
again.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from jinja2 import TemplateError

from personas.errors import MaterialError, RequestError
from personas.home.built_dataset import EVAL_FILE, TRAIN_FILE
from personas.home.data_subjects import Consent
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex
from personas.home.prompt_version import SHORT_CARD_COUNT
from personas.home.pseudonyms import keyed_person
from personas.home.rights import decide_right, is_published
from personas.models.base_model import BaseModel
from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import Persona
from personas.schemas.training import JobSpec
from trainer.dataset.card_exchanges import card_records
from trainer.dataset.data_mixture import (
    general_sample_count,
    lore_pairs_caveat,
    mixes_general,
    mixture_caveat,
    order_by_text,
)
from trainer.dataset.dataset import (
    Dataset,
    SampleRecord,
    SampleSets,
    add_counts,
    add_searched_scripts,
)
from trainer.dataset.holdout_fingerprints import match_held_out
from trainer.dataset.job_inputs import JobInputs
from trainer.dataset.layout import read_participants, read_samples, read_stats
from trainer.dataset.ledger import Ledger
from trainer.dataset.preference_policy import PreferenceSet
from trainer.dataset.preference_samples import apply_preferences
from trainer.dataset.run_dataset import MEASURED_FILE, MIXED_FILE, RunDataset, job_dataset
from trainer.dataset.sample_renderer import (
    HELD_OUT_BEFORE,
    NOTHING_TRAINED,
    TOO_LONG,
    has_no_targets,
    require_both_sides,
)
from trainer.dataset.written_replies import WRITTEN_SOURCE, written_caveat
from trainer.schemas import GENERAL_KIND, PromptReply, Recipe, prompt_reply_of_line
from trainer.sources.speakers import NOT_OPTED_IN

SampleLine = Mapping[str, Any]


@dataclass(frozen=True)
class ConsentCheck:
    """Checks which lines of a data set may be used now. `people` are the keyed hashes of those who
    have opted in.
    """

    consent: Consent
    people: frozenset[str]

    @classmethod
    def today(cls, consent: Consent, people_key: bytes) -> ConsentCheck:
        """Return the check for the current permission and opt-ins."""
        return cls(consent, frozenset(keyed_person(people_key, id) for id in consent.opted_in))

    def fault(self, line: SampleLine, name: str) -> str:
        """Return why a line is left out; empty if it may be used. Raises `MaterialError` if no line
        may be used.
        """
        right = str(line.get("right") or "")
        decide_right(f"A sample of {name}", stated=right, consent=self.consent).require()
        if right != DISCORD_API:
            return ""
        people = line.get("people")
        if not isinstance(people, list):
            raise MaterialError(
                f"{name} holds samples from Discord that do not say whose words they are.",
                "Build the data set again.",
            )
        return "" if self.people.issuperset(people) else NOT_OPTED_IN


def render_lines(
    lines: Iterator[SampleLine],
    renderer: Renderer,
    dropped: Counter[str],
    longest: int | None = None,
    persona_name: str = "",
) -> Iterator[tuple[SampleLine, TokenizedSample]]:
    """Render the lines of a data set's file; `dropped` counts by reason those that yield no sample.

    `persona_name` is that of the set's persona, for sets whose lines do not name the speaker yet.

    Raises `MaterialError` for a line that the model's chat template cannot render.
    """
    for line in lines:
        *before, reply = line["messages"]
        default_speaker = "" if line.get("kind") == GENERAL_KIND else persona_name
        speaker = line.get("speaker", default_speaker)
        try:
            sample = renderer.sample_from_messages(before, reply["content"], speaker)
        except (TemplateError, IndexError) as error:
            raise MaterialError(
                f"The base model's chat template cannot render a sample of {line.get('source')}: "
                f"{error}.",
                "Build the data set with --base-model, or choose another base model.",
            ) from error
        if has_no_targets(renderer, sample):
            dropped[NOTHING_TRAINED] += 1
        elif longest is not None and len(sample.ids) > longest:
            dropped[TOO_LONG] += 1
        else:
            yield line, sample


def load_job_dataset(
    job: Path,
    spec: JobSpec,
    inputs: JobInputs,
    renderer: Renderer,
    recipe: Recipe,
    base: BaseModel,
    *,
    stores: bool,
) -> Dataset:
    """Load a job's samples from its data set folder, which is built first unless it is current.

    It stays in the job's folder if it `stores`. Raises `UnderstudyError`.
    """
    current = job_dataset(
        job, spec, inputs, renderer=renderer, recipe=recipe, base=base, stores=stores
    )
    with current as folder:
        return load_dataset(folder, inputs, renderer, recipe)


def load_dataset(folder: Path, content: JobInputs, renderer: Renderer, recipe: Recipe) -> Dataset:
    """Load the samples of a job from its data set folder (`trainer.dataset.run_dataset`).

    Raises `MaterialError` if training or held-out samples are missing, and for a set that is
    damaged or of another persona; `RequestError` for one that has no short card.
    """
    sets, learned, caveats = _load_sets(RunDataset(folder), content, renderer, recipe)
    require_both_sides(len(sets.own), len(sets.heldout), sets.dropped + sets.ledger.dropped)
    general: list[SampleRecord] = []
    mixture_notes: tuple[str, ...] = ()
    # Nothing else is trained on beside preferences.
    if not learned:
        general, mixture_notes = _take_general(sets, content.persona, recipe)
    measuring = _general_holdout(sets.measured, general if content.persona else ())
    said_in_card = _said_in_card(content, renderer, recipe)
    tally = _Tally.of((*sets.heldout, *sets.own, *general, *said_in_card))
    good_replies = sets.own[: learned.good] if learned else sets.own
    first: Sequence[SampleRecord] = ()
    train: Sequence[SampleRecord] = (*sets.own, *general, *said_in_card)
    # With two stages the general samples are the first one, and the persona's own the second.
    if recipe.first_stage_epochs > 0 and content.persona is not None:
        first = general
        train = (*sets.own, *said_in_card)
    return Dataset(
        train=_samples(train),
        heldout=_samples(sets.heldout),
        general=_samples(measuring),
        counts=_sample_counts(sets, tally, general=general, said_in_card=said_in_card),
        rights=dict(tally.rights),
        sources=dict(tally.sources),
        days=dict(tally.days),
        people=add_counts(sets.people, tally.people),
        replaced=sets.replaced,
        name_search=sets.name_search,
        permission=content.consent.permission if DISCORD_API in tally.rights else "",
        ledger=sets.ledger,
        held_out=sets.held_out,
        first=_samples(first),
        stated=sets.stated,
        caveats=(*caveats, *_shortages(sets, tally, content, recipe), *mixture_notes),
        heldout_prompt_replies=_prompt_replies(sets.heldout),
        train_prompt_replies=_prompt_replies(good_replies),
        general_prompt_replies=_prompt_replies(measuring),
        own_words=_own_words(good_replies, made_up=(*sets.pair_sources, WRITTEN_SOURCE)),
        persona=content.persona,
        lore=content.lore,
        preferences=learned,
        trimmed=sets.trimmed + tally.trimmed,
        with_other_card=_with_other_card(train, renderer),
    )


def _load_sets(
    run_set: RunDataset, content: JobInputs, renderer: Renderer, recipe: Recipe
) -> tuple[SampleSets, PreferenceSet | None, tuple[str, ...]]:
    """Load the sets and apply `train_samples` and preferences; return the preference set and notes
    too.
    """
    if content.built:
        if renderer.card == "short":
            raise RequestError(
                f"The prompts of the data set {content.built.name} hold the full card, and cannot be "
                "measured under the short one.",
                "Leave --short-card out.",
            )
        sets = _load_built_sets(content.built, run_set, content, renderer=renderer, recipe=recipe)
    else:
        sets = _load_run_sets(run_set, content)
    sets, caveats = _limit_samples(sets, recipe, by_source=content.persona is None)
    preferences = run_set.preferences()
    if not preferences:
        return sets, None, caveats
    sets, learned, notes = apply_preferences(
        sets, preferences, content.persona, lore=content.lore, renderer=renderer, recipe=recipe
    )
    return sets, learned, caveats + notes


def _said_in_card(content: JobInputs, renderer: Renderer, recipe: Recipe) -> list[SampleRecord]:
    """Return the card's own exchanges, where a version learns from its card and under the short one."""
    if not (content.persona and content.from_card and recipe.short_card_share):
        return []
    card = content.paths["card"][0][1]
    return card_records(
        content.persona,
        renderer,
        max_tokens=recipe.max_length,
        right=card.right,
        arrived=card.arrived,
    )


def _load_run_sets(run_set: RunDataset, content: JobInputs) -> SampleSets:
    """Load the sets of a job's own conversations, which were split and rendered for this run."""
    stats = run_set.stats
    pair_counts, pair_sources = stats.get("pairs", ({}, ()))
    return SampleSets(
        own=run_set.records(TRAIN_FILE),
        general=run_set.records(MIXED_FILE),
        heldout=run_set.records(EVAL_FILE),
        counts=_counts(stats["counts"]) | _counts(pair_counts),
        ledger=_load_ledger(stats),
        held_out=HoldoutIndex.read(run_set.folder / HOLDOUT_FILE, content.keys.people),
        measured=run_set.records(MEASURED_FILE),
        rejected=run_set.rejected,
        people=run_set.people,
        replaced=run_set.replaced,
        name_search=run_set.name_search,
        pair_sources=tuple(pair_sources),
    )


def _load_built_sets(
    folder: Path, run_set: RunDataset, content: JobInputs, renderer: Renderer, recipe: Recipe
) -> SampleSets:
    """Load the samples of a built data set.

    If a persona's recipe mixes in general dialogue, the set's own is used as far as the recipe
    says, and its held-out part measures forgetting; otherwise all of the set is trained on. Raises
    `MaterialError` for a damaged set, and for one of another persona.
    """
    stats = read_stats(folder)
    _require_same_persona(content.persona, stats, folder)
    earlier = content.held_out or HoldoutIndex.empty(content.keys.people)
    held_out = HoldoutIndex.read(folder / HOLDOUT_FILE, content.keys.people).merge(earlier)
    reader = _DatasetReader(folder, content, renderer, recipe)
    heldout = reader.read(EVAL_FILE)
    train = reader.drop_held_out(reader.read(TRAIN_FILE), held_out)
    general: list[_LoadedSample] = []
    measured: list[_LoadedSample] = []
    if content.persona and mixes_general(recipe):
        train, general = _split_general_samples(train)
        general = order_by_text(general, _text)
        own_heldout, general_heldout = _split_general_samples(heldout)
        # Without any, the general replies are all that can be evaluated.
        if own_heldout:
            heldout = own_heldout
            measured = general_heldout
    stated = {}
    for name, statement in dict(stats.get("statements") or {}).items():
        stated[str(name)] = dict(statement)
    return SampleSets(
        own=_records(train),
        general=_records(general) or run_set.records(MIXED_FILE),
        heldout=_records(heldout),
        counts={},
        ledger=_load_ledger(stats),
        held_out=held_out,
        measured=[*_records(measured), *run_set.records(MEASURED_FILE)],
        dropped=reader.dropped,
        people=add_counts(run_set.people, read_participants(folder)),
        replaced=add_counts(run_set.replaced, _counts(stats.get("replaced"))),
        name_search=add_searched_scripts(run_set.name_search, dict(stats.get("name_search") or {})),
        stated=stated,
        trimmed=int(stats.get("with_trimmed_history") or 0),
    )


def _limit_samples(
    sets: SampleSets, recipe: Recipe, *, by_source: bool
) -> tuple[SampleSets, tuple[str, ...]]:
    """Keep `train_samples` of the job's own samples, drawn by the seed; a larger number adds to
    them.

    `by_source` draws all samples of the first source before any of the next.
    """
    wanted_samples = recipe.train_samples
    own = sets.own
    if not wanted_samples:
        return sets, ()
    # All are drawn, so that a larger number takes the same samples and more.
    drawn = random.Random(recipe.seed).sample(range(len(own)), len(own))  # nosec B311  # repeatable
    if by_source:
        names = list(dict.fromkeys(record.source for record in own))
        drawn.sort(key=lambda index: names.index(own[index].source))
    taken = drawn[:wanted_samples]
    limited = replace(sets, own=[own[index] for index in sorted(taken)])
    missing = wanted_samples - len(taken)
    # A recipe states the most that it takes; a request asks for so many.
    if not missing or "train_samples" not in recipe.model_fields_set:
        return limited, ()
    note = (
        f"There are {len(own):,} samples to train on, {missing:,} fewer than train_samples asks "
        "for."
    )
    return limited, (note,)


def _take_general(
    sets: SampleSets, persona: Persona | None, recipe: Recipe
) -> tuple[list[SampleRecord], tuple[str, ...]]:
    """Take the general samples to train on, with a note if they are fewer than requested."""
    if not mixes_general(recipe):
        return list(sets.general), ()
    if persona is None:
        ignored = (
            "A dialogue job trains on general dialogue alone: general_share and first_stage_epochs "
            "change nothing."
        )
        return list(sets.general), (ignored,)
    own = len(sets.own)
    most = general_sample_count(recipe, own)
    taken = list(itertools.islice(sets.general, most))
    caveat = mixture_caveat(recipe, own, len(taken))
    if caveat:
        return taken, (caveat,)
    return taken, ()


@dataclass
class _Tally:
    """Counts of samples."""

    rights: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    with_lore: int = 0
    with_short_card: int = 0
    trimmed: int = 0

    @classmethod
    def of(cls, samples: Iterable[SampleRecord]) -> Self:
        """Count samples."""
        tally = cls()
        for record in samples:
            tally.people.update(record.people)
            tally.rights[record.right] += 1
            tally.sources[record.source] += 1
            tally.days[record.arrived] += 1
            tally.with_lore += record.has_lore
            tally.with_short_card += record.has_short_card
            tally.trimmed += record.is_trimmed
        return tally

    def from_sources(self, names: Iterable[str]) -> int:
        """Return the number of samples from these sources."""
        return sum(self.sources[name] for name in names)


def _sample_counts(
    sets: SampleSets,
    tally: _Tally,
    *,
    general: Sequence[SampleRecord],
    said_in_card: Sequence[SampleRecord],
) -> dict[str, int]:
    """Return the numbers of samples and records by what they are, as the run's report has them."""
    counts = {
        **sets.counts,
        "samples_train": len(sets.own) + len(general) + len(said_in_card),
        "samples_heldout": len(sets.heldout),
        "samples_with_lore": tally.with_lore,
    }
    if tally.with_short_card:
        counts[SHORT_CARD_COUNT] = tally.with_short_card
    if general:
        counts["samples_general"] = len(general)
    if sets.pair_sources:
        counts["samples_from_lore"] = tally.from_sources(sets.pair_sources)
    dropped = sets.rejected + sets.dropped + sets.ledger.replies
    return counts | {f"dropped: {reason}": count for reason, count in sorted(dropped.items())}


def _shortages(
    sets: SampleSets, tally: _Tally, content: JobInputs, recipe: Recipe
) -> tuple[str, ...]:
    """Say where fewer samples are from lore, or written from the card, than the request asks for."""
    samples = len(sets.own) + len(sets.heldout)
    notes = []
    if sets.pair_sources:
        from_lore = tally.from_sources(sets.pair_sources)
        notes.append(lore_pairs_caveat(content.lore_pairs, from_lore, samples))
    if content.from_card:
        few = written_caveat(
            content.from_card,
            tally.sources[WRITTEN_SOURCE],
            samples,
            most=recipe.written_replies,
            drawn=recipe.train_samples if len(sets.own) == recipe.train_samples else 0,
        )
        notes.append(few)
    return tuple(note for note in notes if note)


def _general_holdout(
    measured: Sequence[SampleRecord], trained: Iterable[SampleRecord]
) -> Sequence[SampleRecord]:
    """Drop samples that the run trains on from those that measure forgetting, unless none would be
    left.
    """
    known = {record.sample for record in trained}
    return [record for record in measured if record.sample not in known] or measured


def _samples(records: Iterable[SampleRecord]) -> tuple[TokenizedSample, ...]:
    return tuple(record.sample for record in records)


def _with_other_card(train: Sequence[SampleRecord], renderer: Renderer) -> frozenset[int]:
    if renderer.card == "short":  # as all samples then have
        return frozenset()
    return frozenset(place for place, record in enumerate(train) if record.has_short_card)


def _prompt_replies(records: Iterable[SampleRecord]) -> tuple[PromptReply, ...]:
    return tuple(record.said for record in records)


def _own_words(
    records: Iterable[SampleRecord], *, made_up: Collection[str]
) -> tuple[PromptReply, ...]:
    """Return what the persona's author wrote, and may be said as it is: nothing of members or of a
    person's own data, and nothing from the sources that were `made_up` by rules or a model.
    """
    words = []
    for record in records:
        is_authors = is_published(record.right) and record.source not in made_up
        if is_authors and record.said.by_persona:
            words.append(record.said)
    return tuple(words)


@dataclass(frozen=True)
class _LoadedSample:
    line: SampleLine
    record: SampleRecord

    @property
    def is_general(self) -> bool:
        return self.line.get("kind") == GENERAL_KIND


def _split_general_samples(
    samples: Iterable[_LoadedSample],
) -> tuple[list[_LoadedSample], list[_LoadedSample]]:
    """Return the persona's own samples, and those of general dialogue."""
    own: list[_LoadedSample] = []
    general: list[_LoadedSample] = []
    for sample in samples:
        side = general if sample.is_general else own
        side.append(sample)
    return own, general


def _records(samples: Iterable[_LoadedSample]) -> list[SampleRecord]:
    return [sample.record for sample in samples]


class _DatasetReader:
    """Reads the files of one data set; `dropped` counts the samples that are left out, by
    reason.
    """

    def __init__(
        self, folder: Path, content: JobInputs, renderer: Renderer, recipe: Recipe
    ) -> None:
        self._folder = folder
        self._renderer = renderer
        self._longest = recipe.max_length
        self._allowed = ConsentCheck.today(content.consent, content.keys.people)
        self._persona_name = content.persona.name if content.persona else ""
        self._between = content.between
        self.dropped: Counter[str] = Counter()

    def read(self, file: str) -> list[_LoadedSample]:
        """Read the lines of a file that may be used and fit, in order."""
        lines = filter(self._may_be_used, read_samples(self._folder / file))
        rendered = render_lines(
            lines,
            self._renderer,
            self.dropped,
            longest=self._longest,
            persona_name=self._persona_name,
        )
        return [_LoadedSample(line, _sample_record(line, sample)) for line, sample in rendered]

    def drop_held_out(
        self, train: list[_LoadedSample], held_out: HoldoutIndex
    ) -> list[_LoadedSample]:
        """Drop replies that were held out elsewhere since the set was built."""
        replies = [sample.line["messages"][-1]["content"] for sample in train]
        unknown = []
        for sample, is_known in zip(train, match_held_out(replies, held_out), strict=True):
            if is_known:
                self.dropped[HELD_OUT_BEFORE] += 1
            else:
                unknown.append(sample)
        return unknown

    def _may_be_used(self, line: SampleLine) -> bool:
        self._between()
        fault = self._allowed.fault(line, self._folder.name)
        if fault:
            self.dropped[fault] += 1
        return not fault


def _require_same_persona(persona: Persona | None, stats: Mapping[str, Any], folder: Path) -> None:
    persona_id = persona.id if persona else None
    made_for = stats["persona"]
    if made_for != persona_id:
        raise MaterialError(
            f"The data set {folder.name} was made for {made_for or 'dialogue'}, not for "
            f"{persona_id or 'dialogue'}.",
            "Build one with the same --persona as the run, or leave --persona out of both.",
        )


def _load_ledger(stats: Mapping[str, Any]) -> Ledger:
    """Read the ledger of the records that the set was built from."""
    dropped = Counter(_counts(stats["dropped"]))
    replies = Counter(_counts(stats.get("dropped_replies")))
    return Ledger(
        rows=int(stats["rows"]), rows_used=int(stats["rows_used"]), dropped=dropped, replies=replies
    )


def _counts(stored: Any) -> dict[str, int]:
    return {str(name): int(count) for name, count in dict(stored or {}).items()}


def _sample_record(line: SampleLine, sample: TokenizedSample) -> SampleRecord:
    return SampleRecord(
        sample,
        right=str(line.get("right") or ""),
        source=str(line.get("source") or ""),
        arrived=str(line.get("arrived") or ""),
        said=prompt_reply_of_line(line),
        has_lore=bool(line.get("lore")),
        has_short_card=bool(line.get("short_card")),
    )


def _text(sample: _LoadedSample) -> str:
    return json.dumps(sample.line["messages"], ensure_ascii=False)
