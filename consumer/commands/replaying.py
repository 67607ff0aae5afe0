"""What `dead-letters replay` asks the ledger, beside a consumer's database."""

from collections.abc import Iterator
from contextlib import contextmanager

from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseChoice, DatabaseSettings, VerdictSettings
from consumer.upkeep.replays import LedgerOfReplays
from publisher.broker.replays import Replays
from publisher.settings import load


@contextmanager
def replays_of_ledger() -> Iterator[Replays | None]:
    """None without DATABASE_URL.

    Raises: DependencyDown, Misconfigured.
    """
    if not load(DatabaseChoice).is_made:
        yield None
        return
    patience = load(VerdictSettings).answer_seconds
    with database.connect(load(DatabaseSettings), Role.READ, purpose="replay", patience=patience) as connection:
        migrate.require_migrated(connection)
        yield LedgerOfReplays(connection)
