"""What `poll` asks the ledger, beside a consumer's database."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from consumer.postgres import database
from consumer.postgres.database import Role
from consumer.settings import ApplySettings, DatabaseChoice, DatabaseSettings
from consumer.upkeep.verdicts import Ledger
from publisher.settings import load
from publisher.sources.poller import Settled, nothing_settled


@contextmanager
def settled_by_ledger(bucket: str) -> Iterator[Settled]:
    """For one poll: what it need not offer. Without DATABASE_URL, or a database that answers, it offers everything.

    Raises: Misconfigured.
    """
    if not load(DatabaseChoice).is_made:
        yield nothing_settled
        return
    passes_over = load(ApplySettings).changed_policy == "ignore"
    connect = partial(database.connect, load(DatabaseSettings), Role.READ)
    with Ledger(connect, bucket, passes_over=passes_over) as ledger:
        yield lambda page: [verdict is not None for verdict in ledger.verdicts(page)]
        if ledger.fault is not None:
            detail, so = str(ledger.fault), "everything that waits is offered"
            structlog.get_logger().warning("the ledger cannot be asked", detail=detail, so=so)
