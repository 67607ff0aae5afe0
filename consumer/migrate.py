"""Bring a database to the current schema: plain numbered SQL files, one transaction each, under one lock.

A database that the batch system made has the first ten already: each file's first line asks whether it does, and
those are recorded as adopted instead of being run. Its rows then get the position of its old watermark.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Literal, LiteralString

from consumer import database
from consumer.database import Connection
from publisher.errors import Misconfigured
from publisher.keys import ChangeFileKey, read_key

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
    with database.translated_errors():
        known = database.row(connection, "migrations", "log_exists")
        logged = database.rows(connection, "migrations", "read_log") if known and known["exists"] else []
    log = {entry["name"]: entry for entry in logged}
    return [
        Step(
            migration.name,
            log[migration.name]["how"] if migration.name in log else None,
            log[migration.name]["applied_at"] if migration.name in log else None,
            migration.name in log and log[migration.name]["sha256"] != migration.sha256,
        )
        for migration in all_migrations()
    ]


def require_migrated(connection: Connection) -> None:
    """Raises: Misconfigured, when something is pending; DependencyDown."""
    pending = next((step.name for step in status(connection) if step.how is None), None)
    if pending:
        raise Misconfigured(f"the database lacks migration {pending}; run: fleettickets migrate")


def migrate(connection: Connection, report: Callable[[str, str], None]) -> int:
    """Run or adopt what is pending; `report(name, how)` is called after each. Gives how many there were.

    Raises: DependencyDown; Misconfigured when a file that was already run has been edited.
    """
    with database.translated_errors():
        database.row(connection, "migrations", "lock_migrations")
        try:
            database.rows(connection, "migrations", "create_log")
            steps = {step.name: step for step in status(connection)}
            for step in steps.values():
                if step.edited and step.how == "run":
                    raise Misconfigured(
                        f"migration {step.name} was changed after it was run; undo that and add a new file"
                    )
            pending = [migration for migration in all_migrations() if steps[migration.name].how is None]
            adopting = all(step.how != "run" for step in steps.values())
            for migration in pending:
                adopting = adopting and _is_in_place(connection, migration)
                with connection.transaction():
                    database.rows(connection, "migrations", "limit_lock_wait")
                    if not adopting:
                        connection.execute(migration.sql)
                    how = "adopted" if adopting else "run"
                    database.rows(
                        connection,
                        "migrations",
                        "record_migration",
                        {"name": migration.name, "sha256": migration.sha256, "how": how},
                    )
                report(migration.name, how)
            with connection.transaction():
                _position_old_rows(connection)
        finally:
            if not connection.closed:
                database.row(connection, "migrations", "unlock_migrations")
    return len(pending)


def _is_in_place(connection: Connection, migration: Migration) -> bool:
    if migration.probe is None:
        return False
    answer = connection.execute(migration.probe).fetchone()
    return answer is not None and next(iter(answer.values())) is True


def _position_old_rows(connection: Connection) -> None:
    old = database.row(connection, "migrations", "old_watermark")
    if old is None:
        return
    key = read_key(old["key"], old["key"].rpartition("/")[0] + "/")
    if not isinstance(key, ChangeFileKey):
        raise Misconfigured(
            f"tickets.import_meta has the watermark {old['key']!r}, and {key.reason}: "
            "set metadata.source_max_key to the key of the newest file imported"
        )
    parameters = {"key": key.key, "key_time": key.time}
    database.rows(connection, "migrations", "position_old_rows", parameters)
    database.rows(connection, "migrations", "keep_adoption", parameters)
    database.rows(connection, "migrations", "complete_old_watermark", parameters)
