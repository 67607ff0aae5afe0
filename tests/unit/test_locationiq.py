"""The geocoder's client against a local LocationIQ: what it asks, what it makes of each answer, what it hides."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import requests
import tenacity

from consumer.geocoding.locationiq import (
    ATTEMPTS,
    MAX_BYTES,
    AnswerUnusable,
    Found,
    Geocoder,
    GeocoderDown,
    GeocoderRefused,
    NotFound,
    QueryRefused,
    RateLimited,
    Viewbox,
)
from consumer.settings import GeocoderSettings
from publisher.errors import DependencyDown, FleetticketsError, Refused
from tests.doubles.certificates import Authority, TlsFront
from tests.doubles.geocoder import (
    DAY,
    GARBAGE,
    HTML,
    INVALID_KEY,
    INVALID_REQUEST,
    KEY_NOT_ACTIVE,
    NOT_ENABLED,
    PLACE,
    RESTRICTED,
    UNABLE,
    UNKNOWN,
    Fault,
    LocationIQ,
    Places,
    error,
)

ROOT = Path(__file__).parents[2]
SECRET = "pk.Zgeo1/Ygeo2+Xgeo3%&="
WORDS = ("Zgeo1", "Ygeo2", "Xgeo3")
NAIROBI = (-1.283308, 36.81722)
EAST, WEST = (-1.2636, 36.8043), (-0.5, 34.0)
PLACES: Places = {"Nairobi": NAIROBI, "Westlands": [WEST, EAST]}
NEAR_NAIROBI = Viewbox(36.6, -1.5, 37.1, -1.1)


class Bookings:
    """Counts what is booked, with the number of requests that had been sent by then."""

    def __init__(self, server: LocationIQ) -> None:
        self._server = server
        self.sent_before: list[int] = []

    def __call__(self) -> None:
        self.sent_before.append(len(self._server.asked))


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits before another request, in seconds, which take no time."""
    waited: list[float] = []
    monkeypatch.setattr(tenacity, "sleep_using_event", lambda _stop: waited.append)
    return waited


@pytest.fixture
def server() -> Iterator[LocationIQ]:
    with LocationIQ(PLACES, key=SECRET, per_second=None, per_minute=None) as running:
        yield running


@pytest.fixture
def book(server: LocationIQ) -> Bookings:
    return Bookings(server)


@pytest.fixture
def geocoder(server: LocationIQ) -> Geocoder:
    return client(server.url)


def client(url: str, **others: Any) -> Geocoder:
    given = {"GEOCODER_API_KEY": SECRET, "GEOCODER_URL": url, "GEOCODER_TIMEOUT": 5} | others
    return Geocoder(GeocoderSettings.model_validate(given))


def refused(of: tuple[int, str]) -> Fault:
    return Fault(*error(of))


def answered(content: object) -> Fault:
    return Fault(200, json.dumps(content).encode())


def placed(**changed: object) -> Fault:
    return answered([PLACE | changed])


def free() -> None:
    """Book nothing."""


def test_a_place_is_found_with_all_that_is_said_of_it(geocoder: Geocoder, server: LocationIQ, book: Bookings) -> None:
    found = geocoder.search("Nairobi", None, book)
    assert isinstance(found, Found)
    (match,) = found.matches
    assert (match.latitude, match.longitude) == NAIROBI
    assert (match.display_name, match.quality) == ("Nairobi, Kenya", "exact/point/street")
    assert match.raw["lat"] == "-1.2833080"
    assert match.raw["address"]["country_code"] == "ke"
    assert book.sent_before == [0]
    (asked,) = server.asked
    assert asked.path == "/v1/search"
    assert asked.params == {
        "key": SECRET, "q": "Nairobi", "format": "json", "countrycodes": "ke", "limit": "10", "normalizeaddress": "1",
        "addressdetails": "1", "matchquality": "1", "dedupe": "1",
    }  # fmt: skip


def test_the_country_is_that_of_the_setting(server: LocationIQ) -> None:
    assert isinstance(client(server.url, GEOCODER_COUNTRY="ug").search("Nairobi", None, free), NotFound)
    assert isinstance(client(server.url, GEOCODER_COUNTRY="ug,ke").search("Nairobi", None, free), Found)


