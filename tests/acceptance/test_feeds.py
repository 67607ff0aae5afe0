"""The next feed, without Python: from a sample to rows, as docs/feeds.md tells it, with the promises of every feed."""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from consumer.feeds.declared import packaged_feeds, parse_feed
from publisher.errors import Misconfigured
from tests.stage import city
from tests.stage.broker import FILES
from tests.stage.feeds import lines
from tests.stage.stage import Stage, wait_until

CHANGES = "automations/city/changes/"


@pytest.fixture
def folder(stage: Stage) -> Path:
    """The operator's declarations, none as yet."""
    made = stage.folder / "feeds"
    made.mkdir()
    stage.environment["FLEETTICKETS_FEEDS_DIR"] = str(made)
    return made


@pytest.fixture
def declared(stage: Stage, folder: Path) -> Path:
    """A city's service requests as a feed, with its table."""
    (stage.folder / "sample.csv").write_bytes(city.csv(city.requests(50)))
    new = stage.run("feeds", "new", "city", "--from", str(stage.folder / "sample.csv"), "--apply")
    assert new.returncode == 0, new.stderr
    migrated = stage.run("migrate")
    assert (migrated.returncode, "feed city: declared" in migrated.stdout) == (0, True), migrated.stderr
    return folder / "city.toml"


def key_at(minute: int) -> str:
    return f"{CHANGES}2026-06-01T06{minute:02}00.csv"


def one_request(**values: str) -> bytes:
    return city.csv([{"Unique Key": "1", "Status": "Open"} | values])


def statuses(stage: Stage) -> Mapping[str, str]:
    return {row["ticket_id"]: row["status"] for row in stage.query("SELECT ticket_id, status FROM tickets.city")}


def listed(stage: Stage) -> dict[str, dict[str, object]]:
    return {feed["name"]: feed for feed in stage.ask("feeds", "list")["feeds"]}


def test_from_a_sample_to_rows_as_the_page_tells_it(stage: Stage, folder: Path) -> None:
    sample = stage.folder / "requests.csv"
    sample.write_bytes(city.csv(city.requests(1000)))
    new = ("feeds", "new", "city", "--from", str(sample))
    printed = stage.run(*new).stdout
    assert list(folder.iterdir()) == [], "looked at, and not written"
    assert stage.run(*new, "--apply").returncode == 0
    assert (folder / "city.toml").read_text() == printed
    again = stage.run(*new, "--apply")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert stage.run("feeds", "check").stdout == "right: city, crq, inc\n"
    tried = stage.ask("feeds", "check", str(folder / "city.toml"), "--sample", str(sample))["sample"]
    assert (tried["rows"], tried["accepted"], tried["rejected"]) == (1000, 1000, [])
    assert listed(stage)["city"]["is_made"] is False
    lacking = stage.run("verify")
    assert (lacking.returncode, "run: fleettickets migrate" in lacking.stderr) == (2, True)
    assert "feed city: declared" in stage.run("migrate").stdout
    consumer = stage.start("consume")
    stage.bucket.put(key_at(1), sample.read_bytes())
    stage.announce(key_at(1))
    stage.wait_for("done", key_at(1))
    assert listed(stage)["city"]["rows"] == stage.one("SELECT count(*) FROM tickets.city") == 1000
    found = "SELECT count(*) FROM tickets.city WHERE created_date >= '2024-01-01' AND incident_zip = '00083'"
    assert stage.one(found) > 0
    consumer.stop()
    assert stage.run("verify").returncode == 0


@pytest.mark.usefixtures("declared")
def test_the_statements_that_are_shown_make_what_migrate_makes(stage: Stage) -> None:
    shown = stage.ask("feeds", "sql", "city")
    columns = (
        "SELECT attname AS name, atttypid::regtype::text AS type FROM pg_attribute"
        " WHERE attrelid = 'tickets.city'::regclass AND attnum > 0 ORDER BY attnum"
    )
    made = stage.query(columns)
    stage.connection.execute("DROP TABLE tickets.city CASCADE")
    for statement in shown:
        stage.connection.execute(statement.encode())
    assert stage.query(columns) == made
    assert stage.run("migrate").returncode == 0


@pytest.mark.usefixtures("declared")
@pytest.mark.promise("Order-free", "Late files count", "Exactly once")
def test_its_files_in_any_order_and_often_end_the_same(stage: Stage) -> None:
    consumer = stage.start("consume")
    for minute in (3, 1, 2):
        stage.bucket.put(key_at(minute), one_request(Status=f"as of {minute}"))
        stage.announce(*[key_at(minute)] * 5)
        stage.wait_for("done", key_at(minute))
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    assert statuses(stage) == {"1": "as of 3"}
    decisions = stage.query("SELECT decision FROM ingest.ledger WHERE feed = 'city' ORDER BY file_id")
    assert [row["decision"] for row in decisions] == ["new", "late", "late"]
    consumer.stop()
    assert stage.run("verify", "--old", "0").returncode == 0


