"""A diverging run stops with advice; a noisy one does not."""

from __future__ import annotations

import random

import pytest

from personas.errors import TrainingError
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training_events import Progress
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.train.divergence import (
    DIVERGENCE_RISE_NATS,
    DIVERGENCE_WINDOW_STEPS,
    require_convergence,
    require_finite_loss,
)
from trainer.train.sft_trainer import train_sft
from trainer.train.trainer_base import StageInputs

STEPS = 1500


def goes_on(losses, recipe, start=None) -> int:
    """After how many logged losses a run is stopped; their number where it never is."""
    for count in range(1, len(losses) + 1):
        try:
            require_convergence(
                losses[:count][-3 * DIVERGENCE_WINDOW_STEPS :] if start else losses[:count],
                count,
                STEPS,
                recipe,
                start,
            )
        except TrainingError:
            return count
    return len(losses) + 1


NOISE = {
    "steps of few tokens": lambda draw, at: max(0.0, draw.gauss(3 - 2 * at, 1.0)),
    "replies of one word": lambda draw, at: draw.expovariate(1 / (2.5 - at)),
    "rare steps of garbage": lambda draw, at: 14.0 if draw.random() < 0.1 else draw.gauss(2.5, 0.4),
    "learned by heart, then something new": lambda draw, at: draw.gauss(
        0.1 if at < 0.5 else 2.6, 0.2
    ),
    "easy talk first, a strange voice after it": lambda draw, at: draw.gauss(
        1.6 if at < 0.4 else 3.9, 0.5
    ),
    "a bad start that recovers": lambda draw, at: draw.gauss(7.0 if at < 0.005 else 2.5, 0.5),
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())
def test_noise_does_not_stop_a_run(recipe, noise):
    for seed in range(6):
        draw = random.Random(seed)
        losses = [noise(draw, step / STEPS) for step in range(STEPS)]
        assert goes_on(losses, recipe, start=2.6) > STEPS


RISE = {
    "at once": lambda step: 3.0 if step == 0 else 9.0,
    "after a while": lambda step: 2.5 if step < 40 else 7.5,
    "slowly": lambda step: 3.0 + step / 10,
}


@pytest.mark.parametrize(
    ("rise", "after"), list(zip(RISE.values(), (11, 50, 41), strict=True)), ids=RISE.keys()
)
def test_a_loss_that_stays_far_above_its_start_stops_a_run(recipe, rise, after):
    losses = [rise(step) for step in range(200)]
    assert goes_on(losses, recipe) == pytest.approx(after, abs=1)
    assert goes_on(
        [loss + DIVERGENCE_RISE_NATS for loss in losses[:1]] + losses[1:], recipe, start=3.0
    ) == pytest.approx(after, abs=1)


def test_steps_that_are_logged_together_count_as_so_many(recipe):
    rarely = recipe.model_copy(update={"logging_steps": 10})
    assert goes_on([3.0] * 10 + [9.0] * 20, rarely) == 30
    assert goes_on(([3.0] * 10 + [9.0] * 10) * 2, rarely) > 40


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_no_number_stops_at_once_and_the_advice_names_what_was_used_and_what_to_set(recipe, loss):
    wild = recipe.model_copy(
        update={"learning_rate": 5e-3, "warmup_ratio": 0.01, "max_grad_norm": 50.0}
    )
    with pytest.raises(TrainingError) as caught:
        require_convergence([2.0, loss], 2, 100, wild, 2.0)
    assert f"The loss is {loss} at step 2" in caught.value.message
    assert "0.005: set learning_rate=0.0005." in caught.value.advice
    assert (
        "warmup_ratio=0.1" in caught.value.advice and "max_grad_norm than 50" in caught.value.advice
    )
    with pytest.raises(TrainingError) as caught:
        require_finite_loss(
            loss, "the held-out replies", recipe.model_copy(update={"learning_rate": 2e-6})
        )
    assert (
        "set learning_rate=1e-06." in caught.value.advice and "warm-up" not in caught.value.advice
    )


def test_a_run_is_stopped_when_it_stays_far_above_the_untrained_models_loss(
    tiny_base, renderer, recipe
):
    samples = [
        TokenizedSample((5, 6, 7, 8, 20 + n % 5, 40 + n % 3, 2), (False,) * 5 + (True,) * 2)
        for n in range(48)
    ]
    slow = recipe.model_copy(update={"learning_rate": 1e-6, "gradient_accumulation_steps": 1})
    received = []
    # The tiny model's own loss is that of a guess among all tokens, some 11 nats: as if a better
    # one had got there.
    course = StageInputs(samples, (), fit_to_hardware(slow), received.append, initial_loss=2.0)
    with pytest.raises(TrainingError, match=r"2\.00 .* at step 11: .*diverged"):
        train_sft(tiny_base, renderer.tokenizer, course)
    assert [event.step for event in received if isinstance(event, Progress)] == list(range(1, 11))