def test_places_with_one_name_come_in_the_servers_order_and_none_is_fenced_off(
    geocoder: Geocoder, server: LocationIQ
) -> None:
    for near in (None, NEAR_NAIROBI, Viewbox(39.0, -5.0, 40.0, -4.0)):
        found = geocoder.search("Westlands", near, free)
        assert isinstance(found, Found)
        assert [(match.latitude, match.longitude) for match in found.matches] == [WEST, EAST]
    assert "viewbox" not in server.asked[0].params
    assert (server.asked[1].params["viewbox"], server.asked[1].params["bounded"]) == (
        "36.600000,-1.500000,37.100000,-1.100000",
        "0",
    )


def test_a_place_that_cannot_be_used_takes_no_other_along(geocoder: Geocoder, server: LocationIQ) -> None:
    server.fault(answered([PLACE | {"lat": "?"}, 7, PLACE | {"display_name": "Second"}, PLACE | {"lon": None}, PLACE]))
    found = geocoder.search("Nairobi", None, free)
    assert isinstance(found, Found)
    assert [match.display_name for match in found.matches] == ["Second", PLACE["display_name"]]


@pytest.mark.parametrize("url", ["{}", "{}/"])
def test_the_address_is_taken_with_and_without_its_slash(server: LocationIQ, url: str) -> None:
    assert isinstance(client(url.format(server.url)).search("Nairobi", None, free), Found)


@pytest.mark.parametrize("query", ["Naïrobi & Sons #4/7 + «x»=?", "名前"])
def test_a_query_arrives_as_it_is(geocoder: Geocoder, server: LocationIQ, query: str) -> None:
    geocoder.search(query, None, free)
    assert server.asked[0].query == query


def test_nothing_to_look_for_is_not_asked_for(geocoder: Geocoder, server: LocationIQ, book: Bookings) -> None:
    with pytest.raises(ValueError, match="nothing"):
        geocoder.search(" \n", None, book)
    assert (server.asked, book.sent_before) == ([], [])


def test_a_miss_is_an_answer(geocoder: Geocoder, server: LocationIQ, book: Bookings) -> None:
    assert geocoder.search("Atlantis", None, book) == NotFound({"error": "Unable to geocode"})
    server.fault(answered([]))
    assert geocoder.search("Nairobi", None, book) == NotFound([])
    assert len(server.asked) == len(book.sent_before) == 2


@pytest.mark.parametrize("said", [None, "exact", [], {"matchcode": "fallback", "matchlevel": None, "other": 1}])
def test_what_is_not_used_may_have_any_form(geocoder: Geocoder, server: LocationIQ, said: object) -> None:
    server.fault(placed(matchquality=said, importance="?", boundingbox=None, address=[], place_id=7, new={"a": 1}))
    found = geocoder.search("Nairobi", None, free)
    assert isinstance(found, Found)
    assert found.matches[0].quality == ("fallback/?/?" if isinstance(said, dict) else "")
    assert found.matches[0].raw["new"] == {"a": 1}


WRONG_KEY = pytest.mark.parametrize("of", [INVALID_KEY, KEY_NOT_ACTIVE, NOT_ENABLED, RESTRICTED])


@WRONG_KEY
def test_a_key_that_is_refused_is_named_at_once(
    geocoder: Geocoder, server: LocationIQ, book: Bookings, of: tuple[int, str]
) -> None:
    server.fault(refused(of))
    with pytest.raises(Refused, match=rf"HTTP {of[0]} \({of[1]}\).*GEOCODER_API_KEY") as refusal:
        geocoder.search("Nairobi", None, book)
    assert not isinstance(refusal.value, QueryRefused)
    assert "GEOCODER_URL" not in str(refusal.value)
    assert len(server.asked) == len(book.sent_before) == 1


def test_another_key_is_refused_by_the_server_itself(server: LocationIQ) -> None:
    with pytest.raises(Refused, match=r"HTTP 401 \(Invalid key\)"):
        client(server.url, GEOCODER_API_KEY="pk.other").search("Nairobi", None, free)


