"""What was: the series of the views in `reporting`, with their gaps."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from consumer.api.answers import Answers
from consumer.api.parameters import Day, FeedName, Filters, Moment, Word, feed_with_history
from consumer.api.problems import PROBLEM, Problem
from consumer.api.reading import question
from consumer.feeds.feed import Feeds

_SPAN = ("from", "to")
SERIES: dict[str, tuple[str, ...]] = {
    "backlog_by_day": _SPAN,
    "backlog_by_day_and_cluster": (*_SPAN, "cluster"),
    "created_and_closed_by_day": _SPAN,
    "created_and_closed_by_week": _SPAN,
    "mttr_and_sla_by_week": _SPAN,
    "mttr_and_sla_by_cluster": (*_SPAN, "cluster"),
    "mttr_and_sla_by_region": (*_SPAN, "region"),
    "mttr_and_sla_by_team": (*_SPAN, "team"),
    "who_closed": (*_SPAN, "cluster", "region", "team", "limit", "after"),
}
"""The views that are served, each a statement of past.sql, with the filters that it has."""
MAX_ROWS = 10_000
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


class HistoryFilters(Filters):
    """Which days or weeks of a series, and of what."""

    begin: Day | None = Field(None, alias="from", description="The first day in East Africa Time: 2026-06-01.")
    end: Day | None = Field(None, alias="to", description="The first day that is left out. A week is its Monday.")
    cluster: Word | None = Field(None, description="In any case; `(none)` for those without one.")
    region: Word | None = Field(None, description="The same.")
    team: Word | None = Field(None, description="The same.")
    limit: int = Field(1000, ge=1, le=MAX_ROWS, description="Rows of a page, of who_closed.")
    after: Word | None = Field(None, description="As `next` of the page before has it, of who_closed.")

    @field_validator("after")
    @classmethod
    def _is_a_place(cls, given: str | None) -> str | None:
        if given is not None:
            place_of(given)
        return given

    @model_validator(mode="after")
    def _are_in_order(self) -> "HistoryFilters":
        if self.begin and self.end and self.begin > self.end:
            raise ValueError("from is later than to")
        return self


def place_of(written: str) -> tuple[datetime, str]:
    """The closure that a page goes on behind: its time, and its ticket. Raises: ValueError."""
    moment, slash, ticket_id = written.partition("/")
    try:
        if slash:
            return _MOMENT.validate_python(moment), ticket_id
    except ValidationError:
        pass
    raise ValueError(f"{written[:60]!r} is not from `next` of a page")


def routes(answers: Answers, feeds: Feeds) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get(
        "/{feed}/history/{series}",
        summary="A series of the past, by day or week, or closure by closure",
        responses={404: {"description": "No such series, or a feed without a history.", **PROBLEM}},
    )
    async def history(
        request: Request,
        feed: FeedName,
        series: Annotated[str, Path(description="One of " + ", ".join(SERIES), max_length=63)],
        filters: Annotated[HistoryFilters, Query()],
    ) -> Response:
        asked = question(feed_with_history(feeds, feed), series, _asked(series, filters), file="past")
        return await answers.give(request, asked, "application/json")

    return router


def _asked(series: str, filters: HistoryFilters) -> dict[str, Any]:
    """The parameters of its statement. Raises: Problem, for a filter that the series does not have."""
    if series not in SERIES:
        raise Problem(HTTPStatus.NOT_FOUND, f"no series {series!r}; there are {', '.join(SERIES)}")
    given = filters.model_dump(by_alias=True)
    for name in filters.model_fields_set:
        asked = HistoryFilters.model_fields[name].alias or name
        if asked not in SERIES[series]:
            raise Problem(HTTPStatus.BAD_REQUEST, f"{asked}: {series} has {', '.join(SERIES[series])}")
    if "after" in SERIES[series]:
        given["after"], given["after_ticket"] = place_of(filters.after) if filters.after else (None, None)
    return given
