"""Requests are worked off in batches, one at a time, and none is forgotten or kept waiting for another."""

import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from consumer.follow_ons import geocode as geocode_module
from consumer.follow_ons.geocode import GeocodeHandler
from consumer.follow_ons.history import capture
from consumer.geocoding import gazetteer as gazetteer_module
from consumer.geocoding import known_places, quota
from consumer.geocoding.gazetteer import Batch, Gazetteer, places_that_wait
from consumer.geocoding.known_places import PlaceKind, Point
from consumer.geocoding.quota import Paused
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import GazetteerSettings
from publisher.errors import HeldByAnother
from publisher.trace import Trace
from tests.doubles.geocoder import (
    Coordinates,
    LocationIQ,
)
from tests.integration.gazetteers import (
    FEEDS,
    UNHANDLED,
    WESTLANDS,
    execute,
    gazetteer,
    look_up,
    pass_time,
    settings,
    ticket,
    tickets,
)
from tests.stage.stage import wait_until


def test_a_paused_message_costs_a_look_at_the_pause(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "_DAYS_BEGINNING", timedelta())  # whatever time it is
    tickets(pool, Westlands=1)
    execute(pool, "INSERT INTO ingest.outbox (kind) VALUES ('geocode')")
    places = gazetteer(pool, provider)
    places.quota.limited("day", "Rate Limited Day")
    assert places.quota.left() == 0
    handler = GeocodeHandler(pool, places, lambda _trace: 0, lambda _point: None)
    with gazetteer(pool, provider)._turn.held(), pytest.raises(Paused):  # noqa: SLF001 - whoever begins would be held by it
        handler.geocode(Batch())


def test_what_waits_is_what_would_be_asked_for_if_its_cluster_had_a_point(pool: Pool, provider: LocationIQ) -> None:
    def waiting() -> int:
        return places_that_wait(pool, GazetteerSettings())

    for number, name in enumerate("AAB"):
        ticket(pool, f"{number}", cluster="Nowhere", location_name=f"Gate {name}", is_actionable="true")
    ticket(pool, "CLOSED", cluster="Nowhere", location_name="Gate C", is_actionable="false")
    ticket(pool, "FED", cluster="Nowhere", location_name="Gate D", is_actionable="true", latitude="-1", longitude="37")
    ticket(pool, "KNOWN", location_name="Gate E", is_actionable="true")
    execute(pool, """INSERT INTO tickets.inc (ticket_id, raw) VALUES ('NONE', '{"location_name": "F"}')""")
    look_up(gazetteer(pool, provider))
    assert waiting() == 2
    with postgres.transaction(pool) as connection:
        known_places.set_location(connection, "Nowhere", "Gate A", Point(-1.2, 36.8))
    assert waiting() == 1, "one was set by hand"
    execute(
        pool,
        """INSERT INTO tickets.geo_locations (cluster, location_name, status) VALUES ('Nowhere', 'Gate B', 'miss')""",
    )
    assert waiting() == 0, "one is a miss for now"
    pass_time(pool, days=31)
    assert waiting() == 1, "which is to be asked for again"
    brief = GazetteerSettings.model_validate({"FLEETTICKETS_KEEP_PLACES_DAYS": 1})
    assert places_that_wait(pool, brief) == 1, "what was set by hand does not age"


def test_the_rest_of_a_batch_is_sent_for_at_once(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geocode_module, "BATCH", 1)
    tickets(pool, Westlands=2, B=1)
    execute(pool, "INSERT INTO ingest.outbox (kind) VALUES ('geocode')")
    relayed: list[int] = []
    traces: list[Trace | None] = []

    def relay(trace: Trace | None) -> None:
        relayed.extend(row["request_id"] for row in execute(pool, UNHANDLED))
        traces.append(trace)

    handler = GeocodeHandler(pool, gazetteer(pool, provider), relay, lambda _point: None)
    trace = Trace.of(b"the message that asked")
    handler.geocode(Batch(), trace)
    assert len(relayed) == 1, "what is asked for is there already when it is sent"
    assert traces == [trace]
    handler.geocode(Batch())
    assert len(relayed) == 1, "nothing is left"
    assert execute(pool, UNHANDLED) == []


TAKEN = "UPDATE ingest.leases SET holder = 'another', since = now(), until = now() + %(for)s"