@pytest.mark.usefixtures("declared")
@pytest.mark.promise("Nothing lost", "One transaction")
@pytest.mark.parametrize("point", ["after claim", "before commit", "after commit, before archive"])
def test_killed_it_loses_nothing(stage: Stage, point: str) -> None:
    stage.die_at(point, key_at(1), one_request())
    consumer = stage.start("consume")
    stage.wait_for("done", key_at(1))
    assert statuses(stage) == {"1": "Open"}
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    consumer.stop()
    assert stage.run("verify", "--old", "0").returncode == 0


@pytest.mark.promise("One transaction")
def test_migrate_killed_in_the_middle_of_the_tables_leaves_none_and_run_again_makes_all(
    stage: Stage, folder: Path
) -> None:
    """In the order of their names: one is made, the next one is in the making, and one is to come."""
    for name in ("city", "parcels"):
        declaration = f"name = '{name}'\nprefix = '{name}/'\nid = 'id'\ncolumns.id = 'text'\ncolumns.note = 'text'\n"
        (folder / f"{name}.toml").write_text(declaration)
    with psycopg.connect(stage.database) as other, other.transaction():
        other.execute("LOCK TABLE tickets.crq IN ACCESS SHARE MODE")
        doomed = stage.start("migrate")
        waits = "SELECT 1 FROM pg_locks WHERE relation = 'tickets.crq'::regclass AND NOT granted"
        wait_until(lambda: stage.query(waits), "it is at the second feed")
        doomed.kill()
    wait_until(lambda: not stage.query(waits), "the server has noticed")
    assert stage.query("SELECT 1 FROM pg_class WHERE relname ~ '^(city|parcels)'") == []
    assert stage.query("SELECT feed FROM ingest.feeds ORDER BY feed") == [{"feed": "crq"}, {"feed": "inc"}]
    migrated = stage.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert {name: feed["rows"] for name, feed in listed(stage).items()} == dict.fromkeys(
        ("city", "crq", "inc", "parcels"), 0
    )
    for feed in ("city", "parcels"):
        stage.bucket.put(f"{feed}/changes/2026-06-01T060100.csv", b"id,note\n1,x\n")
    assert stage.run("drain", "--apply").returncode == 0
    assert (
        stage.query("SELECT note FROM tickets.city UNION ALL SELECT note FROM tickets.parcels") == [{"note": "x"}] * 2
    )


@pytest.mark.usefixtures("declared")
@pytest.mark.promise("Nothing lost")
def test_its_rows_come_back_from_the_archive(stage: Stage) -> None:
    for minute in (1, 2):
        stage.bucket.put(key_at(minute), one_request(Status=f"as of {minute}"))
    assert stage.run("drain", "--apply").returncode == 0
    stage.connection.execute("TRUNCATE tickets.city, tickets.import_meta")
    stage.connection.execute("TRUNCATE ingest.ledger CASCADE")
    assert stage.run("drain", "--from-archive", "--apply", "--feed", "city").returncode == 0
    assert statuses(stage) == {"1": "as of 2"}
    assert stage.run("verify").returncode == 0


def test_a_declaration_that_is_gone_leaves_table_and_rows_and_is_told(stage: Stage, declared: Path) -> None:
    stage.bucket.put(key_at(1), one_request())
    assert stage.run("drain", "--apply").returncode == 0
    text = declared.read_text()
    declared.unlink()
    migrated = stage.run("migrate")
    assert (migrated.returncode, statuses(stage)) == (0, {"1": "Open"}), migrated.stderr
    gone = {"name": "city", "prefix": "automations/city/", "table": "tickets.city", "rows": 1}
    gone["rows_are_estimated"] = False
    assert stage.ask("feeds", "list")["undeclared"] == [gone]
    verified = stage.run("verify")
    assert verified.returncode == 0
    assert "note: city is declared nowhere any more; its rows and files are not compared" in verified.stderr
    declared.write_text(text)
    assert stage.run("verify").stderr == ""
    assert listed(stage)["city"]["rows"] == 1


def test_a_column_of_another_form_is_told_with_what_to_do(stage: Stage, declared: Path) -> None:
    declared.write_text(declared.read_text().replace('BBL = "number"', 'BBL = "text"'))
    for command in (["migrate"], ["consume"]):
        ended = stage.run(*command)
        assert ended.returncode == 2, ended.stderr
        assert "tickets.city.bbl is numeric, and the declaration of 'city' says text" in ended.stderr
        assert "ALTER TABLE tickets.city DROP COLUMN bbl and migrate again" in ended.stderr
    stage.connection.execute("ALTER TABLE tickets.city DROP COLUMN bbl")
    assert stage.run("migrate").returncode == 0


