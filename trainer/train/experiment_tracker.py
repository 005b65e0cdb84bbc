"""Logs a run's metrics to TensorBoard files, and to Weights & Biases where a key is set."""

import importlib
import importlib.util
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from personas.schemas.training_events import Epoch, Evaluation, Progress
from trainer.process.events import StepEvent

TENSORBOARD_FOLDER = "tensorboard"
FLUSH_INTERVAL_S = 5.0
WANDB_KEY_VARIABLE = "WANDB_API_KEY"
WANDB_PROJECT_VARIABLE = "WANDB_PROJECT"
WANDB_TIMEOUT_S = 30
DEFAULT_WANDB_PROJECT = "understudy"

log = logging.getLogger(__name__)


class TensorBoardFile:
    """A TensorBoard event file. Raises `OSError` if it cannot be written.

    Written record by record, not through a `SummaryWriter`: its thread dies on a full disk and then
    blocks the caller, and its file names contain the machine's name.
    """

    def __init__(self, folder: Path, started_at: float, first_step: int = 0) -> None:
        """`started_at`: seconds since the epoch. Records of other files for `first_step` and later
        steps become void.
        """
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
        from tensorboardX.record_writer import RecordWriter  # type: ignore[import-untyped]

        folder.mkdir(parents=True, exist_ok=True)
        taken = sum(1 for _ in folder.iterdir())
        self._event = Event
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{started_at:.0f}.{taken}"))
        self._write(Event(wall_time=started_at, file_version="brain.Event:2"))
        if first_step:
            void = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=started_at, step=first_step, session_log=void))

    def add(self, step: int, figures: Mapping[str, float], at: float) -> None:
        """Add figures by name; `at` in seconds since the epoch."""
        from tensorboardX.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(self._event(wall_time=at, step=step, summary=Summary(value=values)))

    def flush(self) -> None:
        """Flush to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def event_metrics(event: StepEvent) -> tuple[int, dict[str, float]]:
    """Return an event's step, and its metrics by their names in TensorBoard and wandb."""
    match event:
        case Progress():
            named = {
                "train/loss": event.loss,
                "train/learning_rate": event.lr,
                "train/tokens_per_s": event.tokens_per_s,
                "train/memory_bytes": float(event.memory_bytes),
            }
            return event.step, named
        case Evaluation():
            return event.step, {"eval/loss": event.eval_loss}
        case Epoch():
            parts = {
                "epoch/train_loss": event.train_loss,
                "eval/loss": event.eval_loss,
                "epoch/seconds": event.seconds,
                "epoch/samples_per_s": event.samples_per_s,
            }
            # Without evaluation, an epoch has no held-out loss.
            return event.step, {name: value for name, value in parts.items() if value is not None}


def write_tensorboard_file(folder: Path, history: Iterable[StepEvent], ended: float) -> None:
    """Write a run's whole history as one event file. Raises `OSError`."""
    history = list(history)
    started_at = ended
    for event in history:
        if isinstance(event, Progress):
            started_at = ended - event.seconds  # of the last one
    file = TensorBoardFile(folder, started_at)
    at = started_at
    for event in history:
        if isinstance(event, Progress):  # the others have no time of their own
            at = started_at + event.seconds
        step, figures = event_metrics(event)
        file.add(step, figures, at)
    file.close()


class ExperimentTracker:
    """Logs the metrics of a run while it trains."""

    def __init__(
        self, folder: Path, name: str, settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        """`folder` is the job's, `name` the run's, `settings` its hyperparameters."""
        self._folder = folder
        self._file: TensorBoardFile | None = None
        self._failed = False
        self._flushed_at = time.monotonic()
        self._wandb: Any = None
        if environ.get(WANDB_KEY_VARIABLE):
            project = environ.get(WANDB_PROJECT_VARIABLE) or DEFAULT_WANDB_PROJECT
            self._wandb = _start_wandb_run(folder, name, settings, project)

    def log_event(self, event: StepEvent) -> None:
        """Log an event's metrics."""
        step, figures = event_metrics(event)
        if not self._failed:
            self._to_file(step, figures)
        if self._wandb is not None:
            self._to_wandb(step, figures)

    def close(self) -> None:
        """Close the files; wandb's run ends."""
        try:
            if self._file:
                self._file.close()
        except OSError as error:
            self._give_up(error)
        if self._wandb is not None:
            try:
                self._wandb.finish()
            except Exception as error:  # third-party code that uses a network
                log.warning("wandb did not finish: %s", error)

    def _to_file(self, step: int, figures: Mapping[str, float]) -> None:
        try:
            # Begun with the first event: a resumed run's later steps replace those that it repeats.
            if self._file is None:
                self._file = TensorBoardFile(self._folder / TENSORBOARD_FOLDER, time.time(), step)
            self._file.add(step, figures, time.time())
            if time.monotonic() - self._flushed_at > FLUSH_INTERVAL_S:
                self._flushed_at = time.monotonic()
                self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._failed = True
        log.warning("the TensorBoard file is no longer written: %s", error.strerror)

    def _to_wandb(self, step: int, figures: Mapping[str, float]) -> None:
        try:
            self._wandb.log(dict(figures), step=step)
        except Exception as error:  # third-party code that uses a network
            log.warning("wandb is no longer used: %s", error)
            self._wandb = None


def _start_wandb_run(folder: Path, name: str, settings: Mapping[str, Any], project: str) -> Any:
    """Start a wandb run; None if wandb is not installed or does not respond."""
    if importlib.util.find_spec("wandb") is None:
        log.warning("%s is set, but wandb is not installed: pip install wandb", WANDB_KEY_VARIABLE)
        return None
    try:
        wandb = importlib.import_module("wandb")
        quiet = wandb.Settings(init_timeout=WANDB_TIMEOUT_S, console="off", silent=True)
        return wandb.init(
            project=project,
            # The job's folder stays the same: a run that is resumed goes on in its wandb run.
            id=folder.name,
            name=name,
            config=dict(settings),
            dir=folder,
            resume="allow",
            settings=quiet,
        )
    except Exception as error:  # third-party code that uses a network
        log.warning("wandb is not used: %s", error)
        return None