@pytest.mark.parametrize("of", [INVALID_REQUEST, (414, ""), (422, "q")])
def test_a_query_that_is_refused_can_be_told_from_a_wrong_setting(
    geocoder: Geocoder, server: LocationIQ, book: Bookings, of: tuple[int, str]
) -> None:
    server.fault(refused(of))
    with pytest.raises(QueryRefused, match=rf"HTTP {of[0]}.*GEOCODER_URL"):
        geocoder.search("Nairobi", None, book)
    assert len(server.asked) == len(book.sent_before) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(404, HTML),
        Fault(404, b""),
        Fault(404, b'{"detail": "Not Found"}'),
        Fault(404, b'"Unable to geocode"'),
        Fault(404, b'{"error": ["Unable to geocode"]}'),
        Fault(401, HTML),
        Fault(403, HTML),
        Fault(405, HTML),
        Fault(410, b""),
        Fault(204, b""),
        refused((404, "Imagery not found")),
    ],
)
def test_an_address_of_something_else_is_no_miss(
    geocoder: Geocoder, server: LocationIQ, book: Bookings, fault: Fault
) -> None:
    server.fault(fault)
    with pytest.raises(Refused, match=f"HTTP {fault.status}.*GEOCODER_URL"):
        geocoder.search("Atlantis", None, book)
    assert len(server.asked) == len(book.sent_before) == 1


def test_an_address_without_its_version_is_no_miss(server: LocationIQ) -> None:
    with pytest.raises(Refused, match=r"HTTP 404.*GEOCODER_URL"):
        client(server.url.removesuffix("/v1")).search("Atlantis", None, free)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_key_is_not_sent_where_the_server_sends_us(geocoder: Geocoder, server: LocationIQ, status: int) -> None:
    with LocationIQ(PLACES, key=SECRET) as other:
        to = f"{other.url}/search?key={SECRET}&q=Nairobi&format=json"
        server.fault(Fault(status, b"", {"Location": to}))
        with pytest.raises(Refused, match=f"HTTP {status}.*GEOCODER_URL"):
            geocoder.search("Nairobi", None, free)
        assert other.asked == []


@pytest.mark.parametrize(
    ("said", "window"),
    [
        ("Rate Limited Second", "second"),
        ("Rate Limited Minute", "minute"),
        ("Rate Limited Day", "day"),
        ("rate limited day - please upgrade", "day"),
        ("Slow down, second warning of the day", "minute"),
        ("", "minute"),
    ],
)
def test_a_limit_is_told_by_its_text(
    geocoder: Geocoder, server: LocationIQ, book: Bookings, said: str, window: str
) -> None:
    server.fault(refused((429, said)))
    with pytest.raises(RateLimited, match=f"in this {window}.*GEOCODER_PER_{window.upper()}") as limited:
        geocoder.search("Nairobi", None, book)
    assert limited.value.window == window
    assert not isinstance(limited.value, DependencyDown | Refused)
    assert len(server.asked) == len(book.sent_before) == 1


@pytest.mark.parametrize(
    "body", [b"", HTML, b'{"error": 7}', b'["Rate Limited Day"]', b'{"message": "Rate Limited Day"}']
)
def test_a_limit_of_somebody_in_between_is_waited_out_a_minute(
    geocoder: Geocoder, server: LocationIQ, body: bytes
) -> None:
    server.fault(Fault(429, body))
    with pytest.raises(RateLimited) as limited:
        geocoder.search("Nairobi", None, free)
    assert limited.value.window == "minute"


@pytest.mark.parametrize(
    ("limits", "window", "until"),
    [({"per_second": 3}, "second", 1), ({"per_minute": 3}, "minute", 60), ({"per_day": 3}, "day", DAY / 2)],
)
def test_the_servers_limits_hold_and_end(limits: dict[str, int], window: str, until: float) -> None:
    clock = [DAY * 20_000 + DAY / 2]
    none = {"per_second": None, "per_minute": None, "per_day": None}
    with LocationIQ(PLACES, key=SECRET, now=lambda: clock[0], **(none | limits)) as server:  # type: ignore[arg-type]
        for _ in range(2):
            for _ in range(3):
                assert isinstance(client(server.url).search("Nairobi", None, free), Found)
            for passed in (0.0, until - 0.25):
                clock[0] += passed
                with pytest.raises(RateLimited) as limited:
                    client(server.url).search("Nairobi", None, free)
                assert limited.value.window == window
            clock[0] += 0.25


