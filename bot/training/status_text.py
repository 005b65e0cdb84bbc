"""Texts of trainings: a job's progress and result, and the plan of a run."""

from collections.abc import Sequence
from textwrap import shorten

from bot.platform.errors import hide_paths
from bot.store import TrainingJob
from bot.training.retrain_all import RetrainAllPlan
from bot.training.training_plan import TrainingPlan
from personas.schemas.training_events import (
    Epoch,
    Evaluation,
    Phase,
    Progress,
    ScoreSummary,
    TrainerEvent,
)

BAR_CELLS = 16
MAX_EPOCHS = 8  # rows of the table in a result
MAX_RESULT_CHARS = 1800
"""Length of a result with that table. Discord allows 2,000, and a line on its promotion may
follow.
"""
MAX_REASON_CHARS = 220
"""Characters of one reason or piece of advice."""
MAX_RETRAINED = 12
"""Personas in a message of `/finetune all`."""
MAX_PLAN_LINES = 6
"""Lines of a plan on one topic."""
MAX_PLAN_LINE_CHARS = 200
"""Characters of a line of the import's report: a Discord message takes 2,000."""
VERDICT_TEXTS = {
    "promote": "The gate says **promote**.",
    "hold": "The gate says **hold**: a moderator decides.",
    "reject": "The gate says **reject**: Promote asks for confirmation.",
}


def job_status_text(
    job: TrainingJob,
    position: int | None,
    now: float,
    live: str | None = None,
    *,
    gives_way: bool = False,
) -> str:
    """Describe a job; `position` 1 is next in the queue, `gives_way` means that the trainer was
    asked to hold.
    """
    if job.has_ended:
        return job_result_text(job, live)
    if job.state == "queued":
        return f"{job_title(job, 'Waiting to train')}\nPlace {position or 1} in the queue."
    lines = [job_title(job, "Training"), *_progress_lines(job.progress)]
    if job.started_at:
        waits = _wait_text(job, gives_way)
        lines.append(
            f"-# running for {format_duration(now - job.started_at)}, attempt {job.attempt}{waits}"
        )
    return "\n".join(lines)


def _progress_lines(event: TrainerEvent | None) -> list[str]:
    match event:
        case Progress() as at:
            share = at.step / at.of
            cells = round(share * BAR_CELLS)
            bar = (
                f"`{'█' * cells}{'░' * (BAR_CELLS - cells)}` {share:.0%} · step {at.step} of "
                f"{at.of}"
            )
            speed = (
                f"loss {at.loss:.3f} · {at.tokens_per_s:,.0f} tokens/s · "
                f"{format_duration(at.eta_s)} left"
            )
            lines = [bar, speed]
            if at.trouble:
                lines.append(f"-# ⚠ {at.trouble} It is tried again.")
            return lines
        case Epoch() as at:
            return [f"Epoch {at.passes} done: {_loss_text(at)}, {at.pace} samples/s."]
        case Evaluation() as at:
            return [f"Step {at.step}: {_loss_text(at)}."]
        case Phase() as at:
            return [f"Now: {at.name}. {at.detail}".rstrip()]
    return ["Starting …"]


def _wait_text(job: TrainingJob, gives_way: bool) -> str:
    """Describe the pause of a run while replies are generated, or its length."""
    if gives_way:
        return ", waiting for replies now"
    progress = job.progress
    if not isinstance(progress, Progress) or progress.held_s < 1:
        return ""
    return f", {format_duration(progress.held_s)} of it waiting for replies"


def _loss_text(at: Epoch | Evaluation) -> str:
    losses = []
    if at.train_loss is not None:
        losses.append(f"loss {at.train_loss:.3f}")
    if at.eval_loss is not None:
        losses.append(f"held out {at.eval_loss:.3f}")
    return " → ".join(losses) or "nothing measured"


def job_result_text(job: TrainingJob, live: str | None = None) -> str:
    """Describe an ended job and its result; `live` is its persona's live version."""
    if job.state == "cancelled":
        return f"{job_title(job, 'Cancelled')}\nLive versions stay as they are."
    if job.state == "failed" or job.result is None:
        reason = hide_paths(f"{job.error or 'No reason was given.'} {job.advice or ''}".rstrip())
        text = f"{job_title(job, 'Failed')}\n{reason}"
        if job.can_resume:
            text += "\n-# Then **Resume** continues where it stopped."
        return text
    card = job.result.scorecard
    seconds = job.result.seconds
    what = "Trained"
    source = f"Took {format_duration(seconds)}."
    if job.dialogue:
        what = "Installed"
        source = f"It is the dialogue adapter `{job.dialogue}`."
    elif job.result.imported:
        what = "Imported"
        source = "Measured by its author; it was imported."
    lines = [job_title(job, what), *_loss_lines(card, source)]
    table = epoch_lines(job.result.epochs)
    rest = verdict_lines(card)
    if job.persona is None:
        rest += [
            f"Promote… gives it to a persona, and so does `/finetune promote version:{job.name}`.",
            f"In the playground and the API it is the model `{job.name}`.",
            f"`start_from: {job.name.partition('/')[2]}` trains it further.",
        ]
    elif live == job.version:
        rest.append("It is live now.")
    else:
        rest.append("Promote makes it live from the next reply on.")
    text = "\n".join([*lines, *table, *rest])
    if len(text) > MAX_RESULT_CHARS:
        text = "\n".join([*lines, *rest])
    return text


