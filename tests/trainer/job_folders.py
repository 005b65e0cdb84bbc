"""Job folders made by hand, as small as a job can be."""

from __future__ import annotations

import json
import shutil
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from personas.home.job_folder import material_digest
from personas.home.job_material import ShippedData
from personas.home.pseudonyms import JOB_KEYS_FILE, JobKeys
from personas.prompt.renderer import Renderer
from personas.schemas.training_events import Epoch, Progress, TrainerEvent
from trainer.dataset.dataset import Dataset
from trainer.dataset.job_inputs import JobInputs, JobTalk
from trainer.dataset.loader import load_dataset
from trainer.dataset.run_dataset import write_run_dataset
from trainer.process.run_control import RunCancelled
from trainer.schemas import Recipe
from trainer.train.training_run import RunControl

ADA = 'id = "ada"\nname = "Ada"\ndescription = "You are Ada, a clockmaker."\n'
LORE = (
    "# The clock\n\n## Bell\nThe tower clock of Ada has a cracked bell that rings a quarter tone "
    "flat.\n"
)
BEGIN = datetime(2026, 3, 1, 9, tzinfo=UTC)


def message(
    text: str, author: str = "mira_wet", minute: float = 0, **fields: Any
) -> dict[str, Any]:
    """One message of an export; `minute` counts from the export's beginning."""
    return {
        "id": str(1000 + round(minute * 10)),
        "type": "Default",
        "timestamp": (BEGIN + timedelta(minutes=minute)).isoformat(),
        "content": text,
        "author": {
            "id": f"9{sum(author.encode())}",
            "name": author,
            "nickname": author,
            "isBot": False,
        },
        **fields,
    }


def talks(count: int, reply: str = "I mended clock {} myself, with oil.") -> list[dict[str, Any]]:
    """So many conversations of one question and one reply, two hours apart."""
    return [
        line
        for number in range(count)
        for line in (
            message(f"what about clock number {number}, does the bell ring?", minute=120 * number),
            message(reply.format(number), "Ada", minute=120 * number + 1),
        )
    ]


def export(messages: Sequence[dict[str, Any]], channel: str = "2") -> str:
    """The export file's text."""
    head = {"guild": {"id": "1"}, "channel": {"id": channel}}
    return json.dumps({**head, "messages": list(messages)})


def dataset_of(content: JobInputs, talk: JobTalk, renderer: Renderer, recipe: Recipe) -> Dataset:
    """The samples of talk that lies in no file, built into a folder and loaded from there."""
    with tempfile.TemporaryDirectory() as folder:
        write_run_dataset(Path(folder), content, talk, renderer, recipe)
        return load_dataset(Path(folder), content, renderer, recipe)


def dialogues(count: int) -> str:
    """Chat messages as JSON Lines."""
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} + 1?"},
                {"role": "assistant", "content": f"{n + 1}."},
            ]
        }
        for n in range(count)
    ]
    return "\n".join(json.dumps(line) for line in lines)


def persona_job(
    folder: Path, base_model: Path | str, log: str | None = None, **changes: Any
) -> Path:
    """A persona job with a card, a log, lore and general dialogue. `changes` go into the
    request.
    """
    material = folder / "material"
    (material / "lore" / "ada").mkdir(parents=True)
    (material / "ada.toml").write_text(ADA, encoding="utf-8")
    (material / "talk.json").write_text(export(talks(16)) if log is None else log, encoding="utf-8")
    (material / "lore" / "ada" / "clock.md").write_text(LORE, encoding="utf-8")
    (material / "general.jsonl").write_text(dialogues(3), encoding="utf-8")
    kinds = {"card": "ada.toml", "log": "talk.json", "lore": "lore", "general": "general.jsonl"}
    return write_request(folder, base_model, kinds, persona="ada", **changes)


def mixing_job(
    folder: Path, base_model: Path | str, general: int, messages: int = 0, **changes: Any
) -> Path:
    """Ada's job with so many general dialogues to measure forgetting with, and so many others to
    train on.
    """
    persona_job(folder, base_model, **changes)
    material = folder / "material"
    (material / "general.jsonl").write_text(dialogues(general), encoding="utf-8")
    (material / "chat.jsonl").write_text(
        dialogues(general + messages).split("\n", general)[-1], encoding="utf-8"
    )
    spec = json.loads((folder / "request.json").read_text())
    kept = [it for it in spec["materials"] if it["kind"] != "general"]
    named = [("general", "general.jsonl"), *([("messages", "chat.jsonl")] if messages else [])]
    spec["materials"] = [*kept, *(described(material, kind, path) for kind, path in named)]
    (folder / "request.json").write_text(json.dumps(spec))
    return folder


def add_general_training(folder: Path, start: int, count: int) -> Path:
    """Give a persona's job so many of the general dialogues that ship to be trained on."""
    material = folder / "material"
    lines = dialogues(start + count).split("\n")[start:]
    (material / "general-training").mkdir()
    (material / "general-training" / "dialogue.jsonl").write_text("\n".join(lines))
    spec = json.loads((folder / "request.json").read_text())
    spec["materials"].append(
        described(material, "general-training", "general-training/dialogue.jsonl")
    )
    (folder / "request.json").write_text(json.dumps(spec))
    return folder


