"""Events of a training run, one JSON object per line, and the summary of its score card."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from personas.gettext_marker import gettext_noop
from personas.schemas.base import FrozenModel

PauseDemand = Literal["go", "yield", "hold"]
"""A parent's demand on its run: to compute, or to make way for replies being written or for their
first words.
"""


PhaseName = Literal[
    "material",
    "writing replies",
    "base model",
    "measuring the base",
    "training",
    "measuring the adapter",
    "writing",
]
"""The phases of a run, in their order."""
PHASE_LABELS: Mapping[str, str] = {
    "material": gettext_noop("reading the material"),
    "writing replies": gettext_noop("writing replies"),
    "base model": gettext_noop("loading the base model"),
    "measuring the base": gettext_noop("measuring the base model"),
    "measuring the adapter": gettext_noop("measuring the new version"),
    "writing": gettext_noop("saving the new version"),
    "training": gettext_noop("training"),
}
"""What moderators read in place of names of phases, which are part of stored events."""


def phase_label(name: str) -> str:
    """Return what moderators read in place of a phase's name."""
    return PHASE_LABELS.get(name, name)


class Phase(FrozenModel):
    """The run enters a named phase, or has got on in it.

    `share` of it is done (0 to 1), and it takes `eta_s` seconds more; None while unknown. `done` is
    the share of the whole run that is done, by the estimate of its phases; it never decreases.
    `left_s` is the time left until the version is ready; where that is not known more precisely, it
    is from `left_s` to `most_left_s`. Where a phase counts what it does, such as replies that are
    written, `count` of `of` are done.
    """

    event: Literal["phase"] = "phase"
    name: PhaseName
    detail: str = ""
    share: float | None = None
    eta_s: float | None = None
    done: float | None = None
    left_s: float | None = None
    most_left_s: float | None = None
    count: int | None = None
    of: int | None = None

    @property
    def label(self) -> str:
        """The name that moderators read."""
        return phase_label(self.name)


class Progress(FrozenModel):
    """One optimiser step is done. `tokens_per_s` counts real (unpadded) tokens.

    `memory_bytes` is in use now: on the GPU, or in main memory by the process and its children.
    `seconds` counts from the start of the run, over all its processes. `held_s` of them this
    process was paused because its parent needed the machine; it is not part of `tokens_per_s` and
    `eta_s`. `trouble` describes an ongoing problem that does not end the run. `stage` is 1 or 2 in
    runs with two stages: steps are counted over both, epochs in each. `done`, `left_s` and
    `most_left_s` are those of the whole run, its score card included, as in `Phase`.
    """

    event: Literal["progress"] = "progress"
    step: int
    of: int
    epoch: float
    loss: float
    lr: float
    tokens_per_s: float
    eta_s: float
    memory_bytes: int
    seconds: float = 0.0
    held_s: float = 0.0
    trouble: str = ""
    stage: int = 0
    done: float | None = None
    left_s: float | None = None
    most_left_s: float | None = None

    @property
    def label(self) -> str:
        """The name of its phase that moderators read."""
        return phase_label("training")


RunPosition = Phase | Progress
"""The events that tell how far a run is."""


class Evaluation(FrozenModel):
    """The held-out replies were evaluated between two steps; losses as in `Epoch`, since the last
    evaluation.
    """

    event: Literal["evaluation"] = "evaluation"
    step: int
    epoch: float
    train_loss: float | None
    eval_loss: float
    stage: int = 0


class Epoch(FrozenModel):
    """One pass over the samples is done; `step` is its last.

    `seconds` and `samples_per_s` exclude evaluation and pauses. `share` is the part of the pass
    that was done, below 1 if `max_steps` ended the run. Losses are in nats per reply token:
    `train_loss` is the mean over the steps, `eval_loss` is on the held-out conversations and None
    where the recipe evaluates less often.
    """

    event: Literal["epoch"] = "epoch"
    epoch: int
    train_loss: float | None
    eval_loss: float | None
    seconds: float
    samples_per_s: float | None = None
    step: int = 0
    stage: int = 0
    share: float = 1.0

    @property
    def passes(self) -> str:
        """Format the number of passes done: `2`, or `1.25`."""
        return f"{self.epoch - 1 + self.share:.2f}".rstrip("0").rstrip(".")

    @property
    def pace(self) -> str:
        """Format the samples per second; a dash in runs of earlier versions."""
        return "–" if self.samples_per_s is None else f"{self.samples_per_s:.3g}"


