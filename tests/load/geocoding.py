"""How well places are found, and what the gazetteer costs a file. Run by `make load-geocoding`.

First, names as a network's inventory has them are made of Nairobi's wards, each of them several times between random
codes. A local server knows where the wards are, knows one in twelve in another city only, and does not know one in
twenty. Told is how many tickets came to lie within their ward, and how many answers were kept away by the guard. Then
files of 20,000 new tickets are imported, in turns, where nothing is in the gazetteer and where all their places are.
Fails when an answer that is right was not used, when a wrong one was, or when the ratio is above RATIO.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from consumer.queries import statements
from tests.acceptance.feeds import csv, key_at, ticket
from tests.acceptance.geocoder import KEY, LocationIQ
from tests.acceptance.stage import Stage
from tests.load.stages import load_stage, say

RATIO = 1.3
ROWS = 20_000
ELSEWHERE = (-4.0435, 39.6682)
CODES = (
    "OLT-{n:02}", "FAT {n}", "FDT-{n}", "GPON 0/{d}/{n}", "PON 0/1/{d}", "SPL 1:8", "NBO-{n:03}", "MDU-{n:04}",
    "MH-{n}", "PORT {d}", "ODB {n}", "KE-NBI-{n:04}", "VLAN {n}", "HWTC1234AB{n:02}", "JB {d}", "(FAT {n})",
)  # fmt: skip


@dataclass(frozen=True)
class Ward:
    name: str
    cluster: str
    polygon: str
    latitude: float
    longitude: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wards", type=Path, default=Path(os.environ.get("FLEETTICKETS_SHARED_DATA", "data")))
    parser.add_argument("--names", type=int, default=900)
    parser.add_argument("--repeat", type=int, default=7, help="files of each kind")
    asked = parser.parse_args()
    good = True
    with ExitStack() as stack:
        empty, full = (
            stack.enter_context(load_stage(Path(stack.enter_context(TemporaryDirectory())))) for _ in range(2)
        )
        file = asked.wards / "nairobi_wards.geojson"
        if file.exists():
            good = find(empty, list(wards_of(empty, file)), asked.names)
        else:
            say(f"no {file}: set FLEETTICKETS_SHARED_DATA to its folder to measure how well names are found")
        ratio = cost(empty, full, asked.repeat)
    say(f"a file of {ROWS} tickets with a full gazetteer against an empty one: ratio {ratio:.2f}")
    return 0 if good and ratio <= RATIO else 1


def wards_of(stage: Stage, file: Path) -> Iterator[Ward]:
    for feature in json.loads(file.read_text())["features"]:
        name, of = feature["properties"]["ward_name"], feature["properties"]["constituency_name"]
        polygon = json.dumps(feature["geometry"])
        (at,) = stage.query(
            "SELECT ST_Y(p) AS latitude, ST_X(p) AS longitude FROM ST_PointOnSurface(ST_GeomFromGeoJSON(%s)) AS p",
            polygon,
        )
        yield Ward(name.replace("/", " "), of, polygon, at["latitude"], at["longitude"])


def find(stage: Stage, wards: list[Ward], names: int) -> bool:
    rng = random.Random(20260625)
    wrong = {ward.name for ward in wards[::12]}
    unknown = {ward.name for ward in wards[5::20]} - wrong
    known = {ward.name: ELSEWHERE if ward.name in wrong else (ward.latitude, ward.longitude) for ward in wards}
    known = {name: at for name, at in known.items() if name not in unknown}
    for ward in wards:
        known.setdefault(ward.cluster, (ward.latitude, ward.longitude))
    rows = []
    for number in range(names):
        ward = wards[number % len(wards)]
        rows.append(
            ticket(f"INC{number}", cluster=ward.cluster, region="", location_name=in_codes(ward.name.title(), rng))
        )
    with LocationIQ(lambda query: known.get(query.upper()), per_second=None, per_minute=None) as server:
        settings = {
            "GEOCODER_API_KEY": KEY, "GEOCODER_URL": server.url, "GEOCODER_PER_SECOND": "1000",
            "GEOCODER_PER_MINUTE": "60000",
        }  # fmt: skip
        stage.environment |= settings
        local = stage.folder / (key_at(1).rpartition("/")[2])
        local.write_bytes(csv(rows))
        run(stage, "import-csv", str(local), "--apply")
        run(stage, "geocode", "clusters", "--apply")
        run(stage, "geocode", "locations", "--apply")
        requests = len(server.searches)
    found = {row["ticket_id"]: row for row in stage.query("SELECT ticket_id, geo_source, geom FROM tickets.inc")}
    precise = {number for number in range(names) if found[f"INC{number}"]["geo_source"] == "location"}
    right = {
        number
        for number in precise
        if stage.one(
            "SELECT ST_Contains(ST_GeomFromGeoJSON(%s), geom) FROM tickets.inc WHERE ticket_id = %s",
            wards[number % len(wards)].polygon,
            f"INC{number}",
        )
    }
    guarded = stage.one("SELECT count(*) FROM tickets.geo_locations WHERE status = 'rejected'")
    should = {number for number in range(names) if wards[number % len(wards)].name not in wrong | unknown}
    expected_guarded = sum(1 for number in range(names) if wards[number % len(wards)].name in wrong)
    say(f"{names} names of {len(wards)} wards, {requests} requests")
    say(f"precise: {len(precise)} of {len(should)} that the server knows there; within their ward: {len(right)}")
    say(f"answers in another city: {expected_guarded}, guarded: {guarded}")
    say(f"share right {len(right) / len(should):.2%}, share guarded {guarded / max(1, expected_guarded):.2%}")
    return right == precise == should and guarded == expected_guarded


def in_codes(name: str, rng: random.Random) -> str:
    def codes() -> list[str]:
        return [
            rng.choice(CODES).format(n=rng.randrange(1, 99), d=rng.randrange(1, 9)) for _ in range(rng.randrange(3))
        ]

    return rng.choice((" ", " - ", " / ")).join([*codes(), name, *codes()])


def cost(empty: Stage, full: Stage, repeat: int) -> float:
    """The ratio of the median seconds of an import, full to empty."""
    for stage in (empty, full):
        stage.connection.execute("TRUNCATE tickets.inc, tickets.geo_clusters, tickets.geo_locations")
    full.query(
        """INSERT INTO tickets.geo_clusters (cluster, latitude, longitude, status)
           SELECT 'Cluster ' || n, -1.2 - n / 1000.0, 36.8, 'hit' FROM generate_series(0, 199) AS n RETURNING 1"""
    )
    full.query(
        """INSERT INTO tickets.geo_locations (cluster, location_name, latitude, longitude, status)
           SELECT 'Cluster ' || mod(n, 200), 'Gate ' || n, -1.2 - n / 100000.0, 36.8, 'hit'
           FROM generate_series(0, 3999) AS n RETURNING 1"""
    )
    seconds: dict[Stage, list[float]] = {empty: [], full: []}
    for number in range(repeat + 1):
        rows = [
            ticket(f"INC{number}-{n}", cluster=f"Cluster {n % 200}", location_name=f"Gate {n % 4000}")
            for n in range(ROWS)
        ]
        body = csv(rows)
        for stage in (empty, full) if number % 2 else (full, empty):
            local = stage.folder / (key_at(10 + number).rpartition("/")[2])
            local.write_bytes(body)
            began = time.perf_counter()
            run(stage, "import-csv", str(local), "--apply")
            if number:  # the first warms up
                seconds[stage].append(time.perf_counter() - began)
    for stage, what in ((empty, "empty"), (full, "full")):
        say(f"{what}: {statistics.median(seconds[stage]):.2f} s, {', '.join(f'{s:.2f}' for s in seconds[stage])}")
    place(full)
    return statistics.median(seconds[full]) / statistics.median(seconds[empty])


def place(stage: Stage) -> None:
    """What a batch costs beside its lookups: all tickets placed at once, and none that is elsewhere."""
    stage.connection.execute("UPDATE tickets.geo_locations SET latitude = latitude - 0.00001")
    for _ in range(2):
        began = time.perf_counter()
        placed = stage.connection.execute(statements("geocoding")["place_tickets"]).rowcount
        seconds = time.perf_counter() - began
        tickets = stage.one("SELECT count(*) FROM tickets.inc")
        say(f"{placed} of {tickets} tickets placed anew in {seconds:.2f} s")


def run(stage: Stage, *arguments: str) -> None:
    ended = stage.run(*arguments)
    if ended.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {ended.returncode}: {ended.stderr}")


if __name__ == "__main__":
    sys.exit(main())
