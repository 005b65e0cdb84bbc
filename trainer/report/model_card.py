"""What an adapter folder says to people: the model card (README.md)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from personas.contracts import Manifest, ScoreCard
from trainer.report.training import REPORT, Training, training_section


def write_model_card(folder: Path, manifest: Manifest, training: Training) -> None:
    """`README.md`, after https://arxiv.org/abs/1810.03993: what it is, from what, how made, how good."""
    name = manifest.persona or "dialogue"
    sections = [
        f"# {name} {manifest.version}",
        f"A LoRA adapter for the base model `{manifest.base_model}`, made on {manifest.created_at} by the job "
        f"`{manifest.job_id}`. It belongs to that base model only (hash `{manifest.base_model_hash[:16]}…`).",
        _start(manifest),
        "## Results",
        _results(manifest.metrics),
        "## Training",
        training_section(training, f"{REPORT}/"),
        f"[{REPORT}/README.md]({REPORT}/README.md) has the curves as tables; beside it lie files for spreadsheets and "
        "TensorBoard.",
        "## Data",
        _rows(("right", "samples"), manifest.rights.items()),
        _rows(("composition", "number"), manifest.dataset.items()),
        "Members appear under pseudonyms; [datasheet.md](datasheet.md) says where the samples are from. The loss was "
        "taken on the replies and their ends of turn only.",
        "## Settings",
        f"Recipe `{manifest.recipe}`, seed {manifest.seed}, trained in {manifest.training_precision}, measured and "
        f"served in {manifest.serving_precision}, prompt format {manifest.prompt_version}.",
        _rows(("setting", "value"), [*manifest.hyperparameters.items(), *manifest.lora.items()]),
        *manifest.caveats,
        "Packages: " + ", ".join(f"{package} {version}" for package, version in manifest.packages.items()) + ".",
    ]
    (folder / "README.md").write_text("\n\n".join(part for part in sections if part) + "\n", encoding="utf-8")


def _start(manifest: Manifest) -> str:
    """Which adapter it went on from; empty for one that was new."""
    if (start := manifest.start_from) is None:
        return ""
    return (
        f"Its training went on from the adapter {start.persona or 'dialogue'} {start.version} (job `{start.job_id}`, "
        f"weights `{start.weights[:16]}…`)."
    )


def _results(metrics: ScoreCard) -> str:
    gain = 1 - metrics.loss_tuned / metrics.loss_base
    rows = [
        ("held-out replies, base model", f"{metrics.loss_base:.4f}"),
        ("held-out replies, this adapter", f"{metrics.loss_tuned:.4f} ({gain:.1%} lower)"),
        ("general dialogue, base model", f"{metrics.general_loss_base:.4f}"),
        ("general dialogue, this adapter", f"{metrics.general_loss_tuned:.4f}"),
    ]
    note = (
        f"Loss in nats per reply token, end of turn included, after the same prompts; {metrics.heldout_replies} "
        f"held-out replies hold {metrics.heldout_tokens} tokens. Measured in {metrics.precision}."
    )
    return _rows(("measure", "value"), rows) + "\n\n" + note


def _rows(head: tuple[str, str], rows: Iterable[tuple[str, object]]) -> str:
    lines = [f"| {left} | {right} |" for left, right in [head, ("---", "---"), *rows]]
    return "\n".join(lines)
