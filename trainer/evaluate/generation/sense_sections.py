"""Score card sections on sense: lore in other words, style, long talks, pressure.
None of them gates.
"""

from collections.abc import Sequence
from dataclasses import replace

from trainer.dataset.dataset import Dataset
from trainer.dataset.synthetic.language_rules import language_name
from trainer.evaluate.candidates import BASE
from trainer.evaluate.generation.evaluation_prompts import interleave_tasks, reworded_prompts
from trainer.evaluate.generation.lore_facts import measure_lore
from trainer.evaluate.generation.reply_tasks import (
    EVALUATION_FOLDER,
    PRESSURE_FILE,
    TALKS_FILE,
    GeneratedReply,
    MeasuredShares,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs, shortage
from trainer.evaluate.generation.talks import TalkRun, measure_talks
from trainer.evaluate.generation.voice_sections import (
    VoiceJudge,
    measure_pressure,
    measure_style,
    pressure_prompts,
)
from trainer.evaluate.time_budget import TimeBudget
from trainer.languages import find_language_file

PROMPTS_TIME_SHARE = 0.25
"""Share of the time for questions in other words and messages under pressure."""


def measure_sense(
    inputs: SenseInputs, answers: Sequence[GeneratedReply], budget: TimeBudget
) -> tuple[dict[str, MeasuredShares], dict[str, str]]:
    """Measure the sections within the time; returns them by their name on the card, and why others
    are missing.

    `answers` are the replies to held-out prompts and questions on lore. What else has to be
    generated is generated with the adapters alone. Without voices, all sections but
    lore are left out.
    """
    sections: dict[str, MeasuredShares | None] = {}
    left_out: dict[str, str] = {}
    missing = _missing_in_language(inputs.data)
    sides = tuple(inputs.generator.adapters)
    # The base model's replies in other words and under pressure would say little for their time.
    adapters = {side: ref for side, ref in inputs.generator.adapters.items() if side != BASE}

    prompts = reworded_prompts(inputs.builder, inputs.questions)
    if inputs.voices and "pressure" not in missing:
        prompts += pressure_prompts(inputs.builder, inputs.limits.pressure, inputs.generator.seeds)
    inputs.report("questions in other words, and pressure")
    generator = replace(inputs.generator, adapters=adapters)
    replies = generator.answers(
        interleave_tasks(prompts),
        budget.part(PROMPTS_TIME_SHARE),
        lambda done, total: inputs.between(),
        least=2,  # one of each task
    )
    wanted = sum(len(prompt.seeds(generator.seeds)) for prompt in prompts) * len(adapters)
    left_out |= shortage("questions in other words, and pressure", len(replies), wanted)

    decode = inputs.builder.renderer.tokenizer.decode
    sections["lore"] = measure_lore(inputs.questions, [*answers, *replies], sides, decode)
    if inputs.voices:
        judge = VoiceJudge(inputs.persona, inputs.voices, is_copy=inputs.is_copy)
        sections["style"] = measure_style(inputs, answers, judge)
        sections["pressure"] = measure_pressure(inputs.persona, replies, tuple(adapters), judge)
        if "talks" not in missing:
            talks = TalkRun(inputs, budget)
            sections["talks"] = measure_talks(talks.replies(), judge)
            left_out |= talks.left_out

    reasons = {
        "lore": "There are no questions on lore.",
        **dict.fromkeys(("style", "talks", "pressure"), "The voice was not measured."),
        **missing,
    }
    for name, reason in reasons.items():
        if not sections.get(name):
            left_out[name] = reason
    return {name: shares for name, shares in sections.items() if shares}, left_out


def _missing_in_language(data: Dataset) -> dict[str, str]:
    """Return the sections without prompts in the persona's language, with the reason."""
    files = {"pressure": PRESSURE_FILE, "talks": TALKS_FILE}
    missing = {}
    for name, file in files.items():
        if not find_language_file(EVALUATION_FOLDER / file, data.language):
            missing[name] = f"There are no prompts in {language_name(data.language)}."
    return missing
