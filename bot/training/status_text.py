"""Texts of trainings: a job's progress and result, and the plan of a run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import shorten

from discord.utils import escape_markdown

from bot.platform.errors import hide_paths
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    join_texts,
    localisable_number,
    localise,
)
from bot.safety.stored_replies import is_withheld
from bot.store import TrainingJob
from bot.training.retrain_all import RetrainAllPlan, Retraining
from bot.training.training_plan import RecipeEstimate, TrainingPlan
from personas.errors import RequestError
from personas.schemas.formatting import format_gib, format_time_left
from personas.schemas.scorecard import SIDE_LABELS, GateVerdict, Outcome, Side, SideBySide
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
MAX_ERROR_CHARS = 1000
MAX_ADVICE_CHARS = 500
"""Characters of the reason of a failure, which may be the end of a log, and of what helps."""
MAX_RETRAINED = 12
"""Personas in a message of `/finetune all`."""
MAX_PLAN_LINES = 10
"""Lines of a plan on one topic."""
MAX_PLAN_LINE_CHARS = 200
"""Characters of a line of the import's report: a Discord message takes 2,000."""
VERDICT_TEXTS = {
    "promote": gettext_lazy("The gate says **promote**."),
    "hold": gettext_lazy("The gate says **hold**: a moderator decides."),
    "reject": gettext_lazy("The gate says **reject**: Promote asks for confirmation."),
}
VERDICT_NAMES = {
    "promote": gettext_lazy("promote"),
    "hold": gettext_lazy("hold"),
    "reject": gettext_lazy("reject"),
}
OUTCOME_TEXTS: dict[Outcome, str] = {
    "warn": gettext_lazy("warn"),
    "fail": gettext_lazy("fail"),
    "not measured": gettext_lazy("not measured"),
}
WRITING_KEPT_TEXT = gettext_lazy(
    "The replies written so far are kept: the same training, started again, goes on with them."
)
WRITTEN_KEPT_TEXT = gettext_lazy(
    "The written replies are kept, with what was changed and struck out: the same training, started "
    "again, takes them over."
)
REVIEW_TEXT = gettext_lazy(
    "Read them on the training's page of the dashboard, under **Written replies**: change them, or "
    "strike them out. Then **Resume** trains on what is left."
)


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
    learner: str = "",
    gives_way: bool = False,
    is_late: bool = False,
) -> str:
    """Describe a job; `position` 1 is next in the queue, `learner` the name of its persona;
    `gives_way` means that the trainer was asked to hold, `is_late` that it takes longer than it
    said last.
    """
    if job.has_ended:
        return job_result_text(job, live, learner=learner)
    if job.state == "queued":
        title = job_title(job, gettext_lazy("Waiting to train"), learner)
        place = gettext_lazy("Place {position} in the queue.", position=position or 1)
        return _joined([title, place])
    title = job_title(job, gettext_lazy("Training"), learner)
    lines = [title, *_progress_lines(job.progress, is_late=is_late)]
    if job.stops_for_review and job.progress and job.progress.left_s is not None:
        lines.append(
            join_texts(
                "-#",
                gettext_lazy(
                    "The time does not include the reading: the training stops once the replies are "
                    "written, for you to read them."
                ),
            )
        )
    if job.started_at:
        lines.append(_running_text(job, now - job.started_at, gives_way))
    return _joined(lines)


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(localise(line) for line in lines)


def _progress_lines(at: RunPosition | None, *, is_late: bool) -> list[str]:
    if at is None:
        return [gettext_lazy("Starting …")]
    lines: list[str] = [_run_position_text(at, is_late=is_late)]
    if isinstance(at, Phase):
        return [*lines, f"-# {at.detail}"] if at.detail else lines
    lines.append(
        gettext_lazy(
            "-# step {step:,} of {steps:,} · loss {loss:.3f} · {speed:,.0f} tokens/s",
            step=at.step,
            steps=at.of,
            loss=at.loss,
            speed=at.tokens_per_s,
        )
    )
    if at.trouble:
        lines.append(gettext_lazy("-# ⚠ {trouble} It is tried again.", trouble=at.trouble))
    return lines


