"""A client of the live events: what it was sent, event by event, and where it goes on from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Thread
from typing import Any

import requests

_QUIET_SECONDS = 60
"""Comments come more often, so a server that sends nothing for so long has lost us."""


@dataclass(frozen=True)
class LiveEvent:
    """An event as it was sent."""

    id: str
    kind: str
    told: dict[str, Any]


def events_of(lines: Iterator[bytes]) -> Iterator[LiveEvent]:
    """As the standard has them read: a line is a field, and an empty one ends an event."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().partition(":")
        if not line and "data" in fields:
            yield LiveEvent(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
        if not line:
            fields = {}
        elif name:
            assert name not in fields, f"{name} stands twice in an event"
            fields[name] = value.removeprefix(" ")


@dataclass
class LiveClient:
    """Follows until it is closed, in a thread; `seen` has the tickets of each page by feed and versions."""

    url: str
    token: str
    query: str = ""
    id: str = ""
    takes: str = "gzip"
    seen: list[LiveEvent] = field(default_factory=list)
    ended: bool = False

    def start(self) -> "LiveClient":
        self.ended = False
        headers = {"Authorization": f"Bearer {self.token}", "Accept-Encoding": self.takes} | (
            {"Last-Event-ID": self.id} if self.id else {}
        )
        self.answer = requests.get(
            f"{self.url}/api/events{self.query}", headers=headers, stream=True, timeout=_QUIET_SECONDS
        )
        assert self.answer.status_code == requests.codes.ok, self.answer.text
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        try:
            for event in events_of(self.answer.iter_lines(chunk_size=None, delimiter=b"\n")):
                self.seen.append(event)
                self.id = event.id or self.id
        except (requests.RequestException, AttributeError):
            pass  # it was closed, by one of both sides
        self.ended = True

    def close(self) -> None:
        """End, as a client does that goes away: what is on its way is lost."""
        self.answer.close()

    @property
    def pages(self) -> list[dict[str, Any]]:
        return [event.told for event in self.seen if event.kind == "changes"]

    def ids(self, feed: str = "inc") -> list[str]:
        """Of tickets, as often as they were sent."""
        return [feature["id"] for page in self.pages if page["feed"] == feed for feature in page["features"]]

    def is_whole(self, feed: str = "inc") -> bool:
        """Whether each page goes on where the one before it ended: nothing left out, and nothing twice."""
        of_feed = [page for page in self.pages if page["feed"] == feed]
        return all(one["next"] == two["since"] for one, two in pairwise(of_feed))
