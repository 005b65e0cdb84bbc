"""`python -m trainer.bench.pii`: how much personal data the anonymiser finds, and how much else it takes for some.

Over the texts of data/pii (`make bench-pii`), or with `--file` over a file in the shape of presidio-research. Recall is
the share of marked spans of which nine tenths or more are replaced; precision the share of replaced characters that lie
inside any marked span, of whatever kind. Prints tables and writes build/bench/pii.json; exit code 1 where the texts of
data/pii are read less well than `FLOORS` says.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.errors import UnderstudyError
from trainer.anonymise import Anonymiser, Entity
from trainer.bench.pii_texts import LANGUAGES, Gold, Judged, of_presidio, ours
from trainer.conversation import Conversation, Message, Speaker

RESULT = Path("build/bench/pii.json")
PACKAGES = ("phonenumbers", "python-crfsuite")
COVERED = 0.9
FLOORS = {"recall_structured": 0.97, "recall_known_names": 0.97, "precision": 0.9}
COMPARED = (
    "PERSON STREET_ADDRESS EMAIL_ADDRESS PHONE_NUMBER CREDIT_CARD IBAN_CODE IP_ADDRESS US_SSN"  # of presidio-research
).split()
KEY = bytes(32)
PASSES = 3


@dataclass
class Tally:
    """Marked spans and how many were found; replaced characters and how many of them lie in marked spans."""

    gold: int = 0
    found: int = 0
    replaced: int = 0
    rightly: int = 0

    @property
    def recall(self) -> float | None:
        """None where nothing was to be found."""
        return self.found / self.gold if self.gold else None

    @property
    def precision(self) -> float | None:
        """None where nothing was replaced."""
        return self.rightly / self.replaced if self.replaced else None

    def add(self, other: Tally) -> None:
        """Count the other in."""
        self.gold += other.gold
        self.found += other.found
        self.replaced += other.replaced
        self.rightly += other.rightly

    def told(self) -> dict[str, Any]:
        """For the file."""
        return {"gold": self.gold, "found": self.found, "recall": self.recall, "precision": self.precision}


@dataclass
class Score:
    """Tallies of many texts: by kind, by language, and of groups of kinds ("structured", "known", "names")."""

    by_kind: dict[str, Tally] = field(default_factory=dict)
    by_language: dict[str, Tally] = field(default_factory=dict)
    groups: dict[str, Tally] = field(default_factory=dict)
    missed: list[tuple[Judged, Gold]] = field(default_factory=list)
    wrong: list[tuple[Judged, Entity]] = field(default_factory=list)

    def read(self, judged: Judged, entities: Iterable[Entity]) -> None:
        """Count one text."""
        marked = {place for gold in judged.gold for place in range(gold.start, gold.end)}
        entities = list(entities)
        covered = {place for entity in entities for place in range(entity.start, entity.end)}
        for gold in judged.gold:
            hit = sum(place in covered for place in range(gold.start, gold.end)) >= COVERED * (gold.end - gold.start)
            self._count(judged, gold.kind, group_of(gold), Tally(1, int(hit)))
            if not hit:
                self.missed.append((judged, gold))
        for entity in entities:
            rightly = sum(place in marked for place in range(entity.start, entity.end))
            length = entity.end - entity.start
            self._count(judged, entity.kind, "", Tally(0, 0, length, rightly))
            if 2 * rightly < length:
                self.wrong.append((judged, entity))

    def _count(self, judged: Judged, kind: str, group: str, tally: Tally) -> None:
        for tallies, name in ((self.by_kind, kind), (self.by_language, judged.language), (self.groups, group)):
            tallies.setdefault(name, Tally()).add(tally)

    def recall(self, group: str) -> float | None:
        """Of a group."""
        return self.groups.get(group, Tally()).recall

    def whole(self, kinds: Sequence[str] = ()) -> Tally:
        """All kinds together; the recall of those named only."""
        whole = Tally()
        for kind, tally in self.by_kind.items():
            counts = not kinds or kind in kinds
            whole.add(Tally(tally.gold * counts, tally.found * counts, tally.replaced, tally.rightly))
        return whole


def group_of(gold: Gold) -> str:
    """ "known", "names", "addresses" or "structured"."""
    if gold.is_known:
        return "known"
    return {"PERSON": "names", "STREET_ADDRESS": "addresses"}.get(gold.kind, "structured")


def anonymisers(texts: Sequence[Judged]) -> dict[tuple[str, bool], Anonymiser]:
    """One per language for texts of nobody in particular, one for those whose people are in a log."""
    made: dict[tuple[str, bool], Anonymiser] = {}
    for language in dict.fromkeys(judged.language for judged in texts):
        made[language, False] = Anonymiser(KEY)
        about = [judged for judged in texts if judged.language == language and judged.speaker]
        if about:
            made[language, True] = Anonymiser(KEY)
            made[language, True].meet(log_of(about))
    return made


def log_of(texts: Sequence[Judged]) -> Conversation:
    """A log in which everybody who is spoken of speaks: each says what is said of the next."""
    speakers = [
        Speaker(f"{9_000 + index}", names) for index, names in enumerate(dict.fromkeys(j.speaker for j in texts))
    ]
    ids = {speaker.names: index for index, speaker in enumerate(speakers)}
    messages = [
        Message(speakers[(ids[judged.speaker] + 1) % len(speakers)], judged.text, str(row))
        for row, judged in enumerate(texts)
    ]
    return Conversation.of(messages, "data/pii", "own-writing")


def measure(texts: Sequence[Judged]) -> tuple[Score, float, str]:
    """(score, texts per second of processor time, who found names). The fastest of three passes counts."""
    score, seconds, by = Score(), float("inf"), ""
    for turn in range(PASSES):
        readers = anonymisers(texts)
        by = next(iter(readers.values())).names.by
        begun = time.process_time()
        found = [readers[judged.language, bool(judged.speaker)].found(judged.text) for judged in texts]
        seconds = min(seconds, time.process_time() - begun)
        if not turn:
            for judged, entities in zip(texts, found, strict=True):
                score.read(judged, entities)
    return score, len(texts) / seconds, by


def figures_of(score: Score, texts_per_s: float, model: str, count: int) -> dict[str, Any]:
    """As written to the file."""
    return {
        "texts": count,
        "recall_structured": score.recall("structured"),
        "recall_known_names": score.recall("known"),
        "recall_names": score.recall("names"),
        "recall_addresses": score.recall("addresses"),
        "precision": score.whole().precision,
        "texts_per_s": texts_per_s,
        "model": model,
        "by_kind": {kind: tally.told() for kind, tally in sorted(score.by_kind.items())},
        "by_language": {name: tally.told() for name, tally in score.by_language.items()},
    }


def table(score: Score) -> str:
    """Kinds, then languages, then all."""
    lines = [f"{'':18}{'to find':>8}{'found':>7}{'recall':>8}{'precision':>11}"]
    lines += [_line(kind, tally) for kind, tally in sorted(score.by_kind.items())]
    lines += ["", *(_line(name, score.by_language[name]) for name in LANGUAGES if name in score.by_language)]
    groups = (("structured", "structured"), ("names from the log", "known"), ("other names", "names"))
    lines += ["", *(_line(name, score.groups[group]) for name, group in groups if group in score.groups)]
    return "\n".join([*lines, _line("all", score.whole())])


def _line(name: str, tally: Tally) -> str:
    return f"{name:18}{tally.gold:>8}{tally.found:>7}{_share(tally.recall):>8}{_share(tally.precision):>11}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def below(figures: dict[str, Any]) -> list[str]:
    """What is read less well than it must be."""
    return [
        f"{name} {figures[name] or 0:.3f} < {floor}" for name, floor in FLOORS.items() if (figures[name] or 0) < floor
    ]


def judge_ours(errors: bool) -> int:
    """Read data/pii, print, write; 1 where a floor is missed."""
    texts = ours()
    score, texts_per_s, model = measure(texts)
    figures = figures_of(score, texts_per_s, model, len(texts))
    print(table(score))
    print(f"{len(texts)} texts, {texts_per_s:,.0f} a second on one core; names found by {model}")
    if errors:
        print_errors(score)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**figures, "machine": machine, "versions": versions}, indent=2) + "\n")
    print(f"written to {RESULT}")
    if wrong := below(figures):
        print(f"Less is found than must be: {', '.join(wrong)}.", file=sys.stderr)
    return 1 if wrong else 0


def judge_file(path: Path, errors: bool) -> int:
    """Read a file of presidio-research's shape and print recall over the kinds that we know, and precision."""
    texts = of_presidio(path)
    score, texts_per_s, model = measure(texts)
    for kind in COMPARED:
        if kind in score.by_kind:
            print(_line(kind, score.by_kind[kind]))
    whole = score.whole(COMPARED)
    print(f"recall {_share(whole.recall)}, precision {_share(whole.precision)}")
    print(f"{len(texts)} texts, {texts_per_s:,.0f} a second on one core; names found by {model}")
    if errors:
        print_errors(score, COMPARED)
    return 0


def print_errors(score: Score, kinds: Sequence[str] = ()) -> None:
    """What was missed, and what was replaced without reason, one a line."""
    for judged, gold in score.missed:
        if not kinds or gold.kind in kinds:
            print(f"missed {gold.kind}: {judged.text[gold.start : gold.end]!r} in {judged.text!r}")
    for judged, entity in score.wrong:
        print(f"wrong {entity.kind}: {judged.text[entity.start : entity.end]!r} in {judged.text!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge."""
    parser = argparse.ArgumentParser("python -m trainer.bench.pii", description=__doc__)
    parser.add_argument("--file", type=Path, help="judge on this file of presidio-research's shape instead")
    parser.add_argument("--errors", action="store_true", help="also list what was missed and what was replaced wrongly")
    options = parser.parse_args(arguments)
    try:
        return judge_file(options.file, options.errors) if options.file else judge_ours(options.errors)
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
