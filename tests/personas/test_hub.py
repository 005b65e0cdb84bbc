"""Base models of a hub, over a small one of the test's own: a revision is pinned, and the commit is
what is kept.
"""

import asyncio
import json

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from personas.errors import BaseModelError
from personas.models.base_model import locate
from personas.models.rope_scaling import RopeScaling
from tests.hub_server import Hub, Repository, reach

OLD = "0" * 39 + "1"
NEW = "0" * 39 + "2"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    weights = save({"model.norm.weight": np.ones(2, dtype=np.float32)})
    commits = {
        commit: {
            "config.json": json.dumps({"commit": commit}).encode(),
            "model.safetensors": weights,
        }
        for commit in (OLD, NEW)
    }
    served = Hub({"harbour/tiny": Repository(commits, {"main": NEW, "v1": OLD})})
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


async def found(name, **options):
    return await asyncio.to_thread(locate, name, **options)


@pytest.mark.parametrize(
    ("name", "commit"),
    [
        ("harbour/tiny", NEW),
        ("harbour/tiny@main", NEW),
        ("harbour/tiny@v1", OLD),
        (f"harbour/tiny@{OLD}", OLD),
    ],
)
async def test_a_name_with_a_revision_is_that_commit(hub, name, commit):
    base = await found(name)
    assert json.loads((base.folder / "config.json").read_text()) == {"commit": commit}
    assert (base.name, base.revision, base.repository) == (
        f"harbour/tiny@{commit}",
        commit,
        "harbour/tiny",
    )
    hub.asked.clear()
    assert await found(base.name) == base == await found(name, fetch=False)
    assert not [path for path in hub.asked if "resolve" in path]  # nothing is fetched twice


async def test_a_revision_and_a_scaling_stand_in_one_name(hub):
    base = await found("harbour/tiny@v1#linear:2")
    assert (base.name, base.scaling) == (f"harbour/tiny@{OLD}#linear:2", RopeScaling("linear", 2.0))
    assert base.repository == "harbour/tiny" and base.revision == OLD


async def test_what_the_hub_has_not_is_named(hub):
    with pytest.raises(BaseModelError, match=r"branch 'v2'.*after the @"):
        await found("harbour/tiny@v2")
    with pytest.raises(BaseModelError, match=r"'harbour/none' .*no such model"):
        await found("harbour/none@v1")


async def test_without_a_network_a_pinned_model_is_found_where_it_was_fetched(hub, monkeypatch):
    before = await found("harbour/tiny@v1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert await found("harbour/tiny@v1") == before == await found(f"harbour/tiny@{OLD}")
    with pytest.raises(BaseModelError, match=r"'harbour/tiny@main' .*no hub could be"):
        await found("harbour/tiny@main")
    with pytest.raises(BaseModelError, match=r"'harbour/tiny@main' is not on"):
        await found("harbour/tiny@main", fetch=False)
