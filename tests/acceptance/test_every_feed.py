"""What is promised, once for each feed that is declared: order, duplicates, crashes, late files, rejects, restores.

What is said of incidents in detail elsewhere holds for the others by one engine; here each feed is seen to run on it,
one of the operator's own, with other names for everything, among them.
"""

import itertools
import signal
from dataclasses import dataclass

import pytest
from psycopg import sql

from consumer.feeds.declared import packaged_feeds, parse_feed
from consumer.feeds.feed import Feed
from tests.stage.broker import FILES, GEOCODE
from tests.stage.feeds import lines
from tests.stage.stage import Stage, wait_until

FEEDS = packaged_feeds()
DECLARATION = """
name = "parcels"
prefix = "depots/west/parcels/"
id = "Parcel No"
sentinel = "END OF REPORT"
follow_ons = ["geocode"]
columns."Delivered On" = { form = "timestamp", column = "delivered" }
columns."Parcel No" = "text"
columns."Handed To" = { form = "text", column = "order" }
columns.Weight = "number"
columns.cluster = "text"
columns.location_name = "text"
"""
PARCELS = parse_feed("parcels.toml", DECLARATION)
NAMES = [f"2026-06-01T06{minute:02}00.csv" for minute in range(60)]


@dataclass(frozen=True)
class Names:
    """What a feed calls an owner and an end in its files, and the first in its table."""

    owner: str = "owner"
    ended: str = "closed_at"
    owner_typed: str = "owner"


USUAL = Names()
OF_PARCELS = Names("Handed To", "Delivered On", "order")


def names(feed: Feed) -> Names:
    return OF_PARCELS if feed is PARCELS else USUAL


@pytest.fixture(params=[*FEEDS, PARCELS], ids=lambda feed: feed.name)
def feed(request: pytest.FixtureRequest, stage: Stage) -> Feed:
    """Each one, with its tables."""
    found: Feed = request.param
    if found is PARCELS:
        declare_parcels(stage)
    return found


def declare_parcels(stage: Stage) -> None:
    folder = stage.folder / "feeds"
    folder.mkdir()
    (folder / "parcels.toml").write_text(DECLARATION)
    stage.environment["FLEETTICKETS_FEEDS_DIR"] = str(folder)
    migrated = stage.run("migrate")
    assert migrated.returncode == 0, migrated.stderr


def key_of(feed: Feed, minute: int) -> str:
    return f"{feed.folder.changes}{NAMES[minute]}"


def body(feed: Feed, *rows: tuple[str, str]) -> bytes:
    """Rows of an id and an owner."""
    return lines([[feed.id, names(feed).owner], *rows])


def owners(stage: Stage, feed: Feed) -> dict[str, str]:
    query = sql.SQL("SELECT ticket_id, {} AS owner FROM {}").format(
        sql.Identifier(names(feed).owner_typed), sql.Identifier(*feed.table)
    )
    return {row["ticket_id"]: row["owner"] for row in stage.connection.execute(query)}


def put(stage: Stage, feed: Feed, files: dict[int, bytes]) -> list[str]:
    stage.bucket.put_all({key_of(feed, minute): content for minute, content in files.items()})
    return [key_of(feed, minute) for minute in files]


def assert_accounted_for(stage: Stage, *, old: str = "0") -> None:
    """By a drain the requests are left for a consumer, which is no discrepancy before they are old."""
    ended = stage.run("verify", "--old", old)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.promise("Order-free", "Late files count")
@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3)))[::2])
def test_files_in_any_order_end_the_same(stage: Stage, feed: Feed, order: tuple[int, ...]) -> None:
    consumer = stage.start("consume")
    contents = {minute: body(feed, (f"T{minute}", str(minute)), ("SHARED", str(minute))) for minute in (1, 2, 3)}
    for minute in order:
        (key,) = put(stage, feed, {minute: contents[minute]})
        stage.announce(key)
        stage.wait_for("done", key)
    assert owners(stage, feed) == {"T1": "1", "T2": "2", "T3": "3", "SHARED": "3"}
    newest = stage.ask("status")["database"]["feeds"][feed.name]["watermark"]
    assert newest == key_of(feed, 3)
    consumer.stop()
    assert_accounted_for(stage)