def dialogue_job(folder: Path, base_model: Path | str, **changes: Any) -> Path:
    """A job without a persona."""
    material = folder / "material"
    material.mkdir(parents=True)
    (material / "talk.jsonl").write_text(dialogues(12), encoding="utf-8")
    (material / "general.jsonl").write_text(dialogues(3), encoding="utf-8")
    kinds = {"messages": "talk.jsonl", "general": "general.jsonl"}
    return write_request(folder, base_model, kinds, task_type="dialogue", **changes)


def built_job(
    folder: Path, home: Path, base_model: Path | str, data_set: Path, **changes: Any
) -> Path:
    """A job over a data set that `dataset build` made in this home; for the persona that `changes`
    name, if any.
    """
    material = folder / "material"
    material.mkdir(parents=True)
    shutil.copytree(data_set, material / "set")
    (material / "general.jsonl").write_text(dialogues(3), encoding="utf-8")
    kinds = {"dataset": "set", "general": "general.jsonl"}
    if changes.get("persona"):
        (material / "ada.toml").write_text(ADA, encoding="utf-8")
        kinds["card"] = "ada.toml"
    JobKeys.of(home, "set").write(folder)
    task = "persona" if "card" in kinds else "dialogue"
    return write_request(folder, base_model, kinds, task_type=task, **changes)


def write_request(
    folder: Path, base_model: Path | str, kinds: dict[str, str], **changes: Any
) -> Path:
    """`request.json` for the material that lies in the folder: short training in a rank of 4."""
    hyperparameters = {
        "num_train_epochs": 2,
        "lora_r": 4,
        "lora_alpha": 8,
        **changes.pop("hyperparameters", {}),
    }
    materials = [described(folder / "material", kind, path) for kind, path in kinds.items()]
    request = {
        "job_name": "test",
        "base_model": str(base_model),
        "hyperparameters": hyperparameters,
        **changes,
    }
    spec = {
        "job_id": "job-1",
        "version": "v1",
        "request": request,
        "materials": materials,
        "serving_precision": "float32",
    }
    (folder / "request.json").write_text(json.dumps(spec), encoding="utf-8")
    if not (folder / JOB_KEYS_FILE).exists():
        JobKeys(b"p" * 32, b"k" * 32).write(folder)
    return folder


def described(material: Path, kind: str, path: str, **fields: Any) -> dict[str, Any]:
    """What a request says of one material."""
    return {
        "kind": kind,
        "path": path,
        "origin": path,
        "right": "own-writing",
        "stated_by": "the tests",
        "sha256": material_digest(material / path),
        **fields,
    }


def shipping_little(folder: Path) -> ShippedData:
    """What ships, but for its general dialogue, which takes seconds to measure: three lines in its
    place.
    """
    general = folder / "general" / "dialogue.jsonl"
    general.parent.mkdir()
    general.write_text(dialogues(3), encoding="utf-8")
    sign(general)
    return replace(ShippedData.from_source_tree(), general=general.parent)


def shipping_few(folder: Path, messages: int = 300) -> ShippedData:
    """What ships, but of each log the first messages alone, of each owner's lore one file, and
    little general dialogue: all of it takes ten seconds to build and to search.
    """
    little = shipping_little(folder)
    logs = folder / "logs"
    logs.mkdir()
    for path in little.logs.glob("*.json"):
        log = json.loads(path.read_text(encoding="utf-8"))
        log["messages"] = log["messages"][:messages]
        (logs / path.name).write_text(json.dumps(log), encoding="utf-8")
    shutil.copy(little.logs / "rights.toml", logs)
    lore = folder / "rag-resources"
    for owner in little.lore.iterdir():
        for file in sorted(owner.glob("*.md"))[:1]:
            (lore / owner.name).mkdir(parents=True)
            shutil.copy(file, lore / owner.name)
    return replace(little, logs=logs, lore=lore)


def sign(*paths: Path, right: str = "own-writing") -> None:
    """State a right to files of one folder, in its `rights.toml`; what it said before stands no
    more.
    """
    tables = [
        f'["{path.name}"]\nright = "{right}"\nstated_by = "the tests"\nstated_on = 2026-11-20\nwhy = "Made up."\n'
        for path in paths
    ]
    (paths[0].parent / "rights.toml").write_text("\n".join(tables), encoding="utf-8")


def events(text: str) -> list[dict[str, Any]]:
    """Each line of standard output or of `events.jsonl`."""
    return [json.loads(line) for line in textwrap.dedent(text).splitlines()]


def stopping(step: int, kind: type[Progress] | type[Epoch] = Progress) -> RunControl:
    """A run that is asked to stop once the event of this step was the last to be heard."""
    received: list[TrainerEvent] = []

    def check() -> None:
        if received and isinstance(last := received[-1], kind) and last.step == step:
            raise RunCancelled("the test")

    return RunControl(received.append, check)
