"""Loads a built data set for a run: renders it for the run's base model and checks consent again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from personas.errors import MaterialError
from personas.home.data_subjects import Consent
from personas.home.datasets import EVAL_FILE, TRAIN_FILE
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex
from personas.home.pseudonyms import keyed_person
from personas.home.rights import decide_right
from personas.prompt import Renderer, TokenizedSample
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import Persona
from trainer.data.data_mixture import mixes_general, order_by_text
from trainer.data.holdout_fingerprints import match_held_out
from trainer.data.job_inputs import JobInputs
from trainer.data.layout import read_participants, read_samples, read_stats
from trainer.data.ledger import Ledger
from trainer.data.quality_filters import QualityFilters
from trainer.data.sample_renderer import HELD_OUT_BEFORE, NOTHING_TRAINED, TOO_LONG, SampleRenderer, has_no_targets
from trainer.data.sample_sets import SampleRecord, SampleSets, general_samples
from trainer.schemas import GENERAL_KIND, Recipe, prompt_reply_of_line
from trainer.sources.speakers import NOT_OPTED_IN

SampleLine = Mapping[str, Any]


@dataclass(frozen=True)
class ConsentCheck:
    """What may be used of the lines of a data set today. `people` are those who have opted in, under the people key."""

    consent: Consent
    people: frozenset[str]

    @classmethod
    def today(cls, consent: Consent, people_key: bytes) -> ConsentCheck:
        """What this consent allows."""
        return cls(consent, frozenset(keyed_person(people_key, id) for id in consent.opted_in))

    def fault(self, line: SampleLine, name: str) -> str:
        """Why a line is left out; empty where it may be used. Raises `MaterialError` where nobody allows any of it."""
        right = str(line.get("right") or "")
        decide_right(f"A sample of {name}", stated=right, consent=self.consent).require()
        if right != DISCORD_API:
            return ""
        if not isinstance(people := line.get("people"), list):
            raise MaterialError(
                f"{name} holds samples from Discord that do not say whose words they are.", "Build the data set again."
            )
        return "" if self.people.issuperset(people) else NOT_OPTED_IN


def render_lines(
    lines: Iterator[SampleLine], renderer: Renderer, dropped: Counter[str], longest: int | None = None
) -> Iterator[tuple[SampleLine, TokenizedSample]]:
    """The lines of a data set's file, each with its sample; `dropped` counts those that make none, by reason.

    Raises `MaterialError` for a line that the model's template cannot render.
    """
    for line in lines:
        *before, reply = line["messages"]
        try:
            sample = renderer.sample_from_messages(before, reply["content"])
        except (TemplateError, IndexError) as error:
            raise MaterialError(
                f"The base model's chat template cannot render a sample of {line.get('source')}: {error}.",
                "Build the data set with --base-model, or choose another base model.",
            ) from error
        if has_no_targets(renderer, sample):
            dropped[NOTHING_TRAINED] += 1
        elif longest is not None and len(sample.ids) > longest:
            dropped[TOO_LONG] += 1
        else:
            yield line, sample


def load_sample_sets(folder: Path, content: JobInputs, renderer: Renderer, recipe: Recipe) -> SampleSets:
    """What a data set holds to train and measure with.

    Where a persona's recipe mixes general dialogue in, the set's own is taken as far as the recipe says, and what the
    set holds out of it measures forgetting; elsewhere all is trained on as it was built. Raises `MaterialError` for a
    damaged set, and for one that was made for somebody else.
    """
    stats = read_stats(folder)
    _require_same_persona(content.persona, stats, folder)
    held_out = HoldoutIndex.read(folder / HOLDOUT_FILE, content.people_key).merge(_home_holdout(content))
    reader = _DatasetReader(folder, content, renderer, recipe)
    heldout, train = reader.read(EVAL_FILE), reader.read(TRAIN_FILE)
    train = reader.drop_held_out(train, held_out)
    general: list[SampleRecord] = []
    measured: list[SampleRecord] = []
    if content.persona and mixes_general(recipe):
        general = [it.counted for it in order_by_text([it for it in train if it.is_general], _text)]
        train = [it for it in train if not it.is_general]
        if any(not it.is_general for it in heldout):
            measured = [it.counted for it in heldout if it.is_general]
            heldout = [it for it in heldout if not it.is_general]
    maker = SampleRenderer(renderer, content.persona, None, recipe, QualityFilters())
    return SampleSets(
        own=[it.counted for it in train],
        general=general or general_samples(content, maker),
        heldout=[it.counted for it in heldout],
        counts={},
        ledger=_load_ledger(stats),
        held_out=held_out,
        measured=measured,
        dropped=reader.dropped,
        people=read_participants(folder),
        replaced=_counts(stats.get("replaced")),
        stated={str(name): dict(stated) for name, stated in dict(stats.get("statements") or {}).items()},
        trimmed=int(stats.get("with_trimmed_history") or 0),
    )


@dataclass(frozen=True)
class _LoadedSample:
    line: SampleLine
    counted: SampleRecord

    @property
    def is_general(self) -> bool:
        return self.line.get("kind") == GENERAL_KIND


class _DatasetReader:
    """Reads the files of one data set; `dropped` counts the samples that are left out, by reason."""

    def __init__(self, folder: Path, content: JobInputs, renderer: Renderer, recipe: Recipe) -> None:
        self._folder, self._renderer, self._longest = folder, renderer, recipe.max_length
        self._allowed = ConsentCheck.today(content.consent, content.people_key)
        self.dropped: Counter[str] = Counter()

    def read(self, file: str) -> list[_LoadedSample]:
        """What may be used of a file and fits, in its order."""
        lines = filter(self._may_be_used, read_samples(self._folder / file))
        found = render_lines(lines, self._renderer, self.dropped, self._longest)
        return [_LoadedSample(line, _sample_record(line, sample)) for line, sample in found]

    def drop_held_out(self, train: list[_LoadedSample], held_out: HoldoutIndex) -> list[_LoadedSample]:
        """Without the replies that were held out elsewhere since the set was built."""
        known = match_held_out([it.line["messages"][-1]["content"] for it in train], held_out)
        self.dropped.update({HELD_OUT_BEFORE: sum(known)} if any(known) else {})
        return [it for it, is_known in zip(train, known, strict=True) if not is_known]

    def _may_be_used(self, line: SampleLine) -> bool:
        fault = self._allowed.fault(line, self._folder.name)
        self.dropped.update([fault] if fault else [])
        return not fault


def _require_same_persona(persona: Persona | None, stats: Mapping[str, Any], folder: Path) -> None:
    persona_id, made_for = persona.id if persona else None, stats["persona"]
    if made_for != persona_id:
        raise MaterialError(
            f"The data set {folder.name} was made for {made_for or 'dialogue'}, not for {persona_id or 'dialogue'}.",
            "Build one with the same --persona as the run, or leave --persona out of both.",
        )


def _home_holdout(content: JobInputs) -> HoldoutIndex:
    return content.held_out or HoldoutIndex.empty(content.people_key)


def _load_ledger(stats: Mapping[str, Any]) -> Ledger:
    """The account of the records that the set was built of, as it was kept then."""
    dropped = Counter(_counts(stats["dropped"]))
    replies = Counter(_counts(stats.get("dropped_replies")))
    return Ledger(rows=int(stats["rows"]), rows_used=int(stats["rows_used"]), dropped=dropped, replies=replies)


def _counts(found: Any) -> dict[str, int]:
    return {str(name): int(count) for name, count in dict(found or {}).items()}


def _sample_record(line: SampleLine, sample: TokenizedSample) -> SampleRecord:
    of = (str(line.get("right") or ""), str(line.get("source") or ""), str(line.get("arrived") or ""))
    return SampleRecord(sample, *of, prompt_reply_of_line(line), has_lore=bool(line.get("lore")))


def _text(read: _LoadedSample) -> str:
    return json.dumps(read.line["messages"], ensure_ascii=False)