def _run_position_text(at: RunPosition, *, is_late: bool) -> LocalisableText:
    """Say how far a whole run is, in which phase, and when its version will be ready."""
    label = LocalisableText(at.label)
    if isinstance(at, Phase) and at.count is not None:
        label = gettext_lazy(
            "{phase}, {count:,} of {wanted:,}", phase=label, count=at.count, wanted=at.of or 0
        )
    parts: list[str] = [label]
    if at.done is not None:
        parts.insert(0, _bar(at.done))
    if is_late:
        parts.append(gettext_lazy("it takes longer than expected"))
    elif at.left_s is not None:
        time_left = format_time_left(at.left_s, at.most_left_s)
        parts.append(gettext_lazy("ready in about {time}", time=time_left))
    return join_texts(*parts, separator=" · ")


def _bar(share: float) -> str:
    cells = round(share * BAR_CELLS)
    return f"`{'█' * cells}{'░' * (BAR_CELLS - cells)}` {share:.0%}"


def _running_text(job: TrainingJob, seconds: float, gives_way: bool) -> str:
    """Say how long a run takes, with its pause while replies are generated, or its length."""
    duration = format_duration(seconds)
    if gives_way:
        return gettext_lazy(
            "-# running for {duration}, attempt {attempt}, waiting for replies now",
            duration=duration,
            attempt=job.attempt,
        )
    progress = job.progress
    if not isinstance(progress, Progress) or progress.held_s < 1:
        return gettext_lazy(
            "-# running for {duration}, attempt {attempt}", duration=duration, attempt=job.attempt
        )
    return gettext_lazy(
        "-# running for {duration}, attempt {attempt}, {pause} of it waiting for replies",
        duration=duration,
        attempt=job.attempt,
        pause=format_duration(progress.held_s),
    )


