"""What the ledger has decided of the versions that lie in `changes/`: for `status`, and for the poller."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType
from typing import Self

import structlog

from consumer.postgres import database
from consumer.postgres.database import Connection, Role
from consumer.postgres.migrate import require_migrated
from consumer.settings import ApplySettings, DatabaseChoice, DatabaseSettings
from publisher.errors import FleetticketsError
from publisher.settings import load
from publisher.sources.poller import Settled, nothing_settled
from publisher.store.bucket import ObjectSummary

log = structlog.get_logger()


class Verdict(StrEnum):
    """Why a delivery of a version would do nothing now."""

    IGNORED = "ignored"
    DISCARDED = "discarded"
    DEAD_LETTERS = "dead letters"
    RETRY = "retry"


class Ledger:
    """A connection to ask by, page after page. Once that fails, nothing is known any more, and `fault` says why."""

    def __init__(self, settings: DatabaseSettings, bucket: str, *, passes_over: bool) -> None:
        self._settings = settings
        self._bucket = bucket
        self._passes_over = passes_over
        self._connection: Connection | None = None
        self.fault: FleetticketsError | None = None

    def __enter__(self) -> Self:
        try:
            self._connection = database.connect(self._settings, Role.READ)
            require_migrated(self._connection)
        except FleetticketsError as error:
            self._fail(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def verdicts(self, page: Sequence[ObjectSummary]) -> list[Verdict | None]:
        """One for each version, None where a delivery would do something, or nobody knows."""
        verdicts: list[Verdict | None] = [None] * len(page)
        if self._connection is None:
            return verdicts
        parameters = {
            "bucket": self._bucket,
            "keys": [found.key for found in page],
            "etags": [found.etag for found in page],
            "modified": [found.modified for found in page],
            "passes_over": self._passes_over,
        }
        try:
            with database.translated_errors():
                for row in database.rows(self._connection, "verdicts", "of_waiting", parameters):
                    verdicts[row["number"] - 1] = Verdict(row["verdict"])
        except FleetticketsError as error:
            self._fail(error)
        return verdicts

    def _fail(self, error: FleetticketsError) -> None:
        self.fault = error
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def settled_by_ledger(bucket: str) -> Iterator[Settled]:
    """For one poll: what it need not offer. Without DATABASE_URL, or a database that answers, it offers everything.

    Raises: Misconfigured.
    """
    if not load(DatabaseChoice).is_made:
        yield nothing_settled
        return
    passes_over = load(ApplySettings).changed_policy == "ignore"
    with Ledger(load(DatabaseSettings), bucket, passes_over=passes_over) as ledger:
        yield lambda page: [verdict is not None for verdict in ledger.verdicts(page)]
        if ledger.fault is not None:
            log.warning("the ledger cannot be asked", detail=str(ledger.fault), so="everything that waits is offered")
