"""`/uploads`: uploaded files, their inspection, and the rights stated for them."""

import asyncio
from functools import partial
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, Field, ValidationInfo

from bot.data.offers import ColumnMapBody, OfferBody
from bot.data.rights import parse_rights, statement_error
from bot.data.sources import list_uploads
from bot.data.web.schemas import (
    DataJobResponse,
    SourceResponse,
    UploadedFile,
    UploadListResponse,
    upload_path,
)
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import ApiRoutes, BodySpec, ResponseSpec, enum_parameter
from bot.platform.web_kit.paging import (
    PAGE_PARAMETERS,
    flag_query,
    paginate,
    parse_page_query,
    require_known_parameters,
)
from bot.platform.web_kit.validation import read_model
from personas.schemas.base import FrozenModel

routes = ApiRoutes("data")
READ_CHUNK_BYTES = 2**18
NAME_PARAMETER = {
    "name": (
        "The file's name; its kind is told by its end (.json, .jsonl, .csv, .parquet, .zip, .txt, "
        ".md …)."
    )
}
NAME_ERRORS = {
    404: "There is no such upload.",
    415: "No file can be called so.",
    422: "No file can be called so.",
}


def _check_statement_field(value: str, info: ValidationInfo) -> str:
    if wrong := statement_error(info.field_name or "", value):
        raise ValueError(wrong)
    return value


StatementField = AfterValidator(_check_statement_field)


class RightBody(FrozenModel):
    """A statement of a right to a file: who states it, when and why; `right` as in
    `rights.toml`.
    """

    right: Annotated[str, Field(max_length=80), StatementField]
    stated_by: Annotated[str, Field(min_length=1, max_length=500), StatementField]
    stated_on: Annotated[str, Field(min_length=1, max_length=40), StatementField]
    why: Annotated[str, Field(min_length=1, max_length=500), StatementField]


@routes.operation(
    "GET /uploads",
    "List uploads",
    {200: ResponseSpec("A page of uploads, by name.", UploadListResponse)},
    query=PAGE_PARAMETERS,
)
async def get_uploads(request: web.Request) -> web.Response:
    """Returns each with its inspection, if there is one, and the right stated to it."""
    services = get_services(request)
    page = parse_page_query(request)
    uploads = sorted(
        await asyncio.to_thread(list_uploads, services.home), key=lambda source: source.name
    )
    shown, links = paginate(request, page, uploads, lambda source: source.name)
    return UploadListResponse(
        uploads=[SourceResponse.of(source) for source in shown], links=links
    ).response()


@routes.operation(
    "PUT /uploads/{name}",
    "Upload a file",
    {
        201: ResponseSpec("The stored upload, with its size in bytes and SHA-256.", UploadedFile),
        400: "It broke off, or the query asks for something that cannot be.",
        409: "There is a file of that name, or one is coming in.",
        413: "It is larger than MAX_UPLOAD_GIB.",
        415: "Files of its kind are not read, or it begins as another kind.",
        422: NAME_ERRORS[422],
        507: "The disk has no room for it.",
    },
    parameters=NAME_PARAMETER,
    query={
        "replace": enum_parameter(
            ("true", "false"), "Whether it takes the place of a file of the same name."
        )
    },
    body=BodySpec({"type": "string", "format": "binary"}, media="application/octet-stream"),
)
async def put_upload(request: web.Request) -> web.Response:
    """The body is the file, streamed to the disk. Nothing may be trained on until a right is
    stated.
    """
    data = get_services(request).data
    require_known_parameters(request, "replace")
    replace = flag_query(request, "replace")
    name = request.match_info["name"]
    read = partial(request.content.read, READ_CHUNK_BYTES)
    received = await data.store_upload(
        read, name, replace=replace, expected_bytes=request.content_length
    )
    path = upload_path(received.path.name)
    uploaded = UploadedFile.describe(received, name=received.path.name, links={"self": path})
    return uploaded.response(201, {"Location": path})


@routes.operation(
    "GET /uploads/{name}",
    "Get an upload",
    {
        200: ResponseSpec("The upload, with its format and rights.", SourceResponse),
        **NAME_ERRORS,
    },
    parameters=NAME_PARAMETER,
)
async def get_upload(request: web.Request) -> web.Response:
    """Tells if it may be trained on, how a training request names it, and its inspection
    (`looking_into`).
    """
    services = get_services(request)
    source = await services.data.upload(request.match_info["name"])
    job = services.data_jobs.latest("inspect", source.name)
    inspection = DataJobResponse.of(job) if job else None
    return SourceResponse.of(source, looking_into=inspection).response()


@routes.operation(
    "DELETE /uploads/{name}",
    "Delete an upload",
    {
        204: "It is gone.",
        **NAME_ERRORS,
        409: "Something is being made of it.",
    },
    parameters=NAME_PARAMETER,
)
async def delete_upload_route(request: web.Request) -> web.Response:
    """Its rights statement is deleted too; data sets built from it stay."""
    await get_services(request).data.delete_upload(request.match_info["name"])
    return web.Response(status=204)


