"""LocationIQ on this machine: its search and balance over HTTP, its limits, its errors, and faults when told to."""

import copy
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import quoteattr

KEY = "pk.0123456789abcdef0123456789abcdef"
DAY = 86_400

PLACE: dict[str, Any] = {
    "place_id": "331566847919",
    "licence": "https://locationiq.com/attribution",
    "osm_type": "node",
    "osm_id": "30092308",
    "boundingbox": ["-1.4433080", "-1.1233080", "36.6572200", "36.9772200"],
    "lat": "-1.2833080",
    "lon": "36.8172200",
    "display_name": "Nairobi, Nairobi County, Kenya",
    "class": "place",
    "type": "city",
    "importance": 0.6744,
}
ADDRESS = {"name": "Nairobi", "county": "Nairobi County", "country": "Kenya", "country_code": "ke"}
MATCH_QUALITY = {"matchcode": "exact", "matchtype": "point", "matchlevel": "street"}
XML = (
    "<?xml version='1.0' encoding='UTF-8' ?>\n"
    "<searchresults attribution='https://locationiq.com/attribution' querystring={query}>"
    "<place place_id='331566847919' lat='{lat}' lon='{lon}' display_name={name} class='place' type='city'/>"
    "</searchresults>"
)
BALANCE: dict[str, Any] = {"status": "ok", "balance": {"day": 5000, "bonus": 0}}
INVALID_REQUEST = (400, "Invalid Request")
INVALID_KEY = (401, "Invalid key")
KEY_NOT_ACTIVE = (401, "Key not active - Please write to hello@locationiq.com")
NOT_ENABLED = (403, "Service not enabled")
RESTRICTED = (403, "Access restricted")
UNABLE = (404, "Unable to geocode")
UNKNOWN = (500, "Unknown error - Please try again after some time")
LIMITED = {window: (429, f"Rate Limited {window}") for window in ("Second", "Minute", "Day")}

HTML = b"<!doctype html><html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>"
GARBAGE = b'\x00\xff\xfe[{"lat": '

Coordinates = tuple[float, float] | tuple[float, float, str]
"""Latitude and longitude, in degrees, and the level of the match where that is no street."""
Known = Coordinates | Sequence[Coordinates]
"""Where places of one name are; the most important first, wherever somebody asks for them."""
Places = Mapping[str, Known] | Callable[[str], Known | None]


@dataclass(frozen=True)
class Fault:
    """What becomes of a request. Without a status or body it is answered as it would have been, late or in part.

    `delay`: seconds before the answer; `drip`: seconds between the bytes of its body; `cut`: the connection ends before
    the answer or in the middle of its body; `broken_headers`: the answer has a line that is no header.
    """

    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    drip: float = 0
    cut: Literal["", "before", "middle"] = ""
    broken_headers: bool = False


@dataclass
class Asked:
    """One request: when it came by the server's clock, and the status it got; 0 while it has none."""

    time: float
    path: str
    query: str
    params: dict[str, str]
    status: int = 0


def error(of: tuple[int, str]) -> tuple[int, bytes]:
    return of[0], json.dumps({"error": of[1]}).encode()


