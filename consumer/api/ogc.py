"""Tickets as OGC API - Features has them (Part 1: Core, 17-069r4), so that QGIS and others connect without code."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from math import isfinite
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from consumer.api.answers import Answers, GeoJson
from consumer.api.parameters import Filters, Moment, Word
from consumer.api.problems import Problem
from consumer.api.reading import Page, items
from consumer.feeds.feed import Feed, Feeds, FollowOn

_CORE = "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf"
CONFORMS_TO = (f"{_CORE}/core", f"{_CORE}/geojson")
MAX_ITEMS = 10_000
_CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
_JSON, _GEOJSON = "application/json", GeoJson.media_type
_OPENAPI = "application/vnd.oai.openapi+json;version=3.1"
_OPEN_ENDS = frozenset({"", ".."})
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


_NoFilters = Annotated[Filters, Query()]


@dataclass(frozen=True, slots=True)
class Collection:
    """Tickets of a feed that go together: `statement` of api.sql gives them."""

    id: str
    title: str
    description: str
    feed: Feed
    statement: str


class ItemFilters(Filters):
    """Which items of a collection."""

    bbox: str | None = Field(None, description="`west,south,east,north` in degrees, WGS 84; six numbers with heights.")
    moment: str | None = Field(
        None, alias="datetime",
        description="An instant, or an interval with `..` or nothing for an open end: 2026-06-25T00:00:00Z/..",
    )  # fmt: skip
    limit: int = Field(100, ge=1, description=f"{MAX_ITEMS:,} at the most; more is as many.")
    after: Word = Field("", description="As the link `next` has it.")

    @field_validator("bbox")
    @classmethod
    def _is_a_box(cls, given: str | None) -> str | None:
        if given is not None:
            box_of(given)
        return given

    @field_validator("moment")
    @classmethod
    def _is_an_interval(cls, given: str | None) -> str | None:
        if given is not None:
            interval_of(given)
        return given


def box_of(given: str) -> tuple[float, float, float, float]:
    """Raises: ValueError."""
    told = f"{given[:60]!r} is no box: west,south,east,north"
    try:
        numbers = [float(number) for number in given.split(",")]
    except ValueError:
        raise ValueError(told) from None
    if len(numbers) == 6:  # noqa: PLR2004 - with heights, which tickets have none of
        del numbers[5], numbers[2]
    if len(numbers) != 4 or not all(map(isfinite, numbers)):  # noqa: PLR2004 - as said
        raise ValueError(told)
    west, south, east, north = numbers
    if south > north:
        raise ValueError(f"{given[:60]!r}: south is beyond north")
    return west, south, east, north


def interval_of(given: str) -> tuple[datetime | None, datetime | None]:
    """From when to when, both included; None for an open end. Raises: ValueError."""
    begin, slash, end = given.partition("/")
    try:
        first, last = (None if text in _OPEN_ENDS else _MOMENT.validate_python(text) for text in (begin, end))
    except ValidationError:
        raise ValueError(f"{given[:80]!r} is no instant or interval with a zone: 2026-06-25T00:00:00Z/..") from None
    if not slash:
        last = first
    if first is None and last is None:
        raise ValueError(f"{given[:80]!r} has no end that is not open")
    if first and last and first > last:
        raise ValueError(f"{given[:80]!r} ends before it begins")
    return first, last


def collections_of(feeds: Feeds) -> dict[str, Collection]:
    """By their ids: of a feed with a history those that are open and those that are closed, of another one all."""
    return {collection.id: collection for feed in feeds for collection in _of_feed(feed)}


def _of_feed(feed: Feed) -> Iterator[Collection]:
    title = feed.title or feed.name
    if FollowOn.HISTORY in feed.follow_ons:
        yield Collection(
            f"{feed.name}-open", f"{title}, open", "`datetime` is when the ticket was created.", feed, "open_items"
        )
        yield Collection(
            f"{feed.name}-closed", f"{title}, closed", "`datetime` is when the ticket was closed.", feed, "closed_items"
        )
    else:
        yield Collection(
            feed.name, title, "Items have no time of their own: `datetime` leaves none out.", feed, "items"
        )


class FeaturesApi:
    """What a client of the standard asks for, below `/ogc`; `base_url` is where others find us, if that is set."""

    def __init__(self, answers: Answers, feeds: Feeds, base_url: str) -> None:
        self._answers = answers
        self._collections = collections_of(feeds)
        self._base_url = base_url

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/ogc", tags=["OGC API - Features"])
        for path, answer, kind, summary in (
            ("", self.landing, JSONResponse, "Where everything is"),
            ("/conformance", self.conformance, JSONResponse, "What of the standard is kept"),
            ("/collections", self.collections, JSONResponse, "Collections of tickets"),
            ("/collections/{name}", self.collection, JSONResponse, "One collection"),
            ("/collections/{name}/items", self.items, GeoJson, "Tickets of a collection, as GeoJSON"),
            ("/collections/{name}/items/{ticket_id:path}", self.item, GeoJson, "One ticket, as GeoJSON"),
        ):
            router.add_api_route(path, answer, summary=summary, response_class=kind)
        return router

    def landing(self, request: Request, _none: _NoFilters) -> Response:
        links = [
            _link(self._at(request, "/ogc"), "self", _JSON, "This page"),
            _link(self._at(request, "/openapi.json"), "service-desc", _OPENAPI, "All that can be asked"),
            _link(self._at(request, "/ogc/conformance"), "conformance", _JSON, "What of the standard is kept"),
            _link(self._at(request, "/ogc/collections"), "data", _JSON, "Collections of tickets"),
        ]
        return JSONResponse({"title": "fleettickets", "description": "Trouble tickets on the map", "links": links})

    def conformance(self, _none: _NoFilters) -> Response:
        return JSONResponse({"conformsTo": CONFORMS_TO})

    def collections(self, request: Request, _none: _NoFilters) -> Response:
        here = self._at(request, "/ogc/collections")
        told = [_described(one, f"{here}/{one.id}") for one in self._collections.values()]
        return JSONResponse({"collections": told, "links": [_link(here, "self", _JSON, "Collections of tickets")]})

    def collection(self, request: Request, name: str, _none: _NoFilters) -> Response:
        return JSONResponse(_described(self._found(name), self._at(request, f"/ogc/collections/{name}")))

    async def items(self, request: Request, name: str, filters: Annotated[ItemFilters, Query()]) -> Response:
        collection = self._found(name)
        limit = min(filters.limit, MAX_ITEMS)
        begin, end = interval_of(filters.moment) if filters.moment else (None, None)
        box = box_of(filters.bbox) if filters.bbox else None
        page = Page(limit, filters.after, box=box, begin=begin, end=end)
        here, asked = self._at(request, f"/ogc/collections/{name}/items"), dict(request.query_params)

        def written(features: list[tuple[str, str]]) -> str:
            links = [_link(_asking(here, asked), "self", _GEOJSON, "This page")]
            if len(features) > limit:
                last, _ = features[limit - 1]
                links.append(_link(_asking(here, asked | {"after": last}), "next", _GEOJSON, "The next ones"))
            return _collected([feature for _, feature in features[:limit]], links)

        of, where = collection, _asking(here, asked)
        return await self._answers.give(request, items(of.feed, of.statement, page, where, written), _GEOJSON)

    async def item(
        self, request: Request, name: str, ticket_id: Annotated[Word, Path()], _none: _NoFilters
    ) -> Response:
        collection = self._found(name)
        here = self._at(request, f"/ogc/collections/{name}")

        def written(features: list[tuple[str, str]]) -> str:
            if not features:
                raise Problem(HTTPStatus.NOT_FOUND, f"{name} has no ticket {ticket_id[:100]!r}")
            links = [
                _link(f"{here}/items/{quote(ticket_id)}", "self", _GEOJSON, "This ticket"),
                _link(here, "collection", _JSON, collection.title),
            ]
            ((_, feature),) = features
            return f'{feature.removesuffix("}")}, "links": {json.dumps(links)}}}'

        page = Page(1, only=ticket_id)
        asked = items(collection.feed, collection.statement, page, here, written)
        return await self._answers.give(request, asked, _GEOJSON)

    def _at(self, request: Request, path: str) -> str:
        return (self._base_url or str(request.base_url)).rstrip("/") + path

    def _found(self, name: str) -> Collection:
        if name not in self._collections:
            there = ", ".join(self._collections)
            raise Problem(HTTPStatus.NOT_FOUND, f"no collection {name[:60]!r}; there are {there}")
        return self._collections[name]


def _collected(features: Sequence[str], links: Sequence[dict[str, str]]) -> str:
    """Text, put together as text: to read what is to be written again takes longer than the database does."""
    told = {
        "numberReturned": len(features),
        "timeStamp": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "links": links,
    }
    begin = f'{{"type": "FeatureCollection", {json.dumps(told)[1:-1]}, "features": ['
    return f"{begin}{','.join(features)}]}}"


def _link(href: str, rel: str, kind: str, title: str) -> dict[str, str]:
    return {"href": href, "rel": rel, "type": kind, "title": title}


def _asking(here: str, asked: dict[str, str]) -> str:
    return f"{here}?{urlencode(asked)}" if asked else here


def _described(collection: Collection, here: str) -> dict[str, Any]:
    return {
        "id": collection.id,
        "title": collection.title,
        "description": collection.description,
        "itemType": "feature",
        "crs": [_CRS84],
        "extent": {"spatial": {"bbox": [[33.5, -5.0, 42.0, 5.5]], "crs": _CRS84}},
        "links": [
            _link(here, "self", _JSON, collection.title),
            _link(f"{here}/items", "items", _GEOJSON, collection.title),
        ],
    }
