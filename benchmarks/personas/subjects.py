"""The personas that are measured, the exchanges that measure each, and the runs that train it.

Three are shipped: their measuring exchanges are the part of their logs that a run of the default
recipe holds out. Six are the characters of `benchmarks/characters`: theirs are all of their
exchanges, of which nothing is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from personas.errors import UnderstudyError
from personas.home.atomic_files import write_file, write_private_file
from personas.home.holdout_index import add_to_holdout
from personas.home.job_folder import read_spec
from personas.home.pseudonyms import KEY_FILE, HomeKey
from personas.shipped_folders import SHIPPED_DATA
from trainer.cli.main import build_parser
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import hash_fraction
from trainer.evaluate.generation.author_texts import AuthorTexts, usable_voices
from trainer.evaluate.generation.lore_facts import FactQuestion, fact_questions, lore_questions
from trainer.schemas import PromptReply
from trainer.train.job import PreparedJob, prepare_job
from trainer.train.job_folder import make_job_folder

CHARACTERS_FOLDER = Path(__file__).parents[1] / "characters"
CHARACTERS = tuple(sorted(file.parent.name for file in CHARACTERS_FOLDER.glob("*/card.toml")))
SHIPPED = tuple(sorted(file.stem for file in (SHIPPED_DATA / "logs").glob("*.json")))
PERSONAS = (*SHIPPED, *CHARACTERS)
BASE = "base"
CARD = "card"
TAUGHT = "teacher"
LOG = "log"
BOTH = "both"
WAYS = {
    BASE: "the untrained base model, with the prompt that serves",
    CARD: "trained on replies that it wrote itself from the card (`--from-card`)",
    TAUGHT: "trained on replies that another model wrote from the card (`--from-card --teacher`)",
    LOG: "trained on the log, with the default recipe",
    BOTH: "the log, and replies written from the card beside it: half of all, but 135 at most (`--from-card 0.5`)",
}
FOLDS = 5
"""Parts of a character's exchanges. The replies to each are judged by a voice classifier that knows
the others.
"""
HELD_OUT_FOLDER = "held_out"
KEY = hashlib.sha256(b"benchmark of personas")
"""The key of the benchmark's home: the names that stand for others in exchanges are the same on
every machine, and so are the exchanges that are drawn.
"""
RIGHTS = """\
["{name}"]
right = "own-writing"
stated_by = "the Understudy authors"
stated_on = 2026-11-28
why = "Exchanges of this project that measure a persona; nothing is trained on them."
"""


@dataclass(frozen=True)
class Training:
    """How all runs are made: their home, the base model, the options of another model that writes (none:
    no persona is trained that way) and settings of the recipes, as words of `trainer train`.
    """

    home: Path
    base_model: str
    teacher: Sequence[str] = ()
    settings: Sequence[str] = ()

    def prepare_home(self) -> None:
        """Create the home. Raises `OSError`."""
        file = self.home / KEY_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            write_private_file(file, f"{KEY.hexdigest()}\n".encode())

    def make_run(self, *words: str) -> Path:
        """Return the folder of the run that `trainer train` would make. Raises `UnderstudyError`."""
        settings = [word for setting in self.settings for word in ("--set", setting)]
        base = ("--base-model", self.base_model)
        options = build_parser().parse_args(["train", *words, *base, *settings])
        return make_job_folder(options.draft(options, self.home), None)


@dataclass(frozen=True)
class Subject:
    """A persona with what measures it. `folder` and `job` are those of a run on its exchanges; that
    run is only trained where they are a log. Of `data`, everything that measures is held out.
    """

    name: str
    folder: Path
    job: PreparedJob
    data: Dataset
    questions: tuple[FactQuestion, ...]
    training: Training

    @cached_property
    def folds(self) -> list[tuple[frozenset[str], Mapping[str, AuthorTexts]]]:
        """The conversations of each fold, and the texts by which the voice is judged there."""
        pairs = self.data.heldout_prompt_replies
        talks = list(dict.fromkeys(pair.talk for pair in pairs))
        if self.name not in CHARACTERS:
            return [(frozenset(talks), usable_voices(self.job.data, {}))]
        talks.sort(key=lambda talk: hash_fraction("fold", talk))
        folds: list[tuple[frozenset[str], Mapping[str, AuthorTexts]]] = []
        for number in range(FOLDS):
            part = frozenset(talks[number::FOLDS])
            own = replace(
                self.data,
                train_prompt_replies=tuple(pair for pair in pairs if pair.talk not in part),
                heldout_prompt_replies=tuple(pair for pair in pairs if pair.talk in part),
            )
            folds.append((part, usable_voices(own, {})))
        return folds

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in which it can be trained: without a log, from its card alone."""
        known = (BASE, CARD, TAUGHT) if self.name in CHARACTERS else tuple(WAYS)
        return tuple(way for way in known if way != TAUGHT or self.training.teacher)

    def make_run(self, way: str) -> Path:
        """Return the folder of the run that trains it in this way. Raises `UnderstudyError`."""
        if way in (BASE, LOG):
            return self.folder
        share = ("--from-card", "0.5") if way == BOTH else ("--from-card",)
        held_out = self._write_held_out()
        itself = ("--teacher", self.training.base_model)
        teacher = self.training.teacher if way == TAUGHT else itself
        words = (*share, *teacher, "--held-out", str(held_out))
        return self.training.make_run(*persona_words(self.name), *words)

    def require_untrained(self, trained: Dataset) -> None:
        """Raise `UnderstudyError` if a run trains on a reply that measures."""
        known = {(pair.message, pair.reply) for pair in trained.train_prompt_replies}
        measuring = {(pair.message, pair.reply) for pair in self.data.heldout_prompt_replies}
        if shared := known & measuring:
            raise UnderstudyError(
                f"{len(shared)} of the replies that measure {self.name} are trained on.",
                "Remove the folder of the benchmark's runs, and start it again.",
            )

    def _write_held_out(self) -> Path:
        """Write the exchanges and questions that measure it, with their right, unless they are
        there.
        """
        file = self.training.home / HELD_OUT_FOLDER / f"{self.name}.jsonl"
        lines = []
        for message, reply in self._held_out_exchanges():
            said = [
                {"role": "user", "content": message},
                {"role": "assistant", "content": reply},
            ]
            row = {"persona": self.job.spec.request.persona, "messages": said}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, "".join(lines).encode())
        rights = "\n".join(RIGHTS.format(name=f"{name}.jsonl") for name in PERSONAS)
        write_file(file.with_name("rights.toml"), rights.encode())
        return file

    def _held_out_exchanges(self) -> Iterator[tuple[str, str]]:
        for pair in self.data.heldout_prompt_replies:
            yield pair.message, pair.reply
        for question in self.questions:
            for asked in filter(None, (question.text, question.reworded)):
                yield asked, question.reference


