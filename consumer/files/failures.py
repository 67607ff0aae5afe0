"""What becomes of a delivery that failed: held back, another try after a growing delay, or the dead letters."""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import structlog

from consumer.fail_points import Reached
from consumer.files import ledger
from consumer.files.applying import FROM_THE_FUTURE, duplicate_of_failed, takes_changed_back
from consumer.files.outcomes import HELD_SECONDS, UNEXPECTED, Duplicate, Failure
from consumer.files.versions import Asked, Sighting, Trouble
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from publisher.arrivals import messages
from publisher.broker import dead_letters, publishing
from publisher.broker.consuming import Delivery
from publisher.broker.dead_letters import LastFailure
from publisher.broker.publishing import Outgoing
from publisher.errors import FailsForThisOne, HeldBack

_PATIENCE_SECONDS = 5
"""For so long a dependency may fail one version and serve others, before that counts as the version's own fault."""
log = structlog.get_logger()


def asked_by(delivery: Delivery) -> Asked:
    match delivery.headers.get(messages.AGAIN):
        case None:
            return Asked.BY_ITS_EVENT
        case "replay":
            return Asked.BY_A_PERSON
        case _:
            return Asked.BY_ITS_RETRY


def released_by(delivery: Delivery) -> str | None:
    """The ETag of the version that a replay releases, "" where its letter tells none; None if it is no replay."""
    return messages.etag(delivery.headers) if asked_by(delivery) is Asked.BY_A_PERSON else None


def lets_off(delivery: Delivery) -> bool:
    """Whether a person lets the version that a replay releases lack columns."""
    return released_by(delivery) is not None and messages.allows_missing(delivery.headers)


def outgoing(failure: Failure, delivery: Delivery) -> Outgoing:
    """The message that stands for a failed delivery now; once it is confirmed, the delivery is settled."""
    queue, body, delay = delivery.queue, delivery.body, failure.retry_in
    tried = f"try {failure.attempts} failed: {failure.reason}: {failure.detail}"
    history = messages.history(delivery.headers, also=tried)
    if delay is not None:
        headers = {messages.AGAIN: "retry", messages.ATTEMPTS: failure.attempts, messages.HISTORY: history}
        if replayed := messages.replays(delivery.headers):
            headers[messages.REPLAYS] = replayed
        if (released := released_by(delivery)) is not None:
            # What a person released stays released until it is decided.
            headers |= {messages.AGAIN: "replay", messages.ETAG: released}
            if lets_off(delivery):
                headers[messages.ALLOWED] = messages.MISSING_COLUMNS
        return publishing.retry(queue, body, delivery.trace, headers, delay=delay)
    last = LastFailure(
        failure.key,
        failure.reason,
        failure.detail,
        failure.attempts,
        history,
        failure.etag,
        messages.replays(delivery.headers),
    )
    return dead_letters.dead_letter(queue, body, delivery.trace, last)