@pytest.mark.promise("Exactly once")
def test_a_file_announced_often_is_applied_once(stage: Stage, feed: Feed) -> None:
    first, second = stage.start("consume"), stage.start("consume")
    (key,) = put(stage, feed, {1: body(feed, ("A", "a"), ("A", "last"), ("B", "b"))})
    stage.announce(*[key] * 20)
    stage.wait_for("done", key)
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    row = stage.ledger(key)
    assert (row["feed"], row["rows_read"], row["rows_inserted"], row["rows_superseded"]) == (feed.name, 3, 2, 1)
    assert owners(stage, feed) == {"A": "last", "B": "b"}
    for consumer in (first, second):
        consumer.stop()
    assert_accounted_for(stage)


@pytest.mark.promise("Nothing lost", "One transaction")
@pytest.mark.parametrize(
    "point",
    [
        "after claim",
        "before commit",
        "after commit, before archive",
        "after copy, before delete",
        "after delete, before state",
        "relay published, not marked",
    ],
)
def test_killed_anywhere_nothing_is_lost_and_nothing_twice(stage: Stage, feed: Feed, point: str) -> None:
    key = key_of(feed, 1)
    stage.die_at(point, key, body(feed, ("A", "a"), ("B", "b")))
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    assert owners(stage, feed) == {"A": "a", "B": "b"}
    assert stage.bucket.keys() == [f"{feed.folder.processed}{NAMES[1]}"]
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    consumer.stop()
    assert_accounted_for(stage)


@pytest.mark.promise("One bad thing stays one bad thing")
def test_rows_that_cannot_be_tickets_are_kept_and_the_sentinel_is_dropped(stage: Stage, feed: Feed) -> None:
    rows = [("GOOD", "a", ""), ("BAD", "b", "yesterday"), ("", "c", ""), (str(feed.sentinel), "", "")]
    consumer = stage.start("consume")
    (key,) = put(stage, feed, {1: lines([[feed.id, names(feed).owner, names(feed).ended], *rows])})
    stage.announce(key)
    stage.wait_for("done", key)
    row = stage.ledger(key)
    assert (row["rows_rejected"], row["sentinels_dropped"], row["rows_inserted"]) == (2, 1, 1)
    first, second = stage.query("SELECT line, reason FROM ingest.rejects ORDER BY line")
    assert first["line"] == 3
    assert first["reason"].startswith(f"{names(feed).ended} 'yesterday' is no timestamp; those are ")
    assert (second["line"], second["reason"]) == (4, f"has no {feed.id}")
    assert owners(stage, feed) == {"GOOD": "a"}
    consumer.stop()
    assert_accounted_for(stage)


def test_a_file_without_the_feeds_id_is_a_dead_letter_that_can_be_mended(stage: Stage, feed: Feed) -> None:
    consumer = stage.start("consume")
    (key,) = put(stage, feed, {1: b"another,owner\nA,a\n"})
    stage.announce(key)
    stage.wait_for("failed", key)
    (letter,) = stage.ask("dead-letters", "list", "--each")
    assert (letter["key"], letter["reason"]) == (key, f"no {feed.id}")
    stage.bucket.put(key, body(feed, ("A", "a")))
    assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--all")["replayed"]) == 1
    wait_until(lambda: owners(stage, feed) == {"A": "a"}, "what is there now is applied")
    consumer.stop()


@pytest.mark.promise("Nothing lost")
def test_a_database_that_was_lost_is_brought_back_from_the_archive(stage: Stage, feed: Feed) -> None:
    contents = {minute: body(feed, (f"T{minute}", "x"), ("SHARED", str(minute))) for minute in (1, 2)}
    put(stage, feed, contents)
    assert stage.run("drain", "--apply").returncode == 0
    before = owners(stage, feed)
    stage.connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(*feed.table)))
    stage.connection.execute("TRUNCATE tickets.closure_events, tickets.import_meta")
    stage.connection.execute("TRUNCATE ingest.ledger CASCADE")
    assert owners(stage, feed) == {}
    assert stage.run("verify").returncode == 1
    assert stage.run("drain", "--from-archive", "--apply", "--feed", feed.name).returncode == 0
    assert owners(stage, feed) == before == {"T1": "x", "T2": "x", "SHARED": "2"}
    assert_accounted_for(stage, old="300")


