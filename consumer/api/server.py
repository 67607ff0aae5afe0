"""The process that serves the read API."""

import asyncio
import contextlib
import gc
import socket
from threading import Event

import structlog
from anyio import to_thread

from consumer.api.app import application
from consumer.api.bodies import Bodies
from consumer.api.live import Live
from consumer.api.reading import Reader
from consumer.feeds.feed import Feeds
from consumer.postgres.database import DATABASE, Pool
from consumer.settings import ApiSettings
from publisher import metrics
from publisher.absences import Absences
from publisher.errors import DependencyDown
from publisher.heartbeat import Pulse
from publisher.log import Sparing
from publisher.sources import http_limits, http_server
from publisher.sources.places import Places

_GRACE_SECONDS = 5
_SPARE_THREADS = 8
_TELL_SECONDS = 60
log = structlog.get_logger()


async def serve(  # noqa: PLR0917 - all of them are needed
    listening: socket.socket, pool: Pool, feeds: Feeds, settings: ApiSettings, stop: Event, pulse: Pulse
) -> None:
    """Answer until SIGTERM or SIGINT, then finish the requests under way.

    `stop` is what the caller's handlers of these signals set; uvicorn passes the signals on to them at its end.
    Raises: Misconfigured, for a database that lacks a migration; one that is away is waited for.
    """
    # Besides the looks of those who ask, those for the live events and the health.
    to_thread.current_default_thread_limiter().total_tokens = settings.connections + _SPARE_THREADS
    absences = Absences()
    reader = Reader(pool, Bodies(), absences)
    metrics.show_absences(metrics.SERVE_AWAY, absences, {"postgres": DATABASE})
    live = Live(reader, feeds, pulse)
    try:
        await asyncio.to_thread(reader.require_ready)
    except DependencyDown as error:
        log.warning("the database is away", detail=str(error))
    warnings = Sparing()

    def refuse(reason: str, detail: str, client: str) -> None:
        metrics.ENDED.labels(reason).inc()
        warnings.warn("ended", reason, detail=detail, client=client)

    places: Places[http_limits.LimitedProtocol] = Places(http_limits.connections())
    limits = http_limits.Limits(places, settings.answer_seconds + http_limits.STRANGER_SECONDS, refuse)
    server = http_server.Server(
        application(reader, live, feeds, settings), limits, int(settings.answer_seconds) + _GRACE_SECONDS
    )
    telling = asyncio.create_task(_tell_now_and_then(warnings))
    # uvicorn takes the signals, so it is asked as well.
    looking = asyncio.create_task(live.run(lambda: server.should_exit or stop.is_set()))
    # What is there by now stays; to look through it again and again for what does not would take a fifth of the time.
    gc.freeze()
    host, port = listening.getsockname()[:2]
    log.info("listening", host=host, port=port)
    await server.run_until(stop, listening, pulse)
    await looking
    telling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await telling
    warnings.tell()
    log.info("stopped")


async def _tell_now_and_then(warnings: Sparing) -> None:
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        warnings.tell()
