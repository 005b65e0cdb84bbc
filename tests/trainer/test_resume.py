"""A run that was stopped or killed goes on as if nothing had happened: same weights, same
history.
"""

import pickle
import random
import re
import shutil

import numpy as np
import pytest
import torch

from personas.errors import TrainingError
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training_events import Epoch, Progress
from tests.trainer.hostile_checkpoints import Bomb, reseal, spoil
from trainer.process.run_control import RunCancelled
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.recipe.recipe_file import load_recipe
from trainer.train.checkpoint import (
    Checkpoint,
    capture_random_state,
    latest_valid_checkpoint,
    list_checkpoints,
    restore_random_state,
    trainable_weights,
)
from trainer.train.losses import mean_loss, measure_reply_losses
from trainer.train.sft_trainer import train_sft
from trainer.train.stages import STAGE_RESULT_FOLDER, FirstStageResult
from trainer.train.trainer_base import StageInputs
from trainer.train.training_run import RunControl

STEPS = 9
STEPS_AN_EPOCH = 3


@pytest.fixture(scope="module")
def recipe():
    values = {"lora_r": 4, "lora_alpha": 8, "num_train_epochs": 3, "gradient_accumulation_steps": 2}
    return fit_to_hardware(load_recipe("demo-cpu").with_values(**values))


def samples(count):
    return [
        TokenizedSample((5, 6, 7, 8, 20 + n % 5, 40 + n % 3, 2), (False,) * 5 + (True,) * 2)
        for n in range(count)
    ]


class Train:
    """Trains in a folder, and may be stopped after any step."""

    def __init__(self, base, renderer, recipe, folder):
        self.base = base
        self.tokenizer = renderer.tokenizer
        self.recipe = recipe
        self.folder = folder
        self.received = []
        self.measures = True

    def __call__(self, stop_after=None, **changes):
        def check():
            steps = max(
                (event.step for event in self.received if isinstance(event, Progress)), default=0
            )
            is_measuring = (
                self.measures
                and self.received
                and isinstance(self.received[-1], Progress)
                and steps % STEPS_AN_EPOCH == 0
            )
            if stop_after is not None and steps >= stop_after - 1 and not is_measuring:
                raise RunCancelled("the test")

        recipe = self.recipe.model_copy(update=changes)
        self.measures = recipe.eval_strategy == "epoch"
        course = StageInputs(
            samples(20),
            samples(3),
            recipe,
            self.received.append,
            control=RunControl(check=check),
            folder=self.folder,
        )
        return train_sft(self.base, self.tokenizer, course)


@pytest.fixture
def train(tiny_base, renderer, recipe, tmp_path):
    return lambda folder="run": Train(tiny_base, renderer, recipe, tmp_path / folder)


@pytest.fixture(scope="module")
def undisturbed(tiny_base, renderer, recipe, tmp_path_factory):
    return Train(tiny_base, renderer, recipe, tmp_path_factory.mktemp("undisturbed"))()


def result(history):
    """What a history says, but for what depends on the clock and the machine's memory."""
    clock = {"tokens_per_s", "eta_s", "memory_bytes", "seconds", "held_s", "samples_per_s"}
    return [event.model_dump(exclude=clock) for event in history]


def same(first, second):
    one = trainable_weights(first.model)
    other = trainable_weights(second.model)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


STOPS_IN_EVERY_RUN = {STEPS_AN_EPOCH + 2: "within an epoch", 2 * STEPS_AN_EPOCH: "at its end"}


@pytest.mark.parametrize(
    "stop_after",
    [
        step if step in STOPS_IN_EVERY_RUN else pytest.param(step, marks=pytest.mark.slow)
        for step in range(2, STEPS + 1)
    ],
)
def test_stopped_after_any_step_it_ends_with_the_same_weights_and_history(
    train, undisturbed, stop_after
):
    stopped = train()
    with pytest.raises(RunCancelled):
        stopped(stop_after)
    resumed = train()()
    assert same(undisturbed, resumed)
    assert result(resumed.history) == result(undisturbed.history)
    at_epochs_end = (
        stop_after % STEPS_AN_EPOCH == 0
    )  # nothing is kept there before the epoch is measured
    assert resumed.resumed_at == (stop_after - STEPS_AN_EPOCH if at_epochs_end else stop_after)


@pytest.mark.parametrize(
    "changes",
    [
        # What a resumed run restores besides weights: an optimiser's states in 8 bits.
        {"optim": "adamw_8bit"},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"eval_strategy": "steps", "eval_steps": 2},
                {"optim": "adamw_torch"},
                {"precision": "fp32", "quant_type": "none"},
                {"lr_scheduler_type": "linear", "warmup_steps": 4},
                {"eval_strategy": "no", "logging_steps": 2},
                {"max_steps": 7},
            )
        ),
    ],
    ids=lambda changes: " ".join(changes),
)
def test_whatever_the_recipe_a_resumed_run_has_the_same_weights(train, changes):
    undisturbed = train("undisturbed")(**changes)
    with pytest.raises(RunCancelled):
        train()(5, **changes)
    resumed = train()(**changes)
    assert resumed.resumed_at and same(undisturbed, resumed)


@pytest.mark.slow
def test_a_run_may_be_stopped_at_every_step(train, undisturbed):
    broken = train()
    for step in range(2, STEPS):
        with pytest.raises(RunCancelled):
            broken(step)
    assert same(undisturbed, broken())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    stopped, train, undisturbed, caplog
):
    run = train()
    shutil.copytree(stopped, run.folder)
    tensors = run.folder / "checkpoint-5" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-3] ^= 1
    tensors.write_bytes(content)
    resumed = run()
    assert resumed.resumed_at == 3 and same(undisturbed, resumed)
    assert "checkpoint-5 is damaged" in caplog.text


