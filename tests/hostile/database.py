"""A database that an administrator holds, and a login that may only read and takes every lock it can think of."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from tests.hostile.hostility import Act, Hostility
from tests.stage.feeds import csv

SQL = Path(__file__).parents[2] / "sql"
_NAMED = re.compile(r"hashtext(?:extended)?\('([^']+)'")
_TABLES = "ingest.ledger, ingest.outbox, ingest.positions, tickets.inc, tickets.import_meta"


def _names() -> Iterator[str]:
    """Every name that the program makes a lock of, and what somebody might guess beside those."""
    found = {name for file in SQL.rglob("*.sql") for name in _NAMED.findall(file.read_text())}
    yield from sorted(found | {"ingest.dry_run", "ingest.history", "ingest.geocode", "ingest.geocoder_requests"})


def _every_lock(act: Act) -> None:
    """As a session, so that no end of a transaction gives them back: by name, and those of the next file's key."""
    key = act.key()
    with psycopg.connect(act.world.dashboard, autocommit=True) as reader:
        for name in _names():
            reader.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (name,))
            reader.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,))
        name = f"{act.stage.bucket.name}/{key}"
        reader.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        _applied_meanwhile(act, key, "a reader holds every advisory lock")
        handled = "SELECT count(*) AS open FROM ingest.outbox WHERE kind = 'history' AND handled_at IS NULL"
        act.wait_for(
            lambda: act.stage.one(handled) == 0, "no history is captured while a reader holds every advisory lock"
        )


def _reads_for_long(act: Act) -> None:
    """A snapshot that is kept, a lock that a reader is given, rows that are looked at one by one."""
    key = act.key()
    with psycopg.connect(act.world.dashboard) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute(f"LOCK TABLE {_TABLES} IN ACCESS SHARE MODE".encode())
        reader.execute("SELECT count(*), pg_sleep(0.5) FROM tickets.inc")
        _applied_meanwhile(act, key, "a reader looks at everything")


def _tries_more_than_reading(act: Act) -> None:
    """Each of these has to be refused."""
    for statement in (
        f"LOCK TABLE {_TABLES} IN ROW EXCLUSIVE MODE",
        "SELECT 1 FROM ingest.ledger FOR UPDATE",
        "UPDATE tickets.inc SET raw = '{}'",
        "DELETE FROM ingest.ledger",
        "INSERT INTO ingest.rejects SELECT * FROM ingest.rejects",
        "SELECT tickets.capture_history()",
        "CREATE TABLE tickets.mine (a int)",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
        "NOTIFY anything; SET ROLE consumer",
    ):
        try:
            with psycopg.connect(act.world.dashboard) as reader:
                # Each is a literal from above.
                reader.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            continue
        act.complain(f"a reader was not refused: {statement}")


def _held(lock: str) -> Callable[[Act], None]:
    def play(act: Act) -> None:
        with act.away(), psycopg.connect(act.stage.database) as administrator:
            administrator.execute(lock.encode())
            act.hold()

    return play


def _ended(act: Act) -> None:
    """Every connection of the consumers, from the server's side."""
    with act.away():
        for _ in range(3):
            act.stage.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'consumer'")
            act.hold(act.lasting / 3)


def _silent(act: Act) -> None:
    with act.unheard("postgres"):
        act.hold()


def _applied_meanwhile(act: Act, key: str, while_what: str) -> None:
    act.put_good(key, csv([act.ticket()]))
    act.announce(key)
    act.has_to_be_applied(key, f"a good file is not applied while {while_what}")


def _ends_beside(act: Act) -> None:
    """One more consumer is told to end while it waits for an answer; it ends once it has one."""
    consumer = act.stage.start("consume")
    act.wait_for(lambda: "consuming" in consumer.output(), "one more consumer does not come up")
    with act.unheard("postgres"):
        for _ in range(4):
            act.good_file()
        act.hold(act.lasting / 2)
        consumer.terminate()
        act.hold(act.lasting / 2)
    act.has_to_end(consumer, "a database was not heard for a while")


HOSTILITIES = [
    Hostility("every advisory lock", "READ", _every_lock),
    Hostility("a snapshot that is kept", "READ", _reads_for_long),
    Hostility("more than reading", "READ", _tries_more_than_reading),
    Hostility("the tickets locked by an administrator", "nobody", _held("LOCK TABLE tickets.inc")),
    Hostility("the ledger locked by an administrator", "nobody", _held("LOCK TABLE ingest.ledger IN EXCLUSIVE MODE")),
    Hostility("the watermark's row held", "nobody", _held("SELECT 1 FROM tickets.import_meta FOR UPDATE")),
    Hostility("connections ended by the server", "nobody", _ended),
    Hostility("a database that is not heard", "nobody", _silent),
    Hostility("a consumer's end while the database is not heard", "nobody", _ends_beside),
]
