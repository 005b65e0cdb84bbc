"""Seals an adapter: its manifest, model card, data sheet, training report and score card."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from personas.home.adapters import write_manifest
from personas.home.data_subjects import write_people
from personas.models.base_model import default_template, fingerprint
from personas.prompt.renderer import PROMPT_VERSION
from personas.schemas.formatting import markdown_table, model_label
from personas.schemas.scorecard import ScoreCard
from personas.schemas.training import AdapterManifest, JobSpec, WrittenReplies
from personas.schemas.training_events import ScoreSummary
from personas.words.version_words import spoken_exchanges, write_version_words
from trainer.anonymise.name_detector import describe_name_search
from trainer.dataset.dataset import Dataset
from trainer.dataset.dataset_card import render_permission_note
from trainer.dataset.job_inputs import GENERAL_TRAINING_SOURCE
from trainer.dataset.written_replies import WRITTEN_SOURCE
from trainer.report.run_report import (
    REPORT_FOLDER,
    TrainingRecord,
    training_section,
    write_run_report,
)
from trainer.report.scorecard_files import write_scorecard
from trainer.schemas import Recipe
from trainer.train.job import PreparedJob
from trainer.train.training_run import Run

DATA_SHEET_FILE = "datasheet.json"
DATA_SHEET_MARKDOWN = "datasheet.md"


def seal_adapter(
    folder: Path, run: Run, training: TrainingRecord, card: ScoreCard, *, is_audit: bool = False
) -> None:
    """Write all documents of the adapter whose weights are in `folder`; the manifest, with its
    checksums, comes last.

    `is_audit` marks an adapter that is never served. Raises `OSError`.
    """
    job = run.job
    write_run_report(folder, training)
    manifest = make_manifest(run, training).model_copy(update={"audit": is_audit})
    write_scorecard(folder, card)
    write_model_card(folder, manifest, training)
    write_adapter_data_sheet(folder, job.spec, job.data, written=job.written)
    write_people(folder, job.data.people)
    words = [(said.message, said.reply) for said in job.data.own_words]
    write_version_words(folder, spoken_exchanges(words))
    write_manifest(folder, manifest)


def read_run_seconds(adapter: Path) -> float:
    """Read from a sealed adapter how many seconds its run took, over all its processes."""
    figures = json.loads((adapter / REPORT_FOLDER / "training.json").read_text(encoding="utf-8"))
    return float(figures["seconds"])


def make_manifest(run: Run, training: TrainingRecord) -> AdapterManifest:
    """Build the manifest, without the checksums that sealing the folder adds."""
    job = run.job
    spec = job.spec
    recipe = run.recipe
    lora: dict[str, int | float | list[str]] = {
        "r": recipe.lora_r,
        "alpha": recipe.lora_alpha,
        "dropout": recipe.lora_dropout,
        "target_modules": list(recipe.target_modules),
    }
    if training.coverage is not None:
        lora["coverage"] = training.coverage
    return AdapterManifest(
        persona=spec.request.persona,
        version=spec.version,
        job_id=spec.job_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        base_model=job.base.name,
        base_model_hash=fingerprint(job.base),
        prompt_version=PROMPT_VERSION,
        chat_template=default_template(job.base) or "own",
        lora=lora,
        recipe=spec.request.recipe,
        hyperparameters=recipe.hyperparameters,
        training_precision=f"{_stored_form(job, recipe)} base, {recipe.precision} compute, float32 adapter",
        serving_precision=spec.serving_precision,
        dataset_hash=job.data.hash,
        dataset=job.data.counts,
        rights=job.data.rights,
        seed=recipe.seed,
        packages=run.config.packages,
        threads=run.config.threads,
        kernels=training.kernels,
        caveats=run.caveats,
        start_from=job.parent.info if job.parent else None,
        written=job.written,
        metrics=training.metrics,
        checksums={},
    )


def _stored_form(job: PreparedJob, recipe: Recipe) -> str:
    """Name the form of the base model's weights: as it is stored, or as the recipe quantises it."""
    stored = job.base.quantisation
    if stored is None:
        return str(recipe.quant_type)
    return stored.name if recipe.quant_type != "none" else f"{stored.name}, unpacked,"


