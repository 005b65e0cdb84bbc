"""A small model hub of the tests' own, which huggingface_hub is pointed at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from aiohttp import web
from huggingface_hub import constants

Files = Mapping[str, bytes]


class Hub:
    """Serves `harbour/tiny`: `commits` by id, `refs` to them by name. `asked` lists the paths that were asked for."""

    def __init__(self, commits: Mapping[str, Files], refs: Mapping[str, str]) -> None:
        self.commits, self.refs, self.asked = commits, refs, list[str]()

    def app(self) -> web.Application:
        """To be served at `reach`'s address."""
        app = web.Application()
        app.router.add_get("/api/models/harbour/{name}/revision/{revision}", self._info)
        app.router.add_get("/api/models/harbour/{name}/tree/{revision}", self._tree)
        app.router.add_get("/harbour/tiny/resolve/{revision}/{file}", self._file)
        return app

    def _commit(self, request: web.Request) -> str:
        self.asked.append(request.path)
        if request.match_info.get("name", "tiny") != "tiny":
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
        revision = request.match_info["revision"]
        commit = revision if revision in self.commits else self.refs.get(revision)
        if commit is None:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return commit

    async def _info(self, request: web.Request) -> web.Response:
        commit = self._commit(request)
        siblings = [{"rfilename": name} for name in self.commits[commit]]
        return web.json_response({"id": "harbour/tiny", "sha": commit, "siblings": siblings})

    async def _tree(self, request: web.Request) -> web.Response:
        files = self.commits[self._commit(request)]
        listed = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
        return web.json_response(listed)

    async def _file(self, request: web.Request) -> web.Response:
        commit = self._commit(request)
        data = self.commits[commit][request.match_info["file"]]
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        return web.Response(body=data, headers=headers)


def reach(monkeypatch, address: str, cache: str) -> None:
    """Let huggingface_hub ask the hub at this address, with an empty cache."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": cache,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
