"""The read API as a web application: what tickets are, as GeoJSON and JSON, for whoever may read."""

import asyncio
import re
from http import HTTPStatus
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from consumer.api import problems
from consumer.api.access import Access
from consumer.api.bodies import Body
from consumer.api.ogc import FeaturesApi
from consumer.api.parameters import Filters, Moment, Word
from consumer.api.problems import Problem
from consumer.api.reading import Question, Reader, WholeTicket
from consumer.feeds.feed import Feed, Feeds, FollowOn
from consumer.settings import ApiSettings
from publisher.errors import FleetticketsError, Misconfigured, Permanent
from publisher.sources import http_limits

log = structlog.get_logger()
_DESCRIPTION = """Trouble tickets as the change files tell of them. An answer has an `ETag`, which is another one
as soon as a file or a place has changed anything, and in each minute, since ages are told; send it as `If-None-Match`,
and an answer that you have is 304. Trouble is told as RFC 9457 has it."""
_PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    304: {"description": "As the answer with that `ETag`."},
    401: {"description": "No token, or one that may not read.", **_PROBLEM},
    400: {"description": "A parameter that there is none of, or a value that it cannot have.", **_PROBLEM},
    503: {"description": "The database does not answer.", **_PROBLEM},
}
_HEALTH_SECONDS = 5
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_THIS_MACHINE = ("localhost", "127.0.0.1")
_GEOJSON, _JSON = "application/geo+json", "application/json"


class DashboardFilters(Filters):
    """What the dashboard is of."""

    cluster: Word | None = Field(None, description="In any case; `(none)` for tickets without one.")
    status: Word | None = Field(None, description="The normalized one, in any case.")
    window: Literal["today", "24h", "7d", "30d", "90d", "all", "custom"] = Field(
        "7d", description="Of closed and created tickets; `custom` by `from` and `to`, which go before any other."
    )
    begin: Moment | None = Field(None, alias="from", description="With a zone: 2026-06-25T00:00:00+03:00.")
    end: Moment | None = Field(None, alias="to", description="The first moment that is left out.")

    @model_validator(mode="after")
    def _are_in_order(self) -> "DashboardFilters":
        if self.begin and self.end and self.begin > self.end:
            raise ValueError("from is later than to")
        if self.window == "custom" and not (self.begin or self.end):
            raise ValueError("the window custom needs from, to or both")
        return self


class NearestFilters(Filters):
    """From where, and which of the open tickets."""

    latitude: float = Field(alias="lat", ge=-90, le=90, description="Degrees north, WGS 84.")
    longitude: float = Field(alias="lon", ge=-180, le=180, description="Degrees east, WGS 84.")
    limit: int = Field(10, ge=1, le=1000)
    within: float | None = Field(None, gt=0, le=20_000_000, description="Metres on the ground.")
    cluster: Word | None = Field(None, description="In any case; `(none)` for tickets without one.")
    team: Word | None = Field(None, description="In any case; `(none)` for tickets without one.")


class AsOfFilters(Filters):
    """Of which instant."""

    at: Moment = Field(description="With a zone: 2026-06-25T00:00:00+03:00. By the time that files' names say.")


class TicketFilters(Filters):
    """How much is told of a ticket."""

    history: bool = Field(False, description="Also every value that it ever had, and which file and line told it.")


_FeedName = Annotated[str, Path(description="A feed that is served.", max_length=63)]


def application(reader: Reader, feeds: Feeds, settings: ApiSettings) -> ASGIApp:
    """The API over what is read, for the feeds that are served."""
    # No pages: FastAPI's load their scripts from a host on the internet.
    app = FastAPI(title="fleettickets", description=_DESCRIPTION, docs_url=None, redoc_url=None, redirect_slashes=False)
    problems.tell(app)
    allowed = [Depends(Access(settings.tokens))]
    if settings.tokens:
        allowed.append(Depends(HTTPBearer(auto_error=False)))  # so that the description says so
    for routes in (_routes(reader, feeds), FeaturesApi(reader, feeds, str(settings.url or "")).routes()):
        app.include_router(routes, dependencies=allowed, responses=_ANSWERS)

    @app.get("/healthz", summary="Whether the database answers, and is current", response_class=PlainTextResponse)
    async def health() -> Response:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await run_in_threadpool(reader.require_ready)
        except (TimeoutError, FleetticketsError) as error:
            log.warning("not healthy", detail=str(error) or "the database does not answer in time")
            return PlainTextResponse(
                "the database does not answer, or is not current\n", HTTPStatus.SERVICE_UNAVAILABLE
            )
        return PlainTextResponse("ok\n")

    app.middleware("http")(_guard)
    if not settings.tokens:
        # A page could have its own name lead here, and read by the browser of whoever looks at it.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=_THIS_MACHINE)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET"],
            allow_headers=["Authorization", "If-None-Match"], expose_headers=["ETag"],
        )  # fmt: skip
    return http_limits.OneRequestEach(_HeadIsGet(app))