def write_adapter_data_sheet(
    folder: Path, spec: JobSpec, data: Dataset, written: WrittenReplies | None = None
) -> None:
    """Write `datasheet.json` and its Markdown version, `datasheet.md`. Raises `OSError`."""
    sheet = {
        "format": 1,
        "samples": {"train": len(data.trained), "heldout": len(data.heldout)},
        "by_right": data.rights,
        "by_source": data.sources,
        "arrived": dict(sorted(data.days.items())),
        "replaced": dict(data.replaced),
        "name_search": data.name_search,
        "dropped": dict(data.ledger.dropped.most_common()),
        "permission": data.permission,
        "materials": [
            material.model_dump(
                include={"kind", "origin", "right", "stated_by", "stated_on", "why", "arrived"}
            )
            for material in spec.materials
            # Every job of a persona has it, and only some recipes train on it.
            if material.kind != "general-training" or GENERAL_TRAINING_SOURCE in data.sources
        ],
        "written": written.model_dump() if written else None,
        "stated": {name: dict(stated) for name, stated in data.stated.items()},
        "hash": data.hash,
    }
    (folder / DATA_SHEET_FILE).write_text(
        json.dumps(sheet, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (folder / DATA_SHEET_MARKDOWN).write_text(
        _data_sheet_markdown(spec, sheet, written), encoding="utf-8"
    )


def _data_sheet_markdown(
    spec: JobSpec, sheet: Mapping[str, Any], written: WrittenReplies | None
) -> str:
    samples = sheet["samples"]
    days = [day for day in sheet["arrived"] if day]
    stated = ("kind", "origin", "right", "stated_by", "stated_on", "why")
    parts = [
        f"# Data sheet of {spec.request.persona or 'dialogue'} {spec.version}",
        f"{samples['train']:,} training samples, {samples['heldout']:,} held out. "
        + (f"They arrived from {days[0]} to {days[-1]}." if days else ""),
        "## Rights",
        _counts_table("right", sheet["by_right"]),
        render_permission_note(sheet["permission"]) if sheet["permission"] else "",
        markdown_table(
            ("material", "origin", "right", "stated by", "on", "why"),
            ([material[key] for key in stated] for material in sheet["materials"]),
            numbers=False,
        ),
        _inherited_rights(sheet["stated"]),
        _written_note(written),
        "## Sources",
        _counts_table("source", sheet["by_source"]),
        "## Replaced",
        _counts_table("kind", sheet["replaced"], "places")
        if sheet["replaced"]
        else "Members appear under pseudonyms.",
        _name_search_note(sheet["name_search"]),
        "Pseudonymised is not anonymous: anyone with the key in the bot's home can identify the "
        "people.",
        "## Left out",
        _counts_table("reason", sheet["dropped"], "records") if sheet["dropped"] else "Nothing.",
        f"Hash of the samples: `{sheet['hash']}`. `people.json` lists the people in them by keyed "
        "hash.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _name_search_note(searched: Mapping[str, Mapping[str, int]]) -> str:
    """Say in which scripts names were looked for; empty for a run without texts of people."""
    described = describe_name_search(searched)
    return f"In these texts, {described}." if described else ""


def _written_note(written: WrittenReplies | None) -> str:
    """Say which model wrote replies, under whose right; empty if none did."""
    if written is None:
        return ""
    right = f"The right to them is that to the card, through {model_label(written.teacher)}."
    return f"Of {WRITTEN_SOURCE}: {written.text} {right}"


def _inherited_rights(stated: Mapping[str, Mapping[str, str]]) -> str:
    """Tabulate the rights that a built data set states for its own sources."""
    if not stated:
        return ""
    rows = [
        (name, *(statement.get(key, "") for key in ("right", "stated_by", "stated_on", "why")))
        for name, statement in stated.items()
    ]
    head = ("source in the data set", "right", "stated by", "on", "why")
    return markdown_table(head, rows, numbers=False)


def _counts_table(what: str, counts: Mapping[str, int], of: str = "samples") -> str:
    return markdown_table((what, of), ((name, f"{count:,}") for name, count in counts.items()))


def write_model_card(folder: Path, manifest: AdapterManifest, training: TrainingRecord) -> None:
    """Write `README.md`, the model card (https://arxiv.org/abs/1810.03993): identity, results,
    training, data, settings.
    """
    name = manifest.persona or "dialogue"
    sections = [
        f"# {name} {manifest.version}",
        f"A LoRA adapter for the base model `{manifest.base_model}`, trained on "
        f"{manifest.created_at} by the job "
        f"`{manifest.job_id}`. It only works with that base model (hash "
        f"`{manifest.base_model_hash[:16]}…`).",
        _parent_section(manifest),
        manifest.written.text if manifest.written else "",
        "## Results",
        _metrics_table(manifest.metrics),
        "## Training",
        training_section(training, f"{REPORT_FOLDER}/"),
        f"[{REPORT_FOLDER}/README.md]({REPORT_FOLDER}/README.md) has the curves as tables; "
        f"`{REPORT_FOLDER}/` also has "
        "files for spreadsheets and TensorBoard.",
        "## Data",
        _key_value_table(("right", "samples"), manifest.rights.items()),
        _key_value_table(("composition", "number"), manifest.dataset.items()),
        "Members appear under pseudonyms; [datasheet.md](datasheet.md) lists the sources of the "
        "samples. The loss "
        "covers replies and their ends of turn only.",
        "## Settings",
        f"Recipe `{manifest.recipe}`, seed {manifest.seed}, trained in "
        f"{manifest.training_precision}, measured and "
        f"served in {manifest.serving_precision}, prompt format {manifest.prompt_version}, "
        f"{_template_words(manifest)}.",
        _key_value_table(
            ("setting", "value"), [*manifest.hyperparameters.items(), *_lora_settings(manifest)]
        ),
        _coverage_words(manifest),
        *manifest.caveats,
        "Packages: "
        + ", ".join(f"{package} {version}" for package, version in manifest.packages.items())
        + ".",
    ]
    (folder / "README.md").write_text(
        "\n\n".join(part for part in sections if part) + "\n", encoding="utf-8"
    )


def _lora_settings(manifest: AdapterManifest) -> list[tuple[str, object]]:
    return [(name, value) for name, value in manifest.lora.items() if name != "coverage"]


def _coverage_words(manifest: AdapterManifest) -> str:
    coverage = manifest.lora.get("coverage")
    if not isinstance(coverage, float):
        return ""
    return f"The adapter covers {coverage:.1%} of the parameters in the base model's blocks."


def _template_words(manifest: AdapterManifest) -> str:
    if manifest.chat_template == "own":
        return "the base model's own chat template"
    return (
        f"Understudy's default chat template `{manifest.chat_template}`, which the base model does "
        "not bring along"
    )


def _parent_section(manifest: AdapterManifest) -> str:
    """Name the adapter that training continued from; empty for a new one."""
    if (start := manifest.start_from) is None:
        return ""
    return (
        f"Its training continued from the adapter {start.persona or 'dialogue'} {start.version} "
        f"(job `{start.job_id}`, "
        f"weights `{start.weights[:16]}…`)."
    )


def _metrics_table(metrics: ScoreSummary) -> str:
    gain = 1 - metrics.loss_tuned / metrics.loss_base
    rows = [
        ("held-out replies, base model", f"{metrics.loss_base:.4f}"),
        ("held-out replies, this adapter", f"{metrics.loss_tuned:.4f} ({gain:.1%} lower)"),
        ("general dialogue, base model", f"{metrics.general_loss_base:.4f}"),
        ("general dialogue, this adapter", f"{metrics.general_loss_tuned:.4f}"),
    ]
    note = (
        "Loss in nats per reply token, end of turn included, after the same prompts; "
        f"{metrics.heldout_replies} "
        f"held-out replies hold {metrics.heldout_tokens} tokens. Measured in {metrics.precision}."
    )
    return _key_value_table(("measure", "value"), rows) + "\n\n" + note


def _key_value_table(head: tuple[str, str], rows: Iterable[tuple[str, object]]) -> str:
    lines = [f"| {left} | {right} |" for left, right in [head, ("---", "---"), *rows]]
    return "\n".join(lines)
