"""What can be given up for memory: in which order, and that the bot reads it."""

from __future__ import annotations

from bot.preview import Lighter
from personas.hyperparameters import Hyperparameters
from trainer.estimate import Speed, Workload, estimate
from trainer.lighter import lighter
from trainer.plan import recipe_named

SPEED = Speed(1000.0, "a test")
LONG = Workload(train=[600, 900, 1500], heldout=[700])


def ways(base, work=LONG, **changes):
    recipe = recipe_named("demo-cpu").model_copy(update={"max_length": 2048, **changes})
    return recipe, lighter(recipe, base, work, SPEED)


def test_the_batch_goes_first_and_learns_from_as_many_samples_then_the_length(tiny_base):
    recipe, found = ways(tiny_base, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert [way["set"] for way in found] == [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "max_length": 1024},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "max_length": 512},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "max_length": 256},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "max_length": 128},
    ]
    whole = estimate("", recipe, tiny_base, LONG, SPEED)["memory_bytes"]
    needs = [whole, *(way["memory_bytes"] for way in found)]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) == len(needs), "each takes less than the one before"


def test_what_would_save_nothing_is_not_proposed(tiny_base):
    _, found = ways(tiny_base, Workload(train=[100], heldout=[100]), per_device_train_batch_size=1)
    assert found == []


def test_each_way_is_a_request_that_is_allowed_and_the_bot_reads_it(tiny_base):
    _, found = ways(tiny_base, per_device_train_batch_size=64, gradient_accumulation_steps=200)
    for way in found:
        Hyperparameters(**Lighter.model_validate(way).set)
