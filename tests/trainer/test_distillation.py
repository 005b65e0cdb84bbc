"""On-policy distillation of a version from a card: its loss, its samples, a kill, its plan and its documents."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import partial
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file

from personas.card.toml_card import read_card
from personas.errors import MaterialError, RequestError
from personas.home.adapters import verify_adapter
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.home.written_replies import SUMMARY_FILE, WrittenReply, format_written, written_file
from personas.models.loading import load_model
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training import Teacher, TrainingRequest, WrittenReplies
from personas.schemas.training_events import Epoch, Phase, Progress
from tests.trainer.job_folders import dialogues, stopping, write_request
from tests.trainer.lore_server import home as ada_home
from tests.trainer.test_run import run
from tests.trainer.test_run_kills import OPTIONS, killed, weights
from trainer.dataset.distillation import SURPLUS_PROBES, DistillationPrompt
from trainer.dataset.job_inputs import read_job_inputs
from trainer.dataset.synthetic.question_bank import IN_EARNEST, read_openers
from trainer.process.run_control import RunCancelled
from trainer.recipe.recipe_file import load_recipe
from trainer.report.run_plan import plan_job
from trainer.run import run_job, run_worker
from trainer.schemas import optimiser_steps
from trainer.train.checkpoint import list_checkpoints
from trainer.train.collator import collate, collate_rows
from trainer.train.distillation_trainer import (
    DistillationTrainer,
    make_distillation_trainer,
    prompt_samples,
    train_distillation,
)
from trainer.train.distributed import DistributedContext
from trainer.train.job import prepare_job_without_torch
from trainer.train.reverse_kl import reply_divergences, reverse_kl, teacher_outputs
from trainer.train.sft_trainer import add_lora_adapter
from trainer.train.stages import FIRST_STAGE_FOLDER
from trainer.train.trainer_base import StageInputs
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts", "one_thread")

SETTINGS = {
    "written_replies": 8,
    "lora_r": 4,
    "lora_alpha": 8,
    "num_train_epochs": 1,
    "learning_rate": 5e-3,
    "max_length": 640,
    "heldout_share": 0.25,
    "general_share": 0,
    "short_card_share": 0,
    "card_deadline_minutes": 0,
    "distilled_replies": 8,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": 2,
    "precision": "fp32",
    "quant_type": "none",
}
STEPS = (3, 4)
"""Of both stages: six and eight samples, two a step."""
REPLY = "I wind the clock at {} in the evening, and I am slow about it. It has {} wheels."
PROMPT = (5, 6, 7, 8, 9)
RICH_PROMPT = (5, 6, 7, 21, 22, 23, 24, 8, 9)
REPLIES = ((11, 12, 13, 2), (14, 15, 2))


@pytest.fixture(scope="module")
def job(tiny_base, tmp_path_factory):
    """Makes the job of a card whose replies are written already."""

    def made(*, recipe="card-teacher", folder=None, more_card="", **changes):
        folder = folder or tmp_path_factory.mktemp("job")
        material = folder / "material"
        material.mkdir()
        card, _ = ada_home(material)
        card.write_text(card.read_text(encoding="utf-8") + more_card, encoding="utf-8")
        (material / "general.jsonl").write_text(dialogues(3), encoding="utf-8")
        kinds = {"card": "ada.toml", "lore": "lore", "general": "general.jsonl"}
        settings = {**SETTINGS, **changes}
        request = {"persona": "ada", "from_card": 1, "recipe": recipe}
        write_request(folder, tiny_base.source, kinds, hyperparameters=settings, **request)
        file = written_file(folder)
        file.parent.mkdir()
        replies = [
            WrittenReply(number, f"how late is it, round {number}?", REPLY.format(number, number))
            for number in range(8)
        ]
        file.write_text(format_written(replies), encoding="utf-8")
        summary = WrittenReplies(teacher="tiny", licence="MIT", asked=9, kept=8, dropped={})
        (file.parent / SUMMARY_FILE).write_text(summary.model_dump_json(), encoding="utf-8")
        return folder

    return made


@pytest.fixture(scope="module")
def whole(job):
    """The folder of a run that nobody disturbed, and its events."""
    folder = job()
    received = []
    run_job(folder, RunControl(received.append))
    return folder, received


def batches(lay_out=collate):
    """The same replies after the student's prompt and after the teacher's."""
    return [
        lay_out(
            [
                TokenizedSample(
                    (*prompt, *reply), (False,) * len(prompt) + (True,) * len(reply)
                )
                for reply in REPLIES
            ]
        )
        for prompt in (PROMPT, RICH_PROMPT)
    ]  # fmt: skip


def plain_divergences(student, teacher):
    """KL(student ‖ teacher) of each reply token, each reply alone, number by number."""
    divergences = []
    for reply in REPLIES:
        sides = []
        for model, prompt in ((student, PROMPT), (teacher, RICH_PROMPT)):
            ids = torch.tensor([[*prompt, *reply]])
            sides.append(model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double())
        for at_student, at_teacher in zip(*sides, strict=True):
            p = torch.exp(at_student) / torch.exp(at_student).sum()
            q = torch.exp(at_teacher) / torch.exp(at_teacher).sum()
            divergences.append((p * (p.log() - q.log())).sum())
    return torch.stack(divergences)


def randomise(model, size=0.2):
    """Let an adapter do something."""
    draw = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=draw) * size)


@pytest.fixture
def student(tiny_base):
    """A model with an adapter that does something."""
    recipe = load_recipe("card-teacher").with_values(lora_r=4, lora_dropout=0.0)
    model = add_lora_adapter(load_model(tiny_base, "float32"), recipe).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("lay_out", [collate, collate_rows])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_the_loss_is_the_reverse_divergence_from_the_base_model(
    student, tiny_base, monkeypatch, lay_out, in_chunks
):
    monkeypatch.setattr("trainer.train.reverse_kl.LOSS_CHUNK_TOKENS", 3)
    own, richer = batches(lay_out)
    with student.disable_adapter():
        outputs = teacher_outputs(student, richer, in_chunks)
    divergences = reply_divergences(student, own, outputs, in_chunks)
    expected = plain_divergences(student, load_model(tiny_base, "float32"))
    assert divergences.min() > 1e-4
    torch.testing.assert_close(divergences.double(), expected, rtol=0, atol=1e-5)

    weights = [weight for weight in student.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(divergences.sum(), weights)
    plain = torch.autograd.grad(expected.sum(), weights)
    for gradient, other in zip(gradients, plain, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)


def test_the_loss_is_that_of_trl(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.sdft.loss_utils import compute_full_logit_self_distillation_loss

    draw = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 5, 40, generator=draw) * 3
    theirs = compute_full_logit_self_distillation_loss(student, teacher, distillation_alpha=1.0)
    torch.testing.assert_close(reverse_kl(student, teacher), theirs, rtol=0, atol=1e-6)


def test_the_teacher_knows_more_and_nothing_is_asked_in_earnest(job, renderer):
    prepared = prepare_job_without_torch(job(distilled_replies=40))
    distillation = prepared.data.distillation
    assert len(distillation.prompts) == 40 and prepared.teacher_surplus > 40
    prompt = distillation.prompts[0]
    own, richer = (renderer.tokenizer.decode(ids) for ids in (prompt.student, prompt.teacher))
    assert "I am Ada Marsh. I answer what was just said to me" in richer
    assert "I am Ada Marsh. I answer" not in own and "I keep the hours here" in own
    assert own.splitlines()[-2:] == richer.splitlines()[-2:], (
        "the same question, from the same guest"
    )
    held_out = {pair.message for pair in prepared.data.heldout_prompt_replies}
    assert held_out and not held_out & set(distillation.questions)
    earnest = {row.text for row in read_openers() if row.kind in IN_EARNEST}
    asked = [renderer.tokenizer.decode(prompt.student) for prompt in distillation.prompts]
    assert not [text for text in asked for question in earnest if f": {question}" in text]
    inputs = read_job_inputs(job(), prepared.spec)
    assert read_card(inputs.paths["card"][0][0]).name == "Ada Marsh"


def test_closing_instructions_end_the_served_prompt_and_stand_with_the_teachers_notes(
    job, renderer
):
    closing = 'post_history_instructions = "Never mention umbrellas, {{user}}."\n'
    folder = job(more_card=closing)
    prompt = prepare_job_without_torch(folder).data.distillation.prompts[0]
    own, richer = (renderer.tokenizer.decode(ids) for ids in (prompt.student, prompt.teacher))
    told = re.compile(r"Never mention umbrellas, \w+\.")
    assert len(told.findall(own)) == len(told.findall(richer)) == 1
    assert told.search(own).start() > own.rindex("<|im_start|>user")
    assert told.search(richer).start() < richer.index("<|im_start|>user")


def test_a_question_that_does_not_fit_whole_is_not_asked(job):
    distillation = prepare_job_without_torch(job()).data.distillation
    assert distillation.render("Is it late? " * 10) is not None
    assert distillation.render("Is it late? " * 150) is None, "neither is its middle left out"


def test_few_written_replies_leave_as_many_questions_to_distil(job):
    """Beside few exchanges of its own, few replies are written."""
    many, few = (
        prepare_job_without_torch(job(written_replies=count, distilled_replies=60)).data
        for count in (60, 2)
    )
    assert few.distillation.questions == many.distillation.questions
    assert len(set(few.distillation.questions)) == 60 and not few.distillation.caveat


def test_a_plan_says_how_often_a_question_is_asked(job):
    folder = job(distilled_replies=5_000)
    data = prepare_job_without_torch(folder).data
    different = len(set(data.distillation.questions))
    note = f"There are {different} questions to distil 5,000 replies on"
    assert 300 < different < 1_000 and data.caveats[-1].startswith(note)
    assert data.caveats[-1] in plan_job(folder).notes


def test_with_the_short_card_the_student_has_no_examples(job, renderer):
    distillation = prepare_job_without_torch(job(short_card_share=1)).data.distillation
    prompt = distillation.prompts[0]
    assert "I keep the hours here" not in renderer.tokenizer.decode(prompt.student)
    assert "I keep the hours here" in renderer.tokenizer.decode(prompt.teacher)


@pytest.fixture
def trainer(job, tiny_base, tmp_path):
    """A trainer of the second stage before its first step, in 16 bits as most runs."""
    folder = job(distilled_replies=8, precision="bf16")
    prepared = prepare_job_without_torch(folder)
    distillation = prepared.data.distillation
    stage = StageInputs(
        train=prompt_samples(distillation),
        heldout=(),
        recipe=prepared.recipe.distillation_stage,
        listen=lambda event: None,
    )
    return make_distillation_trainer(
        tiny_base, prepared.tokenizer, stage, distillation, tmp_path
    )  # fmt: skip


def test_replies_are_drawn_by_seed_and_step_and_end_where_they_end(trainer):
    prompts = trainer._distillation.prompts[:4]
    limit = trainer._distillation.max_reply_tokens
    replies = trainer._sample(prompts, 0)
    state = torch.get_rng_state()
    assert trainer._sample(prompts, 0) == replies and torch.equal(torch.get_rng_state(), state)
    assert trainer.model.training
    trainer.state.global_step = 1
    assert trainer._sample(prompts, 0) != replies
    assert {len(reply) for reply in replies} == {limit}, "a random model does not end by itself"
    ends = tuple({reply[5] for reply in replies})
    trainer._distillation = replace(trainer._distillation, stop_ids=ends)
    trainer.state.global_step = 0
    for reply, cut in zip(replies, trainer._sample(prompts, 0), strict=True):
        end = next(place for place, token in enumerate(reply) if token in ends)
        assert cut == reply[: end + 1]


def test_a_step_has_the_tokens_of_all_its_replies(trainer):
    loader = iter(trainer.get_train_dataloader())
    laid_out, tokens = trainer.get_batch_samples(loader, 2, torch.device("cpu"))
    counted = [len(batch["student"]["targets"]) for batch in laid_out]
    assert len(laid_out) == 2 and tokens == sum(counted)
    for batch in laid_out:
        assert torch.equal(batch["student"]["targets"], batch["teacher"]["targets"])
        assert batch["teacher"]["lengths"].min() > batch["student"]["lengths"].min()
    mean = sum(trainer.compute_loss(trainer.model, batch, False, tokens) for batch in laid_out)
    assert mean.item() >= 0 and math.isfinite(mean.item())
    mean.backward()
    learned = [weight.grad for name, weight in trainer.model.named_parameters() if "lora_B" in name]
    assert all(gradient.abs().max() > 0 for gradient in learned)
    assert trainer.samples_done == 4 and isinstance(trainer, DistillationTrainer)


def test_both_stages_run_and_the_version_says_so(whole):
    folder, received = whole
    progress = [event for event in received if isinstance(event, Progress)]
    assert [event.stage for event in progress] == [1] * STEPS[0] + [2] * STEPS[1]
    assert {event.of for event in progress} == {sum(STEPS)}
    details = [event.detail for event in received if isinstance(event, Phase)]
    assert any("stage 2 of 2: 8 replies of its own" in detail for detail in details)
    manifest = verify_adapter(folder / "adapter")
    told = manifest.distillation
    assert (manifest.recipe, told.replies, manifest.written.kept) == ("card-teacher", 8, 8)
    assert told.before == pytest.approx(progress[STEPS[0]].loss)
    for name in ("README.md", "datasheet.md"):
        text = (folder / "adapter" / name).read_text(encoding="utf-8")
        assert "Then it was distilled on 8 replies of its own from" in text
    sheet = json.loads((folder / "adapter" / "datasheet.json").read_text(encoding="utf-8"))
    assert sheet["distillation"]["replies"] == 8
    report = (folder / "adapter" / "report" / "README.md").read_text(encoding="utf-8")
    assert "| 2: distillation |" in report and "the divergence from the teacher" in report


def test_the_student_comes_nearer_to_the_teacher(job, tiny_base):
    settings = {"distilled_replies": 48, "distillation_learning_rate": 1e-2}
    prepared = prepare_job_without_torch(job(**settings, gradient_accumulation_steps=2))
    distillation = prepared.data.distillation
    # To two different prompts, a random model says different things whatever its adapter does.
    render = distillation.render

    def render_alike(question):
        student = render(question).student
        return DistillationPrompt(student, student)

    distillation = replace(distillation, render=render_alike, max_reply_tokens=8)
    received = []
    stage = StageInputs(
        train=prompt_samples(distillation),
        heldout=(),
        recipe=prepared.recipe.distillation_stage,
        listen=received.append,
        begin=partial(randomise, size=0.05),
    )
    train_distillation(tiny_base, prepared.tokenizer, stage, distillation)
    losses = [event.loss for event in received if isinstance(event, Progress)]
    assert len(losses) == 12
    assert fmean(losses[-3:]) < 0.7 * fmean(losses[:3]), losses


def test_stopped_in_each_stage_and_between_it_ends_as_a_whole_run_does(job, whole):
    folder = job()
    for number, (kind, step) in enumerate(
        ((Progress, 1), (Epoch, STEPS[0]), (Progress, STEPS[0] + 1))
    ):
        with pytest.raises(RunCancelled):
            run_job(folder, stopping(step, kind))
        assert list_checkpoints(folder / CHECKPOINTS_FOLDER / FIRST_STAGE_FOLDER)
        assert bool(list_checkpoints(folder / CHECKPOINTS_FOLDER)) == (number == 2)
    received = []
    run_job(folder, RunControl(received.append))
    steps = [event.step for event in received if isinstance(event, Progress)]
    assert min(steps) == STEPS[0] + 3, "nothing is done again"
    kept, other = (
        load_file(it / "adapter" / "adapter_model.safetensors") for it in (folder, whole[0])
    )
    assert all(torch.equal(kept[name], other[name]) for name in kept)


@pytest.mark.slow
def test_killed_while_it_distils_it_ends_as_a_whole_run_does(job):
    """`kill -9`, in a process of its own."""
    undisturbed, folder = (job(distilled_replies=24) for _ in range(2))
    code, _, log = run(undisturbed, *OPTIONS)
    assert code == 0, log
    killed(folder, after_steps=STEPS[0] + 4, wait_s=0.2)
    assert not (folder / "adapter").exists()
    code, received, log = run(folder, *OPTIONS)
    assert code == 0, log
    first = next(event["step"] for event in received if event["event"] == "progress")
    assert STEPS[0] + 2 < first < STEPS[0] + 12, "it went on within the second stage"
    assert weights(folder) == weights(undisturbed)


def test_a_plan_knows_the_second_stage(job):
    folder = job(distilled_replies=60)
    plan = plan_job(folder)
    rows = {row["recipe"]: row for row in plan.as_json(())["recipes"]}
    assert rows["card-teacher"]["steps"] == STEPS[0] + 30
    assert rows["card-teacher"]["phases"]["training"] > 5 * rows["card"]["phases"]["training"]
    other = {
        row["recipe"]: row
        for row in plan_job(job(recipe="card", distilled_replies=0)).as_json(())["recipes"]
    }
    assert other["card"]["steps"] == STEPS[0] < other["card-teacher"]["steps"]
    without = plan.settings.with_values(distilled_replies=0)
    assert plan.work.largest_trained(plan.settings).distilled
    assert not plan.work.largest_trained(without).distilled
    measured = plan.work.largest_measured(plan.settings)
    assert measured.own + measured.shared > max(plan.work.train)


def test_several_processes_are_refused_before_anything_is_written(job):
    folder = job()
    written_file(folder).unlink()
    before = sorted(folder.rglob("*"))
    for index, start in enumerate((run_job, run_worker)):
        control = RunControl(lambda event: None, processes=DistributedContext(index, 2))
        with pytest.raises(RequestError, match="Several processes cannot distil"):
            start(folder, control)
    assert sorted(folder.rglob("*")) == before


def test_a_plan_renders_hardly_any_of_the_prompts(job, monkeypatch):
    made = []

    def render(**prompts):
        made.append(DistillationPrompt(**prompts))
        return made[-1]

    monkeypatch.setattr("trainer.dataset.distillation.DistillationPrompt", render)
    plan_job(job(distilled_replies=60))
    assert len(made) == 1 + len(SURPLUS_PROBES)


def test_a_plan_says_that_no_question_fits(job, monkeypatch):
    for bound in ("MIN_TOKENS", "MAX_TOKENS"):
        monkeypatch.setattr(f"trainer.dataset.synthetic.card_replies.{bound}", 630)
    with pytest.raises(MaterialError, match="fits max_length=640 beside a reply of 630 tokens"):
        plan_job(job())


def test_prompts_are_part_of_what_a_resumed_run_must_not_change(job):
    from trainer.train.resume_config import batches_hash

    one, other = (prepare_job_without_torch(job(distilled_replies=count)) for count in (8, 9))
    assert batches_hash(one.data, one.recipe) != batches_hash(other.data, other.recipe)
    assert optimiser_steps(one.recipe.distillation_stage, 8) == 4


def test_a_teacher_other_than_the_base_model_is_refused(command, tmp_path):
    ada_home(tmp_path)
    server = (
        "--teacher",
        "http://127.0.0.1:1/v1",
        "--teacher-model",
        "big",
        "--teacher-licence",
        "MIT",
    )
    train = ("train", "--persona", "ada.toml", "--recipe", "card-teacher", "--out", "run")
    code, _, errors = command(*train, "--from-card", *server)
    assert code == 1 and "this one is big: use the recipe card" in errors
    code, _, errors = command(*train, "--lore", "lore", "--lore-pairs", "1")
    assert code == 1 and "set from_card, too, or use another recipe" in errors
    assert not (tmp_path / "run").exists()

    def asked(**fields):
        return TrainingRequest(job_name="a", persona="ada", from_card=1, **fields)

    itself = Teacher(model="embedded", licence="Apache-2.0")
    assert asked(recipe="card-teacher", teacher=itself).distils and not asked().distils
    assert asked(hyperparameters={"distilled_replies": 8}).distils
    assert not asked(recipe="card-teacher", hyperparameters={"distilled_replies": 0}).distils
    with pytest.raises(ValueError, match="use the recipe card"):
        asked(hyperparameters={"distilled_replies": 8}, teacher=Teacher(model="big", licence="MIT"))
    with pytest.raises(RequestError, match="set one of them to 0"):
        load_recipe("card-teacher", type(asked().hyperparameters)(first_stage_epochs=1))