TROUBLES = {
    "unknown error": refused(UNKNOWN),
    "503 of a proxy": Fault(503, HTML),
    "408": Fault(408, b""),
    "cut before": Fault(cut="before"),
    "cut in the middle": Fault(cut="middle"),
    "cut headers": Fault(broken_headers=True, cut="middle"),
    "too large": Fault(200, json.dumps([PLACE]).encode() + b" " * MAX_BYTES),
}
UNUSABLE = {
    "garbage": Fault(200, GARBAGE),
    "nothing": Fault(200, b""),
    "a page": Fault(200, HTML),
    "xml": Fault(200, b"<?xml version='1.0'?><searchresults/>"),
    "half of an answer": Fault(200, json.dumps([PLACE]).encode()[:-40]),
    "deep": Fault(200, b"[" * 100_000),
    "surrogate": Fault(200, json.dumps([PLACE]).encode().replace(b"Nairobi", b"\\ud800")),
    "a number that is none": Fault(200, json.dumps([PLACE]).encode().replace(b"0.6744", b"NaN")),
    "not in any jsonb": Fault(200, json.dumps([PLACE]).encode().replace(b"0.6744", b"1e999")),
    "NUL": placed(display_name="Nai\0robi"),
    "an object": answered(PLACE),
    "an error": answered({"error": "Unable to geocode"}),
    "a list of texts": answered(["Nairobi"]),
    "null": answered(None),
    "no latitude": answered([{name: value for name, value in PLACE.items() if name != "lat"}]),
    "a number": placed(lat=-1.28),
    "NaN": placed(lat="NaN"),
    "NaN to the east": placed(lon="nan"),
    "infinite": placed(lon="Infinity"),
    "too far north": placed(lat="90.0000001"),
    "too far south": placed(lat="-91"),
    "too far east": placed(lon="180.5"),
    "too far west": placed(lon="-181"),
    "empty": placed(lon=""),
    "words": placed(lat="1° S"),
    "no name": placed(display_name=""),
    "a name that is a number": placed(display_name=7),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_may_be_better_next_time_is_asked_again_and_booked_again(
    geocoder: Geocoder, server: LocationIQ, book: Bookings, waits: list[float], name: str
) -> None:
    server.fault(TROUBLES[name], ATTEMPTS - 1)
    assert isinstance(geocoder.search("Nairobi", None, book), Found)
    assert book.sent_before == list(range(ATTEMPTS))
    assert len(server.asked) == ATTEMPTS
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("name", TROUBLES)
def test_what_does_not_get_better_has_an_end(
    geocoder: Geocoder, server: LocationIQ, book: Bookings, waits: list[float], name: str
) -> None:
    server.fault(TROUBLES[name], ATTEMPTS + 5)
    with pytest.raises(GeocoderDown, match=r"^the geocoder is not available: .+ \(127\.0\.0\.1:\d+\)$") as down:
        geocoder.search("Nairobi", None, book)
    assert len(str(down.value).splitlines()) == 1
    assert not isinstance(down.value, AnswerUnusable)
    assert len(server.asked) == len(book.sent_before) == ATTEMPTS
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_answer_of_no_use_is_not_asked_for_again(
    geocoder: Geocoder, server: LocationIQ, book: Bookings, name: str
) -> None:
    server.fault(UNUSABLE[name])
    with pytest.raises(AnswerUnusable, match=r"^the geocoder is not available: .+ \(127\.0\.0\.1:\d+\)$") as unusable:
        geocoder.search("Nairobi", None, book)
    assert len(str(unusable.value).splitlines()) == 1
    assert len(server.asked) == len(book.sent_before) == 1


def test_whoever_is_told_to_stop_asks_no_more(server: LocationIQ, book: Bookings) -> None:
    stop = Event()
    stop.set()
    server.fault(refused(UNKNOWN))
    settings = GeocoderSettings.model_validate({"GEOCODER_API_KEY": SECRET, "GEOCODER_URL": server.url})
    with pytest.raises(GeocoderDown):
        Geocoder(settings, stop).search("Nairobi", None, book)
    assert len(server.asked) == 1


def test_the_largest_answer_is_taken(geocoder: Geocoder, server: LocationIQ) -> None:
    bare = json.dumps([PLACE]).encode()
    server.fault(Fault(200, bare + b" " * (MAX_BYTES - len(bare))))
    assert isinstance(geocoder.search("Nairobi", None, free), Found)
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [Fault(delay=30), Fault(drip=0.05), Fault(drip=0.2)])
def test_a_slow_server_is_not_waited_for(server: LocationIQ, book: Bookings, fault: Fault) -> None:
    server.fault(fault, ATTEMPTS)
    with pytest.raises(GeocoderDown, match=r"no (whole )?answer within 0\.3 s \(127\.0\.0\.1:\d+\)$"):
        client(server.url, GEOCODER_TIMEOUT=0.3).search("Nairobi", None, book)
    assert len(book.sent_before) == ATTEMPTS
    assert [asked.time - server.asked[0].time < 15 for asked in server.asked] == [True] * ATTEMPTS


