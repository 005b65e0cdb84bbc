"""`python -m benchmarks.studies.pii_detection`: recall, precision and speed of the anonymiser."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.studies.contact_blocks import KEPT_NAMES, development_blocks, held_out_blocks
from benchmarks.studies.pii_corpus import (
    HELD_OUT_SEEDS,
    LANGUAGES,
    NOUN_FIRST,
    OPTIONAL_KINDS,
    AnnotatedText,
    GoldSpan,
    read_corpus,
    read_held_out,
    read_plain_sentences,
    read_presidio,
)
from personas.errors import UnderstudyError
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.spans import Entity
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

RESULT = Path("build/bench/pii.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
# Tables in the document, between `<!-- name -->` and `<!-- end of name -->`.
TABLE = "pii table"
BLOCKS_TABLE = "pii blocks table"
HELD_OUT_TABLE = "pii held-out table"
PLAIN_TABLE = "pii plain table"
PACKAGES = ("phonenumbers", "python-crfsuite")
MIN_COVERED_SHARE = 0.9
MIN_FIGURES = {"recall_structured": 0.97, "recall_known_names": 0.97, "precision": 0.9}
MIN_HELD_OUT_FIGURES = {"recall": 0.82, "precision": 0.7}
"""Minimum on the held-out texts."""
MIN_BLOCK_FIGURES = {"recall": 0.95, "recall_structured": 0.99, "precision": 0.9}
"""Minimum on the held-out contact blocks."""
MAX_REPLACED_SHARE = 0.02
"""Maximum share of replaced words in plain sentences, all languages together."""
MAX_CHANGED_SHARE = 0.05
"""Maximum share of English sentences changed that begin with a common noun."""
BLOCK_KINDS = ("PERSON", "STREET_ADDRESS", "PHONE_NUMBER", "EMAIL_ADDRESS")
COMPARED_KINDS = (
    # Of presidio-research.
    "PERSON STREET_ADDRESS EMAIL_ADDRESS PHONE_NUMBER CREDIT_CARD IBAN_CODE IP_ADDRESS US_SSN"
).split()
HELD_OUT_SEED = 2
"""The seed of the held-out texts whose figures stand in the document."""
COUNTED_LABELS = "PERSON ADDRESS PHONE EMAIL URL HANDLE IBAN CARD ID IP".split()
"""Labels of the held-out texts that count."""
LABEL_OF_KIND = {
    "STREET_ADDRESS": "ADDRESS",
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "IP_ADDRESS": "IP",
    "IBAN_CODE": "IBAN",
    "CREDIT_CARD": "CARD",
    "DISCORD_ID": "HANDLE",
    **dict.fromkeys(("US_SSN", "VN_ID", "CN_ID", "JP_MY_NUMBER", "PASSPORT", "ID_NUMBER"), "ID"),
}
"""Those labels by the anonymiser's kinds; `PERSON` and `HANDLE` have the same name in both."""
KEY = bytes(32)
PASSES = 3