def test_without_any_whole_checkpoint_it_starts_anew(stopped, train, undisturbed):
    run = train()
    shutil.copytree(stopped, run.folder)
    for kept in list_checkpoints(run.folder):
        (kept / "state.json").write_text("{")
    anew = run()
    assert anew.resumed_at == 0 and same(undisturbed, anew)


@pytest.mark.slow
def test_at_most_three_are_kept_the_best_among_them_and_none_is_pickled(train, tmp_path):
    with pytest.raises(RunCancelled):
        train()(26, num_train_epochs=9)
    kept = list_checkpoints(tmp_path / "run")
    assert len(kept) == 3
    assert {path.name for folder in kept for path in folder.iterdir()} == {
        "tensors.safetensors",
        "state.json",
        "trainer_state.json",
    }


WORSENING = {
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "num_train_epochs": 30,
    "early_stopping_patience": 2,
    "max_grad_norm": 1000.0,
}
"""So high a rate makes the adapter worse after a while."""


@pytest.mark.slow
def test_the_best_adapter_is_given_patience_ends_a_run_and_counts_on_after_a_resume(train):
    ended = train("undisturbed")(**WORSENING)
    losses = [event.eval_loss for event in ended.history if isinstance(event, Epoch)]
    assert len(losses) < 30 and losses.index(min(losses)) == len(losses) - 3
    assert mean_loss(measure_reply_losses(ended.model, samples(3))) == pytest.approx(
        min(losses), abs=1e-6
    )

    with pytest.raises(RunCancelled):
        train()(len(losses) * STEPS_AN_EPOCH - 1, **WORSENING)
    resumed = train()(**WORSENING)
    assert result(resumed.history) == result(ended.history) and same(ended, resumed)


def test_every_generator_goes_on_from_where_it_was():
    kept = capture_random_state()
    first = random.random(), np.random.rand(), torch.rand(3)
    restore_random_state(kept)
    second = random.random(), np.random.rand(), torch.rand(3)
    assert first[:2] == second[:2] and torch.equal(first[2], second[2])


def test_a_checkpoint_holds_nested_values_with_their_kinds(tmp_path):
    parts = {
        "a": {0: torch.tensor([1.5]), "x": [1, 2.5, None, True, "t"]},
        "b": torch.arange(3, dtype=torch.uint8),
    }
    Checkpoint(parts).write(tmp_path)
    back = Checkpoint.read(tmp_path).parts
    assert list(back["a"]) == [0, "x"] and back["a"]["x"] == [1, 2.5, None, True, "t"]
    assert torch.equal(back["a"][0], parts["a"][0]) and torch.equal(back["b"], parts["b"])


@pytest.mark.parametrize("state", ["{", "[]", '{"sha256": 1}', "{}"])
def test_a_state_that_cannot_be_read_is_an_error_with_its_place(tmp_path, state):
    Checkpoint({"a": torch.zeros(1)}).write(tmp_path)
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(TrainingError, match="is damaged"):
        Checkpoint.read(tmp_path)


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"a\.b is a object"):
        Checkpoint({"a": {"b": object()}}).write(tmp_path)


@pytest.fixture(scope="module")
def stopped(tiny_base, renderer, recipe, tmp_path_factory):
    """The folder of a run that was stopped after its fifth step."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(RunCancelled):
        Train(tiny_base, renderer, recipe, folder)(5)
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-5", "checkpoint-3"]
    return folder


def test_hostile_checkpoints_are_skipped_with_their_reasons(stopped, undisturbed, tmp_path, caplog):
    weights = trainable_weights(undisturbed.model)
    assert latest_valid_checkpoint(stopped, weights).name == "checkpoint-5"
    for number in range(60):
        folder = shutil.copytree(stopped, tmp_path / str(number))
        spoil(folder / "checkpoint-5", number)
        caplog.clear()
        found = latest_valid_checkpoint(folder, weights)
        assert found and found.name == "checkpoint-3", number
        assert (
            f"{number}/checkpoint-5 " in caplog.text and "Remove it and run again." in caplog.text
        )


def test_a_checkpoint_that_cannot_be_resumed_is_refused(stopped, train):
    run = train()
    shutil.copytree(stopped, run.folder)
    reseal(run.folder / "checkpoint-5", schedule={"list": [1, "x"]})
    with pytest.raises(TrainingError, match=r"checkpoint-5 cannot be resumed: .*Remove"):
        run()


def test_pickles_beside_a_checkpoint_are_never_opened(stopped, undisturbed, train, tmp_path):
    run = train()
    shutil.copytree(stopped, run.folder)
    names = (
        "optimizer.pt scheduler.pt scaler.pt rng_state.pth training_args.bin pytorch_model.bin "
        "adapter_model.bin"
    )
    for name in names.split():
        (run.folder / "checkpoint-5" / name).write_bytes(
            pickle.dumps(Bomb(str(tmp_path / "opened")))
        )
    resumed = run()
    assert (
        resumed.resumed_at == 5
        and same(undisturbed, resumed)
        and not (tmp_path / "opened").exists()
    )


def test_a_first_stages_result_that_is_none_is_refused(stopped, tmp_path):
    shutil.copytree(stopped / "checkpoint-5", tmp_path / STAGE_RESULT_FOLDER)
    with pytest.raises(TrainingError, match=rf"first stage in .*{re.escape(str(tmp_path))}"):
        FirstStageResult.read(tmp_path)
