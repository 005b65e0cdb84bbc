"""View model of training runs: list items, status text, settings by group, and charts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from bot.personas.web.lookup import guild_name
from bot.platform.errors import redact_paths
from bot.platform.web_kit.charts import Point, Series, bar_chart, line_chart
from bot.platform.web_kit.templating import DASHBOARD
from bot.services import Services
from bot.store import TrainingJob
from bot.training.web.run_history import MetricsHistory, smooth
from bot.versions.web.scorecard_view import VERDICT_CLASSES
from personas.errors import RequestError
from personas.schemas.training_events import Epoch, Evaluation, Phase, Progress, ScoreSummary

SETTING_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Optimisation", (
        "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps",
        "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "weight_decay", "max_grad_norm",
        "gradient_checkpointing", "packing", "seed")),
    ("Adapter", (
        "lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora", "loraplus_lr_ratio",
        "neftune_noise_alpha")),
    ("Base model while it trains", ("quant_type", "double_quant", "precision")),
    ("Samples", (
        "max_length", "chat_template", "rope_scaling_factor", "rope_scaling_type", "history_turns",
        "session_gap_minutes", "cross_session_share", "lore_share", "trained_replies", "reasoning", "heldout_share",
        "train_samples")),
    ("Measuring", ("logging_steps", "eval_strategy", "eval_steps", "early_stopping_patience")),
    ("General dialogue", ("general_share", "first_stage_epochs", "first_stage_learning_rate")),
    ("Preferences", ("preference_method", "preference_beta", "preference_share")),
)  # fmt: skip
"""Every setting of a request, once, in the order of the pages."""
REQUEST_FIELDS = (
    "persona",
    "task_type",
    "recipe",
    "dataset",
    "dataset_path",
    "general",
    "start_from",
    "lore_pairs",
    "base_model",
)
STEP_LABEL = "step"
LOSS_LABEL = "loss (nats per reply token)"
MIB = 2**20
TRAINING_PATH = f"{DASHBOARD}/training"
STATE_CLASSES = {"running": "", "queued": "", "done": "good", "failed": "bad", "cancelled": "warn"}
TIMESTAMP_SUFFIX_PATTERN = re.compile(r"-\d{4}-\d{6}")
"""Suffix that `/finetune start` adds to a persona's id for an unnamed job."""


@dataclass(frozen=True)
class SettingComparison:
    """A setting of two runs as text; a dash where it is empty. `is_known`: for both."""

    name: str
    a: str
    b: str
    is_known: bool = True

    @property
    def differs(self) -> bool:
        return self.is_known and self.a != self.b


def setting_text(value: object) -> str:
    """A value as it is typed: `true`, `0.0002`, `q_proj, v_proj`; empty for None."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case list() | tuple():
            return ", ".join(setting_text(item) for item in value)
    return str(value)


def group_settings(values: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings as text, by group; unknown ones last."""
    groups = []
    others = dict(values)
    for title, names in SETTING_GROUPS:
        rows = [(name, setting_text(others.pop(name))) for name in names if name in others]
        groups.append((title, rows))
    groups.append(("Others", [(name, setting_text(value)) for name, value in others.items()]))
    return [(title, rows) for title, rows in groups if rows]


def compare_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[SettingComparison]:
    """Every setting of either run: differing ones, those unknown for one, then equal ones.

    Each part is in the groups' order, after settings of no group.
    """
    order = [name for _, names in SETTING_GROUPS for name in names]
    others = [name for name in dict.fromkeys((*a, *b)) if name not in order]
    rows = []
    for name in (*others, *order):
        if name in a or name in b:
            row = SettingComparison(
                name,
                a=_setting_or_dash(a, name),
                b=_setting_or_dash(b, name),
                is_known=name in a and name in b,
            )
            rows.append(row)
    return sorted(rows, key=lambda row: (not row.differs, row.is_known))