def test_a_server_that_is_not_there_is_away(book: Bookings) -> None:
    with LocationIQ(PLACES) as gone:
        url = gone.url
    with pytest.raises(GeocoderDown, match="Connection refused"):
        client(url).search("Nairobi", None, book)
    assert len(book.sent_before) == ATTEMPTS


class Full(FleetticketsError):
    """The quota is spent."""


@pytest.mark.parametrize("problem", [Full("spent"), DependencyDown("postgres", "away"), RateLimited("day"), OSError()])
@pytest.mark.parametrize("before", [0, 1])
def test_what_cannot_be_booked_is_not_sent(
    geocoder: Geocoder, server: LocationIQ, waits: list[float], problem: Exception, before: int
) -> None:
    server.fault(refused(UNKNOWN), ATTEMPTS)
    booked = 0

    def book() -> None:
        nonlocal booked
        if booked == before:
            raise problem
        booked += 1

    with pytest.raises(type(problem)) as raised:
        geocoder.search("Nairobi", None, book)
    assert raised.value is problem
    assert len(server.asked) == len(waits) == before


def test_a_limit_met_while_asking_again_ends_it(geocoder: Geocoder, server: LocationIQ, book: Bookings) -> None:
    server.fault(refused(UNKNOWN))
    server.fault(refused((429, "Rate Limited Day")))
    with pytest.raises(RateLimited):
        geocoder.search("Nairobi", None, book)
    assert len(server.asked) == len(book.sent_before) == 2


def test_the_waits_grow_and_no_two_clients_keep_the_same_time(
    geocoder: Geocoder, server: LocationIQ, waits: list[float]
) -> None:
    for _ in range(10):
        server.fault(refused(UNKNOWN), 2)
        geocoder.search("Nairobi", None, free)
    first, second = waits[::2], waits[1::2]
    assert len(set(first)) == len(set(second)) == 10
    assert sum(second) > sum(first)
    assert all(0.25 <= wait <= 5 for wait in waits)


def everything_of(problem: BaseException) -> str:
    """All that could be shown of an error: texts, fields, the errors behind it, and the stack with its variables."""
    shown = []
    seen: list[BaseException] = []
    behind: list[BaseException | None] = [problem]
    while behind:
        one = behind.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        stack = traceback.TracebackException(
            type(one), one, one.__traceback__.tb_next if one.__traceback__ else None, capture_locals=True
        )
        shown += [str(one), repr(one), repr(one.args), repr(vars(one)), *stack.format()]
        behind += [one.__cause__, one.__context__]
    return "\n".join(shown)


def require_silence(text: str) -> None:
    assert [word for word in WORDS if word in text] == []


EVERY_FAULT = {
    **TROUBLES,
    **UNUSABLE,
    "limit": refused((429, "Rate Limited Day")),
    "refused key": refused(INVALID_KEY),
    "refused query": refused(INVALID_REQUEST),
    "wrong address": Fault(404, HTML),
    "sent elsewhere": Fault(302, b"", {"Location": f"http://nowhere.invalid/?key={SECRET}"}),
}


@pytest.mark.parametrize("name", [*EVERY_FAULT, "late"])
def test_no_error_holds_the_key(server: LocationIQ, name: str) -> None:
    server.fault(EVERY_FAULT.get(name) or Fault(delay=30), ATTEMPTS)
    with pytest.raises(FleetticketsError) as problem:
        client(server.url, GEOCODER_TIMEOUT=0.3 if name == "late" else 5).search("Nairobi", None, free)
    assert server.asked[0].params["key"] == SECRET
    require_silence(everything_of(problem.value))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "http://nowhere.invalid/v1", "https://127.0.0.1:1/v1", "http://[::1]:1", "http://-x_/"],
)
def test_no_error_of_an_address_without_server_holds_the_key(url: str) -> None:
    with pytest.raises(GeocoderDown) as down:
        client(url).search("Nairobi", NEAR_NAIROBI, free)
    require_silence(everything_of(down.value))
    assert "search?" not in str(down.value)
    with pytest.raises(GeocoderDown) as down:
        client(url).balance()
    require_silence(everything_of(down.value))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_a_key_that_the_server_repeats_is_not_repeated(geocoder: Geocoder, server: LocationIQ, status: int) -> None:
    sent = requests.Request("GET", server.url, params={"key": SECRET}).prepare().url
    server.fault(refused((status, f"Invalid key\n{SECRET} in {sent}")), ATTEMPTS)
    with pytest.raises(FleetticketsError) as problem:
        geocoder.search("Nairobi", None, free)
    assert len(str(problem.value).splitlines()) == 1
    require_silence(f"{problem.value} {problem.value!r}")