@dataclass
class SpanCounts:
    """Gold spans and those found; replaced characters and those of them inside gold spans."""

    gold: int = 0
    found: int = 0
    replaced: int = 0
    rightly: int = 0

    @property
    def recall(self) -> float | None:
        """Recall; None without gold spans."""
        return self.found / self.gold if self.gold else None

    @property
    def precision(self) -> float | None:
        """Precision; None without replacements."""
        return self.rightly / self.replaced if self.replaced else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of recall and precision; None without both."""
        recall = self.recall
        precision = self.precision
        if recall is None or precision is None:
            return None
        return 2 * recall * precision / (recall + precision) if recall + precision else 0.0

    def add(self, other: SpanCounts) -> None:
        """Add other counts."""
        self.gold += other.gold
        self.found += other.found
        self.replaced += other.replaced
        self.rightly += other.rightly

    def as_json(self) -> dict[str, Any]:
        """Figures for the file."""
        return {
            "gold": self.gold,
            "found": self.found,
            "recall": self.recall,
            "precision": self.precision,
            "f1": self.f1,
        }


@dataclass
class DetectionScore:
    """Counts over texts: by kind, by language, and by group of kinds ("structured", "known",
    "names").

    `labels` are the names under which kinds of findings are counted, where the texts call them
    otherwise.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    by_kind: dict[str, SpanCounts] = field(default_factory=dict)
    by_language: dict[str, SpanCounts] = field(default_factory=dict)
    by_kind_and_language: dict[tuple[str, str], SpanCounts] = field(default_factory=dict)
    groups: dict[str, SpanCounts] = field(default_factory=dict)
    missed: list[tuple[AnnotatedText, GoldSpan]] = field(default_factory=list)
    wrong: list[tuple[AnnotatedText, Entity]] = field(default_factory=list)

    def read(self, annotated: AnnotatedText, entities: Iterable[Entity]) -> None:
        """Count one text."""
        entities = list(entities)
        marked = _positions(annotated.gold)
        covered = _positions(entities)
        for gold in annotated.gold:
            if gold.kind in OPTIONAL_KINDS:
                continue
            found = len(covered.intersection(range(gold.start, gold.end)))
            hit = found >= MIN_COVERED_SHARE * (gold.end - gold.start)
            self._count(annotated, gold.kind, kind_group(gold), SpanCounts(1, int(hit)))
            if not hit:
                self.missed.append((annotated, gold))
        for entity in entities:
            rightly = len(marked.intersection(range(entity.start, entity.end)))
            length = entity.end - entity.start
            kind = self.labels.get(entity.kind, entity.kind)
            self._count(annotated, kind, "", SpanCounts(0, 0, length, rightly))
            if 2 * rightly < length:
                self.wrong.append((annotated, entity))

    def _count(self, annotated: AnnotatedText, kind: str, group: str, tally: SpanCounts) -> None:
        language = annotated.language
        self.by_kind.setdefault(kind, SpanCounts()).add(tally)
        self.by_language.setdefault(language, SpanCounts()).add(tally)
        self.groups.setdefault(group, SpanCounts()).add(tally)
        self.by_kind_and_language.setdefault((kind, language), SpanCounts()).add(tally)

    def recall(self, group: str) -> float | None:
        """Recall of a group."""
        return self.groups.get(group, SpanCounts()).recall

    def of(self, kind: str, language: str) -> SpanCounts:
        """Counts of a kind in a language."""
        return self.by_kind_and_language.get((kind, language), SpanCounts())

    def whole(self, kinds: Sequence[str] = ()) -> SpanCounts:
        """Counts over all kinds; recall over the given ones only."""
        whole = SpanCounts()
        for kind, tally in self.by_kind.items():
            counted = SpanCounts(replaced=tally.replaced, rightly=tally.rightly)
            if not kinds or kind in kinds:
                counted.gold = tally.gold
                counted.found = tally.found
            whole.add(counted)
        return whole


def _positions(spans: Iterable[GoldSpan | Entity]) -> set[int]:
    positions: set[int] = set()
    for span in spans:
        positions.update(range(span.start, span.end))
    return positions


def kind_group(gold: GoldSpan) -> str:
    """Return the group: "known", "names", "addresses" or "structured"."""
    if gold.is_known:
        return "known"
    return {"PERSON": "names", "STREET_ADDRESS": "addresses"}.get(gold.kind, "structured")


def anonymisers(
    texts: Sequence[AnnotatedText], keep: Sequence[str] = ()
) -> dict[tuple[str, bool], Anonymiser]:
    """Create anonymisers: one per language for texts about nobody in the log, and one for the
    others.

    `keep` are names of the persona's world.
    """
    anonymiser_by_group: dict[tuple[str, bool], Anonymiser] = {}
    for language in dict.fromkeys(annotated.language for annotated in texts):
        anonymiser_by_group[language, False] = Anonymiser(KEY, keep_always=keep)
        of_language = [annotated for annotated in texts if annotated.language == language]
        about = [annotated for annotated in of_language if annotated.speaker]
        if about:
            anonymiser = Anonymiser(KEY)
            anonymiser.register(build_log(about))
            anonymiser_by_group[language, True] = anonymiser
    return anonymiser_by_group


