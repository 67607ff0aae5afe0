"""The geocode follow-on: one batch of lookups for all open requests, and a new request for the rest."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from time import monotonic

import structlog

from consumer.fail_points import Reached
from consumer.follow_ons import outbox
from consumer.follow_ons.outcomes import Postponed, TicketsGeocoded
from consumer.follow_ons.telling import tell_done
from consumer.geocoding import known_places
from consumer.geocoding.gazetteer import BATCH, BATCH_SECONDS, Batch, Gazetteer
from consumer.geocoding.known_places import PlaceKind
from consumer.geocoding.locationiq import GeocoderRefused
from consumer.geocoding.quota import Paused
from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.broker.consuming import Delivery
from publisher.broker.topology import RETRY_DELAYS, Queue
from publisher.trace import Trace

_REFUSED_SECONDS = RETRY_DELAYS[-1]
log = structlog.get_logger()


class GeocodeHandler:
    """Handles GeocodeTickets. For one thread."""

    def __init__(
        self, pool: Pool, gazetteer: Gazetteer, relay: Callable[[Trace | None], object], reached: Reached
    ) -> None:
        """`relay` sends the request for the rest of a batch, in the trace of that."""
        self._pool = pool
        self._gazetteer = gazetteer
        self._relay = relay
        self._reached = reached
        self._told_pause: tuple[str, date] | None = None
        """One line tells of a pause, not one for each request that waits."""

    def handle(self, delivery: Delivery) -> TicketsGeocoded | Postponed:
        """Run one batch, and tell of it; what the provider does not allow now is postponed.

        Raises: HeldByAnother, Stopped, DependencyDown.
        """
        began = monotonic()
        batch = Batch()
        try:
            self.geocode(batch, delivery.trace)
        except Paused as error:
            pause = (error.reason, error.until.date())
            if pause != self._told_pause:
                log.warning("geocoder", detail=str(error))
            self._told_pause = pause
            return Postponed((error.until - datetime.now(UTC)).total_seconds())
        except GeocoderRefused as error:
            # Somebody has to mend a setting or the account; files go on meanwhile, and nobody else asks.
            log.error("geocoder", detail=str(error), retry_in_s=_REFUSED_SECONDS)  # noqa: TRY400 - its stack tells nothing
            self._told_pause = (str(error), (datetime.now(UTC) + timedelta(seconds=_REFUSED_SECONDS)).date())
            return Postponed(_REFUSED_SECONDS)
        finally:
            if batch.outcomes or batch.placed:
                seconds = round(monotonic() - began, 3)
                delivery.span.links(batch.traces)
                tell_done("geocode", batch.traces, seconds=seconds, placed=batch.placed, **batch.outcomes)
        self._told_pause = None
        return TicketsGeocoded()

    def geocode(self, batch: Batch, trace: Trace | None = None) -> None:
        """Run one batch, if somebody asks for one; `batch` tells of it, and its rest goes on in the trace.

        Raises: what Gazetteer.work does; then the requests stay open.
        """
        with database.transaction(self._pool) as connection:
            requests = outbox.unhandled(connection, Queue.GEOCODE)
        if not requests:
            return
        batch.traces = outbox.traces_of(requests)
        self._gazetteer.quota.require_open()
        self._gazetteer.work(PlaceKind, BATCH, batch, seconds=BATCH_SECONDS)
        with database.transaction(self._pool) as connection:
            outbox.mark_handled(connection, requests)
            if batch.rest:
                known_places.ask_for_batch(connection)
            elif batch.held_back and (due_at := known_places.ask_for_batch_tomorrow(connection)):
                why = "they come from files with many, and what is left of the day's requests is for the others"
                log.info("places wait", places=batch.held_back, until=str(due_at), detail=why)
            self._reached("geocoded, not committed")
        self._reached("geocoded, before relay")
        if batch.rest:
            self._relay(trace)
