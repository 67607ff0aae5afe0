"""Following the data: pages of what has changed since a version, and events as changes come."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, field_validator

from consumer.api import packing, reading
from consumer.api.answers import Answers, GeoJson
from consumer.api.changes import MAX_TICKETS
from consumer.api.live import BEAT_SECONDS, Cursor, Live
from consumer.api.parameters import FeedName, Filters, Word, named_feed
from consumer.api.problems import GONE, Problem
from consumer.feeds.feed import Feeds
from publisher.sources import http_limits

_TO_READ_SECONDS = 10.0
"""For an event, which one who follows has to have taken by then."""


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


class ChangesFilters(Filters):
    """From where, and how many."""

    since: int = Field(ge=0, lt=2**63, description="A version: the `Data-Version` of an answer, or `next` of a page.")
    limit: int = Field(
        1000, ge=1, le=MAX_TICKETS, description="Tickets of a page, about; a version, which can have 500, is whole."
    )


class EventFilters(Filters):
    """Of which feeds, and from where."""

    feed: list[Word] = Field([], max_length=50, description="Of these alone; can be repeated.")
    since: Word | None = Field(None, description="As the id of an event: `inc:12,crq:7`. Without it, from now on.")

    @field_validator("since")
    @classmethod
    def _is_a_cursor(cls, given: str | None) -> str | None:
        if given is not None:
            Cursor.read(given)
        return given


def routes(answers: Answers, live: Live, feeds: Feeds) -> APIRouter:
    router = APIRouter(prefix="/api", responses=GONE)

    @router.get(
        "/{feed}/changes", summary="Tickets that have changed since a version, as GeoJSON", response_class=GeoJson
    )
    async def changes(request: Request, feed: FeedName, filters: Annotated[ChangesFilters, Query()]) -> Response:
        asked = reading.changes(named_feed(feeds, feed), filters.since, filters.limit)
        return await answers.give(request, asked, GeoJson.media_type)

    @router.get(
        "/events", summary="Tickets as they change, as server-sent events", response_class=EventStream,
        responses={200: {"description": "Events until one of both ends it."}},
    )  # fmt: skip
    async def events(
        request: Request,
        filters: Annotated[EventFilters, Query()],
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        for name in filters.feed:
            named_feed(feeds, name)
        is_packed = packing.is_taken(request.headers.get("accept-encoding", ""))
        following = await live.follow(_cursor(filters, last_event_id, feeds), filters.feed, is_packed=is_packed)
        if request.scope.get("is_head"):
            return Response(media_type=EventStream.media_type)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept-Encoding"}
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        return EventStream(_in_time(request, following), headers=headers)

    return router


def _cursor(filters: EventFilters, last_event_id: str | None, feeds: Feeds) -> Cursor:
    """Where to go on from: behind the event that was had last, before what the address says."""
    written = last_event_id or filters.since
    if not written:
        return Cursor()
    try:
        cursor = Cursor.read(written)
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"Last-Event-ID: {error}") from None
    for name in cursor:
        named_feed(feeds, name)
    return cursor


async def _in_time(request: Request, following: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The events, each once the one before it was taken; who takes none in time is ended by his connection."""
    async with contextlib.aclosing(following) as events:
        async for event in events:
            http_limits.go_on(request.scope, BEAT_SECONDS + _TO_READ_SECONDS)
            yield event
