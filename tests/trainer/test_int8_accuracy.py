"""What int8 costs: held-out losses of the embedded model in it and in float32; and a job's card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from personas.card.toml_card import read_cards
from personas.home.job_material import ShippedData
from personas.lore.lore_folder import read_lore
from personas.models.base_model import EMBEDDED, locate
from personas.schemas.chat import Turn
from personas.schemas.scorecard import ScoreCard
from tests.trainer.job_folders import persona_job
from trainer.run import run_job
from trainer.train.losses import load_serving_model, mean_loss, measure_reply_losses
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

INSTRUCTIONS = Path(__file__).parents[2] / "data" / "instructions" / "instructions.jsonl"
MOST = 0.01
"""The share by which a held-out loss may change in int8 where somebody asks for it; half of it to
be chosen unasked.
"""


@pytest.fixture(scope="module")
def replies(renderer):
    """Every eighth reply after the prompts that are served: of personas' lore, and answers to
    instructions.
    """
    shipped = ShippedData.from_source_tree()
    personas = read_cards(shipped.cards)
    of_lore = [
        renderer.sample(
            personas[passage.owner], [Turn("You", f"Tell me of {passage.heading}.")], passage.text
        )
        for passage in read_lore(shipped.lore, personas)[::8]
    ]
    lines = INSTRUCTIONS.read_text(encoding="utf-8").splitlines()[::8]
    asked = [[message["content"] for message in json.loads(line)["messages"]] for line in lines]
    return of_lore, [
        renderer.sample(None, [Turn("You", question)], answer) for question, answer in asked
    ]


@pytest.mark.slow
def test_held_out_losses_of_the_embedded_model_hardly_change(replies):
    losses = {}
    for precision in ("float32", "int8"):
        model = load_serving_model(locate(EMBEDDED), precision)
        losses[precision] = [mean_loss(measure_reply_losses(model, samples)) for samples in replies]
    print({precision: [f"{loss:.4f}" for loss in both] for precision, both in losses.items()})
    for fine, coarse in zip(losses["float32"], losses["int8"], strict=True):
        assert abs(coarse / fine - 1) < MOST


@pytest.mark.slow
def test_a_version_is_measured_in_int8_where_that_serves(tmp_path, tiny_base):
    folder = persona_job(tmp_path / "job", tiny_base.source, hyperparameters={"max_steps": 2})
    spec = json.loads((folder / "request.json").read_text())
    (folder / "request.json").write_text(json.dumps({**spec, "serving_precision": "int8"}))
    run_job(folder, RunControl(card="losses"))
    card = ScoreCard.model_validate_json((folder / "adapter" / "scorecard.json").read_bytes())
    assert card.precision == "int8" and card.base_is_base == 0
