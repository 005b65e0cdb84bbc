"""The data set folder of a run: its own conversations, split and rendered for the run's base model,
as token ids.

`dataset build` writes messages instead (`trainer.dataset.writer`): its sets fit any base model.
"""

import hashlib
import itertools
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from personas.cli_common import read_setting
from personas.errors import MaterialError
from personas.home.atomic_files import atomic_folder
from personas.home.built_dataset import EVAL_FILE, TRAIN_FILE
from personas.home.data_subjects import CONSENT_FILE
from personas.home.holdout_index import HOLDOUT_FILE
from personas.home.job_folder import DATASET_FOLDER
from personas.home.preferences import (
    PREFERENCES_FILE,
    PreferenceRecord,
    PromptTurn,
    preferences_to_jsonl,
)
from personas.home.pseudonyms import JOB_KEYS_FILE
from personas.home.written_replies import written_file
from personas.models.base_model import BaseModel, fingerprint
from personas.prompt.renderer import PROMPT_VERSION, Renderer, TokenizedSample
from personas.schemas.training import JobSpec
from trainer.dataset.builder import SAMPLE_SETTINGS, BuiltSample, DatasetBuilder, DatasetPlan
from trainer.dataset.data_mixture import general_sample_count
from trainer.dataset.dataset import SampleRecord
from trainer.dataset.dedup_split import HELD_OUT, TRAIN
from trainer.dataset.job_inputs import JobInputs, JobTalk, read_job_talk
from trainer.dataset.layout import read_stats
from trainer.dataset.ledger import Ledger
from trainer.dataset.sample_renderer import SampleRenderer
from trainer.schemas import PromptReply, Recipe
from trainer.sources.conversation import Conversation, RejectedRecord

# JSON lines, because erasure searches text for names, which Arrow files would hide. 20,000 samples
# take 0.75 s to read; the library `datasets` takes 1.03 s, and 0.61 s to import.
FORMAT = 1
RUN_SET_FILE = "dataset.json"
"""Counts, and the key of the folder's inputs."""
MIXED_FILE = "mixed.jsonl"
"""General dialogue to train on."""
MEASURED_FILE = "general.jsonl"
"""General dialogue to measure forgetting."""

RUN_SETTINGS = {*SAMPLE_SETTINGS, "general_share", "first_stage_epochs", "train_samples"}
"""The settings of a recipe that determine a run's samples: also how many, and of what."""

KeysOf = Callable[[str], Sequence[str]]

log = logging.getLogger(__name__)


@contextmanager
def job_dataset(
    job: Path,
    spec: JobSpec,
    content: JobInputs,
    renderer: Renderer,
    recipe: Recipe,
    base: BaseModel,
    *,
    stores: bool,
) -> Iterator[Path]:
    """Give the data set folder of a job: the stored one if it is current, else one built now.

    It is built in the job's folder if it `stores`, which only the holder of that folder's lock may
    do, else in a temporary folder that is removed after the block. The stored one has the full card
    in its held-out prompts: with a `renderer` of the short card it is not used. Raises
    `UnderstudyError`.
    """
    folder = job / DATASET_FOLDER
    key = dataset_key(job, spec, recipe, base)
    if renderer.card == "full" and _is_current(folder, key):
        yield folder
    elif stores:
        # Also what a killed run left half written.
        for stale in (folder, *job.glob(f".{DATASET_FOLDER}.*")):
            shutil.rmtree(stale, ignore_errors=True)
        with atomic_folder(folder) as staging:
            talk = read_job_talk(content, recipe)
            write_run_dataset(staging, content, talk, renderer=renderer, recipe=recipe, key=key)
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="understudy-dataset-") as temporary:
            staging = Path(temporary)
            talk = read_job_talk(content, recipe)
            write_run_dataset(staging, content, talk, renderer=renderer, recipe=recipe, key=key)
            yield staging


