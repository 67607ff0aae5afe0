"""Bring a database to the current schema: plain numbered SQL files, one transaction each, one at a time.

A database that the batch system made has the first ten already: each file's first line asks whether it does, and
those are recorded as adopted instead of being run. Its rows then get the position of its old watermark. At the end of
each run the database's roles have the rights that they need, and no more.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from importlib.metadata import version
from typing import Literal, LiteralString

import structlog
from psycopg import errors
from psycopg.rows import DictRow

from consumer.feeds.feed import Feed
from consumer.postgres import database, feed_tables
from consumer.postgres.database import DATABASE, Connection
from publisher.arrivals.keys import ChangeFileKey, read_key
from publisher.errors import (
    DatabaseDown,
    DependencyDown,
    HeldByAnother,
    Misconfigured,
    Permanent,
    StatementRefused,
    WrongSchema,
)

_TURN_SECONDS = 600
"""A migration of a large database takes minutes; somebody else's that takes longer is told and not waited for."""

BACK = "run the newer version again, or restore the database from before it (docs/operations.md, Going back)"
"""What to do where the database is ahead."""

_VERSION = version("fleettickets")

_WITH_OLD_TABLES = "15_adopted_tables"
_WITH_SERVER_WIDE_ROLES, _WITH_OWN_ROLES = "17_roles", "22_roles"

