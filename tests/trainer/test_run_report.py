"""What an adapter says of its training: the whole run, also where it took two processes; tables,
curves, figures.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import types
import xml.etree.ElementTree as ET

import psutil
import pytest

from personas.home.adapters import read_epochs, verify_adapter
from personas.schemas.training_events import Done, Epoch, Evaluation, Progress, ScoreSummary
from tests.trainer.job_folders import persona_job
from trainer.dataset.charts import HELDOUT_COLOUR, SMOOTH_COLOUR
from trainer.machine import MemoryPeak, MemoryWatch, total_memory_bytes
from trainer.process.run_control import RunCancelled
from trainer.report.run_report import (
    TrainingRecord,
    format_duration,
    make_curves,
    moving_average,
    training_section,
    write_run_report,
)
from trainer.run import run_job
from trainer.train.experiment_tracker import ExperimentTracker, TensorBoardFile
from trainer.train.training_run import RunControl

STEPS = 6
SETTINGS = {"num_train_epochs": 3}
CARD = ScoreSummary(
    heldout_replies=2,
    heldout_tokens=20,
    loss_base=3.0,
    loss_tuned=2.0,
    general_loss_base=3.0,
    general_loss_tuned=3.1,
    precision="float32",
)
CPU = MemoryPeak(6 * 10**9, 24 * 10**9, "main memory")


def step(number: int, loss: float = 2.0, **changes: object) -> Progress:
    result = {
        "step": number,
        "of": 9,
        "epoch": number / 3,
        "loss": loss,
        "lr": 1e-3,
        "tokens_per_s": 5.0,
        "eta_s": 1.0,
    }
    return Progress(**{**result, "memory_bytes": 7, "seconds": float(number), **changes})


class Resumed:
    """A run that was stopped after its third step, and the rest of it."""

    def __init__(self, folder, base):
        self.folder = persona_job(folder, base.source, hyperparameters=SETTINGS)
        self.received = []
        with pytest.raises(RunCancelled):
            self.run(stops=True)
        self.stopped_s = next(
            event.seconds for event in reversed(self.received) if isinstance(event, Progress)
        )
        self.run()
        self.adapter = self.folder / "adapter"
        self.report = self.adapter / "report"

    def run(self, stops=False):
        def check():
            if stops and self.received and isinstance(self.received[-1], Epoch):
                raise RunCancelled("the test")

        run_job(self.folder, RunControl(self.received.append, check))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, tiny_base):
    return Resumed(tmp_path_factory.mktemp("resumed"), tiny_base)


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show of a folder of event files: what was voided by a later one is
    left out.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name.rpartition(".")[2])):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.session_log.status == SessionLog.START:
                found = {
                    tag: [it for it in values if it[0] < event.step]
                    for tag, values in found.items()
                }
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_the_report_of_a_resumed_run_covers_the_whole_run(resumed):
    verify_adapter(resumed.adapter)
    steps = list(csv.DictReader((resumed.report / "steps.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in steps] == list(range(1, STEPS + 1))
    seconds = [float(row["seconds"]) for row in steps]
    assert seconds == sorted(seconds) and resumed.stopped_s in seconds
    epochs = list(csv.DictReader((resumed.report / "epochs.csv").read_text().splitlines()))
    assert [(row["epoch"], row["step"]) for row in epochs] == [("1", "2"), ("2", "4"), ("3", "6")]
    figures = json.loads((resumed.report / "training.json").read_text())
    assert figures["seconds"] > seconds[-1] - 0.1
    assert resumed.received[-1] == Done(adapter=str(resumed.adapter), seconds=figures["seconds"])
    assert figures["train_loss"] == pytest.approx(float(epochs[-1]["train_loss"]))
    assert (
        figures["heldout_loss"]
        == json.loads((resumed.adapter / "scorecard.json").read_text())["heldout"]["loss"]["new"]
    )


def test_the_model_card_has_the_table_the_figures_and_the_curves(resumed):
    card = (resumed.adapter / "README.md").read_text()
    assert card.count("| epoch | training loss | held-out loss | time | samples/s |") == 1
    for event in resumed.received:
        if isinstance(event, Epoch):
            clock = format_duration(event.seconds)
            row = (
                f"{event.epoch} | {event.train_loss:.4f} | {event.eval_loss:.4f} | {clock} | "
                f"{event.samples_per_s:.3g}"
            )
            assert f"| {row} |" in card
    first, *_, last = read_epochs(resumed.adapter)
    assert (
        f"Training loss {first.train_loss:.4f} → {last.train_loss:.4f}, held-out loss "
        f"{first.eval_loss:.4f} → " in card
    )
    figures = json.loads((resumed.report / "training.json").read_text())
    assert f"{figures['peak_bytes'] / 1e9:.3f} GB, {figures['memory_share']:.1%} of" in card
    assert "(report/loss.svg)" in card and "(report/learning_rate.svg)" in card


def test_samples_per_second_are_those_of_an_epoch_also_after_a_resume(resumed):
    epochs = [event for event in resumed.received if isinstance(event, Epoch)]
    trained = json.loads((resumed.adapter / "manifest.json").read_text())["dataset"][
        "samples_train"
    ]
    assert len(epochs) == 3 and epochs == list(read_epochs(resumed.adapter))
    assert [it.samples_per_s * it.seconds for it in epochs] == pytest.approx([trained] * 3)


def test_peak_memory_is_the_process_trees_with_its_share_of_the_machine(resumed):
    figures = json.loads((resumed.report / "training.json").read_text())
    now = psutil.Process().memory_info().rss
    assert figures["memory_of"] == "main memory" and figures["memory_bytes"] == total_memory_bytes()
    assert now * 0.5 < figures["peak_bytes"] < total_memory_bytes()
    assert figures["memory_share"] == pytest.approx(
        figures["peak_bytes"] / total_memory_bytes(), abs=1e-4
    )
    result = [event.memory_bytes for event in resumed.received if isinstance(event, Progress)]
    assert max(result) <= figures["peak_bytes"] * 1.01


def test_memory_counts_what_processes_below_hold():
    watch = MemoryWatch()
    alone = watch.held()
    code = "x = bytearray(200_000_000); print(len(x), flush=True); input()"
    child = psutil.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1)
    child.stdout.readline()
    below = MemoryWatch()
    with_child = below.held()
    peak = below.peak().bytes
    child.communicate(b"\n")
    assert with_child > alone + 150_000_000 and peak >= with_child
    watch.peak_before = 10**15
    assert watch.peak().bytes == 10**15


@pytest.mark.parametrize("name", ["loss", "learning_rate"])
def test_the_curves_are_pictures_with_a_name_on_an_opaque_ground(resumed, name):
    svg = ET.parse(resumed.report / f"{name}.svg").getroot()
    title = svg.find("{http://www.w3.org/2000/svg}title")
    assert "README.md" in title.text
    text = (resumed.report / f"{name}.svg").read_text()
    assert "fill: #ffffff" in text
    if name == "loss":
        assert "smoothed: sₙ = Σ 0.9" in text and "held out" in text
    assert (resumed.report / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_lines_stand_out_from_the_ground():
    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return sum(
            weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
        )

    for colour in (SMOOTH_COLOUR, HELDOUT_COLOUR):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_the_curves_stand_beside_their_figures_as_a_table(resumed):
    page = (resumed.report / "README.md").read_text()
    steps = list(csv.DictReader((resumed.report / "steps.csv").read_text().splitlines()))
    for row in steps:
        assert f"| {row['step']} | {float(row['loss']):.4f} |" in page


def test_tensorboard_has_the_whole_run_in_the_adapter_and_live_in_the_job_folder(resumed):
    files = list((resumed.report / "tensorboard").iterdir())
    assert len(files) == 1 and os.uname().nodename not in files[0].name
    for folder in (resumed.report / "tensorboard", resumed.folder / "tensorboard"):
        found = scalars(folder)
        assert [step for step, _ in found["train/loss"]] == list(range(1, STEPS + 1))
        assert [step for step, _ in found["eval/loss"]] == [2, 4, 6]
        assert {
            "train/learning_rate",
            "train/tokens_per_s",
            "epoch/seconds",
            "epoch/samples_per_s",
        } <= found.keys()
    result = {event.step: event.loss for event in resumed.received if isinstance(event, Progress)}
    assert dict(scalars(files[0].parent)["train/loss"]) == pytest.approx(result)


def test_smoothing_is_its_formula():
    values = [4.0, 1.0, 3.0]
    weights = [0.81, 0.9, 1.0]
    assert list(moving_average(values))[-1] == pytest.approx(
        sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    )
    assert list(moving_average([2.5] * 40)) == pytest.approx([2.5] * 40)


def test_curves_take_held_out_losses_of_both_kinds():
    history = (
        step(1, 3.0),
        Evaluation(step=1, epoch=0.3, train_loss=3.0, eval_loss=2.9),
        step(2, 2.0),
        Epoch(epoch=1, train_loss=2.5, eval_loss=None, seconds=3.0, step=2),
    )
    curves = make_curves(history)
    assert curves.steps == (1, 2) and curves.losses == (3.0, 2.0) and curves.heldout == ((1, 2.9),)


def test_a_long_run_shows_some_steps_and_says_so_and_one_without_measurements_has_no_empty_cells(
    tmp_path,
):
    history = (
        *(step(n, 3 - n / 1000) for n in range(1, 101)),
        Epoch(epoch=1, train_loss=None, eval_loss=None, seconds=3671.4, step=100),
    )
    write_run_report(tmp_path, TrainingRecord(history, 3700.0, CPU, CARD))
    page = (tmp_path / "report" / "README.md").read_text()
    rows = page.partition("| step | loss |")[2].split("\n\n")[0].splitlines()[2:]
    assert (
        len(rows) == 20
        and rows[0].startswith("| 1 |")
        and rows[-1].startswith("| 100 |")
        and "20 of 100 steps" in page
    )
    assert "| 1 | – | – | 1:01:11 | – |" in page and "final one is the written" not in page
    assert "6.000 GB, 25.0% of 24.0 GB" in page
    assert not (tmp_path / "report" / "evaluations.csv").exists()


def test_a_run_measured_by_steps_has_that_table_too():
    history = (step(1), Evaluation(step=1, epoch=0.5, train_loss=2.0, eval_loss=1.75))
    section = training_section(TrainingRecord(history, 5.0, CPU, CARD), "")
    assert "as served, in float32" in section
    assert (
        "| step | training loss | held-out loss |" in section
        and "| 1 | 2.0000 | 1.7500 |" in section
    )


# ----------------------------------------------------------------------------------------- tracking


class Wandb(types.ModuleType):
    """Stands in for the package, which is not installed: it notes what it gets, or fails."""

    def __init__(self, fails_at=""):
        super().__init__("wandb")
        self.fails_at = fails_at
        self.got = []
        self.begun = None
        self.finished = False
        self.__spec__ = types.SimpleNamespace(name="wandb")

    def Settings(self, **settings):
        return settings

    def init(self, **options):
        self._may_fail("init")
        self.begun = options
        return self

    def log(self, figures, step):
        self._may_fail("log")
        self.got.append((step, figures))

    def finish(self):
        self._may_fail("finish")
        self.finished = True

    def _may_fail(self, where):
        if where == self.fails_at:
            raise RuntimeError("no network")


def tracked(tmp_path, environ, *events):
    tracking = ExperimentTracker(tmp_path, "ada-v1", {"lora_r": 4}, environ)
    for event in events:
        tracking.log_event(event)
    tracking.close()


def test_wandb_gets_figures_only_where_a_key_is_set(tmp_path, monkeypatch):
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    tracked(tmp_path, {}, step(1))
    assert wandb.begun is None and not wandb.got
    tracked(tmp_path, {"WANDB_API_KEY": "k"}, step(1), step(2))
    assert (
        wandb.begun["name"] == "ada-v1"
        and wandb.begun["config"] == {"lora_r": 4}
        and wandb.finished
    )
    assert [number for number, _ in wandb.got] == [1, 2] and wandb.got[0][1]["train/loss"] == 2.0
    assert wandb.begun["project"] == "understudy"
    tracked(tmp_path, {"WANDB_API_KEY": "k", "WANDB_PROJECT": "harbour"}, step(3))
    assert wandb.begun["project"] == "harbour"


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_run_goes_on_when_wandb_fails(tmp_path, monkeypatch, caplog, where):
    monkeypatch.setitem(sys.modules, "wandb", Wandb(where))
    tracked(tmp_path, {"WANDB_API_KEY": "k"}, step(1), step(2))
    assert caplog.text.count("no network") == 1
    assert [number for number, _ in scalars(tmp_path / "tensorboard")["train/loss"]] == [1, 2]


def test_a_key_without_the_package_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        "trainer.train.experiment_tracker.importlib.util.find_spec", lambda name: None
    )
    tracked(tmp_path, {"WANDB_API_KEY": "k"}, step(1))
    assert "wandb is not installed" in caplog.text


def test_a_run_goes_on_when_the_log_cannot_be_written(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("in the way")
    tracked(tmp_path, {}, step(1), step(2))
    assert caplog.text.count("TensorBoard file") == 1


def test_what_a_killed_process_logged_beyond_its_checkpoint_is_void(tmp_path):
    first = TensorBoardFile(tmp_path, 1.0, 1)
    for number in (1, 2, 3):
        first.add(number, {"train/loss": 9.0}, 2.0)
    first.close()
    second = TensorBoardFile(tmp_path, 3.0, 3)
    second.add(3, {"train/loss": 1.0}, 4.0)
    second.close()
    assert scalars(tmp_path)["train/loss"] == [(1, 9.0), (2, 9.0), (3, 1.0)]
