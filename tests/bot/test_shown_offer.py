"""The offer of a larger model in words."""

import pytest

from bot.models.fetch import FetchPlan
from bot.models.shown_offer import show_plan
from personas.home.hub_download import HubFile
from personas.home.model_fetch import ModelFiles
from personas.models.catalogue import find_model


@pytest.mark.parametrize(
    ("rate", "takes"),
    [
        (5e6, "3.40 GB, about 11 min on this line, Apache-2.0"),
        (5e5, "3.40 GB, about 1 h 53 min on this line, Apache-2.0"),
        (1e9, "3.40 GB, under a minute on this line, Apache-2.0"),
        (None, "3.40 GB, Apache-2.0"),
    ],
)
def test_the_time_follows_the_measured_rate_and_is_not_invented(monkeypatch, tmp_path, rate, takes):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    file = HubFile("", "model.safetensors", 3_400_000_000, "0" * 64)
    files = ModelFiles("Qwen/Qwen3-1.7B@1", "Qwen/Qwen3-1.7B", "1", "main", (file,), licence="")
    plan = FetchPlan(find_model("qwen3-1.7b"), files, unpacked_bytes=0)
    offer = show_plan(plan, "/models", bytes_per_s=rate)
    assert offer.button == f"Fetch Qwen3 1.7B: {takes}"