def test_what_is_to_be_done_is_told_as_the_server_takes_it(stage: Stage, folder: Path) -> None:
    """Where a column or a feed is called as a word of SQL."""
    declaration = "name = 'user'\nprefix = 'user/'\nid = 'id'\ncolumns.id = 'text'\ncolumns.order = '{}'\n"
    (folder / "user.toml").write_text(declaration.format("number"))
    assert stage.run("migrate").returncode == 0
    (folder / "user.toml").write_text(declaration.format("text"))
    told = stage.run("migrate").stderr
    (statement,) = re.findall("or (ALTER TABLE .+) and migrate again", told)
    stage.connection.execute(statement.encode())
    assert stage.run("migrate").returncode == 0


@pytest.mark.parametrize("ending", ["_geom_idx", "_pkey"])
def test_a_feed_that_is_called_as_an_index_of_another_is_refused_before_anything_is_touched(
    stage: Stage, folder: Path, ending: str
) -> None:
    for name in ("city", f"city{ending}"):
        declaration = f"name = '{name}'\nprefix = '{name}/'\nid = 'id'\ncolumns.id = 'text'\ncolumns.note = 'text'\n"
        (folder / f"{name}.toml").write_text(declaration)
    for command in (["feeds", "check"], ["consume"], ["migrate"]):
        refused = stage.run(*command)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert f"feeds 'city' and 'city{ending}' would both have tickets.city{ending} in the database" in refused.stderr
    assert stage.query("SELECT feed FROM ingest.feeds ORDER BY feed") == [{"feed": "crq"}, {"feed": "inc"}]


def test_the_closures_of_another_feed_are_not_counted_among_those_of_the_dashboard(stage: Stage, folder: Path) -> None:
    columns = "columns.id = 'text'\ncolumns.closed_at = 'timestamp'\n"
    (folder / "city.toml").write_text(f"name='city'\nprefix='city/'\nid='id'\nfollow_ons=['history']\n{columns}")
    for command in (["feeds", "check"], ["consume"], ["migrate"]):
        refused = stage.run(*command)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "city.toml: follow_ons: 'history' is for inc alone: closures, daily snapshots" in refused.stderr


def test_a_feed_whose_index_is_called_as_a_table_that_is_there_is_refused(stage: Stage, declared: Path) -> None:
    """That of a feed which is declared nowhere any more: the index would be missing, and nothing would say so."""
    text = declared.read_text()
    declared.unlink()
    stage.connection.execute("DROP INDEX tickets.city_geom_idx")
    stage.connection.execute("CREATE TABLE tickets.city_geom_idx (ticket_id text PRIMARY KEY, raw jsonb)")
    declared.write_text(text)
    refused = stage.run("migrate")
    assert refused.returncode == 2, refused.stdout
    told = "tickets.city_geom_idx has another use: a feed cannot be called 'city'"
    assert told in refused.stderr


def test_no_feed_is_called_as_what_is_there_without_it(stage: Stage) -> None:
    made = {name for feed in packaged_feeds() for schema, name in feed.relations if schema == "tickets"}
    there = stage.query(
        "SELECT relname AS name FROM pg_class WHERE relnamespace = 'tickets'::regnamespace AND relkind <> 'S'"
    )
    free = []
    for name in sorted({row["name"] for row in there} - made):
        with contextlib.suppress(Misconfigured):
            free.append(parse_feed("x.toml", f"name = '{name}'\nprefix = 'x/'\nid = 'id'\ncolumns.id = 'text'\n").name)
    assert free == []


def test_each_wrong_declaration_is_one_line(stage: Stage, folder: Path) -> None:
    good = "name = '{}'\nprefix = '{}/'\nid = 'id'\ncolumns.id = 'text'\n"
    (folder / "a.toml").write_text(good.format("a", "automations/inc"))
    (folder / "b.toml").write_text(good.format("other", "b"))
    (folder / "c.toml").write_text(good.format("c", "c") + "columns.x = 'words'\n")
    (folder / "d.toml").write_bytes(b"name = '\xff'")
    ended = stage.run("feeds", "check")
    assert ended.returncode == 2
    first, second, third, fourth = ended.stderr.splitlines()
    assert first == "b.toml: name: it declares 'other', so the file's name is other.toml"
    assert third.startswith("d.toml: 'utf-8' codec")
    assert second.startswith("c.toml: columns.x.form: Input should be 'text'")
    assert fourth.startswith("feeds 'inc' and 'a' have prefixes 'automations/inc/' and 'automations/inc/'")
    for command in (["feeds", "list"], ["consume"], ["migrate"]):
        refused = stage.run(*command)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


