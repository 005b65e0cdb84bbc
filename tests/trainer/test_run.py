"""Runs, as a process: `python -m trainer run` on a tiny real model."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

import trainer.cli.main
from personas.home.adapters import verify_adapter
from personas.schemas.scorecard import ScoreCard
from personas.schemas.training_events import TRAINER_EVENT
from tests.trainer.job_folders import dialogue_job, events, persona_job

ROOT = Path(__file__).parents[2]
TRAINER = ("-m", "trainer")
FOREVER = {"hyperparameters": {"num_train_epochs": 50}}


def start(folder: Path, *options: str, program: tuple[str, ...] = TRAINER) -> subprocess.Popen[str]:
    """The trainer on a folder."""
    return subprocess.Popen(
        [sys.executable, *program, "run", str(folder), "--card", "losses", *options],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    folder: Path, *options: str, program: tuple[str, ...] = TRAINER
) -> tuple[int, list[dict], str]:
    """Exit code, events and log of a run that ends by itself."""
    process = start(folder, *options, program=program)
    out, log = process.communicate(timeout=120)
    return process.returncode, events(out), log


def wait_for_step(process: subprocess.Popen[str]) -> None:
    """Read events until the first optimiser step is done."""
    while line := process.stdout.readline():
        if json.loads(line)["event"] == "progress":
            return
    raise AssertionError(f"no step was made: {process.stderr.read()}")


def leftovers(folder: Path) -> set[str]:
    """What a run has left that is neither its input, its record nor what it would go on from."""
    inputs = {"material", "request.json", "keys.json"}
    kept = {
        *inputs,
        "people.json",
        "heldout_new.bin",
        "events.jsonl",
        "lock",
        "run.json",
        "checkpoints",
        "tensorboard",
        "dataset",
    }
    return {path.name for path in folder.iterdir()} - kept


@pytest.mark.slow
def test_killed_then_stopped_then_done_then_done_at_once(tmp_path, tiny_base):
    """One folder through all ends of a run: each later run finds nothing that stops it."""
    folder = persona_job(tmp_path, tiny_base.source, **FOREVER)
    killed = start(folder)
    wait_for_step(killed)
    killed.kill()
    killed.communicate()
    assert all(name.startswith(".adapter.") for name in leftovers(folder))

    stopped = start(folder)
    wait_for_step(stopped)
    stopped.send_signal(signal.SIGTERM)
    out, _ = stopped.communicate(timeout=30)
    assert stopped.returncode == 143
    last = events(out)[-1]
    advice = last.pop("advice")
    assert last == {"event": "failed", "cause": "stopped", "retry": True}
    assert "SIGTERM" in advice and "again" in advice
    assert leftovers(folder) == set()

    request = json.loads((folder / "request.json").read_text())
    request["request"]["hyperparameters"]["num_train_epochs"] = 2
    (folder / "request.json").write_text(json.dumps(request))
    code, received, log = run(
        folder, "--threads", "1", "--nice", "5", program=("-X", "importtime", *TRAINER)
    )
    assert code == 0, log
    # It takes as long to load as torch does, and nothing is compiled.
    assert "| bitsandbytes" in log.replace("  ", "") and "torch._inductor.compile_fx" not in log
    assert "starting anew" in log  # with other settings nothing of the earlier run can be used
    check_events(received)
    check_adapter(folder)
    assert not (folder / "checkpoints").exists()

    code, again, log = run(folder)
    assert (code, [event["event"] for event in again]) == (0, ["done"]), log
    kept = events((folder / "events.jsonl").read_text())
    assert kept[-1] == again[0] and kept[-1 - len(received) : -1] == received


def check_events(received: list[dict]) -> None:
    for event in received:
        TRAINER_EVENT.validate_python(event)
    phases = [
        name
        for name, _ in itertools.groupby(
            event["name"] for event in received if event["event"] == "phase"
        )
    ]
    assert phases == [
        "material",
        "base model",
        "measuring the base",
        "training",
        "measuring the adapter",
        "writing",
    ]
    assert [event["event"] for event in received][-3:] == ["scorecard", "phase", "done"]
    assert sum(event["event"] == "epoch" for event in received) == 2


def check_adapter(folder: Path) -> None:
    manifest = verify_adapter(folder / "adapter")
    logs = {
        name
        for name in manifest.checksums
        if name.startswith("report/tensorboard/events.out.tfevents.")
    }
    assert len(logs) == 1
    assert set(manifest.checksums) - logs == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "datasheet.json",
        "datasheet.md",
        "people.json",
        "report/README.md",
        "report/epochs.csv",
        "report/learning_rate.png",
        "report/learning_rate.svg",
        "report/loss.png",
        "report/loss.svg",
        "report/steps.csv",
        "report/training.json",
        "scorecard.json",
        "scorecard.md",
    }
    assert manifest.dataset["samples_train"] + manifest.dataset["samples_heldout"] == 16
    assert manifest.rights == {"own-writing": 16} and manifest.lora["r"] == 4
    assert manifest.metrics.loss_tuned < manifest.metrics.loss_base
    assert manifest.metrics.verdict == "hold" and manifest.metrics.reasons, (
        "of losses alone nothing is promoted"
    )
    card = ScoreCard.model_validate_json((folder / "adapter" / "scorecard.json").read_bytes())
    assert manifest.metrics == card.short and card.base_is_base == 0
    assert card.verdict and card.verdict.verdict == manifest.metrics.verdict
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == manifest.base_model
    card = (folder / "adapter" / "README.md").read_text()
    assert (
        "# ada v1" in card
        and "own-writing" in card
        and f"{manifest.metrics.loss_tuned:.4f}" in card
    )
    steps = list(
        csv.DictReader((folder / "adapter" / "report" / "steps.csv").read_text().splitlines())
    )
    assert [step["step"] for step in steps] == [str(n) for n in range(1, len(steps) + 1)]


@pytest.mark.slow  # what a closed pipe does is tested in test_pause, what a stop does above
def test_a_run_stops_when_the_process_that_started_it_is_gone(tmp_path, tiny_base):
    process = start(persona_job(tmp_path, tiny_base.source, **FOREVER), "--stop-on-eof")
    wait_for_step(process)
    process.stdin.close()
    process.stdin = None
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "is gone" in events(out)[-1]["advice"]


def test_a_second_trainer_touches_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trainer.cli.main, "cancel_on_signals", lambda stop: None)
    folder = dialogue_job(tmp_path, "embedded")
    options = argparse.Namespace(folder=folder, stop_on_eof=False, attempt=0)
    out = io.StringIO()
    with FileLock(folder / "lock"):
        code = trainer.cli.main._run(options, out)
    received = events(out.getvalue())
    assert code == 3
    assert received[0]["cause"] == f"Another trainer works on {folder}." and len(received) == 1
    assert f"Another trainer works on {folder}. Wait for it." in caplog.text
    assert leftovers(folder) == set() and not (folder / "events.jsonl").exists()


def test_what_fails_is_one_event_and_one_line_of_log(tmp_path):
    code, received, log = run(dialogue_job(tmp_path, str(tmp_path / "nowhere")))
    assert code == 1
    assert [event["event"] for event in received] == ["phase", "failed"]
    assert "neither a folder nor a model" in received[-1]["cause"] and not received[-1]["retry"]
    assert received[-1]["cause"] in log and "Traceback" not in log


def test_what_is_named_wrongly_is_said(command, capsys):
    code, _, errors = command("run", "nowhere")
    assert code == 1 and "There is no folder" in errors
    with pytest.raises(SystemExit):
        command("matrix", "--adapter", "ada", "--job", "ada=.")
    assert "expected PERSONA=FOLDER" in capsys.readouterr().err