def job_result_text(
    job: TrainingJob,
    live: str | None = None,
    *,
    learner: str = "",
) -> str:
    """Describe an ended job and its result; `live` is its persona's live version, `learner` the
    persona's name. A result that is too long for a message loses its table.
    """
    if job.state == "cancelled":
        title = job_title(job, gettext_lazy("Cancelled"), learner)
        kept = gettext_lazy("Live versions stay as they are.")
        return _joined([title, kept, *cancelled_writing_lines(job)])
    if job.waits_for_review:
        title = job_title(job, gettext_lazy("The replies are written"), learner)
        return _joined([title, REVIEW_TEXT])
    if job.state == "failed" or job.result is None:
        reason: str = gettext_lazy("No reason was given.")
        if job.error:
            # The end of a log says what happened.
            error = _cut(hide_paths(job.error), MAX_ERROR_CHARS, end_chars=MAX_ERROR_CHARS // 2)
            reason = f"{error} {_cut(hide_paths(job.advice or ''), MAX_ADVICE_CHARS)}".rstrip()
        lines = [job_title(job, gettext_lazy("Failed"), learner), reason]
        if job.can_resume:
            lines.append(gettext_lazy("-# Then **Resume** continues where it stopped."))
        return _joined(lines)
    result = result_text(job, live, learner=learner)
    head = [result.title, result.verdict, result.reasons, result.figures]
    text = "\n".join(filter(None, [*head, result.table, result.card]))
    if len(text) > MAX_RESULT_CHARS:
        text = "\n".join(filter(None, [*head, result.card]))
    return text


def _cut(text: str, max_chars: int, *, end_chars: int = 0) -> str:
    """Return as much of a text as fits, with an ellipsis where something is left out; so many of the
    characters are those of its end.
    """
    if len(text) <= max_chars:
        return text
    return f"{text[: max_chars - 1 - end_chars]}…{text[len(text) - end_chars :]}"


def trains_from_card(job: TrainingJob) -> bool:
    """Report whether a job trains on replies that are written for it."""
    try:
        return bool(job.request.from_card)
    except RequestError:  # it was stored by another version of the bot
        return False


def cancelled_writing_lines(job: TrainingJob) -> list[str]:
    """Say what becomes of the replies of a job that was cancelled once they were being written; no
    lines for other jobs.
    """
    at = job.progress
    if at is None or not trains_from_card(job):
        return []
    if not isinstance(at, Phase):
        return [WRITTEN_KEPT_TEXT]
    match at.name:
        case "material":
            return []
        case "writing replies":
            return [WRITING_KEPT_TEXT]
        case _:
            return [WRITTEN_KEPT_TEXT]


def result_text(
    job: TrainingJob,
    live: str | None,
    excerpt: CardExcerpt = NO_EXCERPT,
    *,
    learner: str = "",
) -> ResultText:
    """Describe the result of a job that is done, in the present language."""
    assert job.result is not None
    card = job.result.scorecard
    figures = [
        gettext_lazy("-# {line}", line=line) for line in _loss_lines(card, _source_text(job))
    ]
    reasons = [*reason_lines(card), *_next_step_lines(job, live)]
    return ResultText(
        title=localise(_result_title(job, learner)),
        verdict=localise(_verdict_text(card, excerpt)),
        replies=tuple(
            localise(_pair_text(pair))
            for pair in filter(_can_be_shown, excerpt.replies[:MAX_RESULT_REPLIES])
        ),
        reasons=_joined(reasons),
        figures=_joined(figures),
        table="\n".join(epoch_lines(job.result.epochs)),
        card=_joined(card_lines(job)),
    )


def _result_title(job: TrainingJob, learner: str) -> LocalisableText:
    assert job.result is not None
    what = gettext_lazy("Trained")
    if job.dialogue or job.shipped:
        what = gettext_lazy("Installed")
    elif job.result.imported:
        what = gettext_lazy("Imported")
    return job_title(job, what, learner)


def _verdict_text(card: ScoreSummary, excerpt: CardExcerpt) -> LocalisableText:
    texts = [VERDICT_TEXTS.get(card.verdict, ""), excerpt.outcomes]
    return join_texts(*filter(None, texts))


def outcomes_text(verdict: GateVerdict) -> LocalisableText:
    """Count the criteria of a verdict by outcome, in a sentence."""
    return gettext_lazy("{outcomes}.", outcomes=outcome_counts(verdict))


def outcome_counts(verdict: GateVerdict) -> LocalisableText:
    """Count the criteria of a verdict by outcome."""
    counts = Counter(criterion.outcome for criterion in verdict.criteria)
    parts: list[str] = [
        gettext_lazy(
            "{passed} of {criteria} criteria pass",
            passed=counts["pass"],
            criteria=len(verdict.criteria),
        )
    ]
    for outcome, text in OUTCOME_TEXTS.items():
        if counts[outcome]:
            parts.append(gettext_lazy("{count} {outcome}", count=counts[outcome], outcome=text))
    return join_texts(*parts, separator=", ")


def _can_be_shown(pair: SideBySide) -> bool:
    """Report whether no reply of a pair suggests self-harm."""
    return not any(is_withheld(pair.prompt, reply.text) for reply in pair.replies.values())


def _pair_text(pair: SideBySide) -> LocalisableText:
    """Show a reply of the version with the live version's, or else the base model's."""
    lines: list[str] = [f"> {_shorten_said(pair.prompt, MAX_PROMPT_CHARS)}"]
    rival: Side = "live" if "live" in pair.replies else "base"
    for side in ("new", rival):
        if reply := pair.replies.get(side):
            said = _shorten_said(reply.text, MAX_REPLY_CHARS)
            lines.append(
                gettext_lazy(
                    "**{side}:** {reply}",
                    side=LocalisableText(SIDE_LABELS[side]),
                    reply=said or gettext_lazy("(an empty reply)"),
                )
            )
    return join_texts(*lines, separator="\n")


def _shorten_said(text: str, most: int) -> str:
    return escape_markdown(shorten(text, most, placeholder=" …"))


def _source_text(job: TrainingJob) -> str:
    """Say where a version comes from, after its figures."""
    assert job.result is not None
    if job.dialogue:
        return gettext_lazy("It is the dialogue adapter `{name}`.", name=job.dialogue)
    if job.shipped:
        return gettext_lazy("It was shipped with Understudy, which measured it.")
    if job.result.imported:
        return gettext_lazy("Measured by its author; it was imported.")
    return gettext_lazy("Took {duration}.", duration=format_duration(job.result.seconds))


def _next_step_lines(job: TrainingJob, live: str | None) -> list[str]:
    if job.persona is None:
        return [
            gettext_lazy(
                "Promote… gives it to a persona, and so does `/finetune promote version:{name}`.",
                name=job.name,
            ),
            gettext_lazy("In the playground and the API it is the model `{name}`.", name=job.name),
            gettext_lazy(
                "`start_from: {name}` trains it further.", name=job.name.partition("/")[2]
            ),
        ]
    if live == job.version:
        return [gettext_lazy("It is live now.")]
    return [gettext_lazy("Promote makes it live from the next reply on.")]


def card_lines(job: TrainingJob) -> list[str]:
    """Describe the rest of a finished job's score card as small print; no lines without one."""
    text = card_state_text(job)
    return [gettext_lazy("-# {line}", line=text)] if text else []


def card_state_text(job: TrainingJob) -> str:
    """Describe the rest of a finished job's score card; empty where its run measured all of it, and
    once it is complete with the same verdict.
    """
    match job.card_state:
        case "waiting":
            return gettext_lazy("The rest of its score card is measured once nothing is trained.")
        case "running":
            at = job.card_progress
            if not isinstance(at, Phase) or not at.share or at.eta_s is None:
                return gettext_lazy("The rest of its score card is being measured: it begins.")
            return gettext_lazy(
                "The rest of its score card is being measured: {share:.0%}, at most {time} left.",
                share=at.share,
                time=format_duration(at.eta_s),
            )
        case "failed" | "cancelled":
            why = hide_paths(job.card_error or "") or gettext_lazy("It was stopped.")
            return gettext_lazy("The rest of its score card was not measured. {why}", why=why)
    card = _completed_card(job)
    if card is None or not card.first_verdict:
        return ""
    return gettext_lazy(
        "With its whole score card the gate says {verdict}; it said {first_verdict} before the rest "
        "was measured.",
        verdict=verdict_name(card.verdict),
        first_verdict=verdict_name(card.first_verdict),
    )


def verdict_name(verdict: str) -> str:
    """Return what moderators read in place of a verdict's name."""
    return VERDICT_NAMES.get(verdict, verdict)


def _completed_card(job: TrainingJob) -> ScoreSummary | None:
    if job.card_state != "complete" or job.result is None:
        return None
    return job.result.scorecard


def changed_verdict_text(job: TrainingJob, learner: str = "") -> str:
    """Announce that a completed score card has changed the gate's verdict; empty if it has not."""
    card = _completed_card(job)
    if card is None or not card.first_verdict:
        return ""
    title = job_title(job, gettext_lazy("The verdict has changed"), learner)
    state = gettext_lazy("⚠ {text}", text=card_state_text(job))
    return join_texts(title, state, *reason_lines(card), separator="\n")


def _loss_lines(card: ScoreSummary, source: str) -> list[str]:
    if not card.is_measured:
        return [
            gettext_lazy(
                "Nothing was measured of it: try it in a channel, or with `/finetune compare`."
            )
        ]
    better = 1 - card.loss_tuned / card.loss_base
    change = gettext_lazy("{share:.0%} higher", share=-better)
    if better > 0:
        change = gettext_lazy("{share:.0%} lower", share=better)
    return [
        gettext_lazy(
            "Held-out replies: loss {base:.3f} → **{tuned:.3f}** per token ({change}; {count:,} "
            "replies it never saw).",
            base=card.loss_base,
            tuned=card.loss_tuned,
            change=change,
            count=card.heldout_replies,
        ),
        gettext_lazy(
            "General dialogue: {base:.3f} → {tuned:.3f}. {source}",
            base=card.general_loss_base,
            tuned=card.general_loss_tuned,
            source=source,
        ),
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
        lines.append(gettext_lazy("What to do: {advice}", advice=advice))
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


def job_title(job: TrainingJob, what: str, learner: str = "") -> LocalisableText:
    """Title of a job's message: state, version and job. `learner` is the name of its persona, for
    which the id stands without one.
    """
    name = f"**{learner or job.persona} {job.version}**" if job.persona else f"**{job.version}**"
    return gettext_lazy("{what}: {version} (`{job}`)", what=what, version=name, job=job.job_id)


def plan_texts(
    plan: TrainingPlan, recipe: str, *, position: int, is_training: bool, conflict: str = ""
) -> list[str]:
    """Describe a plan: its data, what it takes, and its place in the queue. `position` 1 is next,
    `conflict` is why it could not be queued now.
    """
    lines: list[str] = [
        gettext_lazy(
            "**{train:,}** replies to learn from, {held_out:,} held out; {tokens:,} tokens.",
            train=plan.samples["train"],
            held_out=plan.samples["eval"],
            tokens=plan.tokens,
        ),
        gettext_lazy(
            "{used:,} of {count:,} records are used.", used=plan.rows_used, count=plan.rows
        ),
    ]
    if plan.lore_pairs_text:
        lines.append(plan.lore_pairs_text)
    for reason, rows in list(plan.dropped.items())[:MAX_PLAN_LINES]:
        dropped = {"rows": rows, "reason": reason}
        lines.append(LocalisableText("- {rows:,}: {reason}", values=dropped))
    for line in plan.import_lines[:MAX_PLAN_LINES]:
        lines.append(shorten(line, MAX_PLAN_LINE_CHARS, placeholder=" …"))
    takes: list[str] = []
    for estimate in plan.recipes:
        if estimate.recipe != recipe:
            continue
        takes += [
            gettext_lazy(
                "`{recipe}`: {steps:,} steps, about {duration} in all, {memory:.1f} GiB of memory.",
                recipe=recipe,
                steps=estimate.steps,
                duration=format_duration(estimate.seconds),
                memory=estimate.memory_bytes / 2**30,
            ),
            gettext_lazy(
                "-# {phases}estimated from {basis}",
                phases=phases_text(estimate),
                basis=estimate.basis,
            ),
        ]
        takes += [join_texts("⚠️", note) for note in estimate.notes[:MAX_PLAN_LINES]]
    if conflict:
        place = gettext_lazy(
            "It could not be started now: {conflict} Nothing has been queued.", conflict=conflict
        )
    elif is_training:
        place = gettext_lazy(
            "Started now, it would be number {position} in the queue after the running one. "
            "Nothing has been queued.",
            position=position,
        )
    else:
        place = gettext_lazy(
            "Started now, it would be number {position} in the queue. Nothing has been queued.",
            position=position,
        )
    return [join_texts(*lines, separator="\n"), join_texts(*takes, separator="\n"), place]


def phases_text(estimate: RecipeEstimate) -> str:
    """Describe how long each phase of a run takes that takes some seconds, before further text."""
    parts = []
    for label, seconds in estimate.long_phases.items():
        parts.append(join_texts(LocalisableText(label), format_duration(seconds)))
    if not parts:
        return ""
    return LocalisableText("{phases}; ", values={"phases": join_texts(*parts, separator=", ")})


def retrain_all_text(plan: RetrainAllPlan) -> LocalisableText:
    """Describe the trainings of all personas, planned or queued."""
    if not plan.items:
        return gettext_lazy(
            "Every live version here is for the served base model ({model}).",
            model=plan.base_model,
        )
    lines: list[str] = [_retraining_line(item) for item in plan.items[:MAX_RETRAINED]]
    if len(plan.items) > MAX_RETRAINED:
        lines.append(gettext_lazy("- and {count} more", count=len(plan.items) - MAX_RETRAINED))
    if plan.possible and not any(item.job for item in plan.items):
        lines.append(
            gettext_lazy(
                "Together about {duration}, one after another. Nothing has been queued: `/finetune "
                "all start:True` queues them.",
                duration=format_duration(plan.seconds),
            )
        )
    return join_texts(*lines, separator="\n")


def _retraining_line(item: Retraining) -> LocalisableText:
    name = gettext_lazy(
        "**{persona}** {version} (for {model})",
        persona=escape_markdown(item.persona_name),
        version=item.version,
        model=item.other_model,
    )
    if item.error:
        error = shorten(item.error, MAX_PLAN_LINE_CHARS, placeholder=" …")
        return gettext_lazy("- {version}: ⚠️ {error}", version=name, error=error)
    if item.job:
        return gettext_lazy("- {version}: queued as `{job}`", version=name, job=item.job.job_id)
    return gettext_lazy(
        "- {version}: about {duration}, {memory} of memory",
        version=name,
        duration=format_duration(item.seconds),
        memory=localisable_number(format_gib(item.memory_bytes)),
    )