def persona_words(name: str) -> list[str]:
    """Return the words of `trainer train` that name a persona and its lore."""
    if name in CHARACTERS:
        folder = CHARACTERS_FOLDER / name
        return ["--persona", str(folder / "card.toml"), "--lore", str(folder / "lore")]
    return ["--persona", name]


def prepare_subject(name: str, training: Training) -> Subject:
    """Prepare a persona. Raises `UnderstudyError`."""
    is_character = name in CHARACTERS
    words = persona_words(name)
    if is_character:
        words += ["--dataset", str(CHARACTERS_FOLDER / name / "exchanges.jsonl")]
    folder = training.make_run(*words)
    job = prepare_job(folder, read_spec(folder))
    data = _all_held_out(job.data) if is_character else job.data
    assert data.persona and data.lore  # all nine have lore
    if is_character:
        file = CHARACTERS_FOLDER / name / "facts.jsonl"
        questions = fact_questions(data.persona, data.lore, file=file)
    else:
        questions = lore_questions(data)
        # So that every later run of this home holds out the same.
        people_key = HomeKey.of(training.home).people()
        add_to_holdout(training.home, job.spec.request.persona, data.held_out, people_key)
        training.make_run(*words)
    return Subject(
        name=name,
        folder=folder,
        job=job,
        data=data,
        questions=tuple(questions),
        training=training,
    )


def _all_held_out(data: Dataset) -> Dataset:
    """Return the data with all of the persona's own samples held out, and none trained on."""
    trained: list[PromptReply] = list(data.train_prompt_replies)
    return replace(
        data,
        heldout=(*data.heldout, *data.train[: len(trained)]),
        heldout_prompt_replies=(*data.heldout_prompt_replies, *trained),
    )
