"""The adapters that ship with the project: whole, of the bundled model, with their documents."""

import json

import pytest
from safetensors import safe_open

from personas.home.adapters import MANIFEST_FILE, WEIGHTS_FILE, verify_adapter
from personas.home.job_material import ShippedData
from personas.home.shipped_adapters import find_shipped_adapters
from personas.models.base_model import EMBEDDED, fingerprint, locate
from personas.schemas.scorecard import ScoreCard

SHIPPED = ShippedData.from_source_tree()
PERSONAS = sorted(file.parent.name for file in SHIPPED.adapters.glob(f"*/{MANIFEST_FILE}"))
MAX_BYTES = 10_500_000


@pytest.mark.parametrize("persona", PERSONAS)
def test_it_is_whole_small_measured_and_of_the_projects_own_writing(persona):
    folder, manifest = find_shipped_adapters(SHIPPED.adapters, fingerprint(locate(EMBEDDED)))[
        persona
    ]
    assert verify_adapter(folder) == manifest
    assert set(manifest.rights) == {"own-writing"} and manifest.recipe == "demo-cpu"
    assert (SHIPPED.logs / f"{persona}.json").is_file()
    assert sum(file.stat().st_size for file in folder.iterdir()) < MAX_BYTES
    with safe_open(folder / WEIGHTS_FILE, "numpy") as weights:
        names = weights.keys()  # it is no mapping
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}
    card = ScoreCard.model_validate_json((folder / "scorecard.json").read_bytes())
    assert card.adapters["new"].weights == manifest.checksums[WEIGHTS_FILE]
    assert card.short == manifest.metrics and card.heldout.loss["new"] < card.heldout.loss["base"]
    assert json.loads((folder / "datasheet.json").read_bytes())["by_right"] == manifest.rights


def test_another_base_model_gets_none():
    assert find_shipped_adapters(SHIPPED.adapters, "0" * 64) == {}
