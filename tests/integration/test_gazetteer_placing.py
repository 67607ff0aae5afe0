"""Tickets are where the gazetteer says, whatever comes beside its batches."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from consumer.geocoding import gazetteer as gazetteer_module
from consumer.geocoding import known_places
from consumer.geocoding.gazetteer import Batch
from consumer.geocoding.known_places import PlaceKind, Point
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from publisher import metrics
from tests.doubles.geocoder import (
    LocationIQ,
)
from tests.integration.change_files import ChangeFile
from tests.integration.gazetteers import (
    NEAR,
    WESTLANDS,
    execute,
    gazetteer,
    look_up,
    move_westlands,
    sources,
    ticket,
    tickets,
)
from tests.stage.feeds import csv


def test_a_ticket_that_is_merged_while_its_place_becomes_known_is_placed_by_the_next_batch(
    pool: Pool, provider: LocationIQ
) -> None:
    """Neither the trigger sees the new point nor the batch the new row; the request of the row's file is still open."""
    places = gazetteer(pool, provider)
    ticket(pool, "FIRST")
    with postgres.transaction(pool) as merging:
        merging.execute("""INSERT INTO tickets.inc (ticket_id, raw) VALUES ('MEANWHILE', '{"cluster": "Westlands"}')""")
        assert look_up(places).outcomes == {"hit": 1}
    assert sources(pool) == {"FIRST": "cluster", "MEANWHILE": None}
    again = look_up(places)
    assert (again.outcomes, again.placed) == ({}, 1)
    assert sources(pool) == {"FIRST": "cluster", "MEANWHILE": "cluster"}
    assert look_up(places).placed == 0


def test_a_place_that_changes_moves_its_tickets_and_no_others(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "HERE")
    ticket(pool, "FED", latitude="-1", longitude="37")
    places = gazetteer(pool, provider)
    look_up(places)
    before = execute(pool, "SELECT ticket_id, ingested_at FROM tickets.inc ORDER BY 1")
    execute(pool, "UPDATE tickets.geo_clusters SET latitude = -1.2, longitude = 36.9")
    assert look_up(places).placed == 1
    (fed, here) = execute(pool, "SELECT latitude, longitude FROM tickets.inc ORDER BY ticket_id")
    assert (here["latitude"], here["longitude"]) == (-1.2, 36.9)
    assert (fed["latitude"], fed["longitude"]) == (-1, 37)
    assert execute(pool, "SELECT ticket_id, ingested_at FROM tickets.inc ORDER BY 1") == before


def test_tickets_are_counted_by_source_also_when_a_source_has_none_left(pool: Pool, provider: LocationIQ) -> None:
    def counted(source: str) -> float | None:
        return metrics.CONSUMER.get_sample_value("fleettickets_tickets", {"source": source})

    tickets(pool, Nowhere=1)
    look_up(gazetteer(pool, provider))
    assert (counted("nowhere"), counted("cluster")) == (1, 0)
    execute(pool, "UPDATE tickets.cluster_aliases SET cluster = 'Nowhere', place = 'Westlands' WHERE cluster = 'QOA'")
    look_up(gazetteer(pool, provider))
    assert (counted("nowhere"), counted("cluster")) == (0, 1)


def test_places_of_the_feed_are_not_asked_for(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "FED", location_name="Sarit Centre", is_actionable="true", latitude="-1", longitude="37")
    assert look_up(gazetteer(pool, provider)).outcomes == {"hit": 1}
    assert [asked.query for asked in provider.searches] == ["Westlands"]
    assert sources(pool) == {"FED": "feed"}


def test_a_location_at_the_very_point_of_its_cluster_is_told_as_a_location(pool: Pool) -> None:
    known = {"Westlands": WESTLANDS, "Westlands Stage": WESTLANDS}
    ticket(pool, "HERE", location_name="Westlands Stage", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places, limit=1)
        assert sources(pool) == {"HERE": "cluster"}
        look_up(places)
        assert sources(pool) == {"HERE": "location"}


def test_a_long_run_places_what_it_has_found_before_its_end(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazetteer_module, "BATCH", 2)
    tickets(pool, Westlands=5, B=4, C=3, D=2, E=1)
    placed: list[int] = []

    def told(_outcome: str) -> None:
        placed.append(execute(pool, "SELECT count(*) AS placed FROM tickets.inc WHERE geom IS NOT NULL")[0]["placed"])

    batch = Batch()
    gazetteer(pool, provider).work(PlaceKind, 100, batch, told=told)
    assert placed == [0, 0, 5, 5, 5]
    assert batch.placed == 5


