"""What `poll` asks the ledger, beside a consumer's database."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from consumer.postgres import database
from consumer.postgres.database import Connection, Role
from consumer.postgres.migrate import require_not_ahead
from consumer.settings import ApplySettings, DatabaseChoice, DatabaseSettings
from consumer.upkeep.verdicts import Ledger
from publisher.absences import Absences
from publisher.errors import DependencyDown
from publisher.settings import load
from publisher.sources.poller import Settled, nothing_settled

_PATIENCE_SECONDS = 5
"""Nothing waits for it: a poll does without."""


def require_database() -> None:
    """What no later poll could do anything about; a database that is away is no reason not to poll.

    Raises: Misconfigured.
    """
    if load(DatabaseChoice).is_made:
        settings = load(DatabaseSettings)
        with (
            suppress(DependencyDown),
            database.connect(settings, Role.READ, purpose="poll", patience=_PATIENCE_SECONDS) as connection,
        ):
            require_not_ahead(connection)


@contextmanager
def settled_by_ledger(bucket: str, absences: Absences) -> Iterator[Settled]:
    """For one poll: what it need not offer. Without DATABASE_URL, or a database that answers, it offers everything.

    Raises: Misconfigured.
    """
    if not load(DatabaseChoice).is_made:
        yield nothing_settled
        return
    passes_over = load(ApplySettings).changed_policy == "ignore"
    with Ledger(_connect, bucket, passes_over=passes_over) as ledger:
        yield lambda page: [verdict is not None for verdict in ledger.verdicts(page)]
        if ledger.fault is None:
            absences.served(database.DATABASE)
        else:
            absences.missed(ledger.fault)
            detail, so = str(ledger.fault), "everything that waits is offered"
            structlog.get_logger().warning("the ledger cannot be asked", detail=detail, so=so)


def _connect() -> Connection:
    return database.connect(load(DatabaseSettings), Role.READ)