@routes.operation("PUT /uploads/{name}/right", "State a right to an upload",
    {200: ResponseSpec("The upload; `may_train` is the decision.", SourceResponse), 404: NAME_ERRORS[404],
     409: "rights.toml beside the uploads cannot be read."},
    parameters=NAME_PARAMETER,
    body=BodySpec(RightBody, example={"right": "own-writing", "stated_by": "Mina Vale", "stated_on": "2026-11-20",
                                  "why": "Written for this server."}),
)  # fmt: skip
async def put_right(request: web.Request) -> web.Response:
    """The person who states it is responsible for it; docs/privacy.md explains each right."""
    body = await read_model(request, RightBody)
    statement = parse_rights(body.model_dump())
    source = await get_services(request).data.set_right(request.match_info["name"], statement)
    return SourceResponse.of(source).response()


@routes.operation(
    "DELETE /uploads/{name}/right",
    "Withdraw a right",
    {
        200: ResponseSpec("The upload.", SourceResponse),
        **NAME_ERRORS,
        409: "rights.toml beside the uploads cannot be read.",
    },
    parameters=NAME_PARAMETER,
)
async def remove_right(request: web.Request) -> web.Response:
    """Future runs do not train on it; existing data sets and adapters stay."""
    source = await get_services(request).data.set_right(request.match_info["name"], None)
    return SourceResponse.of(source).response()


@routes.operation(
    "PUT /uploads/{name}/columns",
    "Say which column of an upload is what",
    {
        200: ResponseSpec(
            "The upload; `map` is what was stated, and its inspection has started.", SourceResponse
        ),
        **NAME_ERRORS,
        409: "columns.toml beside the uploads cannot be read, or too many jobs are waiting.",
    },
    parameters=NAME_PARAMETER,
    body=BodySpec(
        ColumnMapBody, example={"map": ["speaker=Absender", "text=Nachricht", "time=Zeitpunkt"]}
    ),
)
async def put_columns(request: web.Request) -> web.Response:
    """For a table in no known form, of which nothing is read until then: `about` of the upload has
    the `question`.
    """
    body = await read_model(request, ColumnMapBody)
    source = await get_services(request).data.set_columns(request.match_info["name"], body.map)
    return SourceResponse.of(source).response()


@routes.operation(
    "DELETE /uploads/{name}/columns",
    "Withdraw which column is what",
    {
        200: ResponseSpec("The upload, which is inspected again.", SourceResponse),
        **NAME_ERRORS,
        409: "columns.toml beside the uploads cannot be read, or too many jobs are waiting.",
    },
    parameters=NAME_PARAMETER,
)
async def remove_columns(request: web.Request) -> web.Response:
    """Data sets that were built with it stay."""
    source = await get_services(request).data.set_columns(request.match_info["name"], ())
    return SourceResponse.of(source).response()


@routes.operation(
    "PUT /uploads/{name}/catalogue",
    "Let moderators use an upload",
    {
        200: ResponseSpec(
            "The upload; `catalogue_name` is the name that moderators give.", SourceResponse
        ),
        **NAME_ERRORS,
        422: "No right is stated, the name is taken, or catalogue.toml cannot be read.",
    },
    parameters=NAME_PARAMETER,
    body=BodySpec(
        OfferBody, example={"name": "quay-talk", "language": "en", "persona_names": ["Wick"]}
    ),
)
async def put_upload_in_catalogue(request: web.Request) -> web.Response:
    """Writes an entry of catalogue.toml. The right is the upload's; a `right` in the body is stated
    to it first.
    """
    data = get_services(request).data
    name = request.match_info["name"]
    await data.offer_upload(name, await read_model(request, OfferBody))
    return SourceResponse.of(await data.upload(name)).response()


@routes.operation(
    "DELETE /uploads/{name}/catalogue",
    "Withdraw an upload from moderators",
    {
        200: ResponseSpec("The upload.", SourceResponse),
        **NAME_ERRORS,
    },
    parameters=NAME_PARAMETER,
)
async def remove_upload_from_catalogue(request: web.Request) -> web.Response:
    """Removes its entry of catalogue.toml; jobs that have begun have their own copy."""
    data = get_services(request).data
    source = await data.upload(request.match_info["name"])
    await data.withdraw_upload(source.name)
    return SourceResponse.of(await data.upload(source.name)).response()


@routes.operation(
    "POST /uploads/{name}/inspect",
    "Inspect an upload",
    {
        202: ResponseSpec(
            "The inspection has started: GET the upload again for `about`, or the error in "
            "`looking_into`.",
            DataJobResponse,
        ),
        **NAME_ERRORS,
        409: "It is being looked into.",
    },
    parameters=NAME_PARAMETER,
)
async def post_inspect(request: web.Request) -> web.Response:
    """The trainer reads the whole file: its format, its usable records, and why others are not
    usable.
    """
    data = get_services(request).data
    source = await data.upload(request.match_info["name"])
    job = data.inspect_upload(source.name)
    return DataJobResponse.of(job, upload=upload_path(source.name)).response(202)