def summarise_epochs(epochs: Sequence[Epoch]) -> str:
    """Summarise a run, as in `training loss 4.04 → 1.38, held-out loss 1.56 → 1.38 over 6 epochs`;
    "" if too short.
    """
    trained = [epoch.train_loss for epoch in epochs if epoch.train_loss is not None]
    held_out = [epoch.eval_loss for epoch in epochs if epoch.eval_loss is not None]
    shown = []
    for name, losses in (("training loss", trained), ("held-out loss", held_out)):
        if len(losses) > 1:
            shown.append(f"{name} {losses[0]:.4f} → {losses[-1]:.4f}")
    if not shown:
        return ""
    return f"{', '.join(shown)} over {len(epochs)} epochs"


class Estimate(FrozenModel):
    """The estimate of the whole run, once its data is known; `phases` are the seconds of each.
    `memory_bytes` of main memory is 0 on a GPU.
    """

    event: Literal["estimate"] = "estimate"
    seconds: float
    phases: Mapping[PhaseName, float] = Field(default_factory=dict)
    memory_bytes: int = 0


class Heartbeat(FrozenModel):
    """The run got on since the last event, without anything to report."""

    event: Literal["heartbeat"] = "heartbeat"


class ScoreSummary(FrozenModel):
    """Measurements on conversations held out from training, in the serving precision.

    Losses are mean negative log-likelihoods in nats per reply token, end of turn included, after
    the same prompts. `verdict` is the gate's (`promote`, `hold` or `reject`), with reasons and
    advice; empty if the gate did not run. The full measurements are in the adapter's
    `scorecard.json` (`personas.schemas.scorecard`); while the card is `pending`, some of them are
    still to be made. `first_verdict` is that of the first card, where a completed card has another.
    """

    heldout_replies: int
    heldout_tokens: int
    loss_base: float
    loss_tuned: float
    general_loss_base: float
    general_loss_tuned: float
    precision: str
    pending: bool = False
    verdict: str = ""
    first_verdict: str = ""
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def is_measured(self) -> bool:
        """False for an adapter that came without measurements (`UNMEASURED`)."""
        return self.heldout_replies > 0

    def after(self, first_verdict: str) -> "ScoreSummary":
        """Return the summary of a completed card whose first one had this verdict."""
        if first_verdict in ("", self.verdict):
            return self
        return self.model_copy(update={"first_verdict": first_verdict})


UNMEASURED = ScoreSummary(
    heldout_replies=0,
    heldout_tokens=0,
    loss_base=0.0,
    loss_tuned=0.0,
    general_loss_base=0.0,
    general_loss_tuned=0.0,
    precision="",
)
"""Stands in the manifest of an adapter from outside, of which nothing was measured."""


class ScoreCardEvent(FrozenModel):
    """The new adapter was measured."""

    event: Literal["scorecard"] = "scorecard"
    scorecard: ScoreSummary


class Done(FrozenModel):
    """The adapter folder is complete under its final name. `seconds` of work count over all
    processes of the run.
    """

    event: Literal["done"] = "done"
    adapter: str
    seconds: float


class Failed(FrozenModel):
    """The run ended without an adapter. `retry`: the same request could succeed later."""

    event: Literal["failed"] = "failed"
    cause: str
    advice: str = ""
    retry: bool = False


TrainerEvent = Annotated[
    Phase | Progress | Evaluation | Epoch | Estimate | Heartbeat | ScoreCardEvent | Done | Failed,
    Field(discriminator="event"),
]
TRAINER_EVENT: TypeAdapter[TrainerEvent] = TypeAdapter(TrainerEvent)
