"""Samples of a data set that `dataset build` made: rendered anew for the base model of the run, and asked again.

A set holds chat messages, so any model's template can render them, and what was counted in another model's tokens is
counted anew. Its people are asked today: a sample that came through Discord's API is left out unless all whose words
it holds have opted in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from personas.consent import Consent
from personas.contracts import Persona
from personas.errors import MaterialError
from personas.heldout import HELD_OUT_FILE, HeldOut
from personas.keys import keyed
from personas.prompt import Renderer, Sample
from personas.rights import DISCORD_API, decide
from trainer.building.filters import Filters
from trainer.building.folder import EVAL_FILE, TRAIN_FILE, people_of, read_samples, read_stats
from trainer.building.heldout import were_held_out
from trainer.building.ledger import Ledger
from trainer.building.samples import HELD_BEFORE, NOTHING_TRAINED, TOO_LONG, SampleMaker, learns_nothing
from trainer.dataset import Counted, Parts, general_samples
from trainer.exchange import GENERAL, exchange_in_line
from trainer.general import in_order, mixes
from trainer.material import Content
from trainer.recipe import Recipe
from trainer.sources.consented import NOT_OPTED_IN

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Allowed:
    """What may be used of the lines of a data set today. `people` are those who have opted in, under the people key."""

    consent: Consent
    people: frozenset[str]

    @classmethod
    def today(cls, consent: Consent, people_key: bytes) -> Allowed:
        """What this consent allows."""
        return cls(consent, frozenset(keyed(people_key, id) for id in consent.opted_in))

    def fault(self, line: Line, name: str) -> str:
        """Why a line is left out; empty where it may be used. Raises `MaterialError` where nobody allows any of it."""
        right = str(line.get("right") or "")
        decide(f"A sample of {name}", signed=right, consent=self.consent).require()
        if right != DISCORD_API:
            return ""
        if not isinstance(people := line.get("people"), list):
            raise MaterialError(
                f"{name} holds samples from Discord that do not say whose words they are.", "Build the data set anew."
            )
        return "" if self.people.issuperset(people) else NOT_OPTED_IN


def samples_of(
    lines: Iterator[Line], renderer: Renderer, dropped: Counter[str], longest: int | None = None
) -> Iterator[tuple[Line, Sample]]:
    """The lines of a data set's file, each with its sample; `dropped` counts those that make none, by reason.

    Raises `MaterialError` for a line that the model's template cannot render.
    """
    for line in lines:
        *before, reply = line["messages"]
        try:
            sample = renderer.sample_of(before, reply["content"])
        except (TemplateError, IndexError) as error:
            raise MaterialError(
                f"The base model's chat template cannot render a sample of {line.get('source')}: {error}.",
                "Build the data set with --base-model, or choose another base model.",
            ) from error
        if learns_nothing(renderer, sample):
            dropped[NOTHING_TRAINED] += 1
        elif longest is not None and len(sample.ids) > longest:
            dropped[TOO_LONG] += 1
        else:
            yield line, sample


def parts_of_set(folder: Path, content: Content, renderer: Renderer, recipe: Recipe) -> Parts:
    """What a data set holds to train and measure with.

    Where a persona's recipe mixes general dialogue in, the set's own is taken as far as the recipe says, and what the
    set holds out of it measures forgetting; elsewhere all is trained on as it was built. Raises `MaterialError` for a
    damaged set, and for one that was made for somebody else.
    """
    stats = read_stats(folder)
    _require_made_for(content.persona, stats, folder)
    held_out = HeldOut.read(folder / HELD_OUT_FILE, content.people_key).joined(_home_list(content))
    reader = _Reader(folder, content, renderer, recipe)
    heldout, train = reader.read(EVAL_FILE), reader.read(TRAIN_FILE)
    train = reader.not_held_out(train, held_out)
    general: list[Counted] = []
    measured: list[Counted] = []
    if content.persona and mixes(recipe):
        general = [it.counted for it in in_order([it for it in train if it.is_general], _text)]
        train = [it for it in train if not it.is_general]
        if any(not it.is_general for it in heldout):
            measured = [it.counted for it in heldout if it.is_general]
            heldout = [it for it in heldout if not it.is_general]
    maker = SampleMaker(renderer, content.persona, None, recipe, Filters())
    return Parts(
        own=[it.counted for it in train],
        general=general or general_samples(content, maker),
        heldout=[it.counted for it in heldout],
        counts={},
        ledger=_ledger(stats),
        held_out=held_out,
        measured=measured,
        dropped=reader.dropped,
        people=people_of(folder),
        replaced=_counts(stats.get("replaced")),
        stated={str(name): dict(stated) for name, stated in dict(stats.get("statements") or {}).items()},
        trimmed=int(stats.get("with_trimmed_history") or 0),
    )


@dataclass(frozen=True)
class _Read:
    line: Line
    counted: Counted

    @property
    def is_general(self) -> bool:
        return self.line.get("kind") == GENERAL


class _Reader:
    """Reads the files of one data set; `dropped` counts the samples that are left out, by reason."""

    def __init__(self, folder: Path, content: Content, renderer: Renderer, recipe: Recipe) -> None:
        self._folder, self._renderer, self._longest = folder, renderer, recipe.max_length
        self._allowed = Allowed.today(content.consent, content.people_key)
        self.dropped: Counter[str] = Counter()

    def read(self, file: str) -> list[_Read]:
        """What may be used of a file and fits, in its order."""
        lines = filter(self._may_be_used, read_samples(self._folder / file))
        found = samples_of(lines, self._renderer, self.dropped, self._longest)
        return [_Read(line, _counted(line, sample)) for line, sample in found]

    def not_held_out(self, train: list[_Read], held_out: HeldOut) -> list[_Read]:
        """Without the replies that were held out elsewhere since the set was built."""
        known = were_held_out([it.line["messages"][-1]["content"] for it in train], held_out)
        self.dropped.update({HELD_BEFORE: sum(known)} if any(known) else {})
        return [it for it, is_known in zip(train, known, strict=True) if not is_known]

    def _may_be_used(self, line: Line) -> bool:
        fault = self._allowed.fault(line, self._folder.name)
        self.dropped.update([fault] if fault else [])
        return not fault


def _require_made_for(persona: Persona | None, stats: Mapping[str, Any], folder: Path) -> None:
    persona_id, made_for = persona.id if persona else None, stats["persona"]
    if made_for != persona_id:
        raise MaterialError(
            f"The data set {folder.name} was made for {made_for or 'dialogue'}, not for {persona_id or 'dialogue'}.",
            "Build one with the same --persona as the run, or leave --persona out of both.",
        )


def _home_list(content: Content) -> HeldOut:
    return content.held_out or HeldOut.nothing(content.people_key)


def _ledger(stats: Mapping[str, Any]) -> Ledger:
    """The account of the records that the set was built of, as it was kept then."""
    dropped = Counter(_counts(stats["dropped"]))
    replies = Counter(_counts(stats.get("dropped_replies")))
    return Ledger(rows=int(stats["rows"]), rows_used=int(stats["rows_used"]), dropped=dropped, replies=replies)


def _counts(found: Any) -> dict[str, int]:
    return {str(name): int(count) for name, count in dict(found or {}).items()}


def _counted(line: Line, sample: Sample) -> Counted:
    of = (str(line.get("right") or ""), str(line.get("source") or ""), str(line.get("arrived") or ""))
    return Counted(sample, *of, exchange_in_line(line), has_lore=bool(line.get("lore")))


def _text(read: _Read) -> str:
    return json.dumps(read.line["messages"], ensure_ascii=False)
