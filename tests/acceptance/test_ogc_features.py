"""OGC API - Features: a map program connects without code. GDAL's own driver, which QGIS reads by, is the client."""

import json
from collections.abc import Iterator
from typing import Any

import pyogrio  # type: ignore[import-untyped]
import pytest
import requests

from tests.acceptance.test_api import Api, apply, problem, served
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage

TOWNS = {"Westlands": (-1.2676, 36.8108), "Karen": (-1.3192, 36.7073), "Nyali": (-4.0435, 39.6682)}
OPEN, CLOSED = 25, 4


def placed(number: int, **values: str) -> dict[str, str]:
    latitude, longitude = list(TOWNS.values())[number % len(TOWNS)]
    return ticket(
        f"INC{number:03}", latitude=str(latitude), longitude=str(longitude),
        created_at_service=f"2026-06-{1 + number % 20:02} 08:00", **values,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ogc(shared_stage: Stage) -> Iterator[Api]:
    rows = [placed(number) for number in range(OPEN - 1)]
    rows += [placed(OPEN + number, closed_at=f"2026-06-{21 + number} 09:00") for number in range(CLOSED)]
    apply(shared_stage, key_at(10), [*rows, ticket("NOWHERE", cluster="Elsewhere")])
    crq = key_at(11).replace("/inc/", "/crq/")
    shared_stage.bucket.put(crq, csv([ticket("CRQ1", latitude="-1.3", longitude="36.8")]))
    assert shared_stage.run("drain", "--apply", FLEETTICKETS_MISSING_COLUMNS="allow").returncode == 0
    with served(shared_stage, FLEETTICKETS_API_TOKENS="") as api:
        yield api


def read(ogc: Api, layer: str, **asked: Any) -> tuple[dict[str, list[Any]], int]:
    """What GDAL makes of a collection: its values by column, and how many have a point."""
    table, _, geometries, columns = pyogrio.raw.read(f"OAPIF:{ogc.url}/ogc", layer=layer, **asked)
    values = {name: list(column) for name, column in zip(table["fields"], columns, strict=True)}
    return values, sum(geometry is not None for geometry in geometries)


def test_gdal_finds_the_collections(ogc: Api) -> None:
    layers = pyogrio.list_layers(f"OAPIF:{ogc.url}/ogc")
    assert [name for name, _ in layers] == ["crq", "inc-open", "inc-closed"]


def test_gdal_reads_every_ticket_page_by_page(ogc: Api) -> None:
    for layer, count, with_point in (("inc-open", OPEN, OPEN - 1), ("inc-closed", CLOSED, CLOSED), ("crq", 1, 1)):
        values, points = read(ogc, layer, PAGE_SIZE="10")
        assert len(values["ticket_id"]) == len(set(values["ticket_id"])) == count
        assert points == with_point


def test_gdal_reads_what_is_within_a_box(ogc: Api) -> None:
    values, points = read(ogc, "inc-open", bbox=(39.0, -5.0, 40.0, -4.0))
    assert points == len(values["ticket_id"]) == len([number for number in range(OPEN - 1) if number % 3 == 2])


def items(ogc: Api, name: str, query: str = "") -> list[str]:
    told = ogc.get(f"/ogc/collections/{name}/items{query}").json()
    assert told["numberReturned"] == len(told["features"])
    return [feature["id"] for feature in told["features"]]


def test_pages_follow_one_another_to_the_end(ogc: Api) -> None:
    found: list[str] = []
    page = f"{ogc.url}/ogc/collections/inc-open/items?limit=7&bbox=-180,-90,180,90"
    while page:
        told = requests.get(page, timeout=30).json()
        found += [feature["id"] for feature in told["features"]]
        page = next((link["href"] for link in told["links"] if link["rel"] == "next"), "")
    assert found == [f"INC{number:03}" for number in range(OPEN - 1)]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("?datetime=2026-06-21T00:00:00Z/2026-06-22T23:59:59Z", 2),
        ("?datetime=2026-06-22T00:00:00Z/..", 3),
        ("?datetime=../2026-06-21T06:00:00Z", 1),
        ("?datetime=2026-06-21T09:00:00%2B03:00", 1),
        ("?datetime=2027-01-01T00:00:00Z/", 0),
        ("?bbox=179,-10,-179,10", 0),
        ("?bbox=39,-5,-179,0", 1),
        ("?bbox=36,-5,0,37,0,100", 3),
        ("?limit=99999999", CLOSED),
    ],
)
def test_items_are_chosen_by_time_and_place(ogc: Api, query: str, count: int) -> None:
    assert len(items(ogc, "inc-closed", query)) == count