def build_log(texts: Sequence[AnnotatedText]) -> Conversation:
    """Build a log in which everyone mentioned is a speaker."""
    speakers = []
    for index, names in enumerate(dict.fromkeys(annotated.speaker for annotated in texts)):
        speakers.append(SourceSpeaker(f"{9_000 + index}", names))
    ids = {speaker.names: index for index, speaker in enumerate(speakers)}
    messages = []
    for row, annotated in enumerate(texts):
        # Another one writes about a speaker.
        writer = speakers[(ids[annotated.speaker] + 1) % len(speakers)]
        messages.append(SourceMessage(writer, annotated.text, str(row)))
    return Conversation.of(messages, "data/pii", "own-writing")


def measure(
    texts: Sequence[AnnotatedText],
    keep: Sequence[str] = (),
    passes: int = PASSES,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> tuple[DetectionScore, float, str]:
    """Return (score, texts per second of CPU time, name detectors). The fastest of the passes
    counts.
    """
    score = DetectionScore(labels)
    seconds = float("inf")
    by = ""
    for turn in range(passes):
        readers = anonymisers(texts, keep)
        by = next(iter(readers.values())).names.description
        started = time.process_time()
        found = []
        for annotated in texts:
            reader = readers[annotated.language, bool(annotated.speaker)]
            found.append(reader.find_entities(annotated.text))
        seconds = min(seconds, time.process_time() - started)
        if turn == 0:  # all passes find the same
            for annotated, entities in zip(texts, found, strict=True):
                score.read(annotated, entities)
    return score, len(texts) / seconds, by


def score_figures(
    score: DetectionScore, texts_per_s: float, model: str, count: int
) -> dict[str, Any]:
    """Return the figures as written to the file."""
    by_kind_and_language: dict[str, dict[str, Any]] = {kind: {} for kind in sorted(score.by_kind)}
    for (kind, language), tally in score.by_kind_and_language.items():
        by_kind_and_language[kind][language] = tally.as_json()
    return {
        "texts": count,
        "recall_structured": score.recall("structured"),
        "recall_known_names": score.recall("known"),
        "recall_names": score.recall("names"),
        "recall_addresses": score.recall("addresses"),
        "precision": score.whole().precision,
        "texts_per_s": texts_per_s,
        "model": model,
        "by_kind": {kind: tally.as_json() for kind, tally in sorted(score.by_kind.items())},
        "by_language": {name: tally.as_json() for name, tally in score.by_language.items()},
        "by_kind_and_language": by_kind_and_language,
    }


def format_table(score: DetectionScore) -> str:
    """Format a table: kinds, then languages, then all."""
    lines = [f"{'':18}{'to find':>8}{'found':>7}{'recall':>8}{'precision':>11}"]
    lines += [_line(kind, tally) for kind, tally in sorted(score.by_kind.items())]
    lines.append("")
    for name in LANGUAGES:
        if name in score.by_language:
            lines.append(_line(name, score.by_language[name]))
    groups = (
        ("structured", "structured"),
        ("names from the log", "known"),
        ("other names", "names"),
    )
    lines.append("")
    for name, group in groups:
        if group in score.groups:
            lines.append(_line(name, score.groups[group]))
    lines.append(_line("all", score.whole()))
    return "\n".join(lines)


def format_blocks(development: DetectionScore, held_out: DetectionScore) -> str:
    """Format a Markdown table: kinds by set, then by locale of the held-out blocks."""
    lines = ["| | " + " | ".join(BLOCK_KINDS) + " | all |", "| --- " * (len(BLOCK_KINDS) + 2) + "|"]
    for name, score in (("development (A)", development), ("**held out (B)**", held_out)):
        cells = [_cell(score.by_kind.get(kind, SpanCounts())) for kind in BLOCK_KINDS]
        lines.append(f"| {name} | {' | '.join(cells)} | {_cell(score.whole())} |")
    for locale in sorted(held_out.by_language):
        cells = [_cell(held_out.of(kind, locale)) for kind in BLOCK_KINDS]
        lines.append(f"| {locale} | {' | '.join(cells)} | {_cell(held_out.by_language[locale])} |")
    return "\n".join(lines)


def format_kinds_by_language(score: DetectionScore) -> str:
    """Format a Markdown table: recall, precision and F1 of each kind in each language, with the
    number to find.
    """
    lines = [
        "| kind | " + " | ".join(LANGUAGES) + " | all |",
        "| --- " * (len(LANGUAGES) + 2) + "|",
    ]
    for kind, whole in sorted(score.by_kind.items()):
        cells = [_cell(score.of(kind, name)) for name in LANGUAGES]
        lines.append(f"| {kind} | {' | '.join(cells)} | {_cell(whole)} |")
    cells = [_cell(score.by_language.get(name, SpanCounts())) for name in LANGUAGES]
    lines.append(f"| all kinds | {' | '.join(cells)} | {_cell(score.whole())} |")
    return "\n".join(lines)


def _cell(tally: SpanCounts) -> str:
    if not tally.gold:
        return f"{tally.replaced} wrong characters" if tally.replaced else ""
    return f"{_share(tally.recall)} / {_share(tally.precision)} / {_share(tally.f1)} ({tally.gold})"


def write_table(name: str, caption: str, table: str, path: Path) -> None:
    """Replace the table between the markers of the document."""
    begin = f"<!-- {name} -->"
    end = f"<!-- end of {name} -->"
    before, rest = path.read_text(encoding="utf-8").split(begin, 1)
    after = rest.split(end, 1)[1]
    path.write_text(f"{before}{begin}\n{caption}\n\n{table}\n{end}{after}", encoding="utf-8")


def _line(name: str, tally: SpanCounts) -> str:
    return f"{name:18}{tally.gold:>8}{tally.found:>7}{_share(tally.recall):>8}{_share(tally.precision):>11}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def missed_floors(figures: dict[str, Any], floors: Mapping[str, float] = MIN_FIGURES) -> list[str]:
    """List the measures below their required minimum."""
    missed = []
    for name, floor in floors.items():
        figure = figures[name] or 0  # None without anything to find
        if figure < floor:
            missed.append(f"{name} {figure:.3f} < {floor}")
    return missed


def evaluate_own_corpus(errors: bool) -> int:
    """Evaluate data/pii, print and write; returns 1 if a minimum is missed."""
    texts = read_corpus()
    score, texts_per_s, model = measure(texts)
    figures = score_figures(score, texts_per_s, model, len(texts))
    print(format_table(score))
    print(f"\nrecall / precision / F1 (to find)\n{format_kinds_by_language(score)}\n")
    print(f"{len(texts)} texts, {texts_per_s:,.0f} a second on one core; names found by {model}")
    if errors:
        print_errors(score)
    caption = f"{len(texts)} texts; recall / precision / F1 (to find); names found by {model}."
    write_table(TABLE, caption, format_kinds_by_language(score), DOCUMENT)
    blocks = evaluate_blocks(errors)
    plain = evaluate_plain_sentences(errors)
    held_out = evaluate_held_out(HELD_OUT_SEED)
    write_table(HELD_OUT_TABLE, held_out["caption"], held_out["table"], DOCUMENT)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    written = {
        **figures,
        **blocks,
        "held_out_texts": held_out["figures"],
        "plain_sentences": {name: asdict(counts) for name, counts in plain.items()},
        "machine": machine,
        "versions": versions,
    }
    RESULT.write_text(json.dumps(written, indent=2) + "\n")
    print(f"written to {RESULT}")
    wrong = missed_floors(figures) + missed_floors(blocks["held_out_blocks"], MIN_BLOCK_FIGURES)
    wrong += missed_floors(held_out["figures"], MIN_HELD_OUT_FIGURES)
    wrong += exceeded_shares(plain)
    if wrong:
        print(f"Less is found than must be: {', '.join(wrong)}.", file=sys.stderr)
    return 1 if wrong else 0


def evaluate_blocks(errors: bool) -> dict[str, Any]:
    """Evaluate the contact blocks, print and write the table; return the figures of both sets.

    Only errors of the development set are listed: nothing is tuned on the other.
    """
    development, _, _ = measure(development_blocks(), passes=1)
    texts = held_out_blocks()
    held_out, texts_per_s, model = measure(texts, KEPT_NAMES, passes=1)
    table = format_blocks(development, held_out)
    print(f"\ncontact blocks: recall / precision / F1 (to find)\n{table}\n")
    print(f"{len(texts)} held-out blocks, {texts_per_s:,.0f} a second on one core")
    if errors:
        print_errors(development)
    caption = (
        f"{len(texts)} held-out blocks; recall / precision / F1 (to find); names found by {model}."
    )
    write_table(BLOCKS_TABLE, caption, table, DOCUMENT)
    return {
        "development_blocks": _block_figures(development),
        "held_out_blocks": _block_figures(held_out),
    }


def _block_figures(score: DetectionScore) -> dict[str, Any]:
    return {**score.whole().as_json(), "recall_structured": score.recall("structured")}


@dataclass
class PlainCounts:
    """Sentences without names, their words, and what was changed of both."""

    sentences: int = 0
    words: int = 0
    changed: int = 0
    replaced: int = 0


def count_plain_sentences() -> dict[str, PlainCounts]:
    """Read the plain sentences of each set, and count the words of which anything is replaced."""
    counts = {}
    for name, texts in read_plain_sentences().items():
        anonymiser = Anonymiser(KEY)
        counts[name] = PlainCounts(len(texts))
        for text in texts:
            covered = _positions(anonymiser.find_entities(text))
            words = [set(range(*word.span())) for word in re.finditer(r"\S+", text)]
            counts[name].words += len(words)
            counts[name].replaced += sum(not covered.isdisjoint(word) for word in words)
            counts[name].changed += bool(covered)
    return counts


def evaluate_plain_sentences(errors: bool) -> dict[str, PlainCounts]:
    """Count what is replaced in sentences without names, print and write the table."""
    counts = count_plain_sentences()
    lines = [
        "| | sentences | changed | words | replaced |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, plain in counts.items():
        lines.append(
            f"| {name} | {plain.sentences} | {plain.changed} | {plain.words} | {plain.replaced} |"
        )
    table = "\n".join(lines)
    print(f"\nsentences without names\n{table}\n")
    if errors:
        for texts in read_plain_sentences().values():
            for text in texts:
                for entity in Anonymiser(KEY).find_entities(text):
                    print(f"wrong {entity.kind}: {text[entity.start : entity.end]!r} in {text!r}")
    write_table(PLAIN_TABLE, "Sentences without names.", table, DOCUMENT)
    return counts


def exceeded_shares(counts: Mapping[str, PlainCounts]) -> list[str]:
    """List the shares of replaced words and of changed sentences that are too high."""
    nouns = counts[NOUN_FIRST]
    others = [plain for name, plain in counts.items() if name != NOUN_FIRST]
    replaced = sum(plain.replaced for plain in others) / sum(plain.words for plain in others)
    changed = nouns.changed / nouns.sentences
    exceeded = []
    if replaced > MAX_REPLACED_SHARE:
        exceeded.append(f"replaced words {replaced:.3f} > {MAX_REPLACED_SHARE}")
    if changed > MAX_CHANGED_SHARE:
        exceeded.append(f"changed sentences {changed:.3f} > {MAX_CHANGED_SHARE}")
    return exceeded


def evaluate_held_out(seed: int) -> dict[str, Any]:
    """Evaluate the held-out texts of a seed; return figures, caption and table.

    Errors are never listed: whoever reads them tunes on them.
    """
    texts = read_held_out(seed)
    score, texts_per_s, model = measure(texts, labels=LABEL_OF_KIND)
    table = format_held_out(score)
    print(f"\nheld-out texts, seed {seed}\n{table}\n")
    print(f"{len(texts)} held-out texts, {texts_per_s:,.0f} a second on one core")
    caption = f"{len(texts)} texts of seed {seed}; names found by {model}."
    figures = {
        **score_figures(score, texts_per_s, model, len(texts)),
        **score.whole().as_json(),
        "seed": seed,
    }
    return {"figures": figures, "caption": caption, "table": table}


def format_held_out(score: DetectionScore) -> str:
    """Format a Markdown table of the held-out texts: a row for each label, for each language, and
    for all.
    """
    labels = {label: score.by_kind.get(label, SpanCounts()) for label in COUNTED_LABELS}
    others = SpanCounts()
    for kind, tally in score.by_kind.items():
        if kind not in labels:
            others.add(tally)
    rows = {
        **labels,
        "other kinds": others,
        **dict(sorted(score.by_language.items())),
        "**all**": score.whole(),
    }
    lines = [
        "| | to find | found | recall | precision | F1 | wrong characters |",
        f"| --- |{' ---: |' * 6}",
    ]
    for name, tally in rows.items():
        shares = " | ".join(map(_share, (tally.recall, tally.precision, tally.f1)))
        lines.append(
            f"| {name} | {tally.gold} | {tally.found} | {shares} | "
            f"{tally.replaced - tally.rightly} |"
        )
    return "\n".join(lines)


def evaluate_file(path: Path, errors: bool) -> int:
    """Evaluate a file of presidio-research, and print recall over known kinds, and precision."""
    texts = read_presidio(path)
    score, texts_per_s, model = measure(texts)
    for kind in COMPARED_KINDS:
        if kind in score.by_kind:
            print(_line(kind, score.by_kind[kind]))
    whole = score.whole(COMPARED_KINDS)
    print(f"recall {_share(whole.recall)}, precision {_share(whole.precision)}")
    print(f"{len(texts)} texts, {texts_per_s:,.0f} a second on one core; names found by {model}")
    if errors:
        print_errors(score, COMPARED_KINDS)
    return 0


def print_errors(score: DetectionScore, kinds: Sequence[str] = ()) -> None:
    """Print missed spans and false replacements, one per line."""
    for annotated, gold in score.missed:
        if not kinds or gold.kind in kinds:
            text = annotated.text
            print(f"missed {gold.kind}: {text[gold.start : gold.end]!r} in {text!r}")
    for annotated, entity in score.wrong:
        text = annotated.text
        print(f"wrong {entity.kind}: {text[entity.start : entity.end]!r} in {text!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.studies.pii_detection", description=__doc__
    )
    parser.add_argument(
        "--file", type=Path, help="judge on this file of presidio-research's shape instead"
    )
    parser.add_argument(
        "--errors",
        action="store_true",
        help="also list misses and wrong replacements",
    )
    parser.add_argument(
        "--plain", action="store_true", help="judge on the sentences without names only"
    )
    parser.add_argument(
        "--held-out",
        type=int,
        choices=HELD_OUT_SEEDS,
        help="judge on the held-out texts of this seed only",
    )
    options = parser.parse_args(arguments)
    if options.held_out is not None:
        evaluate_held_out(options.held_out)
        return 0
    if options.plain:
        return int(bool(exceeded_shares(evaluate_plain_sentences(options.errors))))
    try:
        if options.file:
            return evaluate_file(options.file, options.errors)
        return evaluate_own_corpus(options.errors)
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