def test_no_settings_and_no_client_show_the_key(geocoder: Geocoder) -> None:
    settings = GeocoderSettings.model_validate({"GEOCODER_API_KEY": SECRET})
    require_silence(f"{geocoder!r} {vars(geocoder)} {settings!r} {settings} {settings.model_dump()}")


SHOW_ALL = f"""
import logging, sys, structlog, tenacity
from consumer.geocoding.locationiq import Geocoder
from consumer.settings import GeocoderSettings
from publisher import log
from publisher.settings import load

tenacity.sleep_using_event = lambda stop: lambda seconds: None
log.configure("json")
logging.getLogger().setLevel(logging.DEBUG)
geocoder = Geocoder(load(GeocoderSettings))
structlog.get_logger().info("searching", geocoder=geocoder, found=geocoder.search("Nairobi", None, lambda: None))
for _ in range({len(EVERY_FAULT)}):
    try:
        geocoder.search("Nairobi", None, lambda: None)
    except Exception as problem:
        structlog.get_logger().exception("failed", detail=str(problem))
        logging.getLogger("another").warning("failed", exc_info=True)
geocoder.balance()
geocoder.search("Nairobi", None, lambda: None)
"""


def test_no_log_and_no_traceback_shows_the_key(server: LocationIQ, tmp_path: Path) -> None:
    server.fault(Fault(broken_headers=True))
    for name, fault in EVERY_FAULT.items():
        server.fault(fault, ATTEMPTS if name in TROUBLES else 1)
    server.fault(Fault())
    server.fault(Fault(cut="before"), ATTEMPTS)
    settings = {"GEOCODER_API_KEY": SECRET, "GEOCODER_URL": server.url}
    ended = subprocess.run(
        [sys.executable, "-c", SHOW_ALL],
        cwd=tmp_path,
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    shown = ended.stdout + ended.stderr
    assert shown.count('"failed"') == 2 * len(EVERY_FAULT), shown
    assert "Nairobi, Kenya" in shown
    assert (
        shown.rstrip()
        .splitlines()[-1]
        .startswith("consumer.geocoding.locationiq.GeocoderDown: the geocoder is not available")
    )
    require_silence(shown)


@contextmanager
def tls_front(server: LocationIQ, authority: Authority, name: str = "localhost") -> Iterator[str]:
    with TlsFront(server.url, authority.certificate(name)) as front:
        yield f"https://localhost:{front.port}/v1"


def test_a_certificate_is_verified_against_the_ca_file(
    server: LocationIQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, stranger = Authority(tmp_path, "good"), Authority(tmp_path, "stranger")
    with tls_front(server, good) as url, tls_front(server, good, "elsewhere") as elsewhere:
        assert isinstance(client(url, FLEETTICKETS_CA_FILE=good.file).search("Nairobi", None, free), Found)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(good.file))
        for address, trusted, meaning in (
            (url, stranger.file, "not of a CA that is trusted here.*FLEETTICKETS_CA_FILE"),
            (elsewhere, good.file, "for another name.*GEOCODER_URL"),
        ):
            with pytest.raises(GeocoderDown, match=meaning) as down:
                client(address, FLEETTICKETS_CA_FILE=trusted).search("Nairobi", None, free)
            require_silence(everything_of(down.value))
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(GeocoderDown, match="not of a CA that is trusted here"):
            client(url).search("Nairobi", None, free)
    assert len(server.asked) == 1


def test_tls_where_none_is_spoken_is_said(server: LocationIQ) -> None:
    with pytest.raises(GeocoderDown, match=r"no TLS is spoken there.*GEOCODER_URL"):
        client(server.url.replace("http:", "https:")).search("Nairobi", None, free)


def test_the_balance_is_what_is_left_of_the_day(geocoder: Geocoder, server: LocationIQ) -> None:
    for query in ("Nairobi", "Nairobi", "Atlantis"):
        geocoder.search(query, None, free)
    assert geocoder.balance() == 4998
    assert server.asked[-1].params == {"key": SECRET, "format": "json"}


@pytest.mark.parametrize("fault", [Fault(404, HTML), refused(UNABLE), Fault(405, b""), Fault(501, b"")])
def test_a_server_may_have_no_balance(geocoder: Geocoder, server: LocationIQ, fault: Fault) -> None:
    server.fault(fault)
    assert geocoder.balance() is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refused(INVALID_KEY), GeocoderRefused),
        (refused((429, "Rate Limited Second")), RateLimited),
        (refused(UNKNOWN), GeocoderDown),
        (Fault(cut="before"), GeocoderDown),
        (Fault(200, HTML), AnswerUnusable),
        (answered([]), AnswerUnusable),
        (answered({"status": "ok", "balance": {"bonus": 0}}), AnswerUnusable),
        (answered({"status": "ok", "balance": {"day": "many"}}), AnswerUnusable),
    ],
)
def test_a_balance_that_cannot_be_had_is_asked_for_once(
    geocoder: Geocoder, server: LocationIQ, fault: Fault, kind: type[Exception]
) -> None:
    server.fault(fault, 3)
    with pytest.raises(kind) as problem:
        geocoder.balance()
    assert type(problem.value) is kind
    assert len(server.asked) == 1
    require_silence(everything_of(problem.value))