def test_a_ticket_merged_beside_an_unset_is_not_left_at_a_point_that_nobody_has(pool: Pool) -> None:
    """Its trigger has read the point that goes, and the taking back has not seen its row."""
    move_westlands(pool, *NEAR)
    with postgres.transaction(pool) as connection:
        known_places.set_location(connection, "Westlands", "Gate B", Point(-1.3, 36.7))
    with postgres.transaction(pool) as merging:
        merging.execute("""INSERT INTO tickets.inc (ticket_id, raw) VALUES ('CLUSTER', '{"cluster": "Westlands"}')""")
        raw = Jsonb({"cluster": "Westlands", "location_name": "Gate B"})
        merging.execute("INSERT INTO tickets.inc (ticket_id, raw) VALUES ('LOCATION', %s)", [raw])
        with postgres.transaction(pool) as connection:
            known_places.unset_location(connection, "Westlands", "Gate B")
            known_places.unset_cluster(connection, "Westlands")
    assert sources(pool) == {"CLUSTER": "cluster", "LOCATION": "location"}
    with LocationIQ({}, per_second=None, per_minute=None) as provider:
        batch = look_up(gazetteer(pool, provider))
    assert (batch.outcomes, batch.placed) == ({"miss": 1}, 0)
    assert sources(pool) == {"CLUSTER": None, "LOCATION": None}
    assert execute(pool, "SELECT count(geom) + count(geog) + count(latitude) AS points FROM tickets.inc") == [
        {"points": 0}
    ]


def test_a_place_that_the_gazetteer_does_not_have_at_all_takes_no_ticket_off_the_map(pool: Pool) -> None:
    """What the batch import has placed stays until the provider has been asked."""
    ticket(pool, "ADOPTED")
    execute(pool, "UPDATE tickets.inc SET geom = ST_SetSRID(ST_MakePoint(36.8, -1.2), 4326), geo_source = 'cluster'")
    with LocationIQ({}, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider), limit=0)
        assert sources(pool) == {"ADOPTED": "cluster"}


def test_rows_by_hand_and_rows_of_a_file_are_placed_by_one_rule(pool: Pool, apply: Any) -> None:
    """The trigger has it for one row at a time, the merge for all of them."""
    execute(pool, """
        INSERT INTO tickets.geo_clusters (cluster, latitude, longitude, status)
        VALUES ('Westlands', -1.26, 36.8, 'hit'), ('Karen', -1.3, 36.7, 'rejected'), ('Nyali', NULL, NULL, 'miss');
        INSERT INTO tickets.geo_locations (cluster, location_name, latitude, longitude, status)
        VALUES ('Westlands', 'Gate', -1.27, 36.81, 'hit'), ('Karen', 'Gate', -1.31, 36.71, 'hit'),
               ('Westlands', 'Gap', NULL, NULL, 'miss')
    """)  # fmt: skip
    says = [
        {"cluster": cluster, "location_name": location, "latitude": latitude, "longitude": longitude}
        for cluster in (None, "Westlands", "Karen", "Nyali", "Elsewhere")
        for location in (None, "Gate", "Gap", "Other")
        for latitude, longitude in ((None, None), ("-1.5", "36.5"), ("51.5", "0"), ("-1.5", None))
    ]
    numbered = list(enumerate(says))
    for number, say in numbered:
        execute(pool, "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%(id)s, %(raw)s)",
                {"id": f"HAND{number:03}", "raw": Jsonb(say)})  # fmt: skip
    for then in (numbered, [(number, says[number - 1]) for number, _ in numbered]):
        rows = [
            {"ticket_id": f"FILE{number:03}"} | {name: text or "" for name, text in say.items()} for number, say in then
        ]
        apply(ChangeFile(f"2026-06-25T14{10 + (then is not numbered)}00", csv(rows, ["ticket_id", *says[0]])))
    for number, _ in numbered:
        execute(pool, "UPDATE tickets.inc SET raw = %(raw)s, geom = NULL, geo_source = NULL WHERE ticket_id = %(id)s",
                {"id": f"HAND{number:03}", "raw": Jsonb(says[number - 1])})  # fmt: skip
    by = {
        whose: execute(
            pool,
            "SELECT substr(ticket_id, 5) AS number, geo_source, ST_AsText(geom) AS geom, latitude, longitude"
            " FROM tickets.inc WHERE starts_with(ticket_id, %(whose)s) ORDER BY 1",
            {"whose": whose},
        )
        for whose in ("HAND", "FILE")
    }
    assert by["HAND"] == by["FILE"]
    assert {row["geo_source"] for row in by["FILE"]} == {None, "feed", "location", "cluster"}
