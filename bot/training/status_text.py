"""Texts of trainings: a job's progress and result, and the plan of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

from discord.utils import escape_markdown

from bot.platform.errors import hide_paths
from bot.store import TrainingJob
from bot.training.retrain_all import RetrainAllPlan
from bot.training.training_plan import RecipeEstimate, TrainingPlan
from personas.schemas.formatting import format_time_left
from personas.schemas.scorecard import SIDE_LABELS, Side, SideBySide
from personas.schemas.training_events import (
    Epoch,
    Phase,
    Progress,
    RunPosition,
    ScoreSummary,
)

BAR_CELLS = 16
MAX_EPOCHS = 8  # rows of the table in a result
MAX_RESULT_CHARS = 1800
"""Length of a result with that table, where it is a text. Discord allows 2,000."""
MAX_RESULT_REPLIES = 4
"""Messages whose replies a result shows side by side."""
MAX_PROMPT_CHARS = 150
MAX_REPLY_CHARS = 300
MAX_REASON_CHARS = 220
"""Characters of one reason or piece of advice."""
MAX_RETRAINED = 12
"""Personas in a message of `/finetune all`."""
MAX_PLAN_LINES = 10
"""Lines of a plan on one topic."""
MAX_PLAN_LINE_CHARS = 200
"""Characters of a line of the import's report: a Discord message takes 2,000."""
VERDICT_TEXTS = {
    "promote": "The gate says **promote**.",
    "hold": "The gate says **hold**: a moderator decides.",
    "reject": "The gate says **reject**: Promote asks for confirmation.",
}


@dataclass(frozen=True)
class CardExcerpt:
    """The part of a whole score card that a result shows: the outcomes of the gate's criteria in a
    sentence, and replies side by side.
    """

    outcomes: str = ""
    replies: tuple[SideBySide, ...] = ()


NO_EXCERPT = CardExcerpt()


@dataclass(frozen=True)
class ResultText:
    """The parts of a result in the order of its score card's page; an empty one is left out."""

    title: str
    verdict: str
    replies: tuple[str, ...]
    """To a message each, side by side."""
    reasons: str
    """With what to do, and what the next step is."""
    figures: str
    table: str
    card: str
    """What is known of the rest of the score card."""


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


def _progress_lines(at: RunPosition | None) -> list[str]:
    if at is None:
        return ["Starting …"]
    lines = [run_position_text(at)]
    if isinstance(at, Phase):
        return [*lines, f"-# {at.detail}"] if at.detail else lines
    lines.append(
        f"-# step {at.step:,} of {at.of:,} · loss {at.loss:.3f} · {at.tokens_per_s:,.0f} tokens/s"
    )
    if at.trouble:
        lines.append(f"-# ⚠ {at.trouble} It is tried again.")
    return lines


def run_position_text(at: RunPosition) -> str:
    """Say how far a whole run is, in which phase, and when its version will be ready."""
    parts = [at.label]
    if at.done is not None:
        parts.insert(0, _bar(at.done))
    if at.left_s is not None:
        parts.append(f"ready in about {format_time_left(at.left_s)}")
    return " · ".join(parts)


def _bar(share: float) -> str:
    cells = round(share * BAR_CELLS)
    return f"`{'█' * cells}{'░' * (BAR_CELLS - cells)}` {share:.0%}"


def _wait_text(job: TrainingJob, gives_way: bool) -> str:
    """Describe the pause of a run while replies are generated, or its length."""
    if gives_way:
        return ", waiting for replies now"
    progress = job.progress
    if not isinstance(progress, Progress) or progress.held_s < 1:
        return ""
    return f", {format_duration(progress.held_s)} of it waiting for replies"


def job_result_text(job: TrainingJob, live: str | None = None) -> str:
    """Describe an ended job and its result; `live` is its persona's live version. A result that is
    too long for a message loses its table.
    """
    if job.state == "cancelled":
        return f"{job_title(job, 'Cancelled')}\nLive versions stay as they are."
    if job.state == "failed" or job.result is None:
        reason = hide_paths(f"{job.error or 'No reason was given.'} {job.advice or ''}".rstrip())
        text = f"{job_title(job, 'Failed')}\n{reason}"
        if job.can_resume:
            text += "\n-# Then **Resume** continues where it stopped."
        return text
    result = result_text(job, live)
    head = [result.title, result.verdict, result.reasons, result.figures]
    text = "\n".join(filter(None, [*head, result.table, result.card]))
    if len(text) > MAX_RESULT_CHARS:
        text = "\n".join(filter(None, [*head, result.card]))
    return text


def result_text(
    job: TrainingJob, live: str | None, excerpt: CardExcerpt = NO_EXCERPT
) -> ResultText:
    """Describe the result of a job that is done."""
    assert job.result is not None
    card = job.result.scorecard
    figures = [f"-# {line}" for line in _loss_lines(card, _source_text(job))]
    return ResultText(
        title=_result_title(job),
        verdict=f"{VERDICT_TEXTS.get(card.verdict, '')} {excerpt.outcomes}".strip(),
        replies=tuple(map(_pair_text, excerpt.replies[:MAX_RESULT_REPLIES])),
        reasons="\n".join([*reason_lines(card), *_next_step_lines(job, live)]),
        figures="\n".join(figures),
        table="\n".join(epoch_lines(job.result.epochs)),
        card="\n".join(card_lines(job)),
    )