class Failures:
    """Puts failed tries of deliveries on record, with the letters that follow. Safe to share between threads."""

    def __init__(
        self,
        pool: Pool,
        publish: Callable[[Outgoing], None],
        settings: ApplySettings,
        *,
        failed: Callable[[str], None],
        run: int,
        reached: Reached,
    ) -> None:
        """`failed` is told of each unexpected one, and raises EverythingFails when that is not to be recorded.

        `run`: so many files in a row with a reason that can be everybody's are no more failures of their own.
        """
        self._pool = pool
        self._publish = publish
        self._settings = settings
        self._failed = failed
        self._run = run
        self._told_of_run = False
        self._reached = reached

    def fail(
        self, connection: Connection, sighting: Sighting, trouble: Trouble, delivery: Delivery
    ) -> Failure | Duplicate:
        """Record a failed try and publish what follows.

        Raises: NotConfirmed, EverythingFails, psycopg.Error.
        """
        if not trouble.was_read and (known := self._failed_before(connection, sighting, delivery)):
            return known
        # The key's lock is still held, so that of many deliveries of a bad file only one becomes a dead letter. It is
        # published before the ledger says so: a crash in between makes the file be tried again, never forgotten.
        if trouble.reason == UNEXPECTED:
            self._failed(trouble.detail)
        failed = self._recorded(connection, sighting, trouble)
        if failed is None and not trouble.was_read and not ledger.has_open_tail(connection, sighting):
            # The version that was announced is decided. What its key has now nobody knows.
            sighting = replace(sighting, etag="")
            failed = self._recorded(connection, sighting, trouble)
        if failed is None:
            return Duplicate(sighting.key.key, "was applied before")
        failure = Failure(
            sighting.key.key,
            trouble.reason,
            trouble.detail,
            failed.attempts,
            sighting.etag,
            is_held=trouble.reason == FROM_THE_FUTURE and self._is_one_of_a_run(connection, sighting, trouble),
            feed=sighting.feed.name,
            file_id=failed.file_id,
        )
        self._publish(outgoing(failure, delivery))
        self._reached("letter published, not recorded")
        if failure.retry_in is None:
            ledger.record_dead_lettered(connection, failed.file_id)
        else:
            ledger.record_retry(connection, failed.file_id, failure.retry_in)
        return failure

    def hold_back(
        self, sighting: Sighting, error: FailsForThisOne, delivery: Delivery, *, began: float, was_read: bool
    ) -> Failure | Duplicate:
        """Put on record that a dependency fails this version; its own failure, if others are applied meanwhile.

        `began`: when this try did, by the monotonic clock.
        Raises: HeldBack, when that cannot be told yet; DependencyDown, when the database is away for others too.
        """
        with database.transaction(self._pool) as connection:
            ledger.lock_key(connection, sighting.bucket, sighting.key.key)
            if not was_read and (known := self._failed_before(connection, sighting, delivery)):
                return known
            held = self._held(connection, sighting, error, delivery, began)
            if held is None and not was_read:
                if ledger.has_open_tail(connection, sighting):
                    return Duplicate(sighting.key.key, "was applied before")
                # The version that was announced is decided. What its key has now nobody knows.
                sighting = replace(sighting, etag="")
                held = self._held(connection, sighting, error, delivery, began)
            if held is not None and held.is_own:
                trouble = Trouble(UNEXPECTED, str(error), error, was_read=was_read)
                return self.fail(connection, sighting, trouble, delivery)
        self._reached("held back, not put aside")
        if held is None:  # it was applied before all the same, as when the answer to a COMMIT was lost
            raise error
        raise HeldBack(error, held.held_seconds) from error

    def _held(
        self, connection: Connection, sighting: Sighting, error: FailsForThisOne, delivery: Delivery, began: float
    ) -> ledger.Held | None:
        takes_back = takes_changed_back(self._settings, asked_by(delivery))
        tried_seconds = monotonic() - began
        return ledger.record_held(
            connection, sighting, str(error), _PATIENCE_SECONDS, tried_seconds, takes_back=takes_back
        )

    @staticmethod
    def _failed_before(connection: Connection, sighting: Sighting, delivery: Delivery) -> Duplicate | None:
        """What could not be read is not claimed either: whether this delivery is one that nobody asked for."""
        is_dead_letter = ledger.count_duplicate_of_failed(connection, sighting, asked_by(delivery))
        return None if is_dead_letter is None else duplicate_of_failed(sighting, is_dead_letter=is_dead_letter)

    @staticmethod
    def _recorded(connection: Connection, sighting: Sighting, trouble: Trouble) -> ledger.Failed | None:
        fingerprint = dead_letters.fingerprint(trouble.reason, trouble.detail)
        return ledger.record_failed(connection, sighting, trouble, fingerprint)

    def _is_one_of_a_run(self, connection: Connection, sighting: Sighting, trouble: Trouble) -> bool:
        """Whether so many in a row fail for this reason that it is hardly their own. Files of another time flow on."""
        is_one = ledger.is_one_of_a_run(connection, sighting.feed.name, trouble.reason, self._run, HELD_SECONDS)
        if is_one and not self._told_of_run:
            do = "no more dead letters for it, each is tried again; are the clocks right, the exporter's too?"
            log.error(
                "one after the other", reason=trouble.reason, detail=trouble.detail, retry_in_s=HELD_SECONDS, do=do
            )
        self._told_of_run = is_one
        return is_one
