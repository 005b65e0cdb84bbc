"""A training over a model of a hub: whatever revision was asked for, what is written down is the
commit.
"""

import asyncio
import json

from personas.home.adapters import verify_adapter
from personas.models.base_model import fingerprint, locate
from tests.hub_server import Hub, Repository, reach
from tests.trainer.job_folders import persona_job
from trainer.run import run_job
from trainer.train.training_run import RunControl

COMMIT = "c" * 40


async def test_the_commit_is_recorded_wherever_the_base_model_is_named(
    aiohttp_server, monkeypatch, tmp_path, tiny_base
):
    files = {path.name: path.read_bytes() for path in tiny_base.folder.iterdir()}
    server = await aiohttp_server(
        Hub({"harbour/tiny": Repository({COMMIT: files}, {"v1.2": COMMIT})}).app()
    )
    reach(monkeypatch, str(server.make_url("")).rstrip("/"), str(tmp_path / "cache"))
    job = persona_job(tmp_path / "job", "harbour/tiny@v1.2", hyperparameters={"max_steps": 1})
    await asyncio.to_thread(run_job, job, RunControl())
    named = f"harbour/tiny@{COMMIT}"
    manifest = verify_adapter(job / "adapter")
    assert manifest.base_model == named and manifest.base_model_hash == fingerprint(tiny_base)
    assert json.loads((job / "run.json").read_text())["base_model"] == named
    config = json.loads((job / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("harbour/tiny", COMMIT)
    assert f"`{named}`" in (job / "adapter" / "README.md").read_text()
    assert locate(manifest.base_model, fetch=False).revision == COMMIT