def _result_title(job: TrainingJob) -> str:
    assert job.result is not None
    what = "Trained"
    if job.dialogue or job.shipped:
        what = "Installed"
    elif job.result.imported:
        what = "Imported"
    return job_title(job, what)


def _pair_text(pair: SideBySide) -> str:
    """Show a reply of the version with the live version's, or else the base model's."""
    lines = [f"> {_shorten_said(pair.prompt, MAX_PROMPT_CHARS)}"]
    rival: Side = "live" if "live" in pair.replies else "base"
    for side in ("new", rival):
        if reply := pair.replies.get(side):
            said = _shorten_said(reply.text, MAX_REPLY_CHARS) or "(an empty reply)"
            lines.append(f"**{SIDE_LABELS[side]}:** {said}")
    return "\n".join(lines)


def _shorten_said(text: str, most: int) -> str:
    return escape_markdown(shorten(text, most, placeholder=" …"))


def _source_text(job: TrainingJob) -> str:
    """Say where a version comes from, after its figures."""
    assert job.result is not None
    if job.dialogue:
        return f"It is the dialogue adapter `{job.dialogue}`."
    if job.shipped:
        return "It was shipped with Understudy, which measured it."
    if job.result.imported:
        return "Measured by its author; it was imported."
    return f"Took {format_duration(job.result.seconds)}."


def _next_step_lines(job: TrainingJob, live: str | None) -> list[str]:
    if job.persona is None:
        return [
            f"Promote… gives it to a persona, and so does `/finetune promote version:{job.name}`.",
            f"In the playground and the API it is the model `{job.name}`.",
            f"`start_from: {job.name.partition('/')[2]}` trains it further.",
        ]
    if live == job.version:
        return ["It is live now."]
    return ["Promote makes it live from the next reply on."]


def card_lines(job: TrainingJob) -> list[str]:
    """Describe the rest of a finished job's score card as small print; no lines without one."""
    text = card_state_text(job)
    return [f"-# {text}"] if text else []


def card_state_text(job: TrainingJob) -> str:
    """Describe the rest of a finished job's score card; empty where its run measured all of it, and
    once it is complete with the same verdict.
    """
    match job.card_state:
        case "waiting":
            return "The rest of its score card is measured once nothing is trained."
        case "running":
            at = job.card_progress
            done = "it begins"
            if isinstance(at, Phase) and at.share and at.eta_s is not None:
                done = f"{at.share:.0%}, at most {format_duration(at.eta_s)} left"
            return f"The rest of its score card is being measured: {done}."
        case "failed" | "cancelled":
            why = hide_paths(job.card_error or "It was stopped.")
            return f"The rest of its score card was not measured. {why}"
    card = _completed_card(job)
    if card is None or not card.first_verdict:
        return ""
    return (
        f"With its whole score card the gate says {card.verdict}; it said {card.first_verdict} "
        "before the rest was measured."
    )


def _completed_card(job: TrainingJob) -> ScoreSummary | None:
    if job.card_state != "complete" or job.result is None:
        return None
    return job.result.scorecard


def changed_verdict_text(job: TrainingJob) -> str:
    """Announce that a completed score card has changed the gate's verdict; empty if it has not."""
    card = _completed_card(job)
    if card is None or not card.first_verdict:
        return ""
    title = job_title(job, "The verdict has changed")
    return "\n".join([title, f"⚠ {card_state_text(job)}", *reason_lines(card)])


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


def reason_lines(card: ScoreSummary) -> list[str]:
    """Describe the reasons of the gate's verdict and its advice; no lines without a verdict."""
    if card.verdict not in VERDICT_TEXTS:
        return []
    lines = [f"- {_shorten_reason(reason)}" for reason in card.reasons]
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


def plan_texts(
    plan: TrainingPlan, recipe: str, *, position: int, is_training: bool, conflict: str = ""
) -> list[str]:
    """Describe a plan: its data, what it takes, and its place in the queue. `position` 1 is next,
    `conflict` is why it could not be queued now.
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
    takes = []
    for estimate in plan.recipes:
        if estimate.recipe != recipe:
            continue
        takes += [
            f"`{recipe}`: {estimate.steps:,} steps, about {format_duration(estimate.seconds)} in "
            f"all, {estimate.memory_bytes / 2**30:.1f} GiB of memory.",
            f"-# {phases_text(estimate)}estimated from {estimate.basis}",
        ]
        takes += [f"⚠️ {warning}" for warning in estimate.warnings[:MAX_PLAN_LINES]]
    if conflict:
        place = f"It could not be started now: {conflict} Nothing has been queued."
    else:
        behind = " after the running one" if is_training else ""
        place = (
            f"Started now, it would be number {position} in the queue{behind}. Nothing has been "
            "queued."
        )
    return ["\n".join(lines), "\n".join(takes), place]


def phases_text(estimate: RecipeEstimate) -> str:
    """Describe how long each phase of a run takes that takes some seconds, before further text."""
    parts = []
    for label, seconds in estimate.long_phases.items():
        parts.append(f"{label} {format_duration(seconds)}")
    return f"{', '.join(parts)}; " if parts else ""


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