def dataset_key(job: Path, spec: JobSpec, recipe: Recipe, base: BaseModel) -> str:
    """Hash the inputs of a job's samples: request, material, consent, hold-out, keys, settings,
    tokenizer.
    """
    settings = recipe.model_dump_json(include=RUN_SETTINGS)
    encoder = read_setting("LORE_ENCODER")
    program = f"{FORMAT}\0{PROMPT_VERSION}\0{settings}\0{fingerprint(base)}\0{encoder}"
    digest = hashlib.sha256(program.encode())
    digest.update(spec.model_dump_json().encode())
    for name in (CONSENT_FILE, HOLDOUT_FILE, JOB_KEYS_FILE):
        file = job / name
        content = file.read_bytes() if file.exists() else b""
        # Each file by its own hash, so that what ends one cannot pass for the beginning of the next.
        digest.update(hashlib.sha256(content).digest())
    if (file := written_file(job)).exists():
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _is_current(folder: Path, key: str) -> bool:
    try:
        return bool(json.loads((folder / RUN_SET_FILE).read_bytes())["key"] == key)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning("%s cannot be read and is built anew: %s", folder, error)
        return False


# ------------------------------------------------------------------------------------------ writing


def write_run_dataset(
    folder: Path,
    content: JobInputs,
    talk: JobTalk,
    renderer: Renderer,
    recipe: Recipe,
    key: str = "",
) -> None:
    """Build a job's talk into a folder that is there and empty. Raises `MaterialError` where a side
    stays empty.

    Where the material is a data set the folder holds only what goes with it: general dialogue and
    preferences.
    """
    plan = DatasetPlan(
        renderer=renderer,
        recipe=recipe,
        persona=content.persona,
        lore=None if content.built else content.lore,
        key=content.keys.pseudonyms,
        people_key=content.keys.people,
        held_out=content.held_out,
        for_run=True,
    )
    ledger = Ledger()
    with DatasetBuilder(plan, ledger, folder) as builder:
        items: list[Conversation | RejectedRecord] = [*talk.rejected, *talk.conversations]
        builder.add_source("", items, lambda rows: content.between())
        rejected = dict(ledger.dropped)
        own = 0
        keys_of = cache(partial(builder.participants.keys_of, key=plan.people_key))
        if content.built:
            own = int(read_stats(content.built)["samples"]["train"])
        else:
            own = _write_talk(folder, builder, keys_of, content.between)
            builder.held_out.write(folder / HOLDOUT_FILE)
        persona_samples = min(own, recipe.train_samples or own) + len(talk.preferences)
        most = general_sample_count(recipe, persona_samples)
        mixed = itertools.islice(builder.general_samples(talk.to_mix), most)
        _write_samples(folder / MIXED_FILE, mixed, keys_of)
        # Without the replacements in preferences, which follow.
        replaced = dict(builder.anonymiser.counts)
        name_search = builder.anonymiser.searched_scripts
        mask = builder.anonymiser.anonymise_text
        preferences = [_mask_preference(preference, mask) for preference in talk.preferences]
        (folder / PREFERENCES_FILE).write_text(preferences_to_jsonl(preferences), encoding="utf-8")
        measured = _measuring_samples(talk, renderer, recipe)
        _write_samples(folder / MEASURED_FILE, measured, lambda person: ())
        stats = {
            "format": FORMAT,
            "key": key,
            "counts": {
                "conversations_train": builder.conversations[TRAIN],
                "conversations_heldout": builder.conversations[HELD_OUT],
            },
            "pairs": [dict(talk.pairs), list(talk.pair_sources)],
            "rows": ledger.rows,
            "rows_used": ledger.rows_used,
            "dropped": dict(ledger.dropped),
            "dropped_replies": dict(ledger.replies),
            "rejected": rejected,
            "replaced": replaced,
            "name_search": name_search,
            "people": builder.participants.listed(plan.people_key, with_samples=False),
        }
    (folder / RUN_SET_FILE).write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")


def _write_talk(
    folder: Path, builder: DatasetBuilder, keys_of: KeysOf, between: Callable[[], object]
) -> int:
    """Write a job's own samples; return how many are to be trained on."""
    trained = 0
    with (
        (folder / TRAIN_FILE).open("x", encoding="utf-8") as train,
        (folder / EVAL_FILE).open("x", encoding="utf-8") as heldout,
    ):
        for built in builder.samples():
            file = train if built.side == TRAIN else heldout
            file.write(f"{format_run_sample(built, keys_of)}\n")
            trained += built.side == TRAIN
            between()
    return trained


def _write_samples(file: Path, samples: Iterable[BuiltSample], keys_of: KeysOf) -> None:
    with file.open("x", encoding="utf-8") as lines:
        lines.writelines(f"{format_run_sample(built, keys_of)}\n" for built in samples)


