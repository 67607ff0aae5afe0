"""What a person sets or names stands above what the provider says."""

from consumer.geocoding import known_places, locationiq
from consumer.geocoding.gazetteer import Batch
from consumer.geocoding.known_places import PlaceKind, Point
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from tests.doubles.geocoder import (
    UNKNOWN,
    Coordinates,
    Fault,
    LocationIQ,
    error,
)
from tests.integration.gazetteers import (
    MOMBASA,
    NEAR,
    UNHANDLED,
    WESTLANDS,
    execute,
    gazetteer,
    locations,
    look_up,
    move_westlands,
    sources,
    statuses,
    ticket,
    tickets,
)


def test_an_alias_that_is_told_while_its_cluster_is_asked_for_is_asked_for_next(
    pool: Pool, provider: LocationIQ
) -> None:
    tickets(pool, Nowhere=2, KSR=1)
    places = gazetteer(pool, provider)

    def told(_outcome: str) -> None:
        execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('KSR', 'Westlands') ON CONFLICT DO NOTHING")

    places.work(PlaceKind, 100, Batch(), told=told)
    assert statuses(pool) == {"Nowhere": "miss", "KSR": "miss"}
    assert look_up(places).outcomes == {"hit": 1}
    assert statuses(pool)["KSR"] == "hit"
    assert look_up(places).outcomes == {}


def test_a_point_of_another_name_is_none_of_the_alias_that_is_not_found(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1, QOA=1)
    places = gazetteer(pool, provider)
    assert look_up(places).outcomes == {"hit": 1, "miss": 1}
    execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('westlands', 'Nowhere')")
    provider.fault(Fault(*error(UNKNOWN)), locationiq.ATTEMPTS)
    assert look_up(places).outcomes == {"unanswered": 1}
    assert statuses(pool)["Westlands"] == "hit", "no answer is no reason to forget it"
    execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '11 minutes'")
    assert look_up(places).outcomes == {"miss": 1}
    assert statuses(pool)["Westlands"] == "miss"
    assert set(sources(pool).values()) == {None}
    assert look_up(places).outcomes == {}


def test_an_alias_that_is_never_answered_does_not_keep_the_point_of_the_former_name(
    pool: Pool, provider: LocationIQ
) -> None:
    tickets(pool, Westlands=1)
    places = gazetteer(pool, provider)
    assert look_up(places).outcomes == {"hit": 1}
    execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('westlands', 'Nowhere')")
    for status in ("hit", "hit", "miss"):
        provider.fault(Fault(*error(UNKNOWN)), locationiq.ATTEMPTS)
        assert look_up(places).outcomes == {"unanswered": 1}
        assert statuses(pool) == {"Westlands": status}
        execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '11 minutes'")
    assert sources(pool) == {"Westlands0": None}
    assert look_up(places).outcomes == {}


def test_what_is_set_while_its_answer_is_under_way_stays(pool: Pool) -> None:
    def find(query: str) -> Coordinates:
        if query == "Westlands":
            move_westlands(pool, *NEAR)
            return MOMBASA
        with postgres.transaction(pool) as connection:
            known_places.set_location(connection, "Westlands", "Sarit Centre", Point(-1.3, 36.7))
        return WESTLANDS

    ticket(pool, "CLUSTER")
    ticket(pool, "LOCATION", location_name="Sarit Centre", is_actionable="true")
    with LocationIQ(find, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider))
        assert len(provider.searches) == 2
    for table, point in (("geo_clusters", NEAR), ("geo_locations", (-1.3, 36.7))):
        (kept,) = execute(pool, f"SELECT latitude, longitude, provider, is_manual FROM tickets.{table}")  # noqa: S608
        assert tuple(kept.values()) == (*point, "by hand", True)
    placed = execute(pool, "SELECT ticket_id, latitude FROM tickets.inc")
    assert {row["ticket_id"]: row["latitude"] for row in placed} == {"CLUSTER": NEAR[0], "LOCATION": -1.3}


def test_a_point_set_by_hand_was_found_under_no_name(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1)
    look_up(gazetteer(pool, provider))
    assert execute(pool, "SELECT found_as FROM tickets.geo_clusters") == [{"found_as": "Westlands"}]
    move_westlands(pool, *NEAR)
    assert execute(pool, "SELECT found_as FROM tickets.geo_clusters") == [{"found_as": None}]


def test_a_name_that_is_the_same_without_codes_shares_neither_a_point_set_by_hand_nor_one_that_is_due(
    pool: Pool,
) -> None:
    known = {"Westlands": WESTLANDS, "Sarit Centre": NEAR}
    ticket(pool, "FIRST", location_name="Sarit Centre FAT 1", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        execute(pool, "UPDATE tickets.geo_locations SET latitude = -1.2, is_manual = true")
        for number in range(2):
            ticket(pool, f"SECOND{number}", location_name="Sarit Centre FAT 2", is_actionable="true")
        assert look_up(places).outcomes == {"hit": 1}
        assert len(provider.searches) == 3
        found = execute(pool, "SELECT ticket_id, latitude FROM tickets.inc WHERE ticket_id <> 'SECOND1'")
        assert {row["ticket_id"]: row["latitude"] for row in found} == {"FIRST": -1.2, "SECOND0": NEAR[0]}
        # What is due is asked for although the other name, which comes later, has its answer from before.
        execute(pool, "UPDATE tickets.geo_locations SET is_manual = false, is_due = true")
        assert look_up(places).outcomes == {"hit": 2}
        assert len(provider.searches) == 4, "asked for once, and shared"


def test_a_run_by_hand_has_a_request_behind_it_before_it_asks(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1)
    asked: list[int] = []
    places = gazetteer(pool, provider)
    places.work(
        PlaceKind, 100, Batch(), by_hand=True, told=lambda _outcome: asked.append(len(execute(pool, UNHANDLED)))
    )
    assert asked == [1]


def test_a_point_of_a_location_set_by_hand_outlives_answers_and_judgements(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "THERE", location_name="Atlantis", is_actionable="true")
    look_up(gazetteer(pool, provider))
    execute(pool, "UPDATE tickets.geo_locations SET latitude = -4, longitude = 39.6, status = 'hit', is_manual = true")
    execute(pool, "UPDATE tickets.geo_locations SET geocoded_at = '2020-01-01'")
    places = gazetteer(pool, provider, keep_hits_days=1)
    look_up(places)
    move_westlands(pool, -1.3, 36.8)
    assert locations(pool) == {"Atlantis": "hit"}
    assert execute(pool, "SELECT latitude FROM tickets.inc") == [{"latitude": -4}]