@pytest.mark.promise("Nothing lost")
def test_the_poller_offers_what_nobody_announced(stage: Stage, feed: Feed) -> None:
    consumer = stage.start("consume")
    keys = put(stage, feed, {minute: body(feed, (f"T{minute}", "x")) for minute in (1, 2)})
    assert stage.ask("poll", "--feed", feed.name)["published"] == 2
    stage.wait_for("done", *keys)
    consumer.stop()


def test_feeds_share_names_of_files_and_ids_of_tickets_and_nothing_else(stage: Stage) -> None:
    """One queue, one consumer: the same name and the same id in each, and newer and older files beside each other."""
    consumer = stage.start("consume")
    for minute in (5, 3, 4):
        keys = [put(stage, feed, {minute: body(feed, ("SAME", f"{feed.name} {minute}"))})[0] for feed in FEEDS]
        stage.announce(*keys)
        stage.wait_for("done", *keys)
    assert {feed.name: owners(stage, feed) for feed in FEEDS} == {
        feed.name: {"SAME": f"{feed.name} 5"} for feed in FEEDS
    }
    decisions = "SELECT feed, array_agg(decision ORDER BY file_id) AS decisions FROM ingest.ledger GROUP BY feed"
    assert {row["feed"]: row["decisions"] for row in stage.query(decisions)} == {
        feed.name: ["new", "late", "late"] for feed in FEEDS
    }
    told = stage.run("explain", "--ticket", "SAME")
    assert (told.returncode, "say which, --feed" in told.stderr) == (2, True)
    assert stage.ask("explain", "--ticket", "SAME", "--feed", "crq")["writer"]["key"] == key_of(FEEDS.named("crq"), 5)
    consumer.stop()
    assert_accounted_for(stage)


def test_a_new_epoch_of_one_feed_leaves_the_others_as_they_are(stage: Stage) -> None:
    for feed in FEEDS:
        put(stage, feed, {5: body(feed, ("A", "newer"))})
    assert stage.run("drain", "--apply").returncode == 0
    assert stage.ask("reseed", "--yes", "--feed", "crq") == {"epochs": {"crq": 2}}
    for feed in FEEDS:
        put(stage, feed, {1: body(feed, ("A", "older"))})
    assert stage.run("drain", "--apply").returncode == 0
    assert {feed.name: owners(stage, feed)["A"] for feed in FEEDS} == {"crq": "older", "inc": "newer"}
    assert_accounted_for(stage, old="300")


def test_who_does_not_serve_a_feed_leaves_its_files_to_the_others(stage: Stage) -> None:
    inc, crq = FEEDS.named("inc"), FEEDS.named("crq")
    only_inc = stage.start("consume", FLEETTICKETS_FEEDS="inc")
    keys = [put(stage, feed, {1: body(feed, ("A", feed.name))})[0] for feed in (inc, crq)]
    stage.announce(*keys)
    stage.wait_for("done", keys[0])
    wait_until(lambda: "not served" in only_inc.output() or stage.broker.ready("fleettickets.retry.5s"), "it is left")
    assert stage.query("SELECT 1 FROM ingest.ledger WHERE feed = 'crq'") == []
    assert stage.query("SELECT reason FROM ingest.ignored_events") == [], "and not taken for a stranger's"
    everything = stage.start("consume")
    stage.wait_for("done", keys[1])
    assert owners(stage, crq) == {"A": "crq"}
    for consumer in (only_inc, everything):
        consumer.stop()
    assert_accounted_for(stage)