def _measuring_samples(talk: JobTalk, renderer: Renderer, recipe: Recipe) -> Iterator[BuiltSample]:
    """Render general dialogue as it is, to measure forgetting with."""
    maker = SampleRenderer(renderer, None, None, recipe=recipe, filters=None)
    for conversation in talk.general:
        for made in maker.render(conversation, {}):
            yield BuiltSample(
                HELD_OUT, conversation.source, conversation.right, kind="general", made=made
            )


def _mask_preference(preference: PreferenceRecord, mask: Callable[[str], str]) -> PreferenceRecord:
    """Replace personal data in the texts of a preference."""
    prompt = []
    for turn in preference.prompt:
        prompt.append(turn.model_copy(update={"text": mask(turn.text)}))
    changed = {
        "prompt": tuple(prompt),
        "chosen": preference.chosen and mask(preference.chosen),
        "rejected": preference.rejected and mask(preference.rejected),
    }
    return preference.model_copy(update=changed)


def format_run_sample(built: BuiltSample, keys_of: KeysOf) -> str:
    """Format a sample as a line of JSON; `people` are its speakers' keys, for the run's list of
    people.
    """
    made = built.made
    people: list[str] = []
    for person in made.people:
        people += keys_of(person)
    line = {
        "ids": made.sample.ids,
        "reply_tokens": made.sample.reply_tokens,
        "source": built.source,
        "talk": made.talk,
        "right": built.right,
        "arrived": made.arrived,
        "message": made.turns[-1].text,
        "reply": made.reply,
        "by_persona": made.persona is not None and bool(made.persona.id),
        "lore": bool(made.lore),
        "trimmed": made.trimmed > 0,
        "people": people,
    }
    if made.has_short_card:
        line["short_card"] = True
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class RunDataset:
    """Reads the data set folder of a run."""

    folder: Path

    @cached_property
    def stats(self) -> Mapping[str, Any]:
        """The stored counts."""
        stats: dict[str, Any] = json.loads((self.folder / RUN_SET_FILE).read_bytes())
        return stats

    @property
    def rejected(self) -> Counter[str]:
        """Records that could not be used, by reason."""
        return Counter(self.stats["rejected"])

    @property
    def people(self) -> Mapping[str, int]:
        """People in the material, with the number of mentions of those who do not speak."""
        return dict(self.stats["people"])

    @property
    def replaced(self) -> Mapping[str, int]:
        """Replacements of the anonymiser, by kind."""
        return dict(self.stats["replaced"])

    @property
    def name_search(self) -> Mapping[str, Mapping[str, int]]:
        """Texts by script, and by how names were looked for in it."""
        return dict(self.stats.get("name_search", {}))

    def records(self, file: str) -> list[SampleRecord]:
        """Read the samples of one of its files. Raises `MaterialError` when it is damaged."""
        path = self.folder / file
        try:
            with path.open(encoding="utf-8") as lines:
                return [_read_record(json.loads(line)) for line in lines]
        except (OSError, ValueError, LookupError, TypeError) as error:
            advice = f"Remove {self.folder} and run the same job again: it is built anew."
            raise MaterialError(f"{path} cannot be read: {error}.", advice) from error

    def preferences(self) -> list[PreferenceRecord]:
        """Read the anonymised preferences, which were validated before they were written."""
        lines = (self.folder / PREFERENCES_FILE).read_text(encoding="utf-8").splitlines()
        return [_read_preference(json.loads(line)) for line in lines]


def _read_record(line: Mapping[str, Any]) -> SampleRecord:
    prompt_tokens = len(line["ids"]) - line["reply_tokens"]
    mask = (False,) * prompt_tokens + (True,) * line["reply_tokens"]
    talk = f"{line['source']} {line['talk']}"
    return SampleRecord(
        TokenizedSample(tuple(line["ids"]), mask),
        line["right"],
        line["source"],
        arrived=line["arrived"],
        said=PromptReply(talk, line["message"], line["reply"], line["by_persona"]),
        has_lore=line["lore"],
        people=tuple(line["people"]),
        is_trimmed=line["trimmed"],
        has_short_card=bool(line.get("short_card")),
    )


def _read_preference(line: dict[str, Any]) -> PreferenceRecord:
    prompt = tuple(PromptTurn.model_construct(**turn) for turn in line.pop("prompt"))
    return PreferenceRecord.model_construct(prompt=prompt, **line)
