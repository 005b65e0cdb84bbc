"""What is told of the loss is the mean of every step, however rarely a recipe logs."""

import math

import pytest

from personas.prompt.renderer import TokenizedSample
from personas.schemas.training_events import Epoch, Evaluation, Progress
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.train.sft_trainer import train_sft
from trainer.train.trainer_base import StageInputs

SAMPLES = [
    TokenizedSample((5, 6, 7, 8, 20 + n % 5, 40 + n % 3, 2), (False,) * 5 + (True,) * 2)
    for n in range(20)
]
OWN = {
    "lora_r": 4,
    "lora_alpha": 8,
    "num_train_epochs": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
}


@pytest.fixture
def history(tiny_base, renderer, recipe):
    def run(**changes):
        changed = fit_to_hardware(recipe.model_copy(update={**OWN, **changes}))
        received = []
        course = StageInputs(SAMPLES, SAMPLES[:3], changed, received.append)
        train_sft(tiny_base, renderer.tokenizer, course)
        return received

    return run


def means(history):
    return [event.train_loss for event in history if not isinstance(event, Progress)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "logged"),
    [
        ({"max_steps": 2}, [2]),
        ({"logging_steps": 2, "max_steps": 3}, [2, 3]),
        ({"eval_strategy": "steps", "eval_steps": 2, "max_steps": 5}, [2, 3, 4, 5]),
    ],
    ids=str,
)
def test_a_run_that_logs_rarely_tells_the_means_of_one_that_logs_every_step(
    history, changes, logged
):
    rarely = history(**{"logging_steps": 10, **changes})
    always = history(**{**changes, "logging_steps": 1})
    assert [event.step for event in rarely if isinstance(event, Progress)] == logged
    assert rarely[-1].share == pytest.approx(1 if rarely[-1].step == 3 else 4 / 5), (
        "of five batches, two a step"
    )
    measured = [event.step for event in rarely if isinstance(event, Evaluation)]
    assert measured == ([2, 4, 5] if "eval_steps" in changes else []), (
        "after the last step in any case"
    )
    assert means(rarely) == pytest.approx(means(always), rel=1e-4)
    assert all(map(math.isfinite, means(rarely))) and any(
        isinstance(it, Epoch | Evaluation) for it in rarely
    )


def test_a_run_of_one_step_changes_the_adapter_although_its_recipe_warms_up(
    tiny_base, renderer, recipe
):
    once = recipe.model_copy(
        update={**OWN, "warmup_ratio": 0.1, "max_steps": 1, "lr_scheduler_type": "cosine"}
    )
    course = StageInputs(SAMPLES, (), fit_to_hardware(once), lambda event: None)
    model = train_sft(tiny_base, renderer.tokenizer, course).model
    moved = [
        float(weight.detach().abs().max())
        for name, weight in model.named_parameters()
        if "lora_B" in name
    ]
    assert moved and min(moved) > 0