def test_a_batch_whose_turn_somebody_else_has_taken_asks_nothing_more(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, A=3, B=2, C=1)

    def take(_outcome: str) -> None:
        execute(pool, TAKEN, {"for": timedelta(hours=1)})

    with pytest.raises(HeldByAnother, match="another is at it"):
        gazetteer(pool, provider).work(PlaceKind, 100, Batch(), told=take)
    assert len(provider.searches) == 1
    execute(pool, TAKEN, {"for": timedelta(seconds=-1)})
    assert look_up(gazetteer(pool, provider)).outcomes == {"miss": 2}, "that one has died"


def test_a_wait_for_the_quota_keeps_the_turn_and_ends_with_it(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "_LOOK_SECONDS", 0.1)
    tickets(pool, A=2, B=1)
    slow = settings(provider.url, GEOCODER_PER_MINUTE=1)
    places = Gazetteer(pool, FEEDS, GazetteerSettings(), slow, threading.Event())
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(places.work, PlaceKind, 100, Batch())
        wait_until(lambda: len(provider.searches) == 1, "the minute is spent")
        (before,) = execute(pool, "SELECT until FROM ingest.leases")
        wait_until(
            lambda: execute(pool, "SELECT 1 FROM ingest.leases WHERE until > %(until)s", before), "it is renewed"
        )
        execute(pool, TAKEN, {"for": timedelta(hours=1)})
        with pytest.raises(HeldByAnother):
            running.result(30)
    assert len(provider.searches) == 1


def test_no_lock_that_a_reader_can_take_holds_up_lookups_or_captures(pool: Pool, provider: LocationIQ) -> None:
    """Whoever may log in can take any advisory lock; a row can only be locked by who may write it."""
    tickets(pool, Westlands=1)
    names = ["ingest.geocode", "ingest.geocoder_requests", "ingest.history"]
    execute(pool, "INSERT INTO ingest.outbox (kind) VALUES ('geocode')")
    with postgres.transaction(pool) as reading:
        reading.execute("RESET ROLE")
        reading.execute("""
            SELECT set_config('role', rolname, true) FROM pg_roles
            WHERE starts_with(rolname::text, 'fleettickets_read') AND has_schema_privilege(oid, 'ingest', 'USAGE')
        """)
        reading.execute(
            """SELECT pg_advisory_xact_lock(hashtext(name)) FROM unnest(%s::text[]) AS name
               UNION ALL SELECT pg_advisory_xact_lock(hashtextextended('tickets.capture_history', 0))""",
            [names],
        )
        for statement in (
            b"SELECT FROM ingest.locks FOR KEY SHARE",
            b"SELECT FROM ingest.locks FOR UPDATE",
            b"UPDATE ingest.leases SET until = 'infinity'",
            b"LOCK TABLE ingest.locks, ingest.leases IN ROW SHARE MODE",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), reading.transaction():
                reading.execute(statement)
        reading.execute("LOCK TABLE ingest.locks, ingest.leases IN ACCESS SHARE MODE")
        with ThreadPoolExecutor(2) as threads:
            running = threads.submit(look_up, gazetteer(pool, provider)), threads.submit(capture, pool, unasked=True)
            wait_until(lambda: all(one.done() for one in running), "nothing waits for the reader")
    assert running[0].result().outcomes == {"hit": 1}


def request(pool: Pool, file_id: int) -> None:
    """Ask as the file's transaction does, whether for the first time or anew."""
    with postgres.transaction(pool) as connection:
        postgres.rows(connection, "merge", "request_follow_ons", {"file_ids": [file_id], "kinds": ["geocode"]})


