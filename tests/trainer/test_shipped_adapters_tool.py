"""`python -m tools.shipped_adapters` measures trained personas beside each other, and packs them."""

import json
import shutil

import pytest

from personas.home.adapters import MANIFEST_FILE, WEIGHTS_FILE, verify_adapter
from personas.home.shipped_adapters import find_shipped_adapters
from tools.shipped_adapters import (
    CARD_FILES,
    CARD_FOLDER,
    LIMITS,
    SHIPPED_FILES,
    measure,
    pack,
)


@pytest.fixture
def work(two_trained, tmp_path):
    """The tool's working folder after its trainings."""
    for persona, job in two_trained.items():
        shutil.copytree(job, tmp_path / "work" / persona)
    return tmp_path / "work"


@pytest.mark.slow
def test_they_are_measured_once_beside_each_other_and_packed_with_their_documents(work, tmp_path):
    measure("ada", ["ada", "bo"], work, is_quick=True)
    file = work / "ada" / CARD_FOLDER / "scorecard.json"
    card = json.loads(file.read_text())
    assert card["quick"] and card["separation"]  # replies in whose voice: hers, or bo's
    written = file.stat().st_mtime_ns
    measure("ada", ["ada", "bo"], work, is_quick=True)
    assert file.stat().st_mtime_ns == written
    shipped = tmp_path / "shipped"
    folder = pack("ada", work, shipped)
    packed = pack("ada", work, shipped)  # again, over the files before
    assert folder == packed
    names = {path.name for path in folder.iterdir()}
    assert names == {*SHIPPED_FILES, *CARD_FILES, MANIFEST_FILE}
    model_card = (folder / "README.md").read_text()
    assert "report/" not in model_card and LIMITS in model_card
    manifest = verify_adapter(folder)
    assert manifest.metrics.verdict == card["verdict"]["verdict"]
    assert (folder / WEIGHTS_FILE).read_bytes() == (
        work / "ada" / "adapter" / WEIGHTS_FILE
    ).read_bytes()
    assert set(find_shipped_adapters(shipped, manifest.base_model_hash)) == {"ada"}
    assert not find_shipped_adapters(shipped, "another")

    # A card of other weights is not packed: the run's own is.
    card["adapters"]["new"]["weights"] = "0" * 64
    file.write_text(json.dumps(card))
    pack("ada", work, shipped)
    own = work / "ada" / "adapter" / "scorecard.json"
    assert (folder / "scorecard.json").read_bytes() == own.read_bytes()
