"""The geocoder: a server that speaks LocationIQ's search, asked with one request at a time that its caller has booked.

The key is a part of each request's URL, and the library's errors quote URLs: none of them leaves this module.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from time import monotonic
from typing import Annotated, Any, Final, Literal, NoReturn
from urllib.parse import quote, quote_plus

import requests
import tenacity
from pydantic import AliasPath, BaseModel, Field, Strict, ValidationError, field_validator
from pydantic_core import from_json
from urllib3.exceptions import HTTPError, ReadTimeoutError

from consumer.settings import GeocoderSettings
from publisher import tls
from publisher.errors import DependencyDown, FleetticketsError, Refused
from publisher.settings import host_and_port

GEOCODER = "the geocoder"
MAX_BYTES: Final = 1 << 20
MATCHES: Final = 10
"""Places of one name that an answer may have: the one that is meant need not be the best known."""
ATTEMPTS: Final = 3
"""Requests that one search sends at most; each is booked."""
_WAIT = tenacity.wait_exponential_jitter(multiplier=0.5, max=5)
_CHUNK = 1 << 16
_HEADERS = {"User-Agent": "fleettickets", "Accept": "application/json", "Accept-Encoding": "identity"}
_MISS = "unable to geocode"
_NO_SERVER = "no LocationIQ answers there: see GEOCODER_URL"
_SEE_KEY = "see GEOCODER_API_KEY, and in the account that the key is active and allowed to search from this address"
_NO_BALANCE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
_OF_THE_QUERY = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_URI_TOO_LONG, HTTPStatus.UNPROCESSABLE_ENTITY})
_OF_THE_KEY = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

Window = Literal["second", "minute", "day"]
_UNTIL: Mapping[Window, str] = {
    "second": "wait a second; GEOCODER_PER_SECOND should be no more than the account has",
    "minute": "wait a minute; GEOCODER_PER_MINUTE should be no more than the account has",
    "day": "its count begins anew at 00:00 UTC; GEOCODER_PER_DAY should be no more than the account has",
}


@dataclass(frozen=True, slots=True)
class Viewbox:
    """Where the place is expected, in degrees. A hint: what lies outside is found as well, and can come first."""

    west: float
    south: float
    east: float
    north: float

    def __str__(self) -> str:
        return f"{self.west:.6f},{self.south:.6f},{self.east:.6f},{self.north:.6f}"


@dataclass(frozen=True, slots=True)
class Match:
    """One place of the name, in degrees.

    `quality` is `code/type/level` as in `exact/point/street` or `approximate/centroid/city`, "" where the server tells
    none. `raw` is the place as it came, fit for a column of jsonb.
    """

    latitude: float
    longitude: float
    display_name: str
    quality: str
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """Places of the name, at least one; first the one that the server thinks best."""

    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class NotFound:
    """The server knows no such place; `raw` is all that it said, fit for a column of jsonb."""

    raw: dict[str, Any] | list[Any]


Answer = Found | NotFound


class GeocoderDown(DependencyDown):
    """No answer, or none that LocationIQ would give: the next search may go the same way."""

    def __init__(self, detail: str, where: str) -> None:
        super().__init__(GEOCODER, detail, where)


class AnswerUnusable(GeocoderDown):
    """The server answers, and with nothing that is of use; it would say the same if it was asked again at once."""


class GeocoderRefused(Refused):
    """The server is there and says no, as a rule until a setting or the account is changed."""


class QueryRefused(GeocoderRefused):
    """The server is there, and does not take this query or what is sent with it."""


class RateLimited(FleetticketsError):
    """The account's limit per `window` is spent; the day's is from 00:00 UTC."""

    def __init__(self, window: Window) -> None:
        super().__init__(f"{GEOCODER} takes no more requests in this {window}: {_UNTIL[window]}")
        self.window = window


class _Place(BaseModel):
    """What is used of a place. Coordinates are text there; NaN is in no range."""

    latitude: Annotated[float, Field(validation_alias="lat", ge=-90, le=90)]
    longitude: Annotated[float, Field(validation_alias="lon", ge=-180, le=180)]
    display_name: Annotated[str, Strict(), Field(min_length=1)]

    @field_validator("latitude", "longitude", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("no text")  # noqa: TRY004 - pydantic takes no TypeError for a wrong value
        return value


class _Balance(BaseModel):
    left: int = Field(validation_alias=AliasPath("balance", "day"))


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes

    @property
    def error(self) -> str:
        """What the API says is wrong; "" if this is no error of the API."""
        try:
            said = self.parsed()
        except ValueError:
            return ""
        error = said.get("error") if isinstance(said, dict) else None
        return error if isinstance(error, str) else ""

    def parsed(self) -> Any:
        """The JSON in the body.

        Raises: ValueError, also for JSON that no jsonb can hold.
        """
        parsed = from_json(self.body)
        if "\\u0000" in json.dumps(parsed, allow_nan=False):
            raise ValueError("NUL")
        return parsed


class Geocoder:
    """Asks the server of GEOCODER_URL, and not again once `stop` is set. Safe to share between threads."""

    def __init__(self, settings: GeocoderSettings, stop: Event | None = None) -> None:
        self._settings = settings
        self._stop = stop or Event()
        self._url = str(settings.url).rstrip("/")
        self._where = host_and_port(settings.url)

    def search(self, query: str, near: Viewbox | None, book: Callable[[], None]) -> Answer:
        """Look for the places of a name, rather within `near`; `book` is called before each request: its errors pass.

        Raises: RateLimited; QueryRefused; GeocoderRefused, when a setting has to be changed first; AnswerUnusable;
        GeocoderDown, when that is all there was in ATTEMPTS requests; ValueError for no query.
        """
        if not query.strip():
            raise ValueError("nothing to look for")

        def ask() -> Answer:
            book()
            return self._search(query, near)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda e: isinstance(e, GeocoderDown) and not isinstance(e, AnswerUnusable)
            ),
            wait=_WAIT,
            stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        return retrying(ask)

    def balance(self) -> int | None:
        """Requests left today, a few seconds old; None where the server has no such count. It costs none.

        Raises: RateLimited, beyond one such question a second; GeocoderRefused; GeocoderDown.
        """
        reply = self._get("balance")
        if reply.status in _NO_BALANCE:
            return None
        if reply.status != HTTPStatus.OK:
            self._fail(reply)
        try:
            return _Balance.model_validate(reply.parsed()).left
        except ValueError:
            raise AnswerUnusable("its balance has no count of requests for the day", self._where) from None

    def _search(self, query: str, near: Viewbox | None) -> Answer:
        reply = self._get(
            "search",
            q=query,
            countrycodes=self._settings.country,
            limit=str(MATCHES),
            normalizeaddress="1",
            addressdetails="1",
            matchquality="1",
            dedupe="1",
            **({"viewbox": str(near), "bounded": "0"} if near else {}),
        )
        if reply.status == HTTPStatus.NOT_FOUND and reply.error.lower().startswith(_MISS):
            return NotFound(reply.parsed())
        if reply.status != HTTPStatus.OK:
            self._fail(reply)
        try:
            places = reply.parsed()
        except ValueError:
            raise AnswerUnusable("its answer is no JSON; see GEOCODER_URL if that stays so", self._where) from None
        if places == []:
            return NotFound(places)
        return _found(places, self._where)

    def _fail(self, reply: _Reply) -> NoReturn:
        status, error = reply.status, self._shown(reply.error)
        detail = f"HTTP {status} ({error})" if error else f"HTTP {status}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimited(_window(reply))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            raise GeocoderDown(detail, self._where)
        if status in _OF_THE_KEY:
            raise GeocoderRefused(GEOCODER, f"{detail}: {_SEE_KEY if error else f'{_SEE_KEY}; or {_NO_SERVER}'}")
        if status in _OF_THE_QUERY:
            raise QueryRefused(GEOCODER, f"{detail}: it takes no such query; if it takes none at all, see GEOCODER_URL")
        raise GeocoderRefused(GEOCODER, f"{detail}: {_NO_SERVER}")

    def _get(self, path: str, **parameters: str) -> _Reply:
        """Send one request.

        Raises: GeocoderDown.
        """
        seconds = self._settings.timeout
        try:
            with requests.get(
                f"{self._url}/{path}",
                params={"key": self._settings.api_key.get_secret_value(), "format": "json"} | parameters,
                headers=_HEADERS,
                timeout=seconds,
                stream=True,
                # What is sent holds the key, which is for nobody else.
                allow_redirects=False,
                verify=str(self._settings.ca_file) if self._settings.ca_file else True,
            ) as answer:
                return _Reply(answer.status_code, _read(answer, seconds, self._where))
        except (requests.RequestException, HTTPError, OSError) as error:
            detail = self._described(error)
        # Out here, where the library's error is no context of ours.
        raise GeocoderDown(detail, self._where)

    def _described(self, error: Exception) -> str:
        if isinstance(error, (requests.Timeout, ReadTimeoutError, TimeoutError)):
            return f"no answer within {self._settings.timeout:g} s"
        # The reason says what happened; the error around it, to which URL.
        reason = getattr(error.args[0], "reason", None) if error.args else None
        return tls.explained(self._shown(str(reason or type(error).__name__)), "GEOCODER_URL")

    def _shown(self, text: str) -> str:
        """One line of what others say, without the key."""
        key = self._settings.api_key.get_secret_value()
        for form in {key, quote(key, safe=""), quote(key), quote_plus(key)}:
            text = text.replace(form, "***")
        return " ".join(text.split())[:300]


def _read(answer: requests.Response, seconds: float, where: str) -> bytes:
    """Read the body whole, within `seconds` from now and up to MAX_BYTES.

    Raises: GeocoderDown; urllib3's errors.
    """
    end = monotonic() + seconds
    body = bytearray()
    # Not `read`, which waits for as much as it is told while single bytes come in.
    while chunk := answer.raw.read1(_CHUNK):
        body += chunk
        if len(body) > MAX_BYTES:
            raise GeocoderDown(f"its answer is larger than {MAX_BYTES} bytes; see GEOCODER_URL if that stays so", where)
        if monotonic() > end:
            raise GeocoderDown(f"no whole answer within {seconds:g} s", where)
    return bytes(body)


def _window(reply: _Reply) -> Window:
    """Which limit it was; the minute's where the text does not tell."""
    said = reply.error.lower()
    return next((window for window in _UNTIL if said.startswith(f"rate limited {window}")), "minute")


def _found(places: object, where: str) -> Found:
    """Make the places ours, less those that cannot be used.

    Raises: AnswerUnusable, if none can be.
    """
    matches, wrong = [], "no list of places"
    for raw in places if isinstance(places, list) else []:
        if not isinstance(raw, dict):
            continue
        try:
            place = _Place.model_validate(raw)
        except ValidationError as error:
            wrong = ", ".join(sorted({str(fault["loc"][0]) for fault in error.errors()}))
        else:
            matches.append(Match(place.latitude, place.longitude, place.display_name, _quality(raw), raw))
    if not matches:
        raise AnswerUnusable(f"its answer cannot be used: {wrong}", where)
    return Found(tuple(matches))


def _quality(raw: dict[str, Any]) -> str:
    told = raw.get("matchquality")
    if not isinstance(told, dict):
        return ""
    return "/".join(str(told.get(part) or "?") for part in ("matchcode", "matchtype", "matchlevel"))
