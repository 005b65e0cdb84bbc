"""Scores an adapter of a scaling study on held-out replies and on further tasks."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from filecmp import cmp
from pathlib import Path

from personas.errors import RequestError
from personas.home.job_folder import read_spec
from personas.models.base_model import recommended_sampling
from personas.prompt.renderer import Renderer
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.sample_renderer import RenderedSample, SampleRenderer
from trainer.evaluate.candidates import BASE, NEW, Candidate, Candidates
from trainer.evaluate.generation.evaluation_prompts import (
    PromptBuilder,
    heldout_prompts,
    select_places,
)
from trainer.evaluate.generation.reply_generator import ReplyGenerator
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt, select_replies
from trainer.evaluate.generation.text_metrics import score_texts
from trainer.evaluate.loss_sections import INSTRUCTIONS_FILE
from trainer.evaluate.time_budget import TimeBudget
from trainer.schemas import PromptReply, Recipe
from trainer.sources.conversation import Conversation
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions
from trainer.study.scale import HELDOUT_REPLIES, ScalePoint, ScoreFunction, StudyScores, TaskScores
from trainer.train.job import prepare_job
from trainer.train.job_folder import JobDraft

DIALOGUE_TASKS = {
    "instructions": INSTRUCTIONS_FILE,
    "general dialogue": SHIPPED_DATA / "general" / "dialogue.jsonl",
    "summarising": SHIPPED_DATA / "evaluation" / "summaries.jsonl",
}
"""Held-out conversations by task, for studies of dialogue. Nothing trains on them."""


def require_untrained_tasks(draft: JobDraft, tasks: Mapping[str, Path]) -> None:
    """Raise `RequestError` if a task's file is missing, or among the material that is trained
    on.
    """
    for task, file in tasks.items():
        if not file.is_file():
            raise RequestError(
                f"There is no file {file} for the task {task}.",
                "Check the path after --task NAME=.",
            )
        for material in draft.materials:
            if material.kind == "general":  # every job has it, to measure forgetting
                continue
            for path, _ in material.copies:
                if path.is_file() and cmp(path, file, shallow=False):
                    raise RequestError(
                        f"{file} cannot measure {task}: it is trained on.", "Name another data set."
                    )


def task_scorer(
    points: Sequence[ScalePoint], tasks: Mapping[str, Path], most: int
) -> ScoreFunction:
    """Return the function that scores a run's adapter; with tasks, runs of the smallest size score
    the base, too.
    """
    # The base model is the same in all runs: its scores at a seed are needed once.
    smallest: set[str] = set()
    if tasks:
        smallest = {point.name for point in points if point.samples == points[0].samples}

    def score(folder: Path) -> StudyScores:
        return score_adapter(folder, tasks, most, with_base=folder.name in smallest)

    return score


def score_adapter(
    folder: Path, tasks: Mapping[str, Path], most: int, *, with_base: bool
) -> StudyScores:
    """Score a job's adapter on held-out prompts and the files of further tasks, `most` of each,
    with the run's seed.

    `with_base` scores the base model, too. Raises `UnderstudyError`.
    """
    spec = read_spec(folder)
    job = prepare_job(folder, spec)
    data = job.data
    renderer = Renderer(job.tokenizer)
    builder = PromptBuilder(renderer, data.persona, data.lore)
    seeds = (job.recipe.seed,)
    heldout = heldout_prompts(builder, data, (0,))[:most]
    prompts = [replace(prompt, own_seeds=seeds) for prompt in heldout]
    pairs: dict[str, Sequence[PromptReply]] = {prompts[0].task: data.heldout_prompt_replies}
    names = {prompts[0].task: HELDOUT_REPLIES}
    for task, file in tasks.items():
        task_prompts, pairs[task] = _task_prompts(
            task, file, builder=builder, recipe=job.recipe, most=most
        )
        prompts += task_prompts
        names[task] = task
    sides = Candidates.load(job.base, job.tokenizer, spec.serving_precision, prompts[0].ids)
    sides.add(NEW, Candidate.sealed(folder / "adapter"))
    assert sides.parts  # the candidates were loaded to generate
    refs = {NEW: sides.ref(NEW)}
    if with_base:
        refs[BASE] = sides.ref(BASE)
    generator = ReplyGenerator(
        parts=sides.parts,
        renderer=renderer,
        adapters=refs,
        seeds=seeds,
        sampling=recommended_sampling(job.base),
    )
    answers = generator.answers(prompts, TimeBudget(math.inf))
    scores: dict[str, TaskScores] = {NEW: {}, BASE: {}}
    for side in refs:
        for task, name in names.items():
            replies = select_replies(answers, task, side=side)
            references = [pairs[task][reply.prompt.number].reply for reply in replies]
            scores[side][name] = score_texts(references, [reply.text for reply in replies])
    counts = Counter(names[prompt.task] for prompt in prompts)
    return StudyScores(tasks=scores[NEW], prompts=dict(counts), untrained=scores[BASE])


def _task_prompts(
    task: str, file: Path, builder: PromptBuilder, recipe: Recipe, most: int
) -> tuple[list[EvaluationPrompt], list[PromptReply]]:
    """Read a task's conversations; return at most `most` prompts, selected by a hash, and all
    messages and replies.
    """
    maker = SampleRenderer(builder.renderer, None, None, recipe=recipe, filters=None)
    samples: list[RenderedSample] = []
    for talk in read_usable(file, ReadOptions()):
        if isinstance(talk, Conversation):
            samples += maker.render(talk, {})
    pairs = []
    for sample in samples:
        pairs.append(PromptReply(sample.talk, sample.turns[-1].text, sample.reply))
    if not pairs:
        raise RequestError(
            f"No reply in {file} fits max_length {recipe.max_length}.", "Set a higher max_length."
        )
    bare = replace(builder, persona=None)
    prompts = []
    for number in select_places(range(len(pairs)), pairs, most):
        prompts.append(bare.from_sample(task, number, samples[number].sample, pairs[number]))
    return prompts, pairs