@pytest.mark.parametrize(
    ("name", "content", "options", "told"),
    [
        ("city", None, [], "No such file"),
        ("city", b"", [], "the file is empty"),
        ("city", b"id,n\xe9\n", [], "not UTF-8"),
        ("city", b"PK\x03\x04", [], "not CSV"),
        ("city", b"id\n1\n", ["--id", "other"], "no such column"),
        ("city", b"id\n1\n", ["--prefix", "automations/crq"], "a key could be of both"),
        ("import_meta", b"id\n1\n", [], "has another use"),
        ("Bad-Name", b"id\n1\n", [], "name: String should match"),
        ("inc", b"id\n1\n", [], "is declared already"),
    ],
)
def test_a_slip_is_one_line_and_writes_nothing(  # noqa: PLR0917 - a case in five parts
    stage: Stage, folder: Path, name: str, content: bytes | None, options: list[str], told: str
) -> None:
    sample = stage.folder / "sample.csv"
    if content is not None:
        sample.write_bytes(content)
    ended = stage.run("feeds", "new", name, "--from", str(sample), "--apply", *options)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert told in ended.stderr
    assert list(folder.iterdir()) == []


OF_LITTLE = [["Unique Key", "x" * 1000], *([str(number), "1"] for number in range(2000))]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (city.csv([{"Unique Key": "1", "Created Date": "01/31/2024 10:05:00 AM"}] * 10), "too many rejects"),
        (lines(OF_LITTLE), "out of proportion"),
        (b"Status\nOpen\n", "no Unique Key"),
        (b"Unique Key,\xff\n", "not UTF-8"),
    ],
    ids=["rejects", "proportion", "header", "bytes"],
)
def test_a_sample_that_would_fail_whole_is_told_as_the_arrival_tells_it(
    stage: Stage, declared: Path, content: bytes, reason: str
) -> None:
    sample = stage.folder / "bad.csv"
    sample.write_bytes(content)
    check = ("feeds", "check", str(declared), "--sample", str(sample))
    ended = stage.run(*check)
    told = json.loads(stage.run(*check, "--json").stdout)["sample"]["refused"]
    stage.bucket.put(key_at(1), content)
    assert stage.run("drain", "--apply").returncode == 1
    failed = stage.ledger(key_at(1))
    assert (failed["state"], failed["reason"]) == ("failed", reason)
    # How much was read until then differs with how the bytes come.
    assert (ended.returncode, told["reason"]) == (1, reason), ended.stderr
    assert re.sub(r"[\d,]+", "N", told["detail"]) == re.sub(r"[\d,]+", "N", failed["last_error"])
    assert ended.stderr == f"bad.csv: it would fail whole: {reason}: {told['detail']}\n"


def test_what_of_a_sample_is_rejected_is_told_by_its_reason(stage: Stage, declared: Path) -> None:
    sample = stage.folder / "bad.csv"
    sample.write_bytes(city.csv([{"Unique Key": "1", "Created Date": "01/31/2024 10:05:00 AM"}]))
    ended = stage.run("feeds", "check", str(declared), "--sample", str(sample))
    assert "1 rejected: Created Date is no timestamp; those are " in ended.stdout


def test_the_rows_of_a_large_table_are_estimated_and_those_of_a_small_one_counted(stage: Stage) -> None:
    """Also of one that was never analysed, of which there is no estimate, and of one that has grown since."""
    insert = "INSERT INTO tickets.{} (ticket_id, raw) SELECT n::text, '{{}}' FROM generate_series({}, {}) AS n"
    stage.connection.execute("ALTER TABLE tickets.crq DISABLE TRIGGER USER, SET (autovacuum_enabled = false)")
    stage.connection.execute(insert.format("inc", 1, 1000).encode())
    stage.connection.execute("ANALYZE tickets.inc")
    stage.connection.execute("DELETE FROM tickets.inc WHERE ticket_id::integer > 10")
    stage.connection.execute(insert.format("crq", 1, 100_200).encode())

    def rows(name: str) -> tuple[object, object]:
        found = listed(stage)[name]
        return found["rows"], found["rows_are_estimated"]

    assert (rows("inc"), rows("crq")) == ((10, False), (100_200, False))
    stage.connection.execute("ANALYZE tickets.crq")
    stage.connection.execute(insert.format("crq", 100_201, 150_000).encode())
    estimated, is_estimated = rows("crq")
    assert is_estimated is True
    assert 145_000 < int(str(estimated)) < 155_000
    assert f"~{estimated:,}" in stage.run("feeds", "list").stdout
    assert rows("inc") == (10, False)


def test_a_database_that_is_away_is_said(stage: Stage) -> None:
    away = stage.run("feeds", "list", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (away.returncode, "tickets.inc" in away.stdout) == (1, True)
    assert "rows cannot be told: postgres" in away.stderr
    assert stage.run("feeds", "list", DATABASE_URL="").returncode == 0