@pytest.mark.parametrize(
    "query",
    ["after=%00", "datetime=2026",
     "bbox=1,2,3", "bbox=a,b,c,d", "bbox=0,5,1,4", "bbox=nan,0,1,1", "datetime=yesterday", "datetime=../..", "limit=0",
     "datetime=2026-06-02T00:00:00Z/2026-06-01T00:00:00Z", "datetime=2026-06-02T00:00:00", "crs=EPSG:21037"],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_as_the_standard_wants(ogc: Api, query: str) -> None:
    assert problem(ogc.get(f"/ogc/collections/inc-open/items?{query}"))[0] == 400
    assert problem(ogc.get(f"/ogc/collections?{query}"))[0] == 400


def test_one_ticket_is_a_feature_with_six_decimals_at_most(ogc: Api) -> None:
    answer = ogc.get("/ogc/collections/inc-open/items/INC001")
    assert answer.headers["Content-Type"] == "application/geo+json"
    feature = answer.json()
    assert (feature["type"], feature["id"]) == ("Feature", "INC001")
    assert feature["geometry"] == {"type": "Point", "coordinates": [36.7073, -1.3192]}
    assert feature["properties"]["ticket_id"] == "INC001"
    assert not {"raw", "geom", "geog"} & feature["properties"].keys()
    assert ogc.get("/ogc/collections/inc-open/items/NOWHERE").json()["geometry"] is None
    for path in ("inc-open/items/INC026", "inc-closed/items/INC001", "inc/items", "none"):
        assert problem(ogc.get(f"/ogc/collections/{path}"))[0] == 404


def test_each_page_links_to_itself_and_to_what_the_standard_asks_for(ogc: Api, shared_stage: Stage) -> None:
    def links(api: Api, path: str) -> dict[str, str]:
        return {link["rel"]: link["href"] for link in api.get(path).json()["links"]}

    landing = links(ogc, "/ogc")
    assert landing.keys() == {"self", "service-desc", "conformance", "data"}
    for href in landing.values():
        assert requests.get(href, timeout=30).status_code == 200
    told = ogc.get("/ogc/conformance").json()["conformsTo"]
    assert "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core" in told
    with served(shared_stage, FLEETTICKETS_API_TOKENS="", FLEETTICKETS_API_URL="https://tickets.example/x/") as behind:
        assert links(behind, "/ogc")["data"] == "https://tickets.example/x/ogc/collections"
        page = links(behind, "/ogc/collections/inc-open/items?limit=2")
        assert page["next"] == "https://tickets.example/x/ogc/collections/inc-open/items?limit=2&after=INC001"


def test_nobody_reads_features_without_a_token(shared_stage: Stage) -> None:
    with served(shared_stage, FLEETTICKETS_API_TOKENS="a-token-of-the-map") as api:
        for path in ("", "/conformance", "/collections", "/collections/inc-open/items"):
            assert api.get(f"/ogc{path}").status_code == 200
            assert problem(requests.get(f"{api.url}/ogc{path}", timeout=30))[0] == 401
        assert json.loads(api.get("/ogc/collections/crq/items").text)["features"][0]["id"] == "CRQ1"
