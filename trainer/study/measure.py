"""The replies of a run's adapter to held-out prompts, against what the persona really said."""

from __future__ import annotations

import math
from pathlib import Path

from personas.prompt import Renderer
from trainer.job import prepare
from trainer.material import read_spec
from trainer.scorecard.budget import Budget
from trainer.scorecard.sides import NEW, Compared, Sides
from trainer.scorecard.spoken.generate import Speakers
from trainer.scorecard.spoken.prompts import Asking, heldout_prompts
from trainer.scorecard.spoken.text import score_texts


def scores_of(folder: Path) -> tuple[dict[str, float], int]:
    """Scores of the replies that the adapter in a job folder makes, drawn with the run's seed, and how many there are.

    Raises `UnderstudyError` where the job or its adapter cannot be used.
    """
    spec = read_spec(folder)
    job = prepare(folder, spec)
    data, renderer = job.data, Renderer(job.tokenizer)
    asked = heldout_prompts(Asking(renderer, data.persona, data.lore), data)
    sides = Sides.load(job.base, job.tokenizer, spec.serving_precision, asked[0].ids)
    sides.add(NEW, Compared.sealed(folder / "adapter"))
    assert sides.parts  # they were loaded to speak
    speakers = Speakers(sides.parts, renderer, {NEW: sides.ref(NEW)}, (job.recipe.seed,))
    answers = speakers.answers(asked, Budget(math.inf))
    references = [data.said_heldout[it.asked.number].reply for it in answers]
    return score_texts(references, [it.text for it in answers]), len(answers)
