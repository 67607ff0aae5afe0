"""What values of parameters are, and no others."""

import re
from datetime import date
from http import HTTPStatus
from typing import Annotated

from fastapi import Path
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from consumer.api.problems import Problem
from consumer.feeds.feed import Feed, Feeds, FollowOn
from publisher.errors import Misconfigured

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(_DAY.pattern + r"[Tt ]\d{2}:\d{2}.*")


def _is_written_out(given: object) -> object:
    """A number would be taken for seconds since 1970."""
    if isinstance(given, str) and not _TIME.fullmatch(given):
        raise ValueError("a time is as in 2026-06-25T00:00:00+03:00")
    return given


def _is_day(given: object) -> object:
    """As for a time."""
    if isinstance(given, str) and not _DAY.fullmatch(given):
        raise ValueError("a day is as in 2026-06-25")
    return given


Word = Annotated[str, StringConstraints(max_length=400, pattern="^[^\0]*$")]
Moment = Annotated[AwareDatetime, BeforeValidator(_is_written_out)]
Day = Annotated[date, BeforeValidator(_is_day)]


class Filters(BaseModel):
    """Those that a route knows; another one is refused, and not passed over."""

    model_config = ConfigDict(extra="forbid")


FeedName = Annotated[str, Path(description="A feed that is served.", max_length=63)]


def named_feed(feeds: Feeds, name: str) -> Feed:
    """Raises: Problem."""
    try:
        return feeds.named(name)
    except Misconfigured as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error)) from error


def feed_with_history(feeds: Feeds, name: str) -> Feed:
    """What is open and closed, and was so, is told of the feed that has a history. Raises: Problem."""
    feed = named_feed(feeds, name)
    if FollowOn.HISTORY not in feed.follow_ons:
        raise Problem(HTTPStatus.NOT_FOUND, f"{name} has no history, so no dashboard or map: see its tickets")
    return feed


def feed_that_closes(feeds: Feeds, name: str) -> Feed:
    """One whose columns tell which of its tickets are open. Raises: Problem."""
    feed = named_feed(feeds, name)
    if lacking := [column for column in ("closed_at", "normalized_status") if column not in feed.typed_columns]:
        raise Problem(HTTPStatus.NOT_FOUND, f"{name} has no {' and no '.join(lacking)} to tell which tickets were open")
    return feed
