"""What becomes of a message that failed: another try after a growing delay, or the dead letters."""

from dataclasses import dataclass

from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.arrivals import messages
from publisher.broker import dead_letters, publishing
from publisher.broker.consuming import Delivery
from publisher.broker.dead_letters import LastFailure
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import MAX_ATTEMPTS, RETRY_DELAYS

UNEXPECTED = "unexpected"
"""The reason of a failure that may be gone at the next try; every other one is permanent."""


HELD_SECONDS = RETRY_DELAYS[2]
"""The next try of a message whose failure may not be its own, and comes no nearer to an end by it."""


def failures_in_a_row(pool: Pool) -> int:
    """Failed attempts that wait for their retry, for no reason of the files' own, since the last file was applied.

    Raises: DependencyDown.
    """
    with database.transaction(pool) as connection:
        found = database.row(connection, "ledger", "failures_in_a_row", {"reason": UNEXPECTED})
    return int(found["failures"]) if found else 0


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try of a message, of `attempts` so far."""

    key: str
    reason: str
    detail: str
    attempts: int
    etag: str | None = None
    """Of the version that failed; None where there is no file."""
    is_held: bool = False
    """Whether too many in a row fail for this reason for it to be the message's own."""

    @property
    def retry_in(self) -> int | None:
        """Seconds to the next try; None for a dead letter."""
        if self.is_held:
            return HELD_SECONDS
        return RETRY_DELAYS[self.attempts - 1] if self.reason == UNEXPECTED and self.attempts < MAX_ATTEMPTS else None

    @property
    def fingerprint(self) -> str:
        return dead_letters.fingerprint(self.reason, self.detail)

    def publishing(self, delivery: Delivery) -> Outgoing:
        """The message that stands for the delivery now; once it is confirmed, the delivery is settled."""
        queue, body, delay = delivery.queue, delivery.body, self.retry_in
        tried = f"try {self.attempts} failed: {self.reason}: {self.detail}"
        history = messages.history(delivery.headers, also=tried)
        if delay is not None:
            # What a person released stays released until it is decided.
            again = "replay" if delivery.headers.get(messages.AGAIN) == "replay" else "retry"
            headers = {messages.AGAIN: again, messages.ATTEMPTS: self.attempts, messages.HISTORY: history}
            return publishing.retry(queue, body, headers, delay=delay)
        last = LastFailure(self.key, self.reason, self.detail, self.attempts, history, self.etag)
        return dead_letters.dead_letter(queue, body, last)