def _setting_or_dash(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "not known"
    return setting_text(values[name]) or "–"


def pace_chart(course: MetricsHistory) -> Markup:
    points = [(step.step, step.tokens_per_s) for step in course.steps]
    return line_chart("Speed", STEP_LABEL, "tokens/s", [Series("tokens/s", points)])


def memory_chart(course: MetricsHistory) -> Markup:
    points = [(step.step, step.memory_bytes / MIB) for step in course.steps]
    return line_chart("Memory", STEP_LABEL, "MiB", [Series("MiB held", points)])


def loss_chart(names: Sequence[str], courses: Sequence[MetricsHistory], weight: float) -> Markup:
    """The losses of runs; `names` begin the names of their lines."""
    series: list[Series] = []
    for number, (name, course) in enumerate(zip(names, courses, strict=True)):
        series += _loss_series(name, course, weight, 2 * number)
    return line_chart("Loss", STEP_LABEL, LOSS_LABEL, series)


def rate_chart(names: Sequence[str], courses: Sequence[MetricsHistory]) -> Markup:
    series = []
    for name, course in zip(names, courses, strict=True):
        points: list[Point] = [(float(step.step), step.lr) for step in course.steps]
        series.append(Series(name, points))
    return line_chart("Learning rate", STEP_LABEL, "learning rate", series)


def composition_chart(sheet: Mapping[str, Any]) -> Markup:
    by_source = sheet.get("by_source")
    rows = by_source.items() if isinstance(by_source, dict) else ()
    counted = [(str(name), float(count)) for name, count in rows if isinstance(count, int | float)]
    return bar_chart("Samples by source", counted, "samples")


def _loss_series(prefix: str, course: MetricsHistory, weight: float, colour: int) -> list[Series]:
    """Four lines: both losses smoothed, then raw, faint and in the same colours, `colour` and the
    next.
    """
    training: list[Point] = [(float(step.step), step.loss) for step in course.steps]
    held_out: list[Point] = [(float(step), loss) for step, loss in course.heldout]
    return [
        Series(f"{prefix}training, smoothed", _smooth_points(training, weight), colour=colour),
        Series(f"{prefix}held out, smoothed", _smooth_points(held_out, weight), colour=colour + 1),
        Series(f"{prefix}training", training, faint=True, colour=colour),
        Series(f"{prefix}held out", held_out, faint=True, colour=colour + 1),
    ]


def _smooth_points(points: Sequence[Point], weight: float) -> list[Point]:
    means = smooth([value for _, value in points], weight)
    return [(step, mean) for (step, _), mean in zip(points, means, strict=True)]


@dataclass(frozen=True, kw_only=True)
class JobListItem:
    """A job as a list shows it.

    `own_name` is empty unless a member named the job. `seconds` is its duration over all attempts,
    up to its last step while it runs; `attempt_s` is the duration of the running attempt. Either is
    None if unknown. `share` is the share of steps done while it runs, else None. `doing` describes
    its progress, or why it waits or failed.
    """

    job: TrainingJob
    path: str
    kind: str
    server: str
    person: str
    own_name: str
    seconds: float | None
    attempt_s: float | None
    share: float | None
    doing: str
    verdict: str
    verdict_kind: str
    loss: str


def run_path(job_id: str) -> str:
    return f"{TRAINING_PATH}/{job_id}"


def job_list_item(
    services: Services, job: TrainingJob, now: float, doing: str = "", seconds: float | None = None
) -> JobListItem:
    """Describe a job; `doing` replaces its progress text, `seconds` is as `run_seconds` returns
    it.
    """
    card = read_score_summary(job)
    verdict = card.verdict if card else ""
    attempt_s = None
    share = None
    if job.state == "running":
        if job.started_at:
            attempt_s = max(0.0, now - job.started_at)
        if isinstance(job.progress, Progress) and job.progress.of:
            share = job.progress.step / job.progress.of
    return JobListItem(
        job=job,
        path=run_path(job.job_id),
        kind=STATE_CLASSES[job.state],
        server=job_guild_name(services, job.guild_id),
        person=requester_name(services, job.guild_id, job.requested_by),
        own_name=given_job_name(job),
        seconds=seconds,
        attempt_s=attempt_s,
        share=share,
        doing=doing or redact_paths(progress_text(job), services.home),
        verdict=verdict,
        verdict_kind=VERDICT_CLASSES.get(verdict, ""),
        loss=f"{card.loss_base:.3f} → {card.loss_tuned:.3f}" if card else "",
    )


def given_job_name(job: TrainingJob) -> str:
    """The name a member gave a job; empty for a default name."""
    try:
        name = job.request.job_name
    except RequestError:  # stored by another version of the bot
        return ""
    default = job.name.removeprefix("dialogue/")
    if name == default or TIMESTAMP_SUFFIX_PATTERN.fullmatch(name.removeprefix(default)):
        return ""
    return name


def read_score_summary(job: TrainingJob) -> ScoreSummary | None:
    """Score summary of a job's adapter; None if there is no readable one."""
    try:
        result = job.result
    except ValidationError:
        return None
    if result and result.scorecard.is_measured:
        return result.scorecard
    return None


def progress_text(job: TrainingJob) -> str:
    """The trainer's last event as text, or why the job failed; empty if there is neither."""
    if job.state == "failed":
        return job.error or ""
    if job.state != "running":
        return ""
    match job.progress:
        case Progress() as at:
            return f"step {at.step:,} of {at.of:,}, loss {at.loss:.3f}"
        case Epoch() as at:
            return f"epoch {at.passes} done"
        case Evaluation() as at:
            return f"held-out replies measured after step {at.step:,}"
        case Phase() as at:
            return f"{at.name}: {at.detail}" if at.detail else at.name
    return "starting"


def job_guild_name(services: Services, guild_id: int) -> str:
    """Name of a job's server, if the bot sees it; the operator's jobs belong to none."""
    if guild_id:
        return guild_name(services, guild_id)
    return "the operator's"


def requester_name(services: Services, guild_id: int, user_id: int) -> str:
    if not user_id:
        return "the operator"
    client = services.client
    if client is None:
        return f"member {user_id}"
    guild = client.get_guild(guild_id)
    member = guild.get_member(user_id) if guild else None
    person = member or client.get_user(user_id)
    return person.display_name if person else f"member {user_id}"


def waiting_reason(services: Services, place: int, running: Sequence[TrainingJob]) -> str:
    """Explain why a queued job has not started; `place` 1 is the next."""
    if services.queue.is_held:
        return "Nothing begins while a member's data are being forgotten."
    before = ""
    if running:
        before = f"{running[0].name} {running[0].version} trains now; one runs at a time."
    if place == 1:
        return before or "It begins now."
    others = "one other is" if place == 2 else f"{place - 1} others are"
    return f"{before} {others.capitalize()} before it; servers take turns.".strip()
