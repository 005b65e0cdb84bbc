"""Hostile adapters end with an error of their own, whichever way they come; nobody else notices."""

import copy
from functools import cache

import pytest
import torch

from personas.engine import peft_runner
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.peft_runner import PeftSwitcher
from personas.errors import AdapterError
from personas.home import external_adapter
from personas.home.adapters import adapter_ref, write_manifest
from personas.home.external_adapter import import_adapter
from personas.home.lora_checks import stored_linear_shapes
from personas.home.lora_resolver import find_served_adapter
from tests.personas.engine_reference import (
    Question,
    RecordedReply,
    ReferenceModel,
    ask,
    differences,
    run_to_end,
    special_adapter,
)
from tests.personas.hostile_adapters import HARMFUL, HARMLESS, hostile_adapters
from tests.tiny_models import PROJECTIONS, manifest_over

KINDS_COUNT = len(HARMFUL) + len(HARMLESS)
SEED = 1
SLOTS = 4
NOT_FOUND_BY_HEADERS = (
    "a_number_is_not_finite", "a_number_is_out_of_range", "numbers_overflow_when_scaled",
    "module_is_not_in_the_base_model",
)  # fmt: skip
"""Faults that vLLM's side does not look at: values, which end one reply, and names, which vLLM
itself refuses.
"""
PROMPT = tuple(range(100, 140))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_base):
    return ReferenceModel(
        tmp_path_factory.mktemp("reference"), tiny_base, torch.float64, adapters=2, prompts=2
    )


def outcome(work, *args):
    """Say how it went; anything but an adapter error is raised."""
    try:
        work(*args)
    except AdapterError as error:
        assert error.advice and "/" not in error.message.replace("'../../x'", ""), error
        return "refused"
    return "taken"


def require_all_slots_free(parts):
    held = [adapter for adapter in parts.lora.resident if adapter.in_slot]
    assert not any(adapter.replies for adapter in parts.lora.resident)
    assert len(held) + len(parts.lora._free) == SLOTS and not parts.batch.scheduler.running


@pytest.mark.parametrize(
    "count", [KINDS_COUNT, pytest.param(5 * KINDS_COUNT, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_hostile_adapters_of_every_kind(reference, tiny_base, tmp_path, capsys, monkeypatch, count):
    monkeypatch.setattr(
        external_adapter, "base_linear_shapes", cache(external_adapter.base_linear_shapes)
    )  # for time
    manifest = manifest_over(tiny_base, "x", "any")
    layers = stored_linear_shapes(tiny_base)
    parts = reference.parts(SchedulerLimits(), SLOTS, 10**6)
    alone = PeftSwitcher(copy.deepcopy(reference.model), reference.hash, keep=2)
    recorded = []
    wrong = []
    compared = {}
    for number, it in enumerate(hostile_adapters(reference.refs[0].folder, count, SEED)):
        expected = "taken" if it.is_harmless else "refused"
        ref = adapter_ref(tmp_path, "x", f"v{number}")
        it.write(ref.folder)
        write_manifest(ref.folder, manifest)  # whoever made it can seal it too
        it.write(tmp_path / "folder" / str(number))
        source = (
            str(tmp_path / "folder" / str(number)),
            tmp_path / "out" / str(number),
            tiny_base.source,
            str,
        )
        outcomes = (
            outcome(import_adapter, *source),
            outcome(lambda ref=ref: parts.load_adapter(parts.read(ref))),
        )
        at_vllm = outcome(find_served_adapter, tmp_path, ref.name, reference.hash, layers)
        if outcomes != (expected, expected) or (
            at_vllm != expected and it.kind not in NOT_FOUND_BY_HEADERS
        ):
            wrong.append((number, it.kind, outcomes))
        is_compared = it.is_harmless and it.kind not in compared  # with peft's reply
        question = ask(alone, ref, PROMPT) if is_compared else Question(ref, PROMPT, (), ())
        recorded.append((it, RecordedReply(question, 4)))
        if is_compared:
            compared[it.kind] = recorded[-1][1]
    assert not wrong
    require_all_slots_free(parts)

    good = [RecordedReply(question, 14) for question in reference.questions]
    for one in (*good[:2], *(one for _, one in recorded), *good[2:]):
        parts.batch.scheduler.add(one.sequence(guild_id=1 if one in good else 2))
    run_to_end(parts)
    assert differences(good) == (0, []), "others are not disturbed"
    assert differences(list(compared.values())) == (0, []) and compared.keys() == HARMLESS.keys()
    assert all(one.reply and one.ends == 1 for it, one in recorded if it.is_harmless)
    refused = [one for it, one in recorded if not it.is_harmless]
    assert all(isinstance(one.error, AdapterError) and one.ends == 1 for one in refused)
    require_all_slots_free(parts)
    parts.close()
    with capsys.disabled():
        print(
            f" {len(refused)} refused, {len(recorded) - len(refused)} harmless ones served ", end=""
        )


@pytest.mark.parametrize("others", [0, 1])
def test_what_peft_loaded_in_part_is_taken_out_again(
    reference, tiny_base, tmp_path, monkeypatch, others
):
    """The checks refuse such an adapter; without them, peft stops in the middle."""
    settings = {"r": 4, "target_modules": PROJECTIONS, "use_dora": True}
    fine = special_adapter(tmp_path, tiny_base, "fine", **settings)
    broken = next(
        it
        for it in hostile_adapters(reference.refs[0].folder, KINDS_COUNT, SEED)
        if it.kind == "tensor_has_other_widths"
    )
    ref = adapter_ref(tmp_path, "p", "broken")
    broken.write(ref.folder)
    write_manifest(ref.folder, manifest_over(tiny_base, "p", "broken"))
    switcher = PeftSwitcher(copy.deepcopy(reference.model), reference.hash)
    expected = [
        ask(PeftSwitcher(copy.deepcopy(reference.model), reference.hash), it, PROMPT)
        for it in (None, fine)
    ]
    for _ in range(others):
        switcher.load(fine)
    with monkeypatch.context() as patch:
        patch.setattr(peft_runner, "check_lora_and_values", lambda *_: None)
        with pytest.raises(AdapterError, match="peft cannot load p broken"):
            switcher.load(ref)
    assert not [name for name, _ in switcher.model.named_modules() if "broken" in name]
    assert [ask(switcher, it, PROMPT) for it in (None, fine)] == expected