def test_a_feed_that_another_process_alone_knows_is_left_to_it(stage: Stage) -> None:
    """A declaration of the operator's own that this process was not given: the database has it."""
    stage.query(
        "INSERT INTO ingest.feeds (feed, prefix, declaration) VALUES ('theirs', 'automations/theirs/', '{}')"
        " RETURNING 1"
    )
    key = f"automations/theirs/changes/{NAMES[1]}"
    stage.bucket.put(key, b"ticket_id\nA\n")
    consumer = stage.start("consume")
    stage.announce(key)
    wait_until(lambda: stage.broker.ready("fleettickets.retry.5s") == 1, "it is put aside, with nothing decided")
    consumer.stop()
    assert stage.query("SELECT 1 FROM ingest.ledger UNION ALL SELECT 1 FROM ingest.ignored_events") == []


@pytest.mark.promise("Nothing lost", "Exactly once")
@pytest.mark.parametrize("feed", [FEEDS.named("crq"), PARCELS], ids=["declared here", "known to the database alone"])
def test_killed_while_it_leaves_a_file_to_others_it_is_applied_once_by_who_serves_it(stage: Stage, feed: Feed) -> None:
    """Published for the others and not acked: it comes to them twice."""
    declare_parcels(stage)
    not_serving = {"FLEETTICKETS_FEEDS_DIR": ""} if feed is PARCELS else {"FLEETTICKETS_FEEDS": "inc"}
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT="sent on, before ack", **not_serving)
    (key,) = put(stage, feed, {1: body(feed, ("A", "a"))})
    stage.announce(key)
    assert doomed.wait() == -signal.SIGKILL, doomed.output()
    wait_until(lambda: stage.broker.ready(FILES) >= 1, "the delivery is in the queue again")
    assert stage.query("SELECT 1 FROM ingest.ledger UNION ALL SELECT 1 FROM ingest.ignored_events") == []
    consumer = stage.start("consume")
    wait_until(lambda: "duplicate" in consumer.output(), "what was published comes, too, and only counts")
    row = stage.ledger(key)
    assert (row["state"], row["rows_inserted"], row["duplicates"]) == ("done", 1, 1)
    assert owners(stage, feed) == {"A": "a"}
    consumer.stop()
    assert_accounted_for(stage)


def test_a_change_request_is_placed_by_the_gazetteer_of_all_and_has_no_history(stage: Stage) -> None:
    crq = FEEDS.named("crq")
    stage.start("consume")
    (key,) = put(
        stage, crq, {1: lines([["ticket_id", "cluster", "closed_at"], ["A", "Westlands", "2026-06-01 10:00"]])}
    )
    stage.announce(key)
    stage.wait_for("done", key)
    requests = stage.query("SELECT kind FROM ingest.outbox")
    assert requests == [{"kind": "geocode"}]
    assert stage.query("SELECT 1 FROM tickets.closure_events") == []
    wait_until(lambda: stage.broker.ready(GEOCODE) == 1, "it waits for a geocoder")
    placed = stage.run("geocode", "set", "--cluster", "Westlands", "--json", "--", "-1.2676", "36.8108")
    assert Stage.json(placed)["placed"] == 1
    assert stage.query("SELECT geo_source, latitude FROM tickets.crq") == [
        {"geo_source": "cluster", "latitude": -1.2676}
    ]


def test_two_consumers_of_other_feeds_die_and_each_feed_is_whole(stage: Stage) -> None:
    doomed = {
        name: stage.start("consume", FLEETTICKETS_FEEDS=name, FLEETTICKETS_FAIL_POINT="before commit")
        for name in ("inc", "crq")
    }
    keys = [put(stage, feed, {1: body(feed, ("A", feed.name))})[0] for feed in FEEDS]
    stage.announce(*keys)
    for consumer in doomed.values():
        assert consumer.wait() == -signal.SIGKILL
    survivor = stage.start("consume")
    stage.wait_for("done", *keys)
    assert [owners(stage, feed) for feed in FEEDS] == [{"A": feed.name} for feed in FEEDS]
    survivor.stop()
    assert_accounted_for(stage)
