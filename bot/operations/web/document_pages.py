"""`/dashboard/docs`: the documents that ship, for those who have no copy of the repository."""

import asyncio

from aiohttp import web

from bot.operations.web import documents
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.templating import DOCUMENTS_PATH, redirect_to, render_page

routes = Routes()


@routes.add(f"GET {DOCUMENTS_PATH}", section="Documents")
async def get_document_index(request: web.Request) -> web.Response:
    return await _render_document(request, documents.INDEX)


@routes.add(f"GET {DOCUMENTS_PATH}/{documents.PICTURES_FOLDER}/{{name}}")
async def get_picture(request: web.Request) -> web.StreamResponse:
    file = documents.picture_file(request.match_info["name"])
    if file is None:
        raise Problem("not-found", "There is no such picture.", "The package has none of them.")
    return web.FileResponse(file)


@routes.add(f"GET {DOCUMENTS_PATH}/{{name:.+}}")
async def get_document(request: web.Request) -> web.Response:
    """Page of a document, such as `howto/vllm`; a path with `.md` leads there."""
    name = request.match_info["name"]
    plain = name.removesuffix(".md")
    if documents.document_file(plain) is None:
        raise _missing_problem(name)
    if plain != name or plain == documents.INDEX:
        return redirect_to(request, documents.document_path(plain))
    return await _render_document(request, name)


async def _render_document(request: web.Request, name: str) -> web.Response:
    try:
        document = await asyncio.to_thread(documents.read_document, name)
    except FileNotFoundError:
        raise _missing_problem(name) from None
    return render_page(
        request,
        "docs/document.html",
        title=document.title,
        body=document.body,
        is_index=name == documents.INDEX,
    )


def _missing_problem(name: str) -> Problem:
    """Name the document that is missing, or all of them where none are installed."""
    if documents.document_file(documents.INDEX) is None:
        message = "The documents are not installed here."
        advice = "They are in the folder `docs` of the project's source."
    else:
        message = f"There is no document {name[:80]!r}."
        advice = f"{DOCUMENTS_PATH} lists them."
    return Problem("not-found", message, advice)