def _loss_lines(card: ScoreSummary, source: str) -> list[str]:
    if not card.is_measured:
        return ["Nothing was measured of it: try it in a channel, or with `/finetune compare`."]
    better = 1 - card.loss_tuned / card.loss_base
    direction = "lower" if better > 0 else "higher"
    return [
        f"Held-out replies: loss {card.loss_base:.3f} → **{card.loss_tuned:.3f}** per token "
        f"({abs(better):.0%} {direction}; {card.heldout_replies:,} "
        "replies it never saw).",
        f"General dialogue: {card.general_loss_base:.3f} → {card.general_loss_tuned:.3f}. {source}",
    ]


def epoch_lines(epochs: Sequence[Epoch]) -> list[str]:
    """Format a run's epochs as a table that fits a phone; of a long run, the first and the last
    ones.
    """
    if not epochs:
        return []
    rows = [f"{'epoch':>5} {'train → eval loss':>17} {'samples/s':>9} {'time':>8}"]
    shown_at_ends = MAX_EPOCHS // 2
    for number, at in enumerate(epochs):
        if shown_at_ends <= number < len(epochs) - shown_at_ends:
            if number == shown_at_ends:
                rows.append("    …")
            continue
        losses = f"{_loss_cell(at.train_loss)} → {_loss_cell(at.eval_loss)}"
        minutes, seconds = divmod(round(at.seconds), 60)
        label = f"{at.stage}:{at.passes}" if at.stage else at.passes
        rows.append(f"{label:>5} {losses:>17} {at.pace:>9} {f'{minutes}:{seconds:02}':>8}")
    return ["```", *rows, "```"]


def _loss_cell(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3f}"


def verdict_lines(card: ScoreSummary) -> list[str]:
    """Describe the gate's verdict, reasons and advice; no lines without a verdict."""
    if card.verdict not in VERDICT_TEXTS:
        return []
    lines = [VERDICT_TEXTS[card.verdict]]
    for reason in card.reasons:
        lines.append(f"- {_shorten_reason(reason)}")
    if card.advice:
        advice = " ".join(_shorten_reason(step) for step in card.advice)
        lines.append(f"What to do: {advice}")
    return lines


def _shorten_reason(text: str) -> str:
    return shorten(text, MAX_REASON_CHARS, placeholder=" …")


def format_duration(seconds: float) -> str:
    """Format seconds as "42 s", "3 min 5 s" or "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def job_title(job: TrainingJob, what: str) -> str:
    """Title of a job's message: state, version and job."""
    name = f"**{job.persona} {job.version}**" if job.persona else f"**{job.version}**"
    return f"{what}: {name} (`{job.job_id}`)"


def plan_text(
    plan: TrainingPlan, recipe: str, *, position: int, is_training: bool, conflict: str = ""
) -> str:
    """Describe a plan; `position` 1 is next in the queue, `conflict` is why it could not be queued
    now.
    """
    lines = [
        f"**{plan.samples['train']:,}** replies to learn from, {plan.samples['eval']:,} held out; "
        f"{plan.tokens:,} tokens.",
        f"{plan.rows_used:,} of {plan.rows:,} records are used.",
    ]
    if plan.lore_pairs_text:
        lines.append(plan.lore_pairs_text)
    for reason, rows in list(plan.dropped.items())[:MAX_PLAN_LINES]:
        lines.append(f"- {rows:,}: {reason}")
    for line in plan.import_lines[:MAX_PLAN_LINES]:
        lines.append(shorten(line, MAX_PLAN_LINE_CHARS, placeholder=" …"))
    for estimate in plan.recipes:
        if estimate.recipe != recipe:
            continue
        lines += [
            f"`{recipe}`: {estimate.steps:,} steps, about {format_duration(estimate.seconds)}, "
            f"{estimate.memory_bytes / 2**30:.1f} GiB of memory.",
            f"-# estimated from {estimate.basis}; the score card takes as long again at most, or a "
            "few minutes",
        ]
        lines += [f"⚠️ {warning}" for warning in estimate.warnings[:MAX_PLAN_LINES]]
    if conflict:
        lines.append(f"It could not be started now: {conflict} Nothing has been queued.")
    else:
        behind = " after the running one" if is_training else ""
        lines.append(
            f"Started now, it would be number {position} in the queue{behind}. Nothing has been "
            "queued."
        )
    return "\n".join(lines)


def retrain_all_text(plan: RetrainAllPlan) -> str:
    """Describe the trainings of all personas, planned or queued."""
    if not plan.items:
        return f"Every live version here is for the served base model ({plan.base_model})."
    lines = []
    for item in plan.items[:MAX_RETRAINED]:
        name = f"**{item.persona_id}** {item.version} (for {item.other_model})"
        if item.error:
            lines.append(
                f"- {name}: ⚠️ {shorten(item.error, MAX_PLAN_LINE_CHARS, placeholder=' …')}"
            )
        elif item.job:
            lines.append(f"- {name}: queued as `{item.job.job_id}`")
        else:
            memory = f"{item.memory_bytes / 2**30:.1f} GiB"
            lines.append(f"- {name}: about {format_duration(item.seconds)}, {memory} of memory")
    if len(plan.items) > MAX_RETRAINED:
        lines.append(f"- and {len(plan.items) - MAX_RETRAINED} more")
    if plan.possible and not any(item.job for item in plan.items):
        lines.append(
            f"Together about {format_duration(plan.seconds)}, one after another. Nothing has been "
            "queued: `/finetune all start:True` queues them."
        )
    return "\n".join(lines)