class LocationIQ:
    """Answers at `url`, which is for GEOCODER_URL, until closed; `asked` is every request it got, in order.

    Limits hold for any second and any minute, and what was refused with 401 or 429 does not count. The day is UTC's,
    and only what was answered with 200 counts. None is no limit. `now` gives seconds since 1970.
    """

    def __init__(
        self,
        places: Places,
        *,
        key: str = KEY,
        country: str = "ke",
        per_second: int | None = 2,
        per_minute: int | None = 60,
        per_day: int | None = 5000,
        now: Callable[[], float] = time.time,
    ) -> None:
        server = self
        self._places = places
        self._key = key
        self._country = country
        self._limits = {"Second": (1, per_second), "Minute": (60, per_minute)}
        self._per_day = per_day
        self.now = now
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

        class Handler(_Handler):
            locationiq = server

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def fault(self, fault: Fault, times: int = 1) -> None:
        """Have the next requests go wrong, after those that are to go wrong already."""
        with self._lock:
            self._faults += [fault] * times

    def heal(self) -> None:
        with self._lock:
            self._faults = []

    @property
    def searches(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == "/v1/search"]

    def busiest(self, seconds: float) -> int:
        """The most searches that came within so many seconds of each other, the refused ones too."""
        times = sorted(asked.time for asked in self.searches)
        return max((sum(1 for time in times if first <= time < first + seconds) for first in times), default=0)

    def left_today(self) -> int:
        today = self.now() // DAY
        spent = sum(1 for asked in self.searches if asked.status == 200 and asked.time // DAY == today)
        return (BALANCE["balance"]["day"] if self._per_day is None else self._per_day) - spent

    def answer(self, path: str, params: dict[str, str]) -> tuple[int, bytes, str, Fault]:
        """Take a request: note it, and give status, body and type of its answer, and what goes wrong with that."""
        with self._lock:
            asked = Asked(self.now(), path, params.get("q", ""), params)
            fault = self._faults.pop(0) if self._faults else Fault()
            status, body, kind = self._answer(asked)
            status = fault.status or status
            asked.status = 0 if fault.cut else status
            self.asked.append(asked)
        return status, body if fault.body is None else fault.body, kind, fault

    def _answer(self, asked: Asked) -> tuple[int, bytes, str]:
        if asked.path not in {"/v1/search", "/v1/balance"}:
            return 404, HTML, "text/html"
        refusal = self._refusal(asked)
        if refusal is not None:
            return *error(refusal), "application/json"
        if asked.path == "/v1/balance":
            balance = copy.deepcopy(BALANCE)
            balance["balance"]["day"] = self.left_today()
            return 200, json.dumps(balance).encode(), "application/json"
        found = self._find(asked.params)
        if not found:
            return *error(UNABLE), "application/json"
        if asked.params.get("format", "xml") == "json":
            made = [_place(asked.query, where, rank, asked.params) for rank, where in enumerate(found)]
            return 200, json.dumps(made).encode(), "application/json"
        latitude, longitude, *_ = found[0]
        name = quoteattr(_name(asked.query))
        xml = XML.format(query=quoteattr(asked.query), lat=f"{latitude:.7f}", lon=f"{longitude:.7f}", name=name)
        return 200, xml.encode(), "text/xml"

    def _refusal(self, asked: Asked) -> tuple[int, str] | None:
        if asked.params.get("key") != self._key:
            return INVALID_KEY
        before = [other for other in self.asked if other.path == asked.path and other.status not in {401, 429}]
        limits = {"Second": (1, 1)} if asked.path == "/v1/balance" else self._limits
        for window, (seconds, limit) in limits.items():
            if limit is not None and sum(1 for other in before if other.time > asked.time - seconds) >= limit:
                return LIMITED[window]
        if asked.path == "/v1/balance":
            return None
        if self._per_day is not None and self.left_today() <= 0:
            return LIMITED["Day"]
        with suppress(ValueError):
            _viewbox(asked.params)
            if 1 <= int(asked.params.get("limit", "10")) <= 50 and asked.query.strip():
                return None
        return INVALID_REQUEST

    def _find(self, params: dict[str, str]) -> list[Coordinates]:
        countries = params.get("countrycodes", self._country).lower().split(",")
        query = " ".join(params["q"].split())
        if callable(self._places):
            known = self._places(query)
        else:
            known = {" ".join(name.split()).casefold(): at for name, at in self._places.items()}.get(query.casefold())
        if known is None or self._country not in countries:
            return []
        found = _several(known)
        box = _viewbox(params)
        # Unless it is a bound, the box is a hint that a place of some importance outranks.
        if box is not None and params.get("bounded") == "1":
            found = [where for where in found if _is_inside(where, box)]
        return found[: int(params.get("limit", "10"))]


def _several(known: Known) -> list[Coordinates]:
    match known:
        case (float() | int() as latitude, float() | int() as longitude):
            return [(latitude, longitude)]
        case (float() | int() as latitude, float() | int() as longitude, str() as level):
            return [(latitude, longitude, level)]
        case _:
            return [where for where in known if isinstance(where, tuple)]


def _viewbox(params: dict[str, str]) -> tuple[float, float, float, float] | None:
    """West, south, east, north of any two corners.

    Raises: ValueError.
    """
    if "viewbox" not in params:
        return None
    first_x, first_y, second_x, second_y = (float(number) for number in params["viewbox"].split(","))
    west, east, south, north = *sorted((first_x, second_x)), *sorted((first_y, second_y))
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ValueError("viewbox")
    return west, south, east, north


def _is_inside(where: Coordinates, box: tuple[float, float, float, float]) -> bool:
    return box[1] <= where[0] <= box[3] and box[0] <= where[1] <= box[2]


def _name(query: str) -> str:
    return f"{query}, Kenya"


def _place(query: str, where: Coordinates, rank: int, params: dict[str, str]) -> dict[str, Any]:
    latitude, longitude, *level = where
    corners = (latitude - 0.01, latitude + 0.01, longitude - 0.01, longitude + 0.01)
    made = PLACE | {
        "place_id": str(331_000_000_000 + math.floor(abs(latitude * 1e7)) + math.floor(abs(longitude * 1e4))),
        "boundingbox": [f"{corner:.7f}" for corner in corners],
        "lat": f"{latitude:.7f}",
        "lon": f"{longitude:.7f}",
        "display_name": _name(query),
        "importance": round(PLACE["importance"] / (1 + rank), 4),
    }
    if params.get("addressdetails") == "1":
        made["address"] = ADDRESS | {"name": query}
    if params.get("matchquality") == "1":
        made["matchquality"] = MATCH_QUALITY | ({"matchlevel": level[0]} if level else {})
    return made


class _Handler(BaseHTTPRequestHandler):
    locationiq: LocationIQ
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client has left
            self.close_connection = True

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        params = dict(parse_qsl(address.query, keep_blank_values=True))
        status, body, kind, fault = self.locationiq.answer(address.path, params)
        if self.locationiq.closing.wait(fault.delay) or fault.cut == "before":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **fault.headers}.items():
            self.send_header(name, value)
        if fault.broken_headers:
            self.flush_headers()
            self.wfile.write(b"no header\r\n")
        self.end_headers()
        if fault.cut == "middle":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault.drip:
            for position in range(len(body)):
                self.wfile.write(body[position : position + 1])
                if self.locationiq.closing.wait(fault.drip):
                    return
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


class Odd(LocationIQ):
    """A provider that has one `reply` to everything that begins with `prefix`, and good ones to all else."""

    prefix = "Odd"
    reply = error(UNKNOWN)

    def _answer(self, asked: Asked) -> tuple[int, bytes, str]:
        if asked.query.startswith(self.prefix):
            return *self.reply, "application/json"
        return super()._answer(asked)