class _HeadIsGet:
    """HEAD is answered as GET; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope, receive, send)


def _routes(reader: Reader, feeds: Feeds) -> APIRouter:
    routes = APIRouter(prefix="/api")

    @routes.get("/{feed}/dashboard", summary="Open and closed tickets, metrics, freshness")
    def dashboard(request: Request, feed: _FeedName, filters: Annotated[DashboardFilters, Query()]) -> Response:
        asked = {
            "cluster": filters.cluster, "status": filters.status, "window": filters.window,
            "from": filters.begin, "to": filters.end,
        }  # fmt: skip
        return _answer(request, reader, Question(_with_history(feeds, feed), "dashboard", asked), _JSON)

    @routes.get("/{feed}/map", summary="Open tickets that have a place, as GeoJSON")
    def tickets_on_map(request: Request, feed: _FeedName, _none: Annotated[Filters, Query()]) -> Response:
        return _answer(request, reader, Question(_with_history(feeds, feed), "map", {}), _GEOJSON)

    @routes.get("/{feed}/nearest", summary="The open tickets nearest to a point, by metres on the ground")
    def nearest(request: Request, feed: _FeedName, filters: Annotated[NearestFilters, Query()]) -> Response:
        question = Question(_with_history(feeds, feed), "nearest", filters.model_dump())
        return _answer(request, reader, question, _JSON)

    @routes.get("/{feed}/as-of", summary="The tickets that were open at an instant, as GeoJSON")
    def as_of(request: Request, feed: _FeedName, filters: Annotated[AsOfFilters, Query()]) -> Response:
        question = Question(_with_history(feeds, feed), "as_of", {"at": filters.at})
        try:
            return _answer(request, reader, question, _GEOJSON)
        except Permanent as error:
            raise Problem(HTTPStatus.BAD_REQUEST, error.detail.partition(" CONTEXT:")[0]) from error

    @routes.get("/{feed}/freshness", summary="How fresh the tickets of a feed are")
    def freshness(request: Request, feed: _FeedName, _none: Annotated[Filters, Query()]) -> Response:
        return _answer(request, reader, Question(_named(feeds, feed), "freshness", {"feed": feed}), _JSON)

    @routes.get(
        "/{feed}/tickets/{ticket_id:path}",
        summary="One ticket, and the file and line that it is from",
        responses={404: {"description": "No file has told of it.", **_PROBLEM}},
    )
    def ticket(
        feed: _FeedName, ticket_id: Annotated[Word, Path()], filters: Annotated[TicketFilters, Query()]
    ) -> WholeTicket:
        found = reader.ticket(_named(feeds, feed), ticket_id, with_history=filters.history)
        if not found.is_known:
            raise Problem(HTTPStatus.NOT_FOUND, f"no file has told of a ticket {ticket_id[:100]!r} of {feed}")
        return found

    return routes


def _named(feeds: Feeds, name: str) -> Feed:
    try:
        return feeds.named(name)
    except Misconfigured as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error)) from error


def _with_history(feeds: Feeds, name: str) -> Feed:
    """What is open and closed is told of the feed that has a history."""
    feed = _named(feeds, name)
    if FollowOn.HISTORY not in feed.follow_ons:
        raise Problem(HTTPStatus.NOT_FOUND, f"{name} has no history, so no dashboard or map: see its tickets")
    return feed


def _answer(request: Request, reader: Reader, question: Question, media: str) -> Response:
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    tag, body = reader.answer(question, known)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding, Authorization"}
    if body is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(*_packed(request, body, headers), media_type=media)


def _packed(request: Request, body: Body, headers: dict[str, str]) -> tuple[bytes, int, dict[str, str]]:
    if _GZIP.search(request.headers.get("accept-encoding", "")):
        return body.packed, HTTPStatus.OK, headers | {"Content-Encoding": "gzip"}
    return body.plain, HTTPStatus.OK, headers


async def _guard(request: Request, call_next: Any) -> Response:
    """A value of a feed is data: no browser may take an answer for a page, whatever is in it."""
    response: Response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    return response
