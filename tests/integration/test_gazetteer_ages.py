"""What is known is kept for as long as was asked, and asked for again after that."""

from consumer.postgres.database import Pool
from tests.doubles.geocoder import (
    LocationIQ,
)
from tests.integration.gazetteers import WESTLANDS, execute, gazetteer, look_up, pass_time, sources, ticket, tickets


def test_a_point_that_is_too_old_is_asked_for_again_and_stays_when_that_finds_nothing(
    pool: Pool, provider: LocationIQ
) -> None:
    ticket(pool, "HERE")
    look_up(gazetteer(pool, provider))
    execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '3 days'")
    assert look_up(gazetteer(pool, provider)).outcomes == {}, "kept for good"
    with LocationIQ({}, per_second=None, per_minute=None) as forgetful:
        places = gazetteer(pool, forgetful, keep_hits_days=2)
        assert look_up(places).outcomes == {"miss": 1}
        assert look_up(places).outcomes == {}, "it counts as asked"
    (kept,) = execute(pool, "SELECT status, latitude FROM tickets.geo_clusters")
    assert (kept["status"], kept["latitude"]) == ("hit", WESTLANDS[0])
    assert sources(pool) == {"HERE": "cluster"}


def test_a_miss_is_asked_for_again_after_its_days(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "HERE", cluster="Atlantis")
    places = gazetteer(pool, provider)
    assert look_up(places).outcomes == {"miss": 1}
    assert look_up(places).outcomes == {}
    execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '31 days'")
    assert look_up(places).outcomes == {"miss": 1}


def test_a_shared_answer_is_as_old_as_it_was(pool: Pool, provider: LocationIQ) -> None:
    def name(number: int) -> None:
        ticket(pool, f"{number}", location_name=f"Westlands FAT {number}", is_actionable="true")

    name(1)
    places = gazetteer(pool, provider, keep_hits_days=2)
    assert look_up(places).outcomes == {"hit": 2}
    pass_time(pool, days=1)
    name(2)
    assert look_up(places).outcomes == {"hit": 1}
    assert len(provider.searches) == 2, "the cluster and the first name"
    pass_time(pool, days=1)
    assert look_up(places).outcomes == {"hit": 3}
    assert len(provider.searches) == 4, "all three are too old; the two share again"


def test_a_blank_cluster_is_a_miss_that_nobody_is_asked_for(pool: Pool, provider: LocationIQ) -> None:
    """The cleaning leaves none; a database that was taken over may have some."""
    for number, blank in enumerate(["", " ", "\u00a0"]):
        ticket(pool, f"{number}", cluster=blank)
    tickets(pool, Westlands=1)
    assert look_up(gazetteer(pool, provider)).outcomes["hit"] == 1
    assert look_up(gazetteer(pool, provider)).outcomes == {}
    assert len(provider.searches) == 1
