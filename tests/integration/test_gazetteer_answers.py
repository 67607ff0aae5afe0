"""Of what the provider answers, the point that is near and fine enough is kept."""

from collections import Counter

import pytest

from consumer.geocoding import locationiq
from consumer.geocoding.gazetteer import places_that_wait
from consumer.postgres.database import Pool
from consumer.settings import GazetteerSettings
from tests.doubles import geocoder
from tests.doubles.geocoder import (
    UNKNOWN,
    Coordinates,
    Fault,
    Known,
    LocationIQ,
    error,
)
from tests.integration.gazetteers import (
    MOMBASA,
    NEAR,
    WESTLANDS,
    execute,
    gazetteer,
    locations,
    look_up,
    move_westlands,
    sources,
    statuses,
    ticket,
)

KM = 1 / 110.574  # degrees of latitude


def test_the_guard_is_at_25_km_of_the_cluster_wherever_that_is_set(pool: Pool) -> None:
    north = {f"{km} North": (WESTLANDS[0] + km * KM, WESTLANDS[1]) for km in (24, 26)}
    for name in north:
        ticket(pool, name, location_name=name, is_actionable="true")
    with LocationIQ({"Westlands": WESTLANDS} | north, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        assert look_up(places).outcomes == {"hit": 2, "rejected": 1}
        assert locations(pool) == {"24 North": "hit", "26 North": "rejected"}
        assert sources(pool) == {"24 North": "location", "26 North": "cluster"}
        # The cluster turns out to be elsewhere: both answers are judged anew.
        move_westlands(pool, WESTLANDS[0] + 50 * KM, WESTLANDS[1])
        assert locations(pool) == {"24 North": "rejected", "26 North": "hit"}
        assert look_up(places).placed == 2
        assert sources(pool) == {"24 North": "cluster", "26 North": "location"}


def test_what_was_not_near_a_cluster_is_looked_for_near_its_new_point(pool: Pool) -> None:
    mombasa, sarit = (-4.04, 39.66), (-1.26, 36.80)
    known = {"Westlands": [mombasa], "Sarit Centre": [sarit, (-4.05, 39.67)], "Yaya Centre": [sarit]}
    for name in ("Sarit Centre", "Yaya Centre"):
        ticket(pool, name, location_name=name, is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        assert locations(pool) == {"Sarit Centre": "hit", "Yaya Centre": "rejected"}
        move_westlands(pool, WESTLANDS[0], WESTLANDS[1])
        assert locations(pool) == {"Sarit Centre": "rejected", "Yaya Centre": "hit"}
        assert look_up(places).outcomes == {"hit": 1}
        assert look_up(places).outcomes == {}
    assert set(sources(pool).values()) == {"location"}
    assert execute(pool, "SELECT DISTINCT latitude FROM tickets.inc") == [{"latitude": sarit[0]}]


def test_a_cluster_that_is_moved_away_and_back_leaves_its_answers_as_they_were(pool: Pool) -> None:
    known = {"Westlands": WESTLANDS, "Sarit Centre": (-1.26, 36.80), "Zed": (-1.27, 36.81)}
    ticket(pool, "SARIT", location_name="FAT-12 Sarit Centre", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        move_westlands(pool, -4.04, 39.66)
        move_westlands(pool, *WESTLANDS)
        ticket(pool, "SAME", location_name="FAT-13 Sarit Centre", is_actionable="true")
        ticket(pool, "ZED", location_name="Zed", is_actionable="true")
        assert look_up(places).outcomes == {"hit": 2}
        assert [asked.query for asked in provider.searches] == ["Westlands", "Sarit Centre", "Zed"]
    assert set(sources(pool).values()) == {"location"}


def test_a_point_that_is_taken_away_takes_what_was_judged_by_it_along(pool: Pool) -> None:
    """Its answers are held against the cluster's next point, and what is not near that is asked for again."""
    near, far = (-4.05, 39.67), (-1.26, 36.80)
    known: dict[str, Known] = {
        "Westlands": MOMBASA, "Sarit Centre": [near, far], "Likoni": near, "Right Here": WESTLANDS,
    }  # fmt: skip
    for name in ("Sarit Centre", "Likoni", "By Hand", "Nowhere"):
        ticket(pool, name, location_name=name, is_actionable="true")
    ticket(pool, "FED", latitude="-1", longitude="37", location_name="Likoni")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        execute(
            pool,
            """UPDATE tickets.geo_locations SET latitude = -1.3, longitude = 36.7, status = 'hit', is_manual = true
               WHERE location_name = 'By Hand'""",
        )
        look_up(places)
        assert sources(pool) == {
            "Sarit Centre": "location", "Likoni": "location", "By Hand": "location", "Nowhere": "cluster",
            "FED": "feed",
        }  # fmt: skip
        execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('Westlands', 'Mistyped')")
        look_up(places)
        assert sources(pool) == {
            "Sarit Centre": None, "Likoni": None, "By Hand": "location", "Nowhere": None, "FED": "feed",
        }  # fmt: skip
        disowned = execute(pool, "SELECT location_name FROM tickets.geo_locations WHERE is_due AND geom IS NULL")
        assert {row["location_name"] for row in disowned} == {"Sarit Centre", "Likoni", "Nowhere"}
        assert places_that_wait(pool, GazetteerSettings()) == 3
        before = len(provider.searches)
        execute(pool, "UPDATE tickets.cluster_aliases SET place = 'Right Here' WHERE cluster = 'Westlands'")
        look_up(places)
        assert {asked.query for asked in provider.searches[before:]} == {
            "Right Here", "Sarit Centre", "Likoni", "Nowhere",
        }  # fmt: skip
        assert sources(pool) == {
            "Sarit Centre": "location", "Likoni": "cluster", "By Hand": "location", "Nowhere": "cluster", "FED": "feed",
        }  # fmt: skip
        assert locations(pool)["Likoni"] == "rejected"
        assert look_up(places).outcomes == {}


def test_a_rejected_answer_is_kept_when_there_is_no_other(pool: Pool) -> None:
    known = {"Westlands": WESTLANDS, "Bamburi": (-4.0, 39.72)}
    ticket(pool, "HERE", location_name="Bamburi", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider))
        before = execute(pool, "SELECT status, distance_m, answer FROM tickets.geo_locations")
        assert before[0]["status"] == "rejected"
        execute(pool, "UPDATE tickets.geo_locations SET geocoded_at = now() - interval '31 days'")
        provider.fault(Fault(*error(UNKNOWN)), locationiq.ATTEMPTS)
        assert look_up(gazetteer(pool, provider)).outcomes == {"unanswered": 1}
    assert execute(pool, "SELECT status, distance_m, answer FROM tickets.geo_locations") == before


def test_an_answer_for_a_location_whose_cluster_has_no_point_any_more_is_not_kept(pool: Pool) -> None:
    def find(query: str) -> Coordinates:
        if query == "Yaya Centre":
            execute(pool, "UPDATE tickets.geo_clusters SET latitude = NULL, longitude = NULL, status = 'miss'")
        return WESTLANDS

    ticket(pool, "HERE", location_name="Yaya Centre", is_actionable="true")
    with LocationIQ(find, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {"hit": 1, "unanswered": 1}
    assert locations(pool) == {}


@pytest.mark.parametrize(
    ("quality", "cluster", "location"),
    [
        ("exact/centroid/street", "hit", "hit"),
        ("exact/centroid/city", "hit", "rejected"),
        ("fallback/centroid/city", "rejected", None),
        ("exact/centroid/county", "rejected", None),
        ("exact/centroid/state", "rejected", None),
        ("exact/centroid/country", "rejected", None),
        ("exact/centroid/postalcode", "rejected", None),
    ],
)
def test_an_answer_that_is_too_coarse_is_none(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, quality: str, cluster: str, location: str | None
) -> None:
    parts = zip(["matchcode", "matchtype", "matchlevel"], quality.split("/"), strict=True)
    monkeypatch.setattr(geocoder, "MATCH_QUALITY", dict(parts))
    ticket(pool, "HERE", location_name="Westlands", is_actionable="true")
    with LocationIQ({"Westlands": WESTLANDS}, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider))
    assert statuses(pool) == {"Westlands": cluster}
    assert locations(pool) == ({"Westlands": location} if location else {})


NOTHING_NEAR = [MOMBASA, (*NEAR, "city"), (-4.1, 39.6)]


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ([MOMBASA, NEAR, WESTLANDS], ("hit", NEAR)),
        ([MOMBASA, (*WESTLANDS, "city"), NEAR], ("hit", NEAR)),
        ([*[MOMBASA] * 9, NEAR], ("hit", NEAR)),
        (NOTHING_NEAR, ("rejected", MOMBASA)),
    ],
)
def test_of_places_with_one_name_the_first_that_is_near_and_fine_enough_is_taken(
    pool: Pool, known: list[Coordinates], kept: tuple[str, Coordinates]
) -> None:
    ticket(pool, "HERE", location_name="Moi Avenue", is_actionable="true")
    with LocationIQ({"Westlands": WESTLANDS, "Moi Avenue": known}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == Counter(["hit", kept[0]])
        assert len(provider.searches) == 2, "one request for all of them"
    (found,) = execute(pool, "SELECT * FROM tickets.geo_locations")
    assert (found["status"], (found["latitude"], found["longitude"])) == kept
    assert float(found["answer"]["lat"]) == found["latitude"], "what the point came from"
    assert (found["distance_m"] > 25_000) == (found["status"] == "rejected")


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ([(0.0, 0.0), (*MOMBASA, "state"), WESTLANDS, NEAR], ("hit", WESTLANDS)),
        ([(*MOMBASA, "county"), (0.0, 0.0)], ("rejected", MOMBASA)),
    ],
)
def test_of_places_with_a_clusters_name_the_first_in_kenya_that_is_fine_enough_is_taken(
    pool: Pool, known: list[Coordinates], kept: tuple[str, Coordinates]
) -> None:
    ticket(pool, "HERE")
    with LocationIQ({"Westlands": known}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {kept[0]: 1}
    (found,) = execute(pool, "SELECT * FROM tickets.geo_clusters")
    assert (found["status"], (found["latitude"], found["longitude"])) == kept
    assert float(found["answer"]["lat"]) == found["latitude"], "what the point came from"


def test_a_cluster_outside_the_country_is_none_and_is_asked_for_without_its_region(pool: Pool) -> None:
    ticket(pool, "A", cluster="Zero", region="coast")
    with LocationIQ({"Zero, coast": (0.0, 0.0)}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {"rejected": 1}
        assert [asked.query for asked in provider.searches] == ["Zero, coast", "Zero"]
    assert sources(pool) == {"A": None}
