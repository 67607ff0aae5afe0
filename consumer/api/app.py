"""The read API as a web application: what tickets are, as GeoJSON and JSON, for whoever may read."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumer.api import following, history, problems
from consumer.api.access import Access
from consumer.api.answers import DATA_VERSION, Answers, GeoJson
from consumer.api.limits import Rates, Turns
from consumer.api.live import Live
from consumer.api.ogc import FeaturesApi
from consumer.api.parameters import (
    FeedName,
    Filters,
    Moment,
    Word,
    feed_that_closes,
    feed_with_history,
    named_feed,
)
from consumer.api.problems import PROBLEM, Problem
from consumer.api.reading import Reader, WholeTicket, question, ticket
from consumer.feeds.feed import Feeds
from consumer.settings import ApiSettings
from publisher import metrics
from publisher.errors import FleetticketsError, Permanent
from publisher.sources import http_limits

log = structlog.get_logger()
_DESCRIPTION = """Trouble tickets as the change files tell of them. An answer has an `ETag`, which is another one
as soon as a file or a place has changed anything, and in each minute, since ages are told; send it as `If-None-Match`,
and an answer that you have is 304. Trouble is told as RFC 9457 has it."""
_ANSWERS: dict[int | str, dict[str, Any]] = {
    304: {"description": "As the answer with that `ETag`."},
    401: {"description": "No token, or one that may not read.", **PROBLEM},
    400: {"description": "A parameter that there is none of, or a value that it cannot have.", **PROBLEM},
    429: {"description": "Too many requests of one token and address.", **PROBLEM},
    503: {"description": "The database does not answer, or has too much to do.", **PROBLEM},
    "default": {"description": "Any other trouble.", **PROBLEM},
}
_HEALTH_SECONDS = 5
_NO_PAGE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
_GEOJSON, _JSON = GeoJson.media_type, "application/json"


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


def application(reader: Reader, live: Live, feeds: Feeds, settings: ApiSettings) -> ASGIApp:
    """The API over what is read, and changes while it is, for the feeds that are served."""
    # No pages: FastAPI's load their scripts from a host on the internet.
    app = FastAPI(title="fleettickets", description=_DESCRIPTION, docs_url=None, redoc_url=None, redirect_slashes=False)
    problems.tell(app)
    turns = Turns(settings.connections)
    answers = Answers(reader, turns)
    allowed = [Depends(Access(settings.tokens, Rates(settings.rate)))]
    if settings.tokens:
        allowed.append(Depends(HTTPBearer(auto_error=False)))  # so that the description says so
    for routes in (
        _routes(answers, feeds),
        following.routes(answers, live, feeds),
        history.routes(answers, feeds),
        FeaturesApi(answers, feeds, str(settings.url or "")).routes(),
    ):
        app.include_router(routes, dependencies=allowed, responses=_ANSWERS)

    @app.get("/livez", summary="Whether it lives", response_class=PlainTextResponse)
    async def live_at_all() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", summary="Whether the database answers, and is current", response_class=PlainTextResponse)
    async def health() -> Response:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await run_in_threadpool(reader.require_ready)
        except (TimeoutError, FleetticketsError) as error:
            if isinstance(error, TimeoutError):
                reader.miss("it does not answer in time")
            log.warning("not healthy", detail=str(error) or "the database does not answer in time")
            return PlainTextResponse(
                "the database does not answer, or is not current\n", HTTPStatus.SERVICE_UNAVAILABLE
            )
        return PlainTextResponse("ok\n")

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.SERVE), media_type=CONTENT_TYPE_LATEST)

    if not settings.tokens:
        # A page could have its own name lead here, and read by the browser of whoever looks at it.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=_THIS_MACHINE)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET"],
            allow_headers=["Authorization", "If-None-Match", "Last-Event-ID"],
            expose_headers=["ETag", DATA_VERSION, "Retry-After"],
        )  # fmt: skip
    return http_limits.OneRequestEach(_HeadIsGet(_DataAlone(app)))


class _HeadIsGet:
    """HEAD is answered as GET; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope.get("method") == "HEAD"
        await self._app({**scope, "method": "GET", "is_head": True} if is_head else scope, receive, send)


class _DataAlone:
    """A value of a feed is data: no browser may take an answer for a page, whatever is in it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.ANSWERS.labels(message["status"]).inc()
                message["headers"] = [*message.get("headers", ()), *_NO_PAGE]
            await send(message)

        await self._app(scope, receive, send_on)


def _routes(answers: Answers, feeds: Feeds) -> APIRouter:
    routes = APIRouter(prefix="/api")

    @routes.get("/{feed}/dashboard", summary="Open and closed tickets, metrics, freshness")
    async def dashboard(request: Request, feed: FeedName, filters: Annotated[DashboardFilters, Query()]) -> Response:
        asked = {
            "cluster": filters.cluster, "status": filters.status, "window": filters.window,
            "from": filters.begin, "to": filters.end,
        }  # fmt: skip
        return await answers.give(request, question(feed_with_history(feeds, feed), "dashboard", asked), _JSON)

    @routes.get("/{feed}/map", summary="Open tickets that have a place, as GeoJSON", response_class=GeoJson)
    async def tickets_on_map(request: Request, feed: FeedName, _none: Annotated[Filters, Query()]) -> Response:
        return await answers.give(request, question(feed_with_history(feeds, feed), "map", {}), _GEOJSON)

    @routes.get("/{feed}/nearest", summary="The open tickets nearest to a point, by metres on the ground")
    async def nearest(request: Request, feed: FeedName, filters: Annotated[NearestFilters, Query()]) -> Response:
        asked = question(feed_with_history(feeds, feed), "nearest", filters.model_dump())
        return await answers.give(request, asked, _JSON)

    @routes.get("/{feed}/as-of", summary="The tickets that were open at an instant, as GeoJSON", response_class=GeoJson)
    async def as_of(request: Request, feed: FeedName, filters: Annotated[AsOfFilters, Query()]) -> Response:
        asked = question(feed_that_closes(feeds, feed), "as_of", {"at": filters.at})
        try:
            return await answers.give(request, asked, _GEOJSON)
        except Permanent as error:
            raise Problem(HTTPStatus.BAD_REQUEST, error.detail.partition(" CONTEXT:")[0]) from error

    @routes.get("/{feed}/freshness", summary="How fresh the tickets of a feed are")
    async def freshness(request: Request, feed: FeedName, _none: Annotated[Filters, Query()]) -> Response:
        return await answers.give(request, question(named_feed(feeds, feed), "freshness", {"feed": feed}), _JSON)

    @routes.get(
        "/{feed}/tickets/{ticket_id:path}",
        summary="One ticket, and the file and line that it is from",
        responses={200: {"model": WholeTicket}, 404: {"description": "No file has told of it.", **PROBLEM}},
    )
    async def one_ticket(
        request: Request,
        feed: FeedName,
        ticket_id: Annotated[Word, Path()],
        filters: Annotated[TicketFilters, Query()],
    ) -> Response:
        asked = ticket(named_feed(feeds, feed), ticket_id, with_history=filters.history)
        return await answers.give(request, asked, _JSON)

    return routes
