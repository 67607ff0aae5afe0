"""What the ledger has decided of the versions that lie in `changes/`: for `status`, and for the poller."""

from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Self

from consumer.postgres import database
from consumer.postgres.migrate import require_not_behind
from consumer.upkeep.views import Connect
from publisher.errors import FleetticketsError
from publisher.store.bucket import ObjectSummary

if TYPE_CHECKING:
    from consumer.postgres.database import Connection


class Verdict(StrEnum):
    """Why a delivery of a version would do nothing now."""

    IGNORED = "ignored"
    DISCARDED = "discarded"
    DEAD_LETTERS = "dead letters"
    RETRY = "retry"


class Ledger:
    """A connection to ask by, page after page. Once that fails, nothing is known any more, and `fault` says why."""

    def __init__(self, connect: Connect, bucket: str, *, passes_over: bool) -> None:
        self._connect = connect
        self._bucket = bucket
        self._passes_over = passes_over
        self._opened = ExitStack()
        self._connection: Connection | None = None
        self.fault: FleetticketsError | None = None

    def __enter__(self) -> Self:
        try:
            self._connection = self._opened.enter_context(self._connect())
            require_not_behind(self._connection)
        except FleetticketsError as error:
            self._fail(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

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
        self._connection = None
        self._opened.__exit__(type(error), error, error.__traceback__)
