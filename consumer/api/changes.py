"""What has changed behind a version of the data: the tickets as they are now, page by page."""

from dataclasses import dataclass
from http import HTTPStatus

from consumer.api.problems import Problem
from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Connection

MAX_TICKETS = 10_000
"""Of a page. One version, which has up to 500, is never parted."""


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Tickets that changed behind the version `since` and up to `next`, as GeoJSON text, each once."""

    feed: str
    since: int
    next: int
    version: int
    features: str

    @property
    def text(self) -> str:
        """One GeoJSON object, on one line."""
        told = (
            f'{{"type": "FeatureCollection", "feed": "{self.feed}", "since": {self.since}, "next": {self.next}, '
            f'"version": {self.version}, "features": [{self.features}]}}'
        )
        # Between the values of JSON a line may end, and within them none does.
        return told.replace("\r", " ").replace("\n", " ")


def read_page(connection: Connection, feed: Feed, since: int, version: int, limit: int) -> ChangesPage:
    """Of about so many tickets, up to a version that the data have reached.

    Raises: Problem, where what changed is not known (any more).
    """
    if since > version:
        raise _gone(
            f"the data of {feed.name} are at version {version}, and have not been at {since}: they were restored, or "
            "this is another database"
        )
    if since == version:
        return ChangesPage(feed.name, since, since, version, "")
    parameters = {"feed": feed.name, "since": since, "until": version, "limit": limit}
    found = database.rows(connection, "changes", "page", parameters, feed=feed)[0]
    if found["next"] is None:
        raise _gone(f"what has changed in {feed.name} since version {since} is not known any more")
    return ChangesPage(feed.name, since, found["next"], version, found["features"])


def _gone(why: str) -> Problem:
    return Problem(
        HTTPStatus.GONE, f"{why}; load the map or the dashboard anew, and go on from the Data-Version of that answer"
    )