_PROBE = re.compile(r"\A-- adopted when: (?P<probe>SELECT .+)\n")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `sql/migrations/`."""

    name: str
    sql: LiteralString
    sha256: str

    @property
    def probe(self) -> LiteralString | None:
        """A query for one boolean: has another program already done this?"""
        match = _PROBE.match(self.sql)
        return match["probe"] if match else None


@dataclass(frozen=True, slots=True)
class Step:
    """Where one migration stands; `how` is None while it is pending."""

    name: str
    how: Literal["run", "adopted"] | None
    applied_at: datetime | None
    edited: bool
    """The file differs from the one that was run."""


def all_migrations() -> list[Migration]:
    folder = resources.files("sql").joinpath("migrations")
    found = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            sql = file.read_text(encoding="utf-8")
            digest = hashlib.sha256(sql.encode()).hexdigest()
            found.append(Migration(file.name.removesuffix(".sql"), sql, digest))
    return found


def status(connection: Connection) -> list[Step]:
    """Every migration in order. Changes nothing.

    Raises: DependencyDown.
    """
    log = _log(connection)
    return [
        Step(
            migration.name,
            log[migration.name]["how"] if migration.name in log else None,
            log[migration.name]["applied_at"] if migration.name in log else None,
            migration.name in log and log[migration.name]["sha256"] != migration.sha256,
        )
        for migration in all_migrations()
    ]


def _log(connection: Connection) -> dict[str, DictRow]:
    with database.translated_errors():
        known = database.row(connection, "migrations", "log_exists")
        logged = database.rows(connection, "migrations", "read_log") if known and known["exists"] else []
    return {entry["name"]: entry for entry in logged}


def ahead(connection: Connection) -> list[str]:
    """The migrations that another version of the program has done here, and which this one does not have.

    Raises: DependencyDown.
    """
    return sorted(_log(connection).keys() - {migration.name for migration in all_migrations()})


def require_not_ahead(connection: Connection) -> None:
    """Raises: WrongSchema, when the program was taken back to an older version than the database; DependencyDown."""
    if unknown := ahead(connection):
        first, *others = unknown
        more = f" and {len(others)} more" if others else ""
        raise WrongSchema(f"is ahead of this program: it has {first}{more}, which is not in version {_VERSION}", BACK)


def require_not_behind(connection: Connection) -> None:
    """All that what runs already asks again and again: an upgrade migrates first, and replaces it then.

    Raises: WrongSchema, when something is pending; DependencyDown.
    """
    pending = next((step.name for step in status(connection) if step.how is None), None)
    if pending:
        raise WrongSchema(f"lacks migration {pending}", "run: fleettickets migrate")


def require_migrated(connection: Connection) -> None:
    """Raises: WrongSchema; Misconfigured, when rows are hidden from this login; DependencyDown."""
    require_not_ahead(connection)
    require_not_behind(connection)
    with database.translated_errors():
        hidden = database.row(connection, "roles", "filtered") or {}
    if hidden["tables"]:
        raise Misconfigured(
            f"row-level security hides rows of {', '.join(hidden['tables'])} from {hidden['user']}: "
            f"ALTER ROLE {hidden['user']} BYPASSRLS, or DISABLE ROW LEVEL SECURITY on them"
        )


def migrate(connection: Connection, report: Callable[[str, str], None], feeds: Sequence[Feed]) -> int:
    """Run or adopt what is pending, and make what the feeds lack; `report(name, how)` is called after each.

    Gives how many migrations there were.

    Raises: DependencyDown; HeldByAnother; StatementRefused, naming the migration; Misconfigured, when a file that was
    already run has been edited, or when an adopted database has what no migration can do anything about.
    """
    done: list[str] = []
    with _step(connection, "the log of migrations"):
        database.rows(connection, "migrations", "create_log")
    with _step(connection, "the roles"), connection.transaction():
        _take_turn(connection)
        database.rows(connection, "roles", "make_roles")
        _check(connection)
    for together in _steps(all_migrations()):
        brought: list[tuple[str, str | None]] = []
        with database.translated_errors(), connection.transaction():
            for migration in together:
                with _step(connection, f"migration {migration.name}"):
                    _take_turn(connection)
                    brought.append((migration.name, _bring(connection, migration)))
            if (_WITH_SERVER_WIDE_ROLES, "run") in brought:
                database.rows(connection, "roles", "close_server_wide")
        for name, how in brought:
            if how is not None:
                done.append(name)
                report(name, how)
    with _step(connection, "the tables of the feeds"), connection.transaction():
        _take_turn(connection)
        for name in feed_tables.make(connection, feeds):
            report(f"feed {name}", "declared")
    with _step(connection, "the rows of the batch import"), connection.transaction():
        _take_turn(connection)
        _position_old_rows(connection)
    with _step(connection, "the rights of the roles"), connection.transaction():
        _take_turn(connection)
        database.rows(connection, "roles", "close_others")
        database.rows(connection, "roles", "give_rights")
        database.rows(connection, "roles", "tell_of_rights")
    return len(done)


def _steps(migrations: Sequence[Migration]) -> Iterator[list[Migration]]:
    """One migration each, but for those from the roles of the whole server to the roles of this database.

    In between, logins of other databases could come in: ended there, nobody would know later that none was meant to.
    """
    names = [migration.name for migration in migrations]
    first, last = names.index(_WITH_SERVER_WIDE_ROLES), names.index(_WITH_OWN_ROLES)
    yield from ([migration] for migration in migrations[:first])
    yield list(migrations[first : last + 1])
    yield from ([migration] for migration in migrations[last + 1 :])


@contextmanager
def _step(connection: Connection, what: str) -> Iterator[None]:
    """Say of an error which step it ended, what the server says, and what to do. Nothing of the step is done then."""
    try:
        with database.translated_errors():
            yield
    except (DependencyDown, Permanent, StatementRefused) as error:
        cause = error.__cause__
        told = error.detail
        if isinstance(cause, errors.Error) and cause.diag.message_primary:
            told = "; ".join(filter(None, (cause.diag.message_primary, cause.diag.message_detail)))
            told = " ".join(told.split())
        match cause:
            case errors.RaiseException():
                raise Misconfigured(told) from error
            case errors.LockNotAvailable():
                holders = _in_the_way(connection, migrations_only=False)
                raise HeldByAnother(DATABASE, f"{what} has waited long enough for {holders}; migrate again") from error
            case errors.InsufficientPrivilege():
                raise StatementRefused(DATABASE, f"{what}: {told}; migrate as the owner of the schemas") from error
        if isinstance(error, DependencyDown):
            raise DatabaseDown(DATABASE, f"{what}: {told}; nothing of it is done, so migrate again") from error
        raise StatementRefused(
            DATABASE, f"{what}: {told}; nothing of it is done: mend that and migrate again"
        ) from error


def _take_turn(connection: Connection) -> None:
    """Wait until no other migration runs, and keep others out until the transaction ends."""
    end = time.monotonic() + _TURN_SECONDS
    while True:
        try:
            with connection.transaction():
                database.rows(connection, "migrations", "take_turn")
        except errors.LockNotAvailable:
            if time.monotonic() > end:
                raise
            holders = _in_the_way(connection, migrations_only=True)
            structlog.get_logger().warning("waiting", detail=f"another migration: {holders}")
        else:
            return


def _in_the_way(connection: Connection, *, migrations_only: bool) -> str:
    found = database.row(connection, "migrations", "in_the_way", {"migrations_only": migrations_only})
    return str(found["holders"]) if found and found["holders"] else "somebody who has ended by now"


def _check(connection: Connection) -> None:
    steps = status(connection)
    for step in steps:
        if step.edited and step.how == "run":
            raise Misconfigured(f"migration {step.name} was changed after it was run; undo that and add a new file")
    require_not_ahead(connection)
    if any(step.name == _WITH_OLD_TABLES and step.how is None for step in steps):
        database.rows(connection, "adoption", "check_adoption")


def _bring(connection: Connection, migration: Migration) -> Literal["run", "adopted"] | None:
    """Run or adopt one migration in the caller's transaction, unless that has been done meanwhile."""
    steps = status(connection)
    if any(step.name == migration.name and step.how for step in steps):
        return None
    is_adopted = all(step.how != "run" for step in steps) and _is_in_place(connection, migration)
    if migration.name == _WITH_OLD_TABLES:
        database.rows(connection, "adoption", "set_other_watermarks_aside")
    if not is_adopted:
        connection.execute(migration.sql)
    if migration.name == _WITH_OLD_TABLES:
        database.rows(connection, "adoption", "put_other_watermarks_back")
    how: Literal["run", "adopted"] = "adopted" if is_adopted else "run"
    database.rows(
        connection,
        "migrations",
        "record_migration",
        {"name": migration.name, "sha256": migration.sha256, "how": how},
    )
    return how


def _is_in_place(connection: Connection, migration: Migration) -> bool:
    if migration.probe is None:
        return False
    answer = connection.execute(migration.probe).fetchone()
    return answer is not None and next(iter(answer.values())) is True


def _position_old_rows(connection: Connection) -> None:
    old = database.row(connection, "adoption", "old_watermark")
    if old is None:
        return
    key = read_key(old["key"], old["key"].rpartition("/")[0] + "/")
    if not isinstance(key, ChangeFileKey):
        raise Misconfigured(
            f"tickets.import_meta has the watermark {old['key']!r}, and {key.reason}: "
            "set metadata.source_max_key to the key of the newest file imported"
        )
    parameters = {"key": key.key, "key_time": key.time}
    database.rows(connection, "adoption", "position_old_rows", parameters)
    database.rows(connection, "adoption", "keep_adoption", parameters)
    database.rows(connection, "adoption", "complete_old_watermark", parameters)