def ask(server: LocationIQ, path: str = "search", **params: str) -> requests.Response:
    return requests.get(f"{server.url}/{path}", params={"key": SECRET, "q": "Nairobi"} | params, timeout=10)


def test_the_local_server_answers_as_the_real_one_does(server: LocationIQ) -> None:
    (place,) = ask(server, format="json").json()
    assert place.keys() == PLACE.keys()
    assert all(isinstance(corner, str) for corner in place["boundingbox"])
    assert {"address", "matchquality"} <= ask(server, format="json", addressdetails="1", matchquality="1").json()[
        0
    ].keys()
    found = ET.fromstring(ask(server).text).find("place")  # noqa: S314 - our own
    assert found is not None
    assert (found.get("lat"), found.get("lon")) == ("-1.2833080", "36.8172200")
    for params, status, said in (
        ({"q": ""}, 400, "Invalid Request"),
        ({"limit": "51"}, 400, "Invalid Request"),
        ({"viewbox": "1,2,3"}, 400, "Invalid Request"),
        ({"key": "other"}, 401, "Invalid key"),
        ({"q": "Atlantis"}, 404, "Unable to geocode"),
    ):
        answer = ask(server, format="json", **params)
        assert (answer.status_code, answer.json()) == (status, {"error": said})
    assert [asked.status for asked in server.searches] == [200, 200, 200, 400, 400, 400, 401, 404]
    assert server.left_today() == 4997
    assert len(ask(server, q="Westlands", format="json").json()) == 2
    fenced = ask(server, q="Westlands", format="json", viewbox="37.1,-1.1,36.6,-1.5", bounded="1").json()
    assert [place["lat"] for place in fenced] == ["-1.2636000"]


def test_the_local_server_counts_within_any_second_and_leaves_out_what_it_refused() -> None:
    clock = [1_000_000.9]
    with LocationIQ(lambda query: NAIROBI if query else None, key=SECRET, now=lambda: clock[0]) as server:

        def statuses(*after: float) -> list[int]:
            found = []
            for seconds in after:
                clock[0] += seconds
                found.append(ask(server, format="json").status_code)
            return found

        assert statuses(0, 0.2, 0.1, 0.6, 0.2) == [200, 200, 429, 429, 200]
        assert ask(server, path="balance").json() == {"status": "ok", "balance": {"day": 4997, "bonus": 0}}
        assert ask(server, path="balance").json() == {"error": "Rate Limited Second"}
        assert server.busiest(1) == 4
        assert server.busiest(60) == 5


def test_faults_come_in_the_order_they_were_asked_for(server: LocationIQ) -> None:
    server.fault(Fault(503, b"one"), 2)
    server.fault(Fault(body=b"two"))
    assert [(ask(server).status_code, ask(server).text), ask(server).text] == [(503, "one"), "two"]
    server.fault(Fault(503))
    server.heal()
    assert ask(server).ok
