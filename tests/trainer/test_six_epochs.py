"""s0-6gb over the embedded model: six epochs told in a table, and in a second run early
stopping.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from personas.home.adapters import verify_adapter

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "vietnamese"
QUICKLY = ("max_length=640", "per_device_train_batch_size=4", "gradient_checkpointing=false")
AS_PUBLISHED = "gradient_accumulation_steps=4"
"""16 samples a step, as the recipe has it, computed four at once."""
THIRD, QUARTER = 44, 32
"""Messages of the 128 of the log, to take minutes only."""
BY_HEART = (
    "gradient_accumulation_steps=1", "learning_rate=2e-3", "lr_scheduler_type=constant", "lora_dropout=0",
    "num_train_epochs=12",
)  # fmt: skip


def trained(folder: Path, messages: int, *settings: str) -> list[dict[str, str]]:
    """The table by epoch of a run in a folder of its own, on the beginning of the log."""
    talk = folder.parent / "talk.jsonl"
    lines = (HERE / talk.name).read_text(encoding="utf-8").splitlines(keepends=True)
    talk.write_text("".join(lines[:messages]), encoding="utf-8")
    shutil.copy(HERE / "rights.toml", talk.parent)
    words = [word for setting in (*QUICKLY, *settings) for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "train", "--persona", HERE / "nam-do.toml", "--dataset", talk,
         "--recipe", "s0-6gb", "--card", "losses", *words, "--out", folder],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "UNDERSTUDY_HOME": str(folder.parent / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (folder / "adapter" / "report" / "epochs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_six_epochs_are_reported_and_held_out_replies_become_likelier(tmp_path):
    epochs = trained(tmp_path / "six", THIRD, AS_PUBLISHED)
    assert [int(row["epoch"]) for row in epochs] == [1, 2, 3, 4, 5, 6]
    train, heldout = ([float(row[name]) for row in epochs] for name in ("train_loss", "eval_loss"))
    after_warmup = train[1:]  # the first of the two steps of the first epoch changes nothing
    assert (
        after_warmup == sorted(after_warmup, reverse=True)
        and train[-1] < train[0]
        and heldout[-1] < heldout[0]
    )
    assert all(float(row["seconds"]) > 0 for row in epochs)
    page = (tmp_path / "six" / "adapter" / "report" / "README.md").read_text(encoding="utf-8")
    for row in epochs:
        assert (
            f"| {row['epoch']} | {float(row['train_loss']):.4f} | {float(row['eval_loss']):.4f} |"
            in page
        )
    metrics = verify_adapter(tmp_path / "six" / "adapter").metrics
    assert metrics.loss_tuned < metrics.loss_base


@pytest.mark.slow
def test_a_run_that_learns_by_heart_stops_early_and_keeps_the_best(tmp_path):
    epochs = trained(tmp_path / "early", QUARTER, *BY_HEART)
    heldout = [float(row["eval_loss"]) for row in epochs]
    assert len(epochs) < 12, heldout
    assert min(heldout[:-2]) <= min(heldout[-2:]), (
        "two epochs in which nothing became better end it"
    )
    metrics = verify_adapter(tmp_path / "early" / "adapter").metrics
    assert metrics.loss_tuned == pytest.approx(min(heldout), rel=0.05), (
        "the best is kept, not the last"
    )
