"""The HTTP server of a store: search, pictures, health, metrics, and the web page.

Every error is JSON, `{"error": {"status": 400, "message": "..."}}`. A picture is sent as the plain body of
`POST /search`, everything else as query parameters, so there are no forms and no JSON to parse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import fastapi
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from unicross import __version__
from unicross.data.image_source import ImageSource
from unicross.embed import Encoder
from unicross.errors import DataError, QueryError, UnicrossError, UnknownIdError
from unicross.serve.below import BelowPath
from unicross.serve.keys import Keys
from unicross.serve.middleware import Access, AccessMiddleware, Metrics
from unicross.serve.parameters import SearchParameters, Words
from unicross.serve.pictures import PictureError, Served
from unicross.serve.service import Service, Settings
from unicross.store import Kind, Store
from unicross.store.base import MAX_DEPTH

STATIC = Path(__file__).parent / "static"

log = logging.getLogger(__name__)


class Side(IntEnum):
    """Pixels on the shorter side of a thumbnail."""

    small = 160
    medium = 320
    large = 640


def create_app(model: Encoder, store: Store, settings: Settings | None = None) -> FastAPI:
    """The server of a store, and of the model that filled it, as an ASGI application. Raises StoreError."""
    settings = settings or Settings()
    metrics = Metrics()
    service = Service(model, store, settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        yield
        service.close()

    app = FastAPI(
        title="unicross",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        servers=[{"url": settings.root_path or "/"}],
    )
    app.state.service = service
    _answer_errors(app, service)
    _add_routes(app, service)
    _add_pictures(app, service)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.state.access = Access(
        metrics=metrics,
        hosts=settings.hosts,
        keys=Keys(settings.keys, settings.api_key),
        is_full=service.is_full,
        retry_after=service.retry_after,
        root_path=settings.root_path,
    )
    app.add_middleware(AccessMiddleware, access=app.state.access)
    if settings.root_path:
        app.add_middleware(BelowPath, root=settings.root_path)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/search", summary="Search by words or by a stored id")
    async def search(parameters: Annotated[SearchParameters, fastapi.Query()]) -> dict[str, Any]:
        return await service.run(lambda: service.search(parameters, None))

    upload_schema = {
        "requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
    }

    @app.post(
        "/search", summary="Search by a picture (the body), with words if wanted", openapi_extra=upload_schema
    )
    async def search_picture(
        parameters: Annotated[SearchParameters, fastapi.Query()], request: Request
    ) -> dict[str, Any]:
        with service.reading():
            upload = await _read_body(request, service.settings)
        return await service.run(lambda: service.search(parameters, upload))

    @app.get("/browse", summary="What is in the store, in no order")
    async def browse(
        kind: Kind = "image",
        where: Annotated[list[Words] | None, fastapi.Query(max_length=32)] = None,
        by: Annotated[str, fastapi.Query(max_length=64)] = "",
        k: Annotated[int, fastapi.Query(ge=1, le=200)] = 24,
        offset: Annotated[int, fastapi.Query(ge=0, le=MAX_DEPTH)] = 0,
    ) -> dict[str, Any]:
        return await service.run(lambda: service.browse(kind, where or [], by, k, offset))

    @app.get("/items/{id}", summary="A stored row")
    async def item(id: str) -> dict[str, Any]:
        return await service.run(lambda: service.one(id))

    @app.get("/info", summary="What the store holds and what it can be filtered by")
    async def info() -> dict[str, Any]:
        return await service.run(service.info)

    @app.get("/healthz", summary="Whether the store answers")
    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "rows": await service.run(service.count, service.watching)}

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def metrics() -> Response:
        service.metrics.rows.set(await service.run(service.count, service.watching))
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


def _add_pictures(app: FastAPI, service: Service) -> None:
    @app.get("/images/{id}", summary="A picture as it is")
    async def original(id: str, request: Request) -> Response:
        send = service.run(lambda: service.show(id, service.pictures.original), service.drawing)
        return _picture(request, await send)

    @app.get("/images/{id}/thumbnail", summary="A small JPEG of a picture")
    async def thumbnail(id: str, request: Request, side: Side = Side.medium) -> Response:
        def small(picture: ImageSource) -> Served:
            return service.pictures.thumbnail(picture, side)

        return _picture(request, await service.run(lambda: service.show(id, small), service.drawing))


def _picture(request: Request, served: Served) -> Response:
    headers = {"ETag": f'"{served.tag}"', "Cache-Control": "private, max-age=300"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(served.data, media_type=served.media_type, headers=headers)


async def _read_body(request: Request, settings: Settings) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/") or kind == "application/json":
        raise HTTPException(
            415,
            f"the body is {kind}: send the picture's bytes as they are (curl --data-binary @FILE), "
            "and words as ?q=",
        )
    limit = settings.max_upload_bytes
    too_large = HTTPException(413, f"the upload has more than {limit} bytes: send a smaller picture")
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit() or int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except ClientDisconnect:
        raise HTTPException(400, "the upload was broken off") from None  # for the log and the metrics
    except TimeoutError:
        raise HTTPException(408, "the upload took too long") from None
    return bytes(body)


def _answer_errors(app: FastAPI, service: Service) -> None:
    def answer(status: int, message: str) -> JSONResponse:
        headers = {"Retry-After": str(service.retry_after())} if status == 503 else None
        return JSONResponse({"error": {"status": status, "message": message}}, status, headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        del request
        return answer(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        del request
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return answer(422, "; ".join(problems[:5]))

    @app.exception_handler(PictureError)
    async def picture(request: Request, error: PictureError) -> Response:
        del request
        return answer(error.status, str(error))

    @app.exception_handler(UnicrossError)
    async def ours(request: Request, error: UnicrossError) -> Response:
        del request
        if isinstance(error, UnknownIdError):
            return answer(404, "no such id in the store")  # the error's own sentence names the store's place
        if isinstance(error, QueryError | DataError):
            return answer(400, str(error))
        log.error("%s", error)
        return answer(503, "the store does not answer: the server's log says why")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        del request, error  # the server logs it
        return answer(500, "something went wrong in the server; its log says what")
