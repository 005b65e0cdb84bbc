"""The model that writes replies before a training counts with its memory, and with its name where it
is what does not fit.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import trainer.estimate.memory_check
from personas.errors import NoMemoryError
from personas.home.teacher_setting import SMALLER_TEACHER_ADVICE
from personas.models.base_model import EMBEDDED, locate
from tests.trainer.model_sizes import LLAMA_8B
from trainer.estimate.memory_check import require_memory
from trainer.estimate.model_shape import model_shape_of
from trainer.estimate.run_estimate import estimate_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec
from trainer.recipe.machine_fit import fit_to_machine
from trainer.recipe.recipe_file import load_recipe
from trainer.teacher.writing_stage import _teacher_named_for_memory

GIB = 2**30
TRAINED = Workload([400] * 120, [400] * 24, shared=300, reply_tokens=30)
WRITTEN = replace(TRAINED, drafts=600, writer=LLAMA_8B.shape)


def machine(gib, *, has_cuda=False):
    size = round(gib * GIB)
    return MachineSpec(has_cuda, "bf16", memory_bytes=size, free_bytes=size, device="a machine")


def needed(work, spec):
    return estimate_memory(load_recipe("card"), locate(EMBEDDED), work, spec)


def test_a_teacher_that_is_larger_than_the_training_is_the_peak_of_the_run():
    computer = machine(32)
    alone = needed(TRAINED, computer).total
    assert alone < 4 * GIB
    weights = LLAMA_8B.shape.weight_bytes
    assert weights + GIB < needed(WRITTEN, computer).total < weights + 3 * GIB
    no_bfloat16 = replace(computer, best="fp32")
    assert needed(WRITTEN, no_bfloat16).total > 2 * weights
    itself = replace(WRITTEN, writer=model_shape_of(locate(EMBEDDED)))
    assert needed(itself, computer).total == alone, "the base model takes less than its training"
    for other in (replace(WRITTEN, drafts=0), replace(WRITTEN, writer=None)):
        assert needed(other, computer).total == alone, "written already, or by a server"


def test_a_card_makes_room_for_a_teacher_in_the_form_in_which_it_is_loaded():
    packed = needed(WRITTEN, machine(12, has_cuda=True)).total
    whole = needed(WRITTEN, machine(48, has_cuda=True)).total
    assert needed(TRAINED, machine(12, has_cuda=True)).total < 3 * GIB
    assert 6 * GIB < packed < 9 * GIB
    assert LLAMA_8B.shape.weight_bytes + 2 * GIB < whole < LLAMA_8B.shape.weight_bytes + 4 * GIB


def test_a_teacher_that_does_not_fit_is_named_and_changes_no_setting_of_the_training(monkeypatch):
    monkeypatch.setattr(trainer.estimate.memory_check, "own_memory_bytes", lambda: 0)
    recipe = load_recipe("card")
    base = locate(EMBEDDED)
    require_memory(recipe, base, TRAINED, machine(8))
    with pytest.raises(NoMemoryError, match="model that writes the replies needs") as refused:
        require_memory(recipe, base, WRITTEN, machine(8))
    assert SMALLER_TEACHER_ADVICE in refused.value.advice and "--set" not in refused.value.advice
    fitted = [
        fit_to_machine("card", recipe, base, work, machine=machine(8), free_bytes=8 * GIB)
        for work in (TRAINED, WRITTEN)
    ]
    assert fitted[0] == fitted[1]


def test_memory_that_runs_out_beneath_the_teacher_is_no_matter_of_the_training():
    for error in (NoMemoryError("It needs 16 GiB.", "BASE_MODEL"), RuntimeError("out of memory")):
        with pytest.raises(NoMemoryError) as refused, _teacher_named_for_memory():
            raise error
        assert refused.value.advice == SMALLER_TEACHER_ADVICE
        assert "BASE_MODEL" not in refused.value.message
    with pytest.raises(ValueError, match="another"), _teacher_named_for_memory():
        raise ValueError("another fault")