def file_of(pool: Pool, *clusters: str, location: str = "") -> int:
    """A file that has put one ticket into each cluster, and asks for their places."""
    (made,) = execute(
        pool,
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state)
           VALUES ('b', 'p/', %(key)s, 'e', 1, 'poller', 'new', 'archived') RETURNING file_id""",
        {"key": f"{clusters[0]} {location}"},
    )
    for cluster in clusters:
        name = f"{cluster} {location}"
        ticket(pool, name, cluster=cluster, location_name=location, is_actionable=str(bool(location)))
        execute(
            pool,
            """INSERT INTO ingest.positions (ticket_id, position, file_id)
               VALUES (%(name)s, ROW(1, now(), 'k', now(), 'e', 1), %(file_id)s)""",
            {"name": name, "file_id": made["file_id"]},
        )
    request(pool, made["file_id"])
    return int(made["file_id"])


def test_a_request_that_is_asked_anew_while_its_batch_runs_stays_open(pool: Pool) -> None:
    def find(query: str) -> Coordinates | None:
        if query == "Westlands":
            request(pool, file_id)  # its bytes are back under their key
        return WESTLANDS

    file_id = file_of(pool, "Westlands")
    with LocationIQ(find, per_second=None, per_minute=None) as provider:
        handler = GeocodeHandler(pool, gazetteer(pool, provider), lambda _trace: 0, lambda _point: None)
        handler.geocode(Batch())
        assert len(provider.searches) == 1
        assert len(execute(pool, UNHANDLED)) == 1
        handler.geocode(Batch())
        assert execute(pool, UNHANDLED) == []


def due(pool: Pool) -> bool:
    return bool(execute(pool, "SELECT 1 FROM ingest.outbox WHERE handled_at IS NULL AND due_at <= now()"))


def test_a_file_of_made_up_places_does_not_spend_the_day_of_the_others(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazetteer_module, "MANY", 5, raising=False)
    limits = settings(provider.url, GEOCODER_PER_DAY=20)
    relayed: list[int] = []
    places = Gazetteer(pool, FEEDS, GazetteerSettings(), limits, threading.Event())
    handler = GeocodeHandler(pool, places, lambda _trace: len(relayed), lambda _point: None)

    def work() -> list[str]:
        before = len(provider.searches)
        with suppress(Paused):
            while due(pool):
                handler.geocode(Batch())
        return [asked.query for asked in provider.searches[before:]]

    file_of(pool, *(f"Made up {number:02}" for number in range(30)))
    file_of(pool, "Westlands", location="Sarit Centre")
    asked = work()
    assert asked[:2] == ["Westlands", "Sarit Centre"], "those of few come first, their locations too"
    assert len(asked) == 10, "and those of many leave half of the day"
    file_of(pool, "Kangemi", location="Nowhere")
    assert work() == ["Kangemi"], "who comes later is not kept waiting"
    (open_request,) = execute(pool, "SELECT file_id, due_at FROM ingest.outbox WHERE handled_at IS NULL")
    assert open_request["file_id"] is None
    assert open_request["due_at"] > datetime.now(UTC), "the rest is asked for with the next day's requests"
    execute(pool, "UPDATE ingest.geocoder_requests SET booked_at = '2020-01-01', ended_at = '2020-01-01'")
    execute(pool, "UPDATE ingest.outbox SET due_at = now() WHERE handled_at IS NULL")
    assert len(work()) == 10
    by_hand = Batch()
    with suppress(Paused):
        places.work([PlaceKind.CLUSTERS], 100, by_hand, by_hand=True)
    assert by_hand.outcomes.total() == 10, "a person who asks for them spends the rest"


@pytest.mark.promise("Bounded")
def test_of_any_number_of_places_only_the_next_few_are_held(pool: Pool, provider: LocationIQ) -> None:
    execute(
        pool,
        """INSERT INTO tickets.inc (ticket_id, raw)
           SELECT n, jsonb_build_object('cluster', 'Made up ' || n) FROM generate_series(1, 20000) AS n""",
    )
    look_up(gazetteer(pool, provider), limit=1)  # what is imported and prepared once
    tracemalloc.start()
    try:
        assert look_up(gazetteer(pool, provider), limit=1).rest
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000


def test_a_batch_ends_after_its_time_and_says_that_there_is_more(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, A=1, B=1, C=1)
    batch = Batch()
    gazetteer(pool, provider).work(PlaceKind, 100, batch, seconds=0)
    assert (batch.outcomes, batch.rest) == ({"miss": 1}, True)


def test_without_an_open_request_nothing_is_done(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1)
    handler = GeocodeHandler(pool, gazetteer(pool, provider), lambda _trace: 0, lambda _point: None)
    batch = Batch()
    with gazetteer(pool, provider)._turn.held():  # noqa: SLF001 - it would be waited for
        handler.geocode(batch)
    assert (batch, provider.searches) == (Batch(), [])


def test_one_looks_up_at_a_time(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "HERE")
    held = gazetteer(pool, provider)._turn.held()  # noqa: SLF001 - as a second process would
    with held, pytest.raises(HeldByAnother, match=rf"process {os.getpid()} .* is at it since"):
        look_up(gazetteer(pool, provider))
    assert look_up(gazetteer(pool, provider)).outcomes == {"hit": 1}
