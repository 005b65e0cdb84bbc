"""A tokenizer that was extended without its model is named, before a run and in a reply."""

import copy
import shutil
import threading

import pytest

from personas.engine.engine_parts import build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.errors import BaseModelError
from personas.models.base_model import fingerprint, locate
from personas.models.loading import load_model, load_tokenizer
from personas.prompt.renderer import Renderer
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn
from tests.trainer.job_folders import persona_job
from trainer.train.job import prepare_job_without_torch

ADA = Persona("ada", "Ada", description="You are Ada.")
ADVICE = r"makes token \d+, 'clock number', and the base model has embeddings for [\d,]+ tokens only.*resize_token"


@pytest.fixture
def extended(tmp_path, tiny_base):
    shutil.copytree(tiny_base.folder, tmp_path / "model")
    tokenizer = copy.deepcopy(load_tokenizer(tiny_base))  # its tables are shared
    rows = load_model(tiny_base, "float32").get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens([f"padding{n}" for n in range(rows - len(tokenizer))] + ["clock number"])
    tokenizer.save_pretrained(tmp_path / "model")
    return locate(str(tmp_path / "model"))


class Sink:
    cancelled = threading.Event()


def test_a_prompt_with_such_a_token_is_refused(extended):
    model = load_model(extended, "float32")
    parts = build_engine_parts(
        model, fingerprint(extended), SchedulerLimits(), slots=1, prefix_bytes=0
    )
    renderer = Renderer(load_tokenizer(extended))
    turns = (Turn("Bo", "where is clock number 3?"),)
    request = ChatRequest(ADA, turns, (), None, SamplingParams())
    with pytest.raises(BaseModelError, match=ADVICE):
        parts.batch.submit(request, renderer.prompt(ADA, turns), renderer, Sink())
    assert not parts.batch.waiting


def test_a_run_is_refused_before_it_starts_and_so_is_its_plan(extended, tmp_path):
    folder = persona_job(tmp_path / "job", extended.source)
    with pytest.raises(BaseModelError, match=ADVICE):
        prepare_job_without_torch(folder)
