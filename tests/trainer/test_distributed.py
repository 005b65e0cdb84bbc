"""More than one process: the steps and losses of one, one voice, one adapter, and kills that change
nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.prompt.renderer import TokenizedSample
from tests.trainer.job_folders import events, persona_job
from tests.trainer.test_run import run
from trainer.process.run_control import RunCancelled
from trainer.train.collator import PADDING_SAMPLE, collate, drop_padding_samples, reply_losses
from trainer.train.distributed import DistributedContext, distributed_context

EXACT = {
    "num_train_epochs": 4,
    "lora_dropout": 0.0,
    "precision": "fp32",
    "gradient_accumulation_steps": 2,
}
OPTIONS = ("--threads", "1", "--checkpoint-every", "1", "--card", "losses")


@pytest.mark.parametrize(
    ("count", "batch", "accumulation", "share"),
    [
        (1, 4, 2, (4, 2)),
        (2, 4, 2, (4, 1)),
        (2, 4, 6, (4, 3)),
        (2, 4, 1, (2, 1)),
        (4, 4, 2, (2, 1)),
        (8, 4, 6, (1, 3)),
    ],
)
def test_all_processes_together_make_the_step_of_one(count, batch, accumulation, share):
    assert DistributedContext(0, count).share(batch, accumulation) == share
    assert share[0] * share[1] * count == batch * accumulation


def test_a_step_that_cannot_be_shared_evenly_is_refused_with_one_that_can():
    with pytest.raises(RequestError, match=r"3 processes .*2 batches of 4 .*multiple of 3"):
        DistributedContext(0, 3).share(4, 2)


def test_a_run_that_nobody_has_launched_is_one_process():
    assert distributed_context({}) == DistributedContext(0, 1)
    assert distributed_context({"RANK": "1", "WORLD_SIZE": "2"}) == DistributedContext(1, 2)
    alone = DistributedContext()
    assert alone.broadcast("x") == "x" and alone.sums(1, 2.5) == [1, 2.5]

    def stop():
        raise RunCancelled("SIGTERM")

    with pytest.raises(RunCancelled, match="SIGTERM"):
        alone.agreeing(stop)()


def test_random_numbers_are_others_in_each_process_and_step():
    drawn = {
        DistributedContext(index, 2).seed(seed, step)
        for index, seed, step in itertools.product((0, 1), (0, 1), range(50))
    }
    assert len(drawn) == 200


def test_nothing_is_learned_from_samples_that_fill_up_a_batch(tiny_base):
    from personas.models.loading import load_model

    sample = TokenizedSample((5, 6, 7, 8), (False, False, True, True))
    assert drop_padding_samples([PADDING_SAMPLE, sample, PADDING_SAMPLE]) == [sample]
    model = load_model(tiny_base, "float32")
    losses = reply_losses(model, collate(drop_padding_samples([PADDING_SAMPLE, PADDING_SAMPLE])))
    losses.sum().backward()
    assert len(losses) == 0
    assert all(not weight.grad.any() for weight in model.parameters() if weight.grad is not None)


def launch(folder: Path, *options: str) -> subprocess.Popen[str]:
    words = (
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
    )
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *words,
        "--main_process_port=0",
        "-m",
        "trainer",
    ]
    return subprocess.Popen(
        [*command, "run", str(folder), *OPTIONS, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def losses(received: list[dict]) -> list[float]:
    return [
        event[key]
        for event in received
        for key in ("loss", "eval_loss")
        if event.get(key) is not None
    ]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory, tiny_base):
    """The folder of a run by two processes, what it printed, and its log."""
    folder = persona_job(tmp_path_factory.mktemp("two"), tiny_base.source, hyperparameters=EXACT)
    process = launch(folder)
    out, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    return folder, events(out), log


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_and_one_of_them_speaks(by_two, tmp_path, tiny_base):
    folder, received, _ = by_two
    alone = persona_job(tmp_path, tiny_base.source, hyperparameters=EXACT)
    code, expected, log = run(alone, *OPTIONS)
    assert code == 0, log
    assert losses(received) == pytest.approx(losses(expected), rel=1e-4)
    assert Counter(event["event"] for event in received) == Counter(
        event["event"] for event in expected
    )
    assert events((folder / "events.jsonl").read_text()) == received
    assert verify_adapter(folder / "adapter").job_id == "job-1"
    assert json.loads((folder / "run.json").read_text())["processes"] == 2
    manifest = json.loads((folder / "adapter" / "manifest.json").read_text())
    assert any("2 processes" in caveat for caveat in manifest["caveats"])
    first, second = ((each / "adapter" / "adapter_model.safetensors") for each in (folder, alone))
    assert first.stat().st_size == second.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_or_killed_and_resumed_two_processes_make_the_same_adapter(
    by_two, tmp_path, tiny_base, how
):
    undisturbed, _, _ = by_two
    folder = persona_job(tmp_path, tiny_base.source, hyperparameters=EXACT)
    process = launch(folder)
    steps = 0
    while steps < 5 and (line := process.stdout.readline()):
        steps += json.loads(line)["event"] == "progress"
    if how == signal.SIGKILL:
        for each in psutil.Process(process.pid).children(recursive=True):
            each.kill()
        process.kill()
    else:
        process.send_signal(how)
    process.communicate(timeout=120)
    assert not (folder / "adapter").exists()
    code, received, _ = run(folder, *OPTIONS)
    assert code == 1 and "began with 2 processes" in received[-1]["cause"]

    process = launch(folder)
    out, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    assert next(event["step"] for event in events(out) if event["event"] == "progress") > 1, (
        "it began anew"
    )
    weights = [
        (each / "adapter" / "adapter_model.safetensors").read_bytes()
        for each in (folder, undisturbed)
    ]
    assert weights[0] == weights[1]


def test_the_processes_of_a_machine_share_its_cores(monkeypatch):
    from trainer.process.environment import QUIET_LIBRARY_SETTINGS, configure_process

    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.nice", lambda by: None)
    monkeypatch.setattr("logging.basicConfig", lambda **options: None)
    for name in (
        "OMP_NUM_THREADS",
        "GOMP_SPINCOUNT",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
        *QUIET_LIBRARY_SETTINGS,
    ):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    configure_process(0, None)
    assert os.environ["OMP_NUM_THREADS"] == "2"
