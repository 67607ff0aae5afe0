"""How well places are found, and what the gazetteer costs a file. Run by `make load-geocoding`.

First, names are made of Nairobi's wards as people write them, among codes, and a local server is asked that knows some
of them, some in part, and many in other cities as well; `atlas` says how. Told is how many tickets came to lie within
their ward, how many elsewhere, and how many stayed at their cluster, by the guard or for want of an answer. None of
that is the share of a real provider. Then files of 20,000 new tickets are imported, in turns, where nothing is in the
gazetteer and where all their places are. Fails when a ticket lies in another city, or when the ratio is above RATIO.
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
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from consumer.feeds.declared import packaged_feeds
from consumer.geocoding import known_places
from tests.doubles.geocoder import KEY, LocationIQ
from tests.load.atlas import Atlas, Known, Ward, Written, written
from tests.load.stages import load_stage, say
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage

BESIDE = Path(__file__).parents[3] / "shared" / "data"
RATIO = 1.3
ROWS = 20_000
ANOTHER_CITY_METRES = 50_000
"""From the ward to the ticket: no two points of Nairobi are so far apart, and no other city of the atlas is as near."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wards", type=Path, default=Path(os.environ.get("FLEETTICKETS_SHARED_DATA", BESIDE)))
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
            say(f"how well names are found is not measured: there is no {file}; see FLEETTICKETS_SHARED_DATA")
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
        yield Ward(name, of, polygon, at["latitude"], at["longitude"])


def find(stage: Stage, wards: list[Ward], names: int) -> bool:
    rng = random.Random(20260625)
    atlas = Atlas(wards, rng)
    of, how, rows = [], [], []
    for number in range(names):
        ward = wards[number % len(wards)]
        location, hard = written(ward, rng)
        of.append(ward)
        how.append(hard)
        rows.append(ticket(f"INC{number}", cluster=ward.cluster, region="nairobi", location_name=location))
    with LocationIQ(atlas, per_second=None, per_minute=None) as server:
        stage.environment |= {
            "GEOCODER_API_KEY": KEY, "GEOCODER_URL": server.url, "GEOCODER_PER_SECOND": "1000",
            "GEOCODER_PER_MINUTE": "60000",
        }  # fmt: skip
        local = stage.folder / (key_at(1).rpartition("/")[2])
        local.write_bytes(csv(rows))
        run(stage, "import-csv", "--feed", "inc", str(local), "--apply")
        run(stage, "geocode", "clusters", "--apply")
        run(stage, "geocode", "locations", "--apply")
        requests = len(server.searches)
    ends = [end(stage, f"INC{number}", of[number]) for number in range(names)]
    say(f"{names} names of {len(wards)} wards, {requests} requests; what became of them:")
    tell("all", ends)
    for known in Known:
        tell(f"known {known}", [e for e, ward in zip(ends, of, strict=True) if atlas.known[ward.name] is known])
    for hard in Written:
        tell(f"written {hard}", [e for e, is_hard in zip(ends, how, strict=True) if is_hard is hard])
    return End.ANOTHER_CITY not in ends


class End(StrEnum):
    """Where a ticket came to lie: at its location's point, or at its cluster's, which is right as far as it goes."""

    RIGHT = "right"
    WRONG = "placed wrongly"
    GUARDED = "guarded"
    MISS = "miss"
    ANOTHER_CITY = "in another city"


def end(stage: Stage, ticket_id: str, ward: Ward) -> End:
    (found,) = stage.query(
        """SELECT ticket.geo_source, known.status, ST_Contains(there.ward, ticket.geom) AS is_right,
                  ST_Distance(there.ward::geography, ticket.geom::geography) AS metres
           FROM tickets.inc AS ticket
           LEFT JOIN tickets.geo_locations AS known USING (cluster, location_name)
           CROSS JOIN ST_SetSRID(ST_GeomFromGeoJSON(%s), 4326) AS there (ward)
           WHERE ticket.ticket_id = %s""",
        ward.polygon,
        ticket_id,
    )
    if found["metres"] is not None and found["metres"] > ANOTHER_CITY_METRES:
        return End.ANOTHER_CITY
    if found["geo_source"] == "location":
        return End.RIGHT if found["is_right"] else End.WRONG
    return End.GUARDED if found["status"] == "rejected" else End.MISS


def tell(what: str, ends: list[End]) -> None:
    if ends:
        shares = ", ".join(f"{kind} {ends.count(kind) / len(ends):.1%}" for kind in End)
        say(f"  {what} ({len(ends)}): {shares}")


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
            run(stage, "import-csv", "--feed", "inc", str(local), "--apply")
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
        placed = known_places.place_tickets(stage.connection, packaged_feeds().geocoded).placed
        seconds = time.perf_counter() - began
        tickets = stage.one("SELECT count(*) FROM tickets.inc")
        say(f"{placed} of {tickets} tickets placed anew in {seconds:.2f} s")


def run(stage: Stage, *arguments: str) -> None:
    ended = stage.run(*arguments)
    if ended.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {ended.returncode}: {ended.stderr}")


if __name__ == "__main__":
    sys.exit(main())
