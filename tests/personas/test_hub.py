"""Base models of a hub, over a small hub of the test's own: a revision is pinned, and the commit is what is kept."""

import asyncio
import hashlib
import json

import numpy as np
import pytest
from aiohttp import web
from huggingface_hub import constants
from safetensors.numpy import save

from personas.base_model import locate
from personas.errors import BaseModelError
from personas.rope_scaling import RopeScaling

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"
REFS = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}


class Hub:
    """Two commits of one model, as huggingface_hub asks for them; `asked` lists the paths."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        weights = save({"model.norm.weight": np.ones(2, dtype=np.float32)})
        self.files = {
            commit: {"config.json": json.dumps({"commit": commit}).encode(), "model.safetensors": weights}
            for commit in (OLD, NEW)
        }

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/models/harbour/{name}/revision/{revision}", self.info)
        app.router.add_get("/api/models/harbour/{name}", self.info)
        app.router.add_get("/api/models/harbour/{name}/tree/{revision}", self.tree)
        app.router.add_get("/harbour/tiny/resolve/{revision}/{file}", self.file)
        return app

    def _commit(self, request: web.Request) -> str:
        self.asked.append(request.path)
        if request.match_info.get("name", "tiny") != "tiny":
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
        commit = REFS.get(request.match_info.get("revision", "main"))
        if commit is None:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return commit

    async def info(self, request: web.Request) -> web.Response:
        commit = self._commit(request)
        siblings = [{"rfilename": name} for name in self.files[commit]]
        return web.json_response({"id": "harbour/tiny", "sha": commit, "siblings": siblings})

    async def tree(self, request: web.Request) -> web.Response:
        files = self.files[self._commit(request)]
        listed = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
        return web.json_response(listed)

    async def file(self, request: web.Request) -> web.Response:
        commit = self._commit(request)
        data = self.files[commit][request.match_info["file"]]
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        return web.Response(body=data, headers=headers)


@pytest.fixture
async def hub(aiohttp_server, monkeypatch, tmp_path):
    served = Hub()
    server = await aiohttp_server(served.app())
    address = str(server.make_url("")).rstrip("/")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    return served


async def found(name, **options):
    return await asyncio.to_thread(locate, name, **options)


@pytest.mark.parametrize(
    ("name", "commit"),
    [("harbour/tiny", NEW), ("harbour/tiny@main", NEW), ("harbour/tiny@v1", OLD), (f"harbour/tiny@{OLD}", OLD)],
)
async def test_a_name_with_a_revision_is_that_commit(hub, name, commit):
    base = await found(name)
    assert json.loads((base.folder / "config.json").read_text()) == {"commit": commit}
    assert (base.name, base.revision, base.repository) == (f"harbour/tiny@{commit}", commit, "harbour/tiny")
    hub.asked.clear()
    assert await found(base.name) == base == await found(name, fetch=False)
    assert not [path for path in hub.asked if "resolve" in path]  # nothing is fetched twice


async def test_a_revision_and_a_scaling_stand_in_one_name(hub):
    base = await found("harbour/tiny@v1#linear:2")
    assert (base.name, base.scaling) == (f"harbour/tiny@{OLD}#linear:2", RopeScaling("linear", 2.0))
    assert base.repository == "harbour/tiny" and base.revision == OLD


async def test_what_the_hub_has_not_is_named(hub):
    with pytest.raises(BaseModelError, match=r"has no commit, tag or branch 'v2' of it.*behind the @"):
        await found("harbour/tiny@v2")
    with pytest.raises(BaseModelError, match=r"'harbour/none' cannot be fetched: the hub has no such model"):
        await found("harbour/none@v1")


async def test_without_a_network_a_pinned_model_is_found_where_it_was_fetched(hub, monkeypatch):
    before = await found("harbour/tiny@v1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert await found("harbour/tiny@v1") == before == await found(f"harbour/tiny@{OLD}")
    with pytest.raises(BaseModelError, match=r"'harbour/tiny@main' is no folder here, and no hub could be reached"):
        await found("harbour/tiny@main")
    with pytest.raises(BaseModelError, match=r"'harbour/tiny@main' is not on this machine"):
        await found("harbour/tiny@main", fetch=False)
